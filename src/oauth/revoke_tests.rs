//! What is read, what a token is worth, and what is said in the end, in tables.

use super::*;
use crate::identity::{Members, Scopes};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::HeaderValue;
use serde_json::json;

fn head(authorization: Option<&str>) -> Parts {
    let mut request = http::Request::post("/oauth/revoke")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("cookie", "c=1")
        .header("auth0-forwarded-for", "192.0.2.1");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    request.body(()).unwrap().into_parts().0
}

fn read(authorization: Option<&str>, body: &str) -> Result<Request, OAuthError> {
    Request::read(&head(authorization), body.as_bytes())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn requests_that_name_a_token_and_one_client() {
    let by_basic = basic("a%20b:s+s");
    let claims = URL_SAFE_NO_PAD.encode(json!({"sub": "me"}).to_string());
    let asserted = format!(
        "token=t&client_assertion=e30.{claims}.c2ln&client_assertion_type=urn%3Ax&token_type_hint=x"
    );
    let rows = [
        (
            None,
            "token=canary%20t&client_id=id&client_secret=canary",
            "canary t",
            "id",
        ),
        (None, "client_id=id&token=t&token_type_hint=no", "t", "id"),
        (Some(by_basic.as_str()), "token=t", "t", "a b"),
        (Some(by_basic.as_str()), "token=t&client_id=a+b", "t", "a b"),
        (None, &asserted, "t", "me"),
        (None, &format!("{asserted}&client_id=me"), "t", "me"),
    ];
    for (authorization, body, token, client) in rows {
        let request = read(authorization, body).unwrap_or_else(|error| panic!("{body}: {error}"));
        assert_eq!((request.token(), &*request.client), (token, client));
        assert!(!format!("{request:?}").contains("canary"), "{request:?}");
        let (headers, form) = request.into_form();
        let sent = headers.get("authorization").map(|value| {
            assert!(value.is_sensitive());
            value.to_str().unwrap()
        });
        assert_eq!(sent, authorization, "as it came");
        assert!(!headers.contains_key("cookie") && !headers.contains_key("auth0-forwarded-for"));
        let given = form_urlencoded::parse(body.as_bytes());
        assert!(form_urlencoded::parse(&form).eq(given), "{body}");
    }
}

#[test]
fn requests_that_do_not() {
    use OAuthError as E;
    let by_basic = basic("id:s");
    let rows = [
        (None, "", E::MissingRequired("client_id")),
        (None, "token=t", E::MissingRequired("client_id")),
        (
            None,
            "token=t&client_secret=s",
            E::MissingRequired("client_id"),
        ),
        (
            None,
            "token=t&client_assertion=x.y.z&client_assertion_type=t",
            E::MissingRequired("client_id"),
        ),
        (
            None,
            "token=t&client_assertion=e30.eyJzdWIiOiJtZSJ9.c2ln&client_assertion_type=t&client_id=id",
            E::OtherClientId,
        ),
        (None, "client_id=id", E::MissingRequired("token")),
        (None, "client_id=id&token=", E::MissingRequired("token")),
        (
            None,
            "client_id=id&token=t&token=t",
            E::Repeated(Some("token")),
        ),
        (
            None,
            "client_id=id&token=t&token_type_hint=a&token_type_hint=a",
            E::Repeated(Some("token_type_hint")),
        ),
        (
            Some(&*by_basic),
            "token=t&client_secret=s",
            E::SeveralClientAuthentications,
        ),
        (
            Some(&*by_basic),
            "token=t&client_id=other",
            E::OtherClientId,
        ),
        (
            Some("Bearer x"),
            "token=t&client_id=id",
            E::UnsupportedAuthorization,
        ),
        (None, "token=%zz&client_id=id", E::BadForm),
    ];
    for (authorization, body, expected) in rows {
        assert_eq!(read(authorization, body).err(), Some(expected), "{body}");
    }
    let error = E::MissingRequired("client_id").response("");
    // As Bonterra Auth documents it.
    let documented = r#"{"error":"invalid_request","error_description":"Missing required parameter: client_id"}"#;
    assert_eq!((error.status().as_u16(), &error.body()[..]), {
        (400, documented.as_bytes())
    });
}

fn identity(claims: Value) -> Arc<Identity> {
    let Value::Object(map) = claims else {
        panic!("claims are an object")
    };
    let members = map.into_iter().map(|(name, value)| (name.into(), value));
    let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
    Arc::new(Identity {
        issuer: "name".into(),
        scopes: Scopes::of(&claims),
        claims,
        expires_at: i64::MAX,
        not_before: None,
        bound_to: None,
        headers: Box::default(),
    })
}

#[test]
fn what_a_token_is_worth() {
    let request = read(None, "token=t&client_id=me").unwrap();
    let good = |exp| Ok(Standing::Good(exp));
    let foreign = Err(OAuthError::ForeignToken);
    let rows = [
        (json!({"azp": "me", "exp": 9}), good(Some(9))),
        (json!({"client_id": "me"}), good(None)),
        (json!({"exp": 9}), good(Some(9))),
        (json!({"azp": "me", "client_id": "you"}), good(None)),
        (json!({"azp": "you"}), foreign),
        (json!({"client_id": "ME"}), foreign),
        (json!({"azp": ["me"]}), foreign),
        (json!({"azp": null}), foreign),
    ];
    for (claims, expected) in rows {
        let standing = request.standing(Ok(identity(claims.clone())));
        assert_eq!(standing, expected, "{claims}");
    }
    let rows = [
        (Reason::Revoked, Ok(Standing::Denied)),
        (Reason::Expired, Ok(Standing::Over)),
        (Reason::NotYetValid, good(None)),
        (Reason::WrongIssuer, foreign),
        (Reason::MalformedToken, Ok(Standing::Unknown)),
        (Reason::BadSignature, Ok(Standing::Unknown)),
        (Reason::WrongAudience, Ok(Standing::Unknown)),
        (Reason::InactiveToken, Ok(Standing::Unknown)),
        (Reason::UnknownKey, Ok(Standing::Unknown)),
        (Reason::TokenTooLarge, Ok(Standing::Unknown)),
        (Reason::KeysUnavailable, Err(OAuthError::NotJudged)),
        (Reason::StoreUnavailable, Err(OAuthError::NotJudged)),
        (Reason::Internal, Err(OAuthError::NotJudged)),
    ];
    for (reason, expected) in rows {
        let standing = request.standing(Err(reason.clone().into()));
        assert_eq!(standing, expected, "{reason:?}");
    }
}

fn reply(status: u16, body: &'static str) -> Result<Reply, OAuthError> {
    let headers = [
        ("content-type", "application/json"),
        ("www-authenticate", "Basic realm=\"x\""),
        ("retry-after", "9"),
        ("set-cookie", "c=1"),
    ];
    let headers = headers.map(|(name, value)| {
        (
            name.parse().expect("a name"),
            HeaderValue::from_static(value),
        )
    });
    Ok(Reply {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: headers.into_iter().collect(),
        body: Bytes::from_static(body.as_bytes()),
    })
}

/// Status, whether the body is the issuer's, and the outcome: of a token that has ended, and of one
/// that only the issuer can end.
#[test]
fn what_is_said_in_the_end() {
    use OAuthError as E;
    use Outcome as O;
    const UNSUPPORTED: &str = r#"{"error":"unsupported_token_type"}"#;
    const OTHER: &str = r#"{"error":"invalid_request"}"#;
    let rows: [(Result<Reply, E>, _, _); 14] = [
        (reply(200, "x"), (200, O::Revoked), (200, O::Revoked)),
        (reply(204, ""), (200, O::Revoked), (200, O::Revoked)),
        (
            reply(400, UNSUPPORTED),
            (200, O::Revoked),
            (400, O::RefusedByIssuer),
        ),
        (
            reply(400, OTHER),
            (400, O::RefusedByIssuer),
            (400, O::RefusedByIssuer),
        ),
        (
            reply(401, OTHER),
            (401, O::RefusedByIssuer),
            (401, O::RefusedByIssuer),
        ),
        (
            reply(429, ""),
            (429, O::RefusedByIssuer),
            (429, O::RefusedByIssuer),
        ),
        (reply(500, ""), (200, O::Revoked), (500, O::IssuerError)),
        (reply(302, ""), (200, O::Revoked), (502, O::IssuerBadReply)),
        (
            Err(E::UnsupportedTokenType),
            (200, O::Revoked),
            (400, O::InvalidRequest),
        ),
        (
            Err(E::IssuerUnknown),
            (200, O::Revoked),
            (503, O::IssuerUnreachable),
        ),
        (
            Err(E::IssuerUnreachable),
            (200, O::Revoked),
            (503, O::IssuerUnreachable),
        ),
        (
            Err(E::IssuerTimeout),
            (200, O::Revoked),
            (503, O::IssuerTimeout),
        ),
        (Err(E::IssuerCut), (200, O::Revoked), (503, O::IssuerCut)),
        (
            Err(E::IssuerReplyTooLarge),
            (200, O::Revoked),
            (502, O::IssuerBadReply),
        ),
    ];
    for (asked, if_ended, if_not) in rows {
        for (ended, expected) in [(true, if_ended), (false, if_not)] {
            let asked = match &asked {
                Ok(Reply {
                    status,
                    headers,
                    body,
                }) => Ok(Reply {
                    status: *status,
                    headers: headers.clone(),
                    body: body.clone(),
                }),
                Err(error) => Err(*error),
            };
            let case = format!("{asked:?}, ended: {ended}");
            let of_issuer = asked.as_ref().ok().map(|reply| reply.body.clone());
            let Answer { response, outcome } = answer(ended, asked, "r");
            let status = response.status().as_u16();
            assert_eq!((status, outcome), expected, "{case}");
            let headers = response.headers();
            assert_eq!(headers["cache-control"], "no-store", "{case}");
            assert_eq!(headers["pragma"], "no-cache", "{case}");
            assert!(!headers.contains_key("set-cookie"), "{case}");
            assert!(status != 503 || headers.contains_key(RETRY_AFTER), "{case}");
            match outcome {
                O::Revoked => assert!(response.body().is_empty(), "{case}"),
                O::RefusedByIssuer | O::IssuerError => {
                    assert_eq!(Some(response.body().clone()), of_issuer, "{case}");
                    assert_eq!(headers["retry-after"], "9", "{case}");
                    assert!(headers.contains_key("www-authenticate"), "{case}");
                    assert_eq!(headers[CONTENT_TYPE], "application/json", "{case}");
                }
                _ => assert!(response.body().starts_with(b"{\"error\""), "{case}"),
            }
        }
    }
}
