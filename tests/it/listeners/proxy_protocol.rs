//! A load balancer says who the client is.

use crate::harness::{CONFIG, Raw, World, eventually, with_lines};
use bonterra_gateway::config;
use serde_json::json;

const GET: &str = "GET /public/ HTTP/1.1\r\nHost: a\r\n\r\n";
const V1: &str = "PROXY TCP4 192.0.2.7 10.0.0.1 56789 80\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x08\x0a\0\0\x01\xdd\xd5\0\x50\x04\0\x01\0";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

async fn world(lines: &str) -> World {
    let lines = format!("proxy_protocol = true\n{lines}");
    World::with(&with_lines(CONFIG, "[server]", &lines)).await
}

#[tokio::test]
async fn the_client_is_who_the_header_names() {
    let world = world("trusted_proxies = [\"127.0.0.1/32\"]").await;
    let long = format!("X-Long: {}\r\n\r\n", "x".repeat(4000));
    let long = GET.replace("\r\n\r\n", &format!("\r\n{long}"));
    for (header, request, client) in [
        (V1.as_bytes(), GET, "192.0.2.7"),
        (V2, GET, "192.0.2.8"),
        (V2, &long, "192.0.2.8"),
        (LOCAL, GET, "127.0.0.1"),
        (b"PROXY UNKNOWN\r\n", GET, "127.0.0.1"),
    ] {
        for at_once in [true, false] {
            let mut raw = Raw::connect(world.gateway.address).await;
            if at_once {
                raw.send([header, request.as_bytes()].concat()).await;
            } else {
                let (first, rest) = header.split_at(9);
                raw.send(first).await;
                tokio::task::yield_now().await;
                raw.send(rest).await;
                raw.send(request).await;
            }
            for again in [false, true] {
                if again {
                    raw.send(GET).await;
                }
                let reply = raw.whole().await;
                assert_eq!(reply.status, 200);
                assert_eq!(reply.upstream_saw("x-forwarded-for"), [client]);
                let id = reply.header("x-request-id").expect("an id");
                let record = world.gateway.log.record(id).await;
                assert_eq!(record["client"], json!(client));
            }
        }
    }
}

/// The header says who the client is, and `trusted_proxies` whether *that* is believed further.
#[tokio::test]
async fn a_client_behind_the_header_is_no_trusted_proxy() {
    let world = world("trusted_proxies = [\"127.0.0.1/32\"]").await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let forged = GET.replace("Host", "X-Forwarded-For: 10.0.0.9\r\nHost");
    raw.send(format!("{V1}{forged}")).await;
    let reply = raw.whole().await;
    assert_eq!(reply.upstream_saw("x-forwarded-for"), ["192.0.2.7"]);
}

/// A client that the load balancer does not name has its address, and must not be taken for it.
#[tokio::test]
async fn a_client_that_the_header_does_not_name_is_no_trusted_proxy() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let world = world("trusted_proxies = [\"127.0.0.1/32\"]").await;
    let forged = GET.replace(
        "Host",
        &format!(
            "X-Forwarded-For: 10.0.0.9\r\nX-Request-Id: forged\r\n\
             traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\nHost"
        ),
    );
    let unix = [b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec(), vec![0; 216]].concat();
    for header in [
        b"PROXY UNKNOWN\r\n",
        &b"PROXY UNKNOWN ::1 ::1 1 2\r\n"[..],
        b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0",
        &unix,
        LOCAL,
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send([header, forged.as_bytes()].concat()).await;
        let reply = raw.whole().await;
        let case = String::from_utf8_lossy(header);
        assert_eq!(reply.status, 200, "{case:?}");
        let seen = reply.upstream_saw("x-forwarded-for");
        assert_eq!(seen, ["127.0.0.1"], "{case:?}");
        assert_ne!(reply.header("x-request-id"), Some("forged"), "{case:?}");
        let traces = reply.upstream_saw("traceparent");
        assert!(!traces.iter().any(|t| t.contains(TRACE)), "{case:?}");
    }
}

#[tokio::test]
async fn without_a_good_header_nothing_is_answered() {
    let lines = "trusted_proxies = [\"127.0.0.1/32\"]\nheader_timeout = \"500ms\"";
    let world = world(lines).await;
    let malformed = format!("PROXY TCP4 nonsense\r\n{GET}");
    let half = "PROXY TCP4 192.0.2.7";
    for text in [GET, &malformed, "\x16\x03\x01\x02\0", half, ""] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.try_send(text.as_bytes()).await;
        assert_eq!(raw.rest().await, "", "{text:?}");
    }
    assert_refused_all(&world, 5.0).await;
}

#[tokio::test]
async fn only_trusted_proxies_may_send_one() {
    let world = world("trusted_proxies = [\"192.0.2.0/24\"]").await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.try_send(format!("{V1}{GET}").as_bytes()).await;
    assert_eq!(raw.rest().await, "");
    assert_refused_all(&world, 1.0).await;
}

async fn assert_refused_all(world: &World, count: f64) {
    let series = format!(
        "gateway_connections_refused_total{{listener=\"{}\",reason=\"proxy_header\"}}",
        world.gateway.address
    );
    eventually("all are counted", async || {
        world.gateway.metric(&series).await == count
    })
    .await;
    assert!(world.echo.seen().is_empty());
    assert_eq!(world.gateway.log.text(), "");
}

#[test]
fn somebody_has_to_be_trusted() {
    let text = with_lines(CONFIG, "[server]", "proxy_protocol = true");
    let text = text
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:1");
    let env = bonterra_gateway::app::environment().expect("an environment");
    let parsed = config::parse("gateway.toml", &text);
    let errors = bonterra_gateway::snapshot::compile(parsed, &env).expect_err("a mistake");
    let errors = errors.to_string();
    assert!(errors.contains("nobody is trusted to send"), "{errors}");
}
