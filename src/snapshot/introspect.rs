//! `introspect_clients` of `[oauth.*]`: who may ask what a token is worth.

use crate::at;
use crate::config::{self, Mistake, Secret};
use crate::oauth::introspect::Clients;

/// Those who may ask; nobody if mistakes were found.
pub(super) fn clients(
    name: &str,
    surface: &config::OAuthSurface,
    mistakes: &mut Vec<Mistake>,
) -> Clients {
    let table = at!["oauth", name];
    let listed = &surface.introspect_clients;
    if listed.is_empty() && surface.paths.introspect.is_some() {
        let at = table.key("paths").key("introspect");
        let mistake = Mistake::key(at, "there is no introspection endpoint to have a path");
        mistakes.push(mistake.hint("name in introspect_clients who may ask there"));
    }
    let mut found: Vec<(&str, Secret)> = Vec::new();
    for (index, client) in listed.iter().enumerate() {
        let at = table.key("introspect_clients").index(index);
        let id = client.id.as_deref().unwrap_or_default();
        if id.is_empty() {
            let mistake = Mistake::missing(at.key("id"));
            mistakes.push(mistake.hint("write the name by which the client authenticates"));
        } else if found.iter().any(|(other, _)| *other == id) {
            let text = format!("another client is called `{id}` already");
            let hint = "give each client an id of its own, and one secret";
            mistakes.push(Mistake::value(at.key("id"), text).hint(hint));
        }
        match client.secret().resolve(&at) {
            Ok(resolved) => {
                if let Some(warning) = resolved.warning {
                    tracing::warn!("{warning}");
                }
                found.push((id, resolved.secret));
            }
            Err(mistake) => mistakes.push(mistake),
        }
    }
    Clients::new(found.iter().map(|(id, secret)| (*id, secret.expose())))
}
