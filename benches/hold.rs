//! What a gateway holds, seen from outside: 10,000 idle connections, 5,000 clients that never
//! finish a head, an upstream with one fault after the other, and one that is out altogether.
//!
//! The gateway is a process of its own with one worker; issuer, upstreams and clients are threads
//! of this one, on loopback. Requests are sent at a steady rate whatever becomes of those before,
//! and their time counts from when they were sent, or from when they were due if an earlier one
//! was in the way.
//!
//! `cargo bench --bench hold`: under two minutes. `SECONDS=2 ROUNDS=1 CONNECTIONS=1000 SLOW=500`
//! for a quick look; `PARTS=idle,slow,faults,outage` for some of it; `GATEWAY_BIN` for another
//! gateway. Ends with an error if a count is over its limit. A latency that is only says so: what
//! else runs on the machine is in it.

#[allow(dead_code, reason = "each bench uses its share")]
mod support;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{Gateway, Mode, Raw, Servers, Upstream, apart, get, ms, quantile, runtime, setting};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The issue's limits.
const MAX_RESIDENT: u64 = 200 << 20;
const MAX_P99: f64 = 1.10;
const MAX_SENT: f64 = 1.2;

/// For a head, in the part with the slow clients.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long those go on.
const SLOW_FOR: u32 = 3;

/// Requests a second to a route, over so many connections.
const RATE: u32 = 1000;
const CLIENTS: u32 = 32;
/// The same for the route with the faulty upstream. More connections than requests in a second,
/// because each may take the whole `response_timeout`.
const FAULTY_RATE: u32 = 200;
const FAULTY_CLIENTS: u32 = 400;

/// How long an upstream that flaps is up, and down.
const FLAP: Duration = Duration::from_millis(250);

const CONFIG: &str = r#"
[server]
listen = ["LISTEN"]
workers = 1
header_timeout = "HEAD_TIME"
idle_timeout = "10m"

[admin]
listen = "ADMIN"

[log]
level = "error"
access = false

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.good]
servers = ["http://GOOD"]

[upstream.bad]
servers = ["http://BAD"]
connect_timeout = "500ms"
response_timeout = "1s"

[upstream.bad.retry]
attempts = 3
on = ["connect", "reset", "503"]

[[route]]
path = "/good/*"
upstream = "good"

[[route]]
path = "/bad/*"
upstream = "bad"
"#;

/// What is sent where.
#[derive(Clone)]
struct Load {
    gateway: SocketAddr,
    path: &'static str,
    token: Arc<str>,
    rate: u32,
    clients: u32,
}

/// What came of it.
#[derive(Default)]
struct Sample {
    /// Sorted.
    taken: Vec<Duration>,
    /// Statuses, and other ends, with their counts.
    answers: BTreeMap<String, u32>,
}

/// What became of slow clients' connections.
#[derive(Default)]
struct Slow {
    /// Closed with 408.
    timed_out: u32,
    /// Closed in another way.
    otherwise: u32,
    /// Not closed before the end, when they were younger than the timeout, or should not have been.
    open: u32,
    /// How long the oldest was open.
    oldest: Duration,
}

/// The measured things, and whether a limit was broken that no noise can break.
struct Bench {
    servers: Servers,
    span: Duration,
    rounds: u32,
    failed: bool,
}

fn main() -> ExitCode {
    let parts = std::env::var("PARTS").unwrap_or_else(|_| "idle,slow,faults,outage".into());
    let wanted = |part: &str| parts.split(',').any(|one| one == part);
    let mut bench = Bench {
        servers: Servers::start(1, 2),
        span: Duration::from_secs(setting("SECONDS", 5).into()),
        rounds: setting("ROUNDS", 1),
        failed: false,
    };
    let room = files();
    runtime().block_on(async {
        if wanted("idle") {
            bench
                .idle(within(setting("CONNECTIONS", 10_000), room))
                .await;
        }
        if wanted("slow") {
            bench.slow(within(setting("SLOW", 5000), room)).await;
        }
        if wanted("faults") {
            bench.faults().await;
        }
        if wanted("outage") {
            bench.outage().await;
        }
    });
    if bench.failed {
        println!("\nFAILED: see above");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Takes all open files that it may have, and says how many connections that leaves room for.
fn files() -> u32 {
    let limit = getrlimit(Resource::Nofile);
    // A limit that cannot be raised is the one in force.
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            ..limit
        },
    );
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    u32::try_from(files.saturating_sub(1000)).unwrap_or(u32::MAX)
}

fn within(wanted: u32, room: u32) -> u32 {
    if wanted > room {
        println!(
            "NOTE: {room} connections instead of {wanted}, for want of open files (ulimit -n)"
        );
    }
    wanted.min(room)
}

// === impl Bench ===

impl Bench {
    fn gateway(&self, header_timeout: Duration) -> Gateway {
        let [good, bad] = &self.servers.upstreams[..] else {
            unreachable!("two were asked for");
        };
        let config = CONFIG
            .replace("HEAD_TIME", &format!("{}s", header_timeout.as_secs()))
            .replace("ISSUER", &self.servers.issuer)
            .replace("GOOD", &good.address.to_string())
            .replace("BAD", &bad.address.to_string());
        Gateway::start(&config, None)
    }

    fn load(&self, gateway: &Gateway) -> Load {
        Load {
            gateway: gateway.address,
            path: "/good/1",
            token: Arc::clone(&self.servers.tokens[0]),
            rate: RATE,
            clients: CLIENTS,
        }
    }

    /// The upstream with the faults.
    fn bad(&self) -> &Upstream {
        &self.servers.upstreams[1]
    }

    /// A line of a table: what, how much, and if there is a limit whether it is kept. `strict`:
    /// breaking it fails the bench.
    fn line(&mut self, what: &str, value: &str, limit: Option<(&str, bool)>, strict: bool) {
        let (limit, mark) = match limit {
            Some((limit, true)) => (limit, "ok"),
            Some((limit, false)) => (limit, if strict { "FAILED" } else { "OVER" }),
            None => ("", ""),
        };
        self.failed |= mark == "FAILED";
        println!(
            "{}",
            format!("  {what:44} {value:>16}  {limit:12} {mark}").trim_end()
        );
    }

    fn p99(&mut self, what: &str, quiet: &Sample, now: &Sample) {
        let (quiet, now) = (quantile(&quiet.taken, 99), quantile(&now.taken, 99));
        let ratio = now.as_secs_f64() / quiet.as_secs_f64();
        let kept = ratio <= MAX_P99;
        self.line(
            what,
            &format!("{ratio:.2} x quiet"),
            Some(("<= 1.10", kept)),
            false,
        );
    }

    async fn idle(&mut self, count: u32) {
        println!("\n{count} idle connections, each after one request with a token");
        let gateway = self.gateway(Duration::from_secs(10));
        let load = self.load(&gateway);
        load.run(Duration::from_secs(1)).await;
        let quiet = load.run(self.span).await;
        let before = gateway.resident();
        let held = hold(&load, count).await;
        let opened = gateway.resident();
        let busy = load.run(self.span).await;
        let after = gateway.resident();
        let alive = still_alive(held, &load).await;

        self.line("RSS before", &mib(before), None, true);
        self.line("RSS with them", &mib(opened), None, true);
        let worst = opened.max(after);
        self.line(
            "RSS with them, after more requests",
            &mib(after),
            Some(("<= 200 MiB", worst <= MAX_RESIDENT)),
            true,
        );
        let each = worst.saturating_sub(before) as f64 / 1024.0 / f64::from(count);
        self.line("per connection", &format!("{each:.2} KiB"), None, true);
        self.times("requests before", &quiet);
        self.times("requests meanwhile", &busy);
        self.all_good(&busy);
        self.p99("p99 meanwhile", &quiet, &busy);
        self.line(
            "of them still good for a request",
            &alive.to_string(),
            Some(("all", alive == count)),
            true,
        );
    }

    async fn slow(&mut self, count: u32) {
        let (span, lasts) = (self.span, self.span * SLOW_FOR);
        println!(
            "\n{count} connections that send a byte of a head every second, for {} s; header_timeout {} s",
            lasts.as_secs(),
            HEADER_TIMEOUT.as_secs()
        );
        let gateway = self.gateway(HEADER_TIMEOUT);
        let load = self.load(&gateway);
        load.run(Duration::from_secs(1)).await;
        let quiet = load.run(span).await;
        let address = gateway.address;
        let slow = apart(move || drips(address, count, lasts));
        let busy = load.run(lasts).await;
        let slow = slow.await;

        self.times("requests of others before", &quiet);
        self.times("requests of others meanwhile", &busy);
        self.all_good(&busy);
        self.p99("p99 of others meanwhile", &quiet, &busy);
        let closed = slow.timed_out + slow.otherwise;
        self.line("closed, and opened again", &closed.to_string(), None, true);
        let all = slow.otherwise == 0 && (closed > 0 || lasts <= HEADER_TIMEOUT);
        self.line(
            "of those with 408",
            &slow.timed_out.to_string(),
            Some(("all", all)),
            true,
        );
        self.line("open at the end", &slow.open.to_string(), None, true);
        let limit = HEADER_TIMEOUT + Duration::from_millis(1500);
        let oldest = format!("{:.1} s", slow.oldest.as_secs_f64());
        self.line(
            "the oldest lasted",
            &oldest,
            Some(("<= 6.5 s", slow.oldest <= limit)),
            true,
        );
    }

    async fn faults(&mut self) {
        let phases: [(&str, &[Mode]); 7] = [
            ("quiet", &[Mode::Serves]),
            ("killed", &[Mode::Dead]),
            ("hangs", &[Mode::Hangs]),
            ("cuts bodies", &[Mode::Cuts]),
            ("resets", &[Mode::Resets]),
            ("flaps", &[Mode::Serves, Mode::Dead]),
            ("quiet again", &[Mode::Serves]),
        ];
        println!(
            "\nOne upstream with faults, {} s each, {RATE} requests/s to the other and {FAULTY_RATE} to it; medians of {} rounds",
            self.span.as_secs(),
            self.rounds
        );
        let gateway = self.gateway(Duration::from_secs(10));
        let load = self.load(&gateway);
        let faulty = Load {
            path: "/bad/1",
            rate: FAULTY_RATE,
            clients: FAULTY_CLIENTS,
            ..load.clone()
        };
        load.run(Duration::from_secs(1)).await;
        let mut found: Vec<Vec<[Sample; 2]>> = phases.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for ((_, modes), found) in phases.iter().zip(&mut found) {
                found.push(self.phase(modes, &load, &faulty).await);
            }
        }
        // Before and after, so that a machine that slows down is no fault of the upstream.
        let quiet = [&found[0], &found[6]].map(|rounds| median_p99(rounds));
        let quiet = (quiet[0] + quiet[1]) / 2;
        println!(
            "  {:12} {:>10} {:>10} {:>8}  {:4}  the faulty route's answers",
            "upstream", "p50", "p99", "x quiet", ""
        );
        for ((name, _), rounds) in phases.iter().zip(&found) {
            let p99 = median_p99(rounds);
            let ratio = p99.as_secs_f64() / quiet.as_secs_f64();
            let mark = if ratio <= MAX_P99 { "ok" } else { "OVER" };
            let mut answers = BTreeMap::new();
            for (answer, count) in rounds.iter().flat_map(|[_, faulty]| &faulty.answers) {
                *answers.entry(answer).or_insert(0) += count;
            }
            let answers: Vec<String> = answers
                .iter()
                .map(|(what, count)| format!("{what} x{count}"))
                .collect();
            let p50 = median(
                rounds
                    .iter()
                    .map(|[good, _]| quantile(&good.taken, 50))
                    .collect(),
            );
            println!(
                "  {name:12} {:>10} {:>10} {ratio:8.2}  {mark:4}  {}",
                ms(p50),
                ms(p99),
                answers.join(", ")
            );
        }
        for good in found.iter().flatten().map(|[good, _]| good) {
            self.all_good(good);
        }
    }

    /// Both routes under load, while the upstream of one goes through its modes.
    async fn phase(&self, modes: &[Mode], load: &Load, faulty: &Load) -> [Sample; 2] {
        let (faulty, span) = (faulty.clone(), self.span);
        let other = apart(move || async move { faulty.run(span).await });
        let change = async {
            for mode in modes.iter().cycle() {
                self.bad().set(*mode);
                tokio::time::sleep(FLAP).await;
            }
        };
        let good = tokio::select! {
            good = load.run(span) => good,
            () = change => unreachable!("it has no end"),
        };
        let bad = other.await;
        self.bad().set(Mode::Serves);
        [good, bad]
    }

    async fn outage(&mut self) {
        println!(
            "\nAn upstream that fails every request, each worth a retry; attempts = 3, budget 20 %"
        );
        let gateway = self.gateway(Duration::from_secs(10));
        for (name, mode) in [
            ("resets connections", Mode::Resets),
            ("answers 503", Mode::Refuses),
        ] {
            let load = Load {
                path: "/bad/1",
                ..self.load(&gateway)
            };
            self.bad().set(mode);
            let before = self.bad().seen();
            let sample = load.run(self.span).await;
            let seen = self.bad().seen() - before;
            self.bad().set(Mode::Serves);
            let sent = sample.taken.len();
            let ratio = seen as f64 / sent as f64;
            self.line(
                &format!("{name}: requests sent"),
                &sent.to_string(),
                None,
                true,
            );
            let kept = ratio <= MAX_SENT;
            self.line(
                "seen by it",
                &format!("{seen} ({ratio:.3} x)"),
                Some(("<= 1.2 x", kept)),
                true,
            );
            self.line("answers", &sample.answers(), None, true);
        }
    }

    fn times(&mut self, what: &str, sample: &Sample) {
        let value = format!(
            "{} / {}",
            ms(quantile(&sample.taken, 50)),
            ms(quantile(&sample.taken, 99))
        );
        self.line(&format!("{what}, p50 / p99"), &value, None, true);
    }

    fn all_good(&mut self, sample: &Sample) {
        if sample.answers.keys().any(|answer| answer != "200") {
            self.line(
                "answers",
                &sample.answers(),
                Some(("200 only", false)),
                true,
            );
        }
    }
}

// === impl Load ===

impl Load {
    /// Sends for so long.
    async fn run(&self, span: Duration) -> Sample {
        let interval = Duration::from_secs(1) * self.clients / self.rate;
        let start = Instant::now() + Duration::from_millis(50);
        let mut clients = JoinSet::new();
        for client in 0..self.clients {
            let first = start + interval / self.clients * client;
            clients.spawn(self.clone().client(first, interval, start + span));
        }
        let mut all = Sample::default();
        while let Some(done) = clients.join_next().await {
            let one = done.expect("no panic");
            all.taken.extend(one.taken);
            for (answer, count) in one.answers {
                *all.answers.entry(answer).or_default() += count;
            }
        }
        all.taken.sort_unstable();
        all
    }

    async fn client(self, mut due: Instant, interval: Duration, end: Instant) -> Sample {
        let mut sample = Sample::default();
        let mut sender = connect(self.gateway).await.ok();
        while due < end {
            // The timer's own delay is not the gateway's.
            let begun = if Instant::now() < due {
                tokio::time::sleep_until(due.into()).await;
                Instant::now()
            } else {
                due
            };
            let (answer, again) = match self.ask(sender.take()).await {
                Ok(answer) => answer,
                Err(error) => (error.to_string(), None),
            };
            sender = again;
            sample.taken.push(begun.elapsed());
            *sample.answers.entry(answer).or_default() += 1;
            due += interval;
        }
        sample
    }

    /// What was answered, and the connection if it can be used again.
    async fn ask(&self, sender: Option<Sender>) -> hyper::Result<(String, Option<Sender>)> {
        let usable = match sender {
            Some(mut sender) => sender.ready().await.is_ok().then_some(sender),
            None => None,
        };
        let mut sender = match usable {
            Some(sender) => sender,
            None => connect(self.gateway).await?,
        };
        let request = Request::get(self.path)
            .header("host", "api.bonterra.network")
            .header("authorization", format!("Bearer {}", self.token))
            .body(Empty::new())
            .expect("a request");
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        match response.into_body().collect().await {
            Ok(_) => Ok((status.to_string(), Some(sender))),
            Err(_) => Ok((format!("{status} cut short"), None)),
        }
    }
}

impl Sample {
    fn answers(&self) -> String {
        let each = self
            .answers
            .iter()
            .map(|(what, count)| format!("{what} x{count}"));
        each.collect::<Vec<_>>().join(", ")
    }
}

type Sender = SendRequest<Empty<Bytes>>;

async fn connect(gateway: SocketAddr) -> hyper::Result<Sender> {
    // Loopback, and a listener that is there: without a connection nothing here means anything.
    let stream = TcpStream::connect(gateway)
        .await
        .expect("a connection to the gateway");
    stream.set_nodelay(true).expect("an option");
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Opens connections, 64 at a time, and makes a request with each.
async fn hold(load: &Load, count: u32) -> Vec<Raw> {
    let request: Arc<[u8]> = get(load.path, &load.token).into();
    let mut tasks = JoinSet::new();
    let mut held = Vec::new();
    for _ in 0..count {
        if tasks.len() == 64 {
            held.extend(tasks.join_next().await.map(|raw| raw.expect("no panic")));
        }
        let (request, address) = (Arc::clone(&request), load.gateway);
        tasks.spawn(async move {
            let mut raw = Raw::connect(address).await.expect("a connection");
            assert_eq!(raw.ask(&request).await.expect("an answer"), 200);
            raw
        });
    }
    held.extend(tasks.join_all().await);
    held
}

/// How many of the connections answer once more.
async fn still_alive(held: Vec<Raw>, load: &Load) -> u32 {
    let request = get(load.path, &load.token);
    let mut alive = 0;
    for mut raw in held {
        alive += u32::from(matches!(raw.ask(&request).await, Ok(200)));
    }
    alive
}

/// Slow clients, each with one connection at a time.
async fn drips(gateway: SocketAddr, count: u32, lasts: Duration) -> Slow {
    let start = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..count {
        // All within the first second.
        let first = start + Duration::from_secs(1) / count * client;
        clients.spawn(drip(gateway, first, start + lasts));
    }
    let mut all = Slow::default();
    while let Some(done) = clients.join_next().await {
        let one = done.expect("no panic");
        all.timed_out += one.timed_out;
        all.otherwise += one.otherwise;
        all.open += one.open;
        all.oldest = all.oldest.max(one.oldest);
    }
    all
}

async fn drip(gateway: SocketAddr, first: Instant, end: Instant) -> Slow {
    let mut slow = Slow::default();
    tokio::time::sleep_until(first.into()).await;
    while Instant::now() < end {
        let begun = Instant::now();
        match slow_head(gateway, end).await {
            None => slow.open += 1,
            Some(answer) if answer.starts_with(b"HTTP/1.1 408") => slow.timed_out += 1,
            Some(_) => slow.otherwise += 1,
        }
        slow.oldest = slow.oldest.max(begun.elapsed());
    }
    slow
}

/// What came before the connection was closed; `None` if it was not.
async fn slow_head(gateway: SocketAddr, end: Instant) -> Option<Vec<u8>> {
    let mut answer = Vec::new();
    let Ok(mut stream) = TcpStream::connect(gateway).await else {
        return Some(answer);
    };
    let begin = b"GET /good/1 HTTP/1.1\r\nhost: api.bonterra.network\r\nx-slow: ";
    let mut text: &[u8] = begin;
    loop {
        // Who is closed may notice while writing; what was said before can still be read.
        let closed = stream.write_all(text).await.is_err();
        text = b"a";
        let next = (Instant::now() + Duration::from_secs(1)).min(end);
        loop {
            let read = stream.read_buf(&mut answer);
            match tokio::time::timeout_at(next.into(), read).await {
                Ok(Ok(0) | Err(_)) => return Some(answer),
                Ok(Ok(_)) => {}
                Err(_) if closed => return Some(answer),
                Err(_) if next == end => return None,
                Err(_) => break,
            }
        }
    }
}

fn median_p99(rounds: &[[Sample; 2]]) -> Duration {
    median(
        rounds
            .iter()
            .map(|[good, _]| quantile(&good.taken, 99))
            .collect(),
    )
}

/// Of an even number the mean of the two in the middle.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    let last = times.len() - 1;
    (times[last / 2] + times[times.len() / 2]) / 2
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
