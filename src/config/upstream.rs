//! `[upstream.NAME]`

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Dur;

/// An API behind the gateway: the servers that run it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    /// Required. URLs of the servers, without a path: `"http://10.0.0.5:9000"`. Of two drawn at random, the one with fewer requests in flight
    /// gets the next.
    pub servers: Vec<String>,
    /// To open a connection.
    pub connect_timeout: Dur,
    /// From the end of the request to the head of the response.
    pub response_timeout: Dur,
    /// How long an unused connection is kept.
    pub idle_timeout: Dur,
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            connect_timeout: Dur::secs(2),
            response_timeout: Dur::secs(30),
            idle_timeout: Dur::secs(60),
        }
    }
}
