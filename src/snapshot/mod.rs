//! The configuration as it is meant: references followed, patterns compiled, metrics resolved.
//!
//! A [`Snapshot`] never changes. [`compile`] makes one out of a file, or names every mistake. What
//! has not changed since the snapshot before is taken over from it, so that keys, verified tokens
//! and idle connections outlive a reload.

mod certificates;
mod compile;
mod contract;
mod handles;
mod internal_jwt;
mod introspect;
mod issuer_rules;
mod issuers;
mod mounts;
mod opaque;
mod refresh;
mod reuse;
mod routes;
mod rules;
mod telemetry;
mod tls;
mod traffic;
mod transport;
mod upstream_token;
mod upstreams;

pub use certificates::CertificateFile;
pub use compile::{Env, compile};
pub use internal_jwt::Internal;
pub use tls::Tls;

use crate::authn::Issuers;
use crate::authn::known::KnownTokens;
use crate::authz::AccessRules;
use crate::config::{self, Config};
use crate::contract::{JsonFields, QueryRules};
use crate::cors;
use crate::headers::{HeaderRules, IdentityGuard};
use crate::identity::Clock;
use crate::internal_jwt::Minter;
use crate::keys::fetch;
use crate::limit;
use crate::oauth::introspect::Clients;
use crate::oauth::{Endpoint, ErrorFormat, Handles, Quotas, Refresh, Reuse, Surface};
use crate::outbound::Outbound;
use crate::request::TrustedProxies;
use crate::route::RouteTable;
use crate::store::{OnFailure, Redis};
use crate::telemetry::access_log::AccessPolicy;
use crate::telemetry::metrics::RouteMetrics;
use crate::telemetry::otlp;
use crate::upstream::Upstream;
use http::HeaderValue;
use std::sync::Arc;
use std::time::Duration;

/// Where clients learn who issues tokens for this gateway (RFC 9728 §3).
pub const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// Where upstreams find the keys of the gateway's own tokens: `internal_jwt` of a route.
pub const INTERNAL_KEYS_PATH: &str = "/.well-known/gateway-jwks.json";

/// Everything that a request needs to know of the configuration.
#[derive(Debug)]
pub struct Snapshot {
    /// The file that this snapshot was made of.
    pub config: Config,
    /// What one client may ask of the gateway.
    pub limits: Limits,
    /// TLS towards clients, if it is spoken.
    pub tls: Option<Arc<Tls>>,
    /// The files of certificates that are in use.
    pub certificates: Vec<CertificateFile>,
    /// Whose `X-Forwarded-*` are believed.
    pub trusted: TrustedProxies,
    /// Where requests go.
    pub routes: RouteTable<Target>,
    /// Whose tokens are accepted.
    pub issuers: Issuers,
    /// The same issuers, with what the background tasks need.
    pub providers: Vec<Provider>,
    /// What is known of tokens that were seen before.
    pub tokens: Arc<KnownTokens>,
    /// What tells the time; the same for all snapshots of a process.
    pub clock: Clock,
    /// The headers that only the gateway sets.
    pub guard: Arc<IdentityGuard>,
    /// The upstreams by name.
    pub upstreams: Vec<Arc<Upstream>>,
    /// What goes to the access log.
    pub access_policy: AccessPolicy,
    /// Where spans go and how many: `[telemetry]`. What runs has it from the start.
    pub telemetry: Option<otlp::Settings>,
    /// Metrics of requests that no route took.
    pub outside: Arc<RouteMetrics>,
    /// What gateways share, if there is a `[store]`.
    pub shared: Option<Arc<Redis>>,
    /// What the gateway signs for upstreams.
    pub internal: Internal,
    /// What each surface that reuses tokens gives again. Revocation forgets tokens there.
    pub reuse: Vec<Arc<Reuse>>,
    /// What each surface knows of refreshes. Revocation forgets tokens there.
    pub refresh: Vec<Arc<Refresh>>,
    /// Where what is refused before an endpoint is found comes in the envelope: prefixes of surfaces.
    pub envelopes: Vec<Box<str>>,
    /// The surfaces that give out handles in place of tokens.
    pub opaque: Vec<Arc<Mount>>,
}

/// Limits and deadlines: `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections in all.
    pub max_connections: usize,
    /// Open connections of one address; 0: as many as there may be in all.
    pub max_connections_per_address: usize,
    /// Requests in flight; 0: no limit.
    pub max_requests: usize,
    /// Whether connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// A whole request head.
    pub header_timeout: Duration,
    /// Between requests of a connection.
    pub idle_timeout: Duration,
    /// Between two reads of a request body.
    pub body_timeout: Duration,
    /// Bytes in a request head.
    pub max_header_bytes: usize,
    /// Header fields in a request head.
    pub max_headers: usize,
    /// Requests at a time on one connection of HTTP/2.
    pub max_concurrent_streams: u32,
    /// From the decision to stop until no new connections are accepted.
    pub drain_delay: Duration,
    /// From then until requests in flight are cut.
    pub drain_timeout: Duration,
}

/// Where a path leads.
#[derive(Debug, Clone)]
pub enum Target {
    /// To an upstream.
    Route(Arc<Route>),
    /// To the token endpoint of an OAuth surface.
    Token(Arc<Mount>),
    /// To another endpoint of an OAuth surface.
    Endpoint(Arc<Mount>, Endpoint),
    /// To the description of this gateway as a protected resource (RFC 9728).
    Metadata,
    /// To the public keys of the gateway's own tokens.
    InternalKeys,
}

/// A route: `[[route]]`.
#[derive(Debug)]
pub struct Route {
    /// Its name.
    pub name: Arc<str>,
    /// What it asks of callers.
    pub access: AccessRules,
    /// Who is asked about tokens that tell nothing by themselves: the one issuer of such tokens that
    /// the route accepts, if there is one.
    pub opaque: Option<Arc<crate::authn::Issuer>>,
    /// Where it leads.
    pub upstream: Arc<Upstream>,
    /// Whether the upstream gets the caller's token.
    pub forward_token: bool,
    /// Taken off the path before it is sent upstream.
    pub strip_prefix: Box<str>,
    /// Put before what is left.
    pub add_prefix: Box<str>,
    /// What the query may be and becomes, if anything is said of it.
    pub query: Option<QueryRules>,
    /// What a body may have in it, if it has to be JSON.
    pub json_fields: Option<JsonFields>,
    /// For the whole exchange; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// Changes to the request's headers.
    pub request_headers: Arc<HeaderRules>,
    /// Changes to the response's headers.
    pub response_headers: Arc<HeaderRules>,
    /// What else may be spoken on a connection that began with a request to it.
    pub tunnel: TunnelRules,
    /// How often each caller may ask.
    pub limit: Option<Arc<limit::Rule>>,
    /// Which pages of other origins may use it.
    pub cors: Option<cors::Policy>,
    /// What signs a token for the upstream in place of the caller's.
    pub internal_jwt: Option<Arc<Minter>>,
    /// Its metrics.
    pub metrics: Arc<RouteMetrics>,
}

/// Which protocols a connection may be switched to (RFC 9110 §7.8), and for how long.
#[derive(Debug)]
pub struct TunnelRules {
    /// Their names, as they go into `Upgrade`.
    pub protocols: Box<[HeaderValue]>,
    /// When to give up on two silent ends; `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Whether the end of the caller's token ends it.
    pub close_at_expiry: bool,
}

/// An OAuth surface where it is mounted: `[oauth.*]`.
#[derive(Debug)]
pub struct Mount {
    /// The rules of the surface.
    pub surface: Surface,
    /// The issuer that it speaks for.
    pub provider: Provider,
    /// The tokens that it gives again, if it does.
    pub reuse: Option<Arc<Reuse>>,
    /// Has refreshes wait for each other, if it serves them.
    pub refresh: Option<Arc<Refresh>>,
    /// What its clients get in place of tokens, if they get none.
    pub handles: Option<Arc<Handles>>,
    /// Where the issuer's quotas are shown.
    pub quotas: Quotas,
    /// Who may ask what a token is worth.
    pub introspect_clients: Clients,
    /// Its metrics as a route.
    pub metrics: Arc<RouteMetrics>,
}

/// An issuer with what it takes to talk to it.
#[derive(Debug, Clone)]
pub struct Provider {
    /// Its rules and keys.
    pub issuer: Arc<crate::authn::Issuer>,
    /// What the fetcher needs.
    pub source: fetch::Source,
    /// The table it was made of, to see on a reload what has changed.
    config: config::Issuer,
    /// What its `ca_file` held: a renewed one has to be noticed.
    authorities: Option<Vec<u8>>,
}

// === impl Snapshot ===

impl Snapshot {
    /// Has the background task of a new `[store]` started, on the present runtime, and shares
    /// revocations by it: returns when those are known, or the first attempt has failed.
    pub async fn connect(&self) {
        if let Some(redis) = &self.shared {
            redis.start();
        }
        let store = self.config.store.as_ref();
        let on_failure = match store.map(|store| store.on_failure).unwrap_or_default() {
            config::OnFailure::Open => OnFailure::Open,
            config::OnFailure::Closed => OnFailure::Closed,
        };
        let revocations = self.tokens.store();
        revocations
            .share(self.shared.as_ref(), on_failure, &self.clock)
            .await;
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// What an error looks like that no route and no endpoint has a part in.
    pub fn error_format(&self, path: &str) -> ErrorFormat {
        let below = |prefix: &str| {
            let rest = path.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match self.envelopes.iter().any(|prefix| below(prefix)) {
            true => ErrorFormat::Envelope,
            false => ErrorFormat::OAuth,
        }
    }
}

// === impl Target ===

impl Target {
    /// The name of the route or surface.
    pub fn name(&self) -> &str {
        match self {
            Self::Route(route) => &route.name,
            Self::Token(mount) | Self::Endpoint(mount, _) => &mount.surface.name,
            Self::Metadata => METADATA_PATH,
            Self::InternalKeys => INTERNAL_KEYS_PATH,
        }
    }
}

// === impl TunnelRules ===

impl TunnelRules {
    /// The protocol that a client names in `Upgrade`, if it may be switched to.
    pub fn protocol(&self, named: &HeaderValue) -> Option<HeaderValue> {
        let same = |known: &&HeaderValue| named.as_bytes().eq_ignore_ascii_case(known.as_bytes());
        self.protocols.iter().find(same).cloned()
    }
}

// === impl Provider ===

impl Provider {
    /// The client for calls to the issuer.
    pub fn outbound(&self) -> &Outbound {
        &self.source.outbound
    }
}
