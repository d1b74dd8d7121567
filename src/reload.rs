//! Puts a changed configuration in force, whole or not at all.

mod difference;

pub use difference::Report;

use crate::config::{self, ConfigErrors};
use crate::identity::UnixSeconds;
use crate::keys::{KeyStatus, KeyStore, fetch};
use crate::server::Shared;
use crate::snapshot::{CertificateFile, Env, Provider, Snapshot, compile};
use crate::steps;
use crate::upstream::Upkeep;
use aws_lc_rs::digest::{SHA256, digest};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

/// How often the file is looked at. Reading a few kilobytes beats watching: it sees symlink swaps,
/// renames and network file systems alike.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// What is looked at of a file that the configuration names: more than any of them has.
const LARGEST: u64 = 8 << 20;

/// A file that has just changed may still be in the writing.
const SETTLE: Duration = Duration::from_millis(150);

/// Reloads the configuration and runs the background tasks that belong to it.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    shared: Arc<Shared>,
    env: Env,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What was last tried, so that the watcher does not try it again.
    tried: Seen,
    fetchers: Vec<Fetcher>,
    /// What is done for the upstreams of the snapshot in force.
    upkeep: Upkeep,
}

/// What the configuration was read from: the file, and a digest of each that it names and that is
/// watched; keys are among them, and secrets are not kept about. `None` for one that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    file: Option<Vec<u8>>,
    others: Vec<(PathBuf, Option<[u8; 32]>)>,
}

/// The fetch loop of a key store; ends when this is dropped.
#[derive(Debug)]
struct Fetcher {
    keys: Arc<KeyStore>,
    task: JoinHandle<()>,
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Reloader ===

impl Reloader {
    /// A reloader for the file that `shared`'s snapshot was made of. Starts fetching keys, and gives the names of
    /// upstreams a moment to be resolved.
    pub async fn start(path: PathBuf, shared: Arc<Shared>, env: Env) -> Arc<Self> {
        let snapshot = shared.snapshot.load_full();
        snapshot.connect().await;
        let mut state = State {
            tried: Seen::now(&path, snapshot.config.files()),
            fetchers: snapshot.providers.iter().map(Fetcher::start).collect(),
            upkeep: Upkeep::default(),
        };
        state.upkeep.replace(&snapshot.upstreams).await;
        shared.observer.metrics.config_last_reload_successful.set(1);
        shared
            .observer
            .metrics
            .config_last_reload_success_timestamp_seconds
            .set(env.clock.now() as f64);
        in_force(&snapshot, None, &shared);
        Arc::new(Self {
            path,
            shared,
            env,
            state: Mutex::new(state),
        })
    }

    /// Reloads now. `trigger` says for the log who asked.
    ///
    /// # Errors
    /// Every mistake in the file; nothing has changed then.
    pub async fn reload(&self, trigger: &str) -> Result<Report, ConfigErrors> {
        let mut state = self.state.lock().await;
        let old = self.shared.snapshot.load_full();
        let (path, env) = (self.path.clone(), self.env.clone());
        let env = Env {
            previous: Some(Arc::clone(&old)),
            ..env
        };
        let (seen, compiled) = aside(move || read(&path, &env)).await;
        state.tried = seen;
        let outcome = match compiled {
            Ok(new) => Ok(self.apply(&old, new, &mut state).await),
            Err(errors) => Err(errors),
        };
        let metrics = &self.shared.observer.metrics;
        metrics
            .config_last_reload_successful
            .set(i64::from(outcome.is_ok()));
        match &outcome {
            Ok(report) => {
                metrics
                    .config_last_reload_success_timestamp_seconds
                    .set(self.env.clock.now() as f64);
                tracing::info!(trigger, changes = report.changes.len(), restart = ?report.restart, "configuration reloaded");
            }
            Err(errors) => {
                tracing::error!(
                    trigger,
                    mistakes = errors.len(),
                    "configuration not reloaded; the old one stays in force\n{errors}"
                );
            }
        }
        outcome
    }

    async fn apply(&self, old: &Snapshot, new: Snapshot, state: &mut State) -> Report {
        let mut report = difference::compare(&old.config, &new.config);
        let now = self.env.clock.now();
        report.changes.extend(renewed(old, &new, now));
        let started = start_fetchers(&new, &state.fetchers);
        new.connect().await;
        await_keys(&new, &started).await;
        state.upkeep.replace(&new.upstreams).await;
        self.shared.snapshot.store(Arc::new(new));
        let current = self.shared.snapshot.load_full();
        in_force(&current, Some(old), &self.shared);
        let in_use = |fetcher: &mut Fetcher| {
            let mut providers = current.providers.iter();
            providers.any(|provider| Arc::ptr_eq(&provider.issuer.keys, &fetcher.keys))
        };
        for fetcher in state.fetchers.extract_if(.., |fetcher| !in_use(fetcher)) {
            tokio::spawn(fetcher.retire());
        }
        state.fetchers.extend(started);
        report
    }

    /// Watches the file, and those that it names, and reloads when the contents of one have changed.
    /// Runs until it is dropped.
    pub async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let tried = self.state.lock().await.tried.clone();
            let Some(now) = self.look_again(&tried).await else {
                continue;
            };
            if now == tried {
                continue;
            }
            tokio::time::sleep(SETTLE).await;
            if self.look_again(&tried).await == Some(now) {
                // The log and the metric have the outcome.
                let _ = self.reload("file change").await;
            }
        }
    }

    /// The same files as they are now. `None` if the first is not there: it may be on its way.
    async fn look_again(&self, tried: &Seen) -> Option<Seen> {
        let path = self.path.clone();
        let others: Vec<PathBuf> = tried.others.iter().map(|(path, _)| path.clone()).collect();
        let look = move || Seen::now(&path, others.iter().map(PathBuf::as_path).collect());
        let seen = tokio::task::spawn_blocking(look).await.ok()?;
        seen.file.is_some().then_some(seen)
    }
}

/// The snapshot that the files make, and what they were before they were read: what changes later is seen by the
/// watcher.
fn read(path: &Path, env: &Env) -> (Seen, Result<Snapshot, ConfigErrors>) {
    match config::load(path) {
        Ok(parsed) => {
            let seen = Seen::now(path, parsed.config.files());
            (seen, compile(parsed, env))
        }
        Err(errors) => (Seen::now(path, Vec::new()), Err(errors)),
    }
}

/// Runs what reads files and takes its time on a thread of its own: health checks, the shared store and the admin
/// listener have this one.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and this with it.
            Err(_) => std::future::pending().await,
        },
    }
}

// === impl Seen ===

impl Seen {
    fn now(path: &Path, others: Vec<&Path>) -> Self {
        let others = others.into_iter();
        Self {
            file: std::fs::read(path).ok(),
            others: others
                .map(|path| (path.to_owned(), known_by(path).ok()))
                .collect(),
        }
    }
}

fn known_by(path: &Path) -> io::Result<[u8; 32]> {
    let mut text = Vec::new();
    File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, &text).as_ref());
    Ok(bytes)
}

// === impl Fetcher ===

impl Fetcher {
    fn start(provider: &Provider) -> Self {
        let keys = Arc::clone(&provider.issuer.keys);
        let task = tokio::spawn(fetch::run(provider.source.clone(), Arc::clone(&keys)));
        Self { keys, task }
    }

    /// Ends when nobody can wait for its keys any more: requests on the snapshot before may have
    /// asked for a fetch, or be about to.
    async fn retire(self) {
        tokio::time::sleep(self.keys.policy().patience).await;
    }
}

fn start_fetchers(snapshot: &Snapshot, running: &[Fetcher]) -> Vec<Fetcher> {
    snapshot
        .providers
        .iter()
        .filter(|provider| {
            !running
                .iter()
                .any(|fetcher| Arc::ptr_eq(&fetcher.keys, &provider.issuer.keys))
        })
        .map(Fetcher::start)
        .collect()
}

/// Gives new issuers a moment to load their keys, so that the swap costs no request. One that is
/// down does not hold the reload up for longer than a request would wait.
async fn await_keys(snapshot: &Snapshot, started: &[Fetcher]) {
    let started_at = Instant::now();
    let is_new = |provider: &&Provider| {
        let mut stores = started.iter().map(|fetcher| &fetcher.keys);
        stores.any(|keys| Arc::ptr_eq(keys, &provider.issuer.keys))
    };
    for provider in snapshot.providers.iter().filter(is_new) {
        let patience = provider.issuer.keys.policy().patience;
        while provider.issuer.status(snapshot.clock.now()) == KeyStatus::Missing
            && started_at.elapsed() < patience
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    for provider in &snapshot.providers {
        if provider.issuer.status(snapshot.clock.now()) == KeyStatus::Missing {
            tracing::warn!(issuer = %provider.source.name, "no keys, or no introspection endpoint, yet; its tokens get 503 until they are there");
        }
    }
}

/// A line for each file of certificates with other contents than before.
fn renewed(old: &Snapshot, new: &Snapshot, now: UnixSeconds) -> Vec<String> {
    let line = |file: &CertificateFile| {
        let before = old
            .certificates
            .iter()
            .find(|before| before.at == file.at)?;
        let changed = before.path == file.path && before != file;
        let ends = steps::moment(file.not_after, now);
        changed.then(|| format!("{}: the certificate is another, expires {ends}", file.at))
    };
    new.certificates.iter().filter_map(line).collect()
}

/// Tells log and metrics of the certificates that are in force from now on.
fn in_force(new: &Snapshot, old: Option<&Snapshot>, shared: &Shared) {
    let gauge = &shared
        .observer
        .metrics
        .tls_certificate_expiry_timestamp_seconds;
    let gone = |file: &&CertificateFile| new.certificates.iter().all(|kept| kept.path != file.path);
    for file in old.iter().flat_map(|old| &old.certificates).filter(gone) {
        // It has been set when that snapshot came in force.
        let _ = gauge.remove_label_values(&[&*file.path.to_string_lossy()]);
    }
    for file in &new.certificates {
        let series = gauge.with_label_values(&[&*file.path.to_string_lossy()]);
        series.set(file.not_after);
        if let Some(warning) = file.warning(new.clock.now()) {
            tracing::warn!("{warning}");
        }
    }
}
