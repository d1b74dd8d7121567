//! What has to hold for every input, whatever it is: one property a module, one fuzz target a property.
//!
//! A property takes the bytes as a stranger would send them, and panics when the gateway breaks its word about them.
//! The fuzz targets look for inputs that make one panic; `tests/it/fuzz_corpora.rs` mounts this same file and replays
//! the inputs that are kept, so that `make test` needs no fuzzer.

pub mod claims;
pub mod config;
mod cuts;
pub mod form;
pub mod head;
pub mod headers;
mod json;
pub mod jwks;
mod lines;
pub mod oauth;
pub mod request;
pub mod token;

/// What became of an input that broke no property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The gateway took it, and what it made of it was checked.
    Accepted,
    /// The gateway refused it.
    Refused,
}

/// Checks one input; panics if it breaks the property.
pub type Property = fn(&[u8]) -> Outcome;

/// All properties by the name of their target and of their corpus.
pub const ALL: [(&str, Property); 9] = [
    ("claims", claims::check),
    ("config", config::check),
    ("form", form::check),
    ("head", head::check),
    ("headers", headers::check),
    ("jwks", jwks::check),
    ("oauth", oauth::check),
    ("request", request::check),
    ("token", token::check),
];
