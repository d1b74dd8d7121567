//! The gateway's own token for an upstream, in place of the caller's: `[upstream.*.token]`.
//!
//! It is bought when it is first needed, kept in memory, and renewed in the background before it ends,
//! as long as it is in use: nobody waits for that, and nothing is bought for an upstream that nobody
//! asks. Whoever needs a token while there is none shares one fetch with all others. A failed fetch is
//! not repeated at once: an issuer that is down is asked every few seconds, whatever the traffic.
//!
//! A token that is about to end is never sent, and one that the upstream refuses with 401 is not sent
//! again ([`OwnToken::refused`]).

mod asking;
mod life;

pub use asking::{Asking, Source};

use arc_swap::ArcSwapOption;
use asking::{Failure, Issued};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderValue};
use life::Life;
use prometheus::IntCounter;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::identity::{Clock, UnixSeconds};
use crate::telemetry::metrics::Metrics;

/// After a failed fetch none is tried for this long: at first, and at most. Varied by up to as much again.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// An issuer that says when to come back is believed up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// Between two purges: an upstream that answers 401 whatever it is sent does not have a token bought for each request.
const BETWEEN_PURGES: Duration = Duration::from_secs(30);

/// The token of one upstream, as it comes and goes. Has no telling `Debug`.
pub struct OwnToken {
    upstream: Arc<str>,
    asking: Asking,
    source: Source,
    clock: Clock,
    counts: Counts,
    current: ArcSwapOption<Token>,
    state: Mutex<State>,
}

/// A token that may be sent while it lives. Has no telling `Debug`.
pub struct Token {
    authorization: HeaderValue,
    life: Life,
    /// Whether a request has gone by it: if none has, nobody needs the next one.
    used: AtomicBool,
}

/// There is no token for the upstream; for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoToken(pub Arc<str>);

/// `upstream_token_fetches_total` of an upstream.
struct Counts {
    ok: IntCounter,
    error: IntCounter,
}

#[derive(Default)]
struct State {
    /// The fetch that is under way, for all who wait for it.
    open: Option<Fetching>,
    /// Fetches that failed in a row.
    failures: u32,
    /// Why the last one did, and until when there is none.
    paused: Option<(Instant, NoToken)>,
    /// When a token was last taken out because the upstream refused it.
    purged: Option<Instant>,
}

type Outcome = Result<Arc<Token>, NoToken>;
type Fetching = watch::Receiver<Option<Outcome>>;

/// A fetch that is under way, taken off when this is dropped.
struct Open(Arc<OwnToken>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.state().open = None;
    }
}

// === impl NoToken ===

impl fmt::Display for NoToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(why) = self;
        write!(f, "the gateway has no token for this upstream: {why}")
    }
}

// === impl Token ===

impl Token {
    /// One that was asked for at `asked` and came `now`.
    fn new(issued: Issued, asked: UnixSeconds, now: UnixSeconds) -> Result<Self, Failure> {
        let life = Life::of(issued.lifetime, asked, fastrand::f64());
        let life = life.filter(|life| life.is_good(now));
        Ok(Self {
            authorization: issued.authorization,
            life: life.ok_or_else(|| Failure::new("the token ends at once"))?,
            used: AtomicBool::new(false),
        })
    }

    /// Sends this token with a request, whatever was there.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.authorization.clone());
        // Written once: what is written is fetched anew by every worker.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

// === impl OwnToken ===

impl OwnToken {
    /// One for the upstream of this name. Nothing is asked for yet.
    pub fn new(
        upstream: &Arc<str>,
        asking: Asking,
        source: Source,
        clock: Clock,
        metrics: &Metrics,
    ) -> Self {
        let count = |result| {
            let all = &metrics.upstream_token_fetches_total;
            all.with_label_values(&[&**upstream, result])
        };
        Self {
            upstream: Arc::clone(upstream),
            asking,
            source,
            clock,
            counts: Counts {
                ok: count("ok"),
                error: count("error"),
            },
            current: ArcSwapOption::empty(),
            state: Mutex::default(),
        }
    }

    /// Whether it asks for the same, as the same client, in the same place.
    pub fn is_as(&self, asking: &Asking, source: &Source) -> bool {
        self.asking == *asking && self.source.is_as(source)
    }

    /// For people: what takes the place of the caller's token.
    pub fn describe(&self) -> String {
        let what = self.asking.describe();
        format!("the gateway's own token in place of the caller's: {what}")
    }

    /// The token to send now, if there is one. One that is to be renewed soon is asked for anew in
    /// the background.
    pub fn ready(self: &Arc<Self>) -> Option<Arc<Token>> {
        let now = self.clock.now();
        let token = self.good(now)?;
        if token.life.is_due(now)
            && let Ok(state) = self.state.try_lock()
        {
            // Why there is none is in the log.
            let _ = self.fetching(state);
        }
        Some(token)
    }

    /// The same, waiting for one until `deadline` at most, and never for longer than an issuer may
    /// take that is well.
    ///
    /// # Errors
    /// [`NoToken`] if the issuer gives none, or gave none a moment ago.
    pub async fn wait(self: &Arc<Self>, deadline: Option<Instant>) -> Result<Arc<Token>, NoToken> {
        let mut fetching = {
            let state = self.state();
            // Looked at once more: a fetch leaves its token before it leaves its place.
            if let Some(token) = self.good(self.clock.now()) {
                return Ok(token);
            }
            self.fetching(state)?
        };
        let patience = self.source.patience();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let patience = left.map_or(patience, |left| left.min(patience));
        let outcome = pingora_timeout::timeout(patience, fetching.wait_for(Option::is_some)).await;
        match outcome {
            Err(_) => Err(NoToken("the issuer has not answered in time".into())),
            // Only if its worker ends, or it panics, has a fetch no outcome.
            Ok(Err(_)) => Err(NoToken("the fetch was given up".into())),
            Ok(Ok(outcome)) => outcome
                .clone()
                .unwrap_or_else(|| Err(NoToken("the fetch was given up".into()))),
        }
    }

    /// The upstream has answered 401 to this token. It is not sent again, unless another one was
    /// taken out a moment ago: then it is not the token that displeases. Returns whether another
    /// token is worth a try.
    pub fn refused(&self, sent: &Arc<Token>) -> bool {
        let mut state = self.state();
        let is_current = |current: &Arc<Token>| Arc::ptr_eq(current, sent);
        if !self.current.load().as_ref().is_some_and(is_current) {
            // Somebody else was told before.
            return true;
        }
        let now = Instant::now();
        let lately = |purged: Instant| now.saturating_duration_since(purged) < BETWEEN_PURGES;
        if state.purged.is_some_and(lately) {
            return false;
        }
        state.purged = Some(now);
        self.current.store(None);
        drop(state);
        tracing::warn!(upstream = %self.upstream, "the upstream answers 401 to the gateway's own token, which is fetched anew");
        true
    }

    /// Whether this token of it may still be sent.
    pub fn is_good(&self, token: &Token) -> bool {
        token.life.is_good(self.clock.now())
    }

    fn good(&self, now: UnixSeconds) -> Option<Arc<Token>> {
        let current = self.current.load();
        let token = current.as_ref().filter(|token| token.life.is_good(now))?;
        Some(Arc::clone(token))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in there is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fetch that is under way, or a new one, which goes on if those who wait for it leave.
    fn fetching(self: &Arc<Self>, mut state: MutexGuard<'_, State>) -> Result<Fetching, NoToken> {
        if let Some(open) = &state.open {
            return Ok(open.clone());
        }
        if let Some((until, why)) = &state.paused
            && Instant::now() < *until
        {
            return Err(why.clone());
        }
        let (sender, fetching) = watch::channel(None);
        state.open = Some(fetching.clone());
        // A runtime that is being shut down drops what it is given to run, and that takes this lock.
        drop(state);
        let open = Open(Arc::clone(self));
        tokio::spawn(async move {
            let outcome = open.0.fetch().await;
            if let Ok(token) = &outcome {
                let (own, token) = (Arc::downgrade(&open.0), Arc::downgrade(token));
                tokio::spawn(keep(own, token));
            }
            drop(open);
            // Whoever asked may have gone.
            let _ = sender.send(Some(outcome));
        });
        Ok(fetching)
    }

    /// Asks the issuer once, and leaves what comes of it where all find it.
    async fn fetch(&self) -> Outcome {
        let asked = self.clock.now();
        let issued = self.source.ask(&self.asking).await;
        let token = issued.and_then(|issued| Token::new(issued, asked, self.clock.now()));
        let mut state = self.state();
        match token {
            Ok(token) => {
                let token = Arc::new(token);
                self.counts.ok.inc();
                if std::mem::take(&mut state.failures) > 0 {
                    tracing::info!(upstream = %self.upstream, "there is a token for the upstream again");
                }
                state.paused = None;
                self.current.store(Some(Arc::clone(&token)));
                Ok(token)
            }
            Err(failure) => {
                self.counts.error.inc();
                state.failures = state.failures.saturating_add(1);
                let asked_for = failure.wait.unwrap_or_default().min(LONGEST_WAIT);
                let pause = pause(state.failures).max(asked_for);
                let why = NoToken(failure.why.into());
                state.paused = Some((Instant::now() + pause, why.clone()));
                tracing::warn!(upstream = %self.upstream, issuer = %self.asking.issuer, cause = %why.0, next_try = ?pause, "no token for the upstream");
                Err(why)
            }
        }
    }

    /// How long there is no other fetch.
    fn pause_left(&self) -> Duration {
        let paused = self.state().paused.as_ref().map(|(until, _)| *until);
        paused.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }
}

/// Renews a token before it ends, if it is in use. Ends with it, and with the configuration that it
/// belongs to.
async fn keep(own: Weak<OwnToken>, token: Weak<Token>) {
    loop {
        let wait = {
            let (Some(own), Some(token)) = (own.upgrade(), token.upgrade()) else {
                return;
            };
            let now = own.clock.now();
            let is_current = |current: &Arc<Token>| Arc::ptr_eq(current, &token);
            if !own.current.load().as_ref().is_some_and(is_current) || !token.life.is_good(now) {
                return;
            }
            match token.life.until_due(now) {
                Some(wait) => wait,
                // The next request asks for another one while it is sent with this one.
                None if !token.used.load(Relaxed) => return,
                None => {
                    let fetching = own.fetching(own.state());
                    if let Ok(mut fetching) = fetching {
                        let done = fetching.wait_for(Option::is_some).await.map(drop);
                        // Given up or not: what is there now is looked at above.
                        drop(done);
                    }
                    own.pause_left().max(PAUSES.0)
                }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// How long to wait after so many failures in a row.
fn pause(failures: u32) -> Duration {
    let (least, most) = PAUSES;
    ExponentialBuilder::new()
        .with_min_delay(least)
        .with_max_delay(most)
        .without_max_times()
        .with_jitter()
        .with_jitter_seed(fastrand::u64(..))
        .build()
        .nth(failures.saturating_sub(1).min(16) as usize)
        .unwrap_or(most)
}

impl fmt::Debug for OwnToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnToken")
            .field("upstream", &self.upstream)
            .field("asking", &self.asking)
            .field("current", &self.current.load())
            .finish_non_exhaustive()
    }
}
