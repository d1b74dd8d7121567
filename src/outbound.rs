//! The HTTP client towards token issuers: `GET` for keys and discovery, `POST` for the token endpoint.
//!
//! Made for few, small and precious exchanges rather than for traffic: HTTPS unless the host is this
//! machine, no redirects, one deadline over the whole exchange, a cap on the reply, and above all
//! **no request goes out twice**. A refresh token that is sent again kills its whole family, so the
//! errors tell apart what was never sent ([`OutboundError::Connect`]) from what may have arrived.

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tls;
mod url;

use std::error::Error as StdError;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use tls::{OutboundSetupError, read_pem, roots_of, system_roots};
pub use url::{UrlError, check_url};

/// Idle connections kept for the next exchange with one host.
const IDLE_CONNECTIONS_PER_HOST: usize = 8;
/// How long they are kept; shorter than what servers allow, so that few die under a request.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The head of a reply may not be larger than this many bytes.
const MAX_HEAD: usize = 64 * 1024;
/// Pause before the one more attempt after a connection could not be made.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

/// A client for exchanges with issuers. Clones share connections and settings.
#[derive(Clone)]
pub struct Outbound {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    timeout: Duration,
}

/// What came back, whatever its status; redirects are not followed but returned.
///
/// `Debug` shows neither headers nor body: both may hold tokens.
pub struct Reply {
    /// Status code.
    pub status: StatusCode,
    /// Header fields as they came.
    pub headers: HeaderMap,
    /// The whole body, at most the caller's cap.
    pub body: Bytes,
}

/// Why an exchange brought no reply. `Display` is for logs: host and cause, never a body or a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutboundError {
    /// No byte of the request was sent: refused URL, DNS, TCP, TLS. Safe to try again.
    Connect {
        /// Host and port asked.
        host: Box<str>,
        /// What went wrong.
        cause: Box<str>,
    },
    /// The deadline passed, before or after the request was sent.
    Timeout {
        /// Host and port asked.
        host: Box<str>,
        /// The deadline that passed.
        after: Duration,
    },
    /// The request may have arrived, then the connection died or spoke no HTTP. Never try again blindly.
    Cut {
        /// Host and port asked.
        host: Box<str>,
        /// What went wrong.
        cause: Box<str>,
    },
    /// The reply was larger than allowed; its connection has been dropped.
    TooLarge {
        /// Host and port asked.
        host: Box<str>,
        /// The cap in bytes that was passed.
        limit: usize,
    },
}

// === impl Outbound ===

impl Outbound {
    /// Sets up a client whose every exchange ends within `timeout`.
    ///
    /// The system's root certificates are trusted, and those in the PEM file `ca_file` as well.
    ///
    /// # Errors
    ///
    /// When `ca_file` cannot be read or holds no usable certificate.
    pub fn new(ca_file: Option<&Path>, timeout: Duration) -> Result<Self, OutboundSetupError> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let connector = HttpsConnector::from((tcp, tls::client_config(ca_file)?));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_PER_HOST)
            .http1_max_buf_size(MAX_HEAD)
            // Replaces a pooled connection that turned out closed before the request was taken off
            // its queue. hyper hands a request back only while nothing of it was written, so this
            // never sends anything twice; see `never_sent`.
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self { client, timeout })
    }

    /// The time by which every exchange has ended.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Fetches `uri`, asking for the media type `accept`; a body over `max_reply` bytes is an error.
    ///
    /// # Errors
    ///
    /// Any [`OutboundError`]; a reply of any status is no error.
    pub async fn get(
        &self,
        uri: &Uri,
        accept: &'static str,
        max_reply: usize,
    ) -> Result<Reply, OutboundError> {
        let mut headers = HeaderMap::with_capacity(1);
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        self.get_with(uri, headers, max_reply).await
    }

    /// Fetches `uri` with these header fields; a body over `max_reply` bytes is an error.
    ///
    /// # Errors
    ///
    /// Any [`OutboundError`]; a reply of any status is no error.
    pub async fn get_with(
        &self,
        uri: &Uri,
        headers: HeaderMap,
        max_reply: usize,
    ) -> Result<Reply, OutboundError> {
        let asked = request(Method::GET, uri, headers, Bytes::new());
        self.checked_and_timed(uri, self.exchange(uri, asked, max_reply))
            .await
    }

    /// Posts the form `body` to `uri` with `headers` and the form's `Content-Type`.
    ///
    /// When no connection could be made it tries once more within the same deadline; once a byte
    /// may have been sent, never.
    ///
    /// # Errors
    ///
    /// Any [`OutboundError`]; a reply of any status is no error.
    pub async fn post_form(
        &self,
        uri: &Uri,
        mut headers: HeaderMap,
        body: Bytes,
        max_reply: usize,
    ) -> Result<Reply, OutboundError> {
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        let attempts = async {
            let first = request(Method::POST, uri, headers.clone(), body.clone());
            match self.exchange(uri, first, max_reply).await {
                Err(OutboundError::Connect { cause, .. }) => {
                    let host = host_of(uri);
                    tracing::debug!(%host, %cause, "no connection to the issuer; one more attempt");
                    tokio::time::sleep(RECONNECT_PAUSE).await;
                    let second = request(Method::POST, uri, headers, body);
                    self.exchange(uri, second, max_reply).await
                }
                done => done,
            }
        };
        self.checked_and_timed(uri, attempts).await
    }

    /// Runs `exchange` to its end or the deadline, if `uri` may be asked at all.
    async fn checked_and_timed(
        &self,
        uri: &Uri,
        exchange: impl Future<Output = Result<Reply, OutboundError>>,
    ) -> Result<Reply, OutboundError> {
        check_url(uri).map_err(|error| refused(uri, error))?;
        tokio::time::timeout(self.timeout, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(OutboundError::Timeout {
                    host: host_of(uri),
                    after: self.timeout,
                })
            })
    }

    async fn exchange(
        &self,
        uri: &Uri,
        request: Request<Full<Bytes>>,
        max_reply: usize,
    ) -> Result<Reply, OutboundError> {
        let reply = self
            .client
            .request(request)
            .await
            .map_err(|error| failed(uri, &error))?;
        read_reply(uri, reply, max_reply).await
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

fn request(method: Method, uri: &Uri, headers: HeaderMap, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = uri.clone();
    *request.headers_mut() = headers;
    request
}

/// Reads the whole body; leaving early drops `body`, which makes hyper close the connection.
async fn read_reply(
    uri: &Uri,
    reply: Response<Incoming>,
    limit: usize,
) -> Result<Reply, OutboundError> {
    let too_large = || OutboundError::TooLarge {
        host: host_of(uri),
        limit,
    };
    let (head, mut body) = reply.into_parts();
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| OutboundError::Cut {
            host: host_of(uri),
            cause: chain(&error),
        })?;
        if let Ok(data) = frame.into_data() {
            if data.len() > limit - collected.len() {
                return Err(too_large());
            }
            collected.extend_from_slice(&data);
        }
    }
    Ok(Reply {
        status: head.status,
        headers: head.headers,
        body: collected.freeze(),
    })
}

// === Errors ===

fn refused(uri: &Uri, error: UrlError) -> OutboundError {
    OutboundError::Connect {
        host: host_of(uri),
        cause: error.to_string().into(),
    }
}

fn failed(uri: &Uri, error: &legacy::Error) -> OutboundError {
    let host = host_of(uri);
    let protocol = error
        .source()
        .and_then(|s| s.downcast_ref::<hyper::Error>());
    if error.is_connect() || protocol.is_some_and(never_sent) {
        let cause = chain(error);
        OutboundError::Connect { host, cause }
    } else if protocol.is_some_and(hyper::Error::is_parse_too_large) {
        let limit = MAX_HEAD;
        OutboundError::TooLarge { host, limit }
    } else {
        let cause = chain(error);
        OutboundError::Cut { host, cause }
    }
}

/// hyper calls a request "canceled" only when its connection never started on it. Once a byte may
/// have been written the error is another: incomplete message, I/O, or "dispatch gone" when the
/// runtime that drives the connection was shut down.
fn never_sent(error: &hyper::Error) -> bool {
    error.is_canceled()
}

/// The causes of an error in one line, outermost first, without repetitions.
fn chain(error: &dyn StdError) -> Box<str> {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.into()
}

/// Host and port for logs; userinfo, path and query stay out.
fn host_of(uri: &Uri) -> Box<str> {
    match (uri.host(), uri.port_u16()) {
        (Some(host), Some(port)) => format!("{host}:{port}").into(),
        (Some(host), None) => host.into(),
        (None, _) => "(no host)".into(),
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("status", &self.status)
            .field("bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for OutboundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { host, cause } => {
                write!(f, "cannot connect to {host}, nothing was sent: {cause}")
            }
            Self::Timeout { host, after } => {
                let after = humantime::format_duration(*after);
                write!(f, "no complete reply from {host} within {after}")
            }
            Self::Cut { host, cause } => {
                write!(
                    f,
                    "exchange with {host} broke off after the request was sent: {cause}"
                )
            }
            Self::TooLarge { host, limit } => {
                write!(f, "reply of {host} is over the limit of {limit} bytes")
            }
        }
    }
}

impl StdError for OutboundError {}
