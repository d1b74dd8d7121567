//! What the tokens say.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;

use super::options::{Client, User};
use super::state::{Grant, Issuer};

pub(super) const AUTH_ID: &str = "urn:bonterra:claims:bonterra_auth_id";
pub(super) const IS_GRANTS: &str = "urn:bonterra:claims:is_bonterra_grants";

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
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
    pub(super) fn user_claims(&self, user: &User, grant: &Grant, scope: &str) -> Value {
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
            AUTH_ID: user.auth_id,
            IS_GRANTS: user.is_grants,
        })
    }

    /// The id token of a user (OpenID Connect Core §2).
    pub(super) fn id_claims(&self, user: &User, grant: &Grant) -> Value {
        let now = now();
        let mut claims = json!({
            "iss": self.url,
            "sub": user.id,
            "aud": grant.client,
            "iat": now,
            "exp": now + self.lifetime(),
            "email": user.email,
            "name": format!("{} {}", user.given_name, user.family_name),
            AUTH_ID: user.auth_id,
            IS_GRANTS: user.is_grants,
        });
        if let Some(nonce) = &grant.nonce {
            claims["nonce"] = json!(nonce);
        }
        claims
    }

    /// What userinfo tells of a user.
    pub(super) fn profile(user: &User) -> Value {
        json!({
            "sub": user.id,
            "email": user.email,
            "email_verified": true,
            "name": format!("{} {}", user.given_name, user.family_name),
            "given_name": user.given_name,
            "family_name": user.family_name,
            "updated_at": "2024-01-15T10:30:00.000Z",
            AUTH_ID: user.auth_id,
            IS_GRANTS: user.is_grants,
        })
    }
}
