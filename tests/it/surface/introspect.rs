//! `POST /oauth/introspect`: who may ask, what is told of a good token, and the one thing that is told
//! of any other.

use super::{assert_not_stored, ended};
use crate::harness::{CONFIG, Gateway, Reply, World, eventually, nobody, request, with_lines};
use crate::revocation::{asks, revoke};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, KeyChoice};
use bonterra_gateway::snapshot::compile;
use bonterra_gateway::{app, config};
use serde_json::{Value, json};
use std::net::SocketAddr;

const SURFACE: &str = "[oauth.bonterra]";
const ISSUER: &str = "[issuer.bonterra]";
const ASKERS: &str = "introspect_clients = [{ id = \"an api\", secret = \"s+e:cr%et\" }, { id = \"other\", secret = \"other-secret\" }]";
const INACTIVE: &str = "{\"active\":false}";

fn with_askers() -> String {
    with_lines(CONFIG, SURFACE, ASKERS)
}

fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

/// What one of those is told who may ask.
async fn told_at(address: SocketAddr, token: &str) -> Reply {
    let asked = request(address, "POST", "/oauth/introspect")
        .header("authorization", basic("an+api:s%2Be%3Acr%25et"))
        .form(&[("token", token), ("token_type_hint", "refresh_token")]);
    asked.send().await
}

async fn told(world: &World, token: &str) -> Reply {
    told_at(world.gateway.address, token).await
}

fn assert_inactive(reply: &Reply, case: &str) {
    assert_eq!((reply.status, &*reply.text()), (200, INACTIVE), "{case}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_not_stored(reply);
}

fn assert_error(reply: &Reply, status: u16, error: &str, case: &str) {
    assert_eq!(reply.status, status, "{case}: {}", reply.text());
    assert_eq!(reply.json()["error"], error, "{case}");
    assert_eq!(
        reply.header("retry-after").is_some(),
        status == 503,
        "{case}"
    );
    let challenge = (status == 401).then_some("Basic realm=\"bonterra\"");
    assert_eq!(reply.header("www-authenticate"), challenge, "{case}");
    assert_not_stored(reply);
}

#[tokio::test]
async fn a_good_token_tells_its_claims() {
    let world = World::with(&with_askers()).await;
    // Bound to a certificate that the one who asks does not have (RFC 8705 §3.2).
    let thumbprint = "A4DtL2JmUMhAsvJj5tKyn64SqzmuXbMrJa0n761y5v0";
    for claims in [world.auth.claims(), {
        let mut claims = world.auth.claims();
        claims["cnf"] = json!({"x5t#S256": thumbprint});
        claims["aud"] = json!(["https://api.bonterra.network", "https://b.example"]);
        claims["active"] = json!(false);
        claims
    }] {
        let reply = told(&world, &world.auth.mint(&claims)).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_not_stored(&reply);
        let mut expected = claims.clone();
        expected["active"] = json!(true);
        expected["token_type"] = json!("Bearer");
        expected["client_id"] = json!("demo-client");
        assert_eq!(reply.json(), expected);
    }
    assert_eq!(
        world.auth.counts().introspect,
        0,
        "the gateway's own verdict"
    );
    assert_eq!(ended(&world.gateway, "introspect", "answered").await, 2.0);
    let accepted =
        "gateway_auth_decisions_total{issuer=\"bonterra\",outcome=\"accepted\",reason=\"ok\"}";
    assert_eq!(
        world.gateway.metric(accepted).await,
        0.0,
        "nobody was let in"
    );
}

#[tokio::test]
async fn any_other_tells_nothing_at_all() {
    let options = AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    };
    let other = BonterraAuth::start(options).await.expect("an issuer");
    let config = format!(
        "{}\n[issuer.other]\nurl = \"{}\"\naudiences = [\"https://api.bonterra.network\"]\n",
        with_askers(),
        other.issuer()
    );
    let world = World::with(&config).await;
    let now = bonterra_gateway::identity::unix_now();
    let claims = world.auth.claims();
    let signed = |key: KeyChoice| world.auth.mint_with(&Value::Null, &claims, &key);
    let revoked = world.auth.token();
    assert_eq!(revoke(&world, json!({"token": revoked})).await.0, 200);
    let by_subject = world.token_with(json!({"sub": "gone"}));
    let order = json!({"issuer": "bonterra", "sub": "gone"});
    assert_eq!(revoke(&world, order).await.0, 200);
    let good = world.auth.token();
    let bent = format!("{}x", good);
    let foreign = other.token();
    assert_eq!(asks(&world, &foreign).await, 200, "good on a route");
    let large = format!("{good}.{}", "x".repeat(10_000));
    let rows = [
        ("garbage", "garbage".to_owned()),
        ("no token", "a \u{20ac} b".to_owned()),
        ("a refresh token", "v1.MTIz".to_owned()),
        ("too large", large),
        ("a bent signature", bent),
        ("unsigned", signed(KeyChoice::Unsigned)),
        ("a secret", signed(KeyChoice::Secret(b"secret".to_vec()))),
        ("a key of nobody's", signed(KeyChoice::Unpublished)),
        ("expired", world.token_with(json!({"exp": now - 60}))),
        ("not yet", world.token_with(json!({"nbf": now + 600}))),
        ("no exp", world.token_with(json!({"exp": null}))),
        ("audience", world.token_with(json!({"aud": "https://x"}))),
        ("no audience", world.token_with(json!({"aud": null}))),
        ("iss", world.token_with(json!({"iss": "https://x/"}))),
        ("dpop", world.token_with(json!({"cnf": {"jkt": "x"}}))),
        ("another issuer's", foreign),
        ("revoked", revoked),
        ("revoked by subject", by_subject),
    ];
    // The gateway has no way to ask again before the cooldown is over; then the key is unknown.
    eventually("keys as fresh as can be", async || {
        told(&world, &rows[7].1).await.status == 200
    })
    .await;
    for (case, token) in &rows {
        for _ in 0..2 {
            assert_inactive(&told(&world, token).await, case);
        }
    }
    let refused = world.gateway.admin("GET", "/metrics").await.text();
    let counted = refused
        .lines()
        .find(|line| line.starts_with("gateway_auth_decisions_total") && line.contains("refused"));
    assert_eq!(counted, None, "nobody was turned away");
    assert_eq!(world.auth.counts().introspect, 0);
}

#[tokio::test]
async fn only_those_may_ask_who_are_named_and_prove_it() {
    let world = World::with(&with_askers()).await;
    let token = world.auth.token();
    let post = || world.post("/oauth/introspect");
    let mine = ("token", token.as_str());
    let (id, secret) = (("client_id", "an api"), ("client_secret", "s+e:cr%et"));
    let by = |pair: &str| post().header("authorization", basic(pair)).form(&[mine]);
    for good in [
        by("an+api:s%2Be%3Acr%25et"),
        by("other:other-secret"),
        post().form(&[mine, id, secret]),
        post().json(&[mine, id, secret].into_iter().collect()),
    ] {
        let reply = good.send().await;
        assert_eq!(reply.json()["active"], true, "{}", reply.text());
    }
    let nobody = "invalid_client";
    let rows = [
        (post().form(&[mine]), 401, nobody),
        (post().form(&[mine, id]), 401, nobody),
        (post().form(&[mine, secret]), 401, nobody),
        (post().bearer(&token).form(&[mine]), 401, nobody),
        (by("other:Other-secret"), 401, nobody),
        (by("other:"), 401, nobody),
        (by("an+api:other-secret"), 401, nobody),
        (by("unknown:other-secret"), 401, nobody),
        // A client of the issuer's is none of those who may ask.
        (by("demo-client:demo-secret"), 401, nobody),
        (
            post()
                .header("authorization", basic("other:other-secret"))
                .form(&[mine, secret]),
            400,
            "invalid_request",
        ),
        (
            post()
                .header("authorization", basic("other:other-secret"))
                .form(&[]),
            400,
            "invalid_request",
        ),
        (
            post()
                .header("authorization", basic("other:other-secret"))
                .form(&[mine, mine]),
            400,
            "invalid_request",
        ),
    ];
    let mut answers = Vec::new();
    for (request, status, error) in &rows {
        let reply = request.send().await;
        assert_error(&reply, *status, error, &format!("{request:?}"));
        assert!(!reply.text().contains("active"), "{}", reply.text());
        answers.push(reply.text());
    }
    // Whether an id exists is not to be learned.
    assert_eq!(answers[4], answers[7]);
    assert_eq!(answers[0], answers[4]);
    let refused = ended(&world.gateway, "introspect", "invalid_client").await;
    assert_eq!(refused, 9.0);
    assert_eq!(world.auth.counts().introspect, 0);
}

#[tokio::test]
async fn without_clients_there_is_no_such_endpoint() {
    let world = World::start().await;
    assert_eq!(told(&world, "x").await.status, 404);
}

// === what is not at hand ===

#[tokio::test]
async fn a_key_that_is_not_known_yet_is_fetched_once() {
    let world = World::with(&with_askers()).await;
    world.auth.rotate();
    world.auth.rotate();
    let fetched = world.auth.counts().jwks;
    let reply = told(&world, &world.auth.token()).await;
    assert_eq!(reply.json()["active"], true, "{}", reply.text());
    assert_eq!(world.auth.counts().jwks, fetched + 1);
}

#[tokio::test]
async fn what_cannot_be_told_is_not_inactive() {
    let config = with_askers()
        .replace("ISSUER", &format!("http://{}/", nobody()))
        .replace("ECHO", "http://127.0.0.1:9");
    let gateway = Gateway::start(&config).await;
    let issuer = config.split("url = \"").nth(1).expect("a url");
    let (issuer, _) = issuer.split_once('"').expect("its end");
    let auth = BonterraAuth::start(AuthOptions::default()).await;
    let auth = auth.expect("an issuer");
    let mut claims = auth.claims();
    claims["iss"] = json!(issuer);
    let reply = told_at(gateway.address, &auth.mint(&claims)).await;
    assert_error(&reply, 503, "temporarily_unavailable", "no keys");
    assert_inactive(&told_at(gateway.address, "v1.x").await, "never a JWT");
    let outcome = ended(&gateway, "introspect", "unavailable").await;
    assert_eq!(outcome, 1.0);
}

#[tokio::test]
async fn about_tokens_that_tell_nothing_the_issuer_is_asked() {
    let opaque = "opaque = true\nclient_id = \"demo-backend\"\nclient_secret = \"backend-secret\"";
    let config = with_lines(&with_askers(), ISSUER, opaque).replace(
        "[issuer.bonterra.jwks]\ncooldown = \"1s\"\nmin_ttl = \"1s\"\n",
        "",
    );
    let world = World::with(&config).await;
    let claims = world.auth.claims();
    let good = world.auth.mint_opaque(&claims);
    let mut expected = claims.clone();
    expected["active"] = json!(true);
    expected["token_type"] = json!("Bearer");
    expected["client_id"] = json!("demo-client");
    for _ in 0..2 {
        assert_eq!(told(&world, &good).await.json(), expected);
    }
    assert_eq!(world.auth.counts().introspect, 1, "remembered for a moment");
    assert_inactive(&told(&world, "unknown").await, "unknown");
    let elsewhere = json!({"aud": "https://x"});
    let other = world.auth.mint_opaque(&elsewhere);
    assert_inactive(&told(&world, &other).await, "for another API");
    assert_eq!(revoke(&world, json!({"token": good})).await.0, 200);
    assert_inactive(&told(&world, &good).await, "revoked here");
    let failing = Fault::Status(500, "text/plain".into(), String::new());
    world.auth.set_fault(Endpoint::Introspect, Some(failing));
    let reply = told(&world, "another").await;
    assert_error(&reply, 503, "temporarily_unavailable", "the issuer fails");
    let refused = "gateway_auth_decisions_total{issuer=\"bonterra\",outcome=\"refused\",reason=\"keys_unavailable\"}";
    assert_eq!(world.gateway.metric(refused).await, 0.0);
    assert_eq!(asks(&world, "yet-another").await, 503);
    assert_eq!(world.gateway.metric(refused).await, 1.0, "on a route");
}

// === the file ===

#[test]
fn mistakes_have_a_place_and_a_hint() {
    let base = CONFIG.replace("ISSUER", "https://a/");
    let base = base.replace("ECHO", "http://127.0.0.1:1");
    let told = |lines: &str| {
        let parsed = config::parse("gateway.toml", &with_lines(&base, SURFACE, lines));
        let compiled = compile(parsed, &app::environment().expect("metrics"));
        compiled.err().map(|errors| errors.to_string())
    };
    assert_eq!(told(ASKERS), None);
    for (lines, what, hint) in [
        (
            "introspect_clients = [{ id = \"a\", secret = \"hunter2\" }, { id = \"a\", secret = \"hunter3\" }]",
            "another client is called `a` already",
            "an id of its own",
        ),
        (
            "introspect_clients = [{ secret = \"hunter2\" }]",
            "`id` is missing",
            "by which the client authenticates",
        ),
        (
            "introspect_clients = [{ id = \"a\" }]",
            "`secret` is missing",
            "`secret_file`",
        ),
        (
            "introspect_clients = [{ id = \"a\", secret = \"hunter2\", secret_env = \"X\" }]",
            "more than one of `secret`",
            "keep one",
        ),
        (
            "introspect_clients = [{ id = \"a\", secret = \" \" }]",
            "the secret is empty",
            "",
        ),
        (
            "introspect_clients = [{ id = \"a\", key = \"b\" }]",
            "unknown key `key`",
            "",
        ),
        (
            "paths = { introspect = \"/worth\" }",
            "there is no introspection endpoint",
            "introspect_clients",
        ),
        (
            "paths = { revoke = \"/end/*\" }",
            "this is no plain path",
            "",
        ),
    ] {
        let text = told(lines).unwrap_or_else(|| panic!("{lines} is fine"));
        assert!(
            text.contains(what) && text.contains(hint),
            "{lines}\n{text}"
        );
        assert!(text.contains("gateway.toml:"), "{lines}\n{text}");
        assert!(!text.contains("hunter"), "{lines}\n{text}");
    }
}

#[test]
fn secrets_of_those_who_may_ask_are_not_shown() {
    let parsed = config::parse("gateway.toml", &with_askers());
    let shown = config::show(&parsed.config);
    assert!(shown.contains("an api"), "{shown}");
    assert!(!shown.contains("cr%et") && !shown.contains("other-secret"));
}
