//! TLS and mutual TLS with clients: handshakes, client certificates and the tokens bound to them,
//! and certificates that are renewed while the gateway runs.

mod authority;
mod client;
mod handshakes;
mod mutual;
mod renewal;
mod slow_readers;

use crate::harness::{CONFIG, World};
use authority::{Authority, Issued};
use client::TlsClient;
use std::path::PathBuf;
use tempfile::TempDir;

/// A world whose gateway speaks TLS, with the authority of its certificate and that of its clients.
struct Site {
    world: World,
    authority: Authority,
    clients: Authority,
    folder: TempDir,
}

// === impl Site ===

impl Site {
    /// With these lines in `[server.tls]`; `CLIENTS` stands for the file of the clients' authority.
    async fn start(lines: &str) -> Self {
        Self::with(CONFIG, lines).await
    }

    /// The same with another configuration around it.
    async fn with(config: &str, lines: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let file = |name: &str| folder.path().join(name);
        authority.issue().write(&file("tls.crt"), &file("tls.key"));
        std::fs::write(file("clients.pem"), clients.pem()).expect("written");
        let shown = |name: &str| format!("\"{}\"", file(name).display());
        let config = format!(
            "{config}\n[server.tls]\ncert_file = {}\nkey_file = {}\n{lines}\n",
            shown("tls.crt"),
            shown("tls.key"),
        );
        let config = config.replace("CLIENTS", &shown("clients.pem"));
        Self {
            world: World::with(&config).await,
            authority,
            clients,
            folder,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client that trusts the gateway's authority.
    fn client(&self) -> TlsClient {
        TlsClient::trusting(&self.authority)
    }

    /// A client with a certificate.
    fn client_with(&self, certificate: &Issued) -> TlsClient {
        self.client().showing(certificate)
    }

    async fn handshakes(&self, result: &str) -> f64 {
        let series = format!("gateway_tls_handshakes_total{{result=\"{result}\"}}");
        self.world.gateway.metric(&series).await
    }
}
