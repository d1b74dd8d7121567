//! Stopping: nobody new, nobody lost, and no longer than it takes.

use crate::harness::h2raw::{self, H2Raw, Outcome};
use crate::harness::link::{Link, nothing};
use crate::harness::{
    CONFIG, Gateway, Raw, World, eventually, nobody, request, with_lines, within,
};
use bonterra_gateway::app::Stopped;
use http::Request;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Far more than stopping takes if nothing is waited for.
const SOON: Duration = Duration::from_secs(3);

fn config(delay: &str, timeout: &str) -> String {
    // Nobody else shall have the port while a test looks whether it is closed.
    let listen = format!("listen = [\"{}\"]", nobody());
    CONFIG
        .replace("listen = [\"127.0.0.1:0\"]", &listen)
        .replace(
            "drain_delay = \"0s\"",
            &format!("drain_delay = \"{delay}\""),
        )
        .replace(
            "drain_timeout = \"5s\"",
            &format!("drain_timeout = \"{timeout}\""),
        )
}

#[tokio::test]
async fn an_idle_gateway_stops_at_once() {
    let world = World::with(&config("0s", "60s")).await;
    assert_eq!(world.get("/public/").send().await.status, 200);
    let started = Instant::now();
    let stopped = within("the end", world.gateway.app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 0 });
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[tokio::test]
async fn idle_connections_are_closed_early() {
    let world = World::with(&config("0s", "60s")).await;
    let mut used = Link::connect(world.gateway.address).await;
    assert_eq!(used.get("/public/").await.status, 200);
    let mut unused = Raw::connect(world.gateway.address).await;
    let clients = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    eventually("both are there", async || {
        world.gateway.metric(&clients).await == 2.0
    })
    .await;
    let started = Instant::now();
    let stopped = within("the end", world.gateway.app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 0 });
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    assert!(!used.is_open().await);
    assert_eq!(unused.rest().await, "");
}

#[tokio::test]
async fn requests_in_flight_finish_and_new_ones_go_elsewhere() {
    let world = World::with(&config("400ms", "20s")).await;
    let Gateway {
        app,
        address,
        admin,
        ..
    } = world.gateway;
    let mut busy = Link::connect(address).await;
    let slow = tokio::spawn(async move {
        let get = Request::get("/public/slow-head?ms=1200")
            .body(nothing())
            .expect("a request");
        let reply = busy.send(get).await;
        (reply, busy.is_open().await)
    });
    eventually("it is upstream", async || !world.echo.seen().is_empty()).await;
    let mut kept = Link::connect(address).await;
    assert_eq!(kept.get("/public/").await.status, 200);

    let started = Instant::now();
    let stopping = tokio::spawn(app.stop());
    let ready = request(admin, "GET", "/readyz");
    eventually("not ready", async || ready.send().await.status == 503).await;
    assert!(ready.send().await.text().contains("draining"));
    // Orders would be lost: the next gateway may have the same port already.
    for path in ["/-/reload", "/-/revoke"] {
        let reply = request(admin, "POST", path).send().await;
        let told = (reply.status, reply.header("connection"));
        assert_eq!(told, (503, Some("close")), "{path}");
        assert_eq!(reply.json()["error"], "draining", "{path}");
    }
    assert_eq!(
        request(admin, "GET", "/livez").send().await.status,
        200,
        "stopping is not dying"
    );
    // Load balancers need a moment to hear of it: until then everybody is served.
    assert!(
        started.elapsed() < Duration::from_millis(350),
        "the machine is too slow for this test"
    );
    let reply = kept.get("/public/").await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(request(address, "GET", "/public/").send().await.status, 200);

    eventually("nobody new", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert!(!stopping.is_finished(), "one request is in flight");
    assert!(!kept.is_open().await, "who is idle is sent away");
    let (reply, open) = within("the slow reply", slow).await.expect("no panic");
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("connection"), Some("close"));
    assert!(!open);
    assert_eq!(
        within("the end", stopping).await.expect("no panic"),
        Stopped { cut: 0 }
    );
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "no longer than the request took"
    );
}

#[tokio::test]
async fn an_upload_in_flight_finishes_too() {
    let world = World::with(&config("0s", "20s")).await;
    let Gateway { app, address, .. } = world.gateway;
    let mut raw = Raw::connect(address).await;
    raw.send("POST /public/sink HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nfirst")
        .await;
    eventually("it is upstream", async || !world.echo.seen().is_empty()).await;
    let stopping = tokio::spawn(app.stop());
    eventually("nobody new", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    raw.send("other").await;
    let reply = raw.whole().await;
    assert_eq!(reply.json()["body_bytes"], serde_json::json!(10));
    assert_eq!(raw.rest().await, "");
    assert_eq!(
        within("the end", stopping).await.expect("no panic"),
        Stopped { cut: 0 }
    );
}

#[tokio::test]
async fn what_takes_longer_than_drain_timeout_is_cut() {
    let world = World::with(&config("0s", "300ms")).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/slow-head?ms=60000 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    eventually("it is upstream", async || !world.echo.seen().is_empty()).await;
    let started = Instant::now();
    let stopped = within("the end", world.gateway.app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 1 });
    assert!(
        started.elapsed() >= Duration::from_millis(300) && started.elapsed() < SOON,
        "{:?}",
        started.elapsed()
    );
    assert_eq!(raw.rest().await, "");
    let record = world
        .gateway
        .log
        .records()
        .pop()
        .expect("a record, even so");
    assert_eq!(record["aborted"], serde_json::json!(true), "{record}");
}

/// A head that has begun is a request that is under way: it gets the time that any head gets.
#[tokio::test]
async fn a_head_that_is_coming_in_is_not_cut() {
    let world = World::with(&config("0s", "20s")).await;
    let Gateway { app, address, .. } = world.gateway;
    let mut raw = Raw::connect(address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.whole().await.status, 200);
    raw.send("GET /public/2 HTTP/1.1\r\nHost: a\r\n").await;
    let stopping = tokio::spawn(app.stop());
    eventually("nobody new", async || {
        TcpStream::connect(address).await.is_err()
    })
    .await;
    // Longer than one who is idle has for a last request.
    assert!(raw.is_silent(Duration::from_secs(1)).await);
    raw.send("\r\n").await;
    let reply = raw.whole().await;
    assert_eq!(
        (reply.status, reply.header("connection")),
        (200, Some("close"))
    );
    assert_eq!(raw.rest().await, "");
    assert_eq!(
        within("the end", stopping).await.expect("no panic"),
        Stopped { cut: 0 }
    );
}

/// Half a head must not hold the gateway up either.
#[tokio::test]
async fn a_head_that_never_ends_has_its_own_deadline() {
    let config = with_lines(&config("0s", "60s"), "[server]", "header_timeout = \"1s\"");
    let world = World::with(&config).await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(raw.whole().await.status, 200);
    raw.send("GET /public/2 HTTP/1.1\r\nHost: a\r\n").await;
    let started = Instant::now();
    let stopped = within("the end", world.gateway.app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 0 });
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
}

/// One that has gone without a word does not answer the PING behind GOAWAY.
#[tokio::test]
async fn a_silent_http2_client_does_not_hold_up_the_end() {
    let world = World::with(&config("0s", "60s")).await;
    let mut asked = H2Raw::connect(world.gateway.address).await;
    asked.send(h2raw::get(1, "/public/1")).await;
    assert_eq!(asked.outcome(1).await, Outcome::Answered(200));
    let started = Instant::now();
    let stopped = within("the end", world.gateway.app.stop()).await;
    assert_eq!(stopped, Stopped { cut: 0 });
    assert!(started.elapsed() < 2 * SOON, "{:?}", started.elapsed());
    assert_eq!(asked.ended().await, Some(0));
}
