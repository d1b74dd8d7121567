//! What gateways have to remember beyond a request: the revoked tokens, today in the memory of this
//! process, and how often callers have asked, in Redis if there is one. Who asks is not to see where
//! it is kept.

mod denylist;
mod rate;
mod redis;
pub mod sealed;

pub use self::redis::{Away, Redis, Settings};
pub use denylist::{Denylist, Full, Revocation};
pub use rate::{RateKey, Taken};

use crate::identity::UnixSeconds;

/// The shared state. Writing may one day mean a round trip to other gateways; reading never does,
/// because every request reads.
#[derive(Debug, Default)]
pub struct SharedStore {
    denylist: Denylist,
}

// === impl SharedStore ===

impl SharedStore {
    /// State that lives and ends with this process.
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// Makes a revocation hold from the next request on.
    ///
    /// # Errors
    /// [`Full`] if there are too many; nothing that is revoked is ever forgotten to make room.
    pub async fn revoke(&self, revocation: Revocation, now: UnixSeconds) -> Result<(), Full> {
        self.denylist.add(revocation, now)
    }

    /// What is revoked, as this process knows it.
    pub fn denylist(&self) -> &Denylist {
        &self.denylist
    }
}
