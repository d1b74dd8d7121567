//! A client, as the service that answers its requests and the socket that they come by both know it.

use super::door::Seat;
use super::drain::{Moment, Open};
use super::head::Flaw;
use super::tls::Credentials;
use crate::proxy;
use crate::request::{Peer, TrustedProxies};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use prometheus::IntGauge;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// What the requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Client {
    /// Who connected.
    pub address: SocketAddr,
    /// Its IP address as text, made once.
    pub text: HeaderValue,
    /// Whether that is where it comes from. A load balancer may not say (PROXY protocol); the address
    /// is its own then, and nothing that a client sends is taken for the load balancer's word.
    named: bool,
    /// What TLS tells of it.
    pub tls: Credentials,
    /// Its place among the open connections, kept until nothing of it is left: a tunnel outlives the
    /// HTTP in front of it.
    _place: Place,
    /// Where the connection is between two requests: one of the phases below. The service and the
    /// socket both write it.
    pub(super) phase: AtomicU8,
    /// Whether a request body is still coming in.
    pub arriving: Arc<AtomicBool>,
    /// Requests that hyper has read.
    pub(super) asked: AtomicU64,
    /// Whether the last request came with a body, of which there may be more than was read.
    pub(super) body: AtomicBool,
    /// Heads that the socket has seen come in whole.
    pub(super) heads: AtomicU64,
    /// Whether the client reads interim responses: HTTP/1.0 does not, and hyper's HTTP/2 has no way.
    pub(super) takes_interim: AtomicBool,
    has_interim: AtomicBool,
    interim: Mutex<Vec<u8>>,
    /// Open streams of HTTP/2.
    streams: AtomicUsize,
    /// When the last one ended, or the connection began, in milliseconds since `connected`.
    quiet_since: AtomicU64,
    connected: Instant,
    /// Whether anything has come by HTTP/2 since the connection was last asked for a sign of life.
    pub(super) heard: AtomicBool,
    /// The first request that hyper takes and the gateway does not, and what is wrong with it.
    pub(super) flaw: OnceLock<(u64, Flaw)>,
}

/// A place among the open connections, and in the gauge of the listener.
#[derive(Debug)]
pub(super) struct Place {
    _open: Open,
    seat: Option<Seat>,
    gauge: IntGauge,
}

/// Nothing of a request is there.
pub(super) const IDLE: u8 = 0;
/// A part of a head is there.
pub(super) const HEAD: u8 = 1;
/// A request is being answered.
const BUSY: u8 = 2;
/// The answer is complete, but not flushed.
pub(super) const FINISHING: u8 = 3;
/// Another protocol is spoken.
pub(super) const SWITCHED: u8 = 4;

// === impl Place ===

impl Place {
    /// Takes a place; `gauge` is that of the listener.
    pub(super) fn new(open: Open, gauge: IntGauge) -> Self {
        gauge.inc();
        Self {
            _open: open,
            seat: None,
            gauge,
        }
    }

    /// It is a place among those of its address, too.
    pub(super) fn sit(&mut self, seat: Seat) {
        self.seat = Some(seat);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

// === impl Client ===

impl Client {
    /// A client that has just connected: its first head is due.
    pub(super) fn new(address: SocketAddr, named: bool, tls: Credentials, place: Place) -> Self {
        // An IP address is always a header value.
        let text = address.ip().to_canonical().to_string();
        let text = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            address,
            text,
            named,
            tls,
            _place: place,
            phase: AtomicU8::new(HEAD),
            arriving: Arc::default(),
            asked: AtomicU64::new(0),
            body: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            takes_interim: AtomicBool::new(false),
            has_interim: AtomicBool::new(false),
            interim: Mutex::default(),
            streams: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(0),
            connected: Instant::now(),
            heard: AtomicBool::new(false),
            flaw: OnceLock::new(),
        }
    }

    /// The client as the deciding code sees it.
    pub(super) fn peer(&self, trusted: &TrustedProxies) -> Peer {
        let peer = trusted.peer(self.address);
        Peer {
            trusted: self.named && peer.trusted,
            secure: self.tls.secure,
            certificate: self.tls.certificate,
            ..peer
        }
    }

    /// A whole head has been read; `body`: one that a body follows.
    pub(super) fn asked(&self, body: bool) {
        self.asked.fetch_add(1, Relaxed);
        // Where a flawed request ends is anybody's guess.
        self.body.store(body || self.flaw().is_some(), Relaxed);
        self.phase.store(BUSY, Relaxed);
    }

    /// Whether any request has been read.
    pub(super) fn has_asked(&self) -> bool {
        self.asked.load(Relaxed) > 0
    }

    /// Where an HTTP/1.1 connection is, for a gateway that drains. hyper drops the beginning of a
    /// head that it has when it is told to end, but for the first.
    pub(super) fn moment(&self) -> Moment {
        match self.phase.load(Relaxed) {
            _ if !self.has_asked() => Moment::AfterGrace,
            IDLE => Moment::AfterGrace,
            HEAD => Moment::NotYet,
            _ => Moment::Now,
        }
    }

    /// What is wrong with the request that was read last, if it must not be served. It has to be
    /// the last one of its connection.
    ///
    /// Its bytes have been watched before hyper got them, so a head that was not seen whole is one
    /// that hyper reads differently.
    pub(super) fn flaw(&self) -> Option<Flaw> {
        let asked = self.asked.load(Relaxed);
        match self.flaw.get() {
            Some((request, flaw)) if *request <= asked => Some(*flaw),
            _ if self.heads.load(Relaxed) < asked => Some(Flaw::OutOfStep),
            _ => None,
        }
    }

    /// What is wrong with the request that comes next, which hyper could not read.
    pub(super) fn flaw_ahead(&self) -> Option<Flaw> {
        let (request, flaw) = self.flaw.get()?;
        (*request == self.asked.load(Relaxed) + 1).then_some(*flaw)
    }

    /// Whether nothing can be read behind the present request, now that nobody reads it any more:
    /// its body broke off or is malformed, so that nobody knows where it ends.
    pub(super) fn is_lost(&self) -> bool {
        self.arriving.load(Relaxed) || self.flaw().is_some()
    }

    /// The answer to the present request is complete.
    pub(super) fn answered(&self) {
        if self.phase.load(Relaxed) != SWITCHED {
            self.phase.store(FINISHING, Relaxed);
        }
    }

    /// A stream of HTTP/2 has been opened.
    pub(super) fn stream_begins(&self) {
        self.streams.fetch_add(1, Relaxed);
        self.asked.fetch_add(1, Relaxed);
    }

    /// A stream of HTTP/2 is over.
    pub(super) fn stream_ends(&self) {
        if self.streams.fetch_sub(1, Relaxed) == 1 {
            let now = self.connected.elapsed().as_millis();
            let now = u64::try_from(now).unwrap_or(u64::MAX);
            self.quiet_since.store(now, Relaxed);
        }
    }

    /// Since when there has been no stream, if there is none.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let since = Duration::from_millis(self.quiet_since.load(Relaxed));
        (self.streams.load(Relaxed) == 0).then(|| self.connected + since)
    }

    /// Interim responses that have not been written yet, whole.
    pub(super) fn take_interim(&self) -> Bytes {
        // Asked at every flush, and mostly for nothing.
        if !self.has_interim.swap(false, Relaxed) {
            return Bytes::new();
        }
        let mut waiting = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting).into()
    }
}

impl proxy::Client for Client {
    fn interim(&self, status: StatusCode, fields: &HeaderMap) {
        if !self.takes_interim.load(Relaxed) {
            return;
        }
        let mut text = format!("HTTP/1.1 {status}\r\n").into_bytes();
        for (name, value) in fields {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"\r\n");
        let mut waiting = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.extend_from_slice(&text);
        self.has_interim.store(true, Relaxed);
    }

    fn switched(&self) {
        self.phase.store(SWITCHED, Relaxed);
    }
}
