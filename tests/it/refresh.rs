//! Refreshes through the gateway, against an issuer whose refresh tokens are good once: the second use
//! of one ends the session.

use crate::harness::{CONFIG, Reply, Request, World, eventually, with_lines};
use crate::revocation::revoke;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonterra_gateway::demo::auth::{BonterraAuth, Endpoint, Fault, REDIRECT_URI};
use bonterra_gateway::snapshot::compile;
use bonterra_gateway::{app, config};
use futures_util::future::join_all;
use serde_json::json;
use std::time::Duration;

const BACKEND: [(&str, &str); 2] = [
    ("client_id", "demo-backend"),
    ("client_secret", "backend-secret"),
];

fn config(window: &str) -> String {
    let config = CONFIG.replace("workers = 1", "workers = 2");
    with_lines(
        &config,
        "[oauth.bonterra]",
        &format!("refresh_window = \"{window}\""),
    )
}

fn member(reply: &Reply, name: &str) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()[name].as_str().expect(name).to_owned()
}

fn refresh(world: &World, token: &str) -> Request {
    refresh_with(world, token, &[])
}

fn refresh_with(world: &World, token: &str, more: &[(&str, &str)]) -> Request {
    let mut fields = vec![("grant_type", "refresh_token"), ("refresh_token", token)];
    fields.extend(BACKEND);
    fields.extend(more);
    world.post("/oauth/token").form(&fields)
}

/// The first refresh token of a new session.
async fn session(world: &World) -> String {
    let code = log_in(&world.auth).await;
    let mut fields = vec![
        ("grant_type", "authorization_code"),
        ("redirect_uri", REDIRECT_URI),
        ("code", &code),
    ];
    fields.extend(BACKEND);
    let reply = world.post("/oauth/token").form(&fields).send().await;
    member(&reply, "refresh_token")
}

/// Whether the session goes on with this token.
async fn lives(world: &World, token: &str) -> bool {
    refresh(world, token).send().await.status == 200
}

async fn refreshes(world: &World, outcome: &str) -> f64 {
    let series = format!(
        "gateway_oauth_requests_total{{endpoint=\"token\",grant=\"refresh_token\",outcome=\"{outcome}\",surface=\"bonterra\"}}"
    );
    world.gateway.metric(&series).await
}

fn slow(world: &World) {
    let slow = Fault::Slow(Duration::from_millis(300));
    world.auth.set_fault(Endpoint::Token, Some(slow));
}

async fn reload(world: &World, change: impl FnOnce(String) -> String) {
    let file = world.gateway.file();
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, change(text)).expect("written");
    let reply = world.gateway.admin("POST", "/-/reload").await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Logs in at the issuer itself; returns the code.
async fn log_in(auth: &BonterraAuth) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", "demo-backend"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid profile offline_access read:grants"),
        ])
        .finish();
    let page = crate::harness::request(auth.addr(), "GET", &format!("/authorize?{query}"));
    let page = page.send().await.text();
    let (_, rest) = page.split_once("name=\"login\" value=\"").expect("a form");
    let (handle, _) = rest.split_once('"').expect("a value");
    let form = [
        ("login", handle),
        ("email", "user@example.com"),
        ("password", "demo"),
    ];
    let login = crate::harness::request(auth.addr(), "POST", "/login").form(&form);
    let reply = login.send().await;
    let location = reply.header("location").expect("a redirect").to_owned();
    let (_, query) = location.split_once('?').expect("a query");
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(name, value)| (name == "code").then(|| value.into_owned()))
        .expect("a code")
}

#[tokio::test]
async fn twenty_tabs_are_one_refresh() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let before = world.auth.counts().token;
    slow(&world);
    let request = refresh(&world, &token);
    let replies = join_all((0..20).map(|_| request.send())).await;
    let next = member(&replies[0], "refresh_token");
    assert_ne!(next, token);
    for reply in &replies {
        assert_eq!((reply.status, &reply.body), (200, &replies[0].body));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    assert_eq!(world.auth.counts().token, before + 1);
    assert_eq!(refreshes(&world, "issued").await, 1.0);
    assert_eq!(refreshes(&world, "reused").await, 19.0);
    // A tab that comes a moment later.
    let late = refresh(&world, &token).send().await;
    assert_eq!(late.body, replies[0].body);
    assert_eq!(world.auth.counts().token, before + 1);
    assert!(lives(&world, &next).await);
    let text = world.gateway.admin("GET", "/metrics").await.text();
    assert!(!text.contains("oauth_cache_requests_total"));
}

/// What the window is for: without it, the same tabs end the session. One at a time they are still.
#[tokio::test]
async fn without_the_window_twenty_tabs_end_the_session() {
    let world = World::with(&config("0s")).await;
    let token = session(&world).await;
    let before = world.auth.counts().token;
    let request = refresh(&world, &token);
    let replies = join_all((0..20).map(|_| request.send())).await;
    assert_eq!(world.auth.counts().token, before + 20);
    let mut good = replies.iter().filter(|reply| reply.status == 200);
    let next = member(good.next().expect("the first"), "refresh_token");
    assert!(good.next().is_none());
    assert!(!lives(&world, &next).await);
}

#[tokio::test]
async fn after_the_window_the_issuer_is_asked() {
    let world = World::with(&config("300ms")).await;
    let token = session(&world).await;
    let first = refresh(&world, &token).send().await;
    assert_eq!(first.status, 200);
    eventually("the window is over", async || {
        let reply = refresh(&world, &token).send().await;
        assert!(matches!(reply.status, 200 | 403), "{}", reply.text());
        reply.status == 403
    })
    .await;
    let next = member(&first, "refresh_token");
    assert!(!lives(&world, &next).await, "the issuer has seen it twice");
}

#[tokio::test]
async fn nobody_else_gets_the_answer() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let first = refresh(&world, &token).send().await;
    let answer = member(&first, "access_token");
    let grant = [("grant_type", "refresh_token"), ("refresh_token", &*token)];
    let basic = |pair: &str| {
        let request = world.post("/oauth/token").form(&grant);
        request.header("authorization", format!("Basic {}", STANDARD.encode(pair)))
    };
    let post = |id: &'static str, secret: &'static str| {
        let secret = [("client_secret", secret)];
        let mut fields = [grant.as_slice(), &[("client_id", id)]].concat();
        fields.extend(secret.iter().filter(|(_, secret)| !secret.is_empty()));
        world.post("/oauth/token").form(&fields)
    };
    for (case, request) in [
        ("another secret", post("demo-backend", "Backend-secret")),
        ("no secret", post("demo-backend", "")),
        ("another client", post("demo-client", "demo-secret")),
        ("a public client", post("demo-web", "")),
        ("another secret by Basic", basic("demo-backend:x")),
        ("another client by Basic", basic("demo-client:demo-secret")),
        (
            "an address",
            post("demo-client", "demo-secret").header("auth0-forwarded-for", "1.2.3.4"),
        ),
    ] {
        let before = world.auth.counts().token;
        let reply = request.send().await;
        assert!(
            matches!(reply.status, 401 | 403),
            "{case}: {}",
            reply.text()
        );
        assert!(!reply.text().contains(&answer), "{case}");
        assert_eq!(world.auth.counts().token, before + 1, "{case}: asked");
    }
    // The same client still does, and the same secret in another way is another request.
    assert_eq!(refresh(&world, &token).send().await.body, first.body);
    let other_way = basic("demo-backend:backend-secret").send().await;
    assert_eq!(other_way.status, 403, "{}", other_way.text());
}

/// Two scopes, one token: the second is the issuer's to judge, once the first is done.
#[tokio::test]
async fn another_scope_waits_and_is_asked_for() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let before = world.auth.counts().token;
    // Never answered, so that the first holds its turn until the gateway gives up on it.
    world.auth.set_fault_for(Endpoint::Token, Fault::Hang, 1);
    let first = refresh(&world, &token);
    let first = tokio::spawn(async move { first.send().await });
    eventually("the first is asked", async || {
        world.auth.counts().token == before + 1
    })
    .await;
    let scoped = refresh_with(&world, &token, &[("scope", "read:grants")]);
    let second = tokio::spawn(async move { scoped.send().await });
    // Another token passes by.
    let other = session(&world).await;
    assert!(lives(&world, &other).await);
    assert_eq!(world.auth.counts().token, before + 3, "the second waits");
    assert!(!first.is_finished() && !second.is_finished());
    assert_eq!(first.await.expect("an answer").status, 504);
    let second = second.await.expect("an answer");
    assert_eq!(member(&second, "scope"), "read:grants");
    assert_eq!(world.auth.counts().token, before + 4);
}

#[tokio::test]
async fn who_leaves_in_the_middle_gets_the_answer_when_he_comes_back() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let before = world.auth.counts().token;
    slow(&world);
    let request = refresh(&world, &token);
    let gone = tokio::spawn(async move { request.send().await });
    eventually("the issuer is asked", async || {
        world.auth.counts().token == before + 1
    })
    .await;
    gone.abort();
    world.auth.set_fault(Endpoint::Token, None);
    let reply = refresh(&world, &token).send().await;
    let next = member(&reply, "refresh_token");
    assert_eq!(world.auth.counts().token, before + 1);
    assert!(lives(&world, &next).await);
}

/// Nobody knows whether the token was spent: nobody here finds out by sending it again.
#[tokio::test]
async fn a_lost_reply_is_not_asked_for_again() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let before = world.auth.counts().token;
    let faults = [
        (Fault::LoseReply, 502),
        (Fault::CutBody, 502),
        (Fault::CutAfterRequest, 502),
    ];
    for (number, (fault, status)) in (1..).zip(faults) {
        let name = format!("{fault:?}");
        world.auth.set_fault_for(Endpoint::Token, fault, 1);
        let reply = refresh(&world, &token).send().await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert_eq!(reply.json()["error"], "temporarily_unavailable", "{name}");
        assert_eq!(world.auth.counts().token, before + number, "{name}");
    }
}

#[tokio::test]
async fn a_reload_that_leaves_the_window_alone_keeps_answers() {
    let world = World::with(&config("20s")).await;
    let token = session(&world).await;
    let first = refresh(&world, &token).send().await;
    let next = member(&first, "refresh_token");
    reload(&world, |text| {
        with_lines(&text, "[issuer.bonterra]", "leeway = \"20s\"")
    })
    .await;
    assert_eq!(refresh(&world, &token).send().await.body, first.body);
    assert!(lives(&world, &next).await);
    reload(&world, |text| text.replace("20s\"\n", "19s\"\n")).await;
    let asked = refresh(&world, &token).send().await;
    assert_eq!(asked.status, 403, "another window starts afresh");
}

#[tokio::test]
async fn a_revoked_token_is_given_to_nobody_again() {
    let world = World::with(&config("20s")).await;
    for (case, order) in [
        ("access token", "access_token"),
        ("refresh token", "refresh_token"),
        ("its subject", ""),
    ] {
        let token = session(&world).await;
        let other = session(&world).await;
        let first = refresh(&world, &token).send().await;
        let spared = refresh(&world, &other).send().await;
        let order = match order {
            "" => json!({"issuer": "bonterra", "sub": "somebody", "issued_until": 1}),
            name => json!({"token": member(&first, name)}),
        };
        let all = order.get("token").is_none();
        assert_eq!(
            refresh(&world, &token).send().await.body,
            first.body,
            "{case}"
        );
        let (status, text) = revoke(&world, order).await;
        assert_eq!(status, 200, "{text}");
        let again = refresh(&world, &token).send().await;
        assert_eq!(again.status, 403, "{case}: the issuer has seen it before");
        // What was given to others is theirs still, where it is known what was revoked.
        let kept = refresh(&world, &other).send().await.body == spared.body;
        assert_eq!(kept, !all, "{case}");
    }
}

#[test]
fn a_window_has_its_bound() {
    let told = |window: &str| {
        let text = config(window).replace("ISSUER", "https://a/");
        let text = text.replace("ECHO", "http://127.0.0.1:1");
        let parsed = config::parse("gateway.toml", &text);
        let compiled = compile(parsed, &app::environment().expect("metrics"));
        compiled.err().map(|errors| errors.to_string())
    };
    assert_eq!(told("1m"), None);
    assert_eq!(told("0s"), None);
    let text = told("61s").expect("a mistake");
    for part in ["refresh_window", "stolen", "1m", "gateway.toml:"] {
        assert!(text.contains(part), "{text}");
    }
}
