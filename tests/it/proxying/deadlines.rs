//! Clients that are slow: each wait has its deadline, and nobody else feels it.

use super::gateway;
use crate::harness::link::{Link, piecemeal};
use crate::harness::{Gateway, Raw, RawUpstream, assert_refused, local, request};
use bonterra_gateway::demo::echo::Echo;
use bytes::Bytes;
use http::Request;
use serde_json::json;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

async fn world(changes: &[(&str, &str)]) -> (Echo, Gateway) {
    let echo = Echo::start(local()).await.expect("upstream");
    let gateway = gateway(&echo.url(), changes).await;
    (echo, gateway)
}

fn assert_took(started: Instant, least: Duration) {
    let took = started.elapsed();
    assert!(took >= least && took < LONG, "{took:?}");
}

#[tokio::test]
async fn a_slow_head_is_408_and_others_are_served() {
    let (_echo, gateway) = world(&[("[server]", "header_timeout = \"200ms\"")]).await;
    for first in ["G", "GET /api/ HTTP/1.1\r\nHost: a\r\nX-Slow: "] {
        // The time runs from the moment of the connection.
        let started = Instant::now();
        let mut raw = Raw::connect(gateway.address).await;
        raw.send(first).await;
        assert_eq!(
            request(gateway.address, "GET", "/api/").send().await.status,
            200,
            "others"
        );
        let reply = raw.whole().await;
        assert_took(started, SHORT);
        assert_refused(&gateway, &reply, 408, "request_timeout", "-").await;
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(raw.rest().await, "", "{first:?}");
    }
}

/// Browsers connect ahead of need, and probes only knock: neither has asked anything.
#[tokio::test]
async fn who_connects_and_says_nothing_is_closed_without_a_word() {
    let (_echo, gateway) = world(&[("[server]", "header_timeout = \"200ms\"")]).await;
    let started = Instant::now();
    let mut raw = Raw::connect(gateway.address).await;
    assert_eq!(raw.rest().await, "");
    assert_took(started, SHORT);
    assert!(gateway.log.records().is_empty());
}

/// A byte now and then must not push the deadline ahead.
#[tokio::test]
async fn a_head_that_trickles_in_is_408() {
    let (echo, gateway) = world(&[("[server]", "header_timeout = \"200ms\"")]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\nX-Slow: ").await;
    let started = Instant::now();
    let mut answer = [0; 12];
    loop {
        // The trickle is the attack, not a wait for something.
        tokio::time::sleep(Duration::from_millis(20)).await;
        raw.try_send(b"x").await;
        if raw.stream.try_read(&mut answer).is_ok() {
            break;
        }
        assert!(started.elapsed() < LONG, "still listening");
    }
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    assert!(echo.seen().is_empty());
}

#[tokio::test]
async fn the_head_of_a_second_request_has_its_deadline_too() {
    let (_echo, gateway) = world(&[("[server]", "header_timeout = \"200ms\"")]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.whole().await.status, 200);
    let started = Instant::now();
    raw.send("GET /api/ HTTP/1.1\r\nHost").await;
    let reply = raw.whole().await;
    assert_took(started, SHORT);
    assert_refused(&gateway, &reply, 408, "request_timeout", "-").await;
    assert_eq!(raw.rest().await, "");
}

/// The beginning of the second request comes in the same packet as the first. It is read already,
/// so the connection counts as idle, and is closed no later than an idle one.
#[tokio::test]
async fn a_head_that_began_behind_the_first_request_does_not_wait_for_ever() {
    let changes = [(
        "[server]",
        "header_timeout = \"200ms\"\nidle_timeout = \"200ms\"",
    )];
    let (echo, gateway) = world(&changes).await;
    let mut raw = Raw::connect(gateway.address).await;
    let started = Instant::now();
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\nGET /api/ HTTP/1.1\r\nHost")
        .await;
    assert_eq!(raw.whole().await.status, 200);
    raw.rest().await;
    assert_took(started, SHORT);
    assert_eq!(echo.requests(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let changes = [(
        "[server]",
        "idle_timeout = \"200ms\"\nheader_timeout = \"60s\"",
    )];
    let (_echo, gateway) = world(&changes).await;
    let mut raw = Raw::connect(gateway.address).await;
    let mut started = Instant::now();
    for _ in 0..3 {
        started = Instant::now();
        raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.whole().await.status, 200);
    }
    assert_eq!(raw.rest().await, "");
    assert_took(started, SHORT);
    assert_eq!(gateway.log.records().len(), 3, "nobody was refused");
    assert_eq!(
        gateway
            .metric("gateway_rejections_total{reason=\"request_timeout\",route=\"-\"}")
            .await,
        0.0
    );
}

/// Time spent on a response is neither idle nor the head of anything.
#[tokio::test]
async fn a_slow_response_is_not_idleness() {
    let changes = [(
        "[server]",
        "idle_timeout = \"100ms\"\nheader_timeout = \"100ms\"",
    )];
    let (_echo, gateway) = world(&changes).await;
    let mut raw = Raw::connect(gateway.address).await;
    for _ in 0..2 {
        raw.send("GET /api/slow-head?ms=400 HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        assert_eq!(raw.whole().await.status, 200);
    }
}

#[tokio::test]
async fn a_client_that_stalls_in_its_body_is_408() {
    let (echo, gateway) = world(&[("[server]", "body_timeout = \"200ms\"")]).await;
    for framing in [
        "Content-Length: 10\r\n\r\nhello",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ] {
        let mut raw = Raw::connect(gateway.address).await;
        let started = Instant::now();
        raw.send(format!("POST /api/sink HTTP/1.1\r\nHost: a\r\n{framing}"))
            .await;
        let reply = raw.whole().await;
        assert_took(started, SHORT);
        assert_refused(&gateway, &reply, 408, "request_timeout", "api").await;
        assert_eq!(raw.rest().await, "", "{framing}");
    }
    assert!(
        echo.seen().iter().all(|request| !request.complete),
        "the upstream knows that there was more"
    );
}

/// Stalling is the client's fault, however little patience there is with the upstream.
#[tokio::test]
async fn a_client_that_stalls_is_not_taken_for_a_slow_upstream() {
    let changes = [
        ("[server]", "body_timeout = \"400ms\""),
        ("[upstream.api]", "response_timeout = \"100ms\""),
    ];
    let (_echo, gateway) = world(&changes).await;
    let mut raw = Raw::connect(gateway.address).await;
    let started = Instant::now();
    raw.send("POST /api/sink HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello")
        .await;
    let reply = raw.whole().await;
    assert_took(started, Duration::from_millis(400));
    assert_refused(&gateway, &reply, 408, "request_timeout", "api").await;
}

#[tokio::test]
async fn an_upload_may_take_longer_than_response_timeout() {
    let (_echo, gateway) = world(&[("[upstream.api]", "response_timeout = \"200ms\"")]).await;
    // The pauses are what is tested: short ones, and one that is longer than the timeout itself.
    for pauses in [[90; 6], [0, 0, 500, 0, 0, 0]] {
        let mut link = Link::connect(gateway.address).await;
        let (sender, body) = piecemeal();
        let upload = tokio::spawn(async move {
            for pause in pauses {
                sender
                    .send(Bytes::from_static(b"piece"))
                    .await
                    .expect("the request goes on");
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        });
        let reply = link
            .send(Request::post("/api/sink").body(body).expect("a request"))
            .await;
        assert_eq!(
            reply.json()["body_bytes"],
            json!(30),
            "{pauses:?}: {}",
            reply.text()
        );
        upload.await.expect("sent");
    }
}

/// Counted from the end of the request, not from its beginning: the upload takes nearly as long as
/// the upstream may think, and then the upstream thinks.
#[tokio::test]
async fn response_timeout_begins_with_the_end_of_the_request() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        tokio::time::sleep(Duration::from_millis(350)).await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let changes = [("[upstream.api]", "response_timeout = \"500ms\"")];
    let gateway = gateway(&upstream.url(), &changes).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        .await;
    for byte in ["1", "2", "3", "4"] {
        tokio::time::sleep(Duration::from_millis(100)).await;
        raw.send(byte).await;
    }
    assert_eq!(raw.whole().await.status, 200);
}

/// An upstream that does not read is an upstream that does not answer.
#[tokio::test]
async fn an_upstream_that_does_not_read_is_504() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        std::future::pending::<()>().await;
    })
    .await;
    let changes = [
        ("[server]", "max_body = \"1GiB\""),
        ("[upstream.api]", "response_timeout = \"300ms\""),
    ];
    let gateway = gateway(&upstream.url(), &changes).await;
    static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];
    let body = crate::harness::link::lazy(&PIECE, 8000, || {});
    let mut link = Link::connect(gateway.address).await;
    let reply = link
        .send(Request::post("/api/").body(body).expect("a request"))
        .await;
    assert_refused(&gateway, &reply, 504, "upstream_timeout", "api").await;
}

/// Behind an answer that came before the request had ended there is idleness like behind any other.
#[tokio::test]
async fn a_connection_is_idle_when_the_request_ends_behind_its_answer() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.asked().await;
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[("[server]", "idle_timeout = \"200ms\"")]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("POST /api/ HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst")
        .await;
    let reply = raw.whole().await;
    assert_eq!((reply.status, reply.header("connection")), (200, None));
    // Longer than a connection may be idle: this one is not, since its request goes on.
    assert!(raw.is_silent(2 * SHORT).await);
    let started = Instant::now();
    raw.send("other").await;
    assert_eq!(raw.rest().await, "");
    assert_took(started, SHORT);
}
