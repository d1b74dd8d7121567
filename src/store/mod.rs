//! What gateways have to remember beyond a request: the revoked tokens, in the memory of each and in
//! Redis if there is one, and how often callers have asked. Who asks is not to see where it is kept.
//!
//! ```text
//! order ─► denylist (holds here) ─► exchange ─► Redis      written before it is acknowledged
//! request ─► denylist                             │
//!                ▲                                │
//!                └──────── sync ◄─── exchange ◄───┘         asked for what is new, again and again
//! ```

mod denylist;
mod entry;
mod exchange;
mod hub;
mod rate;
mod redis;
pub mod sealed;
mod sync;

pub use self::redis::{Away, Redis, Settings};
pub use denylist::{Denylist, Full, Names, Revocation, Word};
pub use hub::{OnFailure, Standing};
pub use rate::{RateKey, Taken};

use crate::identity::{Clock, UnixSeconds};
use arc_swap::ArcSwapOption;
use entry::Entry;
use exchange::{Position, exchange};
use hub::{Hub, Owing};
use std::fmt;
use std::sync::Arc;
use sync::Line;
use tokio::sync::Mutex;

/// The shared state. Writing is a round trip to Redis, if there is one; reading never is, because
/// every request reads.
#[derive(Debug, Default)]
pub struct SharedStore {
    hub: Arc<Hub>,
    /// What shares revocations at present.
    line: ArcSwapOption<Line>,
    /// Held while that changes.
    changing: Mutex<()>,
}

/// Who refuses what has been revoked here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This gateway: there is no store to share it by.
    Here,
    /// All that share the store, within a second.
    All,
    /// This gateway; the others follow when the store is back.
    Later,
}

/// Why a revocation is not in force everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotShared {
    /// There are too many, here or in Redis.
    Full(Full),
    /// The store is away, and `on_failure` is `"closed"`. It holds here, and is written to the store
    /// when that is back.
    Away,
}

// === impl NotShared ===

impl fmt::Display for NotShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(full) => full.fmt(f),
            Self::Away => f.write_str(
                "the shared store is away, so this gateway alone refuses it; the others follow when the store is back",
            ),
        }
    }
}

impl std::error::Error for NotShared {}

impl From<Full> for NotShared {
    fn from(full: Full) -> Self {
        Self::Full(full)
    }
}

// === impl SharedStore ===

impl SharedStore {
    /// State that lives and ends with this process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Makes a revocation hold from the next request on, and has Redis know it, if there is one:
    /// waits for that no longer than `[store] timeout`.
    ///
    /// # Errors
    /// [`NotShared`]. Nothing that is revoked is ever forgotten to make room.
    pub async fn revoke(
        &self,
        revocation: Revocation,
        now: UnixSeconds,
    ) -> Result<Reach, NotShared> {
        let entry = Entry::of(&revocation);
        self.hub.denylist.add(&entry, now)?;
        let Some(redis) = self
            .line
            .load()
            .as_ref()
            .map(|line| Arc::clone(&line.redis))
        else {
            return Ok(Reach::Here);
        };
        // Whatever becomes of this, it is written one day.
        let owing = Owing::new(&self.hub);
        if !self.standing().in_sync {
            redis.revocation.away.inc();
            return self.hub.not_shared();
        }
        let wait = redis.settings().timeout;
        match exchange(&redis, wait, now, &Position::default(), 0, &[entry]).await {
            Ok(reply) if reply.left == 0 => {
                owing.settled();
                Ok(Reach::All)
            }
            Ok(_) => Err(Full.into()),
            Err(failure) => {
                redis.failed(&failure);
                self.hub.not_shared()
            }
        }
    }

    /// What is revoked, as this process knows it.
    pub fn denylist(&self) -> &Denylist {
        &self.hub.denylist
    }

    /// Shares revocations by this Redis from now on, or with nobody. Returns when those that it has are
    /// known here, or the first attempt to learn them has failed. On a tokio runtime, which does what
    /// is done in the background; with the same Redis again only `on_failure` changes.
    pub async fn share(&self, redis: Option<&Arc<Redis>>, on_failure: OnFailure, clock: &Clock) {
        let _changing = self.changing.lock().await;
        let same = match (&*self.line.load(), redis) {
            (Some(line), Some(redis)) => Arc::ptr_eq(&line.redis, redis),
            (None, None) => true,
            _ => false,
        };
        if !same {
            let started = redis.map(|redis| Line::start(redis, &self.hub, clock));
            let (line, tried) = started.unzip();
            // The one before ends with this.
            self.line.store(line.map(Arc::new));
            // This Redis knows nothing of what is known here, nor of an order that has just gone by the
            // line before.
            self.hub.owe();
            if let Some(tried) = tried {
                // It always comes, unless the runtime ends.
                let _ = tried.await;
            }
        }
        self.hub.follow(redis.is_some(), on_failure);
    }

    /// How this gateway stands with the others.
    pub fn standing(&self) -> Standing {
        self.hub.standing()
    }

    /// Returns when another gateway has revoked something since the last time. For one caller.
    pub async fn news(&self) {
        self.hub.news.notified().await;
    }

    /// Ends what is done in the background.
    pub fn end(&self) {
        self.line.store(None);
    }
}
