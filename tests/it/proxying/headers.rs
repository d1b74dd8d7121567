//! Header fields: what stops at the gateway, what passes, and what the gateway says of the hop.

use super::gateway;
use crate::harness::{CONFIG, Raw, RawUpstream, World, request, with_lines};
use serde_json::json;

#[tokio::test]
async fn hop_by_hop_response_headers_stop_here() {
    let upstream = RawUpstream::says(concat!(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Internal\r\nX-Internal: 1\r\nKeep-Alive: timeout=5\r\n",
        "Proxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTrailer: X-Sum\r\n",
        "ETag: \"1\"\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVia: 1.0 cache\r\nX-Request-Id: theirs\r\n",
        "Content-Length: 2\r\n\r\nok",
    ))
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert_eq!(reply.status, 200);
    for name in [
        "connection",
        "x-internal",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "upgrade",
        "trailer",
    ] {
        assert!(!reply.headers.contains_key(name), "{name}");
    }
    let all = |name: &str| -> Vec<_> {
        reply
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().expect("ASCII"))
            .collect()
    };
    assert_eq!(all("etag"), ["\"1\""]);
    assert_eq!(all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(all("via"), ["1.0 cache", "1.1 bonterra-gateway"]);
    assert_eq!(all("x-request-id").len(), 1);
    assert_ne!(all("x-request-id"), ["theirs"]);
}

/// What somebody says of the way that the request has come.
const STORY: [(&str, &str); 9] = [
    ("x-forwarded-for", "203.0.113.7"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "api.bonterra.network"),
    ("forwarded", "for=203.0.113.7;proto=https"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("tracestate", "vendor=1"),
    ("x-request-id", "from-outside"),
    ("via", "1.1 edge"),
    ("host", "grants.example"),
];

#[tokio::test]
async fn a_trusted_proxy_is_believed() {
    let config = with_lines(
        CONFIG,
        "[server]",
        "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]",
    );
    let world = World::with(&config).await;
    let request = STORY
        .iter()
        .fold(world.get("/public/x"), |request, (name, value)| {
            request.header(name, value)
        });
    let reply = request.send().await;
    for (name, expected) in [
        ("x-forwarded-for", vec!["203.0.113.7, 127.0.0.1"]),
        ("x-forwarded-proto", vec!["https"]),
        ("x-forwarded-host", vec!["api.bonterra.network"]),
        (
            "forwarded",
            vec![
                "for=203.0.113.7;proto=https",
                "for=127.0.0.1;host=\"grants.example\";proto=http",
            ],
        ),
        ("tracestate", vec!["vendor=1"]),
        ("x-request-id", vec!["from-outside"]),
        ("via", vec!["1.1 edge", "1.1 bonterra-gateway"]),
    ] {
        assert_eq!(reply.upstream_saw(name), expected, "{name}");
    }
    let [traceparent] = &*reply.upstream_saw("traceparent") else {
        panic!("one traceparent");
    };
    let [version, trace, span, flags] = &*traceparent.split('-').collect::<Vec<_>>() else {
        panic!("{traceparent}");
    };
    assert_eq!(
        (*version, *trace, *flags),
        ("00", "4bf92f3577b34da6a3ce929d0e0e4736", "01")
    );
    assert_ne!(*span, "00f067aa0ba902b7", "a span of the gateway's own");
    assert_eq!(reply.header("x-request-id"), Some("from-outside"));
    assert_eq!(
        world.gateway.log.record("from-outside").await["client"],
        json!("203.0.113.7")
    );
    for (hops, client) in [
        ("198.51.100.9, 203.0.113.7, 10.0.0.4", "203.0.113.7"),
        ("127.0.0.9, 10.0.0.4", "127.0.0.9"),
        // What is no address hides the client; the record has the peer then.
        ("203.0.113.7, unknown, 10.0.0.4", "127.0.0.1"),
    ] {
        let reply = world
            .get("/public/x")
            .header("x-forwarded-for", hops)
            .send()
            .await;
        let record = world
            .gateway
            .log
            .record(reply.header("x-request-id").expect("an id"))
            .await;
        assert_eq!(record["client"], json!(client), "{hops}");
    }
    for bad in ["has space", "", &"x".repeat(129)] {
        let reply = world
            .get("/public/x")
            .header("x-request-id", bad)
            .send()
            .await;
        assert_ne!(reply.header("x-request-id"), Some(bad));
    }
}

#[tokio::test]
async fn a_route_changes_headers_as_it_is_told() {
    const RULES: &str = r#"
request_headers = { set = { X-From = "gateway", X-Token-Of = "nobody" }, remove = ["X-Debug", "User-Agent"] }
response_headers = { set = { Cache-Control = "no-store", X-Frame-Options = "DENY" }, remove = ["Server", "ETag"] }
"#;
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        let (head, _) = raw.reply().await;
        let lines: String = head.lines().skip(1).filter(|line| !line.is_empty()).map(|line| format!("{line}\n")).collect();
        let length = lines.len();
        raw.send(format!("HTTP/1.1 200 OK\r\nServer: x\r\nETag: \"1\"\r\nCache-Control: public\r\nContent-Length: {length}\r\n\r\n{lines}")).await;
    })
    .await;
    let gateway = gateway(&upstream.url(), &[("[[route]]", RULES)]).await;
    let reply = request(gateway.address, "GET", "/api/")
        .header("x-from", "client")
        .header("X-DEBUG", "1")
        .header("user-agent", "curl")
        .header("x-other", "1")
        .send()
        .await;
    let saw = reply.text().to_ascii_lowercase();
    for line in ["x-from: gateway\n", "x-token-of: nobody\n", "x-other: 1\n"] {
        assert!(saw.contains(line), "{line}: {saw}");
    }
    for name in ["x-debug", "user-agent", "x-from: client"] {
        assert!(!saw.contains(name), "{name}: {saw}");
    }
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-frame-options"), Some("DENY"));
    assert_eq!((reply.header("server"), reply.header("etag")), (None, None));
}

#[tokio::test]
async fn the_caller_s_token_goes_upstream_unless_the_route_keeps_it() {
    let keeps = "\n[[route]]\nname = \"keeps\"\npath = \"/keeps/*\"\nupstream = \"echo\"\nforward_token = false\n";
    let world = World::with(&format!("{CONFIG}{keeps}")).await;
    let token = world.auth.token();
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert_eq!(
        reply.upstream_saw("authorization"),
        [format!("Bearer {token}")]
    );
    let reply = world.get("/keeps/1").bearer(&token).send().await;
    assert_eq!(reply.status, 200);
    assert!(reply.upstream_saw("authorization").is_empty());
    assert_eq!(
        reply.upstream_saw("x-bonterra-auth-id").len(),
        1,
        "the identity goes all the same"
    );
}
