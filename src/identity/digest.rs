//! What tokens are known by: their digest, and how maps by it hash.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

/// SHA-256 of a token: what is kept and compared instead of the token itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenDigest([u8; 32]);

/// How maps by [`TokenDigest`] hash: a digest is a good hash already, and is only mixed with a secret
/// of the map's own. Without it strangers could look for tokens that all fall into one bucket.
#[derive(Clone)]
pub struct DigestHasher([u64; 2]);

/// Mixes the first bytes of one digest.
#[derive(Clone)]
pub struct FirstBytes {
    secret: [u64; 2],
    hash: u64,
}

// === impl TokenDigest ===

impl TokenDigest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes()).as_ref(),
        );
        Self(bytes)
    }
}

impl From<[u8; 32]> for TokenDigest {
    /// A digest that was made elsewhere.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl AsRef<[u8]> for TokenDigest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Enough to tell two apart in a log, too little to look a token up by.
        let [a, b, ..] = self.0;
        write!(f, "TokenDigest({a:02x}{b:02x}…)")
    }
}

impl Hash for TokenDigest {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.0);
    }
}

// === impl DigestHasher ===

impl Default for DigestHasher {
    /// With a secret of its own.
    fn default() -> Self {
        let random = RandomState::new();
        Self([0, 1].map(|number: u64| random.hash_one(number)))
    }
}

impl fmt::Debug for DigestHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DigestHasher")
    }
}

impl BuildHasher for DigestHasher {
    type Hasher = FirstBytes;

    fn build_hasher(&self) -> FirstBytes {
        FirstBytes {
            secret: self.0,
            hash: 0,
        }
    }
}

// === impl FirstBytes ===

impl fmt::Debug for FirstBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FirstBytes")
    }
}

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        let (words, _) = bytes.as_chunks::<8>();
        if let [first, second, ..] = words {
            let [a, b] = self.secret;
            // The upper half of a product depends on all bits of both factors; added to the lower
            // one, it leaves none that can be foreseen.
            let product = u128::from(u64::from_le_bytes(*first) ^ a)
                * u128::from(u64::from_le_bytes(*second) ^ b);
            let [low, high] = [product, product >> 64].map(|half| half as u64);
            self.hash = low ^ high;
        }
    }

    fn finish(&self) -> u64 {
        self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Tokens whose digests begin alike are easy to look for, and spread all the same.
    #[test]
    fn digests_that_begin_or_end_alike_do_not_meet() {
        let similar: Vec<TokenDigest> = (0..256u16)
            .map(|n| {
                let mut bytes = [0; 32];
                bytes[7] = n.to_le_bytes()[0];
                TokenDigest(bytes)
            })
            .collect();
        let [one, other] = [DigestHasher::default(), DigestHasher::default()];
        let buckets = |hasher: &DigestHasher| -> Vec<u64> {
            let hashes = similar.iter().map(|digest| hasher.hash_one(digest));
            hashes.map(|hash| hash % 256).collect()
        };
        // One secret in some hundreds is a poor one for digests as alike as these.
        let distinct = |hasher: &DigestHasher| buckets(hasher).into_iter().collect::<HashSet<_>>();
        let secrets = (0..32).map(|_| DigestHasher::default());
        let all: usize = secrets.map(|hasher| distinct(&hasher).len()).sum();
        assert!(all > 100 * 32, "{all}");
        assert_ne!(
            buckets(&one),
            buckets(&other),
            "each map has its own secret"
        );
        assert_eq!(buckets(&one), buckets(&one.clone()));
    }
}
