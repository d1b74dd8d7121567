//! The request that is asked about, made of the arguments as a client would make it.

use super::super::File;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The arguments of `explain`.
#[derive(Debug, clap::Args)]
pub struct Question {
    #[command(flatten)]
    pub(super) file: File,
    /// The method: GET, POST, ...
    #[arg(value_name = "METHOD")]
    method: String,
    /// Where to: `http://host/path?query`, or `/path?query` on host `localhost`.
    #[arg(value_name = "URL")]
    url: String,
    /// A header field, `Name: value`; as often as needed. `Host` overrides that of the URL.
    #[arg(short = 'H', long = "header", value_name = "FIELD")]
    headers: Vec<String>,
    /// The bearer token, or `-` to read it from standard input.
    /// Better use that: other users of this machine can see the arguments of a program.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    pub(super) token: Option<String>,
    /// The address that the request comes from, for `allow_ips` and `trusted_proxies`.
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    from: IpAddr,
    /// A PEM file with the client certificate that the connection is made with, for tokens that are bound to one.
    #[arg(long, value_name = "FILE")]
    pub(super) client_cert: Option<PathBuf>,
}

/// Why no request can be made of the arguments, in words.
#[derive(Debug)]
pub(super) struct Unusable(pub String);

// === impl Question ===

impl Question {
    /// Where the request comes from; the port is unknown.
    pub(super) fn peer(&self) -> SocketAddr {
        (self.from, 0).into()
    }

    /// The head as the gateway would receive it.
    ///
    /// # Errors
    /// If HTTP cannot carry what was asked for. What is wrong with a header's value or the token is
    /// said without showing it.
    pub(super) fn head(&self, token: Option<&[u8]>) -> Result<Parts, Unusable> {
        let unusable = |why: &str| Err(Unusable(why.to_owned()));
        let Ok(method) = Method::from_bytes(self.method.as_bytes()) else {
            return unusable("METHOD is a word such as GET");
        };
        let (target, host) = self.target()?;
        let mut headers = HeaderMap::new();
        for field in &self.headers {
            let (name, value) = header(field)?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            headers.insert(HOST, host);
        }
        if let Some(token) = token {
            // Blanks at the end are no part of a field value (RFC 9110 §5.5). A line break is kept: it
            // has to be refused.
            let value = [b"Bearer ", token].concat();
            let end = value.iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
            let value = HeaderValue::from_bytes(value.get(..=end.unwrap_or(0)).unwrap_or_default());
            let Ok(mut value) = value else {
                return unusable(
                    "the token has bytes that no header can carry, such as a line break: no client could send it",
                );
            };
            value.set_sensitive(true);
            headers.append(AUTHORIZATION, value);
        }
        let (mut head, ()) = Request::new(()).into_parts();
        head.method = method;
        head.uri = target;
        head.headers = headers;
        Ok(head)
    }

    /// The target in origin form, as clients send it, and the host to send it to.
    fn target(&self) -> Result<(Uri, HeaderValue), Unusable> {
        let unusable = |why: &str| Err(Unusable(why.to_owned()));
        let Ok(url) = self.url.parse::<Uri>() else {
            return unusable(
                "URL has characters that HTTP cannot carry, or no host; blanks and others are written as %20",
            );
        };
        if url.scheme().is_none() && (self.url.starts_with('/') || self.url == "*") {
            return Ok((url, HeaderValue::from_static("localhost")));
        }
        let (Some("http" | "https"), Some(authority)) = (url.scheme_str(), url.authority()) else {
            return unusable("URL is http://host/path, or /path alone");
        };
        if authority.as_str().contains('@') {
            return unusable(
                "URL has a user's name in it, which clients do not send; what they send instead can be given by -H 'Authorization: ...'",
            );
        }
        let Ok(host) = HeaderValue::from_str(authority.as_str()) else {
            return unusable("URL has a host that no header can carry");
        };
        let target = url.path_and_query().cloned().map(Uri::from);
        Ok((target.unwrap_or_default(), host))
    }
}

fn header(field: &str) -> Result<(HeaderName, HeaderValue), Unusable> {
    let Some((name, value)) = field.split_once(':') else {
        // It may be a value whose name was forgotten: it is not shown.
        return Err(Unusable(
            "a header has no colon; write -H 'Name: value'".to_owned(),
        ));
    };
    let shown = super::super::output::plain(name);
    let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
        return Err(Unusable(format!("`{shown}` is no name of a header")));
    };
    let Ok(value) = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes()) else {
        return Err(Unusable(format!(
            "the value of `{shown}` has characters that no header can carry, such as a line break"
        )));
    };
    Ok((parsed, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        question: Question,
    }

    fn head(arguments: &[&str]) -> Result<Parts, String> {
        let all = [&["explain"], arguments].concat();
        let parsed = Arguments::try_parse_from(all).map_err(|error| error.to_string())?;
        let question = parsed.question;
        let token = question.token.as_deref().map(str::as_bytes);
        question.head(token).map_err(|Unusable(why)| why)
    }

    #[test]
    fn what_is_asked_is_what_a_client_would_send() {
        for (arguments, target, host) in [
            (&["GET", "/a?b=c"][..], "/a?b=c", &["localhost"][..]),
            (&["GET", "http://h:80/a/../b"], "/a/../b", &["h:80"]),
            (&["GET", "https://h"], "/", &["h"]),
            (&["GET", "http://h?x"], "/?x", &["h"]),
            (&["OPTIONS", "*"], "*", &["localhost"]),
            (&["GET", "http://h/", "-H", "Host:  x "], "/", &["x"]),
            (
                &["GET", "/", "-H", "host: x", "-H", "host: y"],
                "/",
                &["x", "y"],
            ),
        ] {
            let head = head(arguments).expect("a request");
            assert_eq!(head.uri.to_string(), target, "{arguments:?}");
            assert!(head.headers.get_all(HOST).iter().eq(host), "{arguments:?}");
        }
        let both = head(&["GET", "/", "-H", "Authorization: Basic x", "--token", "t"]);
        let both = both.expect("a request").headers;
        let values: Vec<_> = both.get_all(AUTHORIZATION).iter().collect();
        assert_eq!(values, ["Basic x", "Bearer t"]);
    }

    #[test]
    fn what_http_cannot_carry_is_said_without_showing_it() {
        for (arguments, expected) in [
            (&["G T", "/"][..], "METHOD"),
            (&["GET", "/secret x"], "%20"),
            (&["GET", "secret"], "http://host/path"),
            (&["GET", "ftp://secret/x"], "http://host/path"),
            (&["GET", "http://user:secret@h/"], "user's name"),
            (&["GET", "/", "-H", "secret"], "no colon"),
            (&["GET", "/", "-H", "a b: secret"], "`a b`"),
            (&["GET", "/", "-H", "a: secret\nb: c"], "`a`"),
            (&["GET", "/", "--token", "secret\nx"], "line break"),
            (&["GET", "/", "--from", "here"], "--from"),
        ] {
            let why = head(arguments).expect_err("no request");
            assert!(why.contains(expected), "{arguments:?}: {why}");
            assert!(!why.contains("secret"), "{arguments:?}: {why}");
        }
    }
}
