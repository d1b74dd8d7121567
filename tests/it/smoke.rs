//! The main job in one breath.

use crate::harness::World;
use serde_json::json;

#[tokio::test]
async fn a_token_admits_and_its_claims_arrive() {
    let world = World::start().await;
    let token = world
        .post("/oauth/token")
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", "demo-client"),
            ("client_secret", "demo-secret"),
        ])
        .send()
        .await;
    assert_eq!(token.status, 200, "{}", token.text());
    let access_token = token.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let reply = world
        .get("/grants/1?x=1")
        .bearer(&access_token)
        .header("x_bonterra_auth_id", "forged")
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["path"], json!("/grants/1?x=1"));
    assert_eq!(reply.upstream_saw("x-bonterra-is-grants"), ["true"]);
    assert_eq!(reply.upstream_saw("x-bonterra-auth-id").len(), 1);
    assert!(reply.upstream_saw("x_bonterra_auth_id").is_empty());
}

#[tokio::test]
async fn a_client_without_a_token_is_told_where_tokens_come_from() {
    let world = World::start().await;
    let refused = world
        .get("/grants/1")
        .header("host", "api.example.com:8080")
        .send()
        .await;
    let challenge = refused
        .header("www-authenticate")
        .expect("a challenge")
        .to_owned();
    let url = "http://api.example.com:8080/.well-known/oauth-protected-resource";
    assert_eq!(
        challenge,
        format!("Bearer realm=\"bonterra\", resource_metadata=\"{url}\"")
    );
    let metadata = world
        .get("/.well-known/oauth-protected-resource")
        .header("host", "api.example.com:8080")
        .send()
        .await;
    assert_eq!(metadata.status, 200);
    assert_eq!(
        metadata.json()["resource"],
        json!("http://api.example.com:8080")
    );
    assert_eq!(
        metadata.json()["authorization_servers"],
        json!([world.auth.issuer()])
    );
    let posted = world
        .post("/.well-known/oauth-protected-resource")
        .send()
        .await;
    assert_eq!(
        (posted.status, posted.header("allow")),
        (405, Some("GET, HEAD"))
    );
}
