//! The composition root: a file becomes a running gateway, and a running gateway ends.

use crate::admin;
use crate::config::{self, ConfigErrors, FileMode, ListenAddr};
use crate::identity::Clock;
use crate::keys::KeyStatus;
use crate::limit::RateLimits;
use crate::reload::Reloader;
use crate::server::{self, Address, Bound, Door, Drain, Inherited, Shared, SocketFile, Stage};
use crate::snapshot::{Env, Snapshot, compile};
use crate::store::SharedStore;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::exchange::Observer;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::otlp;
use crate::upstream;
use arc_swap::ArcSwap;
use pingora_runtime::{BlockingPoolOpts, NoStealRuntime, RuntimeOpts};
use std::fmt;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tracing_appender::non_blocking::WorkerGuard;

/// How often workers close connections that have been idle for too long.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// How often revocations are dropped that hit no token any more.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// How long worker threads may take to end once nothing is in flight.
const WORKERS_END: Duration = Duration::from_secs(1);

/// A running gateway.
#[derive(Debug)]
pub struct App {
    /// Where clients connect, with the ports that were really given.
    pub listen: Vec<Address>,
    /// Those of them that are IP addresses.
    pub addresses: Vec<SocketAddr>,
    /// Where metrics and health are.
    pub admin: Address,
    /// Puts a changed file in force.
    pub reloader: Arc<Reloader>,
    shared: Arc<Shared>,
    workers: Workers,
    tasks: Vec<JoinHandle<()>>,
    access_log: WorkerGuard,
    exporter: Option<otlp::Exporter>,
    /// Unix sockets, to be removed when nobody shall connect any more.
    files: Vec<SocketFile>,
}

/// Why a gateway does not start.
#[derive(Debug)]
pub enum StartError {
    /// The file has mistakes.
    Config(ConfigErrors),
    /// An address cannot be had.
    Listen(Address, io::Error),
    /// Sockets were handed over that the file does not name.
    Inherited(Inherited),
    /// Metrics cannot be set up.
    Metrics(prometheus::Error),
    /// Spans cannot be sent where `[telemetry]` says.
    Telemetry(otlp::SetupError),
}

/// How a gateway ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were cut because `drain_timeout` had passed.
    pub cut: usize,
}

struct Workers(NoStealRuntime);

// === impl StartError ===

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(errors) => errors.fmt(f),
            Self::Listen(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Inherited(left) => write!(
                f,
                "{left}: neither server.listen nor admin.listen has that address; the .socket unit and the file have to agree"
            ),
            Self::Metrics(error) => write!(f, "cannot set up metrics: {error}"),
            Self::Telemetry(error) => write!(f, "cannot set up [telemetry]: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<ConfigErrors> for StartError {
    fn from(errors: ConfigErrors) -> Self {
        Self::Config(errors)
    }
}

/// What a snapshot needs that outlives it.
///
/// # Errors
/// [`StartError::Metrics`].
pub fn environment() -> Result<Env, StartError> {
    let metrics = Metrics::new(env!("CARGO_PKG_VERSION"), env!("GATEWAY_REVISION"))
        .map_err(StartError::Metrics)?;
    Ok(Env {
        metrics: Arc::new(metrics),
        store: Arc::new(SharedStore::in_memory()),
        limits: Arc::new(RateLimits::default()),
        clock: Clock::system(),
        resolver: upstream::Resolver::system(),
        previous: None,
    })
}

// === impl App ===

impl App {
    /// Starts a gateway on the present runtime, which does the background work; requests run on
    /// workers of their own. `access_log` is where its records go.
    ///
    /// # Errors
    /// See [`StartError`]. An issuer that is down is no error: the gateway serves, and is not ready.
    pub async fn start(
        path: PathBuf,
        access_log: impl Write + Send + 'static,
    ) -> Result<Self, StartError> {
        Self::start_with(path, access_log, Inherited::default()).await
    }

    /// The same with sockets that were handed over: those are used for the addresses that they
    /// listen on.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_with(
        path: PathBuf,
        access_log: impl Write + Send + 'static,
        inherited: Inherited,
    ) -> Result<Self, StartError> {
        Self::start_in(environment()?, path, access_log, inherited).await
    }

    /// The same in an environment of one's own, for simulations.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn start_in(
        env: Env,
        path: PathBuf,
        access_log: impl Write + Send + 'static,
        inherited: Inherited,
    ) -> Result<Self, StartError> {
        let snapshot = compile(config::load(&path)?, &env)?;
        let (mut bound, mut admin) = bind_all(&snapshot.config, inherited)?;
        let files = bound.iter_mut().chain([&mut admin]);
        let files = files.filter_map(|bound| bound.file.take()).collect();
        let count = workers(&snapshot);
        let (access_log, flush) = AccessLog::to(access_log);
        let (spans, exporter) = snapshot
            .telemetry
            .as_ref()
            .map(|settings| otlp::start(settings, &env.metrics))
            .transpose()
            .map_err(StartError::Telemetry)?
            .unzip();
        let shared = Arc::new(Shared {
            observer: Arc::new(Observer {
                metrics: Arc::clone(&env.metrics),
                access_log,
                spans,
            }),
            snapshot: ArcSwap::from_pointee(snapshot),
            drain: Drain::new(count),
            door: Door::default(),
        });
        let (store, clock) = (Arc::clone(&env.store), env.clock.clone());
        let reloader = Reloader::start(path, Arc::clone(&shared), env).await;
        let workers = Workers::start(count, &bound, &shared)?;
        let admin_address = admin.address.clone();
        let tasks = vec![
            tokio::spawn(forget_expired(Arc::clone(&store), clock)),
            tokio::spawn(forget_reused(store, Arc::clone(&shared))),
            tokio::spawn(Arc::clone(&reloader).watch()),
            tokio::spawn(admin::serve(
                admin,
                Arc::clone(&shared),
                Arc::clone(&reloader),
            )),
        ];
        let listen: Vec<Address> = bound.into_iter().map(|bound| bound.address).collect();
        Ok(Self {
            addresses: listen.iter().filter_map(Address::tcp).collect(),
            listen,
            admin: admin_address,
            reloader,
            shared,
            workers,
            tasks,
            access_log: flush,
            exporter,
            files,
        })
    }

    /// Waits until the keys of every issuer have been loaded once.
    pub async fn ready(&self) {
        while !admin::Readiness::of(&self.shared).is_ready() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// How many keys each issuer has, by name; `None` before they are loaded, 0 if none are needed.
    pub fn keys(&self) -> Vec<(Arc<str>, Option<usize>)> {
        let snapshot = self.shared.snapshot.load();
        let now = snapshot.clock.now();
        let status = |keys| match keys {
            KeyStatus::Missing => None,
            KeyStatus::NotNeeded => Some(0),
            KeyStatus::Loaded { keys, .. } => Some(keys),
        };
        snapshot
            .issuers
            .iter()
            .map(|issuer| (Arc::clone(&issuer.rules.name), status(issuer.status(now))))
            .collect()
    }

    /// How many clients may be connected at the same time.
    pub fn max_connections(&self) -> usize {
        self.shared.snapshot.load().limits.max_connections
    }

    /// The clock that tokens and keys are judged by, for simulations.
    pub fn clock(&self) -> Clock {
        self.shared.snapshot.load().clock.clone()
    }

    /// Ends: not ready for `drain_delay`, then no new connections, then at most `drain_timeout` for
    /// requests in flight, less if there are none.
    pub async fn stop(mut self) -> Stopped {
        let (delay, patience) = {
            let limits = &self.shared.snapshot.load().limits;
            (limits.drain_delay, limits.drain_timeout)
        };
        tracing::info!(?delay, "draining: not ready any more");
        self.shared.drain.advance(Stage::Announced);
        tokio::time::sleep(delay).await;
        tracing::info!(
            connections = self.shared.drain.connections(),
            ?patience,
            "draining: no new connections"
        );
        self.files.clear();
        self.shared.drain.advance(Stage::Draining);
        let cut = self.shared.drain.emptied(patience).await;
        if cut > 0 {
            tracing::warn!(
                connections = cut,
                "drain_timeout has passed; connections are cut"
            );
        }
        self.end().await;
        Stopped { cut }
    }

    /// Ends at once.
    pub async fn end(self) {
        for task in &self.tasks {
            task.abort();
        }
        self.shared.snapshot.load().tokens.store().end();
        self.shared.drain.advance(Stage::Draining);
        self.workers.end().await;
        if let Some(exporter) = self.exporter {
            exporter.end().await;
        }
        drop(self.access_log);
    }
}

async fn forget_expired(store: Arc<SharedStore>, clock: Clock) {
    loop {
        tokio::time::sleep(FORGET_INTERVAL).await;
        store.denylist().sweep(clock.now());
    }
}

/// What another gateway has revoked may be a token that is given again here.
async fn forget_reused(store: Arc<SharedStore>, shared: Arc<Shared>) {
    loop {
        store.news().await;
        let snapshot = shared.snapshot.load();
        snapshot.reuse.iter().for_each(|reuse| reuse.forget_all());
    }
}

fn workers(snapshot: &Snapshot) -> usize {
    match snapshot.config.server.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

/// The sockets for clients, and that of the admin listener.
fn bind_all(
    config: &config::Config,
    mut inherited: Inherited,
) -> Result<(Vec<Bound>, Bound), StartError> {
    let (server, admin) = (&config.server, &config.admin);
    let mut socket = |address: &ListenAddr, mode: FileMode| {
        let address = match address {
            ListenAddr::Tcp(address) => Address::Tcp(*address),
            ListenAddr::Unix(path) => Address::Unix(path.clone(), mode.0),
        };
        match inherited.take(&address) {
            Some(bound) => Ok(bound),
            None => server::bind(&address, server.reuse_port)
                .map_err(|error| StartError::Listen(address, error)),
        }
    };
    let bound: Result<Vec<_>, _> = server
        .listen
        .iter()
        .map(|address| socket(address, server.unix_mode))
        .collect();
    let sockets = (bound?, socket(&admin.listen, admin.unix_mode)?);
    if inherited.is_empty() {
        Ok(sockets)
    } else {
        Err(StartError::Inherited(inherited))
    }
}

// === impl Workers ===

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} workers", self.0.threads())
    }
}

impl Workers {
    fn start(count: usize, bound: &[Bound], shared: &Arc<Shared>) -> Result<Self, StartError> {
        let runtime = NoStealRuntime::new(
            count,
            "worker",
            BlockingPoolOpts::default(),
            RuntimeOpts::default(),
        );
        for worker in 0..count {
            let handle = runtime.get_runtime_at(worker);
            handle.spawn(async {
                loop {
                    tokio::time::sleep(SWEEP_INTERVAL).await;
                    upstream::sweep_idle();
                }
            });
            for bound in bound {
                let listener = bound
                    .for_worker(worker)
                    .map_err(|error| StartError::Listen(bound.address.clone(), error))?;
                let shared = Arc::clone(shared);
                handle.spawn(async move {
                    if let Err(error) = server::serve(listener, shared).await {
                        tracing::error!(%error, "a worker cannot accept connections");
                    }
                });
            }
        }
        Ok(Self(runtime))
    }

    /// Ends the threads; whatever still runs on them is dropped.
    async fn end(self) {
        // Waiting for threads blocks, and this may be a single-threaded runtime.
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_timeout(WORKERS_END)).await;
        if let Err(error) = ended {
            tracing::error!(%error, "the workers did not end");
        }
    }
}
