use super::*;
use crate::identity::{Claims, Members, Scopes};
use governor::clock::FakeRelativeClock;
use serde_json::{Value, json};
use std::collections::BTreeSet;

fn spec(by: By, period: Duration, burst: u32) -> Spec {
    Spec {
        route: "grants".into(),
        by,
        period,
        burst: NonZeroU32::new(burst).expect("not zero"),
        rate: "100/s".into(),
    }
}

fn counter() -> IntCounter {
    IntCounter::new("x", "x").expect("a counter")
}

fn rule<C: Clock>(spec: Spec, cells: &Cells, clock: C) -> Arc<Rule<C>> {
    Arc::new(Rule::new(spec, cells, clock, counter()))
}

fn identity(issuer: &str, claims: Value) -> Arc<Identity> {
    let Value::Object(map) = claims else {
        panic!("claims are an object")
    };
    let members = map.into_iter().map(|(name, value)| (name.into(), value));
    let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
    Arc::new(Identity {
        bound_to: None,
        issuer: issuer.into(),
        scopes: Scopes::default(),
        claims,
        expires_at: 0,
        not_before: None,
        headers: Box::default(),
    })
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

const LOCAL: &str = "127.0.0.1";

#[test]
fn a_burst_then_one_for_each_period() {
    let clock = FakeRelativeClock::default();
    let period = Duration::from_millis(10);
    let rule = rule(
        spec(By::Address, period, 5),
        &Cells::default(),
        clock.clone(),
    );
    let take = || rule.ask(None, address(LOCAL)).take();
    for left in (0..5).rev() {
        assert_eq!(take(), Taken::Admitted { left });
    }
    assert_eq!(take(), Taken::Refused { wait: period });
    clock.advance(Duration::from_millis(4));
    let wait = Duration::from_millis(6);
    assert_eq!(take(), Taken::Refused { wait });
    clock.advance(wait);
    assert_eq!(take(), Taken::Admitted { left: 0 });
    assert_eq!(take(), Taken::Refused { wait: period });
    // However long the pause, no more than the burst has gathered.
    clock.advance(Duration::from_secs(3600));
    let passed = (0..100)
        .filter(|_| matches!(take(), Taken::Admitted { .. }))
        .count();
    assert_eq!(passed, 5);
}

#[test]
fn no_two_callers_share_a_count() {
    let cells = Cells::default();
    let clock = FakeRelativeClock::default();
    let tokens = [
        identity("one", json!({"azp": "a", "sub": "s"})),
        identity("one", json!({"azp": "b", "sub": "t"})),
        identity("two", json!({"azp": "a", "sub": "s"})),
        // The name of a subject is no name of a client.
        identity("one", json!({"sub": "a"})),
        // Parts are told apart.
        identity("on", json!({"azp": "ea"})),
    ];
    let addresses = [
        LOCAL,
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8:0:1::1",
        "::7f00:1",
    ];
    for by in [By::Client, By::Subject, By::Address] {
        let rule = rule(spec(by, Duration::from_secs(1), 1), &cells, clock.clone());
        let mut asks = Vec::new();
        if by != By::Address {
            for (at, token) in tokens.iter().enumerate() {
                asks.push(rule.ask(Some(token), address(&format!("10.0.0.{at}"))));
            }
        }
        asks.extend(addresses.iter().map(|text| rule.ask(None, address(text))));
        for ask in &asks {
            assert_eq!(ask.take(), Taken::Admitted { left: 0 }, "{by}: {ask:?}");
        }
        for ask in &asks {
            assert!(matches!(ask.take(), Taken::Refused { .. }), "{by}: {ask:?}");
        }
    }
}

#[test]
fn the_same_caller_is_the_same_count() {
    let one = |claims| Some(identity("one", claims));
    for (by, first, second) in [
        (
            By::Client,
            (one(json!({"azp": "a", "sub": "s"})), LOCAL),
            (one(json!({"azp": "a", "sub": "t"})), "10.0.0.1"),
        ),
        (
            By::Client,
            (one(json!({"azp": "a"})), LOCAL),
            (one(json!({"azp": "", "client_id": "a"})), LOCAL),
        ),
        (
            By::Subject,
            (one(json!({"azp": "a", "sub": "s"})), LOCAL),
            (one(json!({"azp": "b", "sub": "s"})), "10.0.0.1"),
        ),
        (By::Subject, (one(json!({"sub": 1})), LOCAL), (None, LOCAL)),
        (By::Client, (one(json!({"azp": 7})), LOCAL), (None, LOCAL)),
        (
            By::Address,
            (one(json!({"azp": "a"})), LOCAL),
            (None, "::ffff:127.0.0.1"),
        ),
        (
            By::Address,
            (None, "2001:db8::1"),
            (None, "2001:db8::ffff:1:2:3"),
        ),
    ] {
        let clock = FakeRelativeClock::default();
        let rule = rule(
            spec(by, Duration::from_secs(1), 1),
            &Cells::default(),
            clock,
        );
        let ask = |(identity, text): &(Option<Arc<Identity>>, &str)| {
            rule.ask(identity.as_ref(), address(text))
        };
        assert_eq!(ask(&first).take(), Taken::Admitted { left: 0 });
        let again = ask(&second);
        assert!(matches!(again.take(), Taken::Refused { .. }), "{again:?}");
    }
}

#[test]
fn rules_do_not_share_counts_unless_they_are_the_same() {
    let limits = RateLimits::default();
    let hour = Duration::from_secs(3600);
    let first = limits.rule(spec(By::Address, hour, 1), counter());
    assert!(matches!(
        first.ask(None, address(LOCAL)).take(),
        Taken::Admitted { .. }
    ));
    let same = limits.rule(spec(By::Address, hour, 1), counter());
    assert!(Arc::ptr_eq(&first, &same));
    let other = Spec {
        route: "other".into(),
        ..spec(By::Address, hour, 1)
    };
    for different in [
        other,
        spec(By::Address, hour, 2),
        spec(By::Client, hour, 1),
        spec(By::Address, hour * 2, 1),
    ] {
        let rule = limits.rule(different.clone(), counter());
        let taken = rule.ask(None, address(LOCAL)).take();
        assert!(matches!(taken, Taken::Admitted { .. }), "{different}");
    }
    // Who is dropped and made again begins afresh, and does not read what is not its own.
    drop((first, same));
    let again = limits.rule(spec(By::Address, hour, 1), counter());
    assert!(matches!(
        again.ask(None, address(LOCAL)).take(),
        Taken::Admitted { .. }
    ));
}

#[test]
fn many_at_once_take_no_more_than_there_is() {
    let rule = rule(
        spec(By::Address, Duration::from_secs(3600), 100),
        &Cells::default(),
        DefaultClock::default(),
    );
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let take = |_: &i32| {
                        let taken = rule.ask(None, address(LOCAL)).take();
                        matches!(taken, Taken::Admitted { .. })
                    };
                    (0..125).filter(take).count()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .sum()
    });
    assert_eq!(admitted, 100);
}

#[test]
fn memory_is_bounded_and_the_busy_are_not_pushed_out() {
    let cells = Cells::with_capacity(1000);
    let rule = rule(
        spec(By::Address, Duration::from_secs(3600), 20),
        &cells,
        DefaultClock::default(),
    );
    let busy = |_: &i32| {
        matches!(
            rule.ask(None, address(LOCAL)).take(),
            Taken::Admitted { .. }
        )
    };
    let mut admitted = (0..100).filter(busy).count();
    for number in 0_u32..100_000 {
        let address = IpAddr::from(number.to_be_bytes());
        rule.ask(None, address).take();
        if number % 500 == 0 {
            admitted += usize::from(busy(&0));
        }
    }
    assert!(cells.count() <= 1000, "{}", cells.count());
    assert_eq!(admitted, 20);
}

#[test]
fn what_is_whole_again_is_forgotten() {
    let cells = Cells::default();
    // One second more than the rule says is kept.
    let rule = rule(
        spec(By::Address, Duration::from_nanos(1), 1),
        &cells,
        DefaultClock::default(),
    );
    rule.ask(None, address(LOCAL)).take();
    assert_eq!(cells.count(), 1);
    let begun = std::time::Instant::now();
    while cells.count() > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_clients_are_told() {
    let limits = RateLimits::default();
    let of = |route: &str, period, burst| Spec {
        route: route.into(),
        ..spec(By::Address, period, burst)
    };
    for (route, period, burst, taken, expected) in [
        (
            "grants",
            Duration::from_millis(10),
            200,
            Taken::Admitted { left: 150 },
            (r#""grants";r=150;t=1"#, r#""grants";q=200;w=2"#),
        ),
        (
            "a \"b\"\\ü",
            Duration::from_secs(6),
            1,
            Taken::Admitted { left: 0 },
            (r#""a \"b\"\\?";r=0;t=6"#, r#""a \"b\"\\?";q=1;w=6"#),
        ),
        (
            "whole",
            Duration::from_secs(6),
            3,
            Taken::Admitted { left: 3 },
            (r#""whole";r=3;t=0"#, r#""whole";q=3;w=18"#),
        ),
    ] {
        let rule = limits.rule(of(route, period, burst), counter());
        let ask = rule.ask(None, address(LOCAL));
        let allowance = ask.settle(taken).expect("admitted");
        let (limit, policy) = allowance.headers().expect("counted");
        assert_eq!(
            (limit, policy),
            (
                HeaderValue::from_static(expected.0),
                HeaderValue::from_static(expected.1)
            )
        );
    }
    for (wait, seconds) in [
        (Duration::ZERO, 1),
        (Duration::from_nanos(1), 1),
        (Duration::from_secs(1), 1),
        (Duration::from_millis(1001), 2),
        (Duration::MAX, u32::MAX),
    ] {
        let rule = limits.rule(of("grants", Duration::from_secs(1), 1), counter());
        let refused = rule
            .ask(None, address(LOCAL))
            .settle(Taken::Refused { wait });
        let Err(Rejection {
            reason: Reason::RateLimited(excess),
            ..
        }) = refused
        else {
            panic!("{refused:?}");
        };
        assert_eq!(excess.wait, seconds);
        let limit = format!("\"grants\";r=0;t={seconds}");
        assert_eq!(excess.limit, *limit);
    }
    let rule = limits.rule(of("grants", Duration::from_secs(1), 1), counter());
    let untouched = rule.ask(None, address(LOCAL)).untouched();
    assert!(untouched.headers().is_none());
    assert!(matches!(
        rule.ask(None, address(LOCAL)).take(),
        Taken::Admitted { .. }
    ));
}

#[test]
fn the_store_is_told_apart_what_is_counted_apart_and_nothing_of_whom() {
    let limits = RateLimits::default();
    let second = Duration::from_secs(1);
    let token = identity("one", json!({"azp": "a", "sub": "s"}));
    let mut keys = BTreeSet::new();
    let mut specs = vec![
        spec(By::Client, second, 1),
        spec(By::Subject, second, 1),
        spec(By::Address, second, 1),
        spec(By::Client, second, 2),
    ];
    specs.push(Spec {
        route: "other".into(),
        ..specs[0].clone()
    });
    specs.push(Spec {
        rate: "1/m".into(),
        ..specs[0].clone()
    });
    for spec in &specs {
        let rule = limits.rule(spec.clone(), counter());
        let key = rule.ask(Some(&token), address(LOCAL)).shared();
        assert!(!format!("{key:?}").contains(LOCAL));
        assert!(keys.insert(key.text()), "{spec}");
    }
    assert_eq!(keys.len(), specs.len());
}
