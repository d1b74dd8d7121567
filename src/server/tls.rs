//! The TLS handshake with a client, and what comes of it.

use super::drain::{Winding, until_drained};
use super::sniff::Protocol;
use super::stream::LINGER;
use super::transport::Transport;
use super::{Shared, unparsed};
use crate::headers::certificate;
use crate::identity::Thumbprint;
use crate::snapshot::Tls;
use http::HeaderValue;
use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, ReadBuf};
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{FallibleAccept, TlsAcceptor};

/// A first flight of a client mostly fits.
const FIRST: usize = 2048;

/// What a client may still send when it has been turned away, before it reads why.
const MAX_FAREWELL: u64 = 256 << 10;

/// What TLS tells of a client. Of plain TCP nothing.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    /// Whether there is TLS at all.
    pub secure: bool,
    /// The certificate that it has shown, and whose key it has used.
    pub certificate: Option<Thumbprint>,
    /// The same for upstreams, if they get it.
    pub header: Option<HeaderValue>,
}

/// A client with whom TLS is spoken from here on.
pub(super) struct Met {
    /// What it sends, deciphered.
    pub stream: Transport,
    /// What was agreed on by ALPN (RFC 7301), if anything.
    pub protocol: Option<Protocol>,
    /// Who it is.
    pub credentials: Credentials,
}

/// The handshake: a look at the first byte, then TLS.
///
/// Until a byte has come there is no state of TLS: who connects and says nothing costs as little as
/// without TLS.
struct Handshake {
    stage: Stage,
    timer: Pin<Box<Sleep>>,
    over: bool,
}

enum Stage {
    Silent(Option<Transport>, Arc<ServerConfig>),
    Shaking(Box<FallibleAccept<Transport>>),
}

/// What came of a handshake.
enum Outcome {
    Done(Box<TlsStream<Transport>>),
    /// It speaks plain HTTP.
    Plain(Transport),
    Failed(io::Error, Transport),
    TimedOut,
    /// It left without a word, or the gateway stops.
    Gone,
}

/// Meets a client: makes the handshake, or turns the client away.
pub(super) async fn meet(
    stream: Transport,
    peer: SocketAddr,
    tls: &Tls,
    worker: usize,
    shared: &Shared,
) -> Option<Met> {
    let count = |result: &str| {
        let handshakes = &shared.observer.metrics.tls_handshakes_total;
        handshakes.with_label_values(&[result]).inc();
    };
    let deadline = Instant::now() + tls.handshake_timeout;
    let handshake = Box::pin(Handshake {
        stage: Stage::Silent(Some(stream), Arc::clone(&tls.config)),
        timer: Box::pin(tokio::time::sleep_until(deadline)),
        over: false,
    });
    match until_drained(handshake, || false, worker, shared).await {
        Outcome::Done(stream) => {
            let session = stream.get_ref().1;
            let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
            match Credentials::of(session, resumed, tls) {
                Ok(credentials) => {
                    count(if resumed { "resumed" } else { "full" });
                    return Some(Met::new(stream, credentials));
                }
                Err(error) => {
                    count("failed");
                    tracing::debug!(%peer, %error, "a resumed session does not hold any more");
                    farewell(stream.into(), b"").await;
                }
            }
        }
        Outcome::Plain(stream) => {
            count("plain_http");
            farewell(stream, &unparsed::wrong_port(shared, peer)).await;
        }
        Outcome::Failed(error, stream) => {
            count("failed");
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            farewell(stream, b"").await;
        }
        Outcome::TimedOut => count("timeout"),
        Outcome::Gone => {}
    }
    None
}

/// A last word, and time for the client to read it: a close at once would be a reset, which takes
/// back what the client has not read yet, the TLS alert included.
async fn farewell(mut stream: Transport, word: &[u8]) {
    let said = async {
        stream.write_all(word).await?;
        stream.shutdown().await?;
        let mut rest = stream.take(MAX_FAREWELL);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // How it ends is of no interest.
    let _ = tokio::time::timeout(LINGER, said).await;
}

// === impl Met ===

impl Met {
    /// Takes stock of a handshake that is complete and found good.
    fn new(stream: Box<TlsStream<Transport>>, credentials: Credentials) -> Self {
        let protocol = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Some(Protocol::Http2),
            Some(_) => Some(Protocol::Http1),
            None => None,
        };
        Self {
            stream: Transport::from(stream),
            protocol,
            credentials,
        }
    }
}

// === impl Credentials ===

impl Credentials {
    /// What a session tells of its client.
    ///
    /// rustls would resume a session with the certificate that it began with and not look at it
    /// again; in the meantime it may have expired, or another authority be asked for.
    fn of(session: &ServerConnection, resumed: bool, tls: &Tls) -> Result<Self, rustls::Error> {
        let leaf = tls.client(session.peer_certificates(), resumed)?;
        let forwarded = leaf.filter(|_| tls.forward_client_cert);
        Ok(Self {
            secure: true,
            certificate: leaf.map(|leaf| Thumbprint::of(leaf)),
            header: forwarded.and_then(|leaf| certificate::value(leaf)),
        })
    }
}

// === impl Handshake ===

impl Handshake {
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        loop {
            match &mut self.stage {
                Stage::Silent(stream, config) => {
                    let outcome = ready!(poll_first(stream, cx));
                    let Some(stream) = stream.take() else {
                        return Poll::Ready(Outcome::Gone);
                    };
                    match outcome {
                        First::Tls => {}
                        First::Http => return Poll::Ready(Outcome::Plain(stream)),
                        First::Nothing => return Poll::Ready(Outcome::Gone),
                    }
                    let accept = TlsAcceptor::from(Arc::clone(config)).accept(stream);
                    self.stage = Stage::Shaking(Box::new(accept.into_fallible()));
                }
                Stage::Shaking(accept) => {
                    let shaken = ready!(Pin::new(accept).poll(cx));
                    return Poll::Ready(match shaken {
                        Ok(stream) => Outcome::Done(Box::new(stream)),
                        Err((error, stream)) => Outcome::Failed(error, stream),
                    });
                }
            }
        }
    }
}

/// What a client begins with.
enum First {
    Tls,
    Http,
    Nothing,
}

/// Waits for the first bytes, which are read again if they may be TLS. A record of TLS never begins
/// with a letter (RFC 8446 §5.1), a request always does.
fn poll_first(stream: &mut Option<Transport>, cx: &mut Context<'_>) -> Poll<First> {
    let Some(stream) = stream else {
        return Poll::Ready(First::Nothing);
    };
    let mut space = [0; FIRST];
    let mut buffer = ReadBuf::new(&mut space);
    let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer));
    Poll::Ready(match (read, buffer.filled().first()) {
        (Ok(()), Some(first)) if first.is_ascii_alphabetic() => First::Http,
        (Ok(()), Some(_)) => {
            stream.unread(buffer.filled().to_vec().into());
            First::Tls
        }
        (Ok(()), None) | (Err(_), _) => First::Nothing,
    })
}

impl Future for Handshake {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(outcome) = self.poll_stage(cx) {
            return Poll::Ready(outcome);
        }
        if self.over {
            return Poll::Ready(Outcome::Gone);
        }
        ready!(self.timer.as_mut().poll(cx));
        Poll::Ready(Outcome::TimedOut)
    }
}

impl Winding for Handshake {
    fn wind_down(mut self: Pin<&mut Self>) {
        self.over = true;
    }
}
