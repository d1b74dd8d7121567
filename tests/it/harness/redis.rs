//! A Redis of Debian's, as a child process on loopback that keeps nothing.

use super::program::Running;
use super::{eventually, nobody};
use redis::aio::MultiplexedConnection;
use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// A Redis; killed when dropped.
pub struct RedisServer {
    pub address: SocketAddr,
    options: Vec<String>,
    running: Option<Running>,
    folder: TempDir,
}

/// The program: the one that is installed, or the one that `make test` provides.
fn redis_server() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools").into();
    let mut folders = std::env::split_paths(&path).chain([tools]);
    let found = folders.find_map(|folder: PathBuf| {
        let program = folder.join("redis-server");
        program.exists().then_some(program)
    });
    found.expect("redis-server is missing: `make test` provides it")
}

impl RedisServer {
    /// Starts one. With `tls-port` among the options it speaks TLS alone.
    pub async fn start(options: &[&str]) -> Self {
        let mut server = Self {
            address: nobody(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            running: None,
            folder: TempDir::new().expect("a folder"),
        };
        server.again().await;
        server
    }

    /// Starts it once more, empty, at the same address.
    pub async fn again(&mut self) {
        let port = self.address.port().to_string();
        let port: [&str; 4] = match self
            .options
            .iter()
            .any(|option| option == "--tls-cert-file")
        {
            true => ["--port", "0", "--tls-port", &port],
            false => ["--port", &port, "--tls-port", "0"],
        };
        let mut command = Command::new(redis_server());
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(port)
            .args([OsStr::new("--dir"), self.folder.path().as_os_str()])
            .args(&self.options)
            .stdin(Stdio::null());
        let mut running = Running::start(command);
        eventually("redis-server listens", || {
            assert!(!running.has_ended(), "{}", running.stdout.text());
            let ready = running.stdout.text().contains("Ready to accept");
            std::future::ready(ready)
        })
        .await;
        self.running = Some(running);
    }

    /// Ends it without a word.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Sends a signal: `STOP`, `CONT`.
    pub async fn signal(&self, name: &str) {
        self.running.as_ref().expect("running").signal(name).await;
    }

    /// A connection of our own.
    pub async fn connection(&self) -> MultiplexedConnection {
        let url = format!("redis://{}", self.address);
        let client = redis::Client::open(url).expect("a URL");
        let connection = client.get_multiplexed_async_connection().await;
        connection.expect("connected")
    }
}
