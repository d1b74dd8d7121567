//! What a client without a token is pointed to: where tokens come from (RFC 9728).

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
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let document = match document(snapshot, head, peer) {
        Ok(document) => document,
        Err(rejection) => return service::refuse(rejection, None, exchange),
    };
    let mut response = Response::new(Bytes::from(document.to_string()));
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
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(Reason::MethodNotAllowed("GET, HEAD".into()).into());
    }
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
