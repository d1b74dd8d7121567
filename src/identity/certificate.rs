//! What client certificates are known by.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;

/// SHA-256 of a certificate in DER: the `x5t#S256` that binds a token to it (RFC 8705 §3.1).
#[derive(Clone, Copy)]
pub struct Thumbprint([u8; 32]);

// === impl Thumbprint ===

impl Thumbprint {
    /// That of a certificate in DER.
    pub fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Reads one as tokens have it: base64url without padding, 32 bytes. `None` if it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Whether both are of the same certificate. Takes the same time whatever they are.
    pub fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_read_as_it_is_written_and_in_no_other_way() {
        let one = Thumbprint::of(b"certificate");
        let text = one.to_string();
        assert_eq!(text.len(), 43);
        assert!(Thumbprint::parse(&text).is_some_and(|same| same.is(&one)));
        assert!(!Thumbprint::of(b"another").is(&one));
        let padded = format!("{text}=");
        let (short, long) = (&text[..42], format!("{text}A"));
        // The last character has two spare bits.
        let last = text.as_bytes()[42];
        let spare = format!("{short}{}", char::from(last + 1));
        for other in ["", " ", &padded, short, &long, &spare, "+/+/"] {
            assert!(Thumbprint::parse(other).is_none(), "{other}");
        }
    }
}
