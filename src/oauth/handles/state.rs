//! What is behind the handles of a surface: keys, the store, and what is known for a moment. It outlives
//! reloads.

use super::lookup::Exchanged;
use super::{Handles, Settings, renew};
use crate::identity::Clock;
use crate::store::Redis;
use crate::store::sealed::{RecordId, SealedStore, SealingKey};
use crate::telemetry::metrics::Metrics;
use moka::sync::Cache;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long a token that was found is used without another look: a revocation at another gateway is
/// seen after that.
const RECENT: Duration = Duration::from_millis(500);

/// Tokens that are known for that long, at most.
const MAX_RECENT: u64 = 4096;

/// What outlives a change of settings.
pub(super) struct State {
    /// `iss` of the issuer whose tokens these are: no other is ever shown one.
    issuer: Box<str>,
    /// The key that was configured.
    configured: Option<Arc<SealingKey>>,
    /// Makes the tags of handles.
    pub(super) tags: SealingKey,
    /// Makes what a credential is known by.
    pub(super) proofs: SealingKey,
    pub(super) store: SealedStore,
    pub(super) recent: Cache<RecordId, Arc<Exchanged>>,
    /// Families that a renewal was tried for a moment ago.
    pub(super) renewing: Cache<RecordId, ()>,
}

/// Where handles are kept.
#[derive(Debug, Clone, Copy)]
pub enum Home<'a> {
    /// In this process.
    Memory,
    /// In Redis, sealed with this key.
    Redis(&'a Arc<Redis>, &'a Arc<SealingKey>),
}

// === impl State ===

impl State {
    fn new(surface: &str, issuer: &str, home: Home<'_>, metrics: &Metrics) -> io::Result<Self> {
        let (key, configured) = match home {
            Home::Memory => (Arc::new(SealingKey::random()?), None),
            Home::Redis(_, key) => (Arc::clone(key), Some(Arc::clone(key))),
        };
        let derived =
            |purpose: &[u8]| key.derive(&[purpose, surface.as_bytes(), issuer.as_bytes()]);
        let records = derived(b"records");
        let store = match home {
            Home::Memory => SealedStore::in_memory(records),
            Home::Redis(redis, _) => SealedStore::in_redis(records, Arc::clone(redis), metrics),
        };
        Ok(Self {
            issuer: issuer.into(),
            tags: derived(b"tags"),
            proofs: derived(b"proofs"),
            store,
            recent: Cache::builder()
                .max_capacity(MAX_RECENT)
                .time_to_live(RECENT)
                .build(),
            renewing: Cache::builder()
                .max_capacity(MAX_RECENT)
                .time_to_live(renew::PAUSE)
                .build(),
            configured,
        })
    }
}

// === impl Handles ===

impl Handles {
    /// None are given out yet. `issuer` is the `iss` of the issuer behind the surface.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(
        surface: &Arc<str>,
        issuer: &str,
        settings: Settings,
        home: Home<'_>,
        clock: Clock,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let state = State::new(surface, issuer, home, metrics)?;
        Ok(Self {
            surface: Arc::clone(surface),
            settings,
            clock,
            state: Arc::new(state),
        })
    }

    /// The same handles under other settings.
    #[must_use]
    pub fn with(&self, settings: Settings) -> Self {
        Self {
            settings,
            ..self.clone()
        }
    }

    /// Whether these are the handles of that surface, for that issuer, in that place.
    #[must_use]
    pub fn are_of(&self, surface: &str, issuer: &str, home: Home<'_>) -> bool {
        let (redis, key) = match home {
            Home::Memory => (None, None),
            Home::Redis(redis, key) => (Some(redis), Some(key)),
        };
        let same_key = match (&self.state.configured, key) {
            (Some(own), Some(other)) => own.is(other),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        *self.surface == *surface
            && *self.state.issuer == *issuer
            && same_key
            && self.state.store.is_in(redis)
    }
}
