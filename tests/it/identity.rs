//! Who gets in, as whom, and what of that the upstream learns.

use crate::harness::{
    CONFIG, Gateway, Raw, Reply, Scripted, World, assert_refused, eventually, with_lines,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, BonterraAuth, KeyChoice};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const ISSUER: &str = "[issuer.bonterra]";
const AUTH_ID: &str = "urn:bonterra:claims:bonterra_auth_id";
const IS_GRANTS: &str = "urn:bonterra:claims:is_bonterra_grants";

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// 401 with this reason, cold and warm, and nothing of it upstream.
async fn assert_token_refused(world: &World, token: &str, reason: &str, case: &str) {
    let before = world.echo.requests();
    for pass in ["cold", "warm"] {
        let reply = world.get("/grants/1").bearer(token).send().await;
        assert_challenged(&reply, reason, &format!("{case}, {pass}"));
    }
    assert_eq!(world.echo.requests(), before, "{case}: the upstream saw it");
}

fn assert_challenged(reply: &Reply, reason: &str, case: &str) {
    assert_eq!(reply.status, 401, "{case}: {}", reply.text());
    assert_eq!(reply.json()["reason"], reason, "{case}");
    let challenge = reply.header("www-authenticate").expect("a challenge");
    let start = "Bearer realm=\"bonterra\", error=\"invalid_token\", error_description=\"";
    assert!(challenge.starts_with(start), "{case}: {challenge}");
}

async fn assert_admitted(world: &World, token: &str, case: &str) {
    for pass in ["cold", "warm"] {
        let reply = world.get("/grants/1").bearer(token).send().await;
        assert_eq!(reply.status, 200, "{case}, {pass}: {}", reply.text());
    }
}

fn parts(token: &str) -> [&str; 3] {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().expect("three segments")
}

// === algorithms ===

#[tokio::test]
async fn every_algorithm_is_admitted_when_listed_and_refused_when_not() {
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let claims = world.auth.claims();
    let mint = |algorithm| {
        world
            .auth
            .mint_with(&Value::Null, &claims, &KeyChoice::Algorithm(algorithm))
    };
    let tokens = Algorithm::ALL.map(|algorithm| (algorithm, mint(algorithm)));
    for listed in Algorithm::ALL {
        let list = format!("algorithms = [\"{}\"]", listed.as_str());
        let config = with_lines(CONFIG, ISSUER, &list);
        let config = config
            .replace("ISSUER", world.auth.issuer())
            .replace("ECHO", &world.echo.url());
        let gateway = Gateway::start(&config).await;
        gateway.app.ready().await;
        for (algorithm, token) in &tokens {
            let before = world.echo.requests();
            let reply = crate::harness::request(gateway.address, "GET", "/grants/1")
                .bearer(token)
                .send()
                .await;
            let case = format!("{algorithm:?} where {listed:?} is listed");
            if *algorithm == listed {
                assert_eq!(reply.status, 200, "{case}: {}", reply.text());
                assert_eq!(
                    reply.upstream_saw("x-bonterra-is-grants"),
                    ["true"],
                    "{case}"
                );
            } else {
                assert_challenged(&reply, "algorithm_not_allowed", &case);
                assert_eq!(world.echo.requests(), before, "{case}");
            }
        }
    }
}

#[tokio::test]
async fn an_algorithm_cannot_be_talked_into() {
    let all = Algorithm::ALL
        .map(|algorithm| format!("{:?}", algorithm.as_str()))
        .join(", ");
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let config = with_lines(CONFIG, ISSUER, &format!("algorithms = [{all}]"));
    let world = World::of(options, &config).await;
    let claims = world.auth.claims();
    let kid = world.auth.current_kid();
    let jwk = world.auth.jwks()["keys"]
        .as_array()
        .expect("keys")
        .iter()
        .find(|jwk| jwk["kid"] == json!(kid))
        .cloned();
    let jwk = jwk.expect("the current key");
    let modulus = jwk["n"].as_str().expect("n");
    let of = |algorithm: Algorithm| {
        let token = world
            .auth
            .mint_with(&Value::Null, &claims, &KeyChoice::Algorithm(algorithm));
        let header = URL_SAFE_NO_PAD.decode(parts(&token)[0]).expect("base64url");
        serde_json::from_slice::<Value>(&header).expect("JSON")["kid"].clone()
    };
    let refused = "algorithm_not_allowed";

    // A good RSA signature under a header that says otherwise.
    for (alg, reason) in [
        (json!("none"), refused),
        (json!("None"), refused),
        (json!("NONE"), refused),
        (json!("nOnE"), refused),
        (json!(""), refused),
        (json!("HS256"), refused),
        (json!("rs256"), refused),
        (json!("RS256 "), refused),
        (json!("RS1"), refused),
        (json!("ES256"), refused),
        (json!("EdDSA"), refused),
        (json!("PS256"), refused),
        (json!("RS512"), refused),
        (Value::Null, "malformed_token"),
        (json!(256), "malformed_token"),
        (json!(["RS256"]), "malformed_token"),
    ] {
        let header = json!({ "alg": alg });
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        assert_token_refused(&world, &token, reason, &format!("alg {alg}")).await;
    }

    // No signature at all, or one that anybody can make.
    let secrets = [
        URL_SAFE_NO_PAD.decode(modulus).expect("base64url"),
        modulus.as_bytes().to_vec(),
        jwk.to_string().into_bytes(),
        Vec::new(),
    ];
    for secret in secrets {
        for header in [
            json!({}),
            json!({ "kid": kid }),
            json!({ "kid": kid, "typ": "at+jwt" }),
        ] {
            let token = world
                .auth
                .mint_with(&header, &claims, &KeyChoice::Secret(secret.clone()));
            assert_token_refused(&world, &token, refused, &format!("HS256, {header}")).await;
            let header = json!({ "kid": kid, "alg": "RS256" });
            let token = world
                .auth
                .mint_with(&header, &claims, &KeyChoice::Secret(secret.clone()));
            assert_token_refused(
                &world,
                &token,
                "bad_signature",
                "an HMAC that claims to be RS256",
            )
            .await;
        }
    }
    let unsigned = world
        .auth
        .mint_with(&json!({ "kid": kid }), &claims, &KeyChoice::Unsigned);
    assert_token_refused(&world, &unsigned, "malformed_token", "no signature").await;
    assert_token_refused(
        &world,
        &format!("{unsigned}AA"),
        refused,
        "alg none with some signature",
    )
    .await;

    // A good signature of another algorithm, under the name of a key that is not for it.
    for (signed, named) in [
        (Algorithm::PS256, json!(kid)),
        (Algorithm::RS512, json!(kid)),
        (Algorithm::RS384, of(Algorithm::PS384)),
        (Algorithm::PS512, of(Algorithm::PS256)),
        (Algorithm::ES256, of(Algorithm::ES384)),
        (Algorithm::EdDSA, of(Algorithm::ES256)),
    ] {
        let token = world.auth.mint_with(
            &json!({ "kid": named }),
            &claims,
            &KeyChoice::Algorithm(signed),
        );
        assert_token_refused(
            &world,
            &token,
            refused,
            &format!("{signed:?} with the kid of {named}"),
        )
        .await;
    }
}

// === the header ===

#[tokio::test]
async fn a_token_header_is_read_strictly() {
    let world = World::start().await;
    let claims = world.auth.claims();
    let accepted = [
        ("typ in lower case", json!({ "typ": "jwt" })),
        ("RFC 9068's typ", json!({ "typ": "at+jwt" })),
        (
            "typ as a whole media type",
            json!({ "typ": "application/at+JWT" }),
        ),
        ("no kid", json!({ "kid": null })),
        ("an unknown member", json!({ "x": 1 })),
    ];
    for (case, header) in accepted {
        assert_admitted(
            &world,
            &world.auth.mint_with(&header, &claims, &KeyChoice::Current),
            case,
        )
        .await;
    }
    let next = world
        .auth
        .mint_with(&json!({ "kid": null }), &claims, &KeyChoice::Next);
    assert_admitted(
        &world,
        &next,
        "no kid, and not the first of the keys that fit",
    )
    .await;

    for (case, header, reason) in [
        ("no typ", json!({ "typ": null }), "wrong_type"),
        ("an empty typ", json!({ "typ": "" }), "wrong_type"),
        (
            "a logout token",
            json!({ "typ": "logout+jwt" }),
            "wrong_type",
        ),
        ("an id token's typ", json!({ "typ": "ID" }), "wrong_type"),
        ("a DPoP proof", json!({ "typ": "dpop+jwt" }), "wrong_type"),
        ("typ as a list", json!({ "typ": ["JWT"] }), "wrong_type"),
        ("crit", json!({ "crit": ["exp"] }), "critical_header"),
        (
            "an unknown crit",
            json!({ "crit": ["x"], "x": 1 }),
            "critical_header",
        ),
        ("an empty crit", json!({ "crit": [] }), "critical_header"),
        (
            "b64 false",
            json!({ "b64": false, "crit": ["b64"] }),
            "critical_header",
        ),
        (
            "b64 false without crit",
            json!({ "b64": false }),
            "critical_header",
        ),
        ("kid as a number", json!({ "kid": 1 }), "malformed_token"),
        (
            "kid as a list",
            json!({ "kid": [world.auth.current_kid()] }),
            "malformed_token",
        ),
    ] {
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        assert_token_refused(&world, &token, reason, case).await;
    }
    let no_key = world
        .auth
        .mint_with(&json!({ "kid": null }), &claims, &KeyChoice::Unpublished);
    assert_token_refused(
        &world,
        &no_key,
        "bad_signature",
        "no kid, and none of the keys",
    )
    .await;
}

#[tokio::test]
async fn keys_that_a_token_brings_along_are_not_used() {
    let world = World::start().await;
    let canary = Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await;
    let claims = world.auth.claims();
    // The attacker's key: what it signs would verify with the jwk that the header brings.
    let attacker = BonterraAuth::start(AuthOptions {
        key_slot: 20,
        ..AuthOptions::default()
    })
    .await
    .expect("an issuer");
    let jwk = attacker.jwks()["keys"][0].clone();
    for extra in [
        json!({ "jwk": jwk }),
        json!({ "jku": format!("{}/jwks.json", canary.url()) }),
        json!({ "x5u": format!("{}/cert.pem", canary.url()) }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "jwk": jwk, "jku": format!("{}/jwks.json", canary.url()), "x5u": canary.url() }),
    ] {
        for (kid, reason) in [
            (json!(attacker.current_kid()), "unknown_key"),
            (json!(world.auth.current_kid()), "bad_signature"),
            (Value::Null, "bad_signature"),
        ] {
            let mut header = extra.clone();
            header["kid"] = kid;
            let token = attacker.mint_with(&header, &claims, &KeyChoice::Current);
            assert_token_refused(&world, &token, reason, &header.to_string()).await;
        }
    }
    assert_eq!(
        canary.received(),
        [""; 0],
        "the gateway asked where the token told it to"
    );
}

fn in_the_other_case(text: &str) -> String {
    let swapped = |letter: char| match letter.is_ascii_lowercase() {
        true => letter.to_ascii_uppercase(),
        false => letter.to_ascii_lowercase(),
    };
    text.chars().map(swapped).collect()
}

#[tokio::test]
async fn a_key_id_is_a_name_and_nothing_else() {
    let world = World::start().await;
    let claims = world.auth.claims();
    for kid in [
        "../../etc/passwd",
        "/dev/null",
        "' OR '1'='1",
        "\"; DROP TABLE keys",
        "a\0b",
        "a\r\nb",
        "",
        " ",
        "\u{1F511}",
        &"k".repeat(4000),
        &in_the_other_case(&world.auth.current_kid()),
        &format!("{} ", world.auth.current_kid()),
        &format!("{}\0", world.auth.current_kid()),
    ] {
        let token = world
            .auth
            .mint_with(&json!({ "kid": kid }), &claims, &KeyChoice::Current);
        assert_token_refused(
            &world,
            &token,
            "unknown_key",
            &format!("kid {:?}", kid.get(..20)),
        )
        .await;
    }
    let long = world.auth.mint_with(
        &json!({ "kid": "k".repeat(64 << 10) }),
        &claims,
        &KeyChoice::Current,
    );
    let reply = world.get("/grants/1").bearer(&long).send().await;
    assert_eq!(reply.status, 431, "a kid of 64 KiB");
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_causes_one_fetch() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"1h\"")).await;
    let good = world.auth.token();
    let before = world.auth.counts().jwks;
    for number in 0..50 {
        let header = json!({ "kid": format!("invented-{number}") });
        let token = world
            .auth
            .mint_with(&header, &world.auth.claims(), &KeyChoice::Current);
        let reply = world.get("/grants/1").bearer(&token).send().await;
        assert_challenged(&reply, "unknown_key", "an invented kid");
    }
    assert_eq!(world.auth.counts().jwks, before + 1);
    assert_admitted(&world, &good, "a good token after the flood").await;
}

// === the claims ===

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let world = World::start().await;
    let issuer = world.auth.issuer().to_owned();
    let without_slash = issuer.trim_end_matches('/');
    let now = now();
    for (case, change) in [
        (
            "aud as a list with ours",
            json!({ "aud": ["https://other.example", "https://api.bonterra.network"] }),
        ),
        ("exp within the leeway", json!({ "exp": now - 10 })),
        ("nbf within the leeway", json!({ "nbf": now + 10 })),
        ("iat within the leeway", json!({ "iat": now + 10 })),
        ("no iat", json!({ "iat": null })),
        ("no sub", json!({ "sub": null })),
    ] {
        assert_admitted(&world, &world.token_with(change), case).await;
    }
    for (case, change, reason) in [
        ("exp passed", json!({ "exp": now - 60 }), "expired"),
        ("exp long passed", json!({ "exp": 0 }), "expired"),
        ("no exp", json!({ "exp": null }), "missing_claim"),
        (
            "exp as a string",
            json!({ "exp": (now + 600).to_string() }),
            "missing_claim",
        ),
        ("exp negative", json!({ "exp": -1 }), "missing_claim"),
        (
            "exp a float",
            json!({ "exp": 9_999_999_999.5 }),
            "missing_claim",
        ),
        (
            "exp over an i64",
            json!({ "exp": u64::MAX }),
            "missing_claim",
        ),
        ("exp true", json!({ "exp": true }), "missing_claim"),
        ("exp a list", json!({ "exp": [now + 600] }), "missing_claim"),
        (
            "nbf in the future",
            json!({ "nbf": now + 600 }),
            "not_yet_valid",
        ),
        ("nbf a string", json!({ "nbf": "0" }), "missing_claim"),
        ("nbf a float", json!({ "nbf": 1.5 }), "missing_claim"),
        (
            "iat in the future",
            json!({ "iat": now + 600 }),
            "not_yet_valid",
        ),
        ("iat a string", json!({ "iat": "0" }), "missing_claim"),
        ("sub a number", json!({ "sub": 7 }), "missing_claim"),
        ("sub a list", json!({ "sub": ["x"] }), "missing_claim"),
        ("jti a number", json!({ "jti": 7 }), "missing_claim"),
        ("no aud", json!({ "aud": null }), "wrong_audience"),
        ("aud a number", json!({ "aud": 1 }), "wrong_audience"),
        (
            "aud an object",
            json!({ "aud": { "https://api.bonterra.network": true } }),
            "wrong_audience",
        ),
        ("aud an empty list", json!({ "aud": [] }), "wrong_audience"),
        (
            "aud a list with a number",
            json!({ "aud": ["https://api.bonterra.network", 1] }),
            "wrong_audience",
        ),
        (
            "aud with a slash",
            json!({ "aud": "https://api.bonterra.network/" }),
            "wrong_audience",
        ),
        (
            "aud in another case",
            json!({ "aud": "https://API.bonterra.network" }),
            "wrong_audience",
        ),
        (
            "aud of many words",
            json!({ "aud": "https://api.bonterra.network https://x" }),
            "wrong_audience",
        ),
        (
            "an id token",
            json!({ "aud": "demo-web", "nonce": "n" }),
            "wrong_audience",
        ),
        (
            "iss without the slash",
            json!({ "iss": without_slash }),
            "wrong_issuer",
        ),
        (
            "iss in another case",
            json!({ "iss": issuer.replace("http", "HTTP") }),
            "wrong_issuer",
        ),
        (
            "iss with more after it",
            json!({ "iss": format!("{issuer}x") }),
            "wrong_issuer",
        ),
        (
            "iss of somebody else",
            json!({ "iss": "https://auth.bonterra.network/" }),
            "wrong_issuer",
        ),
        ("iss as a list", json!({ "iss": [issuer] }), "wrong_issuer"),
        ("no iss", json!({ "iss": null }), "wrong_issuer"),
        (
            "bound by DPoP",
            json!({ "cnf": { "jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I" } }),
            "bound_token",
        ),
        (
            "bound to a certificate",
            json!({ "cnf": { "x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2" } }),
            "bound_token",
        ),
        ("an empty cnf", json!({ "cnf": {} }), "bound_token"),
    ] {
        assert_token_refused(&world, &world.token_with(change), reason, case).await;
    }
    // What serde_json's values cannot hold.
    for exp in [
        "18446744073709551616",
        "1e400",
        "9999999999999999999999",
        "4102444800.0",
    ] {
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": world.auth.current_kid() });
        let mut claims = world.auth.claims();
        claims["exp"] = json!("EXP");
        let payload = claims.to_string().replace("\"EXP\"", exp);
        let token = world
            .auth
            .mint_raw(&header.to_string(), &payload, &KeyChoice::Current);
        let reply = world.get("/grants/1").bearer(&token).send().await;
        let reason = reply.json()["reason"].clone();
        assert!(
            reason == "missing_claim" || reason == "malformed_token",
            "exp {exp}: {reason}"
        );
        assert_eq!(reply.status, 401, "exp {exp}");
    }
}

#[tokio::test]
async fn a_lifetime_over_the_limit_is_refused() {
    let world = World::with(&with_lines(CONFIG, ISSUER, "max_lifetime = \"1h\"")).await;
    let now = now();
    let of = |iat: Value, exp: u64| world.token_with(json!({ "iat": iat, "exp": exp }));
    assert_admitted(&world, &of(json!(now), now + 3600), "just the limit").await;
    assert_token_refused(
        &world,
        &of(json!(now), now + 3601),
        "too_long_lived",
        "a second over",
    )
    .await;
    assert_token_refused(
        &world,
        &of(Value::Null, now + 60),
        "missing_claim",
        "no iat to count from",
    )
    .await;
}

// === the encoding ===

/// The last character of a base64url text, with a bit set that decodes to nothing.
fn with_spare_bit(segment: &str) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    assert_ne!(segment.len() % 4, 0, "no spare bits");
    let (rest, last) = segment.split_at(segment.len() - 1);
    let value = ALPHABET.find(last).expect("base64url");
    format!("{rest}{}", &ALPHABET[value + 1..value + 2])
}

#[tokio::test]
async fn a_token_has_one_spelling() {
    let world = World::start().await;
    let token = world.auth.token();
    assert_admitted(&world, &token, "the token as it is").await;
    // RFC 9110 §11.4 and §5.5: neither is a part of the token.
    assert_admitted(&world, &format!("  {token}"), "three spaces before").await;
    assert_admitted(&world, &format!("{token} \t"), "white space behind").await;
    let [header, payload, signature] = parts(&token);
    let standard = |segment: &str| segment.replace('-', "+").replace('_', "/");
    let malformed = "malformed_token";
    for (case, token, reason) in [
        ("one segment", payload.to_owned(), malformed),
        ("two segments", format!("{header}.{payload}"), malformed),
        ("four segments", format!("{token}.{signature}"), malformed),
        (
            "five segments, as a JWE has",
            format!("{token}.{payload}.{signature}"),
            malformed,
        ),
        (
            "an empty header",
            format!(".{payload}.{signature}"),
            malformed,
        ),
        (
            "an empty payload",
            format!("{header}..{signature}"),
            malformed,
        ),
        (
            "an empty signature",
            format!("{header}.{payload}."),
            malformed,
        ),
        ("only dots", "..".to_owned(), malformed),
        ("a dot before", format!(".{token}"), malformed),
        ("a dot behind", format!("{token}."), malformed),
        ("eight thousand dots", ".".repeat(8000), malformed),
        (
            "padding behind the header",
            format!("{header}=.{payload}.{signature}"),
            malformed,
        ),
        (
            "padding behind the payload",
            format!("{header}.{payload}==.{signature}"),
            malformed,
        ),
        (
            "padding behind the signature",
            format!("{token}=="),
            malformed,
        ),
        (
            "another alphabet",
            format!("{header}.{payload}.{}", standard(&format!("{signature}_"))),
            malformed,
        ),
        (
            "a spare bit in the signature",
            format!("{header}.{payload}.{}", with_spare_bit(signature)),
            malformed,
        ),
        (
            "a space inside",
            format!("{header}. {payload}.{signature}"),
            malformed,
        ),
        (
            "a tab inside",
            format!("{header}\t.{payload}.{signature}"),
            malformed,
        ),
        ("a tab before", format!("\t{token}"), malformed),
        (
            "a comma and another",
            format!("{token}, {token}"),
            malformed,
        ),
        (
            "JSON serialisation",
            json!({ "payload": payload, "signature": signature }).to_string(),
            malformed,
        ),
        (
            "a tilde behind, as SD-JWT has",
            format!("{token}~"),
            malformed,
        ),
        ("no JWT at all", "opaque-handle".to_owned(), malformed),
        (
            "a signature that is cut",
            // Two characters less leave whole groups of four, which decode.
            token[..token.len() - 2].to_owned(),
            "bad_signature",
        ),
        (
            "bytes behind the signature",
            format!("{token}AAAA"),
            "bad_signature",
        ),
    ] {
        assert_token_refused(&world, &token, reason, case).await;
    }
}

#[tokio::test]
async fn a_token_is_strict_json() {
    let world = World::start().await;
    let claims = world.auth.claims().to_string();
    let claims = claims.trim_end_matches('}');
    let header = format!(
        r#""alg":"RS256","typ":"JWT","kid":"{}""#,
        world.auth.current_kid()
    );
    let mint =
        |header: &str, claims: &str| world.auth.mint_raw(header, claims, &KeyChoice::Current);
    let good_header = format!("{{{header}}}");
    let good_claims = format!("{claims}}}");
    assert_admitted(
        &world,
        &mint(&good_header, &good_claims),
        "this way of minting",
    )
    .await;
    let deep = format!(
        "{claims},\"deep\":{}{}}}",
        "[".repeat(2000),
        "]".repeat(2000)
    );
    for (case, header, claims) in [
        (
            "a claim twice",
            &*good_header,
            &*format!("{claims},\"sub\":\"admin\"}}"),
        ),
        (
            "exp twice",
            &good_header,
            &format!("{claims},\"exp\":9999999999}}"),
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
            "alg twice",
            &format!("{{{header},\"alg\":\"none\"}}"),
            &good_claims,
        ),
        (
            "kid twice",
            &format!("{{\"kid\":\"x\",{header}}}"),
            &good_claims,
        ),
        ("claims as a list", &good_header, "[]"),
        ("claims as a string", &good_header, "\"x\""),
        ("claims empty", &good_header, " "),
        (
            "text behind the claims",
            &good_header,
            &format!("{good_claims}x"),
        ),
        ("a trailing comma", &good_header, &format!("{claims},}}")),
        ("a comment", &good_header, &format!("{claims}/* */}}")),
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
        ("2,000 levels", &good_header, &deep),
        ("a header that is none", "JWT", &good_claims),
    ] {
        assert_token_refused(&world, &mint(header, claims), "malformed_token", case).await;
    }
    // mint_raw takes text, so bytes that are no text go around it: nothing reads the signature first.
    let not_utf8 = URL_SAFE_NO_PAD.encode(b"{\"iss\":\"\xff\xfe\"}");
    let token = format!("{}.{not_utf8}.AAAA", URL_SAFE_NO_PAD.encode(&good_header));
    assert_token_refused(&world, &token, "malformed_token", "bad UTF-8").await;
}

#[tokio::test]
async fn a_token_has_a_size() {
    let world = World::start().await;
    let padded = |bytes: usize| world.token_with(json!({ "pad": "x".repeat(bytes) }));
    assert_admitted(&world, &padded(4000), "under 8 KiB").await;
    assert_token_refused(&world, &padded(7000), "token_too_large", "over 8 KiB").await;
    assert_token_refused(
        &world,
        &".".repeat(10_000),
        "token_too_large",
        "10,000 dots",
    )
    .await;
    let before = world.echo.requests();
    for (case, token) in [
        ("1 MiB", padded(1 << 20)),
        ("a million dots", ".".repeat(1_000_000)),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        // The gateway may hang up before it has read all of it.
        let head =
            format!("GET /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, head.as_bytes()).await;
        let rest = raw.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 431 "),
            "{case}: {rest}"
        );
    }
    assert_eq!(world.echo.requests(), before);
}

// === the credential ===

#[tokio::test]
async fn a_credential_comes_in_one_place() {
    let world = World::start().await;
    let token = world.auth.token();
    let bearer = format!("Bearer {token}");
    let twice = world
        .authorized("/grants/1")
        .header("authorization", &bearer)
        .send()
        .await;
    assert_refused(&world.gateway, &twice, 400, "multiple_tokens", "grants").await;
    let mixed = world
        .authorized("/grants/1")
        .header("authorization", "Basic YTpi")
        .send()
        .await;
    assert_refused(&world.gateway, &mixed, 400, "multiple_tokens", "grants").await;
    for query in [
        "access_token=x",
        "a=1&access_token=",
        "access%5Ftoken=x",
        "access_token",
    ] {
        let both = world.authorized(&format!("/grants/1?{query}")).send().await;
        assert_refused(&world.gateway, &both, 400, "multiple_tokens", "grants").await;
    }
    let query_only = world
        .get(&format!("/grants/1?access_token={token}"))
        .send()
        .await;
    assert_refused(&world.gateway, &query_only, 401, "missing_token", "grants").await;
    assert_eq!(world.echo.requests(), 0);
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let reply = world
            .get("/grants/1")
            .header("authorization", format!("{scheme} {token}"))
            .send()
            .await;
        assert_eq!(reply.status, 200, "{scheme}");
    }
    let other = world
        .authorized("/grants/1?access_tokens=x&q=access_token")
        .send()
        .await;
    assert_eq!(other.status, 200, "{}", other.text());
}

#[tokio::test]
async fn what_is_no_bearer_token_is_missing_or_malformed() {
    let world = World::start().await;
    let token = world.auth.token();
    for (value, reason) in [
        (String::new(), "missing_token"),
        ("Basic ZGVtbzpkZW1v".to_owned(), "missing_token"),
        (format!("DPoP {token}"), "missing_token"),
        (format!("Token {token}"), "missing_token"),
        (format!("Bearer: {token}"), "missing_token"),
        (token.clone(), "missing_token"),
        ("Bearer {}".to_owned(), "malformed_token"),
        (format!("Bearer \"{token}\""), "malformed_token"),
        (format!("Bearer token={token}"), "malformed_token"),
        (format!("Bearer {token},{token}"), "malformed_token"),
    ] {
        let reply = world
            .get("/grants/1")
            .header("authorization", &value)
            .send()
            .await;
        assert_eq!(
            (reply.status, reply.json()["reason"].as_str()),
            (401, Some(reason)),
            "{value}"
        );
    }
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn optional_means_none_or_a_good_one() {
    let world = World::start().await;
    let anonymous = world
        .get("/optional/1")
        .header("x-bonterra-subject", "forged")
        .send()
        .await;
    assert_eq!(anonymous.status, 200);
    assert!(
        identity_headers(&anonymous).is_empty(),
        "{}",
        anonymous.text()
    );
    let known = world.authorized("/optional/1").send().await;
    assert_eq!(
        known.upstream_saw("x-bonterra-subject"),
        ["demo-client@clients"]
    );
    let before = world.echo.requests();
    let expired = world
        .get("/optional/1")
        .bearer(&world.token_with(json!({ "exp": 1 })))
        .send()
        .await;
    assert_refused(&world.gateway, &expired, 401, "expired", "optional").await;
    let garbage = world.get("/optional/1").bearer("x").send().await;
    assert_refused(&world.gateway, &garbage, 401, "malformed_token", "optional").await;
    assert_eq!(
        world.echo.requests(),
        before,
        "a bad token is no missing token"
    );
    // Where tokens are not looked at, a bad one does no harm and a good one makes no identity.
    for token in ["x".to_owned(), world.auth.token()] {
        let public = world.get("/public/1").bearer(&token).send().await;
        assert_eq!(public.status, 200);
        assert!(identity_headers(&public).is_empty(), "{}", public.text());
        assert_eq!(
            public.upstream_saw("authorization"),
            [format!("Bearer {token}")]
        );
    }
}

// === what the upstream learns ===

/// All headers at the upstream that look like the gateway's own, whatever their spelling.
fn identity_headers(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.json()["headers"].clone();
    let headers: Vec<(String, String)> =
        serde_json::from_value(headers).expect("the echo's headers");
    let ours = |name: &str| {
        let name = name.to_ascii_lowercase().replace('_', "-");
        name.starts_with("x-bonterra-") || name == "x-tenant"
    };
    headers.into_iter().filter(|(name, _)| ours(name)).collect()
}

const TENANT_HEADERS: &str = r#"
[issuer.bonterra.headers]
X-Bonterra-Auth-Id = "urn:bonterra:claims:bonterra_auth_id"
X-Bonterra-Is-Grants = "urn:bonterra:claims:is_bonterra_grants"
X-Bonterra-Value = "https://example.com/claims/value.x"
X-Tenant = "tenant"
"#;

#[tokio::test]
async fn claims_arrive_in_the_encoding_of_their_type() {
    let world = World::with(&format!("{CONFIG}{TENANT_HEADERS}")).await;
    for (claim, expected) in [
        (json!("plain text"), Some("plain text")),
        (json!("auth0|507f"), Some("auth0|507f")),
        (json!(""), Some("")),
        (json!(true), Some("true")),
        (json!(false), Some("false")),
        (json!(42), Some("42")),
        (json!(-1.5), Some("-1.5")),
        (json!(u64::MAX), Some("18446744073709551615")),
        (json!(["a", "b c"]), Some("a,b c")),
        (json!(["a,b", "c"]), Some("a%2Cb,c")),
        (json!([true, 1, "x"]), Some("true,1,x")),
        (json!([]), Some("")),
        (json!({ "a": [1, "x"] }), Some("{\"a\":[1,\"x\"]}")),
        (json!([{ "a": 1 }]), Some("[{\"a\":1}]")),
        (json!("100%"), Some("100%25")),
        (json!("caf\u{e9}"), Some("caf%C3%A9")),
        (json!("\u{1F600}"), Some("%F0%9F%98%80")),
        (
            json!("a\r\nX-Bonterra-Is-Grants: true"),
            Some("a%0D%0AX-Bonterra-Is-Grants: true"),
        ),
        (json!("a\0b\tc\u{7f}d"), Some("a%00b%09c%7Fd")),
        (json!(["a\nb"]), Some("a%0Ab")),
        (json!({ "\u{e9}": "\n" }), Some("{\"%C3%A9\":\"\\n\"}")),
        (json!(" led and followed "), Some("%20led and followed%20")),
    ] {
        let token = world.token_with(json!({ "https://example.com/claims/value.x": claim }));
        let reply = world
            .get("/grants/1")
            .bearer(&token)
            .header("x-bonterra-value", "forged")
            .send()
            .await;
        assert_eq!(reply.status, 200, "{claim}");
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(reply.upstream_saw("x-bonterra-value"), expected, "{claim}");
        assert_eq!(
            reply.upstream_saw("x-bonterra-is-grants"),
            ["true"],
            "{claim}"
        );
    }
    // The whole name is one key: a path into objects is none.
    for token in [
        world.auth.token(),
        world.token_with(json!({ "https://example.com/claims/value.x": null })),
        world.token_with(json!({ "https://example.com/claims/value": { "x": "nested" } })),
    ] {
        let reply = world
            .get("/grants/1")
            .bearer(&token)
            .header("x-bonterra-value", "forged")
            .send()
            .await;
        assert!(
            reply.upstream_saw("x-bonterra-value").is_empty(),
            "{}",
            reply.text()
        );
    }
    let payload = world.auth.claims().to_string().replacen(
        '{',
        "{\"https://example.com/claims/value.x\":null,",
        1,
    );
    let header = format!(
        r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#,
        world.auth.current_kid()
    );
    let token = world.auth.mint_raw(&header, &payload, &KeyChoice::Current);
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert!(
        reply.upstream_saw("x-bonterra-value").is_empty(),
        "null says nothing"
    );
}

#[tokio::test]
async fn forgeries_are_stripped_on_every_route() {
    let world = World::with(&format!("{CONFIG}{TENANT_HEADERS}")).await;
    let forged = [
        "x-bonterra-auth-id",
        "X-Bonterra-Auth-Id",
        "X-BONTERRA-AUTH-ID",
        "x_bonterra_auth_id",
        "X_Bonterra_Auth_Id",
        "x-bonterra_auth-id",
        "x_bonterra-auth_id",
        "x-bonterra-is-grants",
        "X_BONTERRA_IS_GRANTS",
        "x-bonterra-anything-else",
        "X_Bonterra_Role",
        "x-bonterra-",
        "x-tenant",
        "X_Tenant",
    ];
    let token = world.auth.token();
    let id = world.auth.claims()[AUTH_ID]
        .as_str()
        .expect("an id")
        .to_owned();
    let genuine = vec![
        ("x-bonterra-auth-id".to_owned(), id),
        ("x-bonterra-is-grants".to_owned(), "true".to_owned()),
    ];
    for (path, token, expected) in [
        ("/grants/1", Some(&token), genuine.clone()),
        ("/optional/1", Some(&token), genuine),
        ("/optional/1", None, Vec::new()),
        ("/public/1", None, Vec::new()),
        ("/public/1", Some(&token), Vec::new()),
    ] {
        // One at a time, each twice, then all at once.
        for names in forged
            .iter()
            .map(|name| vec![*name, *name])
            .chain([forged.to_vec()])
        {
            let mut request = world.get(path);
            for name in &names {
                request = request.header(name, "forged");
            }
            if let Some(token) = token {
                request = request.bearer(token);
            }
            let reply = request.send().await;
            assert_eq!(reply.status, 200, "{path} {names:?}");
            let mut arrived = identity_headers(&reply);
            arrived.sort();
            assert_eq!(arrived, expected, "{path} {names:?}");
        }
    }
    // A name that only resembles one passes: the guard is not a net for everything.
    let reply = world
        .get("/public/1")
        .header("x-bonterrax", "1")
        .header("bonterra-auth-id", "2")
        .send()
        .await;
    assert_eq!(reply.upstream_saw("x-bonterrax"), ["1"]);
    assert_eq!(reply.upstream_saw("bonterra-auth-id"), ["2"]);
}

#[tokio::test]
async fn a_claim_that_is_absent_leaves_no_room_for_a_forgery() {
    let world = World::start().await;
    let token = world.token_with(json!({ AUTH_ID: null, "scope": null }));
    let request = world
        .get("/grants/1")
        .bearer(&token)
        .header("x-bonterra-auth-id", "forged")
        .header("X_Bonterra_Scope", "admin");
    let reply = request.send().await;
    assert_eq!(
        identity_headers(&reply)
            .into_iter()
            .map(|(name, _)| name)
            .collect::<Vec<_>>(),
        ["x-bonterra-is-grants", "x-bonterra-subject"]
    );
}

#[tokio::test]
async fn forgeries_in_trailers_do_not_arrive() {
    let upstream = Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let world = World::with(&CONFIG.replace("ECHO", &upstream.url())).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(
        "POST /public/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntrailer: x-bonterra-auth-id\r\nte: trailers\r\n\r\n\
         5\r\nhello\r\n0\r\nx-bonterra-auth-id: forged\r\nX_Bonterra_Scope: forged\r\n\r\n",
    )
    .await;
    assert_eq!(raw.whole().await.status, 200);
    let received = upstream.received().concat().to_ascii_lowercase();
    assert!(received.contains("hello"), "{received}");
    assert!(
        !received.contains("bonterra_")
            && !received.contains("x-bonterra")
            && !received.contains("forged"),
        "{received}"
    );
}

#[tokio::test]
async fn connection_cannot_take_the_identity_away() {
    let world = World::start().await;
    let id = world.auth.claims()[AUTH_ID]
        .as_str()
        .expect("an id")
        .to_owned();
    let many: String = (0..20).map(|n| format!("x-none-{n}, ")).collect();
    for value in [
        "x-bonterra-auth-id",
        "X-Bonterra-Auth-Id, X-Bonterra-Is-Grants, X-Bonterra-Subject",
        "close, x-bonterra-auth-id",
        "keep-alive,x-bonterra-auth-id,",
        &format!("{many}x-bonterra-auth-id"),
    ] {
        let request = world
            .authorized("/grants/1")
            .header("connection", value)
            .header("x-none-3", "1");
        let reply = request.header("x-bonterra-auth-id", "forged").send().await;
        assert_eq!(reply.status, 200, "{value}: {}", reply.text());
        assert_eq!(
            reply.upstream_saw("x-bonterra-auth-id"),
            std::slice::from_ref(&id),
            "{value}"
        );
        assert_eq!(
            reply.upstream_saw("x-bonterra-is-grants"),
            ["true"],
            "{value}"
        );
        assert!(reply.upstream_saw("connection").is_empty(), "{value}");
    }
    let before = world.echo.requests();
    for value in [
        "host",
        "Authorization",
        "close, HOST",
        "content-length",
        "cookie",
        "x y",
    ] {
        let reply = world
            .authorized("/grants/1")
            .header("connection", value)
            .send()
            .await;
        assert_refused(&world.gateway, &reply, 400, "bad_request", "grants").await;
    }
    assert_eq!(world.echo.requests(), before);
}

#[tokio::test]
async fn the_token_goes_on_unless_the_route_keeps_it() {
    let config = with_lines(
        CONFIG,
        "[[route]]\nname = \"grants\"",
        "forward_token = false",
    );
    let world = World::with(&config).await;
    let kept = world.authorized("/grants/1").send().await;
    assert_eq!(kept.status, 200);
    assert!(kept.upstream_saw("authorization").is_empty());
    assert_eq!(kept.upstream_saw("x-bonterra-is-grants"), ["true"]);
    let forwarded = world.authorized("/optional/1").send().await;
    assert_eq!(forwarded.upstream_saw("authorization").len(), 1);
}

// === what the route asks ===

#[tokio::test]
async fn scopes_and_claims_are_checked_in_all_their_forms() {
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
    let (ok, short) = (200, 403);
    for (path, change, status) in [
        ("/scoped/1", json!({}), ok),
        (
            "/scoped/1",
            json!({ "scope": "write:grants read:grants" }),
            ok,
        ),
        (
            "/scoped/1",
            json!({ "scope": ["read:grants", "write:grants"] }),
            ok,
        ),
        (
            "/scoped/1",
            json!({ "scope": null, "scp": "read:grants write:grants" }),
            ok,
        ),
        (
            "/scoped/1",
            json!({ "scope": "read:grants", "permissions": ["write:grants"] }),
            ok,
        ),
        ("/scoped/1", json!({ "scope": "read:grants" }), short),
        (
            "/scoped/1",
            json!({ "scope": "READ:GRANTS WRITE:GRANTS" }),
            short,
        ),
        (
            "/scoped/1",
            json!({ "scope": "read:grants,write:grants" }),
            short,
        ),
        (
            "/scoped/1",
            json!({ "scope": "read:grants write:grantsx" }),
            short,
        ),
        (
            "/scoped/1",
            json!({ "scope": { "read:grants": 1, "write:grants": 1 } }),
            short,
        ),
        ("/scoped/1", json!({ "scope": null }), short),
        ("/any/1", json!({ "scope": "read:grants" }), ok),
        ("/any/1", json!({ "scope": "admin x" }), ok),
        ("/any/1", json!({ "scope": "write:grants" }), short),
        ("/grants/1", json!({ IS_GRANTS: [false, true] }), ok),
        ("/grants/1", json!({ IS_GRANTS: false }), short),
        ("/grants/1", json!({ IS_GRANTS: "true" }), short),
        ("/grants/1", json!({ IS_GRANTS: 1 }), short),
        ("/grants/1", json!({ IS_GRANTS: null }), short),
    ] {
        let before = world.echo.requests();
        let token = world.token_with(change.clone());
        for _ in 0..2 {
            let reply = world.get(path).bearer(&token).send().await;
            assert_eq!(reply.status, status, "{path} {change}: {}", reply.text());
        }
        let passed = if status == ok { 2 } else { 0 };
        assert_eq!(world.echo.requests(), before + passed, "{path} {change}");
    }
}

// === the cache of verified tokens ===

const HITS: &str = "gateway_verified_token_cache_requests_total{result=\"hit\"}";

#[tokio::test]
async fn a_cached_token_with_another_signature_is_another_token() {
    let world = World::start().await;
    let token = world.auth.token();
    assert_admitted(&world, &token, "the token").await;
    assert!(world.gateway.metric(HITS).await >= 1.0, "it is cached");
    let [header, payload, signature] = parts(&token);
    let flipped = |at: usize| {
        let with = if &signature[at..=at] == "A" { "B" } else { "A" };
        format!(
            "{header}.{payload}.{}{with}{}",
            &signature[..at],
            &signature[at + 1..]
        )
    };
    let other = world.token_with(json!({ "sub": "another" }));
    for (case, token) in [
        ("its first character", flipped(0)),
        ("one in the middle", flipped(170)),
        ("one near the end", flipped(340)),
        (
            "the signature of another token",
            format!("{header}.{payload}.{}", parts(&other)[2]),
        ),
        (
            "the payload of another token",
            format!("{header}.{}.{signature}", parts(&other)[1]),
        ),
    ] {
        assert_token_refused(&world, &token, "bad_signature", case).await;
    }
    assert_admitted(&world, &token, "the token, afterwards").await;
}

#[tokio::test]
async fn cached_tokens_keep_their_own_claims() {
    let world = World::start().await;
    let subjects: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let tokens: Vec<String> = subjects
        .iter()
        .map(|sub| world.token_with(json!({ "sub": sub })))
        .collect();
    for _ in 0..2 {
        for (token, subject) in tokens.iter().zip(&subjects) {
            let reply = world.get("/grants/1").bearer(token).send().await;
            let arrived = reply.upstream_saw("x-bonterra-subject");
            assert_eq!(arrived, std::slice::from_ref(subject));
        }
    }
    assert_eq!(world.gateway.metric(HITS).await, 20.0);
}

#[tokio::test]
async fn a_cached_token_expires_on_time() {
    let world = World::with(&with_lines(CONFIG, ISSUER, "leeway = \"0s\"")).await;
    let exp = now() + 2;
    let token = world.token_with(json!({ "exp": exp }));
    assert_admitted(&world, &token, "before exp").await;
    assert!(world.gateway.metric(HITS).await >= 1.0, "it is cached");
    eventually("its end", || async {
        // Read before asking, so that a tick in between cannot make a right answer look wrong.
        let asked_after = now() >= exp;
        let reply = world.get("/grants/1").bearer(&token).send().await;
        assert!(!asked_after || reply.status == 401, "admitted after exp");
        reply.status == 401
    })
    .await;
    assert!(now() >= exp, "refused before exp");
    assert_token_refused(&world, &token, "expired", "after exp").await;
}

#[tokio::test]
async fn a_cached_token_falls_with_its_key() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    let old = world.auth.token();
    let unnamed = world.auth.mint_with(
        &json!({ "kid": null }),
        &world.auth.claims(),
        &KeyChoice::Current,
    );
    assert_admitted(&world, &old, "signed by the first key").await;
    assert_admitted(
        &world,
        &unnamed,
        "signed by the first key, which it does not name",
    )
    .await;
    world.auth.rotate();
    assert_admitted(&world, &old, "its key is published still").await;
    assert_admitted(&world, &world.auth.token(), "signed by the new key").await;
    world.auth.withdraw_previous();
    // A token of the very newest key makes the gateway fetch the keys now.
    let newest = world
        .auth
        .mint_with(&Value::Null, &world.auth.claims(), &KeyChoice::Next);
    assert_admitted(
        &world,
        &newest,
        "signed by a key that the gateway has not seen",
    )
    .await;
    assert_token_refused(&world, &old, "unknown_key", "its key is withdrawn").await;
    assert_token_refused(
        &world,
        &unnamed,
        "bad_signature",
        "its key is withdrawn, and it names none",
    )
    .await;
    assert_admitted(
        &world,
        &world.auth.token(),
        "signed by the key that is left",
    )
    .await;
}

#[tokio::test]
async fn a_withdrawn_key_is_forgotten_at_the_next_refresh() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=1".to_owned(),
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let token = world.auth.token();
    assert_admitted(&world, &token, "while its key is published").await;
    world.auth.rotate();
    world.auth.withdraw_previous();
    // Nobody but the gateway's own clock makes it look.
    let keys = || {
        world
            .gateway
            .metric("gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"ok\"}")
    };
    let before = keys().await;
    eventually("a refresh", || async { keys().await > before + 1.0 }).await;
    assert_token_refused(&world, &token, "unknown_key", "after the refresh").await;
}

#[tokio::test]
async fn a_replaced_key_of_the_same_name_is_another_key() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    let token = world.auth.token();
    assert_admitted(&world, &token, "while its key is published").await;
    let other = BonterraAuth::start(AuthOptions {
        key_slot: 30,
        ..AuthOptions::default()
    })
    .await
    .expect("an issuer");
    let mut key = other.jwks()["keys"][0].clone();
    key["kid"] = json!(world.auth.current_kid());
    world.auth.set_jwks_document(Some(json!({ "keys": [key] })));
    let unknown = world.auth.mint_with(
        &json!({ "kid": "makes it look" }),
        &world.auth.claims(),
        &KeyChoice::Current,
    );
    assert_token_refused(&world, &unknown, "unknown_key", "an unknown kid").await;
    assert_token_refused(
        &world,
        &token,
        "bad_signature",
        "the same kid, other material",
    )
    .await;
}

#[tokio::test]
async fn what_is_cached_is_a_fact_and_never_a_permission() {
    let world = World::start().await;
    let token = world.token_with(json!({ "scope": "read:grants" }));
    assert_admitted(&world, &token, "on a route without scopes").await;
    let before = world.echo.requests();
    for _ in 0..2 {
        let reply = world.get("/scoped/1").bearer(&token).send().await;
        assert_refused(&world.gateway, &reply, 403, "insufficient_scope", "scoped").await;
    }
    let refused_first = world.token_with(json!({ "scope": "write:grants" }));
    let reply = world.get("/scoped/1").bearer(&refused_first).send().await;
    assert_refused(&world.gateway, &reply, 403, "insufficient_scope", "scoped").await;
    assert_eq!(world.echo.requests(), before);
    assert_admitted(
        &world,
        &refused_first,
        "refused by one route, good for another",
    )
    .await;
}

// === several issuers ===

#[tokio::test]
async fn two_issuers_side_by_side_do_not_mix() {
    let other = BonterraAuth::start(AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    })
    .await
    .expect("an issuer");
    let config = format!(
        "{CONFIG}
[issuer.partner]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]
headers = {{ X-Partner = \"sub\" }}

[[route]]
name = \"partner\"
path = \"/partner/*\"
upstream = \"echo\"
issuers = [\"partner\"]
",
        other.issuer()
    );
    let world = World::with(&config).await;
    let (ours, theirs) = (world.auth.token(), other.token());

    // Each with its own mapping, and nobody with the other's headers.
    let reply = world
        .get("/optional/1")
        .bearer(&ours)
        .header("x-partner", "forged")
        .send()
        .await;
    assert_eq!(
        reply.upstream_saw("x-bonterra-subject"),
        ["demo-client@clients"]
    );
    assert!(
        reply.upstream_saw("x-partner").is_empty(),
        "every issuer's headers are guarded"
    );
    let reply = world
        .get("/optional/1")
        .bearer(&theirs)
        .header("x-bonterra-subject", "forged")
        .send()
        .await;
    assert_eq!(reply.upstream_saw("x-partner"), ["demo-client@clients"]);
    assert!(reply.upstream_saw("x-bonterra-subject").is_empty());

    // A route for one of them refuses the other, whose token is cached by now.
    let admitted = world.get("/partner/1").bearer(&theirs).send().await;
    assert_eq!(admitted.status, 200, "{}", admitted.text());
    let before = world.echo.requests();
    let refused = world.get("/partner/1").bearer(&ours).send().await;
    assert_refused(&world.gateway, &refused, 401, "wrong_issuer", "partner").await;
    assert_eq!(world.echo.requests(), before);

    // One's name under the other's key, whatever kid it gives.
    for (case, signer, victim) in [
        ("theirs as ours", &other, &world.auth),
        ("ours as theirs", &world.auth, &other),
    ] {
        let claims = victim.claims();
        for (kid, reason) in [
            (json!(signer.current_kid()), "unknown_key"),
            (json!(victim.current_kid()), "bad_signature"),
            (Value::Null, "bad_signature"),
        ] {
            let token = signer.mint_with(&json!({ "kid": kid }), &claims, &KeyChoice::Current);
            assert_token_refused(&world, &token, reason, &format!("{case}, kid {kid}")).await;
        }
    }
    for (name, count) in [("bonterra", 1.0), ("partner", 1.0)] {
        let series = format!(
            "gateway_auth_decisions_total{{issuer=\"{name}\",outcome=\"accepted\",reason=\"ok\"}}"
        );
        assert!(world.gateway.metric(&series).await >= count, "{series}");
        let series = format!(
            "gateway_auth_decisions_total{{issuer=\"{name}\",outcome=\"refused\",reason=\"bad_signature\"}}"
        );
        assert_eq!(world.gateway.metric(&series).await, 4.0, "{series}");
    }
}

#[tokio::test]
async fn an_issuer_with_empty_hands_does_not_stand_in_the_way_of_another() {
    let config = format!(
        "{CONFIG}
[issuer.away]
url = \"http://{}/\"
audiences = [\"https://api.bonterra.network\"]
timeout = \"200ms\"
",
        crate::harness::nobody()
    );
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("an issuer");
    let echo = bonterra_gateway::demo::echo::Echo::start(crate::harness::local())
        .await
        .expect("an upstream");
    let config = config
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = Gateway::start(&config).await;
    let token = auth.token();
    eventually("the issuer that is there", || async {
        crate::harness::request(gateway.address, "GET", "/grants/1")
            .bearer(&token)
            .send()
            .await
            .status
            == 200
    })
    .await;
    let readiness = gateway.admin("GET", "/readyz").await;
    assert_eq!(
        readiness.status, 503,
        "the other issuer's keys are missing still"
    );
    tokio::time::timeout(Duration::from_millis(1), gateway.app.ready())
        .await
        .expect_err("not ready");
}
