//! `POST /oauth/revoke`: what ends at the gateway, what ends at the issuer, and in which order.

use super::{MACHINE, assert_not_stored, ended};
use crate::harness::program::GatewayProcess;
use crate::harness::{
    CONFIG, Gateway, Reply, Request, World, assert_refused, eventually, local, request, with_lines,
    within,
};
use crate::revocation::{asks, revoke};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::app::environment;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, REDIRECT_URI};
use bonterra_gateway::demo::echo::Echo;
use serde_json::{Value, json};
use std::time::Duration;

const BACKEND: [(&str, &str); 2] = [
    ("client_id", "demo-backend"),
    ("client_secret", "backend-secret"),
];
const SURFACE: &str = "[oauth.bonterra]";
const ISSUER: &str = "[issuer.bonterra]";
const ASKERS: &str = "introspect_clients = [{ id = \"api\", secret = \"api-secret\" }]";

fn config() -> String {
    let config = with_lines(CONFIG, SURFACE, ASKERS);
    let config = with_lines(&config, ISSUER, "timeout = \"1s\"");
    format!("{config}\n[oauth.bonterra.cache]\nenabled = true\n")
}

fn now() -> i64 {
    bonterra_gateway::identity::unix_now()
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

/// A machine's request to end a token.
fn end(world: &World, token: &str) -> Request {
    world
        .post("/oauth/revoke")
        .header("authorization", basic("demo-client", "demo-secret"))
        .form(&[("token", token)])
}

/// A user's client's.
fn end_as_backend(world: &World, token: &str) -> Request {
    let [id, secret] = BACKEND;
    world
        .post("/oauth/revoke")
        .form(&[("token", token), id, secret])
}

fn assert_done(reply: &Reply, case: &str) {
    assert_eq!((reply.status, reply.text().as_str()), (200, ""), "{case}");
    assert!(reply.header("x-request-id").is_some(), "{case}");
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
    assert_not_stored(reply);
}

async fn machine_token(world: &World) -> String {
    let reply = world.post("/oauth/token").form(&MACHINE).send().await;
    let token = reply.json()["access_token"].clone();
    token.as_str().expect("a token").to_owned()
}

/// A user logs in to the backend client: its access and its refresh token.
async fn log_in(world: &World) -> (String, String) {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", "demo-backend"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid offline_access read:grants"),
        ])
        .finish();
    let page = request(world.auth.addr(), "GET", &format!("/authorize?{query}"));
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
    let (_, fields) = back
        .header("location")
        .and_then(|location| location.split_once('?'))
        .expect("back to the client");
    let code = form_urlencoded::parse(fields.as_bytes()).find(|(name, _)| name == "code");
    let (_, code) = code.expect("a code");
    let [id, secret] = BACKEND;
    let tokens = world.post("/oauth/token").form(&[
        ("grant_type", "authorization_code"),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        id,
        secret,
    ]);
    let tokens = tokens.send().await.json();
    let text = |name: &str| tokens[name].as_str().expect("a token").to_owned();
    (text("access_token"), text("refresh_token"))
}

async fn refresh(world: &World, token: &str) -> Reply {
    let [id, secret] = BACKEND;
    let grant = ("grant_type", "refresh_token");
    let form = [grant, ("refresh_token", token), id, secret];
    world.post("/oauth/token").form(&form).send().await
}

async fn introspected(world: &World, token: &str) -> String {
    let asked = world
        .post("/oauth/introspect")
        .header("authorization", basic("api", "api-secret"))
        .form(&[("token", token)]);
    asked.send().await.text()
}

// === access tokens ===

#[tokio::test]
async fn an_access_token_ends_everywhere_here_and_is_not_given_again() {
    let world = World::with(&config()).await;
    let token = machine_token(&world).await;
    assert_eq!(machine_token(&world).await, token, "given again");
    assert_eq!(asks(&world, &token).await, 200);
    assert!(
        introspected(&world, &token)
            .await
            .starts_with("{\"active\":true")
    );
    let served = world.echo.requests();

    let reply = end(&world, &token).send().await;
    assert_done(&reply, "the first time");
    assert_eq!(ended(&world.gateway, "revoke", "revoked").await, 1.0);
    let asked = world.auth.last_request(Endpoint::Revoke).expect("asked");
    assert_eq!(asked.form(), [("token".to_owned(), token.clone())]);
    let credential = basic("demo-client", "demo-secret");
    assert_eq!(asked.header("authorization"), Some(&*credential));

    let call = world.get("/grants/1").bearer(&token).send().await;
    assert_refused(&world.gateway, &call, 401, "revoked", "grants").await;
    assert_eq!(world.echo.requests(), served, "the upstream saw nothing");
    assert_eq!(introspected(&world, &token).await, "{\"active\":false}");
    let user = world.get("/oauth/userinfo").bearer(&token).send().await;
    assert_error(&user, 401, "invalid_token", "userinfo");
    assert_eq!(
        user.header("www-authenticate"),
        Some(
            "Bearer realm=\"bonterra\", error=\"invalid_token\", error_description=\"the access token has been revoked\""
        )
    );
    assert_eq!(world.auth.counts().userinfo, 0, "the issuer was not asked");
    assert_eq!(
        ended(&world.gateway, "userinfo", "invalid_token").await,
        1.0
    );
    let next = machine_token(&world).await;
    assert_ne!(next, token);
    assert_eq!(asks(&world, &next).await, 200);

    assert_done(&end(&world, &token).send().await, "once more");
    assert_eq!(world.auth.counts().revoke, 2);
}

/// The issuer hangs, and is then gone: that changes nothing for a token which the gateway has ended.
#[tokio::test]
async fn the_gateway_comes_first() {
    let world = World::with(&config()).await;
    let token = world.auth.token();
    assert_eq!(asks(&world, &token).await, 200);
    world.auth.set_fault(Endpoint::Revoke, Some(Fault::Hang));
    let request = end(&world, &token);
    let pending = tokio::spawn(async move { request.send().await });
    eventually("the issuer is asked", async || {
        world.auth.counts().revoke == 1
    })
    .await;
    assert!(!pending.is_finished());
    assert_eq!(asks(&world, &token).await, 401, "while the issuer hangs");
    assert_done(&pending.await.expect("a reply"), "a hanging issuer");

    let token = world.auth.token();
    world.auth.stop().await;
    assert_done(&end(&world, &token).send().await, "an issuer that is gone");
    assert_eq!(asks(&world, &token).await, 401);
}

#[tokio::test]
async fn who_holds_a_token_may_end_it_and_a_wrong_secret_is_told() {
    let world = World::with(&config()).await;
    let token = world.auth.token();
    let wrong = world
        .post("/oauth/revoke")
        .header("authorization", basic("demo-client", "wrong"))
        .form(&[("token", &token)]);
    let reply = wrong.send().await;
    assert_error(&reply, 401, "access_denied", "the issuer's own words");
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Basic realm=\"Bonterra Auth\"")
    );
    let outcome = ended(&world.gateway, "revoke", "refused_by_issuer").await;
    assert_eq!(outcome, 1.0);
    assert_eq!(asks(&world, &token).await, 401);
}

#[tokio::test]
async fn another_clients_token_is_refused_and_stays_good() {
    let world = World::with(&config()).await;
    let token = world.auth.token();
    let reply = end_as_backend(&world, &token).send().await;
    assert_error(&reply, 400, "invalid_grant", "another client");
    let other = world.token_with(json!({"iss": "https://elsewhere.example/"}));
    let reply = end(&world, &other).send().await;
    assert_error(&reply, 400, "invalid_grant", "another issuer");
    assert_eq!(world.auth.counts().revoke, 0, "the issuer was not asked");
    assert_eq!(asks(&world, &token).await, 200);
    // RFC 9068 has another name for it, and some tokens do not say.
    for (claims, status) in [
        (json!({"azp": null, "client_id": "demo-client"}), 200),
        (json!({"azp": null, "client_id": "demo-backend"}), 400),
        (json!({"azp": null}), 200),
    ] {
        let token = world.token_with(claims.clone());
        let reply = end(&world, &token).send().await;
        assert_eq!(reply.status, status, "{claims}: {}", reply.text());
        let after = if status == 200 { 401 } else { 200 };
        assert_eq!(asks(&world, &token).await, after, "{claims}");
    }
}

#[tokio::test]
async fn every_way_of_client_authentication_is_passed_on_as_it_came() {
    let world = World::with(&config()).await;
    let post = || world.post("/oauth/revoke");
    let claims = URL_SAFE_NO_PAD.encode(json!({"sub": "demo-client"}).to_string());
    let assertion = format!("e30.{claims}.c2ln");
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let own = [
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let rows: [(&[(&str, &str)], u16); 3] = [
        (&own, 200),
        (&own[..1], 401),
        (
            &[
                ("client_assertion", &assertion),
                ("client_assertion_type", kind),
            ],
            400,
        ),
    ];
    for (credential, status) in rows {
        let token = world.auth.token();
        let form: Vec<_> = [("token", &*token), ("token_type_hint", "refresh_token")]
            .into_iter()
            .chain(credential.iter().copied())
            .collect();
        let json: Value = form.iter().copied().collect();
        for request in [post().form(&form), post().json(&json)] {
            let reply = request.send().await;
            // The simulator knows no assertions, and asks this client for its secret.
            assert_eq!(reply.status, status, "{}", reply.text());
            let asked = world.auth.last_request(Endpoint::Revoke).expect("asked");
            let owned = |pair: &(&str, &str)| (pair.0.to_owned(), pair.1.to_owned());
            assert_eq!(asked.form(), form.iter().map(owned).collect::<Vec<_>>());
            assert_eq!(asked.header("authorization"), None);
            assert_eq!(asked.header("auth0-forwarded-for"), None);
        }
        assert_eq!(asks(&world, &token).await, 401, "{status}");
    }
}

#[tokio::test]
async fn a_token_whose_time_has_passed_is_done_and_one_whose_time_comes_is_ended() {
    let auth = BonterraAuth::start(AuthOptions::default()).await;
    let auth = auth.expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    let env = environment().expect("metrics");
    let clock = env.clock.clone();
    let config = config()
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = Gateway::start_in(env, &config).await;
    within("ready", gateway.app.ready()).await;
    let world = World {
        auth,
        echo,
        gateway,
    };
    let expired = world.token_with(json!({"exp": now() - 60}));
    assert_done(&end(&world, &expired).send().await, "expired");
    assert_eq!(world.auth.counts().revoke, 0, "nothing is left to end");

    let (nbf, exp) = (now() + 600, now() + 3600);
    let token = |jti: &str| world.token_with(json!({"nbf": nbf, "exp": exp, "jti": jti}));
    let (early, other) = (token("a"), token("b"));
    assert_done(&end(&world, &early).send().await, "not yet good");
    clock.advance(Duration::from_secs(900));
    let call = world.get("/grants/1").bearer(&early).send().await;
    assert_refused(&world.gateway, &call, 401, "revoked", "grants").await;
    assert_eq!(asks(&world, &other).await, 200, "its time has come");
}

#[tokio::test]
async fn a_key_that_the_gateway_has_not_seen_is_fetched() {
    let world = World::with(&config()).await;
    world.auth.rotate();
    world.auth.rotate();
    let token = world.auth.token();
    let fetched = world.auth.counts().jwks;
    assert_done(&end(&world, &token).send().await, "a new key");
    assert_eq!(world.auth.counts().jwks, fetched + 1);
    let call = world.get("/grants/1").bearer(&token).send().await;
    assert_refused(&world.gateway, &call, 401, "revoked", "grants").await;
    // Nobody can tell whose token this is; to call it unknown might leave it good.
    let gone = Fault::Status(500, "text/plain".into(), String::new());
    world.auth.set_fault(Endpoint::Jwks, Some(gone));
    let asked = world.auth.counts().revoke;
    eventually("an attempt that fails", async || {
        let claims = world.auth.claims();
        let key = bonterra_gateway::demo::auth::KeyChoice::Unpublished;
        let token = world.auth.mint_with(&json!({"kid": "new"}), &claims, &key);
        let reply = end(&world, &token).send().await;
        assert_eq!(reply.status == 503, reply.header("retry-after").is_some());
        reply.status == 503
    })
    .await;
    assert!(world.auth.counts().revoke >= asked);
}

/// Userinfo takes tokens that no route takes; what was revoked of those is refused as well.
#[tokio::test]
async fn userinfo_refuses_what_was_revoked_in_any_way() {
    let world = World::start().await;
    let elsewhere = |jti: &str| world.token_with(json!({"aud": "https://x", "jti": jti}));
    let (revoked, other) = (elsewhere("a"), elsewhere("b"));
    let gone = world.token_with(json!({"sub": "gone"}));
    for order in [
        json!({ "token": revoked }),
        json!({"issuer": "bonterra", "sub": "gone"}),
    ] {
        assert_eq!(revoke(&world, order).await.0, 200);
    }
    for token in [&revoked, &gone] {
        let user = world.get("/oauth/userinfo").bearer(token).send().await;
        assert_error(&user, 401, "invalid_token", "revoked");
        assert!(user.text().contains("has been revoked"), "{}", user.text());
    }
    assert_eq!(world.auth.counts().userinfo, 0);
    // What cannot be judged here is the issuer's to judge.
    for token in [&other, "tells-nothing"] {
        world.get("/oauth/userinfo").bearer(token).send().await;
    }
    assert_eq!(world.auth.counts().userinfo, 2);
}

// === what only the issuer can end ===

#[tokio::test]
async fn a_refresh_token_ends_at_the_issuer() {
    let world = World::with(&config()).await;
    let (access, first) = log_in(&world).await;
    let reply = refresh(&world, &first).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let token = reply.json()["refresh_token"].clone();
    let token = token.as_str().expect("a token");
    let reply = end(&world, token).send().await;
    assert_error(&reply, 400, "invalid_request", "another client's");
    assert_done(&end_as_backend(&world, token).send().await, "its own");
    assert_error(&refresh(&world, token).await, 403, "invalid_grant", "ended");
    // The gateway does not know what came of a refresh token.
    let user = world.get("/oauth/userinfo").bearer(&access).send().await;
    assert_eq!(user.status, 200, "{}", user.text());
    assert_done(&end_as_backend(&world, &access).send().await, "access");
    let user = world.get("/oauth/userinfo").bearer(&access).send().await;
    assert_error(&user, 401, "invalid_token", "ended as well");
}

#[tokio::test]
async fn an_unknown_token_is_no_mistake() {
    let world = World::with(&config()).await;
    for token in ["garbage", "a.b.c", "not a token \u{20ac}", "v1.unknown"] {
        assert_done(&end(&world, token).send().await, token);
        let asked = world.auth.last_request(Endpoint::Revoke).expect("asked");
        assert_eq!(asked.form(), [("token".to_owned(), token.to_owned())]);
    }
    assert_eq!(world.auth.counts().revoke, 4);
}

/// Each failure once: never is a request sent again.
#[tokio::test]
async fn an_issuer_that_fails_is_asked_once() {
    let world = World::with(&config()).await;
    let unsupported = r#"{"error":"unsupported_token_type"}"#;
    let status = |status, body: &str| Fault::Status(status, "application/json".into(), body.into());
    let limited = r#"{"error":"too_many_requests"}"#;
    let rows = [
        // of a refresh token, of an access token
        (Fault::Hang, 503, 200),
        (Fault::CutAfterRequest, 503, 200),
        (Fault::CutBody, 503, 200),
        (Fault::Endless, 502, 200),
        (Fault::redirect("https://elsewhere.example/"), 502, 200),
        (status(500, "{}"), 500, 200),
        (status(400, unsupported), 400, 200),
        (status(429, limited), 429, 429),
        (Fault::Garbage, 200, 200),
    ];
    for (fault, of_refresh, of_access) in rows {
        let case = format!("{fault:?}");
        world.auth.set_fault(Endpoint::Revoke, Some(fault));
        for (token, expected) in [
            ("v1.refresh".to_owned(), of_refresh),
            (world.auth.token(), of_access),
        ] {
            let asked = world.auth.counts().revoke;
            let reply = end(&world, &token).send().await;
            assert_eq!(reply.status, expected, "{case}: {}", reply.text());
            assert_eq!(reply.header("location"), None, "{case}");
            let retry = reply.header("retry-after").is_some();
            assert_eq!(retry, expected == 503, "{case}");
            assert_not_stored(&reply);
            assert_eq!(world.auth.counts().revoke, asked + 1, "{case}");
            if token != "v1.refresh" {
                assert_eq!(asks(&world, &token).await, 401, "{case}");
            }
        }
    }
    world.auth.stop().await;
    let reply = end(&world, "v1.refresh").send().await;
    assert_error(&reply, 503, "temporarily_unavailable", "gone");
}

#[tokio::test]
async fn an_issuer_without_the_endpoint_and_one_that_has_it_elsewhere() {
    let known =
        "jwks_uri = \"ISSUER.well-known/jwks.json\"\ntoken_endpoint = \"ISSUERoauth/token\"";
    let world = World::with(&with_lines(CONFIG, ISSUER, known)).await;
    let token = world.auth.token();
    assert_done(&end(&world, &token).send().await, "an access token");
    assert_eq!(asks(&world, &token).await, 401);
    let reply = end(&world, "v1.refresh").send().await;
    assert_error(&reply, 400, "unsupported_token_type", "a refresh token");

    let elsewhere = "revocation_endpoint = \"ECHO/end?tenant=1\"";
    let world = World::with(&with_lines(CONFIG, ISSUER, elsewhere)).await;
    assert_done(&end(&world, "v1.refresh").send().await, "elsewhere");
    let seen = world.echo.seen();
    let seen: Vec<_> = seen.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(seen, ["/end?tenant=1"]);
    assert_eq!(world.auth.counts().revoke, 0);
}

#[tokio::test]
async fn a_token_that_tells_nothing_ends_here_although_its_issuer_says_otherwise() {
    let opaque = "opaque = true\nclient_id = \"demo-backend\"\nclient_secret = \"backend-secret\"";
    let config = with_lines(CONFIG, ISSUER, opaque);
    let config = config.replace(
        "[issuer.bonterra.jwks]\ncooldown = \"1s\"\nmin_ttl = \"1s\"\n",
        "",
    );
    let world = World::with(&config).await;
    let token = world.auth.mint_opaque(&world.auth.claims());
    assert_eq!(asks(&world, &token).await, 200);
    let reply = end_as_backend(&world, &token).send().await;
    assert_error(&reply, 400, "invalid_grant", "another client's");
    assert_eq!(world.auth.counts().revoke, 0);
    // Others ask the issuer about it, so that an issuer which did not hear of it is an error.
    world
        .auth
        .set_fault(Endpoint::Revoke, Some(Fault::CutAfterRequest));
    let reply = end(&world, &token).send().await;
    assert_error(&reply, 503, "temporarily_unavailable", "not heard of");
    assert_eq!(asks(&world, &token).await, 401, "ended here");
    world.auth.set_fault(Endpoint::Revoke, None);
    assert_done(&end(&world, &token).send().await, "heard of");
    let call = world.get("/grants/1").bearer(&token).send().await;
    assert_refused(&world.gateway, &call, 401, "revoked", "grants").await;
}

// === the surface ===

#[tokio::test]
async fn mistakes_are_told_without_asking_the_issuer() {
    let world = World::with(&config()).await;
    let post = || world.post("/oauth/revoke");
    let token = world.auth.token();
    let missing = post().form(&[("token", &token)]).send().await;
    assert_eq!((missing.status, missing.text().as_str()), {
        let documented = r#"{"error":"invalid_request","error_description":"Missing required parameter: client_id"}"#;
        (400, documented)
    });
    let credential = basic("demo-client", "demo-secret");
    let with = |authorization: &str| post().header("authorization", authorization);
    let large = "x".repeat(70_000);
    let rows = [
        (with(&credential).form(&[]), 400, "invalid_request"),
        (
            with(&credential).form(&[("token", &token), ("client_secret", "demo-secret")]),
            400,
            "invalid_request",
        ),
        (
            with(&credential).form(&[("token", &token), ("token", &token)]),
            400,
            "invalid_request",
        ),
        (
            with(&credential).form(&[("token", &token), ("client_id", "demo-backend")]),
            400,
            "invalid_request",
        ),
        (
            with("Bearer x").form(&[("token", &token)]),
            401,
            "invalid_client",
        ),
        (
            with(&credential).json(&json!({"token": [token]})),
            400,
            "invalid_request",
        ),
        (with(&credential).body("token=x"), 415, "invalid_request"),
        (
            with(&credential).form(&[("token", &large)]),
            413,
            "invalid_request",
        ),
    ];
    for (request, status, error) in rows {
        let reply = request.send().await;
        assert_error(&reply, status, error, &format!("{request:?}"));
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
    for path in ["/oauth/revoke", "/oauth/introspect"] {
        for method in ["GET", "HEAD", "PUT", "DELETE"] {
            let reply = request(world.gateway.address, method, path).send().await;
            assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
            assert_not_stored(&reply);
        }
        let options = request(world.gateway.address, "OPTIONS", path)
            .header("max-forwards", "0")
            .send()
            .await;
        assert_eq!((options.status, options.header("allow")), {
            (204, Some("POST"))
        });
    }
    assert_eq!(world.auth.counts().revoke, 0);
    assert_eq!(asks(&world, &token).await, 200);
}

#[tokio::test]
async fn surfaces_side_by_side() {
    let options = AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    };
    let other = BonterraAuth::start(options).await.expect("an issuer");
    let config = format!(
        "{CONFIG}
[oauth.second]
issuer = \"bonterra\"
prefix = \"/oauth2\"
paths = {{ revoke = \"/oauth2/end\", introspect = \"/oauth2/worth\" }}
errors = \"envelope\"
{ASKERS}

[issuer.other]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]

[oauth.third]
issuer = \"other\"
prefix = \"/oauth3\"
",
        other.issuer()
    );
    let world = World::with(&config).await;
    let ends = async |path: &str, token: &str| {
        let credential = basic("demo-client", "demo-secret");
        let post = world.post(path).header("authorization", credential);
        post.form(&[("token", token)]).send().await
    };
    let reply = world
        .post("/oauth2/end")
        .form(&[("token", "x")])
        .send()
        .await;
    let message = "invalid_request: Missing required parameter: client_id";
    let error = json!({ "httpcode": 400, "message": message });
    assert_eq!((reply.status, reply.json()), {
        (400, json!({ "meta": {}, "errors": [error] }))
    });
    let asked = world
        .post("/oauth2/worth")
        .form(&[("token", "x")])
        .send()
        .await;
    assert_eq!(asked.status, 401);
    assert_eq!(asked.json()["errors"][0]["httpcode"], 401);
    assert_eq!(
        asked.header("www-authenticate"),
        Some("Basic realm=\"bonterra\"")
    );
    let reply = world.post("/oauth2/revoke").form(&[]).send().await;
    assert_eq!(reply.status, 404, "it is elsewhere");

    let token = world.auth.token();
    assert_done(
        &ends("/oauth2/end", &token).await,
        "one issuer, two surfaces",
    );
    assert_eq!(asks(&world, &token).await, 401);

    let foreign = other.token();
    assert_eq!(asks(&world, &foreign).await, 200);
    let (asked, asked_other) = (world.auth.counts().revoke, other.counts().revoke);
    assert_eq!(ends("/oauth/revoke", &foreign).await.status, 400);
    assert_eq!(asks(&world, &foreign).await, 200);
    assert_done(&ends("/oauth3/revoke", &foreign).await, "its own surface");
    assert_eq!(asks(&world, &foreign).await, 401);
    assert_eq!(world.auth.counts().revoke, asked, "it never saw the token");
    assert_eq!(other.counts().revoke, asked_other + 1);
}

/// At the level that says everything.
#[tokio::test]
async fn neither_token_nor_secret_is_ever_written() {
    let auth = BonterraAuth::start(AuthOptions::default()).await;
    let auth = auth.expect("an issuer");
    let echo = Echo::start(local()).await.expect("an upstream");
    let config = config()
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url())
        .replace("api-secret", "canary-of-the-api")
        .replace("[admin]", "[log]\nlevel = \"trace\"\n\n[admin]");
    let gateway = GatewayProcess::start(&config).await;
    let token = auth.token();
    let serves = request(gateway.address, "GET", "/grants/1").bearer(&token);
    eventually("ready", async || serves.send().await.status == 200).await;
    let mut said = String::new();
    let faults = [
        None,
        Some(Fault::CutAfterRequest),
        Some(Fault::Status(401, "text/plain".into(), "no".into())),
        Some(Fault::redirect("https://elsewhere.example/")),
    ];
    for fault in faults {
        auth.set_fault(Endpoint::Revoke, fault);
        for token in ["canary-refresh", "", &auth.token(), &token] {
            for (id, secret) in [
                ("demo-client", "demo-secret"),
                ("demo-client", "canary-secret"),
                ("api", "canary-of-the-api"),
            ] {
                for path in ["/oauth/revoke", "/oauth/introspect"] {
                    let asked = request(gateway.address, "POST", path)
                        .header("authorization", basic(id, secret))
                        .form(&[("token", token), ("client_id", id)]);
                    let reply = asked.send().await;
                    said += &format!("{}{:?}", reply.text(), reply.headers);
                }
            }
        }
    }
    let metrics = request(gateway.admin, "GET", "/metrics").send().await;
    said += &metrics.text();
    eventually("all records", async || {
        let written = gateway.running.stdout.text();
        written.matches("/oauth/introspect").count() >= 48
    })
    .await;
    said += &gateway.running.stdout.text();
    said += &gateway.running.stderr.text();
    assert!(
        said.contains("\"level\":\"DEBUG\""),
        "the level is in force"
    );
    let (_, signature) = token.rsplit_once('.').expect("a JWT");
    for secret in [
        "canary",
        "demo-secret",
        signature,
        &basic("demo-client", "demo-secret")[6..],
    ] {
        assert!(!said.contains(secret), "{secret} was written");
    }
}
