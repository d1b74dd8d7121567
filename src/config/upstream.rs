//! `[upstream.NAME]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::transport::{Protocol, Retry, UpstreamTls};
use super::units::Dur;

/// An API behind the gateway: the servers that run it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Required. URLs of the servers, without a path: `"http://10.0.0.5:9000"`. Of two drawn at random, the one with fewer requests in flight
    /// gets the next.
    pub servers: Vec<String>,
    /// To open a connection, the TLS handshake included; also how long a request waits for a place at a server.
    pub connect_timeout: Dur,
    /// From the end of the request to the head of the response.
    pub response_timeout: Dur,
    /// How long an unused connection is kept.
    pub idle_timeout: Dur,
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
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            connect_timeout: Dur::secs(2),
            response_timeout: Dur::secs(30),
            idle_timeout: Dur::secs(60),
            protocol: Protocol::Http1,
            max_connections: 1024,
            max_pending: 1024,
            retry: Retry::default(),
            tls: UpstreamTls::default(),
        }
    }
}
