//! The issuer's keys: made, published, rotated, withdrawn; and the signing of tokens.
//!
//! RSA keys take a noticeable time to make, so the simulators of a process share them; the key ids are each simulator's own.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::algorithm::Algorithm;

/// The shared key that no simulator ever publishes.
const UNPUBLISHED_SLOT: usize = 0;
/// The shared key behind the RSA algorithms other than a simulator's own.
const FAMILY_SLOT: usize = 1;
const FIRST_SLOT: usize = 2;

/// Which key signs a minted token.
#[derive(Clone)]
pub enum KeyChoice {
    /// The key that the issuer signs with now.
    Current,
    /// The key that the issuer signs with after the next rotation; published already.
    Next,
    /// The key before the current one, withdrawn or not; the current one if there was no rotation.
    Previous,
    /// A key of the issuer's algorithm that is never in the JWKS.
    Unpublished,
    /// The key of one algorithm; in the JWKS if `AuthOptions::all_algorithms` is set, or if it is the issuer's own.
    Algorithm(Algorithm),
    /// HS256 with these bytes: for tokens that pass a public key off as a secret.
    Secret(Vec<u8>),
    /// No signature, `alg: none`.
    Unsigned,
}

/// A private key with its id.
pub(super) struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    pair: Pair,
}

enum Pair {
    Rsa(Arc<rsa::KeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

/// All keys of one simulator.
pub(super) struct KeyRing {
    /// Makes the key ids unique among simulators.
    prefix: String,
    algorithm: Algorithm,
    publish_all: bool,
    slot: usize,
    made: usize,
    current: Arc<SigningKey>,
    next: Arc<SigningKey>,
    /// Published still, newest first.
    previous: Vec<Arc<SigningKey>>,
    /// The newest of those that were withdrawn.
    withdrawn: Option<Arc<SigningKey>>,
    unpublished: Option<Arc<SigningKey>>,
    families: BTreeMap<Algorithm, Arc<SigningKey>>,
}

// === impl SigningKey ===

impl SigningKey {
    pub(super) fn make(kid: String, algorithm: Algorithm, slot: usize) -> io::Result<Self> {
        let failed = |_| io::Error::other("the simulated issuer could not make a key");
        let pair = match algorithm {
            Algorithm::ES256 => Pair::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)
                    .map_err(failed)?,
            ),
            Algorithm::ES384 => Pair::Ec(
                EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)
                    .map_err(failed)?,
            ),
            Algorithm::EdDSA => Pair::Ed(Ed25519KeyPair::generate().map_err(failed)?),
            _ => Pair::Rsa(shared_rsa(slot).map_err(failed)?),
        };
        Ok(Self {
            kid,
            algorithm,
            pair,
        })
    }

    pub(super) fn kid(&self) -> &str {
        &self.kid
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// The signature as JWS wants it: ECDSA as `r || s`.
    fn sign(&self, message: &[u8]) -> io::Result<Vec<u8>> {
        let random = SystemRandom::new();
        let failed = |_| io::Error::other("the simulated issuer could not sign");
        match (&self.pair, self.algorithm.rsa_encoding()) {
            (Pair::Rsa(pair), Some(encoding)) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
            (Pair::Rsa(_), None) => Err(io::Error::other(
                "an RSA key with an algorithm that is not RSA",
            )),
            (Pair::Ec(pair), _) => Ok(pair
                .sign(&random, message)
                .map_err(failed)?
                .as_ref()
                .to_vec()),
            (Pair::Ed(pair), _) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// Whether `signature` over `message` is this key's.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(self.algorithm.verification(), self.public_bytes())
            .verify(message, signature)
            .is_ok()
    }

    fn public_bytes(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ec(pair) => pair.public_key().as_ref(),
            Pair::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    /// The public key as the issuer publishes it (RFC 7517).
    pub(super) fn jwk(&self) -> Value {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // There is no certificate to take a thumbprint of; the public key's own has the same shape.
        let x5t =
            base64(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, self.public_bytes()).as_ref());
        let (alg, kid) = (self.algorithm.as_str(), &self.kid);
        match &self.pair {
            Pair::Rsa(pair) => {
                let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "alg": alg, "kty": "RSA", "use": "sig", "n": base64(&public.n), "e": base64(&public.e), "kid": kid, "x5t": x5t })
            }
            Pair::Ec(pair) => {
                // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                json!({ "alg": alg, "kty": "EC", "use": "sig", "crv": curve, "x": base64(x), "y": base64(y), "kid": kid, "x5t": x5t })
            }
            Pair::Ed(pair) => {
                let x = base64(pair.public_key().as_ref());
                json!({ "alg": alg, "kty": "OKP", "use": "sig", "crv": "Ed25519", "x": x, "kid": kid, "x5t": x5t })
            }
        }
    }
}

// === impl KeyRing ===

impl KeyRing {
    /// May take a second if the shared keys are not there yet.
    pub(super) fn new(slot: usize, algorithm: Algorithm, publish_all: bool) -> io::Result<Self> {
        let prefix = super::random_text(6)?;
        let slot = FIRST_SLOT + slot;
        let current = Arc::new(SigningKey::make(format!("{prefix}-1"), algorithm, slot)?);
        let next = Arc::new(SigningKey::make(
            format!("{prefix}-2"),
            algorithm,
            slot + 1,
        )?);
        let (previous, families) = (Vec::new(), BTreeMap::new());
        let mut ring = Self {
            prefix,
            algorithm,
            publish_all,
            slot,
            made: 2,
            current,
            next,
            previous,
            withdrawn: None,
            unpublished: None,
            families,
        };
        if publish_all {
            for algorithm in Algorithm::ALL {
                ring.family(algorithm)?;
            }
        }
        Ok(ring)
    }

    /// The key that signs now.
    pub(super) fn current(&self) -> Arc<SigningKey> {
        Arc::clone(&self.current)
    }

    /// The next key signs from now on; the old one stays published.
    pub(super) fn rotate(&mut self) -> io::Result<()> {
        let kid = format!("{}-{}", self.prefix, self.made + 1);
        let fresh = Arc::new(SigningKey::make(
            kid,
            self.algorithm,
            self.slot + self.made,
        )?);
        self.made += 1;
        let current = std::mem::replace(&mut self.next, fresh);
        self.previous
            .insert(0, std::mem::replace(&mut self.current, current));
        Ok(())
    }

    /// Keys before the current one are no longer published.
    pub(super) fn withdraw_previous(&mut self) {
        if let Some(newest) = self.previous.drain(..).next() {
            self.withdrawn = Some(newest);
        }
    }

    /// The published key of this id.
    pub(super) fn published(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.all_published().find(|key| key.kid == kid)
    }

    /// The JWKS document.
    pub(super) fn jwks(&self) -> Value {
        json!({ "keys": self.all_published().map(|key| key.jwk()).collect::<Vec<_>>() })
    }

    fn all_published(&self) -> impl Iterator<Item = &Arc<SigningKey>> {
        let families = self.families.values().filter(|_| self.publish_all);
        [&self.current, &self.next]
            .into_iter()
            .chain(&self.previous)
            .chain(families)
    }

    /// How a token of this choice is signed.
    pub(super) fn signer(&mut self, choice: &KeyChoice) -> io::Result<Signer> {
        Ok(match choice {
            KeyChoice::Current => Signer::Key(self.current()),
            KeyChoice::Next => Signer::Key(Arc::clone(&self.next)),
            KeyChoice::Previous => Signer::Key(self.previous()),

            KeyChoice::Unpublished => Signer::Key(self.unpublished()?),
            KeyChoice::Algorithm(algorithm) => Signer::Key(self.family(*algorithm)?),
            KeyChoice::Secret(secret) => Signer::Secret(secret.clone()),
            KeyChoice::Unsigned => Signer::None,
        })
    }

    fn previous(&self) -> Arc<SigningKey> {
        let previous = self.previous.first().or(self.withdrawn.as_ref());
        Arc::clone(previous.unwrap_or(&self.current))
    }

    fn unpublished(&mut self) -> io::Result<Arc<SigningKey>> {
        if let Some(key) = &self.unpublished {
            return Ok(Arc::clone(key));
        }
        let kid = format!("{}-unpublished", self.prefix);
        let key = Arc::new(SigningKey::make(kid, self.algorithm, UNPUBLISHED_SLOT)?);
        self.unpublished = Some(Arc::clone(&key));
        Ok(key)
    }

    fn family(&mut self, algorithm: Algorithm) -> io::Result<Arc<SigningKey>> {
        if algorithm == self.algorithm {
            return Ok(self.current());
        }
        if let Some(key) = self.families.get(&algorithm) {
            return Ok(Arc::clone(key));
        }
        let kid = format!("{}-{}", self.prefix, algorithm.as_str());
        let key = Arc::new(SigningKey::make(kid, algorithm, FAMILY_SLOT)?);
        self.families.insert(algorithm, Arc::clone(&key));
        Ok(key)
    }
}

/// What signs one token.
pub(super) enum Signer {
    Key(Arc<SigningKey>),
    Secret(Vec<u8>),
    None,
}

// === impl Signer ===

impl Signer {
    /// `alg`, `typ` and `kid` as the issuer writes them, changed by `header`'s fields; a `null` there removes the field.
    /// The signature does not depend on what the header says.
    pub(super) fn token(&self, header: &Value, claims: &Value) -> io::Result<String> {
        let mut fields = match self {
            Self::Key(key) => {
                json!({ "alg": key.algorithm().as_str(), "typ": "JWT", "kid": key.kid() })
            }
            Self::Secret(_) => json!({ "alg": "HS256", "typ": "JWT" }),
            Self::None => json!({ "alg": "none", "typ": "JWT" }),
        };
        if let (Some(fields), Some(changes)) = (fields.as_object_mut(), header.as_object()) {
            for (name, value) in changes {
                match value {
                    Value::Null => drop(fields.shift_remove(name)),
                    value => drop(fields.insert(name.clone(), value.clone())),
                }
            }
        }
        self.sign_raw(&fields.to_string(), &claims.to_string())
    }

    /// Signs any two texts, JSON or not.
    pub(super) fn sign_raw(&self, header: &str, payload: &str) -> io::Result<String> {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header),
            URL_SAFE_NO_PAD.encode(payload)
        );
        let signature = match self {
            Self::Key(key) => key.sign(message.as_bytes())?,
            Self::Secret(secret) => hmac::sign(
                &hmac::Key::new(hmac::HMAC_SHA256, secret),
                message.as_bytes(),
            )
            .as_ref()
            .to_vec(),
            Self::None => Vec::new(),
        };
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// The process's RSA key of this number, made when first asked for.
fn shared_rsa(slot: usize) -> Result<Arc<rsa::KeyPair>, aws_lc_rs::error::Unspecified> {
    static POOL: Mutex<BTreeMap<usize, Arc<rsa::KeyPair>>> = Mutex::new(BTreeMap::new());
    let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pair) = pool.get(&slot) {
        return Ok(Arc::clone(pair));
    }
    let pair = Arc::new(rsa::KeyPair::generate(KeySize::Rsa2048)?);
    pool.insert(slot, Arc::clone(&pair));
    Ok(pair)
}
