//! Who may ask, and what is told.

use super::*;
use crate::identity::{Claims, Members, Scopes};
use crate::rejection::Reason;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

fn clients() -> Clients {
    Clients::new([("api", "s+e:cret"), ("other", "s2"), ("x", "yz")])
}

fn asked(authorization: Option<&str>, body: &str) -> Result<String, OAuthError> {
    let mut request = http::Request::post("/oauth/introspect")
        .header("content-type", "application/x-www-form-urlencoded");
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    let head = request.body(()).unwrap().into_parts().0;
    read(&clients(), &head, body.as_bytes()).map(|token| token.expose().to_owned())
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

#[test]
fn who_may_ask() {
    let encoded = basic("api:s%2Be%3Acret");
    let rows = [
        (Some(&*encoded), "token=t"),
        (Some(&*encoded), "token=t&client_id=api&token_type_hint=no"),
        (None, "token=t&client_id=api&client_secret=s%2Be%3Acret"),
        (None, "token=t&client_id=other&client_secret=s2"),
    ];
    for (authorization, body) in rows {
        assert_eq!(asked(authorization, body), Ok("t".to_owned()), "{body}");
    }
    assert_eq!(format!("{:?}", clients()), "Clients(3)");
    assert!(Clients::default().is_empty() && !clients().is_empty());
}

#[test]
fn who_may_not() {
    use OAuthError as E;
    let good = basic("other:s2");
    // A plus sign that was not encoded is a blank.
    let raw = basic("api:s+e:cret");
    let rows = [
        (None, "token=t", E::UnknownClient),
        (None, "token=t&client_id=api", E::UnknownClient),
        (None, "token=t&client_secret=s2", E::UnknownClient),
        (
            None,
            "token=t&client_id=other&client_secret=S2",
            E::UnknownClient,
        ),
        (
            None,
            "token=t&client_id=api&client_secret=s2",
            E::UnknownClient,
        ),
        (
            None,
            "token=t&client_id=nobody&client_secret=s2",
            E::UnknownClient,
        ),
        // The same text, parted elsewhere.
        (
            None,
            "token=t&client_id=xy&client_secret=z",
            E::UnknownClient,
        ),
        (
            None,
            "token=t&client_id=other&client_assertion=j&client_assertion_type=t",
            E::UnknownClient,
        ),
        (Some(&*raw), "token=t", E::UnknownClient),
        (Some(&*basic("other:")), "token=t", E::UnknownClient),
        (Some("Bearer t"), "token=t", E::UnsupportedAuthorization),
        (Some("Basic !"), "token=t", E::BadBasic),
        (
            Some(&*good),
            "token=t&client_secret=s2",
            E::SeveralClientAuthentications,
        ),
        (Some(&*good), "token=t&client_id=api", E::OtherClientId),
        (Some(&*good), "", E::MissingParameter("token")),
        (Some(&*good), "token=", E::MissingParameter("token")),
        (Some(&*good), "token=t&token=t", E::Repeated(Some("token"))),
    ];
    for (authorization, body, expected) in rows {
        let got = asked(authorization, body);
        assert_eq!(got, Err(expected), "{authorization:?} {body}");
    }
}

fn told(claims: Value) -> Value {
    let Value::Object(map) = claims else {
        panic!("claims are an object")
    };
    let members = map.into_iter().map(|(name, value)| (name.into(), value));
    let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
    let identity = Identity {
        issuer: "name".into(),
        scopes: Scopes::of(&claims),
        claims,
        expires_at: 1000,
        not_before: None,
        bound_to: None,
        headers: Box::default(),
    };
    let answer = answer(Ok(Arc::new(identity))).expect("an answer");
    assert_eq!(answer.response.status(), 200);
    let headers = answer.response.headers();
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert_eq!(headers["cache-control"], "no-store");
    let body = answer.response.into_body();
    assert!(body.starts_with(b"{\"active\":true,"), "{body:?}");
    serde_json::from_slice(&body).expect("JSON")
}

#[test]
fn an_active_token_tells_its_claims() {
    let claims = json!({
        "iss": "i", "sub": "u", "aud": ["a", "b"], "exp": 9, "iat": 1, "nbf": 1, "jti": "j",
        "azp": "c", "scope": "b a", "urn:x:y": {"z": [1, true]}, "cnf": {"x5t#S256": "t"},
    });
    let mut expected = claims.clone();
    expected["active"] = json!(true);
    expected["token_type"] = json!("Bearer");
    expected["client_id"] = json!("c");
    assert_eq!(told(claims), expected);
    let rows = [
        (json!({"active": false, "token_type": "N_A"}), json!({})),
        (
            json!({"client_id": "c", "azp": "d"}),
            json!({"client_id": "c", "azp": "d"}),
        ),
        (
            json!({"scp": ["b", "a"]}),
            json!({"scp": ["b", "a"], "scope": "a b"}),
        ),
        (json!({"scope": ["b", "a"]}), json!({"scope": "a b"})),
        (
            json!({"scope": "", "permissions": ["p"]}),
            json!({"scope": "", "permissions": ["p"]}),
        ),
    ];
    for (claims, mut expected) in rows {
        expected["active"] = json!(true);
        expected["token_type"] = json!("Bearer");
        assert_eq!(told(claims.clone()), expected, "{claims}");
    }
}

#[test]
fn any_other_tells_nothing_and_what_cannot_be_told_is_not_inactive() {
    let inactive = [
        Reason::MalformedToken,
        Reason::TokenTooLarge,
        Reason::UnknownKey,
        Reason::BadSignature,
        Reason::WrongIssuer,
        Reason::WrongAudience,
        Reason::Expired,
        Reason::NotYetValid,
        Reason::Revoked,
        Reason::InactiveToken,
        Reason::BoundToken,
    ];
    for reason in inactive {
        let answer = answer(Err(reason.clone().into())).expect("an answer");
        assert_eq!(answer.response.status(), 200, "{reason:?}");
        assert_eq!(answer.response.body(), "{\"active\":false}", "{reason:?}");
        assert_eq!(answer.response.headers()["cache-control"], "no-store");
        assert_eq!(answer.outcome, Outcome::Answered);
    }
    for reason in [
        Reason::KeysUnavailable,
        Reason::StoreUnavailable,
        Reason::Internal,
    ] {
        let error = answer(Err(reason.clone().into())).expect_err("no answer");
        assert_eq!(error, OAuthError::NotJudged, "{reason:?}");
    }
}
