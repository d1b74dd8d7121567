use super::{Flaw, Watch};

const GET: &str = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";

/// What comes of it in one piece, byte by byte, and cut at every place: always the same.
fn watched(stream: &[u8]) -> (u64, Option<(u64, Flaw)>) {
    let of = |portions: &[&[u8]]| {
        let mut watch = Watch::new();
        let flaw = portions.iter().find_map(|bytes| watch.feed(bytes).err());
        (watch.heads(), flaw)
    };
    let whole = of(&[stream]);
    let bytes: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(of(&bytes), whole, "byte by byte");
    for size in [2, 3, 7, 61, 64, 65] {
        let portions: Vec<&[u8]> = stream.chunks(size).collect();
        assert_eq!(of(&portions), whole, "by {size}");
    }
    for at in 0..stream.len() {
        let (first, second) = stream.split_at(at);
        assert_eq!(of(&[first, second]), whole, "cut at {at}");
    }
    whole
}

fn post(fields: &str, body: &str) -> String {
    format!("POST /a?b HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

#[test]
fn heads_are_found_behind_bodies_of_every_kind() {
    let long = "x".repeat(300);
    for good in [
        GET.to_owned(),
        format!("\r\n\r\n{GET}"),
        post("Content-Length: 0\r\n", ""),
        post("content-length:5\r\n", "a#\r\n\n"),
        post("CONTENT-LENGTH: \t 5 \t\r\n", "\n\n\n\r\n"),
        post("Content-Length: 00000000000000000005\r\n", "hello"),
        post(
            "Content-Length: 36\r\n",
            "GET /# HTTP/1.1\r\nContent-Length: 9\r\n",
        ),
        post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
        post(
            "transfer-encoding:CHUNKED\r\n",
            "5\r\nh#\n\r\n\r\n0\r\n\r\n",
        ),
        post(
            "Transfer-Encoding: chunked\r\n",
            "5;a=\"b;#\"\r\nhello\r\n00A \t;x\r\n0123456789\r\n0 \r\nx: #\r\ny: 2\r\n\r\n",
        ),
        post(
            &format!("X-Long: {long}\r\nTransfer-Encodin: {long}\r\n"),
            "",
        ),
        post(
            &format!("{long}: x\r\nContent-Lengths: x\r\nT: x\r\nC:\r\n"),
            "",
        ),
        // Not for the watcher to judge: these have no effect on where the next head begins.
        "BREW coffee://pot HTTP/9.9\r\n\r\n".to_owned(),
    ] {
        assert_eq!(watched(good.as_bytes()), (1, None), "{good}");
        let twice = format!("{good}{GET}");
        assert_eq!(watched(twice.as_bytes()), (2, None), "{good}");
        // A flaw behind it is found, and is the second request's.
        let flawed = format!("{good}GET /# HTTP/1.1\r\n\r\n");
        let flaw = Some((2, Flaw::Target));
        assert_eq!(watched(flawed.as_bytes()), (1, flaw), "{good}");
    }
}

#[test]
fn every_flaw_of_a_head_is_found() {
    let long = " ".repeat(100);
    for (flaw, stream) in [
        (Flaw::Target, "GET /a#b HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET # HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /a?b#".to_owned()),
        (Flaw::Target, "GET http://a/b#c HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /caf\u{e9} HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /?q=\u{e9} HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /\0 HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /\t HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /\x7f HTTP/1.1\r\n".to_owned()),
        (Flaw::Target, "GET /a\r\n".to_owned()),
        (Flaw::RequestLine, "GET\r\n".to_owned()),
        (Flaw::RequestLine, "\n".to_owned()),
        (Flaw::RequestLine, "\rGET / HTTP/1.1\r\n".to_owned()),
        (Flaw::RequestLine, "GET / HTTP/1.1\nHost: a\r\n".to_owned()),
        (Flaw::BareLf, "GET / HTTP/1.1\r\nHost: a\n".to_owned()),
        (Flaw::BareLf, "GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned()),
        (Flaw::BareLf, format!("GET / HTTP/1.1\r\nX: {long}\n")),
        (Flaw::Folded, post("X: 1\r\n 2\r\n", "")),
        (Flaw::Folded, post("X: 1\r\n\tContent-Length: 2\r\n", "")),
        (Flaw::Length, post("Content-Length:\r\n", "")),
        (Flaw::Length, post("Content-Length: +5\r\n", "")),
        (Flaw::Length, post("Content-Length: -5\r\n", "")),
        (Flaw::Length, post("Content-Length: 5,5\r\n", "")),
        (Flaw::Length, post("Content-Length: 5 5\r\n", "")),
        (Flaw::Length, post("Content-Length: 0x5\r\n", "")),
        (Flaw::Length, post("Content-Length: 5\x0b\r\n", "")),
        (
            Flaw::Length,
            post("Content-Length: 18446744073709551616\r\n", ""),
        ),
        (
            Flaw::Length,
            post("Content-Length: 18446744073709551614\r\n", ""),
        ),
        (
            Flaw::Length,
            post(&format!("Content-Length: {long}5\r\n"), ""),
        ),
        (
            Flaw::Length,
            post(&format!("Content-Length: 5{long}\r\n"), ""),
        ),
        (
            Flaw::Coding,
            post(&format!("Transfer-Encoding: {long}chunked\r\n"), ""),
        ),
        (
            Flaw::LengthTwice,
            post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ),
        (
            Flaw::LengthTwice,
            post("content-length: 5\r\nX: y\r\nCONTENT-LENGTH: 6\r\n", ""),
        ),
        (
            Flaw::LengthAndCoding,
            post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", ""),
        ),
        (
            Flaw::LengthAndCoding,
            post("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", ""),
        ),
        (
            Flaw::LengthAndCoding,
            post("Content-Length: 0\r\ntransfer-encoding: chunked\r\n", ""),
        ),
        (Flaw::Coding, post("Transfer-Encoding:\r\n", "")),
        (Flaw::Coding, post("Transfer-Encoding: xchunked\r\n", "")),
        (
            Flaw::Coding,
            post("Transfer-Encoding: gzip, chunked\r\n", ""),
        ),
        (Flaw::Coding, post("Transfer-Encoding: chunked\x0b\r\n", "")),
        (
            Flaw::Coding,
            post(
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                "",
            ),
        ),
    ] {
        let found = (0, Some((1, flaw)));
        assert_eq!(watched(stream.as_bytes()), found, "{stream:?}");
        let behind = format!("{GET}{stream}");
        let found = (1, Some((2, flaw)));
        assert_eq!(watched(behind.as_bytes()), found, "{behind:?}");
    }
}

#[test]
fn every_flaw_of_a_chunk_is_the_request_s_own() {
    for chunks in [
        "\r\n",
        ";x\r\n",
        "-1\r\n",
        "0x5\r\n",
        "g\r\n",
        "5\nhello\r\n",
        "5\r\rhello",
        "5;x\nhello\r\n",
        "5 5\r\n",
        "5\r\nhello\n",
        "5\r\nhello!\r\n",
        "5\r\nhello\r\r",
        "10000000000000000\r\n",
        "00000000000000005\r\n",
        "0\n",
        "0\r\n\n",
        "0\r\nx: 1\n\r\n",
        "0\r\n\rx",
        "0\r\nx\r\n",
        "0\r\n: 1\r\n",
        "0\r\nx : 1\r\n",
        "0\r\n x: 1\r\n",
        "0\r\nx: 1\r\n 2\r\n",
        "0\r\nx: 1\r2\r\n",
        "0\r\nx: \0\r\n",
        "5;\0\r\n",
        "5;\x7f\r\n",
    ] {
        let stream = post("Transfer-Encoding: chunked\r\n", chunks);
        let found = (1, Some((1, Flaw::Chunk)));
        assert_eq!(watched(stream.as_bytes()), found, "{chunks:?}");
    }
}

#[test]
fn extensions_and_trailers_have_a_limit_for_the_whole_body() {
    let long = format!("5;{}\r\nhello\r\n", "x".repeat(1000));
    let blank = format!("5{}\r\nhello\r\n", " ".repeat(1001));
    for (chunks, flaw) in [
        (format!("{}0\r\n\r\n", long.repeat(16)), None),
        (format!("{}0\r\n\r\n", blank.repeat(16)), None),
        (long.repeat(17), Some((1, Flaw::Chunk))),
        (blank.repeat(17), Some((1, Flaw::Chunk))),
        (
            format!("0;{}\r\n", "\"".repeat(20_000)),
            Some((1, Flaw::Chunk)),
        ),
    ] {
        // Each body has its own.
        let stream = post("Transfer-Encoding: chunked\r\n", &chunks);
        let mut watch = Watch::new();
        assert_eq!(watch.feed(stream.as_bytes()).err(), flaw);
        if flaw.is_none() {
            assert_eq!(watch.feed(stream.as_bytes()), Ok(()));
            assert_eq!(watch.heads(), 2);
        }
    }
}

#[test]
fn nothing_is_looked_at_behind_a_flaw() {
    let mut watch = Watch::new();
    assert_eq!(watch.feed(b"GET /# HTTP/1.1\r\n"), Err((1, Flaw::Target)));
    assert_eq!(watch.feed(b"\r\nGET /# HTTP/1.1\r\n\r\n"), Ok(()));
    assert_eq!(watch.heads(), 0);
    assert!(!watch.in_head());
}

#[test]
fn a_head_is_begun_by_its_first_byte_and_ended_by_its_last() {
    let mut watch = Watch::new();
    for (bytes, in_head) in [
        ("\r\n", false),
        ("G", true),
        ("ET / HTTP/1.1\r\nContent-Length: 2\r\n", true),
        ("\r", true),
        ("\n", false),
        ("x", false),
        ("xG", true),
    ] {
        assert_eq!(watch.feed(bytes.as_bytes()), Ok(()));
        assert_eq!(watch.in_head(), in_head, "{bytes:?}");
    }
}
