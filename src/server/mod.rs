//! Where clients connect: listeners, connections, and the way of each request through the gateway.

mod bind;
mod client;
mod connection;
mod decision;
mod door;
mod drain;
mod endpoints;
mod examine;
mod fresh;
mod handles;
pub mod head;
mod http1;
mod http2;
mod id;
mod inherit;
mod listen;
mod metadata;
mod oauth;
mod proxy_protocol;
mod revoke;
mod service;
mod sniff;
mod stalled;
mod stream;
mod tls;
mod traffic;
mod transport;
mod unparsed;

pub use bind::{Acceptor, Address, Bound, SocketFile, bind};
pub use decision::{Counting, Verdict, decide};
pub use door::Door;
pub use drain::{Drain, Stage};
pub use id::request_id;
pub use inherit::Inherited;
pub(crate) use listen::failed;
pub use listen::{Listener, serve};
pub use metadata::{document as metadata_document, internal_keys, url as metadata_url};

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
    /// Who may come in.
    pub door: Door,
}
