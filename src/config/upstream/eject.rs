//! `[upstream.NAME.eject]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::units::{Dur, Percent};

/// Takes servers that fail out for a while, judging by the requests that they get.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eject {
    /// After so many failures without a success between them: no connection, a connection cut, no valid answer or none
    /// in time, 502, 503, 504. 0: never.
    pub after: usize,
    /// For so long, and that much longer each time that it happens again, up to ten times as long. Back in, a server
    /// is out again at its first failure, unless it has answered a request by then.
    #[serde(rename = "for")]
    pub time: Dur,
    /// The share of the servers that may be out at once, rounded down, but at least one. Of an upstream with one
    /// server that one is never out.
    pub max_ejected: Percent,
}

impl Default for Eject {
    fn default() -> Self {
        Self {
            after: 5,
            time: Dur::secs(30),
            max_ejected: Percent(50.0),
        }
    }
}
