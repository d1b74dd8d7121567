//! One request on a connection of its own, for this module's tests.

use std::io;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A whole reply.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("a UTF-8 body")
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().expect("a visible header"))
    }
}

pub(super) async fn send(addr: SocketAddr, request: Request<Bytes>) -> io::Result<Reply> {
    let stream = TcpStream::connect(addr).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    let connection = tokio::spawn(connection);
    let (mut parts, body) = request.into_parts();
    parts
        .headers
        .entry("host")
        .or_insert("demo.test".parse().expect("a header"));
    let response = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await
        .map_err(io::Error::other)?;
    let (parts, body) = response.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    connection.abort();
    let trailers = body.trailers().cloned();
    Ok(Reply {
        status: parts.status,
        headers: parts.headers,
        trailers,
        body: body.to_bytes(),
    })
}

pub(super) async fn get(addr: SocketAddr, target: &str) -> io::Result<Reply> {
    send(
        addr,
        Request::get(target).body(Bytes::new()).expect("a request"),
    )
    .await
}

pub(super) async fn post(
    addr: SocketAddr,
    target: &str,
    content_type: &str,
    body: String,
) -> io::Result<Reply> {
    let request = Request::post(target)
        .header("content-type", content_type)
        .body(Bytes::from(body));
    send(addr, request.expect("a request")).await
}

/// Posts a form.
pub(super) async fn form(
    addr: SocketAddr,
    target: &str,
    fields: &[(&str, &str)],
) -> io::Result<Reply> {
    let body = form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish();
    post(addr, target, "application/x-www-form-urlencoded", body).await
}
