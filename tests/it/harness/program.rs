//! The program itself, as a process of its own.

use super::sweep::sweep;
use super::{LogSink, eventually};
use serde_json::Value;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use tempfile::TempDir;

/// What a finished program said.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A program that runs; killed when dropped.
pub struct Running {
    child: Child,
    pub stdout: LogSink,
    pub stderr: LogSink,
    readers: Vec<JoinHandle<()>>,
    /// Whether what it has logged is searched for secrets at its end.
    swept: bool,
}

/// A gateway in a process of its own, with its file.
pub struct GatewayProcess {
    pub running: Running,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    folder: TempDir,
}

/// The program, without what the environment of the tests could tell it.
pub fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bonterra-gateway"));
    command
        .args(arguments)
        .env_remove("GATEWAY_CONFIG")
        .stdin(Stdio::null());
    command
}

/// Runs the program in a folder to its end.
pub async fn call(folder: &Path, arguments: &[&str]) -> Said {
    let mut command = program(arguments);
    command.current_dir(folder);
    said(command).await
}

/// Runs a shell command to its end.
pub async fn shell(script: &str) -> Said {
    let mut command = Command::new("bash");
    command
        .args(["-o", "pipefail", "-c", script])
        .stdin(Stdio::null());
    said(command).await
}

/// Runs a command to its end.
pub async fn said(mut command: Command) -> Said {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("no panic")
        .expect("a program");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn collect(mut from: impl Read + Send + 'static, to: &LogSink) -> JoinHandle<()> {
    let mut to = to.clone();
    thread::spawn(move || drop(std::io::copy(&mut from, &mut to)))
}

// === impl Running ===

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("started");
        let (stdout, stderr) = (LogSink::default(), LogSink::default());
        let readers = vec![
            collect(child.stdout.take().expect("piped"), &stdout),
            collect(child.stderr.take().expect("piped"), &stderr),
        ];
        Self {
            child,
            stdout,
            stderr,
            readers,
            swept: false,
        }
    }

    /// Sends a signal: `TERM`, `HUP`, `INT`.
    pub async fn signal(&self, name: &str) {
        let sent = shell(&format!("kill -{name} {}", self.child.id())).await;
        assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    }

    /// The same signal twice, with nothing in between.
    pub async fn signal_twice(&self, name: &str) {
        let pid = self.child.id();
        let sent = shell(&format!("kill -{name} {pid}; kill -{name} {pid}")).await;
        assert_eq!(sent.code, Some(0), "{}", sent.stderr);
    }

    /// Waits for the end; all that was said is there then.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the end of the program", || {
            status = self.child.try_wait().expect("a child");
            std::future::ready(status.is_some())
        })
        .await;
        self.readers
            .drain(..)
            .for_each(|reader| reader.join().expect("no panic"));
        status.expect("a status")
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Memory in MiB: resident now, and at its peak.
    pub fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .expect("a process");
        let field = |name: &str| {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("a field");
            line.trim()
                .trim_end_matches(" kB")
                .parse::<u64>()
                .expect("a number")
                / 1024
        };
        (field("VmRSS:"), field("VmHWM:"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if self.swept {
            sweep("standard error", self.stderr.text().as_bytes());
        }
    }
}

// === impl GatewayProcess ===

impl GatewayProcess {
    /// Runs a gateway with this file; returns when it serves, ready or not.
    pub async fn start(config: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("gateway.toml");
        std::fs::write(&file, config).expect("written");
        let mut running = Running::start(program(&["run", "-c", file.to_str().expect("UTF-8")]));
        running.swept = true;
        eventually("the gateway serves", || {
            assert!(!running.has_ended(), "{}", running.stderr.text());
            std::future::ready(running.event("serving").is_some())
        })
        .await;
        let event = running.event("serving").expect("serving");
        let address = |name: &str| {
            let text = event[name]
                .as_str()
                .expect("an address")
                .trim_matches(['[', ']']);
            text.parse().expect("an address")
        };
        let (address, admin) = (address("listen"), address("admin"));
        Self {
            running,
            address,
            admin,
            folder,
        }
    }

    /// The gateway's file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// Waits until the log of events has this one.
    pub async fn logged(&self, message: &str) -> Value {
        eventually(message, || {
            std::future::ready(self.running.event(message).is_some())
        })
        .await;
        self.running.event(message).expect("logged")
    }
}

impl Running {
    /// The first event in the log of events whose message begins like this.
    pub fn event(&self, message: &str) -> Option<Value> {
        self.stderr.records().into_iter().find(|event| {
            let own = event["message"].as_str();
            own.is_some_and(|own| own.starts_with(message))
        })
    }
}
