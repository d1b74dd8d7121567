//! Streams of good requests, bent at random: whatever comes of them, the upstream sees nothing but
//! requests that a strict reader finds in the client's bytes, each client gets its own answers in
//! order, and each connection ends. Seeded: a failure says which case, and it is the same next time.

use super::framing::SMUGGLED;
use crate::harness::strict::{self, Message, Rigour};
use crate::harness::{Gateway, Recorder, within};
use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const CASES: u32 = 20_000;
const SEED: u64 = 0x0066_7261_6d69_6e67;
/// Connections at a time.
const AT_A_TIME: usize = 64;
/// A client that has heard nothing for so long says that it has no more to say. No verdict depends
/// on it.
const QUIET: Duration = Duration::from_millis(40);

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[log]
access = false

[upstream.api]
servers = ["UPSTREAM"]

[[route]]
name = "public"
path = "/public/*"
upstream = "api"
auth = "none"
"#;

/// What has split requests somewhere, or the gateway's own reading.
const FRAGMENTS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b"\xa0",
    b":",
    b",",
    b";",
    b"\"",
    b"+",
    b"-",
    b"#",
    b"0",
    b"1",
    b"f",
    b"0x",
    b"\r\n ",
    b"\r\n\t",
    b"\r\n\r\n",
    b"\n\n",
    b"0\r\n\r\n",
    b"0\r\n",
    b"5\r\n",
    b";x=\"\r\n\"",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 42\r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"\r\nTransfer-Encoding: chunked",
    b", chunked",
    b"chunked, ",
    b"Connection: close\r\n",
    b"Connection: content-length\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: h2c\r\n",
    SMUGGLED.as_bytes(),
];

/// One client with what it sends.
struct Case {
    number: u32,
    address: Ipv4Addr,
    stream: Vec<u8>,
    /// Where the stream is cut into writes.
    cuts: Vec<usize>,
}

/// What came of it.
struct Outcome {
    case: Case,
    came: Vec<u8>,
}

// === impl Case ===

impl Case {
    fn new(number: u32) -> Self {
        let mut rng = Rng::with_seed(SEED ^ (u64::from(number) << 20));
        let mut stream = Vec::new();
        for request in 0..rng.u32(1..5) {
            stream.extend(good(&mut rng, number, request));
        }
        for _ in 0..rng.u32(1..3) {
            bend(&mut rng, &mut stream);
        }
        let cuts = (0..rng.u32(0..3)).map(|_| rng.usize(..=stream.len()));
        let mut cuts: Vec<usize> = cuts.collect();
        cuts.sort_unstable();
        let [_, a, b, c] = number.to_be_bytes();
        Self {
            number,
            // Each has an address of its own: X-Forwarded-For tells the upstream's requests apart.
            address: Ipv4Addr::new(127, a + 1, b, c),
            stream,
            cuts,
        }
    }

    async fn play(self, gateway: SocketAddr) -> Outcome {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind((self.address, 0).into()).expect("an address");
        let mut link = socket.connect(gateway).await.expect("connected");
        link.set_nodelay(true).expect("an option");
        let mut at = 0;
        for end in self.cuts.iter().copied().chain([self.stream.len()]) {
            // A gateway that has closed is one of the good ends.
            if link.write_all(&self.stream[at..end]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
            at = end;
        }
        let what = format!("the end of case {}", self.number);
        let came = within(&what, all(&mut link)).await;
        Outcome { case: self, came }
    }
}

/// All that comes until the gateway closes.
async fn all(link: &mut TcpStream) -> Vec<u8> {
    let mut came = Vec::new();
    let mut buffer = [0; 4096];
    let mut done = false;
    loop {
        let patience = if done { Duration::MAX } else { QUIET };
        match tokio::time::timeout(patience, link.read(&mut buffer)).await {
            Ok(Ok(read @ 1..)) => came.extend_from_slice(&buffer[..read]),
            // A reset is an end too.
            Ok(_) => return came,
            Err(_) => {
                done = true;
                if link.shutdown().await.is_err() {
                    return came;
                }
            }
        }
    }
}

/// A good request, whose body looks like some more of them.
fn good(rng: &mut Rng, number: u32, request: u32) -> Vec<u8> {
    let path = format!("/public/{number}-{request}");
    let head = |line: &str| format!("{line} {path} HTTP/1.1\r\nHost: a\r\nX-Some: thing\r\n");
    let body = match rng.u8(0..3) {
        0 => "hello".to_owned(),
        1 => SMUGGLED.to_owned(),
        _ => format!("0\r\n\r\n{SMUGGLED}"),
    };
    let length = body.len();
    let text = match rng.u8(0..4) {
        0 => format!("{}\r\n", head("GET")),
        1 => format!("{}Content-Length: {length}\r\n\r\n{body}", head("POST")),
        2 => format!(
            "{}Transfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n",
            head("POST")
        ),
        _ => format!(
            "{}Transfer-Encoding: chunked\r\n\r\n2;x=y\r\nab\r\n{length:X}\r\n{body}\r\n\
             0\r\nx-sum: 1\r\n\r\n",
            head("PUT")
        ),
    };
    text.into_bytes()
}

/// One change, more often than not beside an end of a line or a colon.
fn bend(rng: &mut Rng, stream: &mut Vec<u8>) {
    let marks = stream.iter().enumerate();
    let marks = marks.filter(|(_, byte)| matches!(byte, b'\r' | b'\n' | b':'));
    let marks: Vec<usize> = marks.map(|(at, _)| at).collect();
    let at = match rng.choice(&marks) {
        Some(mark) if rng.bool() => mark + rng.usize(0..2),
        _ => rng.usize(..=stream.len()),
    };
    let at = at.min(stream.len());
    let end = (at + rng.usize(1..20)).min(stream.len());
    match rng.u8(0..5) {
        0 | 1 => {
            let fragment = rng.choice(FRAGMENTS).expect("some");
            drop(stream.splice(at..at, fragment.iter().copied()));
        }
        2 => drop(stream.drain(at..end.min(at + rng.usize(1..4)))),
        3 => {
            let again = stream[at..end].to_vec();
            drop(stream.splice(at..at, again));
        }
        _ => {
            let fragment = rng.choice(FRAGMENTS).expect("some");
            let over = (at + fragment.len()).min(stream.len());
            drop(stream.splice(at..over, fragment.iter().copied()));
        }
    }
}

// === what must hold ===

/// Whether the upstream's request is the client's: the gateway may write the target in its own way.
fn same(client: &Message, upstream: &Message) -> bool {
    let plain = client.second.starts_with('/')
        && !["//", "%", ".", ";", "\\"]
            .iter()
            .any(|part| client.second.contains(part))
        // Escaped on the way, because no path may have them as they are (RFC 3986 §3.3).
        && !client.second.contains(['"', '<', '>', '[', ']', '^', '`', '{', '|', '}']);
    client.first == upstream.first
        && client.body == upstream.body
        && (!plain || client.second == upstream.second)
}

/// Checks one case against what the upstream has seen.
///
/// `mine` are the numbers of those that came from its address.
fn check(outcome: &Outcome, seen: &[Message], mine: &[usize]) {
    let Outcome { case, came } = outcome;
    let case_is = format!(
        "case {}: {:?}\n came {:?}",
        case.number,
        String::from_utf8_lossy(&case.stream),
        String::from_utf8_lossy(came)
    );
    let meant = strict::requests(&case.stream, Rigour::Client);
    let answers = strict::responses(came, &[], true);
    assert_eq!(answers.wrong, None, "{case_is}");
    let mut answered = Vec::new();
    for (number, answer) in answers.messages.iter().enumerate() {
        match answer.second.as_str() {
            "200" => {
                let upstream: usize = answer.text().parse().expect("a number");
                assert!(mine.contains(&upstream), "another's answer: {case_is}");
                let client = meant.messages.get(number);
                assert!(
                    client.is_some_and(|client| same(client, &seen[upstream])),
                    "{:?} went upstream: {case_is}",
                    seen[upstream]
                );
                answered.push(upstream);
            }
            "400" | "404" | "405" | "408" | "413" | "431" => {}
            status => panic!("{status}: {case_is}"),
        }
    }
    // The last may have been on its way when the client said that it had no more to say.
    assert!(mine.starts_with(&answered), "{mine:?}: {case_is}");
    if let Some(left) = mine.get(answered.len()..) {
        assert!(left.len() <= 1, "{left:?} without an answer: {case_is}");
        for number in left {
            let ahead = meant.messages.iter().skip(answers.messages.len());
            assert!(
                ahead.into_iter().any(|client| same(client, &seen[*number])),
                "{:?} went upstream: {case_is}",
                seen[*number]
            );
        }
    }
}

#[tokio::test]
async fn bent_streams_bring_nothing_upstream_that_the_client_did_not_ask_for() {
    let upstream = Recorder::start().await;
    let gateway = Gateway::start(&CONFIG.replace("UPSTREAM", &upstream.url())).await;
    let (mut admitted, mut refused) = (0, 0);
    let mut outcomes = stream::iter(0..CASES)
        .map(|number| Case::new(number).play(gateway.address))
        .buffer_unordered(AT_A_TIME);
    let mut batch = Vec::new();
    while let Some(outcome) = outcomes.next().await {
        refused += usize::from(outcome.came.windows(12).any(|part| part == b"HTTP/1.1 400"));
        batch.push(outcome);
    }
    let seen = upstream.seen();
    assert_eq!(seen.wrong, Vec::<String>::new());
    let mut by_address: HashMap<String, Vec<usize>> = HashMap::new();
    for (number, request) in seen.requests.iter().enumerate() {
        let address = request.values("x-forwarded-for").join(", ");
        by_address.entry(address).or_default().push(number);
    }
    for outcome in &batch {
        let address = outcome.case.address.to_string();
        let mine = by_address.remove(&address).unwrap_or_default();
        check(outcome, &seen.requests, &mine);
        admitted += mine.len();
    }
    assert!(by_address.is_empty(), "from nobody: {by_address:?}");
    // Or else nothing was put to the test.
    let cases = CASES as usize;
    assert!(
        admitted > cases / 2 && refused > cases / 4,
        "{admitted}, {refused}"
    );
}
