//! The sixth row of the table of framing: upstreams that are hostile or broken. What can be read in
//! two ways is 502, what breaks off is seen to break off, and a connection that has carried either
//! carries nothing more.

use crate::harness::{CONFIG, Raw, RawUpstream, World, eventually, strict};
use futures_util::future::join_all;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::sync::Notify;

/// What must never be read as a response.
const SMUGGLED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled";
const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood";
const LENGTH: &str = "Content-Length: 2\r\n";

/// A world whose routes lead to this upstream.
async fn world(upstream: &RawUpstream) -> World {
    World::with(&CONFIG.replace("\"ECHO\"", &format!("\"{}\"", upstream.url()))).await
}

/// Answers the first request of each connection with these bytes, then good ones, as long as anybody
/// asks.
async fn answers(bytes: impl Into<Vec<u8>>) -> RawUpstream {
    let bytes = Arc::new(bytes.into());
    RawUpstream::start(move |mut raw: Raw| {
        let bytes = Arc::clone(&bytes);
        async move {
            raw.asked().await;
            raw.try_send(&bytes).await;
            while raw.asked().await.is_some() {
                raw.try_send(GOOD.as_bytes()).await;
            }
        }
    })
    .await
}

/// What one request gets on a connection of its own: the status, the body, and whether the reply was
/// whole.
async fn ask(world: &World, method: &str) -> (String, String, bool) {
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(format!(
        "{method} /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let came = raw.rest().await;
    let read = strict::responses(came.as_bytes(), &[method], true);
    match read.messages.as_slice() {
        [] => {
            let status = came.get(9..12).unwrap_or_default().to_owned();
            (status, came, false)
        }
        [reply] => {
            assert_eq!(read.taken, came.len(), "one reply: {came}");
            (reply.second.clone(), reply.text(), true)
        }
        _ => panic!("two replies to one request: {came}"),
    }
}

/// 502, each time, and each time on a connection of its own.
async fn refused(answer: &[u8], case: &str) {
    let upstream = answers([answer, SMUGGLED.as_bytes()].concat()).await;
    let world = world(&upstream).await;
    for connections in 1..4 {
        let (status, body, whole) = ask(&world, "GET").await;
        assert_eq!((status.as_str(), whole), ("502", true), "{case}: {body}");
        assert!(
            body.contains("\"reason\":\"upstream_protocol\""),
            "{case}: {body}"
        );
        assert_eq!(upstream.connections(), connections, "{case}: used again");
    }
}

fn head(fields: &str, body: &str) -> Vec<u8> {
    let text = format!("HTTP/1.1 200 OK\r\n{fields}\r\n{body}");
    let byte = |c: char| u8::try_from(u32::from(c)).expect("a byte");
    text.chars().map(byte).collect()
}

#[tokio::test]
async fn row_06_lengths_and_codings() {
    for length in [
        "",
        "+2",
        "-2",
        "2x",
        "2 2",
        "0x2",
        "2;",
        "2.0",
        "2,3",
        "\u{b2}",
        "2\u{b}",
        "2\u{a0}",
        "18446744073709551616",
        "2\r\nContent-Length: 3",
        "3\r\nX: y\r\ncontent-length: 2",
    ] {
        let fields = format!("Content-Length: {length}\r\n");
        refused(&head(&fields, "ok"), &fields).await;
    }
    let chunks = "2\r\nok\r\n0\r\n\r\n";
    for fields in [
        "Content-Length: 12\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 2\r\nTransfer-Encoding: identity\r\n",
        // A coding that is neither undone here nor told to the client.
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        refused(&head(fields, chunks), fields).await;
    }
    let old = format!("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    refused(old.as_bytes(), "a coding in HTTP/1.0").await;
}

#[tokio::test]
async fn row_06_heads() {
    for line in [
        "x: y\r\n z",
        " x: y",
        "\tx: y",
        "x: \0",
        "x: y\0z",
        "x\0: y",
        "x: \u{1}",
        "x: \u{7f}",
        "x : y",
        "x\t: y",
        ": y",
        "x",
        "x y: z",
        "x: y\rz",
        "x\u{e9}: y",
        "(x): y",
    ] {
        let sent = head(&format!("{line}\r\n{LENGTH}"), "ok");
        refused(&sent, &format!("line {line:?}")).await;
        let sent = head(&format!("{LENGTH}{line}\r\n"), "ok");
        refused(&sent, &format!("last line {line:?}")).await;
    }
    for line in [
        "HTTP/1.1 2xx OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1  200 OK",
        "HTTP/2.0 200 OK",
        "HTTP/1.2 200 OK",
        "http/1.1 200 OK",
        "HTTP/1.1 -20 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1\t200 OK",
        " HTTP/1.1 200 OK",
        "HTTP/1.1 200 \0",
        "ICY 200 OK",
        "220 mail.example ESMTP",
        "\u{16}\u{3}\u{1}",
    ] {
        let sent = format!("{line}\r\n{LENGTH}\r\nok");
        refused(sent.as_bytes(), &format!("{line:?}")).await;
    }
}

#[tokio::test]
async fn row_06_8_mib_of_headers() {
    let (long, many) = ("x".repeat(8 << 20), "x: y\r\n".repeat((8 << 20) / 6));
    refused(&head(&format!("x: {long}\r\n{LENGTH}"), "ok"), "one").await;
    refused(&head(&format!("{many}{LENGTH}"), "ok"), "many").await;
    refused(&head(&format!("x: {long}"), ""), "without an end").await;
    let line = format!("HTTP/1.1 200 {long}\r\n{LENGTH}\r\nok");
    refused(line.as_bytes(), "in the reason").await;
}

/// The head has gone when the body turns out bad: the client sees that it is not whole.
#[tokio::test]
async fn row_06_chunks_that_are_none_or_break_off() {
    for chunks in [
        "",
        "2\r\n",
        "2\r\no",
        "2\r\nok",
        "2\r\nok\r\n",
        "2\r\nok\r\n0\r\n",
        "2\r\nok\r\n0\r\nx: y\r\n",
        "x\r\nok\r\n0\r\n\r\n",
        "-2\r\nok\r\n0\r\n\r\n",
        "+2\r\nok\r\n0\r\n\r\n",
        " 2\r\nok\r\n0\r\n\r\n",
        "\r\nok\r\n0\r\n\r\n",
        "2\nok\n0\n\n",
        "2\r\nok0\r\n\r\n",
        "2\r\nok!\r\n0\r\n\r\n",
        "2;x\nok\r\n0\r\n\r\n",
        "10000000000000002\r\nok\r\n0\r\n\r\n",
        "2\r\nok\r\n0\n\n",
        "2\r\nok\r\n0\r\n\rx",
        "2\r\nok\r\n0\r\nx\r\n\r\n",
    ] {
        // Closed behind it: whatever is missing never comes.
        let upstream = RawUpstream::says(head("Transfer-Encoding: chunked\r\n", chunks)).await;
        let world = world(&upstream).await;
        for connections in 1..3 {
            let (status, body, whole) = ask(&world, "GET").await;
            assert!(!whole || status == "502", "{chunks:?}: {status} {body}");
            assert_eq!(upstream.connections(), connections, "{chunks:?}");
        }
    }
    let endless = format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(1 << 20));
    let trailers = format!("2\r\nok\r\n0\r\n{}\r\n", "x: y\r\n".repeat(200_000));
    for chunks in [endless, trailers] {
        let upstream = answers(head("Transfer-Encoding: chunked\r\n", &chunks)).await;
        let world = world(&upstream).await;
        for connections in 1..3 {
            let (status, _, whole) = ask(&world, "GET").await;
            assert!(!whole || status == "502", "{status}");
            assert_eq!(upstream.connections(), connections);
        }
    }
}

#[tokio::test]
async fn row_06_a_length_that_is_not_kept() {
    let upstream = RawUpstream::says(head("Content-Length: 10\r\n", "short")).await;
    let world = world(&upstream).await;
    for connections in 1..4 {
        let (status, body, whole) = ask(&world, "GET").await;
        assert_eq!((status.as_str(), whole), ("200", false), "{body}");
        assert_eq!(upstream.connections(), connections);
    }
}

/// Responses that have no body, whatever they say or send: what comes behind them is nobody's.
#[tokio::test]
async fn row_06_extra_bytes() {
    let ok = head(LENGTH, "ok");
    let chunks = head("Transfer-Encoding: chunked\r\n", "2\r\nok\r\n0\r\n\r\n");
    let no_content = b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
    let not_modified = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 8\r\n\r\n".to_vec();
    for (method, answer, body) in [
        ("GET", ok.clone(), "ok"),
        ("GET", chunks.clone(), "ok"),
        ("GET", no_content, ""),
        ("GET", not_modified, ""),
        ("HEAD", ok, ""),
        ("HEAD", chunks, ""),
        ("GET", head("Content-Length: 0\r\n", ""), ""),
    ] {
        for extra in [
            "x",
            "smuggled",
            "\r\n",
            SMUGGLED,
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\n",
        ] {
            let case = format!("{method} {} {extra:?}", String::from_utf8_lossy(&answer));
            let upstream = answers([&answer, extra.as_bytes()].concat()).await;
            let world = world(&upstream).await;
            for connections in 1..4 {
                let (status, came, whole) = ask(&world, method).await;
                let passed = status != "502" && came == body;
                assert!(whole && (passed || status == "502"), "{case}: {came}");
                assert_eq!(upstream.connections(), connections, "{case}: used again");
            }
        }
    }
}

/// To HEAD, 204 and 304 the length is one of a body that is not there, and the connection is good.
#[tokio::test]
async fn row_06_lengths_without_a_body() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n",
        ),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let upstream = answers(answer).await;
        let world = world(&upstream).await;
        let (status, body, whole) = ask(&world, method).await;
        let expected = answer.get(9..12).unwrap_or_default();
        assert_eq!(
            (status.as_str(), body.as_str(), whole),
            (expected, "", true),
            "{answer:?}"
        );
        let (_, body, _) = ask(&world, "GET").await;
        assert_eq!(body, "good", "{answer:?}");
        assert_eq!(upstream.connections(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn row_06_old_responses_end_with_their_connection() {
    for answer in [
        "HTTP/1.0 200 OK\r\n\r\nto the end",
        "HTTP/1.1 200 OK\r\n\r\nto the end",
        "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\nto the end",
    ] {
        let upstream = RawUpstream::says(answer).await;
        let world = world(&upstream).await;
        for connections in 1..4 {
            let (status, body, whole) = ask(&world, "GET").await;
            assert_eq!(
                (status.as_str(), body.as_str(), whole),
                ("200", "to the end", true)
            );
            assert_eq!(upstream.connections(), connections);
        }
    }
    // One that says how long it is, and that it closes, is not used again either.
    for answer in [
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x, Close\r\n\r\nok",
    ] {
        let upstream = answers(answer).await;
        let world = world(&upstream).await;
        for connections in 1..4 {
            assert_eq!(ask(&world, "GET").await.1, "ok");
            assert_eq!(upstream.connections(), connections, "{answer:?}");
        }
    }
}

/// Said before it was asked: on a connection that waits for its next request.
#[tokio::test]
async fn row_06_a_response_before_the_request() {
    let (say, said) = (Arc::new(Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (go, done) = (Arc::clone(&say), Arc::clone(&said));
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let (go, done) = (Arc::clone(&go), Arc::clone(&done));
        async move {
            raw.reply().await;
            raw.send(GOOD).await;
            go.notified().await;
            raw.try_send(SMUGGLED.as_bytes()).await;
            // The gateway does not wait for what it might want to say next.
            assert_eq!(raw.rest().await, "");
            done.fetch_add(1, Relaxed);
        }
    })
    .await;
    let world = world(&upstream).await;
    for connections in 1..6 {
        assert_eq!(ask(&world, "GET").await.1, "good");
        assert_eq!(upstream.connections(), connections);
        say.notify_one();
        eventually("the gateway closes", async || {
            said.load(Relaxed) == connections
        })
        .await;
    }
}

/// Whom a broken upstream has answered in between, nobody else's answer goes to.
#[tokio::test]
async fn row_06_nobody_gets_another_one_s_answer() {
    // Every third answer has another one behind it.
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        for number in 0.. {
            let Some(head) = raw.asked().await else {
                return;
            };
            let path = head.split(' ').nth(1).unwrap_or_default();
            let extra = if number % 3 == 2 { SMUGGLED } else { "" };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}{extra}",
                path.len()
            );
            raw.try_send(answer.as_bytes()).await;
        }
    })
    .await;
    let world = world(&upstream).await;
    for round in 0..20 {
        let asked = (0..20).map(|number| world.get(&format!("/public/{round}/{number}")));
        let replies = join_all(asked.map(|request| async move {
            let reply = request.send().await;
            (reply.status, reply.text(), request.path().to_owned())
        }));
        for (status, body, path) in replies.await {
            assert!(status == 502 || body == path, "{path} got {status} {body}");
        }
    }
}
