use super::*;
use crate::identity::{Claims, Members, Scopes};
use crate::keys::{Message, jwks};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const NOW: UnixSeconds = 1_000_000;

fn ed25519() -> SigningKey {
    let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
    SigningKey::from_pkcs8(der.as_ref()).expect("a signing key")
}

fn p256() -> SigningKey {
    let rng = SystemRandom::new();
    let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &rng).expect("a key");
    SigningKey::from_pkcs8(der.as_ref()).expect("a signing key")
}

fn identity(claims: Value, expires_at: UnixSeconds) -> Arc<Identity> {
    let Value::Object(map) = claims else {
        panic!("claims are an object")
    };
    let members = map.into_iter().map(|(name, value)| (name.into(), value));
    let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
    Arc::new(Identity {
        issuer: "bonterra".into(),
        scopes: Scopes::of(&claims),
        claims,
        expires_at,
        not_before: None,
        bound_to: None,
        headers: Box::default(),
    })
}

fn rules(claims: &[&str]) -> Rules {
    Rules {
        issuer: "bonterra-gateway".into(),
        audience: "grants".into(),
        ttl: 300,
        claims: claims.iter().map(|name| (*name).into()).collect(),
    }
}

fn minter(key: SigningKey, entries: u64) -> Minter {
    let bounds = Bounds {
        max_bytes: entries * 4096,
        max_entries: entries,
    };
    Minter::new(rules(&["sub"]), key, Arc::new(MintedTokens::new(bounds)))
}

fn part(authorization: &HeaderValue, at: usize) -> Value {
    let text = authorization.to_str().expect("ASCII");
    let token = text.strip_prefix("Bearer ").expect("a bearer token");
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(at).expect("a part"));
    serde_json::from_slice(&bytes.expect("base64url")).expect("JSON")
}

/// Only what is listed and there is copied, in its own type, and nothing of the caller's takes the
/// place of what the gateway says.
#[test]
fn claims_of_a_token() {
    let end = NOW + 9_999;
    let caller = json!({
        "iss": "https://auth", "aud": ["other"], "exp": end, "iat": 1, "jti": "theirs", "sub": "u",
        "scope": "a b", "urn:x": {"y": [1, true, null]}, "nil": null, "big": 12345678901234567890u64,
    });
    for (listed, copied) in [
        (&[][..], json!({})),
        (&["sub"], json!({"sub": "u"})),
        (&["scope", "sub"], json!({"scope": "a b", "sub": "u"})),
        (&["urn:x"], json!({"urn:x": {"y": [1, true, null]}})),
        (&["big"], json!({"big": 12345678901234567890u64})),
        (&["nil", "absent", "urn", "/urn:x/y"], json!({})),
    ] {
        let life = Life::of(300, end, NOW);
        let id = Uuid::from_u128(7);
        let text = rules(listed).claims(&identity(caller.clone(), end), life, id);
        let mut expected = json!({
            "iss": "bonterra-gateway", "aud": "grants", "iat": NOW, "exp": NOW + 300,
            "jti": "00000000-0000-0000-0000-000000000007",
        });
        let own = expected.as_object_mut().expect("an object");
        own.extend(copied.as_object().expect("an object").clone());
        let found: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(found, expected, "{listed:?}");
    }
}

#[test]
fn lives() {
    const NEVER: UnixSeconds = UnixSeconds::MAX;
    for (ttl, callers_end, issued_at, expires_at, renewed_at) in [
        (300, NOW + 9_999, NOW, NOW + 300, NOW + 240),
        (300, NEVER, NOW, NOW + 300, NOW + 240),
        // With a second more there is one to gain by renewing.
        (300, NOW + 301, NOW, NOW + 300, NOW + 240),
        (300, NOW + 300, NOW, NOW + 300, NEVER),
        (300, NOW + 100, NOW, NOW + 100, NEVER),
        (300, NOW, NOW, NOW, NEVER),
        // Within the leeway of the issuer.
        (300, NOW - 20, NOW - 20, NOW - 20, NEVER),
        (1, NOW + 9_999, NOW, NOW + 1, NOW + 1),
        (5, NOW + 9_999, NOW, NOW + 5, NOW + 4),
        (NEVER, NOW + 9_999, NOW, NOW + 9_999, NEVER),
    ] {
        let expected = Life {
            since: NOW,
            issued_at,
            expires_at,
            renewed_at,
        };
        assert_eq!(
            Life::of(ttl, callers_end, NOW),
            expected,
            "{ttl} {callers_end}"
        );
    }
}

#[test]
fn a_token_is_used_until_a_fifth_of_its_life_is_left() {
    let minter = minter(ed25519(), 100);
    let of = |identity: &Arc<Identity>, now| minter.authorization(identity, now).expect("signed");
    let caller = identity(json!({"sub": "u"}), NOW + 1_000);
    let first = of(&caller, NOW);
    assert!(first.is_sensitive());
    for now in [NOW, NOW + 1, NOW + 239] {
        assert_eq!(of(&caller, now), first, "{now}");
    }
    let second = of(&caller, NOW + 240);
    assert_ne!(second, first);
    assert_eq!(part(&second, 1)["exp"], json!(NOW + 540));
    assert_ne!(part(&second, 1)["jti"], part(&first, 1)["jti"]);
    assert_ne!(of(&caller, NOW + 239), second, "a clock that is set back");
    // Another one of the caller's tokens is another identity, whatever it says.
    let other = identity(json!({"sub": "u"}), NOW + 1_000);
    assert_ne!(of(&other, NOW), first);
    // Nothing is gained by renewing what ends with the caller's own.
    let brief = identity(json!({"sub": "u"}), NOW + 100);
    let only = of(&brief, NOW);
    assert_eq!(part(&only, 1)["exp"], json!(NOW + 100));
    for now in [NOW + 99, NOW + 100, NOW + 129] {
        assert_eq!(of(&brief, now), only, "{now}");
    }
}

/// An address is used again as soon as its identity has gone; its token is not.
#[test]
fn no_identity_gets_the_token_of_one_that_was() {
    let minter = minter(ed25519(), 100_000);
    for number in 0..1_000 {
        let subject = number.to_string();
        let caller = identity(json!({ "sub": subject }), NOW + 1_000);
        let token = minter.authorization(&caller, NOW).expect("signed");
        assert_eq!(part(&token, 1)["sub"], json!(subject));
    }
}

#[test]
fn minters_keep_their_tokens_apart_and_within_bounds() {
    let one = minter(ed25519(), 10);
    let other = Minter::new(rules(&[]), p256(), Arc::clone(&one.minted));
    let callers: Vec<_> = (0..50)
        .map(|number| identity(json!({"sub": number.to_string()}), NOW + 1_000))
        .collect();
    for caller in &callers {
        let tokens =
            [&one, &other].map(|minter| minter.authorization(caller, NOW).expect("signed"));
        for (minter, token) in [&one, &other].into_iter().zip(&tokens) {
            assert_eq!(part(token, 0)["kid"], json!(minter.key().kid()));
        }
    }
    assert!(
        (1..=10).contains(&one.minted.count()),
        "{}",
        one.minted.count()
    );
    assert!(one.is_as(&rules(&["sub"]), one.key(), &one.minted));
    assert!(!one.is_as(&rules(&[]), one.key(), &one.minted));
    assert!(!one.is_as(&rules(&["sub"]), other.key(), &one.minted));
}

/// What is signed holds for the very code that checks the tokens of issuers, by what is published.
#[test]
fn signatures_hold_by_the_published_keys() {
    let (one, other) = (minter(ed25519(), 100), minter(p256(), 100));
    let published = PublishedKeys::new([one.key(), other.key(), one.key()]);
    let document: Value = serde_json::from_slice(published.document()).expect("JSON");
    assert_eq!(
        document["keys"].as_array().map(Vec::len),
        Some(2),
        "each once"
    );
    for (minter, algorithm) in [(one, "EdDSA"), (other, "ES256")] {
        let caller = identity(json!({"sub": "u"}), NOW + 1_000);
        let token = minter.authorization(&caller, NOW).expect("signed");
        let kid = minter.key().kid();
        assert_eq!(
            part(&token, 0),
            json!({"typ": "JWT", "alg": algorithm, "kid": kid})
        );
        let keys = document["keys"].as_array().expect("keys");
        let jwk = keys.iter().find(|jwk| jwk["kid"] == *kid).expect("its key");
        assert_eq!(
            (&jwk["alg"], &jwk["use"]),
            (&json!(algorithm), &json!("sig"))
        );
        assert_eq!(jwk.get("d"), None, "the private part");
        let set = jwks::parse(published.document(), NOW)
            .expect("a key set")
            .set;
        let text = token.to_str().expect("ASCII").trim_start_matches("Bearer ");
        let (signed, signature) = text.rsplit_once('.').expect("a signature");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
        let (key, algorithm) = (
            set.find(kid).expect("found"),
            algorithm.parse().expect("known"),
        );
        assert!(key.verify(algorithm, &Message::of(signed), &signature));
        let bent = signed.replacen('.', ".e", 1);
        assert!(!key.verify(algorithm, &Message::of(&bent), &signature));
    }
}

/// RFC 8037 §A.1 to §A.3.
#[test]
fn a_key_is_named_by_its_thumbprint() {
    let seed = URL_SAFE_NO_PAD
        .decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")
        .expect("base64url");
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend(&seed);
    let key = SigningKey::from_pkcs8(&der).expect("a signing key");
    assert_eq!(
        key.public().kid(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
    let published = PublishedKeys::new([key.public()]);
    let published = String::from_utf8_lossy(published.document()).into_owned();
    assert!(
        published.contains("\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""),
        "{published}"
    );
    let shown = format!("{key:?}");
    let shown = format!("{shown} {:?}", minter(key, 1));
    assert!(shown.starts_with("SigningKey(EdDSA kPrK_"), "{shown}");
    assert!(
        !shown.contains("nWGx") && !shown.contains("9d61"),
        "{shown}"
    );
}

#[test]
fn other_keys_are_refused() {
    let rng = SystemRandom::new();
    let p384 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &rng).expect("a key");
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let rsa: Pkcs8V1Der<'_> = rsa.as_der().expect("DER");
    for der in [p384.as_ref(), rsa.as_ref(), &[], b"0"] {
        assert_eq!(SigningKey::from_pkcs8(der).map(|_| ()), Err(NoSigningKey));
    }
}
