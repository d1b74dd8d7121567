//! `[issuer.*]`: rules compiled, key stores made or taken over.

use super::compile::Env;
use super::{Provider, issuer_rules, opaque};
use crate::at;
use crate::authn::Issuer;
use crate::authn::verify::IssuerRules;
use crate::config::{self, Config, Mistake};
use crate::introspection::{Asking, Introspection};
use crate::keys::fetch::Source;
use crate::keys::{CacheFile, Endpoints, KeyPolicy, KeyStore, folder_of};
use crate::outbound::{Outbound, check_url};
use crate::telemetry::metrics::IssuerMetrics;
use http::{HeaderValue, Uri};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a request waits for keys beyond the issuer's own timeout: discovery and key set.
const PATIENCE: Duration = Duration::from_millis(500);

pub(super) fn build(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Vec<Provider> {
    let mut providers: Vec<Provider> = Vec::new();
    for (name, issuer) in &config.issuer {
        let before = mistakes.len();
        let url = issuer_url(name, issuer, mistakes);
        if let Some(twin) = providers
            .iter()
            .find(|other| Some(&*other.issuer.rules.issuer) == url.as_deref())
        {
            let text = format!("[issuer.{}] has this url already", twin.issuer.rules.name);
            mistakes.push(Mistake::value(at!["issuer", name, "url"], text));
        }
        let rules = issuer_rules::rules(name, issuer, url.as_deref().unwrap_or_default(), mistakes);
        let source = source(
            name,
            issuer,
            config,
            url.as_deref().unwrap_or_default(),
            env,
            mistakes,
        );
        let credential = opaque::credential(name, issuer, mistakes);
        if let Some(source) = source
            && before == mistakes.len()
        {
            providers.push(provider(issuer, rules, source, credential, env));
        }
    }
    cache_files(config, mistakes);
    providers
}

/// Checks that every `cache_file` can be one, and is one issuer's alone.
fn cache_files(config: &Config, mistakes: &mut Vec<Mistake>) {
    let mut seen: Vec<(PathBuf, &str)> = Vec::new();
    for (name, issuer) in &config.issuer {
        let path = &issuer.jwks.cache_file;
        if path.as_os_str().is_empty() {
            continue;
        }
        let at = at!["issuer", name, "jwks", "cache_file"];
        let Some(file) = path.file_name().filter(|_| !path.is_dir()) else {
            let mistake = Mistake::value(at, "cache_file is a folder");
            mistakes.push(
                mistake.hint(
                    "name a file in it, e.g. \"/var/lib/bonterra-gateway/bonterra.keys.json\"",
                ),
            );
            continue;
        };
        // Two spellings of one path are one file.
        let place = match folder_of(path).canonicalize() {
            Ok(folder) => folder.join(file),
            Err(error) => {
                let folder = folder_of(path).display();
                let mistake =
                    Mistake::value(at, format!("the folder {folder} cannot be used: {error}"));
                mistakes.push(mistake.hint("create it, so that the gateway's user and nobody else may write there; a relative path begins at the gateway's working directory"));
                continue;
            }
        };
        match seen.iter().find(|(other, _)| *other == place) {
            Some((_, other)) => {
                let text = format!("[issuer.{other}] keeps its keys in this file");
                mistakes.push(Mistake::value(at, text).hint("give each issuer a file of its own"));
            }
            None => seen.push((place, name)),
        }
    }
}

/// Takes over from the snapshot before what has not changed: the whole issuer, or its key store if
/// that is filled in the same way, or at least the keys if they come from the same place. An issuer
/// may be down at the time of a reload, so keys at hand are never thrown away.
///
/// `credential` is there if the tokens are opaque. What such an issuer has said is bound to the
/// whole issuer, so that it counts no more once a rule or the credential has changed.
fn provider(
    config: &config::Issuer,
    rules: IssuerRules,
    source: Source,
    credential: Option<HeaderValue>,
    env: &Env,
) -> Provider {
    let asking = credential.map(|authorization| Asking {
        endpoint: source.introspection.clone(),
        authorization,
        timeout: config.timeout.get(),
    });
    let authorities = config
        .ca_file
        .as_ref()
        .and_then(|path| std::fs::read(path).ok());
    let known = env
        .previous
        .iter()
        .flat_map(|previous| &previous.providers)
        .find(|known| known.source.name == source.name && known.config.url == config.url);
    let same_fetch = known.filter(|known| {
        fetched_alike(&known.config, config)
            && known.authorities == authorities
            && known.source.needs_token_endpoint == source.needs_token_endpoint
    });
    let same_issuer = |known: &&Provider| {
        let introspection = known.issuer.introspection.as_ref();
        known.issuer.rules == rules
            && introspection.map(|introspection| introspection.asking()) == asking.as_ref()
    };
    if let Some(known) = same_fetch.filter(same_issuer) {
        return Provider {
            config: config.clone(),
            ..known.clone()
        };
    }
    let (keys, source) = match (same_fetch, known) {
        (Some(known), _) => (Arc::clone(&known.issuer.keys), known.source.clone()),
        (None, Some(known)) if found_alike(&known.config, config) => {
            let keys = KeyStore::new(policy(config));
            keys.inherit(&known.issuer.keys, |found| {
                revised(found, &known.source, &source)
            });
            (Arc::new(keys), source)
        }
        (None, _) => (Arc::new(KeyStore::new(policy(config))), source),
    };
    let metrics = env.metrics.issuer(&rules.name);
    let introspection = asking.map(|asking| {
        let (keys, outbound) = (Arc::clone(&keys), source.outbound.clone());
        let metrics = IssuerMetrics::clone(&metrics);
        Arc::new(Introspection::new(asking, keys, outbound, metrics))
    });
    let issuer = Arc::new(Issuer {
        rules,
        keys,
        introspection,
        metrics,
    });
    Provider {
        issuer,
        source,
        config: config.clone(),
        authorities,
    }
}

/// Whether both fetch the same keys in the same way.
fn fetched_alike(a: &config::Issuer, b: &config::Issuer) -> bool {
    (&a.jwks_uri, &a.token_endpoint, &a.timeout, &a.jwks)
        == (&b.jwks_uri, &b.token_endpoint, &b.timeout, &b.jwks)
        && (a.opaque, &a.introspection_endpoint) == (b.opaque, &b.introspection_endpoint)
        && (&a.authorization_endpoint, &a.userinfo_endpoint)
            == (&b.authorization_endpoint, &b.userinfo_endpoint)
        && a.revocation_endpoint == b.revocation_endpoint
}

/// Whether what was found for one is of use to the other: keys, or where to ask about tokens.
fn found_alike(a: &config::Issuer, b: &config::Issuer) -> bool {
    let place = |issuer: &config::Issuer| match issuer.opaque {
        true => issuer.introspection_endpoint.clone(),
        false => issuer.jwks_uri.clone(),
    };
    a.opaque == b.opaque && place(a) == place(b)
}

/// The endpoints as far as they are known under a changed file: what it says, else what discovery
/// has found. What only the file before said is forgotten.
fn revised(found: &Endpoints, before: &Source, now: &Source) -> Endpoints {
    let either = |now: &Option<Uri>, before: &Option<Uri>, found: &Option<Uri>| {
        let found = found.clone().filter(|_| before.is_none());
        now.clone().or(found)
    };
    Endpoints {
        jwks: either(&now.jwks, &before.jwks, &found.jwks),
        token: either(&now.token, &before.token, &found.token),
        introspection: either(
            &now.introspection,
            &before.introspection,
            &found.introspection,
        ),
        authorization: either(
            &now.authorization,
            &before.authorization,
            &found.authorization,
        ),
        userinfo: either(&now.userinfo, &before.userinfo, &found.userinfo),
        revocation: either(&now.revocation, &before.revocation, &found.revocation),
        document: found.document.clone(),
    }
}

fn policy(config: &config::Issuer) -> KeyPolicy {
    let jwks = &config.jwks;
    KeyPolicy {
        ttl: jwks.ttl.get(),
        min_ttl: jwks.min_ttl.get(),
        max_ttl: jwks.max_ttl.get(),
        max_stale: jwks.max_stale.get(),
        cooldown: jwks.cooldown.get(),
        patience: config.timeout.get().saturating_mul(2) + PATIENCE,
    }
}

fn issuer_url(name: &str, issuer: &config::Issuer, mistakes: &mut Vec<Mistake>) -> Option<String> {
    let at = at!["issuer", name, "url"];
    let Some(url) = &issuer.url else {
        mistakes.push(
            Mistake::missing(at).hint(
                "write the exact `iss` of the tokens, e.g. \"https://auth.bonterra.network/\"",
            ),
        );
        return None;
    };
    uri(url, at, mistakes).map(|_| url.clone())
}

fn uri(text: &str, at: config::KeyPath, mistakes: &mut Vec<Mistake>) -> Option<Uri> {
    let checked = text
        .parse::<Uri>()
        .map_err(|error| error.to_string())
        .and_then(|uri| match check_url(&uri) {
            Ok(()) => Ok(uri),
            Err(error) => Err(error.to_string()),
        });
    match checked {
        Ok(uri) => Some(uri),
        Err(why) => {
            mistakes.push(Mistake::value(at, why));
            None
        }
    }
}

/// Whether its token endpoint is asked: for clients of a surface, or for the gateway itself.
fn gives_tokens(name: &str, config: &Config) -> bool {
    let surfaces = config.oauth.values();
    let tokens = config
        .upstream
        .values()
        .filter_map(|upstream| upstream.token.as_ref());
    surfaces
        .map(|surface| &surface.issuer)
        .chain(tokens.map(|token| &token.issuer))
        .any(|issuer| issuer.as_deref() == Some(name))
}

fn source(
    name: &str,
    issuer: &config::Issuer,
    config: &Config,
    url: &str,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Option<Source> {
    let mut optional = |key: &str, text: &Option<String>| {
        text.as_ref()
            .and_then(|text| uri(text, at!["issuer", name, key], mistakes))
    };
    let jwks = optional("jwks_uri", &issuer.jwks_uri);
    let token = optional("token_endpoint", &issuer.token_endpoint);
    let introspection = optional("introspection_endpoint", &issuer.introspection_endpoint);
    let authorization = optional("authorization_endpoint", &issuer.authorization_endpoint);
    let userinfo = optional("userinfo_endpoint", &issuer.userinfo_endpoint);
    let revocation = optional("revocation_endpoint", &issuer.revocation_endpoint);
    let outbound = match Outbound::new(issuer.ca_file.as_deref(), issuer.timeout.get()) {
        Ok(outbound) => outbound,
        Err(error) => {
            mistakes.push(Mistake::value(
                at!["issuer", name, "ca_file"],
                error.to_string(),
            ));
            return None;
        }
    };
    Some(Source {
        name: name.into(),
        issuer: url.into(),
        jwks,
        token,
        needs_token_endpoint: gives_tokens(name, config),
        introspection,
        authorization,
        userinfo,
        revocation,
        opaque: issuer.opaque,
        outbound,
        metrics: env.metrics.issuer(&name.into()),
        clock: env.clock.clone(),
        cache_file: Some(&issuer.jwks.cache_file)
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| CacheFile::new(path.clone(), url)),
    })
}
