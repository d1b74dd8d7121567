//! `run`: serve until a signal says otherwise.

use super::notify::{self, notify};
use super::{FAILED, output};
use crate::app::App;
use crate::config::{self, LogFormat, LogLevel};
use crate::server::Inherited;
use crate::telemetry::log;
use futures_util::FutureExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

/// Serves the given file. Returns the exit code.
pub fn run(path: PathBuf) -> u8 {
    match config::load(&path) {
        Ok(parsed) => set_up_log(&parsed.config.log),
        Err(errors) => return output::mistakes(&errors),
    }
    use_small_pages();
    // There are no threads yet.
    let inherited = match Inherited::from_environment() {
        Ok(inherited) => inherited,
        Err(why) => return output::fail(&why, FAILED),
    };
    match runtime() {
        Ok(runtime) => runtime.block_on(serve(path, inherited)),
        Err(error) => output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    }
}

/// The runtime of the background work; requests have workers of their own.
pub(super) fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn set_up_log(config: &config::Log) {
    let level = match config.level {
        LogLevel::Trace => LevelFilter::TRACE,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Error => LevelFilter::ERROR,
    };
    let format = match config.format {
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    log::init(level, format);
}

/// Files that a gateway has open besides two sockets for each client.
const OTHER_FILES: u64 = 128;

/// Keeps the kernel from backing memory with pages of 2 MiB: of the buffers of an idle connection little
/// more than the beginning is ever touched, and a large page makes all of them resident.
fn use_small_pages() {
    // A kernel that knows no large pages has none to give.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// Takes all open files that it may have. Returns how many.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // A limit that cannot be raised is the one in force.
    let current = match setrlimit(Resource::Nofile, all) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    current.unwrap_or(u64::MAX)
}

/// Says so if there may be more connections than open files.
fn compare_with_file_limit(max_connections: usize, limit: u64) {
    let needed = (max_connections as u64)
        .saturating_mul(2)
        .saturating_add(OTHER_FILES);
    if needed > limit {
        tracing::warn!(
            max_connections,
            limit,
            "with so many connections the limit of open files would be reached first: raise it (LimitNOFILE, ulimit -n) to {needed}, or lower max_connections"
        );
    }
}

async fn serve(path: PathBuf, inherited: Inherited) -> u8 {
    let started = Instant::now();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return output::fail(&format!("cannot listen for signals: {error}"), FAILED),
    };
    let files = raise_file_limit();
    let app = match App::start_with(path, std::io::stdout(), inherited).await {
        Ok(app) => app,
        Err(error) => return output::not_started(&error),
    };
    compare_with_file_limit(app.max_connections(), files);
    tracing::info!(version = crate::VERSION, listen = ?app.listen, admin = %app.admin, "serving");
    tokio::select! {
        () = async {
            let ready = app.ready();
            tokio::pin!(ready);
            // Whoever waits for the start is not kept waiting by an issuer that is down.
            if tokio::time::timeout(START, &mut ready).await.is_err() {
                notify("READY=1\nSTATUS=serving; not ready, see /readyz?verbose");
                ready.await;
            }
            notify("READY=1\nSTATUS=ready");
            tracing::info!(after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");
            std::future::pending::<()>().await;
        } => {}
        () = signals.until_stop(&app) => {}
    }
    notify(notify::STOPPING);
    signals.settle().await;
    tokio::select! {
        stopped = app.stop() => {
            tracing::info!(cut = stopped.cut, "stopped");
            0
        }
        () = signals.stop() => {
            tracing::warn!("second signal: stopping at once");
            FAILED
        }
    }
}

/// A start that takes longer is told as done: requests are served, if only with refusals.
const START: Duration = Duration::from_secs(10);

/// Signals that come within this time of the first are the same.
const ECHO: Duration = Duration::from_millis(5);

/// The signals that a gateway heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Waits until asked to stop.
    pub(super) async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Lets echoes of one signal pass for one: `timeout`, for example, signals the process and then
    /// its group, and means it once.
    async fn settle(&mut self) {
        tokio::time::sleep(ECHO).await;
        while self.terminate.recv().now_or_never().is_some() {}
        while self.interrupt.recv().now_or_never().is_some() {}
    }

    /// Reloads on SIGHUP until asked to stop.
    async fn until_stop(&mut self, app: &App) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => {
                    // The log and the metric have the outcome. It may take a while, and must not
                    // keep a stop waiting.
                    let reloader = Arc::clone(&app.reloader);
                    tokio::spawn(async move {
                        notify(notify::RELOADING);
                        drop(reloader.reload("SIGHUP").await);
                        notify(notify::READY);
                    });
                }
            }
        }
    }
}
