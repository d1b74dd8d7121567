//! From nothing to ready, with and without the issuer.

use crate::harness::{
    CONFIG, Gateway, World, assert_refused, eventually, local, nobody, request, within,
};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use std::time::{Duration, Instant};

#[tokio::test]
async fn with_the_issuer_up_it_is_ready_soon() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", "http://127.0.0.1:1");
    let started = Instant::now();
    let gateway = Gateway::start(&config).await;
    within("ready", gateway.app.ready()).await;
    // The aim is 200 ms, for a release build on a quiet machine.
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
    assert_eq!(gateway.app.keys(), [("bonterra".into(), Some(2))]);
}

#[tokio::test]
async fn with_the_issuer_down_it_serves_is_not_ready_and_recovers_by_itself() {
    let options = AuthOptions {
        listen: nobody(),
        ..AuthOptions::default()
    };
    let auth = BonterraAuth::start(options).await.expect("issuer");
    let token = auth.token();
    auth.stop().await;
    let echo = Echo::start(local()).await.expect("upstream");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = Gateway::start(&config).await;
    let grants = request(gateway.address, "GET", "/grants/1").bearer(&token);

    assert_eq!(
        gateway.admin("GET", "/livez").await.status,
        200,
        "that is nothing a restart would heal"
    );
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 503);
    let verbose = gateway.admin("GET", "/readyz?verbose").await;
    assert_eq!(verbose.status, 503);
    assert!(
        verbose.text().contains("[-] issuer bonterra: no keys yet"),
        "{}",
        verbose.text()
    );
    let refused = grants.send().await;
    assert!(
        refused
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    assert_eq!(
        refused.header("www-authenticate"),
        None,
        "the token may well be good"
    );
    assert_refused(&gateway, &refused, 503, "keys_unavailable", "grants").await;
    assert!(echo.seen().is_empty());
    assert_eq!(
        request(gateway.address, "GET", "/public/")
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        request(gateway.address, "GET", "/grants/1")
            .send()
            .await
            .status,
        401,
        "no token is no token"
    );
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "a"),
        ("client_secret", "b"),
    ];
    let unknown = request(gateway.address, "POST", "/oauth/token")
        .form(&form)
        .send()
        .await;
    assert_eq!(unknown.status, 503, "{}", unknown.text());

    auth.restart().await.expect("the same port");
    within("ready", gateway.app.ready()).await;
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
    assert_eq!(grants.send().await.status, 200);
}

#[tokio::test]
async fn an_outage_of_the_issuer_after_that_costs_nothing() {
    let world = World::start().await;
    let known = world.auth.token();
    assert_eq!(
        world.get("/grants/1").bearer(&known).send().await.status,
        200
    );
    let new = world.token_with(serde_json::json!({ "jti": "never seen" }));
    world.auth.stop().await;
    for token in [&known, &new, &known, &new] {
        assert_eq!(
            world.get("/grants/1").bearer(token).send().await.status,
            200
        );
    }
    assert_eq!(world.gateway.admin("GET", "/readyz").await.status, 200);
    let verbose = world.gateway.admin("GET", "/readyz?verbose").await.text();
    assert!(verbose.contains("[+] issuer bonterra: 2 keys"), "{verbose}");
}

#[tokio::test]
async fn keys_that_are_too_old_are_used_no_more_until_the_issuer_is_back() {
    let config = CONFIG.replace(
        "cooldown = \"1s\"",
        "cooldown = \"1ms\"\nmax_stale = \"1s\"",
    );
    let options = AuthOptions {
        listen: nobody(),
        jwks_cache_control: "max-age=1".to_owned(),
        ..AuthOptions::default()
    };
    let world = World::of(options, &config).await;
    let grants = world.authorized("/grants/1");
    eventually("admitted", async || grants.send().await.status == 200).await;
    world.auth.stop().await;
    eventually("too old", async || grants.send().await.status == 503).await;
    let refused = grants.send().await;
    assert_refused(&world.gateway, &refused, 503, "keys_unavailable", "grants").await;
    assert_eq!(
        world.gateway.admin("GET", "/readyz").await.status,
        200,
        "other gateways would know no more"
    );
    world.auth.restart().await.expect("the same port");
    eventually("admitted again", async || grants.send().await.status == 200).await;
}

#[tokio::test]
async fn a_port_in_use_is_an_error_and_not_shared() {
    let world = World::start().await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    for (key, address) in [
        ("server", world.gateway.address),
        ("admin", world.gateway.admin),
    ] {
        let taken = match key {
            "server" => config.replacen("\"127.0.0.1:0\"", &format!("\"{address}\""), 1),
            _ => config.replace(
                "\nlisten = \"127.0.0.1:0\"",
                &format!("\nlisten = \"{address}\""),
            ),
        };
        assert_ne!(taken, config);
        let path = world.gateway.file().with_file_name("taken.toml");
        std::fs::write(&path, taken).expect("written");
        let error = bonterra_gateway::app::App::start(path, std::io::sink())
            .await
            .expect_err("in use");
        assert!(
            error.to_string().contains(&address.to_string()),
            "{key}: {error}"
        );
    }
}
