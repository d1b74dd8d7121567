//! Who may ask the simulated issuer for what.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;

use super::algorithm::Algorithm;

/// The API that tokens are for unless said otherwise.
pub const AUDIENCE: &str = "https://api.bonterra.network";
/// The confidential machine client: `client_credentials` only.
pub const MACHINE_CLIENT: &str = "demo-client";
/// The machine client's secret.
pub const MACHINE_SECRET: &str = "demo-secret";
/// The public web client: `authorization_code` with PKCE, `refresh_token`.
pub const WEB_CLIENT: &str = "demo-web";
/// The second confidential client: every grant.
pub const BACKEND_CLIENT: &str = "demo-backend";
/// The second confidential client's secret.
pub const BACKEND_SECRET: &str = "backend-secret";
/// The confidential client for the Management API and the events: `client_credentials` only.
pub const MANAGEMENT_CLIENT: &str = "demo-management";
/// The management client's secret.
pub const MANAGEMENT_SECRET: &str = "management-secret";
/// Where the web client of the demo is called back.
pub const REDIRECT_URI: &str = "http://127.0.0.1:8080/public/callback";

/// Scopes that every client may ask a user for.
pub(super) const OPENID_SCOPES: [&str; 4] = ["openid", "profile", "email", "offline_access"];
const DEFAULT_SCOPE: &str = "openid profile email";

/// How the simulated issuer behaves. `AuthOptions::default()` serves the demo; change what a test needs.
#[derive(Clone, Debug)]
pub struct AuthOptions {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How long access and id tokens live.
    pub token_lifetime: Duration,
    /// The one API that tokens can be asked for, and the default when none is named.
    pub audience: String,
    /// The registered clients.
    pub clients: Vec<Client>,
    /// The accounts for the login page.
    pub users: Vec<User>,
    /// What the issuer signs with.
    pub key_type: Algorithm,
    /// Publish a key of every [`Algorithm`] besides; the RSA ones among them share one modulus.
    pub all_algorithms: bool,
    /// The first of the process's shared RSA keys to use, each rotation takes one more. Issuers that must not share key
    /// material with each other need numbers some way apart.
    pub key_slot: usize,
    /// `Cache-Control` of the JWKS.
    pub jwks_cache_control: String,
    /// Every refresh gives a new refresh token, and the use of an old one ends the family.
    pub refresh_rotation: bool,
    /// Accounts that the Management API knows: those of `users`, and others that cannot log in.
    pub directory_size: usize,
    /// How long a connection for events lasts.
    pub event_connection_life: Duration,
}

/// A registered client.
#[derive(Clone)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// `None` for a public client, and for one with a key.
    pub secret: Option<String>,
    /// Its public key as a JWK, RSA or P-256: it proves itself by `private_key_jwt` (RFC 7523) and in no other way.
    pub key: Option<Value>,
    /// The grants it may use.
    pub grants: Vec<String>,
    /// Scopes of the API: what `client_credentials` gives, and what users may be asked for beside the OpenID ones.
    pub scope: Vec<String>,
    /// Scopes of the Management API; without any it gets no token for that.
    pub management_scope: Vec<String>,
    /// Where it may be called back.
    pub redirect_uris: Vec<String>,
    /// Also accept any redirect URI on loopback.
    pub any_loopback_redirect: bool,
    /// `urn:bonterra:claims:bonterra_auth_id` of its own tokens.
    pub auth_id: String,
    /// `urn:bonterra:claims:is_bonterra_grants` of its own tokens.
    pub is_grants: bool,
}

/// An account.
#[derive(Clone)]
pub struct User {
    /// `sub`.
    pub id: String,
    /// E-mail address, the name to log in with.
    pub email: String,
    /// The password.
    pub password: String,
    /// First name.
    pub given_name: String,
    /// Last name.
    pub family_name: String,
    /// `urn:bonterra:claims:bonterra_auth_id`.
    pub auth_id: String,
    /// `urn:bonterra:claims:is_bonterra_grants`.
    pub is_grants: bool,
}

// === impl AuthOptions ===

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            token_lifetime: Duration::from_secs(24 * 60 * 60),
            audience: AUDIENCE.to_owned(),
            clients: demo_clients(),
            users: demo_users(),
            key_type: Algorithm::RS256,
            all_algorithms: false,
            key_slot: 0,
            jwks_cache_control: "public, max-age=15".to_owned(),
            refresh_rotation: true,
            directory_size: 150,
            event_connection_life: Duration::from_secs(5 * 60),
        }
    }
}

fn demo_clients() -> Vec<Client> {
    let machine = Client {
        id: MACHINE_CLIENT.to_owned(),
        secret: Some(MACHINE_SECRET.to_owned()),
        key: None,
        grants: words("client_credentials"),
        scope: words("read:grants write:grants read:profile"),
        management_scope: Vec::new(),
        redirect_uris: Vec::new(),
        any_loopback_redirect: false,
        auth_id: "3f0f3c1e-6a52-4c8b-9d3a-5b0a7f1c2d4e".to_owned(),
        is_grants: true,
    };
    let web = Client {
        id: WEB_CLIENT.to_owned(),
        secret: None,
        grants: words("authorization_code refresh_token"),
        redirect_uris: words(REDIRECT_URI),
        any_loopback_redirect: true,
        ..machine.clone()
    };
    let backend = Client {
        id: BACKEND_CLIENT.to_owned(),
        secret: Some(BACKEND_SECRET.to_owned()),
        grants: words("client_credentials authorization_code refresh_token password"),
        redirect_uris: words(REDIRECT_URI),
        any_loopback_redirect: true,
        auth_id: "7c9e2b64-1d0f-4e5a-8b7c-3a2f1e0d9c8b".to_owned(),
        is_grants: false,
        ..machine.clone()
    };
    let management = Client {
        id: MANAGEMENT_CLIENT.to_owned(),
        secret: Some(MANAGEMENT_SECRET.to_owned()),
        scope: words("read:users update:users read:events"),
        management_scope: words("read:users update:users update:users_app_metadata read:events"),
        auth_id: "5d1c8f02-94b7-4a63-8e2f-6c0d7b3a9e15".to_owned(),
        is_grants: false,
        ..machine.clone()
    };
    vec![machine, web, backend, management]
}

fn demo_users() -> Vec<User> {
    vec![
        User {
            id: "auth0|507f1f77bcf86cd799439011".to_owned(),
            email: "user@example.com".to_owned(),
            password: "demo".to_owned(),
            given_name: "John".to_owned(),
            family_name: "Doe".to_owned(),
            auth_id: "a1b2c3d4-e5f6-4890-abcd-ef1234567890".to_owned(),
            is_grants: true,
        },
        User {
            id: "auth0|507f1f77bcf86cd799439012".to_owned(),
            email: "guest@example.com".to_owned(),
            password: "demo".to_owned(),
            given_name: "Grace".to_owned(),
            family_name: "Roe".to_owned(),
            auth_id: "b2c3d4e5-f6a7-4901-bcde-f12345678901".to_owned(),
            is_grants: false,
        },
    ]
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

// === impl Client ===

impl Client {
    /// Whether it may use this grant.
    pub fn allows(&self, grant: &str) -> bool {
        self.grants.iter().any(|allowed| allowed == grant)
    }

    /// Whether it has nothing to prove itself with.
    pub fn is_public(&self) -> bool {
        self.secret.is_none() && self.key.is_none()
    }

    /// What a user lets it do who is asked for `scope`: as far as that is known.
    pub(super) fn user_scope(&self, scope: Option<&str>) -> Vec<String> {
        let known = |scope: &&str| {
            OPENID_SCOPES.contains(scope) || self.scope.iter().any(|own| own == scope)
        };
        let scope = scope.unwrap_or(DEFAULT_SCOPE).split(' ');
        scope.filter(known).map(str::to_owned).collect()
    }

    /// Whether it may be called back there (RFC 8252 §7.3 for loopback).
    pub fn may_redirect_to(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|known| known == uri)
            || (self.any_loopback_redirect && is_loopback(uri))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("id", &self.id)
            .field("public", &self.is_public())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn is_loopback(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|uri| {
        let loopback = match uri.host() {
            Some(url::Host::Domain(name)) => name == "localhost",
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        uri.scheme() == "http" && loopback && uri.fragment().is_none()
    })
}
