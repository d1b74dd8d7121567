//! One question to Redis about revocations: gives some, and is told those that are new. One script,
//! one round trip.

use super::denylist::{KEPT_LONGER, MAX_ENTRIES};
use super::entry::Entry;
use super::redis::{Failure, PATIENCE, Redis};
use crate::identity::{UnixSeconds, unix_now};
use redis::aio::ConnectionManager;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::LazyLock;
use std::time::Duration;

/// Where they are. A change of what is kept there needs another number; what is in the braces keeps
/// the keys together where Redis is split.
const KEYS: [&str; 4] = [
    "bonterra-gateway:{revoked}:1:about",
    "bonterra-gateway:{revoked}:1:order",
    "bonterra-gateway:{revoked}:1:ends",
    "bonterra-gateway:{revoked}:1:values",
];

static SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("exchange.lua")));

/// Up to where somebody has read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Another one begins with nothing.
    pub generation: Vec<u8>,
    /// The number of the last entry.
    pub upto: u64,
}

/// What Redis says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Up to where it has told.
    pub position: Position,
    /// The number of the last entry that there is.
    pub last: u64,
    /// Given, and not kept, because there are too many.
    pub left: u64,
    /// New ones, or what is said anew of old ones.
    pub entries: Vec<Entry>,
    /// Of those told, how many are no entries.
    pub garbage: usize,
}

/// Generation, last, up to where, left, and members and values by turns.
type Raw = (Vec<u8>, u64, u64, u64, Vec<Vec<u8>>);

/// Gives Redis `entries`, and has it tell at most `page` that came after `from`. Redis forgets what has
/// run out both by its own clock and by `now`.
///
/// # Errors
/// There is no answer within `wait`, or none of use.
pub(super) async fn exchange(
    redis: &Redis,
    wait: Duration,
    now: UnixSeconds,
    from: &Position,
    page: usize,
    entries: &[Entry],
) -> Result<Reply, Failure> {
    let mut arguments: Vec<Vec<u8>> = vec![
        generation().into_bytes(),
        from.generation.clone(),
        from.upto.to_string().into_bytes(),
        page.to_string().into_bytes(),
        MAX_ENTRIES.to_string().into_bytes(),
        KEPT_LONGER.to_string().into_bytes(),
        now.to_string().into_bytes(),
    ];
    for entry in entries {
        let written = entry.write();
        let issued_until = written.issued_until.map(|at| at.to_string());
        arguments.extend([
            written.member.into_bytes(),
            written.until.to_string().into_bytes(),
            issued_until.unwrap_or_default().into_bytes(),
        ]);
    }
    let ask = move |mut connection: ConnectionManager| async move {
        let mut call = SCRIPT.prepare_invoke();
        for key in KEYS {
            call.key(key);
        }
        for argument in arguments {
            call.arg(argument);
        }
        call.invoke_async::<Raw>(&mut connection).await
    };
    redis
        .ask(&redis.revocation, wait, ask)
        .await
        .map(Reply::from)
}

// === impl Redis ===

impl Redis {
    /// Asks whether revocations can be shared by it. What has been revoked so far stays there.
    ///
    /// # Errors
    /// In words, why they cannot.
    pub async fn check(&self) -> Result<(), String> {
        let now = unix_now();
        let asked = exchange(self, PATIENCE, now, &Position::default(), 0, &[]).await;
        asked.map(drop).map_err(|failure| failure.to_string())
    }
}

/// Told apart from all others.
fn generation() -> String {
    let random = RandomState::new();
    let [a, b] = [0, 1].map(|number: u64| random.hash_one(number));
    format!("{a:016x}{b:016x}")
}

// === impl Reply ===

impl From<Raw> for Reply {
    fn from((generation, last, upto, left, told): Raw) -> Self {
        let (pairs, odd) = told.as_chunks::<2>();
        let read = |[member, value]: &[Vec<u8>; 2]| Entry::read(member, value);
        let entries: Vec<Entry> = pairs.iter().filter_map(read).collect();
        Self {
            position: Position { generation, upto },
            last,
            left,
            garbage: pairs.len() - entries.len() + odd.len(),
            entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::What;
    use super::*;
    use crate::identity::TokenDigest;

    #[test]
    fn what_cannot_be_read_is_counted_and_left_aside() {
        let entry = Entry {
            what: What::Id,
            digest: TokenDigest::of("x"),
            until: 5,
        };
        let member = entry.write().member.into_bytes();
        let good = [member.clone(), b"5:".to_vec()];
        let bad = [member, b"x".to_vec()];
        for (told, entries, garbage) in [
            (vec![], 0, 0),
            (good.to_vec(), 1, 0),
            ([good.clone(), bad.clone()].concat(), 1, 1),
            (
                [&bad[..], &good[..], &[vec![], vec![]], &[b"odd".to_vec()]].concat(),
                1,
                3,
            ),
        ] {
            let reply = Reply::from((b"g".to_vec(), 9, 7, 2, told));
            assert_eq!((reply.entries.len(), reply.garbage), (entries, garbage));
            assert!(reply.entries.iter().all(|read| *read == entry));
            assert_eq!((reply.last, reply.position.upto, reply.left), (9, 7, 2));
        }
    }

    #[test]
    fn generations_differ() {
        assert_ne!(generation(), generation());
    }
}
