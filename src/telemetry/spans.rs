//! An exchange as its spans tell it: one of the server's for the whole of it, and one of the
//! client's for what the upstream had of it. Never a token, a claim, a query or a header but `Host`.

use super::metrics::RouteMetrics;
use super::trace::{SpanId, Trace};
use http::{Method, StatusCode};
use opentelemetry::trace::{SpanContext, SpanKind, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue, trace as otel};
use opentelemetry_sdk::trace::SpanData;
use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bytes of a text from outside that a span holds at most: what waits in the queue is bounded.
const MAX_TEXT: usize = 1024;

/// An exchange that is over.
#[derive(Debug)]
pub struct Finished {
    /// Its place in its trace.
    pub trace: Trace,
    /// When it ended.
    pub ended: SystemTime,
    /// How long it took.
    pub total: Duration,
    /// The method as sent.
    pub method: Method,
    /// The path as sent, without the query.
    pub path: Box<str>,
    /// The `Host` as sent.
    pub host: Option<Box<str>>,
    /// `http`, or `https` over TLS.
    pub scheme: &'static str,
    /// The client's address.
    pub client: IpAddr,
    /// The route, or what stands for none.
    pub route: Arc<RouteMetrics>,
    /// The status of the response.
    pub status: StatusCode,
    /// The reason of a refusal.
    pub reason: Option<&'static str>,
    /// What the upstream had of it.
    pub call: Option<Call>,
    /// Whether it broke off before the end of the response.
    pub aborted: bool,
}

/// What an upstream had of an exchange. Times count from the beginning of the exchange.
#[derive(Debug)]
pub struct Call {
    /// The upstream.
    pub upstream: Arc<str>,
    /// When it was asked.
    pub sent: Duration,
    /// When the head of its response was there.
    pub answered: Option<Duration>,
    /// Further attempts after the first.
    pub retries: u32,
}

/// A copy that keeps no buffer of the connection alive, and is no longer than a span may hold.
pub(super) fn copied(text: &str) -> Box<str> {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

// === impl Finished ===

impl Finished {
    /// How many spans [`Finished::spans`] makes.
    pub fn count(&self) -> u64 {
        1 + u64::from(self.call.is_some())
    }

    /// The spans: the server's, and the client's beneath it if an upstream was asked.
    ///
    /// The upstream, or the issuer on the OAuth surface, was told one span id. That is the client's
    /// span if there is one, and the server's otherwise, so what they record hangs beneath a span
    /// that is there.
    pub fn spans(self, scope: &InstrumentationScope) -> impl Iterator<Item = SpanData> {
        let started = self.ended.checked_sub(self.total).unwrap_or(self.ended);
        let told = self.trace.context.span;
        let (own, client) = match &self.call {
            None => (told, None),
            Some(call) => {
                let own = SpanId::random();
                (own, Some(self.client_span(call, own, started, scope)))
            }
        };
        let server = self.server_span(own, started, scope);
        std::iter::once(server).chain(client)
    }

    fn server_span(
        &self,
        id: SpanId,
        started: SystemTime,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let route = self.route.name();
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method_name()),
            KeyValue::new("http.response.status_code", self.code()),
            KeyValue::new("http.route", route.to_owned()),
            KeyValue::new("url.scheme", self.scheme),
            KeyValue::new("url.path", String::from(self.path.clone())),
            KeyValue::new("client.address", self.client.to_string()),
        ];
        if let Some(host) = &self.host {
            let (name, port) = split_host(host);
            attributes.push(KeyValue::new("server.address", name.to_owned()));
            attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        }
        attributes.extend(
            self.reason
                .map(|reason| KeyValue::new("gateway.reason", reason)),
        );
        if self.aborted {
            attributes.push(KeyValue::new("gateway.aborted", true));
        }
        let failed = self.status.is_server_error();
        let parent = self.trace.parent;
        SpanData {
            span_kind: SpanKind::Server,
            name: format!("{} {route}", self.verb()).into(),
            parent_span_id: parent.map_or(otel::SpanId::INVALID, span_id),
            parent_span_is_remote: parent.is_some(),
            ..self.span(id, (started, self.ended), attributes, failed, scope)
        }
    }

    /// From sending the request to the head of the response, as `upstream_duration` in the access
    /// log: how fast the client takes the rest is not the upstream's doing.
    fn client_span(
        &self,
        call: &Call,
        parent: SpanId,
        started: SystemTime,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let at = |after| started.checked_add(after).unwrap_or(started);
        let time = (at(call.sent), call.answered.map_or(self.ended, at));
        let mut attributes = vec![
            KeyValue::new("http.request.method", self.method_name()),
            KeyValue::new("gateway.upstream", Arc::clone(&call.upstream)),
        ];
        // What was answered and not refused has the upstream's own status.
        let passed_on = call.answered.is_some() && self.reason.is_none();
        if passed_on {
            attributes.push(KeyValue::new("http.response.status_code", self.code()));
        }
        if call.retries > 0 {
            let retries = i64::from(call.retries);
            attributes.push(KeyValue::new("http.request.resend_count", retries));
        }
        let failed = if passed_on {
            self.status.is_client_error() || self.status.is_server_error()
        } else {
            true
        };
        SpanData {
            span_kind: SpanKind::Client,
            name: format!("{} {}", self.verb(), call.upstream).into(),
            parent_span_id: span_id(parent),
            ..self.span(self.trace.context.span, time, attributes, failed, scope)
        }
    }

    /// What both have in common.
    fn span(
        &self,
        id: SpanId,
        (start_time, end_time): (SystemTime, SystemTime),
        mut attributes: Vec<KeyValue>,
        failed: bool,
        scope: &InstrumentationScope,
    ) -> SpanData {
        if failed {
            let kind = self.reason.map_or_else(
                || Cow::Owned(self.status.as_str().to_owned()),
                Cow::Borrowed,
            );
            attributes.push(KeyValue::new("error.type", kind));
        }
        SpanData {
            span_context: SpanContext::new(
                otel::TraceId::from_bytes(self.trace.context.trace.bytes()),
                span_id(id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: otel::SpanId::INVALID,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: Cow::Borrowed(""),
            start_time,
            end_time,
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            // The attributes say it all: a description would only repeat them.
            status: if failed {
                Status::error("")
            } else {
                Status::Unset
            },
            instrumentation_scope: scope.clone(),
        }
    }

    fn code(&self) -> i64 {
        i64::from(self.status.as_u16())
    }

    /// The method as the conventions want it: none that somebody has made up.
    fn method_name(&self) -> &'static str {
        const KNOWN: [&str; 9] = [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
        ];
        let known = KNOWN.iter().find(|known| **known == self.method.as_str());
        known.unwrap_or(&"_OTHER")
    }

    /// The method as names of spans begin with it.
    fn verb(&self) -> &'static str {
        match self.method_name() {
            "_OTHER" => "HTTP",
            known => known,
        }
    }
}

fn span_id(id: SpanId) -> otel::SpanId {
    otel::SpanId::from_bytes(id.bytes())
}

/// A `Host` without its port, and the port. What is no port stays where it is.
fn split_host(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() => match port.parse() {
            Ok(port) => (name, Some(port)),
            Err(_) => (host, None),
        },
        _ => (host, None),
    }
}

#[cfg(test)]
#[path = "spans_tests.rs"]
mod tests;
