//! What the issuer answered, made into what the client reads.
//!
//! Errors pass as they are. Token replies pass with one repair: `expires_in` comes out an integer.

use bytes::Bytes;
use http::header::{
    CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::{Map, Number, Value};

use super::errors::{OAuthError, forbid_storing};
use crate::outbound::Reply;

/// How a request at an endpoint ended; the whole set, for metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The issuer issued a token.
    Issued,
    /// A token that was issued before, or for somebody who asked for the same at the same time.
    Reused,
    /// The issuer answered 4xx.
    RefusedByIssuer,
    /// The issuer answered 5xx.
    IssuerError,
    /// Refused here: `invalid_request`.
    InvalidRequest,
    /// Refused here: `invalid_client`.
    InvalidClient,
    /// Refused here: `unsupported_grant_type`.
    UnsupportedGrantType,
    /// Refused here: too many requests to the issuer are open.
    Overloaded,
    /// No connection to the issuer.
    IssuerUnreachable,
    /// No answer in time.
    IssuerTimeout,
    /// The exchange broke off.
    IssuerCut,
    /// The answer was no token reply, or too large.
    IssuerBadReply,
    /// A browser was sent on to the issuer.
    Redirected,
    /// What was asked for was there.
    Answered,
    /// Refused here: `unsupported_response_type`.
    UnsupportedResponseType,
    /// Refused here: no access token came.
    MissingToken,
    /// Refused here: `invalid_grant`.
    InvalidGrant,
    /// Refused here: the access token is none, or has been revoked.
    InvalidToken,
    /// A token is revoked now, or never was good.
    Revoked,
    /// Not done, because something that it takes is away.
    Unavailable,
}

/// Headers of the issuer that concern the client: authentication, back-off, quota.
const PASSED: [HeaderName; 8] = [
    WWW_AUTHENTICATE,
    RETRY_AFTER,
    HeaderName::from_static("dpop-nonce"),
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
    HeaderName::from_static("auth0-client-quota-limit"),
    HeaderName::from_static("auth0-organization-quota-limit"),
];

/// Lifetimes above this many seconds are garbage; every JSON reader holds it exactly.
const MAX_LIFETIME: u64 = 1 << 53;

impl Outcome {
    /// Every outcome, for labels that are resolved ahead.
    pub const ALL: [Self; 20] = [
        Self::Issued,
        Self::Reused,
        Self::RefusedByIssuer,
        Self::IssuerError,
        Self::InvalidRequest,
        Self::InvalidClient,
        Self::UnsupportedGrantType,
        Self::Overloaded,
        Self::IssuerUnreachable,
        Self::IssuerTimeout,
        Self::IssuerCut,
        Self::IssuerBadReply,
        Self::Redirected,
        Self::Answered,
        Self::UnsupportedResponseType,
        Self::MissingToken,
        Self::InvalidGrant,
        Self::InvalidToken,
        Self::Revoked,
        Self::Unavailable,
    ];

    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Reused => "reused",
            Self::RefusedByIssuer => "refused_by_issuer",
            Self::IssuerError => "issuer_error",
            Self::InvalidRequest => "invalid_request",
            Self::InvalidClient => "invalid_client",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::Overloaded => "overloaded",
            Self::IssuerUnreachable => "issuer_unreachable",
            Self::IssuerTimeout => "issuer_timeout",
            Self::IssuerCut => "issuer_cut",
            Self::IssuerBadReply => "issuer_bad_reply",
            Self::Redirected => "redirected",
            Self::Answered => "answered",
            Self::UnsupportedResponseType => "unsupported_response_type",
            Self::MissingToken => "missing_token",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidToken => "invalid_token",
            Self::Revoked => "revoked",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Makes the issuer's answer to a token request the client's.
///
/// # Errors
///
/// [`OAuthError::IssuerReplyUnusable`] for a redirect, and for a success that is no JSON object
/// with a string `access_token`.
pub fn answer(reply: Reply) -> Result<(Response<Bytes>, Outcome), OAuthError> {
    let status = reply.status;
    let (body, content_type, status, outcome) = if status.is_success() {
        let json = HeaderValue::from_static("application/json");
        let body = token_body(reply.body)?;
        (body, Some(json), StatusCode::OK, Outcome::Issued)
    } else {
        let outcome = match status.as_u16() {
            400..=499 => Outcome::RefusedByIssuer,
            500..=599 => Outcome::IssuerError,
            _ => return Err(OAuthError::IssuerReplyUnusable),
        };
        let content_type = reply.headers.get(CONTENT_TYPE).cloned();
        (reply.body, content_type, status, outcome)
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    pass_headers(&reply.headers, headers);
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    forbid_storing(headers);
    Ok((response, outcome))
}

/// Passes the headers that concern the client.
pub(super) fn pass_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for name in &PASSED {
        for value in from.get_all(name) {
            to.append(name.clone(), value.clone());
        }
    }
}

/// The body of a token reply (RFC 6749 §5.1): byte for byte as it came when `expires_in` is fine or
/// absent, otherwise written anew with the other members in place.
fn token_body(body: Bytes) -> Result<Bytes, OAuthError> {
    let members: Map<String, Value> =
        serde_json::from_slice(&body).map_err(|_| OAuthError::IssuerReplyUnusable)?;
    if !members.get("access_token").is_some_and(Value::is_string) {
        return Err(OAuthError::IssuerReplyUnusable);
    }
    match members.get("expires_in") {
        None => Ok(body),
        Some(Value::Number(number)) if is_lifetime(number) => Ok(body),
        Some(given) => {
            let lifetime = lifetime(given);
            Ok(with_lifetime(members, lifetime))
        }
    }
}

fn is_lifetime(number: &Number) -> bool {
    number
        .as_u64()
        .is_some_and(|seconds| seconds <= MAX_LIFETIME)
}

/// Whole seconds from what should have been an integer: `"86400"`, `86400.0`, `"86400.0"`; a fraction
/// is cut off, so that a token never seems to live longer than it does. None for anything else.
fn lifetime(given: &Value) -> Option<u64> {
    let seconds = match given {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            // f64's own reading also takes "inf", "nan" and "1e3": not meant here.
            let plain = |byte: u8| byte.is_ascii_digit() || byte == b'.';
            text.bytes().all(plain).then(|| text.parse().ok())??
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "within 0..=2^53, where f64 holds every integer; cutting the fraction is the aim"
    )]
    (0.0..=MAX_LIFETIME as f64)
        .contains(&seconds)
        .then_some(seconds as u64)
}

/// Garbage is left out: `expires_in` is only recommended (RFC 6749 §5.1), and a client that reads
/// none fares better than one that trips over `null` or believes a made-up number.
fn with_lifetime(mut members: Map<String, Value>, lifetime: Option<u64>) -> Bytes {
    match lifetime {
        Some(seconds) => {
            // Into an existing key: it keeps its place.
            members.insert("expires_in".into(), seconds.into());
        }
        None => {
            tracing::debug!("the issuer's expires_in is no lifetime; left out of the reply");
            members.shift_remove("expires_in");
        }
    }
    Value::Object(members).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CACHE_CONTROL, PRAGMA};

    fn reply(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> Reply {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let status = StatusCode::from_u16(status).unwrap();
        let body = Bytes::from_static(body.as_bytes());
        Reply {
            status,
            headers: map,
            body,
        }
    }

    #[test]
    fn token_replies() {
        let same = [
            r#"{"access_token":"a","expires_in":86400,"token_type":"Bearer"}"#,
            r#"{ "token_type" : "bearer", "access_token" : "a", "expires_in" : 0 }"#,
            r#"{"access_token":"a"}"#,
            r#"{"z":12345678901234567890123,"a":1.50,"access_token":"a","nested":{"y":1,"b":[null]}}"#,
        ];
        for body in same {
            let (response, outcome) = answer(reply(200, &[], body)).unwrap();
            assert_eq!(
                (response.status().as_u16(), outcome),
                (200, Outcome::Issued)
            );
            assert_eq!(response.body(), body);
        }
    }

    #[test]
    fn expires_in_comes_out_an_integer_or_not_at_all() {
        let rows = [
            (r#""86400""#, Some("86400")),
            (r#"" 86400 ""#, Some("86400")),
            (r#""86400.0""#, Some("86400")),
            ("86400.0", Some("86400")),
            ("8.64e4", Some("86400")),
            ("3599.9", Some("3599")),
            ("0.0", Some("0")),
            ("9007199254740992", Some("9007199254740992")),
            ("9007199254740994", None),
            ("1e300", None),
            ("-1", None),
            ("-0.5", None),
            ("null", None),
            ("true", None),
            ("[86400]", None),
            ("{}", None),
            (r#""""#, None),
            (r#"".""#, None),
            (r#""1.2.3""#, None),
            (r#""-5""#, None),
            (r#""1e3""#, None),
            (r#""inf""#, None),
            (r#""24h""#, None),
        ];
        for (given, expected) in rows {
            let body = format!(r#"{{"scope":"s","expires_in":{given},"access_token":"a","x":1}}"#);
            let wanted = match expected {
                Some(n) => format!(r#"{{"scope":"s","expires_in":{n},"access_token":"a","x":1}}"#),
                None => r#"{"scope":"s","access_token":"a","x":1}"#.to_owned(),
            };
            assert_eq!(token_body(body.into()).unwrap(), wanted, "{given}");
        }
    }

    #[test]
    fn successes_that_are_none() {
        let rows = [
            (200, ""),
            (204, ""),
            (200, "<html>sign in</html>"),
            (200, "[]"),
            (200, "{}"),
            (200, r#"{"access_token":null}"#),
            (200, r#"{"access_token":1}"#),
            (200, r#"{"access_token":"a"} trailing"#),
            (200, r#"{"error":"invalid_grant"}"#),
            (301, r#"{"access_token":"a"}"#),
            (302, ""),
            (304, ""),
            (600, ""),
        ];
        for (status, body) in rows {
            let got = answer(reply(status, &[("location", "https://x/")], body)).err();
            assert_eq!(
                got,
                Some(OAuthError::IssuerReplyUnusable),
                "{status} {body}"
            );
        }
    }

    #[test]
    fn errors_pass_with_their_headers() {
        let headers = [
            ("content-type", "text/html"),
            ("www-authenticate", "Basic realm=\"x\""),
            ("www-authenticate", "DPoP error=\"use_dpop_nonce\""),
            ("retry-after", "7"),
            ("x-ratelimit-limit", "10"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1700000000"),
            ("auth0-client-quota-limit", "b=per_hour;q=10;r=0;t=3540"),
            ("dpop-nonce", "n"),
            ("set-cookie", "did=1"),
            ("cache-control", "max-age=60"),
            ("connection", "close"),
            ("content-length", "99"),
            ("server", "issuer"),
        ];
        let rows = [
            (400, Outcome::RefusedByIssuer),
            (401, Outcome::RefusedByIssuer),
            (403, Outcome::RefusedByIssuer),
            (429, Outcome::RefusedByIssuer),
            (500, Outcome::IssuerError),
            (503, Outcome::IssuerError),
        ];
        for (status, expected) in rows {
            let body = "{ \"error\" : <any bytes> ";
            let (response, outcome) = answer(reply(status, &headers, body)).unwrap();
            assert_eq!((response.status().as_u16(), outcome), (status, expected));
            assert_eq!(response.body(), body);
            let got = response.headers();
            for (name, value) in &headers[..9] {
                assert!(got.get_all(*name).iter().any(|v| v == value), "{name}");
            }
            assert_eq!(got.get_all(WWW_AUTHENTICATE).iter().count(), 2);
            for gone in ["set-cookie", "connection", "content-length", "server"] {
                assert!(!got.contains_key(gone), "{gone}");
            }
            assert_eq!(got[CACHE_CONTROL], "no-store");
            assert_eq!(got[PRAGMA], "no-cache");
        }
    }

    #[test]
    fn quota_headers_pass_on_success_too() {
        let headers = [
            ("x-ratelimit-remaining", "9"),
            ("content-type", "text/plain"),
        ];
        let (response, _) = answer(reply(200, &headers, r#"{"access_token":"a"}"#)).unwrap();
        assert_eq!(response.headers()["x-ratelimit-remaining"], "9");
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
    }
}
