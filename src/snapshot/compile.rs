//! From the file to its meaning, or to every mistake in it.

use super::{
    Limits, Snapshot, handles, internal_jwt, issuers, mounts, refresh, reuse, routes, telemetry,
    tls, traffic, upstreams,
};
use crate::at;
use crate::authn::Issuers;
use crate::authn::known::{Bounds, KnownTokens};
use crate::config::{self, ConfigErrors, KeyPath, LogFormat, Mistake, Parsed};
use crate::headers::IdentityGuard;
use crate::identity::Clock;
use crate::limit::RateLimits;
use crate::request::TrustedProxies;
use crate::route::RouteTable;
use crate::store::SharedStore;
use crate::telemetry::access_log::AccessPolicy;
use crate::telemetry::log;
use crate::telemetry::metrics::Metrics;
use crate::upstream::Resolver;
use std::sync::Arc;

/// What outlives a snapshot.
#[derive(Debug, Clone)]
pub struct Env {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// What gateways remember together.
    pub store: Arc<SharedStore>,
    /// How often callers have asked.
    pub limits: Arc<RateLimits>,
    /// What tells the time.
    pub clock: Clock,
    /// What tells the addresses of upstreams' names.
    pub resolver: Resolver,
    /// The snapshot before, if there is one.
    pub previous: Option<Arc<Snapshot>>,
}

/// Compiles a file.
///
/// # Errors
/// Every mistake in it: those of its form and those of its meaning.
pub fn compile(parsed: Parsed, env: &Env) -> Result<Snapshot, ConfigErrors> {
    let Parsed {
        config,
        source,
        mut mistakes,
    } = parsed;
    let snapshot = build(config, env, &mut mistakes);
    match snapshot {
        Some(snapshot) if mistakes.is_empty() => Ok(snapshot),
        _ => Err(source.report(mistakes)),
    }
}

/// `None` only if mistakes were found.
fn build(config: config::Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Option<Snapshot> {
    if config.route.is_empty() && config.oauth.is_empty() {
        // A file that was cut short must not silence a gateway that runs.
        let nothing = Mistake::missing(at!["route"]);
        mistakes.push(nothing.hint("without a [[route]] or an [oauth.NAME] nothing is served"));
    }
    let limits = limits(&config.server, mistakes);
    let telemetry = telemetry::build(config.telemetry.as_ref(), mistakes);
    let mut certificates = Vec::new();
    let tls = tls::build(&config.server, env, &mut certificates, mistakes);
    let providers = issuers::build(&config, env, mistakes);
    let upstreams = upstreams::build(&config, env, &providers, mistakes);
    let shared = traffic::store(&config, env, mistakes);
    let mut table = RouteTable::default();
    let reuse = reuse::build(&config, env, mistakes);
    let refresh = refresh::build(&config, env, mistakes);
    let handles = handles::build(&config, env, shared.as_ref(), mistakes);
    let given = mounts::Given {
        reuse: &reuse,
        refresh: &refresh,
        handles: &handles,
    };
    let mounts = mounts::mount(&config, env, &providers, given, &mut table, mistakes);
    let internal = internal_jwt::build(&config, env, mistakes);
    routes::build(
        &config, env, &providers, &upstreams, &internal, &mut table, mistakes,
    );
    mounts::publish_documents(&config, &mounts, &mut table);
    routes::describe(&providers, &mut table);
    routes::publish(&internal, &mut table);
    if !mistakes.is_empty() {
        return None;
    }
    let unknown = env.metrics.issuer(&"-".into());
    let list: Vec<_> = providers
        .iter()
        .map(|provider| Arc::clone(&provider.issuer))
        .collect();
    let mapped = list
        .iter()
        .flat_map(|issuer| issuer.rules.headers.iter().map(|(name, _)| name));
    Some(Snapshot {
        limits,
        tls: tls.map(Arc::new),
        certificates,
        trusted: TrustedProxies::new(config.server.trusted_proxies.iter().copied()),
        routes: table,
        guard: Arc::new(IdentityGuard::new(mapped)),
        issuers: Issuers::new(list.clone(), unknown),
        providers,
        tokens: known_tokens(&config.token_cache, env),
        clock: env.clock.clone(),
        upstreams,
        access_policy: access_policy(&config.log),
        telemetry,
        outside: Arc::new(env.metrics.route(&"-".into())),
        shared,
        internal,
        reuse,
        refresh,
        envelopes: mounts::envelopes(&config),
        opaque: mounts
            .into_iter()
            .filter(|mount| mount.handles.is_some())
            .collect(),
        config,
    })
}

fn limits(server: &config::Server, mistakes: &mut Vec<Mistake>) -> Limits {
    if server.listen.is_empty() {
        mistakes.push(
            Mistake::value(at!["server", "listen"], "there is nothing to listen on")
                .hint("write [\"0.0.0.0:8080\"]"),
        );
    }
    if server.proxy_protocol && server.trusted_proxies.is_empty() {
        let mistake = Mistake::value(
            at!["server", "proxy_protocol"],
            "nobody is trusted to send a PROXY protocol header",
        );
        let hint = "name the load balancers in trusted_proxies, for example [\"10.0.0.0/8\"]";
        mistakes.push(mistake.hint(hint));
    }
    let mut positive = |key: &str, fine: bool, what: &str| {
        if !fine {
            mistakes.push(Mistake::value(
                at!["server", key],
                format!("{what} of zero would refuse every request"),
            ));
        }
    };
    positive("max_connections", server.max_connections > 0, "a number");
    positive(
        "max_concurrent_streams",
        server.max_concurrent_streams > 0,
        "a number",
    );
    positive("max_headers", server.max_headers > 0, "a number");
    positive("header_timeout", !server.header_timeout.is_zero(), "a time");
    positive("idle_timeout", !server.idle_timeout.is_zero(), "a time");
    positive("body_timeout", !server.body_timeout.is_zero(), "a time");
    if server.max_header_bytes.bytes() < 8 << 10 {
        let mistake = Mistake::value(
            at!["server", "max_header_bytes"],
            "a request head needs room for a token",
        );
        mistakes.push(mistake.hint("write \"8KiB\" or more"));
    }
    Limits {
        max_connections: server.max_connections,
        max_connections_per_address: server.max_connections_per_address,
        max_requests: server.max_requests,
        proxy_protocol: server.proxy_protocol,
        header_timeout: server.header_timeout.get(),
        idle_timeout: server.idle_timeout.get(),
        body_timeout: server.body_timeout.get(),
        max_header_bytes: server.max_header_bytes.as_usize(),
        max_headers: server.max_headers,
        max_concurrent_streams: server.max_concurrent_streams,
        drain_delay: server.drain_delay.get(),
        drain_timeout: server.drain_timeout.get(),
    }
}

/// What is known of tokens outlives a reload, unless its bounds have changed.
fn known_tokens(config: &config::TokenCache, env: &Env) -> Arc<KnownTokens> {
    let bounds = Bounds {
        max_bytes: config.max_bytes.bytes(),
        max_entries: config.max_entries,
        refused_entries: config.refused_entries,
        refused_for: config.refused_for.get(),
    };
    let previous = env.previous.as_ref().map(|previous| &previous.tokens);
    match previous.filter(|previous| previous.bounds() == bounds) {
        Some(previous) => Arc::clone(previous),
        None => {
            let store = Arc::clone(&env.store);
            Arc::new(KnownTokens::new(bounds, store, env.metrics.token_cache()))
        }
    }
}

fn access_policy(config: &config::Log) -> AccessPolicy {
    let format = match config.format {
        LogFormat::Json => log::LogFormat::Json,
        LogFormat::Text => log::LogFormat::Text,
    };
    AccessPolicy {
        enabled: config.access,
        format,
        sample: config.sample.fraction(),
    }
}

/// A reference to something that does not exist, with the nearest name that does.
pub(super) fn dangling<'n>(
    at: KeyPath,
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'n String> + Clone,
) -> Mistake {
    let mistake =
        Mistake::value(at, format!("there is no [{kind}.{name}]")).concerns(at![kind, name]);
    match config::suggest(name, known.clone().map(String::as_str)) {
        Some(near) => mistake.hint(format!("did you mean `{near}`?")),
        None => {
            let all: Vec<&str> = known.map(String::as_str).collect();
            match all.as_slice() {
                [] => mistake.hint(format!("add a table [{kind}.{name}]")),
                all => mistake.hint(format!("there is: {}", all.join(", "))),
            }
        }
    }
}
