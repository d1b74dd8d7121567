//! Every reason why a request can be turned away, with the status and the sentence for the client.

use super::Challenge;
use http::{HeaderValue, StatusCode};

/// The reason for a refusal. Its name is the same in the body, the log, the metric and the docs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The request is not one that may be interpreted: ambiguous path, bad host, malformed head.
    BadRequest,
    /// The same of a request that does not keep to what the route's configuration says of queries and
    /// bodies; the value is the sentence for the client, without anything secret.
    NotAccepted(Box<str>),
    /// A credential came in more than one place (RFC 6750 §2).
    MultipleTokens,
    /// The route needs a token and none came (RFC 6750 §3.1: a bare challenge).
    MissingToken,
    /// Not a JWS in compact serialisation, or not strictly encoded.
    MalformedToken,
    /// Longer than `max_token_bytes`.
    TokenTooLarge,
    /// `typ` is not one of the issuer's `token_types`.
    WrongType,
    /// `alg` is not on the issuer's list, or does not fit the key.
    AlgorithmNotAllowed,
    /// No published key has this `kid`.
    UnknownKey,
    /// The signature does not verify.
    BadSignature,
    /// `iss` is no issuer that this route accepts.
    WrongIssuer,
    /// `aud` names none of the issuer's `audiences`.
    WrongAudience,
    /// `exp` has passed.
    Expired,
    /// `nbf` or `iat` lies in the future.
    NotYetValid,
    /// `exp - iat` is over `max_lifetime`.
    TooLongLived,
    /// The header has a `crit` member (RFC 7515 §4.1.11).
    CriticalHeader,
    /// A claim that every token must have is absent or of the wrong kind.
    MissingClaim,
    /// The token, its id or its subject has been revoked here.
    Revoked,
    /// The issuer says that the token is not active (RFC 7662 §2.2).
    InactiveToken,
    /// The token is bound to a key or a certificate (`cnf`) and came as a plain bearer token.
    BoundToken,
    /// The token's scopes do not cover the route's; the value is what the route asks for.
    InsufficientScope(Box<str>),
    /// A claim does not have the value that the route asks for.
    ClaimMismatch,
    /// The client's address is not in the route's `allow_ips`.
    IpNotAllowed,
    /// No route has this host and path.
    NoRoute,
    /// The path exists, but not for this method; the value is the `Allow` header.
    MethodNotAllowed(Box<str>),
    /// The client took longer than a deadline to send its request.
    RequestTimeout,
    /// The body is over `max_body`.
    BodyTooLarge,
    /// The head is over `max_header_bytes` or `max_headers`.
    HeadersTooLarge,
    /// No connection to the upstream could be made.
    UpstreamConnect,
    /// The upstream closed or reset the connection before it answered.
    UpstreamReset,
    /// The upstream's answer is not HTTP.
    UpstreamProtocol,
    /// The upstream's answer did not come in time.
    UpstreamTimeout,
    /// No server of the upstream is known to be well, or the gateway has no token of its own for it
    /// (`[upstream.*.token]`).
    UpstreamUnhealthy,
    /// There are no keys to check the token with: that is not the token's fault.
    KeysUnavailable,
    /// What gateways share is away, and the token cannot be judged without it.
    StoreUnavailable,
    /// More connections or requests than a limit allows.
    Overloaded,
    /// The gateway is shutting down.
    Draining,
    /// The gateway failed inside; the log has the particulars.
    Internal,
    /// The caller has asked more often than the route's `rate_limit` allows.
    RateLimited(Box<Excess>),
}

/// What a caller who asks too often is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excess {
    /// Seconds until the next request may pass: `Retry-After`.
    pub wait: u32,
    /// `RateLimit` (draft-ietf-httpapi-ratelimit-headers).
    pub limit: HeaderValue,
    /// `RateLimit-Policy`.
    pub policy: HeaderValue,
}

// === impl Reason ===

impl Reason {
    /// The number of reasons, for tables indexed by [`Reason::index`].
    pub const COUNT: usize = 38;

    /// The name under which logs, metrics and bodies show this reason.
    pub fn as_str(&self) -> &'static str {
        self.row().1
    }

    /// A small number for tables of pre-resolved metrics.
    pub fn index(&self) -> usize {
        self.row().0
    }

    /// The HTTP status that the client gets.
    pub fn status(&self) -> StatusCode {
        self.row().2
    }

    /// Index, name, status, and the sentence for the client; one line a reason.
    pub(super) fn row(&self) -> (usize, &'static str, StatusCode, &str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (
                0,
                "bad_request",
                S::BAD_REQUEST,
                "The request is malformed or ambiguous.",
            ),
            Self::NotAccepted(why) => (0, "bad_request", S::BAD_REQUEST, why),
            Self::MultipleTokens => (
                1,
                "multiple_tokens",
                S::BAD_REQUEST,
                "Send the access token in one place only.",
            ),
            Self::MissingToken => (
                2,
                "missing_token",
                S::UNAUTHORIZED,
                "This resource needs a bearer token.",
            ),
            Self::MalformedToken => (
                3,
                "malformed_token",
                S::UNAUTHORIZED,
                "The token is not a well-formed JWT.",
            ),
            Self::TokenTooLarge => (
                4,
                "token_too_large",
                S::UNAUTHORIZED,
                "The token is too large.",
            ),
            Self::WrongType => (
                5,
                "wrong_type",
                S::UNAUTHORIZED,
                "The token is not an access token.",
            ),
            Self::AlgorithmNotAllowed => (
                6,
                "algorithm_not_allowed",
                S::UNAUTHORIZED,
                "The token's algorithm is not accepted.",
            ),
            Self::UnknownKey => (
                7,
                "unknown_key",
                S::UNAUTHORIZED,
                "The token is signed with a key that is not known.",
            ),
            Self::BadSignature => (
                8,
                "bad_signature",
                S::UNAUTHORIZED,
                "The token's signature is not valid.",
            ),
            Self::WrongIssuer => (
                9,
                "wrong_issuer",
                S::UNAUTHORIZED,
                "The token's issuer is not accepted here.",
            ),
            Self::WrongAudience => (
                10,
                "wrong_audience",
                S::UNAUTHORIZED,
                "The token is meant for another audience.",
            ),
            Self::Expired => (11, "expired", S::UNAUTHORIZED, "The token has expired."),
            Self::NotYetValid => (
                12,
                "not_yet_valid",
                S::UNAUTHORIZED,
                "The token is not valid yet.",
            ),
            Self::TooLongLived => (
                13,
                "too_long_lived",
                S::UNAUTHORIZED,
                "The token's lifetime is longer than allowed.",
            ),
            Self::CriticalHeader => (
                14,
                "critical_header",
                S::UNAUTHORIZED,
                "The token needs an extension that is not supported.",
            ),
            Self::MissingClaim => (
                15,
                "missing_claim",
                S::UNAUTHORIZED,
                "The token lacks a claim that is needed.",
            ),
            Self::BoundToken => (
                16,
                "bound_token",
                S::UNAUTHORIZED,
                "The token is bound to a key and cannot be used as a bearer token.",
            ),
            Self::InsufficientScope(_) => (
                17,
                "insufficient_scope",
                S::FORBIDDEN,
                "The token's scope does not cover this resource.",
            ),
            Self::ClaimMismatch => (
                18,
                "claim_mismatch",
                S::FORBIDDEN,
                "The token's claims do not grant access to this resource.",
            ),
            Self::IpNotAllowed => (
                19,
                "ip_not_allowed",
                S::FORBIDDEN,
                "This resource is not available from your address.",
            ),
            Self::NoRoute => (20, "no_route", S::NOT_FOUND, "There is nothing here."),
            Self::MethodNotAllowed(_) => (
                21,
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                "The method is not allowed here; see Allow.",
            ),
            Self::RequestTimeout => (
                22,
                "request_timeout",
                S::REQUEST_TIMEOUT,
                "The request was not complete in time.",
            ),
            Self::BodyTooLarge => (
                23,
                "body_too_large",
                S::PAYLOAD_TOO_LARGE,
                "The request body is too large.",
            ),
            Self::HeadersTooLarge => (
                24,
                "headers_too_large",
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The request head is too large.",
            ),
            Self::UpstreamConnect => (
                25,
                "upstream_connect",
                S::BAD_GATEWAY,
                "The service behind the gateway cannot be reached.",
            ),
            Self::UpstreamReset => (
                26,
                "upstream_reset",
                S::BAD_GATEWAY,
                "The service behind the gateway broke off.",
            ),
            Self::UpstreamProtocol => (
                27,
                "upstream_protocol",
                S::BAD_GATEWAY,
                "The service behind the gateway sent no valid answer.",
            ),
            Self::UpstreamTimeout => (
                28,
                "upstream_timeout",
                S::GATEWAY_TIMEOUT,
                "The service behind the gateway did not answer in time.",
            ),
            Self::KeysUnavailable => (
                29,
                "keys_unavailable",
                S::SERVICE_UNAVAILABLE,
                "Tokens cannot be checked at the moment; try again soon.",
            ),
            Self::Overloaded => (
                30,
                "overloaded",
                S::SERVICE_UNAVAILABLE,
                "The gateway is at its limit; try again soon.",
            ),
            Self::Draining => (
                31,
                "draining",
                S::SERVICE_UNAVAILABLE,
                "The gateway is shutting down; try again.",
            ),
            Self::Internal => (
                32,
                "internal_error",
                S::INTERNAL_SERVER_ERROR,
                "The gateway failed; the request id helps to find out why.",
            ),
            Self::Revoked => (
                33,
                "revoked",
                S::UNAUTHORIZED,
                "The token has been revoked.",
            ),
            Self::InactiveToken => (
                34,
                "inactive_token",
                S::UNAUTHORIZED,
                "The token is not active.",
            ),
            Self::RateLimited(_) => (
                35,
                "rate_limited",
                S::TOO_MANY_REQUESTS,
                "Too many requests; see Retry-After.",
            ),
            Self::UpstreamUnhealthy => (
                36,
                "upstream_unhealthy",
                S::SERVICE_UNAVAILABLE,
                "The service behind the gateway is not available at the moment; try again soon.",
            ),
            Self::StoreUnavailable => (
                37,
                "store_unavailable",
                S::SERVICE_UNAVAILABLE,
                "Tokens cannot be checked at the moment; try again soon.",
            ),
        }
    }

    pub(super) fn challenge(&self) -> Challenge {
        match self.status() {
            StatusCode::UNAUTHORIZED if *self == Self::MissingToken => Challenge::Bare,
            StatusCode::UNAUTHORIZED => Challenge::InvalidToken,
            _ if matches!(self, Self::InsufficientScope(_)) => Challenge::InsufficientScope,
            _ => Challenge::None,
        }
    }

    /// Seconds after which another try makes sense, for what passes by itself.
    pub(super) fn retry_after(&self) -> Option<u32> {
        if let Self::RateLimited(excess) = self {
            return Some(excess.wait);
        }
        (self.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(match self {
            Self::KeysUnavailable => 5,
            _ => 1,
        })
    }

    /// Whether the connection may not be used again after this answer.
    pub(super) fn closes(&self) -> bool {
        matches!(
            self,
            Self::RequestTimeout | Self::HeadersTooLarge | Self::BodyTooLarge | Self::Draining
        )
    }
}
