//! The keys that issuers sign with: parsed and filtered, kept, and fetched ahead of need.
//!
//! [`jwks`] turns a document into a [`KeySet`], [`KeyStore`] holds the current one for the hot
//! path, and [`fetch`] keeps it fresh in the background.

pub mod fetch;
pub mod jwks;
mod store;

pub use jwks::{KeySet, VerificationKey};
pub use store::{Endpoints, KeyPolicy, KeyStatus, KeyStore};
