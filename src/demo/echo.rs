//! An API that tells what it received, with special paths for tests.
//!
//! The end of the path decides, so that the special paths work below any prefix:
//!
//! | path | answer |
//! |---|---|
//! | `…/bytes/N` | `N` bytes, with their length declared; does not wait for the request's body |
//! | `…/status/N` | as below, with status `N` (200 to 599) |
//! | `…/slow-head?ms=N` | as below, `N` milliseconds late |
//! | `…/sink` | reads the body and says only how long it was |
//! | `…/cut` | half of a declared body, then the connection closes |
//! | `…/stream` | the request's body as it arrives |
//! | `…/chunks` | three chunks and a trailer `x-checksum` (sent to clients with `TE: trailers`) |
//! | anything else | JSON: `method`, `path` (the raw target), `host`, `headers`, `body_bytes`, `body_sha256`, `body` |
//!
//! `headers` is an array of `[name, value]` in the order received, names in lower case, fields of one name side by side.
//! `body` is the text of a small UTF-8 body, else `null`; `body_sha256` is lower-case hex, `null` without a body.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use http::header::{CONTENT_TYPE, HOST, TRAILER};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::body::Body;
use super::host::{Closed, Host, Service};
use super::record::Log;

pub use super::record::Recorded;

/// Bodies up to this size are told as text.
const MAX_TEXT: usize = 16 * 1024;
const CUT_LENGTH: u64 = 2048;

/// How an [`Echo`] behaves.
#[derive(Clone, Debug)]
pub struct EchoOptions {
    /// Keep the last 1,000 requests for [`Echo::seen`]; switch it off under load.
    pub record: bool,
}

/// A running echo API. Dropping it closes the listener and all connections.
pub struct Echo {
    host: Host,
    service: Arc<EchoService>,
}

struct EchoService {
    options: EchoOptions,
    requests: AtomicU64,
    log: Mutex<Log>,
}

/// A request's body, read.
struct Drained {
    length: u64,
    /// `None` if it was too long to be told.
    text: Option<Vec<u8>>,
    sha256: Option<digest::Digest>,
}

// === impl EchoOptions ===

impl Default for EchoOptions {
    fn default() -> Self {
        Self { record: true }
    }
}

// === impl Echo ===

impl Echo {
    /// Listens on `listen` (port 0 for a free one) and serves on the current runtime.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start(listen: SocketAddr) -> io::Result<Self> {
        Self::start_with(listen, EchoOptions::default()).await
    }

    /// As [`Echo::start`], with options.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_with(listen: SocketAddr, options: EchoOptions) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let service = Arc::new(EchoService {
            options,
            requests: AtomicU64::new(0),
            log: Mutex::default(),
        });
        let host = Host::serve(listener, Arc::clone(&service))?;
        Ok(Self { host, service })
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.host.addr()
    }

    /// Its origin, without a slash at the end: `http://127.0.0.1:9000`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The last 1,000 requests in the order of their arrival; empty if recording is off.
    pub fn seen(&self) -> Vec<Recorded> {
        self.service.log().entries()
    }

    /// Forgets what [`Echo::seen`] tells; the counters go on.
    pub fn forget(&self) {
        self.service.log().clear();
    }

    /// Requests received so far.
    pub fn requests(&self) -> u64 {
        self.service.requests.load(Ordering::Relaxed)
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.host.accepted()
    }

    /// Closes the listener and every connection at once, requests in flight included. Harmless when stopped already.
    pub async fn stop(&self) {
        self.host.stop().await;
    }

    /// Comes back on the same port after [`Echo::stop`], counters kept. Harmless while running.
    ///
    /// # Errors
    /// If the port was taken by somebody else meanwhile.
    pub async fn restart(&self) -> io::Result<()> {
        self.host.restart(Arc::clone(&self.service)).await
    }
}

impl std::fmt::Debug for Echo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Echo")
            .field("addr", &self.addr())
            .finish_non_exhaustive()
    }
}

// === impl EchoService ===

impl Service for EchoService {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Closed> {
        let (parts, incoming) = request.into_parts();
        self.requests.fetch_add(1, Ordering::Relaxed);
        let record = self.options.record.then(|| self.log().push(&parts));

        let path = parts.uri.path();
        let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = parent.rsplit('/').next().unwrap_or_default();
        match (parent, last) {
            ("bytes", count) => match count.parse() {
                Ok(count) => Ok(plain(Body::Filler(count))),
                Err(_) => Ok(refused("bytes/N: N is a number of bytes")),
            },
            ("status", code) => match code.parse().ok().and_then(final_status) {
                Some(status) => self.tell(&parts, incoming, record, status).await,
                None => Ok(refused("status/N: N is a status from 200 to 599")),
            },
            (_, "slow-head") => {
                tokio::time::sleep(Duration::from_millis(milliseconds(&parts))).await;
                self.tell(&parts, incoming, record, StatusCode::OK).await
            }
            (_, "sink") => {
                let drained = self.drain(incoming, record, false).await?;
                Ok(json_reply(
                    StatusCode::OK,
                    &json!({ "body_bytes": drained.length }),
                ))
            }
            (_, "cut") => {
                self.drain(incoming, record, false).await?;
                Ok(plain(Body::cut(CUT_LENGTH)))
            }
            (_, "stream") => Ok(plain(Body::Passed(incoming))),
            (_, "chunks") => {
                self.drain(incoming, record, false).await?;
                let mut response = plain(Body::chunks_with_trailer());
                response
                    .headers_mut()
                    .insert(TRAILER, http::HeaderValue::from_static("x-checksum"));
                Ok(response)
            }
            _ => self.tell(&parts, incoming, record, StatusCode::OK).await,
        }
    }
}

impl EchoService {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the request's body and says what came.
    async fn tell(
        &self,
        parts: &Parts,
        body: Incoming,
        record: Option<u64>,
        status: StatusCode,
    ) -> Result<Response<Body>, Closed> {
        let drained = self.drain(body, record, true).await?;
        let reply = describe(parts, &drained);
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            return Ok(respond(status, "application/json", Body::empty()));
        }
        Ok(json_reply(status, &reply))
    }

    async fn drain(
        &self,
        mut body: Incoming,
        record: Option<u64>,
        closely: bool,
    ) -> Result<Drained, Closed> {
        let mut drained = Drained {
            length: 0,
            text: Some(Vec::new()),
            sha256: None,
        };
        let mut hash = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Closed)?.into_data() else {
                continue;
            };
            drained.length += data.len() as u64;
            if closely {
                hash.get_or_insert_with(|| digest::Context::new(&digest::SHA256))
                    .update(&data);
                drained.keep(&data);
            }
            self.note(record, |entry| entry.body_len = drained.length);
        }
        self.note(record, |entry| entry.complete = true);
        drained.sha256 = hash.map(digest::Context::finish);
        Ok(drained)
    }

    fn note(&self, record: Option<u64>, change: impl FnOnce(&mut Recorded)) {
        if let Some(number) = record {
            self.log().change(number, change);
        }
    }
}

// === impl Drained ===

impl Drained {
    fn keep(&mut self, data: &[u8]) {
        if let Some(text) = &mut self.text {
            if text.len() + data.len() <= MAX_TEXT {
                text.extend_from_slice(data);
            } else {
                self.text = None;
            }
        }
    }
}

// === replies ===

fn describe(parts: &Parts, drained: &Drained) -> Value {
    let host = match parts.uri.authority() {
        Some(authority) => Some(authority.to_string()),
        None => parts
            .headers
            .get(HOST)
            .map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()),
    };
    let headers: Vec<_> = parts
        .headers
        .iter()
        .map(|(name, value)| json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())]))
        .collect();
    json!({
        "method": parts.method.as_str(),
        "path": parts.uri.to_string(),
        "host": host,
        "headers": headers,
        "body_bytes": drained.length,
        "body_sha256": drained.sha256.as_ref().map(|hash| hex(hash.as_ref())),
        "body": drained.text.as_deref().and_then(|text| std::str::from_utf8(text).ok()),
    })
}

fn milliseconds(parts: &Parts) -> u64 {
    form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        .find_map(|(name, value)| (name == "ms").then(|| value.parse().ok()).flatten())
        .unwrap_or(0)
}

/// 1xx are not answers, and hyper would not send them as such.
fn final_status(code: u16) -> Option<StatusCode> {
    (200..600)
        .contains(&code)
        .then(|| StatusCode::from_u16(code).ok())
        .flatten()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn plain(body: Body) -> Response<Body> {
    respond(StatusCode::OK, "application/octet-stream", body)
}

fn refused(message: &'static str) -> Response<Body> {
    json_reply(StatusCode::BAD_REQUEST, &json!({ "error": message }))
}

fn json_reply(status: StatusCode, value: &Value) -> Response<Body> {
    respond(status, "application/json", Body::from(value.to_string()))
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
#[path = "echo_tests.rs"]
mod tests;
