//! The token broker under load. First, how many replies it gives out of its cache on one core. Then,
//! whether anything goes wrong with a hundred thousand requests while the issuer fails in every way:
//! none may reach it twice, and nobody may get what is another's.
//!
//! The gateway is a process of its own with one worker on core 0; this one, with issuer and clients,
//! keeps to the other cores. Its own processor time a reply is shown beside the rate, for where the
//! clients are what is slow.
//!
//! `SECONDS=3 POSTS=10000 cargo bench --bench broker` for a quick look.

#[path = "support/storm.rs"]
mod storm;
#[allow(dead_code, reason = "each bench uses its share")]
mod support;

use std::time::{Duration, Instant};

use storm::{Issuer, SURFACES, storm};
use support::{Gateway, Raw, Servers, ms, pin, quantile, runtime, setting};
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Connections that ask again as soon as they are answered.
const CONNECTIONS: u32 = 64;

/// Replies a second that one core has to give.
const ASKED: f64 = 40_000.0;

const ROUNDS: usize = 5;

const CONFIG: &str = r#"
[server]
listen = ["LISTEN"]
workers = 1

[admin]
listen = "ADMIN"

[log]
level = "error"
access = false
"#;

fn main() {
    let pinned = pin();
    let servers = Servers::start(0, 0);
    let config = format!("{CONFIG}{SURFACES}").replace("ISSUER", &servers.issuer);
    let simulated = format!("{}oauth/token", servers.issuer);
    let gateway = Gateway::start(&config.replace("TOKEN", &simulated), pinned.then_some("0"));
    runtime().block_on(cached(&gateway));
    drop(gateway);
    runtime().block_on(async {
        let issuer = Issuer::start().await.expect("an issuer");
        let config = config.replace("TOKEN", &format!("http://{}/token", issuer.address));
        let gateway = Gateway::start(&config, pinned.then_some("0"));
        faults(&gateway, &issuer).await;
    });
}

/// Replies out of the cache.
async fn cached(gateway: &Gateway) {
    let span = Duration::from_secs(setting("SECONDS", 5).into());
    let body = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret&audience=https%3A%2F%2Fapi.bonterra.network";
    let request = format!(
        "POST /cached/token HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let (cpu, start) = (gateway.cpu(), Instant::now());
        let mut times = ask(gateway, request.as_bytes(), start + span).await;
        let (cpu, elapsed) = (gateway.cpu() - cpu, start.elapsed());
        times.sort_unstable();
        let count = times.len() as f64;
        let rate = count / elapsed.as_secs_f64();
        let own = cpu.as_secs_f64() / count;
        println!(
            "  {}{rate:.0}/s, p50 {} p99 {}; the gateway took {:.1} us of its core for each, {:.0} % busy",
            if round == 0 { "(warm-up) " } else { "" },
            ms(quantile(&times, 50)),
            ms(quantile(&times, 99)),
            own * 1e6,
            cpu.as_secs_f64() / elapsed.as_secs_f64() * 100.0
        );
        if round > 0 {
            rounds.push((rate, 1.0 / own));
        }
    }
    let median = |mut list: Vec<f64>| {
        list.sort_by(f64::total_cmp);
        list[list.len() / 2]
    };
    let rate = median(rounds.iter().map(|round| round.0).collect());
    let core = median(rounds.iter().map(|round| round.1).collect());
    let mark = if rate >= ASKED { "ok" } else { "BELOW 40,000" };
    println!(
        "cached replies, median of {ROUNDS} rounds: {rate:.0}/s {mark}; {core:.0} for a second of the core\n"
    );
}

async fn ask(gateway: &Gateway, request: &[u8], end: Instant) -> Vec<Duration> {
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (address, request) = (gateway.address, request.to_vec());
        clients.spawn(async move {
            let mut raw = Raw::connect(address).await.expect("a connection");
            let mut times = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                assert_eq!(raw.ask(&request).await.expect("an answer"), 200);
                times.push(start.elapsed());
            }
            times
        });
    }
    let mut all = Vec::new();
    while let Some(times) = clients.join_next().await {
        all.extend(times.expect("no panic"));
    }
    all
}

/// Requests while the issuer fails.
async fn faults(gateway: &Gateway, issuer: &Issuer) {
    let posts = setting("POSTS", 100_000);
    let start = Instant::now();
    let found = storm(gateway.address, &["/plain", "/cached"], issuer, posts).await;
    println!(
        "{} token requests in {:.1} s, an issuer that fails in eight ways: {} tokens, {} errors, {} clients left early; {} arrived at the issuer",
        found.sent,
        start.elapsed().as_secs_f64(),
        found.tokens,
        found.errors,
        found.left,
        found.arrived
    );
    for wrong in found.wrong.iter().take(20) {
        println!("  WRONG: {wrong}");
    }
    println!(
        "  {} met a connection that the issuer was closing: 502, not sent again, not arrived",
        found.unlucky.len()
    );
    println!(
        "  {} twice, lost, crossed or otherwise wrong",
        found.wrong.len()
    );
    assert!(found.wrong.is_empty(), "something went wrong, see above");
}
