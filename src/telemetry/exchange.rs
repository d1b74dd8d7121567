//! One exchange from head to last byte. However it ends, dropping it writes the access record and
//! counts it: no way out can forget to.

use super::access_log::{self, AccessLog, AccessPolicy, Record};
use super::metrics::{Metrics, RouteMetrics};
use super::otlp::Spans;
use super::spans::{self, Call, Finished};
use super::trace::Trace;
use crate::identity::Identity;
use crate::rejection::{Reason, Rejection, is_grpc_call};
use http::header::HOST;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

/// Where exchanges are counted and written.
#[derive(Debug)]
pub struct Observer {
    /// All metrics.
    pub metrics: Arc<Metrics>,
    /// The access log.
    pub access_log: AccessLog,
    /// Where spans go: `[telemetry]`. `None`: nowhere.
    pub spans: Option<Spans>,
}

/// What is known of an exchange so far.
#[derive(Debug)]
pub struct Exchange {
    observer: Arc<Observer>,
    policy: AccessPolicy,
    started: Instant,
    scheme: &'static str,
    client: IpAddr,
    method: Method,
    /// Target and host, if a record is going to be written or spans sent.
    asked: Option<(Uri, Option<HeaderValue>)>,
    request_id: HeaderValue,
    /// Whether the client looks for the outcome in `grpc-status`.
    grpc: bool,
    trace: Trace,
    route: Arc<RouteMetrics>,
    identity: Option<Arc<Identity>>,
    rejection: Option<Rejection>,
    upstream: Option<Arc<str>>,
    status: StatusCode,
    sent_upstream: Option<Duration>,
    answered_upstream: Option<Duration>,
    retries: u32,
    request_bytes: Option<Arc<AtomicU64>>,
    response_bytes: u64,
    complete: bool,
}

/// What stands in log and metrics for an exchange that the client left before there was an answer:
/// nobody has sent it, so it may not count as a failure of ours.
fn client_left() -> StatusCode {
    StatusCode::from_u16(499).unwrap_or(StatusCode::REQUEST_TIMEOUT)
}

// === impl Observer ===

impl Observer {
    /// The place in its trace of a request with these headers, from a peer that is believed or not.
    pub fn trace(&self, headers: &HeaderMap, trusted: bool) -> Trace {
        let sample = self.spans.as_ref().map_or(0.0, Spans::sample);
        Trace::of(headers, trusted, sample)
    }

    /// Where the spans of an exchange go, if they are recorded.
    fn recorder(&self, trace: &Trace) -> Option<&Spans> {
        self.spans.as_ref().filter(|_| trace.is_sampled())
    }
}

// === impl Exchange ===

impl Exchange {
    /// Begins with a head. `outside` are the metrics until a route is found.
    pub fn begin(
        observer: &Arc<Observer>,
        policy: AccessPolicy,
        head: &Parts,
        client: IpAddr,
        request_id: HeaderValue,
        trace: Trace,
        outside: &Arc<RouteMetrics>,
    ) -> Box<Self> {
        observer.metrics.requests_in_flight.inc();
        Box::new(Self {
            observer: Arc::clone(observer),
            policy,
            started: Instant::now(),
            scheme: "http",
            client,
            method: head.method.clone(),
            asked: (policy.enabled || observer.recorder(&trace).is_some())
                .then(|| (head.uri.clone(), head.headers.get(HOST).cloned())),
            request_id,
            // gRPC is spoken over HTTP/2 alone.
            grpc: head.version == Version::HTTP_2 && is_grpc_call(&head.headers),
            trace,
            route: Arc::clone(outside),
            identity: None,
            rejection: None,
            upstream: None,
            status: client_left(),
            sent_upstream: None,
            answered_upstream: None,
            retries: 0,
            request_bytes: None,
            response_bytes: 0,
            complete: false,
        })
    }

    /// The id of this exchange.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// The exchange's place in its trace.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Whether the client asked for the head alone.
    pub fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// Whether this is a gRPC call.
    pub fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// All metrics, for what is counted besides the exchange itself.
    pub fn metrics(&self) -> &Metrics {
        &self.observer.metrics
    }

    /// The client's address turned out to be another than the peer's.
    pub fn client(&mut self, client: IpAddr) {
        self.client = client;
    }

    /// The route was found.
    pub fn routed(&mut self, route: &Arc<RouteMetrics>) {
        self.route = Arc::clone(route);
    }

    /// The caller is known.
    pub fn identified(&mut self, identity: &Arc<Identity>) {
        self.identity = Some(Arc::clone(identity));
    }

    /// The request was refused.
    pub fn refused(&mut self, rejection: Rejection) {
        self.rejection = Some(rejection);
    }

    /// The request goes to an upstream; `bytes` counts its body. Returns the present.
    pub fn sent(&mut self, upstream: &Arc<str>, bytes: Option<Arc<AtomicU64>>) -> Instant {
        let now = Instant::now();
        self.upstream = Some(Arc::clone(upstream));
        self.sent_upstream = Some(now.saturating_duration_since(self.started));
        self.request_bytes = bytes;
        now
    }

    /// The client sends bytes of another protocol now; `bytes` counts them.
    pub fn receiving(&mut self, bytes: Arc<AtomicU64>) {
        self.request_bytes = Some(bytes);
    }

    /// The request is sent once more.
    pub fn retried(&mut self) {
        self.retries += 1;
    }

    /// The head of the upstream's response is there. Returns how long it took.
    pub fn upstream_answered(&mut self) -> Duration {
        let now = self.started.elapsed();
        self.answered_upstream = Some(now);
        now.saturating_sub(self.sent_upstream.unwrap_or(now))
    }

    /// The status that the client gets.
    pub fn status(&mut self, status: StatusCode) {
        self.status = status;
    }

    /// Bytes of the response body went out.
    pub fn wrote(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// The response ended as it should.
    pub fn completed(&mut self) {
        self.complete = true;
    }

    fn record<'a>(
        &'a self,
        uri: &'a Uri,
        host: Option<&'a HeaderValue>,
        total: Duration,
    ) -> Record<'a> {
        let sent = self.sent_upstream.unwrap_or(total);
        let answered = self.answered_upstream.unwrap_or(total);
        Record {
            time: access_log::timestamp(),
            request_id: self.request_id.to_str().unwrap_or_default(),
            trace_id: Some(self.trace.context.trace),
            client: self.client,
            method: self.method.as_str(),
            host: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
            path: uri.path(),
            route: self.route.name(),
            status: self.status.as_u16(),
            reason: self
                .rejection
                .as_ref()
                .map(|rejection| rejection.reason.as_str()),
            note: self
                .rejection
                .as_ref()
                .and_then(|rejection| rejection.note.as_deref()),
            issuer: self.identity.as_ref().map(|identity| &*identity.issuer),
            subject: self
                .identity
                .as_ref()
                .and_then(|identity| identity.subject()),
            upstream: self.upstream.as_deref(),
            duration: total.as_secs_f64(),
            upstream_duration: answered.saturating_sub(sent).as_secs_f64(),
            own_duration: sent.as_secs_f64(),
            retries: self.retries,
            request_bytes: self
                .request_bytes
                .as_ref()
                .map_or(0, |bytes| bytes.load(Relaxed)),
            response_bytes: self.response_bytes,
            aborted: !self.complete,
        }
    }

    /// It came over a connection of this scheme: `http`, or `https`.
    pub fn set_scheme(&mut self, scheme: &'static str) {
        self.scheme = scheme;
    }

    /// The exchange as its spans tell it.
    fn finished(&self, total: Duration) -> Finished {
        let asked = self.asked.as_ref();
        let host = asked.and_then(|(_, host)| host.as_ref()?.to_str().ok());
        Finished {
            trace: self.trace,
            ended: SystemTime::now(),
            total,
            method: self.method.clone(),
            path: spans::copied(asked.map_or("", |(uri, _)| uri.path())),
            host: host.map(spans::copied),
            scheme: self.scheme,
            client: self.client,
            route: Arc::clone(&self.route),
            status: self.status,
            reason: self.rejection.as_ref().map(|it| it.reason.as_str()),
            call: self.upstream.as_ref().map(|upstream| Call {
                upstream: Arc::clone(upstream),
                sent: self.sent_upstream.unwrap_or_default(),
                answered: self.answered_upstream,
                retries: self.retries,
            }),
            aborted: !self.complete,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.rejection = Some(Rejection::noted(Reason::Internal, "a panic"));
            self.status = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let total = self.started.elapsed();
        let metrics = &self.observer.metrics;
        metrics.requests_in_flight.dec();
        self.route.answered(&self.method, self.status);
        self.route.duration.observe(total.as_secs_f64());
        if let Some(Rejection { reason, .. }) = &self.rejection {
            self.route.refused(reason);
        }
        if self.policy.enabled
            && let Some((uri, host)) = &self.asked
        {
            let record = self.record(uri, host.as_ref(), total);
            self.observer.access_log.write(self.policy, &record);
        }
        if let Some(spans) = self.observer.recorder(&self.trace) {
            spans.send(self.finished(total));
        }
    }
}
