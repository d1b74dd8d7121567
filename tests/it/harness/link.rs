//! A client that keeps its connection, and streams in both directions.

use super::{Reply, within};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// A request body of any kind.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// One connection to the gateway, for many requests.
pub struct Link {
    address: SocketAddr,
    sender: SendRequest<Body>,
}

impl Link {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connected");
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP/1.1");
        tokio::spawn(async move { drop(connection.await) });
        Self { address, sender }
    }

    /// Whether the connection can carry another request.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }

    /// Sends a request and returns as soon as the head of the response is there.
    pub async fn open(&mut self, mut request: Request<Body>) -> hyper::Result<Response<Incoming>> {
        let host = self.address.to_string().parse().expect("a host");
        request.headers_mut().entry(header::HOST).or_insert(host);
        within("a response", async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
    }

    /// Sends a request and reads the whole reply.
    pub async fn send(&mut self, request: Request<Body>) -> Reply {
        let (head, body) = self.open(request).await.expect("a response").into_parts();
        let body = within("the body", body.collect())
            .await
            .expect("a whole body")
            .to_bytes();
        Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.send(Request::get(path).body(nothing()).expect("a request"))
            .await
    }
}

/// No body.
pub fn nothing() -> Body {
    whole("")
}

/// A body of known length.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A chunked body of `count` pieces, made when they are asked for. `made` is called for each.
pub fn lazy(piece: &'static [u8], count: usize, mut made: impl FnMut() + Send + 'static) -> Body {
    let pieces = (0..count).map(move |_| {
        made();
        Ok(Frame::data(Bytes::from_static(piece)))
    });
    StreamBody::new(stream::iter(pieces)).boxed_unsync()
}

/// A chunked body that a test writes as it goes; it ends when the sender is dropped.
pub fn piecemeal() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        Some((Ok(Frame::data(receiver.recv().await?)), receiver))
    });
    (sender, StreamBody::new(pieces).boxed_unsync())
}

/// An HTTP/1.1 server that answers every request with what `answer` makes. Its URL.
pub async fn serve(
    answer: impl Fn(Request<Incoming>) -> Response<Body> + Clone + Send + 'static,
) -> String {
    let listener = TcpListener::bind(super::local()).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                std::future::ready(Ok::<_, std::convert::Infallible>(answer(request)))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(async move { drop(connection.await) });
        }
    });
    url
}
