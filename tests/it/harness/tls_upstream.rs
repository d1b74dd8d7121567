//! An upstream behind TLS, and the authority that its certificate comes from.

use super::local;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{HandshakeKind, RootCertStore, ServerConfig};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

/// An authority that signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Answers every request with `ok`, over what was agreed upon. Ends when dropped.
pub struct TlsUpstream {
    address: SocketAddr,
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    resumed: AtomicUsize,
    requests: AtomicUsize,
}

// === impl Authority ===

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a certificate"))
    }

    /// Writes its certificate.
    pub fn write(&self, folder: &Path, name: &str) {
        std::fs::write(folder.join(name), self.0.pem()).expect("written");
    }

    /// Writes a certificate and its key: `NAME.pem`, `NAME.key`.
    pub fn issue(&self, folder: &Path, name: &str) {
        let (certificate, key) = self.sign(name);
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("written");
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }

    fn sign(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate, key)
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a root");
        roots
    }
}

// === impl TlsUpstream ===

impl TlsUpstream {
    /// A server with a certificate for `name` that speaks these protocols (ALPN), and lets nobody in
    /// without a certificate of `clients`, if that is given.
    pub async fn start(
        authority: &Authority,
        name: &str,
        spoken: &[&[u8]],
        clients: Option<&Authority>,
    ) -> Self {
        let (certificate, key) = authority.sign(name);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(clients) => {
                let roots = Arc::new(clients.roots());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let mut config = builder
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("a certificate");
        config.alpn_protocols = spoken.iter().map(|name| name.to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(local()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        let task = tokio::spawn(async move {
            let mut serving = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                serving.spawn(serve(stream, acceptor.clone(), Arc::clone(&counted)));
            }
        });
        Self {
            address,
            counts,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Handshakes that succeeded.
    pub fn connections(&self) -> usize {
        self.counts.connections.load(Relaxed)
    }

    /// Those of them that resumed a session.
    pub fn resumed(&self) -> usize {
        self.counts.resumed.load(Relaxed)
    }

    pub fn requests(&self) -> usize {
        self.counts.requests.load(Relaxed)
    }
}

impl Drop for TlsUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, counts: Arc<Counts>) {
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let session = stream.get_ref().1;
    counts.connections.fetch_add(1, Relaxed);
    if session.handshake_kind() == Some(HandshakeKind::Resumed) {
        counts.resumed.fetch_add(1, Relaxed);
    }
    let http2 = session.alpn_protocol() == Some(b"h2");
    let service = service_fn(move |request: Request<Incoming>| {
        counts.requests.fetch_add(1, Relaxed);
        let mut response =
            Response::builder().header("x-version", format!("{:?}", request.version()));
        if request.uri().path().ends_with("/close") {
            response = response.header("connection", "close");
        }
        let response = response.body(Full::new(Bytes::from_static(b"ok")));
        std::future::ready(Ok::<_, Infallible>(response.expect("a response")))
    });
    let io = TokioIo::new(stream);
    // A client that goes away is no failure of the test's.
    let _ = match http2 {
        true => {
            http2::Builder::new(TokioExecutor::new())
                .serve_connection(io, service)
                .await
        }
        false => http1::Builder::new().serve_connection(io, service).await,
    };
}
