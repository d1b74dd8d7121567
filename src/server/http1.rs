//! HTTP/1.1 with a client.

use super::Shared;
use super::client::Client;
use super::drain::{Winding, until_drained};
use super::service::{self, Tracked};
use super::stream::Socket;
use super::transport::Transport;
use crate::snapshot::Limits;
use http::{Request, Version};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::time::Instant;

/// What hyper allows without being told.
const HYPER_MAX_HEADERS: usize = 100;

/// Serves a connection to its end. `since` is when it was accepted: the first head is due from then.
pub(super) async fn serve(
    stream: Transport,
    client: Arc<Client>,
    worker: usize,
    shared: &Arc<Shared>,
    since: Instant,
) {
    let (builder, socket) = {
        let limits = &shared.snapshot.load().limits;
        (
            builder(limits),
            Socket::new(stream, &client, shared, limits, since),
        )
    };
    let service = service_fn(|request: Request<Incoming>| {
        client.asked(!request.body().is_end_stream());
        let takes_interim = request.version() == Version::HTTP_11;
        client.takes_interim.store(takes_interim, Relaxed);
        let (shared, client) = (Arc::clone(shared), Arc::clone(&client));
        // hyper keeps the space of this future for as long as the connection lasts. What an answer
        // takes is let go between two requests, and the next connection's is where this one's was.
        let answer = Box::pin(service::handle(shared, client, request));
        async move { Ok::<_, Infallible>(answer.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let connection = std::pin::pin!(connection.with_upgrades());
    if let Err(error) = until_drained(connection, || client.moment(), worker, shared).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn builder(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    // hyper has a faster way for its own default.
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(16 << 10) + 1024);
    builder
}

impl<S> Winding for http1::UpgradeableConnection<TokioIo<Socket>, S>
where
    S: HttpService<Incoming, Error = Infallible, ResBody = Tracked>,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
