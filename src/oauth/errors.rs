//! Every way in which the gateway itself refuses at an OAuth endpoint, and what the client reads.
//!
//! RFC 6749 §5.2 names no code for a token endpoint that cannot answer. Borrowed from its §4.1.2.1:
//! `temporarily_unavailable` when the issuer could not be reached or did not answer in full, so that
//! a later attempt may do; `server_error` when it answered with something else than was asked for.

mod fields;
mod words;

use std::fmt;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};

use super::reply::Outcome;
use crate::outbound::OutboundError;
use fields::challenge;
pub(super) use fields::{SOON, forbid_storing};

/// A refusal or failure of the gateway's own; the issuer's pass as they are.
///
/// Holds names from our own tables and positions, never a value that the client sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OAuthError {
    /// Another method than POST.
    MethodNotAllowed,
    /// Another method than GET or HEAD, where something is only read.
    NotGet,
    /// A query with broken percent-encoding, invalid UTF-8 or a parameter without a name.
    BadQuery,
    /// `redirect_uri` is no absolute URI, or has a fragment (RFC 6749 §3.1.2).
    BadRedirectUri,
    /// A `response_type` that is unknown, implicit or not enabled on the surface.
    UnsupportedResponseType,
    /// No access token as `Authorization: Bearer`.
    NoBearerToken,
    /// An access token in more than one place (RFC 6750 §2).
    SeveralTokens,
    /// An access token that has been revoked here.
    RevokedToken,
    /// A token to be revoked that was issued to another client (RFC 7009 §2.1) or by another issuer.
    ForeignToken,
    /// A token to be revoked that only an endpoint could revoke which the issuer does not have.
    UnsupportedTokenType,
    /// A revocation that could not be kept.
    NotKept,
    /// A token that cannot be judged now: its keys, its issuer or the store is away.
    NotJudged,
    /// The issuer has no such endpoint or document, or it is not known here.
    NoSuchEndpoint,
    /// The body is over the surface's `max_body`.
    BodyTooLarge,
    /// The body did not come in time.
    BodyTooSlow,
    /// The client broke off its body.
    BodyBroken,
    /// Neither form nor JSON, another charset than UTF-8, or a compressed body.
    UnsupportedMediaType,
    /// A form with broken percent-encoding, invalid UTF-8 or a parameter without a name.
    BadForm,
    /// Not one JSON object; where it goes wrong, both from 1.
    BadJson {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// A JSON member that is not a string; its name when it is a well-known one.
    NotAString(Option<&'static str>),
    /// A parameter occurs twice; its name when it is a well-known one.
    Repeated(Option<&'static str>),
    /// More parameters than any request needs.
    TooManyParameters,
    /// A required parameter is absent or empty.
    MissingParameter(&'static str),
    /// The same in the words that Bonterra Auth has for it where tokens are revoked.
    MissingRequired(&'static str),
    /// A grant that is unknown or not enabled on the surface.
    UnsupportedGrant,
    /// More than one way of client authentication in one request (RFC 6749 §2.3).
    SeveralClientAuthentications,
    /// `client_id` in the body is another than that of the Basic header.
    OtherClientId,
    /// A Basic header that cannot be decoded.
    BadBasic,
    /// An `Authorization` header of another scheme than Basic.
    UnsupportedAuthorization,
    /// No client authentication where the grant needs one.
    NoClientAuthentication,
    /// Somebody asks what a token is worth who may not, or who does not prove to be who may.
    UnknownClient,
    /// A handle that stands for nothing, or is somebody else's (RFC 6749 §5.2).
    InvalidGrant,
    /// An access handle that stands for nothing (RFC 6750 §3.1).
    InvalidToken,
    /// What handles are kept in does not answer.
    StoreUnavailable,
    /// There are as many handles as may be.
    StoreFull,
    /// Another request was exchanging the same handle, and got no answer.
    RefreshFailed,
    /// The issuer's token endpoint is not known yet: its discovery document has not been read.
    IssuerUnknown,
    /// Too many requests to the issuer are open; this one was not sent.
    TooManyOpen,
    /// No connection to the issuer; nothing was sent.
    IssuerUnreachable,
    /// The issuer did not answer in time.
    IssuerTimeout,
    /// The exchange with the issuer broke off after the request was sent.
    IssuerCut,
    /// The issuer's answer is over the limit.
    IssuerReplyTooLarge,
    /// The issuer's answer is neither an error nor a token reply.
    IssuerReplyUnusable,
}

// === impl OAuthError ===

impl OAuthError {
    /// The status code of the answer.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MethodNotAllowed | Self::NotGet => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoSuchEndpoint => StatusCode::NOT_FOUND,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyBroken
            | Self::BadForm
            | Self::BadQuery
            | Self::BadRedirectUri
            | Self::BadJson { .. }
            | Self::NotAString(_)
            | Self::Repeated(_)
            | Self::TooManyParameters
            | Self::MissingParameter(_)
            | Self::MissingRequired(_)
            | Self::ForeignToken
            | Self::UnsupportedTokenType
            | Self::UnsupportedGrant
            | Self::UnsupportedResponseType
            | Self::SeveralTokens
            | Self::SeveralClientAuthentications
            | Self::OtherClientId
            | Self::InvalidGrant => StatusCode::BAD_REQUEST,
            Self::BadBasic
            | Self::UnsupportedAuthorization
            | Self::NoClientAuthentication
            | Self::UnknownClient
            | Self::RevokedToken
            | Self::InvalidToken
            | Self::NoBearerToken => StatusCode::UNAUTHORIZED,
            Self::IssuerUnreachable
            | Self::IssuerCut
            | Self::IssuerReplyTooLarge
            | Self::IssuerReplyUnusable => StatusCode::BAD_GATEWAY,
            Self::IssuerTimeout => StatusCode::GATEWAY_TIMEOUT,
            Self::IssuerUnknown
            | Self::TooManyOpen
            | Self::NotKept
            | Self::NotJudged
            | Self::StoreUnavailable
            | Self::StoreFull
            | Self::RefreshFailed => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The `error` code (RFC 6749 §5.2).
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::MethodNotAllowed
            | Self::NotGet
            | Self::BadQuery
            | Self::BadRedirectUri
            | Self::SeveralTokens
            | Self::NoSuchEndpoint
            | Self::BodyTooLarge
            | Self::BodyTooSlow
            | Self::BodyBroken
            | Self::UnsupportedMediaType
            | Self::BadForm
            | Self::BadJson { .. }
            | Self::NotAString(_)
            | Self::Repeated(_)
            | Self::TooManyParameters
            | Self::MissingParameter(_)
            | Self::MissingRequired(_)
            | Self::SeveralClientAuthentications
            | Self::OtherClientId => "invalid_request",
            Self::ForeignToken | Self::InvalidGrant => "invalid_grant",
            Self::UnsupportedTokenType => "unsupported_token_type",
            Self::UnsupportedGrant => "unsupported_grant_type",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::NoBearerToken | Self::RevokedToken | Self::InvalidToken => "invalid_token",
            Self::BadBasic
            | Self::UnsupportedAuthorization
            | Self::NoClientAuthentication
            | Self::UnknownClient => "invalid_client",
            Self::IssuerUnknown
            | Self::TooManyOpen
            | Self::IssuerUnreachable
            | Self::IssuerTimeout
            | Self::IssuerCut
            | Self::NotKept
            | Self::NotJudged
            | Self::StoreUnavailable
            | Self::StoreFull
            | Self::RefreshFailed => "temporarily_unavailable",
            Self::IssuerReplyTooLarge | Self::IssuerReplyUnusable => "server_error",
        }
    }

    /// How the request ended, for the metric.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::MethodNotAllowed
            | Self::NotGet
            | Self::BadQuery
            | Self::BadRedirectUri
            | Self::SeveralTokens
            | Self::NoSuchEndpoint
            | Self::BodyTooLarge
            | Self::BodyTooSlow
            | Self::BodyBroken
            | Self::UnsupportedMediaType
            | Self::BadForm
            | Self::BadJson { .. }
            | Self::NotAString(_)
            | Self::Repeated(_)
            | Self::TooManyParameters
            | Self::MissingParameter(_)
            | Self::MissingRequired(_)
            | Self::ForeignToken
            | Self::UnsupportedTokenType
            | Self::SeveralClientAuthentications
            | Self::OtherClientId => Outcome::InvalidRequest,
            Self::UnsupportedGrant => Outcome::UnsupportedGrantType,
            Self::UnsupportedResponseType => Outcome::UnsupportedResponseType,
            Self::InvalidGrant => Outcome::InvalidGrant,
            Self::InvalidToken => Outcome::InvalidToken,
            Self::StoreUnavailable | Self::StoreFull => Outcome::Unavailable,
            Self::NoBearerToken => Outcome::MissingToken,
            Self::RevokedToken => Outcome::InvalidToken,
            Self::NotKept | Self::NotJudged => Outcome::Unavailable,
            Self::BadBasic
            | Self::UnsupportedAuthorization
            | Self::NoClientAuthentication
            | Self::UnknownClient => Outcome::InvalidClient,
            Self::IssuerUnknown | Self::IssuerUnreachable => Outcome::IssuerUnreachable,
            Self::TooManyOpen => Outcome::Overloaded,
            Self::IssuerTimeout => Outcome::IssuerTimeout,
            Self::IssuerCut | Self::RefreshFailed => Outcome::IssuerCut,
            Self::IssuerReplyTooLarge | Self::IssuerReplyUnusable => Outcome::IssuerBadReply,
        }
    }

    /// The answer to the client. Every 401 carries a challenge for `realm` (RFC 9110 §15.5.2): of Basic,
    /// or where a token is missing, of Bearer, and nothing more (RFC 6750 §3.1). Every 503 says when to
    /// come again.
    #[must_use]
    pub fn response(self, realm: &str) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        forbid_storing(headers);
        if self.status() == StatusCode::UNAUTHORIZED {
            let (scheme, error) = match self {
                Self::NoBearerToken => ("Bearer", None),
                Self::RevokedToken | Self::InvalidToken => ("Bearer", Some(self)),
                _ => ("Basic", None),
            };
            headers.insert(WWW_AUTHENTICATE, challenge(scheme, realm, error));
        }
        if self == Self::MethodNotAllowed {
            headers.insert(ALLOW, HeaderValue::from_static("POST"));
        }
        if self == Self::NotGet {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, SOON);
        }
        response
    }

    /// The one place that knows the shape of an error body (RFC 6749 §5.2).
    fn body(self) -> Bytes {
        let body = serde_json::json!({
            "error": self.code(),
            "error_description": self.description(),
        });
        body.to_string().into()
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.description())
    }
}

impl std::error::Error for OAuthError {}

impl From<&OutboundError> for OAuthError {
    fn from(error: &OutboundError) -> Self {
        match error {
            OutboundError::Connect { .. } => Self::IssuerUnreachable,
            OutboundError::Timeout { .. } => Self::IssuerTimeout,
            OutboundError::Cut { .. } => Self::IssuerCut,
            OutboundError::TooLarge { .. } => Self::IssuerReplyTooLarge,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CACHE_CONTROL, PRAGMA};

    const EVERY: [OAuthError; 43] = [
        OAuthError::InvalidGrant,
        OAuthError::InvalidToken,
        OAuthError::StoreUnavailable,
        OAuthError::StoreFull,
        OAuthError::RefreshFailed,
        OAuthError::RevokedToken,
        OAuthError::ForeignToken,
        OAuthError::UnsupportedTokenType,
        OAuthError::NotKept,
        OAuthError::NotJudged,
        OAuthError::MissingRequired("client_id"),
        OAuthError::UnknownClient,
        OAuthError::IssuerUnknown,
        OAuthError::NotGet,
        OAuthError::BadQuery,
        OAuthError::BadRedirectUri,
        OAuthError::UnsupportedResponseType,
        OAuthError::NoBearerToken,
        OAuthError::SeveralTokens,
        OAuthError::NoSuchEndpoint,
        OAuthError::MethodNotAllowed,
        OAuthError::BodyTooLarge,
        OAuthError::UnsupportedMediaType,
        OAuthError::BadForm,
        OAuthError::BadJson { line: 1, column: 2 },
        OAuthError::NotAString(Some("scope")),
        OAuthError::NotAString(None),
        OAuthError::Repeated(Some("scope")),
        OAuthError::Repeated(None),
        OAuthError::TooManyParameters,
        OAuthError::MissingParameter("code"),
        OAuthError::UnsupportedGrant,
        OAuthError::SeveralClientAuthentications,
        OAuthError::OtherClientId,
        OAuthError::BadBasic,
        OAuthError::UnsupportedAuthorization,
        OAuthError::NoClientAuthentication,
        OAuthError::TooManyOpen,
        OAuthError::IssuerUnreachable,
        OAuthError::IssuerTimeout,
        OAuthError::IssuerCut,
        OAuthError::IssuerReplyTooLarge,
        OAuthError::IssuerReplyUnusable,
    ];

    #[test]
    fn every_error_is_a_whole_oauth_answer() {
        for error in EVERY {
            let response = error.response("r\"\\\r\né");
            let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
            assert_eq!(body["error"], error.code());
            let description = body["error_description"].as_str().unwrap();
            let allowed = |b: u8| matches!(b, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
            assert!(description.bytes().all(allowed), "{description}");
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], "application/json");
            assert_eq!(headers[CACHE_CONTROL], "no-store");
            assert_eq!(headers[PRAGMA], "no-cache");
            let challenge = headers.get(WWW_AUTHENTICATE);
            assert_eq!(challenge.is_some(), response.status() == 401, "{error:?}");
            let expected = match error {
                OAuthError::NoBearerToken => "Bearer realm=\"r\"",
                OAuthError::RevokedToken => {
                    "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"the access token has been revoked\""
                }
                OAuthError::InvalidToken => {
                    "Bearer realm=\"r\", error=\"invalid_token\", error_description=\"the access token is unknown, expired or revoked\""
                }
                _ => "Basic realm=\"r\"",
            };
            assert!(challenge.is_none_or(|value| value == expected));
            assert_eq!(headers.contains_key(ALLOW), response.status() == 405);
            let retry_after = headers.contains_key(RETRY_AFTER);
            assert_eq!(retry_after, response.status() == 503, "{error:?}");
            assert_eq!(response.status().is_server_error(), {
                matches!(error.code(), "temporarily_unavailable" | "server_error")
            });
        }
    }

    #[test]
    fn answers_without_a_surface() {
        assert_eq!(OAuthError::MethodNotAllowed.response("").status(), 405);
        assert_eq!(
            OAuthError::MethodNotAllowed.response("").headers()[ALLOW],
            "POST"
        );
        assert_eq!(OAuthError::BodyTooLarge.response("").status(), 413);
    }

    #[test]
    fn outbound_errors_map_to_statuses() {
        let (host, cause): (Box<str>, Box<str>) = ("h".into(), "c".into());
        let after = std::time::Duration::from_secs(3);
        let rows = [
            (
                OutboundError::Connect {
                    host: host.clone(),
                    cause: cause.clone(),
                },
                502,
            ),
            (
                OutboundError::Timeout {
                    host: host.clone(),
                    after,
                },
                504,
            ),
            (
                OutboundError::Cut {
                    host: host.clone(),
                    cause,
                },
                502,
            ),
            (OutboundError::TooLarge { host, limit: 1 }, 502),
        ];
        for (error, status) in rows {
            assert_eq!(OAuthError::from(&error).status(), status, "{error}");
        }
    }
}
