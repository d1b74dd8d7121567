//! `[issuer.NAME]`, `[issuer.NAME.jwks]`, `[issuer.NAME.headers]`

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretSource};
use super::units::{Dur, Size};

/// Who signs the tokens that are accepted, and what is asked of those tokens.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Issuer {
    /// Required. The exact `iss` of its tokens, trailing slash included; the endpoints come from the discovery
    /// document below it unless they are given here.
    pub url: Option<String>,
    /// Where its keys are, instead of what discovery says.
    pub jwks_uri: Option<String>,
    /// Where it gives out tokens, instead of what discovery says.
    pub token_endpoint: Option<String>,
    /// Where users log in, instead of what discovery says. Discovery is asked only if `jwks_uri` or `token_endpoint` is
    /// missing: give this as well if both are here and users log in through the gateway.
    pub authorization_endpoint: Option<String>,
    /// Where it says who a user is, instead of what discovery says; the same holds.
    pub userinfo_endpoint: Option<String>,
    /// Where it revokes tokens (RFC 7009), instead of what discovery says; the same holds.
    pub revocation_endpoint: Option<String>,
    /// Where it says what a token is worth (RFC 7662), instead of what discovery says. Used with `opaque`.
    pub introspection_endpoint: Option<String>,
    /// Its tokens are no JWTs: the issuer is asked about each, at `introspection_endpoint`. A good answer is used for
    /// 60 seconds at most and never beyond `exp`, a bad one for 5 at most. Then there are no keys: `algorithms`,
    /// `token_types`, `jwks_uri` and the table `jwks` have no effect. A route accepts one such issuer. Some issuers say
    /// of a refresh token, too, that it is active: it is refused if the answer tells so (`token_use`, `typ`). Set
    /// `audiences`, so that it is refused if the answer does not.
    pub opaque: bool,
    /// Required with `opaque`: as whom the gateway asks.
    pub client_id: Option<String>,
    /// The secret of `client_id`. One of these three is required with `opaque`.
    pub client_secret: Option<Secret>,
    /// A file with that secret, relative to the gateway's working directory; a newline at its end is no part of it.
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable with that secret.
    pub client_secret_env: Option<String>,
    /// Required, unless `opaque`. A token must name at least one of these in `aud`. Empty: `aud` is not looked at.
    pub audiences: Vec<String>,
    /// Accepted signature algorithms. Never taken from the token alone.
    pub algorithms: Vec<Alg>,
    /// Accepted values of the token's `typ` header.
    pub token_types: Vec<String>,
    /// How far clocks may differ when `exp` and `nbf` are checked.
    pub leeway: Dur,
    /// Longer tokens are refused unread.
    pub max_token_bytes: Size,
    /// Longest `exp - iat` of a token; "0s": no limit.
    pub max_lifetime: Dur,
    /// For each request to the issuer, from connecting to the last byte.
    pub timeout: Dur,
    /// A PEM file of certificate authorities to trust for this issuer, besides the system's.
    pub ca_file: Option<PathBuf>,
    /// How its keys are fetched and kept.
    pub jwks: Jwks,
    /// What the upstream learns: header = claim. The claim is one literal name, dots and colons included, or a JSON
    /// pointer into a claim if it begins with `/`: "/user/roles/0". All these headers are stripped from every request
    /// first. Giving this table replaces the default one.
    pub headers: BTreeMap<String, String>,
}

/// How an issuer's keys are fetched and kept.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwks {
    /// Between refreshes, when the issuer sends no `Cache-Control`.
    pub ttl: Dur,
    /// `Cache-Control` may not make it shorter than this,
    pub min_ttl: Dur,
    /// nor longer than this.
    pub max_ttl: Dur,
    /// How long keys stay in use after the time for which they are fresh, while the issuer cannot be asked; then
    /// tokens cannot be checked: 503.
    pub max_stale: Dur,
    /// At least this long between fetches caused by unknown key ids.
    pub cooldown: Dur,
    /// A file that the keys are kept in, so that a restart during an outage of the issuer finds them; "": none.
    /// The gateway writes it with mode 0600 and reads it only while no one else may write it.
    pub cache_file: PathBuf,
}

/// A signature algorithm of RFC 7518 or RFC 8037. Symmetric ones and `none` are not to be had.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[expect(missing_docs, reason = "the names are those of the RFCs")]
pub enum Alg {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Alg {
    /// The `alg` of a token's header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// The claims of the Bonterra Network that upstreams ask for.
const HEADERS: [(&str, &str); 4] = [
    ("X-Bonterra-Auth-Id", "urn:bonterra:claims:bonterra_auth_id"),
    (
        "X-Bonterra-Is-Grants",
        "urn:bonterra:claims:is_bonterra_grants",
    ),
    ("X-Bonterra-Subject", "sub"),
    ("X-Bonterra-Scope", "scope"),
];

impl Issuer {
    /// Where the secret of `client_id` is.
    pub fn secret(&self) -> SecretSource<'_> {
        SecretSource {
            key: "client_secret",
            inline: self.client_secret.as_ref(),
            file: self.client_secret_file.as_deref(),
            env: self.client_secret_env.as_deref(),
        }
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self {
            url: None,
            jwks_uri: None,
            token_endpoint: None,
            authorization_endpoint: None,
            userinfo_endpoint: None,
            revocation_endpoint: None,
            introspection_endpoint: None,
            opaque: false,
            client_id: None,
            client_secret: None,
            client_secret_file: None,
            client_secret_env: None,
            audiences: Vec::new(),
            algorithms: vec![Alg::RS256],
            token_types: vec!["JWT".to_owned(), "at+jwt".to_owned()],
            leeway: Dur::secs(30),
            max_token_bytes: Size::kib(8),
            max_lifetime: Dur::ZERO,
            timeout: Dur::secs(3),
            ca_file: None,
            jwks: Jwks::default(),
            headers: HEADERS
                .iter()
                .map(|(header, claim)| ((*header).to_owned(), (*claim).to_owned()))
                .collect(),
        }
    }
}

impl Default for Jwks {
    fn default() -> Self {
        Self {
            ttl: Dur::secs(10 * 60),
            min_ttl: Dur::secs(60),
            max_ttl: Dur::secs(24 * 3600),
            max_stale: Dur::secs(24 * 3600),
            cooldown: Dur::secs(30),
            cache_file: PathBuf::new(),
        }
    }
}
