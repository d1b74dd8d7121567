//! What is in Redis: digests, nothing that has run out, and whatever others put there.

use super::{another, order, refuses, revoked, status, with_store};
use crate::harness::{RedisServer, World, eventually};
use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use serde_json::json;
use std::time::Duration;

const ABOUT: &str = "bonterra-gateway:{revoked}:1:about";
const ORDER: &str = "bonterra-gateway:{revoked}:1:order";
const ENDS: &str = "bonterra-gateway:{revoked}:1:ends";
const VALUES: &str = "bonterra-gateway:{revoked}:1:values";

async fn ask<T: FromRedisValue>(connection: &MultiplexedConnection, command: &[&str]) -> T {
    let (name, arguments) = command.split_first().expect("a command");
    let mut connection = connection.clone();
    let mut command = redis::cmd(name);
    command.arg(arguments);
    command
        .query_async(&mut connection)
        .await
        .expect("an answer")
}

async fn size(connection: &MultiplexedConnection) -> [u32; 3] {
    [
        ask(connection, &["ZCARD", ORDER]).await,
        ask(connection, &["ZCARD", ENDS]).await,
        ask(connection, &["HLEN", VALUES]).await,
    ]
}

#[tokio::test]
async fn there_is_nothing_but_digests_and_times() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let connection = redis.connection().await;
    let monitor = RedisServer::connection(&redis).await;
    let token = world.token_with(json!({"sub": "CANARY-SUB", "jti": "CANARY-ID"}));
    for what in [
        json!({"token": token}),
        json!({"issuer": "bonterra", "jti": "CANARY-ID"}),
        json!({"issuer": "bonterra", "sub": "CANARY-SUB"}),
    ] {
        assert_eq!(order(&world.gateway, what).await.status, 200);
    }
    // Said again and again it takes no more room.
    for _ in 0..20 {
        let what = json!({"issuer": "bonterra", "sub": "CANARY-SUB"});
        assert_eq!(order(&world.gateway, what).await.status, 200);
        assert_eq!(revoked(&world.gateway, &token).await, true);
    }
    assert_eq!(size(&connection).await, [3; 3]);
    let keys: Vec<String> = ask(&connection, &["KEYS", "*"]).await;
    let ours = |key: &String| key.starts_with("bonterra-gateway:");
    assert!(keys.iter().all(ours), "{keys:?}");
    let mut all: Vec<String> = ask(&connection, &["HGETALL", VALUES]).await;
    all.extend(ask::<Vec<String>>(&monitor, &["HGETALL", ABOUT]).await);
    let text = all.join(" ");
    let plain = |c: char| c.is_ascii_alphanumeric() || " :-_".contains(c);
    assert!(text.chars().all(plain), "{text}");
    let parts = token.split('.').chain(["CANARY", "http", "bonterra"]);
    for part in parts {
        assert!(!text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn what_has_run_out_is_dropped() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let connection = redis.connection().await;
    assert_eq!(revoked(&world.gateway, &world.auth.token()).await, true);
    let now = bonterra_gateway::identity::unix_now();
    // As they are left by a gateway long ago; in one step, or they would count as damage.
    let mut plant = redis::pipe();
    plant.atomic();
    for number in 0..2500 {
        let (member, end) = (format!("t{number:043}"), now - 3600 - number % 5);
        plant.cmd("ZADD").arg(ORDER).arg(0).arg(&member);
        plant.cmd("ZADD").arg(ENDS).arg(end).arg(&member);
        plant
            .cmd("HSET")
            .arg(VALUES)
            .arg(&member)
            .arg(format!("{end}:"));
    }
    let mut own = connection.clone();
    plant.exec_async(&mut own).await.expect("planted");
    let generation: String = ask(&connection, &["HGET", ABOUT, "generation"]).await;
    eventually("only what is in force", || async {
        size(&connection).await == [1; 3]
    })
    .await;
    let after: String = ask(&connection, &["HGET", ABOUT, "generation"]).await;
    assert_eq!(after, generation, "by and by, not by beginning anew");
    // Nor does it come in like that.
    let long_gone = world.token_with(json!({"exp": now - 2 * 3600}));
    let reply = order(&world.gateway, json!({"token": long_gone})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(size(&connection).await, [1; 3]);
}

/// As if the clock of Redis were far ahead: what is in force by the gateway's is taken, and kept.
#[tokio::test]
async fn a_redis_whose_clock_is_ahead_forgets_nothing() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let gateway = &world.gateway;
    let connection = redis.connection().await;
    gateway.app.clock().set_back(Duration::from_secs(5 * 3600));
    let now = bonterra_gateway::identity::unix_now();
    let token = world.token_with(json!({"exp": now - 2 * 3600}));
    assert_eq!(revoked(gateway, &token).await, true);
    assert_eq!(size(&connection).await, [1; 3]);
    // Nor is it dropped the next time that it is looked through.
    assert_eq!(revoked(gateway, &world.auth.token()).await, true);
    assert_eq!(size(&connection).await, [2; 3]);
}

/// What a clock that ran ahead has made a gateway leave aside holds once that is set right.
#[tokio::test]
async fn a_clock_that_is_set_back_brings_back_what_it_had_run_out_by() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let other = another(&world).await;
    let ahead = Duration::from_secs(10 * 24 * 3600);
    other.app.clock().advance(ahead);
    let token = world.auth.token();
    assert_eq!(revoked(&world.gateway, &token).await, true);
    // Remembered for longer than that, and read after it.
    let what = json!({"issuer": "bonterra", "jti": "x"});
    assert_eq!(order(&world.gateway, what).await.status, 200);
    eventually("it has read both", || async {
        other.metric("gateway_revocations").await == 1.0
    })
    .await;
    other.app.clock().set_back(ahead);
    refuses(&other, &token).await;
}

#[tokio::test]
async fn what_makes_no_sense_is_left_aside_and_damage_is_mended() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "closed")).await;
    let other = another(&world).await;
    let connection = redis.connection().await;
    let token = world.auth.token();
    assert_eq!(revoked(&world.gateway, &token).await, true);
    refuses(&other, &token).await;
    let whole = async |what: &str| {
        eventually(what, || async {
            let kind: String = ask(&connection, &["TYPE", ORDER]).await;
            kind == "zset" && size(&connection).await[0] >= 1
        })
        .await;
        let next = world.auth.token();
        assert_eq!(revoked(&world.gateway, &next).await, true, "{what}");
        refuses(&other, &next).await;
        let third = another(&world).await;
        // It is made whole by those that run, who may have heard of the damage from this one.
        for token in [&token, &next] {
            refuses(&third, token).await;
        }
        assert_eq!(status(&third, &world.auth.token()).await, 200, "{what}");
    };
    // Entries that are none, behind those that are.
    let mut plant = redis::pipe();
    plant.atomic();
    for (at, (member, value)) in [
        ("", ""),
        ("x", "1:"),
        ("t\u{fffd}", "1:"),
        ("garbage", "99999999999999999999999:x"),
    ]
    .into_iter()
    .enumerate()
    {
        plant.cmd("ZADD").arg(ORDER).arg(at + 100).arg(member);
        plant.cmd("ZADD").arg(ENDS).arg("9000000000").arg(member);
        plant.cmd("HSET").arg(VALUES).arg(member).arg(value);
    }
    plant.cmd("HSET").arg(ABOUT).arg("last").arg(200);
    let mut own = connection.clone();
    plant.exec_async(&mut own).await.expect("planted");
    whole("entries that are none").await;
    // Keys that are gone, or not what they were.
    for (what, command) in [
        ("evicted", vec!["DEL", VALUES]),
        ("evicted too", vec!["DEL", ABOUT]),
        ("shorter", vec!["ZPOPMIN", ENDS]),
        ("no number", vec!["HSET", ABOUT, "last", "x"]),
        ("a number set back", vec!["HSET", ABOUT, "last", "0"]),
        ("a string", vec!["SET", ORDER, "x"]),
        ("another string", vec!["SET", ABOUT, "x"]),
    ] {
        let _: redis::Value = ask(&connection, &command).await;
        whole(what).await;
    }
}
