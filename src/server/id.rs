//! The ids by which exchanges are told apart.

use crate::headers::X_REQUEST_ID;
use crate::request::Peer;
use http::{HeaderMap, HeaderValue};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::{Builder, Uuid};

/// An id from outside may not be longer than this.
const MAX_REQUEST_ID: usize = 128;

/// The id of an exchange: a trusted proxy's, or a new one that sorts by time.
pub fn request_id(headers: &HeaderMap, peer: Peer) -> HeaderValue {
    let believed = headers.get(X_REQUEST_ID).filter(|id| {
        peer.trusted
            && !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    believed.cloned().unwrap_or_else(|| {
        let mut text = [0; 36];
        let id = new_id().hyphenated().encode_lower(&mut text);
        // A UUID is always a header value.
        HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("-"))
    })
}

/// A new id as text.
pub(super) fn new_request_id() -> String {
    new_id().to_string()
}

/// A UUID of version 7 (RFC 9562 §5.7): sorts by time. Ids name requests and guard nothing, so the
/// fast generator will do, and the library's own `now_v7` would share a lock between workers.
fn new_id() -> Uuid {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or(0), &random)
        .into_uuid()
}
