//! The token endpoint: what passes, what is refused here, and what is made of an issuer that fails.

use crate::harness::{CONFIG, Gateway, Raw, Reply, Request, World, nobody, request, with_lines};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::{
    AuthOptions, BonterraAuth, Endpoint, ExpiresIn, Fault, REDIRECT_URI,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt as _;

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];
const ISSUER: &str = "[issuer.bonterra]";

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

fn series(grant: &str, outcome: &str) -> String {
    format!(
        "gateway_oauth_requests_total{{endpoint=\"token\",grant=\"{grant}\",outcome=\"{outcome}\",surface=\"bonterra\"}}"
    )
}

/// What nobody may keep (RFC 6749 §5.1), whatever the answer.
fn assert_not_stored(reply: &Reply) {
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("pragma"), Some("no-cache"));
}

/// A refusal of the gateway's own at this endpoint (RFC 6749 §5.2).
fn assert_oauth_error(reply: &Reply, status: u16, error: &str, case: &str) {
    assert_eq!(reply.status, status, "{case}: {}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("application/json"),
        "{case}"
    );
    assert_eq!(reply.json()["error"], error, "{case}");
    assert!(
        reply.json()["error_description"]
            .as_str()
            .is_some_and(|text| !text.is_empty()),
        "{case}"
    );
    assert!(reply.header("x-request-id").is_some(), "{case}");
    assert_eq!(
        reply.header("www-authenticate").is_some(),
        status == 401,
        "{case}"
    );
    assert_not_stored(reply);
}

// === what passes ===

#[tokio::test]
async fn a_machine_gets_a_token_in_every_way_of_asking() {
    let world = World::start().await;
    let basic = basic("demo-client", "demo-secret");
    let grant = [("grant_type", "client_credentials")];
    let post = || world.post("/oauth/token");
    let rows: [(&str, Request, bool); 8] = [
        ("form and post", post().form(&MACHINE), false),
        (
            "form and Basic",
            post().header("authorization", &basic).form(&grant),
            true,
        ),
        (
            "form, Basic and the same client_id",
            post().header("authorization", &basic).form(&MACHINE[..2]),
            true,
        ),
        (
            "JSON and post",
            post().json(&MACHINE.into_iter().collect()),
            false,
        ),
        (
            "JSON and Basic",
            post()
                .header("authorization", &basic)
                .json(&json!({ "grant_type": "client_credentials" })),
            true,
        ),
        (
            "JSON with nulls",
            post()
                .header("authorization", &basic)
                .json(&json!({ "grant_type": "client_credentials", "scope": null })),
            true,
        ),
        (
            "a charset",
            post()
                .header(
                    "content-type",
                    "application/x-www-form-urlencoded; charset=UTF-8",
                )
                .body(
                    "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret",
                ),
            false,
        ),
        (
            "an empty parameter",
            post().form(&[MACHINE[0], MACHINE[1], MACHINE[2], ("scope", "")]),
            false,
        ),
    ];
    for (number, (case, request, by_basic)) in rows.into_iter().enumerate() {
        let reply = request.send().await;
        assert_eq!(reply.status, 200, "{case}: {}", reply.text());
        assert_eq!(
            reply.header("content-type"),
            Some("application/json"),
            "{case}"
        );
        assert_not_stored(&reply);
        let body = reply.json();
        assert_eq!(
            (&body["token_type"], &body["expires_in"]),
            (&json!("Bearer"), &json!(86400)),
            "{case}"
        );
        // Form out, whatever came in; the client's way of authentication stays its own.
        let asked = world.auth.last_token_request().expect("a request");
        assert_eq!(
            asked.header("content-type"),
            Some("application/x-www-form-urlencoded"),
            "{case}"
        );
        assert_eq!(
            asked.header("authorization"),
            by_basic.then_some(basic.as_str()),
            "{case}"
        );
        let form = asked.form();
        assert!(
            form.contains(&("grant_type".into(), "client_credentials".into())),
            "{case}"
        );
        assert_eq!(
            form.iter().any(|(name, _)| name == "client_secret"),
            !by_basic,
            "{case}"
        );
        assert!(
            form.iter().all(|(_, value)| !value.is_empty()),
            "{case}: empty means absent"
        );
        assert_eq!(world.auth.counts().token, number as u64 + 1, "{case}");
        let token = body["access_token"].as_str().expect("a token");
        assert_eq!(
            world.get("/grants/1").bearer(token).send().await.status,
            200,
            "{case}"
        );
    }
    assert_eq!(
        world
            .gateway
            .metric(&series("client_credentials", "issued"))
            .await,
        8.0
    );
    let durations =
        "gateway_oauth_request_duration_seconds_count{endpoint=\"token\",surface=\"bonterra\"}";
    assert_eq!(world.gateway.metric(durations).await, 8.0);
    let requests = "gateway_requests_total{code=\"200\",method=\"POST\",route=\"oauth.bonterra\"}";
    assert_eq!(world.gateway.metric(requests).await, 8.0);
}

#[tokio::test]
async fn parameters_and_headers_that_mean_something_pass() {
    let world = World::start().await;
    let extra = [
        ("resource", "https://x/?a=1&b=2"),
        ("organization", "org_1"),
        ("audience", "https://api.bonterra.network"),
        ("x", "100% +\u{e9}"),
    ];
    let fields: Vec<_> = MACHINE.into_iter().chain(extra).collect();
    let request = world
        .post("/oauth/token")
        .header("dpop", "proof")
        .header("user-agent", "client/1");
    assert_eq!(request.form(&fields).send().await.status, 200);
    let asked = world.auth.last_token_request().expect("a request");
    let expected: Vec<(String, String)> = fields
        .iter()
        .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
        .collect();
    assert_eq!(asked.form(), expected, "in order, and unchanged");
    assert_eq!(asked.header("dpop"), Some("proof"));
    assert_eq!(asked.header("user-agent"), Some("client/1"));
}

#[tokio::test]
async fn headers_that_the_issuer_would_believe_stay_outside() {
    let world = World::start().await;
    let kept = [
        "auth0-forwarded-for",
        "Auth0-Forwarded-For",
        "auth0_forwarded_for",
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "cookie",
        "x-bonterra-auth-id",
        "auth0-client",
        "x-anything",
    ];
    let mut request = world.post("/oauth/token");
    for name in kept {
        request = request.header(name, "203.0.113.7");
    }
    assert_eq!(request.form(&MACHINE).send().await.status, 200);
    let asked = world.auth.last_token_request().expect("a request");
    for (name, value) in &asked.headers {
        assert_ne!(value, "203.0.113.7", "{name}");
    }
    assert_eq!(
        asked.header("host"),
        Some(world.auth.addr().to_string().as_str())
    );
}

/// Logs in at the issuer's page as a browser does, and returns the code.
pub async fn log_in(auth: &BonterraAuth, challenge: &str, scope: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([
            ("response_type", "code"),
            ("client_id", "demo-web"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", scope),
            ("state", "s-1"),
            ("nonce", "n-1"),
            ("code_challenge", challenge),
            ("code_challenge_method", "S256"),
        ])
        .finish();
    let page = request(auth.addr(), "GET", &format!("/authorize?{query}"))
        .send()
        .await;
    assert_eq!(page.status, 200, "{}", page.text());
    let text = page.text();
    let (_, after) = text
        .split_once("name=\"login\" value=\"")
        .expect("the login form");
    let (handle, _) = after.split_once('"').expect("its handle");
    let fields = [
        ("login", handle),
        ("email", "user@example.com"),
        ("password", "demo"),
        ("action", "continue"),
    ];
    let back = request(auth.addr(), "POST", "/login")
        .form(&fields)
        .send()
        .await;
    let location = back
        .header("location")
        .unwrap_or_else(|| panic!("no redirect: {}", back.text()));
    let (target, query) = location.split_once('?').expect("a query");
    assert_eq!((back.status, target), (302, REDIRECT_URI));
    let query: std::collections::HashMap<String, String> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(query["state"], "s-1");
    query["code"].clone()
}

#[tokio::test]
async fn a_user_logs_in_with_pkce_and_goes_on_with_refresh_tokens() {
    // Each refresh reaches the issuer.
    let window = with_lines(CONFIG, "[oauth.bonterra]", "refresh_window = \"0s\"");
    let world = World::with(&window).await;
    let verifier = "a-verifier-of-at-least-forty-three-characters-0123";
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let scope = "openid profile offline_access read:grants";
    let exchange = |code: &str, verifier: &str| {
        let fields = [
            ("grant_type", "authorization_code"),
            ("client_id", "demo-web"),
            ("code", code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", verifier),
        ];
        world.post("/oauth/token").form(&fields)
    };
    let refresh = |token: &str| {
        let fields = [
            ("grant_type", "refresh_token"),
            ("client_id", "demo-web"),
            ("refresh_token", token),
        ];
        world.post("/oauth/token").form(&fields)
    };
    let text = |reply: &Reply, name: &str| {
        reply.json()[name]
            .as_str()
            .unwrap_or_else(|| panic!("{name}"))
            .to_owned()
    };

    // Somebody else's verifier; the issuer's words, with their status.
    let stolen = log_in(&world.auth, &challenge, scope).await;
    let refused = exchange(
        &stolen,
        "another-verifier-of-at-least-forty-three-characters",
    )
    .send()
    .await;
    assert_eq!(
        (refused.status, refused.json()["error"].as_str()),
        (403, Some("invalid_grant"))
    );
    assert_eq!(
        refused.json()["error_description"],
        "Failed to verify code verifier"
    );
    assert_not_stored(&refused);

    let code = log_in(&world.auth, &challenge, scope).await;
    let tokens = exchange(&code, verifier).send().await;
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    assert_eq!(text(&tokens, "scope"), scope);
    let access = text(&tokens, "access_token");
    let reply = world.get("/grants/1").bearer(&access).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        reply.upstream_saw("x-bonterra-subject"),
        ["auth0|507f1f77bcf86cd799439011"]
    );

    // The id token is for the client, and opens nothing here.
    let id_token = world
        .get("/grants/1")
        .bearer(&text(&tokens, "id_token"))
        .send()
        .await;
    assert_eq!(
        (id_token.status, id_token.json()["reason"].as_str()),
        (401, Some("wrong_audience"))
    );

    // Each refresh token works once; the second use of one ends the family.
    let first = text(&tokens, "refresh_token");
    let refreshed = refresh(&first).send().await;
    assert_eq!(refreshed.status, 200, "{}", refreshed.text());
    let second = text(&refreshed, "refresh_token");
    assert_ne!(first, second);
    assert_eq!(
        world
            .get("/grants/1")
            .bearer(&text(&refreshed, "access_token"))
            .send()
            .await
            .status,
        200
    );
    for token in [&first, &second] {
        let refused = refresh(token).send().await;
        assert_eq!(refused.status, 403, "{}", refused.text());
        assert_eq!(
            refused.json(),
            json!({ "error": "invalid_grant", "error_description": "Unknown or invalid refresh token." })
        );
    }
    let spent = exchange(&code, verifier).send().await;
    assert_eq!(
        (spent.status, &spent.json()["error_description"]),
        (403, &json!("Invalid authorization code"))
    );

    for (grant, outcome, count) in [
        ("authorization_code", "issued", 1.0),
        ("authorization_code", "refused_by_issuer", 2.0),
        ("refresh_token", "issued", 1.0),
        ("refresh_token", "refused_by_issuer", 2.0),
    ] {
        assert_eq!(
            world.gateway.metric(&series(grant, outcome)).await,
            count,
            "{grant} {outcome}"
        );
    }
    assert_eq!(world.auth.counts().token, 6, "one request each");
}

#[tokio::test]
async fn a_confidential_client_exchanges_a_code_by_json_and_basic() {
    let world = World::start().await;
    let verifier = "a-verifier-of-at-least-forty-three-characters-0123";
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let code = log_in(&world.auth, &challenge, "openid").await;
    let body = json!({ "grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT_URI, "code_verifier": verifier });
    // The code is another client's: the issuer says so, and the right client can use it still.
    let others = world
        .post("/oauth/token")
        .header("authorization", basic("demo-backend", "backend-secret"))
        .json(&body)
        .send()
        .await;
    assert_eq!(
        (others.status, &others.json()["error"]),
        (403, &json!("invalid_grant"))
    );
    let mut own = body;
    own["client_id"] = json!("demo-web");
    let tokens = world.post("/oauth/token").json(&own).send().await;
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    assert_eq!(
        tokens.json().get("refresh_token"),
        None,
        "none was asked for"
    );
}

#[tokio::test]
async fn expires_in_comes_out_an_integer() {
    let world = World::start().await;
    world.auth.set_expires_in_style(ExpiresIn::String);
    let reply = world.post("/oauth/token").form(&MACHINE).send().await;
    assert_eq!(
        (reply.status, &reply.json()["expires_in"]),
        (200, &json!(86400))
    );
    assert!(reply.json()["access_token"].is_string());
    for (given, expected) in [
        ("\"3600\"", Some(3600)),
        ("3600.9", Some(3600)),
        ("3600", Some(3600)),
        ("0", Some(0)),
        ("null", None),
        ("\"soon\"", None),
        ("-1", None),
        ("[3600]", None),
    ] {
        let body = format!(
            "{{\"access_token\":\"a\",\"expires_in\":{given},\"token_type\":\"bearer\",\"extra\":{{\"n\":1}}}}"
        );
        world.auth.set_fault(
            Endpoint::Token,
            Some(Fault::Status(200, "application/json".into(), body)),
        );
        let reply = world.post("/oauth/token").form(&MACHINE).send().await;
        assert_eq!(reply.status, 200, "{given}");
        assert_eq!(
            reply.json().get("expires_in"),
            expected.map(Value::from).as_ref(),
            "{given}"
        );
        assert_eq!(
            (&reply.json()["token_type"], &reply.json()["extra"]),
            (&json!("bearer"), &json!({ "n": 1 })),
            "{given}"
        );
    }
}

// === what is refused here ===

#[tokio::test]
async fn requests_that_no_issuer_could_grant_are_refused_here() {
    let world = World::start().await;
    let form = |body: &str| {
        world
            .post("/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body.to_owned())
    };
    let text = |body: &str| {
        world
            .post("/oauth/token")
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let (ours, machine) = (
        basic("demo-client", "demo-secret"),
        "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret",
    );
    let with = |authorization: &str, body: &str| form(body).header("authorization", authorization);
    let (invalid_request, unsupported, invalid_client) = (
        "invalid_request",
        "unsupported_grant_type",
        "invalid_client",
    );
    for (case, request, status, error, grant) in [
        ("an empty body", form(""), 400, invalid_request, "unknown"),
        (
            "no grant_type",
            form("client_id=a&client_secret=b"),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "an empty grant_type",
            form("grant_type=&client_id=a&client_secret=b"),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "an unknown grant",
            form("grant_type=magic&client_id=a&client_secret=b"),
            400,
            unsupported,
            "unknown",
        ),
        (
            "the password grant",
            form("grant_type=password&client_id=a&username=u&password=p"),
            400,
            unsupported,
            "password",
        ),
        (
            "the implicit grant",
            form("grant_type=implicit&response_type=token&client_id=a"),
            400,
            unsupported,
            "unknown",
        ),
        (
            "token exchange",
            form("grant_type=urn:ietf:params:oauth:grant-type:token-exchange&client_id=a"),
            400,
            unsupported,
            "unknown",
        ),
        (
            "a grant in another case",
            form("grant_type=Client_Credentials&client_id=a&client_secret=b"),
            400,
            unsupported,
            "unknown",
        ),
        (
            "a code grant without a code",
            form("grant_type=authorization_code&client_id=a"),
            400,
            invalid_request,
            "authorization_code",
        ),
        (
            "a code grant with an empty code",
            form("grant_type=authorization_code&client_id=a&code="),
            400,
            invalid_request,
            "authorization_code",
        ),
        (
            "a refresh without a token",
            form("grant_type=refresh_token&client_id=a"),
            400,
            invalid_request,
            "refresh_token",
        ),
        (
            "no client",
            form("grant_type=client_credentials"),
            400,
            invalid_request,
            "client_credentials",
        ),
        (
            "a public machine",
            form("grant_type=client_credentials&client_id=a"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "an assertion without its type",
            form("grant_type=client_credentials&client_assertion=x"),
            400,
            invalid_request,
            "client_credentials",
        ),
        (
            "a parameter twice",
            form(&format!("{machine}&scope=a&scope=a")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "grant_type twice",
            form(&format!("{machine}&grant_type=refresh_token")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "an unknown parameter twice",
            form(&format!("{machine}&x=1&x=2")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "a parameter twice, once escaped",
            form(&format!("{machine}&%63lient_id=demo-client")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "a broken escape",
            form(&format!("{machine}&x=%zz")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "bad UTF-8",
            form(&format!("{machine}&x=%ff")),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "200 parameters",
            form(&(0..200).map(|n| format!("p{n}=1&")).collect::<String>()),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "Basic and post",
            with(&ours, machine),
            400,
            invalid_request,
            "client_credentials",
        ),
        (
            "Basic and another client_id",
            with(&ours, "grant_type=client_credentials&client_id=other"),
            400,
            invalid_request,
            "client_credentials",
        ),
        (
            "Basic twice",
            with(&ours, "grant_type=client_credentials").header("authorization", &ours),
            400,
            invalid_request,
            "client_credentials",
        ),
        (
            "Basic without a colon",
            with("Basic YWJj", "grant_type=client_credentials"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "Basic that is no base64",
            with("Basic !!!", "grant_type=client_credentials"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "Basic that is empty",
            with("Basic ", "grant_type=client_credentials"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "Basic without an id",
            with("Basic OnNlY3JldA==", "grant_type=client_credentials"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "Bearer",
            with("Bearer x", "grant_type=client_credentials"),
            401,
            invalid_client,
            "client_credentials",
        ),
        (
            "JSON that is cut",
            text("{\"grant_type\":"),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "JSON that is a list",
            text("[]"),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "JSON with a number",
            text(r#"{"grant_type":"client_credentials","client_id":1}"#),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "JSON with a list",
            text(r#"{"grant_type":["client_credentials"]}"#),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "JSON with a member twice",
            text(r#"{"grant_type":"client_credentials","grant_type":"client_credentials"}"#),
            400,
            invalid_request,
            "unknown",
        ),
        (
            "JSON in Latin-1",
            text("{\"grant_type\":\"caf\u{e9}\"}").header("x", "1"),
            400,
            unsupported,
            "unknown",
        ),
    ] {
        let series = series(grant, error);
        let before = world.gateway.metric(&series).await;
        let reply = request.send().await;
        assert_oauth_error(&reply, status, error, case);
        if status == 401 {
            assert!(
                reply
                    .header("www-authenticate")
                    .is_some_and(|value| value.starts_with("Basic realm=")),
                "{case}"
            );
        }
        assert_eq!(world.gateway.metric(&series).await, before + 1.0, "{case}");
        for secret in ["demo-secret", "demo-client", "YWJj"] {
            assert!(!reply.text().contains(secret), "{case}: {}", reply.text());
        }
    }
    assert_eq!(world.auth.counts().token, 0, "the issuer was asked");
}

#[tokio::test]
async fn a_grant_that_is_not_enabled_is_refused_here() {
    let world = World::with(&with_lines(
        CONFIG,
        "[oauth.bonterra]",
        "grants = [\"refresh_token\"]",
    ))
    .await;
    let reply = world.post("/oauth/token").form(&MACHINE).send().await;
    assert_oauth_error(&reply, 400, "unsupported_grant_type", "not enabled");
    assert_eq!(world.auth.counts().token, 0);
    assert_eq!(
        world
            .gateway
            .metric(&series("client_credentials", "unsupported_grant_type"))
            .await,
        1.0
    );
    let passed = world
        .post("/oauth/token")
        .form(&[
            ("grant_type", "refresh_token"),
            ("client_id", "demo-web"),
            ("refresh_token", "x"),
        ])
        .send()
        .await;
    assert_eq!(passed.status, 403);
    assert_eq!(world.auth.counts().token, 1);
}

#[tokio::test]
async fn other_methods_and_media_types_are_refused_here() {
    let world = World::start().await;
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"] {
        let reply = request(world.gateway.address, method, "/oauth/token?grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret").send().await;
        assert_oauth_error(&reply, 405, "invalid_request", method);
        assert_eq!(reply.header("allow"), Some("POST"), "{method}");
    }
    let head = request(world.gateway.address, "HEAD", "/oauth/token")
        .send()
        .await;
    assert_eq!((head.status, head.body.len()), (405, 0));
    let machine = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let post = || world.post("/oauth/token").body(machine);
    let form = "application/x-www-form-urlencoded";
    for (case, request) in [
        ("none", post()),
        ("text/plain", post().header("content-type", "text/plain")),
        (
            "multipart",
            post().header("content-type", "multipart/form-data; boundary=x"),
        ),
        ("XML", post().header("content-type", "application/xml")),
        (
            "JSON of a kind",
            post().header("content-type", "application/problem+json"),
        ),
        (
            "a prefix of a type",
            post().header("content-type", "application/x-www-form"),
        ),
        (
            "another charset",
            post().header("content-type", format!("{form}; charset=utf-16")),
        ),
        (
            "two",
            post()
                .header("content-type", form)
                .header("content-type", form),
        ),
        (
            "compressed",
            post()
                .header("content-type", form)
                .header("content-encoding", "gzip"),
        ),
    ] {
        let reply = request.send().await;
        assert_oauth_error(&reply, 415, "invalid_request", case);
    }
    // A query is no body: what stands there is not read.
    let query = world
        .post(&format!("/oauth/token?{machine}"))
        .form(&[("scope", "x")])
        .send()
        .await;
    assert_oauth_error(&query, 400, "invalid_request", "parameters in the query");
    assert_eq!(world.auth.counts().token, 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_here() {
    let world = World::start().await;
    let machine =
        "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret&pad=";
    let of = |size: usize| format!("{machine}{}", "x".repeat(size - machine.len()));
    let post = |body: String| {
        world
            .post("/oauth/token")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    };
    assert_eq!(post(of(64 << 10)).send().await.status, 200, "64 KiB");
    let reply = post(of((64 << 10) + 1)).send().await;
    assert_oauth_error(&reply, 413, "invalid_request", "64 KiB and one byte");
    // Without an end: refused once it is too much, and not waited for.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("POST /oauth/token HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    for _ in 0..17 {
        // The answer may come, and the connection close, before all of this is sent.
        let _ = raw.stream.write_all(chunk.as_bytes()).await;
    }
    assert_oauth_error(
        &raw.whole().await,
        413,
        "invalid_request",
        "an endless body",
    );
    assert_eq!(world.auth.counts().token, 1);
    assert_eq!(
        world
            .gateway
            .metric(&series("unknown", "invalid_request"))
            .await,
        2.0
    );
}

// === what the issuer says ===

#[tokio::test]
async fn errors_of_the_issuer_pass_as_they_are() {
    let world = World::start().await;
    let quota = "b=per_hour;q=10;r=0;t=3540,b=per_day;q=100;r=90;t=86000";
    for (status, outcome, headers, body) in [
        (
            400,
            "refused_by_issuer",
            vec![],
            "{ \"error\" : \"invalid_scope\" ,\n\"x\":1}",
        ),
        (
            401,
            "refused_by_issuer",
            vec![("www-authenticate", "Basic realm=\"issuer\", error=\"x\"")],
            "{\"error\":\"invalid_client\"}",
        ),
        (
            403,
            "refused_by_issuer",
            vec![],
            "{\"error\":\"unauthorized_client\",\"error_uri\":\"https://x/\"}",
        ),
        (
            429,
            "refused_by_issuer",
            vec![
                ("retry-after", "17"),
                ("auth0-client-quota-limit", quota),
                ("x-ratelimit-limit", "10"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1700000000"),
            ],
            "{\"error\":\"too_many_requests\",\"error_description\":\"Client quota exceeded\"}",
        ),
        (500, "issuer_error", vec![], "{\"error\":\"server_error\"}"),
        (
            503,
            "issuer_error",
            vec![("retry-after", "30")],
            "<html>maintenance</html>",
        ),
    ] {
        let type_of = if body.starts_with('<') {
            "text/html"
        } else {
            "application/json; charset=utf-8"
        };
        let private = [
            ("content-type", type_of),
            ("set-cookie", "did=1"),
            ("cache-control", "max-age=60"),
            ("server", "issuer"),
            ("via", "1.1 edge"),
        ];
        let all: Vec<_> = headers
            .iter()
            .chain(&private)
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let before = (
            world.auth.counts().token,
            world
                .gateway
                .metric(&series("client_credentials", outcome))
                .await,
        );
        world.auth.set_fault(
            Endpoint::Token,
            Some(Fault::Reply(status, all, body.into())),
        );
        let reply = world.post("/oauth/token").form(&MACHINE).send().await;
        assert_eq!((reply.status, reply.text().as_str()), (status, body));
        assert_eq!(reply.header("content-type"), Some(type_of), "{status}");
        for (name, value) in headers {
            assert_eq!(reply.header(name), Some(value), "{status}");
        }
        for name in ["set-cookie", "server"] {
            assert_eq!(reply.header(name), None, "{status}");
        }
        assert_not_stored(&reply);
        let after = (
            world.auth.counts().token,
            world
                .gateway
                .metric(&series("client_credentials", outcome))
                .await,
        );
        assert_eq!(
            after,
            (before.0 + 1, before.1 + 1.0),
            "{status}: asked once, counted once"
        );
    }
    world.auth.set_fault(Endpoint::Token, None);
    let wrong = world
        .post("/oauth/token")
        .form(&[MACHINE[0], MACHINE[1], ("client_secret", "wrong")])
        .send()
        .await;
    assert_eq!(
        (wrong.status, wrong.json()),
        (
            401,
            json!({ "error": "access_denied", "error_description": "Unauthorized" })
        )
    );
    let by_basic = world
        .post("/oauth/token")
        .header("authorization", basic("demo-client", "wrong"))
        .form(&MACHINE[..1])
        .send()
        .await;
    assert_eq!(
        by_basic.header("www-authenticate"),
        Some("Basic realm=\"Bonterra Auth\"")
    );
}

#[tokio::test]
async fn an_issuer_that_fails_is_asked_exactly_once() {
    let world = World::with(&with_lines(CONFIG, ISSUER, "timeout = \"300ms\"")).await;
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-web"),
        ("refresh_token", "v1.x"),
    ];
    let status =
        |status: u16, text: &str| Fault::Status(status, "application/json".into(), text.into());
    for (case, fault, code, error, outcome) in [
        (
            "a hang",
            Fault::Hang,
            504,
            "temporarily_unavailable",
            "issuer_timeout",
        ),
        (
            "an answer too late",
            Fault::Slow(Duration::from_secs(5)),
            504,
            "temporarily_unavailable",
            "issuer_timeout",
        ),
        (
            "a cut instead of an answer",
            Fault::CutAfterRequest,
            502,
            "temporarily_unavailable",
            "issuer_cut",
        ),
        (
            "a cut within the answer",
            Fault::CutBody,
            502,
            "temporarily_unavailable",
            "issuer_cut",
        ),
        (
            "a page of HTML",
            Fault::Garbage,
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "200 and nothing",
            Fault::EmptyOk,
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "200 and an error",
            status(200, "{\"error\":\"x\"}"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "200 and a list",
            status(200, "[{\"access_token\":\"x\"}]"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "200 and a token that is none",
            status(200, "{\"access_token\":1}"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "no end",
            Fault::Endless,
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            "a redirect",
            Fault::redirect("https://evil.example/oauth/token"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
    ] {
        for (grant, fields) in [("refresh_token", refresh), ("client_credentials", MACHINE)] {
            world.auth.set_fault(Endpoint::Token, Some(fault.clone()));
            let before = world.auth.counts().token;
            let begun = Instant::now();
            let reply = world.post("/oauth/token").form(&fields).send().await;
            let took = begun.elapsed();
            // An endless answer may run into either end first.
            if case != "no end" || reply.status != 504 {
                assert_oauth_error(&reply, code, error, case);
                assert!(
                    world.gateway.metric(&series(grant, outcome)).await >= 1.0,
                    "{case}"
                );
            }
            assert!(took < Duration::from_secs(3), "{case}: {took:?}");
            assert!(
                code != 504 || took >= Duration::from_millis(290),
                "{case}: {took:?}"
            );
            assert!(
                !reply.text().contains("It works") && !reply.text().contains("evil"),
                "{case}: {}",
                reply.text()
            );
            assert_eq!(world.auth.counts().token, before + 1, "{case}, {grant}");
        }
    }
    world.auth.set_fault(Endpoint::Token, None);
    assert_eq!(
        world
            .post("/oauth/token")
            .form(&MACHINE)
            .send()
            .await
            .status,
        200,
        "and well again"
    );
}

#[tokio::test]
async fn an_issuer_that_is_gone_and_comes_back() {
    let world = World::start().await;
    assert_eq!(
        world
            .post("/oauth/token")
            .form(&MACHINE)
            .send()
            .await
            .status,
        200
    );
    world.auth.stop().await;
    let reply = world.post("/oauth/token").form(&MACHINE).send().await;
    assert_oauth_error(&reply, 502, "temporarily_unavailable", "nobody listens");
    assert_eq!(
        world
            .gateway
            .metric(&series("client_credentials", "issuer_unreachable"))
            .await,
        1.0
    );
    world.auth.restart().await.expect("the issuer again");
    // The connection that was kept is dead; a request may not be lost to it, nor go out twice.
    for number in 2..6 {
        assert_eq!(
            world
                .post("/oauth/token")
                .form(&MACHINE)
                .send()
                .await
                .status,
            200
        );
        assert_eq!(world.auth.counts().token, number);
    }
}

#[tokio::test]
async fn an_issuer_that_was_never_there_is_told_apart() {
    let config = CONFIG
        .replace("ISSUER", &format!("http://{}/", nobody()))
        .replace("ECHO", "http://127.0.0.1:9");
    let gateway = Gateway::start(&config).await;
    let reply = request(gateway.address, "POST", "/oauth/token")
        .form(&MACHINE)
        .send()
        .await;
    assert_oauth_error(&reply, 503, "temporarily_unavailable", "no discovery");
    assert!(
        reply
            .header("retry-after")
            .is_some_and(|seconds| seconds.parse::<u32>().is_ok())
    );
    let series = series("unknown", "issuer_unreachable");
    assert_eq!(gateway.metric(&series).await, 1.0);
}

// === where it is mounted ===

#[tokio::test]
async fn surfaces_side_by_side_ask_their_own_issuers() {
    let other = BonterraAuth::start(AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    })
    .await
    .expect("an issuer");
    let config = with_lines(CONFIG, "[oauth.bonterra]", "prefix = \"/v1/oauth\"");
    let config = format!(
        "{config}
[issuer.other]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]

[oauth.other]
issuer = \"other\"
prefix = \"/oauth2\"
paths = {{ token = \"/oauth2/tokens\" }}
grants = [\"client_credentials\"]
max_body = \"1KiB\"
",
        other.issuer()
    );
    let world = World::with(&config).await;
    for (path, ours, theirs) in [("/v1/oauth/token", 1, 0), ("/oauth2/tokens", 1, 1)] {
        let reply = world.post(path).form(&MACHINE).send().await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        assert_eq!(
            (world.auth.counts().token, other.counts().token),
            (ours, theirs),
            "{path}"
        );
        let token = reply.json()["access_token"]
            .as_str()
            .expect("a token")
            .to_owned();
        assert_eq!(
            world.get("/grants/1").bearer(&token).send().await.status,
            200,
            "{path}"
        );
    }
    for path in [
        "/oauth/token",
        "/oauth2/token",
        "/oauth2/tokens/",
        "/v1/oauth/token/x",
    ] {
        assert_eq!(
            world.post(path).form(&MACHINE).send().await.status,
            404,
            "{path}"
        );
    }
    // Each has its own limits.
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-web"),
        ("refresh_token", "x"),
    ];
    assert_eq!(
        world
            .post("/v1/oauth/token")
            .form(&refresh)
            .send()
            .await
            .status,
        403
    );
    assert_oauth_error(
        &world.post("/oauth2/tokens").form(&refresh).send().await,
        400,
        "unsupported_grant_type",
        "other grants",
    );
    let long = "x".repeat(1024);
    let padded: Vec<_> = MACHINE
        .into_iter()
        .chain([("pad", long.as_str())])
        .collect();
    assert_eq!(
        world
            .post("/v1/oauth/token")
            .form(&padded)
            .send()
            .await
            .status,
        200
    );
    assert_oauth_error(
        &world.post("/oauth2/tokens").form(&padded).send().await,
        413,
        "invalid_request",
        "other limits",
    );
    for (surface, count) in [("bonterra", 2.0), ("other", 1.0)] {
        let series = format!(
            "gateway_oauth_requests_total{{endpoint=\"token\",grant=\"client_credentials\",outcome=\"issued\",surface=\"{surface}\"}}"
        );
        assert_eq!(world.gateway.metric(&series).await, count, "{surface}");
    }
}

#[tokio::test]
async fn the_access_log_tells_of_token_requests() {
    let world = World::start().await;
    let issued = world
        .post("/oauth/token?secret=1")
        .form(&MACHINE)
        .send()
        .await;
    let record = world
        .gateway
        .log
        .record(issued.header("x-request-id").expect("an id"))
        .await;
    assert_eq!(
        (&record["route"], &record["status"]),
        (&json!("oauth.bonterra"), &json!(200))
    );
    assert_eq!(
        (&record["method"], &record["path"]),
        (&json!("POST"), &json!("/oauth/token"))
    );
    let refused = world.post("/oauth/token").form(&[]).send().await;
    let record = world
        .gateway
        .log
        .record(refused.header("x-request-id").expect("an id"))
        .await;
    assert_eq!(record["status"], 400);
}
