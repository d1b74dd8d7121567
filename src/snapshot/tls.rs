//! `[server.tls]`: what handshakes with clients go by.

use super::certificates::{self, CertificateFile, Holds};
use super::compile::Env;
use crate::at;
use crate::config::{self, ClientAuth, KeyPath, Mistake, TlsVersion};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{Error, InconsistentKeys, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What may be spoken inside TLS, the better one first (RFC 7301).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// TLS towards clients.
#[derive(Debug)]
pub struct Tls {
    /// For handshakes; all workers share it.
    pub config: Arc<ServerConfig>,
    /// For a whole handshake.
    pub handshake_timeout: Duration,
    /// Whether upstreams get the client's certificate.
    pub forward_client_cert: bool,
    /// Judges client certificates, if any are asked for.
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

// === impl Tls ===

impl Tls {
    /// The client's own certificate out of the chain that its session has. No session is resumed where
    /// certificates are asked for; in one that is `resumed` all the same it is judged again.
    ///
    /// # Errors
    /// If the certificate does not hold now, or there is none and there has to be one.
    pub fn client<'c>(
        &self,
        chain: Option<&'c [CertificateDer<'static>]>,
        resumed: bool,
    ) -> Result<Option<&'c CertificateDer<'static>>, Error> {
        let Some(clients) = &self.clients else {
            return Ok(None);
        };
        let Some((leaf, rest)) = chain.and_then(<[_]>::split_first) else {
            return match clients.client_auth_mandatory() {
                true => Err(Error::NoCertificatesPresented),
                false => Ok(None),
            };
        };
        if resumed {
            clients.verify_client_cert(leaf, rest, UnixTime::now())?;
        }
        Ok(Some(leaf))
    }

    /// What is asked of clients: `None` if no certificate is.
    pub fn client_auth(&self) -> Option<ClientAuth> {
        let clients = self.clients.as_ref()?;
        Some(match clients.client_auth_mandatory() {
            true => ClientAuth::Required,
            false => ClientAuth::Optional,
        })
    }

    /// Whether a client with this chain would get past the handshake.
    ///
    /// # Errors
    /// Why not.
    pub fn would_accept(&self, chain: &[CertificateDer<'static>]) -> Result<(), Error> {
        self.client(Some(chain), true).map(drop)
    }
}

/// `None` if there is no such table, or a mistake in it. The files that it names go to `files`.
pub(super) fn build(
    server: &config::Server,
    env: &Env,
    files: &mut Vec<CertificateFile>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Tls> {
    let tls = server.tls.as_ref()?;
    let at = |key: &str| at!["server", "tls", key];
    if tls.handshake_timeout.is_zero() {
        let message = "a time of zero would refuse every handshake";
        mistakes.push(Mistake::value(at("handshake_timeout"), message));
    }
    for (key, given) in [
        ("client_auth", tls.client_auth.is_some()),
        ("forward_client_cert", tls.forward_client_cert),
    ] {
        if given && tls.client_ca_file.is_none() {
            let message =
                format!("{key} without client_ca_file: no client is asked for a certificate");
            let hint = "name the authorities of the clients in client_ca_file";
            mistakes.push(Mistake::value(at(key), message).hint(hint));
        }
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let own = own(tls, &provider, files, mistakes);
    let clients = match &tls.client_ca_file {
        None => None,
        Some(path) => {
            let auth = tls.client_auth.unwrap_or(ClientAuth::Required);
            Some(clients(
                path,
                at("client_ca_file"),
                auth,
                &provider,
                files,
                mistakes,
            )?)
        }
    };
    let config = config(own?, tls.min_version, clients.clone(), provider, env);
    match config {
        Ok(config) => Some(Tls {
            config: Arc::new(config),
            handshake_timeout: tls.handshake_timeout.get(),
            forward_client_cert: tls.forward_client_cert,
            clients,
        }),
        Err(error) => {
            let message = format!("TLS cannot be set up: {error}");
            mistakes.push(Mistake::key(at!["server", "tls"], message));
            None
        }
    }
}

fn config(
    own: CertifiedKey,
    min_version: TlsVersion,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
    env: &Env,
) -> Result<ServerConfig, Error> {
    let versions = match min_version {
        TlsVersion::Tls12 => rustls::ALL_VERSIONS,
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let mutual = clients.is_some();
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(own)));
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    if mutual {
        // A session keeps the certificate that it began with. A client that has a new one, or has to
        // show one now, would resume the old session again and again, and be turned away each time.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        return Ok(config);
    }
    // Sessions outlive a reload.
    let previous = env.previous.as_ref().and_then(|old| old.tls.as_ref());
    config.ticketer = match previous.filter(|previous| previous.clients.is_none()) {
        Some(previous) => Arc::clone(&previous.config.ticketer),
        None => aws_lc_rs::Ticketer::new()?,
    };
    Ok(config)
}

/// The gateway's own certificate and key.
fn own(
    tls: &config::Tls,
    provider: &CryptoProvider,
    files: &mut Vec<CertificateFile>,
    mistakes: &mut Vec<Mistake>,
) -> Option<CertifiedKey> {
    let at = |key: &str| at!["server", "tls", key];
    let mut required = |key: &str, path: &Option<std::path::PathBuf>| {
        if path.is_none() {
            mistakes.push(Mistake::missing(at(key)));
        }
        path.clone()
    };
    let cert_path = required("cert_file", &tls.cert_file);
    let key_path = required("key_file", &tls.key_file);
    let chain = cert_path
        .and_then(|path| CertificateFile::read(&path, at("cert_file"), Holds::Chain, mistakes));
    let key = key_path
        .as_ref()
        .and_then(|path| certificates::key(path, &at("key_file"), mistakes));
    let (chain, key, key_path) = (chain?, key?, key_path?);
    warn_if_open_to_all(&at("key_file"), &key_path);
    let certified = CertifiedKey::from_der(chain.certificates().to_vec(), key, provider);
    let (cert_shown, key_shown) = (chain.path.display(), key_path.display());
    let refuse =
        |key: &str, message: String, hint: &str| Mistake::value(at(key), message).hint(hint);
    match certified {
        Ok(certified) => {
            files.push(chain);
            Some(certified)
        }
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            mistakes.push(refuse(
                "key_file",
                format!(
                    "the key in {key_shown} is not that of the first certificate in {cert_shown}"
                ),
                "they have to be a pair; in cert_file the gateway's own certificate comes first",
            ));
            None
        }
        Err(Error::InvalidCertificate(_)) => {
            mistakes.push(refuse(
                "cert_file",
                format!("the first certificate in {cert_shown} cannot be used"),
                "it has to be an X.509 certificate of version 3",
            ));
            None
        }
        Err(_) => {
            mistakes.push(refuse(
                "key_file",
                format!("the key in {key_shown} cannot be used"),
                "it has to be an RSA key of 2048 bits or more, an ECDSA key on P-256, P-384 or P-521, or an Ed25519 key",
            ));
            None
        }
    }
}

/// Who judges client certificates.
fn clients(
    path: &Path,
    at: KeyPath,
    auth: ClientAuth,
    provider: &Arc<CryptoProvider>,
    files: &mut Vec<CertificateFile>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<dyn ClientCertVerifier>> {
    let file = CertificateFile::read(path, at.clone(), Holds::Authorities, mistakes)?;
    let mut roots = RootCertStore::empty();
    for (index, certificate) in file.certificates().iter().enumerate() {
        if let Err(error) = roots.add(certificate.clone()) {
            let number = index + 1;
            let message = format!(
                "certificate {number} in {} cannot be trusted: {error}",
                path.display()
            );
            mistakes.push(Mistake::value(at, message).hint("take it out of the file"));
            return None;
        }
    }
    files.push(file);
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    match builder.build() {
        Ok(clients) => Some(clients),
        Err(error) => {
            mistakes.push(Mistake::value(
                at,
                format!("{} cannot be used: {error}", path.display()),
            ));
            None
        }
    }
}

#[cfg(unix)]
pub(super) fn warn_if_open_to_all(at: &KeyPath, path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|metadata| metadata.permissions().mode());
    if mode.is_ok_and(|mode| mode & 0o004 != 0) {
        let path = path.display();
        tracing::warn!("{at}: {path} can be read by every user of this machine");
    }
}

#[cfg(not(unix))]
pub(super) fn warn_if_open_to_all(_: &KeyPath, _: &Path) {}
