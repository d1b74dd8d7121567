//! A day without the issuer, simulated: nothing is lost, then everything is refused, then all is well.

use crate::harness::{CONFIG, World, assert_refused, eventually, nobody};
use bonterra_gateway::demo::auth::AuthOptions;
use serde_json::json;
use std::time::Duration;

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
        // A minute short of the day at the end: the age of the keys counts from their fetch.
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
    let fetched = "gateway_jwks_last_success_timestamp_seconds{issuer=\"bonterra\"}";
    let at = world.gateway.metric(fetched).await;
    assert!(
        at >= (start + 86_400) as f64,
        "by the clock that keys age by"
    );
}
