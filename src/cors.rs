//! Which pages of other origins a browser lets use a route (Fetch standard, "CORS protocol").
//!
//! This is no access control: whoever asks without a browser, or from an origin that is not listed, is
//! answered like anybody else. It is the browser that keeps the answer from the page.

use http::Method;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, ORIGIN, VARY,
};

/// What every response of ours may have that a page can use.
pub const EXPOSED: [&str; 5] = [
    "WWW-Authenticate",
    "Retry-After",
    "RateLimit",
    "RateLimit-Policy",
    "X-Request-Id",
];

/// What pages may send if the route does not say.
pub const USUAL_HEADERS: [&str; 2] = ["Authorization", "Content-Type"];

/// What the answer to a preflight depends on.
const VARY_PREFLIGHT: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
const VARY_ORIGIN: HeaderValue = HeaderValue::from_static("Origin");

/// What a route says of other origins: `cors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whose pages may use the route.
    pub origins: Vec<Origin>,
    /// `Access-Control-Allow-Methods`.
    pub methods: HeaderValue,
    /// `Access-Control-Allow-Headers`.
    pub headers: HeaderValue,
    /// `Access-Control-Expose-Headers`.
    pub expose: HeaderValue,
    /// Whether cookies and the like may be sent along.
    pub credentials: bool,
    /// `Access-Control-Max-Age`, in seconds.
    pub max_age: HeaderValue,
}

/// An origin or many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Whatever says that it is one.
    Any,
    /// This very one: `https://app.bonterra.network`.
    Exact(Box<str>),
    /// All below a domain.
    Below {
        /// `https://`.
        scheme: Box<str>,
        /// `.bonterra.network`, with the port if there is one.
        domain: Box<str>,
    },
}

/// What a browser asks before it sends what a page wants it to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preflight<'r> {
    /// The page's.
    pub origin: &'r HeaderValue,
    /// What it wants to use.
    pub method: Method,
}

// === impl Origin ===

impl Origin {
    /// Reads an entry of `origins`.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn parse(text: &str) -> Result<Self, (&'static str, &'static str)> {
        const HINT: &str = "write \"https://app.bonterra.network\", without a path";
        if text == "*" {
            return Ok(Self::Any);
        }
        if text == "null" {
            return Err((
                "`null` is the origin of every sandboxed page",
                "name the origin of your page",
            ));
        }
        let (scheme, rest) = text
            .split_once("://")
            .ok_or(("an origin begins with a scheme", HINT))?;
        let scheme_is_fine = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        if !scheme_is_fine {
            return Err(("this is no scheme", HINT));
        }
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        if let Some(port) = port {
            let usual = matches!((scheme, port), ("http", "80") | ("https", "443"));
            if usual {
                return Err(("browsers leave the usual port out", "remove it"));
            }
            if port.starts_with('0') || port.parse::<u16>().is_err() {
                return Err(("this is no port", HINT));
            }
        }
        if let Some(domain) = host.strip_prefix("*.") {
            if !is_name(domain) {
                return Err(("`*.` is followed by a domain in lower case", HINT));
            }
            return Ok(Self::Below {
                scheme: format!("{scheme}://").into(),
                domain: rest.trim_start_matches('*').into(),
            });
        }
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        if !is_name(host) && !bracketed {
            return Err((
                "this is no origin: a scheme, a host in lower case, and a port if it is unusual",
                HINT,
            ));
        }
        Ok(Self::Exact(text.into()))
    }

    /// Whether this is one of them.
    fn holds(&self, origin: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(own) => **own == *origin,
            Self::Below { scheme, domain } => origin
                .strip_prefix(&**scheme)
                .and_then(|rest| rest.strip_suffix(&**domain))
                .is_some_and(is_name),
        }
    }
}

/// Labels with dots between them, in lower case.
fn is_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    text.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(plain))
}

// === impl Preflight ===

impl<'r> Preflight<'r> {
    /// A request that is one: `OPTIONS` with one origin and the method that is asked for.
    pub fn of(method: &Method, headers: &'r HeaderMap) -> Option<Self> {
        if *method != Method::OPTIONS {
            return None;
        }
        let asked = only(headers, &ACCESS_CONTROL_REQUEST_METHOD)?;
        Some(Self {
            origin: only(headers, &ORIGIN)?,
            method: Method::from_bytes(asked.as_bytes()).ok()?,
        })
    }
}

/// The value of a field that is there once.
fn only<'r>(headers: &'r HeaderMap, name: &HeaderName) -> Option<&'r HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// The origin that a request names, if it is one.
pub fn origin(headers: &HeaderMap) -> Option<&HeaderValue> {
    only(headers, &ORIGIN)
}

// === impl Policy ===

impl Policy {
    /// Whether pages of this origin may use the route.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.to_str().ok().filter(|origin| !origin.is_empty());
        origin.is_some_and(|origin| self.origins.iter().any(|own| own.holds(origin)))
    }

    /// Answers a preflight of an origin that is allowed.
    pub fn answer(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        self.allow(origin, headers);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, self.max_age.clone());
        headers.insert(VARY, VARY_PREFLIGHT);
    }

    /// Says in a response of the route, whoever made it, that the page may read it; or only that
    /// this depends on the origin. What the upstream said of that goes.
    pub fn mark(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let theirs: Vec<HeaderName> = headers
            .keys()
            .filter(|name| name.as_str().starts_with("access-control-"))
            .cloned()
            .collect();
        for name in theirs {
            headers.remove(name);
        }
        if !varies_by_origin(headers) {
            headers.append(VARY, VARY_ORIGIN);
        }
        if let Some(origin) = origin.filter(|origin| self.allows(origin)) {
            self.allow(origin, headers);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, self.expose.clone());
        }
    }

    fn allow(&self, origin: &HeaderValue, headers: &mut HeaderMap) {
        let any = self.origins.contains(&Origin::Any) && !self.credentials;
        let allowed = if any {
            HeaderValue::from_static("*")
        } else {
            origin.clone()
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let values = headers.get_all(VARY).iter();
    values
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .map(<[u8]>::trim_ascii)
        .any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
}

#[cfg(test)]
#[path = "cors_tests.rs"]
mod tests;
