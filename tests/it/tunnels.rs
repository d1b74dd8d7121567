//! Connections that change to another protocol: WebSocket with a client and a server of another maker,
//! and bare sockets for what these would not do.

use crate::harness::{Gateway, Raw, RawUpstream, World, eventually, local, with_lines, within};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_async, connect_async};

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"
header_timeout = "1s"
idle_timeout = "1s"

[admin]
listen = "127.0.0.1:0"

[upstream.api]
servers = ["UPSTREAM"]

[[route]]
name = "open"
path = "/*"
upstream = "api"
auth = "none"
timeout = "1s"

[[route]]
name = "closed"
path = "/none/*"
upstream = "api"
auth = "none"
upgrades = []

[[route]]
name = "other"
path = "/other/*"
upstream = "api"
auth = "none"
upgrades = ["chat/2"]
tunnel_idle_timeout = "300ms"
"#;

const ASK: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

async fn gateway(upstream: &str) -> Gateway {
    Gateway::start(&CONFIG.replace("UPSTREAM", upstream)).await
}

/// An upstream that agrees and then says everything back.
async fn agreeable() -> RawUpstream {
    RawUpstream::start(|mut raw| async move {
        raw.reply().await;
        raw.send(SWITCH).await;
        raw.echo().await;
    })
    .await
}

/// A WebSocket server that says every message back, and how many connections it has seen close.
async fn server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(local()).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let closed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&closed);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut socket = accept_async(stream).await.expect("a handshake");
                while let Some(Ok(message)) = socket.next().await {
                    match message {
                        Message::Text(text) if text.as_str() == "leave" => {
                            let reason = CloseFrame {
                                code: CloseCode::Library(4711),
                                reason: "as you wish".into(),
                            };
                            socket.close(Some(reason)).await.expect("a close");
                        }
                        message @ (Message::Text(_) | Message::Binary(_)) => {
                            socket.send(message).await.expect("an answer");
                        }
                        _ => {}
                    }
                }
                count.fetch_add(1, Relaxed);
            });
        }
    });
    (url, closed)
}

#[tokio::test]
async fn ten_thousand_websocket_messages_come_back_as_they_went_and_so_does_the_close_code() {
    let (url, _) = server().await;
    let gateway = gateway(&url).await;
    let (socket, reply) = connect_async(format!("ws://{}/chat?room=1", gateway.address))
        .await
        .expect("connected");
    assert!(reply.headers().contains_key("x-request-id"));
    let (mut to, mut from) = socket.split();
    let message = |n: usize| match n % 3 {
        0 => Message::text(format!("message {n}")),
        1 => Message::binary(vec![u8::try_from(n % 251).expect("small"); n % 5000]),
        _ => Message::text("ä".repeat(n % 70)),
    };
    let sending = tokio::spawn(async move {
        for n in 0..10_000 {
            to.feed(message(n)).await.expect("sent");
        }
        to.flush().await.expect("flushed");
        to
    });
    for n in 0..10_000 {
        let came = within("a message", from.next()).await;
        assert_eq!(came.expect("open").expect("a message"), message(n), "{n}");
    }
    let mut to = sending.await.expect("all sent");
    to.send(Message::text("leave")).await.expect("sent");
    let Some(Ok(Message::Close(Some(close)))) = within("a close", from.next()).await else {
        panic!("no close frame");
    };
    assert_eq!(u16::from(close.code), 4711);
    assert_eq!(close.reason.as_str(), "as you wish");
    // The answer to the close has gone out; now the server ends the connection.
    assert!(within("the end", from.next()).await.is_none());
    drop((to, from));
    // One exchange, written when it is over.
    eventually("the record", || {
        let records = gateway.log.records();
        std::future::ready(records.iter().any(|record| {
            record["status"] == json!(101)
                && record["request_bytes"].as_u64() > Some(1_000_000)
                && record["response_bytes"].as_u64() > Some(1_000_000)
                && record.get("aborted").is_none()
        }))
    })
    .await;
}

#[tokio::test]
async fn close_codes_of_the_client_arrive() {
    let (url, closed) = server().await;
    let gateway = gateway(&url).await;
    for code in [1000, 1001, 1011, 3000, 4999] {
        let before = closed.load(Relaxed);
        let (mut socket, _) = connect_async(format!("ws://{}/", gateway.address))
            .await
            .expect("connected");
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: "enough".into(),
        };
        socket.close(Some(frame)).await.expect("closing");
        // The server says the same code back, as RFC 6455 §5.5.1 has it.
        let Some(Ok(Message::Close(Some(back)))) = within("a close", socket.next()).await else {
            panic!("no close frame for {code}");
        };
        assert_eq!(u16::from(back.code), code);
        eventually("the server sees the end", || {
            std::future::ready(closed.load(Relaxed) > before)
        })
        .await;
    }
}

#[tokio::test]
async fn who_may_not_gets_no_tunnel() {
    let (url, _) = server().await;
    let world = World::start().await;
    let config = CONFIG.replace("UPSTREAM", &url);
    let strict = format!(
        "{config}\n[[route]]\nname = \"strict\"\npath = \"/strict/*\"\nupstream = \"api\"\n\
         [issuer.bonterra]\nurl = \"{}\"\naudiences = [\"https://api.bonterra.network\"]\n",
        world.auth.issuer()
    );
    let gateway = Gateway::start(&strict).await;
    within("ready", gateway.app.ready()).await;
    let url = format!("ws://{}/strict/1", gateway.address);
    match connect_async(&url).await {
        Err(Error::Http(reply)) => assert_eq!(reply.status(), 401),
        other => panic!("{other:?}"),
    }
    let mut asked = url.into_client_request().expect("a request");
    let bearer = format!("Bearer {}", world.auth.token());
    asked
        .headers_mut()
        .insert("authorization", bearer.parse().expect("a value"));
    let (mut socket, _) = connect_async(asked).await.expect("connected");
    socket.send(Message::text("hello")).await.expect("sent");
    let back = within("a message", socket.next()).await;
    assert_eq!(
        back.expect("open").expect("a message"),
        Message::text("hello")
    );
}

/// ADVERSARY, Framing: bytes behind an upgrade request are no request, and no message before both
/// have agreed.
#[tokio::test]
async fn bytes_before_the_101_are_withheld_until_the_upstream_has_agreed() {
    let early = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let go = Arc::new(tokio::sync::Notify::new());
    let heard = Arc::clone(&go);
    let upstream = RawUpstream::start(move |mut raw| {
        let heard = Arc::clone(&heard);
        async move {
            let (head, body) = raw.reply().await;
            assert!(head.starts_with("GET /ws HTTP/1.1"), "{head}");
            assert_eq!(body, "");
            // Nothing more comes, however long we think about it.
            assert!(raw.is_silent(Duration::from_millis(200)).await);
            heard.notify_one();
            raw.send(SWITCH).await;
            raw.echo().await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url()).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send(format!("GET /ws HTTP/1.1\r\n{ASK}\r\n{early}"))
        .await;
    let (head, _) = raw.reply().await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    within("the upstream was left alone before", go.notified()).await;
    raw.expect(early).await;
}

#[tokio::test]
async fn without_agreement_it_stays_http() {
    let upstream = RawUpstream::start(|mut raw| async move {
        loop {
            let (head, _) = raw.reply().await;
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            raw.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            ))
            .await;
        }
    })
    .await;
    let gateway = gateway(&upstream.url()).await;
    let mut raw = Raw::connect(gateway.address).await;
    // What comes behind is another request, read as one, and once.
    raw.send(format!(
        "GET /one HTTP/1.1\r\n{ASK}\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.whole().await.text(), "/one");
    assert_eq!(raw.whole().await.text(), "/two");
    // And what is no request is refused.
    raw.send(format!(
        "GET /one HTTP/1.1\r\n{ASK}\r\n\x01\x02\x03\r\n\r\n"
    ))
    .await;
    assert_eq!(raw.whole().await.text(), "/one");
    assert_eq!(raw.whole().await.status, 400);
    assert_eq!(raw.rest().await, "");
}

#[tokio::test]
async fn only_what_a_route_allows_is_asked_of_the_upstream() {
    let world = World::start().await;
    let ask = |protocol: &str| {
        format!("Host: a\r\nConnection: upgrade, x-a\r\nUpgrade: {protocol}\r\nX-A: 1\r\n")
    };
    for (case, request) in [
        (
            "h2c",
            format!("GET /public/1 HTTP/1.1\r\n{}\r\n", ask("h2c")),
        ),
        (
            "unknown",
            format!("GET /public/1 HTTP/1.1\r\n{}\r\n", ask("chat")),
        ),
        (
            "one of two",
            format!("GET /public/1 HTTP/1.1\r\n{}\r\n", ask("websocket, h2c")),
        ),
        (
            "twice",
            format!(
                "GET /public/1 HTTP/1.1\r\n{}Upgrade: h2c\r\n\r\n",
                ask("websocket")
            ),
        ),
        (
            "not by Connection",
            "GET /public/1 HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n".to_owned(),
        ),
        (
            "with a body",
            format!(
                "GET /public/1 HTTP/1.1\r\n{}Content-Length: 1\r\n\r\nx",
                ask("websocket")
            ),
        ),
        (
            "POST",
            format!("POST /public/1 HTTP/1.1\r\n{}\r\n", ask("websocket")),
        ),
        (
            "HTTP/1.0",
            format!("GET /public/1 HTTP/1.0\r\n{}\r\n", ask("websocket")),
        ),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(request).await;
        let reply = raw.whole().await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text());
        for name in ["upgrade", "connection", "x-a"] {
            assert!(reply.upstream_saw(name).is_empty(), "{case}: {name}");
        }
    }
    let upstream = agreeable().await;
    let gateway = gateway(&upstream.url()).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send(format!("GET /none/1 HTTP/1.1\r\n{ASK}\r\n")).await;
    // The upstream switches all the same: nobody has asked it to.
    assert_eq!(raw.whole().await.status, 502);
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /other/1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: chat/2\r\n\r\n")
        .await;
    // It switches to something else.
    assert_eq!(raw.whole().await.status, 502);
}

#[tokio::test]
async fn a_tunnel_outlives_the_deadlines_of_http_and_ends_when_both_are_silent() {
    let upstream = RawUpstream::start(|mut raw| async move {
        raw.reply().await;
        raw.send(SWITCH.replace("websocket", "chat/2")).await;
        raw.echo().await;
    })
    .await;
    let gateway = gateway(&upstream.url()).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send("GET /other/1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: CHAT/2\r\n\r\n")
        .await;
    assert!(raw.reply().await.0.starts_with("HTTP/1.1 101 "));
    let begun = Instant::now();
    // Beyond timeout, header_timeout and idle_timeout, with less than the tunnel's between.
    while begun.elapsed() < Duration::from_millis(1500) {
        raw.send("tick").await;
        raw.expect("tick").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let silent = Instant::now();
    assert_eq!(raw.rest().await, "");
    assert!(silent.elapsed() >= Duration::from_millis(250));
    assert!(silent.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_tunnel_ends_with_the_token_that_opened_it_if_so_configured() {
    let upstream = agreeable().await;
    let world = World::start().await;
    let lines = |close: bool| {
        format!(
            "\n[[route]]\nname = \"ws-{close}\"\npath = \"/ws-{close}\"\nupstream = \"ws\"\n\
             close_at_expiry = {close}\n"
        )
    };
    let config = format!(
        "{}\n[issuer.bonterra]\nurl = \"{}\"\naudiences = [\"https://api.bonterra.network\"]\n\
         leeway = \"0s\"\n[upstream.ws]\nservers = [\"{}\"]\n{}{}",
        CONFIG.replace("UPSTREAM", &upstream.url()),
        world.auth.issuer(),
        upstream.url(),
        lines(true),
        lines(false),
    );
    let gateway = Gateway::start(&config).await;
    within("ready", gateway.app.ready()).await;
    let now = gateway.app.clock().now();
    let token = world.token_with(json!({ "exp": now + 3 }));
    let mut tunnels = Vec::new();
    for path in ["/ws-true", "/ws-false"] {
        let mut raw = Raw::connect(gateway.address).await;
        raw.send(format!(
            "GET {path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\n{ASK}\r\n"
        ))
        .await;
        let (head, _) = raw.reply().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw.send("ping").await;
        raw.expect("ping").await;
        tunnels.push(raw);
    }
    let [ends, stays] = tunnels.as_mut_slice() else {
        panic!("two tunnels");
    };
    assert_eq!(ends.rest().await, "");
    assert!(gateway.app.clock().now() >= now + 3);
    stays.send("still there").await;
    stays.expect("still there").await;
}

#[tokio::test]
async fn tunnels_may_finish_while_the_gateway_drains_and_count_as_open() {
    let upstream = agreeable().await;
    let config = CONFIG.replace("UPSTREAM", &upstream.url());
    let config = with_lines(&config, "[server]", "drain_timeout = \"30s\"");
    let gateway = Gateway::start(&config).await;
    let mut raw = Raw::connect(gateway.address).await;
    raw.send(format!("GET /ws HTTP/1.1\r\n{ASK}\r\n")).await;
    assert!(raw.reply().await.0.starts_with("HTTP/1.1 101 "));
    let series = format!("gateway_connections{{listener=\"{}\"}}", gateway.address);
    assert!((gateway.metric(&series).await - 1.0).abs() < f64::EPSILON);
    let stopping = tokio::spawn(gateway.app.stop());
    for _ in 0..5 {
        raw.send("on").await;
        raw.expect("on").await;
    }
    assert!(!stopping.is_finished());
    drop(raw);
    let stopped = within("the end", stopping).await.expect("no panic");
    assert_eq!(stopped.cut, 0);
}
