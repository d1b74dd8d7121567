//! A client, as the service that answers its requests and the socket that they come by both know it.

use super::drain::Open;
use super::head::Flaw;
use http::HeaderValue;
use prometheus::IntGauge;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// What the requests of a connection have in common.
#[derive(Debug)]
pub(super) struct Client {
    /// Who connected.
    pub address: SocketAddr,
    /// Its IP address as text, made once.
    pub text: HeaderValue,
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
    /// The first request that hyper takes and the gateway does not, and what is wrong with it.
    pub(super) flaw: OnceLock<(u64, Flaw)>,
}

/// A place among the open connections, and in the gauge of the listener.
#[derive(Debug)]
pub(super) struct Place {
    _open: Open,
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

// === impl Place ===

impl Place {
    /// Takes a place; `gauge` is that of the listener.
    pub(super) fn new(open: Open, gauge: IntGauge) -> Self {
        gauge.inc();
        Self { _open: open, gauge }
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
    pub(super) fn new(address: SocketAddr, place: Place) -> Self {
        // An IP address is always a header value.
        let text = address.ip().to_canonical().to_string();
        let text = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("unknown"));
        Self {
            address,
            text,
            _place: place,
            phase: AtomicU8::new(HEAD),
            arriving: Arc::default(),
            asked: AtomicU64::new(0),
            body: AtomicBool::new(false),
            heads: AtomicU64::new(0),
            flaw: OnceLock::new(),
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

    /// The answer to the present request is complete.
    pub(super) fn answered(&self) {
        self.phase.store(FINISHING, Relaxed);
    }
}
