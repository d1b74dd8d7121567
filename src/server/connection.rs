//! One client connection, from accept to close.

use super::client::{Client, Place};
use super::drain::{Open, until_drained};
use super::listen::Origin;
use super::sniff::{Protocol, Sniff};
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
    let (max_connections, header_timeout) = {
        let limits = &shared.snapshot.load().limits;
        (limits.max_connections, limits.header_timeout)
    };
    let Some(open) = Open::count(&shared, max_connections) else {
        return refuse_connection(stream, peer, &shared).await;
    };
    let place = Place::new(open, origin.gauge);
    if stream.set_nodelay().is_err() {
        return;
    }
    let since = Instant::now();
    let sniff = Box::pin(Sniff::new(stream, since + header_timeout));
    let Some((protocol, stream)) = until_drained(sniff, || false, origin.worker, &shared).await
    else {
        return;
    };
    let client = Arc::new(Client::new(peer, place));
    match protocol {
        Protocol::Http1 => http1::serve(stream, client, origin.worker, &shared, since).await,
        Protocol::Http2 => http2::serve(stream, client, origin.worker, &shared).await,
    }
}

/// Over `max_connections`: a word, and the door.
async fn refuse_connection(mut stream: Transport, peer: SocketAddr, shared: &Shared) {
    let reply = unparsed::refusal(shared, peer, &Rejection::from(Reason::Overloaded));
    // The socket's buffer is empty, so this either fits or the client is gone.
    let write = |cx: &mut Context<'_>| Poll::Ready(Pin::new(&mut stream).poll_write(cx, &reply));
    let _ = poll_fn(write).await;
}
