//! The framing cases in front of servers of three makes. A wire-tap keeps the bytes between them and
//! the gateway; read by a strict reader of its own they have to be exactly the requests that were
//! admitted, in order, each answered once.

use super::framing::{LAST, SMUGGLED, chunked, hostile, post, replies};
use crate::harness::real::{Heard, Make, Real, Tap};
use crate::harness::strict::{self, Message, Rigour};
use crate::harness::{CONFIG, Raw, World, eventually, with_lines};
use std::collections::HashMap;
use tokio::io::AsyncWriteExt as _;

/// Method, target and body of a request.
type Admitted = (String, String, String);

/// What a client sends on one connection, the statuses it gets, and what goes upstream.
struct Case {
    sent: Vec<u8>,
    statuses: Vec<&'static str>,
    admitted: Vec<Admitted>,
}

/// What went by at a wire-tap.
#[derive(Default)]
struct Traffic {
    /// Whole requests, in the order of their ends.
    requests: Vec<Message>,
    /// What was wrong with them or with their answers.
    wrong: Vec<String>,
}

// === impl Case ===

fn admitted(method: &str, target: &str, body: &str) -> Admitted {
    (method.to_owned(), target.to_owned(), body.to_owned())
}

fn last() -> Admitted {
    admitted("GET", "/public/last", "")
}

/// Each malformed request behind a good one, and ahead of one that must not be read.
fn malformed() -> Vec<Case> {
    let behind = |(number, hostile): (usize, Vec<u8>)| {
        let path = format!("/public/good-{number}");
        let good = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        Case {
            sent: [good.as_bytes(), &hostile, SMUGGLED.as_bytes()].concat(),
            statuses: vec!["200", "400"],
            admitted: vec![admitted("GET", &path, "")],
        }
    };
    hostile().into_iter().enumerate().map(behind).collect()
}

/// What is allowed, if unusual, and what is refused without a body.
fn unusual() -> Vec<Case> {
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let in_chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let posted = |body: &str| vec![admitted("POST", "/public/x", body), last()];
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    let many = "1;x=\"y\"\r\nz\r\n".repeat(500) + "0\r\nx-sum: 1\r\nContent-Length: 7\r\n\r\n";
    [
        (post(&length, SMUGGLED), vec!["200"], posted(SMUGGLED)),
        (chunked(&in_chunk), vec!["200"], posted(SMUGGLED)),
        (chunked(&many), vec!["200"], posted(&"z".repeat(500))),
        (
            chunked("5 \t;x\r\nhello\r\n0\r\n\r\n"),
            vec!["200"],
            posted("hello"),
        ),
        (chunked("0\r\n\r\n"), vec!["200"], posted("")),
        (post("Content-Length: 0\r\n", ""), vec!["200"], posted("")),
        (
            post("content-length: \t005 \r\n", "\r\n\r\nx"),
            vec!["200"],
            posted("\r\n\r\nx"),
        ),
        (
            post("Content-Length: 5\r\nExpect: 100-continue\r\n", "hello"),
            vec!["200"],
            posted("hello"),
        ),
        (
            post(
                "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
                "1\r\nx\r\n0\r\n\r\n",
            ),
            vec!["200"],
            posted("x"),
        ),
        (
            head("HEAD /public/head"),
            vec!["200"],
            vec![admitted("HEAD", "/public/head", ""), last()],
        ),
        (
            head("GET /public/204"),
            vec!["204"],
            vec![admitted("GET", "/public/204", ""), last()],
        ),
        (
            b"GET /public/304 HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n".to_vec(),
            vec!["304"],
            vec![admitted("GET", "/public/304", ""), last()],
        ),
        (
            [&b"\r\n\r\n"[..], &head("GET /public/lines")].concat(),
            vec!["200"],
            vec![admitted("GET", "/public/lines", ""), last()],
        ),
        // A body with GET, which some servers would not look for.
        (
            [
                b"GET /public/body HTTP/1.1\r\nHost: a\r\n",
                length.as_bytes(),
                b"\r\n",
                SMUGGLED.as_bytes(),
            ]
            .concat(),
            vec!["200"],
            vec![admitted("GET", "/public/body", SMUGGLED), last()],
        ),
        (
            [
                b"GET /public/chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                in_chunk.as_bytes(),
            ]
            .concat(),
            vec!["200"],
            vec![admitted("GET", "/public/chunks", SMUGGLED), last()],
        ),
        (head("GET /nowhere"), vec!["404"], vec![last()]),
    ]
    .into_iter()
    .map(|(sent, mut statuses, admitted)| {
        statuses.push("200");
        Case {
            sent: [&sent, LAST.as_bytes()].concat(),
            statuses,
            admitted,
        }
    })
    .collect()
}

/// Refused, with a body that is there already: it is read, so that the next request is served.
fn refused() -> Vec<Case> {
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let in_chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let chunked = "Transfer-Encoding: chunked\r\n".to_owned();
    [(length, SMUGGLED.to_owned()), (chunked, in_chunk)]
        .map(|(fields, body)| Case {
            sent: format!("POST /grants/1 HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}{LAST}").into(),
            statuses: vec!["401", "200"],
            admitted: vec![last()],
        })
        .into()
}

/// Everything that is allowed, on one connection.
fn mixed(cases: &[Case]) -> Case {
    let whole = |case: &Case| case.sent[..case.sent.len() - LAST.len()].to_vec();
    let sent: Vec<Vec<u8>> = cases.iter().map(whole).collect();
    let ahead = |case: &Case| case.statuses[0];
    let mut admitted: Vec<_> = cases
        .iter()
        .flat_map(|case| case.admitted[..case.admitted.len() - 1].to_vec())
        .collect();
    admitted.push(last());
    Case {
        sent: [sent.concat(), LAST.into()].concat(),
        statuses: cases.iter().map(ahead).chain(["200"]).collect(),
        admitted,
    }
}

// === impl Traffic ===

impl Traffic {
    /// Reads what a tap has heard.
    fn of(heard: &[Heard]) -> Self {
        let mut traffic = Self::default();
        let mut unread: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut answers: HashMap<usize, Vec<u8>> = HashMap::new();
        let mut methods: HashMap<usize, Vec<String>> = HashMap::new();
        for heard in heard {
            if !heard.from_gateway {
                let answers = answers.entry(heard.connection).or_default();
                answers.extend_from_slice(&heard.bytes);
                continue;
            }
            let unread = unread.entry(heard.connection).or_default();
            unread.extend_from_slice(&heard.bytes);
            let read = strict::requests(unread, Rigour::Upstream);
            unread.drain(..read.taken);
            traffic.wrong.extend(read.wrong);
            let methods = methods.entry(heard.connection).or_default();
            methods.extend(read.messages.iter().map(|request| request.first.clone()));
            traffic.requests.extend(read.messages);
        }
        for (connection, methods) in methods {
            let answers = answers.remove(&connection).unwrap_or_default();
            let unread = unread.remove(&connection).unwrap_or_default();
            traffic.balance(connection, &methods, &answers, &unread);
        }
        traffic
    }

    /// Each request of a connection has one answer, and there is nothing else.
    fn balance(&mut self, connection: usize, methods: &[String], answers: &[u8], unread: &[u8]) {
        let methods: Vec<&str> = methods.iter().map(String::as_str).collect();
        let read = strict::responses(answers, &methods, true);
        self.wrong.extend(read.wrong);
        if read.messages.len() != methods.len() || read.taken != answers.len() || !unread.is_empty()
        {
            self.wrong.push(format!(
                "connection {connection}: {} requests, {} answers, behind them {:?} and {:?}",
                methods.len(),
                read.messages.len(),
                String::from_utf8_lossy(unread),
                String::from_utf8_lossy(&answers[read.taken..]),
            ));
        }
    }
}

// === the test ===

/// Sends a case, at once or in small pieces, and checks what the client gets.
async fn send(world: &World, case: &Case, by: usize) {
    let mut raw = Raw::connect(world.gateway.address).await;
    for piece in case.sent.chunks(by) {
        raw.try_send(piece).await;
    }
    let came = raw.rest().await;
    let sent = String::from_utf8_lossy(&case.sent).into_owned();
    let methods: Vec<_> = case.admitted.iter().map(|(method, ..)| method).collect();
    let statuses: Vec<String> = if methods.iter().any(|method| *method == "HEAD") {
        let count = came.matches("HTTP/1.1 ").count();
        let read = |part: &str| part.get(..3).unwrap_or_default().to_owned();
        let read: Vec<_> = came.split("HTTP/1.1 ").skip(1).map(read).collect();
        assert_eq!(read.len(), count);
        read.into_iter().filter(|status| status != "100").collect()
    } else {
        replies(&came, &sent)
            .into_iter()
            .map(|reply| reply.second)
            .collect()
    };
    assert_eq!(statuses, case.statuses, "{sent}");
}

async fn in_front_of(make: Make) {
    let server = Real::start(make).await;
    let tap = Tap::start(server.address).await;
    let config = CONFIG.replace("\"ECHO\"", &format!("\"{}\"", tap.url()));
    let world = World::with(&with_lines(&config, "[server]", "max_body = \"1MiB\"")).await;
    let mut expected: Vec<Admitted> = Vec::new();
    for case in malformed().into_iter().chain(refused()) {
        send(&world, &case, usize::MAX).await;
        expected.extend(case.admitted);
    }
    let mut cases = unusual();
    cases.push(mixed(&cases));
    for by in [usize::MAX, 64, 7, 1] {
        for case in &cases {
            send(&world, case, by).await;
            expected.extend(case.admitted.iter().cloned());
        }
    }

    let traffic = Traffic::of(&tap.heard());
    assert_eq!(traffic.wrong, Vec::<String>::new(), "{make:?}");
    let seen: Vec<Admitted> = traffic
        .requests
        .iter()
        .map(|request| {
            (
                request.first.clone(),
                request.second.clone(),
                request.text(),
            )
        })
        .collect();
    for (number, (seen, expected)) in seen.iter().zip(&expected).enumerate() {
        assert_eq!(seen, expected, "{make:?}: request {number}");
    }
    assert_eq!(seen.len(), expected.len(), "{make:?}");

    // The server says the same. It may write its log a moment late.
    let line = |(method, target, _): &Admitted| format!("{method} {target} HTTP/1.1");
    let mut lines: Vec<String> = expected.iter().map(line).collect();
    eventually("the access log", async || {
        server.request_lines().len() >= lines.len()
    })
    .await;
    let mut logged = server.request_lines();
    assert!(logged.iter().all(|line| !line.contains("smuggled")));
    logged.sort();
    lines.sort();
    assert_eq!(logged, lines, "{make:?}");
    breaks_off(&world, &server, &tap).await;
}

/// A body that has no end gives the server no request, and the connection carries nothing more.
async fn breaks_off(world: &World, server: &Real, tap: &Tap) {
    let before = Traffic::of(&tap.heard()).requests.len();
    for sent in [
        post("Content-Length: 100\r\n", SMUGGLED),
        chunked(&format!("64\r\n{SMUGGLED}")),
        chunked("5\r\nhello\r\n"),
    ] {
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(&sent).await;
        raw.stream.shutdown().await.expect("shut down");
        raw.rest().await;
        let last = Case {
            sent: LAST.into(),
            statuses: vec!["200"],
            admitted: vec![last()],
        };
        send(world, &last, usize::MAX).await;
    }
    // Some of it is there, without an end: that is wrong, and known. No request is.
    let after = Traffic::of(&tap.heard()).requests;
    assert!(
        after[before..]
            .iter()
            .all(|request| request.second == "/public/last")
    );
    assert_eq!(after.len(), before + 3);
    let logged = server.request_lines();
    assert!(logged.iter().all(|line| !line.contains("smuggled")));
}

#[tokio::test]
async fn what_nginx_sees_is_what_was_admitted() {
    in_front_of(Make::Nginx).await;
}

#[tokio::test]
async fn what_apache_sees_is_what_was_admitted() {
    in_front_of(Make::Apache).await;
}

#[tokio::test]
async fn what_a_python_server_sees_is_what_was_admitted() {
    in_front_of(Make::Python).await;
}

/// The measure itself: a tap that hears a request too many, or one without an answer, says so.
#[test]
fn a_desynchronised_connection_would_be_noticed() {
    let heard = |from_gateway, text: &str| Heard {
        connection: 0,
        from_gateway,
        bytes: text.into(),
    };
    let (ask, answer) = (
        heard(true, SMUGGLED),
        heard(false, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    );
    assert!(Traffic::of(&[ask.clone(), answer.clone()]).wrong.is_empty());
    for wrong in [
        vec![ask.clone()],
        vec![ask.clone(), answer.clone(), answer.clone()],
        vec![ask.clone(), answer.clone(), heard(true, "GET /")],
        vec![heard(true, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"), answer],
    ] {
        assert!(!Traffic::of(&wrong).wrong.is_empty(), "{wrong:?}");
    }
}
