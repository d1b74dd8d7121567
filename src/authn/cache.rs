//! Tokens that have been verified, by digest, so that the same token costs no second signature
//! check. What is kept is a fact about the token, never a permission.

use super::Issuer;
use crate::identity::Identity;
use crate::keys::VerificationKey;
use crate::telemetry::metrics::TokenCacheMetrics;
use moka::sync::Cache;
use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

/// Bytes that all entries may hold together.
const MAX_BYTES: u64 = 64 << 20;

/// SHA-256 of a token: what is kept instead of the token itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// Takes a digest's first bytes for its hash: it is one already. Two tokens that share them only
/// share a bucket, and entries have to be verified tokens, so nobody fills one on purpose.
#[derive(Default)]
struct FirstBytes(u64);

/// A verified token: whose it is, and by which issuer's which key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The identity it proves.
    pub identity: Arc<Identity>,
    /// The issuer under whose rules it was verified.
    pub issuer: Arc<Issuer>,
    /// The key that verified it.
    pub key: Arc<VerificationKey>,
}

/// The cache of verified tokens, bounded by bytes.
pub struct VerifiedTokens {
    entries: Cache<Digest, Arc<Entry>, BuildHasherDefault<FirstBytes>>,
    metrics: TokenCacheMetrics,
}

// === impl Digest ===

impl Digest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref(),
        );
        Self(bytes)
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.0);
    }
}

// === impl FirstBytes ===

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

// === impl VerifiedTokens ===

impl fmt::Debug for VerifiedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedTokens")
            .field("entries", &self.entries.entry_count())
            .finish()
    }
}

impl VerifiedTokens {
    /// An empty cache.
    pub fn new(metrics: TokenCacheMetrics) -> Self {
        let entries = Cache::builder()
            .max_capacity(MAX_BYTES)
            .weigher(|_, entry: &Arc<Entry>| entry.identity.weight())
            .build_with_hasher(BuildHasherDefault::default());
        Self { entries, metrics }
    }

    /// The entry of a token. The caller checks that it still holds.
    pub fn get(&self, digest: &Digest) -> Option<Arc<Entry>> {
        self.entries.get(digest)
    }

    /// Remembers a verified token.
    pub fn insert(&self, digest: Digest, entry: Entry) {
        self.entries.insert(digest, Arc::new(entry));
    }

    pub(super) fn hit(&self) {
        self.metrics.hit.inc();
    }

    pub(super) fn miss(&self) {
        self.metrics.miss.inc();
    }
}
