//! Records that only gateways with the right key can read: sealed before they are kept, wherever that
//! is. Who looks at the memory of Redis sees when a record was written and how long it is, and nothing
//! else.
//!
//! A record is known by a digest, and the place where it lies is part of what is sealed: one that was
//! moved, cut or changed does not open. Each has a key of its own, so that random nonces never run out.

mod key;
mod memory;
mod redis;

pub use key::{BadKey, SealingKey};

use super::redis::Redis;
use crate::identity::UnixSeconds;
use crate::telemetry::metrics::{Metrics, StoreMetrics};
use aws_lc_rs::digest::{Context, SHA256};
use key::Sealed;
use memory::Memory;
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// No record is kept for longer, in seconds: ten years, whatever an issuer says of its tokens.
const LONGEST: UnixSeconds = 10 * 366 * 24 * 3600;

/// Where names in Redis begin. A change of what is kept below them needs another number.
const PREFIX: &str = "bonterra-gateway:sealed:1:";

/// What a record is known by: a digest, so that its name tells nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordId([u8; 32]);

/// Which writing of a record this is: no two have the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Version([u8; key::NONCE]);

/// A record that has been opened. Has no `Debug`: it holds secrets.
pub struct Record {
    /// What was sealed.
    pub content: Vec<u8>,
    /// Which writing of it this is.
    pub version: Version,
}

/// How long a record is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The present.
    pub now: UnixSeconds,
    /// Seconds from now; at least one is kept, and ten years at most.
    pub seconds: UnixSeconds,
}

/// Why a record cannot be kept or read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealedError {
    /// Redis does not answer. A writing may have taken effect all the same.
    Away,
    /// There are as many as may be; none that is in use is dropped to make room.
    Full,
    /// It is there and does not open: another key sealed it, or somebody has changed it.
    Unreadable,
}

/// Sealed records, in the memory of this process or in Redis.
pub struct SealedStore {
    key: SealingKey,
    place: Place,
}

enum Place {
    Memory(Memory),
    Redis(Arc<Redis>, StoreMetrics),
}

// === impl RecordId ===

impl RecordId {
    /// The record of this kind and name.
    pub fn of(kind: &str, name: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in [kind.as_bytes(), name] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.finish().as_ref());
        Self(bytes)
    }

    /// Its name in Redis, which is sealed with it.
    fn place(self) -> String {
        let mut name = String::with_capacity(PREFIX.len() + 64);
        name.push_str(PREFIX);
        for byte in self.0 {
            // Writing to a String cannot fail.
            let _ = write!(name, "{byte:02x}");
        }
        name
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, ..] = self.0;
        write!(f, "RecordId({a:02x}{b:02x}…)")
    }
}

// === impl Life ===

impl Life {
    fn end(self) -> UnixSeconds {
        self.now.saturating_add(self.kept())
    }

    fn milliseconds(self) -> i64 {
        self.kept().saturating_mul(1000)
    }

    fn kept(self) -> UnixSeconds {
        self.seconds.clamp(1, LONGEST)
    }
}

// === impl SealedStore ===

impl fmt::Debug for SealedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match &self.place {
            Place::Memory(_) => "memory",
            Place::Redis(..) => "Redis",
        };
        f.debug_struct("SealedStore")
            .field("place", &place)
            .finish_non_exhaustive()
    }
}

impl SealedStore {
    /// Records that end with this process.
    pub fn in_memory(key: SealingKey) -> Self {
        let place = Place::Memory(Memory::default());
        Self { key, place }
    }

    /// Records that gateways share.
    pub fn in_redis(key: SealingKey, redis: Arc<Redis>, metrics: &Metrics) -> Self {
        let place = Place::Redis(redis, metrics.store("handles"));
        Self { key, place }
    }

    /// Whether these are the records in that Redis; without one, those in memory.
    pub fn is_in(&self, redis: Option<&Arc<Redis>>) -> bool {
        match (&self.place, redis) {
            (Place::Memory(_), None) => true,
            (Place::Redis(own, _), Some(other)) => Arc::ptr_eq(own, other),
            (Place::Memory(_), Some(_)) | (Place::Redis(..), None) => false,
        }
    }

    /// Whether a new record could be put there now, as far as one can tell without trying.
    ///
    /// # Errors
    /// [`SealedError::Away`], or [`SealedError::Full`] if there are `limit` of them in memory.
    pub fn ready(&self, limit: usize, now: UnixSeconds) -> Result<(), SealedError> {
        match &self.place {
            Place::Memory(memory) if memory.has_room(limit, now) => Ok(()),
            Place::Memory(_) => Err(SealedError::Full),
            Place::Redis(redis, _) if redis.answers() => Ok(()),
            Place::Redis(..) => Err(SealedError::Away),
        }
    }

    /// The record, if it is there.
    ///
    /// # Errors
    /// [`SealedError::Away`] or [`SealedError::Unreadable`].
    pub async fn get(&self, id: RecordId, now: UnixSeconds) -> Result<Option<Record>, SealedError> {
        let sealed = match &self.place {
            Place::Memory(memory) => memory.get(&id, now),
            Place::Redis(redis, metrics) => redis::get(redis, metrics, id.place()).await?,
        };
        let Some(sealed) = sealed else {
            return Ok(None);
        };
        let opened = self.key.open(id, &sealed).ok_or(SealedError::Unreadable)?;
        Ok(Some(opened))
    }

    /// Keeps a record, in place of one that may be there. `limit` is how many there may be in memory.
    ///
    /// # Errors
    /// [`SealedError::Away`] or [`SealedError::Full`].
    pub async fn put(
        &self,
        id: RecordId,
        content: &[u8],
        life: Life,
        limit: usize,
    ) -> Result<(), SealedError> {
        let sealed = self.seal(id, content)?;
        match &self.place {
            Place::Memory(memory) => memory.put(id, sealed, life, limit),
            Place::Redis(redis, metrics) => {
                redis::put(redis, metrics, id.place(), sealed, life).await
            }
        }
    }

    /// Puts a record in place of the writing that was `seen`; whether it was still there. In one step:
    /// of two who try, one succeeds. Returns the new version.
    ///
    /// # Errors
    /// [`SealedError::Away`]: then it may have been written or not.
    pub async fn replace(
        &self,
        id: RecordId,
        seen: Version,
        content: &[u8],
        life: Life,
    ) -> Result<Option<Version>, SealedError> {
        let sealed = self.seal(id, content)?;
        let version = sealed.version();
        let done = match &self.place {
            Place::Memory(memory) => memory.replace(&id, seen, sealed, life),
            Place::Redis(redis, metrics) => {
                redis::replace(redis, metrics, id.place(), seen, sealed, life).await?
            }
        };
        Ok(done.then_some(version))
    }

    /// Takes a record away; whether it was there.
    ///
    /// # Errors
    /// [`SealedError::Away`].
    pub async fn remove(&self, id: RecordId) -> Result<bool, SealedError> {
        match &self.place {
            Place::Memory(memory) => Ok(memory.remove(&id)),
            Place::Redis(redis, metrics) => redis::remove(redis, metrics, id.place()).await,
        }
    }

    fn seal(&self, id: RecordId, content: &[u8]) -> Result<Sealed, SealedError> {
        // It fails only if the system gives no random numbers: then nothing can be kept.
        self.key.seal(id, content).ok_or(SealedError::Away)
    }
}

#[cfg(test)]
mod tests;
