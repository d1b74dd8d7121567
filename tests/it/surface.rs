//! The OAuth surface beside the token endpoint's own rules: several of them side by side, errors in
//! an envelope, the client's address, and the endpoints for users and readers.

mod client_address;
mod documents;
mod envelope;
mod introspect;
mod revoke;
mod users;

use crate::harness::{Gateway, Reply};

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];

/// What nobody may keep (RFC 6749 §5.1), whatever the answer.
fn assert_not_stored(reply: &Reply) {
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
}

/// How many requests to an endpoint of the surface `bonterra` that has no grants ended so.
async fn ended(gateway: &Gateway, endpoint: &str, outcome: &str) -> f64 {
    let series = format!(
        "gateway_oauth_requests_total{{endpoint=\"{endpoint}\",grant=\"-\",outcome=\"{outcome}\",surface=\"bonterra\"}}"
    );
    gateway.metric(&series).await
}
