//! The connection to Redis: on the background runtime, asked by workers, and never waited for longer
//! than `timeout`.
//!
//! A failure is told once, and from then on every caller is sent away at once, until a probe in the
//! background is answered.

use super::rate;
use crate::telemetry::metrics::{Metrics, StoreMetrics};
use futures_util::future::BoxFuture;
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ErrorKind, RedisError, RedisResult};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

/// Between two probes of a Redis that is away.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// For a new connection, TLS included, and for an answer that no request waits for, or not any more.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// Requests that may wait to be handed to the connection: more are not worth waiting for. How many are on their way
/// at one time is bounded by `timeout` and [`PATIENCE`] alone.
const MAX_WAITING: usize = 8192;

/// A Redis that gateways share. What it is asked runs on the runtime that [`Redis::start`] was called
/// on.
pub struct Redis {
    settings: Settings,
    jobs: mpsc::Sender<Job>,
    /// What the task in the background starts with.
    idle: Mutex<Option<(Client, mpsc::Receiver<Job>)>>,
    link: Arc<Link>,
    /// What became of requests to count.
    pub(super) rate_limit: StoreMetrics,
    /// What became of exchanges of revocations.
    pub(super) revocation: StoreMetrics,
}

/// Which Redis, and how long it may take.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// The URL, credentials included.
    pub url: Box<str>,
    /// How long a request waits at most.
    pub timeout: Duration,
}

/// Redis does not answer now: do without it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Away;

/// Why there is no answer of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Redis says no: this very question makes no sense to it, or is not permitted.
    Said(String),
    /// Redis does not answer.
    Silent(String),
}

/// Something to ask once there is a connection.
type Job = Box<dyn FnOnce(ConnectionManager) -> BoxFuture<'static, ()> + Send>;

/// Whether Redis answers.
struct Link {
    up: AtomicBool,
    /// Questions that have failed: behind each there may be another connection, to another Redis.
    breaks: AtomicU64,
    metrics: Arc<Metrics>,
    /// `host:port`, for the log.
    address: String,
}

// === impl Settings ===

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

// === impl Redis ===

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis")
            .field("address", &self.link.address)
            .field("up", &self.link.up)
            .finish_non_exhaustive()
    }
}

impl Redis {
    /// A Redis that nothing has been asked of yet.
    ///
    /// # Errors
    /// What is wrong with the URL. Does not show it.
    pub fn new(settings: Settings, metrics: &Arc<Metrics>) -> Result<Self, &'static str> {
        let url = &*settings.url;
        let tls = url.starts_with("rediss://");
        if !tls && !url.starts_with("redis://") {
            return Err("the URL of a Redis begins with redis:// or rediss://");
        }
        if url.contains('#') {
            return Err("the URL of a Redis has no fragment");
        }
        if tls {
            // One provider in the whole process. It may have been installed already.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let client = Client::open(url).map_err(|_| "this is no URL of a Redis")?;
        let address = client.get_connection_info().addr().to_string();
        let (jobs, waiting) = mpsc::channel(MAX_WAITING);
        Ok(Self {
            settings,
            jobs,
            idle: Mutex::new(Some((client, waiting))),
            link: Arc::new(Link {
                // Until the contrary is known, requests wait for it.
                up: AtomicBool::new(true),
                breaks: AtomicU64::new(0),
                metrics: Arc::clone(metrics),
                address,
            }),
            rate_limit: metrics.store("rate_limit"),
            revocation: metrics.store("revocation"),
        })
    }

    /// Which Redis this is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Connects, and answers from then on. On a tokio runtime; what it starts there ends when this is
    /// dropped. The second call does nothing.
    pub fn start(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((client, waiting)) = idle.take() {
            tokio::spawn(run(client, waiting, Arc::clone(&self.link)));
        }
    }

    /// Whether it answered a moment ago.
    pub(super) fn answers(&self) -> bool {
        self.link.up.load(Relaxed)
    }

    /// Has something asked, and waits for the answer.
    ///
    /// # Errors
    /// [`Away`] if there is none in time, or was none a moment ago.
    pub(super) async fn call<T, F, A>(&self, metrics: &StoreMetrics, ask: F) -> Result<T, Away>
    where
        T: Send + 'static,
        F: FnOnce(ConnectionManager) -> A + Send + 'static,
        A: Future<Output = RedisResult<T>> + Send,
    {
        if !self.link.up.load(Relaxed) {
            metrics.away.inc();
            return Err(Away);
        }
        let answer = self.ask(metrics, self.settings.timeout, ask).await;
        answer.map_err(|failure| {
            self.link.lost(&failure);
            Away
        })
    }

    /// The same of a Redis that may be away: this may be the question that finds out. Nobody is told
    /// what came of it, see [`failed`](Self::failed).
    ///
    /// # Errors
    /// [`Failure`] if there is no answer within `wait`.
    pub(super) async fn ask<T, F, A>(
        &self,
        metrics: &StoreMetrics,
        wait: Duration,
        ask: F,
    ) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: FnOnce(ConnectionManager) -> A + Send + 'static,
        A: Future<Output = RedisResult<T>> + Send,
    {
        let (reply, answer) = oneshot::channel();
        let link = Arc::clone(&self.link);
        let job: Job = Box::new(move |connection| {
            Box::pin(async move {
                // Who has given up must not be counted late.
                if !reply.is_closed() {
                    let answer = ask(connection).await;
                    if answer.is_err() {
                        link.breaks.fetch_add(1, Relaxed);
                    }
                    let _ = reply.send(answer);
                }
            })
        });
        if self.jobs.try_send(job).is_err() {
            metrics.away.inc();
            return Err(Failure::Silent("too many wait for it".to_owned()));
        }
        match pingora_timeout::timeout(wait, answer).await {
            Ok(Ok(Ok(answer))) => {
                metrics.ok.inc();
                Ok(answer)
            }
            Ok(Ok(Err(error))) => {
                metrics.error.inc();
                Err(error.into())
            }
            Ok(Err(_)) => {
                metrics.error.inc();
                Err(Failure::Silent("the connection has ended".to_owned()))
            }
            Err(_) => {
                metrics.timeout.inc();
                Err(Failure::Silent(format!("no answer within {wait:?}")))
            }
        }
    }

    /// Sends callers away for a while if this failure says that Redis is.
    pub(super) fn failed(&self, failure: &Failure) {
        if let Failure::Silent(_) = failure {
            self.link.lost(failure);
        }
    }

    /// How many questions have failed so far.
    pub(super) fn breaks(&self) -> u64 {
        self.link.breaks.load(Relaxed)
    }

    /// `host:port`, for the log.
    pub fn address(&self) -> &str {
        &self.link.address
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.link.metrics
    }
}

// === impl Failure ===

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::UnexpectedReturnType => {
                Self::Said(error.to_string())
            }
            _ => Self::Silent(error.to_string()),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Said(why) | Self::Silent(why)) = self;
        f.write_str(why)
    }
}

/// Asks what is to be asked, and probes while there are no answers. Ends with the last sender.
async fn run(client: Client, mut waiting: mpsc::Receiver<Job>, link: Arc<Link>) {
    let mut manager = fresh(&client).ok();
    let mut first = true;
    let mut ticks = tokio::time::interval(PROBE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            job = waiting.recv() => match (job, &manager) {
                (Some(job), Some(manager)) => {
                    tokio::spawn(job(ConnectionManager::clone(manager)));
                }
                // Without a connection there is nobody to ask: who waits is told so.
                (Some(_), None) => {}
                (None, _) => break,
            },
            _ = ticks.tick() => {
                if first || !link.up.load(Relaxed) {
                    // A connection that has failed may be dead without knowing it.
                    if !std::mem::take(&mut first) {
                        manager = fresh(&client).ok();
                    }
                    if let Some(manager) = manager.clone() {
                        tokio::spawn(probe(manager, Arc::clone(&link)));
                    }
                }
                link.show();
            }
        }
    }
    link.forget();
}

/// Asks what requests ask: a Redis may answer and yet refuse to write, and then it is of no use. The
/// script is there when the first request comes.
async fn probe(manager: ConnectionManager, link: Arc<Link>) {
    match rate::probe(manager).await {
        Ok(()) => link.found(),
        Err(error) => link.lost(&error.into()),
    }
}

fn fresh(client: &Client) -> Result<ConnectionManager, RedisError> {
    let config = ConnectionManagerConfig::new()
        .set_number_of_retries(0)
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    ConnectionManager::new_lazy_with_config(client.clone(), config)
}

// === impl Link ===

impl Link {
    fn lost(&self, why: &Failure) {
        if self.up.swap(false, Relaxed) {
            tracing::warn!(
                redis = self.address,
                %why,
                "the shared store does not answer: rate limits are counted by this gateway alone"
            );
            self.show();
        }
    }

    fn found(&self) {
        if !self.up.swap(true, Relaxed) {
            tracing::info!(
                redis = self.address,
                "the shared store answers again: rate limits are shared"
            );
        }
        self.show();
    }

    /// Shows the state in the metric, again and again: the one before may have taken it away.
    fn show(&self) {
        let up = i64::from(self.up.load(Relaxed));
        let no_labels: [&str; 0] = [];
        let gauge = self.metrics.store_up.with_label_values(&no_labels);
        gauge.set(up);
    }

    fn forget(&self) {
        let no_labels: [&str; 0] = [];
        // It may never have been shown.
        let _ = self.metrics.store_up.remove_label_values(&no_labels);
    }
}
