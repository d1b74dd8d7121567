//! Certificates for tests.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Who signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key.
pub struct Issued {
    pub certificate: rcgen::Certificate,
    pub key: KeyPair,
}

// === impl Authority ===

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn der(&self) -> &rustls::pki_types::CertificateDer<'static> {
        self.0.der()
    }

    /// A certificate for `localhost`, with a key of its own.
    pub fn issue(&self) -> Issued {
        self.issue_until(u64::from(u32::MAX))
    }

    /// One that expires then, in seconds since 1970.
    pub fn issue_until(&self, not_after: u64) -> Issued {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(not_after);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Issued { certificate, key }
    }

    /// One that has expired an hour ago.
    pub fn issue_expired(&self) -> Issued {
        self.issue_until(now() - 3600)
    }
}

// === impl Issued ===

impl Issued {
    pub fn write(&self, cert_file: &Path, key_file: &Path) {
        std::fs::write(cert_file, self.certificate.pem()).expect("written");
        std::fs::write(key_file, self.key.serialize_pem()).expect("written");
    }

    /// `x5t#S256` (RFC 8705 §3.1), by another way than the gateway's.
    pub fn thumbprint(&self) -> String {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, self.certificate.der().as_ref());
        URL_SAFE_NO_PAD.encode(digest)
    }
}

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}
