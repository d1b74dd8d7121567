//! `[upstream.NAME]` as far as it is about connections: version of HTTP, TLS, retries.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Percent;

/// The version of HTTP that an upstream is spoken to in.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Deserialize,
    Serialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2: over TLS by ALPN, over cleartext by prior knowledge.
    Http2,
}

/// When a request is sent once more, to another server if there is one. Only what does no harm is: a
/// request of which nothing was sent, or an idempotent one (RFC 9110 §9.2.2) whose body is no longer than
/// 64 KiB, as long as the client has got nothing. A POST never reaches two servers.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Attempts in all; 1: none is repeated.
    pub attempts: u32,
    /// How many retries there may be, as a share of the requests: a failing upstream gets no more than them and this.
    pub budget: Percent,
    /// What is worth another attempt: "connect" (no connection), "reset" (it ended before the response), or a status.
    pub on: Vec<RetryOn>,
}

/// A fault after which a request may be sent once more.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum RetryOn {
    /// No connection could be made.
    #[serde(rename = "connect")]
    Connect,
    /// The connection ended before the head of a response.
    #[serde(rename = "reset")]
    Reset,
    /// 502 Bad Gateway.
    #[serde(rename = "502")]
    BadGateway,
    /// 503 Service Unavailable.
    #[serde(rename = "503")]
    Unavailable,
    /// 504 Gateway Timeout.
    #[serde(rename = "504")]
    GatewayTimeout,
}

/// TLS towards servers whose URL begins with `https://`. Files are read again on every reload.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// A PEM file with the certificates of the authorities that are trusted. Default: the system's.
    pub ca_file: Option<PathBuf>,
    /// A PEM file with the certificate that the gateway shows to the servers, and those between it and its root.
    pub cert_file: Option<PathBuf>,
    /// A PEM file with its private key.
    pub key_file: Option<PathBuf>,
    /// The name that the servers' certificates are for. Default: the host of the URL.
    pub server_name: Option<String>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            budget: Percent(20.0),
            on: vec![RetryOn::Connect, RetryOn::Reset],
        }
    }
}
