//! What metrics say of a surface that gives tokens again.

use crate::telemetry::metrics::Metrics;
use prometheus::IntCounter;

/// Requests by how they were answered.
pub(super) struct Counters {
    /// With what was kept.
    pub hit: IntCounter,
    /// By asking the issuer.
    pub miss: IntCounter,
    /// With what somebody else was asking for at that moment.
    pub coalesced: IntCounter,
    /// With a refusal of a moment ago.
    pub refused: IntCounter,
}

// === impl Counters ===

impl Counters {
    pub(super) fn new(surface: &str, metrics: &Metrics) -> Self {
        let of = |result: &str| {
            metrics
                .oauth_cache_requests_total
                .with_label_values(&[surface, result])
        };
        Self {
            hit: of("hit"),
            miss: of("miss"),
            coalesced: of("coalesced"),
            refused: of("refused"),
        }
    }
}
