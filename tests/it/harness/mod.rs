//! Starts a world for a test: issuer, upstream and gateway on free ports, and ends it when dropped.

pub mod browser;
mod client;
pub mod collector;
pub mod demo;
pub mod h2link;
pub mod h2raw;
pub mod link;
mod log;
pub mod program;
mod raw;
mod raw_upstream;
pub mod real;
mod recorder;
mod redis;
mod scripted;
pub mod strict;
pub mod sweep;
pub mod tls_upstream;

pub use client::{Reply, Request, request};
pub use log::LogSink;
pub use raw::Raw;
pub use raw_upstream::RawUpstream;
pub use recorder::Recorder;
pub use redis::RedisServer;
pub use scripted::Scripted;

use bonterra_gateway::app::{App, environment};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use bonterra_gateway::server::Inherited;
use bonterra_gateway::snapshot::Env;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sweep::{Counted, Searched};
use tempfile::TempDir;

/// Longer than anything here may take; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The gateway with its file and its access log.
pub struct Gateway {
    pub app: App,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub log: LogSink,
    _counted: Counted,
    folder: TempDir,
}

/// Issuer, upstream and gateway.
pub struct World {
    pub auth: BonterraAuth,
    pub echo: Echo,
    pub gateway: Gateway,
}

/// The configuration of most tests. `ISSUER` and `ECHO` stand for addresses that are only known
/// when the parts have started.
pub const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"
drain_timeout = "5s"

[admin]
listen = "127.0.0.1:0"

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[issuer.bonterra.jwks]
cooldown = "1s"
min_ttl = "1s"

[oauth.bonterra]
issuer = "bonterra"

[upstream.echo]
servers = ["ECHO"]

[[route]]
name = "grants"
path = "/grants/*"
upstream = "echo"
claims = { "urn:bonterra:claims:is_bonterra_grants" = true }

[[route]]
name = "scoped"
path = "/scoped/*"
methods = ["GET", "POST"]
upstream = "echo"
scopes = ["read:grants", "write:grants"]

[[route]]
name = "optional"
path = "/optional/*"
upstream = "echo"
auth = "optional"

[[route]]
name = "public"
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

// === impl World ===

impl World {
    /// A world with [`CONFIG`], ready.
    pub async fn start() -> Self {
        Self::with(CONFIG).await
    }

    /// A world with another configuration, ready.
    pub async fn with(config: &str) -> Self {
        Self::of(AuthOptions::default(), config).await
    }

    /// A world with another issuer and configuration, ready.
    pub async fn of(options: AuthOptions, config: &str) -> Self {
        let auth = BonterraAuth::start(options).await.expect("issuer");
        let echo = Echo::start(local()).await.expect("upstream");
        let config = config
            .replace("ISSUER", auth.issuer())
            .replace("ECHO", &echo.url());
        let gateway = Gateway::start(&config).await;
        within("ready", gateway.app.ready()).await;
        Self {
            auth,
            echo,
            gateway,
        }
    }

    /// A request to the gateway.
    pub fn get(&self, path: &str) -> Request {
        request(self.gateway.address, "GET", path)
    }

    /// A request to the gateway.
    pub fn post(&self, path: &str) -> Request {
        request(self.gateway.address, "POST", path)
    }

    /// A GET with a good token.
    pub fn authorized(&self, path: &str) -> Request {
        self.get(path).bearer(&self.auth.token())
    }

    /// A token with some claims changed; `null` removes one.
    pub fn token_with(&self, changes: Value) -> String {
        let mut claims = self.auth.claims();
        let (Value::Object(claims_map), Value::Object(changes)) = (&mut claims, changes) else {
            panic!("claims are objects");
        };
        for (name, value) in changes {
            match value {
                Value::Null => drop(claims_map.remove(&name)),
                value => drop(claims_map.insert(name, value)),
            }
        }
        self.auth.mint(&claims)
    }
}

// === impl Gateway ===

impl Gateway {
    /// A gateway with this file, not necessarily ready.
    pub async fn start(config: &str) -> Self {
        Self::start_in(environment().expect("metrics"), config).await
    }

    /// The same in an environment of the test's making.
    pub async fn start_in(env: Env, config: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, config).expect("written");
        sweep::install();
        let log = LogSink::default();
        let counted = Counted(Arc::clone(&env.metrics));
        let access = Searched("an access log", log.clone());
        let app = match App::start_in(env, path, access, Inherited::default()).await {
            Ok(app) => app,
            Err(error) => panic!("the gateway does not start:\n{error}"),
        };
        let address = *app.addresses.first().expect("a listener");
        Self {
            address,
            admin: app.admin.tcp().expect("an IP address"),
            app,
            log,
            _counted: counted,
            folder,
        }
    }

    /// The gateway's file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// A request to the admin listener.
    pub async fn admin(&self, method: &str, path: &str) -> Reply {
        let reply = request(self.admin, method, path).send().await;
        sweep::sweep(path, &reply.body);
        reply
    }

    /// The value of a metric, written as in the exposition: `gateway_x{a="b"}`. 0 if absent.
    pub async fn metric(&self, series: &str) -> f64 {
        let text = self.admin("GET", "/metrics").await.text();
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
            .unwrap_or(0.0)
    }
}

/// A configuration with more lines in a table that it has, named by its header: `[server]`.
pub fn with_lines(config: &str, table: &str, lines: &str) -> String {
    let header = format!("\n{table}\n");
    assert_eq!(config.matches(&header).count(), 1, "one {table}");
    config.replace(&header, &format!("{header}{lines}\n"))
}

/// Port 0 on loopback.
pub fn local() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// An address where nobody listens, and that the kernel gives to nobody while the tests run; who
/// asks for it by its number gets it. For what is stopped, or named in a file, before it listens.
pub fn nobody() -> SocketAddr {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&local().into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    // Bound, not listening: that is what keeps the port free.
    std::mem::forget(socket);
    address.as_socket().expect("an IP address")
}

/// Waits for something that has to come.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {PATIENCE:?}"),
    }
}

/// Asks again and again until the answer is yes. For state that changes in the background.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Checks a refusal as DESIGN §4 has it: status, problem body, reason; and that log and metric say
/// the same.
pub async fn assert_refused(
    gateway: &Gateway,
    reply: &Reply,
    status: u16,
    reason: &str,
    route: &str,
) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json")
    );
    let problem = reply.json();
    assert_eq!(problem["reason"], json!(reason));
    assert_eq!(problem["status"], json!(status));
    let id = problem["request_id"].as_str().expect("an id").to_owned();
    assert_eq!(reply.header("x-request-id"), Some(id.as_str()));
    let record = gateway.log.record(&id).await;
    assert_eq!(record["reason"], json!(reason), "{record}");
    assert_eq!(record["route"], json!(route), "{record}");
    let series = format!("gateway_rejections_total{{reason=\"{reason}\",route=\"{route}\"}}");
    assert!(gateway.metric(&series).await >= 1.0, "{series}");
}
