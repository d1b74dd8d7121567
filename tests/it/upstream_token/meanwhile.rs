//! What happens to a token, or to the body beside it, while something else is waited for.

use super::{config, lifetime};
use crate::harness::link::{Link, piecemeal};
use crate::harness::{Raw, RawUpstream, World, assert_refused, eventually};
use bonterra_gateway::demo::auth::{Endpoint, Fault};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";

/// Longer than a test takes to do something meanwhile, and shorter than the gateway waits for an issuer.
const SLOW: Fault = Fault::Slow(Duration::from_millis(1500));

fn authorization(head: &str) -> String {
    let line = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("authorization").then_some(value)
    });
    line.expect("a token").trim().to_owned()
}

/// The second attempt may come long after the first one began.
#[tokio::test]
async fn a_request_that_is_sent_again_has_a_token_that_is_still_good() {
    let (seen, broken) = (
        Arc::<Mutex<Vec<String>>>::default(),
        Arc::<Notify>::default(),
    );
    let (log, end) = (Arc::clone(&seen), Arc::clone(&broken));
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let (log, end) = (Arc::clone(&log), Arc::clone(&end));
        async move {
            while let Some(head) = raw.asked().await {
                let number = {
                    let mut log = log.lock().expect("not poisoned");
                    log.push(authorization(&head));
                    log.len()
                };
                if number == 1 {
                    return end.notified().await;
                }
                raw.send(OK).await;
            }
        }
    })
    .await;
    let world = World::of(lifetime(1000), &config(&upstream.url())).await;
    let request = world.get("/open/1");
    let asked = tokio::spawn(async move { request.send().await });
    let seen = || seen.lock().expect("not poisoned").clone();
    eventually("the first attempt", async || seen().len() == 1).await;
    world.gateway.app.clock().advance(Duration::from_secs(998));
    broken.notify_one();
    assert_eq!(asked.await.expect("an answer").status, 200);
    let seen = seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0], seen[1], "the first one is over");
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_token_that_ends_on_its_way_here_is_not_sent() {
    let world = World::with(&config("ECHO")).await;
    world.auth.set_fault(Endpoint::Token, Some(SLOW));
    let request = world.get("/open/1");
    let asked = tokio::spawn(async move { request.send().await });
    eventually("it is asked for", async || world.fetches() == 1).await;
    let clock = world.gateway.app.clock();
    clock.advance(Duration::from_secs(86400));
    let reply = asked.await.expect("an answer");
    assert_refused(&world.gateway, &reply, 503, "upstream_unhealthy", "open").await;
    assert!(world.echo.seen().is_empty());
    assert_eq!(world.counted("error").await, 1.0);
}

/// Early answers do not stop a body. What has grown too large to be kept cannot be sent again, and the upstream's own
/// answer is there to be passed on.
#[tokio::test]
async fn a_refusal_passes_if_too_much_of_the_body_comes_while_a_token_is_fetched() {
    let upstream = RawUpstream::start(|mut raw: Raw| async move {
        while let Some(head) = raw.asked().await {
            if head.starts_with("PATCH") {
                raw.send(REFUSED).await;
                drop(raw.rest().await);
                return;
            }
            raw.send(OK).await;
        }
    })
    .await;
    let world = World::with(&config(&upstream.url())).await;
    assert_eq!(world.get("/open/1").send().await.status, 200);
    world.auth.set_fault(Endpoint::Token, Some(SLOW));
    let (pieces, body) = piecemeal();
    let patch = http::Request::patch("/open/1").body(body);
    let mut link = Link::connect(world.gateway.address).await;
    let asked = tokio::spawn(async move { link.open(patch.expect("a request")).await });
    pieces.send(Bytes::from_static(b"x")).await.expect("taken");
    eventually("another token is asked for", async || world.fetches() == 2).await;
    for _ in 0..6 {
        let piece = Bytes::from(vec![b'x'; 32 << 10]);
        pieces.send(piece).await.expect("taken");
    }
    let response = asked.await.expect("no panic").expect("a response");
    assert_eq!(response.status(), 401);
}

/// RFC 6750 §2 has two more places for a token, and the gateway's own is in the header.
#[tokio::test]
async fn a_callers_token_gets_there_in_no_other_place_either() {
    let world = World::with(&config("ECHO")).await;
    for request in [
        world.get("/open/1?access_token=stolen"),
        world.get("/open/1?x=1;access%5Ftoken=stolen"),
        world
            .post("/open/1")
            .form(&[("a", "b"), ("access_token", "stolen")]),
    ] {
        let reply = request.send().await;
        assert_refused(&world.gateway, &reply, 400, "multiple_tokens", "open").await;
    }
    assert!(world.echo.seen().is_empty());
    let form = world.post("/open/1?token=x").form(&[("token", "x")]);
    assert_eq!(form.send().await.status, 200);
}
