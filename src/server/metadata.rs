//! What the gateway tells of itself: where tokens come from (RFC 9728), to which a client without one is
//! pointed, and the keys of its own tokens.

use super::service;
use crate::proxy::ResponseBody;
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use crate::snapshot::{METADATA_PATH, Snapshot};
use crate::telemetry::exchange::Exchange;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Response};
use serde_json::{Value, json};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Answers `GET /.well-known/oauth-protected-resource` (RFC 9728 §3).
pub(super) fn serve(
    snapshot: &Snapshot,
    head: &Parts,
    peer: Peer,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    match document(snapshot, head, peer) {
        Ok(document) => cacheable(document.to_string().into(), exchange),
        Err(rejection) => service::refuse(rejection, None, exchange),
    }
}

/// Answers `GET /.well-known/gateway-jwks.json`.
pub(super) fn serve_keys(
    snapshot: &Snapshot,
    head: &Parts,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    match internal_keys(snapshot, head) {
        Ok(document) => cacheable(document, exchange),
        Err(rejection) => service::refuse(rejection, None, exchange),
    }
}

/// A document, JSON, that may be kept for five minutes.
fn cacheable(document: Bytes, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let mut response = Response::new(document);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    exchange.status(response.status());
    let id = exchange.request_id().clone();
    service::own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

/// The document itself.
///
/// # Errors
/// [`Reason::MethodNotAllowed`] unless it is asked for by `GET` or `HEAD`.
pub fn document(snapshot: &Snapshot, head: &Parts, peer: Peer) -> Result<Value, Rejection> {
    only_to_read(head)?;
    let servers: Vec<&str> = snapshot
        .issuers
        .iter()
        .map(|issuer| &*issuer.rules.issuer)
        .collect();
    Ok(json!({
        "resource": origin(head, peer),
        "authorization_servers": servers,
        "bearer_methods_supported": ["header"],
    }))
}

/// The public keys of the gateway's own tokens (RFC 7517 §5), JSON.
///
/// # Errors
/// [`Reason::MethodNotAllowed`] unless they are asked for by `GET` or `HEAD`.
pub fn internal_keys(snapshot: &Snapshot, head: &Parts) -> Result<Bytes, Rejection> {
    only_to_read(head)?;
    let keys = snapshot.internal.keys.as_ref();
    // Without keys there is no such path.
    keys.map(|keys| keys.document().clone())
        .ok_or_else(|| Reason::NoRoute.into())
}

fn only_to_read(head: &Parts) -> Result<(), Rejection> {
    match head.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Reason::MethodNotAllowed("GET, HEAD".into()).into()),
    }
}

/// Where the metadata of the resource is that this request was for. `None` if its host is unclear.
pub fn url(head: &Parts, peer: Peer) -> Option<String> {
    origin(head, peer).map(|origin| format!("{origin}{METADATA_PATH}"))
}

/// Scheme and host as the client sees them.
fn origin(head: &Parts, peer: Peer) -> Option<String> {
    let host = head.headers.get(HOST)?.to_str().ok()?;
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b':' | b'[' | b']');
    // It goes into a quoted string of a header: nothing but a host and a port may.
    if host.is_empty() || !host.bytes().all(plain) {
        return None;
    }
    let proto = head.headers.get(X_FORWARDED_PROTO).filter(|_| peer.trusted);
    let scheme = match proto {
        Some(proto) if proto == "https" => "https",
        Some(_) => "http",
        None => peer.scheme(),
    };
    Some(format!("{scheme}://{host}"))
}
