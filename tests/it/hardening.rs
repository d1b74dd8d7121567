//! What a review found once, and must not come back: keys that outlive their issuer, clients and
//! upstreams with bad timing, and requests that mean different things to different readers.

use crate::harness::link::{Link, nothing};
use crate::harness::program::call;
use crate::harness::{
    CONFIG, Gateway, LogSink, Raw, RawUpstream, World, assert_refused, eventually, request,
    with_lines, within,
};
use bonterra_gateway::app::Stopped;
use bonterra_gateway::demo::auth::{Endpoint, Fault, KeyChoice};
use futures_util::future::join_all;
use http::Request;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

const SERVER: &str = "[server]";
const ISSUER: &str = "[issuer.bonterra]";
/// Far more than anything here takes that does not wait for a timeout of [`CONFIG`].
const LONG: Duration = Duration::from_secs(5);

/// [`CONFIG`] with other lines for the cool-down.
fn cooldown(time: &str) -> String {
    CONFIG.replace("cooldown = \"1s\"", &format!("cooldown = \"{time}\""))
}

/// [`CONFIG`] with its public route, the last one, at this upstream and with more lines.
fn public(upstream: &str, lines: &str) -> String {
    let config = CONFIG.replace("\"ECHO\"", &format!("\"{upstream}\""));
    format!("{config}{lines}\n")
}

fn server_errors(metrics: &str) -> Vec<&str> {
    metrics
        .lines()
        .filter(|line| line.starts_with("gateway_requests_total{code=\"5"))
        .collect()
}

/// The only record of a request for this path, once it has been written.
async fn record_of(log: &LogSink, path: &str) -> Value {
    let find = || {
        let mut records = log.records();
        records.retain(|record| record["path"] == path);
        assert!(records.len() <= 1, "{records:#?}");
        records.pop()
    };
    eventually("the record", || std::future::ready(find().is_some())).await;
    find().expect("a record")
}

impl World {
    /// Good but for its key id, which nobody has published.
    fn unknown_kid(&self, kid: &str) -> String {
        self.auth.mint_with(
            &json!({ "kid": kid }),
            &self.auth.claims(),
            &KeyChoice::Current,
        )
    }

    async fn asks_with(&self, token: &str) -> u16 {
        self.get("/grants/1").bearer(token).send().await.status
    }

    /// Puts this file in force.
    async fn change(&self, file: &str) {
        std::fs::write(self.gateway.file(), file).expect("written");
        let reply = self.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_ne!(reply.json()["changes"], json!([]), "something changed");
    }
}

// === keys ===

#[tokio::test]
async fn a_reload_while_the_issuer_is_down_keeps_the_keys() {
    const SURFACE: &str = "[oauth.bonterra]\nissuer = \"bonterra\"\n";
    assert!(CONFIG.contains(SURFACE));
    let world = World::with(&CONFIG.replace(SURFACE, "")).await;
    let warm = world.auth.token();
    assert_eq!(world.asks_with(&warm).await, 200);
    world.auth.stop().await;

    let jwks = "[issuer.bonterra.jwks]";
    let changes = [
        (jwks, "max_stale = \"2h\""),
        (ISSUER, "timeout = \"250ms\""),
        (jwks, "max_ttl = \"20m\""),
        (ISSUER, "leeway = \"7s\""),
    ];
    let mut file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let mut files: Vec<(String, String)> = Vec::new();
    for (table, lines) in changes {
        file = with_lines(&file, table, lines);
        files.push((lines.to_owned(), file.clone()));
    }
    file = format!("{SURFACE}\n{file}");
    files.push(("a surface".to_owned(), file));
    for (number, (what, file)) in files.iter().enumerate() {
        world.change(file).await;
        assert_eq!(world.asks_with(&warm).await, 200, "{what}: warm");
        let cold = world.token_with(json!({ "jti": number.to_string() }));
        assert_eq!(world.asks_with(&cold).await, 200, "{what}: cold");
        let ready = world.gateway.admin("GET", "/readyz").await;
        assert_eq!(ready.status, 200, "{what}: {}", ready.text());
    }

    // Whoever fetches now still finds the issuer, and the new surface its token endpoint.
    world.auth.restart().await.expect("the same port");
    // The next key is published ahead of its time; the one after it is new.
    world.auth.rotate();
    world.auth.rotate();
    let renewed = world.auth.token();
    eventually("new keys", async || world.asks_with(&renewed).await == 200).await;
    let grant = world.post("/oauth/token").form(&[
        ("grant_type", "client_credentials"),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ]);
    eventually("a token", async || grant.send().await.status == 200).await;
}

#[tokio::test]
async fn keys_come_from_known_endpoints_when_discovery_fails() {
    let world = World::with(&cooldown("1ms")).await;
    // A failure makes the next fetch begin with discovery.
    let broken = Fault::Status(500, "text/plain".to_owned(), "no".to_owned());
    world
        .auth
        .set_fault(Endpoint::Discovery, Some(broken.clone()));
    world.auth.set_fault(Endpoint::Jwks, Some(broken));
    assert_eq!(world.asks_with(&world.unknown_kid("x")).await, 503);
    let asked = world.auth.counts().discovery;
    world.auth.set_fault(Endpoint::Jwks, None);
    // The next key is published ahead of its time; the one after it is new.
    world.auth.rotate();
    world.auth.rotate();
    let renewed = world.auth.token();
    eventually("the new key", async || {
        world.asks_with(&renewed).await == 200
    })
    .await;
    assert!(
        world.auth.counts().discovery > asked,
        "discovery was asked, and failed"
    );
    assert_eq!(world.asks_with(&world.unknown_kid("y")).await, 401);
}

#[tokio::test]
async fn an_unknown_key_is_503_while_keys_cannot_be_fetched_and_401_after() {
    let world = World::with(&cooldown("200ms")).await;
    let unknown = world.unknown_kid("x");
    assert_eq!(world.asks_with(&unknown).await, 401, "the issuer is there");
    world.auth.stop().await;
    let asked = world.get("/grants/1").bearer(&unknown);
    // Within the cool-down the last attempt was good, so the keys count as fresh.
    eventually("the cool-down is over", async || {
        asked.send().await.status == 503
    })
    .await;
    for _ in 0..3 {
        let reply = asked.send().await;
        assert_refused(&world.gateway, &reply, 503, "keys_unavailable", "grants").await;
        assert!(
            reply
                .header("retry-after")
                .is_some_and(|seconds| seconds.parse().is_ok_and(|seconds: u32| seconds > 0)),
            "{:?}",
            reply.headers
        );
    }
    assert_eq!(world.authorized("/grants/1").send().await.status, 200);
    world.auth.restart().await.expect("the same port");
    eventually("401 again", async || asked.send().await.status == 401).await;
    let reply = asked.send().await;
    assert_refused(&world.gateway, &reply, 401, "unknown_key", "grants").await;
    let seen = world.echo.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.headers.contains_key("x-bonterra-auth-id")),
        "nobody unknown came through"
    );
}

#[tokio::test]
async fn a_min_ttl_below_a_second_is_refused_with_its_place() {
    for (value, code) in [("0s", 2), ("999ms", 2), ("1s", 0)] {
        let folder = TempDir::new().expect("a folder");
        let file = CONFIG
            .replace("ISSUER", "http://127.0.0.1:9001/")
            .replace("ECHO", "http://127.0.0.1:9000")
            .replace("min_ttl = \"1s\"", &format!("min_ttl = \"{value}\""));
        let line = file
            .lines()
            .position(|line| line.starts_with("min_ttl"))
            .expect("the line")
            + 1;
        std::fs::write(folder.path().join("gateway.toml"), file).expect("written");
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(said.code, Some(code), "{value}: {}", said.stderr);
        if code == 0 {
            continue;
        }
        let place = format!("gateway.toml:{line}:11\n");
        for part in [place.as_str(), "without a pause", "write \"1s\" or more"] {
            assert!(
                said.stderr.contains(part),
                "no {part:?} in\n{}",
                said.stderr
            );
        }
    }
}

// === clients with bad timing ===

/// More than all buffers between an upstream and a client that does not read.
const HUGE: &str = "/public/bytes/1073741824";

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_after_body_timeout() {
    let config = with_lines(CONFIG, SERVER, "body_timeout = \"300ms\"");
    let world = World::with(&config).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let started = Instant::now();
    raw.send(format!("GET {HUGE} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .await;
    let record = record_of(&world.gateway.log, HUGE).await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(300) && took < LONG,
        "{took:?}"
    );
    assert_eq!(record["aborted"], json!(true), "{record}");
    let clients = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    eventually("the connection is gone", async || {
        world.gateway.metric(&clients).await == 0.0
    })
    .await;
    assert_eq!(world.get("/public/").send().await.status, 200, "others");
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_cut_by_the_timeout_of_the_route() {
    let config = with_lines(CONFIG, SERVER, "body_timeout = \"500ms\"");
    let world = World::with(&format!("{config}timeout = \"900ms\"\n")).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let started = Instant::now();
    raw.send(format!("GET {HUGE} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .await;
    let mut buffer = vec![0; 64 << 10];
    while world.gateway.log.records().is_empty() {
        assert!(started.elapsed() < LONG, "still served");
        assert!(
            raw.stream
                .read(&mut buffer)
                .await
                .is_ok_and(|read| read > 0)
        );
        // Reading slowly is what is tested.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(900), "{took:?}");
    let record = record_of(&world.gateway.log, HUGE).await;
    assert_eq!(record["aborted"], json!(true), "{record}");
}

/// An upstream may know its answer before it has read all: what the client still sends is its
/// body, and no head that is late.
#[tokio::test]
async fn an_upload_may_go_on_behind_the_answer() {
    const PIECE: &str = "5\r\npiece\r\n";
    const PIECES: usize = 6;
    for reads_on in [true, false] {
        let upstream = RawUpstream::start(move |mut raw: Raw| async move {
            loop {
                // A chunked request: this is the head alone.
                let (head, _) = raw.reply().await;
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
                if !head.starts_with("POST") {
                    continue;
                }
                if !reads_on {
                    break;
                }
                raw.expect(&format!("{}0\r\n\r\n", PIECE.repeat(PIECES)))
                    .await;
            }
        })
        .await;
        let config = with_lines(
            &public(&upstream.url(), ""),
            SERVER,
            "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"",
        );
        let world = World::with(&config).await;
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send("POST /public/up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        let reply = raw.whole().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        for _ in 0..PIECES {
            // Longer than header_timeout in all, and than any of them alone.
            tokio::time::sleep(Duration::from_millis(100)).await;
            raw.try_send(PIECE.as_bytes()).await;
        }
        raw.try_send(b"0\r\n\r\nGET /public/next HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        if reads_on {
            let reply = raw.whole().await;
            assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        }
        // Idle in the end, and sent away as such: without a word.
        let rest = raw.rest().await;
        assert_eq!(rest, "", "upstream reads on: {reads_on}");
        let records = world.gateway.log.records();
        assert!(
            records
                .iter()
                .all(|record| record["status"] == 200 && record["reason"].is_null()),
            "{records:#?}"
        );
        let timeouts = "gateway_rejections_total{reason=\"request_timeout\",route=\"-\"}";
        assert_eq!(world.gateway.metric(timeouts).await, 0.0);
    }
}

/// Connected, accepted or not, and just about to ask: nobody finds the door shut in the face.
#[tokio::test]
async fn who_has_just_connected_is_answered_while_draining() {
    // One alone may still wait to be accepted when nobody else is there.
    for count in [1, 16, 1, 1, 16, 1] {
        let world = World::with(&CONFIG.replace("workers = 1", "workers = 2")).await;
        let Gateway {
            app,
            address,
            log: _log,
            ..
        } = world.gateway;
        let clients = join_all((0..count).map(|_| Raw::connect(address))).await;
        let started = Instant::now();
        let stopping = tokio::spawn(app.stop());
        // A moment in which the gateway could send them away.
        tokio::time::sleep(Duration::from_millis(30)).await;
        let answers = clients.into_iter().map(|mut raw| async move {
            raw.send("GET /public/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
            let sent = started.elapsed();
            assert!(
                sent < Duration::from_millis(150),
                "the machine is too slow for this test: {sent:?}"
            );
            (raw.whole().await, raw.rest().await)
        });
        for (reply, rest) in join_all(answers).await {
            assert_eq!(reply.status, 200);
            assert_eq!(reply.header("connection"), Some("close"));
            assert_eq!(rest, "");
        }
        let stopped = within("the end", stopping).await.expect("no panic");
        assert_eq!(stopped, Stopped { cut: 0 });
        assert!(started.elapsed() < LONG, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_client_that_leaves_early_is_499() {
    const SLOW: &str = "/public/slow-head?ms=60000";
    let world = World::start().await;
    for number in 1..=2 {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!("GET {SLOW} HTTP/1.1\r\nHost: a\r\n\r\n"))
            .await;
        eventually("it is upstream", async || world.echo.seen().len() == number).await;
        drop(raw);
        eventually("a record", async || {
            world.gateway.log.records().len() == number
        })
        .await;
    }
    for record in world.gateway.log.records() {
        assert_eq!(record["status"], json!(499), "{record}");
        assert_eq!(record["aborted"], json!(true), "{record}");
    }
    let left = "gateway_requests_total{code=\"499\",method=\"GET\",route=\"public\"}";
    assert_eq!(world.gateway.metric(left).await, 2.0);
    let metrics = world.gateway.admin("GET", "/metrics").await.text();
    assert_eq!(server_errors(&metrics), Vec::<&str>::new());
}

// === messages ===

#[tokio::test]
async fn a_body_of_any_method_arrives_whole() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    for method in ["GET", "DELETE", "OPTIONS", "POST", "GET"] {
        raw.send(format!(
            "{method} /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nfirst\r\n7\r\n second\r\n0\r\n\r\n"
        ))
        .await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 200, "{method}");
        assert_eq!(reply.json()["method"], json!(method));
        assert_eq!(reply.json()["body"], json!("first second"), "{method}");
    }
    raw.send(
        "HEAD /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
         5\r\nfirst\r\n0\r\n\r\n",
    )
    .await;
    eventually("HEAD", async || {
        let last = world.echo.seen().pop().expect("a request");
        last.method == "HEAD" && last.complete && last.body_len == 5
    })
    .await;
}

#[tokio::test]
async fn transfer_codings_other_than_chunked_are_refused() {
    let world = World::start().await;
    for coding in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
    ] {
        for path in ["/public/x", "/grants/1", "/oauth/token"] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n{coding}\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n",
                world.auth.token()
            ))
            .await;
            let reply = raw.whole().await;
            assert_refused(&world.gateway, &reply, 400, "bad_request", "-").await;
        }
    }
    assert!(world.echo.seen().is_empty());
    assert_eq!(world.auth.counts().token, 0);
}

#[tokio::test]
async fn an_unreadable_forwarded_for_is_not_taken_for_the_proxy() {
    let config = with_lines(CONFIG, SERVER, "trusted_proxies = [\"127.0.0.0/8\"]");
    let world = World::with(&format!("{config}allow_ips = [\"127.0.0.0/8\"]\n")).await;
    for (hops, allowed) in [
        (None, true),
        (Some("127.0.0.7"), true),
        (Some("203.0.113.9"), false),
        (Some("203.0.113.9, unknown"), false),
        (Some("203.0.113.9, unknown, 127.0.0.7"), false),
        (Some("unknown"), false),
        (Some("127.0.0.7, _hidden"), false),
    ] {
        world.echo.forget();
        let asked = world.get("/public/x");
        let asked = match hops {
            Some(hops) => asked.header("x-forwarded-for", hops),
            None => asked,
        };
        let reply = asked.send().await;
        if allowed {
            assert_eq!(reply.status, 200, "{hops:?}");
        } else {
            assert_refused(&world.gateway, &reply, 403, "ip_not_allowed", "public").await;
        }
        assert_eq!(world.echo.seen().is_empty(), !allowed, "{hops:?}");
    }
}

#[tokio::test]
async fn trailers_break_nothing_off() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        loop {
            raw.reply().await;
            raw.send(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
                 5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n",
            )
            .await;
        }
    })
    .await;
    let world = World::with(&public(&upstream.url(), "")).await;
    for number in 0..5 {
        let path = format!("/public/{number}");
        let reply = world.get(&path).send().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        let record = record_of(&world.gateway.log, &path).await;
        assert_eq!(record["aborted"], Value::Null, "{record}");
        assert_eq!(record["response_bytes"], json!(5), "{record}");
    }
    assert_eq!(upstream.connections(), 1, "it was used again");
}

#[tokio::test]
async fn an_answer_to_head_is_not_broken_off() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    for (path, status) in [
        ("/grants/refused", 401),
        ("/nowhere", 404),
        ("/public/served", 200),
        ("/public/bytes/70000", 200),
    ] {
        let head = Request::head(path).body(nothing()).expect("a request");
        assert_eq!(link.send(head).await.status, status, "{path}");
        let record = record_of(&world.gateway.log, path).await;
        assert_eq!(record["status"], json!(status), "{record}");
        assert_eq!(record["aborted"], Value::Null, "{record}");
    }
    // The connection is as good as before.
    assert_eq!(link.get("/public/x").await.status, 200);
    let reply = request(world.gateway.address, "HEAD", "/grants/1")
        .send()
        .await;
    assert_eq!((reply.status, reply.body.len()), (401, 0));
}
