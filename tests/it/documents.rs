//! The four API documents that the gateway serves, each in a module of its own: every endpoint and
//! grant, with the document's own example requests, through the file that is shipped.

mod bonterra_api_token;
mod bonterra_auth;
mod envelope;
mod internal_jwt;

use crate::harness::{Reply, Request, World, request};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::config;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, REDIRECT_URI};
use bonterra_gateway::demo::echo::Echo;
use serde_json::Value;

use crate::harness::{Gateway, local, within};

const VERIFIER: &str = "a-verifier-of-forty-three-characters-or-more-";
const API: &str = "https://api.bonterra.network";

/// The file that is shipped, with addresses of this run in place of its own.
async fn shipped() -> World {
    let auth = BonterraAuth::start(AuthOptions::default()).await;
    let auth = auth.expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    let config = config::DEFAULT
        .replace("127.0.0.1:8080\"]", "127.0.0.1:0\"]")
        .replace("127.0.0.1:9090\"", "127.0.0.1:0\"")
        .replace("http://127.0.0.1:9400", auth.issuer().trim_end_matches('/'))
        .replace("http://127.0.0.1:9000", &echo.url())
        .replace("drain_delay = \"5s\"", "drain_delay = \"0s\"");
    let gateway = Gateway::start(&config).await;
    within("ready", gateway.app.ready()).await;
    World {
        auth,
        echo,
        gateway,
    }
}

/// Has a user log in, sent on from the authorization endpoint at `path` with this query: what comes
/// back to the client.
async fn log_in(world: &World, path: &str, query: &[(&str, &str)]) -> Vec<(String, String)> {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(query)
        .finish();
    let sent_on = world.get(&format!("{path}?{query}")).send().await;
    assert_eq!(sent_on.status, 302, "{}", sent_on.text());
    let location = sent_on.header("location").expect("a location");
    let target = location.strip_prefix(world.auth.issuer()).expect("issuer");
    let page = request(world.auth.addr(), "GET", &format!("/{target}"));
    let page = page.send().await.text();
    let (_, handle) = page.split_once("name=\"login\" value=\"").expect("a form");
    let (handle, _) = handle.split_once('"').expect("its handle");
    let login = [
        ("login", handle),
        ("email", "user@example.com"),
        ("password", "demo"),
    ];
    let back = request(world.auth.addr(), "POST", "/login").form(&login);
    let back = back.send().await;
    let location = back.header("location").expect("back to the client");
    assert!(location.starts_with(REDIRECT_URI), "{location}");
    let (_, fields) = location.split_once('?').expect("a query");
    form_urlencoded::parse(fields.as_bytes())
        .into_owned()
        .collect()
}

/// The value of a field that came back.
fn field<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    let found = fields.iter().find(|(own, _)| own == name);
    found.map_or_else(|| panic!("no {name} in {fields:?}"), |(_, value)| value)
}

/// A code for the confidential client, from the authorization endpoint at `path`.
async fn code(world: &World, path: &str, scope: &str) -> String {
    let fields = [
        ("response_type", "code"),
        ("client_id", "demo-backend"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", scope),
        ("state", "xyz123"),
        ("audience", API),
    ];
    let back = log_in(world, path, &fields).await;
    assert_eq!(field(&back, "state"), "xyz123");
    field(&back, "code").to_owned()
}

/// The same with PKCE (RFC 7636), for the public client.
async fn code_with_pkce(world: &World, path: &str, scope: &str) -> String {
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    let fields = [
        ("response_type", "code"),
        ("client_id", "demo-web"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", scope),
        ("audience", API),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    field(&log_in(world, path, &fields).await, "code").to_owned()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// The members of an answer that is a success.
async fn good(request: Request) -> Value {
    let reply = request.send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

/// A member that is a text.
fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    let text = value.get(name).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// Whether an API lets this token in.
async fn calls(world: &World, token: &str) -> Reply {
    world.get("/profile/1").bearer(token).send().await
}
