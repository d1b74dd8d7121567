//! Client libraries as their users would use them, on Node.js: openid-client and oauth4webapi. Each script goes
//! through all flows and tells what came of them.
//!
//! The issuer's metadata passes the gateway under the issuer's own name, which is what tokens have as `iss`. So both
//! libraries are told that name, fetch the document from the gateway, and use the gateway's endpoints in place of the
//! issuer's. That they refuse it under the gateway's name is part of the story (RFC 8414 §3.3).

use crate::harness::program::said;
use crate::harness::real::tool;
use crate::harness::{CONFIG, World, with_lines};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// Whom the gateway answers at its introspection endpoint.
const ASKER: (&str, &str) = ("resource-server", "resource-secret");

const SCRIPTS: [(&str, &str); 3] = [
    ("common.mjs", include_str!("common.mjs")),
    ("openid-client.mjs", include_str!("openid-client.mjs")),
    ("oauth4webapi.mjs", include_str!("oauth4webapi.mjs")),
];

async fn world() -> World {
    // Without the window a refresh token that is used twice is seen as such at once.
    let (id, secret) = ASKER;
    let lines = format!(
        "refresh_window = \"0s\"\nintrospect_clients = [{{ id = \"{id}\", secret = \"{secret}\" }}]"
    );
    World::with(&with_lines(CONFIG, "[oauth.bonterra]", &lines)).await
}

/// Runs a script beside its packages; what it tells.
async fn story(world: &World, script: &str) -> Value {
    let packages = Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/target/tools/clients/node_modules"
    ));
    assert!(
        packages.join("openid-client").exists(),
        "client libraries of other makers are missing: `make test` provides them"
    );
    let folder = TempDir::new().expect("a folder");
    for (name, text) in SCRIPTS {
        fs::write(folder.path().join(name), text).expect("written");
    }
    std::os::unix::fs::symlink(packages, folder.path().join("node_modules")).expect("a link");
    let client = |id: &str, secret: &str| json!({ "id": id, "secret": secret });
    let told = json!({
        "gateway": format!("http://{}", world.gateway.address),
        "issuer": world.auth.issuer(),
        "machine": client("demo-client", "demo-secret"),
        "web": { "id": "demo-web" },
        "backend": client("demo-backend", "backend-secret"),
        "asker": client(ASKER.0, ASKER.1),
    });
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(tool("node"))
        .arg(folder.path().join(script))
        .arg(told.to_string())
        .stdin(Stdio::null());
    let said = said(command).await;
    assert_eq!(said.code, Some(0), "{script}: {}", said.stderr);
    serde_json::from_str(&said.stdout).expect("a story")
}

/// What both libraries have to tell.
fn expected() -> Value {
    // What each library makes of a refusal with a challenge, and of one that is told in the body.
    let challenged = |scheme: &str| json!({ "code": "OAUTH_WWW_AUTHENTICATE_CHALLENGE", "status": 401, "scheme": scheme });
    let invalid_token = || {
        let mut refusal = challenged("bearer");
        refusal["reason"] = json!("invalid_token");
        refusal
    };
    let told = |status: u16, error: &str| json!({ "code": "OAUTH_RESPONSE_BODY_ERROR", "status": status, "error": error });
    let machine = json!({ "type": "bearer", "lifetime": 86400, "call": 200 });
    let person = json!({ "type": "bearer", "email": "user@example.com", "call": 200 });
    json!({
        "discovery_as_the_gateway": { "code": "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED" },
        "discovered": true,
        "machine": {
            "basic": machine,
            "wrong basic": challenged("basic"),
            "post": machine,
            "wrong post": told(401, "access_denied"),
        },
        "no_token": invalid_token(),
        "person": { "public": person, "basic": person, "post": person },
        "wrong_verifier": told(403, "invalid_grant"),
        "refreshed": { "different": 3, "call": 200 },
        "no_refresh": told(403, "invalid_grant"),
        "introspected": { "active": true, "iss": true, "sub": true },
        "stranger": challenged("basic"),
        "revoked": invalid_token(),
        "introspected_after": { "active": false },
        "revoked_refresh": told(403, "invalid_grant"),
        "reused": told(403, "invalid_grant"),
        "ended": told(403, "invalid_grant"),
    })
}

/// What the issuer and the API saw of it: nothing that the gateway refuses by itself.
fn assert_seen(world: &World) {
    let counts = world.auth.counts();
    // Machines: right and wrong, in two ways. People: three, a wrong verifier, the one who refreshes. Refreshed: twice,
    // and once with nothing. After that with what was revoked; another who refreshes, with the token of before, and with
    // what had ended.
    assert_eq!(counts.token, 4 + 5 + 3 + 1 + 4);
    assert_eq!(counts.userinfo, 3);
    assert_eq!(counts.introspect, 0, "the gateway judges JWTs itself");
    assert_eq!(world.echo.seen().len(), 2 + 3 + 1);
}

#[tokio::test]
async fn openid_client_goes_through_all_flows() {
    let world = world().await;
    let story = story(&world, "openid-client.mjs").await;
    assert_eq!(story, expected());
    assert_seen(&world);
}

#[tokio::test]
async fn oauth4webapi_goes_through_all_flows() {
    let world = world().await;
    let mut story = story(&world, "oauth4webapi.mjs").await;
    // It reads the gateway's metadata as a protected resource as well (RFC 9728).
    assert_eq!(story["resource"].take(), json!(true));
    story.as_object_mut().expect("an object").remove("resource");
    assert_eq!(story, expected());
    assert_seen(&world);
}
