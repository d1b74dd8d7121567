//! oauth20-internal-jwt-api.txt: handles outside, a JWT inside that the refresh grant renews as well,
//! mounted at /oauth20.

use super::{VERIFIER, basic, calls, code, code_with_pkce, good, shipped, text};
use bonterra_gateway::demo::auth::REDIRECT_URI;
use serde_json::{Value, json};

const TOKEN: &str = "/oauth20/token";

/// The document's schema: these members and no others, and nothing of a JWT in them.
fn assert_token(reply: &Value, refreshes: bool) {
    assert_eq!(reply["token_type"], json!("bearer"));
    assert!(reply["expires_in"].is_u64(), "{reply}");
    // A JWT has points.
    assert!(!text(reply, "access_token").contains('.'));
    let known = [
        "token_type",
        "access_token",
        "expires_in",
        "scope",
        "refresh_token",
    ];
    for name in reply.as_object().expect("an object").keys() {
        assert!(known.contains(&name.as_str()), "{name}");
    }
    assert_eq!(reply.get("refresh_token").is_some(), refreshes, "{reply}");
}

/// The JWT that the API got for a handle.
async fn inside(world: &crate::harness::World, handle: &str) -> String {
    let reply = calls(world, handle).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let saw = reply.upstream_saw("authorization");
    assert_eq!(saw.len(), 1);
    assert!(saw[0].starts_with("Bearer eyJ"), "a JWT inside");
    assert!(!reply.text().contains(handle), "the handle stays outside");
    saw[0].clone()
}

/// Confidential clients authenticate by Basic, or post their secret.
#[tokio::test]
async fn client_credentials_by_basic_and_by_form() {
    let world = shipped().await;
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "read:profile"),
    ];
    let request = world.post(TOKEN);
    let request = request.header("authorization", basic("demo-client", "demo-secret"));
    let reply = good(request.form(&form)).await;
    assert_token(&reply, false);
    inside(&world, text(&reply, "access_token")).await;
    let posted = [
        &form[..],
        &[
            ("client_id", "demo-client"),
            ("client_secret", "demo-secret"),
        ],
    ];
    let reply = good(world.post(TOKEN).form(&posted.concat())).await;
    assert_token(&reply, false);
    inside(&world, text(&reply, "access_token")).await;
}

/// "This version of the API has the implementation to refresh the internal jwt."
#[tokio::test]
async fn a_refresh_renews_handle_and_internal_jwt() {
    let world = shipped().await;
    let scope = "openid offline_access read:profile";
    let public = [
        ("grant_type", "authorization_code"),
        (
            "code",
            &code_with_pkce(&world, "/oauth20/authorize", scope).await,
        ),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", "demo-web"),
        ("code_verifier", VERIFIER),
    ];
    let confidential = [
        ("grant_type", "authorization_code"),
        ("code", &code(&world, "/oauth20/authorize", scope).await),
        ("redirect_uri", REDIRECT_URI),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
    ];
    for form in [public, confidential] {
        let first = good(world.post(TOKEN).form(&form)).await;
        assert_token(&first, true);
        let old = text(&first, "access_token");
        let jwt = inside(&world, old).await;
        let mut refresh = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", text(&first, "refresh_token")),
            form[3],
        ];
        if form[4].0 == "client_secret" {
            refresh.push(form[4]);
        }
        let second = good(world.post(TOKEN).form(&refresh)).await;
        assert_token(&second, true);
        assert_ne!(second["refresh_token"], first["refresh_token"]);
        let new = text(&second, "access_token");
        assert_ne!(inside(&world, new).await, jwt);
        assert_eq!(calls(&world, old).await.status, 401);
        let revoke = [&[("token", new)], &refresh[2..]].concat();
        let revoked = world.post("/oauth20/revoke").form(&revoke).send().await;
        assert_eq!(revoked.status, 200, "{}", revoked.text());
        assert_eq!(calls(&world, new).await.status, 401);
        let mut again = refresh;
        again[1].1 = text(&second, "refresh_token");
        let again = world.post(TOKEN).form(&again).send().await;
        assert!((400..=403).contains(&again.status), "{}", again.text());
    }
}

/// The implicit grant would show a token to the browser, and is refused; so is the password grant,
/// unless it is enabled.
#[tokio::test]
async fn what_is_refused() {
    let world = shipped().await;
    let query = format!(
        "response_type=token&client_id=demo-web&redirect_uri={}",
        REDIRECT_URI.replace(':', "%3A").replace('/', "%2F")
    );
    let reply = world
        .get(&format!("/oauth20/authorize?{query}"))
        .send()
        .await;
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (400, &json!("unsupported_response_type"))
    );
    let form = [
        ("grant_type", "password"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("username", "user@example.com"),
        ("password", "demo"),
    ];
    let reply = world.post(TOKEN).form(&form).send().await;
    assert_eq!(
        (reply.status, &reply.json()["error"]),
        (400, &json!("unsupported_grant_type"))
    );
    assert_eq!(world.auth.counts().token, 0);
    assert_eq!(world.auth.counts().authorize, 0);
}
