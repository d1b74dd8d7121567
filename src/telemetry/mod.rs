//! What the gateway says of itself: metrics, the access log, traces, and the log of events.

pub mod access_log;
pub mod exchange;
pub mod log;
pub mod metrics;
pub mod otlp;
pub mod spans;
pub mod trace;
