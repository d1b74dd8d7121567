//! The current keys of one issuer, read by every request and written by one fetcher.

use super::KeySet;
use crate::identity::UnixSeconds;
use arc_swap::{ArcSwapOption, Guard};
use http::Uri;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;
use tokio::sync::{Notify, watch};

/// Requests that may wait at one time for keys to be fetched on their behalf.
const MAX_WAITING: usize = 1024;

/// How keys are kept: `[issuer.*.jwks]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPolicy {
    /// Time between fetches when the reply has no `Cache-Control: max-age`.
    pub ttl: Duration,
    /// The shortest time that `max-age` can ask for.
    pub min_ttl: Duration,
    /// The longest time that `max-age` can ask for.
    pub max_ttl: Duration,
    /// How long keys outlive the last good fetch.
    pub max_stale: Duration,
    /// Time between two fetches caused by unknown key ids, failed ones included.
    pub cooldown: Duration,
    /// How long a request waits for such a fetch.
    pub patience: Duration,
}

/// The issuer's endpoints, from its discovery document or the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoints {
    /// Where the keys are; absent only if the issuer's tokens are opaque.
    pub jwks: Option<Uri>,
    /// Where tokens are issued; absent if neither source names it.
    pub token: Option<Uri>,
    /// Where tokens are introspected (RFC 7662); absent if neither source names it.
    pub introspection: Option<Uri>,
}

/// What `/readyz?verbose` says of an issuer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// No keys have been loaded yet, or not where to ask about opaque tokens.
    Missing,
    /// The tokens are opaque, and it is known where to ask about them.
    NotNeeded,
    /// Keys are there; the number, and the age of the last good fetch in seconds.
    Loaded {
        /// How many keys.
        keys: usize,
        /// Seconds since they were fetched.
        age: i64,
    },
}

/// Whether the last attempt to fetch keys brought some.
#[derive(Debug, Clone, Copy, Default)]
struct LastAttempt {
    good: bool,
}

/// The keys of one issuer. Readers take no lock.
#[derive(Debug)]
pub struct KeyStore {
    policy: KeyPolicy,
    set: ArcSwapOption<KeySet>,
    endpoints: ArcSwapOption<Endpoints>,
    /// Rung by a request that met an unknown key id.
    demand: Notify,
    /// The last finished attempt; whoever waits for one watches it.
    attempts: watch::Sender<LastAttempt>,
    waiting: AtomicUsize,
}

// === impl KeyStore ===

impl KeyStore {
    /// A store without keys.
    pub fn new(policy: KeyPolicy) -> Self {
        Self {
            policy,
            set: ArcSwapOption::empty(),
            endpoints: ArcSwapOption::empty(),
            demand: Notify::new(),
            attempts: watch::Sender::new(LastAttempt::default()),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The policy that this store follows.
    pub fn policy(&self) -> &KeyPolicy {
        &self.policy
    }

    /// The keys, unless there are none or they are older than `max_stale`.
    pub fn current(&self, now: UnixSeconds) -> Option<Guard<Option<Arc<KeySet>>>> {
        let set = self.set.load();
        let age = now.saturating_sub(set.as_ref()?.fetched_at);
        let limit = i64::try_from(self.policy.max_stale.as_secs()).unwrap_or(i64::MAX);
        (age <= limit).then_some(set)
    }

    /// The endpoints, once discovery has found them.
    pub fn endpoints(&self) -> Option<Arc<Endpoints>> {
        self.endpoints.load_full()
    }

    /// For `/readyz`: whether keys have been loaded once.
    pub fn status(&self, now: UnixSeconds) -> KeyStatus {
        match &*self.set.load() {
            None => KeyStatus::Missing,
            Some(set) => KeyStatus::Loaded {
                keys: set.len(),
                age: now.saturating_sub(set.fetched_at),
            },
        }
    }

    /// Puts a new set in place; keys that were there before keep their address.
    pub fn replace(&self, mut set: KeySet) {
        if let Some(earlier) = &*self.set.load() {
            set.keep_known(earlier);
        }
        self.set.store(Some(Arc::new(set)));
    }

    pub(super) fn set_endpoints(&self, endpoints: Endpoints) {
        self.endpoints.store(Some(Arc::new(endpoints)));
    }

    /// Tells who waits that an attempt is over; `None`: it was too early for another one.
    pub(super) fn attempt_finished(&self, good: Option<bool>) {
        // Whoever watches is woken even if the value stays the same.
        self.attempts
            .send_modify(|last| last.good = good.unwrap_or(last.good));
    }

    /// Takes over what another store of the same issuer holds.
    pub fn inherit(&self, earlier: &Self) {
        self.set.store(earlier.set.load_full());
        self.endpoints.store(earlier.endpoints.load_full());
    }

    pub(super) async fn demanded(&self) {
        self.demand.notified().await;
    }

    /// Asks for a fetch because of an unknown key id and waits until one attempt has finished, or
    /// for `patience`. All callers share one fetch; the fetcher keeps the cool-down.
    ///
    /// Returns whether the keys are now as fresh as the cool-down lets them be. If not, a token
    /// with an unknown key id cannot be judged: it may be signed with a key that is not here yet.
    pub async fn refresh_for_unknown_key(&self) -> bool {
        let Some(_place) = self.waiting_place() else {
            return false;
        };
        let mut attempts = self.attempts.subscribe();
        self.demand.notify_one();
        let finished = pingora_timeout::timeout(self.policy.patience, attempts.changed()).await;
        matches!(finished, Ok(Ok(()))) && attempts.borrow().good
    }

    fn waiting_place(&self) -> Option<WaitingPlace<'_>> {
        let place = WaitingPlace(&self.waiting);
        (self.waiting.fetch_add(1, Relaxed) < MAX_WAITING).then_some(place)
    }
}

struct WaitingPlace<'s>(&'s AtomicUsize);

impl Drop for WaitingPlace<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
