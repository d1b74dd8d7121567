//! The way of one request: view, decision, action, and exactly one record whatever happens.

use super::client::Client;
use super::{Shared, metadata, oauth};
use crate::authn::Need;
use crate::authn::opaque::{self, Finding, Question};
use crate::gateway::{self, Admission, Decision};
use crate::headers::X_REQUEST_ID;
use crate::proxy::{self, Errand, ResponseBody};
use crate::rejection::{REALM, Reason, Rejection, ReplyContext};
use crate::request::{Peer, RequestView};
use crate::snapshot::{Mount, Snapshot};
use crate::steps::Untold;
use crate::telemetry::exchange::Exchange;
use crate::upstream::Received;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CONNECTION};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};
use uuid::{Builder, Uuid};

/// An id from outside may not be longer than this.
const MAX_REQUEST_ID: usize = 128;

/// Answers a request. A panic in one request costs that request alone.
pub(super) async fn handle(
    shared: Arc<Shared>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Response<Tracked> {
    let answer = AssertUnwindSafe(answer(&shared, &client, request))
        .catch_unwind()
        .await;
    let response = answer.unwrap_or_else(|_| {
        let id = new_request_id();
        tracing::error!(request_id = id, "a request panicked");
        let rejection = Rejection::from(Reason::Internal);
        let context = ReplyContext {
            request_id: &id,
            realm: REALM,
            resource_metadata: None,
        };
        own(rejection.reply(context), &id, None)
    });
    response.map(|body| Tracked { body, client })
}

async fn answer(
    shared: &Shared,
    client: &Client,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();
    let body = Received::new(body, &client.arriving);
    let peer = snapshot.trusted.peer(client.address);
    let id = request_id(&head.headers, peer);
    let mut exchange = Exchange::begin(
        &shared.observer,
        snapshot.access_policy,
        &head,
        client.address.ip().to_canonical(),
        id,
        &snapshot.outside,
    );
    if let Some(flaw) = client.flaw() {
        let rejection = Rejection::noted(Reason::BadRequest, flaw.to_string());
        let mut response = refuse(rejection, None, exchange);
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        return response;
    }
    match decide(&snapshot, &head, peer, &mut exchange).await {
        Ok(Verdict::Proxy { admission, path }) => {
            let errand = Errand {
                admission,
                snapshot: &snapshot,
                head,
                body,
                peer,
                peer_text: &client.text,
                path,
            };
            match proxy::carry(errand, exchange).await {
                Ok(response) => response,
                Err((rejection, exchange)) => refuse(rejection, None, exchange),
            }
        }
        Ok(Verdict::Token(mount)) => oauth::token(&mount, &snapshot, head, body, exchange).await,
        Ok(Verdict::Metadata) => metadata::serve(&snapshot, &head, peer, exchange),
        Ok(Verdict::Options(allow)) => options(&allow, exchange),
        Err(rejection) => refuse(rejection, metadata::url(&head, peer), exchange),
    }
}

enum Verdict {
    Proxy {
        admission: Admission,
        /// The canonical path, where it differs from the one sent.
        path: Option<String>,
    },
    Token(Arc<Mount>),
    Metadata,
    Options(Box<str>),
}

/// Decides. In between fetches keys or asks an issuer, once, if that is what the decision needs.
async fn decide(
    snapshot: &Snapshot,
    head: &Parts,
    peer: Peer,
    exchange: &mut Exchange,
) -> Result<Verdict, Rejection> {
    let view = RequestView::new(head, peer, &snapshot.trusted)?;
    if let Some(client) = view.client {
        exchange.client(client);
    }
    let (mut refreshed, mut finding) = (None, None);
    loop {
        let (now, steps) = (snapshot.clock.now(), &mut Untold);
        match gateway::admit_with(snapshot, &view, finding.as_ref(), now, steps) {
            Decision::Admitted(admission) => {
                exchange.routed(&admission.route.metrics);
                if let Some(identity) = &admission.identity {
                    exchange.identified(identity);
                }
                let path = match view.path {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(path) => Some(path),
                };
                return Ok(Verdict::Proxy { admission, path });
            }
            Decision::OAuth(mount) => {
                exchange.routed(&mount.metrics);
                return Ok(Verdict::Token(mount));
            }
            Decision::Metadata => return Ok(Verdict::Metadata),
            Decision::Options(allow) => return Ok(Verdict::Options(allow)),
            Decision::Needs(_, Need::Keys(issuer)) if refreshed.is_none() => {
                refreshed = Some(issuer.keys.refresh_for_unknown_key().await);
            }
            Decision::Needs(route, Need::Keys(issuer)) => {
                exchange.routed(&route.metrics);
                let rejection = if refreshed == Some(true) {
                    let note = "no published key has the token's kid";
                    Rejection::noted(Reason::UnknownKey, note)
                } else {
                    let note = "the token's kid is unknown and the keys could not be refreshed";
                    Rejection::noted(Reason::KeysUnavailable, note)
                };
                issuer.metrics.refused(&rejection.reason);
                return Err(rejection);
            }
            Decision::Needs(route, Need::Introspection(question)) if finding.is_none() => {
                match introspect(snapshot, question).await {
                    Ok(found) => finding = Some(found),
                    Err(rejection) => {
                        exchange.routed(&route.metrics);
                        return Err(rejection);
                    }
                }
            }
            Decision::Needs(route, Need::Introspection(_)) => {
                // What was found is about this very token and issuer, so this cannot be.
                exchange.routed(&route.metrics);
                return Err(Rejection::noted(
                    Reason::Internal,
                    "asked, and none the wiser",
                ));
            }
            Decision::Refused(route, rejection) => {
                if let Some(route) = route {
                    exchange.routed(&route.metrics);
                }
                return Err(rejection);
            }
        }
    }
}

/// Has an issuer asked about a token, and its answer judged. A decision that is given what came of
/// it does not need it again.
async fn introspect(snapshot: &Snapshot, question: Question) -> Result<Finding, Rejection> {
    let (known, clock) = (Arc::clone(&snapshot.tokens), snapshot.clock.clone());
    let Question {
        issuer,
        introspection,
        token,
        digest,
    } = question;
    let judge = move |reply| opaque::judge(&issuer, digest, reply, &known, clock.now());
    introspection.ask(token, digest, judge).await
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

/// Answers with a refusal and hands it to the record. `metadata` is where a challenge points to.
pub(super) fn refuse(
    rejection: Rejection,
    metadata: Option<String>,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let id = exchange.request_id().clone();
    exchange.status(rejection.reason.status());
    let response = rejection.reply(ReplyContext {
        request_id: id.to_str().unwrap_or_default(),
        realm: REALM,
        resource_metadata: metadata.as_deref(),
    });
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

/// The id of an exchange: a trusted proxy's, or a new one that sorts by time.
fn request_id(headers: &HeaderMap, peer: Peer) -> HeaderValue {
    let believed = headers.get(X_REQUEST_ID).filter(|id| {
        peer.trusted
            && !id.is_empty()
            && id.len() <= MAX_REQUEST_ID
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
    });
    believed.cloned().unwrap_or_else(|| {
        let mut text = [0; 36];
        let id = new_id().hyphenated().encode_lower(&mut text);
        // A UUID is always a header value.
        HeaderValue::from_str(id).unwrap_or(HeaderValue::from_static("-"))
    })
}

pub(super) fn new_request_id() -> String {
    new_id().to_string()
}

/// A UUID of version 7 (RFC 9562 §5.7): sorts by time. Ids name requests and guard nothing, so the
/// fast generator will do, and the library's own `now_v7` would share a lock between workers.
fn new_id() -> Uuid {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or(0), &random)
        .into_uuid()
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
