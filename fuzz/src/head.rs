//! Where the watcher of a connection and hyper both go on reading, they agree on where each head begins and ends: nobody
//! can hide a request from the one in what the other takes for a body.
//!
//! The other reader here is hyper's parser, and bodies are framed as laxly as hyper frames them.

use super::{Outcome, cuts};
use bonterra_gateway::server::head::{Flaw, Watch};
use std::ops::Range;

/// As hyper has it.
const MAX_HEADERS: usize = 100;

/// What the watcher makes of a stream.
#[derive(Debug, PartialEq, Eq)]
struct Watched {
    heads: u64,
    in_head: bool,
    flaw: Option<(u64, Flaw)>,
}

/// What the other reader makes of it.
struct Read {
    /// From which byte to which each head goes.
    heads: Vec<Range<usize>>,
    end: End,
}

/// Where a reader is when the stream ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    BetweenMessages,
    InHead,
    InBody,
    /// It has given up.
    Broken,
}

/// How a body is framed.
enum Body {
    Length(u64),
    Chunked,
}

/// Checks all that comes by one connection.
pub fn check(data: &[u8]) -> Outcome {
    let (watched, heads) = by_bytes(data);
    for pieces in cuts::of(data) {
        let mut watch = Watch::new();
        let flaw = pieces.iter().find_map(|piece| watch.feed(piece).err());
        let count = pieces.len();
        assert_eq!(state(&watch, flaw), watched, "in {count} pieces");
    }
    let read = read(data);
    // What hyper hands over has been seen as it is, or is known to be flawed.
    for (at, head) in read.heads.iter().enumerate() {
        let flawed = watched
            .flaw
            .is_some_and(|(request, _)| request <= at as u64 + 1);
        assert!(flawed || heads.get(at) == Some(head), "head {at}");
    }
    if watched.flaw.is_some() || read.end == End::Broken {
        return Outcome::Refused;
    }
    assert_eq!(read.heads, heads, "a head that is none");
    assert_eq!(watched.in_head, read.end == End::InHead);
    Outcome::Accepted
}

fn state(watch: &Watch, flaw: Option<(u64, Flaw)>) -> Watched {
    Watched {
        heads: watch.heads(),
        in_head: watch.in_head(),
        flaw,
    }
}

/// Byte by byte, which tells where each head is.
fn by_bytes(data: &[u8]) -> (Watched, Vec<Range<usize>>) {
    let mut watch = Watch::new();
    let (mut heads, mut start) = (Vec::new(), 0);
    for (at, byte) in data.iter().enumerate() {
        let before = watch.in_head();
        if let Err(flaw) = watch.feed(std::slice::from_ref(byte)) {
            assert_eq!(watch.heads(), heads.len() as u64, "a flaw ends no head");
            return (state(&watch, Some(flaw)), heads);
        }
        if watch.in_head() && !before {
            start = at;
        }
        if watch.heads() > heads.len() as u64 {
            heads.push(start..at + 1);
        }
        assert_eq!(watch.heads(), heads.len() as u64, "a byte ends one head");
    }
    (state(&watch, None), heads)
}

fn read(data: &[u8]) -> Read {
    let (mut heads, mut at) = (Vec::new(), 0);
    let end = loop {
        let rest = without_empty_lines(data.get(at..).unwrap_or_default());
        at = data.len() - rest.len();
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let (length, body) = match request.parse(rest) {
            Err(_) => break End::Broken,
            Ok(httparse::Status::Partial) if matches!(rest, [] | [b'\r']) => {
                break End::BetweenMessages;
            }
            Ok(httparse::Status::Partial) => break End::InHead,
            Ok(httparse::Status::Complete(length)) => (length, body(&request)),
        };
        // Only what is served counts.
        let Some(body) = body else { break End::Broken };
        heads.push(at..at + length);
        at += length;
        let rest = data.get(at..).unwrap_or_default();
        at += match body {
            Body::Length(length) if length > rest.len() as u64 => break End::InBody,
            Body::Length(length) => length as usize,
            Body::Chunked => match chunked(rest) {
                Ok(length) => length,
                Err(end) => break end,
            },
        };
    };
    Read { heads, end }
}

/// Empty lines before a head are none of it (RFC 9112 §2.2).
fn without_empty_lines(mut rest: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', behind @ ..] = rest {
        rest = behind;
    }
    rest
}

/// How hyper takes the body of a request, or `None` if it refuses it.
fn body(request: &httparse::Request<'_, '_>) -> Option<Body> {
    let (mut length, mut chunked) = (None, None);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if request.version == Some(0) {
                return None;
            }
            let last = header.value.rsplit(|byte| *byte == b',').next();
            let last = last.unwrap_or_default().trim_ascii();
            chunked = Some(last.eq_ignore_ascii_case(b"chunked"));
        } else if header.name.eq_ignore_ascii_case("content-length") && chunked.is_none() {
            let digits = header.value.iter().all(u8::is_ascii_digit);
            let text = std::str::from_utf8(header.value).ok().filter(|_| digits)?;
            let own: u64 = text.parse().ok()?;
            if length.is_some_and(|length| length != own) {
                return None;
            }
            length = Some(own);
        }
    }
    match chunked {
        Some(chunked) => chunked.then_some(Body::Chunked),
        None => Some(Body::Length(length.unwrap_or(0))),
    }
}

/// The length of a body in chunks, or where in it the stream ends.
fn chunked(body: &[u8]) -> Result<usize, End> {
    let mut at = 0;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        // A CR ends the line; LF alone does not, and nothing else may be behind it.
        let line = upto_cr_lf(rest)?;
        let size = size(line).ok_or(End::Broken)?;
        at += line.len() + 2;
        if size == 0 {
            break;
        }
        let rest = body.get(at..).unwrap_or_default();
        let size = usize::try_from(size).map_err(|_| End::InBody)?;
        let behind = rest.get(size..).ok_or(End::InBody)?;
        match behind {
            [] | [b'\r'] => return Err(End::InBody),
            [b'\r', b'\n', ..] => at += size + 2,
            _ => return Err(End::Broken),
        }
    }
    // Trailers, up to an empty line.
    loop {
        let line = upto_cr_lf(body.get(at..).unwrap_or_default())?;
        at += line.len() + 2;
        if line.is_empty() {
            return Ok(at);
        }
    }
}

fn upto_cr_lf(rest: &[u8]) -> Result<&[u8], End> {
    let end = rest.iter().position(|byte| *byte == b'\r');
    let line = rest.get(..end.ok_or(End::InBody)?).unwrap_or_default();
    match rest.get(line.len() + 1) {
        Some(b'\n') => Ok(line),
        Some(_) => Err(End::Broken),
        None => Err(End::InBody),
    }
}

/// The size that a line says, before white space and an extension.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().position(|byte| !byte.is_ascii_hexdigit());
    let (digits, rest) = line.split_at_checked(digits.unwrap_or(line.len()))?;
    let extension = rest.trim_ascii_start();
    let plain = matches!(extension, [] | [b';', ..]) && !rest.contains(&b'\n');
    let digits = std::str::from_utf8(digits).ok().filter(|_| plain)?;
    u64::from_str_radix(digits, 16).ok()
}
