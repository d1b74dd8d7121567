//! What is known at the door, over all workers: how many come from each address, how many are being
//! turned away, and whether anybody can come in at all.

use super::transport::Transport;
use bytes::Bytes;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher as _;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Who is turned away gets this long to read why: a close at once would be a reset, which takes the
/// answer back (RFC 9112 §9.6). What it sends meanwhile is thrown away, so much of it at most.
const LINGER: Duration = Duration::from_secs(2);
const MAX_LINGER: usize = 64 << 10;

/// Connections that are being turned away at the same time at most; others are closed at once.
const MAX_TURNED_AWAY: usize = 512;

/// Failures to accept that are no further apart belong together.
const OUTAGE: Duration = Duration::from_secs(10);

/// Addresses are spread over so many locks, which are held for a look-up.
const SHARDS: usize = 64;

/// The door.
#[derive(Debug, Default)]
pub struct Door {
    crowd: Arc<Crowd>,
    turned_away: AtomicUsize,
    /// When a connection could not be accepted for the last time.
    failed: Mutex<Option<Instant>>,
}

/// Open connections by address. Who has none takes no room.
#[derive(Debug)]
struct Crowd {
    hasher: RandomState,
    shards: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// A connection that counts for its address until this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

// === impl Door ===

impl Door {
    /// Counts a connection from this address, unless there are `max` already.
    pub(super) fn seat(&self, address: IpAddr, max: usize) -> Option<Seat> {
        let address = counted(address);
        let mut shard = self.crowd.shard(&address);
        let count = shard.get(&address).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        shard.insert(address, count + 1);
        drop(shard);
        let crowd = Arc::clone(&self.crowd);
        Some(Seat { crowd, address })
    }

    /// Tells a client why it cannot come in, and closes so that it can read that.
    pub(super) async fn turn_away(&self, mut stream: Transport, reply: Bytes) {
        let count = self.turned_away.fetch_add(1, Relaxed);
        let _leaves = Leaves(&self.turned_away);
        let farewell = async {
            stream.write_all(&reply).await?;
            stream.shutdown().await?;
            let (mut left, mut space) = (MAX_LINGER, [0; 1024]);
            while left > 0 && count < MAX_TURNED_AWAY {
                match stream.read(&mut space).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            Ok::<_, std::io::Error>(())
        };
        // Who has gone, or does not go, is not waited for.
        let _ = tokio::time::timeout(LINGER, farewell).await;
    }

    /// Notes that a connection could not be accepted; whether that is news.
    pub(crate) fn failed(&self) -> bool {
        let now = Instant::now();
        let before = lock(&self.failed).replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) > OUTAGE)
    }
}

/// Counts one less when dropped.
struct Leaves<'d>(&'d AtomicUsize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What an address counts as: an IPv6 subscriber has a /64 network (RFC 6177) and can pick from it.
fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that holds one of these locks can panic half-way.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Crowd ===

impl Default for Crowd {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Crowd {
    fn shard(&self, address: &IpAddr) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        let hash = self.hasher.hash_one(address);
        let [first, rest @ ..] = &self.shards;
        let at = usize::try_from(hash % SHARDS as u64).unwrap_or_default();
        lock(
            at.checked_sub(1)
                .and_then(|at| rest.get(at))
                .unwrap_or(first),
        )
    }
}

// === impl Seat ===

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.crowd.shard(&self.address);
        if let Entry::Occupied(mut entry) = shard.entry(self.address) {
            match entry.get_mut() {
                count @ 2.. => *count -= 1,
                _ => drop(entry.remove()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(door: &Door, address: &str) -> Option<Seat> {
        door.seat(address.parse().expect("an address"), 2)
    }

    #[test]
    fn each_address_has_its_own_places() {
        let door = Door::default();
        let first = seat(&door, "192.0.2.1");
        let second = seat(&door, "::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(seat(&door, "192.0.2.1").is_none(), "two are in");
        assert!(seat(&door, "192.0.2.2").is_some());
        drop(first);
        let third = seat(&door, "192.0.2.1");
        assert!(third.is_some(), "one has left");
        assert!(seat(&door, "192.0.2.1").is_none());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let door = Door::default();
        let _seats = [
            seat(&door, "2001:db8:0:1::1").expect("a seat"),
            seat(&door, "2001:db8:0:1:ffff::2").expect("a seat"),
        ];
        assert!(seat(&door, "2001:db8:0:1:8000::3").is_none());
        assert!(seat(&door, "2001:db8:0:2::1").is_some());
    }

    #[test]
    fn who_has_left_takes_no_room() {
        let door = Door::default();
        for number in 0..1000_u32 {
            drop(door.seat(IpAddr::V4(number.into()), 1).expect("a seat"));
        }
        assert!(door.seat(IpAddr::V4(1.into()), 0).is_none());
        let shards = door.crowd.shards.iter();
        assert_eq!(shards.map(|shard| lock(shard).len()).sum::<usize>(), 0);
    }

    #[test]
    fn an_outage_is_told_once() {
        let door = Door::default();
        assert!(door.failed());
        assert!(!door.failed());
        *lock(&door.failed) = Instant::now().checked_sub(OUTAGE * 2);
        assert!(door.failed(), "that was another one");
    }
}
