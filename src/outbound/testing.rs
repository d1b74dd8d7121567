//! A server of few words for tests: does one thing with every request, and remembers what it got.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Uri;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Writes these bytes and waits for the next request.
    Raw(String),
    /// Reads the request, then closes the connection.
    CloseAfterRequest,
    /// Reads the request and says nothing.
    Hang,
    /// Writes a chunked body without end.
    Endless,
}

impl Act {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        let length = body.len();
        Self::Raw(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
    }

    pub(crate) fn redirect(location: &str) -> Self {
        Self::Raw(format!(
            "HTTP/1.1 307 X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
        ))
    }
}

/// A listening server; it ends with the runtime that it was started on.
pub(crate) struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    requests: Vec<String>,
}

impl Server {
    pub(crate) async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.lock().unwrap().connections += 1;
                tokio::spawn(serve(stream, act.clone(), Arc::clone(&shared)));
            }
        });
        Self { address, seen }
    }

    /// The address of a port that was free a moment ago.
    pub(crate) async fn nobody_listens() -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        format!("http://{address}/").parse().unwrap()
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    /// Every request so far, head and body, as it came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().requests.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

async fn serve(mut stream: TcpStream, act: Act, seen: Arc<Mutex<Seen>>) {
    while let Some(request) = read_request(&mut stream).await {
        seen.lock().unwrap().requests.push(request);
        match &act {
            Act::Raw(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap_or(()),
            Act::CloseAfterRequest => return,
            Act::Hang => tokio::time::sleep(Duration::from_secs(60)).await,
            Act::Endless => return write_without_end(&mut stream).await,
        }
    }
}

async fn write_without_end(stream: &mut TcpStream) {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
    let mut written = stream.write_all(head).await;
    while written.is_ok() {
        written = stream.write_all(chunk.as_bytes()).await;
    }
}

async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    let mut wanted = usize::MAX;
    while text.len() < wanted {
        if stream.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = text.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|l| l.strip_prefix("content-length: "));
            wanted = end + 4 + length.map_or(0, |l| l.parse().unwrap());
        }
    }
    String::from_utf8(text).ok()
}
