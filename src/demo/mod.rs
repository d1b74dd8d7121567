//! The services around the gateway, simulated on loopback: what `demo` starts and what the tests and benchmarks run against.
//!
//! [`auth::BonterraAuth`] stands in for Bonterra Auth (an Auth0 tenant), [`echo::Echo`] for an internal API. Both speak
//! HTTP/1.1 over real sockets on the current tokio runtime, take a chosen port or a free one, and close their listener and
//! every connection when stopped or dropped, as a server does that dies. Both can come back on the same port.
//!
//! Simulated, with the issuer's own statuses and bodies:
//! - discovery and JWKS (current and next key, previous ones until withdrawn, `Cache-Control`);
//! - authorize with a login page, state, nonce and PKCE (S256);
//! - the token endpoint for `client_credentials`, `authorization_code` and `refresh_token`, by form or JSON, by Basic or
//!   post; rotation of refresh tokens, where the reuse of an old one ends the whole family;
//! - revocation of refresh tokens, and userinfo;
//! - the users of the Management API: pages, searches, one by id, changes; and events about them as server-sent events;
//! - rate limits of endpoints and quotas of clients, with the headers that tell of them;
//! - failures on demand for each endpoint, and tokens of any header, claim and key.
//!
//! Not simulated: TLS, `private_key_jwt` and mutual TLS, implicit and password grants, the rest of the
//! Management API, consent, logout, opaque access tokens, and certificates (`x5t` is there, `x5c` is not).
//!
//! Nothing here is hardened: accounts, secrets and keys are for loopback only. This module uses crates and nothing of the
//! gateway, so that it cannot share a mistake with what it tests; it signs with aws-lc-rs itself for the same reason.

pub mod auth;
mod body;
pub mod echo;
mod host;
mod record;
#[cfg(test)]
mod test_client;
