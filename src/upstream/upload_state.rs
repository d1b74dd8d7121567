//! How the body of a request fares on its way to an upstream, for those who do not send it.

use super::breaker::InFlight;
use super::http2;
use futures_util::task::AtomicWaker;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Context;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

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
    /// How long nothing may move.
    patience: Duration,
    /// Who sends it, while it waits for the client.
    sender: AtomicWaker,
    hold: Mutex<Hold>,
}

/// What an upload has besides itself.
#[derive(Debug)]
enum Hold {
    /// Its response has not ended: whoever carries that has the place.
    Nothing,
    /// Its place at the server, and what ends the watch over it.
    Place {
        _place: InFlight,
        _stream: Option<http2::Stream>,
        _over: oneshot::Sender<()>,
    },
    /// It is over.
    Over,
}

/// What an upload goes by.
pub(super) enum Way {
    /// An HTTP/1.1 connection that carries nothing else any more, by the task that drives it.
    Connection(AbortHandle),
    /// One stream of several.
    Stream(http2::Stream),
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
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            bytes: Arc::default(),
            stage: AtomicU8::new(0),
            started: Instant::now(),
            moved: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            patience,
            sender: AtomicWaker::new(),
            hold: Mutex::new(Hold::Nothing),
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

    /// The upstream wants more than there is. Who sends it is woken if it is given up.
    pub(super) fn starves(&self, cx: &Context<'_>) {
        self.starved.store(true, Relaxed);
        self.sender.register(cx.waker());
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
        *self.held() = Hold::Nothing;
        self.moves();
        // Who sent it before gets no more of it, and has to find that out.
        self.sender.wake();
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

    /// Nobody sends it any more: it has arrived, or never will.
    pub(super) fn over(&self) {
        let held = std::mem::replace(&mut *self.held(), Hold::Over);
        // A place that is freed is another request's business.
        drop(held);
    }

    /// The response has ended and the upload has not: its place is its own from here on, until it is over or is
    /// given up, when nothing moves for its patience or at the `deadline`.
    pub(super) fn outlives(self: &Arc<Self>, place: InFlight, way: Way, deadline: Option<Instant>) {
        let (driver, stream) = match way {
            Way::Connection(driver) => (Some(driver), None),
            Way::Stream(stream) => (None, Some(stream)),
        };
        let (tell, over) = oneshot::channel();
        {
            let mut held = self.held();
            if matches!(*held, Hold::Over) {
                return;
            }
            *held = Hold::Place {
                _place: place,
                _stream: stream,
                _over: tell,
            };
        }
        let upload = Arc::clone(self);
        tokio::spawn(async move {
            upload.watch(over, deadline).await;
            if let Some(driver) = driver {
                driver.abort();
            }
        });
    }

    /// Waits until the upload is over, and gives it up when it is time.
    async fn watch(&self, mut over: oneshot::Receiver<()>, deadline: Option<Instant>) {
        loop {
            let stalled = self.last_moved() + self.patience;
            let due = deadline.map_or(stalled, |deadline| deadline.min(stalled));
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return self.give_up();
            }
            // The other end is dropped, and never says a word.
            if pingora_timeout::timeout(left, &mut over).await.is_ok() {
                return;
            }
        }
    }

    /// Breaks it off: no more of it is sent, and its place is free. hyper resets an HTTP/2 stream then; but one that
    /// its server lets no byte on, it leaves open until there is room again or the connection ends.
    pub(super) fn give_up(&self) {
        if !self.done() && self.fault().is_none() {
            self.stopped(UploadFault::Stalled);
        }
        self.sender.wake();
        self.over();
    }

    fn held(&self) -> MutexGuard<'_, Hold> {
        // Whoever panicked here left it whole.
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
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
