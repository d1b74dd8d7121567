//! `[server]`

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{Cidr, ListenAddr, cidrs};
use super::tls::Tls;
use super::units::{Dur, Size};

/// Where clients connect, and what one client may ask of the gateway.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses for clients.
    pub listen: Vec<ListenAddr>,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Open client connections at most, over all workers. One more is answered 503 and closed; with TLS it is closed at once.
    pub max_connections: usize,
    /// For a whole request head, first and later requests alike.
    pub header_timeout: Dur,
    /// Between two requests of a connection.
    pub idle_timeout: Dur,
    /// Between two reads of a request body; and for all of a form's first 8 KiB, which are searched for a second token before anything is sent.
    pub body_timeout: Dur,
    /// Size of a request head at most; larger: 431.
    pub max_header_bytes: Size,
    /// Header lines of a request at most; more: 431.
    pub max_headers: usize,
    /// Requests at a time on one connection of HTTP/2.
    pub max_concurrent_streams: u32,
    /// Size of a request body at most; larger: 413. A route may say otherwise.
    pub max_body: Size,
    /// Networks of proxies in front of the gateway whose `X-Forwarded-*`, `Forwarded` and `traceparent` are believed.
    #[serde(with = "cidrs")]
    #[schemars(with = "Vec<Cidr>")]
    pub trusted_proxies: Vec<IpNet>,
    /// After SIGTERM: how long `/readyz` says 503 while connections are still accepted.
    pub drain_delay: Dur,
    /// After that: how long requests in flight may take to finish.
    pub drain_timeout: Dur,
    /// TLS towards clients. With this table every address of `listen` speaks TLS, and HTTP/2 or HTTP/1.1 as the client
    /// asks for by ALPN; plain HTTP is answered 400. The files are read again on a reload and when their contents change:
    /// new connections get the new certificate, open ones go on.
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec![ListenAddr::v4([0, 0, 0, 0], 8080)],
            workers: 0,
            max_connections: 20_000,
            header_timeout: Dur::secs(10),
            idle_timeout: Dur::secs(75),
            body_timeout: Dur::secs(30),
            max_header_bytes: Size::kib(32),
            max_headers: 100,
            max_concurrent_streams: 128,
            max_body: Size::mib(10),
            trusted_proxies: Vec::new(),
            drain_delay: Dur::secs(5),
            drain_timeout: Dur::secs(20),
            tls: None,
        }
    }
}
