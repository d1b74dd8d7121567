//! Reads a token without believing it: strict encoding, strict JSON, nothing verified.

use crate::identity::{Members, UnixSeconds};
use crate::rejection::{Reason, Rejection};
use crate::strict_json;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

/// Reads what a careless reader would.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

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

/// What a token is, to look at it.
pub enum Form<'t> {
    /// A JWT that is signed, taken apart.
    Signed(UnverifiedToken<'t>),
    /// A JWT that is encrypted (RFC 7516 §3.1); its `iss`, if the header repeats it (RFC 7519 §5.3).
    Encrypted(Option<Box<str>>),
    /// Nothing that tells anything.
    Opaque,
}

impl<'t> Form<'t> {
    /// Looks at a token that may be opaque. Whatever has the looks of a JWT is one, or is malformed:
    /// what was meant for one issuer must not be shown to another because somebody has bent it.
    ///
    /// # Errors
    /// [`Reason::MalformedToken`] if it is no `b64token` (RFC 6750 §2.1), and as
    /// [`UnverifiedToken::parse`] if it looks like a JWT.
    pub fn of(text: &'t str) -> Result<Self, Rejection> {
        if !is_b64token(text) {
            return Err(malformed("no b64token"));
        }
        let mut segments = text.split('.');
        let header = segments.next().and_then(any_object);
        let payload = segments.next().and_then(any_object);
        match (header, payload, segments.count()) {
            (None, None, _) => Ok(Self::Opaque),
            (Some(header), _, 3) => Ok(Self::Encrypted(match header.get("iss") {
                None => None,
                Some(Value::String(iss)) => Some(iss.as_str().into()),
                Some(_) => return Err(Rejection::noted(Reason::WrongIssuer, "iss is no string")),
            })),
            _ => UnverifiedToken::parse(text).map(Self::Signed),
        }
    }
}

/// RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
pub(crate) fn is_b64token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.bytes().all(plain)
}

/// A segment that some reader could take for a JSON object.
fn any_object(segment: &str) -> Option<serde_json::Map<String, Value>> {
    let bytes = LENIENT.decode(segment).ok()?;
    serde_json::from_slice(&bytes).ok()
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
