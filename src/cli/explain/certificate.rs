//! The client certificate that a connection is said to be made with.

use super::question::Unusable;
use crate::config::ClientAuth;
use crate::headers::certificate;
use crate::identity::Thumbprint;
use crate::snapshot::Tls;
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use std::path::Path;

/// A client certificate as the gateway would know it after a handshake.
pub(super) struct Shown {
    /// What tokens are bound to it by.
    pub thumbprint: Thumbprint,
    /// What upstreams get, if they get it.
    pub header: Option<HeaderValue>,
}

// === impl Shown ===

impl Shown {
    /// Reads it, and checks it as the handshake does, but for the proof that the client has its key.
    ///
    /// # Errors
    /// If there is none in the file, or no client could get past the handshake with it.
    pub(super) fn read(path: &Path, tls: Option<&Tls>) -> Result<Self, Unusable> {
        let file = path.display();
        let unusable = |why: String| Err(Unusable(why));
        let Some(tls) = tls.filter(|tls| tls.client_auth().is_some()) else {
            return unusable(
                "--client-cert is of no use: no client is asked for a certificate unless [server.tls] has client_ca_file"
                    .to_owned(),
            );
        };
        let chain: Result<Vec<_>, _> = match CertificateDer::pem_file_iter(path) {
            Ok(certificates) => certificates.collect(),
            Err(error) => return unusable(format!("{file} cannot be read: {error}")),
        };
        let chain = chain.unwrap_or_default();
        let Some(leaf) = chain.first() else {
            return unusable(format!("there is no certificate in PEM in {file}"));
        };
        if let Err(error) = tls.would_accept(&chain) {
            return unusable(format!(
                "no connection could be made with the certificate in {file}: {error}"
            ));
        }
        let forwarded = tls.forward_client_cert.then(|| certificate::value(leaf));
        Ok(Self {
            thumbprint: Thumbprint::of(leaf),
            header: forwarded.flatten(),
        })
    }
}

/// What to say of the connection before the request.
pub(super) fn told(tls: &Tls, shown: Option<&Shown>) -> String {
    match (tls.client_auth(), shown) {
        (_, Some(shown)) => format!("client certificate {}", shown.thumbprint),
        (None, None) => "no client is asked for a certificate".to_owned(),
        (Some(ClientAuth::Optional), None) => {
            "without a client certificate; --client-cert gives one".to_owned()
        }
        (Some(ClientAuth::Required), None) => {
            "a client has to have a certificate to get this far; --client-cert says which"
                .to_owned()
        }
    }
}
