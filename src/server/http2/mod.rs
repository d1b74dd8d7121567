//! HTTP/2 with a client (RFC 9113).

mod allowance;
mod frames;
mod socket;
mod streams;

use super::Shared;
use super::client::Client;
use super::drain::{Winding, until_drained};
use super::service;
use super::transport::Transport;
use crate::snapshot::Limits;
use http::header::{COOKIE, HOST, HeaderValue};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::{HttpService, service_fn};
use hyper_util::rt::TokioIo;
use socket::Socket;
use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use streams::{Open, StreamBody, Streams};
use tokio::time::{Instant, Sleep};

/// What a stream may send before it is read, and what all of a connection's may: a slow upstream
/// holds this much of the gateway's memory and no more.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What waits to be sent on one stream.
const SEND_BUFFER: usize = 64 << 10;

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: Transport,
    client: Arc<Client>,
    worker: usize,
    shared: &Arc<Shared>,
) {
    let (builder, socket, patience) = {
        let limits = &shared.snapshot.load().limits;
        let patience = (limits.idle_timeout, limits.body_timeout);
        (builder(limits), Socket::new(stream, limits), patience)
    };
    // Heads come in frames, which hyper reads alone: there is nothing to be out of step with.
    client.heads.store(u64::MAX, Relaxed);
    let service = service_fn(|mut request: Request<Incoming>| {
        client.asked(false);
        as_http1(&mut request);
        let open = Open::new(&client);
        let (shared, client) = (Arc::clone(shared), Arc::clone(&client));
        async move {
            let response: Response<_> = service::handle(shared, client, request).await;
            Ok::<_, Infallible>(response.map(|body| StreamBody::new(body, open)))
        }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let served = pin!(Served {
        connection,
        client: &client,
        idle: Box::pin(tokio::time::sleep(patience.0)),
        patience,
        ending: false,
    });
    if let Err(error) = until_drained(served, || client.has_asked(), worker, shared).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn builder(limits: &Limits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams {
        patience: limits.body_timeout,
    });
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Puts a head into the shape that the rest of the gateway knows: a `Host` (RFC 9113 §8.3.1), and
/// cookies in one field (§8.2.3).
fn as_http1<B>(request: &mut Request<B>) {
    let authority = request.uri().authority();
    if let Some(authority) = authority
        && !request.headers().contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(HOST, host);
    }
    let crumbs = request.headers().get_all(COOKIE);
    if crumbs.iter().nth(1).is_some() {
        let crumbs: Vec<&[u8]> = crumbs.iter().map(HeaderValue::as_bytes).collect();
        if let Ok(cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            request.headers_mut().insert(COOKIE, cookie);
        }
    }
}

/// A connection that ends when it has had no stream for `idle_timeout`.
struct Served<'c, C> {
    connection: C,
    client: &'c Client,
    /// Armed for a moment at which the connection may have been idle for long enough; most streams
    /// never touch it.
    idle: Pin<Box<Sleep>>,
    /// `idle_timeout`; and `body_timeout`, for the last bytes of a connection that is to end.
    patience: (Duration, Duration),
    ending: bool,
}

impl<C: Winding + Unpin> Served<'_, C>
where
    C: Future<Output = hyper::Result<()>>,
{
    /// Ready when nothing is worth waiting for any more.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let (idle, last) = self.patience;
            let now = Instant::now();
            let next = match self.client.idle_since() {
                // What is left belongs to streams that nobody reads.
                Some(_) if self.ending => return Poll::Ready(()),
                Some(since) if now >= since + idle => {
                    self.ending = true;
                    Pin::new(&mut self.connection).wind_down();
                    now + last
                }
                Some(since) => since + idle,
                None => now + idle,
            };
            self.idle.as_mut().reset(next);
        }
        Poll::Pending
    }
}

impl<C: Winding<Output = hyper::Result<()>> + Unpin> Future for Served<'_, C> {
    type Output = hyper::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.poll_idle(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.connection).poll(cx)
    }
}

impl<C: Winding<Output = hyper::Result<()>> + Unpin> Winding for Served<'_, C> {
    fn wind_down(mut self: Pin<&mut Self>) {
        self.ending = true;
        Pin::new(&mut self.connection).wind_down();
    }
}

impl<S> Winding for http2::Connection<TokioIo<Socket>, S, Streams>
where
    S: HttpService<Incoming, Error = Infallible, ResBody = StreamBody>,
    S::Future: Send + 'static,
{
    fn wind_down(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}
