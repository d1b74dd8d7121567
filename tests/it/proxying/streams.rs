//! Bodies pass as they come, as fast as the slower side takes them, and are never collected.

use super::{gateway, open_config};
use crate::harness::link::{Link, lazy, nothing, piecemeal};
use crate::harness::program::GatewayProcess;
use crate::harness::{Raw, RawUpstream, eventually, local, request, with_lines, within};
use bonterra_gateway::demo::echo::{Echo, EchoOptions};
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;

const MIB: usize = 1 << 20;
static PIECE: [u8; 64 << 10] = [b'x'; 64 << 10];

/// A gateway in a process of its own, so that its memory can be told from the tests'.
async fn process(upstream: &str) -> GatewayProcess {
    let config = open_config(upstream, &[]);
    GatewayProcess::start(&with_lines(&config, "[server]", "max_body = \"1GiB\"")).await
}

/// Checks that a process needed at most this much more memory, in MiB, than it had at rest.
fn assert_flat(gateway: &GatewayProcess, before: u64) {
    let (_, peak) = gateway.running.memory();
    assert!(
        peak < before + 40,
        "{before} MiB before, {peak} MiB at the peak"
    );
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

#[tokio::test]
async fn a_hundred_mebibytes_go_either_way_at_flat_memory() {
    let echo = Echo::start_with(local(), EchoOptions { record: false })
        .await
        .expect("upstream");
    let gateway = process(&echo.url()).await;
    let mut link = Link::connect(gateway.address).await;
    assert_eq!(link.get("/api/warm").await.status, 200);
    let (before, _) = gateway.running.memory();

    let up = Request::post("/api/sink")
        .body(lazy(&PIECE, 1600, || {}))
        .expect("a request");
    let reply = link.send(up).await;
    assert_eq!(reply.json()["body_bytes"], json!(100 * MIB));
    assert_flat(&gateway, before);

    let down = Request::get(format!("/api/bytes/{}", 100 * MIB))
        .body(nothing())
        .expect("a request");
    let response = link.open(down).await.expect("a response");
    assert_eq!(
        response.headers()["content-length"],
        (100 * MIB).to_string()
    );
    let mut body = response.into_body();
    let mut read = 0;
    within("the download", async {
        while let Some(frame) = body.frame().await {
            read += frame
                .expect("no error")
                .into_data()
                .map_or(0, |data| data.len());
        }
    })
    .await;
    assert_eq!(read, 100 * MIB);
    assert_flat(&gateway, before);
    assert_eq!(
        echo.connections(),
        1,
        "connections are used again after large bodies"
    );
}

#[tokio::test]
async fn a_slow_reader_holds_the_upstream_back() {
    const SIZE: usize = 256 * MIB;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let upstream = RawUpstream::start(move |mut raw| {
        let counter = Arc::clone(&counter);
        async move {
            raw.reply().await;
            raw.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n"))
                .await;
            for _ in 0..SIZE / PIECE.len() {
                raw.send(PIECE).await;
                counter.fetch_add(PIECE.len(), Relaxed);
            }
        }
    })
    .await;
    let gateway = process(&upstream.url()).await;
    assert_eq!(
        request(gateway.admin, "GET", "/livez").send().await.status,
        200
    );
    let (before, _) = gateway.running.memory();
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;

    let held = settled(&written).await;
    assert!(
        held < 64 * MIB,
        "the upstream was read {} MiB ahead of the client",
        held / MIB
    );
    assert_flat(&gateway, before);

    let (mut read, mut buffer) = (0, vec![0; MIB]);
    within("the rest", async {
        loop {
            match raw.stream.read(&mut buffer).await.expect("no error") {
                0 => break,
                some => read += some,
            }
        }
    })
    .await;
    assert_eq!(written.load(Relaxed), SIZE);
    assert!(read > SIZE && read < SIZE + 1024, "{read}");
    assert_flat(&gateway, before);
}

#[tokio::test]
async fn a_slow_upstream_holds_the_client_back() {
    const PIECES: usize = 256 * MIB / PIECE.len();
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let upstream = RawUpstream::start(move |mut raw| {
        let go = Arc::clone(&gone);
        async move {
            raw.reply().await;
            go.notified().await;
            let (mut last, mut buffer) = (Vec::new(), vec![0; MIB]);
            while !last.ends_with(b"\r\n0\r\n\r\n") {
                let read = raw.stream.read(&mut buffer).await.expect("no error");
                last.extend_from_slice(&buffer[read.saturating_sub(7)..read]);
                last.drain(..last.len().saturating_sub(7));
            }
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .await;
        }
    })
    .await;
    let gateway = process(&upstream.url()).await;
    let (before, _) = gateway.running.memory();
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let body = lazy(&PIECE, PIECES, move || {
        counter.fetch_add(1, Relaxed);
    });
    let address = gateway.address;
    let upload = tokio::spawn(async move {
        let mut link = Link::connect(address).await;
        link.send(Request::put("/api/").body(body).expect("a request"))
            .await
    });

    let held = settled(&made).await * PIECE.len();
    assert!(
        held < 64 * MIB,
        "the client was read {} MiB ahead of the upstream",
        held / MIB
    );
    assert_flat(&gateway, before);

    go.notify_one();
    assert_eq!(
        within("the reply", upload).await.expect("no panic").status,
        200
    );
    assert_eq!(made.load(Relaxed), PIECES);
    assert_flat(&gateway, before);
}

#[tokio::test]
async fn both_sides_may_speak_at_the_same_time() {
    let echo = Echo::start(local()).await.expect("upstream");
    let gateway = gateway(&echo.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    let (sender, body) = piecemeal();
    let post = Request::post("/api/stream").body(body).expect("a request");
    let mut response = link
        .open(post)
        .await
        .expect("a head before the request has ended")
        .into_body();
    for number in 0..20 {
        let said = format!("piece {number}");
        sender
            .send(Bytes::from(said.clone()))
            .await
            .expect("the request goes on");
        let heard = within("the echo", response.frame())
            .await
            .expect("not the end")
            .expect("no error");
        assert_eq!(heard.into_data().expect("data"), said);
    }
    drop(sender);
    assert!(within("the end", response.frame()).await.is_none());
    assert_eq!(link.get("/api/after").await.status, 200);
    assert_eq!(echo.connections(), 1);
}

#[tokio::test]
async fn a_response_does_not_wait_for_the_end_of_its_body() {
    let go = Arc::new(Notify::new());
    let gone = Arc::clone(&go);
    let upstream = RawUpstream::start(move |mut raw| {
        let go = Arc::clone(&gone);
        async move {
            raw.reply().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            raw.send("5\r\ndata1\r\n").await;
            go.notified().await;
            raw.send("5\r\ndata2\r\n0\r\n\r\n").await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    let get = Request::get("/api/events")
        .body(nothing())
        .expect("a request");
    let mut body = link.open(get).await.expect("a head").into_body();
    let first = within("the first event", body.frame())
        .await
        .expect("a frame")
        .expect("no error");
    assert_eq!(first.into_data().expect("data"), "data1");
    go.notify_one();
    assert_eq!(
        within("the rest", body.collect())
            .await
            .expect("whole")
            .to_bytes(),
        "data2"
    );
}

/// An upstream may refuse an upload before it has read it; the client has to see that answer.
#[tokio::test]
async fn an_answer_in_the_middle_of_an_upload_gets_through() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        raw.reply().await;
        raw.send(
            "HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\nConnection: close\r\n\r\nlarge",
        )
        .await;
        tokio::io::AsyncWriteExt::shutdown(&mut raw.stream)
            .await
            .expect("shut down");
        raw.rest().await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    let (sender, body) = piecemeal();
    let pieces =
        tokio::spawn(async move { while sender.send(Bytes::from_static(&PIECE)).await.is_ok() {} });
    let reply = link
        .send(Request::post("/api/").body(body).expect("a request"))
        .await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.text(), "large");
    pieces.abort();
    assert_eq!(
        request(gateway.address, "GET", "/api/").send().await.status,
        413,
        "others are served"
    );
}
