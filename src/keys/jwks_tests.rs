//! Table tests of `jwks` and `jwk`, with real keys: each row of ADVERSARY's "JWKS:" line.

use super::*;
use crate::keys::Message;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384,
    RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;
use std::sync::LazyLock;

/// Made once: it takes a while.
static RSA: LazyLock<rsa::KeyPair> =
    LazyLock::new(|| rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key"));

fn base64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn numbers() -> (Vec<u8>, Vec<u8>) {
    let public = rsa::PublicKeyComponents::<Vec<u8>>::from(RSA.public_key());
    (public.n, public.e)
}

fn rsa_jwk() -> Value {
    let (n, e) = numbers();
    json!({ "kty": "RSA", "kid": "rsa", "n": base64(n), "e": base64(e) })
}

fn ec_jwk(pair: &EcdsaKeyPair, curve: &str) -> Value {
    let (x, y) = pair.public_key().as_ref()[1..].split_at(pair.public_key().as_ref().len() / 2);
    json!({ "kty": "EC", "kid": curve, "crv": curve, "x": base64(x), "y": base64(y) })
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).expect("a key")
}

fn ed_jwk(pair: &Ed25519KeyPair) -> Value {
    json!({ "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": base64(pair.public_key()) })
}

/// The key with some members changed; `"-"` takes one out.
fn with(mut jwk: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().expect("an object") {
        match value.as_str() {
            Some("-") => drop(jwk.as_object_mut().expect("a key").shift_remove(name)),
            _ => jwk[name] = value.clone(),
        }
    }
    jwk
}

/// The number with its last bit the other way.
fn flipped(number: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(number).expect("base64url");
    *bytes.last_mut().expect("a byte") ^= 1;
    base64(bytes)
}

fn text(document: &str) -> Result<Parsed, JwksError> {
    parse(document.as_bytes(), 0)
}

fn set(keys: Value) -> Result<Parsed, JwksError> {
    text(&json!({ "keys": keys }).to_string())
}

/// A set of a good key and this one: the good one is used, the other is not, for this reason.
fn assert_dropped(bad: &str, remark: &str) {
    let good = with(
        rsa_jwk(),
        json!({ "kid": "good", "use": "sig", "alg": "RS256" }),
    );
    for (document, at) in [
        (format!("{{\"keys\":[{good},{bad}]}}"), 1),
        (format!("{{\"keys\":[{bad},{good}]}}"), 0),
    ] {
        let parsed = text(&document).expect("one good key");
        assert_eq!(parsed.set.len(), 1, "{bad}");
        assert!(parsed.set.find("good").is_some(), "{bad}");
        let [only] = parsed.dropped.as_slice() else {
            panic!("one remark: {:?}", parsed.dropped)
        };
        assert!(
            only.starts_with(&format!("key {at} ")) && only.contains(remark),
            "{remark}: {only}"
        );
    }
}

#[test]
fn a_bad_rsa_key_is_left_out_and_the_rest_is_used() {
    let (n, _) = numbers();
    let rows = [
        (json!({ "n": base64([0xc5; 128]) }), "1024 bits"),
        (
            json!({ "n": base64([&[1], &n[1..]].concat()) }),
            "2041 bits",
        ),
        (
            json!({ "n": base64([n.as_slice(); 8].concat()) }),
            "16384 bits",
        ),
        (json!({ "n": "" }), "0 bits"),
        (json!({ "n": flipped(&base64(&n)) }), "even"),
        (
            json!({ "n": base64([&[0], n.as_slice()].concat()) }),
            "zero byte",
        ),
        (
            json!({ "n": format!("{}=", base64(&n)) }),
            "n is not base64url",
        ),
        (
            json!({ "n": base64(&n).replace(['-', '_'], "+") + "+" }),
            "n is not base64url",
        ),
        (json!({ "n": 65537 }), "n is no string"),
        (json!({ "n": "-" }), "no `n`"),
        (json!({ "e": "" }), "exponent"),
        (json!({ "e": "AQ" }), "exponent"),
        (json!({ "e": "Aw" }), "exponent"),
        (json!({ "e": base64([0xff, 0xff]) }), "exponent"),
        (json!({ "e": base64([1, 0, 0]) }), "exponent"),
        (json!({ "e": base64([1, 0, 2]) }), "exponent"),
        (json!({ "e": base64([0, 1, 0, 1]) }), "zero byte"),
        (json!({ "e": base64([2, 0, 0, 0, 1]) }), "exponent"),
        (json!({ "e": base64([1; 9]) }), "exponent"),
        (json!({ "e": base64(&n) }), "exponent"),
        (json!({ "e": ["AQAB"] }), "e is no string"),
    ];
    for (change, remark) in rows {
        let bad = with(rsa_jwk(), json!({ "kid": "bad" }));
        assert_dropped(&with(bad, change).to_string(), remark);
    }
    let largest = with(
        rsa_jwk(),
        json!({ "e": base64([1, 0xff, 0xff, 0xff, 0xff]) }),
    );
    assert_eq!(
        set(json!([largest])).expect("33 bits are taken").set.len(),
        1
    );
}

/// What the filter says of an even modulus, the library would have said as well.
#[test]
fn the_library_checks_rsa_keys_when_they_are_parsed() {
    use crate::keys::verifier::{PublicKey, Verifiers};
    let (n, e) = numbers();
    let parse = |n: &[u8], e: &[u8]| Verifiers::parse(PublicKey::Rsa { n, e }, None);
    assert!(parse(&n, &e).is_ok());
    let mut even = n.clone();
    *even.last_mut().expect("a byte") ^= 1;
    assert!(parse(&even, &e).is_err(), "an even modulus");
    assert!(parse(&n, &[1, 0, 0]).is_err(), "an even exponent");
    assert!(parse(&n, &[1]).is_err(), "an exponent of one");
}

#[test]
fn a_bad_elliptic_key_is_left_out_and_the_rest_is_used() {
    for (algorithm, curve, other) in [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256", "P-384"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384", "P-256"),
    ] {
        let good = ec_jwk(&ec(algorithm), curve);
        assert_eq!(set(json!([good])).expect("a good key").set.len(), 1);
        let (x, y) = (
            good["x"].as_str().expect("x"),
            good["y"].as_str().expect("y"),
        );
        let width = URL_SAFE_NO_PAD.decode(x).expect("bytes").len();
        let rows = [
            (json!({ "y": flipped(y) }), "no point of its curve"),
            (json!({ "x": flipped(x) }), "no point of its curve"),
            (json!({ "x": y, "y": x }), "no point of its curve"),
            (
                json!({ "x": base64(vec![0; width]), "y": base64(vec![0; width]) }),
                "no point",
            ),
            (
                json!({ "x": base64(vec![0xff; width]) }),
                "no point of its curve",
            ),
            (json!({ "crv": other }), "width"),
            (json!({ "y": base64(vec![1; width - 1]) }), "width"),
            (json!({ "crv": "P-521" }), "curve `P-521` is not supported"),
            (json!({ "crv": "secp256k1" }), "is not supported"),
            (json!({ "crv": 256 }), "crv is no string"),
            (json!({ "x": 5 }), "x is no string"),
            (json!({ "y": "-" }), "no `y`"),
            (json!({ "alg": "ES512" }), "is not supported"),
            (json!({ "alg": "RS256" }), "alg does not fit"),
            (json!({ "d": base64(vec![1; width]) }), "private"),
        ];
        for (change, remark) in rows {
            assert_dropped(&with(good.clone(), change).to_string(), remark);
        }
    }
}

#[test]
fn a_bad_edwards_key_is_left_out_and_the_rest_is_used() {
    let good = ed_jwk(&Ed25519KeyPair::generate().expect("a key"));
    assert_eq!(set(json!([good])).expect("a good key").set.len(), 1);
    let point = |first: u8, filling: u8, end: u8| {
        let mut bytes = [filling; 32];
        (bytes[0], bytes[31]) = (first, end);
        base64(bytes)
    };
    for (change, remark) in [
        (json!({ "crv": "X25519" }), "only Ed25519"),
        (
            json!({ "crv": "Ed448", "x": base64([1; 57]) }),
            "only Ed25519",
        ),
        (json!({ "x": base64([1; 31]) }), "only Ed25519"),
        (json!({ "x": base64([1; 33]) }), "only Ed25519"),
        (json!({ "x": null }), "x is no string"),
        (json!({ "x": point(0, 0, 0) }), "small order"),
        (json!({ "x": point(1, 0, 0) }), "small order"),
        (json!({ "x": point(1, 0, 0x80) }), "small order"),
        (json!({ "x": point(0xec, 0xff, 0x7f) }), "small order"),
        (json!({ "x": point(0xed, 0xff, 0xff) }), "small order"),
        (json!({ "alg": "ES256" }), "alg does not fit"),
    ] {
        assert_dropped(&with(good.clone(), change).to_string(), remark);
    }
}

/// Why keys of small order are left out: the library takes a signature that nobody made.
#[test]
fn a_key_of_small_order_has_a_signature_for_everything() {
    use crate::keys::verifier::{PublicKey, Verifiers};
    let mut one = [0; 32];
    one[0] = 1;
    let key = Verifiers::parse(PublicKey::Ed25519(&one), None).expect("the library takes it");
    let forged = [one, [0; 32]].concat();
    assert!(key.verify(Algorithm::EdDSA, &Message::of("whatever you like"), &forged));
}

#[test]
fn a_key_for_something_else_is_left_out() {
    for (change, remark) in [
        (json!({ "use": "enc" }), "use"),
        (json!({ "use": ["sig"] }), "use"),
        (json!({ "use": null }), "use"),
        (json!({ "key_ops": ["sign"] }), "key_ops"),
        (json!({ "key_ops": [] }), "key_ops"),
        (json!({ "key_ops": "verify" }), "key_ops"),
        (json!({ "key_ops": ["verify", 1] }), "key_ops"),
        (json!({ "alg": "ES256" }), "does not fit"),
        (json!({ "alg": "HS256" }), "does not fit"),
        (json!({ "alg": "none" }), "not supported"),
        (json!({ "alg": "RSA-OAEP" }), "not supported"),
        (json!({ "alg": 256 }), "alg is no string"),
        (json!({ "d": "AQ" }), "private"),
        (json!({ "p": "AQ" }), "private"),
        (json!({ "oth": [] }), "private"),
        (json!({ "kty": "oct", "k": "c2VjcmV0" }), "private"),
        (json!({ "kty": "oct" }), "key type `oct`"),
        (json!({ "kty": "rsa" }), "key type `rsa`"),
        (json!({ "kty": "EC" }), "no `crv`"),
        (json!({ "kty": "-" }), "no `kty`"),
        (json!({ "kty": ["RSA"] }), "kty is no string"),
        (json!({ "kid": 1 }), "kid is no string"),
        (json!({ "kid": null }), "kid is no string"),
        (json!({ "kid": "x".repeat(1025) }), "longer than 1024"),
    ] {
        assert_dropped(&with(rsa_jwk(), change).to_string(), remark);
    }
    for no_object in ["\"key\"", "1", "null", "[]", "[{}]"] {
        assert_dropped(no_object, "no object");
    }
    let fine = json!({ "kid": "x".repeat(1024), "use": "sig", "key_ops": ["verify"], "alg": "PS512", "x5c": [] });
    assert_eq!(
        set(json!([with(rsa_jwk(), fine)])).expect("fine").set.len(),
        1
    );
}

/// Two readers of one document must not see different keys.
#[test]
fn a_member_that_is_there_twice_costs_its_key_and_no_other() {
    let key = rsa_jwk().to_string();
    let rest = &key[1..];
    for twice in [
        format!("{{\"kid\":\"good\",{rest}"),
        format!("{{\"kty\":\"RSA\",{rest}"),
        format!("{{\"\\u006b\\u0074y\":\"EC\",{rest}"),
        format!("{{\"x\":{{\"a\":1,\"a\":2}},{rest}"),
    ] {
        assert_dropped(&twice, "a member twice");
    }
    let twice = text(&format!("{{\"keys\":[{key}],\"keys\":[{key}]}}"));
    assert!(
        twice
            .expect_err("which?")
            .to_string()
            .contains("two of them")
    );
}

#[test]
fn of_two_keys_with_one_id_the_first_is_used() {
    let ec = ec(&ECDSA_P256_SHA256_FIXED_SIGNING);
    let first = with(ec_jwk(&ec, "P-256"), json!({ "kid": "one" }));
    let second = with(rsa_jwk(), json!({ "kid": "one" }));
    for (keys, algorithm) in [
        (json!([first, second]), Algorithm::ES256),
        (json!([second, first]), Algorithm::RS256),
        (json!([first, first]), Algorithm::ES256),
    ] {
        let parsed = set(keys).expect("one key");
        assert_eq!(parsed.set.len(), 1);
        assert!(parsed.set.find("one").expect("the first").fits(algorithm));
        assert_eq!(
            parsed.dropped,
            ["key 1 is not used: its kid is there already"]
        );
    }
    // A key that is of no use does not take the id from one that is.
    let useless = with(second.clone(), json!({ "use": "enc" }));
    let parsed = set(json!([useless, first])).expect("one key");
    assert!(
        parsed
            .set
            .find("one")
            .expect("the second")
            .fits(Algorithm::ES256)
    );
}

#[test]
fn more_keys_than_anyone_needs_are_not_looked_at() {
    let keys: Vec<_> = (0..70)
        .map(|kid| with(rsa_jwk(), json!({ "kid": kid.to_string() })))
        .collect();
    let parsed = set(json!(keys)).expect("keys");
    assert_eq!(parsed.set.len(), MAX_KEYS);
    assert_eq!(parsed.dropped, ["6 keys after the first 64 are not used"]);
}

#[test]
fn what_is_no_key_set_is_an_error_that_quotes_nothing() {
    let secret = "c2VjcmV0";
    for document in [
        "",
        "<html>c2VjcmV0",
        "{}",
        "[]",
        "[[]]",
        r#"{"keys":{}}"#,
        r#"{"keys":"c2VjcmV0"}"#,
        r#"{"keys":[]}"#,
        r#"{"keys":[1]}"#,
        r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#,
        r#"{"keys":[]} {"keys":[]}"#,
        r#"{"keys":["#,
    ] {
        let error = text(document).expect_err(document).to_string();
        assert!(!error.contains(secret), "{error}");
    }
    let array = format!("[[{}]]", rsa_jwk());
    assert!(text(&array).is_err(), "no object, whatever is in it");
    let deep = format!(
        "{{\"keys\":[{}1{}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    assert!(text(&deep).is_err(), "100,000 levels");
}

#[test]
fn keys_of_an_earlier_document_stay_the_same() {
    let key = |kid: &str, e: &str| with(rsa_jwk(), json!({ "kid": kid, "e": e }));
    let first = set(json!([key("a", "AQAB"), key("b", "AQAB")]))
        .expect("keys")
        .set;
    let mut second = set(json!([key("b", "AQAB"), key("a", "AQAD")]))
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

/// Every key, every algorithm: the kept form says what `jsonwebtoken` says with a key parsed anew.
#[test]
fn a_kept_key_verifies_as_jsonwebtoken_does() {
    let message = b"header.payload";
    let (p256, p384) = (
        ec(&ECDSA_P256_SHA256_FIXED_SIGNING),
        ec(&ECDSA_P384_SHA384_FIXED_SIGNING),
    );
    let ed = Ed25519KeyPair::generate().expect("a key");
    let random = SystemRandom::new();
    let (n, e) = numbers();
    let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
    let mut cases = Vec::new();
    for (algorithm, encoding) in RSA_ALGORITHMS.into_iter().zip(RSA_ENCODINGS) {
        let mut signature = vec![0; RSA.public_modulus_len()];
        RSA.sign(encoding, &random, message, &mut signature)
            .expect("signed");
        cases.push((algorithm, rsa_jwk(), signature, decoding.clone()));
    }
    for (algorithm, pair, curve) in [
        (Algorithm::ES256, &p256, "P-256"),
        (Algorithm::ES384, &p384, "P-384"),
    ] {
        let signature = pair
            .sign(&random, message)
            .expect("signed")
            .as_ref()
            .to_vec();
        let key = DecodingKey::from_ec_der(pair.public_key().as_ref());
        cases.push((algorithm, ec_jwk(pair, curve), signature, key));
    }
    let signature = ed.sign(message).as_ref().to_vec();
    cases.push((
        Algorithm::EdDSA,
        ed_jwk(&ed),
        signature,
        DecodingKey::from_ed_der(ed.public_key().as_ref()),
    ));
    for (algorithm, jwk, good, decoding) in cases {
        let parsed = set(json!([jwk])).expect("a key").set;
        let key = parsed.candidates(algorithm).next().expect("fits");
        let theirs =
            (DEFAULT_PROVIDER.verifier_factory)(&algorithm, &decoding).expect("a verifier");
        let mut altered = vec![
            good.clone(),
            Vec::new(),
            good[1..].to_vec(),
            [&[0], good.as_slice()].concat(),
        ];
        for at in 0..good.len() {
            let mut one = good.clone();
            one[at] ^= 1;
            altered.push(one);
        }
        for (number, signature) in altered.into_iter().enumerate() {
            let ours = key.verify(
                algorithm,
                &Message::of(std::str::from_utf8(message).expect("text")),
                &signature,
            );
            assert_eq!(ours, number == 0, "{algorithm:?} {number}");
            assert_eq!(
                ours,
                theirs.verify(message, &signature).is_ok(),
                "{algorithm:?} {number}"
            );
        }
        assert!(!key.verify(algorithm, &Message::of("header.payloae"), &good));
        for other in [RSA_ALGORITHMS.as_slice(), &OTHER_ALGORITHMS].concat() {
            let same_kind = RSA_ALGORITHMS.contains(&algorithm) && RSA_ALGORITHMS.contains(&other);
            assert_eq!(
                key.fits(other),
                same_kind || other == algorithm,
                "{algorithm:?} {other:?}"
            );
            assert_eq!(
                key.verify(
                    other,
                    &Message::of(std::str::from_utf8(message).expect("text")),
                    &good
                ),
                other == algorithm,
                "{algorithm:?} {other:?}"
            );
        }
    }
    let pinned = set(json!([with(rsa_jwk(), json!({ "alg": "PS384" }))]))
        .expect("a key")
        .set;
    let key = pinned.find("rsa").expect("the key");
    for algorithm in RSA_ALGORITHMS {
        assert_eq!(key.fits(algorithm), algorithm == Algorithm::PS384);
    }
}

const RSA_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];
const RSA_ENCODINGS: [&dyn RsaEncoding; 6] = [
    &RSA_PKCS1_SHA256,
    &RSA_PKCS1_SHA384,
    &RSA_PKCS1_SHA512,
    &RSA_PSS_SHA256,
    &RSA_PSS_SHA384,
    &RSA_PSS_SHA512,
];
const OTHER_ALGORITHMS: [Algorithm; 6] = [
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::HS256,
    Algorithm::HS384,
    Algorithm::HS512,
];

/// What is kept of a key: that it is one, and nothing else that the document said.
#[test]
fn a_set_as_json_has_the_accepted_keys_alone() {
    let ed = Ed25519KeyPair::generate().expect("a key");
    let keys = json!([
        with(
            rsa_jwk(),
            json!({ "alg": "RS256", "use": "sig", "x5c": ["cert"], "note": "private" })
        ),
        with(rsa_jwk(), json!({ "kid": "secret", "d": "AQ" })),
        ec_jwk(&ec(&ECDSA_P256_SHA256_FIXED_SIGNING), "P-256"),
        with(ed_jwk(&ed), json!({ "kid": "-" })),
    ]);
    let parsed = set(keys).expect("keys").set;
    let written = parsed.to_json();
    let text = written.to_string();
    for absent in ["secret", "\"d\"", "x5c", "note", "use"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    let again = set(written["keys"].clone()).expect("keys").set;
    assert_eq!(again.len(), 3);
    let same = again
        .keys
        .iter()
        .zip(&parsed.keys)
        .all(|(a, b)| a.same_as(b));
    assert!(same, "{text}");
}
