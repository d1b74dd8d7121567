//! A handle on a route: looked up, judged as the token inside, and never seen upstream.

use super::*;
use crate::harness::{assert_refused, eventually, with_lines};
use serde_json::json;

#[tokio::test]
async fn a_handle_goes_upstream_as_the_token_inside() {
    let world = world().await;
    let gateway = world.gateway.address;
    let handles = user(&world, gateway).await;
    let reply = world.get("/grants/1").bearer(&handles.access).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let claims = upstream_claims(&world);
    assert_eq!(claims["sub"], "auth0|507f1f77bcf86cd799439011");
    let seen = world.echo.seen();
    let headers = &seen.last().expect("seen").headers;
    assert_eq!(
        headers["x-bonterra-subject"],
        "auth0%7C507f1f77bcf86cd799439011".replace("%7C", "|")
    );
    assert_eq!(headers["x-bonterra-is-grants"], "true");
    assert_eq!(headers.get_all("authorization").iter().count(), 1);
    // Rules of routes are those of the token.
    let reply = world.get("/scoped/1").bearer(&handles.access).send().await;
    assert_eq!(
        (reply.status, &reply.json()["reason"]),
        (403, &json!("insufficient_scope"))
    );
    let machine = machine(gateway).await;
    let reply = world.get("/scoped/1").bearer(&machine.access).send().await;
    assert_eq!(reply.status, 200);
    assert_no_handle_upstream(&world);
    assert_log_is_clean(&world.gateway);
}

#[tokio::test]
async fn what_is_no_handle_is_refused_and_goes_nowhere() {
    let world = world().await;
    let gateway = world.gateway.address;
    let handles = user(&world, gateway).await;
    let good = &handles.access;
    let other = if good.ends_with('A') { "B" } else { "A" };
    let rows = [
        handles.refresh().to_owned(),
        "bgw_".to_owned(),
        "bgw_at_".to_owned(),
        format!("bgw_at_{}", "A".repeat(75)),
        format!("{}{other}", &good[..good.len() - 1]),
        format!("{good}A"),
        good.replace("bgw_at_", "bgw_rt_"),
        good.replace("bgw_at_", "bgw_xx_"),
    ];
    for text in &rows {
        assert_dead(gateway, text).await;
    }
    let reply = world.get("/grants/1").bearer("bgw_at_x").send().await;
    assert_refused(&world.gateway, &reply, 401, "inactive_token", "grants").await;
    assert!(world.echo.seen().is_empty());
    // In two places it is as wrong as a token is.
    let twice = world
        .get("/grants/1")
        .bearer(good)
        .bearer(good)
        .send()
        .await;
    assert_eq!(twice.status, 400);
    let path = format!("/grants/1?access_token={good}");
    assert_eq!(world.get(&path).bearer(good).send().await.status, 400);
    assert!(world.echo.seen().is_empty());
    assert_log_is_clean(&world.gateway);
}

#[tokio::test]
async fn a_handle_that_nobody_looks_at_is_stripped() {
    let world = world().await;
    let handles = machine(world.gateway.address).await;
    let access = &handles.access;
    let token = world.auth.token();
    for value in [
        format!("Bearer {access}"),
        format!("DPoP {access}"),
        access.clone(),
        format!("Custom a={access}"),
    ] {
        for path in ["/public/1", "/optional/1"] {
            let reply = world.get(path).header("authorization", &value).send().await;
            assert_eq!(reply.status, 200, "{path} {}", reply.text());
        }
    }
    assert_no_handle_upstream(&world);
    // Tokens and other schemes pass as before.
    for value in [format!("Bearer {token}"), "Custom x".to_owned()] {
        world
            .get("/public/1")
            .header("authorization", &value)
            .send()
            .await;
        let seen = world.echo.seen();
        assert_eq!(seen.last().expect("seen").headers["authorization"], value);
    }
}

#[tokio::test]
async fn a_route_may_withhold_the_token() {
    let config = config().replace(
        "name = \"optional\"",
        "name = \"optional\"\nforward_token = false",
    );
    let world = World::with(&config).await;
    let handles = machine(world.gateway.address).await;
    assert_good(world.gateway.address, &handles.access).await;
    let seen = world.echo.seen();
    let headers = &seen.last().expect("seen").headers;
    assert!(!headers.contains_key("authorization"));
    assert!(headers.contains_key("x-bonterra-subject"));
}

#[tokio::test]
async fn a_handle_ends_with_its_token() {
    let world = World::of(living(100), &config()).await;
    let gateway = world.gateway.address;
    let handles = machine(gateway).await;
    assert!((98..=100).contains(&handles.expires_in));
    assert_good(gateway, &handles.access).await;
    advance(&world.gateway.app, 135);
    assert_reason(gateway, &handles.access, 401, "expired").await;
    // Then it is forgotten; what was found a moment ago is known for that moment.
    advance(&world.gateway.app, 100);
    eventually("forgotten", || async {
        let reply = call(gateway, &handles.access).await;
        assert_eq!(reply.status, 401);
        reply.json()["reason"] == "inactive_token"
    })
    .await;
}

#[tokio::test]
async fn what_is_revoked_inside_is_revoked_outside() {
    let world = world().await;
    let gateway = world.gateway.address;
    let handles = machine(gateway).await;
    assert_good(gateway, &handles.access).await;
    let seen = world.echo.seen();
    let token = seen.last().expect("seen").headers["authorization"].clone();
    let token = token.to_str().expect("text").trim_start_matches("Bearer ");
    let revoked = request(world.gateway.admin, "POST", "/-/revoke");
    let reply = revoked.json(&json!({ "token": token })).send().await;
    assert!(reply.status < 300, "{} {}", reply.status, reply.text());
    assert_reason(gateway, &handles.access, 401, "revoked").await;
}

#[tokio::test]
async fn limits_count_whose_handle_it_is() {
    let limit = "rate_limit = { rate = \"1/h\", burst = 2, by = \"subject\" }";
    let config = config().replace(
        "name = \"optional\"",
        &format!("name = \"optional\"\n{limit}"),
    );
    let world = World::with(&with_lines(&config, "[oauth.internal]", "")).await;
    let gateway = world.gateway.address;
    let (one, other) = (machine(gateway).await, user(&world, gateway).await);
    for _ in 0..2 {
        assert_good(gateway, &one.access).await;
    }
    assert_eq!(call(gateway, &one.access).await.status, 429);
    assert_good(gateway, &other.access).await;
}
