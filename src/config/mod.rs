//! The file as written.
//!
//! One struct per table with the defaults of the reference, and a reader that finds every mistake at once. What the
//! file *means* (whether a reference leads somewhere, whether a URL is one) is decided where it is compiled; the
//! mistakes found there join those found here:
//!
//! ```text
//! load / parse ─► Parsed { config, source, mistakes } ─► compile, push more mistakes ─► source.report(mistakes)
//! ```
//!
//! Nothing here imports another part of the gateway.

mod admin;
mod check;
mod docs;
mod faults;
mod internal_jwt;
mod issuer;
mod load;
mod log;
pub(crate) mod mask;
mod mistake;
mod net;
mod oauth;
mod path;
mod query;
mod report;
mod route;
mod schema;
mod secret;
mod server;
mod shape;
mod show;
mod store;
mod suggest;
mod syntax;
mod telemetry;
mod text;
mod tls;
mod token_cache;
mod traffic;
mod transport;
mod tree;
mod units;
mod upstream;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::at;
pub use admin::Admin;
pub use docs::reference_markdown;
pub use internal_jwt::InternalJwt;
pub use issuer::{Alg, Issuer, Jwks};
pub use load::{Parsed, load, parse};
pub use log::{Log, LogFormat, LogLevel};
pub use mistake::{Mistake, Part};
pub use net::{FileMode, ListenAddr};
pub use oauth::{
    ErrorFormat, Grant, HandleSettings, IntrospectClient, OAuthCache, OAuthSurface, Paths, Tokens,
};
pub use path::{KeyPath, Segment};
pub use query::{IntegerRange, Query};
pub use report::{ConfigErrors, Located, Source};
pub use route::{Auth, HeaderRules, Route};
pub use schema::schema;
pub use secret::{Resolved, Secret, SecretSource};
pub use server::Server;
pub use show::show;
pub use store::{OnFailure, Store};
pub use suggest::suggest;
pub use telemetry::Telemetry;
pub use text::BadText;
pub use tls::{ClientAuth, Tls, TlsVersion};
pub use token_cache::TokenCache;
pub use traffic::{Cors, LimitBy, RateLimit};
pub use transport::{Protocol, Retry, RetryOn, UpstreamTls};
pub use units::{Dur, Percent, Rate, Size};
pub use upstream::{
    Balance, Eject, HashOn, Health, Statuses, Upstream, UpstreamServer, UpstreamToken,
};

/// The commented default file, which `config default` prints.
pub const DEFAULT: &str = include_str!("../../gateway.toml");

/// Configuration of bonterra-gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "gateway.toml")]
pub struct Config {
    /// Where clients connect, and what one client may ask of the gateway.
    pub server: Server,
    /// Metrics, health and reload. Not for clients: keep it on loopback or in a private network.
    pub admin: Admin,
    /// What is written to standard output, and how.
    pub log: Log,
    /// Issuers by name.
    pub issuer: BTreeMap<String, Issuer>,
    /// How many tokens are remembered, so that the same token costs no second signature check. One that is
    /// remembered is refused all the same when it expires, is revoked, loses its key, or lacks what a route asks for.
    pub token_cache: TokenCache,
    /// OAuth surfaces by name.
    pub oauth: BTreeMap<String, OAuthSurface>,
    /// Upstreams by name.
    pub upstream: BTreeMap<String, Upstream>,
    /// Routes.
    pub route: Vec<Route>,
    /// What several gateways share, in Redis: revoked tokens, and the counts of `rate_limit`. Without this table each
    /// gateway knows what was revoked there, and counts for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Store")]
    pub store: Option<Store>,
    /// Traces of requests, for a collector of OpenTelemetry. Without this table nothing is recorded or sent, and a `traceparent` still goes
    /// to upstreams. Changes take a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Telemetry")]
    pub telemetry: Option<Telemetry>,
}

impl Config {
    /// The files besides this one that are watched: when the contents of one change, the configuration is read anew.
    pub fn files(&self) -> Vec<&Path> {
        let tls = self.server.tls.iter().flat_map(Tls::files);
        let routes = self.route.iter();
        let signing = routes.filter_map(|route| route.internal_jwt.as_ref());
        let tokens = self.upstream.values();
        let tokens = tokens.filter_map(|upstream| upstream.token.as_ref());
        let secrets = tokens.filter_map(|token| token.client_secret_file.as_deref());
        let files = tls.chain(signing.flat_map(InternalJwt::files));
        files.chain(secrets).collect()
    }
}
