//! bonterra-auth-api.txt: discovery, keys, authorization, token, revocation, userinfo, users and
//! events, mounted at /oauth, /.well-known, /users and /events.

use super::{
    API, VERIFIER, basic, calls, code, code_with_pkce, field, good, log_in, shipped, text,
};
use crate::harness::{Request, World, request, within};
use bonterra_gateway::demo::auth::REDIRECT_URI;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const TOKEN: &str = "/oauth/token";

/// A token of a caller with scopes of its own.
fn caller(world: &World, scope: &str) -> String {
    world.token_with(json!({ "scope": scope }))
}

fn with_scope(world: &World, request: Request, scope: &str) -> Request {
    request.bearer(&caller(world, scope))
}

#[tokio::test]
async fn discovery_and_keys() {
    let world = shipped().await;
    let discovery = world.get("/.well-known/openid-configuration").send().await;
    assert_eq!(discovery.status, 200);
    let document = discovery.json();
    for name in [
        "issuer",
        "authorization_endpoint",
        "token_endpoint",
        "userinfo_endpoint",
        "jwks_uri",
        "revocation_endpoint",
    ] {
        text(&document, name);
    }
    for name in [
        "scopes_supported",
        "response_types_supported",
        "grant_types_supported",
    ] {
        assert!(document[name].is_array(), "{name}");
    }
    assert_eq!(document["issuer"], json!(world.auth.issuer()));
    let keys = world.get("/.well-known/jwks.json").send().await.json();
    let served: Vec<&Value> = keys["keys"].as_array().expect("keys").iter().collect();
    assert!(
        served
            .iter()
            .any(|key| key["kid"] == json!(world.auth.current_kid()))
    );
}

/// The document's example values of the authorization endpoint, and then the token endpoint.
#[tokio::test]
async fn authorization_and_tokens() {
    let world = shipped().await;
    let asked = [
        ("response_type", "code"),
        ("client_id", "demo-backend"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid profile email offline_access read:profile"),
        ("state", "xyz123"),
        ("audience", API),
        ("nonce", "abc123"),
    ];
    let back = log_in(&world, "/oauth/authorize", &asked).await;
    assert_eq!(field(&back, "state"), "xyz123");
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("code", field(&back, "code")),
        ("redirect_uri", REDIRECT_URI),
        ("audience", API),
    ];
    let reply = good(world.post(TOKEN).form(&form)).await;
    assert_eq!(reply["token_type"], json!("Bearer"));
    assert_eq!(reply["expires_in"], json!(86400));
    for name in ["access_token", "id_token", "refresh_token", "scope"] {
        text(&reply, name);
    }
    let called = calls(&world, text(&reply, "access_token")).await;
    assert_eq!(called.status, 200);
    assert_eq!(called.upstream_saw("x-bonterra-is-grants"), ["true"]);
    assert_eq!(called.upstream_saw("x-bonterra-auth-id").len(), 1);
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("refresh_token", text(&reply, "refresh_token")),
    ];
    text(&good(world.post(TOKEN).form(&form)).await, "access_token");
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
        ("audience", API),
        ("scope", "read:grants"),
    ];
    text(&good(world.post(TOKEN).form(&form)).await, "access_token");
}

/// The document's example request, word for word: its code is none here, and that is what the issuer
/// says of it.
#[tokio::test]
async fn the_example_of_the_token_endpoint() {
    let world = shipped().await;
    let example = "grant_type=authorization_code&client_id=abc123xyz789&client_secret=secret123&code=auth_code_123456&redirect_uri=https%3A%2F%2Fmyapp.example.com%2Fcallback&audience=https%3A%2F%2Fapi.bonterra.network";
    let request = world.post(TOKEN);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let reply = request.body(example).send().await;
    assert_eq!(reply.status, 401, "{}", reply.text());
    assert_eq!(reply.json()["error"], json!("access_denied"));
    let seen = world.auth.last_token_request().expect("asked");
    let came: Vec<_> = form_urlencoded::parse(&seen.body).collect();
    let sent: Vec<_> = form_urlencoded::parse(example.as_bytes()).collect();
    assert_eq!(came, sent);
}

#[tokio::test]
async fn revocation() {
    let world = shipped().await;
    let scope = "openid offline_access";
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("code", &code(&world, "/oauth/authorize", scope).await),
        ("redirect_uri", REDIRECT_URI),
    ];
    let reply = good(world.post(TOKEN).form(&form)).await;
    let refresh = text(&reply, "refresh_token");
    let form = [
        ("token", refresh),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
    ];
    let revoked = world.post("/oauth/revoke").form(&form).send().await;
    assert_eq!((revoked.status, revoked.body.len()), (200, 0));
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
        ("refresh_token", refresh),
    ];
    let refused = world.post(TOKEN).form(&form).send().await;
    assert_eq!(
        (refused.status, &refused.json()["error"]),
        (403, &json!("invalid_grant"))
    );
    // The document's example of an error.
    let reply = world
        .post("/oauth/revoke")
        .form(&[("token", "x")])
        .send()
        .await;
    let expected = json!({
        "error": "invalid_request",
        "error_description": "Missing required parameter: client_id",
    });
    assert_eq!((reply.status, reply.json()), (400, expected));
}

#[tokio::test]
async fn userinfo() {
    let world = shipped().await;
    let form = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-web"),
        (
            "code",
            &code_with_pkce(&world, "/oauth/authorize", "openid profile email").await,
        ),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    let reply = good(world.post(TOKEN).form(&form)).await;
    let user = world.get("/oauth/userinfo");
    let user = good(user.bearer(text(&reply, "access_token"))).await;
    assert_eq!(user["sub"], json!("auth0|507f1f77bcf86cd799439011"));
    assert_eq!(user["email"], json!("user@example.com"));
    assert_eq!(user["email_verified"], json!(true));
    assert_eq!(user["name"], json!("John Doe"));
    text(&user, "urn:bonterra:claims:bonterra_auth_id");
    assert_eq!(user["urn:bonterra:claims:is_bonterra_grants"], json!(true));
}

#[tokio::test]
async fn users_are_listed_found_and_changed() {
    let world = shipped().await;
    let users = with_scope(&world, world.get("/users"), "read:users");
    let users = users.send().await;
    assert_eq!(users.status, 200, "{}", users.text());
    let list = users.json();
    assert_eq!(
        (
            &list["start"],
            &list["limit"],
            &list["length"],
            &list["total"]
        ),
        (&json!(0), &json!(25), &json!(25), &json!(150))
    );
    assert_eq!(list["users"].as_array().map(Vec::len), Some(25));
    let path = "/users?per_page=25&page=1&q=email%3A%22user%40example.com%22";
    let found = with_scope(&world, world.get(path), "read:users");
    assert_eq!(found.send().await.json()["total"], json!(1));
    for (path, status) in [
        ("/users?per_page=1", 200),
        ("/users?per_page=100&page=1", 200),
        ("/users?per_page=0", 400),
        ("/users?per_page=101", 400),
        ("/users?page=-1", 400),
        ("/users?per_page=x", 400),
    ] {
        let reply = with_scope(&world, world.get(path), "read:users");
        let reply = reply.send().await;
        assert_eq!(reply.status, status, "{path}: {}", reply.text());
    }
    let id = "auth0|507f1f77bcf86cd799439011";
    for path in [
        "/users/auth0|507f1f77bcf86cd799439011",
        "/users/auth0%7C507f1f77bcf86cd799439011",
    ] {
        let user = with_scope(&world, world.get(path), "read:users");
        let user = user.send().await;
        assert_eq!(user.status, 200, "{path}: {}", user.text());
        assert_eq!(user.json()["user_id"], json!(id));
        let change = json!({
            "name": "John Updated Doe",
            "app_metadata": { "grants": true },
            "user_metadata": { "theme": "dark" },
        });
        let changed = request(world.gateway.address, "PATCH", path).json(&change);
        let changed = with_scope(&world, changed, "update:users").send().await;
        assert_eq!(changed.status, 200, "{path}: {}", changed.text());
        assert_eq!(changed.json()["name"], json!("John Updated Doe"));
        assert_eq!(changed.json()["user_metadata"]["theme"], json!("dark"));
    }
    // Each asks for a scope of its own.
    for (method, path, scope) in [
        ("GET", "/users", "update:users"),
        ("GET", "/users/a", "update:users"),
        ("PATCH", "/users/a", "read:users"),
    ] {
        let reply = request(world.gateway.address, method, path).json(&json!({ "name": "x" }));
        let reply = with_scope(&world, reply, scope).send().await;
        assert_eq!(reply.status, 403, "{method} {path}");
    }
    // A field that the document does not have.
    let reply =
        request(world.gateway.address, "PATCH", "/users/a").json(&json!({ "blocked": true }));
    let reply = with_scope(&world, reply, "update:users").send().await;
    assert_eq!(reply.status, 400, "{}", reply.text());
}

async fn until(stream: &mut TcpStream, read: &mut Vec<u8>, word: &str) {
    within(word, async {
        while memchr::memmem::find(read, word.as_bytes()).is_none() {
            assert_ne!(stream.read_buf(read).await.expect("read"), 0, "ended");
        }
    })
    .await;
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let world = shipped().await;
    let token = caller(&world, "read:events");
    let mut stream = TcpStream::connect(world.gateway.address)
        .await
        .expect("connected");
    let head = format!(
        "GET /events HTTP/1.1\r\nhost: gateway\r\naccept: text/event-stream\r\nauthorization: Bearer {token}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sent");
    let mut read = Vec::new();
    until(&mut stream, &mut read, "text/event-stream").await;
    let user = json!({ "user_id": "auth0|507f1f77bcf86cd799439011" });
    world.auth.emit_event("user.updated", &user);
    until(&mut stream, &mut read, "event: user.updated").await;
    let refused = with_scope(&world, world.get("/events"), "read:users");
    assert_eq!(refused.send().await.status, 403);
}

/// Of the service itself the document has a heading only: who asks finds it at the admin listener.
#[tokio::test]
async fn health() {
    let world = shipped().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(world.gateway.admin("GET", path).await.status, 200, "{path}");
    }
    let credentials = basic("demo-client", "demo-secret");
    let form = [("grant_type", "client_credentials")];
    let reply = world.post(TOKEN).header("authorization", credentials);
    text(&good(reply.form(&form)).await, "access_token");
}
