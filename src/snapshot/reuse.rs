//! `[oauth.*.cache]`: what surfaces keep of tokens, made or taken over.

use super::compile::Env;
use crate::at;
use crate::config::{self, Config, Mistake};
use crate::oauth::Reuse;
use crate::oauth::reuse::{Rules, Settings};
use std::sync::Arc;

/// What each surface gives again that has it enabled.
pub(super) fn build(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Vec<Arc<Reuse>> {
    let enabled = config.oauth.iter().filter(|(_, it)| it.cache.enabled);
    enabled
        .filter_map(|(name, surface)| of(name, surface, env, mistakes))
        .collect()
}

/// Tokens outlive a reload, unless the settings have changed. Where they were asked for is part of
/// what they are kept under, so that a changed issuer starts afresh.
fn of(
    name: &str,
    surface: &config::OAuthSurface,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Reuse>> {
    let cache = &surface.cache;
    let before = mistakes.len();
    let at = at!["oauth", name, "cache"];
    if cache.max_entries == 0 {
        let mistake = Mistake::value(at.key("max_entries"), "nothing could be kept");
        mistakes.push(mistake.hint("write enabled = false to reuse no tokens"));
    }
    if cache.reuse.fraction() <= 0.0 {
        let mistake = Mistake::value(at.key("reuse"), "no token could be reused");
        mistakes.push(mistake.hint("write enabled = false to reuse no tokens"));
    }
    if !surface.grants.contains(&config::Grant::ClientCredentials) {
        let text = "only tokens of the grant client_credentials are reused, which is not enabled";
        mistakes.push(Mistake::value(at.key("enabled"), text));
    }
    let quota_low = cache.quota_low.map(config::Percent::fraction);
    if quota_low.is_some_and(|share| share <= 0.0) {
        let text = "no quota is ever lower than that";
        let mistake = Mistake::value(at.key("quota_low"), text);
        mistakes.push(mistake.hint("write \"20%\", or remove it to take no notice of quotas"));
    }
    if before != mistakes.len() {
        return None;
    }
    let least = cache.min_remaining.get();
    let settings = Settings {
        max_entries: cache.max_entries,
        rules: Rules {
            share: cache.reuse.fraction(),
            // Whole seconds, as lifetimes are.
            min_remaining: least.as_secs() + u64::from(least.subsec_nanos() > 0),
        },
        quota_low,
    };
    let mut previous = env.previous.iter().flat_map(|before| &before.reuse);
    let same = |reuse: &&Arc<Reuse>| reuse.surface() == name && reuse.settings() == settings;
    if let Some(known) = previous.find(same) {
        return Some(Arc::clone(known));
    }
    match Reuse::new(&name.into(), settings, env.clock.clone(), &env.metrics) {
        Ok(reuse) => Some(Arc::new(reuse)),
        Err(error) => {
            mistakes.push(Mistake::value(
                at,
                format!("tokens cannot be kept: {error}"),
            ));
            None
        }
    }
}
