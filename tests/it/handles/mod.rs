//! `tokens = "opaque"`: clients hold handles, the issuer's tokens stay inside
//! (oauth20-internal-jwt-api).

mod ends;
mod refresh;
mod renewal;
mod routes;
mod shared;
mod surface;

use crate::harness::{CONFIG, Gateway, Reply, Request, World, request};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::app::App;
use bonterra_gateway::demo::auth::{
    AuthOptions, BACKEND_CLIENT, BACKEND_SECRET, BonterraAuth, REDIRECT_URI, WEB_CLIENT,
};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

const TOKEN: &str = "/oauth20/token";

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];

const VERIFIER: &str = "a-verifier-of-at-least-forty-three-characters-0123";

/// The surface of the document, beside the one of [`CONFIG`] that forwards tokens.
const SURFACE: &str = r#"
[oauth.internal]
issuer = "bonterra"
prefix = "/oauth20"
tokens = "opaque"
"#;

fn config() -> String {
    format!("{CONFIG}{SURFACE}")
}

/// With more in the table `[oauth.internal.handles]`.
fn config_with(settings: &str) -> String {
    format!("{CONFIG}{SURFACE}\n[oauth.internal.handles]\n{settings}\n")
}

async fn world() -> World {
    World::with(&config()).await
}

/// Tokens that live so long.
fn living(seconds: u64) -> AuthOptions {
    AuthOptions {
        token_lifetime: Duration::from_secs(seconds),
        ..AuthOptions::default()
    }
}

/// What a client got, checked against the document.
#[derive(Debug, Clone)]
struct Handles {
    access: String,
    refresh: Option<String>,
    expires_in: i64,
}

impl Handles {
    /// The schema of the document: these members, no others; and nothing of the issuer's.
    fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("pragma"), Some("no-cache"));
        assert_nothing_inside(reply);
        let body = reply.json();
        let known = [
            "token_type",
            "access_token",
            "expires_in",
            "scope",
            "refresh_token",
        ];
        for name in body.as_object().expect("an object").keys() {
            assert!(known.contains(&name.as_str()), "{name}");
        }
        assert_eq!(body["token_type"], "bearer");
        let text = |name: &str| {
            body.get(name)
                .map(|it| it.as_str().expect("text").to_owned())
        };
        let access = text("access_token").expect("a handle");
        assert!(access.starts_with("bgw_at_"), "{access}");
        let refresh = text("refresh_token");
        assert!(refresh.iter().all(|it| it.starts_with("bgw_rt_")));
        Self {
            access,
            refresh,
            expires_in: body["expires_in"].as_i64().expect("an integer"),
        }
    }

    fn refresh(&self) -> &str {
        self.refresh.as_deref().expect("a refresh handle")
    }
}

/// No JWT and no refresh token of the issuer's, anywhere in a reply.
fn assert_nothing_inside(reply: &Reply) {
    let whole = format!(
        "{:?} {}",
        reply.headers,
        String::from_utf8_lossy(&reply.body)
    );
    // How the JWTs' two parts begin: three letters alone come up in random text.
    for inside in ["eyJhbGciOi", "eyJpc3MiOi", "v1."] {
        assert!(!whole.contains(inside), "{inside} in {whole}");
    }
}

/// A machine's handle.
async fn machine(gateway: SocketAddr) -> Handles {
    Handles::of(&request(gateway, "POST", TOKEN).form(&MACHINE).send().await)
}

/// Logs in at the issuer's page as a browser does, and returns the code.
async fn log_in(auth: &BonterraAuth, client: &str, scope: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", client),
            ("redirect_uri", REDIRECT_URI),
            ("scope", scope),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    let page = request(auth.addr(), "GET", &format!("/authorize?{query}"));
    let text = page.send().await.text();
    let (_, after) = text.split_once("name=\"login\" value=\"").expect("a form");
    let (login, _) = after.split_once('"').expect("its value");
    let fields = [
        ("login", login),
        ("email", "user@example.com"),
        ("password", "demo"),
        ("action", "continue"),
    ];
    let back = request(auth.addr(), "POST", "/login").form(&fields);
    let back = back.send().await;
    let location = back.header("location").expect("a redirect");
    let (_, query) = location.split_once('?').expect("a query");
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let code = pairs.find(|(name, _)| name == "code").expect("a code");
    code.1.into_owned()
}

const SCOPE: &str = "openid profile offline_access read:grants";

/// A user's handles, held by the public client.
async fn user(world: &World, gateway: SocketAddr) -> Handles {
    let code = log_in(&world.auth, WEB_CLIENT, SCOPE).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", WEB_CLIENT),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    Handles::of(&request(gateway, "POST", TOKEN).form(&fields).send().await)
}

/// A user's handles, held by the client that proves itself by Basic.
async fn backend_user(world: &World) -> Handles {
    let code = log_in(&world.auth, BACKEND_CLIENT, SCOPE).await;
    let fields = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    let asked = world.post(TOKEN).header("authorization", backend());
    Handles::of(&asked.form(&fields).send().await)
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn backend() -> String {
    basic(BACKEND_CLIENT, BACKEND_SECRET)
}

/// A refresh by the public client.
fn refreshing(gateway: SocketAddr, handle: &str) -> Request {
    request(gateway, "POST", TOKEN).form(&[
        ("grant_type", "refresh_token"),
        ("client_id", WEB_CLIENT),
        ("refresh_token", handle),
    ])
}

/// A refresh by the client that proves itself by Basic.
fn refreshing_backend(gateway: SocketAddr, handle: &str, authorization: &str) -> Request {
    let asked = request(gateway, "POST", TOKEN).header("authorization", authorization);
    asked.form(&[("grant_type", "refresh_token"), ("refresh_token", handle)])
}

/// What a route says to a token.
async fn call(gateway: SocketAddr, token: &str) -> Reply {
    let asked = request(gateway, "GET", "/optional/1").bearer(token);
    asked.send().await
}

async fn assert_good(gateway: SocketAddr, handle: &str) {
    let reply = call(gateway, handle).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

async fn assert_reason(gateway: SocketAddr, handle: &str, status: u16, reason: &str) {
    let reply = call(gateway, handle).await;
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.json()["reason"], reason);
    if status == 401 {
        let challenge = reply.header("www-authenticate").expect("a challenge");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_nothing_inside(&reply);
}

async fn assert_dead(gateway: SocketAddr, handle: &str) {
    assert_reason(gateway, handle, 401, "inactive_token").await;
}

/// An error of the token endpoint (RFC 6749 §5.2).
fn assert_error(reply: &Reply, status: u16, error: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    assert_eq!(reply.json()["error"], error, "{}", reply.text());
    assert_nothing_inside(reply);
}

/// The claims of the token that went upstream last.
fn upstream_claims(world: &World) -> Value {
    let seen = world.echo.seen();
    let last = seen.last().expect("a request upstream");
    let token = last.headers["authorization"].to_str().expect("text");
    let token = token.strip_prefix("Bearer ").expect("a bearer token");
    let claims = token.split('.').nth(1).expect("a JWT");
    let claims = URL_SAFE_NO_PAD.decode(claims).expect("base64url");
    serde_json::from_slice(&claims).expect("claims")
}

/// Sets the clock of a gateway ahead.
fn advance(app: &App, seconds: u64) {
    app.clock().advance(Duration::from_secs(seconds));
}

/// No handle has ever reached an upstream.
fn assert_no_handle_upstream(world: &World) {
    for request in world.echo.seen() {
        let shown = format!("{} {:?}", request.target, request.headers);
        assert!(!shown.contains("bgw_"), "{shown}");
        for value in request.headers.values() {
            let text = String::from_utf8_lossy(value.as_bytes());
            assert!(!text.contains("bgw_"), "{text}");
        }
    }
}

/// What a gateway has logged of requests.
fn assert_log_is_clean(gateway: &Gateway) {
    for secret in ["bgw_", "eyJ", "v1.", "demo-secret"] {
        assert!(!gateway.log.text().contains(secret), "{secret}");
    }
}
