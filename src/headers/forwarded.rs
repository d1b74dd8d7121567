//! Where a request came from, for upstreams: `X-Forwarded-*`, `Forwarded` (RFC 7239) and `Via`.

use super::{Forwarding, VIA_VALUE, X_REQUEST_ID, certificate};
use bytes::Bytes;
use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue, VIA};
use std::net::IpAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Says where the request came from. What others have said of it stays only if a trusted proxy
/// passed it on.
pub(super) fn set(headers: &mut HeaderMap, forwarding: &Forwarding<'_>) {
    let came_from = match joined(headers, &X_FORWARDED_FOR) {
        Some(before) => text(&[before.as_bytes(), b", ", forwarding.peer_text.as_bytes()]),
        None => Some(forwarding.peer_text.clone()),
    };
    if let Some(came_from) = came_from {
        headers.insert(X_FORWARDED_FOR, came_from);
    }
    let scheme = forwarding.peer.scheme();
    headers
        .entry(X_FORWARDED_PROTO)
        .or_insert(HeaderValue::from_static(scheme));
    headers
        .entry(X_FORWARDED_HOST)
        .or_insert_with(|| forwarding.host.clone());
    if let Some(element) = element(forwarding, scheme) {
        headers.append(FORWARDED, element);
    }
    if let Some(certificate) = forwarding.client_cert {
        headers.insert(certificate::CLIENT_CERT, certificate.clone());
    }
    headers.append(VIA, VIA_VALUE);
    headers.insert(X_REQUEST_ID, forwarding.request_id.clone());
    forwarding.trace.tell(headers);
}

/// RFC 7239 §4: one element for this hop, behind those of trusted proxies.
fn element(forwarding: &Forwarding<'_>, scheme: &str) -> Option<HeaderValue> {
    let (before, after): (&[u8], &[u8]) = match forwarding.peer.address.ip().to_canonical() {
        IpAddr::V4(_) => (b"for=", b";host=\""),
        IpAddr::V6(_) => (b"for=\"[", b"]\";host=\""),
    };
    let (peer, host) = (forwarding.peer_text.as_bytes(), forwarding.host.as_bytes());
    text(&[before, peer, after, host, b"\";proto=", scheme.as_bytes()])
}

fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    if !headers.contains_key(name) {
        return None;
    }
    let values: Vec<&str> = headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    Some(values.join(", "))
}

/// A value put together from parts.
fn text(parts: &[&[u8]]) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(Bytes::from(parts.concat())).ok()
}
