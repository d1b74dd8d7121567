//! `[telemetry]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Dur, Percent};

/// Traces of requests, for a collector of OpenTelemetry.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Where the collector takes OTLP by gRPC: `http://` or `https://`, host and port. Behind `https://` the system's authorities are trusted.
    pub otlp_endpoint: String,
    /// What the gateway is called in traces: `service.name`.
    pub service_name: String,
    /// The share of the traces that begin here that is recorded. Where a trusted proxy names a trace, its decision holds.
    pub sample: Percent,
    /// How long the collector may take for a batch, and the last one at the end.
    pub timeout: Dur,
    /// Requests that may wait for their spans to be sent. When it is full, the spans of further ones are dropped and counted; no request waits.
    pub queue: usize,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: "http://127.0.0.1:4317".to_owned(),
            service_name: "bonterra-gateway".to_owned(),
            sample: Percent(100.0),
            timeout: Dur::secs(5),
            queue: 2048,
        }
    }
}
