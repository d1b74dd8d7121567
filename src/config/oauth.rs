//! `[oauth.NAME]`

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretSource};
use super::units::{Dur, Percent, Size};

/// An OAuth surface: endpoints for clients that the gateway serves in front of an issuer.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OAuthSurface {
    /// Required. The NAME of the `[issuer.NAME]` behind it.
    pub issuer: Option<String>,
    /// The endpoints are below this path: `/oauth/token`, `/oauth/authorize`, `/oauth/userinfo`, `/oauth/revoke`,
    /// `/oauth/introspect` if there are `introspect_clients`, and the issuer's own
    /// documents, `/oauth/.well-known/openid-configuration` and `/oauth/.well-known/jwks.json`. These two are at the
    /// root as well for the surface at `/oauth`, or if all surfaces are of one issuer. A route of the same path as one
    /// of the documents comes first.
    pub prefix: String,
    /// Paths of endpoints that are not where `prefix` puts them.
    pub paths: Paths,
    /// Grants that clients may use. `"password"` shows users' passwords to clients and to the gateway; it is on only where
    /// it is named.
    pub grants: Vec<Grant>,
    /// Size of a request body at most; larger: 413.
    pub max_body: Size,
    /// What errors look like: `"oauth"` as in RFC 6749, or `"envelope"`:
    /// `{"meta":{},"errors":[{"httpcode":403,"message":"invalid_grant: …"}]}`, with the OAuth code at the beginning of
    /// the message. With `"envelope"`, `token_type` comes out as `bearer`, in lower case.
    pub errors: ErrorFormat,
    /// Whether token requests of clients that prove who they are tell the issuer the client's address, as
    /// `auth0-forwarded-for`: the one that `trusted_proxies` say, else the peer's. The issuer has to be told to believe
    /// it. What clients send under this name never reaches the issuer.
    pub forward_client_address: bool,
    /// Refreshes of one token reach the issuer one after the other. One that comes while an equal one is on its way, or
    /// this long after its answer, gets that answer, so that two tabs do not end a session where a refresh token is good
    /// once: same client, proven in the same way, same parameters. At most `"1m"`; `"0s"`: each is sent.
    pub refresh_window: Dur,
    /// Who may ask at the introspection endpoint what a token is worth.
    pub introspect_clients: Vec<IntrospectClient>,
    /// Reuse of client_credentials tokens.
    pub cache: OAuthCache,
    /// What clients get: `"forward"`, the issuer's tokens, or `"opaque"`, handles. A handle is random text that stands
    /// for a token as long as the gateway knows it: clients never see the issuer's tokens, routes take handles without
    /// further settings, and upstreams get the token (or what `internal_jwt` says). With `[store]` the tokens are kept
    /// in Redis, sealed with its `encryption_key_file`; without it in the memory of the gateway, which forgets them when
    /// it ends.
    pub tokens: Tokens,
    /// Handles in place of tokens.
    pub handles: HandleSettings,
}

/// What clients of an OAuth surface get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the key explains them, and documented variants make a longer schema"
)]
pub enum Tokens {
    #[default]
    Forward,
    Opaque,
}

/// How long handles are good, and how many there are: with `tokens = "opaque"`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HandleSettings {
    /// How long an access handle is good; at least as long as the issuer's first token, which is what `"0s"` means. If
    /// that is longer, the gateway renews the token inside with the issuer's refresh token before it ends, and keeps the
    /// client's credentials for that, sealed like the tokens. Clients that use a `client_assertion`, and grants without
    /// a refresh token, have handles that end with their token.
    pub lifetime: Dur,
    /// How long a refresh handle is good. Each refresh gives a new one, and the old one is worth nothing: if it comes
    /// again, two seconds later or more, both handles of its grant are revoked.
    pub refresh_lifetime: Dur,
    /// Grants in memory at most; then 503, because no handle that is in use is dropped. In Redis its own `maxmemory`
    /// counts.
    pub max_entries: usize,
}

/// What errors of an OAuth surface look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the key explains them, and documented variants make a longer schema"
)]
pub enum ErrorFormat {
    #[default]
    OAuth,
    Envelope,
}

/// Paths of endpoints that are not where `prefix` puts them.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Paths {
    /// The token endpoint, the whole path: `"/oauth2/tokens"`.
    pub token: Option<String>,
    /// The authorization endpoint.
    pub authorize: Option<String>,
    /// The userinfo endpoint.
    pub userinfo: Option<String>,
    /// The revocation endpoint.
    pub revoke: Option<String>,
    /// The introspection endpoint.
    pub introspect: Option<String>,
}

/// Somebody who may ask at the introspection endpoint what a token is worth (RFC 7662): an API that is not behind the
/// gateway, for example. Without one a surface has no such endpoint. It authenticates with HTTP Basic, both halves form-encoded (RFC 6749, section 2.3.1), or with `client_id` and `client_secret` in the
/// body. The answer is the gateway's own verdict on a JWT of the surface's issuer; about an opaque token its issuer is
/// asked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IntrospectClient {
    /// Required. Its name. It need not be a client of the issuer.
    pub id: Option<String>,
    /// Its secret. One of these three is required.
    pub secret: Option<Secret>,
    /// A file with that secret, relative to the gateway's working directory; a newline at its end is no part of it.
    pub secret_file: Option<PathBuf>,
    /// The environment variable with that secret.
    pub secret_env: Option<String>,
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
    /// Where the issuer says with a token that less than this share of one of its quotas is left, that token is reused
    /// until `min_remaining`, whatever `reuse` says. Absent: quotas make no difference.
    pub quota_low: Option<Percent>,
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
    Password,
}

impl Grant {
    /// Grants that are on where none are named.
    pub const DEFAULT: [Self; 3] = [
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
            Self::Password => "password",
        }
    }
}

impl IntrospectClient {
    /// Where its secret is.
    pub fn secret(&self) -> SecretSource<'_> {
        SecretSource {
            key: "secret",
            inline: self.secret.as_ref(),
            file: self.secret_file.as_deref(),
            env: self.secret_env.as_deref(),
        }
    }
}

impl Default for OAuthSurface {
    fn default() -> Self {
        Self {
            issuer: None,
            prefix: "/oauth".to_owned(),
            paths: Paths::default(),
            grants: Grant::DEFAULT.to_vec(),
            max_body: Size::kib(64),
            errors: ErrorFormat::default(),
            forward_client_address: false,
            refresh_window: Dur::secs(2),
            introspect_clients: Vec::new(),
            cache: OAuthCache::default(),
            tokens: Tokens::default(),
            handles: HandleSettings::default(),
        }
    }
}

impl Default for HandleSettings {
    fn default() -> Self {
        Self {
            lifetime: Dur::secs(0),
            refresh_lifetime: Dur::secs(30 * 24 * 60 * 60),
            max_entries: 100_000,
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
            quota_low: None,
        }
    }
}
