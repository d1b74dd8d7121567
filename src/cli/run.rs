//! `run`: serve until a signal says otherwise.

use super::{FAILED, output};
use crate::app::App;
use crate::config::{self, LogFormat, LogLevel};
use crate::telemetry::log;
use futures_util::FutureExt as _;
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
    match runtime() {
        Ok(runtime) => runtime.block_on(serve(path)),
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

async fn serve(path: PathBuf) -> u8 {
    let started = Instant::now();
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return output::fail(&format!("cannot listen for signals: {error}"), FAILED),
    };
    let app = match App::start(path, std::io::stdout()).await {
        Ok(app) => app,
        Err(error) => return output::not_started(&error),
    };
    tracing::info!(version = crate::VERSION, listen = ?app.addresses, admin = %app.admin, "serving");
    tokio::select! {
        () = async {
            app.ready().await;
            tracing::info!(after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), "ready");
            std::future::pending::<()>().await;
        } => {}
        () = signals.until_stop(&app) => {}
    }
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
                    tokio::spawn(async move { drop(reloader.reload("SIGHUP").await) });
                }
            }
        }
    }
}
