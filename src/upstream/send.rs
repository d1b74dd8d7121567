//! A request on its way to one server of an upstream, or to another one if that fails.

use super::breaker::InFlight;
use super::error::Http2Fault;
use super::pool::{Connection, Dispatched, Key, Kind, take};
use super::replay::Replay;
use super::retry::{self, Attempt, Fault};
use super::spare::Spare;
use super::transport::Protocol;
use super::{NoServer, Report, SendError, Server, Upload, UploadState, Upstream, connect, http2};
use crate::telemetry::exchange::Exchange;
use http::header::UPGRADE;
use http::{Method, Request};
use http_body::Body as _;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

/// What is known of a request besides itself.
#[derive(Debug)]
pub struct Call<'a> {
    /// Where it goes.
    pub upstream: &'a Upstream,
    /// What keeps it with a server, if anything: [`Upstream::key`].
    pub key: Option<u64>,
    /// How its body fares.
    pub upload: Option<&'a UploadState>,
    /// The present.
    pub sent: Instant,
    /// When all attempts have to be over.
    pub deadline: Option<Instant>,
}

/// What it takes to send a request again.
struct Second {
    spare: Spare,
    replay: Replay,
    idempotent: bool,
}

/// Where an attempt stands.
struct Attempted<'a> {
    /// The server that it asks, once it has a place there.
    asked: &'a mut Option<Arc<Server>>,
    /// Those that were asked before.
    tried: &'a [u64],
    began: Instant,
}

/// Why an attempt brought nothing, and what is left of its request.
struct Failed {
    error: SendError,
    /// The server that was asked, if it came to that.
    server: Option<u64>,
    /// The request, if nothing of it was sent.
    unsent: Option<Request<Upload>>,
    /// Whether the server says that it has not worked on it.
    unprocessed: bool,
}

/// Sends a request to one of the upstream's servers, and once more as the rules of its retries allow.
///
/// An idle connection that its server has closed meanwhile is replaced without being counted as a
/// retry, as long as nothing of the request was written to it, or sending it twice does no harm.
///
/// # Errors
/// See [`SendError`]: that of the last attempt.
pub async fn send(
    call: Call<'_>,
    mut request: Request<Upload>,
    exchange: &mut Exchange,
) -> Result<Dispatched, SendError> {
    let retry = &call.upstream.retry;
    retry.budget.request();
    let idempotent = retry::is_idempotent(request.method());
    let second = Second::of(&mut request, call.upstream);
    let (mut number, mut began, mut tried) = (1, call.sent, Vec::new());
    loop {
        let mut asked = None;
        let attempt = Attempted {
            asked: &mut asked,
            tried: &tried,
            began,
        };
        let attempt = one(&call, request, second.as_ref(), attempt, exchange);
        let outcome = call.in_time(began, attempt).await;
        if let Some(server) = asked {
            call.report(&server, &outcome);
        }
        let outcome = outcome?;
        let (fault, untouched) = match &outcome {
            Ok((response, _)) => (Some(Fault::Status(response.status())), false),
            Err(failed) => (failed.fault(), failed.untouched()),
        };
        let unsent = outcome
            .as_ref()
            .err()
            .is_some_and(|failed| failed.unsent.is_some());
        let replayable = unsent
            || second
                .as_ref()
                .is_some_and(|second| second.replay.is_whole());
        let again = fault.is_some_and(|fault| {
            retry.allows(&Attempt {
                number,
                fault,
                untouched,
                idempotent,
                replayable,
            })
        });
        if number > 1 {
            let failed = match &outcome {
                Ok((response, _)) => retry.on.statuses.contains(&response.status()),
                Err(_) => true,
            };
            let counts = &retry.counts;
            let count = if failed {
                &counts.failure
            } else {
                &counts.success
            };
            count.inc();
        }
        let allowed = again && retry.budget.retry();
        if again && !allowed {
            retry.counts.budget.inc();
        }
        if !allowed {
            return outcome.map_err(|failed| failed.error);
        }
        let (server, left) = leave(outcome, call.upload);
        let next = left.or_else(|| second.as_ref().and_then(Second::again));
        let Some(next) = next else {
            return Err(SendError::Upload);
        };
        request = next;
        tried.extend(server);
        number += 1;
        exchange.retried();
        began = Instant::now();
    }
}

/// Ends an attempt that another one follows: the server that was asked, and the request if nothing of it
/// was sent.
fn leave(
    outcome: Result<Dispatched, Failed>,
    upload: Option<&UploadState>,
) -> (Option<u64>, Option<Request<Upload>>) {
    match outcome {
        Err(failed) => (failed.server, failed.unsent),
        Ok((response, connection)) => {
            let server = connection.in_flight.0.id;
            if response.body().is_end_stream() && upload.is_none_or(UploadState::done) {
                connection.reuse();
            }
            (Some(server), None)
        }
    }
}

/// One attempt, at one server.
async fn one(
    call: &Call<'_>,
    request: Request<Upload>,
    second: Option<&Second>,
    attempt: Attempted<'_>,
    exchange: &mut Exchange,
) -> Result<Dispatched, Failed> {
    let (upstream, now) = (call.upstream, attempt.began);
    let place = match place(call, attempt.tried).await {
        Ok(place) => place,
        Err(error) => return Err(Failed::before(error, None, request)),
    };
    let server = &*attempt.asked.insert(Arc::clone(&place.0));
    match upstream.transport.protocol {
        Protocol::Http1 => {
            over_http1(upstream, server, place, request, second, now, exchange).await
        }
        Protocol::Http2 => over_http2(upstream, server, place, request).await,
    }
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
    upstream
        .breaker
        .enter(&chosen, upstream.connect_timeout)
        .await
}

async fn over_http1(
    upstream: &Upstream,
    server: &Arc<Server>,
    place: InFlight,
    mut request: Request<Upload>,
    second: Option<&Second>,
    now: Instant,
    exchange: &mut Exchange,
) -> Result<Dispatched, Failed> {
    let key = Key::of(server, &upstream.transport);
    let mut fresh = false;
    loop {
        let idle = if fresh { None } else { take(key, now).await };
        let reused = idle.is_some();
        let mut sender = match idle {
            Some(sender) => sender,
            None => match connect::http1(server, &upstream.transport, upstream.connect_timeout)
                .await
            {
                Ok(sender) => sender,
                Err(error) => return Err(Failed::before(error.into(), Some(server.id), request)),
            },
        };
        let mut error = match sender.try_send_request(request).await {
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
        let unsent = error.take_message();
        let error = SendError::of(error.into_error());
        // Closed while it was idle, as servers do.
        let next = match (reused, unsent) {
            (true, Some(unsent)) => Ok(unsent),
            (true, None) if matches!(error, SendError::Reset(_)) => {
                // The next one is new: a server that closes whatever is asked of it is not stale.
                fresh = true;
                second
                    .filter(|second| second.idempotent)
                    .and_then(Second::again)
                    .ok_or(None)
            }
            (_, unsent) => Err(unsent),
        };
        request = match next {
            Ok(next) => next,
            Err(unsent) => return Err(Failed::during(error, server.id, unsent)),
        };
        exchange.retried();
    }
}

async fn over_http2(
    upstream: &Upstream,
    server: &Arc<Server>,
    place: InFlight,
    mut request: Request<Upload>,
) -> Result<Dispatched, Failed> {
    let (patience, keep) = (upstream.connect_timeout, upstream.idle_timeout);
    let found = http2::acquire(server, &upstream.transport, patience, keep).await;
    let (mut sender, stream) = match found {
        Ok(found) => found,
        Err(error) => return Err(Failed::before(error.into(), Some(server.id), request)),
    };
    http2::shape(&mut request, server.tls);
    match sender.try_send_request(request).await {
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
            let unsent = error.take_message();
            let error = error.into_error();
            let unprocessed = Http2Fault::of(&error) == Some(Http2Fault::Unprocessed);
            let failed = Failed::during(SendError::of(error), server.id, unsent);
            Err(Failed {
                unprocessed,
                ..failed
            })
        }
    }
}

// === impl Call ===

impl Call<'_> {
    /// Tells the server how the attempt ended.
    fn report(&self, server: &Server, outcome: &Result<Result<Dispatched, Failed>, SendError>) {
        let report = match outcome {
            Ok(Ok((response, _))) => Some(Report::Answered(response.status())),
            // It says itself that it has not worked on it: one that goes in good order.
            Ok(Err(failed)) if failed.unprocessed => None,
            Ok(Err(failed)) => failed.error.report(),
            // The next byte was the client's to send.
            Err(_) if self.upload.is_some_and(UploadState::waits_for_client) => None,
            Err(error) => error.report(),
        };
        if let Some(report) = report {
            server.report(report);
        }
    }

    /// Waits for an attempt, as long as the deadlines allow.
    ///
    /// `response_timeout` counts from what the upstream last took of the request. While the next byte
    /// is the client's to send, the upstream is not to blame: `body_timeout` watches the client.
    async fn in_time<T>(
        &self,
        began: Instant,
        attempt: impl Future<Output = T>,
    ) -> Result<T, SendError> {
        let mut attempt = pin!(attempt);
        let mut now = began;
        loop {
            let since = match self.upload {
                None => began,
                Some(upload) if upload.waits_for_client() => now,
                Some(upload) => upload.last_moved().max(began),
            };
            let silent = since + self.upstream.response_timeout;
            let due = self
                .deadline
                .map_or(silent, |deadline| deadline.min(silent));
            if due <= now {
                return Err(SendError::Timeout);
            }
            if let Ok(outcome) = pingora_timeout::timeout(due - now, attempt.as_mut()).await {
                return Ok(outcome);
            }
            now = Instant::now();
        }
    }
}

// === impl Second ===

impl Second {
    /// Keeps what is needed, if there can be a second attempt after the first one was sent.
    fn of(request: &mut Request<Upload>, upstream: &Upstream) -> Option<Self> {
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
            idempotent: retry::is_idempotent(request.method()),
        })
    }

    fn again(&self) -> Option<Request<Upload>> {
        self.replay.again().map(|body| self.spare.request(body))
    }
}

// === impl Failed ===

impl Failed {
    /// Nothing was sent.
    fn before(error: SendError, server: Option<u64>, request: Request<Upload>) -> Self {
        Self {
            error,
            server,
            unsent: Some(request),
            unprocessed: false,
        }
    }

    fn during(error: SendError, server: u64, unsent: Option<Request<Upload>>) -> Self {
        Self {
            error,
            server: Some(server),
            unsent,
            unprocessed: false,
        }
    }

    fn untouched(&self) -> bool {
        self.unsent.is_some() || self.unprocessed
    }

    /// What another attempt could mend.
    fn fault(&self) -> Option<Fault> {
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
