//! Clients that are slow: each wait has its deadline, and what else goes on beside it goes on.

use super::world;
use crate::harness::h2link::{H2Link, get};
use crate::harness::h2raw::{
    self, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, H2Raw, HEADERS,
    INITIAL_WINDOW_SIZE, Outcome, PING, PREFACE, RST_STREAM, SETTINGS, WINDOW_UPDATE, fields,
    frame, pseudo,
};
use crate::harness::link::piecemeal;
use crate::harness::{Raw, eventually, within};
use bytes::Bytes;
use http::Request;
use serde_json::json;
use std::time::{Duration, Instant};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(5);
const MIB: usize = 1 << 20;

fn assert_took(started: Instant, least: Duration) {
    let took = started.elapsed();
    assert!(took >= least && took < LONG, "{took:?}");
}

#[tokio::test]
async fn a_preface_that_does_not_end() {
    let world = world("header_timeout = \"300ms\"").await;
    let started = Instant::now();
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(&PREFACE[..10]).await;
    assert_eq!(raw.whole().await.status, 408);
    assert_took(started, SHORT);
}

#[tokio::test]
async fn nothing_behind_the_preface() {
    let world = world("idle_timeout = \"300ms\"\nbody_timeout = \"100ms\"").await;
    for more in [vec![], frame(SETTINGS, 0, 0, &[])] {
        let started = Instant::now();
        let mut raw = H2Raw::silent(world.gateway.address).await;
        raw.send([PREFACE, &more].concat()).await;
        assert_eq!(raw.ended().await, Some(0));
        assert_took(started, SHORT);
    }
}

#[tokio::test]
async fn heads_and_frames_that_do_not_end() {
    let world = world("header_timeout = \"300ms\"").await;
    let block = fields(&pseudo("GET", "/public/1"));
    for (case, begun) in [
        ("a head", frame(HEADERS, END_STREAM, 1, &block)),
        (
            "half a frame of a head",
            h2raw::get(1, "/public/1")[..20].to_vec(),
        ),
        ("half the head of a frame", vec![0, 0, 8, 6]),
        ("half a PING", frame(PING, 0, 0, &[0; 8])[..12].to_vec()),
    ] {
        let mut raw = H2Raw::connect(world.gateway.address).await;
        let started = Instant::now();
        raw.send(begun).await;
        let mut link = H2Link::connect(world.gateway.address).await;
        assert_eq!(link.get("/public/2").await.status, 200, "others");
        assert_eq!(raw.ended().await, Some(ENHANCE_YOUR_CALM), "{case}");
        assert_took(started, SHORT);
    }
    // A byte now and then does not push the deadline ahead.
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(frame(HEADERS, END_STREAM, 1, &block)).await;
    let started = Instant::now();
    let mut trickle = frame(h2raw::CONTINUATION, 0, 1, &[]).repeat(4).into_iter();
    for byte in trickle.by_ref() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        if tokio::io::AsyncWriteExt::write_all(&mut raw.stream, &[byte])
            .await
            .is_err()
        {
            break;
        }
    }
    assert_took(started, SHORT);
    assert_eq!(raw.ended().await, Some(ENHANCE_YOUR_CALM));
    assert!(trickle.len() > 0, "it was listened to until the end");
    assert!(
        world
            .echo
            .seen()
            .iter()
            .all(|seen| seen.target == "/public/2")
    );
}

/// One that is never between two frames when the gateway looks is no slow one.
#[tokio::test]
async fn a_busy_client_is_not_cut_for_what_is_always_half_there() {
    let world = world("header_timeout = \"300ms\"").await;
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let ping = frame(PING, 0, 0, &[0; 8]);
    raw.send(&ping[..10]).await;
    let started = Instant::now();
    while started.elapsed() < 3 * SHORT {
        raw.send([&ping[10..], &ping[..10]].concat()).await;
        raw.until(PING).await.expect("an answer");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    raw.send(&ping[10..]).await;
    raw.send(h2raw::get(1, "/public/1")).await;
    assert_eq!(raw.outcome(1).await, Outcome::Answered(200));
}

#[tokio::test]
async fn a_body_that_stalls_costs_its_stream_alone() {
    let world = world("body_timeout = \"300ms\"").await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let (sender, body) = piecemeal();
    let stalling = link.spawn(Request::post("/public/1").body(body).expect("a request"));
    sender
        .send(Bytes::from_static(b"begun"))
        .await
        .expect("sent");
    let started = Instant::now();
    assert_eq!(link.get("/public/2").await.status, 200);
    let reply = within("408", stalling)
        .await
        .expect("no panic")
        .expect("a reply");
    assert_took(started, SHORT - Duration::from_millis(50));
    crate::harness::assert_refused(&world.gateway, &reply, 408, "request_timeout", "public").await;
    assert_eq!(link.get("/public/3").await.status, 200);
    drop(sender);

    // Half a frame of it keeps the rest of the connection waiting, but not for ever.
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(h2raw::post(1, "/public/4")).await;
    raw.send(&frame(DATA, 0, 1, &[b'x'; 100])[..50]).await;
    assert_eq!(raw.outcome(1).await, Outcome::Answered(408));
    assert!(
        world
            .echo
            .seen()
            .iter()
            .all(|s| s.complete == (s.method == "GET"))
    );
}

#[tokio::test]
async fn a_stream_that_takes_nothing_is_reset_and_the_others_go_on() {
    let world = world("body_timeout = \"300ms\"").await;
    for (window, size) in [(0, 100), (0, MIB), (1, MIB), (1000, MIB)] {
        let settings = [(INITIAL_WINDOW_SIZE, window)];
        let mut raw = H2Raw::with(world.gateway.address, &settings).await;
        let started = Instant::now();
        raw.send(h2raw::get(1, &format!("/public/bytes/{size}")))
            .await;
        assert_eq!(raw.outcome(1).await, Outcome::Answered(200));
        // This one takes what it is sent.
        raw.send(h2raw::get(3, "/public/status/204")).await;
        let answer = raw.until(HEADERS).await.expect("an answer");
        assert_eq!(answer.stream, 3);
        let reset = raw.until(RST_STREAM).await.expect("a reset");
        assert_eq!((reset.stream, reset.code()), (1, 8), "{window} {size}");
        assert_took(started, SHORT);
        raw.send(h2raw::get(5, "/public/status/204")).await;
        let answer = raw.until(HEADERS).await.expect("an answer");
        assert_eq!(answer.stream, 5);
    }
    // A little now and then is enough.
    let settings = [(INITIAL_WINDOW_SIZE, 16 << 10)];
    let mut raw = H2Raw::with(world.gateway.address, &settings).await;
    raw.send(h2raw::get(1, "/public/bytes/100000")).await;
    let (mut read, started) = (0, Instant::now());
    while read < 100_000 {
        let data = raw.until(DATA).await.expect("data");
        read += data.payload.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let more = u32::try_from(data.payload.len()).expect("small");
        let update = |stream| frame(WINDOW_UPDATE, 0, stream, &more.max(1).to_be_bytes());
        raw.send([update(0), update(1)].concat()).await;
    }
    assert_took(started, SHORT);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_cut() {
    let world = world("body_timeout = \"300ms\"").await;
    let settings = [(INITIAL_WINDOW_SIZE, 0x7fff_ffff)];
    let mut raw = H2Raw::with(world.gateway.address, &settings).await;
    let most = (0x7fff_ffff_u32 - 0xffff).to_be_bytes();
    raw.send(frame(WINDOW_UPDATE, 0, 0, &most)).await;
    raw.send(h2raw::get(1, &format!("/public/bytes/{}", 200 * MIB)))
        .await;
    eventually("it is recorded", async || {
        world.gateway.log.records().len() == 1
    })
    .await;
    let record = &world.gateway.log.records()[0];
    assert_eq!(record["aborted"], json!(true), "{record}");
    let open = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    eventually("it is gone", async || {
        world.gateway.metric(&open).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let world = world("idle_timeout = \"300ms\"\nbody_timeout = \"5s\"").await;
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(h2raw::get(1, "/public/1/slow-head?ms=500")).await;
    assert_eq!(raw.outcome(1).await, Outcome::Answered(200));
    let started = Instant::now();
    let goaway = raw.until(GOAWAY).await.expect("GOAWAY");
    assert_eq!(goaway.code(), 0);
    assert_took(started, SHORT - Duration::from_millis(50));
    // A client that knows how this ends does not have to wait for it.
    let ping = raw.until(PING).await.expect("a PING");
    raw.send(frame(PING, h2raw::ACK, 0, &ping.payload)).await;
    assert_eq!(raw.ended().await, Some(0));
    assert!(started.elapsed() < LONG);

    // hyper's client sees it as an end between two requests.
    let mut link = H2Link::connect(world.gateway.address).await;
    assert_eq!(link.get("/public/1").await.status, 200);
    eventually("the connection ends", || {
        let mut link = link.clone();
        async move { !link.is_open().await }
    })
    .await;
    let mut link = H2Link::connect(world.gateway.address).await;
    assert_eq!(link.send(get("/public/2")).await.status, 200);
    // PINGs keep no connection alive that asks nothing.
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let started = Instant::now();
    while started.elapsed() < LONG {
        raw.send(frame(PING, 0, 0, &[0; 8])).await;
        match raw.next().await {
            Some(frame) if frame.kind == GOAWAY => break,
            Some(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            None => break,
        }
    }
    assert_took(started, SHORT - Duration::from_millis(50));
}

/// A stream is no reason to keep what the client has left.
#[tokio::test]
async fn a_client_that_goes_away_in_mid_request_is_forgotten() {
    let world = world("").await;
    for request in [
        h2raw::get(1, "/public/slow-head?ms=15000"),
        h2raw::post(1, "/public/sink"),
        frame(HEADERS, END_STREAM, 1, &fields(&pseudo("GET", "/public/1"))),
        frame(
            HEADERS,
            END_HEADERS,
            1,
            &fields(&pseudo("GET", "/public/stream")),
        ),
    ] {
        let mut raw = H2Raw::connect(world.gateway.address).await;
        raw.send(request).await;
        raw.send(frame(PING, 0, 0, &[0; 8])).await;
        if let Ok(Some(_)) = tokio::time::timeout(SHORT, raw.until(PING)).await {}
        drop(raw);
    }
    let open = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    eventually("all are gone", async || {
        world.gateway.metric(&open).await == 0.0
    })
    .await;
    assert_eq!(
        world.gateway.metric("gateway_requests_in_flight").await,
        0.0
    );
}
