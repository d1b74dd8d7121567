//! `internal_jwt` of `[[route]]`

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Dur;

/// The gateway's own token in place of the caller's: a short-lived JWT (header `typ` "JWT", `kid` the key's RFC 7638
/// thumbprint) in `Authorization: Bearer`, with `iss`, `aud`, `iat`, `exp`, `jti` and the listed claims of the verified
/// token. It ends no later than the caller's own, is used again for the same token, and is renewed when a fifth of its
/// life is left. `forward_token` has no say here: nothing that a client sends in `Authorization` gets to the upstream,
/// and without a verified token it gets none. The public keys of all routes are at
/// `GET /.well-known/gateway-jwks.json`. Absent: the upstream gets the caller's token, as `forward_token` says.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct InternalJwt {
    /// Required. A PEM file with the private key that signs, in PKCS#8 and not encrypted: on P-256 (ES256) or Ed25519
    /// (EdDSA). It is read again on a reload and when its contents change.
    pub key_file: Option<PathBuf>,
    /// A file like that with a key that is published and does not sign. To rotate without a refused request: put the new
    /// key here, wait until verifiers have fetched it (5 minutes), swap the two, and remove the old one when the tokens
    /// of before have ended.
    pub previous_key_file: Option<PathBuf>,
    /// `iss`: the name of the gateway. It may not be the `url` of an issuer.
    pub issuer: String,
    /// Required. `aud`: the name by which the upstream knows itself.
    pub audience: Option<String>,
    /// How long a token lives at most; whole seconds.
    pub ttl: Dur,
    /// Claims that are copied from the verified token, by their literal names; one that it does not have is left out.
    pub claims: Vec<String>,
}

impl Default for InternalJwt {
    fn default() -> Self {
        Self {
            key_file: None,
            previous_key_file: None,
            issuer: "bonterra-gateway".to_owned(),
            audience: None,
            ttl: Dur::secs(300),
            claims: vec!["sub".to_owned(), "scope".to_owned()],
        }
    }
}

impl InternalJwt {
    /// The files that it names: when one changes, what was made of them is out of date.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.key_file, &self.previous_key_file];
        files.into_iter().filter_map(|file| file.as_deref())
    }
}
