//! Keys come and go while requests do.

use crate::harness::{CONFIG, Gateway, World, assert_refused, eventually, request, within};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, KeyChoice};
use bonterra_gateway::demo::echo::Echo;
use futures_util::future::join_all;
use serde_json::{Value, json};
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
    let config = CONFIG.replace("cooldown = \"1s\"", "cooldown = \"1ms\"");
    World::with(&config.replace(
        "[issuer.bonterra.jwks]",
        "timeout = \"300ms\"\n[issuer.bonterra.jwks]",
    ))
    .await
}

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

/// Nobody is told that a key is gone; the next refresh tells.
#[tokio::test]
async fn a_withdrawn_key_is_refused_after_the_next_refresh_cached_tokens_too() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=1".to_owned(),
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let old = world.auth.token();
    assert_eq!(world.get("/grants/1").bearer(&old).send().await.status, 200);
    world.auth.rotate();
    world.auth.withdraw_previous();
    eventually("refused", async || {
        world.get("/grants/1").bearer(&old).send().await.status == 401
    })
    .await;
    let refused = world.get("/grants/1").bearer(&old).send().await;
    assert_refused(&world.gateway, &refused, 401, "unknown_key", "grants").await;
    assert_eq!(world.authorized("/grants/1").send().await.status, 200);
}

#[tokio::test]
async fn unknown_key_ids_share_one_fetch_in_a_cool_down() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"60s\"")).await;
    let before = world.auth.counts();
    for round in 0..3 {
        let tokens: Vec<_> = (0..20)
            .map(|number| unknown_kid(&world, &format!("{round}-{number}")))
            .collect();
        let requests: Vec<_> = tokens
            .iter()
            .map(|token| world.get("/grants/1").bearer(token))
            .collect();
        let replies = join_all(requests.iter().map(|request| request.send())).await;
        for reply in replies {
            assert_refused(&world.gateway, &reply, 401, "unknown_key", "grants").await;
        }
        assert_eq!(
            world.authorized("/grants/1").send().await.status,
            200,
            "nobody else is held up"
        );
    }
    assert_eq!(world.auth.counts().jwks, before.jwks + 1);
    assert_eq!(world.auth.counts().discovery, before.discovery);
    assert!(
        world
            .echo
            .seen()
            .iter()
            .all(|seen| seen.headers.contains_key("x-bonterra-auth-id"))
    );
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
    let world = eager().await;
    world.auth.set_fault(Endpoint::Jwks, Some(Fault::Hang));
    let slow = world.get("/grants/1").bearer(&unknown_kid(&world, "x"));
    let known = world.authorized("/grants/1");
    let mut slow = std::pin::pin!(slow.send());
    for _ in 0..5 {
        tokio::select! {
            biased;
            reply = known.send() => assert_eq!(reply.status, 200),
            _ = &mut slow => break,
        }
    }
    let judged = slow.await;
    assert_eq!(
        (judged.status, &judged.json()["reason"]),
        (503, &json!("keys_unavailable")),
        "it may be signed with a key that could not be fetched"
    );
}

/// Whatever the issuer serves in place of its keys, the ones at hand stay in use.
#[tokio::test]
async fn a_key_set_that_is_none_leaves_the_last_good_one_in_use() {
    let canary = Echo::start(crate::harness::local())
        .await
        .expect("a canary");
    let world = eager().await;
    let errors = "gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"error\"}";
    let text =
        |status, body: &str| Fault::Status(status, "application/json".to_owned(), body.to_owned());
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(10 << 20));
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
        (
            "no usable key",
            text(
                200,
                "{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2VjcmV0\",\"kid\":\"1\"}]}",
            ),
        ),
        ("10 MiB", text(200, &huge)),
    ];
    for (number, (what, fault)) in faults.into_iter().enumerate() {
        world.auth.set_fault(Endpoint::Jwks, Some(fault));
        let failed = world.gateway.metric(errors).await;
        // Asks for a fetch.
        let refused = world
            .get("/grants/1")
            .bearer(&unknown_kid(&world, what))
            .send()
            .await;
        assert_eq!(refused.status, 503, "{what}: the keys at hand cannot tell");
        eventually(what, async || world.gateway.metric(errors).await > failed).await;
        let token = world.token_with(json!({ "jti": number }));
        assert_eq!(
            world.get("/grants/1").bearer(&token).send().await.status,
            200,
            "{what}"
        );
        assert_eq!(
            world.gateway.admin("GET", "/readyz").await.status,
            200,
            "{what}"
        );
        world.auth.set_fault(Endpoint::Jwks, None);
    }
    assert_eq!(canary.requests(), 0, "redirects are not followed");
}

/// One bad key does not take the others with it.
#[tokio::test]
async fn a_key_that_is_none_is_left_out() {
    let world = eager().await;
    let Value::Object(mut set) = world.auth.jwks() else {
        panic!("a key set")
    };
    let keys = set
        .get_mut("keys")
        .and_then(Value::as_array_mut)
        .expect("keys");
    keys.insert(
        0,
        json!({ "kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB" }),
    );
    keys.insert(0, json!("no key"));
    keys.push(json!({ "kty": "oct", "kid": "symmetric", "k": "c2VjcmV0" }));
    world.auth.set_jwks_document(Some(Value::Object(set)));
    let fetched = world.auth.counts().jwks;
    assert_eq!(
        world
            .get("/grants/1")
            .bearer(&unknown_kid(&world, "x"))
            .send()
            .await
            .status,
        401
    );
    assert_eq!(world.auth.counts().jwks, fetched + 1);
    assert_eq!(world.authorized("/grants/1").send().await.status, 200);
    assert_eq!(
        world
            .gateway
            .metric("gateway_jwks_keys{issuer=\"bonterra\"}")
            .await,
        2.0
    );
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
