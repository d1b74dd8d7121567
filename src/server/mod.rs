//! Where clients connect: listeners, connections, and the way of each request through the gateway.

mod client;
mod connection;
mod decision;
mod drain;
pub mod head;
mod http1;
mod http2;
mod id;
mod listen;
mod metadata;
mod oauth;
mod service;
mod sniff;
mod stalled;
mod stream;
mod traffic;
mod transport;
mod unparsed;

pub use decision::{Counting, Verdict, decide};
pub use drain::{Drain, Stage};
pub use id::request_id;
pub use listen::{Bound, Listener, bind, serve};
pub use metadata::{document as metadata_document, url as metadata_url};

use crate::snapshot::Snapshot;
use crate::telemetry::exchange::Observer;
use arc_swap::ArcSwap;
use std::sync::Arc;

/// What all workers share.
#[derive(Debug)]
pub struct Shared {
    /// The configuration in force. A request loads it once.
    pub snapshot: ArcSwap<Snapshot>,
    /// Where exchanges are counted and written.
    pub observer: Arc<Observer>,
    /// Whether the gateway is stopping, and what is still open.
    pub drain: Drain,
}
