//! Handshakes: versions, protocols, sessions, and clients that speak something else or nothing.

use super::Site;
use crate::harness::{CONFIG, PATIENCE, Raw, eventually, with_lines, within};
use futures_util::future::join_all;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt as _;

#[tokio::test]
async fn both_versions_and_all_protocols_are_spoken() {
    let site = Site::start("").await;
    for version in [&TLS12, &TLS13] {
        let client = site.client().version(version);
        for alpn in [&["http/1.1"][..], &["http/1.1", "h2c"], &[]] {
            let reply = client
                .clone()
                .alpn(alpn)
                .send(&site.world.authorized("/grants/1"))
                .await;
            assert_eq!(reply.status, 200, "{version:?} {alpn:?}: {}", reply.text());
        }
        let (address, token) = (site.world.gateway.address, site.world.auth.token());
        let both = client.clone().alpn(&["http/1.1", "h2"]);
        let reply = both.get_by_http2(address, "/grants/1", &token).await;
        assert_eq!(reply.status, 200, "{version:?}: {}", reply.text());
        let other = client.clone().alpn(&["smtp"]).connect(address).await;
        assert!(other.is_err(), "{version:?}: nothing in common");
    }
}

#[tokio::test]
async fn an_old_version_can_be_refused() {
    let site = Site::start("min_version = \"1.3\"").await;
    let address = site.world.gateway.address;
    assert!(
        site.client()
            .version(&TLS12)
            .connect(address)
            .await
            .is_err()
    );
    let request = site.world.authorized("/grants/1");
    assert_eq!(site.client().send(&request).await.status, 200);
    eventually("the failure is counted", || async {
        site.handshakes("failed").await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn sessions_are_resumed() {
    let site = Site::start("").await;
    let request = site.world.authorized("/grants/1");
    for version in [&TLS12, &TLS13] {
        let client = site.client().version(version).settled();
        for expected in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (reply, kind) = client.send_and_tell(&request).await;
            assert_eq!((reply.status, kind), (200, expected), "{version:?}");
        }
        // Not by a reload that changes nothing either.
        assert_eq!(
            site.world.gateway.admin("POST", "/-/reload").await.status,
            200
        );
        let (reply, kind) = client.send_and_tell(&request).await;
        assert_eq!((reply.status, kind), (200, HandshakeKind::Resumed));
    }
    assert_eq!(site.handshakes("resumed").await, 4.0);
    assert_eq!(site.handshakes("full").await, 2.0);
}

#[tokio::test]
async fn the_scheme_is_https_wherever_it_is_said() {
    let site = Site::start("").await;
    let (world, client) = (&site.world, site.client());
    let reply = client.send(&world.authorized("/grants/1")).await;
    assert_eq!(reply.upstream_saw("x-forwarded-proto"), ["https"]);
    let forwarded = reply.upstream_saw("forwarded").join(",");
    assert!(forwarded.ends_with(";proto=https"), "{forwarded}");
    // What a client says of it does not count.
    let lies = world
        .authorized("/grants/1")
        .header("x-forwarded-proto", "http");
    let reply = client.send(&lies).await;
    assert_eq!(reply.upstream_saw("x-forwarded-proto"), ["https"]);
    let host = ("host", "api.example:8443");
    let reply = client
        .send(&world.get("/grants/1").header(host.0, host.1))
        .await;
    let challenge = reply.header("www-authenticate").expect("a challenge");
    let url = "resource_metadata=\"https://api.example:8443/.well-known/oauth-protected-resource\"";
    assert!(challenge.contains(url), "{challenge}");
    let path = "/.well-known/oauth-protected-resource";
    let reply = client.send(&world.get(path).header(host.0, host.1)).await;
    assert_eq!(reply.json()["resource"], "https://api.example:8443");
}

#[tokio::test]
async fn plain_http_is_told_so_and_garbage_is_not() {
    let site = Site::start("").await;
    let address = site.world.gateway.address;
    let mut raw = Raw::connect(address).await;
    raw.send(format!(
        "GET /public/ HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "x".repeat(9000)
    ))
    .await;
    let reply = raw.whole().await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.header("content-type"), Some("text/plain"));
    assert!(reply.text().contains("HTTPS"), "{}", reply.text());
    let id = reply.header("x-request-id").expect("an id");
    let record = site.world.gateway.log.record(id).await;
    assert_eq!(record["reason"], "bad_request");
    assert_eq!(raw.rest().await, "");
    for garbage in [
        &b"\x00\x01\x02"[..],
        b"\x80\x2e\x01\x00\x02",
        b"\x16\x03\x01\x00\x05hello",
    ] {
        let mut raw = Raw::connect(address).await;
        raw.send(garbage).await;
        raw.stream.set_nodelay(true).expect("an option");
        tokio::io::AsyncWriteExt::shutdown(&mut raw.stream)
            .await
            .expect("shut");
        let rest = raw.rest().await;
        assert!(!rest.contains("HTTP"), "{rest:?}");
    }
    assert_eq!(site.handshakes("plain_http").await, 1.0);
    assert_eq!(site.world.echo.requests(), 0);
}

/// ADVERSARY, denial of service, row 2: a TLS handshake that does not come to its end.
#[tokio::test]
async fn row_02_a_slow_tls_handshake_is_closed_at_the_deadline_and_others_are_served() {
    let site = Site::start("handshake_timeout = \"2s\"").await;
    let address = site.world.gateway.address;
    let begun = Instant::now();
    let mut silent = join_all((0..500).map(|_| Raw::connect(address))).await;
    // Some of them begin, and get no further.
    for raw in silent.iter_mut().take(100) {
        raw.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    }
    let gauge = format!("gateway_connections{{listener=\"{address}\"}}");
    eventually("all are accepted", || async {
        site.world.gateway.metric(&gauge).await >= 500.0
    })
    .await;
    let request = site.world.authorized("/grants/1");
    for _ in 0..5 {
        let asked = Instant::now();
        assert_eq!(site.client().send(&request).await.status, 200);
        assert!(
            asked.elapsed() < Duration::from_secs(1),
            "{:?}",
            asked.elapsed()
        );
    }
    for raw in &mut silent {
        let mut byte = [0];
        // An end or a reset: nothing is said to who has said nothing.
        let read = within("the end", raw.stream.read(&mut byte)).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    }
    let took = begun.elapsed();
    assert!(
        took >= Duration::from_secs(2) && took < PATIENCE / 2,
        "{took:?}"
    );
    eventually("all are counted", || async {
        site.handshakes("timeout").await == 500.0
    })
    .await;
    eventually("none is left", || async {
        site.world.gateway.metric(&gauge).await == 0.0
    })
    .await;
}

#[tokio::test]
async fn a_slow_first_request_is_closed_after_the_handshake_too() {
    let config = with_lines(CONFIG, "[server]", "header_timeout = \"1s\"");
    let site = Site::with(&config, "").await;
    for alpn in ["h2", "http/1.1"] {
        let client = site.client().alpn(&[alpn]);
        let mut stream = client
            .connect(site.world.gateway.address)
            .await
            .expect("connected");
        let mut rest = Vec::new();
        // An end without close_notify is an end, too.
        let _ = within(alpn, stream.read_to_end(&mut rest)).await;
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_without_a_word() {
    let config = with_lines(CONFIG, "[server]", "max_connections = 1");
    let site = Site::with(&config, "").await;
    let address = site.world.gateway.address;
    let first = site.client().connect(address).await.expect("connected");
    let mut second = Raw::connect(address).await;
    assert_eq!(second.rest().await, "");
    assert!(site.client().connect(address).await.is_err());
    let refused = format!(
        "gateway_connections_refused_total{{listener=\"{address}\",reason=\"max_connections\"}}"
    );
    assert!(site.world.gateway.metric(&refused).await >= 2.0);
    // Nobody was sent a 503.
    let rejected = "gateway_rejections_total{reason=\"overloaded\",route=\"-\"}";
    assert_eq!(site.world.gateway.metric(rejected).await, 0.0);
    assert_eq!(site.world.gateway.log.text(), "");
    drop(first);
    eventually("there is room again", || async {
        let request = site.world.authorized("/grants/1");
        let reply = site.client().try_send(&request).await;
        reply.is_ok_and(|reply| reply.status == 200)
    })
    .await;
}

#[tokio::test]
async fn a_handshake_that_hangs_does_not_hold_up_the_end() {
    let site = Site::start("handshake_timeout = \"60s\"").await;
    let address = site.world.gateway.address;
    let mut silent = Raw::connect(address).await;
    let mut begun = Raw::connect(address).await;
    begun.send(b"\x16\x03\x01\x02\x00\x01").await;
    let gauge = format!("gateway_connections{{listener=\"{address}\"}}");
    eventually("both are accepted", || async {
        site.world.gateway.metric(&gauge).await == 2.0
    })
    .await;
    let stopped = within("the end", site.world.gateway.app.stop()).await;
    assert_eq!(stopped.cut, 0);
    assert_eq!(silent.rest().await, "");
    assert_eq!(begun.rest().await, "");
}
