//! How the body of a request fares on its way to an upstream, for those who do not send it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What the proxy can see of an upload while hyper sends it.
#[derive(Debug)]
pub struct UploadState {
    /// Bytes passed on so far.
    pub bytes: Arc<AtomicU64>,
    stage: AtomicU8,
    started: Instant,
    /// When something was last passed on, in microseconds since `started`.
    moved: AtomicU64,
    starved: AtomicBool,
}

/// Why an upload was broken off on this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadFault {
    /// Over `max_body`.
    TooLarge,
    /// Nothing came for `body_timeout`.
    Stalled,
    /// The client broke off.
    Broken,
    /// A token came in the form, too (RFC 6750 §2).
    SecondToken,
}

// The stages of an upload; it starts at 0, running.
const DONE: u8 = 1;
const TOO_LARGE: u8 = 2;
const STALLED: u8 = 3;
const BROKEN: u8 = 4;
const SECOND_TOKEN: u8 = 5;

// === impl UploadState ===

impl UploadState {
    pub(super) fn new() -> Self {
        Self {
            bytes: Arc::default(),
            stage: AtomicU8::new(0),
            started: Instant::now(),
            moved: AtomicU64::new(0),
            starved: AtomicBool::new(false),
        }
    }

    /// When the upstream last took something of the body, its end included.
    pub fn last_moved(&self) -> Instant {
        self.started + Duration::from_micros(self.moved.load(Relaxed))
    }

    /// Whether the upstream wants more than the client has sent.
    pub fn waits_for_client(&self) -> bool {
        self.starved.load(Relaxed)
    }

    /// The upstream took something.
    pub(super) fn moves(&self) {
        let now = self.started.elapsed().as_micros();
        self.moved
            .store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
        self.starved.store(false, Relaxed);
    }

    /// Whether the whole body has been passed on.
    pub fn done(&self) -> bool {
        self.stage.load(Relaxed) == DONE
    }

    /// Why the upload was broken off, if it was.
    pub fn fault(&self) -> Option<UploadFault> {
        match self.stage.load(Relaxed) {
            TOO_LARGE => Some(UploadFault::TooLarge),
            STALLED => Some(UploadFault::Stalled),
            BROKEN => Some(UploadFault::Broken),
            SECOND_TOKEN => Some(UploadFault::SecondToken),
            _ => None,
        }
    }

    /// The upstream wants more than there is.
    pub(super) fn starves(&self) {
        self.starved.store(true, Relaxed);
    }

    /// So many bytes of the client's were passed on.
    pub(super) fn passed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// All of it was passed on.
    pub(super) fn ends(&self) {
        self.stage.store(DONE, Relaxed);
    }

    /// It begins anew, for another attempt.
    pub(super) fn restarts(&self) {
        self.stage.store(0, Relaxed);
        self.moves();
    }

    /// It was broken off.
    pub(super) fn stopped(&self, fault: UploadFault) {
        let stage = match fault {
            UploadFault::TooLarge => TOO_LARGE,
            UploadFault::Stalled => STALLED,
            UploadFault::Broken => BROKEN,
            UploadFault::SecondToken => SECOND_TOKEN,
        };
        self.stage.store(stage, Relaxed);
    }
}

// === impl UploadFault ===

impl fmt::Display for UploadFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooLarge => "the request body is over max_body",
            Self::Stalled => "the request body stalled",
            Self::Broken => "the client broke off its request body",
            Self::SecondToken => "a token in the header and in the form",
        })
    }
}

impl std::error::Error for UploadFault {}
