//! Servers that fail are out for a while.

use super::{Fickle, healthy, servers};
use crate::harness::{Gateway, eventually, local, nobody, request, within};
use bonterra_gateway::demo::echo::Echo;

/// Without retries, so that every failure is seen.
fn config_of(lines: &str) -> String {
    super::config_of(&format!("retry.attempts = 1\n{lines}"))
}

async fn get(gateway: &Gateway) -> u16 {
    request(gateway.address, "GET", "/api/x")
        .send()
        .await
        .status
}

/// Asks until the server is out; returns how many requests failed on the way.
async fn until_out(gateway: &Gateway, label: &str) -> usize {
    let mut failed = 0;
    within("it is out", async {
        while healthy(gateway, label).await != Some(false) {
            failed += usize::from(get(gateway).await >= 500);
        }
    })
    .await;
    failed
}

#[tokio::test]
async fn with_one_of_two_dead_no_request_fails_once_it_is_out() {
    let echo = Echo::start(local()).await.expect("upstream");
    let dead = nobody().to_string();
    let list = servers(&[&echo.url(), &format!("http://{dead}")]);
    let gateway = Gateway::start(&config_of(&list)).await;
    // Without a word in the file: the default.
    assert_eq!(until_out(&gateway, &dead).await, 5);
    for _ in 0..200 {
        assert_eq!(get(&gateway).await, 200);
    }
}

#[tokio::test]
async fn who_answers_again_is_back_after_its_time() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let eject = "eject = { after = 3, for = \"200ms\" }";
    let gateway = Gateway::start(&config_of(&format!("{list}{eject}"))).await;
    one.answers(503);
    assert_eq!(until_out(&gateway, &one.label()).await, 3);
    one.answers(200);
    let before = one.requests();
    eventually("it is back", async || {
        healthy(&gateway, &one.label()).await == Some(true)
    })
    .await;
    assert_eq!(one.requests(), before, "nothing came while it was out");
    eventually("it gets requests", async || {
        assert_eq!(get(&gateway).await, 200);
        one.requests() > before
    })
    .await;
}

#[tokio::test]
async fn every_kind_of_failure_counts() {
    let good = Echo::start(local()).await.expect("upstream");
    let silent = Fickle::start().await;
    silent.answers(0);
    let cutting = crate::harness::RawUpstream::says("").await;
    let babbling = crate::harness::RawUpstream::says("I am no HTTP\r\n\r\n").await;
    for bad in [silent.url(), cutting.url(), babbling.url()] {
        let list = servers(&[&good.url(), &bad]);
        let lines = format!("{list}response_timeout = \"50ms\"\neject.after = 2");
        let gateway = Gateway::start(&config_of(&lines)).await;
        let failed = until_out(&gateway, &bad.replace("http://", "")).await;
        assert_eq!(failed, 2, "{bad}");
    }
}

/// What an API says about a request is no failure of the server.
#[tokio::test]
async fn who_answers_stays_in() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let gateway = Gateway::start(&config_of(&format!("{list}eject.after = 1"))).await;
    for status in [400, 404, 429, 500, 501] {
        one.answers(status);
        other.answers(status);
        for _ in 0..10 {
            assert_eq!(get(&gateway).await, status);
        }
    }
    let both = [one.label(), other.label()];
    for label in both {
        assert_eq!(healthy(&gateway, &label).await, Some(true));
    }
}

#[tokio::test]
async fn the_last_one_stays_and_so_does_a_reload_s_memory() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let eject = "eject = { after = 2, for = \"1h\", max_ejected = \"50%\" }";
    let gateway = Gateway::start(&config_of(&format!("{list}{eject}"))).await;
    one.answers(503);
    until_out(&gateway, &one.label()).await;
    other.answers(503);
    for _ in 0..10 {
        assert_eq!(get(&gateway).await, 503);
    }
    assert_eq!(healthy(&gateway, &other.label()).await, Some(true));
    other.answers(200);

    let (before, connections) = (one.requests(), other.upstream.connections());
    std::fs::write(
        gateway.file(),
        config_of(&format!("{list}{eject}\nconnect_timeout = \"1s\"")),
    )
    .expect("written");
    assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    for _ in 0..30 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert_eq!(one.requests(), before, "still out");
    // One a worker: those of before are still in use.
    assert!(other.upstream.connections() <= connections.max(2));
    assert_eq!(healthy(&gateway, &one.label()).await, Some(false));

    // Without ejection nobody stays out.
    std::fs::write(gateway.file(), config_of(&format!("{list}eject.after = 0"))).expect("written");
    assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    assert_eq!(healthy(&gateway, &one.label()).await, Some(true));
}

/// A reload of something else is nothing to a server: neither what it failed so far nor its time out begins anew.
#[tokio::test]
async fn a_reload_of_something_else_lets_nobody_in_and_forgives_nothing() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let eject = "balance = \"round_robin\"\neject = { after = 4, for = \"1h\" }";
    let config = config_of(&format!("{list}{eject}"));
    let gateway = Gateway::start(&config).await;
    let reload = async |number: usize| {
        let changed = format!(
            "[upstream.second{number}]\nservers = [\"http://{}\"]\n{config}",
            nobody()
        );
        let changed = changed.replace("auth =", &format!("timeout = \"{number}s\"\nauth ="));
        std::fs::write(gateway.file(), changed).expect("written");
        assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    };
    one.answers(503);
    // One failure short of what takes it out, each behind a reload of its own.
    for number in 1..=3 {
        within("one failure more", async {
            while get(&gateway).await != 503 {}
        })
        .await;
        assert_eq!(one.requests(), number);
        reload(10 + number).await;
        assert_eq!(healthy(&gateway, &one.label()).await, Some(true));
    }
    assert_eq!(until_out(&gateway, &one.label()).await, 1, "the fourth");
    one.answers(200);
    for number in 1..=3 {
        reload(20 + number).await;
        assert_eq!(healthy(&gateway, &one.label()).await, Some(false));
        for _ in 0..10 {
            assert_eq!(get(&gateway).await, 200);
        }
    }
    assert_eq!(one.requests(), 4, "still out");
}

/// Were all servers out at once, nothing would be left to try: then all are used.
#[tokio::test]
async fn with_every_server_out_all_are_used() {
    let (one, other) = (Fickle::start().await, Fickle::start().await);
    let list = servers(&[&one.url(), &other.url()]);
    let eject = "eject = { after = 1, for = \"1h\", max_ejected = \"100%\" }";
    let gateway = Gateway::start(&config_of(&format!("{list}{eject}"))).await;
    one.answers(502);
    other.answers(502);
    eventually("both are out", async || {
        get(&gateway).await;
        let out = async |server: &Fickle| healthy(&gateway, &server.label()).await == Some(false);
        out(&one).await && out(&other).await
    })
    .await;
    one.answers(200);
    other.answers(200);
    let (first, second) = (one.requests(), other.requests());
    for _ in 0..40 {
        assert_eq!(get(&gateway).await, 200);
    }
    assert!(one.requests() > first && other.requests() > second);
}
