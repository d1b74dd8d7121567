//! Twice as much as `[server]` allows, of everything: refused, nothing of it upstream, and the other
//! streams go on. What is slow is in `deadlines`.

use super::world;
use crate::harness::h2link::{H2Link, get};
use crate::harness::h2raw::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2Raw, HEADERS, Outcome, fields, frame,
    pseudo,
};
use crate::harness::link::{lazy, piecemeal, whole};
use crate::harness::{CONFIG, Scripted, World, assert_refused, eventually, with_lines, within};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::time::{Duration, Instant};

const KIB: usize = 1 << 10;
static PIECE: [u8; KIB] = [b'x'; KIB];

/// A head as HEADERS and as many CONTINUATION frames as it takes.
fn head(stream: u32, flags: u8, list: &[(&str, &str)]) -> Vec<u8> {
    let block = fields(list);
    let mut portions = block.chunks(16 << 10).peekable();
    let (mut bytes, mut kind, mut flags) = (Vec::new(), HEADERS, flags);
    while let Some(portion) = portions.next() {
        let last = if portions.peek().is_none() {
            END_HEADERS
        } else {
            0
        };
        bytes.extend(frame(kind, flags | last, stream, portion));
        (kind, flags) = (CONTINUATION, 0);
    }
    bytes
}

/// Whether a stream came to nothing.
fn is_refused(outcome: Outcome, status: u16) -> bool {
    match outcome {
        Outcome::Answered(answered) => answered == status,
        Outcome::Reset(_) => true,
        Outcome::Gone(_) => false,
    }
}

#[tokio::test]
async fn twice_the_head() {
    let world = world("max_headers = 20\nmax_header_bytes = \"8KiB\"").await;
    let long = "v".repeat(16 * KIB);
    let path = format!("/public/{long}");
    let many: Vec<String> = (0..40).map(|n| format!("x-{n}")).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (name.as_str(), "v")).collect();
    let plain = pseudo("GET", "/public/1");
    for (case, list) in [
        ("lines", [&plain[..], &many].concat()),
        ("bytes in one line", [&plain[..], &[("x", &long)]].concat()),
        ("bytes in the target", pseudo("GET", &path).to_vec()),
        (
            "bytes in cookies",
            [&plain[..], &[("cookie", &long[..KIB]); 16]].concat(),
        ),
    ] {
        let mut raw = H2Raw::connect(world.gateway.address).await;
        raw.send(head(1, END_STREAM, &list)).await;
        let outcome = raw.outcome(1).await;
        assert!(is_refused(outcome, 431), "{case}: {outcome:?}");
        assert!(world.echo.seen().is_empty(), "{case}");
        raw.send(head(3, END_STREAM, &plain)).await;
        let outcome = raw.outcome(3).await;
        assert_eq!(outcome, Outcome::Answered(200), "{case}: another stream");
        assert_eq!(world.echo.seen().len(), 1, "{case}");
        world.echo.forget();
    }
}

/// Trailers may be left out on the way (RFC 9110 §6.5.1), and those that are too large are: nobody has to hold them.
#[tokio::test]
async fn twice_the_head_behind_the_body() {
    const OK: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    let upstream = Scripted::start(OK).await;
    let config = with_lines(CONFIG, "[server]", "max_header_bytes = \"8KiB\"");
    let world = World::with(&config.replace("ECHO", &upstream.url())).await;
    let announced = [&pseudo("POST", "/public/1")[..], &[("trailer", "x-sum")]].concat();
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let post = |stream, size| {
        let sent = [
            head(stream, 0, &announced),
            frame(DATA, 0, stream, b"body"),
            head(stream, END_STREAM, &[("x-sum", &"v".repeat(size))]),
        ];
        sent.concat()
    };
    for (stream, size, arrives) in [(1, 8 * KIB, true), (3, 16 * KIB, false), (5, 8, true)] {
        raw.send(post(stream, size)).await;
        let answer = raw.until(HEADERS).await.expect("an answer");
        assert_eq!(answer.stream, stream, "{size}");
        let received = upstream.received().pop().expect("a request");
        assert!(received.contains("body"), "{size}: {received}");
        assert_eq!(received.contains("vvvv"), arrives, "{size}");
    }
    // Much more, and nobody reads it to its end.
    raw.send(post(7, 64 * KIB)).await;
    let outcome = raw.outcome(7).await;
    assert_eq!(outcome, Outcome::Gone(Some(h2raw::ENHANCE_YOUR_CALM)));
    assert!(!upstream.received().concat().contains(&"v".repeat(9 * KIB)));
}

#[tokio::test]
async fn twice_the_body() {
    let world = world("max_body = \"64KiB\"").await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let slow = link.spawn(get("/public/slow-head?ms=500"));
    eventually("it is upstream", async || world.echo.requests() == 1).await;
    // What says so is refused before any of it has come.
    let announced = [
        &pseudo("POST", "/public/1")[..],
        &[("content-length", "131072")],
    ]
    .concat();
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(head(1, 0, &announced)).await;
    assert_eq!(raw.outcome(1).await, Outcome::Answered(413));
    let post = Request::post("/public/1").body(whole(vec![b'x'; 128 * KIB]));
    let reply = link.send(post.expect("a request")).await;
    assert_refused(&world.gateway, &reply, 413, "body_too_large", "public").await;
    assert_eq!(world.echo.requests(), 1, "the slow one");
    // What does not say so is broken off, and no upstream takes it for whole.
    let body = lazy(&PIECE, 128, || {});
    let post = Request::post("/public/1").body(body).expect("a request");
    let reply = link.send(post).await;
    assert_refused(&world.gateway, &reply, 413, "body_too_large", "public").await;
    let slow = within("the slow one", slow).await.expect("no panic");
    assert_eq!(slow.expect("a reply").status, 200);
    eventually("nothing is left of it", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    let posts = world.echo.seen().into_iter().filter(|s| s.method == "POST");
    assert!(posts.clone().all(|seen| !seen.complete), "{posts:?}");
}

/// The surplus is refused stream by stream, before any token is looked at.
#[tokio::test]
async fn twice_the_requests() {
    let world = world("max_requests = 4").await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let begun: Vec<_> = (0..4)
        .map(|_| link.spawn(get("/public/slow-head?ms=1000")))
        .collect();
    eventually("four are upstream", async || world.echo.seen().len() == 4).await;
    let started = Instant::now();
    for _ in 0..4 {
        let reply = link.get("/grants/1").await;
        assert_refused(&world.gateway, &reply, 503, "overloaded", "-").await;
        assert!(reply.header("retry-after").is_some());
    }
    assert!(started.elapsed() < Duration::from_millis(900), "at once");
    for one in begun {
        let reply = within("a slow one", one).await.expect("no panic");
        assert_eq!(reply.expect("a reply").status, 200);
    }
    assert_eq!(world.echo.requests(), 4);
    eventually("there is room again", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(link.get("/public/1").await.status, 200);
}

/// A client that is one too many hears nothing of HTTP/2; those that are in go on.
#[tokio::test]
async fn twice_the_connections() {
    for limit in ["max_connections", "max_connections_per_address"] {
        let world = world(&format!("{limit} = 2")).await;
        let mut links = Vec::new();
        for _ in 0..2 {
            let mut link = H2Link::connect(world.gateway.address).await;
            assert_eq!(link.get("/public/1").await.status, 200);
            links.push(link);
        }
        for surplus in 1..=2 {
            let mut raw = H2Raw::connect(world.gateway.address).await;
            raw.send(h2raw::get(1, "/public/surplus")).await;
            assert_eq!(raw.outcome(1).await, Outcome::Gone(None), "{limit}");
            let series = format!(
                "gateway_connections_refused_total{{listener=\"{}\",reason=\"{limit}\"}}",
                world.gateway.address
            );
            let counted = world.gateway.metric(&series).await;
            assert_eq!(counted, f64::from(surplus), "{limit}");
        }
        for link in &mut links {
            assert_eq!(link.get("/public/1").await.status, 200, "{limit}");
        }
        assert_eq!(world.echo.requests(), 4, "{limit}");
        drop(links);
        eventually("a place is free", async || {
            let mut raw = H2Raw::connect(world.gateway.address).await;
            raw.send(h2raw::get(1, "/public/1")).await;
            raw.outcome(1).await == Outcome::Answered(200)
        })
        .await;
    }
}

/// The `timeout` of a route ends one stream: with 504 while there is no answer, with a reset behind its head.
#[tokio::test]
async fn twice_the_timeout_of_a_route() {
    let config = CONFIG.replace(
        "name = \"public\"",
        "name = \"public\"\ntimeout = \"300ms\"",
    );
    let world = World::with(&config).await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let beside = link.spawn(get("/optional/slow-head?ms=1000"));
    let started = Instant::now();
    let reply = link.get("/public/slow-head?ms=600").await;
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert_refused(&world.gateway, &reply, 504, "upstream_timeout", "public").await;
    // The answer comes back as the request goes up, and neither has an end.
    let (sender, body) = piecemeal();
    let forever = Request::post("/public/stream").body(body);
    let response = link.open(forever.expect("a request")).await;
    let response = response.expect("a head");
    assert_eq!(response.status(), 200);
    let ended = within("the end", response.into_body().collect()).await;
    assert!(ended.is_err(), "{ended:?}");
    drop(sender);
    let beside = within("the other one", beside).await.expect("no panic");
    assert_eq!(beside.expect("a reply").status, 200);
    let aborted = |record: &serde_json::Value| record["aborted"] == json!(true);
    eventually("it is recorded", async || {
        world.gateway.log.records().iter().any(aborted)
    })
    .await;
}
