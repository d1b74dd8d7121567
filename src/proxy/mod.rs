//! Carries an admitted request to its upstream and the response back.

mod before;
mod body;
mod interim;
mod passage;
mod upgrade;

pub use body::ResponseBody;
pub use passage::Passage;

use crate::gateway::Admission;
use crate::headers;
use crate::identity::{Clock, UnixSeconds};
use crate::rejection::{Reason, Rejection};
use crate::request::Peer;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::exchange::Exchange;
use crate::upstream::{
    self, ConnectError, Connection, Protocol, Received, SendError, Upload, UploadFault,
    UploadLimits, UploadState,
};
use body::Carried;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderValue, TRAILER, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use interim::Interim;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use upgrade::{Asked, Tunnel};

/// What the client's end of a connection can do besides taking a response.
pub trait Client: fmt::Debug + Send + Sync {
    /// Passes an interim response on (RFC 9110 §15.2) if that is possible.
    fn interim(&self, status: StatusCode, fields: &HeaderMap);

    /// From here on the connection carries another protocol.
    fn switched(&self);
}

/// A request that has been admitted, and all that came with it.
#[derive(Debug)]
pub struct Errand<'a> {
    /// The decision. Without one nothing can be carried.
    pub admission: Admission,
    /// The configuration that this request sees from start to end.
    pub snapshot: &'a Snapshot,
    /// The head as it came.
    pub head: &'a mut Parts,
    /// The body as it comes, if there is one.
    pub body: Option<Received>,
    /// The other end of the connection.
    pub peer: Peer,
    /// The peer's address as text.
    pub peer_text: &'a HeaderValue,
    /// The client's certificate, if the upstream gets it.
    pub client_cert: Option<&'a HeaderValue>,
    /// The canonical path, where it differs from the one sent.
    pub path: Option<&'a str>,
    /// The client's end of the connection.
    pub client: Arc<dyn Client>,
}

/// An admitted request as it goes upstream, with what is needed until its response has ended.
///
/// It stays where it is while the request is on its way, and what carries it out refers to it: what is
/// handed from one future to the next is copied each time, and takes room in each of them.
#[derive(Debug)]
pub struct Outgoing {
    /// Gone once it has been sent.
    request: Option<Request<Upload>>,
    upload: Option<Arc<UploadState>>,
    route: Arc<Route>,
    /// What keeps it with a server of its upstream, if anything.
    key: Option<u64>,
    /// Between two reads of the client's body.
    patience: Duration,
    /// When all has to be over.
    deadline: Option<Instant>,
    client: Reader,
    /// The other protocol that the client asks for; behind [`carry`] the one that is agreed to.
    upgrade: Option<Asked>,
}

/// What is known of the client that matters for the response.
#[derive(Debug)]
struct Reader {
    end: Arc<dyn Client>,
    takes_trailers: bool,
    /// When the caller's token ends, by the clock that it is judged by.
    expires: Option<(UnixSeconds, Clock)>,
}

// === impl Errand ===

impl Errand<'_> {
    /// What keeps it with a server of its upstream, if anything.
    fn hash_key(&self) -> Option<u64> {
        let (headers, trusted) = (&self.head.headers, &self.snapshot.trusted);
        let identity = self.admission.identity.as_deref();
        let upstream = &self.admission.route.upstream;
        upstream.key(headers, identity, || trusted.client(self.peer, headers))
    }
}

/// Makes an admitted request the one that goes upstream.
///
/// # Errors
/// The reason why it cannot: too large a body, or a head that cannot be passed on as it is meant.
pub fn prepare(errand: Errand<'_>, exchange: &Exchange) -> Result<Outgoing, Rejection> {
    let route = Arc::clone(&errand.admission.route);
    let key = errand.hash_key();
    let upgrade = upgrade::asked(errand.head, errand.body.is_some(), &route.tunnel);
    let client = Reader::of(&errand, &route);
    let patience = errand.snapshot.limits.body_timeout;
    let (mut request, upload) = outgoing(errand, &route, exchange)?;
    if let Some(upgrade) = &upgrade {
        upgrade.write(request.headers_mut());
    }
    Ok(Outgoing {
        request: Some(request),
        upload,
        route,
        key,
        patience,
        deadline: None,
        client,
        upgrade,
    })
}

/// Sends it, and waits for the head of the response.
///
/// # Errors
/// The reason why there is no response: what went wrong with the client's body or the upstream.
pub async fn carry(
    outgoing: &mut Outgoing,
    exchange: &mut Exchange,
) -> Result<upstream::Dispatched, Rejection> {
    let Outgoing {
        request,
        upload,
        route,
        client,
        ..
    } = outgoing;
    let (upstream, upload) = (&route.upstream, upload.as_deref());
    let held = match request.as_mut() {
        Some(request) if before::is_held(request, route) => {
            Box::pin(before::hold_back(request, route, outgoing.patience)).await?
        }
        _ => None,
    };
    let (token, held) = match &upstream.token {
        Some(own) => before::token(own, route, held).await?,
        None => (None, held),
    };
    let now = exchange.sent(&upstream.name, upload.map(|state| Arc::clone(&state.bytes)));
    outgoing.deadline = held.or(route.timeout.map(|timeout| now + timeout));
    let interim = Arc::new(Interim::default());
    let prepare = |request: &mut Request<Upload>| {
        if upstream.transport.protocol == Protocol::Http1 {
            interim.watch(request, &client.end, route.response_headers.kept());
        }
    };
    let call = upstream::Call {
        upstream,
        key: outgoing.key,
        token,
        upload,
        prepare: &prepare,
        sent: now,
        deadline: outgoing.deadline,
    };
    let response = {
        let mut sending = pin!(upstream::send(&call, request, exchange));
        interim.unless_flooded(sending.as_mut()).await?
    };
    let dispatched = response.map_err(|error| refusal(&error, upload))?;
    upstream
        .duration
        .observe(exchange.upstream_answered().as_secs_f64());
    outgoing.upgrade = check_response(&dispatched.0, outgoing.upgrade.take())?;
    Ok(dispatched)
}

/// Refuses a response whose end can be read in two ways. Returns the change of protocol that it
/// agrees to.
fn check_response<B>(
    response: &Response<B>,
    asked: Option<Asked>,
) -> Result<Option<Asked>, Rejection> {
    let bad = |note| Err(Rejection::noted(Reason::UpstreamProtocol, note));
    let headers = response.headers();
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return match asked {
            Some(asked) if asked.is_granted(headers) => Ok(Some(asked)),
            // Whatever follows is not HTTP.
            _ => bad("an upgrade that nobody asked for"),
        };
    }
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next() {
        if headers.contains_key(CONTENT_LENGTH) {
            // RFC 9112 §6.3: an error, or an attempt at response splitting.
            return bad("Content-Length and Transfer-Encoding");
        }
        if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            // None was asked for, none is undone here, and the client is told of none.
            return bad("a transfer coding other than chunked");
        }
    }
    // RFC 9110 §8.6: what is not one number is read in different ways by different clients.
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (lengths.next().is_some() || !length.as_bytes().iter().all(u8::is_ascii_digit))
    {
        return bad("a Content-Length that is not one number");
    }
    Ok(None)
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
        client_cert: errand.client_cert,
        path: errand.path,
        request_id: exchange.request_id(),
        trace: exchange.trace(),
    };
    // Who is known has shown a token in the header, and some upstreams get one of the gateway's own
    // there (RFC 6750 §2: in one place only). A form is one if the client says so, or if the upstream
    // is told so.
    let has_token = errand.admission.identity.is_some() || route.upstream.token.is_some();
    let form_came = has_token && upstream::is_form(&errand.head.headers);
    let head = errand.head;
    passage.rewrite(head)?;
    let limits = UploadLimits {
        bytes: route.max_body,
        patience: errand.snapshot.limits.body_timeout,
        guard: &errand.snapshot.guard,
        rules: &route.request_headers,
    };
    let (mut upload, state) = Upload::new(errand.body, limits);
    if form_came || (has_token && upstream::is_form(&head.headers)) {
        upload.expect_no_token();
    }
    if state.is_some() && !head.headers.contains_key(CONTENT_LENGTH) {
        // hyper leaves out a body of unknown length where it is unusual, as with GET.
        let chunked = HeaderValue::from_static("chunked");
        head.headers.insert(TRANSFER_ENCODING, chunked);
    }
    let mut request = Request::new(upload);
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = std::mem::take(&mut head.uri);
    *request.version_mut() = head.version;
    *request.headers_mut() = std::mem::take(&mut head.headers);
    Ok((request, state))
}

fn refusal(error: &SendError, upload: Option<&UploadState>) -> Rejection {
    if let Some(fault) = upload.and_then(UploadState::fault) {
        return broken_off(fault);
    }
    let reason = match error {
        SendError::Upload => return broken_off(UploadFault::Broken),
        SendError::Connect(ConnectError::NotHttp2 | ConnectError::NoSettings)
        | SendError::Protocol(_) => Reason::UpstreamProtocol,
        SendError::Connect(_) => Reason::UpstreamConnect,
        SendError::NoServer | SendError::NoToken(_) => Reason::UpstreamUnhealthy,
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

/// The response as the client gets it. It takes what belongs to it until its last byte has gone.
pub fn respond(
    outgoing: &mut Outgoing,
    (response, connection): upstream::Dispatched,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    if let Some(upgrade) = outgoing.upgrade.take() {
        return switch(response, connection, upgrade, outgoing, exchange);
    }
    let (route, client) = (&outgoing.route, &outgoing.client);
    let (mut head, body) = response.into_parts();
    let trailer = client
        .takes_trailers
        .then(|| headers::trailers::announced_to_client(&head.headers, &route.response_headers))
        .flatten();
    headers::towards_client(
        &mut head.headers,
        &route.response_headers,
        exchange.request_id(),
    );
    if let Some(trailer) = trailer {
        head.headers.insert(TRAILER, trailer);
    }
    head.version = Version::HTTP_11;
    exchange.status(head.status);
    let carried = Carried::new(
        body,
        connection,
        outgoing.upload.take(),
        outgoing.deadline,
        route.response_headers.kept(),
    );
    Response::from_parts(head, ResponseBody::carried(carried, exchange))
}

/// Passes the upstream's agreement on, and leaves the two ends to their new protocol.
fn switch(
    mut response: Response<Incoming>,
    connection: Connection,
    asked: Asked,
    outgoing: &mut Outgoing,
    mut exchange: Box<Exchange>,
) -> Response<ResponseBody> {
    let (route, client) = (&outgoing.route, &mut outgoing.client);
    let upstream = hyper::upgrade::on(&mut response);
    let (mut head, _) = response.into_parts();
    headers::towards_client(
        &mut head.headers,
        &route.response_headers,
        exchange.request_id(),
    );
    asked.write(&mut head.headers);
    exchange.status(head.status);
    client.end.switched();
    let tunnel = Tunnel {
        ends: (asked.into_client(), upstream),
        client: Arc::clone(&client.end),
        connection,
        exchange,
        idle: route.tunnel.idle_timeout,
        expires: client.expires.take(),
    };
    tokio::spawn(tunnel.run());
    Response::from_parts(head, ResponseBody::own(Bytes::new(), None))
}

// === impl Reader ===

impl Reader {
    fn of(errand: &Errand<'_>, route: &Route) -> Self {
        let head = &*errand.head;
        let expires = errand
            .admission
            .identity
            .as_ref()
            .filter(|_| route.tunnel.close_at_expiry)
            .map(|identity| (identity.expires_at, errand.snapshot.clock.clone()));
        Self {
            end: Arc::clone(&errand.client),
            takes_trailers: head.version == Version::HTTP_2
                || headers::trailers::are_wanted(&head.headers),
            expires,
        }
    }
}
