//! The APIs behind the gateway: their servers, which one to ask, and the connections to it.
//!
//! An [`Upstream`] belongs to a snapshot. What is known of a [`Server`] outlives it, and so does the [`Group`] that
//! the servers of one upstream form. [`Upkeep`] does in the background what neither a request nor a reload does:
//! it resolves names, asks servers whether they are well, and lets those in again that were out for a while.
//! Requests read the outcome: one `ArcSwap` with the servers of the moment, and an atomic in each.

mod attempt;
mod balance;
mod breaker;
mod budget;
mod connect;
mod eject;
mod error;
mod form_scan;
mod health;
mod http2;
mod pool;
mod queue;
mod received;
mod replay;
mod resolve;
mod retry;
mod ring;
mod send;
mod server;
mod servers;
mod set;
mod spare;
mod tls;
mod token;
mod transport;
mod upkeep;
mod upload;
mod upload_state;

pub use balance::Balance;
pub use breaker::{Breaker, InFlight};
pub use budget::RetryBudget;
pub use eject::{EjectRules, Group};
pub use error::{ConnectError, SendError};
pub use form_scan::{FormScan, is_form};
pub use health::HealthRules;
pub use pool::{Connection, Dispatched, sweep_idle};
pub use received::Received;
pub use replay::Kept;
pub use resolve::{Origin, Resolve, Resolver, Resolving};
pub use retry::{Retry, RetryCounts, RetryOn};
pub use ring::HashOn;
pub use send::{Call, send};
pub use server::{Report, Server};
pub use servers::Servers;
pub use tls::{ClientTls, Fingerprint, SystemRoots, TlsContents, TlsError, TlsFiles, system_roots};
pub use token::{Asking, NoToken, OwnToken, Source, Token};
pub use transport::{Protocol, Transport};
pub use upkeep::Upkeep;
pub use upload::{Upload, UploadLimits};
pub use upload_state::{UploadFault, UploadState};

use crate::identity::Identity;
use balance::Choice;
use http::{HeaderMap, HeaderValue};
use prometheus::Histogram;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// An upstream: `[upstream.*]`.
#[derive(Debug)]
pub struct Upstream {
    /// The configured name.
    pub name: Arc<str>,
    /// Its servers as they come and go.
    pub servers: Servers,
    /// How requests are shared among them.
    pub balance: Balance,
    /// How long a connection may take, its TLS handshake included.
    pub connect_timeout: Duration,
    /// How long the head of a response may take.
    pub response_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// How often names are resolved anew.
    pub dns_refresh: Duration,
    /// How long the share of a server grows that has come back.
    pub slow_start: Duration,
    /// How servers are asked whether they are well; `None`: they are not.
    pub health: Option<HealthRules>,
    /// When a server is taken out for its failures; `None`: never.
    pub eject: Option<EjectRules>,
    /// What tells the addresses of names.
    pub resolver: Resolver,
    /// Seconds to the head of the response.
    pub duration: Histogram,
    /// How its servers are talked to.
    pub transport: Arc<Transport>,
    /// How many requests they get at a time.
    pub breaker: Breaker,
    /// What `Host` says instead of what the client has sent.
    pub host: Option<HeaderValue>,
    /// When a request is sent again.
    pub retry: Retry,
    /// The gateway's own token, which its requests carry in place of the caller's, if that is so.
    pub token: Option<Arc<OwnToken>>,
}

/// No server is known to be well: requests get 503 `upstream_unhealthy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoServer;

// === impl Upstream ===

impl Upstream {
    /// Chooses a server for a request with this key ([`Upstream::key`]). `avoid` are the ids of those that were tried
    /// already; one of them is chosen only if nobody else is there.
    ///
    /// # Errors
    /// [`NoServer`] if none is known to be well.
    pub fn choose(&self, key: Option<u64>, avoid: &[u64]) -> Result<Arc<Server>, NoServer> {
        let choice = Choice {
            set: &self.servers.now(),
            balance: &self.balance,
            slow_start: self.slow_start,
            key,
            avoid,
        };
        let server = choice.make(self.servers.group.id).ok_or(NoServer)?;
        Ok(Arc::clone(server))
    }

    /// What keeps a request with a server, if the upstream goes by that and the request has it. `client` is asked for
    /// the client's address only if need be.
    pub fn key(
        &self,
        headers: &HeaderMap,
        identity: Option<&Identity>,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<u64> {
        match &self.balance {
            Balance::LeastRequests | Balance::RoundRobin => None,
            Balance::ConsistentHash(on) => on.key(headers, identity, client),
        }
    }
}
