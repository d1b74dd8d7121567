//! What the tokens say.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;

use super::directory::Person;
use super::options::Client;
use super::state::{Grant, Issuer};

pub(super) const AUTH_ID: &str = "urn:bonterra:claims:bonterra_auth_id";
pub(super) const IS_GRANTS: &str = "urn:bonterra:claims:is_bonterra_grants";

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    since_1970().as_secs()
}

/// The time since 1970.
pub(super) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

impl Issuer {
    /// The access token of a client for itself.
    pub(super) fn machine_claims(&self, client: &Client, audience: &str, scope: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url,
            "sub": format!("{}@clients", client.id),
            "aud": audience,
            "iat": now,
            "exp": now + self.lifetime(),
            "azp": client.id,
            "gty": "client-credentials",
            "scope": scope,
            "jti": Uuid::new_v4().to_string(),
            AUTH_ID: client.auth_id,
            IS_GRANTS: client.is_grants,
        })
    }

    /// The access token of a user.
    pub(super) fn user_claims(&self, user: &Person, grant: &Grant, scope: &str) -> Value {
        let now = now();
        json!({
            "iss": self.url,
            "sub": user.id,
            "aud": grant.audience,
            "iat": now,
            "exp": now + self.lifetime(),
            "azp": grant.client,
            "scope": scope,
            "jti": Uuid::new_v4().to_string(),
            AUTH_ID: user.auth_id(),
            IS_GRANTS: user.is_grants(),
        })
    }

    /// The id token of a user (OpenID Connect Core §2).
    pub(super) fn id_claims(&self, user: &Person, grant: &Grant) -> Value {
        let now = now();
        let mut claims = json!({
            "iss": self.url,
            "sub": user.id,
            "aud": grant.client,
            "iat": now,
            "exp": now + self.lifetime(),
            "email": user.email,
            "name": user.name,
            AUTH_ID: user.auth_id(),
            IS_GRANTS: user.is_grants(),
        });
        if let Some(nonce) = &grant.nonce {
            claims["nonce"] = json!(nonce);
        }
        claims
    }
}
