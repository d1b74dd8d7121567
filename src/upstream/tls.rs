//! TLS towards upstream servers: whom to trust, as whom to appear, and under which name.

use super::transport::Protocol;
use crate::outbound::{self, OutboundSetupError};
use aws_lc_rs::digest::{Context, SHA256};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::cell::LazyCell;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// TLS sessions that are remembered for each upstream, to be resumed.
const SESSIONS: usize = 256;

/// TLS settings of an upstream: `[upstream.*.tls]`, ready for use.
pub struct ClientTls {
    pub(super) config: Arc<ClientConfig>,
    /// Said and checked instead of the host of a server's URL.
    pub(super) name: Option<ServerName<'static>>,
    fingerprint: Fingerprint,
}

/// The settings as configured.
#[derive(Debug, Clone, Copy, Default)]
pub struct TlsFiles<'a> {
    /// Trusted instead of the system's roots.
    pub ca: Option<&'a Path>,
    /// The gateway's own certificate, with those between it and its root.
    pub certificate: Option<&'a Path>,
    /// Its private key.
    pub key: Option<&'a Path>,
    /// Said and checked instead of the host of a server's URL.
    pub server_name: Option<&'a str>,
}

/// The settings with what their files hold at one moment: certificates and the fingerprint are of the same bytes,
/// whatever becomes of the files meanwhile.
pub struct TlsContents<'a> {
    roots: Roots<'a>,
    certificate: Option<Content<'a>>,
    key: Option<Content<'a>>,
    server_name: Option<&'a str>,
}

/// The system's roots, read when they are first needed: once for all upstreams of a snapshot.
pub type SystemRoots = LazyCell<Arc<RootCertStore>>;

/// Whom to trust.
enum Roots<'a> {
    File(Content<'a>),
    System(Arc<RootCertStore>),
}

/// A file and what it holds.
struct Content<'a> {
    path: &'a Path,
    text: io::Result<Vec<u8>>,
}

/// Everything that TLS settings depend on, the contents of files included, in a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// Which key of `[upstream.*.tls]` is wrong, and how. Shows nothing of a file's content.
#[derive(Debug)]
pub struct TlsError {
    /// The key in the table.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: &'static str,
}

// === impl TlsFiles ===

impl<'a> TlsFiles<'a> {
    /// Reads each file once. One that cannot be read is a mistake when it is loaded.
    pub fn read(&self, system: &SystemRoots) -> TlsContents<'a> {
        let read = |path: &'a Path| Content {
            path,
            text: outbound::read_pem(path),
        };
        TlsContents {
            roots: match self.ca {
                Some(path) => Roots::File(read(path)),
                None => Roots::System(Arc::clone(system)),
            },
            certificate: self.certificate.map(read),
            key: self.key.map(read),
            server_name: self.server_name,
        }
    }
}

// === impl TlsContents ===

impl TlsContents<'_> {
    /// Says whether settings made earlier still stand. A file that cannot be read counts as changed.
    pub fn fingerprint(&self, protocol: Protocol) -> Fingerprint {
        let mut digest = Context::new(&SHA256);
        let mut part = |bytes: &[u8]| {
            digest.update(&(bytes.len() as u64).to_be_bytes());
            digest.update(bytes);
        };
        part(&[u8::from(protocol == Protocol::Http2)]);
        part(self.server_name.unwrap_or_default().as_bytes());
        let ca = match &self.roots {
            Roots::File(content) => Some(content),
            Roots::System(store) => {
                system_parts(store).for_each(&mut part);
                None
            }
        };
        for content in [ca, self.certificate.as_ref(), self.key.as_ref()] {
            let text = content.and_then(|it| it.text.as_deref().ok());
            part(&[u8::from(content.is_some())]);
            part(text.unwrap_or_default());
        }
        let mut fingerprint = [0; 32];
        let digest = digest.finish();
        for (to, from) in fingerprint.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        Fingerprint(fingerprint)
    }

    /// Makes settings of them.
    ///
    /// # Errors
    /// The first mistake in them.
    pub fn load(&self, protocol: Protocol) -> Result<ClientTls, TlsError> {
        let roots = match &self.roots {
            Roots::System(store) => Arc::clone(store),
            Roots::File(ca) => {
                let roots = outbound::roots_of(ca.path, ca.text("ca_file")?);
                Arc::new(roots.map_err(bad_roots)?)
            }
        };
        // Given explicitly, so that nothing depends on a process-wide default having been installed.
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError {
                key: "ca_file",
                message: format!("cannot set up TLS: {error}"),
                hint: "this is a fault of the gateway's build",
            })?
            .with_root_certificates(roots);
        let mut config = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                let (chain, key) = (read_chain(certificate)?, read_key(key)?);
                let made = builder.with_client_auth_cert(chain, key);
                made.map_err(|error| TlsError {
                    key: "key_file",
                    message: format!("certificate and key cannot be used: {error}"),
                    hint: "key_file has to hold the private key of the first certificate in cert_file",
                })?
            }
            (None, None) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(alone("cert_file", "set key_file as well")),
            (None, Some(_)) => return Err(alone("key_file", "set cert_file as well")),
        };
        config.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(ClientTls {
            config: Arc::new(config),
            name: self.server_name.map(server_name).transpose()?,
            fingerprint: self.fingerprint(protocol),
        })
    }
}

/// The system's roots to be [`SystemRoots`].
pub fn system_roots() -> SystemRoots {
    LazyCell::new(|| Arc::new(outbound::system_roots()))
}

/// What the system's roots differ by, in an order of its own: that of files in a folder says nothing.
fn system_parts(store: &RootCertStore) -> impl Iterator<Item = &[u8]> {
    let roots = store.roots.iter();
    let mut parts: Vec<[&[u8]; 3]> = roots
        .map(|root| {
            let constraints = root.name_constraints.as_deref();
            [
                &*root.subject,
                &*root.subject_public_key_info,
                constraints.unwrap_or_default(),
            ]
        })
        .collect();
    parts.sort_unstable();
    parts.into_iter().flatten()
}

fn alone(key: &'static str, hint: &'static str) -> TlsError {
    let message = "a client certificate needs cert_file and key_file".to_owned();
    TlsError { key, message, hint }
}

fn bad_roots(error: OutboundSetupError) -> TlsError {
    TlsError {
        key: "ca_file",
        message: error.to_string(),
        hint: "ca_file holds the certificates of the authorities that the servers' certificates come from",
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(text.to_owned()).map_err(|_| TlsError {
        key: "server_name",
        message: format!("{text:?} is neither a host name nor an address"),
        hint: "write a name that is in the servers' certificates, e.g. \"grants.internal\"",
    })
}

impl Content<'_> {
    fn text(&self, key: &'static str) -> Result<&[u8], TlsError> {
        self.text.as_deref().map_err(|error| TlsError {
            key,
            message: format!("cannot read {}: {error}", self.path.display()),
            hint: "a relative path begins at the gateway's working directory",
        })
    }
}

fn read_chain(file: &Content<'_>) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = file.text("cert_file")?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => {
            let hint = "it has to hold blocks that start with -----BEGIN CERTIFICATE-----";
            Err(no_pem("cert_file", file.path, "certificates", hint))
        }
    }
}

fn read_key(file: &Content<'_>) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = file.text("key_file")?;
    let hint = "it has to hold a block that starts with -----BEGIN PRIVATE KEY-----, not encrypted";
    PrivateKeyDer::from_pem_slice(text)
        .map_err(|_| no_pem("key_file", file.path, "a private key", hint))
}

fn no_pem(key: &'static str, path: &Path, what: &str, hint: &'static str) -> TlsError {
    let message = format!("{} is no PEM file with {what}", path.display());
    TlsError { key, message, hint }
}

// === impl ClientTls ===

impl ClientTls {
    /// What these settings were made of.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for ClientTls {
    /// Shows nothing of the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use std::cell::Cell;

    fn root(name: &str) -> CertificateDer<'static> {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.self_signed(&key).expect("a certificate").into()
    }

    fn store(roots: &[&CertificateDer<'static>]) -> Arc<RootCertStore> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add((*root).clone()).expect("a root");
        }
        Arc::new(store)
    }

    /// Renewed roots are other settings: connections under the old ones must not go on after a reload.
    #[test]
    fn roots_of_the_system_are_part_of_the_settings() {
        let (one, two) = (root("one"), root("two"));
        let print = |roots: &[&CertificateDer<'static>]| {
            let contents = TlsContents {
                roots: Roots::System(store(roots)),
                certificate: None,
                key: None,
                server_name: None,
            };
            contents.fingerprint(Protocol::Http1)
        };
        assert_eq!(print(&[&one, &two]), print(&[&two, &one]));
        assert_ne!(print(&[&one]), print(&[&two]));
        assert_ne!(print(&[&one]), print(&[&one, &two]));
        assert_ne!(print(&[]), print(&[&one]));
    }

    #[test]
    fn roots_of_the_system_are_read_once_and_only_if_needed() {
        thread_local! {
            static READ: Cell<usize> = const { Cell::new(0) };
        }
        let system = SystemRoots::new(|| {
            READ.set(READ.get() + 1);
            Arc::new(RootCertStore::empty())
        });
        let own = TlsFiles {
            ca: Some(Path::new("ca.pem")),
            ..TlsFiles::default()
        };
        own.read(&system);
        assert_eq!(READ.get(), 0);
        for _ in 0..3 {
            TlsFiles::default().read(&system);
        }
        assert_eq!(READ.get(), 1);
    }
}
