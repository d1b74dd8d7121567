//! Questions that are shared, that fail, and that nobody waits for.

use super::*;
use crate::keys::KeyPolicy;
use crate::outbound::testing::{Act, Server};
use crate::telemetry::metrics::Metrics;
use futures_util::future::join_all;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const TIMEOUT: Duration = Duration::from_secs(1);

fn introspection(endpoint: Option<Uri>) -> Arc<Introspection<&'static str>> {
    let policy = KeyPolicy {
        ttl: TIMEOUT,
        min_ttl: TIMEOUT,
        max_ttl: TIMEOUT,
        max_stale: TIMEOUT,
        cooldown: TIMEOUT,
        patience: TIMEOUT,
    };
    let metrics = Arc::new(Metrics::new("", "").expect("metrics"));
    let asking = Asking {
        endpoint,
        authorization: basic("gate way", "s:cr&t+"),
        timeout: TIMEOUT,
    };
    let outbound = Outbound::new(None, TIMEOUT).expect("a client");
    let keys = Arc::new(KeyStore::new(policy));
    let metrics = metrics.issuer(&"handles".into());
    Arc::new(Introspection::new(asking, keys, outbound, metrics))
}

async fn ask(
    introspection: &Arc<Introspection<&'static str>>,
    token: &str,
) -> Result<&'static str, Rejection> {
    ask_for(introspection, token, Caller::Stranger).await
}

async fn ask_for(
    introspection: &Arc<Introspection<&'static str>>,
    token: &str,
    caller: Caller,
) -> Result<&'static str, Rejection> {
    let judge = |reply: Reply| reply.result();
    introspection
        .ask(token.into(), TokenDigest::of(token), caller, judge)
        .await
}

fn is_open(introspection: &Introspection<&'static str>) -> bool {
    !introspection.state().open.is_empty()
}

#[test]
fn credentials_are_form_encoded_and_do_not_show() {
    let value = basic("gate way", "s:cr&t+/ü");
    let pair = value.to_str().expect("ASCII").strip_prefix("Basic ");
    let pair = STANDARD.decode(pair.expect("Basic")).expect("base64");
    assert_eq!(pair, b"gate+way:s%3Acr%26t%2B%2F%C3%BC");
    assert!(value.is_sensitive());
    let shown = format!("{:?}", introspection(None));
    assert!(!shown.contains("Basic"), "{shown}");
}

#[tokio::test]
async fn one_token_is_one_question_with_credentials() {
    let server = Server::start(Act::json(200, r#"{"active":true}"#)).await;
    let introspection = introspection(Some(server.uri("/introspect")));
    let judged = Arc::new(AtomicUsize::new(0));
    let asked = (0..50).map(|_| {
        let judged = Arc::clone(&judged);
        let judge = move |reply: Reply| {
            judged.fetch_add(1, Relaxed);
            reply.result()
        };
        let digest = TokenDigest::of("t+k/n=");
        introspection.ask("t+k/n=".into(), digest, Caller::Stranger, judge)
    });
    for answer in join_all(asked).await {
        assert_eq!(answer, Ok("active"));
    }
    assert_eq!(judged.load(Relaxed), 1);
    let requests = server.requests();
    let [request] = requests.as_slice() else {
        panic!("{} requests", requests.len());
    };
    assert!(request.starts_with("POST /introspect HTTP/1.1\r\n"));
    let body = "\r\n\r\ntoken=t%2Bk%2Fn%3D&token_type_hint=access_token";
    assert!(request.ends_with(body), "{request}");
    let basic = "\r\nauthorization: Basic Z2F0ZSt3YXk6cyUzQWNyJTI2dCUyQg==\r\n";
    assert!(request.contains(basic), "{request}");
    assert!(!is_open(&introspection));
    assert_eq!(ask(&introspection, "t+k/n=").await, Ok("active"));
    assert_eq!(server.requests().len(), 2, "nothing is remembered here");
}

#[tokio::test]
async fn a_question_outlives_who_put_it() {
    let server = Server::start(Act::json(200, r#"{"active":false}"#)).await;
    let introspection = introspection(Some(server.uri("/")));
    {
        let mut first = Box::pin(ask(&introspection, "t"));
        assert!(futures_util::poll!(&mut first).is_pending());
    }
    assert!(is_open(&introspection), "who asked has gone");
    assert_eq!(ask(&introspection, "t").await, Ok("inactive"));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn what_is_no_answer_is_unavailable_and_asked_once() {
    let huge = format!("{{\"active\":true,\"x\":\"{}\"}}", "x".repeat(MAX_REPLY));
    for act in [
        Act::json(200, "<html>"),
        Act::json(200, &huge),
        Act::json(401, r#"{"error":"invalid_client"}"#),
        Act::json(500, r#"{"active":true}"#),
        Act::redirect("/elsewhere"),
        Act::CloseAfterRequest,
        Act::Hang,
        Act::Endless,
    ] {
        let case = format!("{act:?}").chars().take(60).collect::<String>();
        let server = Server::start(act).await;
        let introspection = introspection(Some(server.uri("/")));
        let rejection = ask(&introspection, "s3cret").await.expect_err(&case);
        assert_eq!(rejection.reason, Reason::KeysUnavailable, "{case}");
        let note = rejection.note.expect("a note");
        assert!(!note.contains("s3cret"), "{case}: {note}");
        assert_eq!(server.requests().len(), 1, "{case}");
        assert!(!is_open(&introspection), "{case}");
    }
    let nowhere = ask(&introspection(None), "t").await.expect_err("nowhere");
    assert!(nowhere.note.expect("a note").contains("not known yet"));
}

#[tokio::test]
async fn only_a_connection_that_cannot_be_made_is_a_pause_for_all() {
    let dead = introspection(Some(Server::nobody_listens().await));
    let first = ask(&dead, "a").await.expect_err("nobody listens");
    assert!(first.note.expect("a note").contains("nothing was sent"));
    let second = ask(&dead, "b").await.expect_err("paused");
    assert!(second.note.expect("a note").contains("a moment ago"));

    // A token that makes the issuer stumble keeps no other from being asked about.
    let server = Server::start(Act::json(500, "")).await;
    let sick = introspection(Some(server.uri("/")));
    for token in ["a", "b", "a"] {
        assert!(ask(&sick, token).await.is_err());
    }
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test]
async fn open_questions_are_bounded_in_number_and_time() {
    let server = Server::start(Act::Hang).await;
    let introspection = introspection(Some(server.uri("/")));
    let started = Instant::now();
    let tokens: Vec<String> = (0..MAX_OPEN + 10).map(|n| n.to_string()).collect();
    let asked = tokens
        .iter()
        .map(|token| ask_for(&introspection, token, Caller::Known));
    let answers = join_all(asked).await;
    let full = answers.iter().filter(|answer| {
        let note = answer.as_ref().expect_err("it hangs").note.as_deref();
        note.is_some_and(|note| note.contains("too many questions are open"))
    });
    assert_eq!(full.count(), 10);
    let sent = server.requests().len();
    // Places that fall free at the deadline go to questions whose own is a moment away.
    assert!((1..2 * MAX_ASKED).contains(&sent), "{sent}");
    assert!(started.elapsed() < TIMEOUT * 20, "{:?}", started.elapsed());
    assert!(!is_open(&introspection));
}

#[tokio::test]
async fn strangers_leave_room_for_who_is_known() {
    let server = Server::start(Act::Hang).await;
    let introspection = introspection(Some(server.uri("/")));
    let tokens: Vec<String> = (0..MAX_OPEN).map(|n| format!("stranger-{n}")).collect();
    let flood = join_all(tokens.iter().map(|token| ask(&introspection, token)));
    let half = MAX_OPEN / FOR_STRANGERS;
    let known: Vec<String> = (0..MAX_ASKED / 2).map(|n| format!("known-{n}")).collect();
    let asked = known
        .iter()
        .map(|token| ask_for(&introspection, token, Caller::Known));
    let (strangers, _) = futures_util::future::join(flood, join_all(asked)).await;
    let turned_away = strangers.iter().filter(|answer| {
        let note = answer.as_ref().expect_err("it hangs").note.as_deref();
        note.is_some_and(|note| note.contains("unknown tokens"))
    });
    assert_eq!(turned_away.count(), MAX_OPEN - half);
    let requests = server.requests();
    for token in &known {
        let asked = |request: &String| request.contains(&format!("token={token}&"));
        assert_eq!(
            requests.iter().filter(|request| asked(request)).count(),
            1,
            "{token}"
        );
    }
    assert!(!is_open(&introspection));
    assert_eq!(introspection.state().strangers, 0);
}
