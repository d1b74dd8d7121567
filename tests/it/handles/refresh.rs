//! The refresh grant: all is renewed in one step, and a handle that comes twice ends the grant.

use super::*;
use bonterra_gateway::demo::auth::{Endpoint, Fault};
use futures_util::future::join_all;

#[tokio::test]
async fn a_refresh_renews_all_and_what_was_before_is_worth_nothing() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    assert_good(gateway, &first.access).await;
    let inside = upstream_token(&world);
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    assert_ne!(first.access, second.access);
    assert_ne!(first.refresh, second.refresh);
    assert_dead(gateway, &first.access).await;
    assert_good(gateway, &second.access).await;
    assert_ne!(inside, upstream_token(&world), "another token inside");
    // What the issuer got was its own refresh token, each time another.
    let asked = issuers_refresh_token(&world);
    assert!(asked.starts_with("v1."), "not a handle");
    let third = Handles::of(&refreshing(gateway, second.refresh()).send().await);
    assert_ne!(asked, issuers_refresh_token(&world));
    assert_good(gateway, &third.access).await;
    assert_no_handle_upstream(&world);
    assert_log_is_clean(&world.gateway);
}

fn upstream_token(world: &World) -> String {
    let seen = world.echo.seen();
    let token = &seen.last().expect("seen").headers["authorization"];
    token.to_str().expect("text").to_owned()
}

fn issuers_refresh_token(world: &World) -> String {
    let asked = world.auth.last_token_request().expect("asked");
    let mut form = asked.form().into_iter();
    let token = form.find(|(name, _)| name == "refresh_token");
    token.expect("a refresh token").1
}

#[tokio::test]
async fn an_issuer_that_does_not_rotate_goes_on_with_the_token_it_gave() {
    let options = AuthOptions {
        refresh_rotation: false,
        ..AuthOptions::default()
    };
    let world = World::of(options, &config()).await;
    let gateway = world.gateway.address;
    let mut handles = user(&world, gateway).await;
    for _ in 0..3 {
        let next = Handles::of(&refreshing(gateway, handles.refresh()).send().await);
        assert_dead(gateway, &handles.access).await;
        assert_good(gateway, &next.access).await;
        handles = next;
    }
}

#[tokio::test]
async fn equal_refreshes_at_one_time_get_one_answer() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    let slow = Fault::Slow(Duration::from_millis(200));
    world.auth.set_fault_for(Endpoint::Token, slow, 1);
    let before = world.auth.counts().token;
    let asked = (0..20).map(|_| async { refreshing(gateway, first.refresh()).send().await });
    let replies = join_all(asked).await;
    let second = Handles::of(&replies[0]);
    for reply in &replies {
        assert_eq!(reply.body, replies[0].body);
        Handles::of(reply);
    }
    assert_eq!(world.auth.counts().token, before + 1);
    // And for a moment afterwards.
    let late = refreshing(gateway, first.refresh()).send().await;
    assert_eq!(late.body, replies[0].body);
    assert_eq!(world.auth.counts().token, before + 1);
    assert_good(gateway, &second.access).await;
    Handles::of(&refreshing(gateway, second.refresh()).send().await);
}

#[tokio::test]
async fn a_client_that_leaves_does_not_lose_the_grant() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    let slow = Fault::Slow(Duration::from_millis(300));
    world.auth.set_fault_for(Endpoint::Token, slow, 1);
    let before = world.auth.counts().token;
    let asked = refreshing(gateway, first.refresh());
    let gone = tokio::spawn(async move { asked.try_send().await.is_ok() });
    crate::harness::eventually("the issuer is asked", || async {
        world.auth.counts().token == before + 1
    })
    .await;
    gone.abort();
    // Within the moment the same client gets what it missed.
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    assert_eq!(world.auth.counts().token, before + 1);
    assert_good(gateway, &second.access).await;
}

#[tokio::test]
async fn a_handle_that_was_used_before_ends_the_grant() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    advance(&world.gateway.app, 5);
    let before = world.auth.counts().token;
    let reply = refreshing(gateway, first.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    assert_dead(gateway, &second.access).await;
    let reply = refreshing(gateway, second.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    assert_eq!(world.auth.counts().token, before, "the issuer is not asked");
    let series = "gateway_oauth_requests_total{endpoint=\"token\",grant=\"refresh_token\",outcome=\"invalid_grant\",surface=\"internal\"}";
    assert_eq!(world.gateway.metric(series).await, 2.0);
}

#[tokio::test]
async fn who_has_another_secret_gets_no_answer_of_somebody_elses() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = backend_user(&world).await;
    let right = backend();
    let wrong = basic(BACKEND_CLIENT, "wrong");
    // Not its own client: as if it were nothing, and nothing happens to the grant.
    let reply = refreshing(gateway, first.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    // The issuer says so of a wrong secret, and the grant goes on.
    let reply = refreshing_backend(gateway, first.refresh(), &wrong)
        .send()
        .await;
    assert_error(&reply, 401, "access_denied");
    let second = refreshing_backend(gateway, first.refresh(), &right)
        .send()
        .await;
    let second = Handles::of(&second);
    assert_good(gateway, &second.access).await;
    // Who has an old handle and not the secret has stolen it.
    let reply = refreshing_backend(gateway, first.refresh(), &wrong)
        .send()
        .await;
    assert_error(&reply, 400, "invalid_grant");
    assert_dead(gateway, &second.access).await;
}

#[tokio::test]
async fn what_is_no_refresh_handle_is_never_sent_on() {
    let world = world().await;
    let gateway = world.gateway.address;
    let handles = user(&world, gateway).await;
    Handles::of(&refreshing(gateway, handles.refresh()).send().await);
    let real = issuers_refresh_token(&world);
    let before = world.auth.counts().token;
    for text in [
        handles.access.as_str(),
        "bgw_rt_x",
        "v1.made-up",
        // The issuer's own, whoever has got hold of it.
        &real,
    ] {
        let reply = refreshing(gateway, text).send().await;
        assert_error(&reply, 400, "invalid_grant");
    }
    assert_eq!(world.auth.counts().token, before);
}

#[tokio::test]
async fn an_answer_that_is_lost_is_not_asked_for_again() {
    let world = world().await;
    let gateway = world.gateway.address;
    for (fault, status) in [
        (Fault::LoseReply, 502),
        (Fault::CutBody, 502),
        (Fault::Garbage, 502),
        (Fault::Hang, 504),
        (Fault::CutAfterRequest, 502),
    ] {
        let first = user(&world, gateway).await;
        let before = world.auth.counts().token;
        world.auth.set_fault_for(Endpoint::Token, fault.clone(), 1);
        // Others wait for an answer that does not come. Where it is over at once they may come after
        // it, and then they are requests of their own.
        let crowd = if status == 504 { 4 } else { 1 };
        let asked = (0..crowd).map(|_| async { refreshing(gateway, first.refresh()).send().await });
        let mut replies = join_all(asked).await;
        replies.sort_by_key(|reply| reply.status != status);
        assert_eq!(replies[0].status, status, "{}", replies[0].text());
        for other in &replies[1..] {
            assert_error(other, 503, "temporarily_unavailable");
            assert_eq!(other.header("retry-after"), Some("5"));
        }
        assert_eq!(world.auth.counts().token, before + 1, "sent once");
        // The token that is there goes on.
        assert_good(gateway, &first.access).await;
    }
}

#[tokio::test]
async fn refusals_of_the_issuer_pass_and_change_nothing() {
    let world = world().await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    world
        .auth
        .set_fault_for(Endpoint::Token, Fault::throttled(3), 1);
    let reply = refreshing(gateway, first.refresh()).send().await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("3"))
    );
    assert_good(gateway, &first.access).await;
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    assert_good(gateway, &second.access).await;
}

#[tokio::test]
async fn a_refresh_handle_outlives_its_token_and_ends_in_its_own_time() {
    let settings = config_with("refresh_lifetime = \"1h\"");
    let world = World::of(living(100), &settings).await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    advance(&world.gateway.app, 3000);
    assert_reason(gateway, &first.access, 401, "expired").await;
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    advance(&world.gateway.app, 3700);
    let reply = refreshing(gateway, second.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
}

/// Some issuers say in their errors what they were sent: here that is what clients never see.
#[tokio::test]
async fn an_error_that_quotes_the_issuers_refresh_token_is_told_without_it() {
    let options = AuthOptions {
        refresh_rotation: false,
        ..AuthOptions::default()
    };
    let world = World::of(options, &config()).await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    let second = Handles::of(&refreshing(gateway, first.refresh()).send().await);
    let real = issuers_refresh_token(&world);
    let escaped = format!("\\u0076{}", &real[1..]);
    for quoted in [&real, &escaped] {
        let body = format!(r#"{{"error":"invalid_grant","error_description":"no {quoted} here"}}"#);
        let fault = Fault::Status(400, "application/json".to_owned(), body);
        world.auth.set_fault_for(Endpoint::Token, fault, 1);
        let reply = refreshing(gateway, second.refresh()).send().await;
        assert_error(&reply, 400, "invalid_grant");
        assert!(!reply.json().to_string().contains(&real));
    }
    Handles::of(&refreshing(gateway, second.refresh()).send().await);
}

#[tokio::test]
async fn a_handle_in_another_place_goes_to_no_issuer() {
    let world = world().await;
    let handles = user(&world, world.gateway.address).await;
    let before = world.auth.counts().token;
    for path in [TOKEN, "/oauth/token"] {
        for name in ["refresh_token", "code", "assertion", "subject_token"] {
            for handle in [handles.refresh(), &handles.access] {
                let mut form = MACHINE.to_vec();
                form.push((name, handle));
                let reply = world.post(path).form(&form).send().await;
                assert_error(&reply, 400, "invalid_grant");
            }
        }
    }
    assert_eq!(world.auth.counts().token, before);
}

#[tokio::test]
async fn a_refresh_handle_ends_in_its_time_whatever_is_done_with_its_grant() {
    let settings = config_with("lifetime = \"10h\"\nrefresh_lifetime = \"1h\"");
    let world = World::of(living(20_000), &settings).await;
    let gateway = world.gateway.address;
    let first = user(&world, gateway).await;
    advance(&world.gateway.app, 3500);
    // A try that fails does not make it live longer.
    world
        .auth
        .set_fault_for(Endpoint::Token, Fault::throttled(3), 1);
    let reply = refreshing(gateway, first.refresh()).send().await;
    assert_eq!(reply.status, 429);
    advance(&world.gateway.app, 200);
    let before = world.auth.counts().token;
    let reply = refreshing(gateway, first.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    assert_eq!(world.auth.counts().token, before);
    assert_good(gateway, &first.access).await;
}
