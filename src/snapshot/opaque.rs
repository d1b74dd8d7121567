//! `opaque = true` of `[issuer.*]`: as whom its tokens are asked about, and on which routes.

use super::Provider;
use crate::at;
use crate::authn::Issuer;
use crate::config::{self, Auth, KeyPath, Mistake};
use crate::introspection;
use http::HeaderValue;
use std::sync::Arc;

/// The gateway's credential for an issuer of opaque tokens. `None` for other issuers, and if
/// mistakes were found.
pub(super) fn credential(
    name: &str,
    issuer: &config::Issuer,
    mistakes: &mut Vec<Mistake>,
) -> Option<HeaderValue> {
    let table = at!["issuer", name];
    without_effect(issuer, &table, mistakes);
    if !issuer.opaque {
        return None;
    }
    let id = issuer.client_id.as_deref().unwrap_or_default();
    if id.is_empty() {
        let mistake = Mistake::missing(table.key("client_id"));
        mistakes.push(mistake.hint("opaque tokens are asked about as a client of the issuer"));
    }
    match issuer.secret().resolve(&table) {
        Ok(resolved) => {
            if let Some(warning) = resolved.warning {
                tracing::warn!("{warning}");
            }
            Some(introspection::basic(id, resolved.secret.expose()))
        }
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

/// Notes keys that say something about the other kind of issuer. Those that have a default can be
/// told only where they differ from it.
fn without_effect(issuer: &config::Issuer, table: &KeyPath, mistakes: &mut Vec<Mistake>) {
    let default = config::Issuer::default();
    let secret = issuer.secret();
    let keys = [
        ("jwks_uri", true, issuer.jwks_uri.is_some()),
        ("algorithms", true, issuer.algorithms != default.algorithms),
        (
            "token_types",
            true,
            issuer.token_types != default.token_types,
        ),
        ("jwks", true, issuer.jwks != default.jwks),
        ("client_id", false, issuer.client_id.is_some()),
        ("client_secret", false, secret.inline.is_some()),
        ("client_secret_file", false, secret.file.is_some()),
        ("client_secret_env", false, secret.env.is_some()),
    ];
    for (key, for_keys, there) in keys {
        if there && for_keys == issuer.opaque {
            let when = if issuer.opaque { "with" } else { "without" };
            let text = format!("`{key}` has no effect {when} opaque = true");
            mistakes.push(Mistake::key(table.key(key), text).hint("remove it"));
        }
    }
}

/// The issuer that a route has asked about tokens which tell nothing by themselves.
pub(super) fn of_route(
    route: &config::Route,
    providers: &[Provider],
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Issuer>> {
    if route.auth == Auth::None {
        return None;
    }
    let accepted = |issuer: &&Arc<Issuer>| {
        let mut names = route.issuers.iter();
        route.issuers.is_empty() || names.any(|name| **name == *issuer.rules.name)
    };
    let mut opaque = providers
        .iter()
        .map(|provider| &provider.issuer)
        .filter(|issuer| issuer.introspection.is_some())
        .filter(accepted);
    let first = opaque.next()?;
    if let Some(second) = opaque.next() {
        let (one, other) = (&first.rules.name, &second.rules.name);
        let text = format!(
            "this route accepts opaque tokens of both [issuer.{one}] and [issuer.{other}], and such a token does not say whose it is"
        );
        mistakes.push(
            Mistake::value(at.key("issuers"), text)
                .hint(format!("name one of them: issuers = [\"{one}\"]")),
        );
    }
    Some(Arc::clone(first))
}
