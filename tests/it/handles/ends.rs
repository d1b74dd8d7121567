//! How a grant ends, and what is told of its handles: `POST {prefix}/revoke` and `/introspect`.

use super::{
    Handles, SURFACE, assert_dead, assert_good, assert_no_handle_upstream, backend, backend_user,
    basic, call, machine, refreshing, user,
};
use crate::harness::{CONFIG, Reply, World, with_lines};
use bonterra_gateway::demo::auth::{Endpoint, Fault, WEB_CLIENT};
use serde_json::json;

/// Both surfaces tell the same client what tokens are worth.
async fn world() -> World {
    let clients = "introspect_clients = [{ id = \"api\", secret = \"canary-secret\" }]";
    let config = with_lines(&format!("{CONFIG}{SURFACE}"), "[oauth.internal]", clients);
    World::with(&with_lines(&config, "[oauth.bonterra]", clients)).await
}

async fn revoke(world: &World, path: &str, handle: &str) -> Reply {
    let form = [("token", handle), ("client_id", WEB_CLIENT)];
    let reply = world.post(path).form(&form).send().await;
    assert_eq!(
        (reply.status, reply.body.len()),
        (200, 0),
        "{}",
        reply.text()
    );
    reply
}

async fn introspect(world: &World, path: &str, token: &str) -> Reply {
    let asked = world
        .post(path)
        .header("authorization", basic("api", "canary-secret"));
    let reply = asked.form(&[("token", token)]).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply
}

/// The JWT that an upstream gets for a handle.
async fn inside(world: &World, handle: &str) -> String {
    let saw = call(world.gateway.address, handle)
        .await
        .upstream_saw("authorization");
    let value = saw.first().expect("a token");
    value
        .strip_prefix("Bearer ")
        .expect("a bearer token")
        .to_owned()
}

#[tokio::test]
async fn either_handle_ends_both_and_what_is_inside() {
    let world = world().await;
    let address = world.gateway.address;
    for by_refresh_handle in [false, true] {
        let handles = user(&world, address).await;
        let jwt = inside(&world, &handles.access).await;
        let before = world.auth.counts().revoke;
        let handle = match by_refresh_handle {
            true => handles.refresh(),
            false => &handles.access,
        };
        revoke(&world, "/oauth20/revoke", handle).await;
        assert_dead(address, &handles.access).await;
        let refused = refreshing(address, handles.refresh()).send().await;
        assert_eq!(refused.json()["error"], "invalid_grant");
        // The token inside has been seen by upstreams.
        let shown = call(address, &jwt).await;
        assert_eq!(shown.json()["reason"], "revoked");
        assert_eq!(world.auth.counts().revoke, before + 1);
        let asked = world.auth.last_request(Endpoint::Revoke).expect("asked");
        let fields: Vec<_> = form_urlencoded::parse(&asked.body).into_owned().collect();
        let token = fields.iter().find(|(name, _)| name == "token");
        assert!(token.is_some_and(|(_, token)| token.starts_with("v1.")));
        // To end it twice does no harm.
        revoke(&world, "/oauth20/revoke", handle).await;
        assert_eq!(world.auth.counts().revoke, before + 1);
    }
    assert_no_handle_upstream(&world);
}

#[tokio::test]
async fn a_machines_handle_ends_without_the_issuer() {
    let world = world().await;
    let handles = machine(world.gateway.address).await;
    let form = [
        ("token", handles.access.as_str()),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let reply = world.post("/oauth20/revoke").form(&form).send().await;
    assert_eq!(reply.status, 200);
    assert_dead(world.gateway.address, &handles.access).await;
    assert_eq!(world.auth.counts().revoke, 0);
}

/// A machine's token that is given again stands behind handles that go on; a user's never does.
#[tokio::test]
async fn a_users_token_ends_with_its_handles_where_machines_share_theirs() {
    let cache = "[oauth.internal.cache]\nenabled = true\n";
    let world = World::with(&format!("{CONFIG}{SURFACE}{cache}")).await;
    let address = world.gateway.address;
    let (one, other) = (machine(address).await, machine(address).await);
    let form = [
        ("token", one.access.as_str()),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let reply = world.post("/oauth20/revoke").form(&form).send().await;
    assert_eq!(reply.status, 200);
    assert_dead(address, &one.access).await;
    assert_good(address, &other.access).await;

    let handles = user(&world, address).await;
    let jwt = inside(&world, &handles.access).await;
    revoke(&world, "/oauth20/revoke", &handles.access).await;
    assert_dead(address, &handles.access).await;
    assert_eq!(call(address, &jwt).await.json()["reason"], "revoked");
}

/// Nobody is told whether there was anything to end (RFC 7009 §2.2), and a handle goes to no issuer.
#[tokio::test]
async fn who_has_no_say_ends_nothing() {
    let world = world().await;
    let handles: Handles = backend_user(&world).await;
    revoke(&world, "/oauth20/revoke", &handles.access).await;
    revoke(&world, "/oauth/revoke", &handles.access).await;
    revoke(&world, "/oauth20/revoke", "bgw_at_invented").await;
    assert_good(world.gateway.address, &handles.access).await;
    assert_eq!(world.auth.counts().revoke, 0);
    let form = [("token", handles.access.as_str())];
    let own = world
        .post("/oauth20/revoke")
        .header("authorization", backend());
    assert_eq!(own.form(&form).send().await.status, 200);
    assert_dead(world.gateway.address, &handles.access).await;
}

#[tokio::test]
async fn the_gateway_comes_first_and_the_issuer_may_be_away() {
    let world = world().await;
    let handles = user(&world, world.gateway.address).await;
    world
        .auth
        .set_fault(Endpoint::Revoke, Some(Fault::CutAfterRequest));
    revoke(&world, "/oauth20/revoke", &handles.access).await;
    assert_dead(world.gateway.address, &handles.access).await;
    assert_eq!(world.auth.counts().revoke, 1, "asked once");
}

#[tokio::test]
async fn what_a_handle_is_worth_is_told_of_the_token_inside() {
    let world = world().await;
    let handles = user(&world, world.gateway.address).await;
    let told = introspect(&world, "/oauth20/introspect", &handles.access).await;
    assert!(!told.text().contains("eyJ"));
    let told = told.json();
    assert_eq!(told["active"], json!(true));
    assert_eq!(told["client_id"], json!(WEB_CLIENT));
    assert_eq!(told["sub"], json!("auth0|507f1f77bcf86cd799439011"));
    let jwt = inside(&world, &handles.access).await;
    let of_jwt = introspect(&world, "/oauth20/introspect", &jwt).await;
    assert_eq!(of_jwt.json(), told);
    let inactive = br#"{"active":false}"#;
    for (path, text) in [
        ("/oauth20/introspect", handles.refresh()),
        ("/oauth20/introspect", "bgw_at_invented"),
        ("/oauth/introspect", &handles.access),
    ] {
        let told = introspect(&world, path, text).await;
        assert_eq!(&told.body[..], inactive, "{path} {text}");
    }
    revoke(&world, "/oauth20/revoke", handles.refresh()).await;
    for text in [&handles.access, &jwt] {
        let told = introspect(&world, "/oauth20/introspect", text).await;
        assert_eq!(&told.body[..], inactive);
    }
}

/// What a user's handles stand for is nobody else's, though machines are given tokens again.
#[tokio::test]
async fn a_users_token_ends_where_tokens_of_machines_are_given_again() {
    let config = format!("{CONFIG}{SURFACE}\n[oauth.internal.cache]\nenabled = true\n");
    let world = World::with(&config).await;
    let address = world.gateway.address;
    let handles = user(&world, address).await;
    let jwt = inside(&world, &handles.access).await;
    revoke(&world, "/oauth20/revoke", &handles.access).await;
    assert_eq!(call(address, &jwt).await.json()["reason"], "revoked");
    let (one, other) = (machine(address).await, machine(address).await);
    let form = [
        ("token", one.access.as_str()),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let reply = world.post("/oauth20/revoke").form(&form).send().await;
    assert_eq!(reply.status, 200);
    assert_dead(address, &one.access).await;
    assert_good(address, &other.access).await;
}
