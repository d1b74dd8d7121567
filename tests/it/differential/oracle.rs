//! The second verifier: `jwt-simple`, on cryptography of another make, told the same rules.

use super::lab::{Key, Lab};
use bonterra_gateway::demo::auth::AUDIENCE;
use jwt_simple::JWTError;
use jwt_simple::prelude::*;

/// The gateway's `token_types`, with the prefix that RFC 7515 §4.1.9 lets senders leave out.
const TYPES: [&str; 4] = ["JWT", "at+jwt", "application/jwt", "application/at+jwt"];

const LEEWAY: u64 = 30;
const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Says what a verifier of another make thinks of a token.
pub struct Oracle {
    keys: Vec<Known>,
}

struct Known {
    kid: String,
    alg: &'static str,
    public: Public,
    /// One for each accepted `typ`: the library takes one at a time.
    options: Vec<VerificationOptions>,
}

enum Public {
    Rsa(Box<RS256PublicKey>),
    Ec(ES256PublicKey),
    Ed(Ed25519PublicKey),
}

/// What it read in a token that it accepts.
pub struct Read {
    pub subject: Option<String>,
    pub expires: bool,
}

// === impl Oracle ===

impl Oracle {
    pub fn new(lab: &Lab) -> Self {
        let keys = lab.keys.iter();
        Self {
            keys: keys.map(|key| Known::new(lab, key)).collect(),
        }
    }

    /// Verifies a token with the key that its header names, or with each key of its algorithm if it
    /// names none; a key counts for its own issuer only.
    ///
    /// # Errors
    /// Why not, in the words of the last key that was tried.
    pub fn verify(&self, token: &str) -> Result<Read, String> {
        let header = Token::decode_metadata(token).map_err(|error| error.to_string())?;
        let mut outcome = Err("no such key".to_owned());
        for key in &self.keys {
            let fits = match header.key_id() {
                Some(kid) => key.kid == kid,
                None => key.alg == header.algorithm(),
            };
            if fits {
                outcome = key.verify(token);
            }
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    }
}

// === impl Known ===

impl Known {
    fn new(lab: &Lab, key: &Key) -> Self {
        let public = match (key.alg, key.rsa()) {
            (_, Some((n, e))) => Public::Rsa(
                RS256PublicKey::from_components(&n, &e)
                    .expect("a key")
                    .into(),
            ),
            ("ES256", None) => Public::Ec(ES256PublicKey::from_bytes(key.public()).expect("a key")),
            _ => Public::Ed(Ed25519PublicKey::from_bytes(key.public()).expect("a key")),
        };
        let issuer = lab.issuers[key.issuer].as_str();
        let options = TYPES.map(|typ| VerificationOptions {
            required_signature_type: Some(typ.to_owned()),
            allowed_issuers: Some(HashSet::from_strings(&[issuer])),
            allowed_audiences: Some(HashSet::from_strings(&[AUDIENCE])),
            time_tolerance: Some(Duration::from_secs(LEEWAY)),
            max_token_length: Some(MAX_TOKEN_BYTES),
            ..VerificationOptions::default()
        });
        Self {
            kid: key.kid.to_owned(),
            alg: key.alg,
            public,
            options: options.to_vec(),
        }
    }

    fn verify(&self, token: &str) -> Result<Read, String> {
        let mut outcome = Err("no type".to_owned());
        for options in &self.options {
            let options = Some(options.clone());
            let claims = match &self.public {
                Public::Rsa(key) => key.verify_token::<NoCustomClaims>(token, options),
                Public::Ec(key) => key.verify_token::<NoCustomClaims>(token, options),
                Public::Ed(key) => key.verify_token::<NoCustomClaims>(token, options),
            };
            match claims {
                Ok(claims) => {
                    return Ok(Read {
                        subject: claims.subject,
                        expires: claims.expires_at.is_some(),
                    });
                }
                Err(error) => {
                    let other_type = matches!(
                        error.downcast_ref(),
                        Some(JWTError::RequiredSignatureTypeMismatch)
                    );
                    outcome = Err(error.to_string());
                    if !other_type {
                        break;
                    }
                }
            }
        }
        outcome
    }
}
