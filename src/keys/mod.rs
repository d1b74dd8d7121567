//! The keys that issuers sign with: parsed and filtered, kept, and fetched ahead of need.
//!
//! [`jwks`] turns a document into a [`KeySet`] of [`VerificationKey`]s that are parsed and ready,
//! [`KeyStore`] holds the current one for the hot path, [`fetch`] keeps it fresh in the background,
//! and [`CacheFile`] keeps it over restarts.

pub mod discovery;
pub mod fetch;
mod jwk;
pub mod jwks;
mod last_known_good;
mod store;
mod verifier;

pub use jwk::VerificationKey;
pub use jwks::KeySet;
pub use last_known_good::{CacheFile, folder_of};
pub use store::{Endpoints, KeyPolicy, KeyStatus, KeyStore};
pub use verifier::Message;
