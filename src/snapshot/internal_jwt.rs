//! `internal_jwt` of `[[route]]`: keys read, minters made or taken over, every mistake noted.

use super::certificates;
use super::compile::Env;
use super::tls::warn_if_open_to_all;
use crate::at;
use crate::config::{self, Config, KeyPath, Mistake};
use crate::internal_jwt::{
    Bounds, MintedTokens, Minter, NoSigningKey, OWN_CLAIMS, PublicKey, PublishedKeys, Rules,
    SigningKey,
};
use rustls::pki_types::PrivateKeyDer;
use std::path::Path;
use std::sync::Arc;

/// What the gateway signs for upstreams: `internal_jwt` of all routes.
#[derive(Debug)]
pub struct Internal {
    /// The public keys, if there are any: what is served at [`super::INTERNAL_KEYS_PATH`].
    pub keys: Option<PublishedKeys>,
    minted: Arc<MintedTokens>,
    /// By the number of the route in the file.
    minters: Vec<Option<Arc<Minter>>>,
}

// === impl Internal ===

impl Internal {
    /// What signs for a route, by its number in the file.
    pub(super) fn minter(&self, route: usize) -> Option<Arc<Minter>> {
        self.minters.get(route)?.clone()
    }
}

/// Routes with the same settings share a minter, and one of the snapshot before is taken over: its
/// tokens are good as long as they were.
pub(super) fn build(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Internal {
    let minted = minted_tokens(&config.token_cache, env);
    let previous = env.previous.iter();
    let mut known: Vec<Arc<Minter>> = previous
        .flat_map(|previous| previous.internal.minters.iter().flatten().cloned())
        .collect();
    let (mut minters, mut signing, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (index, route) in config.route.iter().enumerate() {
        let minter = route.internal_jwt.as_ref().and_then(|settings| {
            let at = at!["route", index, "internal_jwt"];
            others.extend(previous_key(settings, &at, mistakes));
            let rules = rules(config, settings, &at, mistakes);
            let key = signing_key(settings, &at, mistakes);
            let (rules, key) = (rules?, key?);
            signing.push(key.public().clone());
            let same = |known: &&Arc<Minter>| known.is_as(&rules, key.public(), &minted);
            if let Some(known) = known.iter().find(same) {
                return Some(Arc::clone(known));
            }
            let minter = Arc::new(Minter::new(rules, key, Arc::clone(&minted)));
            known.push(Arc::clone(&minter));
            Some(minter)
        });
        minters.push(minter);
    }
    let all: Vec<&PublicKey> = signing.iter().chain(&others).collect();
    Internal {
        keys: (!all.is_empty()).then(|| PublishedKeys::new(all)),
        minted,
        minters,
    }
}

/// What has been minted outlives a reload, unless its bounds have changed.
fn minted_tokens(config: &config::TokenCache, env: &Env) -> Arc<MintedTokens> {
    let bounds = Bounds {
        max_bytes: config.max_bytes.bytes(),
        max_entries: config.max_entries,
    };
    let previous = env.previous.as_ref();
    match previous.map(|previous| &previous.internal.minted) {
        Some(minted) if minted.bounds() == bounds => Arc::clone(minted),
        Some(_) | None => Arc::new(MintedTokens::new(bounds)),
    }
}

/// `None` if there is a mistake in them.
fn rules(
    config: &Config,
    settings: &config::InternalJwt,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<Rules> {
    let before = mistakes.len();
    let audience = settings.audience.as_deref();
    match audience {
        None => mistakes.push(
            Mistake::missing(at.key("audience"))
                .hint("write the name by which the upstream knows itself: a token for one must be none for another"),
        ),
        Some("") => mistakes.push(Mistake::value(at.key("audience"), "an audience has a name")),
        Some(_) => {}
    }
    let mut issuers = config.issuer.iter();
    if settings.issuer.is_empty() {
        mistakes.push(Mistake::value(at.key("issuer"), "an issuer has a name"));
    } else if let Some((name, _)) =
        issuers.find(|(_, issuer)| issuer.url.as_deref() == Some(settings.issuer.as_str()))
    {
        let what = format!("this is the url of [issuer.{name}], which signs with other keys");
        let hint = "write a name that is the gateway's own: \"bonterra-gateway\"";
        mistakes.push(Mistake::value(at.key("issuer"), what).hint(hint));
    }
    let ttl = settings.ttl.get().as_secs();
    if ttl == 0 {
        let what = "a token lives for a whole second at least";
        mistakes.push(Mistake::value(at.key("ttl"), what).hint("write \"5m\""));
    }
    claims(settings, at, mistakes);
    (mistakes.len() == before).then(|| Rules {
        issuer: settings.issuer.as_str().into(),
        audience: audience.unwrap_or_default().into(),
        ttl: i64::try_from(ttl).unwrap_or(i64::MAX),
        claims: settings
            .claims
            .iter()
            .map(|name| name.as_str().into())
            .collect(),
    })
}

fn claims(settings: &config::InternalJwt, at: &KeyPath, mistakes: &mut Vec<Mistake>) {
    for (index, name) in settings.claims.iter().enumerate() {
        let mut refuse = |what: String, hint: &str| {
            let at = at.key("claims").index(index);
            mistakes.push(Mistake::value(at, what).hint(hint));
        };
        if name.is_empty() {
            refuse("a claim has a name".to_owned(), "remove it, or name one");
        } else if OWN_CLAIMS.contains(&name.as_str()) {
            refuse(
                format!("`{name}` is set by the gateway itself"),
                "remove it: iss, aud, iat, exp and jti are those of the new token",
            );
        } else if settings
            .claims
            .iter()
            .take(index)
            .any(|other| other == name)
        {
            refuse(format!("`{name}` is in this list already"), "remove it");
        }
    }
}

fn signing_key(
    settings: &config::InternalJwt,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<SigningKey> {
    let at = at.key("key_file");
    match &settings.key_file {
        Some(path) => read(path, &at, mistakes),
        None => {
            let hint = "name a PEM file made by `openssl genpkey -algorithm ed25519`";
            mistakes.push(Mistake::missing(at).hint(hint));
            None
        }
    }
}

fn previous_key(
    settings: &config::InternalJwt,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<PublicKey> {
    let path = settings.previous_key_file.as_ref()?;
    let key = read(path, &at.key("previous_key_file"), mistakes)?;
    Some(key.public().clone())
}

/// Reads a key; `None` if that is a mistake.
fn read(path: &Path, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Option<SigningKey> {
    let der = certificates::key(path, at, mistakes)?;
    warn_if_open_to_all(at, path);
    let shown = path.display();
    let mistake = match der {
        PrivateKeyDer::Pkcs8(der) => match SigningKey::from_pkcs8(der.secret_pkcs8_der()) {
            Ok(key) => return Some(key),
            Err(NoSigningKey) => Mistake::value(
                at.clone(),
                format!("the key in {shown} is neither on P-256 nor on Ed25519"),
            )
            .hint("make one with `openssl genpkey -algorithm ed25519`"),
        },
        _ => Mistake::value(at.clone(), format!("the key in {shown} is not in PKCS#8"))
            .hint("turn it into a file that begins with -----BEGIN PRIVATE KEY----- with `openssl pkcs8 -topk8 -nocrypt`"),
    };
    mistakes.push(mistake);
    None
}
