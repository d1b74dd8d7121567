//! `[server.tls]`

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Dur;

/// TLS towards clients. With this table every address of `listen` speaks TLS, and HTTP/2 or HTTP/1.1 as the client
/// asks for by ALPN; plain HTTP is answered 400. The files are read again on a reload and when their contents change:
/// new connections get the new certificate, open ones go on.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Required. A PEM file with the gateway's certificate, and behind it the ones up to the authority.
    pub cert_file: Option<PathBuf>,
    /// Required. A PEM file with the private key of the first certificate: PKCS#8, PKCS#1 or SEC 1, not encrypted.
    pub key_file: Option<PathBuf>,
    /// A PEM file of the authorities whose certificates clients show (mutual TLS). A token that is bound to a
    /// certificate (`cnf` with `x5t#S256`, RFC 8705) is accepted from a client that shows that very certificate.
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client without a certificate is turned away at the handshake; "required" if absent. Either needs
    /// `client_ca_file`.
    #[schemars(with = "ClientAuth")]
    pub client_auth: Option<ClientAuth>,
    /// Whether upstreams get the client's certificate in `Client-Cert` (RFC 9440). What clients send under that name,
    /// and under others that proxies use for it, is removed in any case.
    pub forward_client_cert: bool,
    /// For the whole handshake, from accepting the connection.
    pub handshake_timeout: Dur,
    /// The oldest version of TLS that is spoken.
    pub min_version: TlsVersion,
}

/// What is asked of clients without a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(
    missing_docs,
    reason = "the names say it, and documented variants make a longer schema"
)]
pub enum ClientAuth {
    Required,
    Optional,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the names say it, and documented variants make a longer schema"
)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    #[serde(rename = "1.3")]
    Tls13,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            cert_file: None,
            key_file: None,
            client_ca_file: None,
            client_auth: None,
            forward_client_cert: false,
            handshake_timeout: Dur::secs(10),
            min_version: TlsVersion::default(),
        }
    }
}

impl Tls {
    /// The files that it names: when one changes, what was made of them is out of date.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [&self.cert_file, &self.key_file, &self.client_ca_file];
        files.into_iter().filter_map(|file| file.as_deref())
    }
}
