//! `rate_limit` and `cors` of `[[route]]`

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Dur, Rate};

/// How often each caller may ask; more: 429. Each route counts for itself, and the state outlives a reload that does
/// not change this rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimit {
    /// Required. How often on average: `"100/s"`, `"30/m"`, `"1000/h"`.
    pub rate: Option<Rate>,
    /// How many may come at once after a pause. Absent: what comes in a second, and at least 1.
    pub burst: Option<u32>,
    /// What counts as one caller. "client": the OAuth client (`azp`, else `client_id`, else `sub`, of one issuer).
    /// "subject": the `sub` of one issuer. Without a token both go by the address. "ip": the address, as
    /// `server.trusted_proxies` tell it, of IPv6 the first 64 bits; it is counted before the token is looked at.
    pub by: LimitBy,
}

/// What counts as one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "explained at `RateLimit::by`; documented variants make a longer schema"
)]
pub enum LimitBy {
    #[default]
    Client,
    Subject,
    Ip,
}

/// Which pages of other origins may use the route from a browser. This is no access control: a request of an origin
/// that is not listed goes on like any other, and it is the browser that keeps the answer from the page. The preflight
/// of a listed origin is answered by the gateway, before tokens, `allow_ips` and `rate_limit` are looked at. The
/// upstream's own `Access-Control-*` headers are replaced.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Cors {
    /// Required. `"https://app.bonterra.network"`, `"https://*.bonterra.network"` (one or more labels for the `*`), or
    /// `"*"` for any.
    pub origins: Vec<String>,
    /// Methods that pages may use; empty: the route's, and if it has none the usual ones.
    pub methods: Vec<String>,
    /// Headers that pages may send; empty: `Authorization` and `Content-Type`. What a page asks for is never granted
    /// because it asks.
    pub headers: Vec<String>,
    /// Headers of responses that pages may read, besides those that the gateway itself sets: `WWW-Authenticate`,
    /// `Retry-After`, `RateLimit`, `RateLimit-Policy`, `X-Request-Id`.
    pub expose: Vec<String>,
    /// Whether pages may send cookies and the like. Access tokens in `Authorization` need no such leave.
    pub credentials: bool,
    /// How long browsers may remember the answer to a preflight.
    pub max_age: Dur,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: Vec::new(),
            headers: Vec::new(),
            expose: Vec::new(),
            credentials: false,
            max_age: Dur(Duration::from_secs(600)),
        }
    }
}
