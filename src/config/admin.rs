//! `[admin]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::net::{FileMode, ListenAddr};

/// Metrics, health and reload. Not for clients: keep it on loopback or in a private network.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Admin {
    /// Address of `/metrics`, `/livez`, `/readyz` and `POST /-/reload`.
    pub listen: ListenAddr,
    /// Who may connect, if that is a Unix socket: its file mode. Whoever may can reload, and revoke tokens.
    pub unix_mode: FileMode,
}

impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: ListenAddr::v4([127, 0, 0, 1], 9090),
            unix_mode: FileMode(0o600),
        }
    }
}
