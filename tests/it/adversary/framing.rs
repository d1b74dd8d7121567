//! The table of framing. What is malformed is answered with 400 and a closed connection, and what
//! comes behind it is never read as a request. [`Bench::cut`] is the measure: the case alone, as the
//! second of two requests in a packet, as the second of a connection, and byte by byte.
//!
//! Not here: the fourth row (an upgrade with bytes before the 101) is with the upgrades; the sixth
//! (hostile upstreams) is `upstream_framing`.

use crate::harness::{CONFIG, Raw, Recorder, World, strict, with_lines, within};
use tokio::io::AsyncWriteExt as _;

/// What must never be read as a request. It stands behind, or in, every hostile one.
pub(super) const SMUGGLED: &str = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const GOOD: &str = "GET /public/good HTTP/1.1\r\nHost: a\r\n\r\n";
/// A good request that asks for the end of its connection.
pub(super) const LAST: &str = "GET /public/last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

/// A gateway in front of an upstream that keeps every byte.
struct Bench {
    world: World,
    upstream: Recorder,
}

// === impl Bench ===

impl Bench {
    async fn start() -> Self {
        Self::with(CONFIG).await
    }

    async fn with(config: &str) -> Self {
        let upstream = Recorder::start().await;
        let config = config.replace("\"ECHO\"", &format!("\"{}\"", upstream.url()));
        let world = World::with(&config).await;
        Self { world, upstream }
    }

    async fn connect(&self) -> Raw {
        Raw::connect(self.world.gateway.address).await
    }

    /// Sends bytes, and reads what comes until the gateway closes: the statuses.
    async fn statuses(&self, sent: &[u8], case: &str) -> Vec<String> {
        let mut raw = self.connect().await;
        raw.try_send(sent).await;
        statuses(&raw.rest().await, case)
    }

    /// Sends bytes: the statuses, of which a 400 has to announce the close.
    async fn closed(&self, sent: &[u8], case: &str) -> Vec<String> {
        let mut raw = self.connect().await;
        raw.try_send(sent).await;
        closed(&raw.rest().await, case)
    }

    /// 400 and close, whatever comes behind it, and the upstream has seen nothing of it.
    async fn cut(&self, sent: &[u8], case: &str) {
        let behind = [sent, SMUGGLED.as_bytes()].concat();
        let (requests, bytes) = self.upstream.count();
        assert_eq!(self.closed(&behind, case).await, ["400"], "{case}");
        assert_eq!(self.upstream.count(), (requests, bytes), "{case}");

        let second = [GOOD.as_bytes(), &behind].concat();
        let came = self.closed(&second, case).await;
        assert_eq!(came, ["200", "400"], "{case}, second in a packet");

        let mut raw = self.connect().await;
        raw.send(GOOD).await;
        assert_eq!(raw.reply().await.1, (requests + 1).to_string(), "{case}");
        let (requests, bytes) = self.upstream.count();
        raw.try_send(&behind).await;
        let came = closed(&raw.rest().await, case);
        assert_eq!(came, ["400"], "{case}, second of a connection");
        assert_eq!(
            self.upstream.count(),
            (requests, bytes),
            "{case}, second of a connection"
        );
    }

    /// [`Self::cut`] for a head, which the gateway gets in pieces too.
    async fn cut_head(&self, sent: &[u8], case: &str) {
        self.cut(sent, case).await;
        let (requests, bytes) = self.upstream.count();
        let came = self.byte_by_byte(sent, case).await;
        assert_eq!(came, ["400"], "{case}, byte by byte");
        assert_eq!(
            self.upstream.count(),
            (requests, bytes),
            "{case}, byte by byte"
        );
    }

    /// A body in pieces. Its head may be upstream by then: what is there must have no end.
    async fn in_pieces(&self, sent: &[u8], case: &str) {
        let (requests, _) = self.upstream.count();
        let came = self.byte_by_byte(sent, case).await;
        assert_eq!(came, ["400"], "{case}, byte by byte");
        assert_eq!(self.upstream.count().0, requests, "{case}, byte by byte");
    }

    async fn byte_by_byte(&self, sent: &[u8], case: &str) -> Vec<String> {
        let mut raw = self.connect().await;
        raw.stream.set_nodelay(true).expect("an option");
        for byte in [sent, SMUGGLED.as_bytes()].concat() {
            raw.try_send(&[byte]).await;
            // So that the gateway's thread has its turn where there is one core.
            std::thread::yield_now();
        }
        closed(&raw.rest().await, case)
    }

    /// At the end: nothing that was smuggled, nothing that can be read in two ways.
    fn nothing_smuggled(&self) {
        let seen = self.upstream.seen();
        assert_eq!(seen.wrong, Vec::<String>::new());
        let targets = seen.requests.iter().map(|request| &request.second);
        let smuggled: Vec<_> = targets.filter(|path| path.contains("smuggled")).collect();
        assert!(smuggled.is_empty(), "{smuggled:?}");
    }
}

/// The statuses of whole replies.
fn statuses(came: &str, case: &str) -> Vec<String> {
    let replies = replies(came, case);
    replies.into_iter().map(|reply| reply.second).collect()
}

/// [`statuses`], where the last reply is the last, and says so.
fn closed(came: &str, case: &str) -> Vec<String> {
    let replies = replies(came, case);
    let last = replies.last().unwrap_or_else(|| panic!("{case}: no reply"));
    assert_eq!(last.values("connection"), ["close"], "{case}: {came}");
    let kind = last.values("content-type");
    assert_eq!(kind, ["application/problem+json"], "{case}: {came}");
    let reason = "\"reason\":\"bad_request\"";
    assert!(last.text().contains(reason), "{case}: {came}");
    replies.into_iter().map(|reply| reply.second).collect()
}

pub(super) fn replies(came: &str, case: &str) -> Vec<strict::Message> {
    let read = strict::responses(came.as_bytes(), &[], true);
    let whole = (read.taken, read.wrong.as_deref());
    assert_eq!(whole, (came.len(), None), "{case}: {came}");
    read.messages
}

/// Characters up to U+00FF as one byte each.
fn bytes(text: &str) -> Vec<u8> {
    let byte = |c: char| u8::try_from(u32::from(c)).expect("a byte");
    text.chars().map(byte).collect()
}

pub(super) fn post(fields: &str, body: &str) -> Vec<u8> {
    bytes(&format!(
        "POST /public/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}"
    ))
}

pub(super) fn chunked(body: &str) -> Vec<u8> {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// All requests of the tables below that are malformed, whole.
pub(super) fn hostile() -> Vec<Vec<u8>> {
    let whole = "5\r\nhello\r\n0\r\n\r\n";
    let codings = CODINGS.iter().map(|coding| format!("{coding}\r\n"));
    let fields = BOTH.iter().map(ToString::to_string).chain(codings);
    let framed = fields.map(|fields| post(&fields, whole));
    let lengths = LENGTHS
        .iter()
        .map(|length| format!("Content-Length: {length}\r\n"));
    let lines = LINES
        .iter()
        .map(|line| format!("{line}\r\nContent-Length: 0\r\n"));
    let starts = REQUEST_LINES
        .iter()
        .map(|line| bytes(&format!("{line}\r\nHost: a\r\n\r\n")));
    framed
        .chain(lengths.map(|fields| post(&fields, "hello")))
        .chain(lines.map(|fields| post(&fields, "")))
        .chain(starts)
        .chain(CHUNKS.iter().map(|chunks| chunked(chunks)))
        .collect()
}

/// Fields that say the length in two ways, ahead of a chunked body.
const BOTH: &[&str] = &[
    "Content-Length: 15\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 15\r\n",
    "content-length: 15\r\ntransfer-encoding: chunked\r\n",
    "TRANSFER-ENCODING: CHUNKED\r\nCONTENT-LENGTH: 15\r\n",
    "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
    "Content-Length: 15\r\nX: y\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 15\r\nTransfer-Encoding: identity\r\n",
    "Content-Length: 15\r\nTransfer-Encoding: gzip\r\n",
    "Content-Length: 15\r\nTransfer-Encoding:\r\n",
    "Content-Length: x\r\nTransfer-Encoding: chunked\r\n",
    "Content-Length: 15\r\nTransfer-Encoding: chunked\r\nConnection: content-length\r\n",
    "Content-Length: 15\r\nTransfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
];

#[tokio::test]
async fn row_01_content_length_and_transfer_encoding() {
    let bench = Bench::start().await;
    let whole = "5\r\nhello\r\n0\r\n\r\n";
    for fields in BOTH {
        bench.cut_head(&post(fields, whole), fields).await;
    }
    bench.nothing_smuggled();
}

/// Fields that are no `Transfer-Encoding: chunked`, or not that alone, ahead of a chunked body.
const CODINGS: &[&str] = &[
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: chunked,chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity, chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: xchunked",
    "Transfer-Encoding: chunkedx",
    "Transfer-Encoding: x-chunked",
    "Transfer-Encoding: \"chunked\"",
    "Transfer-Encoding: 'chunked'",
    "Transfer-Encoding: chunked;q=1",
    "Transfer-Encoding: chunked; q=1",
    "Transfer-Encoding: chunked,",
    "Transfer-Encoding: ,chunked",
    "Transfer-Encoding: chun ked",
    "Transfer-Encoding:",
    "Transfer-Encoding: ",
    "Transfer-Encoding: \u{b}chunked",
    "Transfer-Encoding: \u{c}chunked",
    "Transfer-Encoding: chunked\u{b}",
    "Transfer-Encoding: \u{a0}chunked",
    "Transfer-Encoding: chunked\u{a0}",
    "Transfer-Encoding: chunked\u{85}",
    "Transfer-Encoding: chunked\0",
    "Transfer-Encoding: \u{7f}chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: gzip\r\nX: y\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    "Transfer-Encoding : chunked",
    "Transfer-Encoding\t: chunked",
    "Transfer-Encoding\u{b}: chunked",
    " Transfer-Encoding: chunked",
    "\tTransfer-Encoding: chunked",
    "X: y\r\n Transfer-Encoding: chunked",
    "X: y\rTransfer-Encoding: chunked",
    "X: y\nTransfer-Encoding: chunked",
    "Transfer-Encoding:\r\n chunked",
    "Transfer-Encoding: chunked\r\n , gzip",
    "Transfer-Encoding: chunked\n",
    "Transfer-Encoding chunked",
    "Transfer-Encoding\0: chunked",
    "Transfer-Encod\u{a0}ing: chunked",
];

#[tokio::test]
async fn row_01_transfer_codings() {
    let bench = Bench::start().await;
    for coding in CODINGS {
        let sent = post(&format!("{coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
        bench.cut_head(&sent, coding).await;
    }
    // HTTP/1.0 does not know it.
    for fields in [
        "Transfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
        "Connection: keep-alive\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n",
    ] {
        let head = format!("POST /public/x HTTP/1.0\r\nHost: a\r\n{fields}\r\n");
        bench
            .cut_head(&bytes(&format!("{head}5\r\nhello\r\n0\r\n\r\n")), &head)
            .await;
    }
    // White space that is allowed around it is none of the above.
    for coding in [
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: \t chunked\t ",
        "tRANSFER-eNCODING: Chunked",
    ] {
        let sent = post(&format!("{coding}\r\n"), "5\r\nhello\r\n0\r\n\r\n");
        let sent = [&sent, LAST.as_bytes()].concat();
        assert_eq!(
            bench.statuses(&sent, coding).await,
            ["200", "200"],
            "{coding}"
        );
        let seen = bench.upstream.seen();
        let [.., posted, last] = seen.requests.as_slice() else {
            panic!("two requests");
        };
        assert_eq!(
            (posted.text().as_str(), last.second.as_str()),
            ("hello", "/public/last")
        );
    }
    bench.nothing_smuggled();
}

/// Values that are no length.
const LENGTHS: &[&str] = &[
    "",
    " ",
    "+5",
    "-1",
    "-0",
    "5,6",
    "5, 5",
    "5,5",
    "5 5",
    "5,",
    ",5",
    "0x5",
    "5;",
    "5.0",
    "5e0",
    "\"5\"",
    "five",
    "\u{b2}",
    "5\u{b}",
    "\u{b}5",
    "5\u{a0}",
    "\u{a0}5",
    "5\0",
    "5\u{7f}",
    "18446744073709551616",
    "18446744073709551621",
    "99999999999999999999999999999999999999",
    "5\r\nContent-Length: 5",
    "5\r\nContent-Length: 6",
    "6\r\nContent-Length: 5",
    "5\r\nX: y\r\ncontent-length: 5",
    "0\r\nContent-Length: 44",
    "5\r\nContent-Length:",
    "\r\nContent-Length: 5",
    "\r\n 5",
    "5\r\n 5",
    "5\rX: y",
    "5\nX: y",
];

#[tokio::test]
async fn row_01_content_lengths() {
    let bench = Bench::start().await;
    for length in LENGTHS {
        let sent = post(&format!("Content-Length: {length}\r\n"), "hello");
        bench.cut_head(&sent, &format!("length {length:?}")).await;
    }
    for name in [
        "Content-Length ",
        "Content-Length\t",
        " Content-Length",
        "\u{b}Content-Length",
        "Content-Length\0",
        "Content\u{ad}-Length",
    ] {
        let sent = post(&format!("{name}: 5\r\n"), "hello");
        bench.cut_head(&sent, name).await;
    }
    // As much as can be said, and more than is taken: no length at all would be a second reading.
    let most = post("Content-Length: 18446744073709551615\r\n", "hello");
    let most = [&most, SMUGGLED.as_bytes()].concat();
    assert_eq!(bench.closed(&most, "2^64 - 1").await, ["400"]);
    let much = post("Content-Length: 18446744073709551613\r\n", SMUGGLED);
    assert_eq!(bench.statuses(&much, "2^64 - 3").await, ["413"]);
    // White space behind it is none of it (RFC 9110 §5.5).
    for length in ["5 ", " \t5\t", "005"] {
        let sent = post(&format!("Content-Length:{length}\r\n"), "hello");
        let sent = [&sent, LAST.as_bytes()].concat();
        assert_eq!(
            bench.statuses(&sent, length).await,
            ["200", "200"],
            "{length:?}"
        );
    }
    bench.nothing_smuggled();
}

/// Chunks that are not what RFC 9112 §7.1 has.
const CHUNKS: &[&str] = &[
    // the size
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "100000000000000000000000000000005\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    ";x\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "\t5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "0_5\r\nhello\r\n0\r\n\r\n",
    "5 5\r\nhello\r\n0\r\n\r\n",
    "5g\r\nhello\r\n0\r\n\r\n",
    "g\r\nhello\r\n0\r\n\r\n",
    "\u{b}5\r\nhello\r\n0\r\n\r\n",
    "5\u{b}\r\nhello\r\n0\r\n\r\n",
    "5\u{a0}\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "5,\r\nhello\r\n0\r\n\r\n",
    "\u{b2}\r\nhello\r\n0\r\n\r\n",
    // ends of lines
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\rhello\r\n0\r\n\r\n",
    "5\r\n\nhello\r\n0\r\n\r\n",
    "5\n\nhello\n0\n\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "5\r\nhell\r\n0\r\n\r\n",
    "5\r\nhello\r\n\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\n\n",
    "5\r\nhello\r\n0\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\r\n\r\n",
    "5\r\nhello\r\n0\r\n\rX",
    // extensions
    "5;x\nhello\r\n0\r\n\r\n",
    "5;\nhello\r\n0\r\n\r\n",
    "5;x=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "5;x=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
    "5;x=\"y\n0\r\n\r\n",
    "5;x\rhello\r\n0\r\n\r\n",
    "5;x\r\r\nhello\r\n0\r\n\r\n",
    "5;x=\"\u{b}\"\r\nhello\r\n0\r\n\r\n",
    "5;\u{7f}\r\nhello\r\n0\r\n\r\n",
    "5;\0\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0;x\n\r\n",
    // trailers
    "0\r\nx: y\n\r\n",
    "0\r\nx: y\r\n\n",
    "0\r\nx\r\n\r\n",
    "0\r\n: y\r\n\r\n",
    "0\r\nx : y\r\n\r\n",
    "0\r\n x: y\r\n\r\n",
    "0\r\nx: \0\r\n\r\n",
    "0\r\nx: y\u{1}\r\n\r\n",
    "0\r\nx: y\rz\r\n\r\n",
    "0\r\nx: y\r\r\n\r\n",
    "0\r\nx: y\r\n z\r\n\r\n",
    "0\r\nx: y\r\n\tz: 1\r\n\r\n",
    "0\r\nx\u{e9}: y\r\n\r\n",
];

#[tokio::test]
async fn row_02_chunks() {
    // Half a request may come late upstream, so the two are counted apart.
    let (bench, pieces) = (Bench::start().await, Bench::start().await);
    for body in CHUNKS {
        let (sent, case) = (chunked(body), format!("chunks {body:?}"));
        bench.cut(&sent, &case).await;
        pieces.in_pieces(&sent, &case).await;
    }
    pieces.nothing_smuggled();
    bench.nothing_smuggled();
}

/// A size that is none of a chunk's, but a number: more than anybody takes.
#[tokio::test]
async fn row_02_chunks_larger_than_any_body() {
    let bench = Bench::start().await;
    for size in ["ffffffffffffffff", "8000000000000000", "7fffffffffffffff"] {
        let mut raw = bench.connect().await;
        let sent = chunked(&format!("{size}\r\nhello\r\n0\r\n\r\n{SMUGGLED}"));
        raw.send(sent).await;
        // All that comes is its body, as far as anybody can tell; and it never ends.
        raw.stream.shutdown().await.expect("shut down");
        let came = statuses(&raw.rest().await, size);
        assert!(came.len() <= 1 && came != ["200"], "{size}: {came:?}");
    }
    bench.nothing_smuggled();
    assert_eq!(bench.upstream.count().0, 0);
}

#[tokio::test]
async fn row_02_chunk_extension_of_1_mib_and_endless_trailers() {
    let bench = Bench::start().await;
    let long = "x".repeat(1 << 20);
    let many = "a: b\r\n".repeat(100_000);
    for (case, body) in [
        ("extension", format!("5;{long}\r\nhello\r\n0\r\n\r\n")),
        (
            "quoted extension",
            format!("5;x=\"{long}\"\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "extension of the last chunk",
            format!("5\r\nhello\r\n0;{long}\r\n\r\n"),
        ),
        (
            "many extensions",
            format!(
                "{}0\r\n\r\n",
                format!("1;{}\r\nx\r\n", &long[..1000]).repeat(1000)
            ),
        ),
        (
            "blanks behind the size",
            format!("5{}\r\nhello\r\n0\r\n\r\n", " ".repeat(1 << 20)),
        ),
        (
            "leading zeros",
            format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(1 << 20)),
        ),
        (
            "a long trailer",
            format!("5\r\nhello\r\n0\r\nx: {long}\r\n\r\n"),
        ),
        ("many trailers", format!("5\r\nhello\r\n0\r\n{many}\r\n")),
        ("a trailer that does not end", format!("0\r\nx: {long}")),
    ] {
        let (requests, _) = bench.upstream.count();
        let sent = [chunked(&body), SMUGGLED.into()].concat();
        assert_eq!(bench.closed(&sent, case).await, ["400"], "{case}");
        assert_eq!(bench.upstream.count().0, requests, "{case}");
    }
    bench.nothing_smuggled();
}

/// Lines that are no fields.
const LINES: &[&str] = &[
    ": y",
    ":",
    "x : y",
    "x\t: y",
    "x y: z",
    "x",
    "x y",
    " : y",
    "\"x\": y",
    "(x): y",
    "x@: y",
    "x\u{e9}: y",
    "x\u{a0}: y",
    "x\0: y",
    "\0x: y",
    "x\u{1}: y",
    "x\u{7f}: y",
    "x: \0",
    "x: y\0z",
    "x: \u{1}",
    "x: y\u{8}",
    "x: \u{b}",
    "x: \u{c}",
    "x: \u{1b}[0m",
    "x: \u{7f}",
    "x: y\rz",
    "x: y\r",
    "x: \ry: z",
    "x\r: y",
    "\rx: y",
    "x: y\nz: 1",
    "x: y\n",
    "x: y\n\r\n",
    "x: y\r\n z",
    "x: y\r\n\tz",
    "x: y\r\n ",
    "x: y\r\n\t\r\n",
    " x: y",
    "\tx: y",
    " ",
    "x: y\r\n\u{b}z: 1",
];

#[tokio::test]
async fn row_03_header_lines() {
    let bench = Bench::start().await;
    for line in LINES {
        let sent = post(&format!("{line}\r\nContent-Length: 0\r\n"), "");
        bench.cut_head(&sent, &format!("line {line:?}")).await;
        // As the first line, in front of Host.
        let first = format!("GET /public/x HTTP/1.1\r\n{line}\r\nHost: a\r\n\r\n");
        bench
            .cut_head(&bytes(&first), &format!("first line {line:?}"))
            .await;
        // And as the last.
        let last = format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n");
        bench
            .cut_head(&bytes(&last), &format!("last line {line:?}"))
            .await;
    }
    bench.nothing_smuggled();
}

/// Lines that begin no request.
const REQUEST_LINES: &[&str] = &[
    "GET  /public/x HTTP/1.1",
    "GET /public/x  HTTP/1.1",
    "GET /public/x HTTP/1.1 ",
    "GET\t/public/x HTTP/1.1",
    "GET /public/x\tHTTP/1.1",
    "GET\u{b}/public/x HTTP/1.1",
    "GET\u{a0}/public/x HTTP/1.1",
    "GET /public/x HTTP/1.1\t",
    "GET /public/x http/1.1",
    "GET /public/x HtTP/1.1",
    "GET /public/x HTTP/1.2",
    "GET /public/x HTTP/1.10",
    "GET /public/x HTTP/01.1",
    "GET /public/x HTTP/1,1",
    "GET /public/x HTTP/1",
    "GET /public/x HTTP/1.",
    "GET /public/x HTTP/2.0",
    "GET /public/x HTTP/2",
    "GET /public/x HTTP/0.9",
    "GET /public/x HTTPS/1.1",
    "GET /public/x HTTP /1.1",
    "GET /public/x ICAP/1.0",
    "GET /public/x",
    "GET",
    " GET /public/x HTTP/1.1",
    "\tGET /public/x HTTP/1.1",
    "GET /public/x#y HTTP/1.1",
    "GET /public/x# HTTP/1.1",
    "GET http://a/public/x#y HTTP/1.1",
    "GET http://a/public/x?q#y HTTP/1.1",
    "GET /public/ x HTTP/1.1",
    "GET /public/x HTTP/1.1 HTTP/1.1",
    "GET /public/\0 HTTP/1.1",
    "GET /public/\u{e9} HTTP/1.1",
    "GET /public/\u{7f} HTTP/1.1",
    "GET /public/x HTTP/1.1\r",
    "GET /public/x HTTP/1.1\0",
    "GET /public/\rx HTTP/1.1",
    "G\0T /public/x HTTP/1.1",
    "G(T /public/x HTTP/1.1",
    "G:T /public/x HTTP/1.1",
    "G\"T /public/x HTTP/1.1",
    "GET\r /public/x HTTP/1.1",
    "\u{16}\u{3}\u{1} /public/x HTTP/1.1",
];

#[tokio::test]
async fn row_03_request_lines() {
    let bench = Bench::start().await;
    for line in REQUEST_LINES {
        let sent = bytes(&format!("{line}\r\nHost: a\r\n\r\n"));
        bench.cut_head(&sent, &format!("{line:?}")).await;
    }
    // Its end is a bare LF.
    for head in [
        "GET /public/x HTTP/1.1\nHost: a\r\n\r\n",
        "GET /public/x HTTP/1.1\nHost: a\n\n",
        "GET /public/x HTTP/1.1\r\nHost: a\n\n",
        "GET /public/x HTTP/1.1\r\nHost: a\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\nGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\r\nGET /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /public/x\n",
    ] {
        bench.cut_head(head.as_bytes(), &format!("{head:?}")).await;
    }
    bench.nothing_smuggled();
}

/// Wherever a head is cut, it means the same.
#[tokio::test]
async fn row_03_a_head_in_two_pieces() {
    let bench = Bench::start().await;
    let good = "\r\nPOST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
    let folded = "GET /public/x HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n";
    for at in 1..good.len() {
        let mut raw = bench.connect().await;
        raw.send(&good[..at]).await;
        // Nothing to wait for: the gateway says nothing to a part.
        tokio::task::yield_now().await;
        raw.send(format!("{}{LAST}", &good[at..])).await;
        let came = statuses(&raw.rest().await, "good");
        assert_eq!(came, ["200", "200"], "cut at {at}");
    }
    let (requests, bytes) = bench.upstream.count();
    for at in 1..folded.len() {
        let mut raw = bench.connect().await;
        raw.send(&folded[..at]).await;
        tokio::task::yield_now().await;
        raw.try_send(format!("{}{SMUGGLED}", &folded[at..]).as_bytes())
            .await;
        assert_eq!(
            statuses(&raw.rest().await, "folded"),
            ["400"],
            "cut at {at}"
        );
    }
    assert_eq!(bench.upstream.count(), (requests, bytes));
    let seen = bench.upstream.seen();
    let bodies = seen
        .requests
        .iter()
        .filter(|request| request.first == "POST");
    assert!(
        bodies.into_iter().all(|request| request.text() == "hello"),
        "whole bodies"
    );
}

/// The body of a refused request is read as what it is, or the connection closes.
#[tokio::test]
async fn row_05_refused_post_with_an_unread_body() {
    let bench = Bench::start().await;
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let in_chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let far = "x".repeat(300_000);
    let far_length = format!("Content-Length: {}\r\n", far.len() + SMUGGLED.len());
    let far_body = format!("{far}{SMUGGLED}");
    for (fields, body) in [
        (length.as_str(), SMUGGLED),
        ("Transfer-Encoding: chunked\r\n", &in_chunk),
        (far_length.as_str(), &far_body),
    ] {
        for (path, status) in [
            ("/grants/1", "401"),
            ("/nowhere", "404"),
            ("/scoped/x", "401"),
        ] {
            for at_once in [true, false] {
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
                let mut raw = bench.connect().await;
                let mut came = String::new();
                if at_once {
                    raw.try_send(format!("{head}{body}{LAST}").as_bytes()).await;
                } else {
                    raw.send(head).await;
                    let (head, own) = raw.reply().await;
                    came = format!("{head}{own}");
                    raw.try_send(format!("{body}{LAST}").as_bytes()).await;
                }
                came.push_str(&raw.rest().await);
                let came = statuses(&came, path);
                assert!(
                    came == [status] || came == [status, "200"],
                    "{path} {at_once}: {came:?}"
                );
            }
        }
    }
    bench.nothing_smuggled();
    let seen = bench.upstream.seen();
    assert!(
        seen.requests
            .iter()
            .all(|request| request.second == "/public/last")
    );
}

/// What is too large is refused before any of it is read, and it is no request either.
#[tokio::test]
async fn row_05_a_body_over_the_limit() {
    let config = with_lines(CONFIG, "[server]", "max_body = \"16B\"");
    let bench = Bench::with(&config).await;
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let in_chunk = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    for sent in [post(&length, SMUGGLED), chunked(&in_chunk)] {
        let sent = [&sent, LAST.as_bytes()].concat();
        let came = bench.statuses(&sent, "over the limit").await;
        assert!(came == ["413"] || came == ["413", "200"], "{came:?}");
    }
    bench.nothing_smuggled();
}

#[tokio::test]
async fn row_05_a_body_that_breaks_off() {
    let bench = Bench::start().await;
    for sent in [
        post("Content-Length: 100\r\n", SMUGGLED),
        chunked("64\r\nGET /public/smuggled HTTP/1.1\r\n\r\n"),
        chunked("5\r\nhello\r\n"),
        chunked("5\r\nhello\r\n0\r\n"),
        chunked("5\r\nhello\r\n0\r\nx: y\r\n"),
    ] {
        let case = String::from_utf8_lossy(&sent).into_owned();
        let mut raw = bench.connect().await;
        raw.send(&sent).await;
        raw.stream.shutdown().await.expect("shut down");
        let came = statuses(&raw.rest().await, &case);
        assert!(came.is_empty() || came == ["400"], "{case}: {came:?}");
        assert_eq!(bench.upstream.count().0, 0, "{case}");
    }
    // A connection to the upstream that has half a request on it is not used again.
    let came = bench.statuses(LAST.as_bytes(), "the next").await;
    assert_eq!(came, ["200"]);
    assert_eq!(bench.upstream.count().0, 1);
}

#[tokio::test]
async fn row_05_expect_100_continue_and_a_refusal() {
    let bench = Bench::start().await;
    let expect = format!(
        "Expect: 100-continue\r\nContent-Length: {}\r\n",
        SMUGGLED.len()
    );
    for (path, status) in [("/grants/1", "401"), ("/nowhere", "404")] {
        // Told no, a client may go on with its next request or with the body: it is either closed
        // on, or read as what it is.
        for behind in [LAST.to_owned(), format!("{SMUGGLED}{LAST}")] {
            let mut raw = bench.connect().await;
            raw.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{expect}\r\n"))
                .await;
            let (head, _) = raw.reply().await;
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")),
                "no 100: {head}"
            );
            raw.try_send(behind.as_bytes()).await;
            let came = statuses(&raw.rest().await, path);
            assert!(came.is_empty() || came == ["200"], "{came:?}");
        }
    }
    bench.nothing_smuggled();
    // Admitted, it is asked for its body, once.
    let mut raw = bench.connect().await;
    raw.send(
        "POST /public/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    raw.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    raw.send(format!("hello{LAST}")).await;
    assert_eq!(statuses(&raw.rest().await, "expected"), ["200", "200"]);
}

/// Our own answers keep the connection where nothing of the request is left unread.
#[tokio::test]
async fn refusals_keep_the_connection_where_that_is_safe() {
    let bench = Bench::start().await;
    let mut raw = bench.connect().await;
    let body = "Content-Length: 5\r\n\r\nhello";
    let chunks = "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    for (what, status) in [
        (
            "GET /grants/1 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "401",
        ),
        ("GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
        (
            "DELETE /scoped/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "405",
        ),
        (
            "GET /public/%00 HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            "400",
        ),
        ("GET /public/x HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (
            format!("POST /grants/1 HTTP/1.1\r\nHost: a\r\n{body}"),
            "401",
        ),
        (
            format!("POST /grants/1 HTTP/1.1\r\nHost: a\r\n{chunks}"),
            "401",
        ),
        (
            "POST /grants/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".to_owned(),
            "401",
        ),
        (GOOD.to_owned(), "200"),
    ] {
        raw.send(&what).await;
        let (head, _) = raw.reply().await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status} ")),
            "{what}: {head}"
        );
        assert!(
            !head.to_ascii_lowercase().contains("connection: close"),
            "{what}: {head}"
        );
    }
    raw.send(LAST).await;
    assert_eq!(statuses(&raw.rest().await, "last"), ["200"]);
    assert_eq!(bench.upstream.count().0, 2);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_up_to_the_first_flaw() {
    let bench = Bench::start().await;
    let length = format!("Content-Length: {}\r\n", SMUGGLED.len());
    let chunks = chunked("3;ext=\"quoted\"\r\nabc\r\n2\r\nde\r\n0\r\nx-sum: 1\r\n\r\n");
    let stream = [
        GOOD.as_bytes(),
        &post(&length, SMUGGLED),
        b"GET /grants/1 HTTP/1.1\r\nHost: a\r\n\r\n",
        &chunks,
        b"HEAD /public/head HTTP/1.1\r\nHost: a\r\n\r\n",
        GOOD.as_bytes(),
        b"GET /public/flawed HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        SMUGGLED.as_bytes(),
    ]
    .concat();
    for by in [stream.len(), 1, 2, 3, 7, 61, 64] {
        let before = bench.upstream.count().0;
        let mut raw = bench.connect().await;
        raw.stream.set_nodelay(true).expect("an option");
        for piece in stream.chunks(by) {
            raw.try_send(piece).await;
        }
        let came = raw.rest().await;
        let methods = ["GET", "POST", "GET", "POST", "HEAD", "GET", "GET"];
        let read = strict::responses(came.as_bytes(), &methods, true);
        assert_eq!((read.taken, read.wrong), (came.len(), None), "{came}");
        let answers = read
            .messages
            .iter()
            .map(|reply| (reply.second.as_str(), reply.text()));
        let (statuses, bodies): (Vec<_>, Vec<_>) = answers.unzip();
        assert_eq!(statuses, ["200", "200", "401", "200", "200", "200", "400"]);
        let number = |number: usize| (before + number).to_string();
        assert_eq!(bodies[0], number(0));
        assert_eq!(bodies[1], number(1));
        assert_eq!(bodies[3], number(2));
        assert_eq!(bodies[5], number(4));
        let seen = bench.upstream.seen();
        let new: Vec<_> = seen.requests[before..]
            .iter()
            .map(|request| (request.second.as_str(), request.text()))
            .collect();
        let bodied = |body: &str| ("/public/x", body.to_owned());
        assert_eq!(
            new,
            [
                ("/public/good", String::new()),
                bodied(SMUGGLED),
                bodied("abcde"),
                ("/public/head", String::new()),
                ("/public/good", String::new()),
            ]
        );
    }
    bench.nothing_smuggled();
}

/// Fields that speak of this hop say nothing to the next one, and trailers frame nothing.
#[tokio::test]
async fn headers_rows_framing_fields_are_said_anew() {
    let bench = Bench::start().await;
    for (fields, body) in [
        (
            "Content-Length: 5\r\nConnection: Transfer-Encoding, keep-alive\r\n",
            "hello",
        ),
        (
            "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n",
            "5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "Transfer-Encoding: chunked\r\nTE: trailers, chunked\r\nTrailer: content-length\r\n",
            "5\r\nhello\r\n0\r\nContent-Length: 500\r\nTransfer-Encoding: gzip\r\nHost: b\r\n\r\n",
        ),
        ("Content-Length: 5\r\nUpgrade: h2c\r\n", "hello"),
        (
            "Content-Length: 5\r\nProxy-Connection: close\r\nKeep-Alive: 300\r\n",
            "hello",
        ),
    ] {
        let before = bench.upstream.count().0;
        let sent = [&post(fields, body), LAST.as_bytes()].concat();
        let came = bench.statuses(&sent, fields).await;
        assert_eq!(came, ["200", "200"], "{fields}");
        let seen = bench.upstream.seen();
        let new: Vec<_> = seen.requests[before..]
            .iter()
            .map(|request| (request.second.as_str(), request.text()))
            .collect();
        assert_eq!(
            new,
            [
                ("/public/x", "hello".to_owned()),
                ("/public/last", String::new())
            ],
            "{fields}"
        );
        let posted = &seen.requests[before];
        for name in ["connection", "keep-alive", "proxy-connection", "upgrade"] {
            assert_eq!(posted.values(name), Vec::<&str>::new(), "{fields}");
        }
        assert_eq!(posted.values("host"), ["a"], "{fields}");
    }
    // Whoever wants these taken out wants another request to come out.
    for name in [
        "content-length",
        "Content-Length",
        "host",
        "x, content-length",
    ] {
        let (requests, bytes) = bench.upstream.count();
        let fields = format!("Content-Length: 5\r\nConnection: {name}\r\n");
        let sent = [&post(&fields, "hello"), LAST.as_bytes()].concat();
        assert_eq!(bench.statuses(&sent, name).await, ["400", "200"], "{name}");
        let seen = bench.upstream.seen();
        assert_eq!(seen.requests.len(), requests + 1, "{name}");
        let last = &seen.requests[requests];
        assert_eq!(last.second, "/public/last");
        assert!(seen.bytes - bytes < 600, "{name}: only the last one");
    }
    bench.nothing_smuggled();
}

/// A client that has been cut reads its answer even if it is still writing.
#[tokio::test]
async fn who_is_cut_in_mid_write_hears_why() {
    let bench = Bench::start().await;
    let long = "x".repeat(4 << 20);
    let sent = [b"GET /public/x HTTP/1.1\r\nX : y\r\n\r\n", long.as_bytes()].concat();
    for _ in 0..5 {
        let came = within("an answer", bench.statuses(&sent, "long")).await;
        assert_eq!(came, ["400"]);
    }
}
