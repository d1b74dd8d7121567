//! `[store]`

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::{Secret, SecretSource};
use super::units::Dur;

/// What several gateways share, in Redis: revoked tokens, and the counts of `rate_limit`. Without this table each
/// gateway knows what was revoked there, and counts for itself; so it does while Redis is away, see `on_failure`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// Where Redis is: `"redis://HOST:PORT/DATABASE"`, or `"rediss://…"` for TLS. It may hold a user and a password
    /// (`redis://USER:PASSWORD@HOST`), so it is never shown.
    pub url: Option<Secret>,
    /// A file with that URL, relative to the gateway's working directory; a newline at its end is no part of it.
    pub url_file: Option<PathBuf>,
    /// The environment variable with that URL.
    pub url_env: Option<String>,
    /// How long a request waits for Redis at most. Then it goes by what this gateway has counted itself, and so do
    /// all others until Redis answers again, which is tried once a second.
    pub timeout: Dur,
    /// What becomes of tokens while it is not known what other gateways have revoked: Redis has not answered for a
    /// second and `timeout`. `"open"`: each gateway refuses what it knows to be revoked; what is revoked meanwhile is
    /// refused there, and by the others once Redis is back. `"closed"`: every token that is otherwise good gets 503
    /// `store_unavailable`, and an order to revoke one gets 503 as well, although it holds there and is written to
    /// Redis later; a gateway that starts is not ready before it has loaded all revocations. Routes with
    /// `auth = "none"` are not concerned. Whatever is said here, Redis may lose its data: gateways that run write again
    /// what they hold.
    pub on_failure: OnFailure,
    /// A file with the key that tokens are sealed with before Redis gets them: 32 random bytes in base64, as
    /// `openssl rand -base64 32` makes them, the same for all gateways. Required if a surface has `tokens = "opaque"`. With
    /// another key all handles are worth nothing.
    pub encryption_key_file: Option<PathBuf>,
}

/// `on_failure`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "explained at `Store::on_failure`; documented variants make a longer schema"
)]
pub enum OnFailure {
    #[default]
    Open,
    Closed,
}

impl Store {
    /// Where the URL is.
    pub fn url(&self) -> SecretSource<'_> {
        SecretSource {
            key: "url",
            inline: self.url.as_ref(),
            file: self.url_file.as_deref(),
            env: self.url_env.as_deref(),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self {
            url: None,
            url_file: None,
            url_env: None,
            timeout: Dur(Duration::from_millis(50)),
            on_failure: OnFailure::Open,
            encryption_key_file: None,
        }
    }
}
