//! Every refusal that there is: status, reason, headers, log and metric; and what it leaves behind.

use crate::harness::{
    CONFIG, Gateway, Raw, Reply, Request, Scripted, World, assert_refused, eventually, local,
    nobody, request, with_lines, within,
};
use bonterra_gateway::demo::auth::{BonterraAuth, KeyChoice};
use bonterra_gateway::demo::echo::Echo;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;

const SERVER: &str = "[server]";
const UPSTREAM: &str = "[upstream.echo]";
const BARE: &str = "Bearer realm=\"bonterra\"";

/// How a 401 or 403 has to challenge.
enum Challenge {
    None,
    Bare,
    InvalidToken,
    Scope(&'static str),
}

fn assert_challenge(reply: &Reply, expected: &Challenge, case: &str) {
    let given = reply.header("www-authenticate");
    let Some(given) = given else {
        assert!(matches!(expected, Challenge::None), "{case}: no challenge");
        return;
    };
    assert_eq!(
        reply.headers.get_all("www-authenticate").iter().count(),
        1,
        "{case}"
    );
    assert!(given.starts_with(BARE), "{case}: {given}");
    match expected {
        Challenge::None => panic!("{case}: challenged by {given}"),
        // RFC 6750 §3.1: without a token, no error code and nothing that explains one.
        Challenge::Bare => assert!(
            !given.contains("error") && !given.contains("scope"),
            "{case}: {given}"
        ),
        Challenge::InvalidToken => {
            assert!(
                given.contains("error=\"invalid_token\", error_description=\""),
                "{case}: {given}"
            );
            assert!(!given.contains("scope="), "{case}: {given}");
        }
        Challenge::Scope(scope) => {
            assert!(
                given.contains("error=\"insufficient_scope\""),
                "{case}: {given}"
            );
            assert!(
                given.contains(&format!("scope=\"{scope}\"")),
                "{case}: {given}"
            );
        }
    }
}

/// What a client must be able to read off every refusal: RFC 9457, and nothing that may be stored.
fn assert_problem(reply: &Reply, reason: &str) {
    let problem = reply.json();
    let members: Vec<&String> = problem.as_object().expect("an object").keys().collect();
    assert_eq!(
        members,
        ["type", "title", "status", "detail", "reason", "request_id"]
    );
    assert!(
        problem["type"]
            .as_str()
            .is_some_and(|uri| uri.contains(reason)),
        "{problem}"
    );
    for member in ["title", "detail"] {
        assert!(
            problem[member]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{problem}"
        );
    }
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(
        reply.header("content-length"),
        Some(reply.body.len().to_string().as_str())
    );
}

const RULES: &str = r#"
[[route]]
name = "any_of"
path = "/any-of/*"
upstream = "echo"
any_scope = ["admin", "audit"]

[[route]]
name = "elsewhere"
path = "/elsewhere/*"
upstream = "echo"
allow_ips = ["192.0.2.0/24", "2001:db8::/32"]

[[route]]
name = "nobody"
path = "/nobody/*"
upstream = "nobody"
auth = "none"

[upstream.nobody]
servers = ["NOBODY"]
"#;

async fn world_of_rules() -> World {
    let config = with_lines(
        CONFIG,
        "[issuer.bonterra]",
        "max_lifetime = \"48h\"\nmax_token_bytes = \"4KiB\"",
    );
    World::with(&format!(
        "{config}{}",
        RULES.replace("NOBODY", &format!("http://{}", nobody()))
    ))
    .await
}

#[tokio::test]
async fn every_refusal_says_the_same_in_body_log_and_metric() {
    let world = world_of_rules().await;
    let claims = world.auth.claims();
    let header = |header: Value| world.auth.mint_with(&header, &claims, &KeyChoice::Current);
    let with = |changes: Value| world.token_with(changes);
    let get = |path: &str, token: &str| world.get(path).bearer(token);
    let good = world.auth.token();
    let unsigned =
        world
            .auth
            .mint_with(&json!({}), &claims, &KeyChoice::Secret(b"secret".to_vec()));
    let altered = world.auth.mint_with(
        &json!({ "kid": world.auth.current_kid() }),
        &claims,
        &KeyChoice::Unpublished,
    );
    let of = |method: &str, path: &str| request(world.gateway.address, method, path).bearer(&good);
    use Challenge::{Bare, InvalidToken, None, Scope};
    let rows: Vec<(Request, u16, &str, &str, Challenge)> = vec![
        (world.get("/grants/../x"), 400, "bad_request", "-", None),
        (
            world
                .authorized("/grants/1")
                .header("authorization", "Bearer x"),
            400,
            "multiple_tokens",
            "grants",
            None,
        ),
        (world.get("/grants/1"), 401, "missing_token", "grants", Bare),
        (
            world.get("/grants/1").header("authorization", "Basic YTpi"),
            401,
            "missing_token",
            "grants",
            Bare,
        ),
        (
            get("/grants/1", "a.b.c"),
            401,
            "malformed_token",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &"x".repeat(4097)),
            401,
            "token_too_large",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &header(json!({ "typ": "id+jwt" }))),
            401,
            "wrong_type",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &unsigned),
            401,
            "algorithm_not_allowed",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &header(json!({ "kid": "x" }))),
            401,
            "unknown_key",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &altered),
            401,
            "bad_signature",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "iss": "x" }))),
            401,
            "wrong_issuer",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "aud": "x" }))),
            401,
            "wrong_audience",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "exp": 1 }))),
            401,
            "expired",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "nbf": 9_999_999_999_u64 }))),
            401,
            "not_yet_valid",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "exp": 9_999_999_999_u64 }))),
            401,
            "too_long_lived",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &header(json!({ "crit": ["x"] }))),
            401,
            "critical_header",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "exp": null }))),
            401,
            "missing_claim",
            "grants",
            InvalidToken,
        ),
        (
            get("/grants/1", &with(json!({ "cnf": { "jkt": "x" } }))),
            401,
            "bound_token",
            "grants",
            InvalidToken,
        ),
        (
            get("/scoped/1", &with(json!({ "scope": "read:grants" }))),
            403,
            "insufficient_scope",
            "scoped",
            Scope("read:grants write:grants"),
        ),
        (
            get("/any-of/1", &good),
            403,
            "insufficient_scope",
            "any_of",
            Scope("admin audit"),
        ),
        (
            get(
                "/grants/1",
                &with(json!({ "urn:bonterra:claims:is_bonterra_grants": false })),
            ),
            403,
            "claim_mismatch",
            "grants",
            None,
        ),
        (
            get("/elsewhere/1", &good),
            403,
            "ip_not_allowed",
            "elsewhere",
            None,
        ),
        (
            world.get("/elsewhere/1"),
            403,
            "ip_not_allowed",
            "elsewhere",
            None,
        ),
        (get("/nothing", &good), 404, "no_route", "-", None),
        (world.get("/"), 404, "no_route", "-", None),
        (
            of("DELETE", "/scoped/1"),
            405,
            "method_not_allowed",
            "-",
            None,
        ),
        (
            of("TRACE", "/public/1"),
            405,
            "method_not_allowed",
            "-",
            None,
        ),
        (
            of("BREW", "/scoped/1"),
            405,
            "method_not_allowed",
            "-",
            None,
        ),
        (
            world.get("/nobody/1"),
            502,
            "upstream_connect",
            "nobody",
            None,
        ),
    ];
    for (request, status, reason, route, challenge) in rows {
        let reply = request.send().await;
        assert_refused(&world.gateway, &reply, status, reason, route).await;
        assert_problem(&reply, reason);
        assert_challenge(&reply, &challenge, reason);
        assert_eq!(reply.header("allow").is_some(), status == 405, "{reason}");
        assert_eq!(
            reply.header("retry-after").is_some(),
            status == 503,
            "{reason}"
        );
        assert_eq!(
            reply.header("connection"),
            Option::None,
            "{reason}: the connection is good still"
        );
    }
    assert_eq!(
        world.echo.requests(),
        0,
        "the upstream saw a refused request"
    );
}

#[tokio::test]
async fn a_refusal_tells_its_reason_and_keeps_the_particulars_to_the_log() {
    let world = World::start().await;
    let token = world.token_with(
        json!({ "aud": "https://secret-internal.example", "sub": "somebody@example.com" }),
    );
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert_refused(&world.gateway, &reply, 401, "wrong_audience", "grants").await;
    let said = format!("{:?}{}", reply.headers, reply.text());
    for kept in [
        "secret-internal",
        "somebody",
        "api.bonterra.network",
        "demo-client",
    ] {
        assert!(!said.contains(kept), "{kept}: {said}");
    }
    let record = world
        .gateway
        .log
        .record(reply.header("x-request-id").expect("an id"))
        .await;
    assert!(
        record["note"]
            .as_str()
            .is_some_and(|note| note.contains("aud")),
        "{record}"
    );
    assert_eq!(
        record.get("subject"),
        None,
        "nobody was identified: {record}"
    );
}

#[tokio::test]
async fn allow_names_the_methods_of_all_routes_of_the_path() {
    let config = format!(
        "{CONFIG}
[[route]]
name = \"scoped_delete\"
path = \"/scoped/*\"
methods = [\"DELETE\", \"PATCH\"]
upstream = \"echo\"
auth = \"none\"
"
    );
    let world = World::with(&config).await;
    let of = |method: &str| request(world.gateway.address, method, "/scoped/1");
    let refused = of("PUT").send().await;
    assert_refused(&world.gateway, &refused, 405, "method_not_allowed", "-").await;
    assert_eq!(
        refused.header("allow"),
        Some("DELETE, GET, HEAD, PATCH, POST")
    );
    assert_eq!(of("DELETE").send().await.status, 200);
    assert_eq!(of("GET").send().await.status, 401);
    assert_eq!(
        of("HEAD").send().await.status,
        401,
        "who answers GET answers HEAD"
    );
}

#[tokio::test]
async fn a_refused_head_has_the_same_headers_and_no_body() {
    let world = World::start().await;
    for (path, status) in [("/grants/1", 401), ("/nothing", 404), ("/grants/../1", 400)] {
        let get = world.get(path).send().await;
        let head = request(world.gateway.address, "HEAD", path).send().await;
        assert_eq!((get.status, head.status), (status, status), "{path}");
        assert!(head.body.is_empty(), "{path}");
        for name in ["content-type", "www-authenticate", "cache-control"] {
            assert_eq!(get.header(name), head.header(name), "{path} {name}");
        }
        let record = world
            .gateway
            .log
            .record(head.header("x-request-id").expect("an id"))
            .await;
        assert_eq!(
            (&record["method"], &record["status"]),
            (&json!("HEAD"), &json!(status))
        );
    }
    // No byte of a body may stand where the next reply is expected.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("HEAD /grants/1 HTTP/1.1\r\nhost: a\r\n\r\nGET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await;
    let both = raw.rest().await;
    assert_eq!(both.matches("HTTP/1.1 ").count(), 2, "{both}");
    assert!(both.contains("\r\n\r\nHTTP/1.1 404 "), "{both}");
}

// === the request does not come, or is too much ===

#[tokio::test]
async fn a_head_that_does_not_come_to_an_end_is_refused_in_time() {
    let world = World::with(&with_lines(CONFIG, SERVER, "header_timeout = \"200ms\"")).await;
    for start in [
        "G",
        "GET /public/1 HTTP/1.1\r\n",
        "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: ",
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        let begun = Instant::now();
        raw.send(start).await;
        let reply = raw.whole().await;
        assert!(
            begun.elapsed() >= Duration::from_millis(190),
            "{:?}",
            begun.elapsed()
        );
        assert_refused(&world.gateway, &reply, 408, "request_timeout", "-").await;
        assert_problem(&reply, "request_timeout");
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(raw.rest().await, "", "closed after it");
    }
    // The second head of a connection has the same deadline, counted from its own beginning.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.whole().await.status, 200);
    raw.send("GET /pub").await;
    let reply = raw.whole().await;
    assert_refused(&world.gateway, &reply, 408, "request_timeout", "-").await;
    assert_eq!(raw.rest().await, "");
    assert_eq!(world.echo.requests(), 1);
}

#[tokio::test]
async fn a_head_that_trickles_does_not_stretch_its_time() {
    let world = World::with(&with_lines(CONFIG, SERVER, "header_timeout = \"300ms\"")).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let begun = Instant::now();
    raw.send("GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: ").await;
    // Ten times as long as allowed, a byte at a time: the gateway must not wait for that.
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if raw.stream.write_all(b"x").await.is_err() {
            break;
        }
    }
    assert!(
        begun.elapsed() < Duration::from_millis(2500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(world.echo.requests(), 0);
    let series = "gateway_rejections_total{reason=\"request_timeout\",route=\"-\"}";
    eventually("the refusal", || async {
        world.gateway.metric(series).await == 1.0
    })
    .await;
}

#[tokio::test]
async fn silence_between_requests_ends_without_a_word() {
    let world = World::with(&with_lines(
        CONFIG,
        SERVER,
        "idle_timeout = \"100ms\"\nheader_timeout = \"5s\"",
    ))
    .await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(raw.whole().await.status, 200);
    let begun = Instant::now();
    assert_eq!(raw.rest().await, "");
    assert!(
        begun.elapsed() >= Duration::from_millis(90) && begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
    let refused = "gateway_rejections_total{reason=\"request_timeout\",route=\"-\"}";
    assert_eq!(world.gateway.metric(refused).await, 0.0);
}

#[tokio::test]
async fn a_body_that_stalls_is_refused_in_time() {
    let world = World::with(&with_lines(CONFIG, SERVER, "body_timeout = \"200ms\"")).await;
    for (path, route) in [
        ("/public/sink", "public"),
        ("/oauth/token", "oauth.bonterra"),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        let begun = Instant::now();
        raw.send(format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello"
        ))
        .await;
        let reply = raw.whole().await;
        assert!(
            begun.elapsed() >= Duration::from_millis(190),
            "{:?}",
            begun.elapsed()
        );
        if route == "oauth.bonterra" {
            // The OAuth surface has the errors of RFC 6749.
            assert_eq!(reply.status, 408, "{}", reply.text());
            assert_eq!(reply.json()["error"], "invalid_request");
            continue;
        }
        assert_refused(&world.gateway, &reply, 408, "request_timeout", route).await;
        assert_eq!(reply.header("connection"), Some("close"), "{path}");
        assert_eq!(raw.rest().await, "", "{path}");
    }
    assert_eq!(world.auth.counts().token, 0);
    assert!(
        world.echo.seen().iter().all(|seen| !seen.complete),
        "half a body passed for a whole one"
    );
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_or_while_it_comes() {
    let config = with_lines(
        CONFIG,
        "[[route]]\nname = \"public\"",
        "max_body = \"1KiB\"",
    );
    let world = World::with(&config).await;
    let just = world
        .post("/public/sink")
        .body(vec![b'x'; 1024])
        .send()
        .await;
    assert_eq!(
        (just.status, just.json()["body_bytes"].clone()),
        (200, json!(1024))
    );
    world.echo.forget();
    let before = world.echo.requests();

    // Declared: refused at the head, with or without the body that was announced.
    for (length, extra) in [
        ("1025", ""),
        ("99999999999", ""),
        ("18446744073709551613", ""),
        ("1025", "expect: 100-continue\r\n"),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(format!(
            "POST /public/sink HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{extra}\r\n"
        ))
        .await;
        let reply = raw.whole().await;
        assert_refused(&world.gateway, &reply, 413, "body_too_large", "public").await;
        assert_problem(&reply, "body_too_large");
        assert_eq!(reply.header("connection"), Some("close"));
        assert_eq!(raw.rest().await, "", "and not parsed for another request");
    }
    assert_eq!(world.echo.requests(), before, "the upstream saw it");

    // Chunked: only found out on the way, and never passed on as whole.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("POST /public/sink HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n200\r\n")
        .await;
    raw.send(format!(
        "{}\r\n201\r\n{}\r\n0\r\n\r\n",
        "x".repeat(0x200),
        "x".repeat(0x201)
    ))
    .await;
    let reply = raw.whole().await;
    assert_refused(&world.gateway, &reply, 413, "body_too_large", "public").await;
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(
        world
            .echo
            .seen()
            .iter()
            .all(|seen| !seen.complete && seen.body_len <= 1024),
        "{:?}",
        world.echo.seen()
    );
    assert_eq!(
        world.get("/public/1").send().await.status,
        200,
        "and the upstream is well"
    );
}

#[tokio::test]
async fn a_head_over_the_limit_is_refused_in_our_words() {
    let world = World::with(&with_lines(
        CONFIG,
        SERVER,
        "max_header_bytes = \"8KiB\"\nmax_headers = 20",
    ))
    .await;
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("x-{n}: 1\r\n"))
            .collect::<String>()
    };
    for (case, head) in [
        (
            "a long header",
            format!(
                "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n",
                "x".repeat(9000)
            ),
        ),
        (
            "a long target",
            format!(
                "GET /public/{} HTTP/1.1\r\nhost: a\r\n\r\n",
                "x".repeat(9000)
            ),
        ),
        (
            "a long query",
            format!(
                "GET /public/1?{} HTTP/1.1\r\nhost: a\r\n\r\n",
                "x".repeat(9000)
            ),
        ),
        (
            "many headers",
            format!("GET /public/1 HTTP/1.1\r\nhost: a\r\n{}\r\n", many(20)),
        ),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(head).await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 431, "{case}: {}", reply.text());
        assert_refused(&world.gateway, &reply, 431, "headers_too_large", "-").await;
        assert_problem(&reply, "headers_too_large");
        assert_eq!(reply.header("connection"), Some("close"), "{case}");
        assert_eq!(raw.rest().await, "", "{case}");
    }
    assert_eq!(world.echo.requests(), 0);
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(format!(
        "GET /public/1 HTTP/1.1\r\nhost: a\r\n{}x-long: {}\r\n\r\n",
        many(18),
        "x".repeat(7000)
    ))
    .await;
    assert_eq!(raw.whole().await.status, 200, "just within the limits");
}

#[tokio::test]
async fn a_malformed_head_is_refused_in_our_words() {
    let world = World::start().await;
    for (case, head) in [
        ("no version", "GET /public/1\r\nhost: a\r\n\r\n"),
        (
            "another protocol",
            "GET /public/1 SIP/2.0\r\nhost: a\r\n\r\n",
        ),
        (
            "a version from the future",
            "GET /public/1 HTTP/3.7\r\nhost: a\r\n\r\n",
        ),
        (
            "a space in the method",
            "GE T /public/1 HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        ("two spaces", "GET  /public/1 HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "a space in the target",
            "GET /public/1 2 HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "a space before the colon",
            "GET /public/1 HTTP/1.1\r\nhost : a\r\n\r\n",
        ),
        (
            "an empty header name",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\n: x\r\n\r\n",
        ),
        (
            "no colon",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a\r\n\r\n",
        ),
        (
            "a header name with a bracket",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\nx[a]: 1\r\n\r\n",
        ),
        (
            "a folded line",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: 1\r\n 2\r\n\r\n",
        ),
        (
            "a NUL",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: 1\x002\r\n\r\n",
        ),
        (
            "a bare CR",
            "GET /public/1 HTTP/1.1\r\nhost: a\r\nx-a: 1\r2\r\n\r\n",
        ),
        (
            "a NUL in the target",
            "GET /public/\0 HTTP/1.1\r\nhost: a\r\n\r\n",
        ),
        (
            "TLS on a plain port",
            "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n",
        ),
        ("no Host", "GET /public/1 HTTP/1.1\r\n\r\n"),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(head).await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 400, "{case}: {}", reply.text());
        assert_refused(&world.gateway, &reply, 400, "bad_request", "-").await;
        assert_problem(&reply, "bad_request");
    }
    assert_eq!(world.echo.requests(), 0);
    // What is not read to its end is no request that could be answered twice.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nhost : a\r\n\r\nGET /public/2 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let rest = raw.rest().await;
    assert_eq!(rest.matches("HTTP/1.1 ").count(), 1, "{rest}");
    assert!(
        rest.to_ascii_lowercase().contains("connection: close"),
        "{rest}"
    );
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let world = World::with(&with_lines(CONFIG, SERVER, "max_connections = 2")).await;
    let mut first = Raw::connect(world.gateway.address).await;
    let mut second = Raw::connect(world.gateway.address).await;
    let get = "GET /public/1 HTTP/1.1\r\nhost: a\r\n\r\n";
    for raw in [&mut first, &mut second] {
        raw.send(get).await;
        assert_eq!(raw.whole().await.status, 200);
    }
    let mut third = Raw::connect(world.gateway.address).await;
    let reply = third.whole().await;
    assert_refused(&world.gateway, &reply, 503, "overloaded", "-").await;
    assert!(
        reply
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    assert_eq!(reply.header("connection"), Some("close"));
    for raw in [&mut first, &mut second] {
        raw.send(get).await;
        assert_eq!(raw.whole().await.status, 200, "those that are in stay in");
    }
    drop(first);
    eventually("a free place", || async {
        let reply = world.get("/public/1").try_send().await;
        reply.is_ok_and(|reply| reply.status == 200)
    })
    .await;
}

// === what lies behind the gateway is at fault ===

#[tokio::test]
async fn an_upstream_that_fails_is_told_apart() {
    let broken = Scripted::start("").await;
    let garbage = Scripted::start("SSH-2.0-OpenSSH_9.9\r\n").await;
    let upgraded = Scripted::start(
        "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
    )
    .await;
    let mut config = with_lines(CONFIG, UPSTREAM, "response_timeout = \"200ms\"");
    for (name, url) in [
        ("nobody", format!("http://{}", nobody())),
        ("broken", broken.url()),
        ("garbage", garbage.url()),
        ("upgraded", upgraded.url()),
    ] {
        config += &format!(
            "\n[upstream.{name}]\nservers = [\"{url}\"]\n
[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"{name}\"\nauth = \"none\"\n"
        );
    }
    let world = World::with(&config).await;
    for (path, status, reason, route) in [
        ("/nobody", 502, "upstream_connect", "nobody"),
        ("/broken", 502, "upstream_reset", "broken"),
        ("/garbage", 502, "upstream_protocol", "garbage"),
        ("/upgraded", 502, "upstream_protocol", "upgraded"),
        (
            "/public/slow-head?ms=5000",
            504,
            "upstream_timeout",
            "public",
        ),
    ] {
        let begun = Instant::now();
        let reply = world.post(path).body("hello").send().await;
        assert_refused(&world.gateway, &reply, status, reason, route).await;
        assert_problem(&reply, reason);
        assert!(
            begun.elapsed() < Duration::from_secs(3),
            "{reason}: {:?}",
            begun.elapsed()
        );
        if status == 504 {
            assert!(
                begun.elapsed() >= Duration::from_millis(190),
                "{:?}",
                begun.elapsed()
            );
        }
    }
    assert_eq!(broken.received().len(), 1, "a POST goes out once");
    assert_eq!(
        world.get("/public/1").send().await.status,
        200,
        "other requests are not affected"
    );
}

#[tokio::test]
async fn a_token_that_cannot_be_checked_is_no_invalid_token() {
    let auth = BonterraAuth::start(Default::default())
        .await
        .expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    auth.stop().await;
    let gateway = Gateway::start(
        &CONFIG
            .replace("ISSUER", auth.issuer())
            .replace("ECHO", &echo.url()),
    )
    .await;
    let get = |path: &str| request(gateway.address, "GET", path);
    for (path, route) in [("/grants/1", "grants"), ("/optional/1", "optional")] {
        let reply = get(path).bearer(&auth.token()).send().await;
        assert_refused(&gateway, &reply, 503, "keys_unavailable", route).await;
        assert_problem(&reply, "keys_unavailable");
        assert!(
            reply
                .header("retry-after")
                .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
        );
        assert_eq!(reply.header("www-authenticate"), None);
    }
    // What needs no keys to be judged is judged.
    for (request, status) in [
        (get("/grants/1"), 401),
        (get("/grants/1").bearer("x"), 401),
        (get("/optional/1"), 200),
        (get("/public/1").bearer("x"), 200),
        (get("/nothing"), 404),
    ] {
        assert_eq!(request.send().await.status, status);
    }
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 503);
    auth.restart().await.expect("the issuer again");
    within("ready", gateway.app.ready()).await;
    assert_eq!(
        get("/grants/1").bearer(&auth.token()).send().await.status,
        200,
        "it recovers by itself"
    );
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
}

// === what a refusal leaves behind ===

#[tokio::test]
async fn a_connection_lives_on_after_a_refusal() {
    let world = world_of_rules().await;
    let token = world.auth.token();
    let mut raw = Raw::connect(world.gateway.address).await;
    for (request, status) in [
        ("GET /grants/1 HTTP/1.1\r\n".to_owned(), 401),
        (
            "GET /grants/1 HTTP/1.1\r\nauthorization: Bearer x\r\n".to_owned(),
            401,
        ),
        ("GET /nothing HTTP/1.1\r\n".to_owned(), 404),
        ("DELETE /scoped/1 HTTP/1.1\r\n".to_owned(), 405),
        ("GET /elsewhere/1 HTTP/1.1\r\n".to_owned(), 403),
        ("GET /grants//1 HTTP/1.1\r\n".to_owned(), 400),
        ("GET /nobody/1 HTTP/1.1\r\n".to_owned(), 502),
        (
            format!("GET /grants/1 HTTP/1.1\r\nauthorization: Bearer {token}\r\n"),
            200,
        ),
    ] {
        raw.send(format!("{request}host: a\r\n\r\n")).await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, status, "{request}: {}", reply.text());
    }
    let open = world
        .gateway
        .metric("gateway_connections{listener=\"http\"}")
        .await;
    assert!(open <= 1.0, "{open}");
}

#[tokio::test]
async fn the_body_of_a_refused_request_is_never_taken_for_the_next_request() {
    let world = World::start().await;
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let chunk = format!("{:x}\r\n{smuggled}\r\n0\r\n\r\n", smuggled.len());
    for (case, framing, body) in [
        (
            "a declared body",
            format!("content-length: {}", smuggled.len()),
            smuggled.to_owned(),
        ),
        (
            "a chunked body",
            "transfer-encoding: chunked".to_owned(),
            chunk,
        ),
        (
            "a body that only begins",
            "content-length: 1000000".to_owned(),
            smuggled.repeat(5),
        ),
    ] {
        for target in ["/grants/1", "/nothing", "/grants/../1"] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(format!(
                "POST {target} HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n{body}"
            ))
            .await;
            assert!(raw.whole().await.status >= 400, "{case}");
            // Its own parse, or the end: both are fine, the body as a request is not.
            let _ = raw
                .stream
                .write_all(b"GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
                .await;
            let rest = raw.rest().await;
            assert!(
                rest.is_empty() || rest.starts_with("HTTP/1.1 404 "),
                "{case} {target}: {rest}"
            );
            assert!(
                rest.matches("HTTP/1.1 ").count() <= 1,
                "{case} {target}: {rest}"
            );
        }
    }
    assert!(world.echo.seen().is_empty(), "{:?}", world.echo.seen());
}

#[tokio::test]
async fn log_and_metrics_hold_no_credential() {
    let world = World::start().await;
    let good = world.auth.token();
    let bad = world.token_with(json!({ "exp": 1, "email": "someone@example.com" }));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let issued = world
        .post("/oauth/token?client_secret=in-the-query")
        .form(&form)
        .send()
        .await;
    let issued = issued.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let wrong = [
        ("grant_type", "client_credentials"),
        ("client_id", "client-gone-wrong"),
        ("client_secret", "wrong-secret"),
    ];
    assert_eq!(
        world.post("/oauth/token").form(&wrong).send().await.status,
        401
    );
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-web"),
        ("refresh_token", "v1.some-refresh-token"),
    ];
    world.post("/oauth/token").form(&refresh).send().await;
    world
        .post("/oauth/token")
        .header("authorization", "Basic c2VjcmV0LWluLWJhc2lj")
        .form(&form)
        .send()
        .await;
    for token in [&good, &bad] {
        let request = world
            .get(&format!("/grants/1?access_key=query-secret&t={token}"))
            .bearer(token);
        request
            .header("cookie", "session=cookie-secret")
            .header("x-api-key", "header-secret")
            .send()
            .await;
    }
    let last = world
        .get("/grants/1?access_token=query-token")
        .bearer(&good)
        .send()
        .await;
    world
        .gateway
        .log
        .record(last.header("x-request-id").expect("an id"))
        .await;
    let (log, metrics) = (
        world.gateway.log.text(),
        world.gateway.admin("GET", "/metrics").await.text(),
    );
    assert!(
        log.contains("/grants/1")
            && log.contains("/oauth/token")
            && metrics.contains("gateway_requests_total")
    );
    let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
    for secret in [
        good.clone(),
        signature(&good),
        signature(&bad),
        signature(&issued),
        "demo-secret".to_owned(),
        "wrong-secret".to_owned(),
        "in-the-query".to_owned(),
        "some-refresh-token".to_owned(),
        "c2VjcmV0LWluLWJhc2lj".to_owned(),
        "query-secret".to_owned(),
        "query-token".to_owned(),
        "cookie-secret".to_owned(),
        "header-secret".to_owned(),
        "someone@example.com".to_owned(),
    ] {
        assert!(!log.contains(&secret), "{secret} is in the log");
        assert!(!metrics.contains(&secret), "{secret} is in the metrics");
    }
    for label in ["client-gone-wrong", "demo-client", "/grants/1"] {
        assert!(!metrics.contains(label), "{label} is in a label");
    }
}

#[tokio::test]
async fn what_clients_invent_makes_no_new_series() {
    let world = World::start().await;
    let series = || async {
        let text = world.gateway.admin("GET", "/metrics").await.text();
        text.lines()
            .filter(|line| line.starts_with("gateway_"))
            .count()
    };
    let invent = |number: usize| {
        let of = |method: &str, path: &str| request(world.gateway.address, method, path);
        [
            of(&format!("BREW{number}"), "/public/1"),
            of("GET", &format!("/nothing/{number}")),
            of("GET", &format!("/public/{number}"))
                .header("host", format!("host-{number}.example")),
            of("GET", "/grants/1")
                .bearer(&world.token_with(json!({ "iss": format!("https://issuer-{number}/") }))),
            of("POST", "/oauth/token").form(&[
                ("grant_type", &format!("grant-{number}")),
                ("client_id", &format!("client-{number}")),
            ]),
        ]
    };
    for request in invent(0) {
        request.send().await;
    }
    let before = series().await;
    for number in 1..20 {
        for request in invent(number) {
            request.send().await;
        }
    }
    assert_eq!(series().await, before);
    assert!(
        world
            .gateway
            .metric("gateway_requests_total{code=\"200\",method=\"other\",route=\"public\"}")
            .await
            >= 20.0
    );
}

#[tokio::test]
async fn a_request_id_is_believed_from_trusted_proxies_only() {
    let config = with_lines(CONFIG, SERVER, "trusted_proxies = [\"127.0.0.0/8\"]");
    for (config, believed) in [(CONFIG, false), (&*config, true)] {
        let world = World::with(config).await;
        let reply = world
            .get("/grants/1")
            .header("x-request-id", "from-outside")
            .send()
            .await;
        assert_refused(&world.gateway, &reply, 401, "missing_token", "grants").await;
        assert_eq!(
            reply.header("x-request-id") == Some("from-outside"),
            believed
        );
        for bad in ["", "a b", &"x".repeat(129)] {
            let reply = world
                .get("/grants/1")
                .header("x-request-id", bad)
                .send()
                .await;
            assert_ne!(reply.header("x-request-id"), Some(bad), "{bad:?}");
        }
    }
}

#[tokio::test]
async fn allowed_addresses_are_those_of_the_client_and_not_of_its_proxy() {
    let rules = RULES.replace("NOBODY", "http://127.0.0.1:9");
    let trusting = with_lines(CONFIG, SERVER, "trusted_proxies = [\"127.0.0.0/8\"]");
    for (config, forwarded, status) in [
        (CONFIG, "192.0.2.7", 403),
        (&*trusting, "192.0.2.7", 200),
        (&trusting, "192.0.2.7, 127.0.0.9", 200),
        (&trusting, "2001:db8::1", 200),
        (&trusting, "192.0.2.7, 198.51.100.1", 403),
        (&trusting, "198.51.100.1", 403),
        (&trusting, "192.0.2.7, junk", 403),
    ] {
        let world = World::with(&format!("{config}{rules}")).await;
        let reply = world
            .authorized("/elsewhere/1")
            .header("x-forwarded-for", forwarded)
            .send()
            .await;
        assert_eq!(reply.status, status, "{forwarded}: {}", reply.text());
    }
}
