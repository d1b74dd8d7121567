//! The table of tokens.

use super::{
    ISSUER, admitted, another_issuer, assert_refusal, changed, identity_headers, now, parts,
    refused, token_refused,
};
use crate::harness::program::GatewayProcess;
use crate::harness::{
    CONFIG, Raw, RawUpstream, Scripted, World, eventually, local, request, with_lines,
};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rsa::{PublicKey, PublicKeyComponents};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::{
    Algorithm, AuthOptions, BonterraAuth, Endpoint, Fault, KeyChoice,
};
use bonterra_gateway::demo::echo::Echo;
use futures_util::future::join_all;
use serde_json::{Value, json};

const MALFORMED: &str = "malformed_token";
const NOT_ALLOWED: &str = "algorithm_not_allowed";
const UNKNOWN_KEY: &str = "unknown_key";
const BAD_SIGNATURE: &str = "bad_signature";

/// [`CONFIG`] with every algorithm on the issuer's list.
fn any_algorithm(config: &str) -> String {
    let all = Algorithm::ALL.map(|algorithm| format!("{:?}", algorithm.as_str()));
    with_lines(
        config,
        ISSUER,
        &format!("algorithms = [{}]", all.join(", ")),
    )
}

/// [`CONFIG`] with another time between fetches that unknown key ids cause.
fn cooldown(time: &str) -> String {
    CONFIG.replace("cooldown = \"1s\"", &format!("cooldown = \"{time}\""))
}

/// [`CONFIG`] with room for tokens of 2 MiB.
fn roomy() -> String {
    let config = with_lines(CONFIG, "[server]", "max_header_bytes = \"4MiB\"");
    with_lines(&config, ISSUER, "max_token_bytes = \"2MiB\"")
}

/// Good but for its key id, which nobody has published.
fn unknown_kid(world: &World, kid: &str) -> String {
    let header = json!({ "kid": kid });
    world
        .auth
        .mint_with(&header, &world.auth.claims(), &KeyChoice::Current)
}

/// The published key of this id.
fn published(auth: &BonterraAuth, kid: &str) -> Value {
    let jwks = auth.jwks();
    let keys = jwks["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["kid"] == kid);
    key.expect("that key").clone()
}

/// The published key of this algorithm.
fn of_algorithm(auth: &BonterraAuth, algorithm: Algorithm) -> Value {
    let jwks = auth.jwks();
    let keys = jwks["keys"].as_array().expect("keys");
    let key = keys.iter().find(|key| key["alg"] == algorithm.as_str());
    key.expect("a key of every algorithm").clone()
}

// === 1 ===

/// Sent: nothing, or something that is no bearer token in the one place for it. Expected: 401 with
/// a bare challenge, which names no error (RFC 6750 §3.1).
#[tokio::test]
async fn row_01_no_token() {
    let world = World::start().await;
    let token = world.auth.token();
    refused(
        &world,
        world.get("/grants/1"),
        401,
        "missing_token",
        "nothing",
    )
    .await;
    for value in [
        "",
        "Basic ZGVtbzpkZW1v",
        &format!("DPoP {token}"),
        &format!("Token {token}"),
        &format!("Bearer{token}"),
        &token,
    ] {
        let sent = world.get("/grants/1").header("authorization", value);
        refused(&world, sent, 401, "missing_token", value).await;
    }
    for name in ["x-authorization", "proxy-authorization", "x-access-token"] {
        let sent = world
            .get("/grants/1")
            .header(name, format!("Bearer {token}"));
        refused(&world, sent, 401, "missing_token", name).await;
    }
    let sent = world
        .get("/grants/1")
        .header("cookie", format!("access_token={token}"));
    refused(&world, sent, 401, "missing_token", "a cookie").await;
    let sent = world.get(&format!("/grants/1?access_token={token}"));
    refused(&world, sent, 401, "missing_token", "the query alone").await;
    let sent = world.post("/scoped/1").form(&[("access_token", &token)]);
    refused(&world, sent, 401, "missing_token", "the body alone").await;
}

/// Sent: the right scheme and not a space and something behind it. Expected: 401, malformed, also
/// where no token is asked for: somebody has tried to show one, and an upstream that reads it in
/// another way would take for shown what nobody has verified. The bare challenge is for who has sent
/// no credential at all (RFC 6750 §3.1).
#[tokio::test]
async fn row_01_a_bent_bearer_is_a_bad_token_and_not_none() {
    let world = World::start().await;
    let token = world.auth.token();
    for value in [
        "Bearer".to_owned(),
        "bEARER".to_owned(),
        "Bearer ".to_owned(),
        "Bearer:".to_owned(),
        format!("Bearer: {token}"),
        format!("Bearer\t{token}"),
        format!("bearer\t {token}"),
        format!("Bearer \t{token}"),
        format!("Bearer,{token}"),
        format!("Bearer={token}"),
        format!("Bearer/{token}"),
        format!("Bearer\"{token}\""),
    ] {
        for path in ["/grants/1", "/optional/1"] {
            let sent = world.get(path).header("authorization", &value);
            let case = format!("{value:?} at {path}");
            refused(&world, sent, 401, MALFORMED, &case).await;
        }
    }
}

// === 2 ===

/// A public RSA key in the forms in which it may lie around as text or bytes.
fn spellings(jwk: &Value) -> Vec<(&'static str, Vec<u8>)> {
    let part = |name: &str| {
        let text = jwk[name].as_str().expect("a part");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    let components = PublicKeyComponents {
        n: part("n"),
        e: part("e"),
    };
    let spki = components.as_der().expect("a key").as_ref().to_vec();
    let key = PublicKey::from_der(&spki).expect("a key");
    let pkcs1 = key.as_ref().to_vec();
    let pem = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|at| &text[at..text.len().min(at + 64)])
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    };
    let spki_pem = pem("PUBLIC KEY", &spki);
    let without_newline = spki_pem.trim_end().as_bytes().to_vec();
    let pkcs1_pem = pem("RSA PUBLIC KEY", &pkcs1);
    let set = json!({ "keys": [jwk] });
    vec![
        ("the PEM", spki_pem.into_bytes()),
        ("the PEM without its last newline", without_newline),
        ("the PEM of PKCS #1", pkcs1_pem.into_bytes()),
        ("the DER", spki),
        ("the DER of PKCS #1", pkcs1),
        ("the JWK", jwk.to_string().into_bytes()),
        ("the key set", set.to_string().into_bytes()),
        ("the modulus", components.n),
        ("the text of the modulus", jwk["n"].to_string().into_bytes()),
        ("nothing", Vec::new()),
    ]
}

/// Sent: `alg` none in any case, with and without a signature; HS256 keyed with the public key in
/// all its forms; an algorithm in the header that the signature is not of; a signature of an
/// algorithm that the key is not for. Expected: 401, even with every algorithm on the list.
#[tokio::test]
async fn row_02_alg_none_hs256_keyed_with_the_public_key_ps256_for_an_rs256_key() {
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let world = World::of(options, &any_algorithm(CONFIG)).await;
    let claims = world.auth.claims();
    let kid = world.auth.current_kid();

    // No signature at all, or some bytes in its place.
    for alg in ["none", "None", "NONE", "nOnE", "nonE", "none ", "", "NULL"] {
        let unsigned = world.auth.mint_with(
            &json!({ "kid": kid, "alg": alg }),
            &claims,
            &KeyChoice::Unsigned,
        );
        let case = format!("alg {alg:?}");
        token_refused(&world, &unsigned, MALFORMED, &case).await;
        let case = format!("alg {alg:?} and some signature");
        token_refused(&world, &format!("{unsigned}AA"), NOT_ALLOWED, &case).await;
    }

    // A good RSA signature under a header that says otherwise.
    for (alg, reason) in [
        (json!("none"), NOT_ALLOWED),
        (json!("None"), NOT_ALLOWED),
        (json!("NONE"), NOT_ALLOWED),
        (json!("nOnE"), NOT_ALLOWED),
        (json!("nonE"), NOT_ALLOWED),
        (json!(""), NOT_ALLOWED),
        (json!("HS256"), NOT_ALLOWED),
        (json!("rs256"), NOT_ALLOWED),
        (json!("RS256 "), NOT_ALLOWED),
        (json!("RS256\0"), NOT_ALLOWED),
        (json!("RS1"), NOT_ALLOWED),
        (json!("ES256"), NOT_ALLOWED),
        (json!("ES256K"), NOT_ALLOWED),
        (json!("ES512"), NOT_ALLOWED),
        (json!("EdDSA"), NOT_ALLOWED),
        (json!("PS256"), NOT_ALLOWED),
        (json!("RS512"), NOT_ALLOWED),
        (Value::Null, MALFORMED),
        (json!(256), MALFORMED),
        (json!(["RS256"]), MALFORMED),
        (json!({ "RS256": true }), MALFORMED),
    ] {
        let header = json!({ "alg": alg });
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        token_refused(&world, &token, reason, &format!("alg {alg}")).await;
    }
    // What stands for no value is no string either.
    let header = format!("{{\"alg\":null,\"typ\":\"JWT\",\"kid\":\"{kid}\"}}");
    let token = world
        .auth
        .mint_raw(&header, &claims.to_string(), &KeyChoice::Current);
    token_refused(&world, &token, MALFORMED, "alg null").await;

    // A signature that anybody can make who has read the key set.
    for (what, secret) in spellings(&published(&world.auth, &kid)) {
        let sign = |header: &Value| {
            world
                .auth
                .mint_with(header, &claims, &KeyChoice::Secret(secret.clone()))
        };
        for header in [
            json!({}),
            json!({ "kid": kid }),
            json!({ "kid": kid, "typ": "at+jwt" }),
            json!({ "kid": kid, "alg": "hs256" }),
        ] {
            let case = format!("HS256 keyed with {what}, {header}");
            token_refused(&world, &sign(&header), NOT_ALLOWED, &case).await;
        }
        let case = format!("an HMAC keyed with {what} that claims to be RS256");
        let header = json!({ "kid": kid, "alg": "RS256" });
        token_refused(&world, &sign(&header), BAD_SIGNATURE, &case).await;
    }

    // A good signature of another algorithm, under the name of a key that is not for it.
    let named = |algorithm| of_algorithm(&world.auth, algorithm)["kid"].clone();
    for (signed, named) in [
        (Algorithm::PS256, json!(kid)),
        (Algorithm::RS512, json!(kid)),
        (Algorithm::RS384, named(Algorithm::PS384)),
        (Algorithm::PS512, named(Algorithm::PS256)),
        (Algorithm::ES256, named(Algorithm::ES384)),
        (Algorithm::EdDSA, named(Algorithm::ES256)),
    ] {
        let header = json!({ "kid": named });
        let token = world
            .auth
            .mint_with(&header, &claims, &KeyChoice::Algorithm(signed));
        let case = format!("{signed:?} with the kid of {named}");
        token_refused(&world, &token, NOT_ALLOWED, &case).await;
    }
    // The other way round: the key's own algorithm in the header, another one in the signature.
    for (signed, named) in [
        (Algorithm::PS256, Algorithm::RS256),
        (Algorithm::RS256, Algorithm::PS256),
        (Algorithm::RS512, Algorithm::RS384),
    ] {
        let key = of_algorithm(&world.auth, named);
        let header = json!({ "kid": key["kid"], "alg": named.as_str() });
        let token = world
            .auth
            .mint_with(&header, &claims, &KeyChoice::Algorithm(signed));
        let case = format!("{signed:?} that claims to be {named:?}");
        token_refused(&world, &token, BAD_SIGNATURE, &case).await;
    }
}

/// Sent: good signatures of algorithms that are not on the issuer's list, with their own keys in
/// the key set. Expected: 401.
#[tokio::test]
async fn row_02_alg_that_is_not_on_the_issuers_list() {
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    for algorithm in Algorithm::ALL {
        let token = world.auth.mint_with(
            &Value::Null,
            &world.auth.claims(),
            &KeyChoice::Algorithm(algorithm),
        );
        let case = algorithm.as_str();
        if algorithm == Algorithm::RS256 {
            admitted(&world, &token, case).await;
        } else {
            token_refused(&world, &token, NOT_ALLOWED, case).await;
        }
    }
}

// === 3 ===

/// Sent: a token signed by the attacker's key, which its header brings along or says where to
/// fetch. Expected: 401, and nobody is asked.
#[tokio::test]
async fn row_03_embedded_jwk_jku_x5u_x5c() {
    let world = World::start().await;
    let canary =
        RawUpstream::says("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}").await;
    let claims = world.auth.claims();
    let attacker = another_issuer(20).await;
    let jwk = published(&attacker, &attacker.current_kid());
    let jku = format!("{}/jwks.json", canary.url());
    // An address that begins like the issuer's, for those who compare beginnings.
    let host = world.auth.issuer().trim_end_matches('/');
    let near = format!("{host}@{}/jwks.json", canary.url().replace("http://", ""));
    for extra in [
        json!({ "jwk": jwk }),
        json!({ "jwk": published(&world.auth, &world.auth.current_kid()) }),
        json!({ "jku": jku }),
        json!({ "jku": near }),
        json!({ "jku": [jku] }),
        json!({ "x5u": format!("{}/cert.pem", canary.url()) }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "x5c": ["MIIB"], "x5t": "AA", "x5t#S256": "AA" }),
        json!({ "jwk": jwk, "jku": jku, "x5u": canary.url() }),
    ] {
        for (kid, reason) in [
            (json!(attacker.current_kid()), UNKNOWN_KEY),
            (json!(jku), UNKNOWN_KEY),
            (json!(world.auth.current_kid()), BAD_SIGNATURE),
            (Value::Null, BAD_SIGNATURE),
        ] {
            let mut header = extra.clone();
            header["kid"] = kid;
            let token = attacker.mint_with(&header, &claims, &KeyChoice::Current);
            token_refused(&world, &token, reason, &header.to_string()).await;
        }
    }
    assert_eq!(
        (canary.connections(), attacker.counts().jwks),
        (0, 0),
        "the gateway asked where the token told it to"
    );
}

// === 4 ===

fn in_the_other_case(text: &str) -> String {
    let swapped = |letter: char| match letter.is_ascii_lowercase() {
        true => letter.to_ascii_uppercase(),
        false => letter.to_ascii_lowercase(),
    };
    text.chars().map(swapped).collect()
}

/// Sent: a key id with a path, quotes, NUL, of 64 KiB, of another type. Expected: 401 unknown key;
/// an id is a name to compare and nothing else.
#[tokio::test]
async fn row_04_kid_with_traversal_quotes_nul_64_kib() {
    let world = World::with(&roomy()).await;
    let claims = world.auth.claims();
    let own = world.auth.current_kid();
    for kid in [
        "../../etc/passwd",
        "..\\..\\windows\\win.ini",
        "/dev/null",
        "file:///dev/null",
        "%2e%2e%2fkeys",
        "' OR '1'='1",
        "\"; DROP TABLE keys",
        "$(id)",
        "${jndi:ldap://127.0.0.1/x}",
        "a\0b",
        "a\r\nb",
        "",
        " ",
        "\u{1F511}",
        "*",
        &"k".repeat(4000),
        &"k".repeat(64 << 10),
        &in_the_other_case(&own),
        &format!("{own} "),
        &format!(" {own}"),
        &format!("{own}\0"),
        &format!("./{own}"),
        &own[..own.len() - 1],
    ] {
        let token = world
            .auth
            .mint_with(&json!({ "kid": kid }), &claims, &KeyChoice::Current);
        let case = format!("kid {:?} of {} bytes", kid.get(..20), kid.len());
        token_refused(&world, &token, UNKNOWN_KEY, &case).await;
    }
    for (case, kid) in [
        ("a number", json!(1)),
        ("a list", json!([own])),
        ("an object", json!({ "kid": own })),
        ("true", json!(true)),
    ] {
        let header = json!({ "kid": kid });
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        token_refused(&world, &token, MALFORMED, &format!("kid {case}")).await;
    }
}

/// Sent: the same to a gateway as it comes. Expected: 431, a head of 64 KiB is too large.
#[tokio::test]
async fn row_04_kid_of_64_kib_where_heads_are_smaller() {
    let world = World::start().await;
    let long = unknown_kid(&world, &"k".repeat(64 << 10));
    let sent = world.get("/grants/1").bearer(&long);
    refused(&world, sent, 431, "headers_too_large", "a kid of 64 KiB").await;
}

/// Sent: tokens that name no key, while several keys fit. Expected: the first four are tried, no
/// more, and a token of none of them is refused.
#[tokio::test]
async fn row_04_missing_kid_with_several_keys() {
    let options = AuthOptions {
        key_type: Algorithm::ES256,
        ..AuthOptions::default()
    };
    let config = with_lines(&cooldown("1ms"), ISSUER, "algorithms = [\"ES256\"]");
    let world = World::of(options, &config).await;
    let unnamed = |key: &KeyChoice| {
        world
            .auth
            .mint_with(&json!({ "kid": null }), &world.auth.claims(), key)
    };
    let oldest = unnamed(&KeyChoice::Current);
    let stranger = unnamed(&KeyChoice::Unpublished);
    token_refused(&world, &stranger, BAD_SIGNATURE, "none of two keys").await;
    admitted(&world, &unnamed(&KeyChoice::Next), "the second of two").await;

    let mut known = vec![oldest];
    for _ in 0..4 {
        world.auth.rotate();
        known.push(unnamed(&KeyChoice::Current));
    }
    // Makes the gateway look at the keys.
    let named = unknown_kid(&world, "x");
    token_refused(&world, &named, UNKNOWN_KEY, "an unknown kid").await;
    let keys = world
        .gateway
        .metric("gateway_jwks_keys{issuer=\"bonterra\"}");
    assert_eq!(keys.await, 6.0);
    // Published are, in this order: the current key, the next one, and the earlier ones.
    let [first, second, third, fourth, fifth] = &known[..] else {
        panic!("five tokens");
    };
    for (case, token) in [
        ("the current key", fifth),
        ("the next key", &unnamed(&KeyChoice::Next)),
        ("the one before", fourth),
        ("the one before that", third),
    ] {
        admitted(&world, token, case).await;
    }
    token_refused(&world, second, BAD_SIGNATURE, "the fifth of six keys").await;
    token_refused(&world, first, BAD_SIGNATURE, "the last of six keys").await;
    token_refused(&world, &stranger, BAD_SIGNATURE, "none of six keys").await;
}

// === 5 ===

/// Sent: many tokens with invented key ids, one after the other and at the same time. Expected:
/// 401 each, one fetch in a cool-down, and good tokens are not held up.
#[tokio::test]
async fn row_05_flood_of_unknown_kids() {
    let world = World::with(&cooldown("1h")).await;
    let before = world.auth.counts();
    for number in 0..50 {
        let token = unknown_kid(&world, &format!("invented-{number}"));
        token_refused(&world, &token, UNKNOWN_KEY, "an invented kid").await;
    }
    let served = world.echo.requests();
    for round in 0..3 {
        let tokens: Vec<_> = (0..20)
            .map(|number| unknown_kid(&world, &format!("{round}-{number}")))
            .collect();
        let requests: Vec<_> = tokens
            .iter()
            .map(|token| world.get("/grants/1").bearer(token))
            .collect();
        for reply in join_all(requests.iter().map(|request| request.send())).await {
            assert_refusal(&reply, 401, UNKNOWN_KEY, "one of many at a time");
        }
        let good = world.auth.token();
        admitted(&world, &good, "nobody else is held up").await;
    }
    assert_eq!(world.auth.counts().jwks, before.jwks + 1);
    assert_eq!(world.auth.counts().discovery, before.discovery);
    assert_eq!(world.echo.requests(), served + 6);
}

// === 6 ===

/// A key that nobody should use, and the algorithm that its owner signs with.
struct BadKey {
    case: &'static str,
    algorithm: Algorithm,
    jwk: Value,
}

const BAD_KID: &str = "bad";

/// Keys that are no good, made from keys that would be: the attacker has the private halves.
fn bad_keys(attacker: &BonterraAuth) -> Vec<BadKey> {
    let rsa = of_algorithm(attacker, Algorithm::RS256);
    let p256 = of_algorithm(attacker, Algorithm::ES256);
    let p384 = of_algorithm(attacker, Algorithm::ES384);
    let ed25519 = of_algorithm(attacker, Algorithm::EdDSA);
    let modulus = |bits: usize| {
        let mut bytes = vec![0xa5; bits.div_ceil(8)];
        bytes[0] = 0xff >> ((8 - bits % 8) % 8);
        URL_SAFE_NO_PAD.encode(bytes)
    };
    let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let edge = |byte: u8| number(&[byte; 32]);
    let y = URL_SAFE_NO_PAD
        .decode(p256["y"].as_str().expect("y"))
        .expect("base64url");
    let beside = |width: usize, y: &[u8]| {
        let mut y = y.to_vec();
        y[width - 1] ^= 1;
        number(&y)
    };
    let y384 = URL_SAFE_NO_PAD
        .decode(p384["y"].as_str().expect("y"))
        .expect("base64url");
    let mut keys = Vec::new();
    let mut add = |case, algorithm, jwk: &Value, changes: Value| {
        let jwk = changed(&changed(jwk, json!({ "kid": BAD_KID })), changes);
        keys.push(BadKey {
            case,
            algorithm,
            jwk,
        });
    };
    use Algorithm::{ES256, ES384, EdDSA, RS256};
    // mixed kty
    add("kty EC on RSA", RS256, &rsa, json!({ "kty": "EC" }));
    add("kty RSA on EC", ES256, &p256, json!({ "kty": "RSA" }));
    add("kty OKP on EC", ES256, &p256, json!({ "kty": "OKP" }));
    add("kty rsa", RS256, &rsa, json!({ "kty": "rsa" }));
    add("no kty", RS256, &rsa, json!({ "kty": null }));
    add("kty a list", RS256, &rsa, json!({ "kty": ["RSA"] }));
    add("alg of another kty", RS256, &rsa, json!({ "alg": "ES256" }));
    add("alg none", RS256, &rsa, json!({ "alg": "none" }));
    add("alg HS256", RS256, &rsa, json!({ "alg": "HS256" }));
    add(
        "alg of encryption",
        RS256,
        &rsa,
        json!({ "alg": "RSA-OAEP" }),
    );
    add("alg a number", RS256, &rsa, json!({ "alg": 256 }));
    // use, key_ops
    add("use enc", RS256, &rsa, json!({ "use": "enc" }));
    add("use SIG", RS256, &rsa, json!({ "use": "SIG" }));
    add("use a list", RS256, &rsa, json!({ "use": ["sig"] }));
    add("use enc on EC", ES256, &p256, json!({ "use": "enc" }));
    for (case, operations) in [
        ("key_ops sign", json!(["sign"])),
        ("key_ops encrypt", json!(["encrypt", "wrapKey"])),
        ("key_ops empty", json!([])),
        ("key_ops no list", json!("verify")),
        ("key_ops VERIFY", json!(["VERIFY"])),
    ] {
        add(case, RS256, &rsa, json!({ "key_ops": operations }));
    }
    // sizes
    for (case, bits) in [
        ("RSA of 17 bits", 17),
        ("RSA of 512 bits", 512),
        ("RSA of 1024 bits", 1024),
        ("RSA of 2047 bits", 2047),
        ("RSA of 8193 bits", 8193),
        ("RSA of 16384 bits", 16384),
    ] {
        add(case, RS256, &rsa, json!({ "n": modulus(bits) }));
    }
    add("RSA of no bits", RS256, &rsa, json!({ "n": "" }));
    add("RSA without n", RS256, &rsa, json!({ "n": null }));
    add("n a number", RS256, &rsa, json!({ "n": 7 }));
    // exponents
    for (case, exponent) in [
        ("exponent 0", &[0][..]),
        ("exponent 1", &[1]),
        ("exponent 1 with zeros", &[0, 0, 1]),
        ("exponent 2", &[2]),
        ("exponent 3", &[3]),
        ("exponent 17", &[17]),
        ("exponent 65535", &[0xff, 0xff]),
        ("exponent 65536", &[1, 0, 0]),
        ("exponent 65538", &[1, 0, 2]),
        ("exponent of 6 bytes", &[1, 0, 0, 0, 0, 1]),
        ("exponent of 256 bytes", &[0xff; 256]),
        ("no exponent", &[]),
    ] {
        add(case, RS256, &rsa, json!({ "e": number(exponent) }));
    }
    // points
    add(
        "point off the curve",
        ES256,
        &p256,
        json!({ "y": beside(32, &y) }),
    );
    add(
        "point off P-384",
        ES384,
        &p384,
        json!({ "y": beside(48, &y384) }),
    );
    add("x in place of y", ES256, &p256, json!({ "y": p256["x"] }));
    add(
        "point 0, 0",
        ES256,
        &p256,
        json!({ "x": edge(0), "y": edge(0) }),
    );
    add("x over the field", ES256, &p256, json!({ "x": edge(0xff) }));
    add(
        "a coordinate cut",
        ES256,
        &p256,
        json!({ "y": number(&y[..31]) }),
    );
    add("no y", ES256, &p256, json!({ "y": null }));
    add(
        "P-256 called P-384",
        ES256,
        &p256,
        json!({ "crv": "P-384" }),
    );
    add(
        "curve secp256k1",
        ES256,
        &p256,
        json!({ "crv": "secp256k1" }),
    );
    add(
        "Ed25519 called X25519",
        EdDSA,
        &ed25519,
        json!({ "crv": "X25519" }),
    );
    // Points of small order, for which anybody can sign, and a number over the field.
    for (case, x) in [
        (
            "Ed25519 order 1",
            "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        (
            "Ed25519 order 2",
            "7P_______________________________________38",
        ),
        (
            "Ed25519 order 4",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        ),
        (
            "Ed25519 order 8",
            "JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU",
        ),
        (
            "Ed25519 order 8, other",
            "xxdqcD1N2E-6PAt2DRBnDyogU_osOczGTsf9d5KsA3o",
        ),
        (
            "Ed25519 over the field",
            "8P_______________________________________38",
        ),
    ] {
        add(case, EdDSA, &ed25519, json!({ "x": x }));
    }
    add(
        "Ed25519 cut",
        EdDSA,
        &ed25519,
        json!({ "x": number(&[7; 31]) }),
    );
    // symmetric and private
    let secret = number(b"a secret that is in the key set");
    let symmetric = json!({ "kty": "oct", "kid": BAD_KID, "k": secret, "alg": "HS256" });
    add("symmetric", RS256, &symmetric, json!({}));
    add("symmetric, called RSA", RS256, &rsa, json!({ "k": secret }));
    for (case, part) in [
        ("private d", "d"),
        ("private p", "p"),
        ("private q", "q"),
        ("private dp", "dp"),
        ("private dq", "dq"),
        ("private qi", "qi"),
        ("private oth", "oth"),
    ] {
        add(case, RS256, &rsa, json!({ part: number(&[7; 32]) }));
    }
    add("private EC", ES256, &p256, json!({ "d": number(&[7; 32]) }));
    add(
        "private EdDSA",
        EdDSA,
        &ed25519,
        json!({ "d": number(&[7; 32]) }),
    );
    // what is no key at all
    add("an empty object", RS256, &json!({}), json!({}));
    keys.extend([json!("key"), json!(null), json!([rsa])].map(|jwk| BadKey {
        case: "no object",
        algorithm: RS256,
        jwk,
    }));
    keys
}

/// A key set with this key before, among and behind the good ones.
fn mixed(world: &World, bad: &Value, at: usize) -> Value {
    let mut keys = world.auth.jwks()["keys"].as_array().expect("keys").clone();
    keys.insert(at.min(keys.len()), bad.clone());
    json!({ "keys": keys })
}

/// Sent: tokens signed with a key that is published and no good. Expected: the key is dropped, so
/// its tokens are of an unknown key; the good keys beside it work.
#[tokio::test]
async fn row_06_jwks_with_keys_that_are_no_good() {
    let attacker = another_issuer(20).await;
    let world = World::with(&any_algorithm(&cooldown("1ms"))).await;
    let keys = "gateway_jwks_keys{issuer=\"bonterra\"}";
    let mut used = Vec::new();
    for (number, bad) in bad_keys(&attacker).into_iter().enumerate() {
        world.auth.set_jwks_document(None);
        let document = mixed(&world, &bad.jwk, number % 3);
        world.auth.set_jwks_document(Some(document));
        let fetched = world.auth.counts().jwks;
        let header = json!({ "kid": BAD_KID });
        let token = attacker.mint_with(
            &header,
            &world.auth.claims(),
            &KeyChoice::Algorithm(bad.algorithm),
        );
        // Its kid is unknown, so the gateway looks at the keys before it answers.
        let makes_it_look = world.get("/grants/1").bearer(&unknown_kid(&world, "x"));
        let reply = makes_it_look.send().await;
        assert_refusal(&reply, 401, UNKNOWN_KEY, bad.case);
        assert!(world.auth.counts().jwks > fetched, "{}: not seen", bad.case);
        // All that are used are told at once.
        let reply = world.get("/grants/1").bearer(&token).send().await;
        let judged = (reply.status, reply.json()["reason"].clone());
        if judged != (401, json!(UNKNOWN_KEY)) || world.gateway.metric(keys).await != 2.0 {
            used.push(format!("{}: {judged:?}", bad.case));
            continue;
        }
        token_refused(&world, &token, UNKNOWN_KEY, bad.case).await;
    }
    assert!(used.is_empty(), "keys that are used: {used:#?}");
}

/// What makes a signature good under the exponent 1, which anybody can make: the padded digest
/// itself (RFC 8017 §9.2).
fn forged_for_exponent_one(header: &Value, claims: &Value) -> String {
    const SHA256_INFO: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let mut padded = vec![0x00, 0x01];
    padded.resize(256 - 1 - 19 - 32, 0xff);
    padded.push(0x00);
    padded.extend(SHA256_INFO);
    padded.extend(digest(&SHA256, message.as_bytes()).as_ref());
    assert_eq!(padded.len(), 256);
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(padded))
}

/// Sent: a forgery that the key would verify: of the exponent 1, and of the Ed25519 point of order
/// one. Expected: 401 unknown key; what anybody can sign with is no key.
#[tokio::test]
async fn row_06_jwks_with_keys_that_anybody_can_sign_with() {
    let world = World::with(&any_algorithm(&cooldown("1ms"))).await;
    let claims = world.auth.claims();
    let modulus = URL_SAFE_NO_PAD.encode([0xc5; 256]);
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": BAD_KID });
    let rsa = forged_for_exponent_one(&header, &claims);
    let header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": BAD_KID });
    let message = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    // With the neutral element for a key, R = [S]B for every message: S = 0 and R neutral will do.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let signature = [neutral, [0; 32]].concat();
    let edwards = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature));
    let edwards_key = |x: [u8; 32]| {
        let x = URL_SAFE_NO_PAD.encode(x);
        json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": BAD_KID })
    };
    // The same point, spelt with the sign bit and with the field's prime added.
    let (mut signed, mut unreduced) = (neutral, [0xff; 32]);
    signed[31] = 0x80;
    (unreduced[0], unreduced[31]) = (0xee, 0x7f);
    for (case, jwk, token) in [
        (
            "exponent 1",
            json!({ "kty": "RSA", "n": modulus, "e": "AQ", "kid": BAD_KID }),
            rsa,
        ),
        ("order one", edwards_key(neutral), edwards.clone()),
        (
            "order one with a sign",
            edwards_key(signed),
            edwards.clone(),
        ),
        ("order one, not reduced", edwards_key(unreduced), edwards),
    ] {
        world.auth.set_jwks_document(None);
        world.auth.set_jwks_document(Some(mixed(&world, &jwk, 0)));
        token_refused(&world, &token, UNKNOWN_KEY, case).await;
    }
}

/// Sent: a token of the second of two keys with the same id. Expected: 401; the first one counts,
/// of whatever type the second is, and all others go on.
#[tokio::test]
async fn row_06_jwks_with_a_duplicate_kid() {
    let attacker = another_issuer(20).await;
    let world = World::with(&any_algorithm(&cooldown("1ms"))).await;
    let kid = json!(world.auth.current_kid());
    let next = world
        .auth
        .mint_with(&Value::Null, &world.auth.claims(), &KeyChoice::Next);
    for (algorithm, reason) in [
        (Algorithm::RS256, BAD_SIGNATURE),
        (Algorithm::ES256, NOT_ALLOWED),
        (Algorithm::EdDSA, NOT_ALLOWED),
    ] {
        let case = format!("{algorithm:?}, with the id of another key");
        let twin = changed(&of_algorithm(&attacker, algorithm), json!({ "kid": kid }));
        world.auth.set_jwks_document(None);
        world.auth.set_jwks_document(Some(mixed(&world, &twin, 9)));
        let looks = unknown_kid(&world, "x");
        token_refused(&world, &looks, UNKNOWN_KEY, "an unknown kid").await;
        let header = json!({ "kid": kid });
        let token = attacker.mint_with(
            &header,
            &world.auth.claims(),
            &KeyChoice::Algorithm(algorithm),
        );
        token_refused(&world, &token, reason, &case).await;
        admitted(&world, &next, &case).await;
        let keys = world
            .gateway
            .metric("gateway_jwks_keys{issuer=\"bonterra\"}");
        assert_eq!(keys.await, 2.0, "{case}");
    }
}

/// Sent: a key set with all these keys and two good ones. Expected: a warning in the log for every
/// key that is dropped, which holds nothing of its secret parts.
#[tokio::test]
async fn row_06_jwks_warns_of_every_key_that_it_drops() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    let attacker = another_issuer(20).await;
    // Each with an id of its own, and no more than the gateway looks at.
    let bad: Vec<Value> = bad_keys(&attacker)
        .into_iter()
        .enumerate()
        .map(|(number, bad)| match bad.jwk.is_object() {
            true => changed(&bad.jwk, json!({ "kid": number.to_string() })),
            false => bad.jwk,
        })
        .rev()
        .take(55)
        .collect();
    let mut keys = auth.jwks()["keys"].as_array().expect("keys").clone();
    keys.extend(bad.iter().cloned());
    let private = json!({ "kty": "oct", "kid": "s", "k": "c2VjcmV0LXRoYXQtbXVzdC1ub3QtbGVhaw" });
    keys.push(private);
    auth.set_jwks_document(Some(json!({ "keys": keys })));
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = GatewayProcess::start(&config).await;
    eventually("the keys", async || {
        let sent = request(gateway.address, "GET", "/grants/1").bearer(&auth.token());
        sent.send().await.status == 200
    })
    .await;
    let warned = || {
        let mut events = gateway.running.stderr.records();
        events.retain(|event| {
            event["level"] == "WARN"
                && event["issuer"] == "bonterra"
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("is not used"))
        });
        events.len()
    };
    assert_eq!(warned(), bad.len() + 1);
    let log = gateway.running.stderr.text();
    assert!(!log.contains("c2VjcmV0LXRoYXQ"), "{log}");
}

// === 7 ===

/// Sent, by the issuer: HTML, `{}`, 10 MiB, a redirect, and whatever else is no key set. Expected:
/// the last good keys stay in use, and nobody else is asked.
#[tokio::test]
async fn row_07_jwks_html_empty_object_10_mb_redirect() {
    let canary = RawUpstream::says("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let config = with_lines(&cooldown("1ms"), ISSUER, "timeout = \"300ms\"");
    let world = World::with(&config).await;
    let errors = "gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"error\"}";
    let text =
        |status, body: &str| Fault::Status(status, "application/json".to_owned(), body.to_owned());
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(10 << 20));
    let huge_but_good = {
        let keys = world.auth.jwks().to_string();
        format!("{}{keys}", " ".repeat(10 << 20))
    };
    let deep = format!(
        "{{\"keys\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let faults: Vec<(&str, Fault)> = vec![
        ("500", text(500, "{}")),
        ("404", text(404, "{\"keys\":[]}")),
        ("HTML", Fault::Garbage),
        ("nothing", Fault::EmptyOk),
        ("half", Fault::CutBody),
        ("no answer", Fault::CutAfterRequest),
        ("never an answer", Fault::Hang),
        ("never an end", Fault::Endless),
        (
            "another origin",
            Fault::redirect(&format!("{}/jwks", canary.url())),
        ),
        (
            "the same origin",
            Fault::redirect("/.well-known/openid-configuration"),
        ),
        ("an empty object", text(200, "{}")),
        ("no keys", text(200, "{\"keys\":[]}")),
        ("no list", text(200, "{\"keys\":{}}")),
        ("a list alone", text(200, "[]")),
        ("null", text(200, "null")),
        (
            "no usable key",
            text(
                200,
                "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\",\"kid\":\"1\"}]}",
            ),
        ),
        ("10 MiB", text(200, &huge)),
        ("10 MiB with keys in them", text(200, &huge_but_good)),
        ("100,000 levels", text(200, &deep)),
    ];
    for (number, (what, fault)) in faults.into_iter().enumerate() {
        world.auth.set_fault(Endpoint::Jwks, Some(fault));
        let failed = world.gateway.metric(errors).await;
        let served = world.echo.requests();
        // Asks for a fetch.
        let unknown = world.get("/grants/1").bearer(&unknown_kid(&world, what));
        let reply = unknown.send().await;
        let case = format!("{what}: the keys at hand cannot tell");
        assert_refusal(&reply, 503, "keys_unavailable", &case);
        assert_eq!(world.echo.requests(), served, "{what}");
        eventually(what, async || world.gateway.metric(errors).await > failed).await;
        let token = world.token_with(json!({ "jti": number.to_string() }));
        admitted(&world, &token, what).await;
        let ready = world.gateway.admin("GET", "/readyz").await;
        assert_eq!(ready.status, 200, "{what}");
        world.auth.set_fault(Endpoint::Jwks, None);
    }
    assert_eq!(canary.connections(), 0, "redirects are not followed");
}

// === 8 ===

/// The last character of a base64url text, with a bit set that decodes to nothing.
fn with_spare_bit(segment: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert_ne!(segment.len() % 4, 0, "no spare bits");
    let (rest, last) = segment.split_at(segment.len() - 1);
    let value = ALPHABET.find(last).expect("base64url");
    format!("{rest}{}", &ALPHABET[value + 1..value + 2])
}

/// Claims whose encoded text does not fill whole groups of four, so that there are spare bits.
fn with_room_for_spare_bits(world: &World) -> String {
    (0..3)
        .map(|more| world.token_with(json!({ "pad": "x".repeat(more) })))
        .find(|token| !parts(token)[1].len().is_multiple_of(4))
        .expect("one of three")
}

/// Sent: a good token in another number of segments, with empty ones, in other alphabets, with
/// padding, blanks and spare bits, as JSON, as JWE, and credentials that are no token. Expected:
/// 401; a token has one spelling.
#[tokio::test]
async fn row_08_segments_padding_spaces_spare_bits_json_serialisation_jwe() {
    let world = World::start().await;
    let token = with_room_for_spare_bits(&world);
    let [header, payload, signature] = parts(&token);
    let standard = |segment: &str| segment.replace('-', "+").replace('_', "/");
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let jwe = format!(
        "{}.{}.{}.{payload}.{}",
        encode("{\"alg\":\"RSA-OAEP\",\"enc\":\"A256GCM\",\"typ\":\"JWT\"}"),
        encode("an encrypted key"),
        encode("a nonce of "),
        encode("an authentic tag")
    );
    let direct = format!(
        "{}..{}.{payload}.{}",
        encode("{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"cty\":\"JWT\"}"),
        encode("a nonce of "),
        encode("an authentic tag")
    );
    for (case, token, reason) in [
        ("one segment", payload.to_owned(), MALFORMED),
        ("two segments", format!("{header}.{payload}"), MALFORMED),
        ("four segments", format!("{token}.{signature}"), MALFORMED),
        (
            "five segments, as a JWE has",
            format!("{token}.{payload}.{signature}"),
            MALFORMED,
        ),
        ("a JWE", jwe, MALFORMED),
        ("a JWE of a direct key", direct, MALFORMED),
        (
            "a header alone, unsigned",
            format!("{header}.{payload}.."),
            MALFORMED,
        ),
        (
            "an empty header",
            format!(".{payload}.{signature}"),
            MALFORMED,
        ),
        (
            "an empty payload",
            format!("{header}..{signature}"),
            MALFORMED,
        ),
        (
            "an empty signature",
            format!("{header}.{payload}."),
            MALFORMED,
        ),
        ("one dot", ".".to_owned(), MALFORMED),
        ("only dots", "..".to_owned(), MALFORMED),
        ("a dot before", format!(".{token}"), MALFORMED),
        ("a dot behind", format!("{token}."), MALFORMED),
        ("eight thousand dots", ".".repeat(8000), MALFORMED),
        (
            "padding behind the header",
            format!("{header}=.{payload}.{signature}"),
            MALFORMED,
        ),
        (
            "padding behind the payload",
            format!("{header}.{payload}==.{signature}"),
            MALFORMED,
        ),
        (
            "padding behind the signature",
            format!("{token}=="),
            MALFORMED,
        ),
        (
            "another alphabet",
            format!("{header}.{payload}.{}", standard(&format!("{signature}_"))),
            MALFORMED,
        ),
        (
            "a spare bit in the payload",
            format!("{header}.{}.{signature}", with_spare_bit(payload)),
            MALFORMED,
        ),
        (
            "a spare bit in the signature",
            format!("{header}.{payload}.{}", with_spare_bit(signature)),
            MALFORMED,
        ),
        (
            "one character that decodes to nothing",
            format!("{header}.{payload}.{}", &signature[..signature.len() - 1]),
            MALFORMED,
        ),
        (
            "a space inside",
            format!("{header}. {payload}.{signature}"),
            MALFORMED,
        ),
        (
            "a tab inside",
            format!("{header}\t.{payload}.{signature}"),
            MALFORMED,
        ),
        ("a tab before", format!("\t{token}"), MALFORMED),
        (
            "an escaped dot",
            format!("{header}%2E{payload}.{signature}"),
            MALFORMED,
        ),
        (
            "a comma and another",
            format!("{token}, {token}"),
            MALFORMED,
        ),
        (
            "JSON serialisation, flattened",
            json!({ "protected": header, "payload": payload, "signature": signature }).to_string(),
            MALFORMED,
        ),
        (
            "JSON serialisation, general",
            json!({ "payload": payload, "signatures": [{ "protected": header, "signature": signature }] })
                .to_string(),
            MALFORMED,
        ),
        (
            "JSON serialisation, encoded",
            encode(&json!({ "payload": payload, "signature": signature }).to_string()),
            MALFORMED,
        ),
        (
            "a tilde behind, as SD-JWT has",
            format!("{token}~"),
            MALFORMED,
        ),
        ("no JWT at all", "opaque-handle".to_owned(), MALFORMED),
        ("braces", "{}".to_owned(), MALFORMED),
        ("in quotes", format!("\"{token}\""), MALFORMED),
        ("with a name", format!("token={token}"), MALFORMED),
        ("twice", format!("{token},{token}"), MALFORMED),
        ("the scheme twice", format!("Bearer {token}"), MALFORMED),
        (
            "a signature that is cut",
            // Two characters less leave whole groups of four, which decode.
            token[..token.len() - 2].to_owned(),
            BAD_SIGNATURE,
        ),
        (
            "bytes behind the signature",
            format!("{token}AAAA"),
            BAD_SIGNATURE,
        ),
    ] {
        token_refused(&world, &token, reason, case).await;
    }
    admitted(&world, &token, "the token as it is").await;
}

/// Sent: bytes in the credential that are no text. Expected: 401, or 400 where a byte cannot be
/// in a header at all.
#[tokio::test]
async fn row_08_bytes_that_are_no_text() {
    let world = World::start().await;
    let token = world.auth.token();
    for (case, bytes, status, reason) in [
        ("bad UTF-8", &b"\xff\xfe"[..], 401, MALFORMED),
        ("UTF-8", "\u{e9}".as_bytes(), 401, MALFORMED),
        ("NUL", b"\0", 400, "bad_request"),
    ] {
        let head = format!("GET /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}");
        let sent = [head.as_bytes(), bytes, b"\r\n\r\n"].concat();
        refused(&world, sent, status, reason, case).await;
    }
}

// === 9 ===

/// Sent: `crit` and `b64` in all forms. Expected: 401; no extension is known here.
#[tokio::test]
async fn row_09_unknown_crit_b64_false() {
    let world = World::start().await;
    let claims = world.auth.claims();
    for (case, header) in [
        ("crit of a claim", json!({ "crit": ["exp"] })),
        ("an unknown crit", json!({ "crit": ["x"], "x": 1 })),
        ("a crit that is not there", json!({ "crit": ["x"] })),
        ("an empty crit", json!({ "crit": [] })),
        ("crit a string", json!({ "crit": "exp" })),
        ("crit a number", json!({ "crit": 1 })),
        ("crit false", json!({ "crit": false })),
        ("crit of what is known", json!({ "crit": ["alg", "typ"] })),
        ("b64 false", json!({ "b64": false, "crit": ["b64"] })),
        ("b64 true", json!({ "b64": true, "crit": ["b64"] })),
        ("b64 false without crit", json!({ "b64": false })),
    ] {
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        token_refused(&world, &token, "critical_header", case).await;
    }
    // An unencoded payload (RFC 7797), over which the signature is good.
    let header = format!(
        "{{\"alg\":\"RS256\",\"b64\":false,\"crit\":[\"b64\"],\"kid\":\"{}\"}}",
        world.auth.current_kid()
    );
    let token = world
        .auth
        .mint_raw(&header, &claims.to_string(), &KeyChoice::Current);
    let [header, _, signature] = parts(&token);
    let token = format!("{header}.{claims}.{signature}");
    token_refused(&world, &token, MALFORMED, "an unencoded payload").await;
}

/// Sent: JSON with a member twice, or that only some readers take for JSON. Expected: 401.
#[tokio::test]
async fn row_09_duplicate_json_members_in_header_or_claims() {
    let world = World::start().await;
    let claims = world.auth.claims().to_string();
    let claims = claims.trim_end_matches('}');
    let kid = world.auth.current_kid();
    let header = format!(r#""alg":"RS256","typ":"JWT","kid":"{kid}""#);
    let mint =
        |header: &str, claims: &str| world.auth.mint_raw(header, claims, &KeyChoice::Current);
    let good_header = format!("{{{header}}}");
    let good_claims = format!("{claims}}}");
    for (case, header, claims) in [
        (
            "a claim twice",
            &*good_header,
            &*format!("{claims},\"sub\":\"admin\"}}"),
        ),
        (
            "a claim twice, with the same value",
            &good_header,
            &format!("{claims},\"gty\":\"client-credentials\"}}"),
        ),
        (
            "exp twice",
            &good_header,
            &format!("{claims},\"exp\":9999999999}}"),
        ),
        (
            "iss twice",
            &good_header,
            &format!("{{\"iss\":\"https://evil.example/\",{}", &good_claims[1..]),
        ),
        (
            "a claim twice, once escaped",
            &good_header,
            &format!("{claims},\"s\\u0075b\":\"admin\"}}"),
        ),
        (
            "a member twice within a claim",
            &good_header,
            &format!("{claims},\"x\":{{\"a\":1,\"a\":2}}}}"),
        ),
        (
            "a member twice within a list",
            &good_header,
            &format!("{claims},\"x\":[[{{\"a\":1,\"\\u0061\":2}}]]}}"),
        ),
        (
            "alg twice",
            &format!("{{{header},\"alg\":\"none\"}}"),
            &good_claims,
        ),
        (
            "alg twice, once escaped",
            &format!("{{\"\\u0061lg\":\"none\",{header}}}"),
            &good_claims,
        ),
        (
            "kid twice",
            &format!("{{\"kid\":\"x\",{header}}}"),
            &good_claims,
        ),
        (
            "a member twice within the header",
            &format!("{{{header},\"jwk\":{{\"n\":1,\"n\":2}}}}"),
            &good_claims,
        ),
        ("claims as a list", &good_header, "[]"),
        ("claims as a string", &good_header, "\"x\""),
        ("claims empty", &good_header, " "),
        ("claims null", &good_header, "null"),
        (
            "text behind the claims",
            &good_header,
            &format!("{good_claims}x"),
        ),
        (
            "claims twice",
            &good_header,
            &format!("{good_claims}{good_claims}"),
        ),
        ("a trailing comma", &good_header, &format!("{claims},}}")),
        ("a comment", &good_header, &format!("{claims}/* */}}")),
        (
            "single quotes",
            &good_header,
            &format!("{claims},'x':'y'}}"),
        ),
        ("NaN", &good_header, &format!("{claims},\"x\":NaN}}")),
        (
            "a raw newline in a string",
            &good_header,
            &format!("{claims},\"x\":\"\n\"}}"),
        ),
        (
            "half a surrogate",
            &good_header,
            &format!("{claims},\"x\":\"\\ud800\"}}"),
        ),
        (
            "a byte order mark",
            &good_header,
            &format!("\u{feff}{good_claims}"),
        ),
        ("a header that is none", "JWT", &good_claims),
        ("a header that is a list", "[]", &good_claims),
    ] {
        token_refused(&world, &mint(header, claims), MALFORMED, case).await;
    }
    admitted(
        &world,
        &mint(&good_header, &good_claims),
        "this way of minting",
    )
    .await;
}

// === 10 ===

/// Sent: `exp`, `nbf` and `iat` of every kind that is no whole number of seconds, and times that do
/// not hold. Expected: 401.
#[tokio::test]
async fn row_10_exp_nbf_iat() {
    let world = World::start().await;
    let now = now();
    let no_number = "missing_claim";
    for (case, change, reason) in [
        ("exp passed", json!({ "exp": now - 60 }), "expired"),
        ("exp long passed", json!({ "exp": 0 }), "expired"),
        (
            "iat in milliseconds",
            json!({ "iat": now * 1000 }),
            "not_yet_valid",
        ),
        ("no exp", json!({ "exp": null }), no_number),
        (
            "exp a string",
            json!({ "exp": (now + 600).to_string() }),
            no_number,
        ),
        (
            "exp a date",
            json!({ "exp": "2099-01-01T00:00:00Z" }),
            no_number,
        ),
        ("exp negative", json!({ "exp": -1 }), no_number),
        ("exp a float", json!({ "exp": 9_999_999_999.5 }), no_number),
        ("exp over an i64", json!({ "exp": u64::MAX }), no_number),
        ("exp true", json!({ "exp": true }), no_number),
        ("exp a list", json!({ "exp": [now + 600] }), no_number),
        (
            "exp an object",
            json!({ "exp": { "exp": now + 600 } }),
            no_number,
        ),
        (
            "nbf in the future",
            json!({ "nbf": now + 600 }),
            "not_yet_valid",
        ),
        (
            "nbf at the end of time",
            json!({ "nbf": i64::MAX }),
            "not_yet_valid",
        ),
        ("nbf a string", json!({ "nbf": "0" }), no_number),
        ("nbf a float", json!({ "nbf": 1.5 }), no_number),
        ("nbf negative", json!({ "nbf": -1 }), no_number),
        ("nbf false", json!({ "nbf": false }), no_number),
        (
            "iat in the future",
            json!({ "iat": now + 600 }),
            "not_yet_valid",
        ),
        (
            "iat far in the future",
            json!({ "iat": i64::MAX }),
            "not_yet_valid",
        ),
        ("iat a string", json!({ "iat": "0" }), no_number),
        ("iat a float", json!({ "iat": 1.5 }), no_number),
        ("iat negative", json!({ "iat": -1 }), no_number),
        // Strings for the same reason: readers must not differ (RFC 7519 §4.1.2 and §4.1.7).
        ("sub a number", json!({ "sub": 7 }), no_number),
        ("sub a list", json!({ "sub": ["x"] }), no_number),
        ("jti a number", json!({ "jti": 7 }), no_number),
    ] {
        token_refused(&world, &world.token_with(change), reason, case).await;
    }
    // Numbers as text that values cannot hold, and members that are there and null.
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": world.auth.current_kid() });
    for (name, text, reason) in [
        ("exp", "18446744073709551616", no_number),
        ("exp", "9999999999999999999999", no_number),
        ("exp", "9223372036854775808", no_number),
        ("exp", "1e400", MALFORMED),
        ("exp", "1e3", no_number),
        ("exp", "1.0", no_number),
        ("exp", "4102444800.0", no_number),
        ("exp", "4102444800e0", no_number),
        ("exp", "-0", no_number),
        ("exp", "null", no_number),
        ("exp", "04102444800", MALFORMED),
        ("exp", "+4102444800", MALFORMED),
        ("exp", "0xF4865700", MALFORMED),
        ("nbf", "null", no_number),
        ("nbf", "0.0", no_number),
        ("iat", "null", no_number),
        ("iat", "1e0", no_number),
    ] {
        let mut claims = world.auth.claims();
        claims[name] = json!("HERE");
        let payload = claims.to_string().replace("\"HERE\"", text);
        let token = world
            .auth
            .mint_raw(&header.to_string(), &payload, &KeyChoice::Current);
        token_refused(&world, &token, reason, &format!("{name} {text}")).await;
    }
}

// === 11 ===

/// Sent: an audience that is missing, of another type or nearly ours; an issuer likewise. Expected:
/// 401; both are compared letter by letter.
#[tokio::test]
async fn row_11_aud_and_iss_that_are_not_ours() {
    let world = World::start().await;
    let issuer = world.auth.issuer().to_owned();
    let without_slash = issuer.trim_end_matches('/');
    let ours = "https://api.bonterra.network";
    let (audience, wrong_issuer) = ("wrong_audience", "wrong_issuer");
    for (case, change, reason) in [
        ("no aud", json!({ "aud": null }), audience),
        ("aud a number", json!({ "aud": 1 }), audience),
        ("aud true", json!({ "aud": true }), audience),
        ("aud empty", json!({ "aud": "" }), audience),
        ("aud an object", json!({ "aud": { ours: true } }), audience),
        ("aud an empty list", json!({ "aud": [] }), audience),
        (
            "aud a list with a number",
            json!({ "aud": [ours, 1] }),
            audience,
        ),
        (
            "aud a list with null",
            json!({ "aud": [ours, null] }),
            audience,
        ),
        ("aud a list in a list", json!({ "aud": [[ours]] }), audience),
        (
            "aud a list of others",
            json!({ "aud": ["https://other.example", "demo-web"] }),
            audience,
        ),
        (
            "aud with a slash",
            json!({ "aud": format!("{ours}/") }),
            audience,
        ),
        (
            "aud in another case",
            json!({ "aud": "https://API.bonterra.network" }),
            audience,
        ),
        (
            "aud with a blank",
            json!({ "aud": format!(" {ours}") }),
            audience,
        ),
        (
            "aud of many words",
            json!({ "aud": format!("{ours} https://x") }),
            audience,
        ),
        (
            "aud with more after it",
            json!({ "aud": format!("{ours}.evil.example") }),
            audience,
        ),
        ("aud a pattern", json!({ "aud": "*" }), audience),
        (
            "iss without the slash",
            json!({ "iss": without_slash }),
            wrong_issuer,
        ),
        (
            "iss with two",
            json!({ "iss": format!("{issuer}/") }),
            wrong_issuer,
        ),
        (
            "iss in another case",
            json!({ "iss": issuer.replace("http", "HTTP") }),
            wrong_issuer,
        ),
        (
            "iss with more after it",
            json!({ "iss": format!("{issuer}x") }),
            wrong_issuer,
        ),
        (
            "iss with more before it",
            json!({ "iss": format!("https://evil.example/{issuer}") }),
            wrong_issuer,
        ),
        (
            "iss with a blank",
            json!({ "iss": format!("{issuer} ") }),
            wrong_issuer,
        ),
        (
            "iss by another name of the host",
            json!({ "iss": issuer.replace("127.0.0.1", "localhost") }),
            wrong_issuer,
        ),
        (
            "iss of somebody else",
            json!({ "iss": "https://auth.bonterra.network/" }),
            wrong_issuer,
        ),
        (
            "iss the name of its table",
            json!({ "iss": "bonterra" }),
            wrong_issuer,
        ),
        ("iss a list", json!({ "iss": [issuer] }), wrong_issuer),
        (
            "iss an object",
            json!({ "iss": { "url": issuer } }),
            wrong_issuer,
        ),
        ("iss a number", json!({ "iss": 1 }), wrong_issuer),
        ("iss empty", json!({ "iss": "" }), wrong_issuer),
        ("no iss", json!({ "iss": null }), wrong_issuer),
    ] {
        token_refused(&world, &world.token_with(change), reason, case).await;
    }
    // The same claims as null, which the simulator does not write.
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": world.auth.current_kid() });
    for (name, reason) in [("aud", audience), ("iss", wrong_issuer)] {
        let mut claims = world.auth.claims();
        claims[name] = Value::Null;
        let token = world.auth.mint_raw(
            &header.to_string(),
            &claims.to_string(),
            &KeyChoice::Current,
        );
        token_refused(&world, &token, reason, &format!("{name} null")).await;
    }
}

/// Sent: a token with one issuer's name, signed with another's key; both are configured. Expected:
/// 401, whatever key id it gives: a key is its issuer's alone.
#[tokio::test]
async fn row_11_issuer_a_signed_by_issuer_bs_key() {
    let other = another_issuer(10).await;
    let config = format!(
        "{CONFIG}
[issuer.partner]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]
",
        other.issuer()
    );
    let world = World::with(&config).await;
    for (case, signer, victim) in [
        ("theirs as ours", &other, &world.auth),
        ("ours as theirs", &world.auth, &other),
    ] {
        let claims = victim.claims();
        for (kid, reason) in [
            (json!(signer.current_kid()), UNKNOWN_KEY),
            (json!(victim.current_kid()), BAD_SIGNATURE),
            (Value::Null, BAD_SIGNATURE),
        ] {
            let token = signer.mint_with(&json!({ "kid": kid }), &claims, &KeyChoice::Current);
            token_refused(&world, &token, reason, &format!("{case}, kid {kid}")).await;
        }
    }
    for name in ["bonterra", "partner"] {
        let series = format!(
            "gateway_auth_decisions_total{{issuer=\"{name}\",outcome=\"refused\",reason=\"bad_signature\"}}"
        );
        // Two tokens, each sent three times.
        assert_eq!(world.gateway.metric(&series).await, 6.0, "{series}");
    }
}

// === 12 ===

/// Sent: tokens that are for something else than calling this API: an ID token as the issuer writes
/// it, logout and DPoP types, tokens bound to a key or a certificate. Expected: 401.
#[tokio::test]
async fn row_12_id_token_cnf_jkt_as_bearer_cnf_x5t_without_its_certificate() {
    let world = World::start().await;
    let claims = world.auth.claims();
    let thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
    for (case, change, reason) in [
        (
            "an ID token",
            json!({ "aud": "demo-web", "nonce": "n", "scope": null, "gty": null }),
            "wrong_audience",
        ),
        (
            "an ID token for two",
            json!({ "aud": ["demo-web", "demo-backend"], "azp": "demo-web" }),
            "wrong_audience",
        ),
        (
            "bound by DPoP",
            json!({ "cnf": { "jkt": thumbprint } }),
            "bound_token",
        ),
        (
            "bound to a certificate",
            json!({ "cnf": { "x5t#S256": thumbprint } }),
            "bound_token",
        ),
        (
            "bound to both",
            json!({ "cnf": { "jkt": thumbprint, "x5t#S256": thumbprint } }),
            "bound_token",
        ),
        (
            "bound to a key",
            json!({ "cnf": { "jwk": { "kty": "RSA" } } }),
            "bound_token",
        ),
        ("an empty cnf", json!({ "cnf": {} }), "bound_token"),
        ("cnf a string", json!({ "cnf": thumbprint }), "bound_token"),
        ("cnf a list", json!({ "cnf": [] }), "bound_token"),
        ("cnf false", json!({ "cnf": false }), "bound_token"),
    ] {
        token_refused(&world, &world.token_with(change), reason, case).await;
    }
    // With the proof, or the certificate, as a header that anybody can write.
    let bound = world.token_with(json!({ "cnf": { "jkt": thumbprint } }));
    for (name, value) in [
        ("dpop", "eyJ0eXAiOiJkcG9wK2p3dCJ9.e30.AA"),
        ("x-client-cert", "MIIB"),
        ("client-cert", ":MIIB:"),
        ("x-forwarded-client-cert", "Hash=00"),
    ] {
        let sent = world.get("/grants/1").bearer(&bound).header(name, value);
        refused(&world, sent, 401, "bound_token", name).await;
    }
    for (case, typ) in [
        ("no typ", Value::Null),
        ("an empty typ", json!("")),
        ("a logout token", json!("logout+jwt")),
        ("an id token's typ", json!("ID")),
        ("an id token's other typ", json!("id_token+jwt")),
        ("a DPoP proof", json!("dpop+jwt")),
        ("an event", json!("secevent+jwt")),
        (
            "an introspection response",
            json!("token-introspection+jwt"),
        ),
        ("a JWT of a media type that is none", json!("text/JWT")),
        ("typ twice in one", json!("application/application/at+jwt")),
        ("typ with a blank", json!("JWT ")),
        ("typ a list", json!(["JWT"])),
        ("typ a number", json!(1)),
    ] {
        let header = json!({ "typ": typ });
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        token_refused(&world, &token, "wrong_type", case).await;
    }
}

// === 13 ===

/// Sent: tokens over `max_token_bytes`, a million dots, thousands of levels of JSON, text that is
/// no UTF-8, to a gateway that has room for them and to one as it comes. Expected: 401 or 431.
#[tokio::test]
async fn row_13_1_mib_10_6_dots_10000_levels_bad_utf_8() {
    let world = World::start().await;
    let padded = |bytes: usize| world.token_with(json!({ "pad": "x".repeat(bytes) }));
    for (case, token) in [
        ("over 8 KiB", padded(7000)),
        ("10,000 dots", ".".repeat(10_000)),
    ] {
        token_refused(&world, &token, "token_too_large", case).await;
    }
    admitted(&world, &padded(4000), "under 8 KiB").await;
    let before = world.echo.requests();
    for (case, token) in [
        ("1 MiB", padded(1 << 20)),
        ("a million dots", ".".repeat(1_000_000)),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        let head =
            format!("GET /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        // The gateway may hang up before it has read all of it.
        raw.try_send(head.as_bytes()).await;
        let rest = raw.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 431 "),
            "{case}: {rest}"
        );
    }
    assert_eq!(world.echo.requests(), before);

    let world = World::with(&roomy()).await;
    let kid = world.auth.current_kid();
    let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#);
    let claims = world.auth.claims().to_string();
    let claims = claims.trim_end_matches('}');
    let nested = |open: &str, close: &str, levels: usize| {
        let deep = format!("{}1{}", open.repeat(levels), close.repeat(levels));
        world.auth.mint_raw(
            &header,
            &format!("{claims},\"deep\":{deep}}}"),
            &KeyChoice::Current,
        )
    };
    let deep_header = format!(
        "{},\"deep\":{}{}}}",
        header.trim_end_matches('}'),
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let padded = |bytes: usize| world.token_with(json!({ "pad": "x".repeat(bytes) }));
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // Nothing reads a signature before it has read what is signed.
    let not_utf8 = |claims: &[u8]| format!("{}.{}.AAAA", encode(header.as_bytes()), encode(claims));
    for (case, token, reason) in [
        ("2,000 levels", nested("[", "]", 2000), MALFORMED),
        (
            "10,000 levels of lists",
            nested("[", "]", 10_000),
            MALFORMED,
        ),
        (
            "10,000 levels of objects",
            nested("{\"a\":", "}", 10_000),
            MALFORMED,
        ),
        (
            "300,000 levels that never end",
            nested("[", "", 300_000),
            MALFORMED,
        ),
        (
            "10,000 levels in the header",
            world
                .auth
                .mint_raw(&deep_header, &format!("{claims}}}"), &KeyChoice::Current),
            MALFORMED,
        ),
        ("a million dots", ".".repeat(1_000_000), MALFORMED),
        ("over 2 MiB", padded(2 << 20), "token_too_large"),
        (
            "1 MiB of a key id",
            unknown_kid(&world, &"k".repeat(700_000)),
            UNKNOWN_KEY,
        ),
        (
            "1 MiB by another key",
            world.auth.mint_with(
                &json!({ "kid": kid }),
                &json!({ "iss": world.auth.issuer(), "pad": "x".repeat(700_000) }),
                &KeyChoice::Unpublished,
            ),
            BAD_SIGNATURE,
        ),
        ("bad UTF-8", not_utf8(b"{\"iss\":\"\xff\xfe\"}"), MALFORMED),
        (
            "overlong UTF-8",
            not_utf8(b"{\"iss\":\"\xc0\xaf\"}"),
            MALFORMED,
        ),
        (
            "a surrogate as UTF-8",
            not_utf8(b"{\"iss\":\"\xed\xa0\x80\"}"),
            MALFORMED,
        ),
        ("UTF-16", not_utf8(b"\xff\xfe{\0}\0"), MALFORMED),
    ] {
        token_refused(&world, &token, reason, case).await;
    }
}

/// Sent: the same again and again, to a gateway of its own process. Expected: memory stays flat.
#[tokio::test]
async fn row_13_1_mib_10_6_dots_10000_levels_at_flat_memory() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    let config = roomy()
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = GatewayProcess::start(&config).await;
    let kid = auth.current_kid();
    let header = format!(r#"{{"alg":"RS256","typ":"JWT","kid":"{kid}"}}"#);
    let deep = format!(
        "{{\"deep\":{}{}}}",
        "[".repeat(400_000),
        "]".repeat(400_000)
    );
    let hostile = [
        ".".repeat(1_000_000),
        "A".repeat(1 << 20),
        auth.mint_raw(&header, &deep, &KeyChoice::Current),
    ];
    let send = async || {
        for token in &hostile {
            let sent = request(gateway.address, "GET", "/grants/1").bearer(token);
            let reply = sent.send().await;
            assert_refusal(&reply, 401, MALFORMED, "large and hostile");
        }
    };
    // What the first ones cost is the price of the buffers.
    for _ in 0..5 {
        send().await;
    }
    let (_, warm) = gateway.running.memory();
    for _ in 0..30 {
        send().await;
    }
    let (_, peak) = gateway.running.memory();
    assert!(peak <= warm + 16, "{warm} MiB, then {peak} MiB");
    assert_eq!(echo.requests(), 0);
}

/// Sent: claims with line breaks, NUL and what else would be a new header line. Expected: admitted,
/// with the bytes percent-encoded: one line for each header, and no other.
#[tokio::test]
async fn row_13_cr_lf_nul_in_a_mapped_claim() {
    let upstream =
        Scripted::start("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    let world = World::with(&CONFIG.replace("ECHO", &upstream.url())).await;
    for (number, (text, expected)) in [
        (
            "a\r\nX-Bonterra-Is-Grants: false",
            "a%0D%0AX-Bonterra-Is-Grants: false",
        ),
        ("a\nX-Admin: 1", "a%0AX-Admin: 1"),
        ("a\rX-Admin: 1", "a%0DX-Admin: 1"),
        ("a\r\n\tX-Admin: 1", "a%0D%0A%09X-Admin: 1"),
        (
            "a\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n",
            "a%0D%0A%0D%0AGET /admin HTTP/1.1%0D%0AHost: a%0D%0A%0D%0A",
        ),
        ("a\0b", "a%00b"),
        ("a\u{7f}b\u{85}c", "a%7Fb%C2%85c"),
        ("a\u{2028}b", "a%E2%80%A8b"),
        ("\u{10a}\u{10d}", "%C4%8A%C4%8D"),
        ("a%0d%0ab", "a%250d%250ab"),
        ("\n", "%0A"),
    ]
    .into_iter()
    .enumerate()
    {
        for claim in [json!(text), json!([text]), json!([[text]])] {
            let token = world.token_with(json!({ "urn:bonterra:claims:bonterra_auth_id": claim }));
            // Cold, and from the cache.
            for pass in ["cold", "warm"] {
                let case = format!("{claim}, {pass}");
                let reply = world.get("/grants/1").bearer(&token).send().await;
                assert_eq!(reply.status, 200, "{case}: {}", reply.text());
                let head = upstream.received().pop().expect("a request");
                let head = head.to_ascii_lowercase();
                assert_eq!(head.matches("\r\n\r\n").count(), 1, "{case}: {head}");
                assert!(head.ends_with("\r\n\r\n"), "{case}: {head}");
                let of = |name: &str| -> Vec<String> {
                    let lines = head.split("\r\n").filter_map(|line| line.split_once(": "));
                    let lines = lines.filter(|(own, _)| *own == name);
                    lines.map(|(_, value)| value.to_owned()).collect()
                };
                assert_eq!(of("x-bonterra-is-grants"), ["true"], "{case}");
                assert!(of("x-admin").is_empty(), "{case}: {head}");
                assert_eq!(of("host").len(), 1, "{case}: {head}");
                assert!(!head.contains('\0'), "{case}: {head}");
                let carried = of("x-bonterra-auth-id");
                // A list of one is that one; in a list of lists the text is JSON first.
                if !claim[0].is_array() {
                    assert_eq!(carried, [expected.to_ascii_lowercase()], "{case}");
                }
                assert_eq!(carried.len(), 1, "{case}");
            }
        }
        assert_eq!(upstream.received().len(), (number + 1) * 6);
    }
}

/// Sent: a claim that would make a header of over 8 KiB. Expected: 401, it is not cut to size.
#[tokio::test]
async fn row_13_a_mapped_claim_that_is_too_large_for_a_header() {
    let world = World::with(&roomy()).await;
    for (case, change) in [
        ("a subject of 9 KiB", json!({ "sub": "x".repeat(9 << 10) })),
        // Encoding makes it three times as long.
        (
            "3 KiB of line breaks",
            json!({ "sub": "\n".repeat(3 << 10) }),
        ),
        ("a million scopes", json!({ "scope": "a ".repeat(300_000) })),
    ] {
        token_refused(&world, &world.token_with(change), "missing_claim", case).await;
    }
}

// === 14 ===

/// Sent: a token in the header and another in the query, or two `Authorization` headers. Expected:
/// 400, whichever is good.
#[tokio::test]
async fn row_14_token_in_header_and_query_or_two_authorization_headers() {
    let world = World::start().await;
    let token = world.auth.token();
    let bearer = format!("Bearer {token}");
    let multiple = "multiple_tokens";
    let other = format!("Bearer {}", world.auth.token());
    for (first, second) in [
        (&*bearer, &*bearer),
        (&bearer, &other),
        (&bearer, "Basic YTpi"),
        ("Basic YTpi", &bearer),
        (&bearer, "Bearer x"),
        ("Bearer x", &bearer),
        (&bearer, ""),
        ("", &bearer),
    ] {
        let case = format!("{:.12} and {:.12}", first, second);
        let sent = world
            .get("/grants/1")
            .header("authorization", first)
            .header("authorization", second);
        refused(&world, sent, 400, multiple, &case).await;
    }
    let sent = format!(
        "GET /grants/1 HTTP/1.1\r\nhost: a\r\nAUTHORIZATION: {bearer}\r\naccept: */*\r\nauthorization: {bearer}\r\n\r\n"
    );
    refused(&world, sent, 400, multiple, "two, spelt differently").await;
    for query in [
        &*format!("access_token={token}"),
        "access_token=x",
        "a=1&access_token=",
        // Some readers part here, too.
        "a=b;access_token=x",
        "access_token;a=b",
        "access%5Ftoken=x",
        "%61ccess_token=x",
        "access_token",
        "?access_token=x&access_token",
    ] {
        let sent =
            format!("GET /grants/1?{query} HTTP/1.1\r\nhost: a\r\nauthorization: {bearer}\r\n\r\n");
        refused(&world, sent, 400, multiple, query).await;
    }
    // What only looks like one.
    for query in [
        "access_tokens=x&q=access_token",
        "xaccess_token=1",
        "ACCESS_TOKEN=1",
    ] {
        let reply = world.authorized(&format!("/grants/1?{query}")).send().await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let sent = world
            .get("/grants/1")
            .header("authorization", format!("{scheme} {token}"));
        assert_eq!(sent.send().await.status, 200, "{scheme}");
    }
}

/// Sent: a token in the header and another in a form. Expected: 400. A body of another type is the
/// upstream's to read.
#[tokio::test]
async fn row_14_token_in_header_and_form_body() {
    let world = World::start().await;
    let token = world.auth.token();
    let multiple = "multiple_tokens";
    let form = "application/x-www-form-urlencoded";
    for (case, content_type, body) in [
        ("a form", form, format!("access_token={token}")),
        ("with an empty value", form, "access_token=".to_owned()),
        ("without a value", form, "a=1&access_token".to_owned()),
        (
            "behind others",
            form,
            "a=1&b=2&access_token=x&c=3".to_owned(),
        ),
        ("escaped", form, "access%5Ftoken=x".to_owned()),
        (
            "with a character set",
            "application/x-www-form-urlencoded; charset=utf-8",
            "access_token=x".to_owned(),
        ),
        (
            "in another case",
            "Application/X-WWW-Form-URLEncoded",
            "access_token=x".to_owned(),
        ),
    ] {
        let sent = world
            .post("/scoped/1")
            .bearer(&token)
            .header("content-type", content_type)
            .body(body);
        refused(&world, sent, 400, multiple, case).await;
    }
    let sent = format!(
        "POST /scoped/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\ncontent-type: {form}\r\n\
         transfer-encoding: chunked\r\n\r\n7\r\na=1&acc\r\n9\r\ness_token\r\n2\r\n=x\r\n0\r\n\r\n"
    );
    refused(&world, sent, 400, multiple, "in chunks").await;
    for (case, content_type, body) in [
        ("JSON", "application/json", "{\"access_token\":\"x\"}"),
        ("text", "text/plain", "access_token=x"),
        ("another form", form, "a=access_token&access_tokens=x"),
    ] {
        let sent = world
            .post("/scoped/1")
            .bearer(&token)
            .header("content-type", content_type)
            .body(body);
        let reply = sent.send().await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text());
        assert_eq!(reply.json()["body"], body, "{case}");
    }
}

// === 15 ===

/// Sent: a good token without the scopes of the route, or with what only looks like them. Expected:
/// 403 with the scopes that it takes.
#[tokio::test]
async fn row_15_too_little_scope() {
    let config = format!(
        "{CONFIG}
[[route]]
name = \"any\"
path = \"/any/*\"
upstream = \"echo\"
any_scope = [\"admin\", \"read:grants\"]
"
    );
    let world = World::with(&config).await;
    for (path, change) in [
        ("/scoped/1", json!({ "scope": "read:grants" })),
        ("/scoped/1", json!({ "scope": "READ:GRANTS WRITE:GRANTS" })),
        ("/scoped/1", json!({ "scope": "read:grants,write:grants" })),
        ("/scoped/1", json!({ "scope": "read:grants write:grantsx" })),
        ("/scoped/1", json!({ "scope": "read:grants xwrite:grants" })),
        ("/scoped/1", json!({ "scope": "read:* write:*" })),
        ("/scoped/1", json!({ "scope": "*" })),
        ("/scoped/1", json!({ "scope": "" })),
        (
            "/scoped/1",
            json!({ "scope": "read:grants\u{a0}write:grants" }),
        ),
        (
            "/scoped/1",
            json!({ "scope": { "read:grants": 1, "write:grants": 1 } }),
        ),
        (
            "/scoped/1",
            json!({ "scope": ["read:grants write:grants"] }),
        ),
        (
            "/scoped/1",
            json!({ "scope": [["read:grants", "write:grants"]] }),
        ),
        ("/scoped/1", json!({ "scope": true })),
        ("/scoped/1", json!({ "scope": null })),
        (
            "/scoped/1",
            json!({ "scope": null, "scopes": "read:grants write:grants" }),
        ),
        (
            "/scoped/1",
            json!({ "scope": null, "roles": ["read:grants", "write:grants"] }),
        ),
        ("/any/1", json!({ "scope": "write:grants" })),
        ("/any/1", json!({ "scope": "administrator" })),
        ("/any/1", json!({ "scope": null })),
    ] {
        let sent = world.get(path).bearer(&world.token_with(change.clone()));
        let case = format!("{path} {change}");
        let before = identity_headers(&world.authorized(path).send().await);
        refused(&world, sent.clone(), 403, "insufficient_scope", &case).await;
        let challenge = sent.send().await;
        let challenge = challenge.header("www-authenticate").expect("a challenge");
        let scope = match path {
            "/scoped/1" => "scope=\"read:grants write:grants\"",
            _ => "scope=\"admin read:grants\"",
        };
        assert!(challenge.contains(scope), "{case}: {challenge}");
        let after = identity_headers(&world.authorized(path).send().await);
        assert_eq!(before, after, "{case}: the good one is who it was");
    }
    // Scopes that only the query or a header claims.
    let token = world.token_with(json!({ "scope": "read:grants" }));
    for (path, name) in [
        ("/scoped/1?scope=write:grants", "x-none"),
        ("/scoped/1", "x-bonterra-scope"),
        ("/scoped/1", "scope"),
    ] {
        let sent = world
            .get(path)
            .bearer(&token)
            .header(name, "read:grants write:grants");
        refused(&world, sent, 403, "insufficient_scope", name).await;
    }
}
