//! Connections to upstream servers, kept by each worker for itself.
//!
//! A worker is one thread, so its idle connections are thread-local: no lock, and a connection is
//! driven by the thread that uses it.

use super::{InFlight, Report, Server, Upload, Upstream};
use crate::socket::Gathered;
use crate::telemetry::exchange::Exchange;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// Idle connections that one worker keeps to one server.
const MAX_IDLE: usize = 256;

/// A response head may not be larger than this; hyper allows it 100 fields.
const MAX_RESPONSE_HEAD: usize = 64 << 10;

thread_local! {
    static IDLE: RefCell<HashMap<u64, Vec<Idle>>> = RefCell::default();
}

struct Idle {
    sender: SendRequest<Upload>,
    since: Instant,
    keep: Duration,
}

/// A connection that carries a request. Give it back with [`Connection::reuse`] once request and
/// response have both ended; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Upload>,
    keep: Duration,
    in_flight: InFlight,
}

/// A response head and the connection that its body comes by.
pub type Dispatched = (Response<Incoming>, Connection);

/// Why a request got no response.
#[derive(Debug)]
pub enum SendError {
    /// No connection could be made; nothing was sent.
    Connect(std::io::Error),
    /// No connection could be made in `connect_timeout`; nothing was sent.
    ConnectTimeout,
    /// The upstream's answer is not HTTP.
    Protocol(hyper::Error),
    /// The connection ended before the head of a response.
    Reset(hyper::Error),
    /// The request's own body failed; [`super::UploadState`] knows why.
    Upload,
}

// === impl SendError ===

impl SendError {
    /// What this says of the server, if it does.
    fn report(&self) -> Option<Report> {
        match self {
            Self::Connect(_) | Self::ConnectTimeout => Some(Report::ConnectFailed),
            Self::Protocol(_) => Some(Report::Protocol),
            Self::Reset(_) => Some(Report::Reset),
            Self::Upload => None,
        }
    }
}

/// Sends a request to a server of the upstream, and reports on the server what came of it.
///
/// An idle connection that the server has closed meanwhile is replaced as long as nothing of the
/// request was written to it.
///
/// # Errors
/// See [`SendError`].
pub async fn send(
    upstream: &Upstream,
    server: &Arc<Server>,
    request: Request<Upload>,
    now: Instant,
    exchange: &mut Exchange,
) -> Result<Dispatched, SendError> {
    let outcome = attempt(upstream, server, request, now, exchange).await;
    let report = match &outcome {
        Ok((response, _)) => Some(Report::Answered(response.status())),
        Err(error) => error.report(),
    };
    if let Some(report) = report {
        server.report(report);
    }
    outcome
}

async fn attempt(
    upstream: &Upstream,
    server: &Arc<Server>,
    mut request: Request<Upload>,
    now: Instant,
    exchange: &mut Exchange,
) -> Result<Dispatched, SendError> {
    let in_flight = InFlight::at(server);
    loop {
        let (mut sender, reused) = match take(server, now).await {
            Some(sender) => (sender, true),
            None => (connect(server, upstream.connect_timeout).await?, false),
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                return Ok((
                    response,
                    Connection {
                        sender,
                        keep: upstream.idle_timeout,
                        in_flight,
                    },
                ));
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => {
                    request = unsent;
                    exchange.retried();
                }
                _ => return Err(classify(error.into_error())),
            },
        }
    }
}

fn classify(error: hyper::Error) -> SendError {
    if error.is_user() {
        return SendError::Upload;
    }
    if error.is_parse() || error.is_parse_too_large() {
        return SendError::Protocol(error);
    }
    SendError::Reset(error)
}

async fn connect(server: &Server, patience: Duration) -> Result<SendRequest<Upload>, SendError> {
    if server.tls {
        // Never in the clear to a server that is meant to be asked by TLS.
        let error = std::io::Error::from(std::io::ErrorKind::Unsupported);
        return Err(SendError::Connect(error));
    }
    let stream = pingora_timeout::timeout(patience, TcpStream::connect(server.address))
        .await
        .map_err(|_| SendError::ConnectTimeout)?
        .map_err(SendError::Connect)?;
    stream.set_nodelay(true).map_err(SendError::Connect)?;
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEAD)
        .handshake(TokioIo::new(Gathered(stream)))
        .await
        .map_err(SendError::Reset)?;
    // How a connection ends is told to whoever waits for a response on it.
    tokio::spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// The most recently used idle connection that still works.
async fn take(server: &Server, now: Instant) -> Option<SendRequest<Upload>> {
    loop {
        let idle = IDLE.with_borrow_mut(|pools| pools.get_mut(&server.id)?.pop())?;
        let mut sender = idle.sender;
        let fresh = now.saturating_duration_since(idle.since) < idle.keep;
        if fresh && !sender.is_closed() && becomes_ready(&mut sender).await {
            return Some(sender);
        }
    }
}

/// Whether an idle connection can take a request. Its driver may need a turn or two to notice that
/// the last one is over; one that needs longer is still busy with what it should have finished.
async fn becomes_ready(sender: &mut SendRequest<Upload>) -> bool {
    for _ in 0..3 {
        let polled = poll_fn(|cx| Poll::Ready(sender.poll_ready(cx))).await;
        if let Poll::Ready(outcome) = polled {
            return outcome.is_ok();
        }
        tokio::task::yield_now().await;
    }
    false
}

/// Closes idle connections that have outlived `idle_timeout`. Each worker calls this for itself
/// now and then.
pub fn sweep_idle() {
    IDLE.with_borrow_mut(|pools| {
        pools.retain(|_, pool| {
            pool.retain(|idle| idle.since.elapsed() < idle.keep && !idle.sender.is_closed());
            !pool.is_empty()
        });
    });
}

// === impl Connection ===

impl Connection {
    /// Keeps the connection for another request.
    pub fn reuse(self) {
        if self.sender.is_closed() {
            return;
        }
        let idle = Idle {
            sender: self.sender,
            since: Instant::now(),
            keep: self.keep,
        };
        // During the end of a thread its pool is gone: the connection closes, which is right.
        let _ = IDLE.try_with(|pools| {
            let mut pools = pools.borrow_mut();
            let pool = pools.entry(self.in_flight.0.id).or_default();
            if pool.len() < MAX_IDLE {
                pool.push(idle);
            }
        });
    }
}
