//! `tokens = "opaque"` of `[oauth.*]`: the handles of each such surface, made or taken over.

use super::compile::Env;
use crate::at;
use crate::config::{self, Config, Grant, Mistake, SecretSource, Tokens};
use crate::oauth::Handles;
use crate::oauth::handles::{Home, Settings};
use crate::store::Redis;
use crate::store::sealed::SealingKey;
use std::sync::Arc;
use std::time::Duration;

/// What makes a key.
const MAKE_ONE: &str = "make one with `openssl rand -base64 32`";

/// The handles of each surface that gives them out.
pub(super) fn build(
    config: &Config,
    env: &Env,
    redis: Option<&Arc<Redis>>,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Arc<Handles>> {
    let is_opaque = |surface: &config::OAuthSurface| surface.tokens == Tokens::Opaque;
    let is_needed = config.oauth.values().any(is_opaque);
    let key = key(config, is_needed, mistakes).map(Arc::new);
    // Without what has been configured nothing else takes its place; the mistake is noted.
    let home = match (&config.store, redis, &key) {
        (None, _, _) => Some(Home::Memory),
        (Some(_), Some(redis), Some(key)) => Some(Home::Redis(redis, key)),
        (Some(_), _, _) => None,
    };
    let mut all = Vec::new();
    for (name, surface) in &config.oauth {
        if !is_opaque(surface) {
            unused(name, surface, mistakes);
            continue;
        }
        let settings = settings(name, surface, mistakes);
        if let (Some(settings), Some(home)) = (settings, home) {
            all.extend(of(name, surface, settings, home, config, env, mistakes));
        }
    }
    all
}

/// The handles of a surface. They outlive a reload, unless they are kept in another place, or are those of
/// another issuer now.
fn of(
    name: &str,
    surface: &config::OAuthSurface,
    settings: Settings,
    home: Home<'_>,
    config: &Config,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Handles>> {
    let issuer = config.issuer.get(surface.issuer.as_deref()?)?;
    let issuer = issuer.url.as_deref()?;
    let before = env.previous.iter().flat_map(|before| &before.opaque);
    let mut before = before.filter_map(|mount| mount.handles.as_ref());
    if let Some(known) = before.find(|known| known.are_of(name, issuer, home)) {
        return Some(Arc::new(known.with(settings)));
    }
    let clock = env.clock.clone();
    match Handles::new(&name.into(), issuer, settings, home, clock, &env.metrics) {
        Ok(handles) => Some(Arc::new(handles)),
        Err(error) => {
            let what = format!("handles cannot be made: {error}");
            mistakes.push(Mistake::value(at!["oauth", name, "tokens"], what));
            None
        }
    }
}

fn settings(
    name: &str,
    surface: &config::OAuthSurface,
    mistakes: &mut Vec<Mistake>,
) -> Option<Settings> {
    let given = &surface.handles;
    let (at, before) = (at!["oauth", name, "handles"], mistakes.len());
    if given.max_entries == 0 {
        let mistake = Mistake::value(at.key("max_entries"), "no handle could be given out");
        mistakes.push(mistake.hint("write 100000, or tokens = \"forward\""));
    }
    if given.refresh_lifetime.get() < Duration::from_secs(1) {
        let what = "a refresh handle is good for a second at least";
        mistakes.push(Mistake::value(at.key("refresh_lifetime"), what).hint("write \"30d\""));
    }
    let machines_only = surface
        .grants
        .iter()
        .all(|grant| *grant == Grant::ClientCredentials);
    if !given.lifetime.is_zero() && machines_only {
        let what = "a token is renewed with a refresh token, which no grant of this surface gives";
        let mistake = Mistake::value(at.key("lifetime"), what);
        mistakes.push(mistake.hint("remove it, or enable authorization_code"));
    }
    let seconds = |time: config::Dur| i64::try_from(time.get().as_secs()).unwrap_or(i64::MAX);
    (mistakes.len() == before).then(|| Settings {
        lifetime: seconds(given.lifetime),
        refresh_lifetime: seconds(given.refresh_lifetime),
        max_entries: given.max_entries,
    })
}

/// Notes settings of handles where none are given out.
fn unused(name: &str, surface: &config::OAuthSurface, mistakes: &mut Vec<Mistake>) {
    if surface.handles != config::HandleSettings::default() {
        let what = "clients of this surface get tokens and no handles";
        let mistake = Mistake::key(at!["oauth", name, "handles"], what);
        mistakes.push(mistake.hint("remove it, or write tokens = \"opaque\""));
    }
}

/// The key of what is kept in Redis. `None` if there is none, or if that is a mistake.
fn key(config: &Config, is_needed: bool, mistakes: &mut Vec<Mistake>) -> Option<SealingKey> {
    let file = config.store.as_ref()?.encryption_key_file.as_deref();
    let at = at!["store", "encryption_key_file"];
    if file.is_none() {
        if is_needed {
            let what = Mistake::missing(at);
            mistakes.push(what.hint(format!(
                "a surface with tokens = \"opaque\" keeps tokens in Redis, sealed with this key; {MAKE_ONE}"
            )));
        }
        return None;
    }
    let source = SecretSource {
        key: "encryption_key",
        inline: None,
        file,
        env: None,
    };
    let resolved = match source.resolve(&at!["store"]) {
        Ok(resolved) => resolved,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    if let Some(warning) = resolved.warning {
        tracing::warn!("{warning}");
    }
    match SealingKey::read(resolved.secret.expose()) {
        Ok(key) => Some(key),
        Err(error) => {
            mistakes.push(Mistake::value(at, error.to_string()).hint(MAKE_ONE));
            None
        }
    }
}
