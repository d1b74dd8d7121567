//! Frames that cost the client nothing: each kind of flood ends with GOAWAY and the end of its
//! connection, at flat memory, while others are served.

use super::{assert_flat, process};
use crate::harness::h2link::{H2Link, get};
use crate::harness::h2raw::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, H2Raw, HEADERS,
    INITIAL_WINDOW_SIZE, Outcome, PADDED, PING, PRIORITY, PROTOCOL_ERROR, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, fields, frame, pseudo,
};
use crate::harness::local;
use crate::harness::program::GatewayProcess;
use bonterra_gateway::demo::echo::{Echo, EchoOptions};
use std::time::{Duration, Instant};

const FRAMES: u32 = 50_000;
/// As many of them go out at a time.
const PORTION: u32 = 100;
const FLOODS: usize = 3;
const MIB: u32 = 1 << 20;
const SLOW: &str = "/api/slow-head?ms=1000";

async fn start() -> (Echo, GatewayProcess) {
    let options = EchoOptions { record: false };
    let echo = Echo::start_with(local(), options).await.expect("upstream");
    let gateway = process(&echo.url()).await;
    let mut link = H2Link::connect(gateway.address).await;
    assert_eq!(link.get("/api/warm").await.status, 200);
    (echo, gateway)
}

/// Floods a gateway on some connections at a time: first `begin`, then what `more` makes of each
/// number. Returns how many requests got through to the upstream.
async fn flooded(
    case: &str,
    code: u32,
    begin: Vec<u8>,
    more: impl Fn(u32) -> Vec<u8> + Clone + Send + 'static,
) -> u64 {
    let (echo, gateway) = start().await;
    let mut beside = H2Link::connect(gateway.address).await;
    assert_eq!(beside.get("/api/1").await.status, 200);
    let before = (gateway.running.memory().0, echo.requests());
    let mut floods = Vec::new();
    for _ in 0..FLOODS {
        let mut raw = H2Raw::connect(gateway.address).await;
        raw.send(&begin).await;
        let more = more.clone();
        let portion = move |from: u32| (from..from + PORTION).flat_map(&more).collect();
        let portions = (0..FRAMES / PORTION).map(move |number| portion(number * PORTION));
        floods.push(tokio::spawn(raw.flood(portions)));
    }
    let (mut served, mut others) = (0, 0);
    while floods.iter().any(|flood| !flood.is_finished()) || others == 0 {
        let began = Instant::now();
        assert_eq!(beside.get("/api/1").await.status, 200, "{case}: others");
        served += 1;
        assert!(began.elapsed() < Duration::from_secs(2), "{case}: others");
        let mut new = H2Link::connect(gateway.address).await;
        assert_eq!(new.get("/api/1").await.status, 200, "{case}: others");
        others += 1;
    }
    for flood in floods {
        assert_eq!(flood.await.expect("no panic"), Some(code), "{case}");
    }
    assert_flat(&gateway, before.0);
    echo.requests() - before.1 - served - others
}

#[tokio::test]
async fn rapid_reset() {
    let through = flooded("reset", ENHANCE_YOUR_CALM, Vec::new(), |n| {
        let reset = frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
        [h2raw::get(2 * n + 1, SLOW), reset].concat()
    })
    .await;
    assert!(through < 1000 * FLOODS as u64, "{through}");
}

/// The same so slowly that every request is begun.
#[tokio::test]
async fn resets_of_requests_that_have_begun() {
    let (echo, gateway) = start().await;
    let mut raw = H2Raw::connect(gateway.address).await;
    let mut last = 0;
    for n in 0..1000 {
        last = n;
        let reset = frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes());
        let pair = [h2raw::get(2 * n + 1, SLOW), reset].concat();
        raw.send(pair).await;
        // The answer to the PING says that both have been read.
        raw.send(frame(PING, 0, 0, &[0; 8])).await;
        if raw.until(PING).await.is_none() {
            break;
        }
    }
    assert_eq!(raw.ended().await, Some(ENHANCE_YOUR_CALM));
    assert!((300..900).contains(&last), "{last}");
    assert!(echo.requests() < 900, "{}", echo.requests());
}

/// "MadeYouReset": the client errs so that the gateway has to reset, and counts no reset of its own.
#[tokio::test]
async fn resets_that_the_gateway_is_made_to_send() {
    type More = fn(u32) -> Vec<u8>;
    let ways: [(&str, More); 4] = [
        ("an increment of 0", |n| {
            frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4])
        }),
        ("a window that overflows", |n| {
            frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0x7f, 0xff, 0xff, 0xff])
        }),
        ("data behind the end", |n| {
            frame(DATA, 0, 2 * n + 1, b"more")
        }),
        ("fields behind the end", |n| {
            let block = fields(&[("a", "b")]);
            frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block)
        }),
    ];
    for (way, more) in ways {
        let (echo, gateway) = start().await;
        let before = gateway.running.memory().0;
        let raw = H2Raw::connect(gateway.address).await;
        let pair = move |n: u32| [h2raw::get(2 * n + 1, SLOW), more(n)].concat();
        let portions = (0..FRAMES / PORTION)
            .map(move |at| (at * PORTION..(at + 1) * PORTION).flat_map(pair).collect());
        let code = raw.flood(portions).await;
        // Some of these are errors of the connection to begin with.
        assert!(
            matches!(code, Some(ENHANCE_YOUR_CALM | PROTOCOL_ERROR | 5)),
            "{way}: {code:?}"
        );
        assert!(echo.requests() < 2000, "{way}: {}", echo.requests());
        assert_flat(&gateway, before);
    }
}

#[tokio::test]
async fn requests_that_are_malformed() {
    let through = flooded("te", ENHANCE_YOUR_CALM, Vec::new(), |n| {
        let list = [&pseudo("GET", "/api/1")[..], &[("te", "gzip")]].concat();
        frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &fields(&list))
    })
    .await;
    assert_eq!(through, 0);
}

#[tokio::test]
async fn a_head_without_an_end() {
    for (case, piece) in [
        ("fields", fields(&[("x-a", "12345678")])),
        ("nothing", Vec::new()),
    ] {
        let begin = frame(HEADERS, END_STREAM, 1, &fields(&pseudo("GET", "/api/1")));
        let more = move |_| frame(CONTINUATION, 0, 1, &piece);
        let through = flooded(case, ENHANCE_YOUR_CALM, begin, more).await;
        assert_eq!(through, 0);
    }
}

/// A field that is sent once and then named by one byte, thousands of times in a head.
#[tokio::test]
async fn a_head_that_unfolds() {
    let (echo, gateway) = start().await;
    let (before, requests) = (gateway.running.memory().0, echo.requests());
    let mut first = fields(&pseudo("GET", "/api/bytes/3"));
    first.push(0x40);
    h2raw::text(&mut first, b"x-bomb");
    h2raw::text(&mut first, "b".repeat(3900).as_bytes());
    let first = frame(HEADERS, END_HEADERS | END_STREAM, 1, &first);
    let named = |stream: u32, times: usize| {
        let mut block = fields(&pseudo("GET", "/api/bytes/3"));
        block.extend(std::iter::repeat_n(0xbe, times));
        frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
    };
    for (times, expected) in [
        (7, Outcome::Answered(200)),
        (9, Outcome::Answered(431)),
        (30, Outcome::Answered(431)),
        (16_000, Outcome::Gone(Some(ENHANCE_YOUR_CALM))),
    ] {
        let mut raw = H2Raw::connect(gateway.address).await;
        raw.send([&first[..], &named(3, times)].concat()).await;
        let outcome = loop {
            match raw.next().await {
                None => break Outcome::Gone(raw.ended().await),
                // The status of a second answer may be an entry of the table.
                Some(frame) if frame.kind == HEADERS && frame.stream == 3 => {
                    break match frame.payload[0] {
                        0x88 => Outcome::Answered(200),
                        0x48 => Outcome::Answered(frame.status()),
                        other => panic!("{other}"),
                    };
                }
                Some(_) => {}
            }
        };
        assert_eq!(outcome, expected, "{times}");
    }
    // Many at a time, each just small enough.
    let mut raw = H2Raw::connect(gateway.address).await;
    let many = (1..100).map(|n| named(2 * n + 1, 7));
    raw.send([first].into_iter().chain(many).collect::<Vec<_>>().concat())
        .await;
    let mut answered = 0;
    while answered < 100 {
        answered += u32::from(raw.next().await.expect("answers").ends_stream());
    }
    assert_flat(&gateway, before);
    assert!(echo.requests() - requests <= 105, "{}", echo.requests());
}

#[tokio::test]
async fn frames_of_data_with_nothing_in_them() {
    let begin = || h2raw::post(1, "/api/sink");
    flooded("empty", ENHANCE_YOUR_CALM, begin(), |_| {
        frame(DATA, 0, 1, &[])
    })
    .await;
    let padding = |_| frame(DATA, PADDED, 1, &[3, 0, 0, 0]);
    flooded("padding", ENHANCE_YOUR_CALM, begin(), padding).await;
}

#[tokio::test]
async fn frames_that_want_an_answer() {
    let ping = |_| frame(PING, 0, 0, &[0; 8]);
    flooded("PING", ENHANCE_YOUR_CALM, Vec::new(), ping).await;
    let settings = |_| frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]);
    flooded("SETTINGS", ENHANCE_YOUR_CALM, Vec::new(), settings).await;
}

#[tokio::test]
async fn frames_that_change_nothing() {
    let priority = |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    flooded("PRIORITY", ENHANCE_YOUR_CALM, Vec::new(), priority).await;
    let update = |_| frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
    flooded("WINDOW_UPDATE", ENHANCE_YOUR_CALM, Vec::new(), update).await;
    let unknown = |_| frame(77, 0, 0, b"?");
    flooded("unknown", ENHANCE_YOUR_CALM, Vec::new(), unknown).await;
}

/// Requests beyond what is allowed at a time are refused one by one, and none is kept.
#[tokio::test]
async fn requests_beyond_the_limit() {
    let (echo, gateway) = start().await;
    let before = gateway.running.memory().0;
    let mut raw = H2Raw::connect(gateway.address).await;
    let heads = |from: u32, to: u32| -> Vec<u8> {
        (from..to)
            .flat_map(|n| h2raw::get(2 * n + 1, "/api/slow-head?ms=15000"))
            .collect()
    };
    raw.send(heads(0, 129)).await;
    let mut refused = 0;
    while let Some(frame) = raw.next().await {
        if frame.kind != RST_STREAM {
            continue;
        }
        assert_eq!(frame.code(), 7, "REFUSED_STREAM");
        refused += 1;
        if refused % 100 == 1 {
            raw.send(heads(128 + refused, 228 + refused)).await;
        }
    }
    assert_eq!(raw.ended().await, Some(ENHANCE_YOUR_CALM));
    assert!((500..2000).contains(&refused), "{refused}");
    let mut beside = H2Link::connect(gateway.address).await;
    assert_eq!(beside.get("/api/1").await.status, 200);
    assert_flat(&gateway, before);
    assert!(echo.requests() <= 130);
}

/// A hundred streams ask for much and take nothing.
#[tokio::test]
async fn streams_that_are_hoarded() {
    for window in [0, 1] {
        let (_echo, gateway) = start().await;
        let before = gateway.running.memory().0;
        let settings = [(INITIAL_WINDOW_SIZE, window)];
        let mut floods = Vec::new();
        for _ in 0..2 {
            let mut raw = H2Raw::with(gateway.address, &settings).await;
            let path = format!("/api/bytes/{}", 10 * MIB);
            let asked: Vec<u8> = (0..100)
                .flat_map(|n| h2raw::get(2 * n + 1, &path))
                .collect();
            raw.send(asked).await;
            for _ in 0..100 {
                raw.until(HEADERS).await.expect("an answer");
            }
            floods.push(raw);
        }
        let mut beside = H2Link::connect(gateway.address).await;
        assert_eq!(beside.get("/api/1").await.status, 200);
        assert_flat(&gateway, before);
        // The connection itself is of use yet.
        let raw = &mut floods[0];
        raw.send(h2raw::get(201, "/api/status/204")).await;
        let answer = raw.until(HEADERS).await.expect("an answer");
        assert_eq!((answer.stream, answer.ends_stream()), (201, true));
    }
}

/// Some clients acknowledge every frame, twice.
#[tokio::test]
async fn a_large_download_that_is_acknowledged_frame_by_frame_is_no_flood() {
    let (_echo, gateway) = start().await;
    let mut raw = H2Raw::connect(gateway.address).await;
    let size = 50 * MIB;
    raw.send(h2raw::get(1, &format!("/api/bytes/{size}"))).await;
    let mut read = 0;
    while read < size {
        let data = raw.until(DATA).await.expect("data");
        let length = u32::try_from(data.payload.len()).expect("small");
        read += length;
        if length > 0 {
            let update = |stream| frame(WINDOW_UPDATE, 0, stream, &length.to_be_bytes());
            raw.send([update(0), update(1)].concat()).await;
        }
    }
    assert_eq!(read, size);
}

/// Some clients measure the way with a PING for each answer.
#[tokio::test]
async fn a_ping_for_every_answer_is_no_flood() {
    let (_echo, gateway) = start().await;
    let mut raw = H2Raw::connect(gateway.address).await;
    for n in 0..1000 {
        raw.send(h2raw::get(2 * n + 1, "/api/bytes/3")).await;
        while !raw.next().await.expect("an answer").ends_stream() {}
        let ping = frame(PING, 0, 0, &[0; 8]);
        raw.send([ping.clone(), ping].concat()).await;
    }
    let mut link = H2Link::connect(gateway.address).await;
    assert_eq!(link.send(get("/api/1")).await.status, 200);
}
