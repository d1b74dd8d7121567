//! What twice the load that can be served makes of the requests that are: goodput at the peak, and
//! at 1x and 2x of it, and how long the others wait for their 503.
//!
//! Requests are due at fixed times whatever becomes of those before (an open loop), and an answer
//! counts as good if it is a 200 within a second of when its request was due. Everything runs in
//! this process on loopback: gateway with one worker, upstream and clients in a thread each.
//!
//! `SECONDS=3 cargo bench --bench overload` for a quick look; 10 a stretch unless given.

use bonterra_gateway::app::App;
use bonterra_gateway::demo::echo::Echo;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections of the open loop.
const CONNECTIONS: u32 = 512;

/// Who waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// What bounds the gateway, what is asked for, and `max_requests`.
const SCENES: [(&str, &str, u32); 3] = [
    ("the upstream takes 20 ms", "/api/slow-head?ms=20", 64),
    ("the gateway's processor, no limit", "/api/", 0),
    ("the gateway's processor, limited", "/api/", 64),
];

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
max_requests = MAX

[admin]
listen = "127.0.0.1:0"

[log]
access = false

[upstream.api]
servers = ["UPSTREAM"]

[[route]]
path = "/api/*"
upstream = "api"
auth = "none"
"#;

/// What came of a stretch.
#[derive(Default)]
struct Outcome {
    good: u32,
    /// 200, too late.
    late: u32,
    /// How long each 503 took, from when its request was due.
    refused: Vec<Duration>,
}

fn main() {
    let seconds = std::env::var("SECONDS").map_or(10, |text| text.parse().expect("a number"));
    let span = Duration::from_secs(seconds);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        runtime().block_on(async {
            let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let echo = Echo::start(local).await.expect("an upstream");
            tell.send(echo.url()).expect("somebody waits");
            std::future::pending::<()>().await;
        });
    });
    let upstream = told.recv().expect("an upstream");
    for (name, path, max) in SCENES {
        runtime().block_on(scene(name, path, max, &upstream, span));
    }
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

async fn scene(name: &str, path: &'static str, max: u32, upstream: &str, span: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    let config = CONFIG
        .replace("MAX", &max.to_string())
        .replace("UPSTREAM", upstream);
    std::fs::write(&file, config).expect("written");
    let app = App::start(file, std::io::sink()).await.expect("a gateway");
    let gateway = *app.addresses.first().expect("a listener");
    let peak = peak(gateway, path, span).await;
    println!("{name} (max_requests = {max}): peak {peak:.0}/s");
    for times in [1.0, 2.0] {
        let outcome = offer(gateway, path, peak * times, span).await;
        let good = f64::from(outcome.good) / span.as_secs_f64();
        println!(
            "  {times}x offered: {good:.0}/s good ({:.0} % of the peak), {} late, {} refused, 503 p50 {:?} p99 {:?}",
            good / peak * 100.0,
            outcome.late,
            outcome.refused.len(),
            quantile(&outcome.refused, 50),
            quantile(&outcome.refused, 99),
        );
    }
    app.end().await;
}

/// What 64 clients get that ask again as soon as they are answered.
async fn peak(gateway: SocketAddr, path: &'static str, span: Duration) -> f64 {
    let mut clients = JoinSet::new();
    let end = Instant::now() + span;
    for _ in 0..64 {
        clients.spawn(async move {
            let (mut sender, mut good) = (connect(gateway).await, 0_u32);
            while Instant::now() < end {
                good += u32::from(ask(&mut sender, path).await == 200);
            }
            good
        });
    }
    let good: u32 = clients.join_all().await.into_iter().sum();
    f64::from(good) / span.as_secs_f64()
}

/// So many requests a second, come what may.
async fn offer(gateway: SocketAddr, path: &'static str, rate: f64, span: Duration) -> Outcome {
    let mut clients = JoinSet::new();
    let interval = Duration::from_secs_f64(f64::from(CONNECTIONS) / rate);
    let start = Instant::now() + Duration::from_millis(500);
    for client in 0..CONNECTIONS {
        clients.spawn(async move {
            let mut sender = connect(gateway).await;
            let mut outcome = Outcome::default();
            let mut due = start + interval / CONNECTIONS * client;
            while due < start + span && Instant::now() < start + span {
                tokio::time::sleep_until(due.into()).await;
                let status = ask(&mut sender, path).await;
                let taken = due.elapsed();
                match status {
                    200 if taken <= PATIENCE => outcome.good += 1,
                    200 => outcome.late += 1,
                    503 => outcome.refused.push(taken),
                    other => panic!("{other}"),
                }
                due += interval;
            }
            outcome
        });
    }
    let mut all = Outcome::default();
    for outcome in clients.join_all().await {
        all.good += outcome.good;
        all.late += outcome.late;
        all.refused.extend(outcome.refused);
    }
    all.refused.sort_unstable();
    all
}

async fn connect(gateway: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(gateway).await.expect("connected");
    stream.set_nodelay(true).expect("an option");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, path: &str) -> u16 {
    let request = Request::get(path)
        .header("host", "api.bonterra.network")
        .body(Empty::new())
        .expect("a request");
    sender.ready().await.expect("a connection");
    let response = sender.send_request(request).await.expect("a reply");
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    status
}

fn quantile(sorted: &[Duration], share: usize) -> Duration {
    let at = sorted.len() * share / 100;
    sorted.get(at).copied().unwrap_or_default()
}
