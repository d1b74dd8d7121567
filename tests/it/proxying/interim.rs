//! Interim responses, trailers, and streams that are not to wait.

use super::gateway;
use crate::harness::link::{Link, nothing, piecemeal};
use crate::harness::{Raw, RawUpstream, within};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[tokio::test]
async fn early_hints_come_before_the_answer_and_without_hop_by_hop_fields() {
    let go = Arc::new(Notify::new());
    let answer = Arc::clone(&go);
    let upstream = RawUpstream::start(move |mut raw| {
        let answer = Arc::clone(&answer);
        async move {
            raw.reply().await;
            raw.send(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\
                 Connection: x-a\r\nX-A: 1\r\nKeep-Alive: 5\r\n\r\n",
            )
            .await;
            answer.notified().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (head, _) = raw.reply().await;
    assert_eq!(head, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    go.notify_one();
    let reply = raw.whole().await;
    assert_eq!((reply.status, &*reply.text()), (200, "ok"));
    // HTTP/1.0 knows no interim responses.
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/1 HTTP/1.0\r\nHost: a\r\n\r\n").await;
    go.notify_one();
    assert!(raw.rest().await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn a_flood_of_interim_responses_is_no_answer() {
    let upstream = RawUpstream::start(|mut raw| async move {
        raw.reply().await;
        let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(1000);
        // Until the other side has had enough.
        while raw.has_sent(hint.as_bytes()).await {}
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let rest = loop {
        let (head, body) = raw.reply().await;
        if !head.starts_with("HTTP/1.1 103 ") {
            break head + &body;
        }
    };
    assert!(rest.starts_with("HTTP/1.1 502 "), "{rest}");
    assert!(rest.contains("upstream_protocol"), "{rest}");
}

#[tokio::test]
async fn trailers_go_both_ways_if_announced_and_asked_for() {
    let upstream = RawUpstream::start(|mut raw| async move {
        loop {
            let (head, body) = raw.chunked().await;
            let trailers = "X-Sum: 1\r\nX-Bonterra-Auth-Id: admin\r\nConnection: close\r\n";
            let said = format!("{head}{body}");
            raw.send(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Connection\r\n\r\n\
                 {:x}\r\n{said}\r\n0\r\n{trailers}\r\n",
                said.len(),
            ))
            .await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut raw = Raw::connect(gateway.address).await;
    let post = |te: &str| {
        format!(
            "POST /api/1 HTTP/1.1\r\nHost: a\r\n{te}Transfer-Encoding: chunked\r\n\
             Trailer: X-Digest, X-Bonterra-Auth-Id, Host\r\n\r\n\
             3\r\nabc\r\n0\r\nX-Digest: 7\r\nX-Bonterra-Auth-Id: admin\r\nHost: b\r\nX-More: 1\r\n\r\n"
        )
    };
    raw.send(post("Connection: TE\r\nTE: trailers\r\n")).await;
    let (head, rest) = raw.chunked().await;
    assert!(
        head.to_ascii_lowercase().contains("trailer: x-sum\r\n"),
        "{head}"
    );
    let seen = rest.to_ascii_lowercase();
    // What the upstream was told and given, in its own words …
    assert!(seen.contains("trailer: x-digest\r\n"), "{seen}");
    assert!(seen.contains("te: trailers\r\n"), "{seen}");
    assert!(seen.contains("\r\n\r\nabc|x-digest: 7\r\n|"), "{seen}");
    // … and what the client gets behind it.
    assert!(seen.ends_with("|x-sum: 1\r\n|"), "{seen}");
    // Who does not take trailers gets none, and the connection stays in step.
    raw.send(post("")).await;
    let (head, rest) = raw.chunked().await;
    assert!(!head.to_ascii_lowercase().contains("trailer:"), "{head}");
    assert!(rest.ends_with("||"), "{rest}");
}

/// What a route removes from a head, or sets in it, comes in no trailer and no interim head either.
#[tokio::test]
async fn the_header_rules_of_a_route_hold_outside_the_head_too() {
    let upstream = RawUpstream::start(|mut raw| async move {
        let (head, body) = raw.chunked().await;
        let said = format!("{head}{body}");
        raw.send(format!(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nServer: x\r\nX-Zone: b\r\n\r\n\
             HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Server, X-Zone\r\n\r\n\
             {:x}\r\n{said}\r\n0\r\nX-Sum: 1\r\nServer: x\r\nX-Zone: b\r\nX_Zone: b\r\n\r\n",
            said.len(),
        ))
        .await;
    })
    .await;
    let rules = "request_headers = { set = { X-Tenant = \"a\" }, remove = [\"X-Admin\"] }\n\
                 response_headers = { set = { X-Zone = \"a\" }, remove = [\"Server\"] }";
    let gateway = gateway(&upstream.url(), &[("[[route]]", rules)]).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send(
        "POST /api/1 HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\
         Transfer-Encoding: chunked\r\nTrailer: X-Digest, X-Admin, X-Tenant\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Digest: 7\r\nX-Admin: 1\r\nX-Tenant: b\r\nX_Admin: 1\r\n\r\n",
    )
    .await;
    let (hints, _) = raw.reply().await;
    assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    let (head, rest) = raw.chunked().await;
    let (head, seen) = (head.to_ascii_lowercase(), rest.to_ascii_lowercase());
    assert!(head.contains("trailer: x-sum\r\n"), "{head}");
    assert!(head.contains("x-zone: a\r\n"), "{head}");
    assert!(seen.contains("trailer: x-digest\r\n"), "{seen}");
    assert!(seen.contains("x-tenant: a\r\n"), "{seen}");
    assert!(seen.contains("\r\n\r\nabc|x-digest: 7\r\n|"), "{seen}");
    assert!(seen.ends_with("|x-sum: 1\r\n|"), "{seen}");
}

#[tokio::test]
async fn an_event_is_with_the_client_as_soon_as_it_is_written() {
    let (events, body) = piecemeal();
    let body = Arc::new(std::sync::Mutex::new(Some(body)));
    let upstream = crate::harness::link::serve(move |_| {
        let body = body.lock().expect("no panic").take().expect("asked once");
        http::Response::builder()
            .header("content-type", "text/event-stream")
            .body(body)
            .expect("a response")
    })
    .await;
    // A stream outlives what a request may take, where its route says so.
    let lines = [
        ("[[route]]", "timeout = \"0s\""),
        ("[upstream.api]", "response_timeout = \"200ms\""),
    ];
    let gateway = gateway(&upstream, &lines).await;
    let mut link = Link::connect(gateway.address).await;
    let get = Request::get("/api/events")
        .body(nothing())
        .expect("a request");
    let mut response = link.open(get).await.expect("a head");
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut slowest = Duration::ZERO;
    for n in 0..20 {
        let event = Bytes::from(format!("data: {n}\n\n"));
        let written = Instant::now();
        events.send(event.clone()).await.expect("a stream");
        let frame = within("an event", response.body_mut().frame()).await;
        let came = frame.expect("open").expect("an event").into_data();
        assert_eq!(came.expect("data"), event);
        slowest = slowest.max(written.elapsed());
        // The pause is longer than anything that would buffer for a while.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(slowest < Duration::from_millis(50), "{slowest:?}");
}
