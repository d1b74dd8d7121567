//! Revocation, and what is remembered of tokens. That a cached token falls with it is a row of
//! `adversary::caches`.

use crate::harness::{CONFIG, World, assert_refused, request, with_lines};
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
