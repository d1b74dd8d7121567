//! What a simulator remembers of the requests it got, in bounded memory.

use std::collections::VecDeque;
use std::fmt;

use http::request::Parts;
use http::{HeaderMap, HeaderName};

const MAX_RECORDS: usize = 1000;

/// A request that an echo API received. `Debug` shows no header values: they hold tokens.
#[derive(Clone)]
pub struct Recorded {
    /// The method.
    pub method: String,
    /// The raw request target: path and query.
    pub target: String,
    /// All header fields.
    pub headers: HeaderMap,
    /// Body bytes read so far; the bodies of `…/stream` and `…/bytes/N` are not counted.
    pub body_len: u64,
    /// Whether the body was read to its end.
    pub complete: bool,
}

/// The last requests.
#[derive(Default)]
pub(super) struct Log {
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Recorded>,
}

// === impl Log ===

impl Log {
    /// Adds a request and returns its number.
    pub(super) fn push(&mut self, parts: &Parts) -> u64 {
        if self.entries.len() == MAX_RECORDS {
            self.entries.pop_front();
            self.first += 1;
        }
        self.entries.push_back(Recorded {
            method: parts.method.to_string(),
            target: parts.uri.to_string(),
            headers: parts.headers.clone(),
            body_len: 0,
            complete: false,
        });
        self.first + self.entries.len() as u64 - 1
    }

    /// Changes a request's entry, if it is still there.
    pub(super) fn change(&mut self, number: u64, change: impl FnOnce(&mut Recorded)) {
        let index = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) {
            change(entry);
        }
    }

    /// All entries, oldest first.
    pub(super) fn entries(&self) -> Vec<Recorded> {
        self.entries.iter().cloned().collect()
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        // Numbers are never given twice: a request still in flight must not write into a later one's entry.
        self.first += self.entries.len() as u64;
        self.entries.clear();
    }
}

// === impl Recorded ===

impl fmt::Debug for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("Recorded")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &names)
            .field("body_len", &self.body_len)
            .field("complete", &self.complete)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten() {
        let mut log = Log::default();
        let (parts, ()) = http::Request::get("/x").body(()).unwrap().into_parts();
        let numbers: Vec<_> = (0..MAX_RECORDS + 5).map(|_| log.push(&parts)).collect();
        assert_eq!(log.entries.len(), MAX_RECORDS);
        log.change(numbers[0], |_| panic!("forgotten"));
        log.change(numbers[5], |entry| entry.body_len = 7);
        assert_eq!(log.entries()[0].body_len, 7);
        log.clear();
        log.change(numbers[MAX_RECORDS + 4], |_| panic!("forgotten"));
        assert!(log.entries().is_empty());
    }
}
