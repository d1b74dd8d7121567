//! oauth2-tokens-envelope-api.txt: forms in, `{meta, errors}` for errors and `bearer` in lower case,
//! mounted at /oauth2 with its token endpoint at /oauth2/tokens.

use super::{VERIFIER, basic, code, code_with_pkce, good, shipped, text};
use crate::harness::Reply;
use bonterra_gateway::demo::auth::{Endpoint, Fault, REDIRECT_URI};
use serde_json::{Value, json};

const TOKENS: &str = "/oauth2/tokens";

fn assert_token(reply: &Value, members: &[&str]) {
    assert_eq!(reply["token_type"], json!("bearer"));
    assert_eq!(reply["expires_in"], json!(86400));
    for name in members {
        text(reply, name);
    }
}

/// An error as the document has it: no other members, and the OAuth code leads the message.
fn assert_error(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{}", reply.text());
    let body = reply.json();
    let names: Vec<&String> = body.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["meta", "errors"]);
    assert!(body["meta"].is_object(), "{body}");
    let errors = body["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 1);
    assert_eq!(errors[0]["httpcode"], json!(status));
    let message = text(&errors[0], "message");
    assert!(message.starts_with(code), "{message}");
}

/// MOD1: a client for itself.
#[tokio::test]
async fn client_credentials() {
    let world = shipped().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "read:grants"),
    ];
    let request = world.post(TOKENS);
    let request = request.header("authorization", basic("demo-client", "demo-secret"));
    assert_token(&good(request.form(&form)).await, &["access_token"]);
    let posted = [
        &form[..],
        &[
            ("client_id", "demo-client"),
            ("client_secret", "demo-secret"),
        ],
    ];
    let reply = good(world.post(TOKENS).form(&posted.concat())).await;
    assert_token(&reply, &["access_token"]);
}

/// MOD2 and MOD3: a code, with a secret or with PKCE, and a refresh token.
#[tokio::test]
async fn a_code_and_a_refresh_token() {
    let world = shipped().await;
    let scope = "openid offline_access";
    let all = ["access_token", "refresh_token", "id_token"];
    let form = [
        ("grant_type", "authorization_code"),
        ("code", &code(&world, "/oauth2/authorize", scope).await),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
    ];
    assert_token(&good(world.post(TOKENS).form(&form)).await, &all);
    let form = [
        ("grant_type", "authorization_code"),
        (
            "code",
            &code_with_pkce(&world, "/oauth2/authorize", scope).await,
        ),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", "demo-web"),
        ("code_verifier", VERIFIER),
    ];
    let reply = good(world.post(TOKENS).form(&form)).await;
    assert_token(&reply, &all);
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&reply, "refresh_token")),
        ("scope", scope),
        ("client_id", "demo-web"),
    ];
    assert_token(&good(world.post(TOKENS).form(&form)).await, &all);
}

#[tokio::test]
async fn every_error_is_in_the_envelope() {
    let world = shipped().await;
    let machine = |secret: &'static str| {
        [
            ("grant_type", "client_credentials"),
            ("client_id", "demo-client"),
            ("client_secret", secret),
        ]
    };
    // Refused here: 400.
    let reply = world
        .post(TOKENS)
        .form(&[("grant_type", "magic")])
        .send()
        .await;
    assert_error(&reply, 400, "unsupported_grant_type");
    let reply = world.post(TOKENS).form(&[("scope", "a")]).send().await;
    assert_error(&reply, 400, "invalid_request");
    assert_eq!(world.auth.counts().token, 0);
    // Refused by the issuer: 401, 403.
    let reply = world
        .post(TOKENS)
        .form(&machine("demo-Secret"))
        .send()
        .await;
    assert_error(&reply, 401, "access_denied");
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "unknown"),
        ("client_id", "demo-web"),
    ];
    let reply = world.post(TOKENS).form(&form).send().await;
    assert_error(&reply, 403, "invalid_grant");
    // What is no token request, and an issuer that fails.
    assert_error(&world.get(TOKENS).send().await, 405, "invalid_request");
    let fault = Fault::Status(503, String::new(), String::new());
    world.auth.set_fault(Endpoint::Token, Some(fault));
    let reply = world
        .post(TOKENS)
        .form(&machine("demo-secret"))
        .send()
        .await;
    assert_eq!(reply.json()["errors"][0]["httpcode"], json!(503));
    // The endpoints beside it.
    let reply = world.get("/oauth2/authorize").send().await;
    assert_error(&reply, 400, "invalid_request");
    let reply = world.get("/oauth2/userinfo").send().await;
    assert_eq!(reply.json()["errors"][0]["httpcode"], json!(401));
    let reply = world
        .post("/oauth2/revoke")
        .form(&[("token", "x")])
        .send()
        .await;
    assert_error(&reply, 400, "invalid_request");
}
