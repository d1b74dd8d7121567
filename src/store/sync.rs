//! Keeps what is revoked here and what is revoked in Redis the same: asks for what is new, several
//! times a second, and gives what Redis may not have.
//!
//! After any failure nothing is taken for granted: everything is read anew and given anew. A Redis that
//! has lost its data, or a replica in its place that lacks the last of it, is made whole in this way by
//! every gateway that holds some of it.

use super::denylist::{Full, KEPT_LONGER};
use super::entry::Entry;
use super::exchange::{Position, Reply, exchange};
use super::hub::{Hub, OnFailure};
use super::redis::{PATIENCE, Redis};
use crate::identity::{Clock, UnixSeconds};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Between two questions: what is revoked elsewhere is refused here after that, and a round trip.
const INTERVAL: Duration = Duration::from_millis(200);

/// A failure that is over after this, and `[store] timeout`, changes nothing.
const GRACE: Duration = Duration::from_secs(1);

/// Entries that are told, and entries that are given, at a time: about a millisecond for Redis.
const PAGE: usize = 256;

/// The synchronisation with one Redis; ends when this is dropped.
#[derive(Debug)]
pub(super) struct Line {
    pub redis: Arc<Redis>,
    task: JoinHandle<()>,
}

/// What the task knows.
struct Sync {
    redis: Arc<Redis>,
    hub: Arc<Hub>,
    clock: Clock,
    /// Whose word counts.
    line: u64,
    /// Up to where this has read.
    read: Position,
    /// What is still to be given.
    backlog: Vec<Entry>,
    /// How many questions had failed when reading began.
    breaks: u64,
    /// The latest time that was had of the clock.
    latest: UnixSeconds,
    /// When everything was last known.
    last: Option<Instant>,
    /// What the log was told.
    told: Option<bool>,
    /// Whether the log was told of what is in Redis and makes no sense, or finds no room.
    complained: bool,
}

/// Whether there is more to do at once.
enum Next {
    Rest,
    Go,
}

// === impl Line ===

impl Line {
    /// Begins. What is returned beside it comes when everything is known, or the first failure.
    pub fn start(
        redis: &Arc<Redis>,
        hub: &Arc<Hub>,
        clock: &Clock,
    ) -> (Self, oneshot::Receiver<()>) {
        let (tell, tried) = oneshot::channel();
        let sync = Sync {
            redis: Arc::clone(redis),
            hub: Arc::clone(hub),
            clock: clock.clone(),
            line: hub.next_line(),
            read: Position::default(),
            backlog: Vec::new(),
            breaks: redis.breaks(),
            latest: UnixSeconds::MIN,
            last: None,
            told: None,
            complained: false,
        };
        let line = Self {
            redis: Arc::clone(redis),
            task: tokio::spawn(sync.run(tell)),
        };
        (line, tried)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
        let no_labels: [&str; 0] = [];
        let last = &self.redis.metrics().revocations_last_sync_timestamp_seconds;
        // It may never have been shown. If another line has shown it already, it does so again.
        let _ = last.remove_label_values(&no_labels);
    }
}

// === impl Sync ===

impl Drop for Sync {
    /// However the task has ended, nobody learns of revocations any more.
    fn drop(&mut self) {
        self.hub.in_sync(self.line, false);
    }
}

impl Sync {
    async fn run(mut self, tried: oneshot::Sender<()>) {
        let mut tried = Some(tried);
        loop {
            let next = match self.exchange().await {
                Ok(next) => next,
                Err(why) => {
                    self.fail(&why);
                    Next::Rest
                }
            };
            if let Next::Rest = next {
                if let Some(tried) = tried.take() {
                    // Whoever asked may have gone.
                    let _ = tried.send(());
                }
                tokio::time::sleep(INTERVAL).await;
            }
        }
    }

    /// One question and what follows from it.
    async fn exchange(&mut self) -> Result<Next, String> {
        let breaks = self.redis.breaks();
        if breaks != self.breaks {
            // Somebody else's question has failed: this may be another Redis already.
            self.breaks = breaks;
            self.begin_anew();
        }
        let now = self.clock.now();
        if now < self.latest.saturating_sub(KEPT_LONGER) {
            // By a clock that ran ahead, what is in force may have been taken for run out.
            self.latest = now;
            self.begin_anew();
        }
        self.latest = self.latest.max(now);
        let given = self.backlog.len().min(PAGE);
        let given = self.backlog.split_off(self.backlog.len() - given);
        let reply = exchange(&self.redis, PATIENCE, now, &self.read, PAGE, &given).await;
        let reply = reply.inspect_err(|failure| self.redis.failed(failure));
        let reply = reply.map_err(|failure| failure.to_string())?;
        let before = std::mem::replace(&mut self.read, reply.position.clone());
        if before.generation != reply.position.generation || reply.last < before.upto {
            self.backlog.clear();
            self.hub.owe();
        }
        let known = self.take(&reply, now);
        known.map_err(|full| full.to_string())?;
        if reply.position.upto < reply.last {
            return Ok(Next::Go);
        }
        self.succeed(now);
        if self.backlog.is_empty() && self.hub.owed.swap(false, SeqCst) {
            self.backlog = self.hub.denylist.entries();
        }
        Ok(match self.backlog.is_empty() {
            true => Next::Rest,
            false => Next::Go,
        })
    }

    /// Makes what Redis tells hold here.
    fn take(&mut self, reply: &Reply, now: UnixSeconds) -> Result<(), Full> {
        let mut new = false;
        let mut outcome = Ok(());
        for entry in &reply.entries {
            match self.hub.denylist.add(entry, now) {
                Ok(is_new) => new |= is_new,
                Err(full) => outcome = Err(full),
            }
        }
        if new {
            self.hub.news.notify_one();
        }
        if !self.complained && (reply.garbage > 0 || reply.left > 0) {
            self.complained = true;
            tracing::warn!(
                redis = self.redis.address(),
                unreadable = reply.garbage,
                no_room = reply.left,
                "some revocations are not shared: the store holds entries that are none and are left aside, or has no room for more"
            );
        }
        outcome
    }

    fn begin_anew(&mut self) {
        self.read = Position::default();
        self.backlog.clear();
        self.hub.owe();
    }

    /// Everything is known that Redis has.
    fn succeed(&mut self, now: UnixSeconds) {
        self.last = Some(Instant::now());
        self.hub.in_sync(self.line, true);
        let no_labels: [&str; 0] = [];
        let last = &self.redis.metrics().revocations_last_sync_timestamp_seconds;
        last.with_label_values(&no_labels).set(now);
        if self.told != Some(true) {
            self.told = Some(true);
            let entries = self.hub.denylist.len();
            tracing::info!(
                redis = self.redis.address(),
                entries,
                "revocations are shared with other gateways"
            );
        }
    }

    fn fail(&mut self, why: &str) {
        self.begin_anew();
        let grace = GRACE + self.redis.settings().timeout;
        if self.last.is_some_and(|last| last.elapsed() < grace) {
            return;
        }
        self.hub.in_sync(self.line, false);
        if self.told != Some(false) {
            self.told = Some(false);
            let consequence = match self.hub.standing().on_failure {
                OnFailure::Open => "each gateway goes by those that it knows",
                OnFailure::Closed => "tokens get 503 until they are",
            };
            tracing::warn!(
                redis = self.redis.address(),
                why,
                "revocations are not shared with other gateways: {consequence}"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Settings;
    use crate::telemetry::metrics::Metrics;

    #[tokio::test]
    async fn without_the_task_nobody_is_in_sync() {
        let metrics = Arc::new(Metrics::new("0", "0").unwrap());
        let settings = Settings {
            url: "redis://127.0.0.1:1".into(),
            timeout: GRACE,
        };
        let redis = Arc::new(Redis::new(settings, &metrics).unwrap());
        let hub = Arc::new(Hub::default());
        let (line, tried) = Line::start(&redis, &hub, &Clock::system());
        hub.follow(true, OnFailure::Closed);
        hub.in_sync(hub.standing().line, true);
        assert!(!hub.standing().refuses());
        // As if it had panicked.
        line.task.abort();
        assert!(tried.await.is_err());
        assert!(hub.standing().refuses());
    }
}
