//! A bare socket, for what a client library would tidy up.

use super::{Reply, within};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A connection that sends bytes as they are.
pub struct Raw {
    pub stream: TcpStream,
    unread: Vec<u8>,
}

impl Raw {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::of(TcpStream::connect(address).await.expect("connected"))
    }

    /// A connection that is there already.
    pub fn of(stream: TcpStream) -> Self {
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Sends as much as the other side takes.
    pub async fn try_send(&mut self, bytes: &[u8]) {
        // A peer that has gone is what some tests are about.
        let _ = self.stream.write_all(bytes).await;
    }

    /// Reads the head of a request, as an upstream does; `None` if there are no more.
    pub async fn asked(&mut self) -> Option<String> {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                let head: Vec<u8> = self.unread.drain(..end + 4).collect();
                return Some(String::from_utf8_lossy(&head).into_owned());
            }
            if self.read_some().await == 0 {
                return None;
            }
        }
    }

    /// Reads one reply with a Content-Length body (or none); head and body as text.
    pub async fn reply(&mut self) -> (String, String) {
        within("a reply", async {
            let head_end = loop {
                if let Some(end) = find(&self.unread, b"\r\n\r\n") {
                    break end + 4;
                }
                assert!(
                    self.read_some().await > 0,
                    "closed in the head: {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
            };
            let head = String::from_utf8_lossy(&self.unread[..head_end]).into_owned();
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase()
                        .strip_prefix("content-length:")?
                        .trim()
                        .parse::<usize>()
                        .ok()
                })
                .unwrap_or(0);
            while self.unread.len() < head_end + length {
                assert!(self.read_some().await > 0, "closed in the body");
            }
            let body =
                String::from_utf8_lossy(&self.unread[head_end..head_end + length]).into_owned();
            self.unread.drain(..head_end + length);
            (head, body)
        })
        .await
    }

    /// Reads one reply as [`Self::reply`] does, for the checks that a client's reply gets.
    pub async fn whole(&mut self) -> Reply {
        let (head, body) = self.reply().await;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": "));
        let headers = headers.map(|(name, value)| {
            let name = http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            (name, value.parse().expect("a value"))
        });
        Reply {
            status: status.expect("a status"),
            headers: headers.collect(),
            body: body.into(),
        }
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> String {
        within("the end of the connection", async {
            // A reset is an end too.
            while self.read_some().await > 0 {}
            String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
        })
        .await
    }

    /// Exactly these bytes, come next.
    pub async fn expect(&mut self, bytes: &str) {
        within(bytes, async {
            while self.unread.len() < bytes.len() {
                assert!(
                    self.read_some().await > 0,
                    "closed after {:?}",
                    String::from_utf8_lossy(&self.unread)
                );
            }
        })
        .await;
        let came: Vec<u8> = self.unread.drain(..bytes.len()).collect();
        assert_eq!(String::from_utf8_lossy(&came), bytes);
    }

    /// What comes next, however much it is; "" at the end.
    pub async fn some(&mut self) -> String {
        within("something", self.read_some()).await;
        String::from_utf8_lossy(&std::mem::take(&mut self.unread)).into_owned()
    }

    /// Whether the other side still takes bytes.
    pub async fn has_sent(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    /// Reads one message with a chunked body: its head; then data, trailers and what is behind, with
    /// bars between.
    pub async fn chunked(&mut self) -> (String, String) {
        let (head, _) = self.reply().await;
        let (mut body, mut trailers) = (String::new(), String::new());
        within("a chunked body", async {
            loop {
                let size = self.line().await;
                let size = usize::from_str_radix(&size, 16).expect("a size");
                if size == 0 {
                    break;
                }
                while self.unread.len() < size + 2 {
                    assert!(self.read_some().await > 0, "closed in a chunk");
                }
                let data: Vec<u8> = self.unread.drain(..size + 2).collect();
                body.push_str(&String::from_utf8_lossy(&data[..size]));
            }
            loop {
                let line = self.line().await;
                if line.is_empty() {
                    break;
                }
                trailers.push_str(&format!("{line}\r\n"));
            }
        })
        .await;
        (head, format!("{body}|{trailers}|"))
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = find(&self.unread, b"\r\n") {
                let line: Vec<u8> = self.unread.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.read_some().await > 0, "closed in a line");
        }
    }

    /// Says back whatever comes, until the other side closes.
    pub async fn echo(&mut self) {
        loop {
            let said = std::mem::take(&mut self.unread);
            self.try_send(&said).await;
            if self.read_some().await == 0 {
                return;
            }
        }
    }

    /// Whether nothing comes for this long.
    pub async fn is_silent(&mut self, long: Duration) -> bool {
        self.unread.is_empty() && tokio::time::timeout(long, self.read_some()).await.is_err()
    }

    async fn read_some(&mut self) -> usize {
        let mut buffer = vec![0; 64 * 1024];
        let read = self.stream.read(&mut buffer).await.unwrap_or(0);
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}
