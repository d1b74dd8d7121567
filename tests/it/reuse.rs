//! Reuse of machines' tokens: fewer are bought, and nobody gets one that is not his.

use crate::harness::{CONFIG, Reply, Request, World, eventually, request, with_lines};
use crate::revocation::{asks, revoke};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::{AuthOptions, Client, ClientQuota, Endpoint, Fault};
use bonterra_gateway::snapshot::compile;
use bonterra_gateway::{app, config};
use bytes::Bytes;
use serde_json::{Value, json};
use std::time::Duration;

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];
const WRONG: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-Secret"),
];
const CACHE: &str = "\n[oauth.bonterra.cache]\nenabled = true\n";

fn config() -> String {
    format!("{CONFIG}{CACHE}").replace("workers = 1", "workers = 2")
}

fn token(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    body["access_token"].as_str().expect("a token").to_owned()
}

fn claims(token: &str) -> Value {
    let payload = token.split('.').nth(1).expect("three parts");
    let payload = URL_SAFE_NO_PAD.decode(payload).expect("base64");
    serde_json::from_slice(&payload).expect("JSON")
}

impl World {
    fn machine(&self) -> Request {
        self.post("/oauth/token").form(&MACHINE)
    }

    async fn outcome(&self, outcome: &str) -> f64 {
        let series = format!(
            "gateway_oauth_requests_total{{endpoint=\"token\",grant=\"client_credentials\",outcome=\"{outcome}\",surface=\"bonterra\"}}"
        );
        self.gateway.metric(&series).await
    }

    async fn result(&self, result: &str) -> f64 {
        let series = format!(
            "gateway_oauth_cache_requests_total{{result=\"{result}\",surface=\"bonterra\"}}"
        );
        self.gateway.metric(&series).await
    }
}

#[tokio::test]
async fn two_hundred_equal_requests_are_one() {
    let world = World::with(&config()).await;
    let slow = Fault::Slow(Duration::from_millis(300));
    world.auth.set_fault(Endpoint::Token, Some(slow));
    let address = world.gateway.address;
    let all: Vec<_> = (0..200)
        .map(|_| {
            let request = request(address, "POST", "/oauth/token").form(&MACHINE);
            tokio::spawn(async move { request.send().await })
        })
        .collect();
    let mut tokens = Vec::new();
    for one in all {
        tokens.push(token(&one.await.expect("an answer")));
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    assert_eq!(world.auth.counts().token, 1);
    assert_eq!(world.outcome("issued").await, 1.0);
    assert_eq!(world.outcome("reused").await, 199.0);
    assert_eq!(world.result("miss").await, 1.0);
    let shared = world.result("hit").await + world.result("coalesced").await;
    assert_eq!(shared, 199.0);
    let good = world.get("/grants/1").bearer(&tokens[0]).send().await;
    assert_eq!(good.status, 200);
}

/// The first of those who wait goes away, and with him nothing else.
#[tokio::test]
async fn who_leaves_takes_nobodys_answer_along() {
    let world = World::with(&config()).await;
    let slow = Fault::Slow(Duration::from_millis(300));
    world.auth.set_fault(Endpoint::Token, Some(slow));
    let request = world.machine();
    let first = tokio::spawn(async move { request.send().await });
    eventually("the issuer is asked", async || {
        world.auth.counts().token == 1
    })
    .await;
    let request = world.machine();
    let second = tokio::spawn(async move { request.send().await });
    first.abort();
    token(&second.await.expect("an answer"));
    assert_eq!(world.auth.counts().token, 1);
}

/// Ten thousand requests of fifty clients with right, wrong and swapped secrets, five hundred at once.
#[tokio::test]
async fn nobody_gets_a_token_that_is_not_his() {
    const CLIENTS: usize = 50;
    let mut options = AuthOptions::default();
    let model = options.clients.first().expect("a client").clone();
    options.clients = (0..CLIENTS)
        .map(|number| Client {
            id: format!("client-{number}"),
            secret: Some(format!("secret-{number}")),
            ..model.clone()
        })
        .collect();
    let world = World::of(options, &config()).await;
    let address = world.gateway.address;
    for wave in 0..20 {
        let all: Vec<_> = (0..500)
            .map(|number| {
                let client = number % CLIENTS;
                let id = format!("client-{client}");
                // Each kind of secret meets each client, in waves that begin elsewhere.
                let kind = (number / CLIENTS + wave) % 5;
                let (secret, right) = match kind {
                    0..=2 => (format!("secret-{client}"), true),
                    3 => (format!("secret-{}", (client + 1) % CLIENTS), false),
                    _ => (format!("Secret-{client}"), false),
                };
                let request = request(address, "POST", "/oauth/token");
                let request = if kind == 2 {
                    let pair = STANDARD.encode(format!("{id}:{secret}"));
                    let request = request.header("authorization", format!("Basic {pair}"));
                    request.form(&[MACHINE[0]])
                } else {
                    request.form(&[MACHINE[0], ("client_id", &id), ("client_secret", &secret)])
                };
                let sent = tokio::spawn(async move { request.send().await });
                (id, right, sent)
            })
            .collect();
        for (id, right, sent) in all {
            let reply = sent.await.expect("an answer");
            if right {
                let claims = claims(&token(&reply));
                assert_eq!(claims["azp"], *id);
                assert_eq!(claims["sub"], format!("{id}@clients"));
            } else {
                assert_eq!(reply.status, 401, "{id}: {}", reply.text());
                assert!(!reply.text().contains("access_token"));
            }
        }
    }
    // Each client has bought two: one in each way of proving itself.
    assert_eq!(world.outcome("issued").await, 100.0);
    assert_eq!(world.outcome("refused_by_issuer").await, 4000.0);
    assert_eq!(world.outcome("reused").await, 5900.0);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_whatever_is_kept() {
    let world = World::with(&config()).await;
    let wrong = || world.post("/oauth/token").form(&WRONG);
    let bought = token(&world.machine().send().await);
    let refused = wrong().send().await;
    assert_eq!(refused.status, 401);
    assert_eq!(world.auth.counts().token, 2);
    let again = wrong().send().await;
    assert_eq!((again.status, &again.body), (401, &refused.body));
    assert_eq!(again.header("cache-control"), Some("no-store"));
    assert_eq!(world.auth.counts().token, 2, "remembered for a moment");
    assert_eq!(world.result("refused").await, 1.0);
    assert_eq!(token(&world.machine().send().await), bought);
    // And not for long.
    eventually("asked again", async || {
        assert_eq!(wrong().send().await.status, 401);
        world.auth.counts().token == 3
    })
    .await;
}

#[tokio::test]
async fn what_is_left_is_told_and_the_end_comes_early() {
    let world = World::with(&config()).await;
    let clock = world.gateway.app.clock();
    let bought = token(&world.machine().send().await);
    clock.advance(Duration::from_secs(3600));
    let reply = world.machine().send().await;
    assert_eq!(token(&reply), bought);
    let left = reply.json()["expires_in"].as_u64().expect("a number");
    assert!((82_700..=82_800).contains(&left), "{left}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
    assert_eq!(reply.header("content-type"), Some("application/json"));
    clock.advance(Duration::from_secs(69_120 - 3600));
    world.machine().send().await;
    assert_eq!(world.auth.counts().token, 2);
}

#[tokio::test]
async fn a_throttled_client_is_kept_from_the_issuer() {
    let world = World::with(&config()).await;
    let body = r#"{"error":"too_many_requests","error_description":"Client quota exceeded"}"#;
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let headers = vec![
        header("content-type", "application/json"),
        header("retry-after", "4"),
        header("x-ratelimit-limit", "100"),
        header("x-ratelimit-remaining", "3"),
        header(
            "auth0-client-quota-limit",
            "b=per_hour;q=10;r=0;t=2,b=per_day;q=99;r=42;t=9",
        ),
    ];
    let fault = Fault::Reply(429, headers, Bytes::from_static(body.as_bytes()));
    world.auth.set_fault(Endpoint::Token, Some(fault));
    let first = world.machine().send().await;
    assert_eq!((first.status, first.text()), (429, body.to_owned()));
    assert_eq!(first.header("retry-after"), Some("4"));
    world.auth.set_fault(Endpoint::Token, None);
    let second = world.machine().send().await;
    assert_eq!((second.status, second.text()), (429, body.to_owned()));
    assert!(matches!(
        second.header("retry-after"),
        Some("1" | "2" | "3" | "4")
    ));
    for reply in [&first, &second] {
        assert_eq!(reply.header("x-ratelimit-remaining"), Some("3"));
        assert!(reply.header("auth0-client-quota-limit").is_some());
    }
    assert_eq!(world.auth.counts().token, 1);
    for (bucket, remaining, limit) in [
        ("ratelimit", 3.0, 100.0),
        ("client_per_hour", 0.0, 10.0),
        ("client_per_day", 42.0, 99.0),
    ] {
        for (name, value) in [("remaining", remaining), ("limit", limit)] {
            let series =
                format!("gateway_issuer_quota_{name}{{bucket=\"{bucket}\",issuer=\"bonterra\"}}");
            assert_eq!(world.gateway.metric(&series).await, value, "{series}");
        }
    }
    // Others are not throttled with it, and its own time ends.
    let other = [
        MACHINE[0],
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
    ];
    token(&world.post("/oauth/token").form(&other).send().await);
    eventually("its time is over", async || {
        world.machine().send().await.status == 200
    })
    .await;
    assert_eq!(world.auth.counts().token, 3);
}

/// Where it is asked for, what is bought of the last of a quota is made to last.
#[tokio::test]
async fn a_token_that_leaves_little_of_a_quota_is_reused_for_longer() {
    let adaptive = config().replace("enabled = true", "enabled = true\nquota_low = \"20%\"");
    // configuration, tokens that the client may buy, how many it has bought in the end
    for (config, quota, bought) in [(&config(), 1, 2), (&adaptive, 1, 1), (&adaptive, 9, 2)] {
        let world = World::with(config).await;
        let quota = ClientQuota {
            per_day: Some(quota + 1),
            ..ClientQuota::default()
        };
        world.auth.set_client_quota("demo-client", Some(quota));
        let other = [&MACHINE[..], &[("x", "1")]].concat();
        token(&world.post("/oauth/token").form(&other).send().await);
        token(&world.machine().send().await);
        assert_eq!(world.auth.counts().token, 2);
        // More than the share that is reused always, less than there is.
        world
            .gateway
            .app
            .clock()
            .advance(Duration::from_secs(72_000));
        world.machine().send().await;
        assert_eq!(world.auth.counts().token, bought + 1, "{quota:?}");
    }
}

#[tokio::test]
async fn failures_of_the_issuer_are_not_remembered() {
    let world = World::with(&config()).await;
    for fault in [
        Fault::Status(500, "text/plain".to_owned(), "x".to_owned()),
        Fault::CutAfterRequest,
        Fault::Garbage,
    ] {
        let before = world.auth.counts().token;
        let name = format!("{fault:?}");
        world.auth.set_fault(Endpoint::Token, Some(fault));
        assert!(world.machine().send().await.status >= 500, "{name}");
        assert!(world.machine().send().await.status >= 500, "{name}");
        assert_eq!(world.auth.counts().token, before + 2, "{name}");
    }
    world.auth.set_fault(Endpoint::Token, None);
    token(&world.machine().send().await);
}

#[tokio::test]
async fn what_is_not_plain_is_never_reused() {
    let world = World::with(&config()).await;
    let rows: [(&str, Request); 2] = [
        (
            "a proof of possession",
            world.machine().header("dpop", "proof"),
        ),
        (
            "an assertion",
            world.post("/oauth/token").form(&[
                MACHINE[0],
                MACHINE[1],
                ("client_assertion", "j"),
                ("client_assertion_type", "t"),
            ]),
        ),
    ];
    for (case, request) in rows {
        let before = world.auth.counts().token;
        request.send().await;
        request.send().await;
        assert_eq!(world.auth.counts().token, before + 2, "{case}");
    }
    // A parameter that nobody here knows makes a request another one.
    let before = world.auth.counts().token;
    for value in ["1", "2", "1"] {
        let fields = [MACHINE[0], MACHINE[1], MACHINE[2], ("x", value)];
        token(&world.post("/oauth/token").form(&fields).send().await);
    }
    assert_eq!(world.auth.counts().token, before + 2);
}

#[tokio::test]
async fn without_the_key_nothing_is_reused() {
    let world = World::start().await;
    world.machine().send().await;
    world.machine().send().await;
    assert_eq!(world.auth.counts().token, 2);
    assert_eq!(world.outcome("issued").await, 2.0);
    let text = world.gateway.admin("GET", "/metrics").await.text();
    assert!(!text.contains("oauth_cache_requests_total"));
}

/// Nobody accepts a token whose key is withdrawn, so it is not given again.
#[tokio::test]
async fn a_token_goes_with_its_key() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=1".to_owned(),
        ..AuthOptions::default()
    };
    let world = World::of(options, &config()).await;
    let bought = token(&world.machine().send().await);
    assert_eq!(token(&world.machine().send().await), bought);
    world.auth.rotate();
    world.auth.withdraw_previous();
    eventually("another token", async || {
        token(&world.machine().send().await) != bought
    })
    .await;
    assert_eq!(world.auth.counts().token, 2);
}

#[tokio::test]
async fn tokens_outlive_a_reload_that_leaves_them_alone() {
    let world = World::with(&config()).await;
    let bought = token(&world.machine().send().await);
    let file = world.gateway.file();
    let text = std::fs::read_to_string(&file).expect("the file");
    let reload = async |text: &str| {
        std::fs::write(&file, text).expect("written");
        let reply = world.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let other = with_lines(&text, "[issuer.bonterra]", "leeway = \"20s\"");
    reload(&other).await;
    assert_eq!(token(&world.machine().send().await), bought);
    assert_eq!(world.auth.counts().token, 1);
    reload(&other.replace("enabled = true", "enabled = true\nreuse = \"50%\"")).await;
    token(&world.machine().send().await);
    assert_eq!(world.auth.counts().token, 2, "other rules start afresh");
    reload(&other.replace("enabled = true", "enabled = false")).await;
    token(&world.machine().send().await);
    token(&world.machine().send().await);
    assert_eq!(world.auth.counts().token, 4, "switched off");
}

#[tokio::test]
async fn a_revoked_token_is_given_to_nobody_again() {
    let world = World::with(&config()).await;
    let orders = |token: &str| {
        [
            json!({"token": token}),
            json!({"issuer": "bonterra", "sub": "demo-client@clients", "issued_until": 1}),
        ]
    };
    for order in 0..2 {
        let kept = token(&world.machine().send().await);
        assert_eq!(token(&world.machine().send().await), kept);
        let (status, text) = revoke(&world, orders(&kept)[order].clone()).await;
        assert_eq!(status, 200, "{text}");
        let next = token(&world.machine().send().await);
        assert_ne!(next, kept);
        assert_eq!(asks(&world, &next).await, 200);
    }
}

#[test]
fn mistakes_have_a_place_and_a_hint() {
    let base = CONFIG.replace("ISSUER", "https://a/");
    let base = base.replace("ECHO", "http://127.0.0.1:1");
    let told = |lines: &str| {
        let parsed = config::parse("gateway.toml", &format!("{base}{CACHE}{lines}\n"));
        let compiled = compile(parsed, &app::environment().expect("metrics"));
        compiled.err().map(|errors| errors.to_string())
    };
    assert_eq!(told(""), None);
    for (lines, what, hint) in [
        (
            "max_entries = 0",
            "nothing could be kept",
            "enabled = false",
        ),
        (
            "reuse = \"0%\"",
            "no token could be reused",
            "enabled = false",
        ),
        ("reuse = \"101%\"", "not between 0% and 100%", ""),
        ("min_remaining = 60", "expected", "write \"60s\""),
        ("min_left = \"60s\"", "min_left", ""),
        ("quota_low = \"0%\"", "no quota is ever lower", "20%"),
    ] {
        let text = told(lines).unwrap_or_else(|| panic!("{lines} is fine"));
        assert!(
            text.contains(what) && text.contains(hint),
            "{lines}\n{text}"
        );
        assert!(text.contains("gateway.toml:"), "{lines}\n{text}");
    }
    let grants = base.replace(
        "[oauth.bonterra]",
        "[oauth.bonterra]\ngrants = [\"refresh_token\"]",
    );
    let parsed = config::parse("gateway.toml", &format!("{grants}{CACHE}"));
    let errors = compile(parsed, &app::environment().expect("metrics")).expect_err("a mistake");
    assert!(errors.to_string().contains("only tokens of the grant"));
}
