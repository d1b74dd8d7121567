//! The key that records are sealed with, and what is made of it.

use super::{Record, RecordId, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Bytes of a key.
const KEY: usize = 32;

/// Bytes of a nonce (NIST SP 800-38D §5.2.1.1). A sealed record begins with its own.
pub(super) const NONCE: usize = 12;

/// A key of 256 bits. It cannot be shown.
pub struct SealingKey([u8; KEY]);

/// What was written is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadKey {
    /// It is not standard base64 with its padding.
    NotBase64,
    /// It is another number of bytes than 32.
    Length(usize),
    /// All its bytes are the same: nobody has drawn it at random.
    NotRandom,
}

/// A nonce and what was sealed with it, as it is kept.
#[derive(Clone)]
pub(super) struct Sealed {
    version: Version,
    bytes: Arc<[u8]>,
}

// === impl BadKey ===

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBase64 => f.write_str("this is not base64"),
            Self::Length(bytes) => {
                write!(f, "this is {bytes} bytes in base64, and a key has {KEY}")
            }
            Self::NotRandom => f.write_str("all bytes of this key are the same"),
        }
    }
}

impl std::error::Error for BadKey {}

// === impl SealingKey ===

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(withheld)")
    }
}

impl SealingKey {
    /// A key that nobody else has.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn random() -> io::Result<Self> {
        let mut bytes = [0; KEY];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| io::Error::other("the system gives no random numbers"))?;
        Ok(Self(bytes))
    }

    /// Reads a key as `openssl rand -base64 32` writes it.
    ///
    /// # Errors
    /// See [`BadKey`].
    pub fn read(text: &str) -> Result<Self, BadKey> {
        let bytes = STANDARD.decode(text).map_err(|_| BadKey::NotBase64)?;
        let bytes: [u8; KEY] = bytes
            .try_into()
            .map_err(|bytes: Vec<u8>| BadKey::Length(bytes.len()))?;
        let [first, ..] = bytes;
        match bytes.iter().all(|byte| *byte == first) {
            true => Err(BadKey::NotRandom),
            false => Ok(Self(bytes)),
        }
    }

    /// Whether the two are one, in a time that does not depend on where they differ.
    pub fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }

    /// A key for one purpose: whoever has it learns nothing of this one or of others. Lengths count:
    /// `ab`, `c` is not `a`, `bc`.
    pub fn derive(&self, purpose: &[&[u8]]) -> Self {
        Self(self.mac(purpose))
    }

    /// HMAC-SHA-256 of some parts.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }

    /// `None` only if the system gives no random numbers.
    pub(super) fn seal(&self, id: RecordId, content: &[u8]) -> Option<Sealed> {
        let mut text = content.to_vec();
        let place = id.place();
        let nonce = self
            .of_record(id)?
            .seal_in_place_append_tag(Aad::from(place.as_bytes()), &mut text)
            .ok()?;
        let version = Version(*nonce.as_ref());
        let bytes = [&version.0[..], &text].concat();
        Some(Sealed {
            version,
            bytes: bytes.into(),
        })
    }

    /// `None` if it was not sealed with this key, for this place, as it is now.
    pub(super) fn open(&self, id: RecordId, sealed: &Sealed) -> Option<Record> {
        let (nonce, text) = sealed.bytes.split_first_chunk::<NONCE>()?;
        let mut text = text.to_vec();
        let place = id.place();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self
            .of_record(id)?
            .open_in_place(nonce, Aad::from(place.as_bytes()), &mut text)
            .ok()?;
        let length = opened.len();
        text.truncate(length);
        Some(Record {
            content: text,
            version: sealed.version,
        })
    }

    fn of_record(&self, id: RecordId) -> Option<RandomizedNonceKey> {
        let SealingKey(key) = self.derive(&[b"record", &id.0]);
        RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
    }
}

// === impl Sealed ===

impl Sealed {
    /// What was kept. `None` if it is too short to be anything.
    pub(super) fn of(bytes: Vec<u8>) -> Option<Self> {
        let (nonce, _) = bytes.split_first_chunk::<NONCE>()?;
        Some(Self {
            version: Version(*nonce),
            bytes: bytes.into(),
        })
    }

    pub(super) fn version(&self) -> Version {
        self.version
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
