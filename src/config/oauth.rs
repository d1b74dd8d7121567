//! `[oauth.NAME]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Dur, Percent, Size};

/// An OAuth surface: endpoints for clients that the gateway serves in front of an issuer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OAuthSurface {
    /// Required. The NAME of the `[issuer.NAME]` behind it.
    pub issuer: Option<String>,
    /// The endpoints are below this path: `/oauth/token`.
    pub prefix: String,
    /// Paths of endpoints that are not where `prefix` puts them.
    pub paths: Paths,
    /// Grants that clients may use.
    pub grants: Vec<Grant>,
    /// Size of a request body at most; larger: 413.
    pub max_body: Size,
    /// Reuse of client_credentials tokens.
    pub cache: OAuthCache,
}

/// Paths of endpoints that are not where `prefix` puts them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// The token endpoint, the whole path: `"/oauth2/tokens"`.
    pub token: Option<String>,
}

/// Reuse of client_credentials tokens: equal requests of one client, with the same secret, get one token from the issuer.
/// Refusals are remembered as well: 401 and 403 for five seconds, 429 as long as its `Retry-After` says. Tokens that are
/// bound to a key or certificate, and those of requests with a `client_assertion` or a `DPoP` header, are never reused.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OAuthCache {
    /// Whether tokens are reused.
    pub enabled: bool,
    /// Tokens kept at most.
    pub max_entries: u64,
    /// A token is reused for this share of its lifetime at most; up to a tenth less, at random, so that clients do not
    /// renew all at once.
    pub reuse: Percent,
    /// Never is a token given that has less left than this.
    pub min_remaining: Dur,
}

/// A grant of RFC 6749.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names are those of the RFC")]
pub enum Grant {
    ClientCredentials,
    AuthorizationCode,
    RefreshToken,
}

impl Grant {
    /// All grants.
    pub const ALL: [Self; 3] = [
        Self::ClientCredentials,
        Self::AuthorizationCode,
        Self::RefreshToken,
    ];

    /// The value of the parameter `grant_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientCredentials => "client_credentials",
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl Default for OAuthSurface {
    fn default() -> Self {
        Self {
            issuer: None,
            prefix: "/oauth".to_owned(),
            paths: Paths::default(),
            grants: Grant::ALL.to_vec(),
            max_body: Size::kib(64),
            cache: OAuthCache::default(),
        }
    }
}

impl Default for OAuthCache {
    fn default() -> Self {
        Self {
            enabled: false,
            max_entries: 10_000,
            reuse: Percent(80.0),
            min_remaining: Dur::secs(60),
        }
    }
}
