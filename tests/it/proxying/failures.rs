//! Upstreams that are gone, silent, broken or hostile: the client is told which, and sees where an
//! answer breaks off.

use super::gateway;
use crate::harness::link::{Link, nothing};
use crate::harness::{
    Raw, RawUpstream, World, assert_refused, eventually, nobody, request, within,
};
use bonterra_gateway::demo::echo::Echo;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[tokio::test]
async fn an_upstream_that_nobody_runs_is_502_and_recovers() {
    let echo = Echo::start(nobody()).await.expect("upstream");
    let gateway = gateway(&echo.url(), &[]).await;
    let get = request(gateway.address, "GET", "/api/");
    assert_eq!(get.send().await.status, 200);
    echo.stop().await;
    for _ in 0..3 {
        let reply = get.send().await;
        assert_refused(&gateway, &reply, 502, "upstream_connect", "api").await;
        assert!(
            !reply.text().contains(&echo.addr().port().to_string()),
            "no address of ours: {}",
            reply.text()
        );
    }
    echo.restart().await.expect("the same port");
    assert_eq!(get.send().await.status, 200);
}

#[tokio::test]
async fn a_dead_upstream_does_not_hurt_the_others() {
    let dead = format!(
        "{}\n[upstream.dead]\nservers = [\"http://{}\"]\n[[route]]\nname = \"dead\"\npath = \"/dead/*\"\nupstream = \"dead\"\nauth = \"none\"\n",
        crate::harness::CONFIG,
        nobody(),
    );
    let world = World::with(&dead).await;
    let mut link = Link::connect(world.gateway.address).await;
    for _ in 0..10 {
        assert_eq!(link.get("/dead/").await.status, 502);
        assert_eq!(
            link.get("/public/").await.status,
            200,
            "not even on the same connection"
        );
    }
}

#[tokio::test]
async fn a_black_hole_is_504_in_time_and_others_are_served() {
    let hole = RawUpstream::start(async |mut raw: Raw| {
        raw.rest().await;
    })
    .await;
    let gateway = gateway(
        &hole.url(),
        &[("[upstream.api]", "response_timeout = \"200ms\"")],
    )
    .await;
    let started = Instant::now();
    let get = request(gateway.address, "GET", "/api/");
    let reply = get.send().await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "{:?}",
        started.elapsed()
    );
    assert_refused(&gateway, &reply, 504, "upstream_timeout", "api").await;
    let record = gateway
        .log
        .record(reply.header("x-request-id").expect("an id"))
        .await;
    assert!(
        record["upstream_duration"].as_f64() >= Some(0.2),
        "{record}"
    );
    assert_eq!(record["upstream"], json!("api"));
}

#[tokio::test]
async fn the_total_timeout_ends_a_head_that_does_not_come() {
    let hole = RawUpstream::start(async |mut raw: Raw| {
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&hole.url(), &[("[[route]]", "timeout = \"200ms\"")]).await;
    let started = Instant::now();
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_refused(&gateway, &reply, 504, "upstream_timeout", "api").await;
}

#[tokio::test]
async fn the_total_timeout_ends_a_body_that_never_ends() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
            .await;
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[("[[route]]", "timeout = \"200ms\"")]).await;
    let mut raw = Raw::connect(gateway.address).await;
    let started = Instant::now();
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let all = raw.rest().await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert!(
        all.contains("first") && !all.ends_with("0\r\n\r\n"),
        "{all}"
    );
}

/// What is no HTTP, or could be read in two ways.
#[tokio::test]
async fn garbage_from_an_upstream_is_502_and_the_connection_is_not_used_again() {
    let headers = (0..300)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect::<String>();
    for (what, bytes) in [
        ("no HTTP", "220 mail.example ESMTP\r\n".to_owned()),
        ("noise", "\u{1}\u{2}\u{3}\r\n\r\n".to_owned()),
        ("a bad status", "HTTP/1.1 2xx OK\r\n\r\n".to_owned()),
        (
            "a bad length",
            "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello".to_owned(),
        ),
        (
            "a negative length",
            "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello".to_owned(),
        ),
        (
            "two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!".to_owned(),
        ),
        (
            "the same length twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        ),
        (
            "two lengths in one",
            "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello".to_owned(),
        ),
        (
            "a signed length",
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello".to_owned(),
        ),
        (
            "192 KiB of headers",
            format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok",
                "x".repeat(192 << 10)
            ),
        ),
        (
            "a NUL in a header",
            "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok".to_owned(),
        ),
        (
            "too many headers",
            format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: 2\r\n\r\nok"),
        ),
        (
            "8 MiB of headers",
            format!(
                "HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 2\r\n\r\nok",
                "x".repeat(8 << 20)
            ),
        ),
    ] {
        let upstream = RawUpstream::says(bytes).await;
        let gateway = gateway(&upstream.url(), &[]).await;
        for connections in 1..3 {
            let reply = request(gateway.address, "GET", "/api/").send().await;
            assert_eq!(reply.json()["reason"], json!("upstream_protocol"), "{what}");
            assert_refused(&gateway, &reply, 502, "upstream_protocol", "api").await;
            assert_eq!(upstream.connections(), connections, "{what}");
        }
    }
}

/// RFC 9112 §6.3: with both, nobody knows where the response ends.
#[tokio::test]
async fn an_upstream_with_two_framings_is_not_used_again() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 40\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled").await;
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    for _ in 0..3 {
        let reply = request(gateway.address, "GET", "/api/").send().await;
        assert_refused(&gateway, &reply, 502, "upstream_protocol", "api").await;
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn bytes_behind_a_response_are_never_taken_for_the_next() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled").await;
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    for connections in 1..=5 {
        let reply = link.get("/api/").await;
        assert_eq!((reply.status, reply.text().as_str()), (200, "ok"));
        assert_eq!(upstream.connections(), connections, "each was used once");
    }
}

/// They may come while the connection is idle, too.
#[tokio::test]
async fn bytes_that_come_between_responses_end_the_connection() {
    let go = Arc::new(Notify::new());
    let waits = Arc::clone(&go);
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let go = Arc::clone(&waits);
        async move {
            raw.reply().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            go.notified().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled")
                .await;
            raw.rest().await;
            go.notify_one();
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    for method in ["GET", "POST", "GET"] {
        let reply = request(gateway.address, method, "/api/").send().await;
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (200, "ok"),
            "{method}"
        );
        go.notify_one();
        within("the gateway closes it", go.notified()).await;
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn a_flood_of_informational_responses_ends_in_time() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        let flood = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
        while tokio::io::AsyncWriteExt::write_all(&mut raw.stream, flood.as_bytes())
            .await
            .is_ok()
        {}
    })
    .await;
    let gateway = gateway(
        &upstream.url(),
        &[("[upstream.api]", "response_timeout = \"300ms\"")],
    )
    .await;
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert!(matches!(reply.status, 502 | 504), "{}", reply.status);
}

#[tokio::test]
async fn an_upgrade_that_nobody_asked_for_is_502() {
    let upstream = RawUpstream::says(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    )
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert_refused(&gateway, &reply, 502, "upstream_protocol", "api").await;
}

#[tokio::test]
async fn an_upstream_that_closes_without_a_word_is_502() {
    for reset in [false, true] {
        let upstream = RawUpstream::start(move |mut raw: Raw| async move {
            raw.reply().await;
            if reset {
                abort(raw);
            }
        })
        .await;
        let gateway = gateway(&upstream.url(), &[]).await;
        let reply = request(gateway.address, "GET", "/api/").send().await;
        assert_refused(&gateway, &reply, 502, "upstream_reset", "api").await;
    }
}

/// Drops a connection so that the other side gets a reset.
fn abort(raw: Raw) {
    let linger = socket2::SockRef::from(&raw.stream).set_linger(Some(Duration::ZERO));
    linger.expect("a socket");
}

/// However the end of a body is marked, one that is missing must be missing at the client too.
#[tokio::test]
async fn a_response_that_breaks_off_breaks_off_at_the_client() {
    for (framing, first, reset) in [
        ("Content-Length: 10", "12345", false),
        ("Content-Length: 10", "12345", true),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n", false),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n", true),
        ("Transfer-Encoding: chunked", "f\r\n12345", false),
        ("Connection: close", "12345", true),
    ] {
        let go = Arc::new(Notify::new());
        let waits = Arc::clone(&go);
        let upstream = RawUpstream::start(move |mut raw: Raw| {
            let go = Arc::clone(&waits);
            async move {
                raw.reply().await;
                raw.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{first}"))
                    .await;
                go.notified().await;
                if reset {
                    abort(raw);
                }
            }
        })
        .await;
        let gateway = gateway(&upstream.url(), &[]).await;
        let mut link = Link::connect(gateway.address).await;
        let get = Request::get("/api/").body(nothing()).expect("a request");
        let response = link.open(get).await.expect("a head");
        assert_eq!(response.status(), 200);
        let id = response.headers()["x-request-id"]
            .to_str()
            .expect("ASCII")
            .to_owned();
        let mut body = response.into_body();
        let part = within("the first part", body.frame())
            .await
            .expect("a frame")
            .expect("no error");
        assert_eq!(part.into_data().expect("data"), "12345");
        go.notify_one();
        let end = within("the end", body.collect()).await;
        assert!(
            end.is_err(),
            "{framing}, reset {reset}: the client takes it for whole"
        );
        let record = gateway.log.record(&id).await;
        assert_eq!(record["aborted"], json!(true), "{framing}: {record}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_exchange_upstream() {
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let sender = sender.clone();
        async move {
            raw.reply().await;
            raw.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                .await;
            raw.rest().await;
            sender.send(()).await.expect("the test runs");
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    raw.expect("HTTP/1.1 200 OK\r\n").await;
    drop(raw);
    within("the upstream's connection is closed", ended.recv()).await;
    eventually("a record", || {
        std::future::ready(
            gateway
                .log
                .records()
                .iter()
                .any(|record| record["aborted"] == true),
        )
    })
    .await;
}
