//! Counting a caller's requests in Redis: one script, one round trip, by Redis's own clock.

use super::redis::{Away, Redis};
use aws_lc_rs::digest::{Context, SHA256};
use redis::RedisResult;
use redis::aio::ConnectionManager;
use std::fmt::Write as _;
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

/// What comes of counting one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It may pass, and this many more at once.
    Admitted {
        /// How many more.
        left: u32,
    },
    /// It is one too many.
    Refused {
        /// The time until the next may pass.
        wait: Duration,
    },
}

/// Whose requests are counted, and how many may come. The name is hashed as it is put together, so
/// that keys hold no personal data and no strange bytes. That hides names from who looks at Redis, not
/// from who tries out all addresses.
pub struct RateKey {
    name: Context,
    period: Duration,
    burst: NonZeroU32,
}

/// Where keys begin. A change of what is kept below them needs another number.
const PREFIX: &str = "bonterra-gateway:rate:1:";

static SCRIPT: LazyLock<redis::Script> =
    LazyLock::new(|| redis::Script::new(include_str!("gcra.lua")));

// === impl RateKey ===

impl std::fmt::Debug for RateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RateKey")
            .field("period", &self.period)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

impl RateKey {
    /// A key without a name so far, for one request in each `period` and `burst` at once.
    pub fn new(period: Duration, burst: NonZeroU32) -> Self {
        Self {
            name: Context::new(&SHA256),
            period,
            burst,
        }
    }

    /// Adds a part to the name. Lengths count: `ab`, `c` is not `a`, `bc`.
    pub fn add(&mut self, part: &[u8]) {
        self.name.update(&(part.len() as u64).to_be_bytes());
        self.name.update(part);
    }

    /// The key in Redis: half of the digest will do.
    pub(crate) fn text(self) -> String {
        let digest = self.name.finish();
        let mut key = String::with_capacity(PREFIX.len() + 32);
        key.push_str(PREFIX);
        for byte in digest.as_ref().iter().take(16) {
            // Writing to a String cannot fail.
            let _ = write!(key, "{byte:02x}");
        }
        key
    }
}

/// Counts a request of nobody.
///
/// # Errors
/// Why it cannot be counted.
pub(super) async fn probe(mut connection: ConnectionManager) -> RedisResult<()> {
    let mut call = SCRIPT.prepare_invoke();
    call.key(format!("{PREFIX}probe")).arg(1000).arg(1);
    call.invoke_async::<(u8, u64)>(&mut connection).await?;
    Ok(())
}

// === impl Redis ===

impl Redis {
    /// Counts one request.
    ///
    /// # Errors
    /// [`Away`] if Redis does not answer in time, or did not a moment ago.
    pub async fn take(&self, key: RateKey) -> Result<Taken, Away> {
        let (period, burst) = (key.period.as_secs_f64() * 1e6, key.burst.get());
        let count = move |mut connection| async move {
            let mut call = SCRIPT.prepare_invoke();
            call.key(key.text()).arg(period).arg(burst);
            call.invoke_async::<(u8, u64)>(&mut connection).await
        };
        let (admitted, number) = self.call(&self.rate_limit, count).await?;
        Ok(match admitted {
            1 => Taken::Admitted {
                left: u32::try_from(number).unwrap_or(u32::MAX),
            },
            _ => Taken::Refused {
                wait: Duration::from_micros(number),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(parts: &[&str]) -> String {
        let mut key = RateKey::new(Duration::from_secs(1), NonZeroU32::MIN);
        parts.iter().for_each(|part| key.add(part.as_bytes()));
        key.text()
    }

    #[test]
    fn keys_are_plain_and_tell_parts_apart() {
        let keys = [
            key(&["ip", "a"]),
            key(&["i", "pa"]),
            key(&["ipa"]),
            key(&["ip", "", "a"]),
            key(&["ip", "a\r\nDEL x"]),
        ];
        for (at, key) in keys.iter().enumerate() {
            let digest = key.strip_prefix(PREFIX).expect("the prefix");
            assert_eq!(digest.len(), 32);
            assert!(digest.bytes().all(|b| b.is_ascii_hexdigit()), "{key}");
            assert!(!keys[at + 1..].contains(key), "{key}");
        }
        assert_eq!(key(&["ip", "a"]), keys[0]);
    }
}
