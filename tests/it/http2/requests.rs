//! Requests and answers: everything that a client may rely on.

use super::{assert_flat, process, world};
use crate::harness::h2link::{H2Link, get};
use crate::harness::h2raw::{self, END_STREAM, GOAWAY, H2Raw, Outcome, PING, PREFACE, RST_STREAM};
use crate::harness::link::{lazy, nothing, piecemeal, whole};
use crate::harness::{
    CONFIG, Gateway, Raw, RawUpstream, Scripted, World, eventually, request, with_lines, within,
};
use bonterra_gateway::app::Stopped;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

const MIB: usize = 1 << 20;
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

#[tokio::test]
async fn both_versions_are_spoken_on_one_port() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    for _ in 0..3 {
        let mut old = world.get("/public/1?q=1").send().await;
        let mut new = link.get("/public/1?q=1").await;
        assert_eq!((old.status, new.status), (200, 200), "{}", new.text());
        for reply in [&mut old, &mut new] {
            for name in ["date", "x-request-id"] {
                assert!(reply.headers.remove(name).is_some(), "{name}");
            }
        }
        assert_eq!(old.headers, new.headers);
        assert_eq!(old.json()["path"], "/public/1?q=1");
        for member in ["method", "path", "host", "body_bytes"] {
            assert_eq!(old.json()[member], new.json()[member], "{member}");
        }
    }
    let connections = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    eventually("the one connection is counted", async || {
        world.gateway.metric(&connections).await == 1.0
    })
    .await;
    drop(link);
    eventually("and no longer when it has gone", async || {
        world.gateway.metric(&connections).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_preface_may_come_byte_by_byte() {
    let world = World::start().await;
    let mut raw = H2Raw::silent(world.gateway.address).await;
    let settings = h2raw::frame(h2raw::SETTINGS, 0, 0, &[]);
    for byte in [PREFACE, &settings, &h2raw::get(1, "/public/1")].concat() {
        raw.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(raw.outcome(1).await, Outcome::Answered(200));
}

#[tokio::test]
async fn what_only_begins_like_the_preface_is_a_bad_request_of_http_1() {
    let world = World::start().await;
    for sent in [
        "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx",
        "PRI * HTTP/2.0\r\nHost: a\r\n\r\n",
        "PRI / HTTP/1.1\r\nContent-Length: x\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
    ] {
        // In one portion, and cut where the two are still the same.
        for cut in [sent.len(), 3] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(&sent[..cut]).await;
            tokio::task::yield_now().await;
            raw.try_send(&sent.as_bytes()[cut..]).await;
            let rest = raw.rest().await;
            assert!(rest.starts_with("HTTP/1.1 400 "), "{sent:?}: {rest:?}");
        }
    }
    // A method of three letters that begin like it is nobody's business.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("PRINT /public/1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(raw.whole().await.status, 200);
    assert_eq!(world.echo.requests(), 1);
}

#[tokio::test]
async fn a_hundred_streams_at_a_time_and_each_is_judged_and_answered_by_itself() {
    let world = World::start().await;
    let link = H2Link::connect(world.gateway.address).await;
    let token = format!("Bearer {}", world.auth.token());
    let exchange = |number: usize| {
        let (link, token) = (link.clone(), token.clone());
        async move {
            let late = 100 - number;
            let path = format!("/grants/{number}/slow-head?ms={late}&n={number}");
            let mut request = Request::post(&path);
            if !number.is_multiple_of(3) {
                request = request.header("authorization", token);
            }
            let body = format!("body {number}");
            let request = request.body(whole(body.clone())).expect("a request");
            let reply = link.spawn(request).await.expect("no panic");
            let reply = reply.expect("a reply");
            if number.is_multiple_of(3) {
                assert_eq!(reply.status, 401, "{number}");
                assert_eq!(reply.json()["reason"], "missing_token");
                let challenge = reply.header("www-authenticate").unwrap_or_default();
                assert!(challenge.starts_with("Bearer "), "{challenge}");
            } else {
                assert_eq!(reply.status, 200, "{number}: {}", reply.text());
                assert_eq!(reply.json()["path"], path);
                assert_eq!(reply.json()["body"], body);
            }
        }
    };
    join_all((0..100).map(exchange)).await;
    assert_eq!(world.echo.requests(), 66);
    eventually("all are recorded", async || {
        world.gateway.log.records().len() == 100
    })
    .await;
}

#[tokio::test]
async fn more_streams_than_allowed_are_refused_and_may_come_again() {
    let world = world("max_concurrent_streams = 4").await;
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let open = |stream| h2raw::get(stream, "/public/slow-head?ms=300");
    let begun: Vec<u8> = (0..5).flat_map(|n| open(2 * n + 1)).collect();
    raw.send(begun).await;
    // REFUSED_STREAM says that nothing has been done (RFC 9113 §8.7).
    assert_eq!(raw.outcome(9).await, Outcome::Reset(7));
    for _ in 0..4 {
        let head = raw.until(h2raw::HEADERS).await.expect("an answer");
        assert!(head.stream < 9, "{head:?}");
    }
    raw.send(open(11)).await;
    while raw.until(h2raw::HEADERS).await.expect("an answer").stream != 11 {}
    assert_eq!(world.echo.requests(), 5);
}

#[tokio::test]
async fn large_bodies_go_both_ways() {
    let world = world("max_body = \"64MiB\"").await;
    let link = H2Link::connect(world.gateway.address).await;
    let body: Bytes = (0..MIB).map(|n| (n % 251) as u8).collect();
    let exchange = |number: usize| {
        let (link, body) = (link.clone(), body.clone());
        async move {
            let post = Request::post(format!("/public/{number}/stream"));
            let post = post.body(whole(body.clone())).expect("a request");
            let reply = link.spawn(post).await.expect("no panic").expect("a reply");
            assert_eq!(reply.status, 200);
            assert!(reply.body == body, "{number}: another body");
        }
    };
    join_all((0..8).map(exchange)).await;
}

/// Waits until a count stands still.
async fn settled(count: &AtomicUsize) -> usize {
    let (mut last, mut since) = (count.load(Relaxed), Instant::now());
    eventually("the count stands still", || {
        let now = count.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        std::future::ready(last > 0 && since.elapsed() > Duration::from_millis(300))
    })
    .await;
    last
}

/// Many streams whose client takes nothing, at a time: what is read ahead of them is bounded.
#[tokio::test]
async fn slow_readers_hold_the_upstream_back() {
    const SIZE: usize = 64 * MIB;
    const STREAMS: usize = 8;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let upstream = RawUpstream::start(move |mut raw| {
        let counter = Arc::clone(&counter);
        async move {
            raw.reply().await;
            raw.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
                .await;
            for _ in 0..SIZE / PIECE.len() {
                raw.try_send(&PIECE).await;
                counter.fetch_add(PIECE.len(), Relaxed);
            }
        }
    })
    .await;
    let gateway = process(&upstream.url()).await;
    let (before, _) = gateway.running.memory();
    let mut link = H2Link::with(gateway.address, |client| {
        client.initial_stream_window_size(64 << 10);
        client.initial_connection_window_size(1 << 20);
    })
    .await;
    let mut bodies = Vec::new();
    for _ in 0..STREAMS {
        let response = link.open(get("/api/1")).await.expect("a response");
        bodies.push(response.into_body());
    }
    let held = settled(&written).await;
    assert!(
        held < STREAMS * 12 * MIB,
        "the upstream was read {} MiB ahead of the client",
        held / MIB
    );
    assert_flat(&gateway, before);
    // What was held goes on.
    let mut first = bodies.swap_remove(0);
    let mut read = 0;
    within("the rest of one", async {
        while let Some(frame) = first.frame().await {
            read += frame
                .expect("no error")
                .into_data()
                .map_or(0, |data| data.len());
        }
    })
    .await;
    assert_eq!(read, SIZE);
    assert_flat(&gateway, before);
}

#[tokio::test]
async fn a_slow_upstream_holds_the_client_back_on_its_stream_alone() {
    let upstream = RawUpstream::start(|mut raw| async move {
        let (head, _) = raw.reply().await;
        if head.starts_with("PUT") {
            // Nothing of the body is read.
            std::future::pending::<()>().await;
        }
        raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await;
    })
    .await;
    let gateway = process(&upstream.url()).await;
    let (before, _) = gateway.running.memory();
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let body = lazy(&PIECE, 4096, move || {
        counter.fetch_add(1, Relaxed);
    });
    let mut link = H2Link::connect(gateway.address).await;
    let upload = link.spawn(Request::put("/api/").body(body).expect("a request"));
    let held = settled(&made).await * PIECE.len();
    assert!(
        held < 24 * MIB,
        "the client was read {} MiB ahead of the upstream",
        held / MIB
    );
    assert_flat(&gateway, before);
    assert_eq!(link.get("/api/1").await.status, 200, "beside it");
    upload.abort();
}

#[tokio::test]
async fn a_body_over_max_body_costs_its_stream_alone() {
    let world = world("max_body = \"64KiB\"").await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let slow = link.spawn(get("/public/slow-head?ms=500"));
    for body in [
        whole(vec![b'x'; (64 << 10) + 1]),
        lazy(&PIECE, 2, || {}),
        lazy(&PIECE, 64, || {}),
    ] {
        let post = Request::post("/public/1").body(body).expect("a request");
        let reply = link.send(post).await;
        assert_eq!(reply.status, 413, "{}", reply.text());
        assert_eq!(reply.json()["reason"], "body_too_large");
    }
    let post = Request::post("/public/1").body(whole(vec![b'x'; 64 << 10]));
    assert_eq!(link.send(post.expect("a request")).await.status, 200);
    let slow = slow.await.expect("no panic").expect("a reply");
    assert_eq!(slow.status, 200, "the other one");
}

/// Nothing of the body is wanted, and the answer gets there all the same.
#[tokio::test]
async fn a_refusal_of_a_large_body_arrives_whole() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    for _ in 0..5 {
        let post = Request::post("/grants/1").body(lazy(&PIECE, 64, || {}));
        let reply = link.send(post.expect("a request")).await;
        assert_eq!(reply.status, 401);
        assert_eq!(reply.json()["reason"], "missing_token");
    }
    assert_eq!(link.get("/public/1").await.status, 200);
    assert_eq!(world.echo.requests(), 1);
}

#[tokio::test]
async fn answers_without_a_body() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    for (method, path, status) in [
        ("HEAD", "/public/bytes/5000", 200),
        ("GET", "/public/status/204", 204),
        ("GET", "/public/status/304", 304),
        ("HEAD", "/grants/1", 401),
        ("HEAD", "/nowhere", 404),
    ] {
        let request = Request::builder().method(method).uri(path);
        let reply = link.send(request.body(nothing()).expect("a request")).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(reply.body.is_empty(), "{method} {path}");
        let length = (path == "/public/bytes/5000").then_some("5000");
        if length.is_some() || status == 204 {
            assert_eq!(reply.header("content-length"), length, "{method} {path}");
        }
        let id = reply.header("x-request-id").expect("an id");
        let record = world.gateway.log.record(id).await;
        assert_eq!(record["status"], json!(status), "{record}");
        assert_eq!(record.get("aborted"), None, "{record}");
    }
    // The head ends the stream: no empty frame comes behind it.
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(h2raw::get(1, "/public/status/204")).await;
    let head = raw.until(h2raw::HEADERS).await.expect("an answer");
    assert!(head.ends_stream());
}

#[tokio::test]
async fn trailers_go_up_and_down() {
    let upstream = Scripted::start(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Request-Id\r\n\r\n\
         5\r\nhello\r\n0\r\nX-Sum: down\r\nX-Request-Id: forged\r\n\r\n",
    )
    .await;
    let config = super::OPEN.replace("UPSTREAM", &upstream.url());
    let gateway = Gateway::start(&config).await;
    let mut link = H2Link::connect(gateway.address).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "up".parse().expect("a value"));
    trailers.insert("x-bonterra-auth-id", "forged".parse().expect("a value"));
    let frames = [
        Frame::data(Bytes::from_static(b"body")),
        Frame::trailers(trailers),
    ];
    let frames = stream::iter(frames.map(Ok::<_, Infallible>));
    let post = Request::post("/api/1")
        .header("trailer", "x-sum, x-bonterra-auth-id")
        .body(StreamBody::new(frames).boxed_unsync())
        .expect("a request");
    let response = link.open(post).await.expect("a response");
    assert_eq!(response.headers()["trailer"], "x-sum");
    let body = within("the body", response.into_body().collect())
        .await
        .expect("a whole body");
    let came = body.trailers().cloned().expect("trailers");
    assert_eq!(came["x-sum"], "down");
    assert!(!came.contains_key("x-request-id"), "{came:?}");
    assert_eq!(body.to_bytes(), "hello");

    let received = upstream.received().concat().to_ascii_lowercase();
    assert!(received.contains("trailer: x-sum\r\n"), "{received}");
    assert!(received.ends_with("0\r\nx-sum: up\r\n\r\n"), "{received}");
    assert!(!received.contains("forged"), "{received}");
}

#[tokio::test]
async fn the_upstream_sees_a_request_of_http_1() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let request = Request::get("http://Api.Example:8080/public/1?q")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .header("cookie", "c=3; d=4")
        .header("te", "trailers")
        .header("x-forwarded-for", "1.2.3.4")
        .header("x-bonterra-auth-id", "forged")
        .header("expect", "100-continue")
        .body(nothing())
        .expect("a request");
    let reply = link.send(request).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let saw = |name| reply.upstream_saw(name).join(" | ");
    assert_eq!(reply.json()["path"], "/public/1?q");
    assert_eq!(saw("cookie"), "a=1; b=2; c=3; d=4");
    assert_eq!(saw("x-forwarded-for"), "127.0.0.1");
    assert_eq!(saw("x-forwarded-host"), "Api.Example:8080");
    assert_eq!(saw("x-forwarded-proto"), "http");
    assert_eq!(saw("x-bonterra-auth-id"), "");
    assert_eq!(saw("expect"), "");
    // The host that the client named, as HTTP/1.1 has it.
    let old = world.get("/public/1").header("host", "Api.Example:8080");
    assert_eq!(
        reply.upstream_saw("host"),
        old.send().await.upstream_saw("host")
    );
    let hop = saw("via");
    assert!(!hop.is_empty(), "{hop}");
}

#[tokio::test]
async fn exchanges_are_recorded_and_counted_as_those_of_http_1() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let token = format!("Bearer {}", world.auth.token());
    let post = Request::post("http://api.example/grants/1")
        .header("authorization", &token)
        .body(whole("12345"))
        .expect("a request");
    let reply = link.send(post).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let id = reply.header("x-request-id").expect("an id").to_owned();
    let record = world.gateway.log.record(&id).await;
    for (member, value) in [
        ("method", json!("POST")),
        ("host", json!("api.example")),
        ("path", json!("/grants/1")),
        ("route", json!("grants")),
        ("status", json!(200)),
        ("upstream", json!("echo")),
        ("request_bytes", json!(5)),
        ("response_bytes", json!(reply.body.len())),
        ("client", json!("127.0.0.1")),
    ] {
        assert_eq!(record[member], value, "{member}: {record}");
    }
    let refused = link.get("/grants/1").await;
    crate::harness::assert_refused(&world.gateway, &refused, 401, "missing_token", "grants").await;
    for (series, count) in [
        ("gateway_requests_in_flight", 0.0),
        (
            "gateway_requests_total{code=\"200\",method=\"POST\",route=\"grants\"}",
            1.0,
        ),
    ] {
        assert_eq!(world.gateway.metric(series).await, count, "{series}");
    }
}

/// A gRPC client looks for the outcome in `grpc-status`; the record tells the reason.
#[tokio::test]
async fn refusals_of_grpc_calls_are_calls_that_failed() {
    let config = with_lines(CONFIG, "[server]", "max_body = \"1KiB\"");
    let config = format!(
        "{config}\n[upstream.gone]\nservers = [\"http://{}\"]\n\n\
         [[route]]\nname = \"gone\"\npath = \"/gone/*\"\nupstream = \"gone\"\nauth = \"none\"\n",
        crate::harness::nobody()
    );
    let world = World::with(&config).await;
    let token = world.auth.token();
    let other = world.token_with(json!({ "urn:bonterra:claims:is_bonterra_grants": false }));
    let narrow = world.token_with(json!({ "scope": "read:grants" }));
    let mut link = H2Link::connect(world.gateway.address).await;
    for (path, bearer, size, code, status, reason) in [
        ("/grants/S/M", None, 5, "16", 401, "missing_token"),
        ("/grants/S/M", Some("x"), 5, "16", 401, "malformed_token"),
        ("/grants/S/M", Some(&*other), 5, "7", 403, "claim_mismatch"),
        (
            "/scoped/S/M",
            Some(&*narrow),
            5,
            "7",
            403,
            "insufficient_scope",
        ),
        ("/nowhere/S/M", Some(&*token), 5, "12", 404, "no_route"),
        ("/public/S/M", None, 2000, "8", 413, "body_too_large"),
        ("/gone/S/M", None, 5, "14", 502, "upstream_connect"),
    ] {
        let mut request = Request::post(path).header("content-type", "application/grpc+proto");
        request = request.header("te", "trailers");
        if let Some(bearer) = bearer {
            request = request.header("authorization", format!("Bearer {bearer}"));
        }
        let body = whole(vec![0; size]);
        let reply = link.send(request.body(body).expect("a request")).await;
        assert_eq!(reply.status, 200, "{reason}");
        assert_eq!(reply.header("grpc-status"), Some(code), "{reason}");
        let message = reply.header("grpc-message").unwrap_or_default();
        assert!(message.ends_with(&format!("({reason})")), "{message}");
        assert_eq!(reply.header("content-type"), Some("application/grpc"));
        assert!(reply.body.is_empty(), "{reason}");
        let challenged = reply.header("www-authenticate").is_some();
        assert_eq!(
            challenged,
            matches!(reason, "insufficient_scope") || status == 401
        );
        let id = reply.header("x-request-id").expect("an id");
        let record = world.gateway.log.record(id).await;
        assert_eq!(record["status"], json!(status), "{record}");
        assert_eq!(record["reason"], json!(reason), "{record}");
    }
    let metrics = world.gateway.admin("GET", "/metrics").await.text();
    for series in [
        "gateway_requests_total{code=\"401\",method=\"POST\",route=\"grants\"} 2",
        "gateway_requests_total{code=\"502\",method=\"POST\",route=\"gone\"} 1",
        "gateway_rejections_total{reason=\"claim_mismatch\",route=\"grants\"} 1",
    ] {
        assert!(metrics.contains(series), "{series} in\n{metrics}");
    }
    // The same in HTTP/1.1 is no call of gRPC.
    let reply = world
        .post("/grants/S/M")
        .header("content-type", "application/grpc")
        .send()
        .await;
    assert_eq!((reply.status, reply.header("grpc-status")), (401, None));
}

#[tokio::test]
async fn who_gives_up_is_not_waited_for() {
    let world = World::start().await;
    let mut raw = H2Raw::connect(world.gateway.address).await;
    // Before there is an answer, and with a body that has not ended.
    raw.send(h2raw::get(1, "/public/1/slow-head?ms=15000"))
        .await;
    raw.send(h2raw::post(3, "/public/3/sink")).await;
    eventually("they are upstream", async || world.echo.seen().len() == 2).await;
    for stream in [1, 3] {
        raw.send(h2raw::frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()))
            .await;
    }
    eventually("both are recorded", async || {
        world.gateway.log.records().len() == 2
    })
    .await;
    for record in world.gateway.log.records() {
        assert_eq!(record["status"], json!(499), "{record}");
        assert_eq!(record["aborted"], json!(true), "{record}");
    }
    assert_eq!(
        world.gateway.metric("gateway_requests_in_flight").await,
        0.0
    );
    assert!(
        world
            .echo
            .seen()
            .iter()
            .all(|seen| !seen.complete || seen.target.contains("/1/"))
    );
    raw.send(h2raw::get(5, "/public/5")).await;
    assert_eq!(raw.outcome(5).await, Outcome::Answered(200));
}

/// In the middle of the answer: the upstream is not read any further.
#[tokio::test]
async fn who_stops_reading_a_stream_ends_it() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let (sender, body) = piecemeal();
    let post = Request::post("/public/stream").body(body);
    let response = link
        .open(post.expect("a request"))
        .await
        .expect("a response");
    sender.send(Bytes::from_static(b"one")).await.expect("sent");
    let mut body = response.into_body();
    let first = within("the echo", body.frame()).await.expect("a frame");
    assert_eq!(
        first.expect("no error").into_data().expect("data"),
        Bytes::from_static(b"one")
    );
    drop(body);
    drop(sender);
    eventually("it is recorded", async || {
        world.gateway.log.records().len() == 1
    })
    .await;
    assert_eq!(link.get("/public/1").await.status, 200);
    assert_eq!(
        world.gateway.metric("gateway_requests_in_flight").await,
        0.0
    );
}

#[tokio::test]
async fn a_gateway_that_drains_says_so_and_finishes_what_has_begun() {
    let world = World::start().await;
    let Gateway { app, address, .. } = world.gateway;
    let mut raw = H2Raw::connect(address).await;
    raw.send(h2raw::get(1, "/public/1/slow-head?ms=1000")).await;
    eventually("it is upstream", async || !world.echo.seen().is_empty()).await;
    let stopping = tokio::spawn(app.stop());
    let goaway = raw.until(GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.code(), 0, "no error");
    assert_eq!(goaway.payload[..4], [0x7f, 0xff, 0xff, 0xff]);
    // What was on its way when the client heard of it is served, too (RFC 9113 §6.8).
    raw.send(h2raw::get(3, "/public/3")).await;
    let ping = raw.until(PING).await.expect("a PING");
    raw.send(h2raw::frame(PING, h2raw::ACK, 0, &ping.payload))
        .await;
    let mut answered = Vec::new();
    let mut last = None;
    while let Some(frame) = raw.next().await {
        if frame.kind == h2raw::HEADERS {
            answered.push(frame.stream);
        }
        if frame.kind == GOAWAY {
            last = Some((frame.payload[..4].to_vec(), frame.code()));
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 3]);
    assert_eq!(last, Some((vec![0, 0, 0, 3], 0)));
    let stopped = within("the end", stopping).await.expect("no panic");
    assert_eq!(stopped, Stopped { cut: 0 });
}

/// A client that goes on as if nothing were: whatever the upstream has seen is answered.
#[tokio::test]
async fn no_request_is_lost_while_a_gateway_drains() {
    let world = World::start().await;
    let Gateway { app, address, .. } = world.gateway;
    let client = || async move {
        let mut link = H2Link::connect(address).await;
        let (mut answered, mut path) = (0, 0);
        while link.is_open().await {
            path += 1;
            match link.try_send(get(&format!("/public/{path}"))).await {
                Ok(reply) => {
                    assert_eq!(reply.status, 200);
                    answered += 1;
                }
                Err(_) => break,
            }
        }
        answered
    };
    let clients: Vec<_> = (0..4).map(|_| tokio::spawn(client())).collect();
    eventually("load", async || world.echo.requests() > 50).await;
    let stopped = within("the end", app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 0 });
    let answered = within("the clients", join_all(clients)).await;
    let answered: u64 = answered.into_iter().map(|n| n.expect("no panic")).sum();
    assert_eq!(answered, world.echo.requests());
}

#[tokio::test]
async fn no_request_notices_a_reload() {
    let generation = |number: usize| {
        let set = format!("X-One = \"{number}\", X-Two = \"{number}\"");
        let config = CONFIG.trim_end();
        assert!(config.ends_with("auth = \"none\""), "the public route");
        format!("{config}\nresponse_headers = {{ set = {{ {set} }} }}\n")
    };
    let world = World::with(&generation(1)).await;
    let (ended, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let link = H2Link::connect(world.gateway.address).await;
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut link, ended, served) = (link.clone(), Arc::clone(&ended), Arc::clone(&served));
            tokio::spawn(async move {
                while !ended.load(Relaxed) {
                    let reply = link.get("/public/1").await;
                    assert_eq!(reply.status, 200);
                    assert!(reply.header("x-one").is_some());
                    assert_eq!(reply.header("x-one"), reply.header("x-two"));
                    served.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    for number in 2..10 {
        let next = config.replace("= \"1\"", &format!("= \"{number}\""));
        std::fs::write(world.gateway.file(), next).expect("written");
        assert_eq!(world.gateway.admin("POST", "/-/reload").await.status, 200);
        let before = served.load(Relaxed);
        eventually("load", async || served.load(Relaxed) > before + 20).await;
    }
    ended.store(true, Relaxed);
    for client in clients {
        client.await.expect("no failure");
    }
    let reply = link.clone().get("/public/1").await;
    assert_eq!(reply.header("x-one"), Some("9"));
}

/// Trailers of a request that end it with a block of fields, and data behind its end, by hand.
#[tokio::test]
async fn data_behind_the_end_of_a_request_goes_nowhere() {
    let world = World::start().await;
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let sent = [
        h2raw::post(1, "/public/1"),
        h2raw::frame(h2raw::DATA, END_STREAM, 1, b"body"),
        h2raw::frame(h2raw::DATA, END_STREAM, 1, b"more"),
    ];
    raw.send(sent.concat()).await;
    let outcome = raw.outcome(1).await;
    let fine = match outcome {
        Outcome::Answered(status) => status == 200,
        // STREAM_CLOSED, or an error of the connection.
        Outcome::Reset(code) | Outcome::Gone(Some(code)) => matches!(code, 5 | 1),
        Outcome::Gone(None) => false,
    };
    assert!(fine, "{outcome:?}");
    eventually("it is over", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    let seen = world.echo.seen();
    assert!(seen.iter().all(|seen| seen.body_len <= 4), "{seen:?}");
    let reply = request(world.gateway.address, "GET", "/public/2")
        .send()
        .await;
    assert_eq!(reply.status, 200);
}

/// Events that come now and then keep a stream alive, and the stream the connection.
#[tokio::test]
async fn a_stream_of_events_keeps_its_connection() {
    let upstream = RawUpstream::start(|mut raw| async move {
        raw.reply().await;
        raw.send("HTTP/1.1 200 OK\r\n\r\n").await;
        for _ in 0..10 {
            raw.send("data: 1\n\n").await;
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        let _ = raw.stream.read(&mut [0]).await;
    })
    .await;
    // Between two events lies less than either, and more in all.
    let lines = "idle_timeout = \"150ms\"\nbody_timeout = \"150ms\"\n";
    let config = super::OPEN.replace("UPSTREAM", &upstream.url());
    let gateway = Gateway::start(&with_lines(&config, "[server]", lines)).await;
    let mut link = H2Link::connect(gateway.address).await;
    let response = link.open(get("/api/events")).await.expect("a response");
    let mut body = response.into_body();
    let mut read = 0;
    while read < 90 {
        let frame = within("an event", body.frame()).await.expect("a frame");
        read += frame.expect("no error").data_ref().map_or(0, Bytes::len);
    }
    assert_eq!(read, 90);
}
