//! `[oauth.*]`: surfaces with their issuers, where they are mounted.

use super::compile::{Env, dangling};
use super::routes::{Table, insert};
use super::{Mount, Provider, Target, introspect};
use crate::at;
use crate::config::{self, Config, KeyPath, Mistake};
use crate::oauth::introspect::Clients;
use crate::oauth::{Endpoint, ErrorFormat, Grant, Handles, Quotas, Refresh, Reuse, Surface};
use crate::rejection::REALM;
use crate::request::canonical_path;
use crate::route::Methods;
use std::sync::Arc;

/// What surfaces give their clients, by the names of the surfaces.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    /// Tokens that are given again.
    pub reuse: &'a [Arc<Reuse>],
    /// Answers to refreshes.
    pub refresh: &'a [Arc<Refresh>],
    /// Handles in place of tokens.
    pub handles: &'a [Arc<Handles>],
}

pub(super) fn mount(
    config: &Config,
    env: &Env,
    providers: &[Provider],
    given: Given<'_>,
    table: &mut Table,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Arc<Mount>> {
    let mut mounts = Vec::new();
    for (name, surface) in &config.oauth {
        let paths = paths(name, surface, mistakes);
        let clients = introspect::clients(name, surface, mistakes);
        let at = at!["oauth", name, "issuer"];
        let Some(issuer) = &surface.issuer else {
            mistakes.push(Mistake::missing(at).hint("name one of the [issuer.*] tables"));
            continue;
        };
        if !config.issuer.contains_key(issuer) {
            mistakes.push(dangling(at, "issuer", issuer, config.issuer.keys()));
            continue;
        }
        if surface.grants.is_empty() {
            mistakes.push(Mistake::value(
                at!["oauth", name, "grants"],
                "without grants no token can be had here",
            ));
        }
        // Without a provider the issuer's own mistakes have been noted.
        let provider = providers
            .iter()
            .find(|provider| *provider.issuer.rules.name == **issuer);
        let (Some(provider), Some(paths)) = (provider, paths) else {
            continue;
        };
        let [token, authorize, userinfo, revoke, introspect] = paths;
        let asked = !clients.is_empty();
        let mount = Arc::new(mounted(name, surface, provider, given, clients, env));
        let other = |endpoint| Target::Endpoint(Arc::clone(&mount), endpoint);
        let before = mistakes.len();
        let introspect = asked.then(|| (introspect, other(Endpoint::Introspect)));
        let others = [
            (token, Target::Token(Arc::clone(&mount))),
            (authorize, other(Endpoint::Authorize)),
            (userinfo, other(Endpoint::Userinfo)),
            (revoke, other(Endpoint::Revoke)),
        ];
        for (path, target) in others.into_iter().chain(introspect) {
            // Once is enough to say that two surfaces share a prefix.
            if before == mistakes.len() {
                let at = at!["oauth", name, "prefix"];
                insert(
                    table,
                    &[],
                    &path,
                    &Methods::default(),
                    &target,
                    at,
                    mistakes,
                );
            }
        }
        mounts.push(mount);
    }
    mounts
}

/// The prefixes of surfaces whose errors come in the envelope.
pub(super) fn envelopes(config: &Config) -> Vec<Box<str>> {
    let surfaces = config.oauth.values();
    surfaces
        .filter(|surface| surface.errors == config::ErrorFormat::Envelope)
        .map(|surface| surface.prefix.trim_end_matches('/').into())
        .collect()
}

/// Serves the issuers' own documents below each surface, and at the root those of one: of the surface
/// at the default prefix, or of the only issuer that there is.
pub(super) fn publish_documents(config: &Config, mounts: &[Arc<Mount>], table: &mut Table) {
    let prefix = |mount: &Arc<Mount>| {
        let surface = config.oauth.get(&*mount.surface.name);
        surface.map_or("", |surface| surface.prefix.trim_end_matches('/'))
    };
    let mut serve = |prefix: &str, mount: &Arc<Mount>| {
        for endpoint in [Endpoint::Discovery, Endpoint::Jwks] {
            let path = format!("{prefix}/.well-known/{}", endpoint.leaf());
            let target = Target::Endpoint(Arc::clone(mount), endpoint);
            // A route of that very path is the operator's own document, which comes first.
            let _ = table.insert(&[], &path, &Methods::default(), &target);
        }
    };
    for mount in mounts {
        serve(prefix(mount), mount);
    }
    let issuer = |mount: &Arc<Mount>| Arc::clone(&mount.provider.issuer.rules.name);
    let default = config::OAuthSurface::default().prefix;
    let at_default = mounts.iter().find(|mount| prefix(mount) == default);
    let only = mounts.first().filter(|first| {
        let name = issuer(first);
        mounts.iter().all(|mount| issuer(mount) == name)
    });
    if let Some(mount) = at_default.or(only) {
        serve("", mount);
    }
}

fn mounted(
    name: &str,
    surface: &config::OAuthSurface,
    provider: &Provider,
    given: Given<'_>,
    introspect_clients: Clients,
    env: &Env,
) -> Mount {
    let name: Arc<str> = name.into();
    let grant = |grant: &config::Grant| match grant {
        config::Grant::ClientCredentials => Grant::ClientCredentials,
        config::Grant::AuthorizationCode => Grant::AuthorizationCode,
        config::Grant::RefreshToken => Grant::RefreshToken,
        config::Grant::Password => Grant::Password,
    };
    let errors = match surface.errors {
        config::ErrorFormat::OAuth => ErrorFormat::OAuth,
        config::ErrorFormat::Envelope => ErrorFormat::Envelope,
    };
    Mount {
        metrics: Arc::new(env.metrics.route(&format!("oauth.{name}").into())),
        reuse: given
            .reuse
            .iter()
            .find(|of| of.surface() == &*name)
            .cloned(),
        refresh: given
            .refresh
            .iter()
            .find(|of| of.surface() == &*name)
            .cloned(),
        handles: given
            .handles
            .iter()
            .find(|of| of.surface() == &*name)
            .cloned(),
        quotas: Quotas::new(&provider.issuer.rules.name, &env.metrics),
        introspect_clients,
        surface: Surface {
            name,
            grants: surface.grants.iter().map(grant).collect(),
            max_body: surface.max_body.bytes(),
            realm: REALM.into(),
            errors,
            forward_client_address: surface.forward_client_address,
        },
        provider: provider.clone(),
    }
}

/// The paths of token, authorization, userinfo, revocation and introspection endpoint; `None` if one
/// of them is none.
fn paths(
    name: &str,
    surface: &config::OAuthSurface,
    mistakes: &mut Vec<Mistake>,
) -> Option<[String; 5]> {
    let mut plain = |at: KeyPath, path: &str| {
        let fine =
            !path.contains(['*', '{', '}']) && canonical_path(path).ok().as_deref() == Some(path);
        if !fine {
            let mistake = Mistake::value(at, "this is no plain path");
            mistakes.push(mistake.hint("write \"/oauth\""));
        }
        fine
    };
    let prefix = surface.prefix.trim_end_matches('/');
    let below = |leaf: &str| format!("{prefix}/{leaf}");
    let mut fine = plain(at!["oauth", name, "prefix"], &below("x"));
    let mut path = |key: &str, given: &Option<String>| match given {
        Some(path) => {
            fine &= plain(at!["oauth", name, "paths", key], path);
            path.clone()
        }
        None => below(key),
    };
    let given = &surface.paths;
    let paths = [
        path("token", &given.token),
        path("authorize", &given.authorize),
        path("userinfo", &given.userinfo),
        path("revoke", &given.revoke),
        path("introspect", &given.introspect),
    ];
    fine.then_some(paths)
}
