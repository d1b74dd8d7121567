//! One client connection, from accept to close.

use super::client::Client;
use super::drain::Stage;
use super::stream::Socket;
use super::{Shared, service, unparsed};
use crate::rejection::{Reason, Rejection};
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// What hyper allows without being told.
const HYPER_MAX_HEADERS: usize = 100;

/// What a client that has just connected gets to send its first request while the gateway drains.
const FIRST_REQUEST: Duration = Duration::from_millis(200);

/// Serves one connection to its end.
pub(super) async fn run(
    stream: TcpStream,
    peer: SocketAddr,
    worker: usize,
    shared: Arc<Shared>,
    gauge: IntGauge,
) {
    let snapshot = shared.snapshot.load_full();
    let Some(_open) = shared.drain.open(snapshot.limits.max_connections) else {
        return refuse_connection(&stream, peer, &shared);
    };
    let _counted = Counted::new(gauge);
    // Small answers must not wait for the client's acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let client = Arc::new(Client::new(peer));
    let limits = &snapshot.limits;
    let socket = Socket::new(stream, &client, &shared, limits);
    let mut builder = http1::Builder::new();
    // hyper has a faster way for its own default.
    if limits.max_headers != HYPER_MAX_HEADERS {
        builder.max_headers(limits.max_headers);
    }
    builder
        .max_header_size(limits.max_header_bytes)
        .max_buf_size(limits.max_header_bytes.max(16 << 10) + 1024);
    drop(snapshot);
    let service = service_fn(|request: Request<Incoming>| {
        client.asked(!request.body().is_end_stream());
        let (shared, client) = (Arc::clone(&shared), Arc::clone(&client));
        async move { Ok::<_, Infallible>(service::handle(shared, client, request).await) }
    });
    let connection = pin!(builder.serve_connection(TokioIo::new(socket), service));
    until_drained(connection, &client, worker, &shared).await;
}

/// Drives a connection. When the gateway drains, the request in flight is the last; a client that
/// has only just connected gets a moment to send its first.
async fn until_drained<S>(
    mut connection: Pin<&mut http1::Connection<TokioIo<Socket>, S>>,
    client: &Client,
    worker: usize,
    shared: &Shared,
) where
    S: hyper::service::HttpService<Incoming, Error = Infallible, ResBody = service::Tracked>,
{
    let Some(bell) = shared.drain.bell(worker) else {
        return;
    };
    let mut rung = pin!(bell.notified());
    rung.as_mut().enable();
    let mut registered = false;
    let mut grace = pin!(None::<Sleep>);
    let mut told = false;
    let outcome = poll_fn(|cx| {
        let stage = shared.drain.stage();
        // The bell has this task's waker from the first poll on, so that after it only the stage is
        // looked at. It rings once for each stage.
        if !told && (!registered || stage != Stage::Serving) {
            registered = true;
            if rung.as_mut().poll(cx).is_ready() && stage < Stage::Draining {
                rung.set(bell.notified());
                rung.as_mut().enable();
                let _ = rung.as_mut().poll(cx);
            }
        }
        if !told && stage == Stage::Draining {
            if grace.is_none() {
                grace.set(Some(tokio::time::sleep(FIRST_REQUEST)));
            }
            let over = |timer: Pin<&mut Sleep>, cx: &mut Context<'_>| timer.poll(cx).is_ready();
            told = client.has_asked()
                || grace
                    .as_mut()
                    .as_pin_mut()
                    .is_none_or(|timer| over(timer, cx));
            if told {
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// Over `max_connections`: a word, and the door.
fn refuse_connection(stream: &TcpStream, peer: SocketAddr, shared: &Shared) {
    let reply = unparsed::refusal(shared, peer, &Rejection::from(Reason::Overloaded));
    // The socket's buffer is empty, so this either fits or the client is gone.
    let _ = stream.try_write(&reply);
}

/// A gauge that is up by one while this lives.
struct Counted(IntGauge);

impl Counted {
    fn new(gauge: IntGauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
