//! Tables of tokens that may be opaque and of what is made of an answer about one.

use super::super::token::Form;
use super::super::verify::{self, IssuerRules};
use crate::identity::{ClaimRef, Identity};
use crate::rejection::{Reason, Rejection};
use crate::steps::Untold;
use crate::strict_json;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

fn rules() -> IssuerRules {
    IssuerRules {
        name: "handles".into(),
        issuer: "https://auth.example/".into(),
        audiences: vec!["api".into(), "other".into()],
        algorithms: Vec::new(),
        token_types: Vec::new(),
        leeway: 30,
        max_token_bytes: 8192,
        max_lifetime: 0,
        headers: vec![(
            http::HeaderName::from_static("x-subject"),
            ClaimRef::Name("sub".into()),
        )],
    }
}

fn made_of(rules: &IssuerRules, answer: &Value) -> Result<Identity, Rejection> {
    let members = strict_json::object(answer.to_string().as_bytes()).expect("an object");
    verify::introspected(rules, members, NOW, &mut Untold)
}

/// A good answer with one member changed; `null` takes it out.
fn answer(name: &str, value: &Value) -> Value {
    let mut answer = json!({
        "active": true, "iss": "https://auth.example/", "aud": "api", "sub": "u", "scope": "a b",
        "token_type": "Bearer", "iat": NOW - 10, "nbf": NOW - 10, "exp": NOW + 600,
    });
    let members = answer.as_object_mut().expect("an object");
    match value {
        Value::Null => drop(members.remove(name)),
        value => drop(members.insert(name.to_owned(), value.clone())),
    }
    answer
}

#[test]
fn what_is_there_has_to_fit_and_nothing_else_is_needed() {
    for (name, value) in [
        ("x", json!(1)),
        ("iss", Value::Null),
        ("token_type", Value::Null),
        ("token_type", json!("bearer")),
        ("aud", json!(["x", "other"])),
        ("exp", Value::Null),
        ("exp", json!(NOW - 29)),
        ("nbf", Value::Null),
        ("nbf", json!(NOW + 30)),
        ("iat", Value::Null),
        ("sub", Value::Null),
        ("token_use", json!("access_token")),
        ("token_use", json!("Access")),
        ("typ", json!("Bearer")),
        ("typ", json!("at+jwt")),
    ] {
        let made = made_of(&rules(), &answer(name, &value));
        assert!(made.is_ok(), "{name} {value}: {made:?}");
    }
    for (name, value, reason) in [
        ("iss", json!("https://auth.example"), Reason::WrongIssuer),
        ("iss", json!("https://Auth.example/"), Reason::WrongIssuer),
        ("iss", json!(["https://auth.example/"]), Reason::WrongIssuer),
        ("token_type", json!("DPoP"), Reason::WrongType),
        ("token_type", json!(7), Reason::WrongType),
        ("aud", Value::Null, Reason::WrongAudience),
        ("aud", json!("API"), Reason::WrongAudience),
        ("aud", json!([]), Reason::WrongAudience),
        ("aud", json!(["api", 7]), Reason::WrongAudience),
        ("exp", json!(NOW - 30), Reason::Expired),
        ("exp", json!("soon"), Reason::MissingClaim),
        ("exp", json!(NOW as f64 + 600.5), Reason::MissingClaim),
        ("exp", json!(-1), Reason::MissingClaim),
        ("nbf", json!(NOW + 31), Reason::NotYetValid),
        ("nbf", json!("now"), Reason::MissingClaim),
        ("iat", json!(NOW + 31), Reason::NotYetValid),
        ("cnf", json!({ "jkt": "x" }), Reason::BoundToken),
        ("token_use", json!("refresh_token"), Reason::WrongType),
        ("token_use", json!("id"), Reason::WrongType),
        ("token_use", json!(["access_token"]), Reason::WrongType),
        ("typ", json!("Refresh"), Reason::WrongType),
        ("typ", json!("REFRESH_TOKEN"), Reason::WrongType),
        ("typ", json!("refresh+jwt"), Reason::WrongType),
        ("typ", json!("Offline"), Reason::WrongType),
        ("typ", json!("ID"), Reason::WrongType),
        ("typ", json!("id-token"), Reason::WrongType),
        ("typ", json!(7), Reason::WrongType),
        ("sub", json!("x".repeat(9000)), Reason::MissingClaim),
    ] {
        let made = made_of(&rules(), &answer(name, &value)).map_err(|refused| refused.reason);
        assert_eq!(made.err(), Some(reason), "{name} {value}");
    }
}

#[test]
fn rules_that_ask_for_more_or_less() {
    let lifetime = IssuerRules {
        max_lifetime: 610,
        ..rules()
    };
    for (name, value, reason) in [
        ("x", json!(1), None),
        ("iat", json!(NOW - 11), Some(Reason::TooLongLived)),
        ("iat", Value::Null, Some(Reason::MissingClaim)),
        ("exp", Value::Null, Some(Reason::MissingClaim)),
    ] {
        let made = made_of(&lifetime, &answer(name, &value)).map_err(|refused| refused.reason);
        assert_eq!(made.err(), reason, "{name} {value}");
    }
    let anyone = IssuerRules {
        audiences: Vec::new(),
        ..rules()
    };
    for aud in [Value::Null, json!("whatever"), json!(7)] {
        assert!(made_of(&anyone, &answer("aud", &aud)).is_ok(), "{aud}");
    }
}

#[test]
fn an_answer_makes_the_same_identity_as_a_token() {
    let said = answer("x", &json!(1));
    let from_answer = made_of(&rules(), &said).expect("good");
    let claims = strict_json::object(said.to_string().as_bytes()).expect("an object");
    let from_token = verify::claims(&rules(), claims, NOW, &mut Untold).expect("good");
    assert_eq!(format!("{from_answer:?}"), format!("{from_token:?}"));
    // Without `exp` it holds as long as the issuer says so, but not when the clock is broken.
    let endless = made_of(&rules(), &answer("exp", &Value::Null)).expect("good");
    assert!(verify::times(endless.expires_at, None, 30, NOW * 100).is_ok());
    assert!(verify::times(endless.expires_at, None, 30, i64::MAX).is_err());
}

#[test]
fn only_what_does_not_look_like_a_jwt_is_opaque() {
    let plain = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let header = plain(r#"{"alg":"RS256"}"#);
    let claims = plain(r#"{"iss":"https://a/"}"#);
    let jwt = format!("{header}.{claims}.c2ln");
    let jwe = plain(r#"{"alg":"dir","enc":"A256GCM"}"#);
    let jwe_of = plain(r#"{"alg":"dir","enc":"A256GCM","iss":"https://a/"}"#);
    let jwe_bad = plain(r#"{"alg":"dir","iss":["https://a/"]}"#);
    let form = |text: &str| match Form::of(text) {
        Ok(Form::Signed(token)) => format!("signed {}", token.issuer()),
        Ok(Form::Encrypted(iss)) => format!("encrypted {iss:?}"),
        Ok(Form::Opaque) => "opaque".to_owned(),
        Err(rejection) => rejection.reason.as_str().to_owned(),
    };
    for (text, expected) in [
        (jwt.clone(), "signed https://a/"),
        (format!("{jwe}...x"), "malformed_token"),
        (format!("{jwe}.a.b.c.d"), "encrypted None"),
        (format!("{jwe}..b.c.d"), "encrypted None"),
        (format!("{jwe_of}..b.c.d"), "encrypted Some(\"https://a/\")"),
        (format!("{jwe_bad}..b.c.d"), "wrong_issuer"),
        (format!("{header}.{}.c2ln", plain("{}")), "wrong_issuer"),
        // A JWT that somebody has bent is not a handle.
        (header.clone(), "malformed_token"),
        (format!("{header}.{claims}"), "malformed_token"),
        (format!("{header}.{claims}."), "malformed_token"),
        (format!("{header}.{claims}.c2ln.x"), "malformed_token"),
        (format!("{jwt}="), "malformed_token"),
        (format!("x{header}.{claims}.c2ln"), "malformed_token"),
        (format!("{header}.x{claims}.c2ln"), "malformed_token"),
        (format!(".{claims}.c2ln"), "malformed_token"),
        (
            format!("{}.{claims}.c2ln", plain(r#"{"a":1,"a":2}"#)),
            "malformed_token",
        ),
        ("e31".to_owned(), "malformed_token"),
        (format!("{}.x", STANDARD.encode("{}")), "malformed_token"),
        // The alphabet of RFC 6750 §2.1.
        ("2YotnFZFEjr1zCsicMWpAA".to_owned(), "opaque"),
        ("a".to_owned(), "opaque"),
        ("a.b.c".to_owned(), "opaque"),
        ("a-._~+/09zZ==".to_owned(), "opaque"),
        (URL_SAFE.encode("[1]"), "opaque"),
        ("v2.local.abc".to_owned(), "opaque"),
        (String::new(), "malformed_token"),
        ("=".to_owned(), "malformed_token"),
        ("a=b".to_owned(), "malformed_token"),
        ("a b".to_owned(), "malformed_token"),
        ("a,b".to_owned(), "malformed_token"),
        ("a%20b".to_owned(), "malformed_token"),
        ("a\0b".to_owned(), "malformed_token"),
        ("ä".to_owned(), "malformed_token"),
    ] {
        assert_eq!(form(&text), expected, "{text}");
    }
}
