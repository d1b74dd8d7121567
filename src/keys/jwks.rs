//! A JWK set (RFC 7517 §5) as verification keys; what cannot verify a token is left out.

use super::VerificationKey;
use crate::identity::UnixSeconds;
use crate::strict_json;
use bytes::Bytes;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Keys beyond this number in one set are not looked at.
const MAX_KEYS: usize = 64;

/// Without a `kid`, at most this many fitting keys are tried.
const MAX_CANDIDATES: usize = 4;

/// The usable keys of one issuer at one time.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    by_kid: HashMap<Box<str>, usize>,
    /// When the document was fetched.
    pub fetched_at: UnixSeconds,
    /// Until when it need not be fetched again; who fetches it knows.
    pub fresh_until: UnixSeconds,
    /// The document as the issuer sent it, if these keys are fresh from there; who fetches it knows.
    pub sent: Option<Bytes>,
}

/// Why a document or a key in it is of no use; for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwksError(String);

/// A parsed document: the keys, and a remark for every key that was left out.
#[derive(Debug)]
pub struct Parsed {
    /// The usable keys.
    pub set: KeySet,
    /// One sentence for each key that was left out.
    pub dropped: Vec<String>,
}

/// The document. Its keys are read one by one, so that a bad one takes no other with it; a second
/// `keys` is an error, because two readers could see different sets.
#[derive(Deserialize)]
struct Document<'d> {
    #[serde(borrow)]
    keys: Vec<&'d RawValue>,
}

// === impl KeySet ===

impl KeySet {
    /// The key of this id.
    pub fn find(&self, kid: &str) -> Option<&Arc<VerificationKey>> {
        self.by_kid.get(kid).and_then(|at| self.keys.get(*at))
    }

    /// The keys to try for a token that names none (RFC 7515 §4.1.4 makes `kid` optional).
    pub fn candidates(&self, algorithm: Algorithm) -> impl Iterator<Item = &Arc<VerificationKey>> {
        self.keys
            .iter()
            .filter(move |key| key.fits(algorithm))
            .take(MAX_CANDIDATES)
    }

    /// Whether this very key is still published.
    pub fn holds(&self, key: &Arc<VerificationKey>) -> bool {
        self.keys.iter().any(|own| Arc::ptr_eq(own, key))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys as a JWK set that says nothing but what they are.
    pub fn to_json(&self) -> Value {
        let keys: Vec<&Value> = self.keys.iter().map(|key| key.jwk()).collect();
        json!({ "keys": keys })
    }

    /// What the issuer publishes: its own document, for others may have a use for keys in it that the
    /// gateway has none for. Of keys that were kept over a restart, what is known of them.
    pub fn document(&self) -> Bytes {
        match &self.sent {
            Some(sent) => sent.clone(),
            None => self.to_json().to_string().into(),
        }
    }

    /// Takes over the keys of an earlier set that are still the same, so that what was verified
    /// with them stays recognisable by address.
    pub fn keep_known(&mut self, earlier: &Self) {
        for key in &mut self.keys {
            if let Some(known) = earlier.keys.iter().find(|known| known.same_as(key)) {
                *key = Arc::clone(known);
            }
        }
    }

    /// Adds a key. Of several with one id only the first is used: which of them signed a token
    /// would be anybody's guess, and the ones before must not suffer from a later mistake.
    fn push(&mut self, key: VerificationKey) -> Result<(), String> {
        if let Some(kid) = key.kid() {
            if self.by_kid.contains_key(kid) {
                return Err("its kid is there already".to_owned());
            }
            self.by_kid.insert(kid.into(), self.keys.len());
        }
        self.keys.push(Arc::new(key));
        Ok(())
    }
}

// === impl JwksError ===

impl fmt::Display for JwksError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for JwksError {}

/// Reads a JWK set and keeps the keys that can verify tokens.
///
/// # Errors
/// If the document is no JWK set, or if no key in it is usable: an empty set is never worth
/// replacing a good one.
pub fn parse(document: &[u8], fetched_at: UnixSeconds) -> Result<Parsed, JwksError> {
    let Document { keys } = outline(document)?;
    let mut set = KeySet {
        fetched_at,
        fresh_until: fetched_at,
        ..KeySet::default()
    };
    let mut dropped = Vec::new();
    for (at, jwk) in keys.iter().enumerate().take(MAX_KEYS) {
        let outcome = strict_json::object(jwk.get().as_bytes())
            .ok_or_else(|| "it is no object, or one that has a member twice".to_owned())
            .and_then(|jwk| VerificationKey::read(&jwk))
            .and_then(|key| set.push(key));
        if let Err(why) = outcome {
            dropped.push(format!("key {at} is not used: {why}"));
        }
    }
    if keys.len() > MAX_KEYS {
        let more = keys.len() - MAX_KEYS;
        dropped.push(format!(
            "{more} keys after the first {MAX_KEYS} are not used"
        ));
    }
    if set.is_empty() {
        return Err(JwksError(format!(
            "none of its {} keys can verify a token: {}",
            keys.len(),
            dropped.join("; ")
        )));
    }
    Ok(Parsed { set, dropped })
}

/// Finds the keys in the document. The errors quote nothing of it: there might be a secret in it.
fn outline(document: &[u8]) -> Result<Document<'_>, JwksError> {
    let outline = serde_json::from_slice(document).map_err(|error| match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => {
            JwksError(format!("the document is no JSON: {error}"))
        }
        Category::Data => JwksError("the document has no array `keys`, or two of them".to_owned()),
    })?;
    // serde would take an array for a struct as well.
    match document.trim_ascii_start().first() {
        Some(b'{') => Ok(outline),
        _ => Err(JwksError("the document is no JSON object".to_owned())),
    }
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
