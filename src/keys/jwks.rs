//! A JWK set (RFC 7517 §5) as verification keys; what cannot verify a token is left out.

use crate::identity::UnixSeconds;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Keys beyond this number in one set are not looked at.
const MAX_KEYS: usize = 64;

/// Without a `kid`, at most this many fitting keys are tried.
const MAX_CANDIDATES: usize = 4;

/// What a key can verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyFamily {
    /// RSA of 2048 to 8192 bits: RS256/384/512, PS256/384/512.
    Rsa,
    /// P-256: ES256.
    P256,
    /// P-384: ES384.
    P384,
    /// Ed25519: EdDSA.
    Ed25519,
}

/// One public key of an issuer.
pub struct VerificationKey {
    kid: Option<Box<str>>,
    family: KeyFamily,
    /// `alg` of the JWK, when it pins one.
    algorithm: Option<Algorithm>,
    /// SHA-256 over the members that make the key, to tell the same key in a later document.
    thumbprint: [u8; 32],
    decoding: DecodingKey,
}

/// The usable keys of one issuer at one time.
#[derive(Debug, Default)]
pub struct KeySet {
    keys: Vec<Arc<VerificationKey>>,
    by_kid: HashMap<Box<str>, usize>,
    /// When the document was fetched.
    pub fetched_at: UnixSeconds,
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

// === impl VerificationKey ===

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} key {}",
            self.family,
            self.kid.as_deref().unwrap_or("without kid")
        )
    }
}

impl VerificationKey {
    /// Whether a token of this algorithm may be checked with this key (RFC 8725 §3.1).
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        let family = match algorithm {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 => KeyFamily::Rsa,
            Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => KeyFamily::Rsa,
            Algorithm::ES256 => KeyFamily::P256,
            Algorithm::ES384 => KeyFamily::P384,
            Algorithm::EdDSA => KeyFamily::Ed25519,
            _ => return false,
        };
        self.family == family && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// The key in the form that `jsonwebtoken` takes.
    pub fn decoding(&self) -> &DecodingKey {
        &self.decoding
    }

    fn same_as(&self, other: &Self) -> bool {
        self.thumbprint == other.thumbprint
            && self.kid == other.kid
            && self.algorithm == other.algorithm
    }
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

    /// Takes over the keys of an earlier set that are still the same, so that what was verified
    /// with them stays recognisable by address.
    pub fn keep_known(&mut self, earlier: &Self) {
        for key in &mut self.keys {
            if let Some(known) = earlier.keys.iter().find(|known| known.same_as(key)) {
                *key = Arc::clone(known);
            }
        }
    }

    fn push(&mut self, key: VerificationKey) -> Result<(), String> {
        if let Some(kid) = &key.kid {
            if self.by_kid.contains_key(kid) {
                return Err("its kid is there already".to_owned());
            }
            self.by_kid.insert(kid.clone(), self.keys.len());
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
    let document: Value = serde_json::from_slice(document)
        .map_err(|error| JwksError(format!("the document is no JSON: {error}")))?;
    let keys = document
        .get("keys")
        .and_then(Value::as_array)
        .ok_or_else(|| JwksError("the document has no array `keys`".to_owned()))?;
    let mut set = KeySet {
        fetched_at,
        ..KeySet::default()
    };
    let mut dropped = Vec::new();
    for (at, jwk) in keys.iter().enumerate().take(MAX_KEYS) {
        let outcome = read_key(jwk).and_then(|key| set.push(key));
        if let Err(why) = outcome {
            dropped.push(format!("key {at} is not used: {why}"));
        }
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

fn read_key(jwk: &Value) -> Result<VerificationKey, String> {
    let jwk = jwk.as_object().ok_or("it is no object")?;
    if ["d", "p", "q", "dp", "dq", "qi", "k"]
        .iter()
        .any(|part| jwk.contains_key(*part))
    {
        return Err("it has private parts, which no one should publish".to_owned());
    }
    for_signatures(jwk)?;
    let algorithm = pinned_algorithm(jwk)?;
    let (family, decoding, parts) = match text(jwk, "kty")? {
        "RSA" => rsa(jwk)?,
        "EC" => elliptic(jwk)?,
        "OKP" => edwards(jwk)?,
        other => return Err(format!("key type `{}` verifies no token", printable(other))),
    };
    let kid = jwk.get("kid").and_then(Value::as_str).map(Into::into);
    let mut thumbprint = [0; 32];
    thumbprint.copy_from_slice(digest(&SHA256, parts.as_bytes()).as_ref());
    let key = VerificationKey {
        kid,
        family,
        algorithm,
        thumbprint,
        decoding,
    };
    match algorithm {
        Some(algorithm) if !key.fits(algorithm) => Err("its alg does not fit its kty".to_owned()),
        _ => Ok(key),
    }
}

/// RFC 7517 §4.2 and §4.3: a key meant for something else is not taken.
fn for_signatures(jwk: &Map<String, Value>) -> Result<(), String> {
    match jwk.get("use") {
        None => {}
        Some(Value::String(usage)) if usage == "sig" => {}
        Some(_) => return Err("its use is not `sig`".to_owned()),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|op| op == "verify") => Ok(()),
        Some(_) => Err("its key_ops do not have `verify`".to_owned()),
    }
}

fn pinned_algorithm(jwk: &Map<String, Value>) -> Result<Option<Algorithm>, String> {
    match jwk.get("alg") {
        None => Ok(None),
        Some(Value::String(name)) => match name.parse() {
            Ok(algorithm) => Ok(Some(algorithm)),
            Err(_) => Err(format!("its alg `{}` is not supported", printable(name))),
        },
        Some(_) => Err("its alg is no string".to_owned()),
    }
}

type Material = (KeyFamily, DecodingKey, String);

fn rsa(jwk: &Map<String, Value>) -> Result<Material, String> {
    let (n, e) = (text(jwk, "n")?, text(jwk, "e")?);
    let modulus = bytes(n, "n")?;
    let bits = modulus.len() * 8
        - modulus
            .first()
            .map_or(0, |byte| byte.leading_zeros() as usize);
    if !(2048..=8192).contains(&bits) {
        return Err(format!("its modulus has {bits} bits, not 2048 to 8192"));
    }
    let exponent = bytes(e, "e")?;
    let odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
    if !odd || exponent.len() > 5 || exponent.as_slice() <= [1].as_slice() {
        return Err("its exponent is not an odd number from 3 to 2^33".to_owned());
    }
    let key = DecodingKey::from_rsa_components(n, e).map_err(|error| error.to_string())?;
    Ok((KeyFamily::Rsa, key, format!("RSA {n} {e}")))
}

fn elliptic(jwk: &Map<String, Value>) -> Result<Material, String> {
    let (x, y) = (text(jwk, "x")?, text(jwk, "y")?);
    let (family, width) = match text(jwk, "crv")? {
        "P-256" => (KeyFamily::P256, 32),
        "P-384" => (KeyFamily::P384, 48),
        other => return Err(format!("curve `{}` is not supported", printable(other))),
    };
    if bytes(x, "x")?.len() != width || bytes(y, "y")?.len() != width {
        return Err("its coordinates do not have the curve's width".to_owned());
    }
    let key = DecodingKey::from_ec_components(x, y).map_err(|error| error.to_string())?;
    Ok((family, key, format!("EC {width} {x} {y}")))
}

fn edwards(jwk: &Map<String, Value>) -> Result<Material, String> {
    let x = text(jwk, "x")?;
    if text(jwk, "crv")? != "Ed25519" || bytes(x, "x")?.len() != 32 {
        return Err("only Ed25519 keys of 32 bytes are supported".to_owned());
    }
    let key = DecodingKey::from_ed_components(x).map_err(|error| error.to_string())?;
    Ok((KeyFamily::Ed25519, key, format!("OKP {x}")))
}

fn text<'j>(jwk: &'j Map<String, Value>, name: &str) -> Result<&'j str, String> {
    jwk.get(name)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("it has no `{name}`"))
}

fn bytes(text: &str, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| format!("its `{name}` is not base64url"))
}

/// At most a few printable characters of somebody else's text, for the log.
fn printable(text: &str) -> String {
    text.chars()
        .take(20)
        .filter(|c| c.is_ascii_graphic())
        .collect()
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
