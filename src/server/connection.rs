//! One client connection, from accept to close.

use super::client::{Client, Place};
use super::drain::{Open, until_drained};
use super::listen::Origin;
use super::proxy_protocol::ReadHeader;
use super::sniff::{Protocol, Sniff};
use super::tls::{self, Credentials, Met};
use super::transport::{Accepted, Transport};
use super::{Shared, http1, http2, unparsed};
use crate::rejection::{Reason, Rejection};
use crate::snapshot::{Snapshot, Tls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// What holds for a connection that has just been accepted. It may outlive the snapshot.
struct Rules {
    max_connections: usize,
    max_connections_per_address: usize,
    proxy_protocol: bool,
    header_timeout: Duration,
    tls: Option<Arc<Tls>>,
}

impl Rules {
    fn of(snapshot: &Snapshot) -> Self {
        let limits = &snapshot.limits;
        Self {
            max_connections: limits.max_connections,
            max_connections_per_address: limits.max_connections_per_address,
            proxy_protocol: limits.proxy_protocol,
            header_timeout: limits.header_timeout,
            tls: snapshot.tls.clone(),
        }
    }
}

/// Serves one connection to its end.
pub(super) async fn run(accepted: Accepted, origin: Origin, shared: Arc<Shared>) {
    let Accepted { stream, peer } = accepted;
    let rules = Rules::of(&shared.snapshot.load());
    let Some(open) = Open::count(&shared, rules.max_connections) else {
        return turn_away(stream, peer, "max_connections", &rules, &origin, &shared).await;
    };
    let mut place = Place::new(open, origin.gauge.clone());
    if stream.set_nodelay().is_err() {
        return;
    }
    let deadline = Instant::now() + rules.header_timeout;
    let counted = !stream.is_unix() || rules.proxy_protocol;
    let (stream, peer, named) = if rules.proxy_protocol {
        match client_behind(stream, peer, deadline, &origin, &shared).await {
            Some(told) => told,
            None => return,
        }
    } else {
        (stream, peer, true)
    };
    if rules.max_connections_per_address > 0 && counted {
        let max = rules.max_connections_per_address;
        match shared.door.seat(peer.ip(), max) {
            Some(seat) => place.sit(seat),
            None => {
                drop(place);
                let reason = "max_connections_per_address";
                return turn_away(stream, peer, reason, &rules, &origin, &shared).await;
            }
        }
    }
    let met = match &rules.tls {
        None => Some(Met {
            stream,
            protocol: None,
            credentials: Credentials::default(),
        }),
        Some(tls) => Box::pin(tls::meet(stream, peer, tls, origin.worker, &shared)).await,
    };
    if let Some(met) = met {
        let Met {
            stream,
            protocol,
            credentials,
        } = met;
        let client = Client::new(peer, named, credentials, place);
        let timeout = rules.header_timeout;
        serve(stream, protocol, client, timeout, origin, shared).await;
    }
}

/// Finds out what the client speaks, and speaks it.
async fn serve(
    mut stream: Transport,
    mut protocol: Option<Protocol>,
    client: Client,
    header_timeout: Duration,
    origin: Origin,
    shared: Arc<Shared>,
) {
    let since = Instant::now();
    // For HTTP/2 nothing is left to find out, but its preface is due in time as any head is.
    if protocol != Some(Protocol::Http1) {
        let sniff = Box::pin(Sniff::new(stream, since + header_timeout));
        let sniffed = until_drained(sniff, || false, origin.worker, &shared).await;
        let Some((seen, read)) = sniffed else {
            return;
        };
        stream = read;
        protocol.get_or_insert(seen);
    }
    let client = Arc::new(client);
    match protocol {
        Some(Protocol::Http2) => {
            Box::pin(http2::serve(stream, client, origin.worker, &shared)).await
        }
        _ => http1::serve(stream, client, origin.worker, &shared, since).await,
    }
}

/// Reads the PROXY protocol header: who the client is, and whether the header names it. A client that it
/// does not name has the address of whoever connected, and not the trust in it. `None` if there is no
/// good header, or not from somebody who may send one: the connection is closed unanswered then.
async fn client_behind(
    stream: Transport,
    peer: SocketAddr,
    deadline: Instant,
    origin: &Origin,
    shared: &Shared,
) -> Option<(Transport, SocketAddr, bool)> {
    let refused = |why: &dyn std::fmt::Display| {
        tracing::debug!(%peer, %why, "a connection is refused");
        count(shared, origin, "proxy_header");
    };
    if !shared.snapshot.load().trusted.contains(peer.ip()) {
        refused(&"the peer is not one of trusted_proxies");
        return None;
    }
    let read = Box::pin(ReadHeader::new(stream, deadline));
    match until_drained(read, || false, origin.worker, shared).await {
        Ok((stream, client)) => Some((stream, client.unwrap_or(peer), client.is_some())),
        Err(bad) => {
            refused(&bad);
            None
        }
    }
}

/// Over a limit: a word, and the door. A client that speaks TLS would not understand the word, and a
/// handshake is too dear for it.
async fn turn_away(
    stream: Transport,
    peer: SocketAddr,
    reason: &str,
    rules: &Rules,
    origin: &Origin,
    shared: &Shared,
) {
    count(shared, origin, reason);
    if rules.tls.is_none() {
        let rejection = Rejection::noted(Reason::Overloaded, format!("{reason} reached"));
        let reply = unparsed::refusal(shared, peer, &rejection);
        shared.door.turn_away(stream, reply).await;
    }
}

fn count(shared: &Shared, origin: &Origin, reason: &str) {
    let metric = &shared.observer.metrics.connections_refused_total;
    metric.with_label_values(&[&*origin.listener, reason]).inc();
}
