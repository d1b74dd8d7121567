//! Watches the bytes of a connection for what hyper would clean up without a word: a fragment in
//! the target, a length said twice or in two ways.
//!
//! Pure and incremental: fed the bytes in any portions, it finds each head by itself, also behind a
//! body and in the same packet as another. It needs to know framing for that, and knows it strictly
//! (RFC 9112): whatever leaves room for a second reading is a [`Flaw`], so that where both it and
//! hyper go on reading, they agree on where the next head begins. It ends with the first flaw, for
//! the connection does too. It knows of no protocol that a connection could be upgraded to.

mod line;

use line::{Line, Partial};
use std::fmt;

/// A watcher of one connection.
#[derive(Debug)]
pub struct Watch {
    at: At,
    /// Heads that have come in whole.
    heads: u64,
    framing: Framing,
    line: Partial,
    /// Bytes of the present body's extensions and trailers.
    extra: u32,
}

/// Digits of a chunk's size: as many as fit a number of 64 bits.
const MAX_DIGITS: u8 = 16;

/// Bytes of a chunked body's extensions and trailers, all together. hyper takes no more of the
/// former; what it alone finds too long is upstream in part by then.
const MAX_EXTRA: u32 = 16 << 10;

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flaw {
    /// The request line is no three words, or not ended by CR LF.
    RequestLine,
    /// The target has a fragment, or a byte that has to be escaped in one (RFC 9112 §3.2).
    Target,
    /// A line that is ended by a bare LF (RFC 9112 §2.2).
    BareLf,
    /// A folded field line (RFC 9112 §5.2).
    Folded,
    /// `Content-Length` is no number.
    Length,
    /// `Content-Length` more than once, equal or not (RFC 9112 §6.3).
    LengthTwice,
    /// A transfer coding other than `chunked`, once (RFC 9112 §6.1).
    Coding,
    /// `Content-Length` and `Transfer-Encoding` (RFC 9112 §6.3).
    LengthAndCoding,
    /// A chunk is not written as RFC 9112 §7.1 has it.
    Chunk,
    /// The watcher and hyper do not agree on how many heads have come.
    OutOfStep,
}

/// Where in the stream the next byte is.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Before a request line; empty lines may come first (RFC 9112 §2.2).
    Start,
    /// Behind the CR of an empty line.
    StartLf,
    Method,
    Target,
    Version,
    Fields,
    /// In a body of which this much is left.
    Body(u64),
    /// In the size of a chunk, of which so many digits have come.
    Size(u64, u8),
    /// Behind the size of a chunk of this many bytes: white space or an extension.
    Extension(u64, bool),
    /// Behind the CR of a size line.
    SizeLf(u64),
    /// In a chunk of which this much is left.
    Data(u64),
    DataCr,
    DataLf,
    /// Before a trailer, or the end of the body.
    Trailer,
    TrailerName,
    TrailerValue,
    /// Behind the CR of a trailer.
    TrailerLf,
    /// Behind the CR of the empty line that ends the body.
    EndLf,
    /// A flaw has been found.
    Over,
}

/// What the fields of the present head say of its body.
#[derive(Debug, Clone, Copy, Default)]
struct Framing {
    length: Option<u64>,
    chunked: bool,
}

// === impl Flaw ===

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestLine => "the request line is not three words and CR LF",
            Self::Target => "a fragment, or a byte that has to be escaped, in the target",
            Self::BareLf => "a line of the head ends with a bare LF",
            Self::Folded => "a folded header line",
            Self::Length => "Content-Length is no number",
            Self::LengthTwice => "Content-Length more than once",
            Self::Coding => "a transfer coding other than chunked",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding",
            Self::Chunk => "a malformed chunk",
            Self::OutOfStep => "the head was not seen as it came in",
        })
    }
}

impl std::error::Error for Flaw {}

// === impl Watch ===

impl Default for Watch {
    fn default() -> Self {
        Self::new()
    }
}

impl Watch {
    /// A watcher of a connection's first byte.
    pub fn new() -> Self {
        Self {
            at: At::Start,
            heads: 0,
            framing: Framing::default(),
            line: Partial::empty(),
            extra: 0,
        }
    }

    /// Heads that have come in whole.
    pub fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a head has begun and not come to its end.
    pub fn in_head(&self) -> bool {
        matches!(self.at, At::Method | At::Target | At::Version | At::Fields)
    }

    /// Looks at the bytes that come next. Behind a flaw nothing is looked at any more.
    ///
    /// # Errors
    /// The first flaw, and the number of the request that has it: the first has number 1.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), (u64, Flaw)> {
        while !bytes.is_empty() {
            bytes = match self.step(bytes) {
                Ok(rest) => rest,
                Err(flaw) => {
                    let request = self.heads + u64::from(!self.in_body());
                    self.at = At::Over;
                    return Err((request, flaw));
                }
            };
        }
        Ok(())
    }

    fn in_body(&self) -> bool {
        !self.in_head() && !matches!(self.at, At::Start | At::StartLf)
    }

    /// Takes at least one byte and returns the rest.
    fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Flaw> {
        let Some((&byte, rest)) = bytes.split_first() else {
            return Ok(bytes);
        };
        match self.at {
            At::Start => match byte {
                b'\r' => self.at = At::StartLf,
                // The first byte of a method; whether it can be one is for the parser to say.
                _ => {
                    self.at = At::Method;
                    return self.method(bytes);
                }
            },
            At::StartLf if byte == b'\n' => self.at = At::Start,
            At::StartLf => return Err(Flaw::RequestLine),
            At::Method => return self.method(bytes),
            At::Target => return self.target(bytes),
            At::Version | At::Fields => return self.lines(bytes),
            At::Body(left) => {
                let (rest, left) = skip(bytes, left);
                self.at = if left == 0 { At::Start } else { At::Body(left) };
                return Ok(rest);
            }
            At::Data(left) => {
                let (rest, left) = skip(bytes, left);
                self.at = if left == 0 {
                    At::DataCr
                } else {
                    At::Data(left)
                };
                return Ok(rest);
            }
            At::Over => return Ok(&[]),
            around => {
                self.at = around_chunk(around, byte).ok_or(Flaw::Chunk)?;
                self.extra += u32::from(self.at.is_extra());
                if self.extra >= MAX_EXTRA {
                    return Err(Flaw::Chunk);
                }
            }
        }
        Ok(rest)
    }

    fn method<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Flaw> {
        match memchr::memchr2(b' ', b'\n', bytes).and_then(|end| bytes.split_at_checked(end)) {
            None => Ok(&[]),
            Some((_, [b' ', rest @ ..])) => {
                self.at = At::Target;
                Ok(rest)
            }
            Some(_) => Err(Flaw::RequestLine),
        }
    }

    fn target<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Flaw> {
        let end = bytes
            .iter()
            .position(|b| !b.is_ascii_graphic() || *b == b'#');
        match end.and_then(|end| bytes.split_at_checked(end)) {
            None => Ok(&[]),
            Some((_, [b' ', rest @ ..])) => {
                self.at = At::Version;
                Ok(rest)
            }
            Some(_) => Err(Flaw::Target),
        }
    }

    /// Takes one line, or what there is of it.
    fn lines<'b>(&mut self, bytes: &'b [u8]) -> Result<&'b [u8], Flaw> {
        let Some((text, [_, rest @ ..])) =
            memchr::memchr(b'\n', bytes).and_then(|end| bytes.split_at_checked(end))
        else {
            self.line.push(bytes);
            return Ok(&[]);
        };
        if self.line.is_empty() {
            let text = text.strip_suffix(b"\r").ok_or(self.bare_lf())?;
            self.line_ended(&Line::whole(text))?;
            return Ok(rest);
        }
        self.line.push(text);
        let whole = std::mem::replace(&mut self.line, Partial::empty());
        let line = whole.ended().ok_or(self.bare_lf())?;
        self.line_ended(&line)?;
        Ok(rest)
    }

    fn bare_lf(&self) -> Flaw {
        match self.at {
            At::Version => Flaw::RequestLine,
            _ => Flaw::BareLf,
        }
    }

    fn line_ended(&mut self, line: &Line<'_>) -> Result<(), Flaw> {
        match self.at {
            At::Version => self.at = At::Fields,
            At::Fields if line.text.is_empty() => {
                self.heads += 1;
                self.extra = 0;
                self.at = std::mem::take(&mut self.framing).body();
            }
            At::Fields => self.framing.field(line)?,
            _ => {}
        }
        Ok(())
    }
}

/// Skips up to `left` bytes; the rest, and how many are left to skip.
fn skip(bytes: &[u8], left: u64) -> (&[u8], u64) {
    let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
    let rest = bytes.get(here..).unwrap_or_default();
    (rest, left - here as u64)
}

/// What follows on a byte before or behind the data of a chunk (RFC 9112 §7.1). What a trailer says
/// is not looked at.
fn around_chunk(at: At, byte: u8) -> Option<At> {
    Some(match (at, byte) {
        (At::Size(size, count @ ..MAX_DIGITS), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            let digit = u64::from(char::from(byte).to_digit(16)?);
            At::Size(size * 16 + digit, count + 1)
        }
        (At::Size(_, 0), _) => return None,
        (At::Size(size, _) | At::Extension(size, _), b'\r') => At::SizeLf(size),
        (At::Size(size, _) | At::Extension(size, _), b';') => At::Extension(size, true),
        (At::Size(size, _) | At::Extension(size, false), b' ' | b'\t') => {
            At::Extension(size, false)
        }
        (At::Extension(size, true), byte) if is_text(byte) => At::Extension(size, true),
        (At::SizeLf(0) | At::TrailerLf, b'\n') => At::Trailer,
        (At::SizeLf(size), b'\n') => At::Data(size),
        (At::DataCr, b'\r') => At::DataLf,
        (At::DataLf, b'\n') => At::Size(0, 0),
        (At::Trailer, b'\r') => At::EndLf,
        (At::EndLf, b'\n') => At::Start,
        (At::Trailer | At::TrailerName, byte) if is_token(byte) => At::TrailerName,
        (At::TrailerName, b':') => At::TrailerValue,
        (At::TrailerValue, b'\r') => At::TrailerLf,
        (At::TrailerValue, byte) if is_text(byte) => At::TrailerValue,
        _ => return None,
    })
}

/// A byte of a field name (RFC 9110 §5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A byte of a field value (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

// === impl At ===

impl At {
    /// Whether the byte before it belongs to an extension or a trailer.
    fn is_extra(self) -> bool {
        matches!(
            self,
            Self::Extension(..) | Self::TrailerName | Self::TrailerValue | Self::TrailerLf
        )
    }
}

// === impl Framing ===

impl Framing {
    fn field(&mut self, line: &Line<'_>) -> Result<(), Flaw> {
        match line.text.first() {
            Some(b' ' | b'\t') => return Err(Flaw::Folded),
            Some(b'c' | b'C' | b't' | b'T') => {}
            _ => return Ok(()),
        }
        if let Some(value) = line.value_of(b"content-length") {
            if self.length.is_some() {
                return Err(Flaw::LengthTwice);
            }
            let digits = std::str::from_utf8(value).unwrap_or_default();
            // `parse` would take a sign.
            let plain = !line.cut && digits.bytes().all(|b| b.is_ascii_digit());
            let length = plain.then(|| digits.parse().ok()).flatten();
            // hyper keeps the two largest numbers for itself.
            let length = length.filter(|length| *length < u64::MAX - 1);
            self.length = Some(length.ok_or(Flaw::Length)?);
        } else if let Some(value) = line.value_of(b"transfer-encoding") {
            if self.chunked || line.cut || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Flaw::Coding);
            }
            self.chunked = true;
        }
        if self.chunked && self.length.is_some() {
            return Err(Flaw::LengthAndCoding);
        }
        Ok(())
    }

    /// What comes behind the head.
    fn body(self) -> At {
        match self.length {
            _ if self.chunked => At::Size(0, 0),
            None | Some(0) => At::Start,
            Some(length) => At::Body(length),
        }
    }
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
