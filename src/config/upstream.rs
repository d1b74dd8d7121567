//! `[upstream.NAME]`

mod eject;
mod entry;
mod hash_on;
mod health;
mod token;

pub use eject::Eject;
pub use entry::UpstreamServer;
pub use hash_on::HashOn;
pub use health::{Health, Statuses};
pub use token::UpstreamToken;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::transport::{Protocol, Retry, UpstreamTls};
use super::units::Dur;

/// An API behind the gateway: the servers that run it, and which of them gets a request.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Required. The servers: URLs without a path, `"http://10.0.0.5:9000"`, or with a weight from 1 to 1000,
    /// `{ url = "http://10.0.0.6:9000", weight = 2 }`, for twice the share of one without. A name that resolves to
    /// several addresses stands for as many servers, each of this weight; IPv6 addresses of a name are used only if
    /// it has no IPv4 address.
    pub servers: Vec<UpstreamServer>,
    /// "least_requests": of two servers drawn by weight, the one with fewer requests in flight. "round_robin": in
    /// turn, by weight. "consistent_hash": the same server for the same value of `hash_on`.
    pub balance: Balance,
    /// What `consistent_hash` goes by: `"header:NAME"`, `"claim:NAME"` (a claim of the verified token) or
    /// `"client_ip"`. Requests without it go by "least_requests".
    pub hash_on: Option<HashOn>,
    /// How often names in `servers` are resolved anew. When that fails, the addresses known last stay in use.
    pub dns_refresh: Dur,
    /// A server that comes back, or is new, begins with a tenth of its share, which grows to the whole of it over
    /// this time. 0s: the whole at once.
    pub slow_start: Dur,
    /// To open a connection, the TLS handshake included; also how long a request waits for a place at a server.
    pub connect_timeout: Dur,
    /// From the end of the request to the head of the response.
    pub response_timeout: Dur,
    /// How long an unused connection is kept.
    pub idle_timeout: Dur,
    /// What the servers are called in `Host`, for those that go by it: `"auth.bonterra.network"`. Absent: as the client
    /// has it.
    pub host: Option<String>,
    /// The version of HTTP that the servers speak.
    pub protocol: Protocol,
    /// Requests in flight to one server at most. Further ones wait; over HTTP/1.1 each has a connection of its own.
    pub max_connections: usize,
    /// Requests that wait for a server at most; one more is answered 503 at once.
    pub max_pending: usize,
    /// When a request is sent once more.
    pub retry: Retry,
    /// TLS towards the servers.
    pub tls: UpstreamTls,
    /// Asks each server regularly whether it is well; one that is not gets no requests. A new server is used
    /// before it was first asked. If none is well, requests get 503.
    pub health: Option<Health>,
    /// Takes servers that fail out for a while, judging by the requests that they get. On by default, and of effect
    /// with two servers or more. If every server that is well is out, all those are used nevertheless.
    pub eject: Eject,
    /// The gateway's own token in place of the caller's. Absent: upstreams get the caller's, as the route says.
    #[schemars(with = "UpstreamToken")]
    pub token: Option<UpstreamToken>,
}

/// Which server gets a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the names say it, and documented variants make a longer schema"
)]
pub enum Balance {
    #[default]
    LeastRequests,
    RoundRobin,
    ConsistentHash,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            balance: Balance::default(),
            hash_on: None,
            dns_refresh: Dur::secs(10),
            slow_start: Dur::ZERO,
            connect_timeout: Dur::secs(2),
            response_timeout: Dur::secs(30),
            idle_timeout: Dur::secs(60),
            host: None,
            protocol: Protocol::Http1,
            max_connections: 1024,
            max_pending: 1024,
            retry: Retry::default(),
            tls: UpstreamTls::default(),
            health: None,
            eject: Eject::default(),
            token: None,
        }
    }
}
