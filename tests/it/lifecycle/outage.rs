//! A day without the issuer, simulated: nothing is lost, then everything is refused, then all is well.

use crate::harness::{CONFIG, World, assert_refused, eventually, nobody, with_lines};
use bonterra_gateway::demo::auth::AuthOptions;
use serde_json::json;
use std::time::Duration;

const FETCHED: &str = "gateway_jwks_last_success_timestamp_seconds{issuer=\"bonterra\"}";
const FRESH_UNTIL: &str = "gateway_jwks_fresh_until_timestamp_seconds{issuer=\"bonterra\"}";

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_day_without_the_issuer_costs_no_valid_request() {
    let options = AuthOptions {
        listen: nobody(),
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let clock = world.gateway.app.clock();
    let start = clock.now();
    let token = |number: u32| {
        world.token_with(json!({ "jti": number.to_string(), "exp": start + 7 * 86_400 }))
    };
    let known = token(0);
    let grants = world.get("/grants/1").bearer(&known);
    assert_eq!(grants.send().await.status, 200);

    world.auth.stop().await;
    let mut served = 1;
    for hour in 1..=24 {
        // A minute short of the day at the end: requests take time too.
        clock.advance(if hour == 24 {
            HOUR - Duration::from_secs(60)
        } else {
            HOUR
        });
        // One that is known, and one that is not.
        for token in [&known, &token(hour)] {
            let reply = world.get("/grants/1").bearer(token).send().await;
            assert_eq!(reply.status, 200, "after {hour} hours: {}", reply.text());
            served += 1;
        }
        assert_eq!(world.gateway.admin("GET", "/readyz").await.status, 200);
    }
    assert!(clock.now() - start >= 86_400 - 60);
    assert_eq!(world.echo.seen().len(), served);

    clock.advance(Duration::from_secs(120));
    for token in [&known, &token(25)] {
        let reply = world.get("/grants/1").bearer(token).send().await;
        assert_refused(&world.gateway, &reply, 503, "keys_unavailable", "grants").await;
        let after = reply
            .header("retry-after")
            .and_then(|value| value.parse::<u32>().ok());
        assert!(after.is_some(), "Retry-After in seconds");
        assert_eq!(
            reply.header("www-authenticate"),
            None,
            "the token may well be good"
        );
    }
    assert_eq!(
        world.echo.seen().len(),
        served,
        "what was refused went nowhere"
    );
    assert_eq!(
        world.gateway.admin("GET", "/readyz").await.status,
        200,
        "other gateways would know no more"
    );

    world.auth.restart().await.expect("the same port");
    eventually("served again", async || grants.send().await.status == 200).await;
    let at = world.gateway.metric(FETCHED).await;
    assert!(
        at >= (start + 86_400) as f64,
        "by the clock that keys age by"
    );
}

/// What the issuer allows comes first, then what the configuration allows.
#[tokio::test]
async fn max_stale_begins_where_freshness_ends() {
    let options = AuthOptions {
        listen: nobody(),
        jwks_cache_control: "max-age=86400".to_owned(),
        ..AuthOptions::default()
    };
    let config = with_lines(CONFIG, "[issuer.bonterra.jwks]", "max_stale = \"1h\"");
    let world = World::of(options, &config).await;
    let clock = world.gateway.app.clock();
    let token = world.token_with(json!({ "exp": clock.now() + 7 * 86_400 }));
    let grants = world.get("/grants/1").bearer(&token);
    let fetched = world.gateway.metric(FETCHED).await;
    assert_eq!(world.gateway.metric(FRESH_UNTIL).await, fetched + 86_400.0);

    clock.advance(HOUR * 2);
    assert_eq!(grants.send().await.status, 200, "the issuer is well");
    assert_eq!(world.auth.counts().jwks, 1, "and need not be asked");
    world.auth.stop().await;
    clock.advance(HOUR * 23 - Duration::from_secs(60));
    assert_eq!(grants.send().await.status, 200, "nearly an hour stale");
    clock.advance(Duration::from_secs(120));
    let reply = grants.send().await;
    assert_refused(&world.gateway, &reply, 503, "keys_unavailable", "grants").await;
    assert_eq!(world.echo.seen().len(), 2);
}

/// A machine that was suspended, or whose clock was set: the time to fetch was slept through.
#[tokio::test]
async fn a_clock_that_jumps_past_everything_costs_a_moment() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=86400".to_owned(),
        ..AuthOptions::default()
    };
    for remembered in [true, false] {
        let world = World::of(options.clone(), CONFIG).await;
        let clock = world.gateway.app.clock();
        let token = world.token_with(json!({ "exp": clock.now() + 7 * 86_400 }));
        let grants = world.get("/grants/1").bearer(&token);
        if remembered {
            assert_eq!(grants.send().await.status, 200);
        }
        clock.advance(HOUR * 72);
        let reply = grants.send().await;
        assert_refused(&world.gateway, &reply, 503, "keys_unavailable", "grants").await;
        eventually("served again", async || grants.send().await.status == 200).await;
        assert_eq!(world.auth.counts().jwks, 2, "asked once");
    }
}

/// A gateway whose clock is five minutes fast or slow, with the `leeway` that this takes: tokens in use, tokens that
/// have just been issued and new keys hold, and so do they when the clock is put right. A token that ended before
/// that is refused all the same.
#[tokio::test]
async fn a_clock_five_minutes_off_costs_nothing() {
    const OFF: Duration = Duration::from_secs(300);
    let config = with_lines(CONFIG, "[issuer.bonterra]", "leeway = \"5m\"");
    for ahead in [true, false] {
        let world = World::with(&config).await;
        let clock = world.gateway.app.clock();
        let start = clock.now();
        let known = world.auth.token();
        let mut number = 0;
        let mut all_is_well = async |case: &str| {
            number += 1;
            // At the issuer, time goes on as ever.
            let times =
                json!({ "iat": start, "nbf": start, "exp": start + 60, "jti": number.to_string() });
            for token in [&known, &world.token_with(times), &known] {
                let reply = world.get("/grants/1").bearer(token).send().await;
                assert_eq!(reply.status, 200, "{case}, {ahead}: {}", reply.text());
            }
            let over = world.token_with(json!({ "iat": start - 900, "exp": start - 610 }));
            let reply = world.get("/grants/1").bearer(&over).send().await;
            assert_refused(&world.gateway, &reply, 401, "expired", "grants").await;
            assert_eq!(world.gateway.admin("GET", "/readyz").await.status, 200);
        };
        all_is_well("right").await;
        if ahead {
            clock.advance(OFF);
        } else {
            clock.set_back(OFF);
        }
        all_is_well("off").await;
        world.auth.rotate();
        all_is_well("off, with another key").await;
        if ahead {
            clock.set_back(OFF);
        } else {
            clock.advance(OFF);
        }
        all_is_well("right again").await;
        assert_eq!(world.echo.requests(), 12);
    }
}
