//! `lifetime`: a handle that outlives its token, which the gateway renews by itself.

use super::*;
use crate::harness::eventually;
use bonterra_gateway::demo::auth::{Endpoint, Fault};
use futures_util::future::join_all;

const LIFETIME: &str = "lifetime = \"10h\"";

async fn lab(seconds: u64) -> (World, Handles) {
    let world = World::of(living(seconds), &config_with(LIFETIME)).await;
    let handles = user(&world, world.gateway.address).await;
    assert!((35_990..=36_000).contains(&handles.expires_in));
    (world, handles)
}

fn token(world: &World) -> String {
    let seen = world.echo.seen();
    let token = &seen.last().expect("seen").headers["authorization"];
    token.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_token_is_renewed_in_the_background_before_it_ends() {
    let (world, handles) = lab(1000).await;
    let gateway = world.gateway.address;
    let asked = world.auth.counts().token;
    advance(&world.gateway.app, 750);
    assert_good(gateway, &handles.access).await;
    assert_eq!(world.auth.counts().token, asked, "too early");
    let before = token(&world);
    advance(&world.gateway.app, 70);
    let calls = (0..10).map(|_| async { call(gateway, &handles.access).await.status });
    assert!(join_all(calls).await.iter().all(|status| *status == 200));
    eventually("another token upstream", || async {
        assert_good(gateway, &handles.access).await;
        token(&world) != before
    })
    .await;
    assert_eq!(world.auth.counts().token, asked + 1, "one at a time");
    // Handles stay as they are, and the refresh handle is good for the new refresh token.
    let next = Handles::of(&refreshing(gateway, handles.refresh()).send().await);
    assert_good(gateway, &next.access).await;
    assert_log_is_clean(&world.gateway);
}

#[tokio::test]
async fn a_token_that_has_ended_is_waited_for() {
    let (world, handles) = lab(1000).await;
    let gateway = world.gateway.address;
    let asked = world.auth.counts().token;
    // What the issuer gives by its own clock has ended by ours as well, and is let in for `leeway`.
    advance(&world.gateway.app, 1005);
    let calls = (0..10).map(|_| async { call(gateway, &handles.access).await.status });
    let statuses = join_all(calls).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(world.auth.counts().token, asked + 1, "for all of them");
}

#[tokio::test]
async fn an_issuer_that_fails_costs_no_request_and_no_second_try() {
    let (world, handles) = lab(1000).await;
    let gateway = world.gateway.address;
    advance(&world.gateway.app, 820);
    let asked = world.auth.counts().token;
    world
        .auth
        .set_fault(Endpoint::Token, Some(Fault::LoseReply));
    for _ in 0..5 {
        assert_good(gateway, &handles.access).await;
    }
    eventually("the issuer is asked", || async {
        world.auth.counts().token == asked + 1
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    advance(&world.gateway.app, 60);
    assert_good(gateway, &handles.access).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_good(gateway, &handles.access).await;
    assert_eq!(world.auth.counts().token, asked + 1, "never sent again");
    advance(&world.gateway.app, 200);
    assert_reason(gateway, &handles.access, 401, "expired").await;
    assert_eq!(world.auth.counts().token, asked + 1);
}

#[tokio::test]
async fn an_issuer_that_puts_it_off_is_asked_later() {
    let (world, handles) = lab(1000).await;
    let gateway = world.gateway.address;
    advance(&world.gateway.app, 820);
    let asked = world.auth.counts().token;
    world
        .auth
        .set_fault_for(Endpoint::Token, Fault::throttled(1), 1);
    assert_good(gateway, &handles.access).await;
    eventually("the issuer is asked", || async {
        world.auth.counts().token == asked + 1
    })
    .await;
    let before = token(&world);
    advance(&world.gateway.app, 10);
    eventually("another token upstream", || async {
        assert_good(gateway, &handles.access).await;
        token(&world) != before
    })
    .await;
    assert_eq!(world.auth.counts().token, asked + 2);
}

#[tokio::test]
async fn a_handle_ends_when_its_lifetime_does() {
    let world = World::of(living(1000), &config_with("lifetime = \"1200s\"")).await;
    let gateway = world.gateway.address;
    let handles = user(&world, gateway).await;
    advance(&world.gateway.app, 1201);
    let asked = world.auth.counts().token;
    assert_reason(gateway, &handles.access, 401, "expired").await;
    assert_eq!(world.auth.counts().token, asked);
    // Machines have nothing to renew with: their handles end with their tokens.
    let machine = machine(gateway).await;
    assert!(machine.expires_in <= 1000);
}

#[tokio::test]
async fn a_refresh_whose_answer_was_lost_is_not_repeated_by_the_gateway() {
    let (world, handles) = lab(1000).await;
    let gateway = world.gateway.address;
    world
        .auth
        .set_fault_for(Endpoint::Token, Fault::LoseReply, 1);
    let reply = refreshing(gateway, handles.refresh()).send().await;
    assert_eq!(reply.status, 502);
    let asked = world.auth.counts().token;
    assert_good(gateway, &handles.access).await;
    advance(&world.gateway.app, 1080);
    assert_reason(gateway, &handles.access, 401, "expired").await;
    assert_eq!(world.auth.counts().token, asked);
}
