//! What twice the load that can be served makes of the requests that are: goodput at the peak, and
//! at 1x and 2x of it, and how long the others wait for their 503.
//!
//! The peak is what 64 clients get that ask again as soon as they are answered. Then requests are
//! due at fixed times whatever becomes of those before (an open loop), and an answer counts as good
//! if it is a 200 within a second of when its request was due. The gateway is a process of its own
//! with one worker on core 0; this one, with issuer, upstream and clients in threads of their own,
//! keeps to the other cores, so that it takes nothing from the gateway when it offers more.
//!
//! Clients that cost as much as the gateway could not offer twice what it can do. So there, a
//! request is dear: the gateway remembers one token only, and has a signature to check each time.
//! Whether the clients were the limit all the same is in the output.
//!
//! `SECONDS=3 cargo bench --bench overload` for a quick look; 10 a stretch unless given.

#[allow(dead_code, reason = "each bench uses its share")]
mod support;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Gateway, Mode, Raw, Servers, apart, cpu, get, ms, pin, quantile, runtime, setting};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections of the open loop, of the closed one, and the threads of either.
const CONNECTIONS: u32 = 512;
const PEAK_CONNECTIONS: u32 = 64;
const THREADS: u32 = 2;

/// Who waits longer has given up.
const PATIENCE: Duration = Duration::from_secs(1);

/// Requests that are sent by so much later than they could be are the clients' fault.
const LATE: Duration = Duration::from_millis(20);

/// Tokens that take turns.
const TOKENS: usize = 64;

/// What is to be kept of the peak at twice the load.
const KEPT: f64 = 0.9;

/// What bounds the gateway, what the upstream does, `max_requests`, and how many tokens are
/// remembered.
const SCENES: [(&str, Mode, u32, u32); 3] = [
    (
        "the upstream takes 20 ms",
        Mode::Slow(Duration::from_millis(20)),
        64,
        100_000,
    ),
    ("the gateway's processor, no limit", Mode::Serves, 0, 1),
    ("the gateway's processor, limited", Mode::Serves, 64, 1),
];

const CONFIG: &str = r#"
[server]
listen = ["LISTEN"]
workers = 1
max_requests = MAX

[admin]
listen = "ADMIN"

[log]
level = "error"
access = false

[token_cache]
max_entries = REMEMBERED

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.api]
servers = ["http://UPSTREAM"]

[[route]]
path = "/api/*"
upstream = "api"
"#;

/// Who asks, and for how long. `interval`: between two requests of a connection; `None`: as soon
/// as it is answered.
#[derive(Clone)]
struct Load {
    gateway: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    connections: u32,
    interval: Option<Duration>,
    span: Duration,
}

/// What came of a stretch.
#[derive(Default)]
struct Outcome {
    good: u32,
    /// 200, too late.
    late: u32,
    /// No answer.
    lost: u32,
    /// How long each 503 took, from when its request was due.
    refused: Vec<Duration>,
    /// Sent later than they could be, though their connection was free.
    delayed: u32,
    /// How busy the busiest thread of the clients was, 1 for always.
    busy: f64,
}

fn main() {
    let pinned = pin();
    let span = Duration::from_secs(setting("SECONDS", 10).into());
    let servers = Servers::start(TOKENS, 1);
    for scene in SCENES {
        runtime().block_on(run(scene, &servers, pinned, span));
    }
}

async fn run(
    (name, mode, max, remembered): (&str, Mode, u32, u32),
    servers: &Servers,
    pinned: bool,
    span: Duration,
) {
    let upstream = &servers.upstreams[0];
    upstream.set(mode);
    let config = CONFIG
        .replace("MAX", &max.to_string())
        .replace("REMEMBERED", &remembered.to_string())
        .replace("ISSUER", &servers.issuer)
        .replace("UPSTREAM", &upstream.address.to_string());
    let gateway = Gateway::start(&config, pinned.then_some("0"));
    let requests = servers.tokens.iter().map(|token| get("/api/1", token));
    let closed = Load {
        gateway: gateway.address,
        requests: requests.collect(),
        connections: PEAK_CONNECTIONS,
        interval: None,
        span,
    };
    let warm = Duration::from_secs(1);
    Load {
        span: warm,
        ..closed.clone()
    }
    .run()
    .await;

    let before = gateway.cpu();
    let outcome = closed.run().await;
    let busy = (gateway.cpu() - before).as_secs_f64() / span.as_secs_f64();
    let peak = outcome.rate(span);
    println!("\n{name} (max_requests = {max})");
    println!(
        "  peak, closed loop: {peak:.0}/s, gateway {:.0} % of a core",
        busy * 100.0
    );
    outcome.warn();
    for times in [1.0, 2.0] {
        let open = Load {
            connections: CONNECTIONS,
            interval: Some(Duration::from_secs_f64(
                f64::from(CONNECTIONS) / (peak * times),
            )),
            ..closed.clone()
        };
        let before = gateway.cpu();
        let outcome = open.run().await;
        let busy = (gateway.cpu() - before).as_secs_f64() / span.as_secs_f64();
        let share = outcome.rate(span) / peak;
        let mark = if share >= KEPT { "ok" } else { "BELOW 90 %" };
        println!(
            "  {times}x offered, {:.0}/s: {:6.0}/s sent, {:6.0}/s good = {:3.0} % of the peak {mark}; {} late, {} lost, {} x 503 in p50 {} p99 {}; gateway {:.0} %",
            peak * times,
            outcome.sent(span),
            outcome.rate(span),
            share * 100.0,
            outcome.late,
            outcome.lost,
            outcome.refused.len(),
            ms(quantile(&outcome.refused, 50)),
            ms(quantile(&outcome.refused, 99)),
            busy * 100.0
        );
        outcome.warn();
    }
}

// === impl Load ===

impl Load {
    /// Asks from several threads.
    async fn run(&self) -> Outcome {
        let start = Instant::now() + Duration::from_millis(500);
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let load = self.clone();
                apart(move || load.thread(thread, start))
            })
            .collect();
        let mut all = Outcome::default();
        for outcome in threads {
            all.add(outcome.await);
        }
        all.refused.sort_unstable();
        all
    }

    /// A thread's share of the connections.
    async fn thread(self, thread: u32, start: Instant) -> Outcome {
        let mut clients = JoinSet::new();
        for client in (thread..self.connections).step_by(THREADS as usize) {
            clients.spawn(self.clone().client(client, start));
        }
        tokio::time::sleep_until(start.into()).await;
        let before = cpu("/proc/thread-self/stat");
        let mut all = Outcome::default();
        while let Some(done) = clients.join_next().await {
            all.add(done.expect("no panic"));
        }
        let worked = cpu("/proc/thread-self/stat") - before;
        all.busy = worked.as_secs_f64() / start.elapsed().as_secs_f64();
        all
    }

    async fn client(self, client: u32, start: Instant) -> Outcome {
        let mut raw = Raw::connect(self.gateway).await.expect("a connection");
        let mut outcome = Outcome::default();
        let (interval, end) = (self.interval.unwrap_or_default(), start + self.span);
        let mut due = start + interval / self.connections * client;
        let mut turn = client as usize;
        while due < end && Instant::now() < end {
            if Instant::now() < due {
                tokio::time::sleep_until(due.into()).await;
                outcome.delayed += u32::from(due.elapsed() > LATE);
            }
            turn += 1;
            let answer = raw.ask(&self.requests[turn % self.requests.len()]).await;
            outcome.count(&answer, due.elapsed());
            if answer.is_err() {
                raw = Raw::connect(self.gateway).await.expect("a connection");
            }
            due = match self.interval {
                Some(interval) => due + interval,
                None => Instant::now(),
            };
        }
        outcome
    }
}

// === impl Outcome ===

impl Outcome {
    fn count(&mut self, answer: &io::Result<u16>, taken: Duration) {
        match answer {
            Ok(200) if taken <= PATIENCE => self.good += 1,
            Ok(200) => self.late += 1,
            Ok(503) => self.refused.push(taken),
            Ok(other) => panic!("status {other}"),
            Err(_) => self.lost += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.good += other.good;
        self.late += other.late;
        self.lost += other.lost;
        self.delayed += other.delayed;
        self.refused.extend(other.refused);
        self.busy = self.busy.max(other.busy);
    }

    /// Good ones a second.
    fn rate(&self, span: Duration) -> f64 {
        f64::from(self.good) / span.as_secs_f64()
    }

    fn all(&self) -> f64 {
        f64::from(self.good + self.late + self.lost) + self.refused.len() as f64
    }

    fn sent(&self, span: Duration) -> f64 {
        self.all() / span.as_secs_f64()
    }

    /// Says so if the clients, not the gateway, were the limit.
    fn warn(&self) {
        let delayed = f64::from(self.delayed) / self.all();
        if delayed > 0.01 || self.busy > 0.9 / f64::from(THREADS) {
            println!(
                "    NOTE: the clients were near their own limit: {:.1} % sent over {} late with a free connection, a thread of theirs {:.0} % busy",
                delayed * 100.0,
                ms(LATE),
                self.busy * 100.0
            );
        }
    }
}
