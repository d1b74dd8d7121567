//! The PROXY protocol, versions 1 and 2: a load balancer says in front of everything else who the
//! client is (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).

use super::drain::Winding;
use super::transport::Transport;
use bytes::{Bytes, BytesMut};
use ppp::{v1, v2};
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep};

/// What a header of version 2 begins with.
const SIGNATURE: &[u8] = v2::PROTOCOL_PREFIX;

/// Signature, version and command, family and protocol, length.
const FIXED: usize = 16;

/// A header of version 2 at most. Addresses take 36 bytes, and every receiver has to take 536 in
/// all; what else a sender knows of a TLS client may be more.
const MAX_V2: usize = 4096;

/// A header of version 1 at most, its end included.
const MAX_V1: usize = 107;

/// What is read at a time. Mostly a header comes alone, or with the first request.
const CHUNK: usize = 1024;

/// Why a connection is closed unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bad {
    /// The first bytes are no header.
    Missing,
    /// It begins as a header and does not go on as one.
    Malformed,
    /// Longer than any header.
    TooLong,
    /// It did not come in `header_timeout`, or not at all.
    Late,
}

/// What the header says.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    /// Its bytes.
    length: usize,
    /// Who the client is; `None` if that is whoever connected.
    client: Option<SocketAddr>,
}

/// Waits for the header. What comes behind it is read again later.
pub(super) struct ReadHeader {
    stream: Option<Transport>,
    seen: BytesMut,
    timer: Pin<Box<Sleep>>,
    over: bool,
}

// === impl Bad ===

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "it begins with no PROXY protocol header",
            Self::Malformed => "its PROXY protocol header is malformed",
            Self::TooLong => "its PROXY protocol header is too long",
            Self::Late => "its PROXY protocol header has not come in time",
        })
    }
}

/// Reads a header; `None` while there is not enough of it.
fn parse(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    let seen = |prefix: &[u8]| bytes.starts_with(prefix) || prefix.starts_with(bytes);
    if seen(SIGNATURE) {
        parse_v2(bytes)
    } else if seen(b"PROXY ") {
        parse_v1(bytes)
    } else {
        Err(Bad::Missing)
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    let line = bytes.get(..MAX_V1).unwrap_or(bytes);
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < MAX_V1 {
            Ok(None)
        } else {
            Err(Bad::TooLong)
        };
    };
    let line = line.get(..end + 2).unwrap_or(line);
    let header = v1::Header::try_from(line).map_err(|_| Bad::Malformed)?;
    Ok(Some(Header {
        length: line.len(),
        client: match header.addresses {
            v1::Addresses::Tcp4(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Tcp6(ip) => Some((ip.source_address, ip.source_port).into()),
            v1::Addresses::Unknown => None,
        },
    }))
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    let Some(&[.., high, low]) = bytes.get(..FIXED) else {
        return Ok(None);
    };
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > MAX_V2 {
        return Err(Bad::TooLong);
    }
    let Some(bytes) = bytes.get(..length) else {
        return Ok(None);
    };
    let header = v2::Header::try_from(bytes).map_err(|_| Bad::Malformed)?;
    // A check of the load balancer's own, or a protocol that has no such addresses.
    let proxied = header.command == v2::Command::Proxy && header.protocol == v2::Protocol::Stream;
    Ok(Some(Header {
        length,
        client: match header.addresses {
            v2::Addresses::IPv4(ip) if proxied => Some((ip.source_address, ip.source_port).into()),
            v2::Addresses::IPv6(ip) if proxied => Some((ip.source_address, ip.source_port).into()),
            _ => None,
        },
    }))
}

// === impl ReadHeader ===

impl ReadHeader {
    pub(super) fn new(stream: Transport, deadline: Instant) -> Self {
        Self {
            stream: Some(stream),
            seen: BytesMut::new(),
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            over: false,
        }
    }

    fn poll_header(&mut self, cx: &mut Context<'_>) -> Poll<Result<Header, Bad>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(Bad::Late));
        };
        loop {
            if let Some(header) = parse(&self.seen)? {
                return Poll::Ready(Ok(header));
            }
            let mut space = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut space);
            match Pin::new(&mut *stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.seen.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return Poll::Ready(Err(Bad::Late)),
                Poll::Pending if self.over => return Poll::Ready(Err(Bad::Late)),
                Poll::Pending => {
                    ready!(self.timer.as_mut().poll(cx));
                    return Poll::Ready(Err(Bad::Late));
                }
            }
        }
    }
}

impl Future for ReadHeader {
    /// The stream behind the header, and the client that it names, if it names one.
    type Output = Result<(Transport, Option<SocketAddr>), Bad>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let header = ready!(self.poll_header(cx))?;
        let mut seen: Bytes = std::mem::take(&mut self.seen).freeze();
        let mut stream = self.stream.take().ok_or(Bad::Late)?;
        stream.unread(seen.split_off(header.length.min(seen.len())));
        Poll::Ready(Ok((stream, header.client)))
    }
}

impl Winding for ReadHeader {
    fn wind_down(mut self: Pin<&mut Self>) {
        self.over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2: command, family with protocol, and what follows the length.
    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xdd, 0xd5, 0, 80];

    fn client(bytes: &[u8]) -> Result<Option<Option<String>>, Bad> {
        let header = parse(bytes)?;
        Ok(header.map(|header| header.client.map(|client| client.to_string())))
    }

    #[test]
    fn headers_name_the_client() {
        let six: Vec<u8> = [
            &std::net::Ipv6Addr::from_bits((0x2001_0db8 << 96) | 1).octets()[..],
            &[0; 16],
            &[0x01, 0xbb, 0, 80],
        ]
        .concat();
        let with_more = [&FOUR[..], &[0x04, 0, 1, 0]].concat();
        let four = Some("192.0.2.7:56789".to_owned());
        for (bytes, expected) in [
            (
                b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 80\r\n".to_vec(),
                four.clone(),
            ),
            (
                b"PROXY TCP6 2001:db8::1 ::1 443 80\r\n".to_vec(),
                Some("[2001:db8::1]:443".to_owned()),
            ),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ::1 ::1 1 2\r\n".to_vec(), None),
            (v2(1, 0x11, &FOUR), four.clone()),
            (v2(1, 0x11, &with_more), four),
            (v2(1, 0x21, &six), Some("[2001:db8::1]:443".to_owned())),
            (v2(0, 0x00, &[]), None),
            (v2(0, 0x11, &FOUR), None),
            (v2(1, 0x12, &FOUR), None),
            (v2(1, 0x31, &[0; 216]), None),
        ] {
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            for end in 0..bytes.len() {
                let part = bytes.get(..end).expect("a part");
                assert_eq!(parse(part), Ok(None), "{end} bytes of {whole:?}");
            }
            assert_eq!(client(&bytes), Ok(Some(expected.clone())), "{whole:?}");
            let length = bytes.len();
            let more = [&bytes[..], b"GET / HTTP/1.1\r\n\r\n"].concat();
            let header = parse(&more).expect("a header").expect("a whole one");
            assert_eq!(header.length, length, "what follows is not its own");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        for (bytes, expected) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], Bad::Missing),
            (b"\x16\x03\x01", Bad::Missing),
            (b"PROXX", Bad::Missing),
            (b"\r\n\r\n\0\r\nX", Bad::Missing),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 56789\r\n", Bad::Malformed),
            (b"PROXY TCP4 192.0.2.777 10.0.0.1 1 2\r\n", Bad::Malformed),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 99999\r\n", Bad::Malformed),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n", Bad::Malformed),
            (b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n", Bad::Malformed),
            (b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n", Bad::Malformed),
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n", Bad::Malformed),
            (long.as_bytes(), Bad::TooLong),
            (&v2(2, 0x11, &FOUR), Bad::Malformed),
            (&v2(1, 0x41, &FOUR), Bad::Malformed),
            (&v2(1, 0x11, &FOUR[..11]), Bad::Malformed),
            (&v2(1, 0x11, &[0; MAX_V2 - FIXED + 1])[..16], Bad::TooLong),
        ] {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(parse(bytes), Err(expected), "{text:?}");
        }
    }
}
