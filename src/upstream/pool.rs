//! Connections to upstream servers, kept by each worker for itself.
//!
//! A worker is one thread, so its idle connections are thread-local: no lock, and a connection is
//! driven by the thread that uses it.

use super::breaker::InFlight;
use super::connect::Http1;
use super::transport::Transport;
use super::upload_state::Way;
use super::{Server, Upload, UploadState, http2};
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Idle connections that one worker keeps to one server.
const MAX_IDLE: usize = 256;

thread_local! {
    static IDLE: RefCell<HashMap<Key, Vec<Idle>, BuildHasherDefault<Numbers>>> = RefCell::default();
}

/// A server, as it is talked to under these settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    server: u64,
    transport: u64,
}

/// Hashes a [`Key`], of which no part comes from outside: nobody can make two collide.
#[derive(Default)]
struct Numbers(u64);

struct Idle {
    connection: Http1,
    since: Instant,
    keep: Duration,
}

/// A connection that carries a request. Give it back with [`Connection::reuse`] once request and
/// response have both ended. Dropped, it carries nothing else and closes once both are over or given up.
#[derive(Debug)]
pub struct Connection {
    kind: Kind,
    in_flight: InFlight,
}

#[derive(Debug)]
pub(super) enum Kind {
    Http1 {
        connection: Http1,
        key: Key,
        keep: Duration,
    },
    Http2 {
        stream: http2::Stream,
    },
}

/// A response head and the connection that its body comes by.
pub type Dispatched = (Response<Incoming>, Connection);

/// The most recently used idle connection that still works.
pub(super) async fn take(key: Key, now: Instant) -> Option<Http1> {
    loop {
        let idle = IDLE.with_borrow_mut(|pools| pools.get_mut(&key)?.pop())?;
        let mut connection = idle.connection;
        let sender = &mut connection.sender;
        let fresh = now.saturating_duration_since(idle.since) < idle.keep;
        if fresh && !sender.is_closed() && becomes_ready(sender).await {
            return Some(connection);
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
            pool.retain(|idle| {
                idle.since.elapsed() < idle.keep && !idle.connection.sender.is_closed()
            });
            !pool.is_empty()
        });
    });
    http2::sweep();
}

// === impl Numbers ===

impl Hasher for Numbers {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // An odd number spreads what is counted one by one over all bits (Knuth's multiplicative hash).
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl Key ===

impl Key {
    pub(super) fn of(server: &Server, transport: &Transport) -> Self {
        Self {
            server: server.id,
            transport: transport.id,
        }
    }
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(kind: Kind, in_flight: InFlight) -> Self {
        Self { kind, in_flight }
    }

    /// Keeps the connection for another request.
    pub fn reuse(self) {
        // The place at the server is free from here on, however this ends.
        let Self {
            kind,
            in_flight: _place,
        } = self;
        let Kind::Http1 {
            connection,
            key,
            keep,
        } = kind
        else {
            // It is in use all the time.
            return;
        };
        if connection.sender.is_closed() {
            return;
        }
        let since = Instant::now();
        let idle = Idle {
            connection,
            since,
            keep,
        };
        // During the end of a thread its pool is gone: the connection closes, which is right.
        let _ = IDLE.try_with(|pools| {
            let mut pools = pools.borrow_mut();
            let pool = pools.entry(key).or_default();
            if pool.len() < MAX_IDLE {
                pool.push(idle);
            }
        });
    }

    /// The response has ended and its request has not: an upload keeps its place until it is over, or is given up at
    /// the `deadline` or when nothing moves for its patience. The connection carries nothing else.
    pub fn outlived_by(self, upload: &Arc<UploadState>, deadline: Option<Instant>) {
        let way = match self.kind {
            Kind::Http1 { connection, .. } => Way::Connection(connection.driver),
            Kind::Http2 { stream } => Way::Stream(stream),
        };
        upload.outlives(self.in_flight, way, deadline);
    }

    /// Nobody wants the rest of the response: what still comes of the request is given up as well, at once and
    /// however little its server reads.
    pub fn give_up(self, upload: &UploadState) {
        upload.give_up();
        self.cut();
    }

    /// Ends what carries nothing else.
    pub(super) fn cut(self) {
        if let Kind::Http1 { connection, .. } = self.kind {
            connection.driver.abort();
        }
    }
}
