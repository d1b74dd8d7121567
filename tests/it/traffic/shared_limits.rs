//! `rate_limit` with a `[store]`: several gateways count together, and each for itself while Redis is
//! away.

use super::on_route;
use crate::harness::program::{GatewayProcess, Running, call, program};
use crate::harness::{Gateway, RedisServer, World, eventually, nobody, request};
use serde_json::json;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LIMIT: &str = r#"rate_limit = { rate = "1/h", burst = 10 }"#;

/// Enough for any test, so that only Redis can hold a request up.
const PLENTY: &str = r#"rate_limit = { rate = "1000000/s", burst = 1000000 }"#;

fn with_store(config: &str, url: &str) -> String {
    format!("{config}\n[store]\nurl = \"{url}\"\ntimeout = \"2s\"\n")
}

async fn up(admin: SocketAddr) -> Option<String> {
    let text = request(admin, "GET", "/metrics").send().await.text();
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("gateway_store_up ").map(str::to_owned))
}

async fn becomes(admin: SocketAddr, state: &str) {
    eventually("the state of the store", || async {
        up(admin).await.as_deref() == Some(state)
    })
    .await;
}

async fn status(gateway: SocketAddr) -> u16 {
    request(gateway, "GET", "/public/x").send().await.status
}

#[tokio::test]
async fn two_gateways_share_a_limit() {
    let redis = RedisServer::start(&[]).await;
    let config = with_store(
        &on_route("public", LIMIT).replace(
            "name = \"optional\"",
            "name = \"optional\"\nrate_limit = { rate = \"1/h\", burst = 10, by = \"subject\" }",
        ),
        &format!("redis://{}", redis.address),
    );
    let world = World::with(&config).await;
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let other = Gateway::start(&file).await;
    other.app.ready().await;
    for gateway in [&world.gateway, &other] {
        becomes(gateway.admin, "1").await;
    }
    let gateways = [world.gateway.address, other.address];
    for (at, gateway) in gateways.iter().cycle().take(10).enumerate() {
        let reply = request(*gateway, "GET", "/public/x").send().await;
        assert_eq!(reply.status, 200, "{at}");
        let left = format!("\"public\";r={};t={}", 9 - at, 3600 * (at + 1));
        assert_eq!(reply.header("ratelimit"), Some(left.as_str()));
    }
    for gateway in gateways {
        let reply = request(gateway, "GET", "/public/x").send().await;
        assert_eq!(reply.status, 429);
        let wait: u32 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((3590..=3600).contains(&wait), "{wait}");
    }
    // Somebody else is not affected, and Redis does not learn who anybody is.
    let token = world.token_with(json!({"sub": "auth0|someone\r\nFLUSHALL"}));
    let reply = world.get("/optional/x").bearer(&token).send().await;
    assert_eq!(reply.status, 200);
    let mut connection = redis.connection().await;
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("bonterra-gateway:rate:*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    assert_eq!(keys.len(), 2, "{keys:?}");
    for key in keys {
        let name = key.strip_prefix("bonterra-gateway:rate:1:").expect("ours");
        assert!(name.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
        let left: i64 = redis::cmd("PTTL")
            .arg(&key)
            .query_async(&mut connection)
            .await
            .expect("a time to live");
        assert!((1..=36_000_010).contains(&left), "{key}: {left}");
    }
    let series = "gateway_store_requests_total{operation=\"rate_limit\",result=\"ok\"}";
    assert!(world.gateway.metric(series).await >= 6.0);
}

#[tokio::test]
async fn many_at_once_get_no_more_than_the_burst_of_all() {
    let redis = RedisServer::start(&[]).await;
    let limit = r#"rate_limit = { rate = "1/h", burst = 100 }"#;
    let url = format!("redis://{}", redis.address);
    let config = with_store(&on_route("public", limit), &url).replace("\"2s\"", "\"20s\"");
    let world = World::with(&config).await;
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let other = Gateway::start(&file).await;
    for gateway in [&world.gateway, &other] {
        becomes(gateway.admin, "1").await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..20 {
        let gateway = [world.gateway.address, other.address][at % 2];
        tasks.spawn(async move {
            let mut admitted = 0;
            for _ in 0..20 {
                admitted += u32::from(status(gateway).await == 200);
            }
            admitted
        });
    }
    let admitted: u32 = tasks.join_all().await.into_iter().sum();
    assert_eq!(admitted, 100);
}

#[tokio::test]
async fn what_is_used_up_comes_back_at_the_rate() {
    let redis = RedisServer::start(&[]).await;
    let limit = r#"rate_limit = { rate = "5/s", burst = 2 }"#;
    let url = format!("redis://{}", redis.address);
    let world = World::with(&with_store(&on_route("public", limit), &url)).await;
    becomes(world.gateway.admin, "1").await;
    let begun = Instant::now();
    let mut admitted = 0_u32;
    while begun.elapsed() < Duration::from_secs(2) {
        admitted += u32::from(status(world.gateway.address).await == 200);
    }
    let most = 2 + (begun.elapsed().as_secs_f64() * 5.0).ceil() as u32;
    assert!((8..=most).contains(&admitted), "{admitted} of {most}");
    // Nothing is left behind: the key goes when there is nothing to remember.
    let mut connection = redis.connection().await;
    eventually("the keys are gone", || {
        let mut connection = connection.clone();
        async move {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("bonterra-gateway:rate:*")
                .query_async(&mut connection)
                .await
                .expect("keys");
            keys.is_empty()
        }
    })
    .await;
    // A clock that was set back, as by a change of the server, locks nobody out.
    assert_eq!(status(world.gateway.address).await, 200);
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("bonterra-gateway:rate:*")
        .query_async(&mut connection)
        .await
        .expect("keys");
    let ahead = "999999999999999";
    let set: String = redis::cmd("SET")
        .arg(&keys[0])
        .arg(ahead)
        .query_async(&mut connection)
        .await
        .expect("set");
    assert_eq!(set, "OK");
    let reply = request(world.gateway.address, "GET", "/public/x")
        .send()
        .await;
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("retry-after"), Some("1"));
}

/// A gateway as a process: its log of events is looked at.
async fn outage(how: &str) {
    let mut redis = RedisServer::start(&[]).await;
    let echo = World::start().await;
    let config = on_route("public", PLENTY)
        .replace("ISSUER", echo.auth.issuer())
        .replace("ECHO", &echo.echo.url());
    let config = with_store(&config, &format!("redis://{}", redis.address));
    let gateway = GatewayProcess::start(&config.replace("\"2s\"", "\"50ms\"")).await;
    becomes(gateway.admin, "1").await;
    assert_eq!(status(gateway.address).await, 200);
    match how {
        "killed" => redis.kill(),
        how => redis.signal(how).await,
    }
    let begun = Instant::now();
    for _ in 0..200 {
        assert_eq!(status(gateway.address).await, 200);
    }
    // Waiting for the timeout each time would take ten seconds.
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    becomes(gateway.admin, "0").await;
    gateway.logged("the shared store does not answer").await;
    match how {
        "killed" => redis.again().await,
        _ => redis.signal("CONT").await,
    }
    becomes(gateway.admin, "1").await;
    gateway.logged("the shared store answers again").await;
    let lost = || {
        let events = gateway.running.stderr.records();
        let is_loss = |event: &&serde_json::Value| {
            let message = event["message"].as_str().unwrap_or_default();
            message.starts_with("the shared store does not answer")
        };
        events.iter().filter(is_loss).count()
    };
    assert_eq!(lost(), 1, "{}", gateway.running.stderr.text());
    // It is counted there again.
    let mut connection = redis.connection().await;
    let flushed: String = redis::cmd("FLUSHALL")
        .query_async(&mut connection)
        .await
        .expect("flushed");
    assert_eq!(flushed, "OK");
    eventually("shared again", || async {
        assert_eq!(status(gateway.address).await, 200);
        let text = request(gateway.admin, "GET", "/metrics")
            .send()
            .await
            .text();
        let answered = "gateway_store_requests_total{operation=\"rate_limit\",result=\"ok\"} ";
        let count = text.lines().find_map(|line| line.strip_prefix(answered));
        count.and_then(|count| count.parse::<u32>().ok()) > Some(1)
    })
    .await;
}

#[tokio::test]
async fn without_redis_requests_go_on_and_are_counted_locally() {
    outage("killed").await;
}

#[tokio::test]
async fn a_redis_that_hangs_holds_up_no_more_than_one_timeout() {
    outage("STOP").await;
}

#[tokio::test]
async fn a_redis_that_may_not_write_is_as_good_as_none() {
    let redis = RedisServer::start(&["--maxmemory", "1", "--maxmemory-policy", "noeviction"]).await;
    let config = with_store(
        &on_route("public", LIMIT),
        &format!("redis://{}", redis.address),
    );
    let world = World::with(&config).await;
    becomes(world.gateway.admin, "0").await;
    for expected in [200; 10].into_iter().chain([429]) {
        assert_eq!(status(world.gateway.address).await, expected);
    }
    assert_eq!(up(world.gateway.admin).await.as_deref(), Some("0"));
}

#[tokio::test]
async fn each_gateway_counts_for_itself_while_redis_is_away() {
    let config = with_store(&on_route("public", LIMIT), &format!("redis://{}", nobody()));
    let world = World::with(&config).await;
    becomes(world.gateway.admin, "0").await;
    for _ in 0..10 {
        assert_eq!(status(world.gateway.address).await, 200);
    }
    assert_eq!(status(world.gateway.address).await, 429);
}

#[tokio::test]
async fn a_reload_changes_the_store() {
    let redis = RedisServer::start(&[]).await;
    let config = on_route("public", PLENTY);
    let world = World::with(&config).await;
    assert_eq!(up(world.gateway.admin).await, None);
    let file = world.gateway.file();
    let running = std::fs::read_to_string(&file).expect("the file");
    let url = format!("redis://:hunter2@{}", redis.address);
    std::fs::write(&file, with_store(&running, &url)).expect("written");
    let reload = async || {
        let report = world.gateway.app.reloader.reload("test").await;
        report.expect("reloaded")
    };
    let report = reload().await;
    assert!(!format!("{report:?}").contains("hunter2"), "{report:?}");
    assert!(
        report.changes.iter().any(|line| line.contains("store.url")),
        "{report:?}"
    );
    // There is no password: this Redis says no to any.
    becomes(world.gateway.admin, "0").await;
    std::fs::write(&file, with_store(&running, &url.replace(":hunter2@", ""))).expect("written");
    reload().await;
    becomes(world.gateway.admin, "1").await;
    std::fs::write(&file, &running).expect("written");
    reload().await;
    eventually("no store", || async {
        up(world.gateway.admin).await.is_none()
    })
    .await;
    assert_eq!(status(world.gateway.address).await, 200);
}

#[tokio::test]
async fn the_password_is_used_and_never_shown() {
    let redis = RedisServer::start(&["--requirepass", "hun/ter2"]).await;
    let config = on_route("public", PLENTY)
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:1");
    for (password, state) in [("hun%2Fter2", "1"), ("hunter3", "0")] {
        let url = format!("redis://:{password}@{}", redis.address);
        let gateway = GatewayProcess::start(&with_store(&config, &url)).await;
        becomes(gateway.admin, state).await;
        let shown = call(
            gateway.file().parent().expect("a folder"),
            &["config", "show"],
        )
        .await;
        assert!(
            shown.stdout.contains("url = \"********\""),
            "{}",
            shown.stdout
        );
        for text in [
            shown.stdout,
            gateway.running.stdout.text(),
            gateway.running.stderr.text(),
        ] {
            assert!(!text.contains("hun"), "{text}");
        }
    }
    // Nor where the file is wrong.
    let folder = tempfile::tempdir().expect("a folder");
    for url in [
        "http://:hunter2@x",
        "redis://:hun/ter2@x:1/0",
        "me:hunter2@x",
    ] {
        let text = with_store(&config, url);
        std::fs::write(folder.path().join("gateway.toml"), text).expect("written");
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(said.code, Some(2), "{}", said.stdout);
        let text = said.stdout + &said.stderr;
        assert!(!text.contains("hun"), "{text}");
    }
}

#[tokio::test]
async fn redis_over_tls() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("made");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let certificate = write("cert.pem", made.cert.pem());
    let key = write("key.pem", made.signing_key.serialize_pem());
    let redis = RedisServer::start(&[
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let (listen, admin) = (nobody(), nobody());
    let config = on_route("public", PLENTY)
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:1")
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            &format!("listen = [\"{listen}\"]"),
        )
        .replace("listen = \"127.0.0.1:0\"", &format!("listen = \"{admin}\""));
    let url = format!("rediss://localhost:{}", redis.address.port());
    let file = write("gateway.toml", with_store(&config, &url));
    for (trusted, state) in [(&*certificate, "1"), ("/dev/null", "0")] {
        let mut command = program(&["run", "-c", &file]);
        command.env("SSL_CERT_FILE", trusted);
        let running = Running::start(command);
        eventually("the gateway serves", || {
            std::future::ready(running.event("serving").is_some())
        })
        .await;
        becomes(admin, state).await;
    }
}
