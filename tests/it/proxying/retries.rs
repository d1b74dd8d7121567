//! Requests that are sent once more: which, how often, and what the upstream sees of them.

use super::{gateway, open_config};
use crate::harness::link::{Link, nothing};
use crate::harness::{Gateway, Raw, RawUpstream, assert_refused, nobody, request, within};
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

const RETRY: &str = "[upstream.api]";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const CLOSES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy";

/// An upstream that answers its `n`th request with the `n`th of these, later ones with the last. "" closes
/// the connection.
struct Script {
    upstream: RawUpstream,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Script {
    async fn start(answers: &'static [&'static str]) -> Self {
        let seen = Arc::<Mutex<Vec<(String, String)>>>::default();
        let log = Arc::clone(&seen);
        let upstream = RawUpstream::start(move |mut raw: Raw| {
            let log = Arc::clone(&log);
            async move {
                loop {
                    let asked = raw.reply().await;
                    let number = {
                        let mut log = log.lock().expect("not poisoned");
                        log.push(asked);
                        log.len()
                    };
                    match answers[number.min(answers.len()) - 1] {
                        "" => return,
                        answer => raw.send(answer).await,
                    }
                }
            }
        })
        .await;
        Self { upstream, seen }
    }

    fn seen(&self) -> Vec<(String, String)> {
        self.seen.lock().expect("not poisoned").clone()
    }
}

async fn retries(gateway: &Gateway, outcome: &str) -> f64 {
    let series =
        format!("gateway_upstream_retries_total{{outcome=\"{outcome}\",upstream=\"api\"}}");
    gateway.metric(&series).await
}

#[tokio::test]
async fn only_what_does_no_harm_twice_is_sent_twice() {
    for (method, rules, answers, status, times) in [
        ("GET", "", &["", OK][..], 200, 2),
        (
            "HEAD",
            "",
            &["", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"],
            200,
            2,
        ),
        ("PUT", "", &["", OK], 200, 2),
        ("DELETE", "", &["", OK], 200, 2),
        ("OPTIONS", "", &["", OK], 200, 2),
        ("POST", "", &["", OK], 502, 1),
        ("PATCH", "", &["", OK], 502, 1),
        ("SEARCH", "", &["", OK], 502, 1),
        ("GET", "", &["", "", OK], 502, 2),
        ("GET", "retry.attempts = 1", &["", OK], 502, 1),
        ("GET", "retry.on = [\"connect\"]", &["", OK], 502, 1),
        ("GET", "retry.budget = \"0%\"", &["", OK], 502, 1),
        ("GET", "", &[BUSY, OK], 503, 1),
        ("GET", "retry.on = [\"503\"]", &[BUSY, OK], 200, 2),
        ("GET", "retry.on = [\"503\"]", &[BUSY, BUSY, OK], 503, 2),
        ("GET", "retry.on = [\"502\", \"504\"]", &[BUSY, OK], 503, 1),
        ("PUT", "retry.on = [\"503\"]", &[BUSY, OK], 200, 2),
        ("POST", "retry.on = [\"503\"]", &[BUSY, OK], 503, 1),
    ] {
        let what = format!("{method} {rules} {answers:?}");
        let script = Script::start(answers).await;
        let gateway = gateway(&script.upstream.url(), &[(RETRY, rules)]).await;
        let mut asked = request(gateway.address, method, "/api/x?y=z").header("x-a", "b");
        if matches!(method, "PUT" | "POST" | "PATCH") {
            asked = asked.body("body");
        }
        let reply = asked.send().await;
        assert_eq!(reply.status, status, "{what}: {}", reply.text());
        let seen = script.seen();
        assert_eq!(seen.len(), times, "{what}");
        assert!(seen.iter().all(|one| *one == seen[0]), "{what}: {seen:?}");
        assert!(seen[0].0.contains("/api/x?y=z"), "{seen:?}");
        let id = reply.header("x-request-id").expect("an id");
        let record = gateway.log.record(id).await;
        assert_eq!(record["retries"], json!(times - 1), "{what}: {record}");
        let last = if status == 200 { "success" } else { "failure" };
        if times > 1 {
            assert_eq!(retries(&gateway, last).await, 1.0, "{what}");
        }
    }
}

#[tokio::test]
async fn where_nothing_was_sent_any_method_goes_elsewhere() {
    let script = Script::start(&[OK]).await;
    let servers = format!("{}\", \"http://{}", script.upstream.url(), nobody());
    let gateway = gateway(&servers, &[(RETRY, "retry.budget = \"100%\"")]).await;
    for number in 0..30 {
        let post = request(gateway.address, "POST", "/api/").body(number.to_string());
        assert_eq!(post.send().await.status, 200);
    }
    let bodies: Vec<String> = script.seen().into_iter().map(|(_, body)| body).collect();
    let all: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(bodies, all, "each once");
    assert!(
        retries(&gateway, "success").await > 0.0,
        "half of them met the dead one first"
    );
}

#[tokio::test]
async fn a_full_outage_gets_a_fifth_more_requests_and_no_more() {
    let script = Script::start(&[""]).await;
    let gateway = gateway(&script.upstream.url(), &[]).await;
    let get = request(gateway.address, "GET", "/api/");
    for _ in 0..100 {
        assert_refused(&gateway, &get.send().await, 502, "upstream_reset", "api").await;
    }
    assert_eq!(script.seen().len(), 120);
    assert_eq!(retries(&gateway, "failure").await, 20.0);
    assert_eq!(retries(&gateway, "budget").await, 80.0);
}

/// What is used up before a reload is used up behind it; only another share is another budget.
#[tokio::test]
async fn a_reload_gives_no_retries_away() {
    let script = Script::start(&[""]).await;
    let gateway = gateway(&script.upstream.url(), &[]).await;
    let get = request(gateway.address, "GET", "/api/");
    for _ in 0..40 {
        assert_eq!(get.send().await.status, 502);
    }
    assert_eq!(script.seen().len(), 48, "a fifth more");
    // None of these is about the budget.
    for (table, line) in [
        ("[server]", "max_headers = 99"),
        ("[[route]]", "timeout = \"9s\""),
        (RETRY, "idle_timeout = \"9s\""),
        (RETRY, "retry.attempts = 3"),
        (RETRY, "retry.on = [\"reset\"]"),
    ] {
        let changed = open_config(&script.upstream.url(), &[(table, line)]);
        std::fs::write(gateway.file(), changed).expect("written");
        let reply = gateway.admin("POST", "/-/reload").await;
        assert!(
            !reply.json()["changes"]
                .as_array()
                .expect("changes")
                .is_empty()
        );
        for _ in 0..4 {
            assert_eq!(get.send().await.status, 502, "{line}");
        }
    }
    assert_eq!(script.seen().len(), 72, "as if nobody had reloaded");
    let changes = [(RETRY, "retry.budget = \"50%\"")];
    let other = open_config(&script.upstream.url(), &changes);
    std::fs::write(gateway.file(), other).expect("written");
    assert_eq!(gateway.admin("POST", "/-/reload").await.status, 200);
    for _ in 0..20 {
        assert_eq!(get.send().await.status, 502);
    }
    assert_eq!(script.seen().len(), 72 + 30);
}

#[tokio::test]
async fn a_body_of_64_kib_is_sent_again_as_it_was() {
    for (size, status, times) in [(64 << 10, 200, 2), ((64 << 10) + 1, 502, 1)] {
        let body: String = (0..size)
            .map(|at| char::from(b'a' + (at % 23) as u8))
            .collect();
        let script = Script::start(&["", OK]).await;
        let gateway = gateway(&script.upstream.url(), &[]).await;
        let put = request(gateway.address, "PUT", "/api/").body(body.clone());
        assert_eq!(put.send().await.status, status, "{size}");
        let seen = script.seen();
        assert_eq!(seen.len(), times, "{size}");
        assert!(seen.iter().all(|(_, came)| *came == body), "{size}");
    }
}

/// The first server breaks off in the middle; what the client sends after that follows what it had
/// sent before.
#[tokio::test]
async fn an_upload_goes_on_at_the_next_attempt() {
    for (chunked, first, second) in [(false, "hello ", "world"), (true, "hello ", "world")] {
        let (begun, bodies) = (
            Arc::new(Notify::new()),
            Arc::<Mutex<Vec<String>>>::default(),
        );
        let (begins, keeps) = (Arc::clone(&begun), Arc::clone(&bodies));
        let upstream = RawUpstream::start(move |mut raw: Raw| {
            let (begins, keeps) = (Arc::clone(&begins), Arc::clone(&keeps));
            async move {
                let mut text = String::new();
                while !text.contains("hello ") {
                    text.push_str(&raw.some().await);
                }
                let attempts = {
                    let mut keeps = keeps.lock().expect("not poisoned");
                    keeps.push(text.clone());
                    keeps.len()
                };
                if attempts == 1 {
                    return;
                }
                begins.notify_one();
                while !text.contains("world") {
                    text.push_str(&raw.some().await);
                }
                keeps.lock().expect("not poisoned").push(text);
                raw.send(OK).await;
            }
        })
        .await;
        let gateway = gateway(&upstream.url(), &[]).await;
        let mut raw = Raw::connect(gateway.address).await;
        let piece = |text: &str| match chunked {
            true => format!("{:x}\r\n{text}\r\n", text.len()),
            false => text.to_owned(),
        };
        let framing = if chunked {
            "Transfer-Encoding: chunked"
        } else {
            "Content-Length: 11"
        };
        raw.send(format!(
            "PUT /api/ HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{}",
            piece(first)
        ))
        .await;
        within("the second attempt", begun.notified()).await;
        raw.send(piece(second)).await;
        if chunked {
            raw.send("0\r\n\r\n").await;
        }
        assert_eq!(raw.whole().await.status, 200, "{framing}");
        let bodies = bodies.lock().expect("not poisoned").clone();
        let whole = bodies.last().expect("an upload");
        assert_eq!(whole.matches("hello ").count(), 1, "{whole}");
        assert_eq!(whole.matches("world").count(), 1, "{whole}");
    }
}

#[tokio::test]
async fn what_the_client_has_begun_to_get_is_not_asked_for_again() {
    let script = Script::start(&["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345", OK]).await;
    let gateway = gateway(&script.upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    let get = Request::get("/api/").body(nothing()).expect("a request");
    let response = link.open(get).await.expect("a head");
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let part = within("the first part", body.frame())
        .await
        .expect("a frame");
    assert_eq!(part.expect("no error").into_data().expect("data"), "12345");
    drop(script.upstream);
    assert!(within("the end", body.collect()).await.is_err());
    assert_eq!(script.seen.lock().expect("not poisoned").len(), 1);
}

/// A connection that had been kept may end with a request on it that the server has read. That is an attempt like
/// any other: the rules and the budget decide whether there is a second.
#[tokio::test]
async fn what_a_kept_connection_took_along_is_sent_again_by_the_rules() {
    for (method, rules, status, times) in [
        ("GET", "", 200, 3),
        ("PUT", "", 200, 3),
        ("POST", "", 502, 2),
        ("GET", "retry.attempts = 1", 502, 2),
        ("GET", "retry.on = [\"connect\"]", 502, 2),
        ("GET", "retry.budget = \"0%\"", 502, 2),
    ] {
        let script = Script::start(&[OK, "", OK]).await;
        let gateway = gateway(&script.upstream.url(), &[(RETRY, rules)]).await;
        let first = request(gateway.address, "GET", "/api/").send().await;
        assert_eq!(first.status, 200);
        let asked = request(gateway.address, method, "/api/").body("body");
        assert_eq!(asked.send().await.status, status, "{method} {rules}");
        assert_eq!(script.seen().len(), times, "{method} {rules}");
        let success = if status == 200 { 1.0 } else { 0.0 };
        assert_eq!(
            retries(&gateway, "success").await,
            success,
            "{method} {rules}"
        );
    }
}

/// What quiet times have saved up is there when several attempts are needed.
#[tokio::test]
async fn one_request_may_need_several_attempts() {
    for (attempts, status, seen) in [(3, 200, 13), (2, 502, 12)] {
        let script = Script::start(&[OK, OK, OK, OK, OK, OK, OK, OK, OK, CLOSES, "", "", OK]).await;
        let rules = format!("retry.attempts = {attempts}");
        let gateway = gateway(&script.upstream.url(), &[(RETRY, &rules)]).await;
        let get = request(gateway.address, "GET", "/api/");
        for _ in 0..10 {
            assert_eq!(get.send().await.status, 200);
        }
        assert_eq!(get.send().await.status, status, "{attempts}");
        assert_eq!(script.seen().len(), seen, "{attempts}");
        let counted = retries(&gateway, "success").await + retries(&gateway, "failure").await;
        assert_eq!(counted, f64::from(attempts - 1), "{attempts}");
    }
}

/// The route's `timeout` is that of all attempts together.
#[tokio::test]
async fn the_deadline_holds_over_all_attempts() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&attempts);
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let counter = Arc::clone(&counter);
        async move {
            raw.reply().await;
            if counter.fetch_add(1, Relaxed) < 50 {
                raw.send(CLOSES).await;
            } else {
                // How long an attempt takes is what is tested.
                tokio::time::sleep(Duration::from_millis(150)).await;
            }
        }
    })
    .await;
    let rules = "retry.attempts = 1000\nretry.budget = \"100%\"";
    let changes = [(RETRY, rules), ("[[route]]", "timeout = \"700ms\"")];
    let gateway = gateway(&upstream.url(), &changes).await;
    let get = request(gateway.address, "GET", "/api/");
    for _ in 0..50 {
        assert_eq!(get.send().await.status, 200);
    }
    let started = Instant::now();
    let reply = get.send().await;
    let took = started.elapsed();
    assert!(
        took >= Duration::from_millis(700) && took < Duration::from_secs(5),
        "{took:?}"
    );
    assert_refused(&gateway, &reply, 504, "upstream_timeout", "api").await;
    let attempts = attempts.load(Relaxed) - 50;
    assert!((2..6).contains(&attempts), "{attempts}");
    // The last one ran out of time, perhaps before the upstream saw it.
    let failed = retries(&gateway, "failure").await;
    let expected = [attempts - 1, attempts].map(|count| count as f64);
    assert!(expected.contains(&failed), "{failed} of {attempts}");
}
