//! One client connection, from accept to close.

use super::client::{Client, Place};
use super::drain::{Open, until_drained};
use super::listen::Origin;
use super::sniff::{Protocol, Sniff};
use super::tls::{self, Credentials, Met};
use super::transport::{Accepted, Transport};
use super::{Shared, http1, http2, unparsed};
use crate::rejection::{Reason, Rejection};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::AsyncWrite as _;
use tokio::time::Instant;

/// Serves one connection to its end.
pub(super) async fn run(accepted: Accepted, origin: Origin, shared: Arc<Shared>) {
    let Accepted { stream, peer } = accepted;
    let (max_connections, header_timeout, tls) = {
        let snapshot = shared.snapshot.load();
        let limits = &snapshot.limits;
        (
            limits.max_connections,
            limits.header_timeout,
            snapshot.tls.clone(),
        )
    };
    let Some(open) = Open::count(&shared, max_connections) else {
        return refuse_connection(stream, peer, tls.is_some(), &shared).await;
    };
    let place = Place::new(open, origin.gauge);
    if stream.set_nodelay().is_err() {
        return;
    }
    let met = match tls {
        None => Some(Met {
            stream,
            protocol: None,
            credentials: Credentials::default(),
        }),
        Some(tls) => Box::pin(tls::meet(stream, peer, &tls, origin.worker, &shared)).await,
    };
    let Some(Met {
        mut stream,
        mut protocol,
        credentials,
    }) = met
    else {
        return;
    };
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
    let client = Arc::new(Client::new(peer, credentials, place));
    match protocol {
        Some(Protocol::Http2) => http2::serve(stream, client, origin.worker, &shared).await,
        _ => http1::serve(stream, client, origin.worker, &shared, since).await,
    }
}

/// Over `max_connections`: a word, and the door. A client that speaks TLS would not understand the
/// word, and a handshake is too dear for it.
async fn refuse_connection(mut stream: Transport, peer: SocketAddr, tls: bool, shared: &Shared) {
    let reply = unparsed::refusal(shared, peer, &Rejection::from(Reason::Overloaded));
    if tls {
        return;
    }
    // The socket's buffer is empty, so this either fits or the client is gone.
    let write = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &reply));
    let _ = poll_fn(write).await;
}
