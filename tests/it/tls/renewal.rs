//! Certificates that change while the gateway runs, and mistakes in them.

use super::authority::now;
use super::{Authority, Site};
use crate::harness::program::call;
use crate::harness::{CONFIG, eventually, within};
use serde_json::json;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const SUCCESSFUL: &str = "gateway_config_last_reload_successful";

impl Site {
    /// The certificate that new handshakes get.
    async fn served(&self) -> Vec<u8> {
        let stream = self.client().connect(self.world.gateway.address).await;
        let stream = stream.expect("connected");
        let chain = stream.get_ref().1.peer_certificates().expect("a chain");
        chain[0].to_vec()
    }

    async fn expiry(&self, file: &str) -> f64 {
        let file = self.file(file);
        let name = "gateway_tls_certificate_expiry_timestamp_seconds";
        let series = format!("{name}{{file=\"{}\"}}", file.display());
        self.world.gateway.metric(&series).await
    }
}

#[tokio::test]
async fn certificates_change_under_load_and_nobody_notices() {
    let site = Arc::new(Site::start("").await);
    // As a ConfigMap or a Secret is mounted: the files are links through a folder that is swapped.
    let swap = |site: &Site, number: usize| {
        let own = site.authority.issue();
        let folder = site.file(&format!("v{number}"));
        std::fs::create_dir(&folder).expect("made");
        own.write(&folder.join("tls.crt"), &folder.join("tls.key"));
        let next = site.file("next");
        symlink(&folder, &next).expect("linked");
        std::fs::rename(&next, site.file("current")).expect("swapped");
        own.certificate.der().to_vec()
    };
    swap(&site, 0);
    for name in ["tls.crt", "tls.key"] {
        let next = site.file("next");
        symlink(site.file("current").join(name), &next).expect("linked");
        std::fs::rename(&next, site.file(name)).expect("swapped");
    }
    let mut old = site
        .client()
        .connect(site.world.gateway.address)
        .await
        .expect("connected");
    let (ended, served) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
    );
    let load: Vec<_> = (0..3)
        .map(|number| {
            let (site, ended, served) =
                (Arc::clone(&site), Arc::clone(&ended), Arc::clone(&served));
            tokio::spawn(async move {
                let client = match number {
                    0 => site.client().settled(),
                    _ => site.client(),
                };
                let request = site.world.authorized("/grants/1");
                while !ended.load(Relaxed) {
                    let reply = client.try_send(&request).await;
                    let reply = reply.map_err(|error| error.to_string())?;
                    if reply.status != 200 {
                        return Err(reply.text());
                    }
                    served.fetch_add(1, Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    for number in 1..=4 {
        let new = swap(&site, number);
        eventually("the new certificate is served", || async {
            site.served().await == new
        })
        .await;
        let before = served.load(Relaxed);
        eventually("load goes on", || {
            std::future::ready(served.load(Relaxed) > before)
        })
        .await;
    }
    ended.store(true, Relaxed);
    for client in load {
        let outcome = within("the end of load", client).await.expect("no panic");
        assert_eq!(outcome, Ok(()));
    }
    // The connection from before all that.
    old.write_all(b"GET /public/ HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        .await
        .expect("sent");
    let mut reply = Vec::new();
    let _ = within("a reply", old.read_to_end(&mut reply)).await;
    assert!(
        reply.starts_with(b"HTTP/1.1 200"),
        "{}",
        String::from_utf8_lossy(&reply)
    );
}

#[tokio::test]
async fn a_broken_renewal_changes_nothing_but_a_metric() {
    let site = Site::start("").await;
    let before = site.served().await;
    let expiry = site.expiry("tls.crt").await;
    assert_eq!(site.world.gateway.metric(SUCCESSFUL).await, 1.0);
    let (new, key) = (
        site.authority.issue_until(now() + 86_400),
        site.authority.issue().key,
    );
    for (case, cert_pem, key_pem) in [
        ("half a pair", new.certificate.pem(), key.serialize_pem()),
        ("empty", String::new(), new.key.serialize_pem()),
        (
            "cut short",
            new.certificate.pem()[..300].to_owned(),
            new.key.serialize_pem(),
        ),
        ("no key", new.certificate.pem(), "x".to_owned()),
    ] {
        std::fs::write(site.file("tls.crt"), cert_pem).expect("written");
        std::fs::write(site.file("tls.key"), key_pem).expect("written");
        eventually(case, || async {
            site.world.gateway.metric(SUCCESSFUL).await == 0.0
        })
        .await;
        assert_eq!(
            site.world.gateway.admin("POST", "/-/reload").await.status,
            422
        );
        assert_eq!(site.served().await, before, "{case}");
        assert_eq!(site.expiry("tls.crt").await, expiry, "{case}");
    }
    new.write(&site.file("tls.crt"), &site.file("tls.key"));
    eventually("the mended pair is in force", || async {
        site.world.gateway.metric(SUCCESSFUL).await == 1.0
    })
    .await;
    assert_eq!(site.served().await, new.certificate.der().to_vec());
    assert!(site.expiry("tls.crt").await < expiry);
}

#[tokio::test]
async fn a_reload_on_demand_says_that_a_certificate_is_another() {
    let site = Site::start("client_ca_file = CLIENTS\nclient_auth = \"optional\"").await;
    let ends = now() + 3 * 86_400;
    let new = site.authority.issue_until(ends);
    new.write(&site.file("tls.crt"), &site.file("tls.key"));
    let reply = site.world.gateway.admin("POST", "/-/reload").await;
    assert_eq!(reply.status, 200);
    assert!(
        reply.text().contains("server.tls.cert_file"),
        "{}",
        reply.text()
    );
    assert_eq!(site.expiry("tls.crt").await, ends as f64);
    assert!(site.expiry("clients.pem").await > ends as f64);
    // Nothing is told of a file that is in use no more.
    let config = std::fs::read_to_string(site.world.gateway.file()).expect("the file");
    let lines = config.lines().filter(|line| !line.starts_with("client_"));
    let config: Vec<&str> = lines.collect();
    std::fs::write(site.world.gateway.file(), config.join("\n")).expect("written");
    let reply = site.world.gateway.admin("POST", "/-/reload").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(site.expiry("clients.pem").await, 0.0);
}

#[tokio::test]
async fn check_finds_every_mistake_in_the_files() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = |name: &str| folder.path().join(name);
    let (authority, other) = (Authority::new("a"), Authority::new("b").issue());
    authority
        .issue()
        .write(&file("good.crt"), &file("good.key"));
    other.write(&file("other.crt"), &file("other.key"));
    authority
        .issue_expired()
        .write(&file("old.crt"), &file("old.key"));
    let soon = authority.issue_until(now() + 5 * 86_400 + 60);
    soon.write(&file("soon.crt"), &file("soon.key"));
    let cut = &other.certificate.pem()[..200];
    let secret = "hunter2hunter2";
    for (name, text) in [
        ("empty", ""),
        ("cut", cut),
        (
            "junk.crt",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ),
        ("junk.key", secret),
        (
            "encrypted.key",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ),
    ] {
        std::fs::write(file(name), text).expect("written");
    }
    std::fs::write(file("clients.pem"), authority.pem()).expect("written");
    let pair = |cert: &str, key: &str| format!("cert_file = \"{cert}\"\nkey_file = \"{key}\"");
    let good = pair("good.crt", "good.key");
    for (lines, code, expected) in [
        (good.clone(), 0, &["ok"][..]),
        (
            pair("old.crt", "old.key"),
            0,
            &["ok", "warning", "expired", "old.crt"],
        ),
        (
            pair("soon.crt", "soon.key"),
            0,
            &["ok", "warning", "expires soon", "in 5 days"],
        ),
        (
            "cert_file = \"good.crt\"".to_owned(),
            2,
            &["`key_file` is missing"],
        ),
        (
            "key_file = \"good.key\"".to_owned(),
            2,
            &["`cert_file` is missing"],
        ),
        (
            pair("absent.crt", "good.key"),
            2,
            &["absent.crt cannot be read", "cert_file ="],
        ),
        (
            pair("good.crt", "absent.key"),
            2,
            &["absent.key cannot be read", "key_file ="],
        ),
        (
            pair("empty", "good.key"),
            2,
            &["no certificate in empty", "BEGIN CERTIFICATE"],
        ),
        (pair("cut", "good.key"), 2, &["cut is no whole PEM file"]),
        (
            pair("junk.crt", "good.key"),
            2,
            &["certificate 1 in junk.crt"],
        ),
        (
            pair("good.crt", "junk.key"),
            2,
            &["no private key in junk.key", "BEGIN PRIVATE KEY"],
        ),
        (pair("good.crt", "encrypted.key"), 2, &["openssl pkey"]),
        (
            pair("good.crt", "other.key"),
            2,
            &["is not that of the first certificate in good.crt", "pair"],
        ),
        (
            format!("{good}\nclient_ca_file = \"absent\""),
            2,
            &["absent cannot be read", "client_ca_file ="],
        ),
        (
            format!("{good}\nclient_ca_file = \"empty\""),
            2,
            &["no certificate in empty"],
        ),
        (
            format!("{good}\nclient_auth = \"required\""),
            2,
            &["client_auth without client_ca_file"],
        ),
        (
            format!("{good}\nforward_client_cert = true"),
            2,
            &["forward_client_cert without client_ca_file"],
        ),
        (
            format!("{good}\nhandshake_timeout = \"0s\""),
            2,
            &["would refuse every handshake"],
        ),
        (
            format!("{good}\nclient_ca_file = \"clients.pem\"\nclient_auth = \"optional\""),
            0,
            &["ok"],
        ),
    ] {
        let config = CONFIG
            .replace("ISSUER", "http://127.0.0.1:1/")
            .replace("ECHO", "http://127.0.0.1:2");
        let config = format!("{config}\n[server.tls]\n{lines}\n");
        std::fs::write(file("gateway.toml"), config).expect("written");
        let said = call(folder.path(), &["check", "-c", "gateway.toml"]).await;
        let all = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, Some(code), "{lines}\n{all}");
        for part in expected {
            assert!(all.contains(part), "{lines}\nwithout {part}:\n{all}");
        }
        assert!(!all.contains(secret), "{all}");
        if code == 2 {
            assert!(all.contains("gateway.toml:"), "{all}");
        }
    }
}

#[tokio::test]
async fn explain_takes_a_client_certificate() {
    let site = Site::start("client_ca_file = CLIENTS").await;
    let own = site.clients.issue();
    own.write(&site.file("own.crt"), &site.file("own.key"));
    let stranger = Authority::new("x").issue();
    stranger.write(&site.file("stranger.crt"), &site.file("stranger.key"));
    let cnf = json!({ "cnf": { "x5t#S256": own.thumbprint() } });
    let token = site.world.token_with(cnf);
    let config = site.world.gateway.file();
    let config = config.to_str().expect("UTF-8");
    for (certificate, code, expected) in [
        (
            None,
            3,
            &["--client-cert", "bound_token", "the connection has none"][..],
        ),
        (
            Some("own.crt"),
            0,
            &["admitted", "client certificate", "x-forwarded-proto: https"],
        ),
        (Some("stranger.crt"), 2, &["no connection could be made"]),
        (Some("own.key"), 2, &["no certificate in PEM"]),
        (Some("absent"), 2, &["cannot be read"]),
    ] {
        let file = certificate.map(|name| site.file(name));
        let mut arguments = vec![
            "explain",
            "-c",
            config,
            "GET",
            "/grants/1",
            "--token",
            &token,
        ];
        if let Some(file) = &file {
            arguments.extend(["--client-cert", file.to_str().expect("UTF-8")]);
        }
        let said = call(site.folder.path(), &arguments).await;
        let all = format!("{}{}", said.stdout, said.stderr);
        assert_eq!(said.code, Some(code), "{certificate:?}\n{all}");
        for part in expected {
            assert!(all.contains(part), "{certificate:?} without {part}:\n{all}");
        }
    }
}
