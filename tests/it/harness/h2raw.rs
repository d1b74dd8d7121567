//! HTTP/2 frame by frame (RFC 9113 §4.1), for what a client library would tidy up or never send.

use super::{PATIENCE, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
pub const PADDED: u8 = 0x8;

pub const PROTOCOL_ERROR: u32 = 1;
pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A setting (RFC 9113 §6.5.2).
pub const INITIAL_WINDOW_SIZE: u16 = 4;

/// One frame, as bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Header fields as literals that are not indexed (RFC 7541 §6.2.2).
pub fn fields(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        text(&mut block, name.as_bytes());
        text(&mut block, value.as_bytes());
    }
    block
}

/// A string literal without Huffman's code (RFC 7541 §5.2).
pub fn text(block: &mut Vec<u8>, text: &[u8]) {
    let byte = |number: usize| u8::try_from(number).expect("a byte");
    if text.len() < 127 {
        block.push(byte(text.len()));
    } else {
        block.push(127);
        let mut rest = text.len() - 127;
        while rest >= 128 {
            block.push(byte(rest % 128 + 128));
            rest /= 128;
        }
        block.push(byte(rest));
    }
    block.extend_from_slice(text);
}

/// What every request has in front.
pub fn pseudo<'t>(method: &'t str, path: &'t str) -> [(&'t str, &'t str); 4] {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", path),
    ]
}

/// The head of a request that ends with it.
pub fn get(stream: u32, path: &str) -> Vec<u8> {
    let block = fields(&pseudo("GET", path));
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block)
}

/// The head of a request that a body follows.
pub fn post(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &fields(&pseudo("POST", path)))
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered with this status.
    Answered(u16),
    /// Reset with this code.
    Reset(u32),
    /// The connection ended; the code is that of the last GOAWAY.
    Gone(Option<u32>),
}

/// A connection whose every frame the test writes.
pub struct H2Raw {
    pub stream: TcpStream,
    unread: Vec<u8>,
    /// The code of the last GOAWAY.
    goaway: Option<u32>,
}

// === impl Frame ===

impl Frame {
    /// The error code of a reset or a GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        number(&self.payload[at..at + 4])
    }

    pub fn ends_stream(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }

    /// The status in the head of a connection's first answer: it is the first field, and no entry of
    /// the dynamic table yet.
    pub fn status(&self) -> u16 {
        match self.payload[..] {
            // RFC 7541, Appendix A.
            [indexed @ 0x88..=0x8e, ..] => {
                [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)]
            }
            [0x48, length, ref rest @ ..] if length & 0x80 != 0 => huffman_digits(rest),
            [0x48, _, a, b, c, ..] => {
                let digit = |digit: u8| u16::from(digit - b'0');
                digit(a) * 100 + digit(b) * 10 + digit(c)
            }
            _ => panic!("not a status: {:?}", self.payload),
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Three digits in Huffman's code: 0 to 2 have five bits, the others six (RFC 7541, Appendix B).
fn huffman_digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |at| u16::from(byte >> at & 1)));
    let mut digit = || {
        let mut code = 0;
        for _ in 0..5 {
            code = code << 1 | bits.next().expect("a bit");
        }
        if code <= 2 {
            return code;
        }
        (code << 1 | bits.next().expect("a bit")) - 0b011001 + 3
    };
    (digit() * 10 + digit()) * 10 + digit()
}

// === impl H2Raw ===

impl H2Raw {
    /// Connects; the preface, empty settings and the assent to the gateway's are sent.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, &[]).await
    }

    /// Connects with these settings.
    pub async fn with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut raw = Self::silent(address).await;
        let settings: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let begin = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &settings),
            frame(SETTINGS, ACK, 0, &[]),
        ];
        raw.send(begin.concat()).await;
        raw
    }

    /// Connects and says nothing.
    pub async fn silent(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            unread: Vec::new(),
            goaway: None,
        }
    }

    /// Sends as much as the other side takes: some tests are about its end.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("sending", self.stream.write_all(bytes.as_ref())).await;
    }

    /// The frame that comes next; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                if let Some(frame) = self.whole() {
                    return Some(frame);
                }
                let mut buffer = vec![0; 64 << 10];
                // A reset is an end too.
                match self.stream.read(&mut buffer).await.unwrap_or(0) {
                    0 => return None,
                    read => self.unread.extend_from_slice(&buffer[..read]),
                }
            }
        })
        .await
    }

    fn whole(&mut self) -> Option<Frame> {
        let length = usize::try_from(number(self.unread.get(..3)?)).expect("small");
        let end = 9 + length;
        let bytes = self.unread.get(..end)?;
        let frame = Frame {
            kind: bytes[3],
            flags: bytes[4],
            stream: number(&bytes[5..9]) & 0x7fff_ffff,
            payload: bytes[9..].to_vec(),
        };
        self.unread.drain(..end);
        if frame.kind == GOAWAY {
            self.goaway = Some(frame.code());
        }
        Some(frame)
    }

    /// Waits for a frame of this kind; `None` if the connection ends before.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.next().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// Waits for what becomes of a stream.
    pub async fn outcome(&mut self, stream: u32) -> Outcome {
        while let Some(frame) = self.next().await {
            match frame.kind {
                HEADERS if frame.stream == stream => return Outcome::Answered(frame.status()),
                RST_STREAM if frame.stream == stream => return Outcome::Reset(frame.code()),
                _ => {}
            }
        }
        Outcome::Gone(self.goaway)
    }

    /// Everything until the other side closes; the code of its last GOAWAY, if there was one.
    pub async fn ended(&mut self) -> Option<u32> {
        while self.next().await.is_some() {}
        self.goaway
    }

    /// Writes these and reads at the same time, until the other side closes or all of them have been
    /// sent and it falls silent. The code of the GOAWAY.
    pub async fn flood(self, portions: impl Iterator<Item = Vec<u8>> + Send) -> Option<u32> {
        let Self {
            stream,
            unread,
            goaway,
        } = self;
        let (mut read, mut write) = stream.into_split();
        let write = async {
            for portion in portions {
                if write.write_all(&portion).await.is_err() {
                    break;
                }
            }
            // The connection stays open: it is the other side's to end.
            write
        };
        let read = async {
            let (mut came, mut buffer) = (unread, vec![0; 64 << 10]);
            while let Ok(some @ 1..) = read.read(&mut buffer).await {
                came.extend_from_slice(&buffer[..some]);
            }
            (came, read)
        };
        let both = async { tokio::join!(read, write) };
        let ((came, read), write) = match tokio::time::timeout(PATIENCE, both).await {
            Ok(both) => both,
            Err(_) => panic!("the flood goes on"),
        };
        let stream = read.reunite(write).expect("of one connection");
        let mut raw = Self {
            stream,
            unread: came,
            goaway,
        };
        while raw.whole().is_some() {}
        raw.goaway
    }
}
