//! `errors = "envelope"`, as oauth2-tokens-envelope-api documents it, beside surfaces that speak
//! plain OAuth.

use super::{MACHINE, assert_not_stored};
use crate::harness::{CONFIG, Reply, World, nobody};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonterra_gateway::demo::auth::{Endpoint, Fault};
use serde_json::json;

/// Three surfaces of one issuer, each with a format of its own.
fn three() -> String {
    format!(
        "{CONFIG}
[oauth.v1]
issuer = \"bonterra\"
prefix = \"/v1/oauth\"
errors = \"oauth\"

[oauth.second]
issuer = \"bonterra\"
prefix = \"/oauth2\"
paths = {{ token = \"/oauth2/tokens\" }}
errors = \"envelope\"
max_body = \"1KiB\"
"
    )
}

/// An error as the document has it: nothing but `meta` and one entry in `errors`.
fn assert_enveloped(reply: &Reply, status: u16, message: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let expected = json!({ "meta": {}, "errors": [{ "httpcode": status, "message": message }] });
    assert_eq!(reply.json(), expected);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("x-request-id").is_some());
    assert_not_stored(reply);
}

#[tokio::test]
async fn every_surface_has_its_own_format() {
    let world = World::with(&three()).await;
    let code = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("code", "wrong"),
        ("redirect_uri", "http://127.0.0.1:8080/public/callback"),
    ];
    for path in ["/oauth/token", "/v1/oauth/token"] {
        let reply = world.post(path).form(&MACHINE).send().await;
        assert_eq!(reply.json()["token_type"], "Bearer", "{path}");
        let reply = world.post(path).form(&code).send().await;
        assert_eq!(reply.status, 403, "{path}");
        assert_eq!(reply.json()["error"], "invalid_grant", "{path}");
    }
    let reply = world.post("/oauth2/tokens").form(&code).send().await;
    assert_enveloped(&reply, 403, "invalid_grant: Invalid authorization code");
    let asked = world.auth.counts().token;
    let reply = world.post("/oauth2/tokens").form(&code[..3]).send().await;
    assert_enveloped(&reply, 400, "invalid_request: code is missing or empty");
    assert_eq!(world.auth.counts().token, asked, "refused here");
    assert_eq!(
        world.post("/oauth2/token").form(&code).send().await.status,
        404
    );
}

/// What is refused before an endpoint is found is that surface's error as well.
#[tokio::test]
async fn what_no_endpoint_has_seen_comes_in_it_too() {
    let world = World::with(&three()).await;
    for (path, status, code) in [
        ("/oauth2/unknown", 404, "no_route: "),
        ("/oauth2", 404, "no_route: "),
        ("/oauth2/%00", 400, "bad_request: "),
    ] {
        let reply = world.get(path).send().await;
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let error = reply.json()["errors"][0].clone();
        assert_eq!(error["httpcode"], json!(status), "{path}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with(code), "{path}: {message}");
    }
    for path in ["/oauth2x", "/v1/oauth/unknown", "/unknown"] {
        let reply = world.get(path).send().await;
        assert_eq!(reply.status, 404, "{path}");
        let problem = Some("application/problem+json");
        assert_eq!(reply.header("content-type"), problem, "{path}");
    }
}

#[tokio::test]
async fn tokens_come_as_documented() {
    let world = World::with(&three()).await;
    let reply = world.post("/oauth2/tokens").form(&MACHINE).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let token = reply.json();
    assert_eq!(
        (&token["token_type"], &token["expires_in"]),
        (&json!("bearer"), &json!(86400))
    );
    assert_not_stored(&reply);
    let token = token["access_token"].as_str().expect("a token");
    let call = world.get("/grants/1").bearer(token).send().await;
    assert_eq!(call.status, 200);
}

#[tokio::test]
async fn refusals_of_the_gateway_keep_status_and_headers() {
    let world = World::with(&three()).await;
    let post = || world.post("/oauth2/tokens");
    assert_enveloped(
        &post().form(&MACHINE[1..]).send().await,
        400,
        "invalid_request: grant_type is missing or empty",
    );
    assert_enveloped(
        &post().form(&[("grant_type", "password")]).send().await,
        400,
        "unsupported_grant_type: this grant_type is not enabled here",
    );
    let get = world.get("/oauth2/tokens").send().await;
    assert_enveloped(&get, 405, "invalid_request: use POST");
    assert_eq!(get.header("allow"), Some("POST"));
    let bad = post()
        .header("authorization", "Basic !")
        .form(&MACHINE[..1])
        .send()
        .await;
    assert_eq!((bad.status, bad.header("www-authenticate")), {
        (401, Some("Basic realm=\"bonterra\""))
    });
    let large = "x".repeat(2048);
    assert_enveloped(
        &post().form(&[("pad", &large)]).send().await,
        413,
        "invalid_request: the body is larger than this endpoint accepts",
    );
    assert_eq!(world.auth.counts().token, 0, "the issuer was not asked");
}

#[tokio::test]
async fn errors_of_the_issuer_keep_status_and_headers() {
    let world = World::with(&three()).await;
    let quota = "b=per_hour;q=10;r=0;t=3540";
    let headers = [
        ("retry-after", "17"),
        ("auth0-client-quota-limit", quota),
        ("x-ratelimit-remaining", "0"),
    ];
    let given = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let body = r#"{"error":"too_many_requests","error_description":"Client quota exceeded"}"#;
    let fault = Fault::Reply(429, given.to_vec(), body.into());
    world.auth.set_fault(Endpoint::Token, Some(fault));
    let reply = world.post("/oauth2/tokens").form(&MACHINE).send().await;
    assert_enveloped(&reply, 429, "too_many_requests: Client quota exceeded");
    for (name, value) in headers {
        assert_eq!(reply.header(name), Some(value));
    }
    let page = Fault::Status(503, "text/html".to_owned(), "<html>away</html>".to_owned());
    world.auth.set_fault(Endpoint::Token, Some(page));
    assert_enveloped(
        &world.post("/oauth2/tokens").form(&MACHINE).send().await,
        503,
        "temporarily_unavailable: the authorization server answers 503 Service Unavailable",
    );
    world.auth.set_fault(Endpoint::Token, Some(Fault::EmptyOk));
    assert_enveloped(
        &world.post("/oauth2/tokens").form(&MACHINE).send().await,
        502,
        "server_error: the answer of the authorization server is not what was asked for",
    );
    world.auth.set_fault(Endpoint::Token, None);
    let wrong = STANDARD.encode("demo-client:wrong");
    let wrong = world
        .post("/oauth2/tokens")
        .header("authorization", format!("Basic {wrong}"))
        .form(&MACHINE[..1])
        .send()
        .await;
    assert_enveloped(&wrong, 401, "access_denied: Unauthorized");
    assert_eq!(
        wrong.header("www-authenticate"),
        Some("Basic realm=\"Bonterra Auth\"")
    );
}

#[tokio::test]
async fn an_issuer_that_was_never_there() {
    let away = format!("http://{}/", nobody());
    let config = three().replace("ISSUER", &away).replace("ECHO", &away);
    let gateway = crate::harness::Gateway::start(&config).await;
    let reply = crate::harness::request(gateway.address, "POST", "/oauth2/tokens")
        .form(&MACHINE)
        .send()
        .await;
    assert_enveloped(
        &reply,
        503,
        "temporarily_unavailable: the authorization server has not been reached yet; nothing was sent to it, try again",
    );
    assert_eq!(reply.header("retry-after"), Some("5"));
}
