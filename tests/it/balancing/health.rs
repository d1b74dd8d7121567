//! Servers are asked whether they are well, and left alone while they are not.

use super::{Fickle, config_of, healthy, servers};
use crate::harness::tls_upstream::{Authority, TlsUpstream};
use crate::harness::{Gateway, assert_refused, eventually, nobody, request};

const CHECKED: &str = "health = { path = \"/healthz\", interval = \"30ms\", timeout = \"2s\" }\n";

async fn get(gateway: &Gateway) -> u16 {
    request(gateway.address, "GET", "/api/x")
        .send()
        .await
        .status
}

#[tokio::test]
async fn an_unwell_server_is_drained_and_comes_back() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let gateway = Gateway::start(&config_of(&format!("{list}{CHECKED}"))).await;
    eventually("checks", async || one.checks() > 2 && other.checks() > 2).await;
    for server in [&one, &other] {
        assert_eq!(healthy(&gateway, &server.label()).await, Some(true));
    }
    one.health(500);
    eventually("drained", async || {
        healthy(&gateway, &one.label()).await == Some(false)
    })
    .await;
    let (before, others) = (one.requests(), other.requests());
    for _ in 0..50 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert_eq!((one.requests(), other.requests()), (before, others + 50));
    // 204 is among the good ones, 301 is not.
    one.health(301);
    let checks = one.checks();
    eventually("more checks", async || one.checks() > checks + 4).await;
    assert_eq!(healthy(&gateway, &one.label()).await, Some(false));
    one.health(204);
    eventually("back", async || {
        healthy(&gateway, &one.label()).await == Some(true)
    })
    .await;
    for _ in 0..50 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert!(one.requests() > before);
}

#[tokio::test]
async fn with_no_server_well_requests_are_refused_at_once() {
    let only = Fickle::start().await;
    let lines = format!(
        "{}health = {{ path = \"/healthz\", interval = \"30ms\", expect = [418, \"300-399\"] }}",
        servers(&[&only.url()])
    );
    only.health(418);
    let gateway = Gateway::start(&config_of(&lines)).await;
    assert_eq!(get(&gateway).await, 200, "used before it was asked");
    only.health(200);
    eventually("unwell", async || {
        healthy(&gateway, &only.label()).await == Some(false)
    })
    .await;
    let before = only.requests();
    let reply = request(gateway.address, "GET", "/api/x").send().await;
    assert_refused(&gateway, &reply, 503, "upstream_unhealthy", "api").await;
    assert!(reply.header("retry-after").is_some());
    assert_eq!(only.requests(), before, "the server has seen nothing of it");
    only.health(302);
    eventually("well", async || get(&gateway).await == 200).await;
}

/// A check that gets no answer, or no connection, is a bad one.
#[tokio::test]
async fn silence_is_no_good_answer() {
    let (well, silent) = (Fickle::start().await, Fickle::start().await);
    silent.health(0);
    let dead = nobody().to_string();
    let list = servers(&[&well.url(), &silent.url(), &format!("http://{dead}")]);
    let lines = format!(
        "{list}eject.after = 0\nhealth = {{ path = \"/healthz\", interval = \"20ms\", timeout = \"50ms\" }}"
    );
    let gateway = Gateway::start(&config_of(&lines)).await;
    for label in [silent.label(), dead] {
        eventually("unwell", async || {
            healthy(&gateway, &label).await == Some(false)
        })
        .await;
    }
    let before = well.requests();
    for _ in 0..30 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert_eq!(well.requests(), before + 30);
}

#[tokio::test]
async fn a_reload_keeps_what_is_known_and_forgets_who_is_gone() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let slow = "health = { path = \"/healthz\", interval = \"1h\" }\n";
    let gateway = Gateway::start(&config_of(&format!("{list}{CHECKED}"))).await;
    one.health(500);
    eventually("unwell", async || {
        healthy(&gateway, &one.label()).await == Some(false)
    })
    .await;
    let reload = async |lines: &str| {
        std::fs::write(gateway.file(), config_of(lines)).expect("written");
        let reply = gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    // Still unwell, long before it could be asked often enough again.
    reload(&format!("{list}{slow}idle_timeout = \"9s\"\n")).await;
    assert_eq!(healthy(&gateway, &one.label()).await, Some(false));
    let before = one.requests();
    for _ in 0..20 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert_eq!(one.requests(), before);
    // Nobody asks any more: it is given the benefit of the doubt.
    reload(&list).await;
    assert_eq!(healthy(&gateway, &one.label()).await, Some(true));
    let checks = one.checks();
    for _ in 0..40 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert!(one.requests() > before);
    // Gone from the file, gone from the metrics, and asked no more.
    reload(&servers(&[&other.url()])).await;
    assert_eq!(healthy(&gateway, &one.label()).await, None);
    assert_eq!(healthy(&gateway, &other.label()).await, Some(true));
    assert_eq!(one.checks(), checks);
    std::fs::write(
        gateway.file(),
        config_of(&list)
            .replace("api", "another")
            .replace("/another/", "/api/"),
    )
    .expect("written");
    assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    assert_eq!(
        healthy(&gateway, &other.label()).await,
        None,
        "another name"
    );
    assert_eq!(get(&gateway).await, 200);
}

/// Checks go the way that requests go: TLS with the upstream's authorities, and its version of HTTP.
#[tokio::test]
async fn checks_speak_as_requests_do() {
    let folder = tempfile::tempdir().expect("a folder");
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.write(folder.path(), "ca.pem");
    stranger.write(folder.path(), "stranger.pem");
    for (protocol, spoken) in [("http1", &b"http/1.1"[..]), ("http2", b"h2")] {
        for (ca, well) in [("ca.pem", true), ("stranger.pem", false)] {
            let server = TlsUpstream::start(&authority, "api.internal", &[spoken], None).await;
            let label = server.url().replace("https://", "");
            let ca = folder.path().join(ca);
            let lines = format!(
                "{}protocol = \"{protocol}\"\ntls = {{ ca_file = {ca:?}, server_name = \"api.internal\" }}\n{CHECKED}",
                servers(&[&server.url()])
            );
            let gateway = Gateway::start(&config_of(&lines)).await;
            if well {
                eventually("checks", async || server.requests() > 4).await;
                assert_eq!(get(&gateway).await, 200, "{protocol}");
            } else {
                eventually("unwell", async || get(&gateway).await == 503).await;
                assert_eq!(server.requests(), 0, "{protocol}");
            }
            let known = healthy(&gateway, &label).await;
            assert_eq!(known, Some(well), "{protocol}");
        }
    }
}
