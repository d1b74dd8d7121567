//! Names are resolved in the background, and what they resolve to may change.

use super::{config_of, healthy};
use crate::harness::{Gateway, assert_refused, eventually, request};
use bonterra_gateway::app;
use bonterra_gateway::demo::echo::Echo;
use bonterra_gateway::upstream::{Resolve, Resolver, Resolving};
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A name server in the hands of the test.
#[derive(Clone, Debug, Default)]
struct Book(Arc<Mutex<HashMap<String, Vec<IpAddr>>>>);

impl Book {
    fn write(&self, name: &str, addresses: &[&str]) {
        let addresses = addresses
            .iter()
            .map(|text| text.parse().expect("an address"));
        let mut book = self.0.lock().expect("not poisoned");
        book.insert(name.to_owned(), addresses.collect());
    }

    fn forget(&self, name: &str) {
        self.0.lock().expect("not poisoned").remove(name);
    }

    async fn gateway(&self, config: &str) -> Gateway {
        let mut env = app::environment().expect("metrics");
        env.resolver = Resolver::of(self.clone());
        Gateway::start_in(env, config).await
    }
}

impl Resolve for Book {
    fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
        let found = self.0.lock().expect("not poisoned").get(host).cloned();
        Box::pin(async move { found.ok_or_else(|| io::Error::other("no such name")) })
    }
}

/// Two APIs on one port, at 127.0.0.1 and 127.0.0.2.
async fn neighbours() -> (Echo, Echo, u16) {
    for _ in 0..50 {
        let one = Echo::start(([127, 0, 0, 1], 0).into())
            .await
            .expect("upstream");
        let port = one.addr().port();
        if let Ok(other) = Echo::start(([127, 0, 0, 2], port).into()).await {
            return (one, other, port);
        }
    }
    panic!("no port is free at both addresses");
}

/// One worker, so that connections can be counted.
fn named(port: u16, more: &str) -> String {
    let servers = format!("servers = [\"http://api.internal:{port}\"]");
    let config = config_of(&format!("{servers}\ndns_refresh = \"20ms\"\n{more}"));
    config.replace("workers = 2", "workers = 1")
}

async fn get(gateway: &Gateway) -> u16 {
    request(gateway.address, "GET", "/api/x")
        .send()
        .await
        .status
}

#[tokio::test]
async fn a_change_of_addresses_is_picked_up() {
    let (one, other, port) = neighbours().await;
    let book = Book::default();
    book.write("api.internal", &["127.0.0.1"]);
    let gateway = book.gateway(&named(port, "")).await;
    let first = format!("api.internal:{port}");
    assert_eq!(
        get(&gateway).await,
        200,
        "resolved before the first request"
    );
    assert_eq!(healthy(&gateway, &first).await, Some(true));

    book.write("api.internal", &["127.0.0.2", "127.0.0.1", "::1"]);
    let second = format!("api.internal:{port}/127.0.0.2");
    eventually("both are known", async || {
        healthy(&gateway, &second).await == Some(true)
    })
    .await;
    for _ in 0..60 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert!(one.requests() > 0 && other.requests() > 0);
    assert_eq!(
        one.connections(),
        1,
        "a server that stays keeps its connection"
    );
    let third = format!("api.internal:{port}/::1");
    assert_eq!(
        healthy(&gateway, &third).await,
        None,
        "one family is enough"
    );

    book.write("api.internal", &["127.0.0.2"]);
    eventually("the first is gone", async || {
        healthy(&gateway, &first).await.is_none()
    })
    .await;
    let before = one.requests();
    for _ in 0..20 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert_eq!(one.requests(), before);
}

#[tokio::test]
async fn the_last_good_answer_is_kept() {
    let (one, _other, port) = neighbours().await;
    let book = Book::default();
    book.write("api.internal", &["127.0.0.1"]);
    let gateway = book.gateway(&named(port, "")).await;
    for addresses in [None, Some(&[][..])] {
        match addresses {
            None => book.forget("api.internal"),
            Some(addresses) => book.write("api.internal", addresses),
        }
        // Long enough for some attempts; a change that is picked up meanwhile proves it.
        for _ in 0..30 {
            assert_eq!(get(&gateway).await, 200);
            tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        }
    }
    // Over a reload, too.
    std::fs::write(gateway.file(), named(port, "slow_start = \"1s\"")).expect("written");
    assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    assert_eq!(get(&gateway).await, 200);
    assert_eq!(one.connections(), 1);
}

#[tokio::test]
async fn a_name_that_nobody_knows_yet_costs_503_until_it_is_known() {
    let (one, _other, port) = neighbours().await;
    let book = Book::default();
    let gateway = book.gateway(&named(port, "")).await;
    let reply = request(gateway.address, "GET", "/api/x").send().await;
    assert_refused(&gateway, &reply, 503, "upstream_unhealthy", "api").await;
    assert_eq!(one.requests(), 0);
    book.write("api.internal", &["127.0.0.1"]);
    eventually("it is known", async || get(&gateway).await == 200).await;
}

/// A name server that does not answer holds a start up for two seconds, and no longer.
#[tokio::test]
async fn a_silent_name_server_does_not_prevent_a_start() {
    #[derive(Debug)]
    struct Silent;
    impl Resolve for Silent {
        fn resolve<'a>(&'a self, _: &'a str) -> Resolving<'a> {
            Box::pin(std::future::pending())
        }
    }
    let mut env = app::environment().expect("metrics");
    env.resolver = Resolver::of(Silent);
    let started = std::time::Instant::now();
    let gateway = Gateway::start_in(env, &named(1, "")).await;
    assert!((1.5..8.0).contains(&started.elapsed().as_secs_f64()));
    assert_eq!(get(&gateway).await, 503);
}

/// What is done in the background goes on behind a fault in it: the first question panics, and one in the middle.
#[tokio::test]
async fn a_panic_in_the_background_ends_nothing() {
    #[derive(Debug)]
    struct Faulty(Book, AtomicUsize);
    impl Resolve for Faulty {
        fn resolve<'a>(&'a self, host: &'a str) -> Resolving<'a> {
            let asked = self.1.fetch_add(1, Relaxed);
            assert!(![0, 5].contains(&asked), "a fault of the test's making");
            self.0.resolve(host)
        }
    }
    let (one, other, port) = neighbours().await;
    let book = Book::default();
    book.write("api.internal", &["127.0.0.1"]);
    let mut env = app::environment().expect("metrics");
    env.resolver = Resolver::of(Faulty(book.clone(), AtomicUsize::new(0)));
    let gateway = Gateway::start_in(env, &named(port, "")).await;
    eventually("it is known", async || get(&gateway).await == 200).await;
    assert!(one.requests() > 0);
    book.write("api.internal", &["127.0.0.2"]);
    eventually("a change behind the second one", async || {
        assert_eq!(get(&gateway).await, 200);
        other.requests() > 0
    })
    .await;
}

/// The system's own resolver, by the one name that it knows everywhere.
#[tokio::test]
async fn localhost_is_a_name() {
    let echo = Echo::start(([127, 0, 0, 1], 0).into())
        .await
        .expect("upstream");
    let list = format!("servers = [\"http://localhost:{}\"]", echo.addr().port());
    let gateway = Gateway::start(&config_of(&list)).await;
    assert_eq!(get(&gateway).await, 200);
}
