//! What attackers and accidents send: a test for every row of the tables of hostile input, in the
//! order of the tables. `tokens::row_03_…` is the third row of the table of tokens; a row whose
//! cases need different set-ups has several tests of the same number.
//!
//! Everything is sent through sockets to a running gateway. [`refused`] is the measure: every case is
//! sent before and after a good request of its own, and once more in case a refusal is remembered.
//! Truly cold is only the first case of each test, which meets a gateway that has not served anything
//! yet; to the ones behind it keys, caches and connections are warm, but the case itself is new.
//! Nothing of what is refused may reach the upstream.
//!
//! What needs TLS is in `tls`: a token bound to a certificate, with and without it, and slow handshakes.
//!
//! `framing_streams` and `real_upstreams` put the whole table of framing to the test once more: at random,
//! and in front of servers of other makers.
//!
//! The floods of HTTP/2 are in `http2::floods`, its slow clients in `http2::deadlines`, and a token
//! bound to a certificate that comes with it in `tls::mutual`.

mod caches;
mod framing;
mod framing_streams;
mod headers;
mod oauth_surface;
mod paths;
mod real_upstreams;
mod tokens;
mod upstream_framing;

use crate::harness::{Raw, Reply, Request, World};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use serde_json::Value;
use std::time::{SystemTime, UNIX_EPOCH};

/// The table of `CONFIG` that rules of tokens go to.
pub const ISSUER: &str = "[issuer.bonterra]";
pub const AUTH_ID: &str = "urn:bonterra:claims:bonterra_auth_id";
pub const IS_GRANTS: &str = "urn:bonterra:claims:is_bonterra_grants";

/// What is sent: by a client that writes proper HTTP, or bytes as they are, on a connection of
/// their own.
pub enum Hostile {
    Request(Request),
    Bytes(Vec<u8>),
}

// === impl Hostile ===

impl From<Request> for Hostile {
    fn from(request: Request) -> Self {
        Self::Request(request)
    }
}

impl From<Vec<u8>> for Hostile {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<String> for Hostile {
    fn from(text: String) -> Self {
        Self::Bytes(text.into_bytes())
    }
}

impl Hostile {
    async fn send(&self, world: &World) -> Reply {
        match self {
            Self::Request(request) => request.send().await,
            Self::Bytes(bytes) => {
                let mut raw = Raw::connect(world.gateway.address).await;
                raw.send(bytes).await;
                raw.whole().await
            }
        }
    }

    /// A path where a good token is welcome: the same one, if a path can be told.
    fn path(&self) -> &str {
        match self {
            Self::Request(request) => {
                let path = request.path();
                path.split_once('?').map_or(path, |(path, _)| path)
            }
            Self::Bytes(_) => "/grants/1",
        }
    }
}

/// Refused with this status and reason, as it comes first, behind a good one, and again; and nothing
/// of it upstream.
pub async fn refused(
    world: &World,
    sent: impl Into<Hostile>,
    status: u16,
    reason: &str,
    case: &str,
) {
    let sent = sent.into();
    let good = world.authorized(sent.path());
    refused_beside(world, &good, sent, status, reason, case).await;
}

/// [`refused`] where something else is good.
pub async fn refused_beside(
    world: &World,
    good: &Request,
    sent: impl Into<Hostile>,
    status: u16,
    reason: &str,
    case: &str,
) {
    let sent = sent.into();
    let (requests, connections) = (world.echo.requests(), world.echo.connections());
    for (pass, good_ones) in [("at first", 0), ("behind a good one", 1), ("again", 1)] {
        if pass == "behind a good one" {
            let reply = good.send().await;
            assert_eq!(reply.status, 200, "{case}: the good one: {}", reply.text());
        }
        let case = format!("{case}, {pass}");
        assert_refusal(&sent.send(world).await, status, reason, &case);
        assert_eq!(
            world.echo.requests(),
            requests + good_ones,
            "{case}: the upstream saw it"
        );
        if requests + good_ones == 0 {
            assert_eq!(
                world.echo.connections(),
                connections,
                "{case}: the upstream was called for it"
            );
        }
    }
}

/// 401 for a token on a route that wants one, as [`refused`] has it.
pub async fn token_refused(world: &World, token: &str, reason: &str, case: &str) {
    refused(
        world,
        world.get("/grants/1").bearer(token),
        401,
        reason,
        case,
    )
    .await;
}

/// Admitted, and again when it is known.
pub async fn admitted(world: &World, token: &str, case: &str) {
    for pass in ["at first", "again"] {
        let reply = world.get("/grants/1").bearer(token).send().await;
        assert_eq!(reply.status, 200, "{case}, {pass}: {}", reply.text());
    }
}

/// Status, reason, and the challenge that belongs to them (RFC 6750 §3).
pub fn assert_refusal(reply: &Reply, status: u16, reason: &str, case: &str) {
    assert_eq!(reply.status, status, "{case}: {}", reply.text());
    assert_eq!(reply.json()["reason"], reason, "{case}");
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{case}"
    );
    let challenges = reply.headers.get_all("www-authenticate").iter().count();
    let challenge = reply.header("www-authenticate").unwrap_or_default();
    let bearer = "Bearer realm=\"bonterra\"";
    let fits = match (status, reason) {
        (401, "missing_token") => challenge.starts_with(bearer) && !challenge.contains("error"),
        (401, _) => challenge.starts_with(&format!(
            "{bearer}, error=\"invalid_token\", error_description=\""
        )),
        (403, "insufficient_scope") => {
            challenge.starts_with(&format!("{bearer}, error=\"insufficient_scope\""))
                && challenge.contains("scope=\"")
        }
        _ => challenges == 0,
    };
    assert!(fits && challenges <= 1, "{case}: {challenge:?}");
}

/// Another issuer, whose keys nobody else has.
async fn another_issuer(key_slot: usize) -> BonterraAuth {
    let options = AuthOptions {
        key_slot,
        all_algorithms: true,
        ..AuthOptions::default()
    };
    BonterraAuth::start(options).await.expect("an issuer")
}

/// An object with some members changed; `null` removes one.
fn changed(object: &Value, changes: Value) -> Value {
    let mut object = object.clone();
    let (Some(members), Value::Object(changes)) = (object.as_object_mut(), changes) else {
        panic!("not objects");
    };
    for (name, value) in changes {
        match value {
            Value::Null => drop(members.shift_remove(&name)),
            value => drop(members.insert(name, value)),
        }
    }
    object
}

/// The three segments of a token.
pub fn parts(token: &str) -> [&str; 3] {
    let parts: Vec<&str> = token.split('.').collect();
    parts.try_into().expect("three segments")
}

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// All headers at the upstream that look like the gateway's own, whatever their spelling.
pub fn identity_headers(reply: &Reply) -> Vec<(String, String)> {
    let headers = reply.json()["headers"].clone();
    let headers: Vec<(String, String)> =
        serde_json::from_value(headers).expect("the echo's headers");
    let ours = |name: &str| {
        let fold = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        let name: String = name.to_ascii_lowercase().chars().map(fold).collect();
        name.starts_with("x-bonterra-") || name == "x-tenant"
    };
    headers.into_iter().filter(|(name, _)| ours(name)).collect()
}
