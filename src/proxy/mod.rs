//! Carries an admitted request to its upstream and the response back.

mod body;
mod passage;

pub use body::ResponseBody;
pub use passage::Passage;

use crate::gateway::Admission;
use crate::headers;
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::exchange::Exchange;
use crate::upstream::{self, ConnectError, Received, SendError, Upload, UploadFault, UploadState};
use body::Carried;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A request that has been admitted, and all that came with it.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The decision. Without one nothing can be carried.
    pub admission: Admission,
    /// The configuration that this request sees from start to end.
    pub snapshot: &'a Snapshot,
    /// The head as it came.
    pub head: Parts,
    /// The body as it comes.
    pub body: Received,
    /// The other end of the connection.
    pub peer: Peer,
    /// The peer's address as text.
    pub peer_text: &'a HeaderValue,
    /// The canonical path, where it differs from the one sent.
    pub path: Option<String>,
}

/// Carries out an errand.
///
/// # Errors
/// The reason why there is no response: too large a body, or what went wrong with the upstream.
pub async fn carry(
    errand: Errand<'_>,
    mut exchange: Box<Exchange>,
) -> Result<Response<ResponseBody>, (Rejection, Box<Exchange>)> {
    let route = Arc::clone(&errand.admission.route);
    match dispatch(errand, &route, &mut exchange).await {
        Err(rejection) => Err((rejection, exchange)),
        Ok(outcome) => Ok(respond(outcome, &route, exchange)),
    }
}

/// A response head with what is needed to pass on the rest.
struct Outcome {
    dispatched: upstream::Dispatched,
    upload: Option<Arc<UploadState>>,
    deadline: Option<Instant>,
}

async fn dispatch(
    errand: Errand<'_>,
    route: &Route,
    exchange: &mut Exchange,
) -> Result<Outcome, Rejection> {
    let upstream = &route.upstream;
    let patience = errand.snapshot.limits.body_timeout;
    let (mut request, upload) = outgoing(errand, route, exchange)?;
    let held = hold_back(request.body_mut(), route, patience).await?;
    let now = exchange.sent(
        &upstream.name,
        upload.as_ref().map(|state| Arc::clone(&state.bytes)),
    );
    let deadline = held.or(route.timeout.map(|timeout| now + timeout));
    let call = upstream::Call {
        upstream,
        upload: upload.as_deref(),
        sent: now,
        deadline,
    };
    let dispatched = upstream::send(call, request, exchange)
        .await
        .map_err(|error| refusal(&error, upload.as_deref()))?;
    upstream
        .duration
        .observe(exchange.upstream_answered().as_secs_f64());
    check_response(&dispatched.0)?;
    Ok(Outcome {
        dispatched,
        upload,
        deadline,
    })
}

/// Searches the beginning of a body that may hold no token, before anything is sent. What the client
/// takes for that is taken off the route's `timeout`: the deadline that is left, if it had to be waited
/// for and there is one.
///
/// All of it has to come within `patience`, which is otherwise the time between two reads: there may
/// be no `timeout`, and what is held back must not be held by a byte now and then.
async fn hold_back(
    upload: &mut Upload,
    route: &Route,
    patience: Duration,
) -> Result<Option<Instant>, Rejection> {
    if !upload.is_searched() {
        return Ok(None);
    }
    let deadline = route.timeout.map(|timeout| Instant::now() + timeout);
    let patience = route
        .timeout
        .map_or(patience, |timeout| timeout.min(patience));
    let held = pingora_timeout::timeout(patience, upload.hold_back()).await;
    held.unwrap_or(Err(UploadFault::Stalled))
        .map_err(broken_off)?;
    Ok(deadline)
}

/// Refuses a response whose end can be read in two ways.
fn check_response<B>(response: &Response<B>) -> Result<(), Rejection> {
    let bad = |note| Err(Rejection::noted(Reason::UpstreamProtocol, note));
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        // No upgrade was asked for: whatever follows is not HTTP.
        return bad("an upgrade that nobody asked for");
    }
    let headers = response.headers();
    if headers.contains_key(TRANSFER_ENCODING) && headers.contains_key(CONTENT_LENGTH) {
        // RFC 9112 §6.3: an error, or an attempt at response splitting.
        return bad("Content-Length and Transfer-Encoding");
    }
    // RFC 9110 §8.6: what is not one number is read in different ways by different clients.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return bad("a Content-Length that is not one number");
    }
    Ok(())
}

/// The request as the upstream gets it.
fn outgoing(
    errand: Errand<'_>,
    route: &Route,
    exchange: &Exchange,
) -> Result<(Request<Upload>, Option<Arc<UploadState>>), Rejection> {
    let passage = Passage {
        admission: &errand.admission,
        snapshot: errand.snapshot,
        peer: errand.peer,
        peer_text: errand.peer_text,
        path: errand.path.as_deref(),
        request_id: exchange.request_id(),
    };
    // Who is known has shown a token in the header (RFC 6750 §2: in one place only). A form is one
    // if the client says so, or if the upstream is told so.
    let identified = errand.admission.identity.is_some();
    let form_came = identified && upstream::is_form(&errand.head.headers);
    let mut head = passage.head(errand.head)?;
    let patience = errand.snapshot.limits.body_timeout;
    let (mut upload, state) = Upload::new(errand.body, route.max_body, patience);
    if form_came || (identified && upstream::is_form(&head.headers)) {
        upload.expect_no_token();
    }
    if state.is_some() && !head.headers.contains_key(CONTENT_LENGTH) {
        // hyper leaves out a body of unknown length where it is unusual, as with GET.
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(TRANSFER_ENCODING, chunked);
    }
    let mut request = Request::new(upload);
    *request.method_mut() = head.method;
    *request.uri_mut() = head.uri;
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers;
    Ok((request, state))
}

fn refusal(error: &SendError, upload: Option<&UploadState>) -> Rejection {
    if let Some(fault) = upload.and_then(UploadState::fault) {
        return broken_off(fault);
    }
    let reason = match error {
        SendError::Upload => return broken_off(UploadFault::Broken),
        SendError::Connect(ConnectError::NotHttp2) | SendError::Protocol(_) => {
            Reason::UpstreamProtocol
        }
        SendError::Connect(_) | SendError::NoServer => Reason::UpstreamConnect,
        SendError::Overloaded => Reason::Overloaded,
        SendError::Timeout => Reason::UpstreamTimeout,
        SendError::Reset(_) => Reason::UpstreamReset,
    };
    Rejection::noted(reason, error.to_string())
}

fn broken_off(fault: UploadFault) -> Rejection {
    match fault {
        UploadFault::TooLarge => Reason::BodyTooLarge.into(),
        UploadFault::Stalled => Reason::RequestTimeout.into(),
        UploadFault::Broken => Rejection::noted(Reason::BadRequest, fault.to_string()),
        UploadFault::SecondToken => Rejection::noted(Reason::MultipleTokens, fault.to_string()),
    }
}

fn respond(outcome: Outcome, route: &Route, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let (response, connection) = outcome.dispatched;
    let (mut head, body) = response.into_parts();
    headers::towards_client(
        &mut head.headers,
        &route.response_headers,
        exchange.request_id(),
    );
    head.version = Version::HTTP_11;
    exchange.status(head.status);
    let carried = Carried::new(body, connection, outcome.upload, outcome.deadline);
    Response::from_parts(head, ResponseBody::carried(carried, exchange))
}
