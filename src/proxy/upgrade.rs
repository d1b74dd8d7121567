//! From HTTP to another protocol on the same connection (RFC 9110 §7.8): a tunnel between a client
//! and an upstream that both have agreed to.

use super::Client;
use crate::identity::{Clock, UnixSeconds};
use crate::snapshot::TunnelRules;
use crate::telemetry::exchange::Exchange;
use crate::upstream::Connection;
use http::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{Method, Version};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};

/// A change of protocol that a client asks for and its route allows.
#[derive(Debug)]
pub(super) struct Asked {
    protocol: HeaderValue,
    client: OnUpgrade,
}

/// A connection that speaks another protocol from now on.
pub(super) struct Tunnel {
    /// The two ends, as soon as hyper lets go of them.
    pub ends: (OnUpgrade, OnUpgrade),
    /// Kept while it lasts: the client's place among the open connections …
    pub client: Arc<dyn Client>,
    /// … the upstream's place among those in flight …
    pub connection: Connection,
    /// … and the record, which is written at the end.
    pub exchange: Box<Exchange>,
    /// When to give up on two silent ends.
    pub idle: Option<Duration>,
    /// When the caller's token ends, if that ends the tunnel, by this clock.
    pub expires: Option<(UnixSeconds, Clock)>,
}

/// What has gone through a tunnel.
#[derive(Debug)]
struct Traffic {
    begun: Instant,
    /// Milliseconds since `begun`.
    last: AtomicU64,
    up: Arc<AtomicU64>,
    down: AtomicU64,
}

/// The client's end, with an eye on what passes.
struct Watched {
    end: TokioIo<Upgraded>,
    traffic: Arc<Traffic>,
}

/// The change that is asked for, if nothing speaks against it. It is left out of the request
/// otherwise, as a server that does not know of a protocol would do.
pub(super) fn asked(head: &mut Parts, has_body: bool, rules: &TunnelRules) -> Option<Asked> {
    // hyper puts it there only if one is asked for.
    let client = head.extensions.remove::<OnUpgrade>()?;
    // With a body, or HTTP/1.0, it is less clear where the other protocol begins.
    if has_body || head.version != Version::HTTP_11 || head.method != Method::GET {
        return None;
    }
    let mut fields = head.headers.get_all(UPGRADE).iter();
    let (first, None) = (fields.next()?, fields.next()) else {
        return None;
    };
    let protocol = rules.protocol(first)?;
    names_upgrade(&head.headers).then_some(Asked { protocol, client })
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
    })
}

// === impl Asked ===

impl Asked {
    /// Asks the upstream for the same, or tells the client of its agreement.
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        headers.insert(UPGRADE, self.protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }

    /// Whether the upstream has agreed to this protocol and no other.
    pub(super) fn is_granted(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(UPGRADE).iter();
        let same = |field: &HeaderValue| {
            field
                .as_bytes()
                .eq_ignore_ascii_case(self.protocol.as_bytes())
        };
        fields.next().is_some_and(same) && fields.next().is_none()
    }

    /// The client's end of the tunnel.
    pub(super) fn into_client(self) -> OnUpgrade {
        self.client
    }
}

// === impl Tunnel ===

impl Tunnel {
    /// Carries bytes both ways until an end closes or a deadline passes.
    pub(super) async fn run(mut self) {
        let (client, upstream) = &mut self.ends;
        let (Ok(client), Ok(upstream)) = (client.await, upstream.await) else {
            return;
        };
        let traffic = Arc::new(Traffic::new());
        self.exchange.receiving(Arc::clone(&traffic.up));
        let mut client = Watched {
            end: TokioIo::new(client),
            traffic: Arc::clone(&traffic),
        };
        let mut upstream = TokioIo::new(upstream);
        let outcome = {
            let mut copying = pin!(copy_bidirectional(&mut client, &mut upstream));
            loop {
                let Some(left) = self.left(&traffic) else {
                    break Err(std::io::ErrorKind::TimedOut.into());
                };
                if let Ok(outcome) = pingora_timeout::timeout(left, copying.as_mut()).await {
                    break outcome;
                }
            }
        };
        let down = traffic.down.load(Relaxed);
        self.exchange
            .wrote(usize::try_from(down).unwrap_or(usize::MAX));
        match outcome {
            Ok(_) => self.exchange.completed(),
            Err(error) => tracing::debug!(%error, "a tunnel ended"),
        }
        drop((self.client, self.connection));
    }

    /// How long nothing has to be looked at; `None` if it is over.
    fn left(&self, traffic: &Traffic) -> Option<Duration> {
        // A clock may be set while a tunnel lasts, so it is asked now and then.
        let mut left = Duration::from_secs(3600);
        if let Some(idle) = self.idle {
            left = left.min(idle.checked_sub(traffic.silent_for())?);
        }
        if let Some((expires, clock)) = &self.expires {
            let seconds = u64::try_from(expires.saturating_sub(clock.now())).ok()?;
            left = left.min(Duration::from_secs(seconds.min(60)));
        }
        (!left.is_zero()).then_some(left)
    }
}

// === impl Traffic ===

impl Traffic {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            last: AtomicU64::new(0),
            up: Arc::default(),
            down: AtomicU64::new(0),
        }
    }

    fn passed(&self, bytes: usize, counter: &AtomicU64) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
        counter.fetch_add(bytes as u64, Relaxed);
    }

    fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }
}

// === impl Watched ===

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.end).poll_read(cx, buffer);
        let came = buffer.filled().len() - before;
        if came > 0 {
            self.traffic.passed(came, &self.traffic.up);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let polled = Pin::new(&mut self.end).poll_write(cx, bytes);
        if let Poll::Ready(Ok(gone)) = &polled {
            self.traffic.passed(*gone, &self.traffic.down);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.end).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.end).poll_shutdown(cx)
    }
}
