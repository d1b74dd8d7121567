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
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body as _;
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

/// A client that is told of the end of its connection answers at once (hyper sends a PING behind
/// GOAWAY). One of which nothing comes for this long has gone.
const SILENCE: Duration = Duration::from_secs(2);

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
        (
            builder(limits),
            Socket::new(stream, &client, limits),
            patience,
        )
    };
    // Heads come in frames, which hyper reads alone: there is nothing to be out of step with.
    client.heads.store(u64::MAX, Relaxed);
    let service = service_fn(|mut request: Request<Incoming>| {
        as_http1(&mut request);
        let open = Open::new(&client);
        let (shared, client) = (Arc::clone(shared), Arc::clone(&client));
        async move {
            let is_head = request.method() == Method::HEAD;
            let response = service::handle(shared, client, request).await;
            let mut response = response.map(|body| StreamBody::new(body, open));
            if is_head {
                leave_out_body(&mut response);
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = builder.serve_connection(TokioIo::new(socket), service);
    let served = pin!(Served {
        connection,
        client: &client,
        idle: Box::pin(tokio::time::sleep(patience.0)),
        patience,
        ending: None,
    });
    if let Err(error) = until_drained(served, || client.has_asked(), worker, shared).await {
        tracing::debug!(%error, "a connection broke off");
    }
}

fn builder(limits: &Limits) -> http2::Builder<Streams> {
    let mut builder = http2::Builder::new(Streams {
        patience: limits.body_timeout,
    });
    // What is over this hyper answers with a bare 431, or ends the connection for, and nobody hears of
    // it. So it begins where no honest client gets to: what is over the limit itself is refused, and
    // recorded, like anything else.
    let most = limits.max_header_bytes.saturating_mul(2);
    builder
        .max_concurrent_streams(limits.max_concurrent_streams)
        .max_header_list_size(u32::try_from(most).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    builder
}

/// Whether a head has too many fields, or would be too long in HTTP/1.1: a client gets the same answer
/// whichever it speaks.
pub(super) fn is_too_large(head: &Parts, limits: &Limits) -> bool {
    // A line ends with CR LF, and has two signs behind the name, as the first line has two spaces.
    const LINE: usize = 4;
    let fields = head.headers.iter();
    let fields = fields.map(|(name, value)| name.as_str().len() + value.len() + LINE);
    let target = head.uri.path_and_query().map_or(0, |t| t.as_str().len());
    let first = head.method.as_str().len() + target + "HTTP/1.1".len() + LINE;
    head.headers.len() > limits.max_headers
        || first + fields.sum::<usize>() > limits.max_header_bytes
}

/// Makes a response one to HEAD: hyper does that in HTTP/1.1 alone.
fn leave_out_body(response: &mut Response<StreamBody>) {
    // One from upstream has no body here, and its length in the head.
    let length = response.body().size_hint().exact();
    if let Some(length @ 1..) = length {
        response
            .headers_mut()
            .entry(CONTENT_LENGTH)
            .or_insert(length.into());
    }
    response.body_mut().leave_out();
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
    /// When the connection was told to end.
    ending: Option<Instant>,
}

impl<C: Winding + Unpin> Served<'_, C>
where
    C: Future<Output = hyper::Result<()>>,
{
    /// Ready when nothing is worth waiting for any more.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            let idle = self.patience.0;
            let next = match (self.client.idle_since(), self.ending) {
                (Some(since), Some(ending)) => {
                    let end = since.max(ending) + self.last();
                    if now >= end {
                        return Poll::Ready(());
                    }
                    end
                }
                (None, Some(_)) => now + self.last(),
                (Some(since), None) if now >= since + idle => {
                    self.end();
                    continue;
                }
                (Some(since), None) => since + idle,
                (None, None) => now + idle,
            };
            self.idle.as_mut().reset(next);
        }
        Poll::Pending
    }

    /// How long the end may take once there is no stream: what is left then is on its way to a client
    /// that takes it, belongs to streams that nobody reads, or waits for one that has gone.
    fn last(&self) -> Duration {
        let last = self.patience.1;
        if self.client.heard.load(Relaxed) {
            last
        } else {
            last.min(SILENCE)
        }
    }

    /// Tells the client that the connection ends.
    fn end(&mut self) {
        self.client.heard.store(false, Relaxed);
        let now = Instant::now();
        self.ending = Some(now);
        let end = now + self.last();
        self.idle.as_mut().reset(end);
        Pin::new(&mut self.connection).wind_down();
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
        // It may have been told already, for idleness: what it has left does not begin anew.
        if self.ending.is_none() {
            self.end();
        }
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
