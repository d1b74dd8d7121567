//! Client certificates, and tokens that are bound to them (RFC 8705).

use super::{Authority, Site};
use crate::adversary::assert_refusal;
use crate::harness::{CONFIG, Request, with_lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

const REQUIRED: &str = "client_ca_file = CLIENTS";
const OPTIONAL: &str = "client_ca_file = CLIENTS\nclient_auth = \"optional\"";

/// A token bound to this certificate.
fn bound_to(site: &Site, thumbprint: &str) -> String {
    let cnf = json!({ "cnf": { "x5t#S256": thumbprint } });
    site.world.token_with(cnf)
}

fn with_token(site: &Site, token: &str) -> Request {
    site.world.get("/grants/1").bearer(token)
}

#[tokio::test]
async fn who_has_no_certificate_of_the_right_authority_gets_nowhere() {
    let site = Site::start(REQUIRED).await;
    let request = site.world.authorized("/grants/1");
    for version in [&TLS12, &TLS13] {
        let client = site.client().version(version);
        let stranger = Authority::new("clients").issue();
        for (case, client) in [
            ("none", client.clone()),
            ("of another authority", client.clone().showing(&stranger)),
            (
                "expired",
                client.clone().showing(&site.clients.issue_expired()),
            ),
            (
                "the server's",
                client.clone().showing(&site.authority.issue()),
            ),
        ] {
            let reply = client.try_send(&request).await;
            assert!(reply.is_err(), "{version:?}, {case}: {reply:?}");
        }
        assert_eq!(site.world.echo.requests(), 0, "{version:?}");
    }
    let good = site.client_with(&site.clients.issue());
    assert_eq!(good.send(&request).await.status, 200);
}

#[tokio::test]
async fn where_certificates_are_optional_a_bad_one_is_worse_than_none() {
    let site = Site::start(OPTIONAL).await;
    let request = site.world.authorized("/grants/1");
    assert_eq!(site.client().send(&request).await.status, 200);
    let good = site.client_with(&site.clients.issue());
    assert_eq!(good.send(&request).await.status, 200);
    let seen = site.world.echo.requests();
    for bad in [
        Authority::new("clients").issue(),
        site.clients.issue_expired(),
    ] {
        assert!(site.client_with(&bad).try_send(&request).await.is_err());
    }
    assert_eq!(site.world.echo.requests(), seen);
}

/// ADVERSARY, tokens, row 12: `cnf.x5t#S256` without that client certificate, with another one, and
/// with the right one.
#[tokio::test]
async fn row_12_a_bound_token_is_worth_nothing_without_its_certificate() {
    let site = Site::start(OPTIONAL).await;
    let (own, other) = (site.clients.issue(), site.clients.issue());
    let token = bound_to(&site, &own.thumbprint());
    let request = with_token(&site, &token);
    // The second time round it is remembered as verified.
    for (good, pass) in (0..).zip(["at first", "again"]) {
        for (case, client) in [
            ("no certificate", site.client()),
            ("another", site.client_with(&other)),
        ] {
            let case = format!("{case}, {pass}");
            let reply = client.send(&request).await;
            assert_refusal(&reply, 401, "bound_token", &case);
            let certificate = STANDARD.encode(own.certificate.der());
            for (name, value) in [
                ("client-cert", format!(":{certificate}:")),
                ("x-client-cert", certificate.clone()),
                ("x-forwarded-client-cert", format!("Cert=\"{certificate}\"")),
                ("x-ssl-client-cert", certificate.clone()),
            ] {
                let reply = client.send(&request.clone().header(name, value)).await;
                assert_refusal(&reply, 401, "bound_token", &format!("{case}, {name}"));
            }
        }
        assert_eq!(site.world.echo.requests(), good, "{pass}");
        let reply = site.client_with(&own).send(&request).await;
        assert_eq!(reply.status, 200, "{pass}: {}", reply.text());
    }
    // Of other bindings nothing is believed, the right certificate or not.
    for cnf in [
        json!({ "jkt": own.thumbprint() }),
        json!({ "x5t#S256": own.thumbprint(), "jkt": own.thumbprint() }),
        json!({ "x5t": own.thumbprint() }),
        json!({ "x5t#S256": format!("{}=", own.thumbprint()) }),
    ] {
        let token = site.world.token_with(json!({ "cnf": cnf }));
        let reply = site
            .client_with(&own)
            .send(&with_token(&site, &token))
            .await;
        assert_refusal(&reply, 401, "bound_token", &cnf.to_string());
    }
    // A plain bearer token is nobody's in particular.
    let plain = site.world.authorized("/grants/1");
    assert_eq!(site.client_with(&other).send(&plain).await.status, 200);
}

#[tokio::test]
async fn a_bound_token_holds_by_http2_as_well() {
    let site = Site::start(OPTIONAL).await;
    let own = site.clients.issue();
    let token = bound_to(&site, &own.thumbprint());
    let address = site.world.gateway.address;
    let with = site.client_with(&own).alpn(&["h2"]);
    let without = site.client().alpn(&["h2"]);
    let reply = with.get_by_http2(address, "/grants/1", &token).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let reply = without.get_by_http2(address, "/grants/1", &token).await;
    assert_refusal(&reply, 401, "bound_token", "without");
}

#[tokio::test]
async fn no_session_is_resumed_where_certificates_are_asked_for() {
    for lines in [REQUIRED, OPTIONAL] {
        let site = Site::start(lines).await;
        let own = site.clients.issue();
        let request = with_token(&site, &bound_to(&site, &own.thumbprint()));
        for version in [&TLS12, &TLS13] {
            let client = site.client_with(&own).version(version).settled();
            for _ in 0..2 {
                let (reply, kind) = client.send_and_tell(&request).await;
                let full = HandshakeKind::Full;
                assert_eq!((reply.status, kind), (200, full), "{version:?} {lines}");
            }
        }
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_what_it_was_let_in_by() {
    let site = Site::start(REQUIRED).await;
    let request = site.world.authorized("/grants/1");
    let own = site.clients.issue();
    for version in [&TLS12, &TLS13] {
        std::fs::write(site.file("clients.pem"), site.clients.pem()).expect("written");
        assert_eq!(
            site.world.gateway.admin("POST", "/-/reload").await.status,
            200
        );
        let client = site.client_with(&own).version(version).settled();
        let (reply, _) = client.send_and_tell(&request).await;
        assert_eq!(reply.status, 200);
        // Another authority of the same name: only the new one's certificates are good now.
        std::fs::write(site.file("clients.pem"), Authority::new("clients").pem()).expect("written");
        assert_eq!(
            site.world.gateway.admin("POST", "/-/reload").await.status,
            200
        );
        let seen = site.world.echo.requests();
        for _ in 0..3 {
            let reply = client.try_send(&request).await;
            assert!(reply.is_err(), "{version:?}: {reply:?}");
        }
        assert_eq!(site.world.echo.requests(), seen, "{version:?}");
    }
}

/// Neither tickets of a time when nobody was asked, nor those of an old certificate, keep a client
/// from showing what is asked for now.
#[tokio::test]
async fn who_has_a_session_can_still_show_a_certificate() {
    let site = Site::start("").await;
    let request = site.world.authorized("/grants/1");
    let own = site.clients.issue();
    let config = std::fs::read_to_string(site.world.gateway.file()).expect("a file");
    let asking = format!(
        "{config}\nclient_ca_file = {:?}\n",
        site.file("clients.pem")
    );
    let optional = format!("{asking}client_auth = \"optional\"\n");
    for version in [&TLS12, &TLS13] {
        let client = site.client_with(&own).version(version).settled();
        for text in [&config, &optional, &asking, &config] {
            std::fs::write(site.world.gateway.file(), text).expect("written");
            let reload = site.world.gateway.admin("POST", "/-/reload").await;
            assert_eq!(reload.status, 200, "{}", reload.text());
            for _ in 0..2 {
                let (reply, _) = client.send_and_tell(&request).await;
                assert_eq!(reply.status, 200, "{version:?}");
            }
        }
    }
}

#[tokio::test]
async fn only_the_gateway_tells_upstreams_of_certificates() {
    let forged = [
        "client-cert",
        "client-cert-chain",
        "x-client-cert",
        "x-client-cert-subject",
        "x-forwarded-client-cert",
        "x-ssl-client-verify",
        "x_ssl_client_verify",
        "ssl-client-cert",
        "client_cert",
    ];
    let trusting = with_lines(CONFIG, "[server]", "trusted_proxies = [\"127.0.0.1/32\"]");
    for (config, forward) in [(CONFIG, false), (CONFIG, true), (&trusting, true)] {
        let lines = format!("{OPTIONAL}\nforward_client_cert = {forward}");
        let site = Site::with(config, &lines).await;
        let own = site.clients.issue();
        let request = forged
            .iter()
            .fold(site.world.authorized("/grants/1"), |request, name| {
                request.header(name, ":Zm9yZ2Vk:")
            });
        for (client, value) in [
            (site.client(), None),
            (site.client_with(&own), Some(own.certificate.der())),
        ] {
            let reply = client.send(&request).await;
            assert_eq!(reply.status, 200);
            let expected: Vec<String> = value
                .filter(|_| forward)
                .map(|der| format!(":{}:", STANDARD.encode(der)))
                .into_iter()
                .collect();
            assert_eq!(reply.upstream_saw("client-cert"), expected);
            for name in &forged[1..] {
                assert!(reply.upstream_saw(name).is_empty(), "{name}");
            }
        }
    }
}
