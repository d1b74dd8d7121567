//! The APIs behind the gateway: their servers, which one to ask, and the connections to it.

mod breaker;
mod budget;
mod connect;
mod error;
mod form_scan;
mod http2;
mod pool;
mod received;
mod replay;
mod retry;
mod send;
mod spare;
mod tls;
mod transport;
mod upload;
mod upload_state;

pub use breaker::{Breaker, InFlight};
pub use budget::RetryBudget;
pub use error::{ConnectError, SendError};
pub use form_scan::{FormScan, is_form};
pub use pool::{Connection, Dispatched, sweep_idle};
pub use received::Received;
pub use replay::Kept;
pub use retry::{Retry, RetryCounts, RetryOn};
pub use send::{Call, send};
pub use tls::{ClientTls, Fingerprint, TlsError, TlsFiles};
pub use transport::{Protocol, Transport};
pub use upload::{Upload, UploadLimits};
pub use upload_state::{UploadFault, UploadState};

use breaker::Queue;
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
    /// How long a connection may take, its TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the head of a response may take.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// Seconds to the head of the response.
    pub duration: Histogram,
    /// How its servers are talked to.
    pub transport: Arc<Transport>,
    /// How many requests they get at a time.
    pub breaker: Breaker,
    /// When a request is sent again.
    pub retry: Retry,
}

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// Tells the connection pools of different servers apart.
    id: u64,
    /// Host and port to connect to.
    pub address: Box<str>,
    /// The host of its URL, without brackets: what its certificate is for.
    pub host: Box<str>,
    /// Whether its URL begins with `https://`.
    pub tls: bool,
    in_flight: AtomicUsize,
    queue: Queue,
}

// === impl Server ===

impl Server {
    /// A server at `host:port`; `host` is what its certificate is for, if it uses TLS.
    pub fn new(address: impl Into<Box<str>>, host: impl Into<Box<str>>, tls: bool) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            address: address.into(),
            host: host.into(),
            tls,
            in_flight: AtomicUsize::new(0),
            queue: Queue::default(),
        }
    }
}

// === impl Upstream ===

impl Upstream {
    /// Chooses a server: the one with fewer requests of two that are drawn at random. That comes
    /// close to asking all of them, and does not send every worker to the same one. Those to `avoid`
    /// are left out as long as there are others.
    fn choose(&self, avoid: &[u64]) -> Option<Arc<Server>> {
        if !avoid.is_empty() {
            let mut others = self.servers.iter();
            let others: Vec<_> = others
                .by_ref()
                .filter(|server| !avoid.contains(&server.id))
                .collect();
            let fewest = others
                .iter()
                .min_by_key(|server| server.in_flight.load(Relaxed));
            if let Some(server) = fewest {
                return Some(Arc::clone(server));
            }
        }
        match self.servers.as_slice() {
            [] => None,
            [only] => Some(Arc::clone(only)),
            servers => {
                let first = fastrand::usize(..servers.len());
                let second = (first + fastrand::usize(1..servers.len())) % servers.len();
                let (first, second) = (servers.get(first)?, servers.get(second)?);
                let fewer = first.in_flight.load(Relaxed) <= second.in_flight.load(Relaxed);
                Some(Arc::clone(if fewer { first } else { second }))
            }
        }
    }
}
