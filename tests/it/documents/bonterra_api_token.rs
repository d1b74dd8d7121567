//! bonterra-api-token.txt: "token generation, introspection, revocation, and user information
//! retrieval", JSON in, mounted at /v1/oauth.

use super::{API, VERIFIER, basic, calls, code, code_with_pkce, good, shipped, text};
use bonterra_gateway::demo::auth::{ExpiresIn, REDIRECT_URI};
use serde_json::{Value, json};

const TOKEN: &str = "/v1/oauth/token";

/// `access_token`, `expires_in` and `token_type` are required. The document types the lifetime as a
/// string; what comes out is the integer of RFC 6749, whatever the issuer writes.
fn assert_token(reply: &Value) {
    assert!(reply["access_token"].is_string(), "{reply}");
    assert_eq!(reply["expires_in"], json!(86400));
    assert_eq!(reply["token_type"], json!("Bearer"));
}

#[tokio::test]
async fn client_credentials_by_json() {
    let world = shipped().await;
    for style in [ExpiresIn::String, ExpiresIn::Integer] {
        world.auth.set_expires_in_style(style);
        let body = json!({
            "grant_type": "client_credentials",
            "client_id": "demo-client",
            "client_secret": "demo-secret",
            "audience": API,
            "scope": "read:profile",
        });
        let reply = good(world.post(TOKEN).json(&body)).await;
        assert_token(&reply);
        let called = calls(&world, text(&reply, "access_token")).await;
        assert_eq!(called.status, 200, "{}", called.text());
    }
}

/// The document's sample has all nine members; those that a client has no use for are empty.
#[tokio::test]
async fn the_sample_with_all_of_its_members() {
    let world = shipped().await;
    let sample = json!({
        "grant_type": "client_credentials",
        "client_id": "demo-client",
        "client_secret": "demo-secret",
        "audience": API,
        "scope": "",
        "redirect_uri": "",
        "refresh_token": "",
        "code": "",
        "code_verifier": "",
    });
    assert_token(&good(world.post(TOKEN).json(&sample)).await);
    // As it stands in the document, with the word "string" for each.
    let mut literal = sample;
    for (_, value) in literal.as_object_mut().expect("an object") {
        *value = json!("string");
    }
    let before = world.auth.counts().token;
    let reply = world.post(TOKEN).json(&literal).send().await;
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (400, &json!("unsupported_grant_type"))
    );
    assert_eq!(world.auth.counts().token, before);
}

#[tokio::test]
async fn a_code_with_and_without_pkce_and_what_follows() {
    let world = shipped().await;
    let scope = "openid profile email offline_access read:profile";
    let public = json!({
        "grant_type": "authorization_code",
        "client_id": "demo-web",
        "redirect_uri": REDIRECT_URI,
        "code": code_with_pkce(&world, "/v1/oauth/authorize", scope).await,
        "code_verifier": VERIFIER,
    });
    let confidential = json!({
        "grant_type": "authorization_code",
        "client_id": "demo-backend",
        "client_secret": "backend-secret",
        "redirect_uri": REDIRECT_URI,
        "code": code(&world, "/v1/oauth/authorize", scope).await,
    });
    for body in [public, confidential] {
        let reply = good(world.post(TOKEN).json(&body)).await;
        assert_token(&reply);
        text(&reply, "id_token");
        let mut refresh = json!({
            "grant_type": "refresh_token",
            "client_id": body["client_id"],
            "refresh_token": reply["refresh_token"],
        });
        if let Some(secret) = body.get("client_secret") {
            refresh["client_secret"] = secret.clone();
        }
        let renewed = good(world.post(TOKEN).json(&refresh)).await;
        assert_token(&renewed);
        assert_ne!(renewed["refresh_token"], reply["refresh_token"]);
        let token = text(&renewed, "access_token");
        let user = world.get("/v1/oauth/userinfo").bearer(token);
        assert_eq!(good(user).await["email"], json!("user@example.com"));
    }
}

#[tokio::test]
async fn introspection_and_revocation() {
    let world = shipped().await;
    let credentials = basic("demo-backend", "backend-secret");
    let body = [("grant_type", "client_credentials"), ("audience", API)];
    let bought = world.post(TOKEN).header("authorization", &credentials);
    let bought = good(bought.form(&body)).await;
    let token = text(&bought, "access_token");
    let asked = || {
        let request = world.post("/v1/oauth/introspect");
        let api = basic("demo-api", "demo-api-secret");
        request
            .header("authorization", api)
            .form(&[("token", token)])
    };
    let active = good(asked()).await;
    assert_eq!(
        (&active["active"], &active["client_id"], &active["iss"]),
        (
            &json!(true),
            &json!("demo-backend"),
            &json!(world.auth.issuer())
        )
    );
    let revoke = world.post("/v1/oauth/revoke");
    let revoke = revoke.header("authorization", &credentials);
    let revoked = revoke.form(&[("token", token)]).send().await;
    assert_eq!((revoked.status, revoked.body.len()), (200, 0));
    assert_eq!(good(asked()).await, json!({ "active": false }));
    assert_eq!(calls(&world, token).await.status, 401);
}
