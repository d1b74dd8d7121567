//! What a store decides without a fetcher: who waits, who is answered at once.

use super::*;
use futures_util::FutureExt as _;

const COOLDOWN: Duration = Duration::from_secs(30);

fn store(cooldown: Duration) -> KeyStore {
    KeyStore::new(KeyPolicy {
        ttl: Duration::ZERO,
        min_ttl: Duration::ZERO,
        max_ttl: Duration::ZERO,
        max_stale: Duration::ZERO,
        cooldown,
        patience: Duration::from_secs(20),
    })
}

#[test]
fn one_word_holds_time_outcome_and_whether_an_attempt_is_under_way() {
    let none = Attempts(0);
    assert!(!none.under_way() && !none.good() && none.demanded().is_none());
    assert!(!none.cooling(Duration::ZERO, COOLDOWN), "never demanded");
    for nanoseconds in [1, 999, 1_000_000_007, 1 << 61] {
        let at = Duration::from_nanos(nanoseconds);
        for good in [0, Attempts::GOOD] {
            let demanded = Attempts(good).demanded_at(at);
            assert!(demanded.under_way());
            assert_eq!(demanded.good(), good != 0);
            assert_eq!(demanded.demanded(), Some(at));
            assert!(demanded.cooling(at + COOLDOWN - Duration::from_nanos(1), COOLDOWN));
            assert!(!demanded.cooling(at + COOLDOWN, COOLDOWN));
        }
    }
    let start = none.demanded_at(Duration::ZERO);
    assert!(
        start.demanded().is_some(),
        "the first instant is a time too"
    );
}

#[test]
fn within_the_cool_down_of_any_attempt_nobody_is_woken() {
    let store = store(COOLDOWN);
    let second = Duration::from_secs(1);
    for (round, good) in [(1, true), (2, false), (3, true)] {
        let began = COOLDOWN * (2 * round);
        assert_eq!(store.ask(began), Asked::Began);
        assert_eq!(store.ask(began + second), Asked::UnderWay, "all share it");
        assert!(
            store.demanded().now_or_never().is_some(),
            "the fetcher is told, once"
        );
        assert!(store.demanded().now_or_never().is_none());
        store.attempt_finished(good);
        for later in [Duration::ZERO, second, COOLDOWN - second] {
            assert_eq!(
                store.ask(began + later),
                Asked::TooEarly(good),
                "failed ones count too"
            );
        }
        assert!(
            store.demanded().now_or_never().is_none(),
            "nobody was woken"
        );
    }
}

#[test]
fn a_fetch_of_its_own_accord_does_not_use_up_the_cool_down() {
    let store = store(COOLDOWN);
    store.attempt_begun();
    assert_eq!(store.ask(COOLDOWN), Asked::UnderWay);
    store.attempt_finished(true);
    assert_eq!(store.ask(COOLDOWN), Asked::Began);
}

#[test]
fn a_ring_that_was_answered_already_causes_no_other_attempt() {
    let store = store(COOLDOWN);
    assert_eq!(store.ask(COOLDOWN), Asked::Began);
    // The fetcher began of its own accord before it heard the ring.
    store.attempt_begun();
    store.attempt_finished(true);
    assert!(store.demanded().now_or_never().is_none());
}

/// What was under way when a request came may have read the keys before its own was published.
#[tokio::test]
async fn who_joins_an_attempt_waits_for_one_that_began_later() {
    let store = store(COOLDOWN);
    store.attempt_begun();
    let mut asking = std::pin::pin!(store.refresh_for_unknown_key());
    assert!(asking.as_mut().now_or_never().is_none());
    store.attempt_finished(false);
    assert!(
        asking.as_mut().now_or_never().is_none(),
        "it asked for one more"
    );
    assert!(store.demanded().now_or_never().is_some());
    store.attempt_finished(true);
    assert!(asking.await);
    assert_eq!(
        store.refresh_for_unknown_key().now_or_never(),
        Some(true),
        "too early"
    );
}

#[tokio::test]
async fn only_so_many_wait_and_not_for_ever() {
    let mut store = store(COOLDOWN);
    store.policy.patience = Duration::from_millis(20);
    store.waiting.store(MAX_WAITING - 1, Relaxed);
    let mut first = std::pin::pin!(store.refresh_for_unknown_key());
    assert!(first.as_mut().now_or_never().is_none());
    assert_eq!(
        store.refresh_for_unknown_key().now_or_never(),
        Some(false),
        "no place"
    );
    assert!(!first.await, "nobody fetches");
    assert_eq!(
        store.waiting.load(Relaxed),
        MAX_WAITING - 1,
        "places are given back"
    );
}

#[test]
fn a_token_that_was_just_issued_waits_a_second_at_most() {
    let store = store(COOLDOWN);
    let second = Duration::from_secs(1);
    assert_eq!(store.ask(second), Asked::Began);
    assert_eq!(store.ask_after(second, second), Asked::UnderWay);
    store.attempt_finished(true);
    let short = Duration::from_millis(999);
    assert_eq!(
        store.ask_after(second + short, second),
        Asked::TooEarly(true)
    );
    assert_eq!(store.ask(second * 2), Asked::TooEarly(true), "a stranger");
    assert_eq!(store.ask_after(second * 2, second), Asked::Began);
    store.attempt_finished(true);
    // It counts for strangers as well: the keys are as fresh as theirs would be.
    let later = second * 2 + COOLDOWN;
    assert_eq!(store.ask(later - second), Asked::TooEarly(true));
    assert_eq!(store.ask(later), Asked::Began);
}

#[test]
fn too_many_issued_tokens_do_not_wait() {
    let store = store(COOLDOWN);
    let places: Vec<_> = (0..MAX_ISSUED)
        .map(|_| WaitingPlace::among(&store.issued, MAX_ISSUED))
        .collect();
    assert!(places.iter().all(Option::is_some));
    let asked = store.refresh_for_issued_token().now_or_never();
    assert_eq!(asked, Some(ControlFlow::Break(())));
    assert!(!store.attempts().under_way(), "nothing was asked for");
    drop(places);
    assert!(store.refresh_for_issued_token().now_or_never().is_none());
    assert!(store.attempts().under_way());
}
