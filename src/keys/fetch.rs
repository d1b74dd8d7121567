//! Keeps a [`KeyStore`] fresh: the key set, refresh ahead of expiry, and backoff.

use super::discovery::discover;
use super::last_known_good::Keeper;
use super::store::seconds;
use super::{CacheFile, Endpoints, KeyPolicy, KeySet, KeyStore, jwks};
use crate::identity::Clock;
use crate::outbound::{Outbound, Reply};
use crate::telemetry::metrics::IssuerMetrics;
use backon::{BackoffBuilder, ExponentialBuilder};
use http::header::CACHE_CONTROL;
use http::{HeaderMap, Uri};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A key set or discovery document over this size is refused.
const MAX_DOCUMENT: usize = 1 << 20;

/// Discovery is asked again after this time, in case an endpoint has moved.
const DISCOVERY_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest pause after a failed attempt, before jitter makes it up to twice as long.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// What the fetcher needs to know of an issuer.
#[derive(Debug, Clone)]
pub struct Source {
    /// The configured name, for logs.
    pub name: Arc<str>,
    /// The exact `iss`.
    pub issuer: Box<str>,
    /// `jwks_uri` of the configuration; discovery is asked if it is absent.
    pub jwks: Option<Uri>,
    /// `token_endpoint` of the configuration.
    pub token: Option<Uri>,
    /// Whether someone needs the token endpoint, so that discovery is asked for it.
    pub needs_token_endpoint: bool,
    /// `introspection_endpoint` of the configuration.
    pub introspection: Option<Uri>,
    /// `authorization_endpoint` of the configuration.
    pub authorization: Option<Uri>,
    /// `userinfo_endpoint` of the configuration.
    pub userinfo: Option<Uri>,
    /// `revocation_endpoint` of the configuration.
    pub revocation: Option<Uri>,
    /// Whether its tokens are opaque: then no keys are fetched, and discovery is asked where to
    /// introspect if need be.
    pub opaque: bool,
    /// The client to fetch with.
    pub outbound: Outbound,
    /// Where fetches are counted.
    pub metrics: IssuerMetrics,
    /// What tells when keys were fetched.
    pub clock: Clock,
    /// Where the keys are kept over restarts, if anywhere.
    pub cache_file: Option<CacheFile>,
}

/// Why a fetch failed; for logs and `check --online`.
#[derive(Debug, PartialEq, Eq)]
pub struct FetchError {
    /// The document that could not be had.
    pub what: &'static str,
    /// What went wrong.
    pub why: String,
}

/// A fetched key set and how long it may be used without asking again.
#[derive(Debug)]
pub struct Fetched {
    /// The keys and the remarks on those left out.
    pub parsed: jwks::Parsed,
    /// From `Cache-Control: max-age`, if there is one.
    pub max_age: Option<Duration>,
}

/// Fetches the keys of an issuer into its store, once; of one whose tokens are opaque, its endpoints.
/// Keys of `cache_file` are there even if that fails.
///
/// # Errors
/// The document that could not be had, and why.
pub async fn once(source: Source, store: Arc<KeyStore>) -> Result<(), FetchError> {
    let mut fetcher = Fetcher::new(source, store);
    if fetcher.source.opaque {
        return fetcher.endpoints().await.map(drop);
    }
    fetcher.recall().await;
    // An attempt like any other: it answers who has asked for one already.
    fetcher.store.attempt_begun();
    let outcome = fetcher.refresh().await;
    fetcher.store.attempt_finished(outcome.is_ok());
    outcome.map(drop)
}

/// Fetches whenever a request asks for it, and only then; runs until it is dropped. For who decides
/// about a single request.
pub async fn on_demand(source: Source, store: Arc<KeyStore>) {
    let mut fetcher = Fetcher::new(source, store);
    loop {
        fetcher.store.demanded().await;
        fetcher.store.attempt_begun();
        let good = fetcher.refresh().await.is_ok();
        fetcher.store.attempt_finished(good);
    }
}

/// The fetch loop of one issuer; runs until it is dropped. A store without keys begins with those
/// that were kept over the restart, if there are any.
pub async fn run(source: Source, store: Arc<KeyStore>) {
    if source.opaque {
        return find_endpoints(source, store).await;
    }
    let mut fetcher = Fetcher::new(source, store);
    fetcher.recall().await;
    let mut backoff = backoff();
    loop {
        fetcher.store.attempt_begun();
        let outcome = fetcher.refresh().await;
        fetcher.store.attempt_finished(outcome.is_ok());
        let pause = match outcome {
            Ok((keys, ttl)) => {
                fetcher.keeper.keep(keys);
                backoff = self::backoff();
                ahead(ttl)
            }
            Err(error) => {
                fetcher.failed(&error);
                backoff.next().unwrap_or(MAX_BACKOFF)
            }
        };
        // A request with an unknown key id brings the next attempt forward; the store keeps the
        // cool-down.
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = fetcher.store.demanded() => {}
        }
    }
}

/// The same for an issuer of opaque tokens: nothing but its endpoints is needed.
async fn find_endpoints(source: Source, store: Arc<KeyStore>) {
    let mut backoff = backoff();
    loop {
        let pause = match discover(&source).await {
            Ok(endpoints) => {
                store.set_endpoints(endpoints);
                backoff = self::backoff();
                ahead(DISCOVERY_TTL)
            }
            Err(error) => {
                tracing::warn!(issuer = %source.name, document = error.what, error = %error.why, "not fetched; the endpoints known so far stay in use");
                backoff.next().unwrap_or(MAX_BACKOFF)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Fetcher {
    source: Source,
    store: Arc<KeyStore>,
    /// When discovery last succeeded.
    discovered: Option<Instant>,
    keeper: Keeper,
}

impl Fetcher {
    fn new(source: Source, store: Arc<KeyStore>) -> Self {
        Self {
            keeper: Keeper::new(Arc::clone(&source.name), source.cache_file.clone()),
            source,
            store,
            discovered: None,
        }
    }

    /// Takes kept keys into an empty store: better than none until the issuer answers.
    async fn recall(&self) {
        let now = self.source.clock.now();
        if let Some(set) = self.keeper.recall(&self.store, now).await {
            let metrics = &self.source.metrics;
            metrics.keys_known(set.len(), set.fetched_at, set.fresh_until);
        }
    }

    async fn refresh(&mut self) -> Result<(Arc<KeySet>, Duration), FetchError> {
        let endpoints = self.endpoints().await?;
        let fetched = fetch_keys(&self.source, endpoints.key_set()?).await?;
        for remark in &fetched.parsed.dropped {
            tracing::warn!(issuer = %self.source.name, "{remark}");
        }
        let ttl = ttl(self.store.policy(), fetched.max_age);
        let mut set = fetched.parsed.set;
        set.fresh_until = set.fetched_at.saturating_add(seconds(ttl));
        let keys = set.len();
        let metrics = &self.source.metrics;
        metrics.keys_fetched(keys, set.fetched_at, set.fresh_until);
        tracing::debug!(issuer = %self.source.name, keys, fresh_seconds = ttl.as_secs(), "keys fetched");
        Ok((self.store.replace(set), ttl))
    }

    /// The endpoints: as configured, else from discovery, which is asked anew now and then.
    async fn endpoints(&mut self) -> Result<Arc<Endpoints>, FetchError> {
        let fresh = self
            .discovered
            .is_some_and(|at| at.elapsed() < DISCOVERY_TTL);
        if let Some(known) = self.store.endpoints().filter(|_| fresh) {
            return Ok(known);
        }
        let endpoints = match (discover(&self.source).await, self.store.endpoints()) {
            (Ok(endpoints), _) => endpoints,
            (Err(error), None) => return Err(error),
            (Err(error), Some(known)) => {
                // Keys can be had without discovery as long as they are where they were.
                tracing::warn!(issuer = %self.source.name, document = error.what, error = %error.why, "not fetched; the endpoints known so far stay in use");
                return Ok(known);
            }
        };
        self.discovered = Some(Instant::now());
        self.store.set_endpoints(endpoints.clone());
        Ok(Arc::new(endpoints))
    }

    fn failed(&mut self, error: &FetchError) {
        // The next attempt asks discovery again: the endpoint may have moved.
        self.discovered = None;
        self.source.metrics.keys_failed();
        tracing::warn!(issuer = %self.source.name, document = error.what, error = %error.why, "keys not fetched; the ones at hand stay in use");
    }
}

/// Fetches and parses a key set.
///
/// # Errors
/// If it cannot be had, or has no usable key.
pub async fn fetch_keys(source: &Source, uri: &Uri) -> Result<Fetched, FetchError> {
    let wrong = |why: String| FetchError {
        what: "key set",
        why,
    };
    let reply = get(&source.outbound, uri).await.map_err(wrong)?;
    let mut parsed =
        jwks::parse(&reply.body, source.clock.now()).map_err(|error| wrong(error.to_string()))?;
    parsed.set.sent = Some(reply.body);
    Ok(Fetched {
        parsed,
        max_age: max_age(&reply.headers),
    })
}

pub(super) async fn get(outbound: &Outbound, uri: &Uri) -> Result<Reply, String> {
    let reply = outbound
        .get(uri, "application/json", MAX_DOCUMENT)
        .await
        .map_err(|error| error.to_string())?;
    if reply.status != http::StatusCode::OK {
        return Err(format!("{uri} answers {}", reply.status));
    }
    Ok(reply)
}

/// How long keys are fresh: what the issuer says, within what the configuration allows.
fn ttl(policy: &KeyPolicy, max_age: Option<Duration>) -> Duration {
    max_age
        .unwrap_or(policy.ttl)
        .clamp(policy.min_ttl, policy.max_ttl.max(policy.min_ttl))
}

/// Refresh a little ahead of expiry, not all gateways at once.
fn ahead(ttl: Duration) -> Duration {
    ttl.mul_f64(0.8 + 0.15 * fastrand::f64())
        .max(Duration::from_secs(1))
}

fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(MAX_BACKOFF)
        .with_jitter()
        .without_max_times()
        .build()
}

fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(CACHE_CONTROL)?.to_str().ok()?;
    value.split(',').map(str::trim).find_map(|directive| {
        if directive.eq_ignore_ascii_case("no-store") || directive.eq_ignore_ascii_case("no-cache")
        {
            return Some(Duration::ZERO);
        }
        let (name, seconds) = directive.split_once('=')?;
        name.eq_ignore_ascii_case("max-age").then_some(())?;
        seconds
            .trim_matches('"')
            .parse()
            .ok()
            .map(Duration::from_secs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness() {
        let seconds = Duration::from_secs;
        let policy = KeyPolicy {
            ttl: seconds(600),
            min_ttl: seconds(60),
            max_ttl: seconds(3600),
            max_stale: seconds(0),
            cooldown: seconds(0),
            patience: seconds(0),
        };
        for (value, expected) in [
            (None, 600),
            (Some("public, max-age=15"), 60),
            (Some("public, max-age=900, stale-while-revalidate=9"), 900),
            (Some("MAX-AGE=\"1200\""), 1200),
            (Some("max-age=999999"), 3600),
            (Some("no-store, max-age=900"), 60),
            (Some("max-age=soon"), 600),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(CACHE_CONTROL, value.parse().expect("a value"));
            }
            assert_eq!(
                ttl(&policy, max_age(&headers)),
                seconds(expected),
                "{value:?}"
            );
        }
        for _ in 0..100 {
            let pause = ahead(seconds(100));
            assert!(pause >= seconds(80) && pause <= seconds(95), "{pause:?}");
        }
    }
}
