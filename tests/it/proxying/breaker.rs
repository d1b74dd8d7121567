//! What is more than a server can take waits, and what is more than may wait is told so at once.

use super::{gateway, open_config};
use crate::harness::{Gateway, Raw, RawUpstream, assert_refused, eventually, request, within};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// An upstream that answers as often as it is allowed to.
async fn patient() -> (RawUpstream, Arc<Semaphore>) {
    let allowed = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&allowed);
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let waits = Arc::clone(&waits);
        async move {
            loop {
                raw.reply().await;
                waits.acquire().await.expect("open").forget();
                raw.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await;
            }
        }
    })
    .await;
    (upstream, allowed)
}

async fn in_flight(gateway: &Gateway, requests: f64) {
    eventually("requests in flight", async || {
        gateway.metric("gateway_requests_in_flight").await == requests
    })
    .await;
}

#[tokio::test]
async fn the_surplus_is_refused_at_once_and_the_rest_is_served() {
    let (upstream, allowed) = patient().await;
    let limits = "max_connections = 2\nmax_pending = 2\nconnect_timeout = \"20s\"";
    let gateway = gateway(&upstream.url(), &[("[upstream.api]", limits)]).await;
    let get = request(gateway.address, "GET", "/api/");
    let mut served = Vec::new();
    for number in 1..=4 {
        let get = get.clone();
        served.push(tokio::spawn(async move { get.send().await.status }));
        in_flight(&gateway, f64::from(number)).await;
    }
    for _ in 0..3 {
        let started = Instant::now();
        let reply = get.send().await;
        assert!(
            started.elapsed() < Duration::from_secs(2),
            "{:?}",
            started.elapsed()
        );
        assert_refused(&gateway, &reply, 503, "overloaded", "api").await;
        assert_eq!(reply.header("retry-after"), Some("1"));
    }
    assert_eq!(upstream.connections(), 2);
    allowed.add_permits(4);
    for one in served {
        assert_eq!(within("a reply", one).await.expect("no panic"), 200);
    }
    assert_eq!(upstream.connections(), 2);
    allowed.add_permits(1);
    assert_eq!(get.send().await.status, 200, "as if nothing had been");
}

#[tokio::test]
async fn who_waits_too_long_is_told_so() {
    let (upstream, allowed) = patient().await;
    let limits = "max_connections = 1\nconnect_timeout = \"200ms\"";
    let gateway = gateway(&upstream.url(), &[("[upstream.api]", limits)]).await;
    let get = request(gateway.address, "GET", "/api/");
    let first = tokio::spawn({
        let get = get.clone();
        async move { get.send().await.status }
    });
    in_flight(&gateway, 1.0).await;
    let started = Instant::now();
    let reply = get.send().await;
    assert!(started.elapsed() >= Duration::from_millis(200));
    assert_refused(&gateway, &reply, 503, "overloaded", "api").await;
    allowed.add_permits(1);
    assert_eq!(first.await.expect("no panic"), 200);
}

#[tokio::test]
async fn a_waiting_request_that_nobody_waits_for_leaves_its_place() {
    let (upstream, allowed) = patient().await;
    let limits = "max_connections = 1\nmax_pending = 1\nconnect_timeout = \"20s\"";
    let gateway = gateway(&upstream.url(), &[("[upstream.api]", limits)]).await;
    let get = request(gateway.address, "GET", "/api/");
    let spawn = || {
        let get = get.clone();
        tokio::spawn(async move { get.send().await.status })
    };
    let first = spawn();
    in_flight(&gateway, 1.0).await;
    let mut leaver = Raw::connect(gateway.address).await;
    leaver.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    in_flight(&gateway, 2.0).await;
    drop(leaver);
    in_flight(&gateway, 1.0).await;
    let second = spawn();
    in_flight(&gateway, 2.0).await;
    allowed.add_permits(2);
    assert_eq!(within("the first", first).await.expect("no panic"), 200);
    assert_eq!(within("the second", second).await.expect("no panic"), 200);
}

/// A request in flight holds its place until its response has ended, and a client that leaves frees it.
#[tokio::test]
async fn places_are_freed_however_a_request_ends() {
    let (upstream, allowed) = patient().await;
    let limits = "max_connections = 1\nmax_pending = 0";
    let gateway = gateway(&upstream.url(), &[("[upstream.api]", limits)]).await;
    for _ in 0..5 {
        let mut raw = Raw::connect(gateway.address).await;
        raw.send("GET /api/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        in_flight(&gateway, 1.0).await;
        drop(raw);
        in_flight(&gateway, 0.0).await;
    }
    allowed.add_permits(100);
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert_eq!(reply.status, 200);
}

/// Who is in flight and who waits counts on behind a reload, at the same places.
#[tokio::test]
async fn a_reload_makes_no_room() {
    let (upstream, allowed) = patient().await;
    let limits = "max_connections = 2\nmax_pending = 2\nconnect_timeout = \"20s\"";
    let gateway = gateway(&upstream.url(), &[("[upstream.api]", limits)]).await;
    let get = request(gateway.address, "GET", "/api/");
    let mut served = Vec::new();
    for number in 1..=4 {
        let get = get.clone();
        served.push(tokio::spawn(async move { get.send().await.status }));
        in_flight(&gateway, f64::from(number)).await;
    }
    for lines in [
        limits.to_owned(),
        format!("{limits}\nresponse_timeout = \"19s\""),
    ] {
        let route = ("[[route]]", "timeout = \"19s\"");
        let changed = open_config(&upstream.url(), &[("[upstream.api]", &lines), route]);
        std::fs::write(gateway.file(), changed).expect("written");
        assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
        let started = Instant::now();
        let reply = get.send().await;
        assert_refused(&gateway, &reply, 503, "overloaded", "api").await;
        assert!(started.elapsed() < Duration::from_secs(2), "at once");
    }
    assert_eq!(upstream.connections(), 2);
    allowed.add_permits(4);
    for one in served {
        assert_eq!(within("a reply", one).await.expect("no panic"), 200);
    }
    assert_eq!(upstream.connections(), 2);
    allowed.add_permits(1);
    assert_eq!(get.send().await.status, 200, "as if nothing had been");
}

/// Who waits gets the first place that any server frees, and nobody who comes later gets it instead.
#[tokio::test]
async fn who_waits_gets_the_first_place_that_any_server_frees() {
    let (one, two) = (patient().await, patient().await);
    let limits = "max_connections = 1\nconnect_timeout = \"5s\"\nbalance = \"consistent_hash\"\nhash_on = \"header:x-key\"";
    let servers = format!("{}\", \"{}", one.0.url(), two.0.url());
    let gateway = gateway(&servers, &[("[upstream.api]", limits)]).await;
    // All of them would like to go to the same server.
    let spawn = || {
        let get = request(gateway.address, "GET", "/api/").header("x-key", "k");
        tokio::spawn(async move { get.send().await.status })
    };
    let first = spawn();
    in_flight(&gateway, 1.0).await;
    eventually("the first is at its server", || {
        std::future::ready(one.0.connections() + two.0.connections() == 1)
    })
    .await;
    let (wanted, other) = match one.0.connections() {
        1 => (&one.1, &two.1),
        _ => (&two.1, &one.1),
    };
    let second = spawn();
    in_flight(&gateway, 2.0).await;
    let third = spawn();
    in_flight(&gateway, 3.0).await;
    let fourth = spawn();
    in_flight(&gateway, 4.0).await;
    other.add_permits(2);
    assert_eq!(within("the second", second).await.expect("no panic"), 200);
    assert_eq!(within("the third", third).await.expect("no panic"), 200);
    in_flight(&gateway, 2.0).await;
    assert!(!first.is_finished() && !fourth.is_finished());
    wanted.add_permits(2);
    other.add_permits(2);
    assert_eq!(within("the first", first).await.expect("no panic"), 200);
    assert_eq!(within("the fourth", fourth).await.expect("no panic"), 200);
}
