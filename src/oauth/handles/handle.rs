//! What clients hold in place of tokens: 256 random bits, where to look them up, and a tag by which
//! the gateway knows its own.
//!
//! `bgw_at_` or `bgw_rt_`, then base64url of family (16 bytes), secret (32) and tag (8). The tag is made
//! with a key of the surface. So text that was never given out costs no look-up, a handle belongs to one
//! surface, and one that is out of date is told from one that somebody has made up.

use crate::store::sealed::SealingKey;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io;

/// What every handle begins with, and no JWT.
const PREFIX: &str = "bgw_";

const FAMILY: usize = 16;
const SECRET: usize = 32;
const TAG: usize = 8;

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An access token.
    Access,
    /// A refresh token.
    Refresh,
}

/// The handles that descend from one grant, by the name that all of them carry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct FamilyName([u8; FAMILY]);

/// What is kept of a handle, or of a credential, to know it again: SHA-256 or an HMAC of it.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Digest(pub(super) [u8; 32]);

/// A handle that this surface has given out, at some time. What it is good for, the store knows.
#[derive(Clone, Copy)]
pub struct Handle {
    /// What it stands for.
    pub kind: Kind,
    pub(super) family: FamilyName,
    pub(super) digest: Digest,
}

/// A new handle, on its way to the client. Has no `Debug`.
pub(super) struct NewHandle {
    pub(super) text: String,
    pub(super) digest: Digest,
}

/// Whether this is meant to be a handle, whatever it is worth: then it is never taken for anything else.
#[must_use]
pub fn is_meant(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Whether a handle, or the beginning of one, is somewhere in this.
#[must_use]
pub fn is_within(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, PREFIX.as_bytes()).is_some()
}

// === impl Kind ===

impl Kind {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Access => "bgw_at_",
            Self::Refresh => "bgw_rt_",
        }
    }
}

// === impl FamilyName ===

impl FamilyName {
    pub(super) fn new() -> io::Result<Self> {
        random().map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

// === impl Digest ===

impl Digest {
    /// The digest of some text.
    pub(super) fn of(text: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        Self(bytes)
    }

    /// In a time that does not depend on where the two differ.
    pub(super) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

// === impl Handle ===

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:?})", self.kind)
    }
}

impl Handle {
    /// Reads a handle. `None` if it was not made with this key.
    pub(super) fn read(text: &str, key: &SealingKey) -> Option<Self> {
        let of = |kind: Kind| Some((kind, text.strip_prefix(kind.prefix())?));
        let (kind, code) = of(Kind::Access).or_else(|| of(Kind::Refresh))?;
        // This engine refuses spare bits: a handle can be written in one way only.
        let bytes = URL_SAFE_NO_PAD.decode(code).ok()?;
        let (family, rest) = bytes.split_first_chunk::<FAMILY>()?;
        let (secret, given) = rest.split_first_chunk::<SECRET>()?;
        verify_slices_are_equal(given, &tag(key, kind, family, secret)).ok()?;
        Some(Self {
            kind,
            family: FamilyName(*family),
            digest: Digest::of(text),
        })
    }
}

// === impl NewHandle ===

impl NewHandle {
    /// A handle that nobody can guess.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(super) fn new(kind: Kind, family: FamilyName, key: &SealingKey) -> io::Result<Self> {
        let secret: [u8; SECRET] = random()?;
        let tag = tag(key, kind, &family.0, &secret);
        let code = URL_SAFE_NO_PAD.encode([&family.0[..], &secret, &tag].concat());
        let text = format!("{}{code}", kind.prefix());
        let digest = Digest::of(&text);
        Ok(Self { text, digest })
    }
}

fn tag(key: &SealingKey, kind: Kind, family: &[u8], secret: &[u8]) -> [u8; TAG] {
    let [a, b, c, d, e, f, g, h, ..] = key.mac(&[kind.prefix().as_bytes(), family, secret]);
    [a, b, c, d, e, f, g, h]
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random numbers"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_known_by_who_made_it() {
        let [own, other] = [(); 2].map(|()| SealingKey::random().unwrap());
        let family = FamilyName::new().unwrap();
        for kind in [Kind::Access, Kind::Refresh] {
            let [one, two] = [(); 2].map(|()| NewHandle::new(kind, family, &own).unwrap());
            assert_ne!(one.text, two.text);
            assert_eq!(one.text.len(), 82);
            assert!(is_meant(&one.text) && is_within(one.text.as_bytes()));
            let read = Handle::read(&one.text, &own).unwrap();
            assert_eq!(read.kind, kind);
            assert!(read.family == family && read.digest.is(&one.digest));
            assert!(!read.digest.is(&two.digest));
            assert!(Handle::read(&one.text, &other).is_none());
            assert!(!format!("{read:?}").contains(&one.text[7..15]));
        }
    }

    #[test]
    fn what_is_no_handle() {
        let key = SealingKey::random().unwrap();
        let family = FamilyName::new().unwrap();
        let good = NewHandle::new(Kind::Access, family, &key).unwrap().text;
        let code = &good[7..];
        let mut bent = Vec::new();
        for at in 7..good.len() {
            let mut text = good.clone();
            let other = if &text[at..=at] == "A" { "B" } else { "A" };
            text.replace_range(at..=at, other);
            bent.push(text);
        }
        bent.extend([
            String::new(),
            "bgw_at_".to_owned(),
            code.to_owned(),
            format!("bgw_rt_{code}"),
            format!("BGW_AT_{code}"),
            format!("{good}A"),
            format!("{good}="),
            format!(" {good}"),
            good[..good.len() - 1].to_owned(),
        ]);
        for text in bent {
            assert!(Handle::read(&text, &key).is_none(), "{text}");
        }
        assert!(!is_meant("eyJhbGciOiJub25lIn0.e30."));
    }
}
