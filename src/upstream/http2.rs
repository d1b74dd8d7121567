//! HTTP/2 connections to upstream servers. One carries many requests, so a worker has few of them.

use super::connect::{self, MAX_RESPONSE_HEAD};
use super::pool::Key;
use super::transport::Transport;
use super::{ConnectError, SendError, Server, Upload};
use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use http::header::{CONNECTION, HOST, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Uri, Version};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};

/// Requests at a time on one connection at most, whatever its server allows.
const MAX_STREAMS: usize = 100;

/// A connection is asked whether it lives when nothing has come for this long, idle or not …
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// … and is closed if it does not say so within this time.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of one response that are taken ahead of its client. A client that does not read must not
/// make this process hold what its server sends.
const STREAM_WINDOW: u32 = 256 << 10;
/// The same for all responses of a connection: it takes 32 clients that do not read to hold up others.
const CONNECTION_WINDOW: u32 = 8 << 20;
/// Bytes of one request that wait to be written.
const SEND_BUFFER: usize = 256 << 10;

/// What the number of requests that a server allows is before it has said so: no server says this.
const UNSAID: usize = 0x7fff_fff1;

/// How often a new connection is looked at for the server's settings. Nothing tells of their coming.
const LOOK: Duration = Duration::from_millis(1);

/// Connections in a row that may be gone before a request gets onto one, until it is given up.
const TRIES: usize = 3;

thread_local! {
    static OPEN: RefCell<HashMap<Key, Peers>> = RefCell::default();
}

/// A worker's connections to one server.
#[derive(Default)]
struct Peers {
    connections: Vec<Http2>,
    /// The connection that is being opened. Whoever needs one meanwhile waits for it.
    opening: Option<Opening>,
}

/// A shared wait for a connection that opens in a task of its own.
type Opening = Shared<BoxFuture<'static, Result<(), ConnectError>>>;

/// An HTTP/2 connection.
pub(super) struct Http2 {
    sender: SendRequest<Upload>,
    streams: Arc<AtomicUsize>,
    /// How many requests the server allows at present.
    allowed: Box<dyn Fn() -> usize + Send>,
    keep: Duration,
    since: Instant,
}

/// A request on an HTTP/2 connection; counted until it is dropped.
#[derive(Debug)]
pub(super) struct Stream(Arc<AtomicUsize>);

/// What a look at the open connections brings.
enum Found {
    /// A place on one of them, taken.
    Room(SendRequest<Upload>, Stream),
    /// There are some, and others have all places.
    Full,
    /// None is open.
    Nothing,
}

/// A connection that has room for one more request: one that is open, else a new one. Of many who wait for a
/// new one, only as many get onto it as its server allows. The others open the next, until `patience` is over.
///
/// # Errors
/// [`SendError::Connect`] if a new connection cannot be made, or carries nothing; [`SendError::Overloaded`] if
/// others were faster for as long as `patience`, which is no fault of the server.
pub(super) async fn acquire(
    server: &Arc<Server>,
    transport: &Arc<Transport>,
    patience: Duration,
    keep: Duration,
) -> Result<(SendRequest<Upload>, Stream), SendError> {
    let (key, began) = (Key::of(server, transport), Instant::now());
    let mut gone = 0;
    loop {
        match find(key) {
            Found::Room(sender, stream) => return Ok((sender, stream)),
            Found::Full if began.elapsed() >= patience => return Err(SendError::Overloaded),
            Found::Nothing if gone == TRIES => return Err(ConnectError::NoStream.into()),
            Found::Nothing => gone += 1,
            Found::Full => {}
        }
        if let Err(error) = opening(key, server, transport, patience, keep).await {
            return match find(key) {
                Found::Room(sender, stream) => Ok((sender, stream)),
                Found::Full | Found::Nothing => Err(error.into()),
            };
        }
    }
}

fn find(key: Key) -> Found {
    OPEN.with_borrow_mut(|open| {
        let Some(peers) = open.get_mut(&key) else {
            return Found::Nothing;
        };
        peers.connections.retain(|one| !one.sender.is_closed());
        if peers.connections.is_empty() {
            return Found::Nothing;
        }
        let Some(free) = peers.connections.iter_mut().find(|one| one.has_room()) else {
            return Found::Full;
        };
        free.since = Instant::now();
        free.streams.fetch_add(1, Relaxed);
        Found::Room(free.sender.clone(), Stream(Arc::clone(&free.streams)))
    })
}

/// The connection that is being opened, by us from now on if by nobody else. It does not end with the
/// request that began it: others wait for it.
fn opening(
    key: Key,
    server: &Arc<Server>,
    transport: &Arc<Transport>,
    patience: Duration,
    keep: Duration,
) -> Opening {
    OPEN.with_borrow_mut(|open| {
        let peers = open.entry(key).or_default();
        if let Some(opening) = &peers.opening {
            return opening.clone();
        }
        let (server, transport) = (Arc::clone(server), Arc::clone(transport));
        let task = tokio::spawn(async move {
            let opened = connect::http2(&server, &transport, patience).await;
            OPEN.with_borrow_mut(|open| {
                let peers = open.entry(key).or_default();
                peers.opening = None;
                let opened = opened?;
                if !opened.has_room() {
                    return Err(ConnectError::NoStream);
                }
                peers.connections.push(Http2 { keep, ..opened });
                Ok(())
            })
        });
        let opening = async move {
            let gone = |error| ConnectError::Tcp(Arc::new(io::Error::other(error)));
            task.await.map_err(gone)?
        };
        let opening = opening.boxed().shared();
        peers.opening = Some(opening.clone());
        opening
    })
}

/// Lets go of connections that have carried nothing for their `idle_timeout`.
pub(super) fn sweep() {
    OPEN.with_borrow_mut(|open| {
        open.retain(|_, peers| {
            peers.connections.retain_mut(|one| {
                if one.streams.load(Relaxed) > 0 {
                    one.since = Instant::now();
                }
                !one.sender.is_closed() && one.since.elapsed() < one.keep
            });
            peers.opening.is_some() || !peers.connections.is_empty()
        });
    });
}

/// Puts a head that was made for HTTP/1.1 into the form of HTTP/2 (RFC 9113 §8.3.1): the target whole,
/// its authority from `Host`. Does nothing to one that has that form already.
pub(super) fn shape(request: &mut Request<Upload>, tls: bool) {
    let host = request.headers_mut().remove(HOST);
    let named = host.as_ref().map(HeaderValue::as_bytes);
    let authority = named.and_then(|host| Authority::try_from(host).ok());
    let uri = std::mem::take(request.uri_mut());
    let mut parts = uri.into_parts();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = authority.or(parts.authority);
    parts
        .path_and_query
        .get_or_insert_with(|| PathAndQuery::from_static("/"));
    // Only a request without an authority fails, and none is admitted without.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    *request.version_mut() = Version::HTTP_2;
    // The end of a body is marked by its stream, and a connection that others use is not to be changed.
    for name in [TRANSFER_ENCODING, CONNECTION, UPGRADE] {
        request.headers_mut().remove(name);
    }
}

// === impl Http2 ===

impl Http2 {
    /// Begins to speak HTTP/2, and waits for the server's settings: who waits for this connection has to
    /// know how many it can carry, and hyper would keep the surplus waiting without a word.
    pub(super) async fn begin<T>(io: T) -> Result<Self, ConnectError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_max_send_streams(UNSAID)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(MAX_RESPONSE_HEAD as u32)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| ConnectError::Http(Arc::new(error)))?;
        // Driven by a task, and asked by us how many requests the server allows. Both are the same
        // thread's, so the lock is always free.
        let connection = Arc::new(Mutex::new(Some(connection)));
        let driven = Arc::clone(&connection);
        tokio::spawn(poll_fn(move |cx| {
            let mut slot = driven.lock().unwrap_or_else(PoisonError::into_inner);
            let polled = slot
                .as_mut()
                .map(|connection| Pin::new(connection).poll(cx));
            if polled.as_ref().is_some_and(std::task::Poll::is_pending) {
                return std::task::Poll::Pending;
            }
            // How a connection ends is told to whoever waits for a response on it.
            *slot = None;
            std::task::Poll::Ready(())
        }));
        let allowed = move || {
            let slot = connection.lock().unwrap_or_else(PoisonError::into_inner);
            slot.as_ref()
                .map_or(0, |connection| connection.current_max_send_streams())
        };
        while allowed() == UNSAID && !sender.is_closed() {
            tokio::time::sleep(LOOK).await;
        }
        if sender.is_closed() {
            return Err(ConnectError::NoSettings);
        }
        Ok(Self {
            sender,
            streams: Arc::default(),
            allowed: Box::new(allowed),
            keep: Duration::ZERO,
            since: Instant::now(),
        })
    }

    fn has_room(&self) -> bool {
        let streams = self.streams.load(Relaxed);
        streams < MAX_STREAMS && streams < (self.allowed)()
    }
}

// === impl Stream ===

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::shape;
    use crate::upstream::Upload;
    use http::{Request, Version};

    #[test]
    fn heads() {
        for (target, host, tls, expected) in [
            ("/a?b", Some("api.example"), false, "http://api.example/a?b"),
            (
                "/a",
                Some("api.example:8443"),
                true,
                "https://api.example:8443/a",
            ),
            ("/a", Some("[::1]:80"), false, "http://[::1]:80/a"),
            ("*", Some("a"), false, "http://a*"),
            ("http://a/b", None, true, "https://a/b"),
        ] {
            let mut request = Request::options(target)
                .header("transfer-encoding", "chunked")
                .header("te", "trailers")
                .header("x-a", "b");
            if let Some(host) = host {
                request = request.header("host", host);
            }
            let mut request = request.body(Upload::Empty).expect("a request");
            for _ in 0..2 {
                shape(&mut request, tls);
                assert_eq!(request.uri().to_string(), expected, "{target}");
                assert_eq!(request.version(), Version::HTTP_2);
                assert!(!request.headers().contains_key("host"));
                assert!(!request.headers().contains_key("transfer-encoding"));
                assert_eq!(request.headers()["te"], "trailers");
                assert_eq!(request.headers()["x-a"], "b");
            }
        }
    }
}
