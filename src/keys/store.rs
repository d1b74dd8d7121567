//! The current keys of one issuer, read by every request and written by one fetcher.

use super::KeySet;
use crate::identity::UnixSeconds;
use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use http::Uri;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

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
    /// How long keys outlive their freshness.
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
    /// Where users log in; absent if neither source names it.
    pub authorization: Option<Uri>,
    /// Where it is told who a user is; absent if neither source names it.
    pub userinfo: Option<Uri>,
    /// Where tokens are revoked (RFC 7009); absent if neither source names it.
    pub revocation: Option<Uri>,
    /// The discovery document as it came; absent if it was not needed.
    pub document: Option<Bytes>,
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

/// Where the attempts to fetch keys stand, in one word that requests read and change without a
/// lock: nanoseconds of the last demanded attempt, how the last one ended, whether one is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Attempts(u64);

/// What a request finds that asks for a fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// An attempt was begun by this.
    Began,
    /// An attempt is under way. It may have read the keys before the unknown one was published.
    UnderWay,
    /// It is too early for another one; whether the last one was good.
    TooEarly(bool),
}

/// The keys of one issuer. Readers take no lock.
#[derive(Debug)]
pub struct KeyStore {
    policy: KeyPolicy,
    set: ArcSwapOption<KeySet>,
    endpoints: ArcSwapOption<Endpoints>,
    /// [`Attempts`].
    attempts: AtomicU64,
    /// What the time in `attempts` counts from.
    made: Instant,
    /// Rung by a request that began an attempt, for the fetcher to carry out.
    demand: Notify,
    /// Rung at the end of every attempt, for who waits for it.
    finished: Notify,
    waiting: AtomicUsize,
}

// === impl KeyPolicy ===

impl KeyPolicy {
    /// The freshness of keys, as far as it counts here: who fetched them may have followed another
    /// policy.
    pub(super) fn fresh_until(&self, set: &KeySet) -> UnixSeconds {
        let longest = seconds(self.max_ttl.max(self.min_ttl));
        set.fresh_until.min(set.fetched_at.saturating_add(longest))
    }

    /// Until when keys may be used that could not be fetched again.
    pub(super) fn usable_until(&self, set: &KeySet) -> UnixSeconds {
        let fresh_until = self.fresh_until(set);
        fresh_until.saturating_add(seconds(self.max_stale))
    }
}

/// A time span on the clock that keys age by.
pub(super) fn seconds(time: Duration) -> UnixSeconds {
    UnixSeconds::try_from(time.as_secs()).unwrap_or(UnixSeconds::MAX)
}

// === impl Attempts ===

impl Attempts {
    const UNDER_WAY: u64 = 1;
    const GOOD: u64 = 2;

    fn under_way(self) -> bool {
        self.0 & Self::UNDER_WAY != 0
    }

    fn good(self) -> bool {
        self.0 & Self::GOOD != 0
    }

    /// When an attempt was last demanded, if ever. Two bits shorter than a word of nanoseconds,
    /// which is 146 years.
    fn demanded(self) -> Option<Duration> {
        let nanoseconds = self.0 >> 2;
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// The same with an attempt that is demanded at `now` and under way.
    fn demanded_at(self, now: Duration) -> Self {
        let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(1);
        Self(nanoseconds << 2 | self.0 & Self::GOOD | Self::UNDER_WAY)
    }

    /// Whether another attempt would come too early.
    fn cooling(self, now: Duration, cooldown: Duration) -> bool {
        self.demanded()
            .is_some_and(|at| now.saturating_sub(at) < cooldown)
    }
}

// === impl KeyStore ===

impl KeyStore {
    /// A store without keys.
    pub fn new(policy: KeyPolicy) -> Self {
        Self {
            policy,
            set: ArcSwapOption::empty(),
            endpoints: ArcSwapOption::empty(),
            attempts: AtomicU64::new(0),
            made: Instant::now(),
            demand: Notify::new(),
            finished: Notify::new(),
            waiting: AtomicUsize::new(0),
        }
    }

    /// The policy that this store follows.
    pub fn policy(&self) -> &KeyPolicy {
        &self.policy
    }

    /// The keys, unless there are none or `max_stale` has passed since they were fresh. Who needs
    /// them then says so with [`Self::demand`].
    pub fn current(&self, now: UnixSeconds) -> Option<Guard<Option<Arc<KeySet>>>> {
        let set = self.set.load();
        let usable = now <= self.policy.usable_until(set.as_ref()?);
        usable.then_some(set)
    }

    /// Whether no keys have been loaded yet.
    pub(super) fn is_empty(&self) -> bool {
        self.set.load().is_none()
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

    /// Puts a new set in place; keys that were there before keep their address. Returns the set as
    /// it is now.
    pub fn replace(&self, mut set: KeySet) -> Arc<KeySet> {
        if let Some(earlier) = &*self.set.load() {
            set.keep_known(earlier);
        }
        let set = Arc::new(set);
        self.set.store(Some(Arc::clone(&set)));
        set
    }

    pub(super) fn set_endpoints(&self, endpoints: Endpoints) {
        self.endpoints.store(Some(Arc::new(endpoints)));
    }

    /// Takes over what another store of the same issuer holds. `revised` makes of its endpoints
    /// what they are here.
    pub fn inherit(&self, earlier: &Self, revised: impl FnOnce(&Endpoints) -> Endpoints) {
        self.set.store(earlier.set.load_full());
        let endpoints = earlier.endpoints.load();
        let endpoints = endpoints.as_deref().map(revised);
        self.endpoints.store(endpoints.map(Arc::new));
    }

    /// Says that the fetcher has begun an attempt; requests that need one wait for its end.
    pub(super) fn attempt_begun(&self) {
        self.attempts.fetch_or(Attempts::UNDER_WAY, AcqRel);
    }

    /// Says how an attempt ended, and lets go who waited for it.
    pub(super) fn attempt_finished(&self, good: bool) {
        let ended = |now: u64| {
            let kept = now & !(Attempts::UNDER_WAY | Attempts::GOOD);
            Some(kept | if good { Attempts::GOOD } else { 0 })
        };
        // Never an error: there is always a next value.
        let _ = self.attempts.fetch_update(AcqRel, Acquire, ended);
        self.finished.notify_waiters();
    }

    /// Waits until a request has begun an attempt that nobody carries out yet.
    pub(super) async fn demanded(&self) {
        loop {
            self.demand.notified().await;
            // The attempt before may have begun after that ring and have answered it.
            if self.attempts().under_way() {
                return;
            }
        }
    }

    /// Asks for a fetch without waiting for it, because there are no usable keys: the next attempt
    /// may be far off if the clock has jumped. Within the cool-down nothing happens.
    pub fn demand(&self) {
        // Whoever asks is refused either way.
        let _ = self.ask(self.made.elapsed());
    }

    /// Asks for a fetch because of an unknown key id and waits until one attempt has finished, or
    /// for `patience`. All callers share one fetch. Within the cool-down, which failed attempts
    /// count for as well, the answer is there at once.
    ///
    /// Returns whether the keys are now as fresh as the cool-down lets them be. If not, a token
    /// with an unknown key id cannot be judged: it may be signed with a key that is not here yet.
    pub async fn refresh_for_unknown_key(&self) -> bool {
        let asked = self.ask(self.made.elapsed());
        if let Asked::TooEarly(good) = asked {
            return good;
        }
        let Some(_place) = self.waiting_place() else {
            return false;
        };
        let answer = pingora_timeout::timeout(self.policy.patience, self.answer(asked)).await;
        answer.unwrap_or(false)
    }

    /// Waits for the end of an attempt that began no earlier than the request asked, as far as the
    /// cool-down allows, and says how it ended.
    async fn answer(&self, asked: Asked) -> bool {
        self.end_of_attempt().await;
        if asked == Asked::UnderWay && !matches!(self.ask(self.made.elapsed()), Asked::TooEarly(_))
        {
            self.end_of_attempt().await;
        }
        self.attempts().good()
    }

    async fn end_of_attempt(&self) {
        // In this order: an end between the two lines is seen by the second.
        let finished = self.finished.notified();
        if self.attempts().under_way() {
            finished.await;
        }
    }

    /// Begins an attempt, unless one is under way or it is too early.
    fn ask(&self, now: Duration) -> Asked {
        let mut seen = self.attempts();
        loop {
            if seen.under_way() {
                return Asked::UnderWay;
            }
            if seen.cooling(now, self.policy.cooldown) {
                return Asked::TooEarly(seen.good());
            }
            let next = seen.demanded_at(now).0;
            match self
                .attempts
                .compare_exchange_weak(seen.0, next, AcqRel, Acquire)
            {
                Ok(_) => {
                    self.demand.notify_one();
                    return Asked::Began;
                }
                Err(changed) => seen = Attempts(changed),
            }
        }
    }

    fn attempts(&self) -> Attempts {
        Attempts(self.attempts.load(Acquire))
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

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
