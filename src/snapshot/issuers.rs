//! `[issuer.*]`: rules compiled, key stores made or taken over.

use super::Provider;
use super::compile::Env;
use crate::at;
use crate::authn::Issuer;
use crate::authn::verify::IssuerRules;
use crate::config::{self, Alg, Config, Mistake};
use crate::headers;
use crate::identity::ClaimRef;
use crate::keys::fetch::Source;
use crate::keys::{CacheFile, KeyPolicy, KeyStore, folder_of};
use crate::outbound::{Outbound, check_url};
use http::{HeaderName, Uri};
use jsonwebtoken::Algorithm;
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
        let rules = rules(name, issuer, url.as_deref().unwrap_or_default(), mistakes);
        let source = source(
            name,
            issuer,
            config,
            url.as_deref().unwrap_or_default(),
            env,
            mistakes,
        );
        if let Some(source) = source
            && before == mistakes.len()
        {
            providers.push(provider(issuer, rules, source, env));
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
fn provider(config: &config::Issuer, rules: IssuerRules, source: Source, env: &Env) -> Provider {
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
    if let Some(known) = same_fetch.filter(|known| known.issuer.rules == rules) {
        return Provider {
            config: config.clone(),
            ..known.clone()
        };
    }
    let (keys, source) = match (same_fetch, known) {
        (Some(known), _) => (Arc::clone(&known.issuer.keys), known.source.clone()),
        (None, Some(known)) if known.config.jwks_uri == config.jwks_uri => {
            let keys = KeyStore::new(policy(config));
            keys.inherit(&known.issuer.keys);
            (Arc::new(keys), source)
        }
        (None, _) => (Arc::new(KeyStore::new(policy(config))), source),
    };
    let metrics = env.metrics.issuer(&rules.name);
    let issuer = Arc::new(Issuer {
        rules,
        keys,
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

fn rules(
    name: &str,
    issuer: &config::Issuer,
    url: &str,
    mistakes: &mut Vec<Mistake>,
) -> IssuerRules {
    let mut needed = |key: &str, empty: bool, hint: &str| {
        if empty {
            let at = at!["issuer", name, key];
            mistakes.push(
                Mistake::value(at, format!("`{key}` of [issuer.{name}] is empty")).hint(hint),
            );
        }
    };
    needed(
        "audiences",
        issuer.audiences.is_empty(),
        "name the API that the tokens are meant for, e.g. [\"https://api.bonterra.network\"]",
    );
    needed(
        "algorithms",
        issuer.algorithms.is_empty(),
        "write [\"RS256\"]",
    );
    needed(
        "token_types",
        issuer.token_types.is_empty(),
        "write [\"JWT\", \"at+jwt\"]",
    );
    needed(
        "max_token_bytes",
        issuer.max_token_bytes.bytes() == 0,
        "write \"8KiB\"",
    );
    if issuer.jwks.min_ttl.get() < Duration::from_secs(1) {
        let at = at!["issuer", name, "jwks", "min_ttl"];
        let mistake = Mistake::value(at, "keys would be fetched without a pause");
        mistakes.push(mistake.hint("write \"1s\" or more"));
    }
    if issuer.jwks.min_ttl.get() > issuer.jwks.max_ttl.get() {
        mistakes.push(Mistake::value(
            at!["issuer", name, "jwks", "min_ttl"],
            "min_ttl is longer than max_ttl",
        ));
    }
    let seconds = |time: config::Dur| i64::try_from(time.get().as_secs()).unwrap_or(i64::MAX);
    IssuerRules {
        name: name.into(),
        issuer: url.into(),
        audiences: issuer
            .audiences
            .iter()
            .map(|audience| audience.as_str().into())
            .collect(),
        algorithms: issuer
            .algorithms
            .iter()
            .map(|algorithm| algorithm_of(*algorithm))
            .collect(),
        token_types: issuer
            .token_types
            .iter()
            .map(|typ| typ.as_str().into())
            .collect(),
        leeway: seconds(issuer.leeway),
        max_token_bytes: issuer.max_token_bytes.as_usize(),
        max_lifetime: seconds(issuer.max_lifetime),
        headers: claim_headers(name, issuer, mistakes),
    }
}

fn claim_headers(
    name: &str,
    issuer: &config::Issuer,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(HeaderName, ClaimRef)> {
    let mut headers: Vec<(HeaderName, ClaimRef)> = Vec::new();
    for (header, claim) in &issuer.headers {
        let at = at!["issuer", name, "headers", header];
        let Ok(parsed) = HeaderName::from_bytes(header.as_bytes()) else {
            mistakes.push(
                Mistake::key(at, format!("`{header}` is no header name"))
                    .hint("letters, digits and `-`, e.g. X-Bonterra-Auth-Id"),
            );
            continue;
        };
        if headers::is_reserved(&parsed) {
            mistakes.push(
                Mistake::key(
                    at,
                    format!("`{header}` has a meaning of its own and cannot carry a claim"),
                )
                .hint("choose a name that begins with X-"),
            );
            continue;
        }
        let claim = match ClaimRef::parse(claim) {
            Ok(claim) => claim,
            Err(why) => {
                mistakes.push(Mistake::value(at, why));
                continue;
            }
        };
        if headers
            .iter()
            .any(|(other, _)| headers::same_name(other.as_str(), parsed.as_str()))
        {
            mistakes.push(Mistake::key(at, format!("`{header}` is mapped twice")));
            continue;
        }
        headers.push((parsed, claim));
    }
    headers
}

fn algorithm_of(algorithm: Alg) -> Algorithm {
    match algorithm {
        Alg::RS256 => Algorithm::RS256,
        Alg::RS384 => Algorithm::RS384,
        Alg::RS512 => Algorithm::RS512,
        Alg::PS256 => Algorithm::PS256,
        Alg::PS384 => Algorithm::PS384,
        Alg::PS512 => Algorithm::PS512,
        Alg::ES256 => Algorithm::ES256,
        Alg::ES384 => Algorithm::ES384,
        Alg::EdDSA => Algorithm::EdDSA,
    }
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
        needs_token_endpoint: config
            .oauth
            .values()
            .any(|surface| surface.issuer.as_deref() == Some(name)),
        outbound,
        metrics: env.metrics.issuer(&name.into()),
        clock: env.clock.clone(),
        cache_file: Some(&issuer.jwks.cache_file)
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| CacheFile::new(path.clone(), url)),
    })
}
