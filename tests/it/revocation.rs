//! Revocation, and what is remembered of tokens. That a cached token falls with it is a row of
//! `adversary::caches`.

use crate::harness::{CONFIG, World, assert_refused, request, with_lines};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, KeyChoice};
use serde_json::{Value, json};

pub async fn revoke(world: &World, order: Value) -> (u16, String) {
    let reply = request(world.gateway.admin, "POST", "/-/revoke")
        .json(&order)
        .send()
        .await;
    (reply.status, reply.text())
}

pub async fn asks(world: &World, token: &str) -> u16 {
    world.get("/grants/1").bearer(token).send().await.status
}

fn now() -> i64 {
    bonterra_gateway::identity::unix_now()
}

#[tokio::test]
async fn a_subject_is_refused_up_to_a_moment_and_no_further() {
    let world = World::start().await;
    let at = |iat: i64| world.token_with(json!({"sub": "u", "iat": iat, "exp": now() + 600}));
    let (old, new) = (at(now() - 60), at(now() - 10));
    let order = json!({"issuer": "bonterra", "sub": "u", "issued_until": now() - 30});
    assert_eq!(revoke(&world, order).await.0, 200);
    assert_eq!(asks(&world, &old).await, 401);
    assert_eq!(asks(&world, &new).await, 200);
    let without = world.token_with(json!({"sub": "u", "iat": null}));
    assert_eq!(
        asks(&world, &without).await,
        401,
        "without iat: cannot be told"
    );
}

#[tokio::test]
async fn a_revocation_outlives_a_reload_that_empties_the_cache() {
    let world = World::start().await;
    let token = world.auth.token();
    assert_eq!(asks(&world, &token).await, 200);
    assert_eq!(revoke(&world, json!({"token": token})).await.0, 200);
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let smaller = with_lines(&file, "[server]", "") + "\n[token_cache]\nmax_entries = 10\n";
    std::fs::write(world.gateway.file(), smaller).expect("written");
    assert_eq!(world.gateway.admin("POST", "/-/reload").await.status, 200);
    assert_eq!(asks(&world, &token).await, 401);
}

#[tokio::test]
async fn an_order_that_is_none_is_refused_and_never_repeated() {
    let world = World::start().await;
    for (order, part) in [
        (json!({}), "send {"),
        (json!({"tokem": "CANARY"}), "line 1, column"),
        (json!({"token": ["CANARY"]}), "line 1, column"),
        (json!({"token": "CANARY", "jti": "x"}), "send {"),
        (json!({"jti": "CANARY"}), "`issuer` is one of: bonterra"),
        (
            json!({"issuer": "CANARY", "sub": "x"}),
            "`issuer` is one of: bonterra",
        ),
        (
            json!({"issuer": "bonterra", "jti": "x", "issued_until": 5}),
            "send {",
        ),
    ] {
        let (status, text) = revoke(&world, order.clone()).await;
        assert_eq!(status, 422, "{order}: {text}");
        assert!(text.contains(part), "{order}: {text}");
        assert!(!text.contains("CANARY"), "{order}: {text}");
    }
    // What a page in a browser can send without being asked.
    let form = request(world.gateway.admin, "POST", "/-/revoke")
        .header("content-type", "text/plain")
        .body("{\"token\":\"x\"}")
        .send()
        .await;
    assert_eq!(form.status, 415);
    let get = request(world.gateway.admin, "GET", "/-/revoke")
        .send()
        .await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
}

/// As many different bad tokens as the cache of refusals holds, and more, push out no good one.
#[tokio::test]
async fn many_bad_tokens_push_out_no_good_one() {
    let bounds = "\n[token_cache]\nmax_entries = 10\nrefused_entries = 10\n";
    let world = World::with(&(CONFIG.to_owned() + bounds)).await;
    let good = world.auth.token();
    assert_eq!(asks(&world, &good).await, 200);
    for number in 0..50 {
        let bad = world.token_with(json!({"aud": "https://x", "jti": number.to_string()}));
        assert_eq!(asks(&world, &bad).await, 401);
    }
    let hits = "gateway_verified_token_cache_requests_total{result=\"hit\"}";
    let before = world.gateway.metric(hits).await;
    assert_eq!(asks(&world, &good).await, 200);
    assert_eq!(world.gateway.metric(hits).await, before + 1.0);
}

#[tokio::test]
async fn one_bad_token_again_and_again_costs_one_signature_check() {
    let world =
        World::with(&(CONFIG.to_owned() + "\n[token_cache]\nrefused_for = \"60s\"\n")).await;
    let bad = world.token_with(json!({"aud": "https://elsewhere.example"}));
    let good = world.auth.token();
    let remembered = "gateway_verified_token_cache_requests_total{result=\"refused\"}";
    for round in 0..3 {
        let reply = world.get("/grants/1").bearer(&bad).send().await;
        assert_refused(&world.gateway, &reply, 401, "wrong_audience", "grants").await;
        assert_eq!(world.gateway.metric(remembered).await, f64::from(round));
        assert_eq!(asks(&world, &good).await, 200);
    }
    // Under other rules the same token is judged anew.
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let wider = file.replace(
        "audiences = [\"https://api.bonterra.network\"]",
        "audiences = [\"https://api.bonterra.network\", \"https://elsewhere.example\"]",
    );
    assert_ne!(wider, file);
    std::fs::write(world.gateway.file(), wider).expect("written");
    assert_eq!(world.gateway.admin("POST", "/-/reload").await.status, 200);
    assert_eq!(asks(&world, &bad).await, 200);
}

/// What is revoked is revoked for the issuer, whatever its table is called.
#[tokio::test]
async fn a_revocation_outlives_another_name_of_the_issuer() {
    let world = World::start().await;
    let token = |name: &str| world.token_with(json!({"sub": name, "jti": name}));
    let tokens = [token("a"), token("b"), token("c")];
    let orders = [
        json!({"token": tokens[0]}),
        json!({"issuer": "bonterra", "jti": "b"}),
        json!({"issuer": "bonterra", "sub": "c"}),
    ];
    for (token, order) in tokens.iter().zip(orders) {
        assert_eq!(asks(&world, token).await, 200);
        assert_eq!(revoke(&world, order).await.0, 200);
    }
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let renamed = file
        .replace("[issuer.bonterra", "[issuer.renamed")
        .replace("issuer = \"bonterra\"", "issuer = \"renamed\"");
    std::fs::write(world.gateway.file(), renamed).expect("written");
    let reply = world.gateway.admin("POST", "/-/reload").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    crate::harness::eventually("its keys", async || {
        asks(&world, &world.auth.token()).await == 200
    })
    .await;
    for token in &tokens {
        let reply = world.get("/grants/1").bearer(token).send().await;
        assert_refused(&world.gateway, &reply, 401, "revoked", "grants").await;
    }
}

/// ECDSA has two good signatures for one token: `(r, s)` and `(r, n - s)`. Whoever has one has both.
#[tokio::test]
async fn a_revoked_token_does_not_come_back_with_its_other_signature() {
    const P256: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    const P384: &str = "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf\
                        581a0db248b0a77aecec196accc52973";
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let algorithms = "algorithms = [\"ES256\", \"ES384\"]";
    let world = World::of(
        options,
        &with_lines(CONFIG, "[issuer.bonterra]", algorithms),
    )
    .await;
    for (algorithm, order) in [(Algorithm::ES256, P256), (Algorithm::ES384, P384)] {
        for (first, revoked) in [(0, 0), (0, 1), (1, 0)] {
            let claims = world.auth.claims();
            let choice = KeyChoice::Algorithm(algorithm);
            let one = world.auth.mint_with(&Value::Null, &claims, &choice);
            let both = [one.clone(), complement(&one, order)];
            assert_ne!(both[0], both[1]);
            assert_eq!(asks(&world, &both[first]).await, 200, "{algorithm:?}");
            let order = json!({"token": both[revoked]});
            assert_eq!(revoke(&world, order).await.0, 200);
            let seen = world.echo.requests();
            for token in &both {
                let reply = world.get("/grants/1").bearer(token).send().await;
                assert_refused(&world.gateway, &reply, 401, "revoked", "grants").await;
            }
            assert_eq!(world.echo.requests(), seen);
        }
    }
}

/// The same token with `n - s` in place of `s`.
fn complement(token: &str, order: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a JWT");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64url");
    let (r, s) = signature.split_at(signature.len() / 2);
    let digit = |at| u8::from_str_radix(&order[at..at + 2], 16).expect("hex");
    let n: Vec<u8> = (0..order.len()).step_by(2).map(digit).collect();
    let mut other = Vec::new();
    let mut borrow = false;
    for (n, s) in n.iter().rev().zip(s.iter().rev()) {
        let (difference, under) = n.overflowing_sub(*s);
        let (difference, under_again) = difference.overflowing_sub(u8::from(borrow));
        borrow = under || under_again;
        other.push(difference);
    }
    other.reverse();
    let signature = URL_SAFE_NO_PAD.encode([r, &other].concat());
    format!("{signed}.{signature}")
}

#[tokio::test]
async fn a_token_with_something_around_it_is_revoked_or_refused() {
    let world = World::start().await;
    for (before, after) in [
        ("", "\n"),
        (" \t", " \r\n"),
        ("Bearer ", ""),
        ("bearer   ", "\n"),
        ("\nBEARER ", " "),
    ] {
        let token = world.auth.token();
        assert_eq!(asks(&world, &token).await, 200);
        let order = json!({"token": format!("{before}{token}{after}")});
        let (status, text) = revoke(&world, order).await;
        assert_eq!(status, 200, "{before:?} {after:?}: {text}");
        assert_eq!(asks(&world, &token).await, 401, "{before:?} {after:?}");
    }
    for nonsense in [
        "",
        " ",
        "Bearer",
        "Bearer ",
        "Bearer CANARY CANARY",
        "Basic CANARY",
        "CANARY\nCANARY",
        "\"CANARY\"",
        "CANARY,",
        "CAN=ARY",
        "===",
        "CANÄRY",
    ] {
        let (status, text) = revoke(&world, json!({"token": nonsense})).await;
        assert_eq!(status, 422, "{nonsense:?}: {text}");
        assert!(text.contains("`token`"), "{nonsense:?}: {text}");
        assert!(!text.contains("CANARY"), "{nonsense:?}: {text}");
    }
}
