//! What the gateway says of itself: metrics, the access log, and the log of events.

pub mod access_log;
pub mod exchange;
pub mod log;
pub mod metrics;
