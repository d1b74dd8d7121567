//! A small HTTP/1.1 server that can die at once and come back on the same port.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot};
use tokio::task::{JoinHandle, JoinSet};

use super::body::Body;

/// More than the gateway lets in, so that what it adds is never the reason for a refusal.
const MAX_HEADERS: usize = 512;

/// What answers the requests of a [`Host`].
pub(super) trait Service: Send + Sync + 'static {
    /// Answers, or closes the connection without an answer.
    fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Result<Response<Body>, Closed>> + Send;
}

/// The connection is closed without an answer.
#[derive(Debug)]
pub(super) struct Closed;

/// A listener with its connections.
pub(super) struct Host {
    addr: SocketAddr,
    accepted: Arc<AtomicU64>,
    /// `None` while stopped.
    running: Mutex<Option<Running>>,
}

struct Running {
    /// Never sent to: dropping it ends the task, also when the whole `Host` is dropped.
    stop: oneshot::Sender<Infallible>,
    task: JoinHandle<()>,
}

// === impl Host ===

impl Host {
    /// Serves `listener` on the current runtime until stopped or dropped.
    pub(super) fn serve<S: Service>(listener: TcpListener, service: Arc<S>) -> io::Result<Self> {
        let addr = listener.local_addr()?;
        let accepted = Arc::new(AtomicU64::new(0));
        let running = Running::spawn(listener, service, Arc::clone(&accepted));
        Ok(Self {
            addr,
            accepted,
            running: Mutex::new(Some(running)),
        })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Connections accepted so far.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes the listener and all connections; both are closed when this returns.
    pub(super) async fn stop(&self) {
        if let Some(Running { stop, task }) = self.running.lock().await.take() {
            drop(stop);
            // An error here means that the runtime is going down, and the task with it.
            let _ = task.await;
        }
    }

    /// Listens on the same address again; does nothing while running.
    pub(super) async fn restart<S: Service>(&self, service: Arc<S>) -> io::Result<()> {
        let mut running = self.running.lock().await;
        if running.is_none() {
            let listener = bind_again(self.addr).await?;
            *running = Some(Running::spawn(
                listener,
                service,
                Arc::clone(&self.accepted),
            ));
        }
        Ok(())
    }
}

// === impl Running ===

impl Running {
    fn spawn<S: Service>(listener: TcpListener, service: Arc<S>, accepted: Arc<AtomicU64>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            tokio::select! {
                _ = stopped => {}
                () = accept(&listener, &service, &accepted, &mut connections) => {}
            }
            drop(listener);
            connections.shutdown().await;
        });
        Self { stop, task }
    }
}

async fn accept<S: Service>(
    listener: &TcpListener,
    service: &Arc<S>,
    accepted: &AtomicU64,
    connections: &mut JoinSet<()>,
) {
    loop {
        tokio::select! {
            connection = listener.accept() => match connection {
                Ok((stream, _)) => {
                    accepted.fetch_add(1, Ordering::Relaxed);
                    connections.spawn(converse(stream, Arc::clone(service)));
                }
                // Out of file descriptors, for example: the next attempt may do better.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn converse<S: Service>(stream: TcpStream, service: Arc<S>) {
    // Without it, small answers may wait for a delayed ACK; with an error the connection merely is slower.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| Arc::clone(&service).answer(request));
    // A connection that ends in an error is the peer's business or was asked for.
    let _ = http1::Builder::new()
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The port may linger for a moment after a stop.
async fn bind_again(addr: SocketAddr) -> io::Result<TcpListener> {
    let mut attempts = 40;
    loop {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && attempts > 0 => {
                attempts -= 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            outcome => return outcome,
        }
    }
}

// === impl Closed ===

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connection closed without an answer")
    }
}

impl std::error::Error for Closed {}
