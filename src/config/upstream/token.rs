//! `[upstream.NAME.token]`

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::secret::{Secret, SecretSource};

/// The gateway's own token for this upstream, by `client_credentials`: every request goes there with it in
/// `Authorization: Bearer`, in place of whatever came. The caller's token never gets there, so `forward_token` has no
/// effect and `internal_jwt` is a mistake on routes to this upstream. The token is asked for when it is first needed,
/// kept in memory, renewed in the background at four fifths of its life as long as it is used, and not sent in its last
/// seconds. While the issuer gives none, requests get 503. When the upstream answers 401, the token is thrown away, at
/// most every 30 seconds, and the request is sent once more with a new one if all of it is still there (bodies up to
/// 64 KiB). Health checks carry no token. A reload that changes this table, or the secret, starts with a new token.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamToken {
    /// Required. The NAME of the `[issuer.NAME]` that gives it.
    pub issuer: Option<String>,
    /// Required. The client that the gateway is at the issuer.
    pub client_id: Option<String>,
    /// The secret of `client_id`. One of these three is required.
    pub client_secret: Option<Secret>,
    /// A file with that secret, relative to the gateway's working directory; a newline at its end is no part of it. It is
    /// read again when its contents change.
    pub client_secret_file: Option<PathBuf>,
    /// The environment variable with that secret.
    pub client_secret_env: Option<String>,
    /// The API that the token is for, as the issuer knows it.
    pub audience: Option<String>,
    /// Scopes to ask for, separated by blanks. Absent: what the issuer gives unasked.
    pub scope: Option<String>,
}

impl UpstreamToken {
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
