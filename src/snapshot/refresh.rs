//! `[oauth.*] refresh_window`: what surfaces know of refreshes, made or taken over.

use super::compile::Env;
use crate::at;
use crate::config::{self, Config, Mistake};
use crate::oauth::Refresh;
use std::sync::Arc;
use std::time::Duration;

/// Longer, and whoever has stolen a refresh token would not be noticed by its second use.
const LONGEST: Duration = Duration::from_secs(60);

/// What each surface knows that serves the grant.
pub(super) fn build(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Vec<Arc<Refresh>> {
    let served = |surface: &config::OAuthSurface| {
        let mut grants = surface.grants.iter();
        grants.any(|grant| *grant == config::Grant::RefreshToken)
    };
    let surfaces = config.oauth.iter().filter(|(_, surface)| served(surface));
    surfaces
        .filter_map(|(name, surface)| of(name, surface.refresh_window.get(), env, mistakes))
        .collect()
}

/// Exchanges and answers outlive a reload, unless the window has changed.
fn of(
    name: &str,
    window: Duration,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Refresh>> {
    let at = at!["oauth", name, "refresh_window"];
    if window > LONGEST {
        let text = "a stolen refresh token could be used for that long without being noticed";
        mistakes.push(Mistake::value(at, text).hint("write \"1m\" or less"));
        return None;
    }
    let mut previous = env.previous.iter().flat_map(|before| &before.refresh);
    let same = |known: &&Arc<Refresh>| known.surface() == name && known.window() == window;
    if let Some(known) = previous.find(same) {
        return Some(Arc::clone(known));
    }
    match Refresh::new(&name.into(), window) {
        Ok(refresh) => Some(Arc::new(refresh)),
        Err(error) => {
            let text = format!("refreshes cannot be told apart: {error}");
            mistakes.push(Mistake::value(at, text));
            None
        }
    }
}
