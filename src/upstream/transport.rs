//! How the servers of an upstream are talked to, apart from which and when.

use super::tls::ClientTls;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Version of HTTP and TLS settings. A reload keeps the one that has not changed, and with it
/// the connections: those made under other settings must not carry requests any more.
#[derive(Debug)]
pub struct Transport {
    /// Tells connections made under different settings apart.
    pub(super) id: u64,
    /// The version of HTTP.
    pub protocol: Protocol,
    /// Used for servers whose URL begins with `https://`; there if there is one.
    pub tls: Option<ClientTls>,
}

/// The version of HTTP that an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: a connection carries one request at a time.
    Http1,
    /// HTTP/2: over TLS by ALPN, over cleartext by prior knowledge (RFC 9113 §3.3).
    Http2,
}

// === impl Transport ===

impl Transport {
    /// New settings, with no connection made under them.
    pub fn new(protocol: Protocol, tls: Option<ClientTls>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            protocol,
            tls,
        }
    }
}
