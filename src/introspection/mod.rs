//! Tokens that say nothing by themselves: their issuer is asked what they are worth (RFC 7662).
//!
//! [`Introspection`] asks. Requests that bring the same token at the same time share one question,
//! which goes on if they go away, and is put once. What is made of an answer, and how long that is
//! remembered, is the caller's to say; it is done before the question ends, so that a request that
//! comes too late to share a question finds what came of it.
//!
//! An issuer that cannot be asked is never taken for one that says no. No failure is remembered
//! with its token; but after a connection could not be made, none is tried for a second, whatever
//! the token: a dead endpoint is not hammered, and nobody can bring that pause about with a token
//! of his own choice.
//!
//! Anybody can send tokens that nobody knows. Questions about those take up half of the places at
//! most; the others are for tokens that were good when they were last asked about.

mod reply;
#[cfg(test)]
mod tests;

pub use reply::Reply;

use crate::identity::{DigestHasher, TokenDigest};
use crate::keys::KeyStore;
use crate::outbound::{Outbound, OutboundError};
use crate::rejection::{Reason, Rejection};
use crate::telemetry::metrics::IssuerMetrics;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Uri};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

/// An answer over this size is refused.
const MAX_REPLY: usize = 64 << 10;

/// Questions on their way to one issuer at a time.
const MAX_ASKED: usize = 64;

/// Questions to one issuer that are open at a time, those that wait for their turn included.
const MAX_OPEN: usize = 1024;

/// Of both, what questions about unknown tokens may take up.
const FOR_STRANGERS: usize = 2;

/// How long nothing is asked after a connection could not be made.
const PAUSE: Duration = Duration::from_secs(1);

/// How an issuer is asked: the endpoint and who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// `introspection_endpoint` of the configuration; what discovery says if it is absent.
    pub endpoint: Option<Uri>,
    /// The gateway's credential, from [`basic`]; sensitive.
    pub authorization: HeaderValue,
    /// For one question, its turn waited for included.
    pub timeout: Duration,
}

/// Who brings a token, as far as one can tell before its issuer is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Somebody whose token was good when it was last asked about.
    Known,
    /// Anybody.
    Stranger,
}

/// Asks one issuer about its tokens. `V` is what the caller makes of an answer.
pub struct Introspection<V> {
    asking: Asking,
    /// Has the endpoint that discovery found.
    keys: Arc<KeyStore>,
    outbound: Outbound,
    metrics: IssuerMetrics,
    state: Mutex<State<V>>,
    places: Semaphore,
    /// How many of the places may be taken or waited for by questions about unknown tokens.
    strangers: Semaphore,
}

struct State<V> {
    open: HashMap<TokenDigest, watch::Receiver<Option<Outcome<V>>>, DigestHasher>,
    /// How many of them are about unknown tokens.
    strangers: usize,
    /// No connection could be made; until then nothing is asked.
    paused: Option<Instant>,
}

/// What came of a question; the error is for the log.
type Outcome<V> = Result<V, Arc<str>>;

/// An open question, taken off the list when this is dropped.
struct Open<V> {
    by: Arc<Introspection<V>>,
    digest: TokenDigest,
    caller: Caller,
}

impl<V> Drop for Open<V> {
    fn drop(&mut self) {
        let mut state = self.by.state();
        state.open.remove(&self.digest);
        if self.caller == Caller::Stranger {
            state.strangers = state.strangers.saturating_sub(1);
        }
    }
}

/// The value of an `Authorization` header with these credentials, form-encoded (RFC 6749 §2.3.1).
pub fn basic(id: &str, secret: &str) -> HeaderValue {
    let encode = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
    // Base64 is always a header value.
    let mut value = HeaderValue::try_from(format!("Basic {pair}"))
        .unwrap_or_else(|_| HeaderValue::from_static("Basic"));
    value.set_sensitive(true);
    value
}

// === impl Introspection ===

impl<V> fmt::Debug for Introspection<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Introspection")
            .field("asking", &self.asking)
            .field("open", &self.state().open.len())
            .finish_non_exhaustive()
    }
}

impl<V> Introspection<V> {
    /// One that has not asked anything yet. `keys` is where discovery puts the endpoint.
    pub fn new(
        asking: Asking,
        keys: Arc<KeyStore>,
        outbound: Outbound,
        metrics: IssuerMetrics,
    ) -> Self {
        Self {
            asking,
            keys,
            outbound,
            metrics,
            state: Mutex::new(State {
                open: HashMap::default(),
                strangers: 0,
                paused: None,
            }),
            places: Semaphore::new(MAX_ASKED),
            strangers: Semaphore::new(MAX_ASKED / FOR_STRANGERS),
        }
    }

    /// How it asks.
    pub fn asking(&self) -> &Asking {
        &self.asking
    }

    /// Where it asks. `None` if discovery has yet to find that.
    pub fn endpoint(&self) -> Option<Uri> {
        let found = || self.keys.endpoints()?.introspection.clone();
        self.asking.endpoint.clone().or_else(found)
    }

    fn state(&self) -> MutexGuard<'_, State<V>> {
        // Nothing in there is ever half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<V: Clone + Send + Sync + 'static> Introspection<V> {
    /// Asks about a token, or joins whoever is asking about it already. `judge` makes something of
    /// the answer, once for all who joined.
    ///
    /// # Errors
    /// [`Reason::KeysUnavailable`] if the issuer could not be asked: nothing is known of the token. Who
    /// refuses a request for that counts it.
    pub async fn ask(
        self: &Arc<Self>,
        token: Box<str>,
        digest: TokenDigest,
        caller: Caller,
        judge: impl FnOnce(Reply) -> V + Send + 'static,
    ) -> Result<V, Rejection> {
        let outcome = match self.open(token, digest, caller, judge) {
            Ok(mut question) => match question.wait_for(Option::is_some).await {
                Ok(outcome) => outcome.clone(),
                Err(_) => None,
            },
            Err(why) => Some(Err(why.into())),
        };
        // A question without an outcome is one whose worker ended, or panicked.
        let outcome = outcome.unwrap_or_else(|| Err("the question was given up".into()));
        outcome.map_err(|why| {
            let note = format!("the issuer cannot be asked about the token: {why}");
            Rejection::noted(Reason::KeysUnavailable, note)
        })
    }

    /// The question about this token: the one that is open, or a new one, which runs by itself.
    fn open(
        self: &Arc<Self>,
        token: Box<str>,
        digest: TokenDigest,
        caller: Caller,
        judge: impl FnOnce(Reply) -> V + Send + 'static,
    ) -> Result<watch::Receiver<Option<Outcome<V>>>, &'static str> {
        let mut state = self.state();
        if let Some(question) = state.open.get(&digest) {
            return Ok(question.clone());
        }
        if state.paused.is_some_and(|until| Instant::now() < until) {
            return Err("no connection could be made a moment ago");
        }
        if state.open.len() >= MAX_OPEN {
            return Err("too many questions are open");
        }
        if caller == Caller::Stranger {
            if state.strangers >= MAX_OPEN / FOR_STRANGERS {
                return Err("too many questions about unknown tokens are open");
            }
            state.strangers += 1;
        }
        let (sender, question) = watch::channel(None);
        state.open.insert(digest, question.clone());
        drop(state);
        let open = Open {
            by: Arc::clone(self),
            digest,
            caller,
        };
        tokio::spawn(async move {
            let reply = open.by.question(&token, caller).await;
            let result = reply.as_ref().map_or("error", Reply::result);
            open.by.metrics.introspected(result);
            // In this order: who comes from now on finds what was made of the answer.
            let outcome = reply.map(judge).map_err(Arc::from);
            drop(open);
            // Whoever asked may have gone.
            let _ = sender.send(Some(outcome));
        });
        Ok(question)
    }

    /// Puts one question, once.
    async fn question(&self, token: &str, caller: Caller) -> Result<Reply, String> {
        let endpoint = self.endpoint();
        let endpoint = endpoint.ok_or("its introspection_endpoint is not known yet")?;
        let asked = async {
            // In this order: strangers never wait for a place in front of who is known. Neither
            // semaphore is ever closed.
            let _share = match caller {
                Caller::Stranger => self.strangers.acquire().await.ok(),
                Caller::Known => None,
            };
            let _place = self.places.acquire().await;
            let (headers, body) = (self.headers(), form(token));
            self.outbound
                .post_form(&endpoint, headers, body, MAX_REPLY)
                .await
        };
        let reply = tokio::time::timeout(self.asking.timeout, asked).await;
        let reply = reply.map_err(|_| "it took too long, or too many questions were waiting")?;
        if matches!(reply, Err(OutboundError::Connect { .. })) {
            self.state().paused = Some(Instant::now() + PAUSE);
        }
        reply::read(&reply.map_err(|error| error.to_string())?)
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, self.asking.authorization.clone());
        headers
    }
}

/// The parameters of a question (RFC 7662 §2.1).
fn form(token: &str) -> Bytes {
    form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token)
        .append_pair("token_type_hint", "access_token")
        .finish()
        .into()
}
