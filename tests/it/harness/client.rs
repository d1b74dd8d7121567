//! A client that sends just what it is told and reads whole replies. One connection a request.

use super::sweep::sweep_reply;
use super::within;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A request in the making.
#[derive(Debug, Clone)]
pub struct Request {
    address: SocketAddr,
    method: String,
    path: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Bytes,
}

/// A reply, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

/// A request to an address.
pub fn request(address: SocketAddr, method: &str, path: &str) -> Request {
    Request {
        address,
        method: method.into(),
        path: path.into(),
        headers: Vec::new(),
        body: Bytes::new(),
    }
}

impl Request {
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// Where it is sent to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Path and query, as they are sent.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn bearer(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    pub fn form(self, fields: &[(&str, &str)]) -> Self {
        let body = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish();
        self.header("content-type", "application/x-www-form-urlencoded")
            .body(body)
    }

    pub fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(value.to_string())
    }

    /// Sends it and reads the whole reply.
    pub async fn send(&self) -> Reply {
        within("a reply", self.try_send()).await.expect("a reply")
    }

    /// Sends it; an error is the connection's.
    pub async fn try_send(&self) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        self.try_send_over(TcpStream::connect(self.address).await?)
            .await
    }

    /// Sends it by HTTP/1.1 over a connection that is there already.
    pub async fn try_send_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Reply, Box<dyn std::error::Error + Send + Sync>> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection);
        let mut builder = http::Request::builder()
            .method(self.method.as_str())
            .uri(self.path.as_str());
        if !self
            .headers
            .iter()
            .any(|(name, _)| name.eq_ignore_ascii_case("host"))
        {
            builder = builder.header("host", self.address.to_string());
        }
        for (name, value) in &self.headers {
            builder = builder.header(name.as_str(), value.as_slice());
        }
        let response = sender
            .send_request(builder.body(Full::new(self.body.clone()))?)
            .await?;
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        driver.abort();
        let reply = Reply {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        };
        sweep_reply(&reply);
        Ok(reply)
    }
}

impl Reply {
    /// A header field; `None` if absent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("ASCII"))
    }

    /// Whether a header field has this very value.
    pub fn header_is(&self, name: &str, value: &str) -> bool {
        self.headers.get(name).is_some_and(|own| own == value)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The values that the echo API saw of a header, in its reply.
    pub fn upstream_saw(&self, name: &str) -> Vec<String> {
        let headers = self.json()["headers"].clone();
        let pairs: Vec<(String, String)> =
            serde_json::from_value(headers).expect("the echo's headers");
        pairs
            .into_iter()
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}
