//! HTTP/2 towards clients: what HTTP/1.1 promises holds here, too, and what only HTTP/2 can get wrong.

mod deadlines;
mod fields;
mod floods;
mod foreign;
mod limits;
mod requests;

use crate::harness::program::GatewayProcess;
use crate::harness::{CONFIG, World, with_lines};

/// One open route to one upstream; no issuer, so it is ready at once.
const OPEN: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"
max_body = "1GiB"

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

/// A world with more lines under `[server]`.
async fn world(lines: &str) -> World {
    World::with(&with_lines(CONFIG, "[server]", lines)).await
}

/// A gateway in a process of its own, so that its memory can be told from the tests'.
async fn process(upstream: &str) -> GatewayProcess {
    GatewayProcess::start(&OPEN.replace("UPSTREAM", upstream)).await
}

/// Checks that a process needed at most this much more memory, in MiB, than it had at rest.
fn assert_flat(gateway: &GatewayProcess, before: u64) {
    let (_, peak) = gateway.running.memory();
    assert!(
        peak < before + 40,
        "{before} MiB before, {peak} MiB at the peak"
    );
}
