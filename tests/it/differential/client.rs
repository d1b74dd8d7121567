//! A keep-alive connection with requests written by hand: a client library would tidy tokens up.

use crate::harness::PATIENCE;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};

/// What the gateway makes of a token.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    /// It passed; this is whom the upstream was told.
    Accepted { subject: Option<String> },
    /// It was refused as a bad token or a bad request.
    Refused { status: u16, reason: String },
    /// Neither: no verdict on the token.
    Neither(String),
}

/// One connection, made anew where the gateway closes it.
pub struct Client {
    address: SocketAddr,
    stream: Option<TcpStream>,
}

// === impl Verdict ===

impl Verdict {
    pub fn accepted(&self) -> bool {
        matches!(self, Self::Accepted { .. })
    }

    fn of(head: &str, body: &[u8]) -> Self {
        let status = head.get(9..12).and_then(|code| code.parse().ok());
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        match (status, body["reason"].as_str()) {
            (Some(200), _) => Self::Accepted {
                subject: subject(&body),
            },
            (Some(status @ (400 | 401 | 431)), Some(reason)) => Self::Refused {
                status,
                reason: reason.to_owned(),
            },
            _ => Self::Neither(format!("an answer that is no verdict: {head}{body}")),
        }
    }
}

/// The subject that the echo was told, decoded; two headers of that name would be joined.
fn subject(echoed: &Value) -> Option<String> {
    let headers = echoed["headers"].as_array()?.iter();
    let values: Vec<&str> = headers
        .filter(|header| header[0] == "x-bonterra-subject")
        .filter_map(|header| header[1].as_str())
        .collect();
    let decoded = percent_decode_str(values.first()?).decode_utf8_lossy();
    Some(format!("{decoded}{}", values[1..].concat()))
}

// === impl Client ===

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            stream: None,
        }
    }

    /// Asks for a resource with this credential.
    pub fn ask(&mut self, number: u64, credential: &[u8]) -> Verdict {
        let target =
            format!("GET /grants/{number} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer ");
        let request = [target.as_bytes(), credential, b"\r\n\r\n"].concat();
        match self.exchange(&request) {
            Ok((head, body)) => Verdict::of(&head, &body),
            Err(error) => Verdict::Neither(format!("no answer: {error}")),
        }
    }

    fn exchange(&mut self, request: &[u8]) -> std::io::Result<(String, Vec<u8>)> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream
            }
        };
        stream.write_all(request)?;
        let (head, body) = read(&mut stream)?;
        if !head.to_ascii_lowercase().contains("\r\nconnection: close") {
            self.stream = Some(stream);
        }
        Ok((head, body))
    }
}

/// Reads one answer with its length declared.
fn read(stream: &mut TcpStream) -> std::io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    let mut more = |bytes: &mut Vec<u8>| match stream.read(&mut buffer)? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&buffer[..read]);
            std::io::Result::Ok(())
        }
    };
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        more(&mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length: usize = head
        .to_ascii_lowercase()
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while bytes.len() < end + length {
        more(&mut bytes)?;
    }
    let body = bytes.split_off(end);
    Ok((head, body))
}
