//! How much the simulated issuer gives away in a time: requests to an endpoint, and machine tokens to a client.
//!
//! Windows begin with the first request in them. The real issuer's quotas begin with the hour and the day of the clock,
//! which would make tests fail that run just then.

use std::collections::BTreeMap;
use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::fault::Endpoint;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const QUOTA_HEADER: HeaderName = HeaderName::from_static("auth0-client-quota-limit");

/// How many requests an endpoint takes, told in `x-ratelimit-limit`, `-remaining` and `-reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests in one window.
    pub limit: u64,
    /// How long a window lasts.
    pub window: Duration,
}

/// How many tokens a client gets by `client_credentials`, told in `Auth0-Client-Quota-Limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientQuota {
    /// Tokens an hour; `None` is without limit.
    pub per_hour: Option<u64>,
    /// Tokens a day; `None` is without limit.
    pub per_day: Option<u64>,
}

/// Everything that is counted against a limit.
#[derive(Default)]
pub(super) struct Meter {
    endpoints: BTreeMap<Endpoint, Window>,
    /// The windows of a client, by the name that the header gives them.
    clients: BTreeMap<String, Vec<(&'static str, Window)>>,
}

/// What to tell of a limit, kept or exceeded.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) headers: HeaderMap,
    pub(super) exceeded: bool,
}

struct Window {
    limit: u64,
    length: Duration,
    used: u64,
    /// Since 1970.
    ends: Duration,
}

// === impl RateLimit ===

impl RateLimit {
    /// So many requests that it is told, and not met by accident.
    pub const PLENTY: Self = Self {
        limit: 1_000_000,
        window: HOUR,
    };
}

// === impl Meter ===

impl Meter {
    pub(super) fn limit(&mut self, endpoint: Endpoint, limit: Option<RateLimit>) {
        match limit {
            Some(limit) => {
                let window = Window::new(limit.limit, limit.window);
                self.endpoints.insert(endpoint, window);
            }
            None => {
                self.endpoints.remove(&endpoint);
            }
        }
    }

    pub(super) fn quota(&mut self, client: &str, quota: Option<ClientQuota>) {
        let quota = quota.unwrap_or_default();
        let windows = [
            ("per_hour", quota.per_hour, HOUR),
            ("per_day", quota.per_day, DAY),
        ];
        let windows = windows
            .into_iter()
            .filter_map(|(name, limit, length)| Some((name, Window::new(limit?, length))));
        self.clients.insert(client.to_owned(), windows.collect());
    }

    /// Counts a request at `now`, since 1970; `None` where there is no limit.
    pub(super) fn request(&mut self, endpoint: Endpoint, now: Duration) -> Option<Told> {
        let window = self.endpoints.get_mut(&endpoint)?;
        window.begin(now);
        let exceeded = !window.free();
        if !exceeded {
            window.used += 1;
        }
        let mut headers = HeaderMap::new();
        let fields = [
            ("x-ratelimit-limit", window.limit),
            ("x-ratelimit-remaining", window.remaining()),
            ("x-ratelimit-reset", rounded_up(window.ends)),
        ];
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
        if exceeded {
            headers.insert(RETRY_AFTER, HeaderValue::from(window.left(now)));
        }
        Some(Told { headers, exceeded })
    }

    /// Takes a token from a client's quota at `now`, since 1970; none is taken unless all its windows have one.
    pub(super) fn token(&mut self, client: &str, now: Duration) -> Option<Told> {
        let windows = self.clients.get_mut(client)?;
        windows.iter_mut().for_each(|(_, window)| window.begin(now));
        let waits: Vec<_> = windows
            .iter()
            .filter(|(_, window)| !window.free())
            .map(|(_, window)| window.left(now))
            .collect();
        if waits.is_empty() {
            windows.iter_mut().for_each(|(_, window)| window.used += 1);
        }
        let told = windows.iter().map(|(name, window)| {
            let (q, r, t) = (window.limit, window.remaining(), window.left(now));
            format!("b={name};q={q};r={r};t={t}")
        });
        let told = told.collect::<Vec<_>>().join(",");
        let mut headers = HeaderMap::new();
        if let (false, Ok(value)) = (told.is_empty(), HeaderValue::try_from(told)) {
            headers.insert(QUOTA_HEADER, value);
        }
        if let Some(wait) = waits.iter().max() {
            headers.insert(RETRY_AFTER, HeaderValue::from(*wait));
        }
        Some(Told {
            headers,
            exceeded: !waits.is_empty(),
        })
    }
}

// === impl Window ===

impl Window {
    fn new(limit: u64, length: Duration) -> Self {
        Self {
            limit,
            length,
            used: 0,
            ends: Duration::ZERO,
        }
    }

    fn begin(&mut self, now: Duration) {
        if now >= self.ends {
            (self.used, self.ends) = (0, now + self.length);
        }
    }

    fn free(&self) -> bool {
        self.used < self.limit
    }

    fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// Seconds until it ends, at least one.
    fn left(&self, now: Duration) -> u64 {
        rounded_up(self.ends.saturating_sub(now)).max(1)
    }
}

/// Whole seconds.
fn rounded_up(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
