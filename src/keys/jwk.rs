//! One JWK (RFC 7517 §4) as a verification key, or the reason why it is of no use. Every number in
//! it is looked at here or by the cryptographic library, once, before any token is.

use super::verifier::{Curve, Message, PublicKey, Verifiers};
use crate::identity::Members;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};
use std::fmt;

/// Longer key ids are refused: every token of the key would have to carry it.
const MAX_KID: usize = 1 << 10;

/// FIPS 186-5 §A.1.1 asks for no less. Larger than [`MAX_EXPONENT`] the library takes none, and
/// each of its bits costs every verification.
const MIN_EXPONENT: u64 = 65537;
const MAX_EXPONENT: u64 = (1 << 33) - 1;

/// Members that only private and symmetric keys have (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The points of Ed25519 whose order divides 8, the sign bit aside. With one of these as key, some
/// signature is good for every message, and the library does not say no.
const SMALL_ORDER: [[u8; 32]; 7] = [
    little_endian(0, 0),
    little_endian(1, 0),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    little_endian(0xec, 0xff),
    little_endian(0xed, 0xff),
    little_endian(0xee, 0xff),
];

/// One public key of an issuer, parsed and ready to verify with.
pub struct VerificationKey {
    kid: Option<Box<str>>,
    verifiers: Verifiers,
    /// The members that make it, and nothing else that the document said of it.
    jwk: Value,
}

/// What a key is made of: the members to keep, and its numbers.
struct Material {
    members: Map<String, Value>,
    verifiers: Verifiers,
}

// === impl VerificationKey ===

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kid = self.kid.as_deref().unwrap_or("without kid");
        write!(f, "key {kid} for {:?}", self.verifiers)
    }
}

impl VerificationKey {
    /// Reads a JWK and parses its key.
    ///
    /// # Errors
    /// One sentence for the log: why the key verifies no token.
    pub(super) fn read(jwk: &Members) -> Result<Self, String> {
        if PRIVATE.iter().any(|part| jwk.contains(part)) {
            return Err("it has private parts, which no one should publish".to_owned());
        }
        for_signatures(jwk)?;
        let kid = key_id(jwk)?;
        let algorithm = pinned_algorithm(jwk)?;
        let Material {
            mut members,
            verifiers,
        } = match text(jwk, "kty")? {
            "RSA" => rsa(jwk, algorithm)?,
            "EC" => elliptic(jwk, algorithm)?,
            "OKP" => edwards(jwk, algorithm)?,
            other => return Err(format!("key type `{}` verifies no token", printable(other))),
        };
        for name in ["kty", "kid", "alg"] {
            if let Some(value) = jwk.get(name) {
                members.insert(name.to_owned(), value.clone());
            }
        }
        Ok(Self {
            kid: kid.map(Into::into),
            verifiers,
            jwk: Value::Object(members),
        })
    }

    /// Its id.
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether a token of this algorithm may be checked with this key (RFC 8725 §3.1).
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifiers.serve(algorithm)
    }

    /// Whether `signature` is this key's over `message`. Never so for an algorithm that does not
    /// [fit](Self::fits).
    pub fn verify(&self, algorithm: Algorithm, message: &Message<'_>, signature: &[u8]) -> bool {
        self.verifiers.verify(algorithm, message, signature)
    }

    /// The key as a JWK: `kty`, `kid`, `alg` and its public numbers.
    pub fn jwk(&self) -> &Value {
        &self.jwk
    }

    /// Whether this is the same key under the same id and for the same algorithm.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

// === What a JWK says of its use ===

/// RFC 7517 §4.2 and §4.3: a key meant for something else is not taken.
fn for_signatures(jwk: &Members) -> Result<(), String> {
    match jwk.get("use") {
        None => {}
        Some(Value::String(usage)) if usage == "sig" => {}
        Some(_) => return Err("its use is not `sig`".to_owned()),
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations))
            if operations.iter().all(Value::is_string)
                && operations.iter().any(|operation| operation == "verify") =>
        {
            Ok(())
        }
        Some(_) => Err("its key_ops do not have `verify`".to_owned()),
    }
}

fn key_id(jwk: &Members) -> Result<Option<&str>, String> {
    match jwk.get("kid") {
        None => Ok(None),
        Some(Value::String(kid)) if kid.len() <= MAX_KID => Ok(Some(kid)),
        Some(Value::String(_)) => Err(format!("its kid is longer than {MAX_KID} bytes")),
        Some(_) => Err("its kid is no string".to_owned()),
    }
}

fn pinned_algorithm(jwk: &Members) -> Result<Option<Algorithm>, String> {
    match jwk.get("alg") {
        None => Ok(None),
        Some(Value::String(name)) => match name.parse() {
            Ok(algorithm) => Ok(Some(algorithm)),
            Err(_) => Err(format!("its alg `{}` is not supported", printable(name))),
        },
        Some(_) => Err("its alg is no string".to_owned()),
    }
}

// === The kinds of key ===

fn rsa(jwk: &Members, pinned: Option<Algorithm>) -> Result<Material, String> {
    let (n, e) = (bytes(jwk, "n")?, bytes(jwk, "e")?);
    if n.first() == Some(&0) || e.first() == Some(&0) {
        return Err("its n or e begins with a zero byte (RFC 7518 §6.3.1)".to_owned());
    }
    let spare = n.first().map_or(0, |byte| byte.leading_zeros() as usize);
    let bits = n.len() * 8 - spare;
    if !(2048..=8192).contains(&bits) {
        return Err(format!("its modulus has {bits} bits, not 2048 to 8192"));
    }
    if !is_odd(&n) {
        return Err("its modulus is even, so no product of two large primes".to_owned());
    }
    let sound = exponent(&e).is_some_and(|e| (MIN_EXPONENT..=MAX_EXPONENT).contains(&e));
    if !sound || !is_odd(&e) {
        return Err("its exponent is no odd number from 65537 to 2^33".to_owned());
    }
    Ok(Material {
        members: kept(jwk, &["n", "e"]),
        verifiers: Verifiers::parse(PublicKey::Rsa { n: &n, e: &e }, pinned)?,
    })
}

fn elliptic(jwk: &Members, pinned: Option<Algorithm>) -> Result<Material, String> {
    let (width, curve) = match text(jwk, "crv")? {
        "P-256" => (32, Curve::P256),
        "P-384" => (48, Curve::P384),
        other => return Err(format!("curve `{}` is not supported", printable(other))),
    };
    let (x, y) = (bytes(jwk, "x")?, bytes(jwk, "y")?);
    if x.len() != width || y.len() != width {
        return Err("its coordinates do not have the curve's width".to_owned());
    }
    // An uncompressed point: 4, x, y (SEC 1 §2.3.3).
    let point = &[[4].as_slice(), &x, &y].concat();
    Ok(Material {
        members: kept(jwk, &["crv", "x", "y"]),
        verifiers: Verifiers::parse(PublicKey::Elliptic { curve, point }, pinned)?,
    })
}

fn edwards(jwk: &Members, pinned: Option<Algorithm>) -> Result<Material, String> {
    let wrong = || "only Ed25519 keys of 32 bytes are supported".to_owned();
    if text(jwk, "crv")? != "Ed25519" {
        return Err(wrong());
    }
    let x: [u8; 32] = bytes(jwk, "x")?.try_into().map_err(|_| wrong())?;
    let mut unsigned = x;
    unsigned[31] &= 0x7f;
    if SMALL_ORDER.contains(&unsigned) {
        return Err("it is a point of small order: anyone could sign for it".to_owned());
    }
    if is_over_the_field(&unsigned) {
        return Err("its x is no number of the field (RFC 8032 §5.1.3)".to_owned());
    }
    Ok(Material {
        members: kept(jwk, &["crv", "x"]),
        verifiers: Verifiers::parse(PublicKey::Ed25519(&x), pinned)?,
    })
}

// === Members ===

fn kept(jwk: &Members, names: &[&str]) -> Map<String, Value> {
    let value = |name: &&str| Some(((*name).to_owned(), jwk.get(name)?.clone()));
    names.iter().filter_map(value).collect()
}

fn text<'j>(jwk: &'j Members, name: &str) -> Result<&'j str, String> {
    match jwk.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("its {name} is no string")),
        None => Err(format!("it has no `{name}`")),
    }
}

fn bytes(jwk: &Members, name: &str) -> Result<Vec<u8>, String> {
    URL_SAFE_NO_PAD
        .decode(text(jwk, name)?)
        .map_err(|_| format!("its {name} is not base64url"))
}

/// Whether a little-endian number is 2^255 - 19 or more: a second spelling of a smaller one.
fn is_over_the_field(number: &[u8; 32]) -> bool {
    let [low, middle @ .., high] = number;
    *high == 0x7f && middle.iter().all(|byte| *byte == 0xff) && *low >= 0xed
}

fn is_odd(number: &[u8]) -> bool {
    number.last().is_some_and(|byte| byte & 1 == 1)
}

/// A big-endian number of at most 8 bytes.
fn exponent(number: &[u8]) -> Option<u64> {
    let mut padded = [0; 8];
    let start = padded.len().checked_sub(number.len())?;
    padded.get_mut(start..)?.copy_from_slice(number);
    Some(u64::from_be_bytes(padded))
}

/// 32 bytes: the first, then `filling`, the sign bit clear.
const fn little_endian(first: u8, filling: u8) -> [u8; 32] {
    let mut bytes = [filling; 32];
    bytes[0] = first;
    bytes[31] &= 0x7f;
    bytes
}

/// At most a few printable characters of somebody else's text, for the log.
fn printable(text: &str) -> String {
    text.chars()
        .take(20)
        .filter(|c| c.is_ascii_graphic())
        .collect()
}
