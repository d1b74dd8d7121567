//! Two issuers' keys and good tokens of each. The keys are the test's own, because it signs what no
//! issuer would: any bytes, with any padding and any hash.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding,
    UnparsedPublicKey, VerificationAlgorithm,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::demo::auth::AUDIENCE;
use serde_json::{Value, json};

/// Good tokens made in advance for each key: what needs no new signature starts from one of them.
const POOL: usize = 16;

/// A key of one of the two issuers, or one that nobody published.
pub struct Key {
    /// Which issuer publishes it.
    pub issuer: usize,
    pub kid: &'static str,
    pub alg: &'static str,
    pair: Pair,
}

enum Pair {
    Rsa(rsa::KeyPair),
    Ec {
        fixed: EcdsaKeyPair,
        der: EcdsaKeyPair,
    },
    Ed(Ed25519KeyPair),
}

/// How a message is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// As the key's `alg` says.
    Properly,
    /// RSA with the padding of PS256; other keys properly.
    Pss,
    /// RSA with SHA-512, elliptic curves over a message that is hashed already.
    OtherHash,
    /// ECDSA as a DER sequence (RFC 3279), which JWS does not use (RFC 7518 §3.4).
    Der,
    /// HMAC with the public key for its secret.
    PublicKeyAsSecret,
}

/// The members of a JSON object in their order: names and values as raw JSON text, so that they may
/// be repeated, escaped or wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Members(pub Vec<(String, String)>);

/// A good token in its parts.
pub struct Good {
    pub header: Members,
    pub claims: Members,
    pub signature: Vec<u8>,
}

/// All that cases are made of.
pub struct Lab {
    /// The exact `iss` of both issuers.
    pub issuers: [String; 2],
    /// The published keys. The kid `shared` is used by both issuers, for different keys.
    pub keys: Vec<Key>,
    /// One key of each family under a kid that is never published.
    pub strangers: Vec<Key>,
    pool: Vec<Vec<Good>>,
}

// === impl Key ===

impl Key {
    fn new(issuer: usize, kid: &'static str, alg: &'static str) -> Self {
        let pair = match alg {
            "RS256" => Pair::Rsa(rsa::KeyPair::generate(KeySize::Rsa2048).expect("a key")),
            "ES256" => {
                let document = EcdsaKeyPair::generate_pkcs8(
                    &ECDSA_P256_SHA256_FIXED_SIGNING,
                    &SystemRandom::new(),
                )
                .expect("a key");
                let with = |algorithm| {
                    EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).expect("a key")
                };
                Pair::Ec {
                    fixed: with(&ECDSA_P256_SHA256_FIXED_SIGNING),
                    der: with(&ECDSA_P256_SHA256_ASN1_SIGNING),
                }
            }
            _ => Pair::Ed(Ed25519KeyPair::generate().expect("a key")),
        };
        Self {
            issuer,
            kid,
            alg,
            pair,
        }
    }

    /// The public key: an uncompressed point, 32 bytes of Ed25519, or RSA as PKCS#1 DER.
    pub fn public(&self) -> &[u8] {
        match &self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref(),
            Pair::Ec { fixed, .. } => fixed.public_key().as_ref(),
            Pair::Ed(pair) => pair.public_key().as_ref(),
        }
    }

    /// Modulus and exponent of an RSA key.
    pub fn rsa(&self) -> Option<(Vec<u8>, Vec<u8>)> {
        let Pair::Rsa(pair) = &self.pair else {
            return None;
        };
        let public = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        Some((public.n, public.e))
    }

    /// The signature over any bytes.
    pub fn sign(&self, how: How, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        if how == How::PublicKeyAsSecret {
            let secret = hmac::Key::new(hmac::HMAC_SHA256, self.public());
            return hmac::sign(&secret, message).as_ref().to_vec();
        }
        let hashed = digest::digest(&digest::SHA256, message);
        let other = if how == How::OtherHash {
            hashed.as_ref()
        } else {
            message
        };
        match &self.pair {
            Pair::Rsa(pair) => {
                let encoding: &'static dyn RsaEncoding = match how {
                    How::Pss => &RSA_PSS_SHA256,
                    How::OtherHash => &RSA_PKCS1_SHA512,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &random, message, &mut signature)
                    .expect("signed");
                signature
            }
            Pair::Ec { fixed, der } => {
                let pair = if how == How::Der { der } else { fixed };
                pair.sign(&random, other).expect("signed").as_ref().to_vec()
            }
            Pair::Ed(pair) => pair.sign(other).as_ref().to_vec(),
        }
    }

    /// Whether a signature is this key's, made properly.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let algorithm: &'static dyn VerificationAlgorithm = match &self.pair {
            Pair::Rsa(_) => &signature::RSA_PKCS1_2048_8192_SHA256,
            Pair::Ec { .. } => &signature::ECDSA_P256_SHA256_FIXED,
            Pair::Ed(_) => &signature::ED25519,
        };
        let key = UnparsedPublicKey::new(algorithm, self.public());
        key.verify(message, signature).is_ok()
    }

    /// As its issuer publishes it.
    pub fn jwk(&self) -> Value {
        let base64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self.rsa() {
            Some((n, e)) => json!({ "kty": "RSA", "n": base64(&n), "e": base64(&e) }),
            None if self.alg == "ES256" => {
                let (x, y) = self.public()[1..].split_at(32);
                json!({ "kty": "EC", "crv": "P-256", "x": base64(x), "y": base64(y) })
            }
            None => json!({ "kty": "OKP", "crv": "Ed25519", "x": base64(self.public()) }),
        };
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        // Issuers may leave `alg` out; then only the issuer's list of algorithms limits the key.
        if self.kid != "shared" {
            jwk["alg"] = json!(self.alg);
        }
        jwk
    }
}

// === impl Members ===

impl Members {
    fn of(value: &Value) -> Self {
        let object = value.as_object().expect("an object");
        let members = object.iter();
        Self(
            members
                .map(|(name, value)| (quoted(name), value.to_string()))
                .collect(),
        )
    }

    /// Gives a member this raw value, where it stands or at the end.
    pub fn set(&mut self, name: &str, raw: impl Into<String>) {
        match self.0.iter_mut().find(|(own, _)| is(own, name)) {
            Some((_, value)) => *value = raw.into(),
            None => self.0.push((quoted(name), raw.into())),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(own, _)| !is(own, name));
    }

    /// The raw value of a member.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(own, _)| is(own, name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn render(&self) -> String {
        let members = self.0.iter();
        let members: Vec<String> = members
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        format!("{{{}}}", members.join(","))
    }
}

/// Whether a raw name, escapes and all, is this one.
fn is(raw: &str, name: &str) -> bool {
    serde_json::from_str::<String>(raw).is_ok_and(|own| own == name)
}

/// A JSON string.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Header and payload as they are signed.
pub fn message(header: &[u8], claims: &[u8]) -> String {
    let (header, claims) = (
        URL_SAFE_NO_PAD.encode(header),
        URL_SAFE_NO_PAD.encode(claims),
    );
    format!("{header}.{claims}")
}

// === impl Lab ===

impl Lab {
    /// Makes keys for these two issuers, and good tokens that are valid from `now` for a day.
    pub fn new(issuers: [String; 2], now: u64) -> Self {
        let keys = vec![
            Key::new(0, "first-1", "RS256"),
            Key::new(0, "shared", "RS256"),
            Key::new(1, "second-1", "ES256"),
            Key::new(1, "second-2", "EdDSA"),
            Key::new(1, "shared", "ES256"),
        ];
        let strangers = ["RS256", "ES256", "EdDSA"]
            .into_iter()
            .map(|alg| Key::new(0, "stranger", alg))
            .collect();
        let mut lab = Self {
            issuers,
            keys,
            strangers,
            pool: Vec::new(),
        };
        lab.pool = lab
            .keys
            .iter()
            .map(|key| (0..POOL).map(|at| lab.good(key, at, now)).collect())
            .collect();
        lab
    }

    fn good(&self, key: &Key, at: usize, now: u64) -> Good {
        let header = json!({ "alg": key.alg, "typ": "JWT", "kid": key.kid });
        let claims = json!({
            "iss": self.issuers[key.issuer],
            "sub": format!("auth0|caller {at} é%"),
            "aud": if at.is_multiple_of(2) { json!(AUDIENCE) } else { json!([AUDIENCE, "urn:other"]) },
            "iat": now - 60,
            "exp": now + 24 * 60 * 60,
            "azp": "demo-client",
            "scope": "read:grants write:grants",
            "jti": format!("{}-{at}", key.kid),
            "urn:bonterra:claims:bonterra_auth_id": "3f0f3c1e-6a52-4c8b-9d3a-5b0a7f1c2d4e",
            "urn:bonterra:claims:is_bonterra_grants": true,
        });
        let (header, claims) = (Members::of(&header), Members::of(&claims));
        let signed = message(header.render().as_bytes(), claims.render().as_bytes());
        let signature = key.sign(How::Properly, signed.as_bytes());
        Good {
            header,
            claims,
            signature,
        }
    }

    /// One of the good tokens of a key.
    pub fn pooled(&self, key: usize, at: usize) -> &Good {
        &self.pool[key][at % POOL]
    }

    /// The key of the same family that nobody published.
    pub fn stranger(&self, key: usize) -> &Key {
        let alg = self.keys[key].alg;
        let stranger = self.strangers.iter().find(|stranger| stranger.alg == alg);
        stranger.expect("one of each family")
    }

    /// What an issuer publishes.
    pub fn jwks(&self, issuer: usize) -> Value {
        let keys = self.keys.iter().filter(|key| key.issuer == issuer);
        json!({ "keys": keys.map(Key::jwk).collect::<Vec<_>>() })
    }
}
