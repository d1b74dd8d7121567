//! The APIs behind the gateway: their servers, which one to ask, and the connections to it.

mod form_scan;
mod pool;
mod received;
mod upload;

pub use form_scan::{FormScan, is_form};
pub use pool::{Connection, Dispatched, SendError, send, sweep_idle};
pub use received::Received;
pub use upload::{Upload, UploadFault, UploadLimits, UploadState};

use prometheus::Histogram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// An upstream: `[upstream.*]`.
#[derive(Debug)]
pub struct Upstream {
    /// The configured name.
    pub name: Arc<str>,
    /// Its servers, at least one.
    pub servers: Vec<Arc<Server>>,
    /// How long a TCP connection may take.
    pub connect_timeout: Duration,
    /// How long the head of a response may take.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Seconds to the head of the response.
    pub duration: Histogram,
}

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// Tells the connection pools of different servers apart.
    id: u64,
    /// Host and port to connect to.
    pub address: Box<str>,
    in_flight: AtomicUsize,
}

/// A request at a server; counted until it is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Server>);

// === impl Server ===

impl Server {
    /// A server at `host:port`.
    pub fn new(address: impl Into<Box<str>>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            address: address.into(),
            in_flight: AtomicUsize::new(0),
        }
    }
}

// === impl InFlight ===

impl InFlight {
    fn at(server: &Arc<Server>) -> Self {
        server.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(server))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

// === impl Upstream ===

impl Upstream {
    /// Chooses a server: the one with fewer requests of two that are drawn at random. That comes
    /// close to asking all of them, and does not send every worker to the same one.
    fn choose(&self) -> Option<&Arc<Server>> {
        match self.servers.as_slice() {
            [] => None,
            [only] => Some(only),
            servers => {
                let first = fastrand::usize(..servers.len());
                let second = (first + fastrand::usize(1..servers.len())) % servers.len();
                let (first, second) = (servers.get(first)?, servers.get(second)?);
                let fewer = first.in_flight.load(Relaxed) <= second.in_flight.load(Relaxed);
                Some(if fewer { first } else { second })
            }
        }
    }
}
