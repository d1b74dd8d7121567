//! `[token_cache]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Dur, Size};

/// How many tokens are remembered.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TokenCache {
    /// Memory for verified tokens.
    pub max_bytes: Size,
    /// Verified tokens at most.
    pub max_entries: u64,
    /// Refused tokens at most; kept apart from the verified ones, which they can never push out. 0: none.
    pub refused_entries: u64,
    /// How long a refusal is remembered.
    pub refused_for: Dur,
}

impl Default for TokenCache {
    fn default() -> Self {
        Self {
            max_bytes: Size::mib(64),
            max_entries: 100_000,
            refused_entries: 10_000,
            refused_for: Dur::secs(5),
        }
    }
}
