//! Replies to what never became a request: hyper has no hook for them, so they are written whole,
//! and counted and logged like any other.

use super::{Shared, id};
use crate::rejection::{REALM, Reason, Rejection, ReplyContext};
use crate::telemetry::access_log::{self, Record};
use bytes::Bytes;
use http::Method;
use std::net::SocketAddr;

/// A whole reply for a request that never became one, counted and logged like any other.
pub(super) fn refusal(shared: &Shared, peer: SocketAddr, rejection: &Rejection) -> Bytes {
    let request_id = id::new_request_id();
    let context = ReplyContext {
        request_id: &request_id,
        realm: REALM,
        resource_metadata: None,
    };
    let reply = rejection.reply(context);
    observe(shared, peer, rejection, &request_id, reply.body().len());
    let mut text = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\n",
        reply.status(),
        reply.body().len()
    )
    .into_bytes();
    for (name, value) in reply
        .headers()
        .iter()
        .filter(|(name, _)| *name != http::header::CONNECTION)
    {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(reply.body());
    Bytes::from(text)
}

/// What a client hears that speaks plain HTTP where HTTPS is spoken, counted and logged like any other
/// refusal.
pub(super) fn wrong_port(shared: &Shared, peer: SocketAddr) -> Bytes {
    const TEXT: &str = "This port speaks HTTPS: begin the URL with https://\n";
    let note = "plain HTTP on a port that speaks HTTPS";
    let rejection = Rejection::noted(Reason::BadRequest, note);
    let request_id = id::new_request_id();
    observe(shared, peer, &rejection, &request_id, TEXT.len());
    Bytes::from(format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\
         x-request-id: {request_id}\r\n\r\n{TEXT}",
        rejection.reason.status(),
        TEXT.len(),
    ))
}

fn observe(
    shared: &Shared,
    peer: SocketAddr,
    rejection: &Rejection,
    request_id: &str,
    bytes: usize,
) {
    let snapshot = shared.snapshot.load();
    let status = rejection.reason.status();
    snapshot.outside.refused(&rejection.reason);
    // There is no method to speak of; every method without a label of its own counts as `other`.
    snapshot.outside.answered(&Method::CONNECT, status);
    let record = Record {
        time: access_log::timestamp(),
        request_id,
        trace_id: None,
        client: peer.ip().to_canonical(),
        method: "-",
        host: "-",
        path: "-",
        route: "-",
        status: status.as_u16(),
        reason: Some(rejection.reason.as_str()),
        note: rejection.note.as_deref(),
        issuer: None,
        subject: None,
        upstream: None,
        duration: 0.0,
        upstream_duration: 0.0,
        own_duration: 0.0,
        retries: 0,
        request_bytes: 0,
        response_bytes: bytes as u64,
        aborted: false,
    };
    shared
        .observer
        .access_log
        .write(snapshot.access_policy, &record);
}
