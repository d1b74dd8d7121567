//! Tokens of machines that are given again: fewer are bought, and equal requests at one time are one
//! request to the issuer. Opt-in, `[oauth.*.cache]`.
//!
//! ```text
//! plain client_credentials? ─► key ─► kept or refused a moment ago? ─► that answer
//!    │ no                                │ no
//!    ▼                                   ▼
//!  issuer                   one question a key, which goes on if those who wait leave
//! ```
//!
//! The key is all that shaped an answer, the secret included (`oauth::key`): who has not proved himself in
//! the same way never shares one. What may be kept is decided on values (`kept`, `refusal`).

mod counters;
mod kept;
mod refusal;
mod settings;
#[cfg(test)]
mod tests;

pub use kept::Rules;
pub use settings::Settings;

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use self::counters::Counters;
use self::kept::{Kept, Moment, Reading};
use self::refusal::Refusal;
use super::client::TokenIssuer;
use super::client_auth::ClientAuth;
use super::errors::{OAuthError, forbid_storing};
use super::grant::Grant;
use super::key::{Key, Keys};
use super::reply::Outcome;
use super::token::{Answer, Forward, ask};
use crate::identity::{Clock, DigestHasher, TokenDigest};
use crate::telemetry::metrics::Metrics;

/// Questions that are open at a time. One more is asked for by itself, and ends with its client.
const MAX_OPEN: usize = 1024;

/// How long it is remembered that equal requests get answers that they cannot share.
const ALONE_FOR: Duration = Duration::from_secs(60);

/// What one surface gives again. Has no telling `Debug`: it holds tokens.
pub struct Reuse {
    surface: Arc<str>,
    settings: Settings,
    keys: Keys,
    clock: Clock,
    /// Only who has proved himself to the issuer gets something in here.
    tokens: Cache<Key, Arc<Kept>, DigestHasher>,
    /// Anybody can fill this one, which pushes out nothing else.
    refused: Cache<Key, Arc<Refusal>, DigestHasher>,
    /// Who has asked too often. Apart from the refused: a flood of wrong secrets must not end a wait.
    throttled: Cache<Key, Arc<Refusal>, DigestHasher>,
    /// Requests whose answers are for one client only.
    alone: Cache<Key, (), DigestHasher>,
    open: Mutex<HashMap<Key, Question, DigestHasher>>,
    /// How often everything has been forgotten.
    generation: AtomicU64,
    metrics: Counters,
}

/// A question to the issuer that is open, for all who wait for its answer.
type Question = watch::Receiver<Option<Shared>>;

/// What came of a question.
#[derive(Clone)]
struct Shared {
    answer: Answer,
    /// Whether it is for all who waited, or only for the first of them.
    for_all: bool,
}

/// What a request without a known answer does.
enum Place {
    /// It was answered meanwhile.
    Known(Answer),
    /// Somebody else has asked.
    Joined(Question),
    /// It asks, for itself and for all who come.
    First(Question),
    /// It asks for itself only.
    Alone,
}

/// An open question, taken off the list when this is dropped.
struct Open {
    of: Arc<Reuse>,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.open().remove(&self.key);
    }
}

// === impl Reuse ===

impl Reuse {
    /// Nothing is kept yet.
    ///
    /// # Errors
    /// If the system gives no random numbers for the secret of the keys.
    pub fn new(
        surface: &Arc<str>,
        settings: Settings,
        clock: Clock,
        metrics: &Metrics,
    ) -> io::Result<Self> {
        let max = settings.max_entries;
        let refusals = |time: Duration| {
            let cache = Cache::builder().max_capacity(max).time_to_live(time);
            cache.build_with_hasher(DigestHasher::default())
        };
        let alone = Cache::builder().max_capacity(max).time_to_live(ALONE_FOR);
        Ok(Self {
            surface: Arc::clone(surface),
            settings,
            keys: Keys::new()?,
            clock,
            tokens: Cache::builder()
                .max_capacity(max)
                .eviction_policy(EvictionPolicy::lru())
                .build_with_hasher(DigestHasher::default()),
            refused: refusals(refusal::REFUSED_FOR),
            throttled: refusals(refusal::LONGEST_WAIT),
            alone: alone.build_with_hasher(DigestHasher::default()),
            open: Mutex::default(),
            generation: AtomicU64::new(0),
            metrics: Counters::new(surface, metrics),
        })
    }

    /// The surface that it belongs to.
    pub fn surface(&self) -> &str {
        &self.surface
    }

    /// The settings that it was made with.
    pub fn settings(&self) -> Settings {
        self.settings
    }

    /// Forgets this token, so that it is given to nobody again; whether it was kept. To be called
    /// before a revocation is acknowledged. Looks at every entry.
    pub fn forget(&self, token: &TokenDigest) -> bool {
        let holding = self.tokens.iter().filter(|(_, kept)| kept.holds(token));
        // Not while walking through them.
        let keys: Vec<Arc<Key>> = holding.map(|(key, _)| key).collect();
        keys.iter().for_each(|key| self.tokens.invalidate(&**key));
        !keys.is_empty()
    }

    /// Forgets everything; answers that are on their way are not kept either.
    pub fn forget_all(&self) {
        self.generation.fetch_add(1, SeqCst);
        self.tokens.invalidate_all();
        self.refused.invalidate_all();
        self.throttled.invalidate_all();
        self.alone.invalidate_all();
    }

    /// Tokens that are kept, after what is over the bound has been dropped; for tests and benches.
    pub fn count(&self) -> u64 {
        self.tokens.run_pending_tasks();
        self.tokens.entry_count()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, Question, DigestHasher>> {
        // Nothing in there is ever half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request: with what is kept, with what somebody else is asking for at this moment, or
    /// by asking the issuer.
    pub(super) async fn answer(
        self: &Arc<Self>,
        issuer: &TokenIssuer,
        forward: &Forward,
    ) -> Answer {
        let plain = is_plain(forward).then(|| self.keys.of(&issuer.token_endpoint, forward));
        let Some(key) = plain.flatten() else {
            return self.ask(issuer, forward).await;
        };
        let known = self.known(&key, issuer);
        match known.map_or_else(|| self.place(key, issuer, forward), Place::Known) {
            Place::Known(answer) => answer,
            Place::First(question) => {
                self.metrics.miss.inc();
                // Only if its worker ends, or it panics, has a question no answer.
                let shared = outcome(question).await;
                shared.map_or(Err(OAuthError::IssuerCut), |shared| shared.answer)
            }
            Place::Joined(question) => match outcome(question).await {
                Some(shared) if shared.for_all => {
                    self.metrics.coalesced.inc();
                    shared.answer.map(as_reused)
                }
                _ => self.ask_alone(issuer, forward).await,
            },
            Place::Alone => self.ask_alone(issuer, forward).await,
        }
    }

    async fn ask_alone(&self, issuer: &TokenIssuer, forward: &Forward) -> Answer {
        self.metrics.miss.inc();
        self.ask(issuer, forward).await
    }

    async fn ask(&self, issuer: &TokenIssuer, forward: &Forward) -> Answer {
        let form = forward.params.to_form();
        ask(
            &self.surface,
            forward.grant,
            issuer,
            forward.headers.clone(),
            form,
        )
        .await
    }

    /// The answer that is known already.
    fn known(&self, key: &Key, issuer: &TokenIssuer) -> Option<Answer> {
        if let Some(kept) = self.tokens.get(key) {
            let now = Moment::now(&self.clock);
            let published = issuer.keys.current(now.wall);
            let published = published.as_ref().and_then(|keys| keys.as_deref());
            if !kept.is_orphan(published)
                && !kept.is_revoked(issuer.store.denylist())
                && let Some(body) = kept.body(now)
            {
                self.metrics.hit.inc();
                return Some(Ok((given_again(body), Outcome::Reused)));
            }
        }
        let now = Instant::now();
        let of = |cache: &Cache<_, Arc<Refusal>, _>| cache.get(key)?.answer(now);
        let refusal = of(&self.throttled).or_else(|| of(&self.refused))?;
        self.metrics.refused.inc();
        Some(Ok((refusal, Outcome::RefusedByIssuer)))
    }

    /// Where a request stands that has no known answer.
    fn place(self: &Arc<Self>, key: Key, issuer: &TokenIssuer, forward: &Forward) -> Place {
        if self.alone.contains_key(&key) {
            return Place::Alone;
        }
        let mut open = self.open();
        if let Some(question) = open.get(&key) {
            return Place::Joined(question.clone());
        }
        // A question leaves its answer before it leaves the list: who finds neither is the first.
        if let Some(answer) = self.known(&key, issuer) {
            return Place::Known(answer);
        }
        if open.len() >= MAX_OPEN {
            return Place::Alone;
        }
        let (sender, question) = watch::channel(None);
        open.insert(key, question.clone());
        drop(open);
        let entry = Open {
            of: Arc::clone(self),
            key,
        };
        let issuer = issuer.clone();
        let (grant, headers) = (forward.grant, forward.headers.clone());
        let form = forward.params.to_form();
        tokio::spawn(async move {
            let of = &entry.of;
            let generation = of.generation.load(SeqCst);
            let asked = Moment::now(&of.clock);
            let answer = ask(&of.surface, grant, &issuer, headers, form).await;
            let for_all = of.remember(key, &answer, asked, generation, &issuer);
            drop(entry);
            // Whoever asked may have gone.
            let _ = sender.send(Some(Shared { answer, for_all }));
        });
        Place::First(question)
    }

    /// Keeps what may be kept of an answer; whether all who wait for it may have it.
    fn remember(
        &self,
        key: Key,
        answer: &Answer,
        asked: Moment,
        generation: u64,
        issuer: &TokenIssuer,
    ) -> bool {
        // Nobody learns more from a failure than that the issuer failed, and asks again.
        let Ok((response, outcome)) = answer else {
            return true;
        };
        if *outcome == Outcome::Issued {
            let rules = self.settings.rules_with(response.headers());
            match kept::read(response.body(), asked, rules, fastrand::f64()) {
                Reading::Keep(kept) => {
                    let published = issuer.keys.current(asked.wall);
                    kept.is_orphan(published.as_ref().and_then(|keys| keys.as_deref()));
                    self.tokens.insert(key, kept);
                }
                Reading::Share => {}
                Reading::Alone => {
                    self.alone.insert(key, ());
                    return false;
                }
            }
        } else if let Some(refusal) = Refusal::of(response, Instant::now(), self.clock.now()) {
            let cache = if refusal.is_throttle() {
                &self.throttled
            } else {
                &self.refused
            };
            cache.insert(key, Arc::new(refusal));
        }
        // In this order: either it is seen here that all was to be forgotten, or it was forgotten.
        if self.generation.load(SeqCst) != generation {
            self.tokens.invalidate(&key);
            self.refused.invalidate(&key);
        }
        true
    }
}

impl fmt::Debug for Reuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reuse")
            .field("surface", &self.surface)
            .field("settings", &self.settings)
            .field("tokens", &self.tokens.entry_count())
            .finish_non_exhaustive()
    }
}

/// Whether it asks for a token of a machine that has a secret: no other is reused.
pub(super) fn is_plain(forward: &Forward) -> bool {
    let confidential = !matches!(forward.auth, ClientAuth::Public | ClientAuth::Assertion);
    forward.grant == Grant::ClientCredentials && confidential
}

/// Waits for what comes of a question; `None` if that was given up.
async fn outcome(mut question: Question) -> Option<Shared> {
    let outcome = question.wait_for(Option::is_some).await.ok()?;
    outcome.clone()
}

/// A token reply out of the cache. What the issuer said of quotas was true when it said it.
fn given_again(body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    forbid_storing(headers);
    response
}

/// Who shares an answer bought no token.
pub(super) fn as_reused(
    (response, outcome): (Response<Bytes>, Outcome),
) -> (Response<Bytes>, Outcome) {
    match outcome {
        Outcome::Issued => (response, Outcome::Reused),
        other => (response, other),
    }
}
