//! The grant of names and passwords (RFC 6749 §4.3): only where a surface names it.

use crate::harness::{CONFIG, Reply, Request, World, with_lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonterra_gateway::demo::auth::{AuthOptions, WEB_CLIENT};
use serde_json::json;

const USER: [(&str, &str); 4] = [
    ("grant_type", "password"),
    ("username", "user@example.com"),
    ("password", "demo"),
    ("audience", "https://api.bonterra.network"),
];
const BACKEND: [(&str, &str); 2] = [
    ("client_id", "demo-backend"),
    ("client_secret", "backend-secret"),
];

fn config() -> String {
    let lines = "grants = [\"client_credentials\", \"refresh_token\", \"password\"]";
    let config = with_lines(CONFIG, "[oauth.bonterra]", lines);
    format!("{config}\n[oauth.bonterra.cache]\nenabled = true\n")
}

/// An issuer where a public client may use the grant as well.
fn options() -> AuthOptions {
    let mut options = AuthOptions::default();
    let mut clients = options.clients.iter_mut();
    let web = clients.find(|client| client.id == WEB_CLIENT);
    web.expect("a client").grants.push("password".to_owned());
    options
}

fn ask(world: &World, fields: &[&[(&str, &str)]]) -> Request {
    world.post("/oauth/token").form(&fields.concat())
}

async fn ended(world: &World, grant: &str, outcome: &str) -> f64 {
    let series = format!(
        "gateway_oauth_requests_total{{endpoint=\"token\",grant=\"{grant}\",outcome=\"{outcome}\",surface=\"bonterra\"}}"
    );
    world.gateway.metric(&series).await
}

fn assert_error(reply: &Reply, status: u16, error: &str, description: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.json()["error"], error);
    assert_eq!(reply.json()["error_description"], description);
    assert_eq!(reply.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn a_user_is_who_he_says_he_is() {
    let world = World::of(options(), &config()).await;
    let basic = format!("Basic {}", STANDARD.encode("demo-backend:backend-secret"));
    let mut body = json!({"client_id": "demo-backend", "client_secret": "backend-secret"});
    for (name, value) in USER {
        body[name] = value.into();
    }
    for (case, request) in [
        ("post", ask(&world, &[&USER, &BACKEND])),
        (
            "basic",
            ask(&world, &[&USER]).header("authorization", basic),
        ),
        (
            "public",
            ask(&world, &[&USER, &[("client_id", WEB_CLIENT)]]),
        ),
        ("JSON", world.post("/oauth/token").json(&body)),
    ] {
        let reply = request.send().await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text());
        let token = reply.json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        let id = reply.header("x-request-id").expect("an id");
        let record = world.gateway.log.record(id).await.to_string();
        assert!(
            !record.contains("user@example") && !record.contains("demo-b"),
            "{record}"
        );
        let reply = world.get("/grants/1").bearer(&token).send().await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text());
        let subject = reply.upstream_saw("x-bonterra-subject");
        assert_eq!(subject, ["auth0|507f1f77bcf86cd799439011"], "{case}");
    }
    // Each was the issuer's to answer.
    assert_eq!(world.auth.counts().token, 4);
    assert_eq!(ended(&world, "password", "issued").await, 4.0);
    let sent = world.auth.last_token_request().expect("a request").form();
    assert!(
        USER.iter()
            .all(|(name, value)| { sent.contains(&((*name).to_owned(), (*value).to_owned())) })
    );
}

#[tokio::test]
async fn the_session_goes_on_with_refresh_tokens() {
    let world = World::of(options(), &config()).await;
    let scope = [(
        "scope",
        "openid offline_access read:grants write:everything",
    )];
    let reply = ask(&world, &[&USER, &BACKEND, &scope]).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["scope"], "openid offline_access read:grants");
    assert!(body["id_token"].is_string());
    let token = body["refresh_token"].as_str().expect("a refresh token");
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", token)];
    let reply = ask(&world, &[&refresh, &BACKEND]).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn the_issuer_has_the_last_word() {
    let world = World::of(options(), &config()).await;
    for (name, value) in [("password", "Demo"), ("username", "nobody@example.com")] {
        let wrong = USER.map(|field| {
            if field.0 == name {
                (name, value)
            } else {
                field
            }
        });
        for asked in 1..=2 {
            let before = world.auth.counts().token;
            let reply = ask(&world, &[&wrong, &BACKEND]).send().await;
            assert_error(&reply, 403, "invalid_grant", "Wrong email or password.");
            assert_eq!(world.auth.counts().token, before + 1, "{name} {asked}");
        }
    }
    let machine = [
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let reply = ask(&world, &[&USER, &machine]).send().await;
    let text = "Grant type 'password' not allowed for the client.";
    assert_error(&reply, 403, "unauthorized_client", text);
}

#[tokio::test]
async fn what_could_only_be_refused_is_not_asked() {
    let world = World::of(options(), &config()).await;
    for (without, grant) in [("username", "password"), ("password", "password")] {
        let fields: Vec<_> = USER
            .into_iter()
            .filter(|(name, _)| *name != without)
            .collect();
        let reply = ask(&world, &[&fields, &BACKEND]).send().await;
        let text = format!("{without} is missing or empty");
        assert_error(&reply, 400, "invalid_request", &text);
        assert!(ended(&world, grant, "invalid_request").await > 0.0);
    }
    let closed = World::start().await;
    let reply = ask(&closed, &[&USER, &BACKEND]).send().await;
    let text = "this grant_type is not enabled here";
    assert_error(&reply, 400, "unsupported_grant_type", text);
    assert_eq!(
        ended(&closed, "password", "unsupported_grant_type").await,
        1.0
    );
    assert_eq!(
        (world.auth.counts().token, closed.auth.counts().token),
        (0, 0)
    );
}
