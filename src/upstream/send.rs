//! A request on its way to one server of an upstream, or to another one if that fails.

use super::attempt::{Answer, Failed, Second, one, place};
use super::breaker::InFlight;
use super::pool::{Connection, Dispatched};
use super::retry::{self, Attempt, Fault};
use super::{Report, SendError, Server, Token, Upload, UploadState, Upstream};
use crate::telemetry::exchange::Exchange;
use futures_util::future::{Either, select};
use http::{Request, StatusCode};
use http_body::Body as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Instant;

/// What is known of a request besides itself.
pub struct Call<'a> {
    /// Where it goes.
    pub upstream: &'a Arc<Upstream>,
    /// What keeps it with a server, if anything: [`Upstream::key`].
    pub key: Option<u64>,
    /// The gateway's own token for the upstream, if it has to have one.
    pub token: Option<Arc<Token>>,
    /// How its body fares.
    pub upload: Option<&'a UploadState>,
    /// Done to the request of each attempt before it is sent.
    pub prepare: &'a (dyn Fn(&mut Request<Upload>) + Send + Sync),
    /// The present.
    pub sent: Instant,
    /// When all attempts have to be over.
    pub deadline: Option<Instant>,
}

/// What there is for another attempt.
struct Left<'a> {
    /// Whether nothing of the request was sent.
    unsent: bool,
    second: Option<&'a Second>,
    idempotent: bool,
}

/// How an attempt ended: with a response, with a failure of its own, or because its time was over.
type Outcome = Result<Result<Answer, Failed>, SendError>;

/// Sends a request to one of the upstream's servers, and once more as the rules of its retries allow.
/// It is taken from where it is once something of it is sent.
///
/// One that the upstream refuses with 401 because of the gateway's own token is sent once more with a fresh one.
///
/// An idle connection that its server has closed meanwhile is replaced without being counted as a
/// retry, as long as nothing of the request was written to it.
///
/// # Errors
/// See [`SendError`]: that of the last attempt.
pub async fn send(
    call: &Call<'_>,
    request: &mut Option<Request<Upload>>,
    exchange: &mut Exchange,
) -> Result<Dispatched, SendError> {
    let retry = &call.upstream.retry;
    retry.budget.request();
    let first = request.as_mut().ok_or(SendError::Upload)?;
    let idempotent = retry::is_idempotent(first.method());
    let second = Second::of(first, call.upstream);
    let (mut number, mut began, mut tried) = (1, call.sent, Vec::new());
    let (mut token, mut renewed) = (call.token.clone(), false);
    loop {
        let next = request.as_mut().ok_or(SendError::Upload)?;
        (call.prepare)(next);
        let ready = match place(call, &tried, began).await {
            Ok(place) => call.authorize(&mut token, next).await.map(|()| place),
            Err(error) => Err(error),
        };
        let place = match ready {
            Ok(place) => place,
            Err(error) => {
                if number > 1 {
                    retry.counts.failure.inc();
                }
                return Err(error);
            }
        };
        // Who was at the other end of kept connections may be gone for all of them.
        let idle = tried.is_empty().then_some(began);
        let outcome = {
            let attempt = pin!(one(call, request, &place, idle));
            call.in_time(began, attempt).await
        };
        call.report(place.server(), &outcome);
        if number > 1 {
            call.count(&outcome);
        }
        let outcome = outcome?;
        if let Some(sent) = token.as_ref().filter(|_| !renewed)
            && is_refusal(&outcome)
            && let Some(fresh) = Box::pin(call.fresh(sent, second.as_ref())).await
        {
            (token, renewed) = (Some(fresh), true);
            leave(outcome, place, call.upload);
            *request = second.as_ref().and_then(Second::again);
            exchange.retried();
            began = Instant::now();
            continue;
        }
        let left = Left {
            unsent: request.is_some(),
            second: second.as_ref(),
            idempotent,
        };
        if !call.again(number, &outcome, &left) {
            let answered = outcome.map_err(|failed| failed.error);
            return answered.map(|(response, kind)| (response, Connection::new(kind, place)));
        }
        tried.push(place.server().id);
        leave(outcome, place, call.upload);
        if request.is_none() {
            *request = second.as_ref().and_then(Second::again);
        }
        number += 1;
        exchange.retried();
        began = Instant::now();
    }
}

/// Ends an attempt that another one follows.
fn leave(outcome: Result<Answer, Failed>, place: InFlight, upload: Option<&UploadState>) {
    if let Ok((response, kind)) = outcome {
        let connection = Connection::new(kind, place);
        if !upload.is_none_or(UploadState::done) {
            connection.cut();
        } else if response.body().is_end_stream() {
            connection.reuse();
        }
    }
}

/// Whether the upstream does not take whoever asks for who he is. Whatever the method, it has not applied
/// the request then (RFC 9110 §15.5.2).
fn is_refusal(outcome: &Result<Answer, Failed>) -> bool {
    matches!(outcome, Ok((response, _)) if response.status() == StatusCode::UNAUTHORIZED)
}

// === impl Call ===

impl Call<'_> {
    /// Writes the gateway's own token, if there is one: another, if it has ended while the request waited
    /// for its place, or for an attempt before.
    async fn authorize(
        &self,
        token: &mut Option<Arc<Token>>,
        request: &mut Request<Upload>,
    ) -> Result<(), SendError> {
        let (Some(own), Some(token)) = (&self.upstream.token, token) else {
            return Ok(());
        };
        if !own.is_good(token) {
            let another = Box::pin(own.wait(self.deadline)).await;
            *token = another.map_err(SendError::NoToken)?;
        }
        token.write(request.headers_mut());
        Ok(())
    }

    /// Another token in place of one that the upstream has refused, if the request can be sent again.
    async fn fresh(&self, sent: &Arc<Token>, second: Option<&Second>) -> Option<Arc<Token>> {
        let own = self.upstream.token.as_ref()?;
        let is_whole = || second.is_some_and(Second::is_whole);
        if !own.refused(sent) || !is_whole() {
            return None;
        }
        let fresh = own.wait(self.deadline).await.ok()?;
        // The upload has gone on meanwhile, and may have become too much to be kept.
        is_whole().then_some(fresh)
    }

    /// Tells the server how the attempt ended.
    fn report(&self, server: &Server, outcome: &Outcome) {
        // What came of a request that was broken off on this side says nothing of the server.
        if self.upload.and_then(UploadState::fault).is_some() {
            return;
        }
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

    /// Counts what came of a retry.
    fn count(&self, outcome: &Outcome) {
        let retry = &self.upstream.retry;
        let failed = match outcome {
            Ok(Ok((response, _))) => retry.on.statuses.contains(&response.status()),
            Ok(Err(_)) | Err(_) => true,
        };
        let counts = &retry.counts;
        if failed {
            counts.failure.inc();
        } else {
            counts.success.inc();
        }
    }

    /// Whether there is another attempt. Takes it from the budget.
    fn again(&self, number: u32, outcome: &Result<Answer, Failed>, left: &Left<'_>) -> bool {
        let (fault, untouched) = match outcome {
            Ok((response, _)) => (Some(Fault::Status(response.status())), false),
            Err(failed) => (failed.fault(), left.unsent || failed.unprocessed),
        };
        let Some(fault) = fault else {
            return false;
        };
        let attempt = Attempt {
            number,
            fault,
            untouched,
            idempotent: left.idempotent,
            replayable: left.unsent || left.second.is_some_and(Second::is_whole),
        };
        let retry = &self.upstream.retry;
        let late = self
            .deadline
            .is_some_and(|deadline| deadline <= Instant::now());
        if late || !retry.allows(&attempt) {
            return false;
        }
        let allowed = retry.budget.retry();
        if !allowed {
            retry.counts.budget.inc();
        }
        allowed
    }

    /// Waits for an attempt, as long as the deadlines allow.
    ///
    /// `response_timeout` counts from what the upstream last took of the request. While the next byte
    /// is the client's to send, the upstream is not to blame: `body_timeout` watches the client.
    ///
    /// # Errors
    /// [`SendError::Timeout`].
    pub(super) async fn in_time<T>(
        &self,
        began: Instant,
        mut attempt: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, SendError> {
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
            // In place: `pingora_timeout::timeout` has its timer on the heap, twice.
            let late = pin!(pingora_timeout::sleep(due - now));
            if let Either::Left((outcome, _)) = select(attempt.as_mut(), late).await {
                return Ok(outcome);
            }
            now = Instant::now();
        }
    }
}
