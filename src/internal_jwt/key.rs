//! The keys that the gateway signs with, and what is published of them.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::fmt;

/// A private key that tokens are signed with: by ES256 or EdDSA, whichever it is for. It shows its id
/// and nothing else.
pub struct SigningKey {
    pair: Pair,
    /// The header of every token that it signs, encoded.
    header: Box<str>,
    public: PublicKey,
}

enum Pair {
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// The public half of a [`SigningKey`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Its thumbprint (RFC 7638), base64url: the `kid`.
    kid: Box<str>,
    /// `ES256` or `EdDSA`.
    algorithm: &'static str,
    /// As it is published (RFC 7517 §4).
    jwk: Value,
}

/// A key that cannot be signed with: it is neither on P-256 nor on Ed25519.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoSigningKey;

/// The public keys as verifiers get them: a JWK set (RFC 7517 §5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedKeys(Bytes);

// === impl SigningKey ===

impl SigningKey {
    /// Reads a key in PKCS#8 (RFC 5958), DER.
    ///
    /// # Errors
    /// If it is for neither ES256 nor EdDSA with Ed25519 (RFC 7518 §3.4, RFC 8037 §3.1).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, NoSigningKey> {
        if let Ok(pair) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der) {
            let public = PublicKey::p256(pair.public_key().as_ref()).ok_or(NoSigningKey)?;
            return Ok(Self::new(Pair::P256(pair), public));
        }
        let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| NoSigningKey)?;
        let public = PublicKey::ed25519(pair.public_key().as_ref());
        Ok(Self::new(Pair::Ed25519(pair), public))
    }

    fn new(pair: Pair, public: PublicKey) -> Self {
        let header = json!({ "typ": "JWT", "alg": public.algorithm, "kid": public.kid });
        Self {
            pair,
            header: URL_SAFE_NO_PAD.encode(header.to_string()).into(),
            public,
        }
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A JWT of these claims, in compact serialisation (RFC 7515 §7.1). `None` if the library fails,
    /// which it does for want of memory or randomness.
    pub(super) fn sign(&self, claims: &str) -> Option<String> {
        let mut token = String::with_capacity(self.header.len() + claims.len() * 4 / 3 + 96);
        token.push_str(&self.header);
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let signature = match &self.pair {
            Pair::P256(pair) => pair.sign(&SystemRandom::new(), token.as_bytes()),
            Pair::Ed25519(pair) => pair.try_sign(token.as_bytes()),
        };
        let signature = signature.ok()?;
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut token);
        Some(token)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SigningKey({} {})",
            self.public.algorithm, self.public.kid
        )
    }
}

// === impl PublicKey ===

impl PublicKey {
    /// A point of the curve, uncompressed (SEC 1 §2.3.3).
    fn p256(point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        let [x, y] = [x, y].map(|number| URL_SAFE_NO_PAD.encode(number));
        let members = json!({ "crv": "P-256", "kty": "EC", "x": x, "y": y });
        Some(Self::of(members, "ES256"))
    }

    fn ed25519(point: &[u8]) -> Self {
        let x = URL_SAFE_NO_PAD.encode(point);
        Self::of(json!({ "crv": "Ed25519", "kty": "OKP", "x": x }), "EdDSA")
    }

    /// `members`: those that RFC 7638 §3.2 and RFC 8037 §2 require, in the order of their names. That
    /// order is kept.
    fn of(mut members: Value, algorithm: &'static str) -> Self {
        let thumbprint = digest(&SHA256, members.to_string().as_bytes());
        let kid = URL_SAFE_NO_PAD.encode(thumbprint);
        if let Value::Object(jwk) = &mut members {
            jwk.insert("kid".to_owned(), json!(kid));
            jwk.insert("alg".to_owned(), json!(algorithm));
            jwk.insert("use".to_owned(), json!("sig"));
        }
        Self {
            kid: kid.into(),
            algorithm,
            jwk: members,
        }
    }

    /// What tokens name it by.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What it is for: `ES256` or `EdDSA`.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm
    }
}

// === impl PublishedKeys ===

impl PublishedKeys {
    /// The document with these keys, each once.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k PublicKey>) -> Self {
        let mut listed: Vec<&PublicKey> = Vec::new();
        for key in keys {
            if listed.iter().all(|other| other.kid != key.kid) {
                listed.push(key);
            }
        }
        let jwks: Vec<&Value> = listed.into_iter().map(|key| &key.jwk).collect();
        Self(json!({ "keys": jwks }).to_string().into())
    }

    /// The document, JSON.
    pub fn document(&self) -> &Bytes {
        &self.0
    }
}
