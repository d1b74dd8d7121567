//! Reads a token without believing it: strict encoding, strict JSON, nothing verified.

use crate::identity::{Members, UnixSeconds};
use crate::rejection::{Reason, Rejection};
use crate::strict_json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A JWS in compact serialisation (RFC 7515 §7.1), taken apart but not verified.
pub struct UnverifiedToken<'t> {
    /// What the signature covers: header, dot, payload, as they came.
    pub(super) signed: &'t str,
    /// The signature, decoded.
    pub(super) signature: Vec<u8>,
    pub(super) header: Members,
    /// Claims that nobody should read before the signature is checked.
    pub(super) claims: Members,
}

impl<'t> UnverifiedToken<'t> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// [`Reason::MalformedToken`] unless there are three non-empty segments of strict base64url
    /// without padding (RFC 7515 §2), header and payload are JSON objects without repeated members
    /// (RFC 7519 §4), and `alg` and `iss` are strings.
    pub fn parse(text: &'t str) -> Result<Self, Rejection> {
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| malformed("no dot"))?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| malformed("one dot"))?;
        if header.is_empty() || payload.is_empty() || signature.is_empty() || payload.contains('.')
        {
            return Err(malformed("not three segments"));
        }
        let header =
            object(header).ok_or_else(|| malformed("the header is no strict JSON object"))?;
        let signature = URL_SAFE_NO_PAD
            .decode(signature)
            .map_err(|_| malformed("the signature is no strict base64url"))?;
        let claims =
            object(payload).ok_or_else(|| malformed("the payload is no strict JSON object"))?;
        if !header.get("alg").is_some_and(Value::is_string) {
            return Err(malformed("alg is no string"));
        }
        if !matches!(header.get("kid"), None | Some(Value::String(_))) {
            return Err(malformed("kid is no string"));
        }
        if !claims.get("iss").is_some_and(Value::is_string) {
            return Err(Rejection::noted(Reason::WrongIssuer, "iss is no string"));
        }
        Ok(Self {
            signed,
            signature,
            header,
            claims,
        })
    }

    /// `iss`, to choose whose keys to check with.
    pub fn issuer(&self) -> &str {
        self.claims
            .get("iss")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// `exp`, to know how long to remember that the token is revoked. Nothing else may rely on it.
    pub fn expires_at(&self) -> Option<UnixSeconds> {
        self.claims.get("exp").and_then(Value::as_i64)
    }

    /// `kid`, to choose the key.
    pub fn key_id(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }
}

fn malformed(note: &'static str) -> Rejection {
    Rejection::noted(Reason::MalformedToken, note)
}

fn object(segment: &str) -> Option<Members> {
    // This engine refuses padding, other alphabets and spare bits.
    let bytes = URL_SAFE_NO_PAD.decode(segment).ok()?;
    strict_json::object(&bytes)
}
