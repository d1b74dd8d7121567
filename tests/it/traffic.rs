//! Traffic rules: rate limits, local and shared, and CORS.

mod cors;
mod limits;
mod shared_limits;

use crate::harness::{CONFIG, with_lines};

/// [`CONFIG`] with more lines in the route of this name.
fn on_route(name: &str, lines: &str) -> String {
    let place = format!("name = \"{name}\"\n");
    assert_eq!(CONFIG.matches(&place).count(), 1, "one {name}");
    CONFIG.replace(&place, &format!("{place}{lines}\n"))
}

/// The same behind a proxy on loopback that says where clients are.
fn behind_proxy(config: &str) -> String {
    with_lines(config, "[server]", "trusted_proxies = [\"127.0.0.0/8\"]")
}
