//! Refusals for gRPC clients, which look for the outcome of a call in `grpc-status` and nowhere else.

use super::{Rejection, ReplyContext};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// What `grpc-message` has to escape: everything but visible ASCII and spaces, and `%` itself.
const ESCAPED: AsciiSet = CONTROLS.add(b'%');

/// The codes of gRPC that refusals map to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

/// Whether a request with these fields is a gRPC call: gRPC-Web, which is spoken to browsers, is not.
pub fn is_call(headers: &HeaderMap) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    let Some(kind) = headers.get(CONTENT_TYPE) else {
        return false;
    };
    kind.as_bytes()
        .split_at_checked(TYPE.len())
        .is_some_and(|(kind, rest)| {
            kind.eq_ignore_ascii_case(TYPE) && matches!(rest.first(), None | Some(b'+' | b';'))
        })
}

// === impl Code ===

impl Code {
    /// As far as it goes the mapping that gRPC clients use for plain HTTP statuses, and more telling
    /// where the gateway knows more.
    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST => Self::InvalidArgument,
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::PermissionDenied,
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Self::Unimplemented,
            StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Self::DeadlineExceeded,
            StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            | StatusCode::TOO_MANY_REQUESTS => Self::ResourceExhausted,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

// === impl Rejection ===

impl Rejection {
    /// The reply to a gRPC call: 200 with `grpc-status` in the head and nothing behind it
    /// ("Trailers-Only"). Challenges and `Retry-After` are there as in [`Self::reply`].
    pub fn grpc_reply(&self, context: ReplyContext<'_>) -> Response<Bytes> {
        let (mut head, _) = self.reply(context).into_parts();
        let (_, name, status, detail) = self.reason.row();
        head.status = StatusCode::OK;
        let code = Code::of(status) as u8;
        let message = format!("{detail} ({name})");
        let message = utf8_percent_encode(&message, &ESCAPED).to_string();
        let kind = HeaderValue::from_static("application/grpc");
        head.headers.insert(CONTENT_TYPE, kind);
        head.headers.insert(GRPC_STATUS, u16::from(code).into());
        // Encoded to visible ASCII.
        if let Ok(message) = HeaderValue::from_str(&message) {
            head.headers.insert(GRPC_MESSAGE, message);
        }
        Response::from_parts(head, Bytes::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::Reason;

    #[test]
    fn calls_are_told_by_their_type() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("Application/GRPC;x=1", true),
            ("application/grpc-web", false),
            ("application/grpcx", false),
            ("application/json", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_call(&headers), expected, "{kind:?}");
        }
        assert!(!is_call(&HeaderMap::new()));
    }

    #[test]
    fn reasons_become_codes() {
        let context = ReplyContext {
            request_id: "1",
            realm: "r",
            resource_metadata: None,
        };
        for (reason, code) in [
            (Reason::MissingToken, "16"),
            (Reason::Expired, "16"),
            (Reason::InsufficientScope("a b".into()), "7"),
            (Reason::NoRoute, "12"),
            (Reason::MethodNotAllowed("GET".into()), "12"),
            (Reason::BodyTooLarge, "8"),
            (Reason::UpstreamTimeout, "4"),
            (Reason::UpstreamConnect, "14"),
            (Reason::KeysUnavailable, "14"),
            (Reason::Internal, "13"),
        ] {
            let reply = Rejection::from(reason.clone()).grpc_reply(context);
            assert_eq!(reply.status(), StatusCode::OK);
            let header = |name| {
                let value: Option<&HeaderValue> = reply.headers().get(name);
                value.and_then(|value| value.to_str().ok())
            };
            assert_eq!(header(GRPC_STATUS), Some(code), "{reason:?}");
            let message = header(GRPC_MESSAGE).unwrap_or_default();
            assert!(
                message.ends_with(&format!("({})", reason.as_str())),
                "{message}"
            );
            assert_eq!(header(CONTENT_TYPE), Some("application/grpc"));
            assert!(reply.body().is_empty());
        }
    }
}
