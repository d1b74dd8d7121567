//! One client connection: deadlines on its head and its idleness, and a voice for what hyper
//! would refuse silently.

use super::drain::Stage;
use super::{Shared, service};
use crate::rejection::{Reason, Rejection, ReplyContext};
use crate::socket::Gathered;
use crate::telemetry::access_log::{self, Record};
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// What the requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Client {
    /// Who connected.
    pub address: SocketAddr,
    /// Its IP address as text, made once.
    pub text: HeaderValue,
    /// Where the connection is between two requests: written by the service, read by the socket.
    phase: AtomicU8,
}

/// What hyper allows without being told.
const HYPER_MAX_HEADERS: usize = 100;

/// Nothing of a request is there.
const IDLE: u8 = 0;
/// A part of a head is there.
const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;
/// The answer is complete, but not flushed.
const FINISHING: u8 = 3;

/// Serves one connection to its end.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    worker: usize,
    shared: Arc<Shared>,
    gauge: IntGauge,
) {
    let snapshot = shared.snapshot.load_full();
    let Some(_open) = shared.drain.open(snapshot.limits.max_connections) else {
        return refuse_connection(&stream, peer, &shared);
    };
    let _counted = Counted::new(gauge);
    // Small answers must not wait for the client's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let client = Arc::new(Client::new(peer));
    let limits = &snapshot.limits;
    let socket = Socket {
        stream: Gathered(stream),
        client: Arc::clone(&client),
        shared: Arc::clone(&shared),
        header_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        deadline: Instant::now() + limits.header_timeout,
        timer: None,
        substitute: Bytes::new(),
    };
    let mut builder = http1::Builder::new();
    // hyper has a faster way for its own default.
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(16 << 10) + 1024);
    drop(snapshot);
    let service = service_fn(|request| {
        client.phase.store(BUSY, Relaxed);
        let (shared, client) = (Arc::clone(&shared), Arc::clone(&client));
        async move { Ok::<_, Infallible>(service::handle(shared, client, request).await) }
    });
    let connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    until_drained(connection, worker, &shared).await;
}

/// Drives a connection. When the gateway drains, the request in flight is the last.
async fn until_drained<S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<Socket>, S>>,
    worker: usize,
    shared: &Shared,
) where
    S: hyper::service::HttpService<
            hyper::body::Incoming,
            Error = Infallible,
            ResBody = service::Tracked,
        >,
{
    let Some(bell) = shared.drain.bell(worker) else {
        return;
    };
    let mut rung = pin!(bell.notified());
    let mut told = false;
    // The bell has this task's waker from now on; only the stage is looked at on every poll.
    rung.as_mut().enable();
    let mut registered = false;
    let outcome = poll_fn(|cx| {
        if !told {
            if !registered || shared.drain.stage() != Stage::Serving {
                registered = true;
                if rung.as_mut().poll(cx).is_ready() && shared.drain.stage() < Stage::Draining {
                    rung.set(bell.notified());
                    rung.as_mut().enable();
                    let _ = rung.as_mut().poll(cx);
                }
            }
            if shared.drain.stage() == Stage::Draining {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Over `max_connections`: a word, and the door.
fn refuse_connection(stream: &TcpStream, peer: SocketAddr, shared: &Shared) {
    let reply = spoken(shared, peer, &Rejection::from(Reason::Overloaded));
    // The socket's buffer is empty, so this either fits or the client is gone.
    let _ = stream.try_write(&reply);
}

/// A whole reply for a request that never became one, counted and logged like any other.
fn spoken(shared: &Shared, peer: SocketAddr, rejection: &Rejection) -> Bytes {
    let request_id = service::new_request_id();
    let context = ReplyContext {
        request_id: &request_id,
        realm: service::REALM,
        resource_metadata: None,
    };
    let reply = rejection.reply(context);
    observe(shared, peer, rejection, &request_id, reply.body().len());
    let mut text = format!(
        "HTTP/1.1 {}\r\nconnection: close\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\n",
        reply.status(),
        reply.body().len()
    )
    .into_bytes();
    for (name, value) in reply
        .headers()
        .iter()
        .filter(|(name, _)| *name != http::header::CONNECTION)
    {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text.extend_from_slice(reply.body());
    Bytes::from(text)
}

fn observe(
    shared: &Shared,
    peer: SocketAddr,
    rejection: &Rejection,
    request_id: &str,
    bytes: usize,
) {
    let snapshot = shared.snapshot.load();
    let status = rejection.reason.status();
    snapshot.outside.refused(&rejection.reason);
    // There is no method to speak of; every method without a label of its own counts as `other`.
    snapshot.outside.answered(&Method::CONNECT, status);
    let record = Record {
        time: access_log::timestamp(),
        request_id,
        client: peer.ip().to_canonical(),
        method: "-",
        host: "-",
        path: "-",
        route: "-",
        status: status.as_u16(),
        reason: Some(rejection.reason.as_str()),
        note: rejection.note.as_deref(),
        issuer: None,
        subject: None,
        upstream: None,
        duration: 0.0,
        upstream_duration: 0.0,
        own_duration: 0.0,
        retries: 0,
        request_bytes: 0,
        response_bytes: bytes as u64,
        aborted: false,
    };
    shared
        .observer
        .access_log
        .write(snapshot.access_policy, &record);
}

/// A gauge that is up by one while this lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

// === impl Client ===

impl Client {
    fn new(address: SocketAddr) -> Self {
        // An IP address is always a header value.
        let text = address.ip().to_canonical().to_string();
        let text = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            address,
            text,
            phase: AtomicU8::new(HEAD),
        }
    }

    /// The answer to the present request is complete.
    pub(super) fn answered(&self) {
        self.phase.store(FINISHING, Relaxed);
    }
}

/// The client's socket, with the deadlines that hyper does not tell apart: one for a whole head,
/// counted from its first byte on every request, and one for the time between requests.
struct Socket {
    stream: Gathered,
    client: Arc<Client>,
    shared: Arc<Shared>,
    header_timeout: Duration,
    idle_timeout: Duration,
    /// Holds while the phase is `IDLE` or `HEAD`.
    deadline: Instant,
    /// Armed for some deadline at or before the present one, and moved only when it fires: most
    /// requests never touch it.
    timer: Option<Pin<Box<Sleep>>>,
    /// Our own words, in place of hyper's, on their way out.
    substitute: Bytes,
}

// === impl Socket ===

impl Socket {
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.deadline;
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Makes sure that the present deadline wakes the connection: hyper reads again only when
    /// something does. A timer that runs for an earlier deadline will, and is left alone.
    fn rearm(&mut self, cx: &mut Context<'_>) {
        let runs =
            |timer: &Pin<Box<Sleep>>| !timer.is_elapsed() && timer.deadline() <= self.deadline;
        if !self.timer.as_ref().is_some_and(runs) {
            // If it has passed already, the next read says so.
            let _ = self.poll_deadline(cx);
        }
    }

    fn timed_out(&self) -> io::Error {
        if self.client.phase.load(Relaxed) == HEAD {
            let rejection =
                Rejection::noted(Reason::RequestTimeout, "no whole head in header_timeout");
            // Nothing else has been written since the last flush, so this fits or nobody listens.
            let _ = self
                .stream
                .0
                .try_write(&spoken(&self.shared, self.client.address, &rejection));
        }
        io::ErrorKind::TimedOut.into()
    }

    /// What to say in place of hyper's bare status line. Only hyper itself writes while no request
    /// is being answered, and only to refuse what it could not parse.
    fn instead_of(&self, refusal: &[u8]) -> Bytes {
        let status = refusal
            .get(9..12)
            .and_then(|code| StatusCode::from_bytes(code).ok());
        let reason = match status {
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE | StatusCode::URI_TOO_LONG) => {
                Reason::HeadersTooLarge
            }
            _ => Reason::BadRequest,
        };
        spoken(
            &self.shared,
            self.client.address,
            &Rejection::noted(reason, "the request head cannot be parsed"),
        )
    }

    fn poll_substitute(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.substitute.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.substitute))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let _ = self.substitute.split_to(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let phase = self.client.phase.load(Relaxed);
        if phase != IDLE && phase != HEAD {
            return polled;
        }
        if polled.is_pending() {
            ready!(self.poll_deadline(cx));
            return Poll::Ready(Err(self.timed_out()));
        }
        if phase == IDLE && buffer.filled().len() > before {
            self.client.phase.store(HEAD, Relaxed);
            self.deadline = Instant::now() + self.header_timeout;
        }
        polled
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.client.phase.load(Relaxed) <= HEAD {
            if self.substitute.is_empty() {
                self.substitute = self.instead_of(bytes);
            }
            ready!(self.poll_substitute(cx))?;
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.client.phase.load(Relaxed) <= HEAD {
            let first = parts
                .iter()
                .find(|part| !part.is_empty())
                .map_or(&[][..], |part| part);
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        if self.client.phase.load(Relaxed) == FINISHING {
            self.client.phase.store(IDLE, Relaxed);
            self.deadline = Instant::now() + self.idle_timeout;
            self.rearm(cx);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
