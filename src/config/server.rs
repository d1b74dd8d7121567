//! `[server]`

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{Cidr, FileMode, ListenAddr, cidrs};
use super::tls::Tls;
use super::units::{Dur, Size};

/// Where clients connect, and what one client may ask of the gateway.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Addresses for clients. Who comes by a Unix socket counts as 127.0.0.1, so that `trusted_proxies` decides
    /// whether its `X-Forwarded-For` is believed.
    pub listen: Vec<ListenAddr>,
    /// Who may connect to the Unix sockets in `listen`: their file mode.
    pub unix_mode: FileMode,
    /// Whether another gateway may listen on the same addresses at the same time, so that a new one can start while
    /// the old one drains. Off, a second gateway that was started by mistake is refused.
    pub reuse_port: bool,
    /// Worker threads; 0: one per core.
    pub workers: usize,
    /// Open client connections at most, over all workers. One more is answered 503 and closed; with TLS it is closed at once.
    pub max_connections: usize,
    /// Open client connections of one address at most (of IPv6: of one /64 network); 0: no limit. One more is answered
    /// 503 and closed. Unix sockets are not counted.
    pub max_connections_per_address: usize,
    /// Requests in flight at most, over all workers; 0: no limit. One more is answered 503 at once, before its token is
    /// looked at, and its connection is kept. A tunnel (`upgrades`) counts for as long as it is open, and a stream for
    /// as long as it lasts.
    pub max_requests: usize,
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
    /// Whether every connection begins with a PROXY protocol header, version 1 or 2, which says who the client is. Only
    /// `trusted_proxies` may send one: any other connection, and one without a good header, is closed unanswered.
    pub proxy_protocol: bool,
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
            unix_mode: FileMode(0o660),
            reuse_port: false,
            workers: 0,
            max_connections: 20_000,
            max_connections_per_address: 0,
            max_requests: 0,
            header_timeout: Dur::secs(10),
            idle_timeout: Dur::secs(75),
            body_timeout: Dur::secs(30),
            max_header_bytes: Size::kib(32),
            max_headers: 100,
            max_concurrent_streams: 128,
            max_body: Size::mib(10),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            drain_delay: Dur::secs(5),
            drain_timeout: Dur::secs(20),
            tls: None,
        }
    }
}
