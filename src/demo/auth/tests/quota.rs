//! Rate limits and quotas.

use super::super::quota::Meter;
use super::*;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(1_000_000 + seconds)
}

#[test]
fn a_window_counts_ends_and_begins_again() {
    let mut meter = Meter::default();
    assert!(meter.request(Endpoint::Token, seconds(0)).is_none());
    let window = Duration::from_millis(2500);
    meter.limit(Endpoint::Token, Some(RateLimit { limit: 2, window }));
    let cases = [
        (0, false, "1", None),
        (1, false, "0", None),
        (1, true, "0", Some("2")),
        (2, true, "0", Some("1")),
        (3, false, "1", None),
    ];
    for (at, exceeded, remaining, retry_after) in cases {
        let told = meter.request(Endpoint::Token, seconds(at)).unwrap();
        let header = |name| told.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(told.exceeded, exceeded, "{at}");
        assert_eq!(header("x-ratelimit-limit"), Some("2"), "{at}");
        assert_eq!(header("x-ratelimit-remaining"), Some(remaining), "{at}");
        assert_eq!(header("retry-after"), retry_after, "{at}");
        let reset = if at < 3 { "1000003" } else { "1000006" };
        assert_eq!(header("x-ratelimit-reset"), Some(reset), "{at}");
    }
}

#[test]
fn a_quota_needs_room_in_the_hour_and_in_the_day() {
    let mut meter = Meter::default();
    let quota = ClientQuota {
        per_hour: Some(2),
        per_day: Some(3),
    };
    meter.quota("a", Some(quota));
    assert!(meter.token("b", seconds(0)).is_none(), "others have none");
    let cases = [
        (
            0,
            "b=per_hour;q=2;r=1;t=3600,b=per_day;q=3;r=2;t=86400",
            None,
        ),
        (
            60,
            "b=per_hour;q=2;r=0;t=3540,b=per_day;q=3;r=1;t=86340",
            None,
        ),
        (
            60,
            "b=per_hour;q=2;r=0;t=3540,b=per_day;q=3;r=1;t=86340",
            Some("3540"),
        ),
        (
            3600,
            "b=per_hour;q=2;r=1;t=3600,b=per_day;q=3;r=0;t=82800",
            None,
        ),
        (
            3600,
            "b=per_hour;q=2;r=1;t=3600,b=per_day;q=3;r=0;t=82800",
            Some("82800"),
        ),
        (
            86400,
            "b=per_hour;q=2;r=1;t=3600,b=per_day;q=3;r=2;t=86400",
            None,
        ),
    ];
    for (at, header, retry_after) in cases {
        let told = meter.token("a", seconds(at)).unwrap();
        let field = |name| told.headers.get(name).map(|value| value.to_str().unwrap());
        assert_eq!(field("auth0-client-quota-limit"), Some(header), "{at}");
        assert_eq!(field("retry-after"), retry_after, "{at}");
        assert_eq!(told.exceeded, retry_after.is_some(), "{at}");
    }
    meter.quota("a", None);
    assert!(meter.token("a", seconds(0)).unwrap().headers.is_empty());
}

#[tokio::test]
async fn limits_are_told_in_the_manner_of_each_api() {
    let auth = auth().await;
    let plenty = token(&auth, &machine(&[])).await;
    assert_eq!(plenty.header("x-ratelimit-limit"), "1000000");
    assert_eq!(plenty.header("x-ratelimit-remaining"), "999999");
    assert!(!plenty.headers.contains_key("auth0-client-quota-limit"));

    let none = Some(RateLimit {
        limit: 0,
        window: Duration::from_secs(60),
    });
    auth.set_rate_limit(Endpoint::Token, none);
    auth.set_rate_limit(Endpoint::Users, none);
    let limited = token(&auth, &machine(&[])).await;
    assert_eq!(limited.status, 429);
    assert_eq!(limited.header("retry-after"), "60");
    assert_eq!(limited.json()["error"], "too_many_requests");
    let limited = get(auth.addr(), "/api/v2/users").await.unwrap();
    assert_eq!(
        limited.text(),
        r#"{"statusCode":429,"error":"Too Many Requests","message":"Global limit has been reached","errorCode":"too_many_requests"}"#
    );
    auth.set_rate_limit(Endpoint::Token, None);
    let free = token(&auth, &machine(&[])).await;
    assert_eq!(free.status, 200);
    assert!(!free.headers.contains_key("x-ratelimit-limit"));
}

#[tokio::test]
async fn a_clients_quota_is_its_own() {
    let auth = auth().await;
    let quota = ClientQuota {
        per_hour: Some(1),
        per_day: None,
    };
    auth.set_client_quota(MACHINE_CLIENT, Some(quota));
    let mut wrong = machine(&[]);
    wrong[2] = ("client_secret", "wrong");
    assert_eq!(token(&auth, &wrong).await.status, 401);
    let first = token(&auth, &machine(&[])).await;
    assert_eq!(first.status, 200, "a wrong secret costs nothing");
    let told = "b=per_hour;q=1;r=0;t=3600";
    assert_eq!(first.header("auth0-client-quota-limit"), told);
    let second = token(&auth, &machine(&[])).await;
    assert_eq!(second.status, 429);
    assert_eq!(
        second.text(),
        r#"{"error":"too_many_requests","error_description":"Client quota exceeded"}"#
    );
    assert!(second.header("retry-after").parse::<u64>().unwrap() > 3500);
    assert!(
        second
            .header("auth0-client-quota-limit")
            .starts_with("b=per_hour;q=1;r=0;t=")
    );
    let other = [
        ("grant_type", "client_credentials"),
        ("client_id", BACKEND_CLIENT),
        ("client_secret", BACKEND_SECRET),
    ];
    assert_eq!(token(&auth, &other).await.status, 200);
    auth.set_client_quota(MACHINE_CLIENT, None);
    assert_eq!(token(&auth, &machine(&[])).await.status, 200);
}
