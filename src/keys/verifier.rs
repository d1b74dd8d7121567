//! Public keys that are parsed once and then only used.
//!
//! `jsonwebtoken::crypto::verify` parses the key anew for every signature, which is a good part of
//! what an RSA check costs, and the verifiers that its provider makes (`Box<dyn JwtVerifier>`) may
//! not be shared by threads, so they cannot be kept beside a key. This keeps the same library's
//! parsed form instead: the algorithms are those of `jsonwebtoken`'s AWS-LC provider, one by one,
//! and a test holds that both say the same of every signature.

use crate::identity::TokenDigest;
use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    RsaPublicKeyComponents, VerificationAlgorithm,
};
use jsonwebtoken::Algorithm;
use std::fmt;

/// The numbers that make a public key, big-endian, as a JWK has them (RFC 7518 §6, RFC 8037 §2).
#[derive(Debug, Clone, Copy)]
pub(super) enum PublicKey<'k> {
    /// RSA of 2048 to 8192 bits, without leading zeros: RS256/384/512, PS256/384/512.
    Rsa { n: &'k [u8], e: &'k [u8] },
    /// A point of a curve, uncompressed (SEC 1 §2.3.3): ES256 or ES384.
    Elliptic { curve: Curve, point: &'k [u8] },
    /// 32 bytes: EdDSA.
    Ed25519(&'k [u8]),
}

/// An elliptic curve of RFC 7518 §6.2.1.1.
#[derive(Debug, Clone, Copy)]
pub(super) enum Curve {
    P256,
    P384,
}

/// One public key, ready for every algorithm that it serves.
pub(super) struct Verifiers(Box<[(Algorithm, ParsedPublicKey)]>);

type Served = (Algorithm, &'static dyn VerificationAlgorithm);

const RSA: [Served; 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];
const P256: [Served; 1] = [(Algorithm::ES256, &ECDSA_P256_SHA256_FIXED)];
const P384: [Served; 1] = [(Algorithm::ES384, &ECDSA_P384_SHA384_FIXED)];
const EDWARDS: [Served; 1] = [(Algorithm::EdDSA, &ED25519)];

/// What a signature covers, with its SHA-256: hashed once, for several signatures and for being
/// known by. The two belong together, so only [`Message::of`] makes one.
#[derive(Clone, Copy)]
pub struct Message<'t> {
    text: &'t str,
    digest: TokenDigest,
}

// === impl Verifiers ===

impl Verifiers {
    /// Parses a key, for one algorithm alone if `pinned` names one.
    ///
    /// # Errors
    /// One sentence: the key is not what it should be (a point off its curve, an even modulus), or
    /// cannot serve the algorithm.
    pub(super) fn parse(key: PublicKey<'_>, pinned: Option<Algorithm>) -> Result<Self, String> {
        match key {
            PublicKey::Rsa { n, e } => {
                // By way of DER, because only what is read from there is checked as a key.
                let der = RsaPublicKeyComponents { n, e }.as_der();
                let der = der.map_err(|_| "its n and e make no RSA key")?;
                let wrong = "its n and e make no sound RSA key";
                Self::of(&RSA, der.as_ref(), pinned, wrong)
            }
            PublicKey::Elliptic { curve, point } => {
                let served = match curve {
                    Curve::P256 => &P256,
                    Curve::P384 => &P384,
                };
                Self::of(served, point, pinned, OFF_THE_CURVE)
            }
            PublicKey::Ed25519(point) => Self::of(&EDWARDS, point, pinned, OFF_THE_CURVE),
        }
    }

    fn of(
        served: &[Served],
        encoded: &[u8],
        pinned: Option<Algorithm>,
        wrong: &str,
    ) -> Result<Self, String> {
        let wanted = |algorithm| pinned.is_none_or(|pinned| pinned == algorithm);
        let parsed: Result<Box<[_]>, String> = served
            .iter()
            .filter(|(algorithm, _)| wanted(*algorithm))
            .map(|(algorithm, with)| {
                let key = ParsedPublicKey::new(*with, encoded).map_err(|_| wrong.to_owned())?;
                Ok((*algorithm, key))
            })
            .collect();
        match parsed? {
            none if none.is_empty() => Err("its alg does not fit its kty".to_owned()),
            ready => Ok(Self(ready)),
        }
    }

    /// Whether this key serves an algorithm.
    pub(super) fn serve(&self, algorithm: Algorithm) -> bool {
        self.ready(algorithm).is_some()
    }

    /// Whether `signature` is this key's over `message`, by an algorithm that it serves.
    pub(super) fn verify(
        &self,
        algorithm: Algorithm,
        message: &Message<'_>,
        signature: &[u8],
    ) -> bool {
        let Some(key) = self.ready(algorithm) else {
            return false;
        };
        if !matches!(
            algorithm,
            Algorithm::RS256 | Algorithm::PS256 | Algorithm::ES256
        ) {
            return key.verify_sig(message.text.as_bytes(), signature).is_ok();
        }
        // What has been hashed once need not be hashed again.
        Digest::import_less_safe(message.digest.as_ref(), &SHA256)
            .and_then(|digest| key.verify_digest_sig(&digest, signature))
            .is_ok()
    }

    fn ready(&self, algorithm: Algorithm) -> Option<&ParsedPublicKey> {
        let mut all = self.0.iter();
        all.find(|(own, _)| *own == algorithm).map(|(_, key)| key)
    }
}

impl<'t> Message<'t> {
    /// Hashes what a signature covers.
    pub fn of(text: &'t str) -> Self {
        let digest = TokenDigest::of(text);
        Self { text, digest }
    }

    /// Its SHA-256.
    pub fn digest(&self) -> TokenDigest {
        self.digest
    }
}

const OFF_THE_CURVE: &str = "it is no point of its curve";

impl fmt::Debug for Verifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(algorithm, _)| algorithm))
            .finish()
    }
}
