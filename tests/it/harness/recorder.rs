//! An upstream that keeps every byte, reads it strictly, and answers each request with its number.

use super::local;
use super::strict::{self, Message, Rigour};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Ends when dropped.
pub struct Recorder {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// What has come so far.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whole requests, in the order of their ends.
    pub requests: Vec<Message>,
    /// Bytes, whole requests or not.
    pub bytes: usize,
    /// What is no HTTP, or could be read in two ways.
    pub wrong: Vec<String>,
    /// Requests that broke off, as far as they came.
    pub cut: Vec<Vec<u8>>,
}

// === impl Recorder ===

impl Recorder {
    pub async fn start() -> Self {
        let listener = TcpListener::bind(local()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let seen = Arc::<Mutex<Seen>>::default();
        let all = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, Arc::clone(&all)));
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    /// How many whole requests have come, and how many bytes.
    pub fn count(&self) -> (usize, usize) {
        let seen = self.seen();
        assert_eq!(seen.wrong, Vec::<String>::new());
        (seen.requests.len(), seen.bytes)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().expect("no panic")
}

async fn serve(mut stream: TcpStream, seen: Arc<Mutex<Seen>>) {
    let mut unread = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        unread.extend_from_slice(&buffer[..read]);
        lock(&seen).bytes += read;
        if read == 0 {
            if !unread.is_empty() {
                lock(&seen).cut.push(unread);
            }
            return;
        }
        loop {
            let answer = match strict::request(&unread, Rigour::Upstream) {
                Ok(Some((message, taken))) => {
                    unread.drain(..taken);
                    note(&mut lock(&seen), message)
                }
                Ok(None) => break,
                Err(what) => return lock(&seen).wrong.push(what),
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}

fn note(seen: &mut Seen, message: Message) -> String {
    let number = seen.requests.len().to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
        number.len()
    );
    let body = if message.first == "HEAD" { "" } else { &number };
    seen.requests.push(message);
    format!("{head}{body}")
}
