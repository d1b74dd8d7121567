//! What happens to header fields on their way: hop-by-hop fields go, forged identities go, then
//! the verified identity and the facts about the hop come in. The order matters: strip, then set.

use crate::identity::Identity;
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use bytes::BytesMut;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, DATE, EXPECT, FORWARDED, HOST, HeaderMap,
    HeaderName, HeaderValue, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::IpAddr;

/// The name by which the gateway signs `Via`.
pub const PSEUDONYM: &str = "bonterra-gateway";

/// The header that carries the id of an exchange, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const VIA_VALUE: HeaderValue = HeaderValue::from_static("1.1 bonterra-gateway");

/// RFC 9110 §7.6.1, and the ones from before it. Both directions.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Fields by which clients tell some frameworks to see another request than the gateway checked.
const OVERRIDES: [HeaderName; 5] = [
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
    HeaderName::from_static("x-http-method-override"),
    HeaderName::from_static("x-http-method"),
    HeaderName::from_static("x-method-override"),
];

/// Fields that only a trusted proxy may set, besides the ones that the gateway always sets.
const TRACING: [HeaderName; 2] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
];

/// `Connection` may not name these: without them the request would be another one.
const END_TO_END: [HeaderName; 5] = [HOST, AUTHORIZATION, CONTENT_LENGTH, COOKIE, DATE];

/// Bytes that a header value carries as they are: visible ASCII and the space between words, but
/// not `%`, which marks the encoded ones.
const ENCODED: AsciiSet = CONTROLS.add(b'%');

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
    /// The client's address.
    pub client: IpAddr,
    /// The host as the client named it.
    pub host: &'a str,
    /// The id of this exchange.
    pub request_id: &'a HeaderValue,
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

    fn strip(&self, headers: &mut HeaderMap) {
        // Forged fields are rare, so the list stays empty and costs nothing.
        let forged: Vec<HeaderName> = headers
            .keys()
            .filter(|name| self.forbids(name))
            .cloned()
            .collect();
        for name in forged {
            headers.remove(name);
        }
    }
}

/// Names that carry no claim and that no rule of a route changes: what they say is between two
/// hops, or is said by the gateway.
pub fn is_reserved(name: &HeaderName) -> bool {
    let own = [
        FORWARDED,
        VIA,
        X_REQUEST_ID,
        X_FORWARDED_FOR,
        X_FORWARDED_PROTO,
        X_FORWARDED_HOST,
        EXPECT,
    ];
    HOP_BY_HOP.contains(name) || END_TO_END.contains(name) || own.contains(name)
}

/// Whether this name, in lower case, is one of the gateway's identity headers by its prefix.
pub fn has_identity_prefix(name: &str) -> bool {
    name.as_bytes()
        .get(..IdentityGuard::PREFIX.len())
        .is_some_and(|head| same_bytes(head, IdentityGuard::PREFIX))
}

/// Whether two names, in lower case, are the same to a reader that cannot tell `_` from `-`.
pub fn same_name(a: &str, b: &str) -> bool {
    same_bytes(a.as_bytes(), b.as_bytes())
}

fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
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
    strip_hop_by_hop(headers)?;
    // A body, if any, is announced anew; 100 Continue has been dealt with on this side.
    headers.remove(EXPECT);
    forwarding.guard.strip(headers);
    for name in &OVERRIDES {
        headers.remove(name);
    }
    if !forwarding.forward_token {
        headers.remove(AUTHORIZATION);
    }
    apply(forwarding.rules, headers);
    set_forwarded(headers, forwarding);
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
    if strip_hop_by_hop(headers).is_err() {
        remove_all(headers, &HOP_BY_HOP);
    }
    apply(rules, headers);
    append_via(headers);
    headers.insert(X_REQUEST_ID, request_id.clone());
}

fn strip_hop_by_hop(headers: &mut HeaderMap) -> Result<(), Rejection> {
    if headers.contains_key(CONNECTION) {
        for name in connection_tokens(headers)? {
            headers.remove(name);
        }
    }
    remove_all(headers, &HOP_BY_HOP);
    Ok(())
}

fn remove_all(headers: &mut HeaderMap, names: &[HeaderName]) {
    for name in names {
        headers.remove(name);
    }
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
            if END_TO_END.contains(&name) {
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

/// Says where the request came from. What others have said of it stays only if a trusted proxy
/// passed it on.
fn set_forwarded(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let peer = forwarding.peer;
    if !peer.trusted {
        remove_all(headers, &TRACING);
        headers.remove(FORWARDED);
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
        set_text(
            headers,
            X_FORWARDED_HOST,
            format_args!("{}", forwarding.host),
        );
        set_text(
            headers,
            X_FORWARDED_FOR,
            format_args!("{}", forwarding.client),
        );
    } else {
        let before = joined(headers, &X_FORWARDED_FOR);
        let own = peer.address.ip().to_canonical();
        match before {
            Some(before) => set_text(headers, X_FORWARDED_FOR, format_args!("{before}, {own}")),
            None => set_text(headers, X_FORWARDED_FOR, format_args!("{own}")),
        }
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static("http"));
        if !headers.contains_key(X_FORWARDED_HOST) {
            set_text(
                headers,
                X_FORWARDED_HOST,
                format_args!("{}", forwarding.host),
            );
        }
    }
    append_forwarded(headers, forwarding);
    append_via(headers);
    headers.insert(X_REQUEST_ID, forwarding.request_id.clone());
}

/// RFC 7239 §4: one element for this hop, behind those of trusted proxies.
fn append_forwarded(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let host = forwarding.host;
    let element = match if forwarding.peer.trusted {
        forwarding.peer.address.ip().to_canonical()
    } else {
        forwarding.client
    } {
        IpAddr::V4(address) => written(format_args!("for={address};host=\"{host}\";proto=http")),
        IpAddr::V6(address) => written(format_args!(
            "for=\"[{address}]\";host=\"{host}\";proto=http"
        )),
    };
    if let Some(element) = element {
        headers.append(FORWARDED, element);
    }
}

fn append_via(headers: &mut HeaderMap) {
    headers.append(VIA, VIA_VALUE);
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    (!values.is_empty()).then(|| values.join(", "))
}

fn set_text(headers: &mut HeaderMap, name: HeaderName, text: std::fmt::Arguments<'_>) {
    if let Some(value) = written(text) {
        headers.insert(name, value);
    }
}

fn written(text: std::fmt::Arguments<'_>) -> Option<HeaderValue> {
    let mut buffer = BytesMut::with_capacity(64);
    buffer.write_fmt(text).ok()?;
    HeaderValue::from_maybe_shared(buffer.freeze()).ok()
}

/// A claim as a header value: booleans `true` and `false`, numbers decimal, arrays of scalars
/// joined by commas, objects as compact JSON; bytes outside visible ASCII, `%` and, in the
/// members of an array, `,` are percent-encoded.
///
/// `None` for `null`: a claim that says nothing sets no header.
pub fn encode_claim(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Null => return None,
        Value::Array(items) if items.iter().all(is_scalar) => {
            let members: Vec<String> = items
                .iter()
                .map(|item| encoded(item).replace(',', "%2C"))
                .collect();
            members.join(",")
        }
        other => encoded(other),
    };
    HeaderValue::from_str(&guard_edges(text)).ok()
}

/// Spaces at either end are not part of a field value (RFC 9110 §5.5), so they are encoded too.
fn guard_edges(text: String) -> String {
    let inner = text.trim_matches(' ');
    if inner.len() == text.len() {
        return text;
    }
    let before = text.len() - text.trim_start_matches(' ').len();
    let after = text.len() - before - inner.len();
    format!("{}{inner}{}", "%20".repeat(before), "%20".repeat(after))
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

fn encoded(value: &Value) -> String {
    match value {
        Value::String(text) => utf8_percent_encode(text, &ENCODED).to_string(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => {
            utf8_percent_encode(&value.to_string(), &ENCODED).to_string()
        }
    }
}

#[cfg(test)]
#[path = "headers_tests.rs"]
mod tests;
