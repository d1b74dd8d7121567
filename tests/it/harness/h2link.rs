//! A client of HTTP/2 that keeps its connection and has many requests on it at a time.

use super::link::{Body, nothing};
use super::{Reply, within};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// One connection to the gateway, for many requests at a time.
#[derive(Clone)]
pub struct H2Link {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl H2Link {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::with(address, |_| {}).await
    }

    /// Connects with other windows or the like.
    pub async fn with(
        address: SocketAddr,
        change: impl FnOnce(&mut Builder<TokioExecutor>),
    ) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        let mut builder = Builder::new(TokioExecutor::new());
        change(&mut builder);
        let (sender, connection) = builder
            .handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        Self { address, sender }
    }

    /// Whether the connection can carry another request.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and returns as soon as the head of the response is there.
    pub async fn open(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        if request.uri().authority().is_none() {
            let target = format!("http://{}{}", self.address, request.uri());
            *request.uri_mut() = target.parse().expect("a target");
        }
        within("a response", async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
    }

    /// Sends a request and reads the whole reply; an error is the connection's or the stream's.
    pub async fn try_send(&mut self, request: Request<Body>) -> hyper::Result<Reply> {
        let (head, body) = self.open(request).await?.into_parts();
        assert_eq!(head.version, http::Version::HTTP_2);
        let body = within("the body", body.collect()).await?.to_bytes();
        Ok(Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        })
    }

    /// Sends a request and reads the whole reply.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        self.try_send(request).await.expect("a reply")
    }

    /// [`Self::send`] beside others of the same connection.
    pub fn spawn(&self, request: Request<Body>) -> JoinHandle<hyper::Result<Reply>> {
        let mut link = self.clone();
        tokio::spawn(async move { link.try_send(request).await })
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(get(path)).await
    }
}

/// A GET without a body.
pub fn get(path: &str) -> Request<Body> {
    Request::get(path).body(nothing()).expect("a request")
}
