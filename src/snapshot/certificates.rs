//! Files of certificates and keys: read, judged, and known by their contents.

use crate::config::{KeyPath, Mistake};
use crate::identity::UnixSeconds;
use crate::outbound;
use crate::steps;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// With less life left than this, a certificate is warned of.
const WARNED: UnixSeconds = 14 * 86_400;

/// A file of certificates that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    /// The key of the configuration that names it.
    pub at: KeyPath,
    /// The file, as it is named there.
    pub path: PathBuf,
    /// When it begins to hold.
    pub not_before: UnixSeconds,
    /// When it expires. Of several authorities, when the first does.
    pub not_after: UnixSeconds,
    /// The certificates, to tell a renewed one.
    certificates: Vec<CertificateDer<'static>>,
}

/// Whose times those of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// The first certificate; those behind it lead up to its authority.
    Chain,
    /// Each for itself.
    Authorities,
}

// === impl CertificateFile ===

impl CertificateFile {
    /// Reads a file; `None` if that is a mistake.
    pub(super) fn read(
        path: &Path,
        at: KeyPath,
        holds: Holds,
        mistakes: &mut Vec<Mistake>,
    ) -> Option<Self> {
        let text = read(path, &at, mistakes)?;
        let shown = path.display();
        let mut refuse = |message: String, hint: &str| {
            mistakes.push(Mistake::value(at.clone(), message).hint(hint));
        };
        let found: Result<Vec<CertificateDer<'static>>, pem::Error> =
            CertificateDer::pem_slice_iter(&text).collect();
        let Ok(certificates) = found else {
            refuse(
                format!("{shown} is no whole PEM file"),
                "a block is cut short, or holds something else than base64",
            );
            return None;
        };
        let mut times = Vec::new();
        for (index, certificate) in certificates.iter().enumerate() {
            let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
                refuse(
                    format!("certificate {} in {shown} cannot be read", index + 1),
                    "it has to be an X.509 certificate",
                );
                return None;
            };
            let validity = parsed.validity();
            times.push((
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            ));
        }
        let decisive = match holds {
            Holds::Chain => times.first(),
            Holds::Authorities => times.iter().min_by_key(|(_, not_after)| *not_after),
        };
        let Some((not_before, not_after)) = decisive.copied() else {
            refuse(
                format!("there is no certificate in {shown}"),
                "it has to hold PEM blocks that begin with -----BEGIN CERTIFICATE-----",
            );
            return None;
        };
        Some(Self {
            at,
            path: path.to_owned(),
            not_before,
            not_after,
            certificates,
        })
    }

    /// The certificates, in the order of the file; at least one.
    pub(super) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// What about its times deserves a warning, in one line.
    pub fn warning(&self, now: UnixSeconds) -> Option<String> {
        let what = format!("{}: a certificate in {}", self.at, self.path.display());
        let ends = steps::moment(self.not_after, now);
        if now >= self.not_after {
            Some(format!("{what} has expired: {ends}"))
        } else if now < self.not_before {
            let begins = steps::moment(self.not_before, now);
            Some(format!("{what} does not hold yet: from {begins} on"))
        } else if self.not_after - now < WARNED {
            Some(format!("{what} expires soon: {ends}"))
        } else {
            None
        }
    }
}

/// Reads a private key; `None` if that is a mistake.
pub(super) fn key(
    path: &Path,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<PrivateKeyDer<'static>> {
    let text = read(path, at, mistakes)?;
    let found = PrivateKeyDer::from_pem_slice(&text);
    if found.is_err() {
        // The error may quote the file, and this file is a secret.
        let encrypted = text.windows(9).any(|window| window == b"ENCRYPTED");
        let hint = match encrypted {
            true => {
                "the key is encrypted; decrypt it with `openssl pkey`, and let only the gateway read the file"
            }
            false => "it has to hold a PEM block that begins with -----BEGIN PRIVATE KEY-----",
        };
        let message = format!(
            "there is no private key in {} that can be used",
            path.display()
        );
        mistakes.push(Mistake::value(at.clone(), message).hint(hint));
    }
    found.ok()
}

fn read(path: &Path, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Option<Vec<u8>> {
    match outbound::read_pem(path) {
        Ok(text) => Some(text),
        Err(error) => {
            let message = format!("{} cannot be read: {error}", path.display());
            let hint = "the path is relative to the gateway's working directory; its user must be able to read the file";
            mistakes.push(Mistake::value(at.clone(), message).hint(hint));
            None
        }
    }
}
