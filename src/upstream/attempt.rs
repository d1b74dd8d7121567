//! One attempt to send a request: a server with a place for it, a connection, and what is left if it fails.

use super::breaker::InFlight;
use super::error::Http2Fault;
use super::pool::{Key, Kind, take};
use super::replay::Replay;
use super::retry::{self, Fault};
use super::spare::Spare;
use super::transport::Protocol;
use super::{
    Call, NoServer, SendError, Server, Upload, UploadState, Upstream, balance, connect, http2,
};
use http::header::UPGRADE;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// What it takes to send a request again.
pub(super) struct Second {
    spare: Spare,
    replay: Replay,
}

/// The head of a response, and what its body comes by.
pub(super) type Answer = (Response<Incoming>, Kind);

/// Why an attempt brought nothing.
pub(super) struct Failed {
    pub error: SendError,
    /// Whether the server says that it has not worked on it.
    pub unprocessed: bool,
}

/// One attempt, at the server of this place. `idle` connections are tried first that work at this time.
/// The request is still there if nothing of it was sent.
pub(super) async fn one(
    call: &Call<'_>,
    request: &mut Option<Request<Upload>>,
    place: &InFlight,
    idle: Option<Instant>,
) -> Result<Answer, Failed> {
    let (upstream, server) = (call.upstream, place.server());
    let sent = match upstream.transport.protocol {
        Protocol::Http1 => over_http1(upstream, server, request, idle).await,
        Protocol::Http2 => Box::pin(over_http2(upstream, server, request)).await,
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

/// A place at a server: at the one that is chosen, else at any that has one, else the first that becomes free. Those
/// of `tried` are the last resort.
///
/// # Errors
/// [`SendError::NoServer`], [`SendError::Overloaded`], or [`SendError::Timeout`] if the attempt that `began` then has
/// no time left.
pub(super) async fn place(
    call: &Call<'_>,
    tried: &[u64],
    began: Instant,
) -> Result<InFlight, SendError> {
    let upstream = call.upstream;
    let chosen = upstream.choose(call.key, tried);
    let chosen = chosen.map_err(|NoServer| SendError::NoServer)?;
    if tried.contains(&chosen.id) {
        let times = u32::try_from(tried.len()).unwrap_or(u32::MAX);
        let pause = pin!(pingora_timeout::sleep(retry::pause(times)));
        call.in_time(began, pause).await?;
    }
    let full = match upstream.breaker.try_enter(chosen) {
        Ok(place) => return Ok(place),
        Err(full) => full,
    };
    // Who waits already has a right to whatever else is free.
    if full.queue.is_empty()
        && let Some(place) = elsewhere(call, tried, full.id)
    {
        return Ok(place);
    }
    let (wishes, avoid) = (Arc::clone(upstream), Box::<[u64]>::from(tried));
    let wish = move |server: &Server| balance::is_choice(&wishes.servers.now(), server, &avoid);
    let servers = upstream.servers.list();
    let (limits, patience) = (upstream.breaker, upstream.connect_timeout);
    let mut wait = Box::pin(full.queue.enter(limits, &servers, Box::new(wish), patience));
    call.in_time(began, wait.as_mut()).await?
}

/// A place at any server that could have been chosen as well; `full` has none.
fn elsewhere(call: &Call<'_>, tried: &[u64], full: u64) -> Option<InFlight> {
    let upstream = call.upstream;
    let mut full = [tried, &[full]].concat();
    while let Ok(other) = upstream.choose(call.key, &full)
        && !full.contains(&other.id)
    {
        match upstream.breaker.try_enter(other) {
            Ok(place) => return Some(place),
            Err(other) => full.push(other.id),
        }
    }
    None
}

/// Sends a request by an idle connection that still works at the time `reuse`, if there is one, else by a new one.
async fn over_http1(
    upstream: &Upstream,
    server: &Arc<Server>,
    request: &mut Option<Request<Upload>>,
    reuse: Option<Instant>,
) -> Result<Answer, Failed> {
    let key = Key::of(server, &upstream.transport);
    loop {
        let idle = match reuse {
            Some(now) => take(key, now).await,
            None => None,
        };
        let reused = idle.is_some();
        let mut connection = match idle {
            Some(connection) => connection,
            None => {
                let patience = upstream.connect_timeout;
                let made = Box::pin(connect::http1(server, &upstream.transport, patience)).await;
                match made {
                    Ok(connection) => connection,
                    Err(error) => return Err(Failed::new(error.into())),
                }
            }
        };
        let sent = request.take().ok_or(Failed::new(SendError::Upload))?;
        let mut error = match connection.sender.try_send_request(sent).await {
            Ok(response) => {
                let kind = Kind::Http1 {
                    connection,
                    key,
                    keep: upstream.idle_timeout,
                };
                return Ok((response, kind));
            }
            Err(error) => error,
        };
        *request = error.take_message();
        // One that was closed while it was idle, as servers do, is replaced.
        if !reused || request.is_none() {
            return Err(Failed::new(SendError::of(error.into_error())));
        }
    }
}

async fn over_http2(
    upstream: &Upstream,
    server: &Arc<Server>,
    request: &mut Option<Request<Upload>>,
) -> Result<Answer, Failed> {
    let (patience, keep) = (upstream.connect_timeout, upstream.idle_timeout);
    let found = http2::acquire(server, &upstream.transport, patience, keep).await;
    let (mut sender, stream) = match found {
        Ok(found) => found,
        Err(error) => return Err(Failed::new(error)),
    };
    let mut sent = request.take().ok_or(Failed::new(SendError::Upload))?;
    http2::shape(&mut sent, server.tls);
    match sender.try_send_request(sent).await {
        Ok(response) => {
            let kind = Kind::Http2 { stream };
            Ok((response, kind))
        }
        Err(mut error) => {
            *request = error.take_message();
            let error = error.into_error();
            Err(Failed {
                unprocessed: Http2Fault::of(&error) == Some(Http2Fault::Unprocessed),
                ..Failed::new(SendError::of(error))
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
        // Nor where a token of our own may be refused, which may be fetched anew.
        let possible =
            refusable || upstream.token.is_some() || upstream.retry.may_repeat(request.method());
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
    fn new(error: SendError) -> Self {
        Self {
            error,
            unprocessed: false,
        }
    }

    /// What another attempt could mend.
    pub fn fault(&self) -> Option<Fault> {
        match &self.error {
            SendError::Connect(_) => Some(Fault::Connect),
            SendError::Reset(_) => Some(Fault::Reset),
            SendError::NoServer
            | SendError::NoToken(_)
            | SendError::Overloaded
            | SendError::Timeout
            | SendError::Protocol(_)
            | SendError::Upload => None,
        }
    }
}
