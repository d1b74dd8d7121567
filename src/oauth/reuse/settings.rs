//! How much is kept and for how long.

use http::HeaderMap;

use super::kept::Rules;
use crate::oauth::quota;

/// How much is kept and for how long: `[oauth.*.cache]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// Tokens at most; refusals as many again, twice.
    pub max_entries: u64,
    /// How long a token is given again.
    pub rules: Rules,
    /// The share of a quota below which tokens are given again for as long as they may be at all.
    pub quota_low: Option<f64>,
}

// === impl Settings ===

impl Settings {
    /// The rules for a token that came with these headers: what is short is made to last.
    pub(super) fn rules_with(&self, headers: &HeaderMap) -> Rules {
        let short = |share| quota::is_low(headers, share);
        let share = match self.quota_low.is_some_and(short) {
            true => 1.0,
            false => self.rules.share,
        };
        Rules {
            share,
            ..self.rules
        }
    }
}
