//! What the rim of the gateway holds: heads that hyper would clean up, `Max-Forwards`, and a second
//! token in a form.

use crate::harness::{CONFIG, Raw, Reply, World, assert_refused, eventually, with_lines, within};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::time::timeout;

const FORM: &str = "application/x-www-form-urlencoded";
/// As much of a form is held back.
const HELD_BACK: usize = 8 << 10;

fn targets(world: &World) -> Vec<String> {
    let seen = world.echo.seen().into_iter();
    seen.map(|seen| seen.target).collect()
}

/// Refused, and the end of the connection.
async fn assert_closed(world: &World, raw: &mut Raw, case: &str) {
    let reply = raw.whole().await;
    assert_eq!(reply.status, 400, "{case}: {}", reply.text());
    assert_refused(&world.gateway, &reply, 400, "bad_request", "-").await;
    assert_eq!(reply.header("connection"), Some("close"), "{case}");
    assert_eq!(raw.rest().await, "", "{case}");
}

// === heads ===

#[tokio::test]
async fn a_fragment_is_refused() {
    let world = World::start().await;
    let token = world.auth.token();
    for target in [
        "/public/1#x",
        "/public/1#",
        "#/public/1",
        "/#/public/1",
        "/grants/1#/../../public/1",
        "/public/1?a=b#c",
        "/public/1?#",
        "http://a/public/1#x",
        "http://a#/public/1",
        "/public/1?q=caf\u{e9}",
        "/public/1?\x7f",
        "/public/1?\x01",
    ] {
        for headers in ["", &format!("authorization: Bearer {token}\r\n")] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(format!("GET {target} HTTP/1.1\r\nhost: a\r\n{headers}\r\n"))
                .await;
            assert_closed(&world, &mut raw, target).await;
        }
    }
    assert_eq!(world.echo.requests(), 0);
    // Escaped it is a byte like any other, and a body may hold what it likes.
    for target in ["/public/%23x", "/public/1?q=%23"] {
        let reply = world.post(target).body("#").send().await;
        assert_eq!((reply.status, &reply.json()["path"]), (200, &json!(target)));
    }
}

#[tokio::test]
async fn a_length_said_twice_is_refused() {
    let world = World::start().await;
    for framing in [
        "content-length: 5\r\ncontent-length: 5",
        "content-length: 5\r\nContent-Length: 6",
        "content-length: 0\r\ncontent-length: 0",
        "content-length: 5, 5",
        "content-length: 5,6",
        "content-length: +5",
        "content-length:",
        "content-length: 18446744073709551616",
        "content-length: 5\r\ntransfer-encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "content-length: 0\r\ntransfer-encoding: chunked",
        "content-length: x\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: x",
        "transfer-encoding: chunked, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked, gzip",
        "transfer-encoding: xchunked",
        "transfer-encoding:",
        "x-a: 1\r\n content-length: 5",
        "x-a: 1\ncontent-length: 5",
        "x-a: 1\n",
    ] {
        for path in ["/public/1", "/nothing", "/oauth/token"] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(format!(
                "POST {path} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n0\r\n\r\n"
            ))
            .await;
            assert_closed(&world, &mut raw, framing).await;
        }
    }
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("POST /public/1 HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_closed(&world, &mut raw, "HTTP/1.0").await;
    assert_eq!(world.echo.requests(), 0);
    assert_eq!(world.auth.counts().token, 0);
}

/// Requests that end in every way that there is.
fn good_ones() -> [(&'static str, String); 6] {
    let post = |fields: &str, body: &str| {
        format!("POST /public/good HTTP/1.1\r\nhost: a\r\n{fields}\r\n\r\n{body}")
    };
    let inner = "GET /public/inner#x HTTP/1.1\r\n\r\n";
    let sized = format!("content-length: {}", inner.len());
    let chunk = format!("{:x};#\r\n{inner}\r\n0\r\nx-t: #\r\n\r\n", inner.len());
    [
        (
            "no body",
            "GET /public/good HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
        (
            "empty lines first",
            "\r\n\r\nGET /public/good HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        ),
        ("an empty body", post("content-length: 0", "")),
        ("a sized body", post(&sized, inner)),
        ("a chunked body", post("transfer-encoding: chunked", &chunk)),
        (
            "a body that is asked for",
            post(&format!("expect: 100-continue\r\n{sized}"), inner),
        ),
    ]
}

/// A reply, without the word that the body may come.
async fn reply_of(raw: &mut Raw) -> Reply {
    let reply = raw.whole().await;
    if reply.status == 100 {
        raw.whole().await
    } else {
        reply
    }
}

#[tokio::test]
async fn a_bad_head_behind_good_ones_is_found_in_any_packet() {
    let world = World::start().await;
    let bad_ones = [
        "GET /public/bad#x HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /public/bad HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 0\r\n\r\n",
        "POST /public/bad HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ];
    let after = "GET /public/after HTTP/1.1\r\nhost: a\r\n\r\n";
    for (case, good) in good_ones() {
        for bad in bad_ones {
            // One packet: the good one is served, the bad one is not, and nothing behind it.
            world.echo.forget();
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(format!("{good}{good}{bad}{after}")).await;
            for _ in 0..2 {
                assert_eq!(reply_of(&mut raw).await.status, 200, "{case}");
            }
            assert_closed(&world, &mut raw, case).await;
            assert_eq!(targets(&world), ["/public/good"; 2], "{case} {bad}");

            // Kept alive, and cut in the middle of heads.
            world.echo.forget();
            let mut raw = Raw::connect(world.gateway.address).await;
            let (first, second) = good.split_at(good.len() / 3);
            let (third, fourth) = bad.split_at(9);
            raw.send(first).await;
            raw.send(format!("{second}{third}")).await;
            assert_eq!(reply_of(&mut raw).await.status, 200, "{case}");
            raw.send(format!("{fourth}{after}")).await;
            assert_closed(&world, &mut raw, case).await;
            assert_eq!(targets(&world), ["/public/good"], "{case} {bad}");
        }
        // Kept alive without end when all is well.
        let mut raw = Raw::connect(world.gateway.address).await;
        for _ in 0..3 {
            raw.send(&good).await;
            assert_eq!(reply_of(&mut raw).await.status, 200, "{case}");
        }
        raw.send(good.repeat(4)).await;
        for _ in 0..4 {
            assert_eq!(reply_of(&mut raw).await.status, 200, "{case}");
        }
    }
}

#[tokio::test]
async fn a_bad_head_behind_a_refusal_is_found_too() {
    let world = World::start().await;
    for first in [
        "GET /grants/1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST /nothing HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "TRACE /public/1 HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\n\r\n",
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!(
            "{first}GET /public/bad#x HTTP/1.1\r\nhost: a\r\n\r\n"
        ))
        .await;
        assert!(raw.whole().await.status > 400, "{first}");
        // Refused, or never read.
        let rest = raw.rest().await;
        assert!(
            rest.is_empty() || rest.starts_with("HTTP/1.1 400 "),
            "{first}: {rest}"
        );
    }
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn a_bad_chunk_breaks_the_request_off() {
    let world = World::start().await;
    let head = "POST /public/1 HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
    for chunks in [
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nx: 1\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "\r\n",
    ] {
        // With its head it never begins …
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!("{head}{chunks}")).await;
        assert_closed(&world, &mut raw, chunks).await;
        assert_eq!(world.echo.requests(), 0, "{chunks:?}");
    }
    for chunks in ["5\nhello\r\n0\r\n\r\n", "5\r\nhello\r\n0\r\nx: 1\n\r\n"] {
        // … and once begun, it does not end.
        world.echo.forget();
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!("{head}1\r\nx\r\n")).await;
        eventually("the upstream has begun", async || {
            world.echo.seen().iter().any(|seen| seen.body_len == 1)
        })
        .await;
        raw.send(chunks).await;
        let reply = raw.whole().await;
        assert_refused(&world.gateway, &reply, 400, "bad_request", "public").await;
        assert_eq!(raw.rest().await, "", "{chunks:?}");
        assert!(!world.echo.seen()[0].complete, "{chunks:?}");
    }
}

#[tokio::test]
async fn a_head_that_begins_with_the_last_request_has_its_time_too() {
    let config = with_lines(
        CONFIG,
        "[server]",
        "header_timeout = \"300ms\"\nidle_timeout = \"1h\"",
    );
    let world = World::with(&config).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nhost: a\r\n\r\nGET /public/2 HT")
        .await;
    assert_eq!(raw.whole().await.status, 200);
    let late = raw.whole().await;
    assert_refused(&world.gateway, &late, 408, "request_timeout", "-").await;
    assert_eq!(raw.rest().await, "");
    assert_eq!(targets(&world), ["/public/1"]);
}

// === hosts ===

#[tokio::test]
async fn a_host_with_an_empty_label_is_none() {
    let world = World::start().await;
    for host in [
        "a..",
        "a..b",
        ".a",
        "..",
        "[]",
        "[1.2.3.4]",
        "[::1]]",
        "[:]",
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!("GET /public/1 HTTP/1.1\r\nhost: {host}\r\n\r\n"))
            .await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 400, "{host}");
        assert_refused(&world.gateway, &reply, 400, "bad_request", "-").await;
    }
    assert_eq!(world.echo.requests(), 0);
    for host in ["a.", "a.b", "[::1]", "[::ffff:1.2.3.4]:80"] {
        let reply = world.get("/public/1").header("host", host).send().await;
        assert_eq!(reply.status, 200, "{host}");
    }
}

// === Max-Forwards ===

/// `OPTIONS` on a connection of its own.
async fn options(world: &World, path: &str, headers: &str) -> Reply {
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(format!(
        "OPTIONS {path} HTTP/1.1\r\nhost: a\r\n{headers}\r\n"
    ))
    .await;
    raw.whole().await
}

#[tokio::test]
async fn max_forwards_0_is_answered_here() {
    let world = World::with(&format!(
        "{CONFIG}\n[[route]]\nname = \"more\"\npath = \"/scoped/*\"\nmethods = [\"DELETE\"]\n\
         upstream = \"echo\"\n"
    ))
    .await;
    let any = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";
    for (path, allow) in [
        ("/public/1", any),
        ("/grants/1", any),
        ("/scoped/1", "DELETE, GET, HEAD, POST"),
        ("/oauth/token", "POST"),
        ("/.well-known/oauth-protected-resource", "GET, HEAD"),
    ] {
        for zero in ["0", "00", " 0 "] {
            let reply = options(&world, path, &format!("max-forwards:{zero}\r\n")).await;
            assert_eq!(reply.status, 204, "{path}: {}", reply.text());
            assert_eq!(reply.header("allow"), Some(allow), "{path}");
            assert_eq!(reply.body.len(), 0);
            let id = reply.header("x-request-id").expect("an id");
            let record = world.gateway.log.record(id).await;
            assert_eq!(record["status"], json!(204), "{record}");
        }
    }
    let nowhere = options(&world, "/nothing", "max-forwards: 0\r\n").await;
    assert_refused(&world.gateway, &nowhere, 404, "no_route", "-").await;
    for garbage in ["", "x", "-1", "+1", "1.0", "0, 0", "0\r\nmax-forwards: 0"] {
        let reply = options(&world, "/public/1", &format!("max-forwards: {garbage}\r\n")).await;
        assert_eq!(reply.status, 400, "{garbage}");
        assert_refused(&world.gateway, &reply, 400, "bad_request", "-").await;
    }
    for method in ["TRACE", "CONNECT"] {
        for headers in ["", "max-forwards: 0\r\n", "max-forwards: 5\r\n"] {
            let mut raw = Raw::connect(world.gateway.address).await;
            let target = if method == "TRACE" {
                "/public/1"
            } else {
                "a:80"
            };
            raw.send(format!(
                "{method} {target} HTTP/1.1\r\nhost: a\r\n{headers}\r\n"
            ))
            .await;
            let reply = raw.whole().await;
            assert_refused(&world.gateway, &reply, 405, "method_not_allowed", "-").await;
        }
    }
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn max_forwards_is_counted_down_on_options_alone() {
    let world = World::start().await;
    for (sent, arrives) in [
        ("1", "0"),
        ("10", "9"),
        ("99999999999999999999999", "18446744073709551614"),
    ] {
        let headers = format!("max-forwards: {sent}\r\n");
        let reply = options(&world, "/public/1", &headers).await;
        assert_eq!(reply.status, 200, "{sent}");
        assert_eq!(reply.upstream_saw("max-forwards"), [arrives], "{sent}");
        // Who has to show a token still has to.
        let refused = options(&world, "/grants/1", &headers).await;
        assert_refused(&world.gateway, &refused, 401, "missing_token", "grants").await;
    }
    for value in ["0", "5", "x"] {
        let reply = world
            .get("/public/1")
            .header("max-forwards", value)
            .send()
            .await;
        assert_eq!(reply.status, 200, "{value}");
        assert_eq!(reply.upstream_saw("max-forwards"), [value]);
    }
    let plain = options(&world, "/public/1", "").await;
    assert_eq!(plain.status, 200);
    assert!(plain.upstream_saw("max-forwards").is_empty());
}

// === a second token in a form ===

#[tokio::test]
async fn a_token_in_the_header_and_in_the_form_is_one_too_many() {
    let world = World::start().await;
    let filler = "x".repeat(HELD_BACK - 100);
    for (content_type, body) in [
        (FORM, "access_token=x"),
        (FORM, "access_token="),
        (FORM, "access_token"),
        (FORM, "a=b&access_token=x&c=d"),
        (FORM, "a=b&access%5Ftoken=x"),
        (FORM, "a=b&%61ccess_toke%6E"),
        (FORM, &format!("a={filler}&access_token=x")),
        (
            "Application/X-WWW-Form-URLEncoded; Charset=utf-8",
            "access_token=x",
        ),
    ] {
        for (path, route) in [("/grants/1", "grants"), ("/optional/1", "optional")] {
            // Cold, then from the cache of verified tokens.
            for _ in 0..2 {
                let both = world
                    .post(path)
                    .bearer(&world.auth.token())
                    .header("content-type", content_type)
                    .body(body.to_owned());
                let reply = both.send().await;
                assert_refused(&world.gateway, &reply, 400, "multiple_tokens", route).await;
            }
        }
    }
    // A piece at a time, and a header field by which the form would be none upstream.
    let token = world.auth.token();
    for fields in ["x-a: b", "connection: content-type"] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!(
            "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n{fields}\r\n\
             content-type: {FORM}\r\ntransfer-encoding: chunked\r\n\r\n"
        ))
        .await;
        for byte in "a=b&access%5ftoken".chars() {
            raw.send(format!("1\r\n{byte}\r\n")).await;
        }
        raw.send("0\r\n\r\n").await;
        let reply = raw.whole().await;
        assert_refused(&world.gateway, &reply, 400, "multiple_tokens", "grants").await;
    }
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn a_form_without_a_second_token_arrives_whole() {
    let world = World::start().await;
    let token = world.auth.token();
    let long: String = (0..40_000).map(|n| format!("p{n}={n}&")).collect();
    assert!(long.len() > 4 * HELD_BACK);
    for body in [
        "",
        "a=b",
        "a=access_token&access_tokens=x&Access_Token=y&b=%26access_token=",
        &long[..HELD_BACK - 1],
        &long[..HELD_BACK],
        &long[..=HELD_BACK],
        &long,
    ] {
        let size = body.len();
        let sized = world
            .post("/grants/stream")
            .bearer(&token)
            .header("content-type", FORM)
            .body(body.to_owned());
        let reply = sized.send().await;
        assert_eq!(reply.status, 200, "{size}: {}", reply.text());
        assert!(reply.text() == body, "{size}");
        let mut raw = Raw::connect(world.gateway.address).await;
        let last = if body.is_empty() { "" } else { "0\r\n\r\n" };
        raw.send(format!(
            "POST /grants/sized HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\
             content-type: {FORM}\r\ntransfer-encoding: chunked\r\n\r\n{size:x}\r\n{body}\r\n{last}"
        ))
        .await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 200, "{size}: {}", reply.text());
        assert_eq!(reply.json()["body_bytes"], json!(size));
    }
    // A form is searched only if a token came in the header, and nothing but a form is.
    let alone = world
        .post("/public/1")
        .bearer(&token)
        .form(&[("access_token", "x")]);
    assert_eq!(alone.send().await.status, 200);
    let anonymous = world.post("/optional/1").form(&[("access_token", "x")]);
    assert_eq!(anonymous.send().await.status, 200);
    let text = world
        .post("/grants/1")
        .bearer(&token)
        .header("content-type", "text/plain")
        .body("access_token=x");
    assert_eq!(text.send().await.status, 200);
}

#[tokio::test]
async fn a_second_token_far_behind_breaks_the_request_off() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let filler = "x".repeat(2 * HELD_BACK);
    let late = "&access_token=x";
    raw.send(format!(
        "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: {FORM}\r\n\
         content-length: {}\r\n\r\n{filler}",
        world.auth.token(),
        filler.len() + late.len()
    ))
    .await;
    eventually("the upstream reads", async || {
        world.echo.seen().iter().any(|seen| seen.body_len > 0)
    })
    .await;
    raw.send(late).await;
    let reply = raw.whole().await;
    assert_refused(&world.gateway, &reply, 400, "multiple_tokens", "grants").await;
    assert!(!world.echo.seen()[0].complete);
    assert!(world.echo.seen()[0].body_len <= filler.len() as u64);
}

#[tokio::test]
async fn limits_hold_while_a_form_is_held_back() {
    for (lines, sent, status, reason) in [
        (
            "body_timeout = \"300ms\"",
            "3\r\na=b\r\n",
            408,
            "request_timeout",
        ),
        ("max_body = \"4B\"", "5\r\na=b&c\r\n", 413, "body_too_large"),
        ("", "g\r\n", 400, "bad_request"),
    ] {
        let world = World::with(&with_lines(CONFIG, "[server]", lines)).await;
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!(
            "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\
             expect: 100-continue\r\ncontent-type: {FORM}\r\ntransfer-encoding: chunked\r\n\r\n",
            world.auth.token(),
        ))
        .await;
        // Only then does the client send anything.
        within("100", raw.expect("HTTP/1.1 100 Continue\r\n\r\n")).await;
        raw.send(sent).await;
        let reply = raw.whole().await;
        assert_refused(&world.gateway, &reply, status, reason, "grants").await;
        assert_eq!(world.echo.requests(), 0, "{reason}");
    }
    // The route's own time counts from the beginning.
    let config = CONFIG.replace(
        "name = \"grants\"",
        "name = \"grants\"\ntimeout = \"300ms\"",
    );
    let world = World::with(&config).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(format!(
        "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: {FORM}\r\n\
         content-length: 10\r\n\r\na=b",
        world.auth.token(),
    ))
    .await;
    let reply = raw.whole().await;
    assert_refused(&world.gateway, &reply, 408, "request_timeout", "grants").await;
    assert_eq!(world.echo.requests(), 0);
}

/// Every byte comes in time, but all of them together do not: what is held back is memory that is
/// lent to the caller.
#[tokio::test]
async fn a_form_that_trickles_is_not_held_back_for_ever() {
    let config = CONFIG.replace("name = \"grants\"", "name = \"grants\"\ntimeout = \"0s\"");
    let config = with_lines(&config, "[server]", "body_timeout = \"500ms\"");
    let world = World::with(&config).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(format!(
        "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: {FORM}\r\n\
         content-length: {HELD_BACK}\r\n\r\na=",
        world.auth.token(),
    ))
    .await;
    let started = Instant::now();
    // Waits for the reply; as long as there is none, it is time for another byte.
    while timeout(Duration::from_millis(50), raw.stream.readable())
        .await
        .is_err()
    {
        assert!(started.elapsed() < Duration::from_secs(10), "held back");
        raw.send("b").await;
    }
    let reply = raw.whole().await;
    assert_refused(&world.gateway, &reply, 408, "request_timeout", "grants").await;
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn a_form_that_is_asked_for_is_searched_and_sent() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    for (body, status) in [("a=b", 200), ("access_token=x", 400), ("c=d", 200)] {
        raw.send(format!(
            "POST /grants/1 HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: {FORM}\r\n\
             expect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            world.auth.token(),
            body.len()
        ))
        .await;
        raw.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
        raw.send(body).await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        if status == 200 {
            assert_eq!(reply.json()["body"], json!(body));
        }
    }
    assert_eq!(world.echo.requests(), 2);
}
