//! Connections are kept on both sides, shared upstream, and never carry what was not parsed.

use super::gateway;
use crate::harness::link::{Link, nothing};
use crate::harness::{
    CONFIG, Gateway, Raw, RawUpstream, World, eventually, nobody, request, with_lines, within,
};
use bonterra_gateway::demo::echo::{Echo, EchoOptions};
use futures_util::future::join_all;
use http::Request;
use serde_json::json;
use std::time::Duration;
use tokio::sync::mpsc;

#[tokio::test]
async fn many_requests_use_one_connection_on_either_side() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    for number in 0..50 {
        let path = format!("/public/{number}");
        let reply = link.get(&path).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["path"], json!(path));
    }
    assert_eq!(world.echo.connections(), 1);
    let clients = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    assert_eq!(world.gateway.metric(&clients).await, 1.0);
    drop(link);
    eventually("the connection is gone", async || {
        world.gateway.metric(&clients).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn clients_share_upstream_connections() {
    let world = World::start().await;
    for _ in 0..20 {
        assert_eq!(world.get("/public/").send().await.status, 200);
    }
    assert_eq!(world.echo.connections(), 1, "one after the other needs one");
    for _ in 0..2 {
        let slow = world.get("/public/slow-head?ms=50");
        let replies = join_all((0..8).map(|_| slow.send())).await;
        assert!(replies.iter().all(|reply| reply.status == 200));
    }
    assert!(
        world.echo.connections() <= 8,
        "{}",
        world.echo.connections()
    );
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    // The first is the slowest, the second is refused, the third carries a body.
    raw.send(concat!(
        "GET /public/slow-head?ms=50 HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /grants/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /public/3 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthird",
        "GET /public/4 HTTP/1.1\r\nHost: a\r\n\r\n",
    ))
    .await;
    let first = raw.whole().await;
    assert_eq!(first.json()["path"], json!("/public/slow-head?ms=50"));
    assert_eq!(raw.whole().await.status, 401);
    assert_eq!(raw.whole().await.json()["body"], json!("third"));
    assert_eq!(raw.whole().await.json()["path"], json!("/public/4"));
}

#[tokio::test]
async fn a_client_that_wants_to_close_is_let_go() {
    let world = World::start().await;
    for head in [
        "GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        "GET /public/x HTTP/1.0\r\nHost: a\r\n\r\n",
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(head).await;
        assert_eq!(raw.whole().await.status, 200, "{head}");
        assert_eq!(raw.rest().await, "", "{head}");
    }
    assert_eq!(
        world.echo.connections(),
        1,
        "the upstream's connection is kept all the same"
    );
}

/// What follows a refused request is either left unread with the connection closed, or it is parsed
/// as what it is. A body is never taken for a request.
#[tokio::test]
async fn the_unread_body_of_a_refused_request_is_no_request() {
    const SMUGGLED: &str = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let world = World::start().await;
    let chunked = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let with_length = format!("Content-Length: {}", SMUGGLED.len());
    for (framing, body) in [
        (with_length.as_str(), SMUGGLED),
        ("Transfer-Encoding: chunked", chunked.as_str()),
    ] {
        for at_once in [true, false] {
            let head = format!("POST /grants/1 HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
            let mut raw = Raw::connect(world.gateway.address).await;
            if at_once {
                raw.send(format!("{head}{body}")).await;
                assert_eq!(raw.whole().await.status, 401, "{framing}");
            } else {
                raw.send(head).await;
                assert_eq!(raw.whole().await.status, 401, "{framing}");
                raw.try_send(body.as_bytes()).await;
            }
            raw.try_send(b"GET /public/next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .await;
            let rest = raw.rest().await;
            assert!(
                rest.is_empty() || rest.starts_with("HTTP/1.1 200"),
                "{framing} {at_once}: {rest}"
            );
            assert!(
                rest.matches("HTTP/1.1").count() <= 1,
                "{framing} {at_once}: {rest}"
            );
        }
    }
    let seen: Vec<_> = world
        .echo
        .seen()
        .into_iter()
        .map(|request| request.target)
        .collect();
    assert!(
        seen.iter().all(|target| target == "/public/next"),
        "{seen:?}"
    );
}

/// Far more than any buffer holds: the gateway must not read it all for the sake of a connection.
#[tokio::test]
async fn a_refused_upload_is_not_read_to_its_end() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("POST /grants/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        .await;
    assert_eq!(raw.whole().await.status, 401);
    let piece = vec![b'x'; 1 << 20];
    let mut taken = 0;
    let (mut receiver, mut sender) = raw.stream.into_split();
    let all = async {
        while tokio::io::AsyncWriteExt::write_all(&mut sender, &piece)
            .await
            .is_ok()
        {
            taken += 1;
        }
    };
    within("the gateway closes", all).await;
    assert!(taken < 100, "{taken} MiB");
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut receiver, &mut rest).await;
    assert_eq!(rest, b"");
    assert!(world.echo.seen().is_empty());
}

/// Most clients write their whole request before they read. If the gateway just closed, what comes
/// in after that would be answered with a reset, and a reset takes the answer away.
#[tokio::test]
async fn a_client_that_is_refused_in_mid_upload_hears_why() {
    let config = with_lines(CONFIG, "[server]", "max_body = \"1MiB\"");
    let world = World::with(&config).await;
    let body = vec![b'x'; 3 << 20];
    for _ in 0..20 {
        let upload = world.post("/grants/1").body(body.clone());
        let reply = upload.try_send().await.expect("an answer");
        assert_eq!(reply.status, 401);
        let upload = world.post("/public/sink").body(body.clone());
        let reply = upload.try_send().await.expect("an answer");
        assert_eq!(reply.status, 413);
    }
}

#[tokio::test]
async fn idle_connections_that_the_upstream_closes_cost_no_request() {
    let (closed, mut closes) = mpsc::channel(1);
    let upstream = RawUpstream::start(move |mut raw| {
        let closed = closed.clone();
        async move {
            raw.reply().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            drop(raw);
            closed.send(()).await.expect("the test runs");
        }
    })
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    for number in 0..50 {
        let post = Request::post(format!("/api/{number}"))
            .body(nothing())
            .expect("a request");
        let reply = link.send(post).await;
        assert_eq!(reply.status, 200, "{number}: {}", reply.text());
        within("the upstream closes", closes.recv()).await;
    }
    assert_eq!(upstream.connections(), 50);
}

#[tokio::test]
async fn an_upstream_that_restarts_costs_no_request() {
    let echo = Echo::start(nobody()).await.expect("upstream");
    let gateway = gateway(&echo.url(), &[]).await;
    let slow = request(gateway.address, "GET", "/api/slow-head?ms=30");
    join_all((0..20).map(|_| slow.send())).await;
    for _ in 0..3 {
        echo.stop().await;
        echo.restart().await.expect("the same port");
        let replies = join_all((0..20).map(|_| slow.send())).await;
        let failed: Vec<_> = replies
            .iter()
            .filter(|reply| reply.status != 200)
            .map(|reply| reply.text())
            .collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

#[tokio::test]
async fn idle_upstream_connections_are_not_used_after_their_time() {
    let upstream = RawUpstream::start(async |mut raw: Raw| {
        loop {
            raw.reply().await;
            raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    })
    .await;
    let gateway = gateway(
        &upstream.url(),
        &[("[upstream.api]", "idle_timeout = \"50ms\"")],
    )
    .await;
    let mut link = Link::connect(gateway.address).await;
    for expected in 1..4 {
        assert_eq!(link.get("/api/").await.status, 200);
        assert_eq!(upstream.connections(), expected);
        // The connection has to grow old.
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
}

/// Each takes a socket here, one in the gateway, and for a moment two for the way to the upstream.
#[tokio::test]
async fn a_thousand_clients_at_a_time_are_served() {
    let clients = clients_that_fit(1000);
    let quiet = EchoOptions { record: false };
    let echo = Echo::start_with(crate::harness::local(), quiet)
        .await
        .expect("upstream");
    let gateway = gateway(&echo.url(), &[]).await;
    let mut links = join_all((0..clients).map(|_| Link::connect(gateway.address))).await;
    for round in 0..3 {
        let paths: Vec<_> = (0..clients)
            .map(|client| format!("/api/{round}/{client}"))
            .collect();
        let replies = join_all(
            links
                .iter_mut()
                .zip(&paths)
                .map(|(link, path)| link.get(path)),
        )
        .await;
        for (reply, path) in replies.iter().zip(&paths) {
            assert_eq!(reply.status, 200);
            assert_eq!(reply.json()["path"], json!(path));
        }
    }
    let open = format!("gateway_connections{{listener=\"{}\"}}", gateway.address);
    assert_eq!(
        gateway.metric(&open).await,
        clients as f64,
        "each kept its connection"
    );
}

/// As many clients as file descriptors allow: the limit is the machine's, and is not raised here.
fn clients_that_fit(wanted: usize) -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("limits");
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .expect("a limit");
    let soft = line
        .split_whitespace()
        .next()
        .and_then(|soft| soft.parse().ok())
        .unwrap_or(usize::MAX);
    // Other tests of this process need some too.
    let fit = (soft / 6).min(wanted);
    if fit < wanted {
        eprintln!("`ulimit -n` is {soft}: {fit} clients instead of {wanted}");
    }
    fit
}

#[tokio::test]
async fn a_request_that_nobody_waits_for_does_no_harm() {
    let world = World::start().await;
    for _ in 0..10 {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send("GET /public/slow-head?ms=100 HTTP/1.1\r\nHost: a\r\n\r\n")
            .await;
        eventually("it is at the upstream", async || {
            !world.echo.seen().is_empty()
        })
        .await;
        world.echo.forget();
    }
    eventually("nothing is in flight", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(world.get("/public/").send().await.status, 200);
}

/// Connections come in faster than one worker may think of them.
#[tokio::test]
async fn several_workers_share_the_connections() {
    let echo = Echo::start(crate::harness::local())
        .await
        .expect("upstream");
    let config = super::open_config(&echo.url(), &[]).replace("workers = 1", "workers = 3");
    let gateway = Gateway::start(&config).await;
    let get = request(gateway.address, "GET", "/api/slow-head?ms=20");
    let replies = join_all((0..60).map(|_| get.send())).await;
    assert!(replies.iter().all(|reply| reply.status == 200));
}
