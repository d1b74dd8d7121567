//! From a server's address to a connection that carries requests.

use super::http2::Http2;
use super::transport::{Protocol, Transport};
use super::{ConnectError, Server, Upload};
use crate::socket::Gathered;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;
use rustls::AlertDescription;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A response head may not be larger than this; hyper allows it 100 fields.
pub(super) const MAX_RESPONSE_HEAD: usize = 64 << 10;

/// A connection that says nothing for 60 s is asked whether it lives, four times in a minute. A
/// server that lost its power is noticed before a request is sent there, and a firewall on the way
/// keeps the connection in mind.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub(super) struct Http1 {
    /// What takes its requests.
    pub sender: SendRequest<Upload>,
    /// The task that reads and writes. It ends by itself when all is over, and can be ended before.
    pub driver: AbortHandle,
}

/// Opens an HTTP/1.1 connection within `patience`, TLS included.
pub(super) async fn http1(
    server: &Server,
    transport: &Transport,
    patience: Duration,
) -> Result<Http1, ConnectError> {
    let opening = async {
        let stream = tcp(server).await?;
        match server.tls {
            true => begin_http1(secure(stream, server, transport).await?).await,
            false => begin_http1(Gathered(stream)).await,
        }
    };
    let opened = pingora_timeout::timeout(patience, opening).await;
    opened.unwrap_or(Err(ConnectError::Timeout))
}

/// Opens an HTTP/2 connection within `patience`, TLS included.
pub(super) async fn http2(
    server: &Server,
    transport: &Transport,
    patience: Duration,
) -> Result<Http2, ConnectError> {
    let opening = async {
        let stream = tcp(server).await?;
        match server.tls {
            true => Http2::begin(secure(stream, server, transport).await?).await,
            false => Http2::begin(Gathered(stream)).await,
        }
    };
    let opened = pingora_timeout::timeout(patience, opening).await;
    opened.unwrap_or(Err(ConnectError::Timeout))
}

pub(super) async fn tcp(server: &Server) -> Result<TcpStream, ConnectError> {
    let tcp = ConnectError::of;
    let stream = TcpStream::connect(server.address).await.map_err(tcp)?;
    stream.set_nodelay(true).map_err(tcp)?;
    SockRef::from(&stream)
        .set_tcp_keepalive(&KEEPALIVE)
        .map_err(tcp)?;
    Ok(stream)
}

pub(super) async fn secure(
    stream: TcpStream,
    server: &Server,
    transport: &Transport,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let tls = |error| ConnectError::Tls(Arc::new(error));
    let settings = transport
        .tls
        .as_ref()
        .ok_or_else(|| tls(io::Error::other("this upstream has no TLS settings")))?;
    let name = match &settings.name {
        Some(name) => name.clone(),
        None => ServerName::try_from(server.host.to_string())
            .map_err(|error| tls(io::Error::other(error)))?,
    };
    let connecting = TlsConnector::from(Arc::clone(&settings.config)).connect(name, stream);
    let stream = connecting
        .await
        .map_err(|error| match is_about_alpn(&error) {
            true => ConnectError::NotHttp2,
            false => tls(error),
        })?;
    let agreed = stream.get_ref().1.alpn_protocol();
    if transport.protocol == Protocol::Http2 && agreed != Some(b"h2") {
        return Err(ConnectError::NotHttp2);
    }
    Ok(stream)
}

/// Whether the server ended the handshake because it does not speak our version of HTTP.
fn is_about_alpn(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let alert = rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol);
    cause == Some(&alert)
}

async fn begin_http1<T>(io: T) -> Result<Http1, ConnectError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    TokioIo<T>: Read + Write,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_RESPONSE_HEAD)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| ConnectError::Http(Arc::new(error)))?;
    // How a connection ends is told to whoever waits for a response on it.
    let connection = connection.with_upgrades();
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok(Http1 {
        sender,
        driver: driver.abort_handle(),
    })
}
