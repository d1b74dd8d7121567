//! Refreshes of one token wait for each other, and equal ones are one: `[oauth.*] refresh_window`.
//!
//! ```text
//! given a moment ago to an equal request? ─► that answer
//!    │ no
//! is the token being exchanged? ─► by an equal request: its answer
//!    │ no                          by another one: once that has ended, from the top
//!    ▼
//! one exchange, which goes on if those who wait leave
//! ```
//!
//! Where refresh tokens are good once, the second use of one ends its whole family: two tabs that
//! refresh at a time, or a client that has lost the answer and asks again, would log their user out.
//! So nothing here sends a token twice by itself, and who does is judged by the issuer, after the one
//! before him. Equal requests (`oauth::key`) prove the same client in the same way.

mod given;
#[cfg(test)]
mod tests;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

use self::given::Given;
use super::client::TokenIssuer;
use super::errors::OAuthError;
use super::grant::Grant;
use super::key::{Key, Keys};
use super::reply::Outcome;
use super::reuse::as_reused;
use super::token::{Answer, Forward, ask};
use crate::identity::{DigestHasher, TokenDigest};

/// Tokens that are exchanged at a time. Each is an exchange that outlives its client, up to the
/// issuer's `timeout`; one more is refused rather than sent out of turn.
const MAX_OPEN: usize = 4096;

/// Bytes of the answers that are kept.
const MAX_BYTES: u64 = 32 << 20;

/// What one surface knows of refreshes. Has no telling `Debug`: it holds tokens.
pub struct Refresh {
    surface: Arc<str>,
    window: Duration,
    keys: Keys,
    /// The last answer to each refresh token. Only who has a good one gets something in here.
    given: Cache<Key, Arc<Given>, DigestHasher>,
    /// By refresh token.
    open: Mutex<HashMap<Key, Turn, DigestHasher>>,
}

/// A refresh token that is being exchanged.
struct Turn {
    /// The request that exchanges it.
    asked: Asked,
    /// For all who wait for its end.
    question: Question,
}

/// A refresh.
#[derive(Clone)]
struct Asked {
    /// Its refresh token, to find others of the same.
    of: Key,
    /// The same, to find it when that is revoked.
    token: TokenDigest,
    /// All that shapes its answer; none if nobody may share that.
    request: Option<Key>,
    /// Whether its token has been revoked meanwhile.
    forgotten: Arc<AtomicBool>,
}

/// An exchange that is open.
type Question = watch::Receiver<Option<Shared>>;

/// What came of an exchange. Has no `Debug`: it holds tokens.
#[derive(Clone)]
struct Shared(Answer);

/// What a refresh does.
enum Place {
    /// An equal one was answered a moment ago.
    Known(Answer),
    /// It asks, for itself and for all equal ones.
    First(Question),
    /// An equal one has asked.
    Joined(Question),
    /// Another one with the same token has asked.
    Behind(Question),
    /// Too many have asked.
    Crowded,
}

/// An open exchange, taken off the list when this is dropped.
struct Open {
    of: Arc<Refresh>,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.of.open().remove(&self.key);
    }
}

// === impl Refresh ===

impl Refresh {
    /// Nothing is known yet. Answers are given again for `window`; if that is zero, equal requests
    /// wait for each other like any others.
    ///
    /// # Errors
    /// If the system gives no random numbers for the secret of the keys.
    pub fn new(surface: &Arc<str>, window: Duration) -> io::Result<Self> {
        let given = Cache::builder()
            .max_capacity(MAX_BYTES)
            // A new answer is always taken, whoever has filled it before.
            .eviction_policy(EvictionPolicy::lru())
            .weigher(|_, given: &Arc<Given>| given.weight())
            .time_to_live(window);
        Ok(Self {
            surface: Arc::clone(surface),
            window,
            keys: Keys::new()?,
            given: given.build_with_hasher(DigestHasher::default()),
            open: Mutex::default(),
        })
    }

    /// The surface that it belongs to.
    pub fn surface(&self) -> &str {
        &self.surface
    }

    /// How long an answer is given again.
    pub fn window(&self) -> Duration {
        self.window
    }

    /// Forgets what was given for this refresh token, and answers that hold this token, so that they
    /// are given to nobody again; whether there was anything. An exchange that is open is neither kept
    /// nor joined any more. To be called before a revocation is acknowledged. Looks at every entry.
    ///
    /// `token` is the digest of the whole token, or of what the signature of a JWT covers.
    pub fn forget(&self, token: &TokenDigest) -> bool {
        // First those on their way, then those that have arrived: none gets past in between.
        let mut found = false;
        for turn in self.open().values().filter(|it| it.asked.token == *token) {
            turn.asked.forgotten.store(true, SeqCst);
            found = true;
        }
        let holding = self.given.iter().filter(|(_, given)| given.holds(token));
        // Not while walking through them.
        let keys: Vec<Arc<Key>> = holding.map(|(key, _)| key).collect();
        keys.iter().for_each(|key| self.given.invalidate(&**key));
        found || !keys.is_empty()
    }

    /// Forgets everything; exchanges that are open are neither kept nor joined any more.
    pub fn forget_all(&self) {
        for turn in self.open().values() {
            turn.asked.forgotten.store(true, SeqCst);
        }
        self.given.invalidate_all();
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Key, Turn, DigestHasher>> {
        // Nothing in there is ever half done.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a refresh: with what an equal one was given, or by asking the issuer when nobody else
    /// asks about the same token. What was sent is never sent again, whatever came of it.
    pub(super) async fn answer(
        self: &Arc<Self>,
        issuer: &TokenIssuer,
        forward: &Forward,
    ) -> Answer {
        let asked = self.asked(issuer, forward)?;
        loop {
            // Only if its worker ends, or it panics, has an exchange no answer: it may have been sent.
            match self.place(&asked, issuer, forward) {
                Place::Known(answer) => return answer,
                Place::First(question) => return outcome(question).await,
                Place::Joined(question) => return outcome(question).await.map(as_reused),
                Place::Behind(mut question) => {
                    // However it ends, it is over.
                    let _ = question.wait_for(Option::is_some).await;
                }
                Place::Crowded => return Err(OAuthError::TooManyOpen),
            }
        }
    }

    fn asked(&self, issuer: &TokenIssuer, forward: &Forward) -> Result<Asked, OAuthError> {
        let name = "refresh_token";
        let token = forward.params.get(name);
        let token = token.ok_or(OAuthError::MissingParameter(name))?;
        let shared = !self.window.is_zero();
        let request = shared.then(|| self.keys.of(&issuer.token_endpoint, forward));
        Ok(Asked {
            of: self.keys.of_secret(token),
            token: TokenDigest::of(token.expose()),
            request: request.flatten(),
            forgotten: Arc::default(),
        })
    }

    fn place(self: &Arc<Self>, asked: &Asked, issuer: &TokenIssuer, forward: &Forward) -> Place {
        let mut open = self.open();
        if let Some(turn) = open.get(&asked.of) {
            let question = turn.question.clone();
            return match asked.shares(&turn.asked) {
                true => Place::Joined(question),
                false => Place::Behind(question),
            };
        }
        // An exchange leaves its answer before it leaves the list: who finds neither is the first.
        if let Some(given) = self.given.get(&asked.of)
            && let Some(response) = given.to(asked.request)
        {
            return Place::Known(Ok((response, Outcome::Reused)));
        }
        if open.len() >= MAX_OPEN {
            tracing::warn!(surface = %self.surface, open = MAX_OPEN, "a refresh is refused: too many are open");
            return Place::Crowded;
        }
        let (sender, question) = watch::channel(None);
        let turn = Turn {
            asked: asked.clone(),
            question: question.clone(),
        };
        open.insert(asked.of, turn);
        drop(open);
        self.exchange(asked.clone(), issuer, forward, sender);
        Place::First(question)
    }

    /// Asks the issuer, in a task of its own: the token is spent even if nobody waits any more, and
    /// whoever asks again within the window gets what it was spent for.
    fn exchange(
        self: &Arc<Self>,
        asked: Asked,
        issuer: &TokenIssuer,
        forward: &Forward,
        sender: watch::Sender<Option<Shared>>,
    ) {
        let entry = Open {
            of: Arc::clone(self),
            key: asked.of,
        };
        let (issuer, headers) = (issuer.clone(), forward.headers.clone());
        let form = forward.params.to_form();
        tokio::spawn(async move {
            let of = &entry.of;
            let answer = ask(&of.surface, Grant::RefreshToken, &issuer, headers, form).await;
            of.keep(&asked, &answer);
            drop(entry);
            // Whoever asked may have gone.
            let _ = sender.send(Some(Shared(answer)));
        });
    }

    /// Keeps an answer for its window, if it holds tokens and may be shared. What failed is over with
    /// those who have waited for it.
    fn keep(&self, asked: &Asked, answer: &Answer) {
        let (Some(request), Ok((response, Outcome::Issued))) = (asked.request, answer) else {
            return;
        };
        let Some(given) = Given::of(request, asked.token, response) else {
            return;
        };
        self.given.insert(asked.of, Arc::new(given));
        // In this order: either it is seen here that it was to be forgotten, or it was forgotten.
        if asked.forgotten.load(SeqCst) {
            self.given.invalidate(&asked.of);
        }
    }
}

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refresh")
            .field("surface", &self.surface)
            .field("window", &self.window)
            .field("given", &self.given.entry_count())
            .finish_non_exhaustive()
    }
}

// === impl Asked ===

impl Asked {
    /// Whether it gets the answer to `earlier`.
    fn shares(&self, earlier: &Self) -> bool {
        let equal = self.request.is_some() && self.request == earlier.request;
        equal && !earlier.forgotten.load(SeqCst)
    }
}

/// Waits for what comes of an exchange.
async fn outcome(mut question: Question) -> Answer {
    let outcome = question.wait_for(Option::is_some).await;
    let shared = outcome.ok().and_then(|outcome| outcome.clone());
    shared.map_or(Err(OAuthError::IssuerCut), |Shared(answer)| answer)
}
