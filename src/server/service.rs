//! The way of one request: view, decision, action, and exactly one record whatever happens.

use super::connection::Phase;
use super::{Shared, oauth};
use crate::gateway::{self, Admission, Decision};
use crate::headers::X_REQUEST_ID;
use crate::identity::unix_now;
use crate::proxy::{self, Errand, ResponseBody};
use crate::rejection::{Reason, Rejection, ReplyContext};
use crate::request::{Peer, RequestView};
use crate::snapshot::{Mount, Snapshot};
use crate::telemetry::exchange::Exchange;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use uuid::Uuid;

/// The realm of challenges.
pub(super) const REALM: &str = "bonterra";

/// An id from outside may not be longer than this.
const MAX_REQUEST_ID: usize = 128;

/// Answers a request. A panic in one request costs that request alone.
pub(super) async fn handle(
    shared: Arc<Shared>,
    peer: SocketAddr,
    phase: Arc<Phase>,
    request: Request<Incoming>,
) -> Response<Tracked> {
    let answer = AssertUnwindSafe(answer(&shared, peer, request))
        .catch_unwind()
        .await;
    let response = answer.unwrap_or_else(|_| {
        let id = new_request_id();
        tracing::error!(request_id = id, "a request panicked");
        reply(&Reason::Internal.into(), &id, None)
    });
    response.map(|body| Tracked { body, phase })
}

async fn answer(
    shared: &Shared,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let snapshot = shared.snapshot.load_full();
    let (head, body) = request.into_parts();
    let peer = snapshot.trusted.peer(address);
    let id = request_id(&head.headers, peer);
    let client = address.ip().to_canonical();
    let mut exchange = Exchange::begin(
        &shared.observer,
        snapshot.access_policy,
        &head,
        client,
        id,
        &snapshot.outside,
    );
    match decide(&snapshot, &head, peer, &mut exchange).await {
        Ok(Verdict::Proxy {
            admission,
            client,
            path,
        }) => {
            let errand = Errand {
                admission,
                snapshot: &snapshot,
                head,
                body,
                peer,
                client,
                path,
            };
            match proxy::carry(errand, exchange).await {
                Ok(response) => response,
                Err((rejection, exchange)) => refuse(rejection, exchange),
            }
        }
        Ok(Verdict::Token(mount)) => oauth::token(&mount, &snapshot, head, body, exchange).await,
        Err(rejection) => refuse(rejection, exchange),
    }
}

enum Verdict {
    Proxy {
        admission: Admission,
        client: IpAddr,
        /// The canonical path, where it differs from the one sent.
        path: Option<String>,
    },
    Token(Arc<Mount>),
}

/// Decides, fetching keys once in between if that is what the decision needs.
async fn decide(
    snapshot: &Snapshot,
    head: &Parts,
    peer: Peer,
    exchange: &mut Exchange,
) -> Result<Verdict, Rejection> {
    let view = RequestView::new(head, peer, &snapshot.trusted)?;
    exchange.client(view.client);
    let mut fetched = false;
    loop {
        match gateway::admit(snapshot, &view, unix_now()) {
            Decision::Admitted(admission) => {
                exchange.routed(&admission.route.metrics);
                if let Some(identity) = &admission.identity {
                    exchange.identified(identity);
                }
                let client = view.client;
                let path = match view.path {
                    Cow::Borrowed(_) => None,
                    Cow::Owned(path) => Some(path),
                };
                return Ok(Verdict::Proxy {
                    admission,
                    client,
                    path,
                });
            }
            Decision::OAuth(mount) => {
                exchange.routed(&mount.metrics);
                return Ok(Verdict::Token(mount));
            }
            Decision::NeedKeys(_, issuer) if !fetched => {
                fetched = true;
                issuer.keys.refresh_for_unknown_key().await;
            }
            Decision::NeedKeys(route, issuer) => {
                exchange.routed(&route.metrics);
                issuer.metrics.refused(&Reason::UnknownKey);
                return Err(Rejection::noted(
                    Reason::UnknownKey,
                    "no published key has the token's kid",
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

/// Answers with a refusal and hands it to the record.
pub(super) fn refuse(rejection: Rejection, mut exchange: Box<Exchange>) -> Response<ResponseBody> {
    let id = exchange.request_id().clone();
    exchange.status(rejection.reason.status());
    exchange.refused(rejection.clone());
    reply(&rejection, id.to_str().unwrap_or_default(), Some(exchange))
}

fn reply(
    rejection: &Rejection,
    id: &str,
    exchange: Option<Box<Exchange>>,
) -> Response<ResponseBody> {
    let response = rejection.reply(ReplyContext {
        request_id: id,
        realm: REALM,
        resource_metadata: None,
    });
    own(response, id, exchange)
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
        // A UUID is always a header value.
        HeaderValue::from_str(&new_request_id()).unwrap_or(HeaderValue::from_static("-"))
    })
}

pub(super) fn new_request_id() -> String {
    Uuid::now_v7().to_string()
}

/// A response body that tells the connection when it has ended.
#[derive(Debug)]
pub(super) struct Tracked {
    body: ResponseBody,
    phase: Arc<Phase>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.phase.answered();
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
