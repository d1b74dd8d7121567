//! `private_key_jwt`: clients that prove themselves by a key of their own (RFC 7523 §2.2 and §3).

use std::collections::HashMap;
use std::io;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde_json::Value;

use super::algorithm::Algorithm;
use super::answer::Refusal;
use super::claims::now;
use super::keys::{Signer, SigningKey};
use super::options::Client;
use super::state::Issuer;

/// `client_assertion_type` of a JWT.
pub(super) const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Seconds that an assertion is good for at most.
const LONGEST: u64 = 300;

/// The shared RSA key of all clients.
const SLOT: usize = 1000;

/// A key of a client: registered with the issuer by its public half, for tests to sign assertions with.
pub struct ClientKey(Signer, Value);

/// The assertions that have been used, with the time until which each has to be remembered.
#[derive(Default)]
pub(super) struct Assertions(HashMap<(String, String), u64>);

// === impl ClientKey ===

impl ClientKey {
    /// A key for RS256 or ES256.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new(algorithm: Algorithm) -> io::Result<Self> {
        let key = SigningKey::make("client".to_owned(), algorithm, SLOT)?;
        let public = key.jwk();
        Ok(Self(Signer::Key(key.into()), public))
    }

    /// The public half, for [`Client::key`].
    pub fn public(&self) -> Value {
        self.1.clone()
    }

    /// An assertion with these claims.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn sign(&self, claims: &Value) -> io::Result<String> {
        self.0.token(&Value::Null, claims)
    }
}

// === impl Assertions ===

impl Assertions {
    /// Takes note of an assertion; false if it has been used before.
    fn spend(&mut self, client: &str, id: &str, until: u64) -> bool {
        let now = now();
        self.0.retain(|_, until| *until > now);
        let key = (client.to_owned(), id.to_owned());
        self.0.insert(key, until).is_none()
    }
}

// === impl Issuer ===

impl Issuer {
    /// Whether a client has proven itself by this assertion, which it cannot use again.
    pub(super) fn asserted(&self, client: &Client, assertion: &str) -> Result<(), Refusal> {
        let key = client.key.as_ref().ok_or_else(refused)?;
        let claims = verified(assertion, key).ok_or_else(refused)?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let own = [text("iss"), text("sub")]
            .iter()
            .all(|name| *name == Some(&*client.id));
        let meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(|aud| *aud == *self.url),
            one => one.and_then(Value::as_str) == Some(&*self.url),
        };
        let (time, now) = (|name: &str| claims.get(name).and_then(Value::as_u64), now());
        let expires = time("exp").filter(|exp| (now + 1..=now + LONGEST).contains(exp));
        let begun = ["iat", "nbf"]
            .iter()
            .all(|name| time(name).is_none_or(|at| at <= now));
        let (true, Some(until), Some(id)) = (own && meant && begun, expires, text("jti")) else {
            return Err(refused());
        };
        match self.state().assertions.spend(&client.id, id, until) {
            true => Ok(()),
            false => Err(refused()),
        }
    }
}

/// The client that an assertion names, proven or not.
pub(super) fn subject(assertion: &str) -> Option<String> {
    let claims = part(assertion.split('.').nth(1)?)?;
    claims.get("sub")?.as_str().map(str::to_owned)
}

/// What a client reads whose assertion is no good, for whatever reason.
pub(super) fn refused() -> Refusal {
    let description = "Client assertion is invalid, expired or has been used before";
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", description)
}

/// The claims of an assertion that this key has signed. The key says by which algorithm.
fn verified(assertion: &str, key: &Value) -> Option<Value> {
    let (message, signature) = assertion.rsplit_once('.')?;
    let (header, payload) = message.split_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let member = |name: &str| URL_SAFE_NO_PAD.decode(key.get(name)?.as_str()?).ok();
    let (algorithm, good) = match key.get("kty")?.as_str()? {
        "RSA" => {
            let (n, e) = (member("n")?, member("e")?);
            let key = RsaPublicKeyComponents { n, e };
            let algorithm = &RSA_PKCS1_2048_8192_SHA256;
            (
                "RS256",
                key.verify(algorithm, message.as_bytes(), &signature),
            )
        }
        "EC" => {
            // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
            let point = [vec![4], member("x")?, member("y")?].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            ("ES256", key.verify(message.as_bytes(), &signature))
        }
        _ => return None,
    };
    let named = part(header)?.get("alg")?.as_str()? == algorithm;
    (named && good.is_ok()).then(|| part(payload))?
}

fn part(encoded: &str) -> Option<Value> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}
