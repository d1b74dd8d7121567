//! Why a request was turned away, and the one place that says what the client hears of it.
//!
//! [`Rejection`] carries two messages: [`Reason`] decides status, challenge and the public text;
//! `note` says what was expected and what came, and goes to the log alone.

mod grpc;
mod reason;

pub use grpc::is_call as is_grpc_call;
pub use reason::{Excess, Reason};

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response};
use serde::Serialize;
use std::fmt::Write as _;

/// How much a caller may still ask, and by which rule (draft-ietf-httpapi-ratelimit-headers).
pub const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// The rule itself.
pub const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// The realm of all our challenges.
pub const REALM: &str = "bonterra";

/// How a 401 or 403 challenges the client (RFC 6750 §3).
enum Challenge {
    None,
    Bare,
    InvalidToken,
    InsufficientScope,
}

/// A refusal: the reason, and a note for the log about what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What the client, the metric and the log are told.
    pub reason: Reason,
    /// What the log alone is told. Never holds a token, a secret or a header value.
    pub note: Option<Box<str>>,
}

/// What a reply needs besides the reason.
#[derive(Debug, Clone, Copy)]
pub struct ReplyContext<'a> {
    /// The `X-Request-Id` of this exchange.
    pub request_id: &'a str,
    /// The `realm` of the challenge.
    pub realm: &'a str,
    /// The URL of the protected-resource metadata (RFC 9728 §5.1), when the host is known.
    pub resource_metadata: Option<&'a str>,
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    reason: &'a str,
    request_id: &'a str,
}

// === impl Rejection ===

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self { reason, note: None }
    }
}

impl Rejection {
    /// A refusal with a note for the log.
    pub fn noted(reason: Reason, note: impl Into<String>) -> Self {
        Self {
            reason,
            note: Some(note.into().into_boxed_str()),
        }
    }

    /// The reply of RFC 9457 (`application/problem+json`) with the challenge of RFC 6750 §3.
    pub fn reply(&self, context: ReplyContext<'_>) -> Response<Bytes> {
        let (_, name, status, detail) = self.reason.row();
        let problem = Problem {
            r#type: format!("urn:bonterra:gateway:{name}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail,
            reason: name,
            request_id: context.request_id,
        };
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        self.headers(context, response.headers_mut());
        response
    }

    fn headers(&self, context: ReplyContext<'_>, headers: &mut HeaderMap) {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(value) = self.challenge(context) {
            headers.insert(WWW_AUTHENTICATE, value);
        }
        if let Reason::MethodNotAllowed(allow) = &self.reason
            && let Ok(value) = HeaderValue::from_str(allow)
        {
            headers.insert(ALLOW, value);
        }
        if let Some(seconds) = self.reason.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Reason::RateLimited(excess) = &self.reason {
            headers.insert(RATELIMIT, excess.limit.clone());
            headers.insert(RATELIMIT_POLICY, excess.policy.clone());
        }
        if self.reason.closes() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }

    fn challenge(&self, context: ReplyContext<'_>) -> Option<HeaderValue> {
        let mut text = format!("Bearer realm=\"{}\"", context.realm);
        let (_, _, _, detail) = self.reason.row();
        // Writing to a String cannot fail.
        match self.reason.challenge() {
            Challenge::None => return None,
            Challenge::Bare => {}
            Challenge::InvalidToken => {
                let _ = write!(
                    text,
                    ", error=\"invalid_token\", error_description=\"{detail}\""
                );
            }
            Challenge::InsufficientScope => {
                let _ = write!(
                    text,
                    ", error=\"insufficient_scope\", error_description=\"{detail}\""
                );
                if let Reason::InsufficientScope(scope) = &self.reason {
                    let _ = write!(text, ", scope=\"{scope}\"");
                }
            }
        }
        if let Some(url) = context.resource_metadata {
            let _ = write!(text, ", resource_metadata=\"{url}\"");
        }
        HeaderValue::from_str(&text).ok()
    }
}
