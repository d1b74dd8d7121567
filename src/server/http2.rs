//! HTTP/2 with a client (RFC 9113).

use super::Shared;
use super::client::Client;
use super::drain::{Winding, until_drained};
use super::service::{self, Tracked};
use super::transport::Transport;
use crate::snapshot::Limits;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: Transport,
    client: Arc<Client>,
    worker: usize,
    shared: &Arc<Shared>,
) {
    let builder = builder(&shared.snapshot.load().limits);
    let service = service_fn(|request: Request<Incoming>| {
        client.asked(false);
        let (shared, client) = (Arc::clone(shared), Arc::clone(&client));
        async move { Ok::<_, Infallible>(service::handle(shared, client, request).await) }
    });
    let connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    if let Err(error) = until_drained(connection, || client.has_asked(), worker, shared).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX));
    builder
}

impl<S> Winding for http2::Connection<TokioIo<Transport>, S, TokioExecutor>
where
    S: HttpService<Incoming, Error = Infallible, ResBody = Tracked>,
    S::Future: Send + 'static,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
