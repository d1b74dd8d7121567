//! Too many connections, too many requests, too few files: who is in is served.

use crate::harness::link::{Link, nothing};
use crate::harness::program::{Running, program};
use crate::harness::{
    CONFIG, Raw, World, assert_refused, eventually, nobody, request, with_lines, within,
};
use bonterra_gateway::demo::echo::Echo;
use http::Request;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::{TcpSocket, TcpStream};

const GET: &str = "GET /public/ HTTP/1.1\r\nHost: a\r\n\r\n";

async fn world(lines: &str) -> World {
    let config = CONFIG.replace("workers = 1", "workers = 2");
    World::with(&with_lines(&config, "[server]", lines)).await
}

/// A connection from another address of this machine.
async fn from(source: &str, to: SocketAddr) -> Raw {
    let socket = TcpSocket::new_v4().expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket.bind(source).expect("an address of this machine");
    Raw::of(socket.connect(to).await.expect("connected"))
}

#[tokio::test]
async fn one_address_has_only_so_many_connections() {
    let world = world("max_connections_per_address = 2").await;
    let address = world.gateway.address;
    let mut first = Raw::connect(address).await;
    let mut second = Raw::connect(address).await;
    for raw in [&mut first, &mut second] {
        raw.send(GET).await;
        assert_eq!(raw.whole().await.status, 200);
    }
    let mut third = Raw::connect(address).await;
    let reply = third.whole().await;
    assert_refused(&world.gateway, &reply, 503, "overloaded", "-").await;
    assert_eq!(third.rest().await, "");
    let series = format!(
        "gateway_connections_refused_total{{listener=\"{address}\",reason=\"max_connections_per_address\"}}"
    );
    assert_eq!(world.gateway.metric(&series).await, 1.0);

    let mut other = from("127.0.0.2", address).await;
    other.send(GET).await;
    assert_eq!(other.whole().await.status, 200, "others have their own");
    drop(first);
    eventually("a free place", || async {
        let reply = world.get("/public/").try_send().await;
        reply.is_ok_and(|reply| reply.status == 200)
    })
    .await;
}

/// A close with unread bytes is a reset, which takes the answer back.
#[tokio::test]
async fn who_is_turned_away_can_read_why() {
    let world = world("max_connections = 1").await;
    let mut only = Raw::connect(world.gateway.address).await;
    only.send(GET).await;
    assert_eq!(only.whole().await.status, 200);
    for _ in 0..20 {
        let mut surplus = Raw::connect(world.gateway.address).await;
        surplus
            .send(GET.replace("Host", &format!("X: {}\r\nHost", "x".repeat(8000))))
            .await;
        surplus.send(GET).await;
        // Long after the gateway has said its word.
        tokio::time::sleep(Duration::from_millis(20)).await;
        surplus.send(GET).await;
        assert_eq!(surplus.whole().await.status, 503);
    }
    assert_eq!(world.echo.requests(), 1);
}

#[tokio::test]
async fn surplus_requests_are_refused_at_once_and_those_in_flight_complete() {
    let world = world("max_requests = 2").await;
    let slow = |address| async move {
        let get = Request::get("/public/slow-head?ms=1500").body(nothing());
        let mut link = Link::connect(address).await;
        link.send(get.expect("a request")).await.status
    };
    let address = world.gateway.address;
    let in_flight = [tokio::spawn(slow(address)), tokio::spawn(slow(address))];
    eventually("both are upstream", async || world.echo.seen().len() == 2).await;
    let mut link = Link::connect(address).await;
    let started = Instant::now();
    for _ in 0..20 {
        // Not even the token is looked at: there is none.
        let reply = link.get("/grants/1").await;
        assert_refused(&world.gateway, &reply, 503, "overloaded", "-").await;
        assert!(reply.header("retry-after").is_some());
    }
    assert!(started.elapsed() < Duration::from_millis(1200), "at once");
    assert!(link.is_open().await, "the connection is kept");
    assert_eq!(world.echo.seen().len(), 2);
    assert_eq!(world.gateway.admin("GET", "/readyz").await.status, 200);
    for request in in_flight {
        let status = within("the slow reply", request).await;
        assert_eq!(status.expect("no panic"), 200);
    }
    eventually("there is room again", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    assert_eq!(link.get("/public/").await.status, 200);
}

/// A gateway of its own process, which may have so many files open.
async fn with_files(count: usize) -> (Running, SocketAddr, SocketAddr, Echo, TempDir) {
    let echo = Echo::start(crate::harness::local()).await.expect("an API");
    let (clients, admin) = (nobody(), nobody());
    let config = CONFIG
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", &echo.url())
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            &format!("listen = [\"{clients}\"]"),
        )
        .replace(
            "\nlisten = \"127.0.0.1:0\"",
            &format!("\nlisten = \"{admin}\""),
        );
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, config).expect("written");
    let gateway = program(&[]);
    let mut command = Command::new("sh");
    let script = format!("ulimit -n {count}; exec \"$0\" run -c \"$1\"");
    command
        .args(["-c", &script])
        .arg(gateway.get_program())
        .arg(file);
    let running = Running::start(command);
    eventually("it serves", async || running.event("serving").is_some()).await;
    (running, clients, admin, echo, folder)
}

#[tokio::test]
async fn without_files_those_that_are_in_are_served() {
    let (running, address, admin, _echo, _folder) = with_files(64).await;
    let warned = running.event("with so many connections the limit of open files");
    assert!(warned.is_some(), "20000 clients do not fit");
    let mut link = Link::connect(address).await;
    let mut metrics = Link::connect(admin).await;
    assert_eq!(link.get("/public/").await.status, 200);
    assert_eq!(metrics.get("/livez").await.status, 200);

    let mut many = Vec::new();
    for _ in 0..200 {
        many.push(TcpStream::connect(address).await.expect("queued"));
    }
    let failure = "connections cannot be accepted";
    eventually("no file is left", async || running.event(failure).is_some()).await;
    let started = Instant::now();
    let mut served = 0;
    while started.elapsed() < Duration::from_millis(500) {
        assert_eq!(link.get("/public/").await.status, 200);
        served += 1;
    }
    assert!(served > 10, "{served}");
    let text = metrics.get("/metrics").await.text();
    let series = format!("gateway_accept_errors_total{{listener=\"{address}\"}} ");
    let errors: f64 = text
        .lines()
        .find_map(|line| line.strip_prefix(&series)?.parse().ok())
        .expect("they are counted");
    let most = started.elapsed().as_secs_f64() / 0.05 + 10.0;
    assert!((2.0..=most).contains(&errors), "no busy loop: {errors}");
    let told = running.stderr.text().matches(failure).count();
    assert_eq!(told, 1, "no flood");

    drop(many);
    eventually("new ones are served", async || {
        let reply = request(address, "GET", "/public/").try_send().await;
        reply.is_ok_and(|reply| reply.status == 200)
    })
    .await;
    assert_eq!(link.get("/public/").await.status, 200);
}
