//! Table tests of `jwks`.

use super::*;
use serde_json::json;

fn modulus(bytes: usize) -> String {
    URL_SAFE_NO_PAD.encode(vec![0xc5; bytes])
}

fn set(keys: Value) -> Result<Parsed, JwksError> {
    parse(json!({ "keys": keys }).to_string().as_bytes(), 0)
}

#[test]
fn a_bad_key_is_left_out_and_the_rest_is_used() {
    let good = json!({"kty": "RSA", "kid": "good", "use": "sig", "alg": "RS256", "n": modulus(256), "e": "AQAB"});
    for (bad, remark) in [
        (
            json!({"kty": "RSA", "kid": "good", "n": modulus(256), "e": "AQAB"}),
            "kid is there already",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "n": modulus(128), "e": "AQAB"}),
            "1024 bits",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "n": modulus(2048), "e": "AQAB"}),
            "16384 bits",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "n": modulus(256), "e": "AQ"}),
            "exponent",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "n": modulus(256), "e": "BA"}),
            "exponent",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "use": "enc", "n": modulus(256), "e": "AQAB"}),
            "use",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "key_ops": ["sign"], "n": modulus(256), "e": "AQAB"}),
            "key_ops",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "d": "AQ", "n": modulus(256), "e": "AQAB"}),
            "private",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "alg": "ES256", "n": modulus(256), "e": "AQAB"}),
            "does not fit",
        ),
        (
            json!({"kty": "RSA", "kid": "b", "alg": "none", "n": modulus(256), "e": "AQAB"}),
            "not supported",
        ),
        (json!({"kty": "oct", "kid": "b", "k": "AAAA"}), "private"),
        (
            json!({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}),
            "width",
        ),
        (
            json!({"kty": "EC", "crv": "P-521", "x": "AA", "y": "AA"}),
            "curve",
        ),
        (
            json!({"kty": "OKP", "crv": "X25519", "x": modulus(32)}),
            "Ed25519",
        ),
        (json!("key"), "no object"),
    ] {
        let parsed = set(json!([good.clone(), bad])).expect("one good key");
        assert_eq!(parsed.set.len(), 1);
        assert!(parsed.set.find("good").is_some());
        assert!(
            parsed.dropped.iter().any(|text| text.contains(remark)),
            "{remark}: {:?}",
            parsed.dropped
        );
    }
}

#[test]
fn what_is_no_key_set_is_an_error() {
    for document in [
        "<html>",
        "{}",
        "[]",
        r#"{"keys":{}}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[1]}"#,
    ] {
        assert!(parse(document.as_bytes(), 0).is_err(), "{document}");
    }
}

#[test]
fn keys_of_an_earlier_document_stay_the_same() {
    let key = |kid: &str, e: &str| json!({"kty": "RSA", "kid": kid, "n": modulus(256), "e": e});
    let first = set(json!([key("a", "AQAB"), key("b", "AQAB")]))
        .expect("keys")
        .set;
    let mut second = set(json!([key("b", "AQAB"), key("a", "Aw")]))
        .expect("keys")
        .set;
    let (a, b) = (first.find("a").expect("a"), first.find("b").expect("b"));
    second.keep_known(&first);
    assert!(second.holds(b));
    assert!(
        !second.holds(a),
        "the same kid with other material is another key"
    );
}
