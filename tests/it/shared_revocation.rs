//! Revocations with a `[store]`: what one gateway revokes all refuse, whatever becomes of gateways and of
//! Redis.

mod configuration;
mod contents;
mod outage;

use crate::harness::{CONFIG, Gateway, RedisServer, Reply, World, request, within};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// What the issue asks for.
const SOON: Duration = Duration::from_secs(1);

/// A file with a store. Time enough for Redis on a machine that has much else to do.
fn with_store(redis: SocketAddr, on_failure: &str) -> String {
    let url = format!("redis://{redis}");
    format!("{CONFIG}\n[store]\nurl = \"{url}\"\ntimeout = \"2s\"\non_failure = \"{on_failure}\"\n")
}

/// Another gateway with the same file, ready.
async fn another(world: &World) -> Gateway {
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let gateway = Gateway::start(&file).await;
    within("ready", gateway.app.ready()).await;
    gateway
}

async fn order(gateway: &Gateway, order: Value) -> Reply {
    let request = request(gateway.admin, "POST", "/-/revoke");
    request.json(&order).send().await
}

/// Has a token revoked, and says whether by all gateways.
async fn revoked(gateway: &Gateway, token: &str) -> Value {
    let reply = order(gateway, json!({"token": token})).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["shared"].clone()
}

async fn asks(gateway: &Gateway, token: &str) -> Reply {
    let request = request(gateway.address, "GET", "/grants/1");
    request.bearer(token).send().await
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    asks(gateway, token).await.status
}

/// Waits until a gateway refuses this token as revoked, and says how long that took.
async fn refuses(gateway: &Gateway, token: &str) -> Duration {
    let begun = Instant::now();
    crate::harness::eventually("the token is refused", || async {
        let reply = asks(gateway, token).await;
        let refused = reply.status == 401;
        assert!(
            !refused || reply.json()["reason"] == "revoked",
            "{}",
            reply.text()
        );
        refused
    })
    .await;
    begun.elapsed()
}

#[tokio::test]
async fn what_one_gateway_revokes_all_refuse_within_a_second() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let one = &world.gateway;
    let other = another(&world).await;
    let now = bonterra_gateway::identity::unix_now();
    let token = |name: &str| world.token_with(json!({"sub": name, "jti": name, "iat": now - 5}));
    let tokens = [token("a"), token("b"), token("c")];
    let orders = [
        json!({"token": tokens[0]}),
        json!({"issuer": "bonterra", "jti": "b"}),
        json!({"issuer": "bonterra", "sub": "c", "issued_until": now - 3}),
    ];
    let mut fastest = Duration::MAX;
    for (token, what) in tokens.iter().zip(orders) {
        for gateway in [one, &other] {
            assert_eq!(status(gateway, token).await, 200);
        }
        let reply = order(one, what.clone()).await;
        assert_eq!((reply.status, &reply.json()["shared"]), (200, &json!(true)));
        assert_eq!(
            status(one, token).await,
            401,
            "at once where it was ordered"
        );
        fastest = fastest.min(refuses(&other, token).await);
        let seen = world.echo.requests();
        assert_eq!(status(&other, token).await, 401);
        assert_eq!(world.echo.requests(), seen);
    }
    // Each comes a whole turn after the one before. One may be held up by what else the machine does.
    assert!(fastest < SOON, "{fastest:?}");
    // Nothing else is: a newer token of the same subject, and one of somebody else.
    let newer = world.token_with(json!({"sub": "c", "jti": "d", "iat": now - 1}));
    assert_eq!(status(&other, &newer).await, 200);
    assert_eq!(status(&other, &world.auth.token()).await, 200);
    // Who comes later knows from the first request on.
    let third = another(&world).await;
    for token in &tokens {
        assert_eq!(status(&third, token).await, 401);
    }
    assert_eq!(status(&third, &newer).await, 200);
    for gateway in [one, &other, &third] {
        assert_eq!(gateway.metric("gateway_revocations").await, 3.0);
        let last = "gateway_revocations_last_sync_timestamp_seconds";
        assert!(gateway.metric(last).await >= now as f64);
    }
    // Both ways, and a third time is as good as once.
    let back = world.auth.token();
    for _ in 0..3 {
        assert_eq!(revoked(&third, &back).await, true);
    }
    refuses(one, &back).await;
}

#[tokio::test]
async fn a_revocation_outlives_all_gateways() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let token = world.auth.token();
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    assert_eq!(revoked(&world.gateway, &token).await, true);
    world.gateway.app.end().await;
    for _ in 0..2 {
        let gateway = Gateway::start(&file).await;
        within("ready", gateway.app.ready()).await;
        assert_eq!(status(&gateway, &token).await, 401);
        assert_eq!(status(&gateway, &world.auth.token()).await, 200);
        gateway.app.end().await;
    }
}

/// What is given again is forgotten by every gateway, or clients would get a dead token until its end.
#[tokio::test]
async fn a_token_that_another_gateway_has_revoked_is_not_given_again() {
    let redis = RedisServer::start(&[]).await;
    let reuse = "\n[oauth.bonterra.cache]\nenabled = true\n";
    let world = World::with(&(with_store(redis.address, "open") + reuse)).await;
    let other = another(&world).await;
    let bought = async || {
        let machine = [
            ("grant_type", "client_credentials"),
            ("client_id", "demo-client"),
            ("client_secret", "demo-secret"),
        ];
        let request = request(other.address, "POST", "/oauth/token");
        let reply = request.form(&machine).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["access_token"].clone()
    };
    let first = bought().await;
    assert_eq!(bought().await, first, "it is given again");
    let token = first.as_str().expect("a token");
    assert_eq!(revoked(&world.gateway, token).await, true);
    crate::harness::eventually("another token", || async { bought().await != first }).await;
    refuses(&other, token).await;
    let fresh = bought().await;
    assert_eq!(status(&other, fresh.as_str().expect("a token")).await, 200);
}
