//! What is admitted passes as it came: connections, bodies, headers and routes, and what the
//! gateway says when a side is slow, silent, broken or gone.

mod breaker;
mod connections;
mod deadlines;
mod early_answers;
mod failures;
mod headers;
mod interim;
mod messages;
mod retries;
mod routes;
mod streams;
mod upstream_http2;
mod upstream_tls;

use crate::harness::{Gateway, with_lines};

/// One open route to one upstream; no issuer, so it is ready at once.
const OPEN: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[upstream.api]
servers = ["UPSTREAM"]

[[route]]
name = "api"
path = "/api/*"
upstream = "api"
auth = "none"
"#;

/// [`OPEN`] in front of this upstream, with more lines in some tables.
fn open_config(upstream: &str, changes: &[(&str, &str)]) -> String {
    let config = OPEN.replace("UPSTREAM", upstream);
    changes.iter().fold(config, |config, (table, lines)| {
        with_lines(&config, table, lines)
    })
}

/// A gateway with [`open_config`].
async fn gateway(upstream: &str, changes: &[(&str, &str)]) -> Gateway {
    Gateway::start(&open_config(upstream, changes)).await
}
