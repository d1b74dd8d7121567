//! `[upstream.*.token]`: what the gateway asks for as a client of an issuer, made or taken over.

use super::Provider;
use super::compile::{Env, dangling};
use crate::at;
use crate::config::{self, Config, KeyPath, Mistake};
use crate::oauth::Quotas;
use crate::upstream::{Asking, OwnToken, Source};
use std::sync::Arc;

/// The token of one upstream, if it has one. It is that of the snapshot before if it would ask for the
/// same, as the same client with the same secret, in the same place: so it outlives other changes.
pub(super) fn token(
    name: &str,
    config: &Config,
    providers: &[Provider],
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<OwnToken>> {
    let table = config.upstream.get(name)?.token.as_ref()?;
    let at = at!["upstream", name, "token"];
    let issuer = issuer(table, config, &at, mistakes);
    let secret = match table.secret().resolve(&at) {
        Ok(resolved) => {
            if let Some(warning) = resolved.warning {
                tracing::warn!("{warning}");
            }
            Some(resolved.secret)
        }
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    };
    let client = table.client_id.as_deref().filter(|id| !id.is_empty());
    if client.is_none() {
        let missing = Mistake::missing(at.key("client_id"));
        mistakes.push(missing.hint("name the client that the gateway is at the issuer"));
    }
    for (key, value) in [("audience", &table.audience), ("scope", &table.scope)] {
        if value
            .as_deref()
            .is_some_and(|value| value.trim().is_empty())
        {
            let mistake = Mistake::value(at.key(key), format!("`{key}` is empty"));
            mistakes.push(mistake.hint("remove it"));
        }
    }
    let (issuer, client, secret) = (issuer?, client?, secret?);
    // Without a provider the issuer's own mistakes have been noted.
    let provider = providers
        .iter()
        .find(|provider| *provider.issuer.rules.name == *issuer)?;
    let rules = &provider.issuer.rules;
    let asking = Asking::new(
        &rules.name,
        client,
        secret.expose(),
        table.audience.as_deref(),
        table.scope.as_deref(),
    );
    let source = Source {
        keys: Arc::clone(&provider.issuer.keys),
        outbound: provider.outbound().clone(),
        quotas: Quotas::new(&rules.name, &env.metrics),
    };
    let previous = env.previous.iter().flat_map(|before| &before.upstreams);
    let previous = previous
        .filter(|before| *before.name == *name)
        .find_map(|before| before.token.as_ref());
    if let Some(known) = previous.filter(|known| known.is_as(&asking, &source)) {
        return Some(Arc::clone(known));
    }
    let (clock, metrics) = (env.clock.clone(), &env.metrics);
    let own = OwnToken::new(&name.into(), asking, source, clock, metrics);
    Some(Arc::new(own))
}

/// The name of the issuer, if there is such a one.
fn issuer<'a>(
    table: &'a config::UpstreamToken,
    config: &Config,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<&'a str> {
    let at = at.key("issuer");
    let Some(name) = &table.issuer else {
        mistakes.push(Mistake::missing(at).hint("name one of the [issuer.*] tables"));
        return None;
    };
    if !config.issuer.contains_key(name) {
        mistakes.push(dangling(at, "issuer", name, config.issuer.keys()));
        return None;
    }
    Some(name)
}

/// A request has room for one token: that of the upstream would take the place of the route's.
pub(super) fn check_route(
    config: &Config,
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) {
    let upstream = route
        .upstream
        .as_ref()
        .map(|name| (name, config.upstream.get(name)));
    if let Some((name, Some(upstream))) = upstream
        && upstream.token.is_some()
        && route.internal_jwt.is_some()
    {
        let text = format!("[upstream.{name}.token] takes the place of this token");
        let mistake = Mistake::key(at.key("internal_jwt"), text);
        mistakes.push(mistake.hint("remove one of the two, or give the route another upstream"));
    }
}
