//! While Redis is away, and when it is back, empty.

use super::{another, asks, order, refuses, revoked, status, with_store};
use crate::harness::program::GatewayProcess;
use crate::harness::{
    CONFIG, Gateway, RedisServer, World, assert_refused, eventually, nobody, request, within,
};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Waits until a gateway says of the store what its page of readiness shows.
async fn says(gateway: &Gateway, what: &str) {
    eventually(what, || async {
        let text = gateway.admin("GET", "/readyz?verbose").await.text();
        text.contains(&format!("shared store: {what}"))
    })
    .await;
}

const SHARED: &str = "revocations are shared";
const AWAY: &str = "away: revocations are not shared";

#[tokio::test]
async fn open_goes_on_and_makes_up_for_it_afterwards() {
    let mut redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let (one, other) = (&world.gateway, another(&world).await);
    let (before, meanwhile) = (world.auth.token(), world.auth.token());
    assert_eq!(revoked(one, &before).await, true);
    refuses(&other, &before).await;

    redis.kill();
    says(&other, AWAY).await;
    says(one, AWAY).await;
    for gateway in [one, &other] {
        assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
        assert_eq!(status(gateway, &before).await, 401);
        assert_eq!(status(gateway, &meanwhile).await, 200);
    }
    assert_eq!(revoked(one, &meanwhile).await, false);
    assert_eq!(status(one, &meanwhile).await, 401);
    assert_eq!(status(&other, &meanwhile).await, 200);

    // It comes back with nothing, and has everything again.
    redis.again().await;
    refuses(&other, &meanwhile).await;
    says(one, SHARED).await;
    let third = another(&world).await;
    for token in [&before, &meanwhile] {
        refuses(&third, token).await;
    }
    assert_eq!(status(&third, &world.auth.token()).await, 200);
}

#[tokio::test]
async fn closed_lets_no_token_through_until_it_is_back() {
    let mut redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "closed")).await;
    let (one, other) = (&world.gateway, another(&world).await);
    let (before, meanwhile, good) = (world.auth.token(), world.auth.token(), world.auth.token());
    assert_eq!(revoked(one, &before).await, true);
    refuses(&other, &before).await;
    assert_eq!(status(&other, &good).await, 200);

    redis.kill();
    eventually("tokens are refused", || async {
        status(&other, &good).await == 503 && status(one, &good).await == 503
    })
    .await;
    let seen = world.echo.requests();
    // One that was seen before, and one that is new.
    for token in [&good, &world.auth.token()] {
        let reply = asks(&other, token).await;
        assert_refused(&other, &reply, 503, "store_unavailable", "grants").await;
        assert_eq!(reply.header("retry-after"), Some("1"));
        assert_eq!(reply.header("www-authenticate"), None);
    }
    // What is known is known, and what is no good is none.
    let reply = asks(&other, &before).await;
    assert_refused(&other, &reply, 401, "revoked", "grants").await;
    let expired = world.token_with(json!({"exp": 1_000}));
    let reply = asks(&other, &expired).await;
    assert_refused(&other, &reply, 401, "expired", "grants").await;
    assert_eq!(world.echo.requests(), seen);
    // One for another API, which only its issuer can judge, may have been revoked by its content.
    let foreign = world.token_with(json!({"aud": "https://other.example"}));
    for token in [&good, &foreign] {
        let user = request(other.address, "GET", "/oauth/userinfo");
        let reply = user.bearer(token).send().await;
        assert_eq!(reply.status, 503, "{}", reply.text());
    }
    assert_eq!(world.auth.counts().userinfo, 0);
    // Without a token there is nothing to know.
    for path in ["/public/1", "/optional/1"] {
        let reply = request(other.address, "GET", path).send().await;
        assert_eq!(reply.status, 200, "{path}");
    }
    says(&other, AWAY).await;
    assert_eq!(other.admin("GET", "/readyz").await.status, 200);

    let reply = order(one, json!({"token": meanwhile})).await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(reply.header("retry-after"), Some("1"));
    assert!(
        reply.text().contains("this gateway alone"),
        "{}",
        reply.text()
    );
    assert_eq!(status(one, &meanwhile).await, 401, "it holds all the same");

    redis.again().await;
    eventually("tokens pass", || async {
        status(&other, &good).await == 200 && status(one, &good).await == 200
    })
    .await;
    refuses(&other, &meanwhile).await;
    let third = another(&world).await;
    for token in [&before, &meanwhile] {
        refuses(&third, token).await;
    }
}

#[tokio::test]
async fn closed_is_not_ready_before_it_knows_what_is_revoked() {
    let mut redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "closed")).await;
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let token = world.auth.token();
    redis.kill();
    let late = Gateway::start(&file).await;
    eventually("its keys", || async {
        let text = late.admin("GET", "/readyz?verbose").await.text();
        text.contains("[+] issuer")
    })
    .await;
    let ready = late.admin("GET", "/readyz?verbose").await;
    let text = ready.text();
    assert_eq!(ready.status, 503, "{text}");
    assert!(
        text.starts_with("not ready: revocations have not been loaded"),
        "{text}"
    );
    assert!(text.contains("[-] shared store: away"), "{text}");
    let reply = asks(&late, &token).await;
    assert_refused(&late, &reply, 503, "store_unavailable", "grants").await;
    let public = request(late.address, "GET", "/public/1").send().await;
    assert_eq!(public.status, 200);
    // With "open" that is no reason not to serve.
    let open = Gateway::start(&file.replace("\"closed\"", "\"open\"")).await;
    within("ready", open.app.ready()).await;
    assert_eq!(status(&open, &token).await, 200);

    redis.again().await;
    within("ready", late.app.ready()).await;
    says(&late, SHARED).await;
    assert_eq!(status(&late, &token).await, 200);
}

/// A Redis that takes connections and never answers.
#[tokio::test]
async fn a_redis_that_hangs_holds_up_an_order_for_the_timeout_and_no_request() {
    let redis = RedisServer::start(&[]).await;
    let config = with_store(redis.address, "open").replace("\"2s\"", "\"300ms\"");
    let world = World::with(&config).await;
    let (one, other) = (&world.gateway, another(&world).await);
    let [first, second] = [world.auth.token(), world.auth.token()];
    assert_eq!(status(&other, &first).await, 200);
    redis.signal("STOP").await;
    let begun = Instant::now();
    assert_eq!(revoked(one, &first).await, false);
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(250), "it was asked: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    says(one, AWAY).await;
    let begun = Instant::now();
    assert_eq!(revoked(one, &second).await, false);
    for _ in 0..50 {
        assert_eq!(status(one, &first).await, 401);
        assert_eq!(status(&other, &first).await, 200);
    }
    let took = begun.elapsed();
    // If each waited, that would be half a minute.
    assert!(took < Duration::from_secs(15), "{took:?}");
    redis.signal("CONT").await;
    refuses(&other, &first).await;
    refuses(&other, &second).await;
    says(one, SHARED).await;
}

/// A Redis that answers and may not write is no place to keep anything.
#[tokio::test]
async fn what_redis_does_not_take_is_not_acknowledged_as_shared() {
    let redis = RedisServer::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let token = world.auth.token();
    assert_eq!(revoked(&world.gateway, &token).await, false);
    assert_eq!(status(&world.gateway, &token).await, 401);
    let mut connection = redis.connection().await;
    let set: String = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "0"])
        .query_async(&mut connection)
        .await
        .expect("set");
    assert_eq!(set, "OK");
    let other = another(&world).await;
    refuses(&other, &token).await;
    // Full while it is in use.
    let next = world.auth.token();
    says(&world.gateway, SHARED).await;
    let full: String = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "1"])
        .query_async(&mut connection)
        .await
        .expect("set");
    assert_eq!(full, "OK");
    assert_eq!(revoked(&world.gateway, &next).await, false);
    let set: String = redis::cmd("CONFIG")
        .arg(&["SET", "maxmemory", "0"])
        .query_async(&mut connection)
        .await
        .expect("set");
    assert_eq!(set, "OK");
    refuses(&other, &next).await;
}

async fn flush(redis: &RedisServer) {
    let mut connection = redis.connection().await;
    let flushed: String = redis::cmd("FLUSHALL")
        .query_async(&mut connection)
        .await
        .expect("flushed");
    assert_eq!(flushed, "OK");
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_filled_again() {
    let redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let issuer = "bonterra";
    // More than go in one exchange.
    for number in 0..600 {
        let what = json!({"issuer": issuer, "jti": number.to_string()});
        assert_eq!(order(&world.gateway, what).await.status, 200);
    }
    let token = world.auth.token();
    assert_eq!(revoked(&world.gateway, &token).await, true);
    flush(&redis).await;
    let values = "bonterra-gateway:{revoked}:1:values";
    let connection = redis.connection().await;
    eventually("all of them", || {
        let mut connection = connection.clone();
        async move {
            let count: u32 = redis::cmd("HLEN")
                .arg(values)
                .query_async(&mut connection)
                .await
                .expect("a number");
            count == 601
        }
    })
    .await;
    let other = another(&world).await;
    assert_eq!(status(&other, &token).await, 401);
    let last = world.token_with(json!({"jti": "599"}));
    assert_eq!(status(&other, &last).await, 401);
    assert_eq!(other.metric("gateway_revocations").await, 601.0);
}

async fn say(redis: &RedisServer, command: &[&str]) -> redis::Value {
    let (name, arguments) = command.split_first().expect("a command");
    let mut connection = redis.connection().await;
    let mut command = redis::cmd(name);
    let asked = command.arg(arguments).query_async(&mut connection).await;
    asked.expect("an answer")
}

/// As after a failover: the replica lacks the last that was written, and somebody has written something
/// else there, so that the numbers are the same again.
#[tokio::test]
async fn a_redis_that_comes_back_with_an_older_copy_hides_nothing() {
    const KEY: &str = "bonterra-gateway:{revoked}:1:";
    let mut redis = RedisServer::start(&[]).await;
    let world = World::with(&with_store(redis.address, "open")).await;
    let (one, other) = (&world.gateway, another(&world).await);
    let [before, lost, new] = [0; 3].map(|_| world.auth.token());
    // How it is written is seen in a Redis of its own.
    let spare = RedisServer::start(&[]).await;
    let file = std::fs::read_to_string(one.file()).expect("the file");
    let [here, there] = [&redis, &spare].map(|redis| redis.address.to_string());
    let stranger = Gateway::start(&file.replace(&here, &there)).await;
    assert_eq!(revoked(&stranger, &new).await, true);
    let written = say(&spare, &["HGETALL", &format!("{KEY}values")]).await;
    let [member, value]: [String; 2] = {
        let pair: Vec<String> = redis::from_redis_value(written).expect("text");
        pair.try_into().expect("one entry")
    };

    assert_eq!(revoked(one, &before).await, true);
    say(&redis, &["SAVE"]).await;
    assert_eq!(revoked(one, &lost).await, true);
    refuses(&other, &lost).await;
    redis.kill();
    redis.again().await;
    let end = value.trim_end_matches(':');
    let mut connection = redis.connection().await;
    let mut plant = redis::pipe();
    plant.atomic();
    plant
        .cmd("ZADD")
        .arg(format!("{KEY}order"))
        .arg(2)
        .arg(&member);
    plant
        .cmd("ZADD")
        .arg(format!("{KEY}ends"))
        .arg(end)
        .arg(&member);
    plant
        .cmd("HSET")
        .arg(format!("{KEY}values"))
        .arg(&member)
        .arg(&value);
    plant
        .cmd("HSET")
        .arg(format!("{KEY}about"))
        .arg("last")
        .arg(2);
    plant.exec_async(&mut connection).await.expect("planted");
    for gateway in [one, &other] {
        refuses(gateway, &new).await;
    }
    let third = another(&world).await;
    for token in [&before, &lost, &new] {
        refuses(&third, token).await;
    }
}

async fn metric(admin: SocketAddr, series: &str) -> Option<f64> {
    let text = request(admin, "GET", "/metrics").send().await.text();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[tokio::test]
async fn the_log_says_once_that_it_is_lost_and_once_that_it_is_found() {
    let mut redis = RedisServer::start(&[]).await;
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let config = with_store(redis.address, "closed")
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", "http://127.0.0.1:1");
    let gateway = GatewayProcess::start(&config).await;
    let (shared, lost) = ("revocations are shared", "revocations are not shared");
    gateway.logged(shared).await;
    let said = |what: &str| {
        let events = gateway.running.stderr.records();
        let is_it = |event: &&serde_json::Value| {
            let message = event["message"].as_str().unwrap_or_default();
            message.starts_with(what)
        };
        events.iter().filter(is_it).count()
    };
    redis.kill();
    let event = gateway.logged(lost).await;
    assert_eq!(event["redis"], json!(redis.address.to_string()), "{event}");
    assert!(
        event["message"].as_str().expect("text").contains("503"),
        "{event}"
    );
    // Meanwhile it goes on trying.
    let failed = "gateway_store_requests_total{operation=\"revocation\",result=\"error\"}";
    let before = metric(gateway.admin, failed).await.expect("some");
    eventually("more failures", || async {
        metric(gateway.admin, failed).await > Some(before + 5.0)
    })
    .await;
    assert_eq!(said(lost), 1, "{}", gateway.running.stderr.text());
    redis.again().await;
    eventually("it is found", || std::future::ready(said(shared) == 2)).await;
    assert_eq!(said(lost), 1);
    eventually("it is up", || async {
        metric(gateway.admin, "gateway_store_up").await == Some(1.0)
    })
    .await;
}

#[tokio::test]
async fn without_a_store_nothing_is_said_of_one() {
    let world = World::with(CONFIG).await;
    let reply = order(&world.gateway, json!({"token": world.auth.token()})).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json().get("shared"), None);
    let ready = world.gateway.admin("GET", "/readyz?verbose").await.text();
    assert!(!ready.contains("store"), "{ready}");
    let metrics = world.gateway.admin("GET", "/metrics").await.text();
    assert!(!metrics.contains("gateway_revocations_last_sync"));
    assert!(metrics.contains("\ngateway_revocations 1\n"));
    // Nor is anybody waited for who is not there.
    let gateway = Gateway::start(
        &with_store(nobody(), "open")
            .replace("ISSUER", world.auth.issuer())
            .replace("ECHO", &world.echo.url()),
    )
    .await;
    within("ready", gateway.app.ready()).await;
    says(&gateway, "away: revocations have not been loaded").await;
}
