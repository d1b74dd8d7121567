//! What a flood of unknown key ids does to valid traffic: its latency before, during and after one
//! uninterrupted flood of a minute, and how often the issuer was asked for keys meanwhile.
//!
//! Everything runs in this process on loopback: issuer, upstream, gateway with one worker, clients.
//! `SECONDS=5 cargo bench --bench flood` for a quick look: each of the three stretches has three
//! rounds of so many seconds, 20 unless given.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::app::App;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Valid requests a second, over so many connections.
const RATE: u32 = 1000;
const CONNECTIONS: u32 = 16;

/// Requests with an unknown key id a second, over so many connections.
const FLOOD: u32 = 1000;
const FLOODERS: u32 = 8;

const ROUNDS: usize = 3;
const COOLDOWN: Duration = Duration::from_secs(30);

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1

[admin]
listen = "127.0.0.1:0"

[log]
access = false

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.echo]
servers = ["ECHO"]

[[route]]
path = "/grants/*"
upstream = "echo"
"#;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let seconds = std::env::var("SECONDS").map_or(20, |text| text.parse().expect("a number"));
    let span = Duration::from_secs(seconds);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("an issuer");
    let echo = Echo::start(local).await.expect("an upstream");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("gateway.toml");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    std::fs::write(&file, config).expect("written");
    let app = App::start(file, std::io::sink()).await.expect("a gateway");
    app.ready().await;
    let gateway = *app.addresses.first().expect("a listener");
    let good: Arc<str> = auth.token().into();

    traffic(gateway, &good, Duration::from_secs(1)).await;
    let stretch = || rounds(gateway, &good, span);
    let before = stretch().await;
    let fetched = auth.counts().jwks;
    let flood = Flood::start(gateway, &good);
    let flooded = stretch().await;
    let (sent, lasted) = flood.stop().await;
    let fetches = auth.counts().jwks - fetched;
    let after = stretch().await;

    println!(
        "{RATE} valid requests/s, {ROUNDS} rounds of {seconds} s before, during and after a flood"
    );
    println!("         p50 µs  p99 µs   (medians of the rounds)");
    for (name, rounds) in [
        ("before", &before),
        ("flooded", &flooded),
        ("after", &after),
    ] {
        println!("{name:8} {:6}  {:6}", median(rounds, 0), median(rounds, 1));
    }
    let quiet = [before, after].concat();
    for (column, name) in [(0, "p50"), (1, "p99")] {
        let ratio = median(&flooded, column) as f64 / median(&quiet, column) as f64;
        println!("{name}: {ratio:.2} of the quiet rounds, before and after");
    }
    let cooldowns = lasted.as_secs() / COOLDOWN.as_secs() + 1;
    println!(
        "{sent} requests with an unknown kid in {} s, all refused; {fetches} fetches of keys",
        lasted.as_secs()
    );
    println!(
        "(a fetch each {} s allowed: {cooldowns})",
        COOLDOWN.as_secs()
    );
    assert!(fetches <= cooldowns, "more fetches than cool-downs");
    app.end().await;
}

/// The latencies of valid requests, round by round without a pause.
async fn rounds(gateway: SocketAddr, token: &Arc<str>, span: Duration) -> Vec<[u128; 2]> {
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(traffic(gateway, token, span).await);
    }
    rounds
}

/// Sends valid requests at a steady rate; their latency in µs as (p50, p99), counted from when each
/// was due.
async fn traffic(gateway: SocketAddr, token: &Arc<str>, span: Duration) -> [u128; 2] {
    let mut clients = JoinSet::new();
    let interval = Duration::from_secs(1) * CONNECTIONS / RATE;
    for client in 0..CONNECTIONS {
        let (token, first) = (Arc::clone(token), interval / CONNECTIONS * client);
        clients.spawn(async move {
            let mut sender = connect(gateway).await;
            let start = Instant::now() + first;
            let mut taken = Vec::new();
            let mut due = start;
            while due < start + span {
                tokio::time::sleep_until(due.into()).await;
                assert_eq!(ask(&mut sender, &token).await, 200);
                taken.push(due.elapsed().as_micros());
                due += interval;
            }
            taken
        });
    }
    let mut taken: Vec<u128> = clients.join_all().await.into_iter().flatten().collect();
    taken.sort_unstable();
    let at = |share: usize| taken.get(taken.len() * share / 100).copied().unwrap_or(0);
    [at(50), at(99)]
}

struct Flood {
    started: Instant,
    on: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    tasks: JoinSet<()>,
}

impl Flood {
    fn start(gateway: SocketAddr, good: &str) -> Self {
        let (on, sent) = (Arc::new(AtomicBool::new(true)), Arc::default());
        let mut tasks = JoinSet::new();
        // Everything but the key id is right, so nothing cheaper refuses them.
        let (_, rest) = good.split_once('.').expect("a token");
        for _ in 0..FLOODERS {
            let (on, sent, rest) = (Arc::clone(&on), Arc::clone(&sent), rest.to_owned());
            tasks.spawn(async move {
                let mut sender = connect(gateway).await;
                let mut tick = tokio::time::interval(Duration::from_secs(1) * FLOODERS / FLOOD);
                while on.load(Relaxed) {
                    tick.tick().await;
                    let kid = fastrand::u64(..).to_string();
                    let header = json!({"alg": "RS256", "typ": "JWT", "kid": kid}).to_string();
                    let token = format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header));
                    assert_eq!(ask(&mut sender, &token).await, 401);
                    AtomicU64::fetch_add(&sent, 1, Relaxed);
                }
            });
        }
        Self {
            started: Instant::now(),
            on,
            sent,
            tasks,
        }
    }

    /// How many were refused, in which time.
    async fn stop(self) -> (u64, Duration) {
        self.on.store(false, Relaxed);
        self.tasks.join_all().await;
        (self.sent.load(Relaxed), self.started.elapsed())
    }
}

async fn connect(gateway: SocketAddr) -> SendRequest<Empty<Bytes>> {
    let stream = TcpStream::connect(gateway).await.expect("connected");
    stream.set_nodelay(true).expect("an option");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

async fn ask(sender: &mut SendRequest<Empty<Bytes>>, token: &str) -> u16 {
    let request = Request::get("/grants/1")
        .header("host", "api.bonterra.network")
        .header("authorization", format!("Bearer {token}"))
        .body(Empty::new())
        .expect("a request");
    sender.ready().await.expect("a connection");
    let response = sender.send_request(request).await.expect("a reply");
    let status = response.status().as_u16();
    response.into_body().collect().await.expect("a body");
    status
}

/// Of an even number the mean of the two in the middle.
fn median(rounds: &[[u128; 2]], column: usize) -> u128 {
    let mut values: Vec<u128> = rounds.iter().map(|round| round[column]).collect();
    values.sort_unstable();
    let middle = values.len() / 2;
    (values[(values.len() - 1) / 2] + values[middle]) / 2
}
