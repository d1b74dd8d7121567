//! Weights, turns and keys.

use super::{config_of, servers};
use crate::harness::link::{Link, nothing};
use crate::harness::{CONFIG, Gateway, World, local, with_lines};
use bonterra_gateway::demo::echo::{Echo, EchoOptions};
use futures_util::future::join_all;
use http::Request;
use serde_json::json;
use std::collections::HashMap;

async fn quiet() -> Echo {
    let options = EchoOptions { record: false };
    Echo::start_with(local(), options).await.expect("upstream")
}

async fn weighted(balance: &str) -> [u64; 3] {
    const CLIENTS: usize = 8;
    let echoes = [quiet().await, quiet().await, quiet().await];
    let [a, b, c] = echoes.each_ref().map(Echo::url);
    let gateway = Gateway::start(&config_of(&format!(
        "servers = [{{ url = \"{a}\", weight = 5 }}, {{ url = \"{b}\", weight = 3 }}, \"{c}\"]\nbalance = \"{balance}\""
    )))
    .await;
    join_all((0..CLIENTS).map(async |_| {
        let mut link = Link::connect(gateway.address).await;
        for _ in 0..10_000 / CLIENTS {
            assert_eq!(link.get("/api/sink").await.status, 200);
        }
    }))
    .await;
    echoes.each_ref().map(Echo::requests)
}

#[tokio::test]
async fn ten_thousand_requests_keep_to_the_weights() {
    let counts = weighted("least_requests").await;
    assert_eq!(counts.iter().sum::<u64>(), 10_000);
    for (count, weight) in counts.iter().zip([5.0, 3.0, 1.0]) {
        let expected = 10_000.0 * weight / 9.0;
        assert!((*count as f64 - expected).abs() < 400.0, "{counts:?}");
    }
    // Each worker takes turns of its own: off by a round at most.
    let counts = weighted("round_robin").await;
    for (count, weight) in counts.iter().zip([5.0, 3.0, 1.0]) {
        let expected = 10_000.0 * weight / 9.0;
        assert!((*count as f64 - expected).abs() < 10.0, "{counts:?}");
    }
}

#[tokio::test]
async fn the_same_key_goes_to_the_same_server() {
    let echoes = [quiet().await, quiet().await, quiet().await];
    let urls = echoes.each_ref().map(Echo::url);
    let urls = urls.each_ref().map(String::as_str);
    let hashed = format!(
        "{}balance = \"consistent_hash\"\nhash_on = \"header:x-tenant\"",
        servers(&urls)
    );
    let gateway = Gateway::start(&config_of(&hashed)).await;
    let mut link = Link::connect(gateway.address).await;
    let mut places: HashMap<usize, String> = HashMap::new();
    for number in 0..300 {
        let tenant = number % 30;
        let request = Request::get("/api/x").header("x-tenant", format!("tenant {tenant}"));
        let reply = link.send(request.body(nothing()).expect("a request")).await;
        let host = asked(&echoes);
        let place = places.entry(tenant).or_insert_with(|| host.clone());
        assert_eq!(reply.status, 200);
        assert_eq!(*place, host, "tenant {tenant}");
    }
    let mut used: Vec<_> = places.into_values().collect();
    used.sort();
    used.dedup();
    assert_eq!(used.len(), 3, "30 tenants use all servers");

    // Without the header, any server.
    let before = echoes.each_ref().map(Echo::requests);
    for _ in 0..60 {
        assert_eq!(link.get("/api/x").await.status, 200);
    }
    let after = echoes.each_ref().map(Echo::requests);
    assert!(
        after
            .iter()
            .zip(before)
            .all(|(after, before)| *after > before)
    );
}

/// Which of these was asked since this was last called.
fn asked(echoes: &[Echo]) -> String {
    thread_local! {
        static SEEN: std::cell::RefCell<HashMap<String, u64>> = std::cell::RefCell::default();
    }
    SEEN.with_borrow_mut(|seen| {
        let mut asked = None;
        for echo in echoes {
            let count = seen.entry(echo.url()).or_default();
            if *count != echo.requests() {
                *count = echo.requests();
                assert!(
                    asked.replace(echo.url()).is_none(),
                    "one request, one server"
                );
            }
        }
        asked.expect("a server")
    })
}

#[tokio::test]
async fn claims_and_addresses_are_keys_too() {
    let more = [quiet().await, quiet().await];
    for hash_on in ["claim:sub", "client_ip"] {
        let urls = format!(
            "servers = [\"ECHO\", \"{}\", \"{}\"]",
            more[0].url(),
            more[1].url()
        );
        let config = CONFIG.replace("servers = [\"ECHO\"]", &urls);
        let config = with_lines(
            &config,
            "[upstream.echo]",
            &format!("balance = \"consistent_hash\"\nhash_on = \"{hash_on}\""),
        );
        let config = with_lines(&config, "[server]", "trusted_proxies = [\"127.0.0.0/8\"]");
        let world = World::with(&config).await;
        let counts = || {
            [
                world.echo.requests(),
                more[0].requests(),
                more[1].requests(),
            ]
        };
        let mut used = [false; 3];
        for number in 0..20 {
            let token = world.token_with(json!({ "sub": format!("user {number}") }));
            let before = counts();
            for _ in 0..5 {
                let request = world.get("/grants/1").bearer(&token);
                let request = request.header("x-forwarded-for", format!("192.0.2.{number}"));
                assert_eq!(request.send().await.status, 200);
            }
            let moved: Vec<u64> = counts().iter().zip(before).map(|(a, b)| a - b).collect();
            assert!(moved.contains(&5), "{hash_on}: {moved:?}");
            used.iter_mut()
                .zip(moved)
                .for_each(|(used, moved)| *used |= moved > 0);
        }
        assert_eq!(used, [true; 3], "{hash_on}");
    }
}
