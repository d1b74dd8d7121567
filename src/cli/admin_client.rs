//! Asks the admin listener of the running gateway.

use crate::at;
use crate::config::{self, KeyPath, ListenAddr};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

/// More than a reload takes that waits for a new issuer's keys.
const PATIENCE: Duration = Duration::from_secs(30);

const MAX_REPLY: usize = 1 << 20;

/// The admin listener's answer, or in words why there is none. `body` is JSON.
pub async fn ask(
    path: &Path,
    method: Method,
    target: &str,
    body: Option<String>,
) -> Result<(StatusCode, String), String> {
    // The file may have mistakes elsewhere: a reload is asked for to be told of them.
    let parsed = config::load(path).map_err(|errors| errors.to_string())?;
    let admin = at!["admin"];
    let unsaid = |at: &KeyPath| *at == KeyPath::root() || at.is_within(&admin);
    if parsed.mistakes.iter().any(|mistake| unsaid(&mistake.at)) {
        // At the default address there may be somebody else's gateway.
        let errors = parsed.source.report(parsed.mistakes);
        return Err(format!(
            "the file does not say where the admin listener is\n{errors}"
        ));
    }
    let address = match parsed.config.admin.listen {
        ListenAddr::Tcp(address) => ListenAddr::Tcp(reachable(address)),
        unix => unix,
    };
    tokio::time::timeout(PATIENCE, exchange(&address, method, target, body))
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {}s", PATIENCE.as_secs())))
        .map_err(|why| format!("the gateway's admin listener at {address}: {why}"))
}

/// An address that means "all of mine" is reached by loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

async fn exchange(
    address: &ListenAddr,
    method: Method,
    target: &str,
    body: Option<String>,
) -> Result<(StatusCode, String), String> {
    let unreachable = |error: std::io::Error| format!("{error}; is it running?");
    match address {
        ListenAddr::Tcp(address) => {
            let stream = TcpStream::connect(address).await.map_err(unreachable)?;
            converse(stream, &address.to_string(), method, target, body).await
        }
        ListenAddr::Unix(path) => {
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            converse(stream, "localhost", method, target, body).await
        }
    }
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    host: &str,
    method: Method,
    target: &str,
    body: Option<String>,
) -> Result<(StatusCode, String), String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    tokio::spawn(async move { drop(connection.await) });
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(header::HOST, host);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|error| error.to_string())?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REPLY)
        .collect()
        .await
        .map_err(|error| error.to_string())?;
    Ok((
        status,
        String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    ))
}
