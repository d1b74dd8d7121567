//! One server: what is known of it, and whether it gets requests. It outlives snapshots.

use super::breaker::Counter;
use super::eject::Group;
use super::queue::Queue;
use http::StatusCode;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

/// The share of a server that has just come back, in percent.
const COLD: u64 = 10;

/// The whole share of a server, in percent.
pub(super) const WARM: u64 = 100;

/// [`Server::out`]: health checks say that it is unwell.
const UNWELL: u8 = 1;

/// [`Server::out`]: it is out because of failed requests.
const EJECTED: u8 = 2;

/// A server of an upstream: one address, whether it was written so or is what a name resolves to.
#[derive(Debug)]
pub struct Server {
    /// Tells servers apart, and with them the connections to each.
    pub id: u64,
    /// Where it listens.
    pub address: SocketAddr,
    /// The configured host, without port and brackets: what TLS and `Host` call it.
    pub host: Box<str>,
    /// The configured host and port, and the address behind a `/` where a name has several: what metrics and logs
    /// call it.
    pub label: Arc<str>,
    /// Whether it speaks TLS.
    pub tls: bool,
    pub(super) in_flight: Counter,
    /// Who waits for it, or for another one of its group.
    pub(super) queue: Arc<Queue>,
    /// Why it gets no requests; 0 if it does.
    out: AtomicU8,
    /// Failed requests since the last good one.
    failures: AtomicU32,
    /// So many failures take it out; 0: none does.
    eject_after: AtomicU32,
    /// Good answers to health checks in a row, or bad ones as a negative number.
    streak: AtomicI32,
    /// When it came back, by [`millis`], until its share is whole again; 0 then.
    back_since: AtomicU64,
    group: Weak<Group>,
}

/// What makes two servers of an upstream the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ServerKey<'a> {
    pub address: SocketAddr,
    pub host: &'a str,
    pub tls: bool,
}

/// How an attempt to get an answer from a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The head of a response came.
    Answered(StatusCode),
    /// No connection could be made.
    ConnectFailed,
    /// The connection ended before the head of a response.
    Reset,
    /// The answer is not HTTP.
    Protocol,
    /// No head came in time.
    TimedOut,
}

/// Milliseconds on a clock that never stands at 0 and never goes back.
pub(super) fn millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    let start = START.get_or_init(Instant::now);
    whole_millis(start.elapsed()).saturating_add(1)
}

pub(super) fn whole_millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// === impl Report ===

impl Report {
    /// Whether this speaks against the server: it could not be reached, or what it is itself a gateway to could not.
    fn is_failure(self) -> bool {
        match self {
            Self::ConnectFailed | Self::Reset | Self::Protocol | Self::TimedOut => true,
            Self::Answered(status) => matches!(
                status,
                StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT
            ),
        }
    }
}

// === impl Server ===

impl Server {
    pub(super) fn new(key: ServerKey<'_>, label: Arc<str>, group: &Arc<Group>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            address: key.address,
            host: key.host.into(),
            label,
            tls: key.tls,
            in_flight: Counter::default(),
            queue: Arc::clone(&group.queue),
            out: AtomicU8::new(0),
            failures: AtomicU32::new(0),
            eject_after: AtomicU32::new(0),
            streak: AtomicI32::new(0),
            back_since: AtomicU64::new(0),
            group: Arc::downgrade(group),
        }
    }

    /// Some that have nothing but each other.
    #[cfg(test)]
    pub(super) fn alone(addresses: impl Iterator<Item = SocketAddr>) -> Vec<Self> {
        let gauge = prometheus::IntGaugeVec::new(
            prometheus::Opts::new("healthy", "x"),
            &["upstream", "server"],
        );
        let group = Group::new("alone".into(), gauge.expect("a gauge"));
        addresses
            .map(|address| {
                let key = ServerKey {
                    address,
                    host: &address.ip().to_string(),
                    tls: false,
                };
                Self::new(key, address.to_string().into(), &group)
            })
            .collect()
    }

    pub(super) fn key(&self) -> ServerKey<'_> {
        ServerKey {
            address: self.address,
            host: &self.host,
            tls: self.tls,
        }
    }

    /// Host and port as in a URL, for `Host`.
    pub(super) fn authority(&self) -> &str {
        self.label
            .split_once('/')
            .map_or(&*self.label, |(authority, _)| authority)
    }

    /// Requests that are being worked on.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether it gets requests.
    pub fn is_in(&self) -> bool {
        self.out.load(Relaxed) == 0
    }

    /// Whether health checks have nothing against it.
    pub fn is_well(&self) -> bool {
        self.out.load(Relaxed) & UNWELL == 0
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.out.load(Relaxed) & EJECTED != 0
    }

    /// Tells how an attempt ended; enough failures in a row take the server out for a while.
    pub fn report(&self, outcome: Report) {
        if !outcome.is_failure() {
            // Read first: this is the way of almost every request, and writing would take the cache line from others.
            if self.failures.load(Relaxed) != 0 {
                self.failures.store(0, Relaxed);
            }
            return;
        }
        let after = self.eject_after.load(Relaxed);
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        // Every so many failures again: others may have left room for this one meanwhile.
        let due = after != 0 && failures.is_multiple_of(after);
        if due
            && !self.is_ejected()
            && let Some(group) = self.group.upgrade()
        {
            group.eject(self.id, millis());
        }
    }

    /// Failures that take it out; 0: none does.
    pub(super) fn eject_after(&self, after: u32) {
        self.eject_after.store(after, Relaxed);
    }

    pub(super) fn set_ejected(&self, ejected: bool) {
        if ejected {
            self.out.fetch_or(EJECTED, Relaxed);
        } else {
            // Back on trial: the next failure is one too many, the next success wipes them out.
            let after = self.eject_after.load(Relaxed);
            self.failures.store(after.saturating_sub(1), Relaxed);
            self.out.fetch_and(!EJECTED, Relaxed);
        }
    }

    pub(super) fn set_well(&self, well: bool) {
        if well {
            self.out.fetch_and(!UNWELL, Relaxed);
        } else {
            self.out.fetch_or(UNWELL, Relaxed);
        }
    }

    /// Counts an answer to a health check: how many of its kind came in a row. Only one task checks a server.
    pub(super) fn checked(&self, good: bool) -> u32 {
        let streak = self.streak.load(Relaxed);
        let streak = match good {
            true => streak.max(0).saturating_add(1),
            false => streak.min(0).saturating_sub(1),
        };
        self.streak.store(streak, Relaxed);
        streak.unsigned_abs()
    }

    /// It begins with a small share from now on.
    pub(super) fn came_back(&self, now: u64) {
        self.back_since.store(now, Relaxed);
    }

    /// Its share in percent, under this `slow_start`.
    pub(super) fn warmth(&self, slow_start: Duration) -> u64 {
        let since = self.back_since.load(Relaxed);
        if since == 0 || slow_start.is_zero() {
            return WARM;
        }
        let warmth = warmth(millis().saturating_sub(since), whole_millis(slow_start));
        if warmth == WARM {
            // Unless it has come back anew meanwhile.
            let _ = self.back_since.compare_exchange(since, 0, Relaxed, Relaxed);
        }
        warmth
    }
}

/// The share of a server in percent, so many milliseconds after it came back.
fn warmth(since: u64, slow_start: u64) -> u64 {
    match (WARM - COLD).saturating_mul(since).checked_div(slow_start) {
        Some(gained) => (COLD + gained).min(WARM),
        None => WARM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_grows_from_a_tenth_to_the_whole() {
        for (since, slow_start, expected) in [
            (0, 30_000, 10),
            (1, 30_000, 10),
            (10_000, 30_000, 40),
            (15_000, 30_000, 55),
            (29_999, 30_000, 99),
            (30_000, 30_000, 100),
            (u64::MAX, 30_000, 100),
            (0, 0, 100),
        ] {
            assert_eq!(
                warmth(since, slow_start),
                expected,
                "{since} of {slow_start}"
            );
        }
    }

    #[test]
    fn what_speaks_against_a_server() {
        for report in [
            Report::ConnectFailed,
            Report::Reset,
            Report::Protocol,
            Report::TimedOut,
            Report::Answered(StatusCode::BAD_GATEWAY),
            Report::Answered(StatusCode::SERVICE_UNAVAILABLE),
            Report::Answered(StatusCode::GATEWAY_TIMEOUT),
        ] {
            assert!(report.is_failure(), "{report:?}");
        }
        for status in [200, 304, 400, 404, 429, 500, 501] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(!Report::Answered(status).is_failure(), "{status}");
        }
    }
}
