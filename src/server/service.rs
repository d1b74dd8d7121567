//! The way of one request: view, decision, action, and exactly one record whatever happens.

use super::client::Client;
use super::decision::{Counting, Verdict, decide};
use super::id::{new_request_id, request_id};
use super::traffic::Additions;
use super::{Shared, Stage, endpoints, http2, metadata, oauth};
use crate::cors;
use crate::headers::X_REQUEST_ID;
use crate::oauth::ErrorFormat;
use crate::proxy::{self, Errand, ResponseBody};
use crate::rejection::{REALM, Reason, Rejection, ReplyContext};
use crate::request::{Peer, RequestView};
use crate::snapshot::{Route, Snapshot};
use crate::steps::Untold;
use crate::telemetry::exchange::Exchange;
use crate::upstream::Received;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CONNECTION};
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

/// A request as it came.
struct Arrived {
    head: Parts,
    /// Its body, if it has one that nobody reads yet.
    body: Option<Received>,
}

/// Answers a request. A panic in one request costs that request alone.
///
/// What answers it refers to what came instead of handing it on: a future has room for each value that
/// another one inside it has room for too.
pub(super) fn handle(
    shared: Arc<Shared>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Tracked>> {
    let (head, body) = request.into_parts();
    let body = Received::new(body, &client.arriving);
    let mut arrived = Arrived { head, body };
    async move {
        let mut additions = Additions::default();
        let persistent = arrived.head.version <= Version::HTTP_11;
        // What few requests need is boxed where it is awaited.
        let mut response = {
            let answer = pin!(answer(&shared, &client, &mut arrived, &mut additions));
            guarded(answer).await
        };
        if persistent && shared.drain.stage() != Stage::Serving {
            send_away(&mut response);
        }
        additions.put(response.headers_mut());
        response.map(|body| Tracked { body, client })
    }
}

/// The answer, or 500 in place of a panic.
async fn guarded<A>(answer: Pin<&mut A>) -> Response<ResponseBody>
where
    A: Future<Output = Response<ResponseBody>>,
{
    let answer = AssertUnwindSafe(answer).catch_unwind().await;
    answer.unwrap_or_else(|_| {
        let id = new_request_id();
        tracing::error!(request_id = id, "a request panicked");
        let rejection = Rejection::from(Reason::Internal);
        let context = ReplyContext {
            request_id: &id,
            realm: REALM,
            resource_metadata: None,
        };
        own(rejection.reply(context), &id, None)
    })
}

/// Has a client ask elsewhere next time: one that is told loses no request, as it may when an idle
/// connection is closed just as it sends one.
fn send_away<B>(response: &mut Response<B>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
    }
}

async fn answer(
    shared: &Shared,
    client: &Arc<Client>,
    arrived: &mut Arrived,
    additions: &mut Additions,
) -> Response<ResponseBody> {
    let Arrived { head, body } = arrived;
    let snapshot = shared.snapshot.load_full();
    let persistent = head.version <= Version::HTTP_11;
    let peer = client.peer(&snapshot.trusted);
    let id = request_id(&head.headers, peer);
    let trace = shared.observer.trace(&head.headers, peer.trusted);
    let mut exchange = Exchange::begin(
        &shared.observer,
        snapshot.access_policy,
        head,
        client.address.ip().to_canonical(),
        id,
        trace,
        &snapshot.outside,
    );
    exchange.set_scheme(peer.scheme());
    if let Some(flaw) = client.flaw() {
        let rejection = Rejection::noted(Reason::BadRequest, flaw.to_string());
        let refused = refuse_early(&snapshot, head, rejection, None, exchange);
        return last_if_lost(refused, client, persistent);
    }
    // hyper measures those of HTTP/1.1.
    if head.version == Version::HTTP_2 && http2::is_too_large(head, &snapshot.limits) {
        let reason = Reason::HeadersTooLarge.into();
        return refuse_early(&snapshot, head, reason, None, exchange);
    }
    if is_overloaded(&snapshot, &exchange) {
        let reason = Reason::Overloaded.into();
        return refuse_early(&snapshot, head, reason, None, exchange);
    }
    match verdict(&snapshot, head, peer, &mut exchange, additions).await {
        Ok((Verdict::Proxy(admission), path)) => {
            let errand = Errand {
                admission,
                snapshot: &snapshot,
                head,
                body: body.take(),
                peer,
                peer_text: &client.text,
                client_cert: client.tls.header.as_ref(),
                path: path.as_deref(),
                client: Arc::clone(client) as Arc<dyn proxy::Client>,
            };
            let rejection = match proxy::prepare(errand, &exchange) {
                Err(rejection) => rejection,
                // Borrowed, for it would have room in this future twice.
                Ok(ref mut outgoing) => match proxy::carry(outgoing, &mut exchange).await {
                    Err(rejection) => rejection,
                    Ok(dispatched) => return proxy::respond(outgoing, dispatched, exchange),
                },
            };
            last_if_lost(refuse(rejection, None, exchange), client, persistent)
        }
        Ok((Verdict::Token(mount), _)) => {
            let token = oauth::token(&mount, &snapshot, head, peer, body.take(), exchange);
            last_if_lost(Box::pin(token).await, client, persistent)
        }
        Ok((Verdict::Endpoint(mount, endpoint), _)) => {
            let arrived = (&*head, body.take());
            let answer = endpoints::serve(&mount, endpoint, &snapshot, arrived, exchange);
            last_if_lost(Box::pin(answer).await, client, persistent)
        }
        Ok((Verdict::Options(allow), _)) => options(&allow, exchange),
        Ok((Verdict::Preflight(route), _)) => preflight(&route, head, exchange),
        Ok((Verdict::Metadata, _)) => metadata::serve(&snapshot, head, peer, exchange),
        Ok((Verdict::InternalKeys, _)) => metadata::serve_keys(&snapshot, head, exchange),
        Ok((Verdict::Refused(Some(_), rejection), _)) => {
            refuse(rejection, metadata::url(head, peer), exchange)
        }
        Ok((Verdict::Refused(None, rejection), _)) | Err(rejection) => {
            let metadata = metadata::url(head, peer);
            refuse_early(&snapshot, head, rejection, metadata, exchange)
        }
    }
}

/// Whether more than `max_requests` are in flight, this one included.
fn is_overloaded(snapshot: &Snapshot, exchange: &Exchange) -> bool {
    let max = snapshot.limits.max_requests;
    max > 0 && usize::try_from(exchange.metrics().requests_in_flight.get()).is_ok_and(|n| n > max)
}

/// Decides, and tells the record. Besides the verdict, the canonical path where it differs from the
/// one sent.
async fn verdict(
    snapshot: &Snapshot,
    head: &Parts,
    peer: Peer,
    exchange: &mut Exchange,
    additions: &mut Additions,
) -> Result<(Verdict, Option<String>), Rejection> {
    let view = RequestView::new(head, peer, &snapshot.trusted)?;
    if let Some(client) = view.client {
        exchange.client(client);
    }
    let verdict = decide(snapshot, &view, Counting::On, &mut Untold).await;
    *additions = Additions::of(&verdict, &head.headers);
    match &verdict {
        Verdict::Proxy(admission) => {
            exchange.routed(&admission.route.metrics);
            if let Some(identity) = &admission.identity {
                exchange.identified(identity);
            }
        }
        Verdict::Token(mount) | Verdict::Endpoint(mount, _) => exchange.routed(&mount.metrics),
        Verdict::Refused(Some(route), _) | Verdict::Preflight(route) => {
            exchange.routed(&route.metrics);
        }
        Verdict::Metadata
        | Verdict::InternalKeys
        | Verdict::Options(_)
        | Verdict::Refused(None, _) => {}
    }
    Ok((verdict, view.canonical()))
}

/// Announces the close of a connection that can carry nothing more; hyper just closes it. Streams of
/// HTTP/2 end each by itself.
fn last_if_lost(
    mut response: Response<ResponseBody>,
    client: &Client,
    persistent: bool,
) -> Response<ResponseBody> {
    if persistent && client.is_lost() {
        send_away(&mut response);
    }
    response
}

/// Answers an `OPTIONS` that goes no further.
fn options(allow: &str, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // Methods are tokens, and they come from the table or are our own words.
    if let Ok(allow) = HeaderValue::from_str(allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    exchange.status(response.status());
    let id = exchange.request_id().clone();
    own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

/// Answers a browser that asks whether a page may use a route.
fn preflight(route: &Route, head: &Parts, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    // It is a preflight because it has an origin, and of this route because that has `cors`.
    if let (Some(policy), Some(origin)) = (&route.cors, cors::origin(&head.headers)) {
        policy.answer(origin, response.headers_mut());
    }
    exchange.status(response.status());
    let id = exchange.request_id().clone();
    own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

/// Refuses what no route and no endpoint has seen, in the form of the surface that it was meant for.
fn refuse_early(
    snapshot: &Snapshot,
    head: &Parts,
    rejection: Rejection,
    metadata: Option<String>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let format = snapshot.error_format(head.uri.path());
    refuse_as(format, rejection, metadata, exchange)
}

/// Answers with a refusal and hands it to the record. `metadata` is where a challenge points to.
pub(super) fn refuse(
    rejection: Rejection,
    metadata: Option<String>,
    exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    refuse_as(ErrorFormat::OAuth, rejection, metadata, exchange)
}

fn refuse_as(
    format: ErrorFormat,
    rejection: Rejection,
    metadata: Option<String>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let id = exchange.request_id().clone();
    exchange.status(rejection.reason.status());
    let context = ReplyContext {
        request_id: id.to_str().unwrap_or_default(),
        realm: REALM,
        resource_metadata: metadata.as_deref(),
    };
    let response = if exchange.is_grpc() {
        rejection.grpc_reply(context)
    } else {
        format.of(rejection.reply(context))
    };
    exchange.refused(rejection);
    own(response, id.to_str().unwrap_or_default(), Some(exchange))
}

/// A response that the gateway itself makes.
pub(super) fn own(
    response: Response<Bytes>,
    id: &str,
    exchange: Option<Box<Exchange>>,
) -> Response<ResponseBody> {
    let mut response = response.map(|bytes| ResponseBody::own(bytes, exchange));
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// A response body that tells the connection when it has ended.
#[derive(Debug)]
pub(super) struct Tracked {
    body: ResponseBody,
    client: Arc<Client>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.client.answered();
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = <ResponseBody as Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};

    fn plain() -> Response<ResponseBody> {
        own(Response::new(Bytes::from_static(b"well")), "1", None)
    }

    #[tokio::test]
    async fn a_panic_is_500_for_one_request_and_the_next_one_is_answered() {
        let step = |fails: bool| async move {
            // Behind a wait, where it is no longer the caller's stack.
            tokio::task::yield_now().await;
            assert!(!fails, "a fault of the test's making");
            plain()
        };
        for (fails, status) in [(true, 500), (false, 200), (true, 500), (false, 200)] {
            let response = guarded(pin!(step(fails))).await;
            assert_eq!(response.status(), status);
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            if !fails {
                assert_eq!(body, "well");
                continue;
            }
            assert_eq!(head.headers["content-type"], "application/problem+json");
            let id = head.headers["x-request-id"].to_str().unwrap();
            let problem: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["request_id"], json!(id));
            assert_eq!(problem["status"], json!(500));
            assert!(
                !String::from_utf8_lossy(&body).contains("fault"),
                "{problem}"
            );
        }
    }
}
