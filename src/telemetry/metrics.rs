//! All metrics, declared once. The doc comment of a field is its help text.
//!
//! Labels are bounded: routes, upstreams, issuers and surfaces come from the configuration, methods
//! and reasons from fixed lists. What a request needs is resolved when a snapshot is built
//! ([`RouteMetrics`] and its like), so that the hot path only adds to atomics.

use crate::rejection::Reason;
use http::{Method, StatusCode};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};
use std::sync::{Arc, OnceLock};

/// Upper bounds in seconds: from well under a cached hop to the longest sensible wait.
const BUCKETS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ident [$($label:literal),*],)+) => {
        /// Every metric of the gateway, with the registry that exposes it.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: $kind,)+
        }

        impl Metrics {
            fn declare(registry: Registry) -> prometheus::Result<Self> {
                Ok(Self {
                    $($field: {
                        let help = concat!($($help),+).trim();
                        let metric = <$kind as Declare>::declare(stringify!($field), help, &[$($label),*])?;
                        registry.register(Box::new(metric.clone()))?;
                        metric
                    },)+
                    registry,
                })
            }
        }
    };
}

metrics! {
    /// Requests answered, by route, method and status.
    requests_total: IntCounterVec ["route", "method", "code"],
    /// Seconds from the head of a request to the end of its response.
    request_duration_seconds: HistogramVec ["route"],
    /// Seconds from sending a request upstream to the head of the response.
    upstream_request_duration_seconds: HistogramVec ["upstream"],
    /// Requests sent to an upstream once more, by outcome: success, failure, or budget (not sent, too many were already).
    upstream_retries_total: IntCounterVec ["upstream", "outcome"],
    /// Fetches of the gateway's own token for an upstream, by result (ok or error).
    upstream_token_fetches_total: IntCounterVec ["upstream", "result"],
    /// Whether a server gets requests (1), or is out because of failed health checks or failed requests (0).
    upstream_server_healthy: IntGaugeVec ["upstream", "server"],
    /// Requests being worked on.
    requests_in_flight: IntGauge [],
    /// Open connections from clients.
    connections: IntGaugeVec ["listener"],
    /// Connections closed before their first request, by listener and reason: max_connections, max_connections_per_address, or proxy_header (bad, late, or from somebody who is not trusted to send one).
    connections_refused_total: IntCounterVec ["listener", "reason"],
    /// Failures to accept a connection, nearly always for want of file descriptors.
    accept_errors_total: IntCounterVec ["listener"],
    /// Tokens judged, by issuer, outcome (accepted or refused) and reason.
    auth_decisions_total: IntCounterVec ["issuer", "outcome", "reason"],
    /// Requests refused, by route and reason.
    rejections_total: IntCounterVec ["route", "reason"],
    /// Tokens looked up among those seen before, by result: hit (verified), refused (remembered as such) or miss.
    verified_token_cache_requests_total: IntCounterVec ["result"],
    /// Fetches of an issuer's keys, by result (ok or error).
    jwks_fetches_total: IntCounterVec ["issuer", "result"],
    /// Unix time of the last good fetch of an issuer's keys.
    jwks_last_success_timestamp_seconds: IntGaugeVec ["issuer"],
    /// Unix time until which an issuer's keys are fresh; in the past only if they could not be fetched again.
    jwks_fresh_until_timestamp_seconds: IntGaugeVec ["issuer"],
    /// Usable keys of an issuer.
    jwks_keys: IntGaugeVec ["issuer"],
    /// Questions to an issuer about an opaque token, by result (active, inactive or error).
    introspections_total: IntCounterVec ["issuer", "result"],
    /// Requests to the OAuth surface, by endpoint, grant and outcome.
    oauth_requests_total: IntCounterVec ["surface", "endpoint", "grant", "outcome"],
    /// Seconds that a request to the OAuth surface took, the issuer included.
    oauth_request_duration_seconds: HistogramVec ["surface", "endpoint"],
    /// Requests for tokens that may be reused, by result: hit, miss, coalesced (shared the answer to somebody else's equal request), or refused (the issuer had refused an equal one a moment ago).
    oauth_cache_requests_total: IntCounterVec ["surface", "result"],
    /// What an issuer's last reply left of a quota, by bucket.
    issuer_quota_remaining: IntGaugeVec ["issuer", "bucket"],
    /// The whole of that quota.
    issuer_quota_limit: IntGaugeVec ["issuer", "bucket"],
    /// Spans that the collector of `[telemetry]` has taken.
    trace_spans_exported_total: IntCounter [],
    /// Spans that were dropped, because the queue was full or the collector did not take them.
    trace_spans_dropped_total: IntCounter [],
    /// Requests refused because their caller has asked too often, by route.
    rate_limited_total: IntCounterVec ["route"],
    /// Questions to the shared store, by operation and result: ok, error, timeout, or away (not asked, because it did not answer a moment ago).
    store_requests_total: IntCounterVec ["operation", "result"],
    /// Whether the shared store answers (1) or not (0); absent where no store is configured.
    store_up: IntGaugeVec [],
    /// Revocations in force, as this gateway knows them.
    revocations: IntGauge [],
    /// Unix time at which all revocations in the shared store were last known here; absent where no store is configured.
    revocations_last_sync_timestamp_seconds: IntGaugeVec [],
    /// Whether the last reload of the configuration succeeded (1) or failed (0).
    config_last_reload_successful: IntGauge [],
    /// Unix time of the last successful reload of the configuration.
    config_last_reload_success_timestamp_seconds: Gauge [],
    /// TLS handshakes with clients, by result (full, resumed, failed, timeout or plain_http).
    tls_handshakes_total: IntCounterVec ["result"],
    /// Unix time at which the certificate in a file expires; of several authorities, the first to do so.
    tls_certificate_expiry_timestamp_seconds: IntGaugeVec ["file"],
    /// Always 1; the labels say what is running.
    build_info: GaugeVec ["version", "revision"],
}

/// How a kind of metric is made.
trait Declare: Sized + Collector + Clone {
    fn declare(name: &str, help: &str, labels: &[&str]) -> prometheus::Result<Self>;
}

macro_rules! declare {
    ($($kind:ident: |$opts:ident, $labels:ident| $make:expr;)+) => {
        $(impl Declare for $kind {
            fn declare(name: &str, help: &str, $labels: &[&str]) -> prometheus::Result<Self> {
                let $opts = Opts::new(name, help).namespace("gateway");
                $make
            }
        })+
    };
}

declare! {
    IntCounterVec: |opts, labels| Self::new(opts, labels);
    IntGaugeVec: |opts, labels| Self::new(opts, labels);
    GaugeVec: |opts, labels| Self::new(opts, labels);
    IntGauge: |opts, _labels| Self::with_opts(opts);
    IntCounter: |opts, _labels| Self::with_opts(opts);
    Gauge: |opts, _labels| Self::with_opts(opts);
    HistogramVec: |opts, labels| Self::new(HistogramOpts::from(opts).buckets(BUCKETS.to_vec()), labels);
}

/// The metrics of one route, resolved once.
#[derive(Debug)]
pub struct RouteMetrics {
    all: Arc<Metrics>,
    name: Arc<str>,
    /// Seconds per request.
    pub duration: Histogram,
    requests: [OnceLock<Box<CodeTable>>; METHODS.len() + 1],
    rejections: [OnceLock<IntCounter>; Reason::COUNT],
}

/// A counter for each status from 100 to 599.
type CodeTable = [OnceLock<IntCounter>; 500];

/// Methods that have a label of their own; any other counts as `other`.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

/// The metrics of one issuer.
#[derive(Debug, Clone)]
pub struct IssuerMetrics {
    all: Arc<Metrics>,
    name: Arc<str>,
    /// Tokens accepted.
    pub accepted: IntCounter,
}

/// The metrics of the cache of verified tokens.
#[derive(Debug, Clone)]
pub struct TokenCacheMetrics {
    /// Tokens recognised.
    pub hit: IntCounter,
    /// Tokens whose refusal was remembered.
    pub refused: IntCounter,
    /// Tokens that had to be judged anew.
    pub miss: IntCounter,
}

/// The metrics of one operation of the shared store.
#[derive(Debug, Clone)]
pub struct StoreMetrics {
    /// Answered.
    pub ok: IntCounter,
    /// Failed.
    pub error: IntCounter,
    /// Not answered in time.
    pub timeout: IntCounter,
    /// Not asked.
    pub away: IntCounter,
}

// === impl Metrics ===

impl Metrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Errors
    /// If two metrics share a name: a mistake in this file.
    pub fn new(version: &str, revision: &str) -> prometheus::Result<Self> {
        let registry = Registry::new();
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process))?;
        let metrics = Self::declare(registry)?;
        metrics
            .build_info
            .with_label_values(&[version, revision])
            .set(1.0);
        Ok(metrics)
    }

    /// All metrics in the Prometheus text format.
    ///
    /// # Errors
    /// If a metric cannot be written as text.
    pub fn render(&self) -> prometheus::Result<String> {
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// The metrics of a route, or of what happens outside all routes.
    pub fn route(self: &Arc<Self>, name: &Arc<str>) -> RouteMetrics {
        RouteMetrics {
            all: Arc::clone(self),
            name: Arc::clone(name),
            duration: self.request_duration_seconds.with_label_values(&[&**name]),
            requests: [const { OnceLock::new() }; METHODS.len() + 1],
            rejections: [const { OnceLock::new() }; Reason::COUNT],
        }
    }

    /// The metrics of an issuer.
    pub fn issuer(self: &Arc<Self>, name: &Arc<str>) -> IssuerMetrics {
        IssuerMetrics {
            all: Arc::clone(self),
            name: Arc::clone(name),
            accepted: self
                .auth_decisions_total
                .with_label_values(&[&**name, "accepted", "ok"]),
        }
    }

    /// The metrics of the cache of verified tokens.
    pub fn token_cache(&self) -> TokenCacheMetrics {
        let of = |result: &str| {
            self.verified_token_cache_requests_total
                .with_label_values(&[result])
        };
        TokenCacheMetrics {
            hit: of("hit"),
            refused: of("refused"),
            miss: of("miss"),
        }
    }

    /// The metrics of an operation of the shared store.
    pub fn store(&self, operation: &str) -> StoreMetrics {
        let of = |result: &str| {
            self.store_requests_total
                .with_label_values(&[operation, result])
        };
        StoreMetrics {
            ok: of("ok"),
            error: of("error"),
            timeout: of("timeout"),
            away: of("away"),
        }
    }
}

// === impl RouteMetrics ===

impl RouteMetrics {
    /// The route's name, as in the configuration.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Counts an answered request.
    pub fn answered(&self, method: &Method, status: StatusCode) {
        let at = METHODS
            .iter()
            .position(|known| known == method)
            .unwrap_or(METHODS.len());
        let code = usize::from(status.as_u16()).saturating_sub(100);
        let Some(table) = self.requests.get(at) else {
            return;
        };
        let table = table.get_or_init(|| Box::new([const { OnceLock::new() }; 500]));
        let Some(cell) = table.get(code) else { return };
        cell.get_or_init(|| {
            let method = METHODS.get(at).map_or("other", Method::as_str);
            self.all
                .requests_total
                .with_label_values(&[&*self.name, method, status.as_str()])
        })
        .inc();
    }

    /// Counts a refused request.
    pub fn refused(&self, reason: &Reason) {
        let Some(cell) = self.rejections.get(reason.index()) else {
            return;
        };
        cell.get_or_init(|| {
            self.all
                .rejections_total
                .with_label_values(&[&*self.name, reason.as_str()])
        })
        .inc();
    }
}

// === impl IssuerMetrics ===

impl IssuerMetrics {
    /// Counts a refused token.
    pub fn refused(&self, reason: &Reason) {
        self.all
            .auth_decisions_total
            .with_label_values(&[&*self.name, "refused", reason.as_str()])
            .inc();
    }

    /// Notes a good fetch of keys: how many, when, and until when they are fresh.
    pub fn keys_fetched(&self, keys: usize, at: i64, fresh_until: i64) {
        self.all
            .jwks_fetches_total
            .with_label_values(&[&*self.name, "ok"])
            .inc();
        self.keys_known(keys, at, fresh_until);
    }

    /// Notes how many keys are in use, when they were fetched, and until when they are fresh.
    pub fn keys_known(&self, keys: usize, at: i64, fresh_until: i64) {
        let name: &str = &self.name;
        self.all
            .jwks_keys
            .with_label_values(&[name])
            .set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.all
            .jwks_last_success_timestamp_seconds
            .with_label_values(&[name])
            .set(at);
        self.all
            .jwks_fresh_until_timestamp_seconds
            .with_label_values(&[name])
            .set(fresh_until);
    }

    /// Notes a failed fetch of keys.
    pub fn keys_failed(&self) {
        self.all
            .jwks_fetches_total
            .with_label_values(&[&*self.name, "error"])
            .inc();
    }

    /// Notes a question about an opaque token, and what came of it: `active`, `inactive` or `error`.
    pub fn introspected(&self, result: &'static str) {
        self.all
            .introspections_total
            .with_label_values(&[&*self.name, result])
            .inc();
    }
}
