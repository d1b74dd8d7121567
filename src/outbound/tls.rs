//! Whom the gateway trusts as a client: the system's roots, and the certificates of a `ca_file`.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::{ClientConfig, RootCertStore};

/// Files of certificates that are larger, in bytes, hold something else.
const LARGEST: u64 = 4 << 20;

/// Why no outbound client could be set up. `Display` names the file and the remedy.
#[derive(Debug)]
pub enum OutboundSetupError {
    /// `ca_file` cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// `ca_file` is no PEM, or holds no certificate.
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate in `ca_file` cannot serve as a trust anchor.
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// Which of its certificates, from 1.
        number: usize,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The TLS library refuses its settings.
    Tls(rustls::Error),
}

/// TLS settings for exchanges with issuers: TLS 1.2 and 1.3, no client certificate.
pub(super) fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, OutboundSetupError> {
    let mut roots = system_roots();
    if let Some(path) = ca_file {
        let text = read_pem(path).map_err(|source| OutboundSetupError::Unreadable {
            path: path.into(),
            source,
        })?;
        add_file(&mut roots, path, &text)?;
    }
    // Given explicitly, so that nothing depends on a process-wide default having been installed.
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(OutboundSetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Reads a file of certificates or keys. Limited, lest a device or a wrong path fills the memory.
///
/// # Errors
/// When it cannot be read, or is larger than 4 MiB.
pub fn read_pem(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let length = File::open(path)?.take(LARGEST + 1).read_to_end(&mut text)?;
    if length as u64 > LARGEST {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            "it is larger than any file of certificates",
        ));
    }
    Ok(text)
}

/// The roots of the PEM file `text` and no others. `path` is what errors call it.
///
/// # Errors
/// When it holds no usable certificate.
pub fn roots_of(path: &Path, text: &[u8]) -> Result<RootCertStore, OutboundSetupError> {
    let mut roots = RootCertStore::empty();
    add_file(&mut roots, path, text)?;
    Ok(roots)
}

/// The system's roots. A machine without any is no error: servers on loopback and those under a
/// `ca_file` need none, and all others fail with a cause that says so.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "cannot load some of the system's root certificates");
    }
    // Some systems ship roots that are malformed by today's rules; the others serve.
    let (_, unusable) = roots.add_parsable_certificates(found.certs);
    if unusable > 0 {
        tracing::debug!(unusable, "system root certificates left out");
    }
    if roots.is_empty() {
        tracing::warn!(
            "the system has no root certificates: only servers under a ca_file can be asked over https"
        );
    }
    roots
}

/// Adds every certificate of a PEM file; unlike the system's, each of these has to be usable.
fn add_file(roots: &mut RootCertStore, path: &Path, text: &[u8]) -> Result<(), OutboundSetupError> {
    let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.unwrap_or_default();
    if certificates.is_empty() {
        return Err(OutboundSetupError::NoCertificate { path: path.into() });
    }
    for (index, certificate) in certificates.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|source| OutboundSetupError::BadCertificate {
                path: path.into(),
                number: index + 1,
                source,
            })?;
    }
    Ok(())
}

impl fmt::Display for OutboundSetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "cannot read ca_file {}: {source}", path.display())
            }
            Self::NoCertificate { path } => write!(
                f,
                "ca_file {} is no PEM file with certificates; it has to hold blocks that start with -----BEGIN CERTIFICATE-----",
                path.display()
            ),
            Self::BadCertificate {
                path,
                number,
                source,
            } => write!(
                f,
                "certificate {number} in ca_file {} cannot be trusted: {source}",
                path.display()
            ),
            Self::Tls(source) => write!(f, "cannot set up TLS: {source}"),
        }
    }
}

impl std::error::Error for OutboundSetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::NoCertificate { .. } => None,
            Self::BadCertificate { source, .. } | Self::Tls(source) => Some(source),
        }
    }
}
