//! One attempt to send a request: a server with a place for it, a connection, and what is left if it fails.

use super::breaker::InFlight;
use super::error::Http2Fault;
use super::pool::{Connection, Dispatched, Key, Kind, take};
use super::replay::Replay;
use super::retry::{self, Fault};
use super::spare::Spare;
use super::transport::Protocol;
use super::{Call, NoServer, SendError, Server, Upload, UploadState, Upstream, connect, http2};
use http::header::UPGRADE;
use http::{Method, Request};
use std::sync::Arc;
use std::time::Instant;

/// What it takes to send a request again.
pub(super) struct Second {
    spare: Spare,
    replay: Replay,
}

/// Where an attempt stands.
pub(super) struct Attempted<'a> {
    /// The server that it asks, once it has a place there.
    pub asked: &'a mut Option<Arc<Server>>,
    /// Those that were asked before.
    pub tried: &'a [u64],
    /// When it began.
    pub began: Instant,
}

/// Why an attempt brought nothing, and what is left of its request.
pub(super) struct Failed {
    pub error: SendError,
    /// The server that was asked, if it came to that.
    pub server: Option<u64>,
    /// Whether the server says that it has not worked on it.
    pub unprocessed: bool,
}

/// One attempt, at one server. The request is still there if nothing of it was sent.
pub(super) async fn one(
    call: &Call<'_>,
    request: &mut Option<Request<Upload>>,
    attempt: Attempted<'_>,
) -> Result<Dispatched, Failed> {
    let (upstream, now) = (call.upstream, attempt.began);
    let place = match place(call, attempt.tried).await {
        Ok(place) => place,
        Err(error) => return Err(Failed::new(error, None)),
    };
    let server = &*attempt.asked.insert(Arc::clone(&place.0));
    let sent = match upstream.transport.protocol {
        Protocol::Http1 => {
            // Who was at the other end of kept connections may be gone for all of them.
            let reuse = attempt.tried.is_empty().then_some(now);
            over_http1(upstream, server, place, request, reuse).await
        }
        Protocol::Http2 => Box::pin(over_http2(upstream, server, place, request)).await,
    };
    // A stream that we reset and one that the server resets look the same.
    let broken_off = call.upload.and_then(UploadState::fault).is_some();
    sent.map_err(|failed| match broken_off {
        true => Failed {
            error: SendError::Upload,
            ..failed
        },
        false => failed,
    })
}

/// A place at a server: at the one that is chosen, else at any that has one, else waited for.
async fn place(call: &Call<'_>, tried: &[u64]) -> Result<InFlight, SendError> {
    let upstream = call.upstream;
    let choose = |avoid: &[u64]| upstream.choose(call.key, avoid);
    let chosen = choose(tried).map_err(|NoServer| SendError::NoServer)?;
    if tried.contains(&chosen.id) {
        let times = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        pingora_timeout::sleep(retry::pause(times)).await;
    }
    if let Some(place) = upstream.breaker.try_enter(&chosen) {
        return Ok(place);
    }
    let mut full = tried.to_vec();
    full.push(chosen.id);
    while let Ok(other) = choose(&full)
        && !full.contains(&other.id)
    {
        if let Some(place) = upstream.breaker.try_enter(&other) {
            return Ok(place);
        }
        full.push(other.id);
    }
    let wait = upstream.breaker.enter(&chosen, upstream.connect_timeout);
    Box::pin(wait).await
}

/// Sends a request by an idle connection that still works at the time `reuse`, if there is one, else by a new one.
async fn over_http1(
    upstream: &Upstream,
    server: &Arc<Server>,
    place: InFlight,
    request: &mut Option<Request<Upload>>,
    reuse: Option<Instant>,
) -> Result<Dispatched, Failed> {
    let key = Key::of(server, &upstream.transport);
    loop {
        let idle = match reuse {
            Some(now) => take(key, now).await,
            None => None,
        };
        let reused = idle.is_some();
        let mut sender = match idle {
            Some(sender) => sender,
            None => {
                let patience = upstream.connect_timeout;
                let made = Box::pin(connect::http1(server, &upstream.transport, patience)).await;
                match made {
                    Ok(sender) => sender,
                    Err(error) => return Err(Failed::new(error.into(), Some(server.id))),
                }
            }
        };
        let Some(sent) = request.take() else {
            return Err(Failed::new(SendError::Upload, Some(server.id)));
        };
        let mut error = match sender.try_send_request(sent).await {
            Ok(response) => {
                let keep = upstream.idle_timeout;
                let kind = Kind::Http1 { sender, key, keep };
                return Ok((
                    response,
                    Connection {
                        kind,
                        in_flight: place,
                    },
                ));
            }
            Err(error) => error,
        };
        *request = error.take_message();
        // One that was closed while it was idle, as servers do, is replaced.
        if !reused || request.is_none() {
            let error = SendError::of(error.into_error());
            return Err(Failed::new(error, Some(server.id)));
        }
    }
}

async fn over_http2(
    upstream: &Upstream,
    server: &Arc<Server>,
    place: InFlight,
    request: &mut Option<Request<Upload>>,
) -> Result<Dispatched, Failed> {
    let (patience, keep) = (upstream.connect_timeout, upstream.idle_timeout);
    let found = http2::acquire(server, &upstream.transport, patience, keep).await;
    let (mut sender, stream) = match found {
        Ok(found) => found,
        Err(error) => return Err(Failed::new(error, Some(server.id))),
    };
    let Some(mut sent) = request.take() else {
        return Err(Failed::new(SendError::Upload, Some(server.id)));
    };
    http2::shape(&mut sent, server.tls);
    match sender.try_send_request(sent).await {
        Ok(response) => {
            let kind = Kind::Http2 { _stream: stream };
            Ok((
                response,
                Connection {
                    kind,
                    in_flight: place,
                },
            ))
        }
        Err(mut error) => {
            *request = error.take_message();
            let error = error.into_error();
            Err(Failed {
                unprocessed: Http2Fault::of(&error) == Some(Http2Fault::Unprocessed),
                ..Failed::new(SendError::of(error), Some(server.id))
            })
        }
    }
}

// === impl Second ===

impl Second {
    /// Keeps what is needed, if there can be a second attempt after the first one was sent.
    pub fn of(request: &mut Request<Upload>, upstream: &Upstream) -> Option<Self> {
        // An HTTP/2 server may say that it has not worked on a request. Then the method does not matter.
        let speaks_http2 = upstream.transport.protocol == Protocol::Http2;
        let refusable = speaks_http2 && upstream.retry.attempts > 1 && upstream.retry.on.connect;
        let possible = refusable || upstream.retry.may_repeat(request.method());
        // A connection that changes its protocol is no matter of two attempts.
        let leaves = request.headers().contains_key(UPGRADE) || request.method() == Method::CONNECT;
        if !possible || leaves {
            return None;
        }
        let replay = Replay::of(request.body_mut())?;
        Some(Self {
            spare: Spare::of(request),
            replay,
        })
    }

    /// Whether all of it is still there.
    pub fn is_whole(&self) -> bool {
        self.replay.is_whole()
    }

    /// The request once more.
    pub fn again(&self) -> Option<Request<Upload>> {
        self.replay.again().map(|body| self.spare.request(body))
    }
}

// === impl Failed ===

impl Failed {
    fn new(error: SendError, server: Option<u64>) -> Self {
        Self {
            error,
            server,
            unprocessed: false,
        }
    }

    /// What another attempt could mend.
    pub fn fault(&self) -> Option<Fault> {
        match &self.error {
            SendError::Connect(_) => Some(Fault::Connect),
            SendError::Reset(_) => Some(Fault::Reset),
            SendError::NoServer
            | SendError::Overloaded
            | SendError::Timeout
            | SendError::Protocol(_)
            | SendError::Upload => None,
        }
    }
}
