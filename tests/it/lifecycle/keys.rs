//! Keys come and go while requests do.

use crate::harness::{
    CONFIG, Gateway, World, assert_refused, eventually, request, with_lines, within,
};
use bonterra_gateway::demo::auth::{
    Algorithm, AuthOptions, BonterraAuth, Endpoint, Fault, KeyChoice,
};
use futures_util::future::join_all;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Good but for its key id, which nobody has published.
fn unknown_kid(world: &World, kid: &str) -> String {
    world.auth.mint_with(
        &json!({ "kid": kid }),
        &world.auth.claims(),
        &KeyChoice::Current,
    )
}

/// A world where unknown key ids cause a fetch whenever they come.
async fn eager() -> World {
    World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"1ms\"")).await
}

/// A token that names no key.
fn nameless(world: &World, key: &KeyChoice) -> String {
    let header = json!({ "kid": null });
    world.auth.mint_with(&header, &world.auth.claims(), key)
}

const REFUSED_BEFORE: &str = "gateway_verified_token_cache_requests_total{result=\"refused\"}";

#[tokio::test]
async fn a_rotation_under_load_costs_no_request() {
    let world = Arc::new(eager().await);
    let (served, ended) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let load: Vec<_> = (0..4)
        .map(|client| {
            let (world, served, ended) =
                (Arc::clone(&world), Arc::clone(&served), Arc::clone(&ended));
            tokio::spawn(async move {
                let mut failed = Vec::new();
                let mut kept = world.auth.token();
                while !ended.load(Relaxed) {
                    // Old and new tokens, so that both ways of recognising one are there.
                    let number = served.fetch_add(1, Relaxed);
                    if number % 3 == 0 {
                        kept = world.token_with(json!({ "jti": format!("{client}-{number}") }));
                    }
                    let reply = world.get("/grants/1").bearer(&kept).send().await;
                    if reply.status != 200 {
                        failed.push(reply.text());
                    }
                }
                failed
            })
        })
        .collect();
    for rotation in 1..=5 {
        eventually("load", || {
            std::future::ready(served.load(Relaxed) >= rotation * 40)
        })
        .await;
        world.auth.rotate();
    }
    eventually("load", || std::future::ready(served.load(Relaxed) >= 240)).await;
    ended.store(true, Relaxed);
    let failed: Vec<String> = join_all(load)
        .await
        .into_iter()
        .flat_map(|task| task.expect("no panic"))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(world.auth.counts().jwks > 1, "the new keys were fetched");
}

#[tokio::test]
async fn after_the_cool_down_an_unknown_key_id_is_asked_for_again() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"200ms\"")).await;
    let before = world.auth.counts().jwks;
    assert_eq!(
        world
            .get("/grants/1")
            .bearer(&unknown_kid(&world, "a"))
            .send()
            .await
            .status,
        401
    );
    // What the cool-down suppressed is not made up for later.
    assert_eq!(
        world
            .get("/grants/1")
            .bearer(&unknown_kid(&world, "b"))
            .send()
            .await
            .status,
        401
    );
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(world.auth.counts().jwks, before + 1);
    assert_eq!(
        world
            .get("/grants/1")
            .bearer(&unknown_kid(&world, "c"))
            .send()
            .await
            .status,
        401
    );
    assert_eq!(world.auth.counts().jwks, before + 2);
}

#[tokio::test]
async fn a_slow_fetch_delays_only_who_asked_for_it() {
    let config = with_lines(CONFIG, "[issuer.bonterra]", "timeout = \"300ms\"");
    let world = World::with(&config.replace("cooldown = \"1s\"", "cooldown = \"1ms\"")).await;
    world.auth.set_fault(Endpoint::Jwks, Some(Fault::Hang));
    let slow = world.get("/grants/1").bearer(&unknown_kid(&world, "x"));
    let known = world.authorized("/grants/1");
    let mut slow = std::pin::pin!(slow.send());
    let mut judged = None;
    for _ in 0..5 {
        tokio::select! {
            biased;
            reply = known.send() => assert_eq!(reply.status, 200),
            reply = &mut slow => {
                judged = Some(reply);
                break;
            }
        }
    }
    let judged = match judged {
        Some(reply) => reply,
        None => slow.await,
    };
    assert_eq!(
        (judged.status, &judged.json()["reason"]),
        (503, &json!("keys_unavailable")),
        "it may be signed with a key that could not be fetched"
    );
}

/// RFC 7515 §4.1.4 lets a token leave out which key it is signed with, new keys included.
#[tokio::test]
async fn tokens_that_name_no_key_survive_a_rotation() {
    let world = eager().await;
    for round in 0..3 {
        // Twice: the next key is published ahead of its use.
        world.auth.rotate();
        world.auth.rotate();
        let token = nameless(&world, &KeyChoice::Current);
        let grants = world.get("/grants/1").bearer(&token);
        let replies = join_all((0..8).map(|_| grants.send())).await;
        for reply in replies {
            assert_eq!(reply.status, 200, "{round}: {}", reply.text());
        }
    }
}

#[tokio::test]
async fn bad_tokens_that_name_no_key_cost_one_fetch_and_are_remembered() {
    let config = CONFIG.replace("cooldown = \"1s\"", "cooldown = \"1h\"");
    let world = World::with(&with_lines(
        &config,
        "[issuer.bonterra]",
        "algorithms = [\"RS256\", \"ES256\"]",
    ))
    .await;
    let before = world.auth.counts().jwks;
    let forged = nameless(&world, &KeyChoice::Unpublished);
    for round in 0..3 {
        let reply = world.get("/grants/1").bearer(&forged).send().await;
        assert_refused(&world.gateway, &reply, 401, "bad_signature", "grants").await;
        assert_eq!(world.auth.counts().jwks, before + 1, "asked for once");
        assert_eq!(world.gateway.metric(REFUSED_BEFORE).await, f64::from(round));
    }
    let other = nameless(&world, &KeyChoice::Algorithm(Algorithm::ES256));
    for round in 3..5 {
        let reply = world.get("/grants/1").bearer(&other).send().await;
        assert_refused(&world.gateway, &reply, 401, "unknown_key", "grants").await;
        assert_eq!(
            world.gateway.metric(REFUSED_BEFORE).await,
            f64::from(round - 1)
        );
    }
    assert_eq!(world.auth.counts().jwks, before + 1, "not so soon again");
    assert!(world.echo.seen().is_empty());
}

/// What nobody needs may be as bad as it likes.
#[tokio::test]
async fn a_token_endpoint_that_nobody_needs_costs_no_keys() {
    let world = eager().await;
    let config = CONFIG
        .replace("ISSUER", world.auth.issuer())
        .replace("ECHO", &world.echo.url());
    let without = config.replace("[oauth.bonterra]\nissuer = \"bonterra\"\n", "");
    let jwks_uri = format!("{}.well-known/jwks.json", world.auth.issuer());
    for bad in [
        json!("http://plain.example/token"),
        json!("\u{1b}[31m"),
        json!(7),
    ] {
        let document = json!({
            "issuer": world.auth.issuer(),
            "jwks_uri": jwks_uri,
            "token_endpoint": bad,
        });
        let fault = Fault::Status(200, "application/json".to_owned(), document.to_string());
        world.auth.set_fault(Endpoint::Discovery, Some(fault));
        let gateway = Gateway::start(&without).await;
        within("ready", gateway.app.ready()).await;
        let gateway = Gateway::start(&config).await;
        let errors = "gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"error\"}";
        eventually("refused", async || gateway.metric(errors).await > 0.0).await;
    }
}

/// Keys may live elsewhere than their issuer, but never where anybody on the way can change them.
#[tokio::test]
async fn discovery_may_name_keys_on_another_origin_but_not_without_https() {
    let world = eager().await;
    let elsewhere = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("another origin");
    let discovery = |jwks_uri: &str| {
        let document = json!({ "issuer": world.auth.issuer(), "jwks_uri": jwks_uri });
        let fault = Fault::Status(200, "application/json".to_owned(), document.to_string());
        world.auth.set_fault(Endpoint::Discovery, Some(fault));
    };
    let config = CONFIG
        .replace("ISSUER", world.auth.issuer())
        .replace("ECHO", &world.echo.url());
    // Without the OAuth surface nobody needs a token endpoint.
    let config = config.replace("[oauth.bonterra]\nissuer = \"bonterra\"\n", "");

    discovery(&format!("{}.well-known/jwks.json", elsewhere.issuer()));
    let gateway = Gateway::start(&config).await;
    within("ready", gateway.app.ready()).await;
    assert_eq!(elsewhere.counts().jwks, 1);
    let token = elsewhere.mint(&world.auth.claims());
    let grants = request(gateway.address, "GET", "/grants/1").bearer(&token);
    assert_eq!(grants.send().await.status, 200);

    discovery("http://keys.example/jwks.json");
    let gateway = Gateway::start(&config).await;
    let errors = "gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"error\"}";
    eventually("refused", async || gateway.metric(errors).await > 0.0).await;
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 503);
}
