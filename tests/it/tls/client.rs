//! A client that speaks TLS.

use super::authority::{Authority, Issued};
use crate::harness::{Reply, Request, within};
use http::Version;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::client::Resumption;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What a client does at its handshakes.
#[derive(Clone)]
pub struct TlsClient {
    roots: RootCertStore,
    versions: Vec<&'static SupportedProtocolVersion>,
    alpn: Vec<Vec<u8>>,
    certificate: Option<(rustls::pki_types::CertificateDer<'static>, Vec<u8>)>,
    /// Made once it is [`Self::settled`]: with it go the sessions that can be resumed. Without it each
    /// connection is a stranger's.
    config: Option<Arc<ClientConfig>>,
}

type Error = Box<dyn std::error::Error + Send + Sync>;

// === impl TlsClient ===

impl TlsClient {
    pub fn trusting(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        Self {
            roots,
            versions: rustls::ALL_VERSIONS.to_vec(),
            alpn: vec![b"http/1.1".to_vec()],
            certificate: None,
            config: None,
        }
    }

    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = protocols
            .iter()
            .map(|own| own.as_bytes().to_vec())
            .collect();
        self
    }

    pub fn showing(mut self, certificate: &Issued) -> Self {
        let key = certificate.key.serialize_der();
        self.certificate = Some((certificate.certificate.der().clone(), key));
        self
    }

    /// One that resumes its sessions.
    pub fn settled(mut self) -> Self {
        self.config = Some(Arc::new(self.config()));
        self
    }

    fn config(&self) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&self.versions)
            .expect("versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::try_from(key.clone()).expect("a key");
                let chain = vec![certificate.clone()];
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        };
        config.alpn_protocols = self.alpn.clone();
        config.resumption = Resumption::in_memory_sessions(8);
        config
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        self.connect_over(TcpStream::connect(address).await?).await
    }

    /// The same over a connection that is there already.
    pub async fn connect_over(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let config = match &self.config {
            Some(config) => Arc::clone(config),
            None => Arc::new(self.config()),
        };
        let name = ServerName::try_from("localhost").expect("a name");
        let handshake = TlsConnector::from(config).connect(name, stream);
        within("a handshake", handshake).await
    }

    /// Sends a request by HTTP/1.1, on a connection of its own.
    pub async fn try_send(&self, request: &Request) -> Result<Reply, Error> {
        let stream = self.connect(request.address()).await?;
        within("a reply", request.try_send_over(stream)).await
    }

    pub async fn send(&self, request: &Request) -> Reply {
        self.try_send(request).await.expect("a reply")
    }

    /// The same, and how the handshake went.
    pub async fn send_and_tell(&self, request: &Request) -> (Reply, HandshakeKind) {
        let stream = self.connect(request.address()).await.expect("connected");
        let kind = stream.get_ref().1.handshake_kind().expect("a handshake");
        let reply = within("a reply", request.try_send_over(stream)).await;
        (reply.expect("a reply"), kind)
    }

    /// A GET by HTTP/2, agreed on by ALPN.
    pub async fn get_by_http2(&self, address: SocketAddr, path: &str, token: &str) -> Reply {
        let stream = self.connect(address).await.expect("connected");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let exchange = async {
            let io = TokioIo::new(stream);
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            let request = http::Request::get(format!("https://localhost{path}"))
                .header("authorization", format!("Bearer {token}"))
                .body(Empty::<bytes::Bytes>::new())?;
            let (head, body) = sender.send_request(request).await?.into_parts();
            assert_eq!(head.version, Version::HTTP_2);
            let body = body.collect().await?.to_bytes();
            Ok::<_, Error>(Reply {
                status: head.status.as_u16(),
                headers: head.headers,
                body,
            })
        };
        within("a reply", exchange).await.expect("a reply")
    }
}
