//! `[[route]]`

use std::collections::BTreeMap;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::internal_jwt::InternalJwt;
use super::net::{Cidr, cidrs};
use super::query::Query;
use super::traffic::{Cors, RateLimit};
use super::units::{Dur, Size};

/// Which requests go where, and who may send them. The most specific path wins, whatever the order in the file.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// The label in metrics and logs; no two routes share it. Absent: the path.
    pub name: Option<String>,
    /// Required. `"/grants/*"` (also matches `/grants`), exact `"/status"`, or with segments `"/users/{id}"`.
    pub path: Option<String>,
    /// Hosts of the request, without port; empty: any.
    pub hosts: Vec<String>,
    /// Methods of the request; empty: any.
    pub methods: Vec<String>,
    /// Required. The NAME of the `[upstream.NAME]` that answers.
    pub upstream: Option<String>,
    /// Whether a token is needed ("required"), used when there is one ("optional"), or not looked at ("none").
    pub auth: Auth,
    /// NAMEs of the issuers whose tokens are accepted; empty: all.
    pub issuers: Vec<String>,
    /// Scopes that the token must have, all of them.
    pub scopes: Vec<String>,
    /// Scopes of which the token must have at least one.
    pub any_scope: Vec<String>,
    /// Claims that the token must have, each with this very value. If the claim is an array, it is enough that the
    /// value is one of its members; if an array is asked for, all of its. A name with colons or dots goes in quotes.
    pub claims: BTreeMap<String, serde_json::Value>,
    /// Claims that the token must have, whatever their value; one that is `null` is absent.
    pub claims_present: Vec<String>,
    /// Whether the upstream gets the caller's `Authorization` header. One that has a `token` of its own never does.
    pub forward_token: bool,
    /// A leading part of the path that the upstream does not get to see.
    pub strip_prefix: String,
    /// What comes before the rest of the path on its way to the upstream: with "/api/v2" it gets `/api/v2/users` for
    /// `/users`.
    pub add_prefix: String,
    /// What the query may be, and what becomes of it.
    #[schemars(with = "Query")]
    pub query: Option<Query>,
    /// The body of every request has to be one JSON object with no members but these, and no member twice; else: 400,
    /// which names the member. The body is held in memory until it has been read, up to `max_body`: set that low. Give
    /// such a route the methods that have a body. Absent: bodies are not looked at.
    pub json_fields: Option<Vec<String>>,
    /// For the whole exchange; "0s": no limit, for streams.
    pub timeout: Dur,
    /// Protocols that a connection may be switched to by an HTTP/1.1 request (`Upgrade`); empty: none.
    pub upgrades: Vec<String>,
    /// How long both ends of a switched connection may be silent; "0s": no limit. `timeout` ends with the switch.
    pub tunnel_idle_timeout: Dur,
    /// Whether a switched connection is closed when the token expires that opened it.
    pub close_at_expiry: bool,
    /// Size of a request body at most; larger: 413. Absent: `server.max_body`.
    pub max_body: Option<Size>,
    /// Networks of the clients that are let in; empty: all.
    #[serde(with = "cidrs")]
    #[schemars(with = "Vec<Cidr>")]
    pub allow_ips: Vec<IpNet>,
    /// Changes to the headers that the upstream gets.
    pub request_headers: HeaderRules,
    /// Changes to the headers that the client gets.
    pub response_headers: HeaderRules,
    /// How often each caller may ask; more: 429. Each route counts for itself, and the state outlives a reload that
    /// does not change this rule. Absent: as often as they like.
    #[schemars(with = "RateLimit")]
    pub rate_limit: Option<RateLimit>,
    /// Which pages of other origins may use the route from a browser. This is no access control: a request of an
    /// origin that is not listed goes on like any other, and it is the browser that keeps the answer from the page.
    /// The preflight of a listed origin is answered by the gateway, before tokens, `allow_ips` and `rate_limit` are
    /// looked at. The upstream's own `Access-Control-*` headers are replaced. Absent: none of this is touched.
    #[schemars(with = "Cors")]
    pub cors: Option<Cors>,
    /// The gateway's own token in place of the caller's. Absent: the upstream gets the caller's, as `forward_token` says.
    #[schemars(with = "InternalJwt")]
    pub internal_jwt: Option<InternalJwt>,
}

/// Changes to headers: first `remove`, then `set`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HeaderRules {
    /// Headers to set, replacing any of that name.
    pub set: BTreeMap<String, String>,
    /// Headers to remove.
    pub remove: Vec<String>,
}

/// What a route asks of a request's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "explained at `Route::auth`; documented variants make a longer schema"
)]
pub enum Auth {
    #[default]
    Required,
    Optional,
    None,
}

impl Default for Route {
    fn default() -> Self {
        Self {
            name: None,
            path: None,
            hosts: Vec::new(),
            methods: Vec::new(),
            upstream: None,
            auth: Auth::Required,
            issuers: Vec::new(),
            scopes: Vec::new(),
            any_scope: Vec::new(),
            claims: BTreeMap::new(),
            claims_present: Vec::new(),
            forward_token: true,
            strip_prefix: String::new(),
            add_prefix: String::new(),
            query: None,
            json_fields: None,
            timeout: Dur::secs(60),
            upgrades: vec!["websocket".to_owned()],
            tunnel_idle_timeout: Dur::secs(300),
            close_at_expiry: false,
            max_body: None,
            allow_ips: Vec::new(),
            request_headers: HeaderRules::default(),
            response_headers: HeaderRules::default(),
            rate_limit: None,
            cors: None,
            internal_jwt: None,
        }
    }
}
