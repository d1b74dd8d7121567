//! Sealed records in this process: read without a lock, bounded, and never dropped to make room.

use super::key::Sealed;
use super::{Life, RecordId, SealedError, Version};
use crate::identity::UnixSeconds;
use papaya::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Between two looks for records that have run out, in seconds.
const SWEEP_INTERVAL: UnixSeconds = 60;

#[derive(Default)]
pub(super) struct Memory {
    records: HashMap<RecordId, Entry>,
    /// When it was last swept; held by writers alone.
    writing: Mutex<UnixSeconds>,
}

#[derive(Clone)]
struct Entry {
    sealed: Sealed,
    until: UnixSeconds,
}

impl Memory {
    pub(super) fn get(&self, id: &RecordId, now: UnixSeconds) -> Option<Sealed> {
        let records = self.records.pin();
        let entry = records.get(id).filter(|entry| now < entry.until)?;
        Some(entry.sealed.clone())
    }

    /// Whether one more may come.
    pub(super) fn has_room(&self, limit: usize, now: UnixSeconds) -> bool {
        self.records.len() < limit || {
            self.sweep(&mut self.writing(), now);
            self.records.len() < limit
        }
    }

    pub(super) fn put(
        &self,
        id: RecordId,
        sealed: Sealed,
        life: Life,
        limit: usize,
    ) -> Result<(), SealedError> {
        let mut swept = self.writing();
        // A clock that is set back sweeps as well.
        if life.now.abs_diff(*swept) >= SWEEP_INTERVAL.unsigned_abs() || self.records.len() >= limit
        {
            self.sweep(&mut swept, life.now);
        }
        let records = self.records.pin();
        if self.records.len() >= limit && !records.contains_key(&id) {
            return Err(SealedError::Full);
        }
        let until = life.end();
        records.insert(id, Entry { sealed, until });
        Ok(())
    }

    pub(super) fn replace(&self, id: &RecordId, seen: Version, sealed: Sealed, life: Life) -> bool {
        let _writing = self.writing();
        let records = self.records.pin();
        let is_seen = |entry: &&Entry| entry.sealed.version() == seen && life.now < entry.until;
        if records.get(id).filter(is_seen).is_none() {
            return false;
        }
        let until = life.end();
        records.insert(*id, Entry { sealed, until });
        true
    }

    pub(super) fn remove(&self, id: &RecordId) -> bool {
        let _writing = self.writing();
        self.records.pin().remove(id).is_some()
    }

    /// Drops what has run out; at most once a second, because it looks at everything.
    fn sweep(&self, swept: &mut UnixSeconds, now: UnixSeconds) {
        if *swept != now {
            *swept = now;
            self.records.pin().retain(|_, entry| now < entry.until);
        }
    }

    fn writing(&self) -> MutexGuard<'_, UnixSeconds> {
        // Nothing is ever half done.
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
