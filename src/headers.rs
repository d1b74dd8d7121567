//! What happens to header fields on their way: hop-by-hop fields go, forged identities go, then
//! the verified identity and the facts about the hop come in. The order matters: strip, then set.

pub mod certificate;
mod claim;
mod forwarded;
pub mod max_forwards;
pub mod trailers;

pub use claim::encode_claim;

use crate::identity::Identity;
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use crate::telemetry::trace::Trace;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, VIA};
use std::sync::Arc;

/// The name by which the gateway signs `Via`.
pub const PSEUDONYM: &str = "bonterra-gateway";

/// The header that carries the id of an exchange, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What the gateway adds to `Via` (RFC 9110 §7.6.3).
const VIA_VALUE: HeaderValue = HeaderValue::from_static("1.1 bonterra-gateway");

/// RFC 9110 §7.6.1, and the ones from before it. Both directions.
fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Fields by which clients tell some frameworks to see another request than the gateway checked.
fn is_override(name: &str) -> bool {
    matches!(
        name,
        "x-original-url"
            | "x-rewrite-url"
            | "x-http-method-override"
            | "x-http-method"
            | "x-method-override"
    )
}

/// What the gateway says itself, and passes on from others only if a trusted proxy sent it; all of
/// `X-Forwarded-`, `-User` and `-Prefix` among it.
fn is_said_by_proxies(name: &str) -> bool {
    name.starts_with("x-forwarded-")
        || matches!(
            name,
            "traceparent" | "tracestate" | "forwarded" | "x-real-ip"
        )
}

/// `Connection` may not name these: without them the request would be another one.
fn is_end_to_end(name: &str) -> bool {
    matches!(
        name,
        "host" | "authorization" | "content-length" | "cookie" | "date"
    )
}

/// Recognises the headers that only the gateway may set towards an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdentityGuard {
    /// Mapped headers outside `X-Bonterra-`.
    others: Box<[HeaderName]>,
}

/// Header rules of a route: `request_headers` and `response_headers`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderRules {
    /// Set to this value, whatever was there.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

/// What is known of a request that goes to an upstream.
#[derive(Debug)]
pub struct Forwarding<'a> {
    /// The caller, if there is one.
    pub identity: Option<&'a Identity>,
    /// The headers that only the gateway may set.
    pub guard: &'a IdentityGuard,
    /// The route's `request_headers`.
    pub rules: &'a HeaderRules,
    /// Whether the upstream gets the caller's token.
    pub forward_token: bool,
    /// The other end of the connection.
    pub peer: Peer,
    /// The peer's address as text; made once for a connection.
    pub peer_text: &'a HeaderValue,
    /// The client's certificate, if the upstream gets it: see [`certificate::value`].
    pub client_cert: Option<&'a HeaderValue>,
    /// The host as the client named it.
    pub host: &'a HeaderValue,
    /// The id of this exchange.
    pub request_id: &'a HeaderValue,
    /// Its place in its trace.
    pub trace: &'a Trace,
}

// === impl HeaderRules ===

impl HeaderRules {
    /// For what comes after the head; `None` if they say nothing.
    pub fn kept(self: &Arc<Self>) -> Option<Arc<Self>> {
        (!self.set.is_empty() || !self.remove.is_empty()).then(|| Arc::clone(self))
    }

    /// Whether a field may not come outside the head: there it would have been removed, or have got
    /// another value.
    pub fn settle(&self, name: &HeaderName) -> bool {
        let set = self.set.iter().map(|(name, _)| name);
        let mut names = self.remove.iter().chain(set);
        names.any(|other| same_name(other.as_str(), name.as_str()))
    }
}

// === impl Forwarding ===

impl Forwarding<'_> {
    /// Whether the upstream does not get this field from the client.
    fn withholds(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        is_hop_by_hop(text)
            // 100 Continue has been dealt with on this side.
            || text == "expect"
            || is_override(text)
            || certificate::is_certificate(text)
            || (!self.peer.trusted && is_said_by_proxies(text))
            || (!self.forward_token && text == "authorization")
            || is_disguised(text)
            || self.guard.forbids(name)
    }
}

// === impl IdentityGuard ===

impl IdentityGuard {
    const PREFIX: &'static [u8] = b"x-bonterra-";

    /// A guard for all headers that any issuer maps.
    pub fn new<'n>(mapped: impl Iterator<Item = &'n HeaderName>) -> Self {
        let mut others: Vec<HeaderName> = mapped
            .filter(|name| !has_identity_prefix(name.as_str()))
            .cloned()
            .collect();
        others.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        others.dedup();
        Self {
            others: others.into_boxed_slice(),
        }
    }

    /// Whether a client may not send this field. `_` counts as `-`: CGI, WSGI and many frameworks
    /// cannot tell them apart.
    pub fn forbids(&self, name: &HeaderName) -> bool {
        let text = name.as_str();
        has_identity_prefix(text)
            || self
                .others
                .iter()
                .any(|other| same_name(other.as_str(), text))
    }
}

/// Names that carry no claim and that no rule of a route changes: what they say is between two
/// hops, or is said by the gateway.
pub fn is_reserved(name: &HeaderName) -> bool {
    let name = name.as_str();
    is_hop_by_hop(name)
        || is_end_to_end(name)
        || is_said_by_proxies(name)
        || is_override(name)
        || certificate::is_standard(name)
        || matches!(name, "expect" | "via" | "x-request-id")
}

/// Whether this name, in lower case, is one of the gateway's identity headers by its prefix.
pub fn has_identity_prefix(name: &str) -> bool {
    name.as_bytes()
        .get(..IdentityGuard::PREFIX.len())
        .is_some_and(|head| same_bytes(head, IdentityGuard::PREFIX))
}

/// Whether this is a field that proxies speak by, spelt so that only some readers take it for one.
fn is_disguised(name: &str) -> bool {
    let is_sign = |c: char| !c.is_ascii_alphanumeric() && c != '-';
    if !name.contains(is_sign) {
        return false;
    }
    let plain = name.replace(is_sign, "-");
    is_override(&plain)
        || is_said_by_proxies(&plain)
        || certificate::is_certificate(&plain)
        || plain == "x-request-id"
}

/// Whether two names, in lower case, are the same to a reader that takes every sign for one: CGI
/// and some frameworks turn `-`, `_` and `.` into the same character.
pub fn same_name(a: &str, b: &str) -> bool {
    same_bytes(a.as_bytes(), b.as_bytes())
}

fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let fold = |byte: &u8| {
        if byte.is_ascii_alphanumeric() {
            *byte
        } else {
            b'-'
        }
    };
    a.len() == b.len() && a.iter().map(fold).eq(b.iter().map(fold))
}

/// Turns a client's header fields into the upstream's.
///
/// # Errors
/// [`Reason::BadRequest`] if `Connection` names a field without which the request would be another.
pub fn towards_upstream(
    headers: &mut HeaderMap,
    forwarding: &Forwarding<'_>,
) -> Result<(), Rejection> {
    let named = connection_tokens(headers)?;
    remove_all(headers, &named);
    remove_if(headers, |name| forwarding.withholds(name));
    apply(forwarding.rules, headers);
    forwarded::set(headers, forwarding);
    if let Some(identity) = forwarding.identity {
        for (name, value) in &identity.headers {
            headers.insert(name.clone(), value.clone());
        }
    }
    Ok(())
}

/// Turns an upstream's header fields into the client's.
pub fn towards_client(headers: &mut HeaderMap, rules: &HeaderRules, request_id: &HeaderValue) {
    // An upstream that names a needed field in `Connection` harms only itself.
    let named = connection_tokens(headers).unwrap_or_default();
    remove_all(headers, &named);
    remove_if(headers, |name| is_hop_by_hop(name.as_str()));
    apply(rules, headers);
    headers.append(VIA, VIA_VALUE);
    headers.insert(X_REQUEST_ID, request_id.clone());
}

/// Turns an upstream's interim fields (RFC 9110 §15.2) into the client's. What the route sets is set
/// in the last head only.
pub fn interim_towards_client(headers: &mut HeaderMap, rules: Option<&HeaderRules>) {
    let named = connection_tokens(headers).unwrap_or_default();
    remove_all(headers, &named);
    remove_if(headers, |name| {
        is_hop_by_hop(name.as_str())
            || *name == CONTENT_LENGTH
            || rules.is_some_and(|rules| rules.settle(name))
    });
}

fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
}

/// One look at each field that is there costs less than one look-up for each that might be; most
/// messages have none to remove, and then nothing is allocated.
fn remove_if(headers: &mut HeaderMap, unwanted: impl Fn(&HeaderName) -> bool) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| unwanted(name))
        .cloned()
        .collect();
    remove_all(headers, &found);
}

/// The fields that `Connection` names (RFC 9110 §7.6.1).
fn connection_tokens(headers: &HeaderMap) -> Result<Vec<HeaderName>, Rejection> {
    let bad = |note| Rejection::noted(Reason::BadRequest, note);
    let mut names = Vec::new();
    for value in headers.get_all(CONNECTION) {
        for token in value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii)
        {
            if token.is_empty()
                || token.eq_ignore_ascii_case(b"close")
                || token.eq_ignore_ascii_case(b"keep-alive")
            {
                continue;
            }
            let name =
                HeaderName::from_bytes(token).map_err(|_| bad("Connection names no header"))?;
            if is_end_to_end(name.as_str()) {
                return Err(bad("Connection names a header that is not hop-by-hop"));
            }
            names.push(name);
        }
    }
    Ok(names)
}

fn apply(rules: &HeaderRules, headers: &mut HeaderMap) {
    remove_all(headers, &rules.remove);
    for (name, value) in &rules.set {
        headers.insert(name.clone(), value.clone());
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
