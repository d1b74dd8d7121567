//! How much housekeeping one HTTP/2 connection may ask for. Frames that carry no request cost the
//! client nothing and the gateway an answer each: PING, SETTINGS, resets, window updates.

use super::frames::{Frame, Kind};
use tokio::time::Instant;

/// What may be asked for at once …
const BURST: u32 = 1000;
/// … and what is allowed again every second.
const PER_SECOND: u32 = 200;
/// A window update is earned by this many bytes that the client was sent …
const BYTES_PER_UPDATE: usize = 1024;
/// … and this much by each frame of an answer, however small: some clients send a PING for each, to
/// measure the way, or two window updates.
const PER_ANSWER: u32 = 2;

/// What a connection has left.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    since: Instant,
    /// Bytes sent that have earned nothing yet.
    sent: usize,
}

// === impl Allowance ===

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
            sent: 0,
        }
    }

    /// Takes off what a frame costs; `false` once there is nothing left.
    pub(super) fn spend(&mut self, frame: Frame, now: Instant) -> bool {
        let cost = cost(frame);
        if cost == 0 {
            return true;
        }
        if self.left < cost {
            self.refill(now);
        }
        let enough = self.left >= cost;
        self.left = self.left.saturating_sub(cost);
        enough
    }

    /// The client has been sent this much, with so many frames of answers in it, which it will want to
    /// acknowledge.
    pub(super) fn earn(&mut self, bytes: usize, answers: u32) {
        self.sent += bytes;
        let updates = self.sent / BYTES_PER_UPDATE;
        self.sent %= BYTES_PER_UPDATE;
        let updates = u32::try_from(updates).unwrap_or(BURST);
        let earned = updates.saturating_add(answers.saturating_mul(PER_ANSWER));
        self.left = self.left.saturating_add(earned).min(BURST);
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let earned = passed * u128::from(PER_SECOND) / 1000;
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.left = self.left.saturating_add(earned).min(BURST);
            self.since = now;
        }
    }
}

fn cost(frame: Frame) -> u32 {
    match frame.kind {
        // What a request is made of has limits of its own.
        Kind::Headers | Kind::Continuation => 0,
        Kind::Data if frame.length > 0 || frame.ends_stream() => 0,
        Kind::Data | Kind::Priority | Kind::Ping | Kind::WindowUpdate | Kind::Other => 1,
        // A request has been begun for it.
        Kind::Reset => 2,
        Kind::Settings => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::Frames;
    use super::*;
    use std::time::Duration;

    fn frame(kind: u8, length: u8, flags: u8) -> Frame {
        let mut found = None;
        let head = [0, 0, length, kind, flags, 0, 0, 0, 1];
        Frames::behind(0).feed(&head, |frame| found = Some(frame));
        found.expect("a whole head")
    }

    #[test]
    fn floods_end_and_requests_do_not() {
        let now = Instant::now();
        for (case, frame, most) in [
            ("PING", frame(6, 8, 0), Some(1000)),
            ("SETTINGS", frame(4, 0, 0), Some(250)),
            ("RST_STREAM", frame(3, 4, 0), Some(500)),
            ("PRIORITY", frame(2, 5, 0), Some(1000)),
            ("WINDOW_UPDATE", frame(8, 4, 0), Some(1000)),
            ("empty DATA", frame(0, 0, 0), Some(1000)),
            ("the end of a body", frame(0, 0, 1), None),
            ("DATA", frame(0, 9, 0), None),
            ("HEADERS", frame(1, 9, 5), None),
        ] {
            let mut allowance = Allowance::new(now);
            let spent = (0..5000).position(|_| !allowance.spend(frame, now));
            assert_eq!(spent, most, "{case}");
        }
    }

    #[test]
    fn time_and_bytes_earn() {
        let now = Instant::now();
        let ping = frame(6, 8, 0);
        let mut allowance = Allowance::new(now);
        while allowance.spend(ping, now) {}
        let later = now + Duration::from_millis(50);
        assert!((0..10).all(|_| allowance.spend(ping, later)));
        assert!(!allowance.spend(ping, later));
        allowance.earn(1023, 0);
        assert!(!allowance.spend(ping, later));
        allowance.earn(1, 0);
        assert!(allowance.spend(ping, later));
        assert!(!allowance.spend(ping, later));
        allowance.earn(20, 1);
        assert!(allowance.spend(ping, later));
        assert!(allowance.spend(ping, later));
        assert!(!allowance.spend(ping, later));
    }
}
