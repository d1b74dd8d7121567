//! The OAuth surface: what clients of the issuer see of it through the gateway.
//!
//! ```text
//! head, body ─► form ─► grant ─► client_auth ─► Forward ─► (handles) ─► (reuse, refresh) ─► client ─► issuer
//!                                                                                               │
//!            TokenReply ◄── (handles in place of tokens) ◄── reply (expires_in, no-store) ◄──────┘
//! ```
//!
//! Beside it, [`authorize`] sends browsers on, [`userinfo`] asks as the caller does, [`revoke`] ends
//! tokens, [`introspect`] tells what they are worth, and [`endpoint`] shows the issuer's own documents;
//! [`envelope`] dresses errors; [`handles`] stand in for tokens where clients are to hold none.
//!
//! Everything but [`client`], [`handles`], [`reuse`], [`refresh`] and [`userinfo`] takes values and returns
//! values. Parameters, codes, verifiers, secrets and tokens live in types without a telling `Debug`; no
//! log line, error or label holds one.

pub mod authorize;
pub mod client;
pub mod client_auth;
pub mod endpoint;
pub mod envelope;
pub mod errors;
pub mod form;
pub mod grant;
pub mod handles;
pub mod introspect;
mod key;
pub mod quota;
pub mod refresh;
pub mod reply;
pub mod reuse;
pub mod revoke;
pub mod token;
pub mod userinfo;

use std::sync::Arc;

pub use client::TokenIssuer;
pub use endpoint::{Answer, Endpoint};
pub use envelope::ErrorFormat;
pub use errors::OAuthError;
pub use grant::Grant;
pub use handles::Handles;
pub use quota::Quotas;
pub use refresh::Refresh;
pub use reply::Outcome;
pub use reuse::Reuse;
pub use token::{TokenReply, token};

/// One mounted OAuth surface (`[oauth.NAME]`), as compiled from the configuration.
#[derive(Debug, Clone)]
pub struct Surface {
    /// The table's name; labels logs and metrics.
    pub name: Arc<str>,
    /// Grants that clients may use here; all others are refused without asking the issuer.
    pub grants: Vec<Grant>,
    /// Largest request body in bytes.
    pub max_body: u64,
    /// The `realm` of a Basic challenge.
    pub realm: Arc<str>,
    /// What its errors look like.
    pub errors: ErrorFormat,
    /// Whether the issuer learns the address of clients that prove who they are.
    pub forward_client_address: bool,
}
