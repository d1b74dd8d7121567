//! The client certificate as a header field (RFC 9440), and the names by which others say it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderName, HeaderValue};

/// Carries the client's certificate to the upstream (RFC 9440 §2.2).
pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");

/// The value of `Client-Cert` for a certificate in DER: a byte sequence of RFC 9651 §3.3.5.
pub fn value(der: &[u8]) -> Option<HeaderValue> {
    HeaderValue::try_from(format!(":{}:", STANDARD.encode(der))).ok()
}

/// The fields of RFC 9440: the gateway alone says them.
pub(super) fn is_standard(name: &str) -> bool {
    matches!(name, "client-cert" | "client-cert-chain")
}

/// Fields by which a TLS terminator tells who its client is. The gateway ends TLS itself, so whoever
/// sends one makes it up; a trusted proxy, too, has no client certificate of ours to tell of.
pub(super) fn is_certificate(name: &str) -> bool {
    is_standard(name)
        || name == "x-forwarded-client-cert"
        || ["x-client-cert", "x-ssl-client-", "ssl-client-"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_a_byte_sequence() {
        let value = value(&[0xfb, 0xff, 0]).expect("a value");
        assert_eq!(value, ":+/8A:");
    }

    #[test]
    fn names() {
        for (name, expected) in [
            ("client-cert", true),
            ("client-cert-chain", true),
            ("x-forwarded-client-cert", true),
            ("x-client-cert", true),
            ("x-client-certificate", true),
            ("x-ssl-client-verify", true),
            ("ssl-client-cert", true),
            ("x-ssl-cipher", false),
            ("client-certainly", false),
            ("x-client", false),
        ] {
            assert_eq!(is_certificate(name), expected, "{name}");
        }
    }
}
