//! Which server of an upstream gets a request: by weight, by key, by health, by what it did before,
//! and by what its name resolves to.

mod failures;
mod health;
mod names;
mod shares;

use crate::harness::{Gateway, Raw, RawUpstream};
use bonterra_gateway::app;
use bonterra_gateway::config;
use bonterra_gateway::snapshot::compile;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

/// An open route to an upstream with these lines.
fn config_of(lines: &str) -> String {
    format!(
        r#"
[server]
listen = ["127.0.0.1:0"]
workers = 2
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[upstream.api]
{lines}

[[route]]
name = "api"
path = "/api/*"
upstream = "api"
auth = "none"
"#
    )
}

/// A list of servers, as it is written.
fn servers(urls: &[&str]) -> String {
    format!("servers = {urls:?}\n")
}

/// An API that answers as it is told to: `/healthz` with one status, anything else with another.
struct Fickle {
    upstream: RawUpstream,
    mood: Arc<Mood>,
}

struct Mood {
    health: AtomicU16,
    status: AtomicU16,
    checks: AtomicUsize,
    requests: AtomicUsize,
}

impl Fickle {
    async fn start() -> Self {
        let mood = Arc::new(Mood {
            health: AtomicU16::new(200),
            status: AtomicU16::new(200),
            checks: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&mood);
        let upstream = RawUpstream::start(move |raw| converse(raw, Arc::clone(&shared))).await;
        Self { upstream, mood }
    }

    fn url(&self) -> String {
        self.upstream.url()
    }

    /// How it is known in metrics.
    fn label(&self) -> String {
        self.url().replace("http://", "")
    }

    /// What it says when asked how it is.
    fn health(&self, status: u16) {
        self.mood.health.store(status, Relaxed);
    }

    /// What it says otherwise; 0: nothing at all.
    fn answers(&self, status: u16) {
        self.mood.status.store(status, Relaxed);
    }

    fn checks(&self) -> usize {
        self.mood.checks.load(Relaxed)
    }

    fn requests(&self) -> usize {
        self.mood.requests.load(Relaxed)
    }
}

async fn converse(mut raw: Raw, mood: Arc<Mood>) {
    loop {
        let (head, _) = raw.reply().await;
        let (status, count) = match head.starts_with("GET /healthz ") {
            true => (&mood.health, &mood.checks),
            false => (&mood.status, &mood.requests),
        };
        count.fetch_add(1, Relaxed);
        let status = status.load(Relaxed);
        if status == 0 {
            return std::future::pending().await;
        }
        raw.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"))
            .await;
    }
}

/// Whether the metric says that a server gets requests; `None` if it is not known.
async fn healthy(gateway: &Gateway, label: &str) -> Option<bool> {
    let text = gateway.admin("GET", "/metrics").await.text();
    let series = format!("gateway_upstream_server_healthy{{server=\"{label}\",upstream=\"api\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series))?;
    Some(value == "1")
}

#[tokio::test]
async fn mistakes_have_a_place_and_a_hint() {
    let server = "servers = [\"http://a:1\"]\n";
    for (lines, what, hint) in [
        (
            "servers = [\"http://a:1\", { url = \"http://a:1\", weight = 2 }]".to_owned(),
            "this server is listed twice",
            "",
        ),
        (
            "servers = [{ url = \"http://a:1\", weight = 0 }]".to_owned(),
            "a weight is a number from 1 to 1000",
            "",
        ),
        (
            "servers = [{ url = \"http://a:1\", weight = 1001 }]".to_owned(),
            "a weight is a number from 1 to 1000",
            "",
        ),
        (
            "servers = [{ weight = 2 }]".to_owned(),
            "`url` is missing",
            "weight = 2",
        ),
        (
            "servers = [{ url = \"a:1\" }]".to_owned(),
            "begins with http:// or https://",
            "http://host:port",
        ),
        (
            format!("{server}hash_on = \"client_ip\""),
            "`hash_on` has no effect",
            "remove it",
        ),
        (
            format!("{server}balance = \"consistent_hash\""),
            "`hash_on` is missing",
            "claim:sub",
        ),
        (
            format!("{server}balance = \"consistent_hash\"\nhash_on = \"header:X-Bonterra-Subject\""),
            "what clients send in this header is not believed",
            "claim:NAME",
        ),
        (
            "balance = \"consistent_hash\"\nhash_on = \"client_ip\"\nservers = [{ url = \"http://a:1\", weight = 101 }]".to_owned(),
            "a weight of consistent_hash is a number from 1 to 100",
            "",
        ),
        (
            format!("{server}balance = \"random\""),
            "\"random\" is not a possible value of `balance`",
            "round_robin",
        ),
        (
            format!("{server}dns_refresh = \"0s\""),
            "without a pause",
            "10s",
        ),
        (
            format!("{server}[upstream.api.health]"),
            "`path` is missing",
            "/healthz",
        ),
        (
            format!("{server}health.path = \"healthz\""),
            "this is no path",
            "/healthz",
        ),
        (
            format!("{server}health = {{ path = \"/\", expect = [] }}"),
            "no answer would be good",
            "200-299",
        ),
        (
            format!("{server}health = {{ path = \"/\", healthy_after = 0 }}"),
            "one answer at least",
            "",
        ),
        (
            format!("{server}health = {{ path = \"/\", interval = \"0s\" }}"),
            "a time of zero",
            "",
        ),
        (
            format!("{server}eject.for = \"0s\""),
            "takes no server out",
            "after = 0",
        ),
    ] {
        let parsed = config::parse("gateway.toml", &config_of(&lines));
        let compiled = compile(parsed, &app::environment().expect("metrics"));
        let told = compiled.expect_err("a mistake").to_string();
        assert!(told.contains(what) && told.contains(hint), "{lines}\n{told}");
        assert!(told.contains("1 mistake in"), "{lines}\n{told}");
    }
}
