//! `GET {prefix}/userinfo`: asked with the caller's own token, and answered with what the issuer says.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Response, Uri};
use serde_json::{Map, Value};

use super::endpoint::Answer;
use super::errors::{OAuthError, forbid_storing};
use super::reply::{Outcome, pass_headers};
use crate::outbound::{Outbound, Reply};
use crate::telemetry::trace::Trace;

/// Largest answer that is read, in bytes.
const MAX_REPLY: usize = 1024 * 1024;

/// Where a surface asks who a user is.
#[derive(Debug)]
pub struct UserinfoIssuer<'i> {
    /// The client to ask with.
    pub outbound: &'i Outbound,
    /// The issuer's userinfo endpoint.
    pub endpoint: &'i Uri,
    /// Tells the issuer which trace its answer belongs to.
    pub trace: &'i Trace,
}

/// The header fields for the issuer: the caller's token, and nothing else of what came.
///
/// # Errors
///
/// [`OAuthError::NoBearerToken`], or [`OAuthError::SeveralTokens`] (RFC 6750 §2).
pub fn credential(head: &Parts) -> Result<HeaderMap, OAuthError> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(OAuthError::NoBearerToken)?;
    let query = head.uri.query().unwrap_or_default().as_bytes();
    let in_query = || form_urlencoded::parse(query).any(|(name, _)| name == "access_token");
    if values.next().is_some() || in_query() {
        return Err(OAuthError::SeveralTokens);
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let token = token.trim_matches(' ');
        (scheme.eq_ignore_ascii_case("bearer") && is_token(token)).then_some(token)
    });
    let token = token.ok_or(OAuthError::NoBearerToken)?;
    let mut value =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| OAuthError::NoBearerToken)?;
    value.set_sensitive(true);
    let mut headers = HeaderMap::with_capacity(2);
    headers.insert(AUTHORIZATION, value);
    let accept = HeaderValue::from_static("application/json, application/jwt");
    headers.insert(ACCEPT, accept);
    Ok(headers)
}

/// The token in what [`credential`] has found.
#[must_use]
pub fn token(credential: &HeaderMap) -> &str {
    let value = credential.get(AUTHORIZATION);
    let text = value.and_then(|value| value.to_str().ok());
    let token = text.and_then(|text| text.strip_prefix("Bearer "));
    token.unwrap_or_default()
}

/// The alphabet of a bearer token (RFC 6750 §2.1).
pub(super) fn is_token(text: &str) -> bool {
    let allowed = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=')
    };
    !text.is_empty() && text.bytes().all(allowed)
}

/// Asks the issuer, once. `credential` is what [`credential`] has found.
///
/// # Errors
///
/// One of [`OAuthError`] that concern the issuer.
pub async fn ask(
    issuer: UserinfoIssuer<'_>,
    mut credential: HeaderMap,
) -> Result<Answer, OAuthError> {
    issuer.trace.tell(&mut credential);
    let asked = issuer
        .outbound
        .get_with(issuer.endpoint, credential, MAX_REPLY);
    match asked.await {
        Ok(reply) => answer(reply),
        Err(cause) => {
            tracing::warn!(%cause, "userinfo request failed");
            Err(OAuthError::from(&cause))
        }
    }
}

/// Makes the issuer's answer the client's: status, body and challenge as they are.
///
/// # Errors
///
/// [`OAuthError::IssuerReplyUnusable`] for a redirect, and for a success that tells nothing of a user:
/// neither a JSON object nor a JWT (OpenID Connect Core §5.3.2).
pub fn answer(reply: Reply) -> Result<Answer, OAuthError> {
    let content_type = reply.headers.get(CONTENT_TYPE);
    let outcome = match reply.status.as_u16() {
        200..=299 if is_profile(content_type, &reply.body) => Outcome::Answered,
        400..=499 => Outcome::RefusedByIssuer,
        500..=599 => Outcome::IssuerError,
        _ => return Err(OAuthError::IssuerReplyUnusable),
    };
    let mut response = Response::new(reply.body);
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    pass_headers(&reply.headers, headers);
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, content_type.clone());
    }
    forbid_storing(headers);
    Ok(Answer { response, outcome })
}

fn is_profile(content_type: Option<&HeaderValue>, body: &Bytes) -> bool {
    let text = content_type.and_then(|value| value.to_str().ok());
    let essence = text
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    if essence.trim().eq_ignore_ascii_case("application/jwt") {
        return std::str::from_utf8(body).is_ok_and(|body| is_token(body.trim()));
    }
    serde_json::from_slice::<Map<String, Value>>(body).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    /// Target, values of `Authorization`, and what goes on.
    type Row = (
        &'static str,
        &'static [&'static [u8]],
        Result<&'static str, OAuthError>,
    );

    fn given(target: &str, headers: &[&[u8]]) -> Result<String, OAuthError> {
        let mut head = http::Request::get(target)
            .header("cookie", "c=1")
            .header("auth0-forwarded-for", "192.0.2.1")
            .body(())
            .unwrap()
            .into_parts()
            .0;
        for value in headers {
            let value = HeaderValue::from_bytes(value).unwrap();
            head.headers.append(AUTHORIZATION, value);
        }
        credential(&head).map(|headers| {
            assert_eq!(headers.len(), 2, "nothing else goes on");
            assert!(headers[AUTHORIZATION].is_sensitive());
            headers[AUTHORIZATION].to_str().unwrap().to_owned()
        })
    }

    #[test]
    fn one_token_in_one_place() {
        use OAuthError::{NoBearerToken, SeveralTokens};
        const GOOD: Result<&str, OAuthError> = Ok("Bearer a.b-c_d~e+f/g=");
        let rows: [Row; 13] = [
            ("/userinfo", &[b"Bearer a.b-c_d~e+f/g="], GOOD),
            ("/userinfo?x=1", &[b"bearer   a.b-c_d~e+f/g="], GOOD),
            ("/userinfo", &[], Err(NoBearerToken)),
            ("/userinfo?access_token=a", &[], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer"], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer "], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer a b"], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer a, b"], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer \xc3\xa9"], Err(NoBearerToken)),
            ("/userinfo", &[b"Basic aWQ6cw=="], Err(NoBearerToken)),
            ("/userinfo", &[b"DPoP a"], Err(NoBearerToken)),
            ("/userinfo", &[b"Bearer a", b"Bearer a"], Err(SeveralTokens)),
            (
                "/userinfo?access%5ftoken=",
                &[b"Bearer a"],
                Err(SeveralTokens),
            ),
        ];
        for (target, headers, expected) in rows {
            let expected = expected.map(str::to_owned);
            assert_eq!(given(target, headers), expected, "{target} {headers:?}");
        }
    }

    #[test]
    fn what_the_issuer_says() {
        let json = "application/json; charset=utf-8";
        let rows = [
            (200, json, r#"{"sub":"a"}"#, Some(Outcome::Answered)),
            (200, "", r#"{ "sub" : "a" }"#, Some(Outcome::Answered)),
            (
                200,
                "application/jwt",
                "eyJh.eyJz.sig",
                Some(Outcome::Answered),
            ),
            (200, "application/jwt", "", None),
            (200, "text/html", "<html>log in</html>", None),
            (200, json, "", None),
            (200, json, r#"["sub"]"#, None),
            (204, "", "", None),
            (302, "", "", None),
            (
                401,
                json,
                r#"{"error":"invalid_token"}"#,
                Some(Outcome::RefusedByIssuer),
            ),
            (429, "text/html", "<html>", Some(Outcome::RefusedByIssuer)),
            (503, "", "", Some(Outcome::IssuerError)),
        ];
        for (status, content_type, body, expected) in rows {
            let mut headers = HeaderMap::new();
            for (name, value) in [
                ("content-type", content_type),
                ("www-authenticate", "Bearer error=\"invalid_token\""),
                ("retry-after", "7"),
                ("set-cookie", "did=1"),
                ("cache-control", "max-age=60"),
            ] {
                if !value.is_empty() {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            let reply = Reply {
                status: StatusCode::from_u16(status).unwrap(),
                headers,
                body: Bytes::from_static(body.as_bytes()),
            };
            let answer = match (answer(reply), expected) {
                (Err(error), None) => {
                    assert_eq!(error, OAuthError::IssuerReplyUnusable);
                    continue;
                }
                (Ok(answer), Some(outcome)) if answer.outcome == outcome => answer,
                (answer, _) => panic!("{status} {body}: {answer:?}"),
            };
            let response = answer.response;
            assert_eq!((response.status().as_u16(), &response.body()[..]), {
                (status, body.as_bytes())
            });
            let headers = response.headers();
            let got = headers
                .get(CONTENT_TYPE)
                .map(|value| value.to_str().unwrap());
            assert_eq!(got, Some(content_type).filter(|text| !text.is_empty()));
            assert_eq!(
                headers["www-authenticate"],
                "Bearer error=\"invalid_token\""
            );
            assert_eq!(headers["retry-after"], "7");
            assert_eq!(headers["cache-control"], "no-store");
            assert!(!headers.contains_key("set-cookie"));
        }
    }
}
