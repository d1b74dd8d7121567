//! TLS towards upstream servers: whom the gateway trusts, under which name, and as whom it appears.

use super::open_config;
use crate::harness::tls_upstream::{Authority, TlsUpstream};
use crate::harness::{Gateway, assert_refused, request};
use bonterra_gateway::config;
use std::path::Path;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A gateway with these lines in its `[upstream.api.tls]`; `DIR` is the folder of its files.
async fn gateway(upstream: &TlsUpstream, folder: &TempDir, lines: &str) -> Gateway {
    Gateway::start(&config_of(&upstream.url(), folder.path(), lines)).await
}

fn config_of(url: &str, folder: &Path, lines: &str) -> String {
    let lines = lines.replace("DIR", &folder.display().to_string());
    let tls = format!("connect_timeout = \"1s\"\n{lines}");
    open_config(url, &[("[upstream.api]", &tls)])
}

#[tokio::test]
async fn a_server_is_believed_if_its_certificate_is_good() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    other.write(folder.path(), "other.pem");
    let by_address = TlsUpstream::start(&ours, "127.0.0.1", &[b"http/1.1"], None).await;
    let by_name = TlsUpstream::start(&ours, "grants.internal", &[], None).await;
    for (upstream, lines, trusted) in [
        (&by_address, "tls.ca_file = \"DIR/ca.pem\"", true),
        (
            &by_name,
            "tls.ca_file = \"DIR/ca.pem\"\ntls.server_name = \"grants.internal\"",
            true,
        ),
        (&by_name, "tls.ca_file = \"DIR/ca.pem\"", false),
        (
            &by_address,
            "tls.ca_file = \"DIR/ca.pem\"\ntls.server_name = \"grants.internal\"",
            false,
        ),
        (&by_address, "tls.ca_file = \"DIR/other.pem\"", false),
        (&by_address, "", false),
    ] {
        let before = upstream.requests();
        let gateway = gateway(upstream, &folder, lines).await;
        let reply = request(gateway.address, "GET", "/api/").send().await;
        if trusted {
            assert_eq!(reply.status, 200, "{lines}: {}", reply.text());
        } else {
            assert_refused(&gateway, &reply, 502, "upstream_connect", "api").await;
            let id = reply.header("x-request-id").expect("an id");
            let record = gateway.log.record(id).await;
            let note = record["note"].as_str().expect("a note");
            assert!(note.starts_with("TLS: invalid peer certificate"), "{note}");
            assert_eq!(upstream.requests(), before, "nothing was sent: {lines}");
        }
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    ours.issue(folder.path(), "gateway");
    other.issue(folder.path(), "stranger");
    let upstream = TlsUpstream::start(&ours, "127.0.0.1", &[], Some(&ours)).await;
    for (name, status) in [("gateway", 200), ("stranger", 502), ("", 502)] {
        let own = match name {
            "" => String::new(),
            name => {
                format!("\ntls.cert_file = \"DIR/{name}.pem\"\ntls.key_file = \"DIR/{name}.key\"")
            }
        };
        let lines = format!("tls.ca_file = \"DIR/ca.pem\"{own}");
        let gateway = gateway(&upstream, &folder, &lines).await;
        let reply = request(gateway.address, "GET", "/api/").send().await;
        assert_eq!(reply.status, status, "{name:?}: {}", reply.text());
    }
    assert_eq!(upstream.requests(), 1);
}

#[tokio::test]
async fn sessions_are_resumed_also_after_a_reload_that_changes_nothing() {
    let (ours, folder) = (Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    let upstream = TlsUpstream::start(&ours, "127.0.0.1", &[], None).await;
    let lines = "tls.ca_file = \"DIR/ca.pem\"";
    let gateway = gateway(&upstream, &folder, lines).await;
    let close = request(gateway.address, "GET", "/api/close");
    for _ in 0..3 {
        assert_eq!(close.send().await.status, 200);
        gateway.app.reloader.reload("test").await.expect("reloaded");
    }
    assert_eq!((upstream.connections(), upstream.resumed()), (3, 2));
    // A changed file is noticed: nothing made under the old one is used again.
    let other = Authority::new();
    other.write(folder.path(), "ca.pem");
    gateway.app.reloader.reload("test").await.expect("reloaded");
    assert_eq!(close.send().await.status, 502);
    ours.write(folder.path(), "ca.pem");
    gateway.app.reloader.reload("test").await.expect("reloaded");
    assert_eq!(close.send().await.status, 200);
    assert_eq!(
        upstream.resumed(),
        2,
        "a session of other settings is not resumed"
    );
}

#[tokio::test]
async fn connections_are_kept_and_those_of_other_settings_are_not_used() {
    let (ours, folder) = (Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    let upstream = TlsUpstream::start(&ours, "127.0.0.1", &[], None).await;
    let gateway = gateway(&upstream, &folder, "tls.ca_file = \"DIR/ca.pem\"").await;
    let get = request(gateway.address, "GET", "/api/");
    for _ in 0..5 {
        assert_eq!(get.send().await.status, 200);
        gateway.app.reloader.reload("test").await.expect("reloaded");
    }
    assert_eq!(upstream.connections(), 1);
    Authority::new().write(folder.path(), "ca.pem");
    gateway.app.reloader.reload("test").await.expect("reloaded");
    assert_eq!(
        get.send().await.status,
        502,
        "the open connection is of an authority that is not trusted now"
    );
}

/// Every setting of TLS belongs to a connection: behind a change of one, the server is asked anew who it is, and
/// told anew who we are, though it would be believed under either; and what is made then is kept.
#[tokio::test]
async fn a_connection_is_of_the_settings_that_it_was_made_under() {
    let (ours, folder) = (Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    let pem = std::fs::read_to_string(folder.path().join("ca.pem")).expect("a certificate");
    Authority::new().write(folder.path(), "other.pem");
    let other = std::fs::read_to_string(folder.path().join("other.pem")).expect("a certificate");
    std::fs::write(folder.path().join("both.pem"), pem + &other).expect("written");
    ours.issue(folder.path(), "one");
    ours.issue(folder.path(), "another");
    let own = |name: &str| {
        format!("tls.cert_file = \"DIR/{name}.pem\"\ntls.key_file = \"DIR/{name}.key\"")
    };
    let ca = "tls.ca_file = \"DIR/ca.pem\"".to_owned();
    let steps = [
        ca.clone(),
        "tls.ca_file = \"DIR/both.pem\"".to_owned(),
        format!("{ca}\ntls.server_name = \"127.0.0.1\""),
        format!("{ca}\n{}", own("one")),
        format!("{ca}\n{}", own("another")),
        ca.clone(),
    ];
    for (protocol, spoken) in [("http1", &b"http/1.1"[..]), ("http2", b"h2")] {
        let upstream = TlsUpstream::start(&ours, "127.0.0.1", &[spoken], None).await;
        let lines = |step: &str| format!("protocol = \"{protocol}\"\n{step}");
        let gateway = gateway(&upstream, &folder, &lines(&steps[0])).await;
        let get = request(gateway.address, "GET", "/api/");
        for (number, step) in steps.iter().enumerate() {
            let config = config_of(&upstream.url(), folder.path(), &lines(step));
            std::fs::write(gateway.file(), config).expect("written");
            assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
            for _ in 0..3 {
                let reply = get.send().await;
                assert_eq!(reply.status, 200, "{protocol} {step}: {}", reply.text());
            }
            assert_eq!(upstream.connections(), number + 1, "{protocol} {step}");
        }
        assert_eq!(upstream.resumed(), 0, "{protocol}: nor a session");
    }
}

#[tokio::test]
async fn http2_is_agreed_upon_or_refused() {
    let (ours, folder) = (Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    let lines = "protocol = \"http2\"\ntls.ca_file = \"DIR/ca.pem\"";
    for (spoken, status) in [
        (&[b"h2".as_slice(), b"http/1.1"][..], 200),
        (&[b"http/1.1"], 502),
        (&[], 502),
    ] {
        let upstream = TlsUpstream::start(&ours, "127.0.0.1", spoken, None).await;
        let gateway = gateway(&upstream, &folder, lines).await;
        let reply = request(gateway.address, "GET", "/api/").send().await;
        assert_eq!(reply.status, status, "{spoken:?}: {}", reply.text());
        if status == 200 {
            assert_eq!(reply.header("x-version"), Some("HTTP/2.0"));
        } else {
            assert_refused(&gateway, &reply, 502, "upstream_protocol", "api").await;
            let id = reply.header("x-request-id").expect("an id");
            let note = gateway.log.record(id).await["note"].to_string();
            assert!(note.contains("ALPN"), "{note}");
        }
    }
}

/// The handshake belongs to `connect_timeout`.
#[tokio::test]
async fn a_server_that_does_not_shake_hands_is_given_up_in_time() {
    let silent = crate::harness::RawUpstream::start(async |mut raw| {
        raw.rest().await;
    })
    .await;
    let url = silent.url().replace("http:", "https:");
    let config = config_of(&url, Path::new("/"), "retry.attempts = 1");
    let gateway = Gateway::start(&config.replace("\"1s\"", "\"200ms\"")).await;
    let started = Instant::now();
    let reply = request(gateway.address, "GET", "/api/").send().await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(200) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_refused(&gateway, &reply, 502, "upstream_connect", "api").await;
}

#[test]
fn mistakes_have_their_place_and_a_hint() {
    let (ours, other, folder) = (Authority::new(), Authority::new(), folder());
    ours.write(folder.path(), "ca.pem");
    ours.issue(folder.path(), "gateway");
    other.issue(folder.path(), "stranger");
    std::fs::write(folder.path().join("noise.pem"), "noise").expect("written");
    let key = std::fs::read_to_string(folder.path().join("gateway.key")).expect("a key");
    let secret = key.lines().nth(1).expect("the key itself");
    let https = "https://127.0.0.1:1";
    for (url, lines, words) in [
        (
            https,
            "tls.ca_file = \"DIR/none.pem\"",
            &["ca_file", "cannot read"][..],
        ),
        (
            https,
            "tls.ca_file = \"DIR/noise.pem\"",
            &["ca_file", "no PEM file"],
        ),
        (
            https,
            "tls.cert_file = \"DIR/gateway.pem\"",
            &["cert_file", "set key_file as well"],
        ),
        (
            https,
            "tls.key_file = \"DIR/gateway.key\"",
            &["key_file", "set cert_file as well"],
        ),
        (
            https,
            "tls.cert_file = \"DIR/noise.pem\"\ntls.key_file = \"DIR/gateway.key\"",
            &["cert_file", "no PEM file"],
        ),
        (
            https,
            "tls.cert_file = \"DIR/gateway.pem\"\ntls.key_file = \"DIR/noise.pem\"",
            &["key_file", "no PEM file"],
        ),
        (
            https,
            "tls.cert_file = \"DIR/gateway.pem\"\ntls.key_file = \"DIR/stranger.key\"",
            &["key_file", "private key of the first certificate"],
        ),
        (
            https,
            "tls.server_name = \"not a name\"",
            &["server_name", "neither a host name"],
        ),
        (
            "http://127.0.0.1:1",
            "tls.server_name = \"a\"",
            &["tls", "no server of this upstream uses TLS", "https://"],
        ),
        (https, "protocol = \"http3\"", &["protocol", "http1"]),
        (
            https,
            "retry.on = [\"501\"]",
            &["retry", "501", "possible value"],
        ),
        (https, "retry.attempts = 0", &["attempts", "write 1"]),
        (https, "retry.budget = 20", &["budget", "percentage"]),
        (https, "max_connections = 0", &["max_connections", "zero"]),
    ] {
        let path = folder.path().join("gateway.toml");
        std::fs::write(&path, config_of(url, folder.path(), lines)).expect("written");
        let text = check(&path);
        for word in words {
            assert!(text.contains(word), "{lines}: {word} is not in\n{text}");
        }
        assert!(text.contains("gateway.toml:"), "a place: {text}");
        assert!(!text.contains(secret), "nothing of a key: {text}");
    }
    assert_eq!(config::Protocol::default(), config::Protocol::Http1);
}

/// What the command `check` says.
fn check(path: &Path) -> String {
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_bonterra-gateway"))
        .args(["check", "-c"])
        .arg(path)
        .output()
        .expect("the program");
    assert_eq!(program.status.code(), Some(2), "mistakes");
    [program.stdout, program.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat()
}

fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}
