//! Keys follow tokens: what was issued through the gateway is known there before it is used.

use crate::harness::{CONFIG, Reply, World, assert_refused, eventually, with_lines};
use bonterra_gateway::demo::auth::{AuthOptions, Endpoint, Fault, KeyChoice};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];

/// Strangers cause one fetch an hour at most.
fn patient() -> String {
    CONFIG.replace("cooldown = \"1s\"", "cooldown = \"1h\"")
}

/// Keys that are fetched only for a reason.
fn lasting() -> AuthOptions {
    AuthOptions {
        jwks_cache_control: "max-age=3600".to_owned(),
        ..AuthOptions::default()
    }
}

async fn fetched(world: &World) -> String {
    token(&world.post("/oauth/token").form(&MACHINE).send().await)
}

fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    body["access_token"].as_str().expect("a token").to_owned()
}

async fn known(world: &World, result: &str) -> f64 {
    let series = format!("gateway_verified_token_cache_requests_total{{result=\"{result}\"}}");
    world.gateway.metric(&series).await
}

/// The issuer answers with this token from now on.
fn issue(world: &World, token: &str) {
    let body = json!({"access_token": token, "expires_in": 86400, "token_type": "Bearer"});
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let fault = Fault::Reply(200, headers, Bytes::from(body.to_string()));
    world.auth.set_fault(Endpoint::Token, Some(fault));
}

/// Claims like those of a good token, with some changed.
fn claims(world: &World, changes: &Value) -> Value {
    let mut claims = world.auth.claims();
    for (name, value) in changes.as_object().expect("an object") {
        claims[name] = value.clone();
    }
    claims
}

#[tokio::test]
async fn the_first_request_with_a_token_costs_no_signature_check() {
    let world = World::of(lasting(), &patient()).await;
    let token = fetched(&world).await;
    let text = world.gateway.admin("GET", "/metrics").await.text();
    let decided = |line: &&str| line.starts_with("gateway_auth_decisions_total{");
    let counted = text
        .lines()
        .filter(decided)
        .find(|line| !line.ends_with(" 0"));
    assert_eq!(counted, None);
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        (known(&world, "hit").await, known(&world, "miss").await),
        (1.0, 0.0)
    );
}

/// Twice: the next key is published ahead of its use.
#[tokio::test]
async fn a_token_brings_its_key_along() {
    let world = World::of(lasting(), &patient()).await;
    // Strangers have used up their fetch of this hour.
    let header = json!({"kid": "nobody's"});
    let strange = world
        .auth
        .mint_with(&header, &world.auth.claims(), &KeyChoice::Current);
    let reply = world.get("/grants/1").bearer(&strange).send().await;
    assert_refused(&world.gateway, &reply, 401, "unknown_key", "grants").await;
    let before = world.auth.counts().jwks;
    world.auth.rotate();
    world.auth.rotate();
    let token = fetched(&world).await;
    eventually("the keys are fetched", async || {
        world.auth.counts().jwks == before + 1
    })
    .await;
    // As long as the keys are on their way, requests are refused.
    eventually("the token is good", async || {
        let misses = known(&world, "miss").await;
        let hits = known(&world, "hit").await;
        let reply = world.get("/grants/1").bearer(&token).send().await;
        let good = reply.status == 200;
        if good {
            assert_eq!(known(&world, "hit").await, hits + 1.0);
            let after = known(&world, "miss").await;
            assert_eq!(after, misses, "never looked into on a request");
        }
        good
    })
    .await;
    assert_eq!(world.auth.counts().jwks, before + 1, "and no second fetch");
}

/// A key that is never published costs a fetch a second, not one a token.
#[tokio::test]
async fn a_key_that_never_comes_is_not_asked_for_without_end() {
    let world = World::of(lasting(), &patient()).await;
    let (start, before) = (Instant::now(), world.auth.counts().jwks);
    for number in 0..30 {
        let claims = claims(&world, &json!({"jti": number.to_string()}));
        issue(
            &world,
            &world
                .auth
                .mint_with(&Value::Null, &claims, &KeyChoice::Unpublished),
        );
        fetched(&world).await;
    }
    eventually("the keys are fetched", async || {
        world.auth.counts().jwks > before
    })
    .await;
    // Long enough for as many fetches as tokens, if there were nothing between them.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let fetches = world.auth.counts().jwks - before;
    let longest = start.elapsed().as_secs() + 1;
    assert!(fetches <= longest, "{fetches} in {longest} seconds");
    // What is known stays known meanwhile.
    world.auth.set_fault(Endpoint::Token, None);
    let reply = world.authorized("/grants/1").send().await;
    assert_eq!(reply.status, 200);
}

/// Clients fetch tokens for other APIs as well: nothing comes of them, neither good nor bad.
#[tokio::test]
async fn tokens_for_others_leave_no_trace() {
    let world = World::of(lasting(), &patient()).await;
    let before = world.auth.counts().jwks;
    for (changes, reason) in [
        (json!({"aud": "https://other.example"}), "wrong_audience"),
        (json!({"exp": 1}), "expired"),
        (json!({"iss": "https://other.example/"}), "wrong_issuer"),
    ] {
        let misses = known(&world, "miss").await;
        let foreign = world.auth.mint(&claims(&world, &changes));
        issue(&world, &foreign);
        assert_eq!(fetched(&world).await, foreign);
        assert_eq!(known(&world, "miss").await, misses, "{reason}");
        let reply = world.get("/grants/1").bearer(&foreign).send().await;
        assert_refused(&world.gateway, &reply, 401, reason, "grants").await;
        assert_eq!(known(&world, "miss").await, misses + 1.0, "{reason}");
        assert_eq!(known(&world, "refused").await, 0.0, "{reason}");
    }
    for strange in ["opaque", "a.b.c", ""] {
        issue(&world, strange);
        assert_eq!(fetched(&world).await, strange);
    }
    assert_eq!(world.auth.counts().jwks, before);
    assert!(world.echo.seen().is_empty());
}

#[tokio::test]
async fn a_token_that_is_given_again_is_not_looked_at_again() {
    let config = format!("{}\n[oauth.bonterra.cache]\nenabled = true\n", patient());
    let world = World::of(lasting(), &config).await;
    let claims = claims(&world, &json!({"jti": "x"}));
    issue(
        &world,
        &world
            .auth
            .mint_with(&Value::Null, &claims, &KeyChoice::Unpublished),
    );
    let before = world.auth.counts().jwks;
    fetched(&world).await;
    eventually("the keys are fetched", async || {
        world.auth.counts().jwks == before + 1
    })
    .await;
    for _ in 0..20 {
        fetched(&world).await;
    }
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(world.auth.counts().jwks, before + 1);
}

#[tokio::test]
async fn an_issuer_of_opaque_tokens_is_asked_nothing() {
    let lines = "opaque = true\nclient_id = \"demo-client\"\nclient_secret = \"demo-secret\"";
    let keys = "[issuer.bonterra.jwks]\ncooldown = \"1s\"\nmin_ttl = \"1s\"\n";
    let config = CONFIG.replace(keys, "");
    let world = World::with(&with_lines(&config, "[issuer.bonterra]", lines)).await;
    fetched(&world).await;
    let counts = world.auth.counts();
    assert_eq!((counts.jwks, counts.introspect), (0, 0));
}
