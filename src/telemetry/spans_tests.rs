use super::*;
use crate::telemetry::metrics::Metrics;
use std::collections::BTreeMap;

fn finished() -> Finished {
    let metrics = Arc::new(Metrics::new("0", "0").expect("metrics"));
    Finished {
        trace: Trace::of(&http::HeaderMap::new(), false, 1.0),
        ended: SystemTime::UNIX_EPOCH + Duration::from_secs(10),
        total: Duration::from_secs(4),
        method: Method::GET,
        path: copied("/grants/1"),
        host: Some(copied("grants.example:8080")),
        scheme: "https",
        client: [192, 0, 2, 1].into(),
        route: Arc::new(metrics.route(&"grants".into())),
        status: StatusCode::OK,
        reason: None,
        call: Some(Call {
            upstream: "echo".into(),
            sent: Duration::from_secs(1),
            answered: Some(Duration::from_secs(3)),
            retries: 0,
        }),
        aborted: false,
    }
}

fn spans(finished: Finished) -> Vec<SpanData> {
    let count = finished.count();
    let spans: Vec<_> = finished
        .spans(&InstrumentationScope::builder("test").build())
        .collect();
    assert_eq!(spans.len() as u64, count, "as it was counted");
    spans
}

fn attributes(span: &SpanData) -> BTreeMap<&str, String> {
    let all = span.attributes.iter();
    all.map(|it| (it.key.as_str(), it.value.to_string()))
        .collect()
}

fn of<const N: usize>(pairs: [(&'static str, &str); N]) -> BTreeMap<&'static str, String> {
    pairs.map(|(key, value)| (key, value.to_owned())).into()
}

#[test]
fn a_success_is_two_spans() {
    let trace = finished().trace;
    let finished = Finished {
        trace,
        ..finished()
    };
    let told = span_id(trace.context.span);
    let spans = spans(finished);
    let [server, client] = &*spans else {
        panic!("{spans:?}")
    };
    let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    assert_eq!(server.name, "GET grants");
    assert_eq!(server.span_kind, SpanKind::Server);
    assert_eq!((server.start_time, server.end_time), (at(6), at(10)));
    assert_eq!(server.parent_span_id, otel::SpanId::INVALID);
    assert_eq!(server.status, Status::Unset);
    assert_eq!(
        attributes(server),
        of([
            ("client.address", "192.0.2.1"),
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("http.route", "grants"),
            ("server.address", "grants.example"),
            ("server.port", "8080"),
            ("url.path", "/grants/1"),
            ("url.scheme", "https"),
        ])
    );
    assert_eq!(client.name, "GET echo");
    assert_eq!(client.span_kind, SpanKind::Client);
    assert_eq!((client.start_time, client.end_time), (at(7), at(9)));
    assert_eq!(client.span_context.span_id(), told, "the upstream knows it");
    assert_eq!(client.parent_span_id, server.span_context.span_id());
    assert_ne!(server.span_context.span_id(), told);
    assert_eq!(
        client.span_context.trace_id(),
        server.span_context.trace_id()
    );
    assert_eq!(client.status, Status::Unset);
    assert_eq!(
        attributes(client),
        of([
            ("gateway.upstream", "echo"),
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
        ])
    );
}

/// Whether server and client span say that something failed, and of what type.
#[test]
fn what_counts_as_failed() {
    let call = |answered: bool| {
        let call = finished().call;
        call.map(|call| Call {
            answered: call.answered.filter(|_| answered),
            ..call
        })
    };
    for (status, reason, call, server, client) in [
        (200, None, call(true), None, Some(None)),
        (404, None, call(true), None, Some(Some("404"))),
        (500, None, call(true), Some("500"), Some(Some("500"))),
        (401, Some("missing_token"), None, None, None),
        (
            503,
            Some("keys_unavailable"),
            None,
            Some("keys_unavailable"),
            None,
        ),
        (
            502,
            Some("upstream_connect"),
            call(false),
            Some("upstream_connect"),
            Some(Some("upstream_connect")),
        ),
        // An answer that could not be passed on.
        (
            502,
            Some("upstream_protocol"),
            call(true),
            Some("upstream_protocol"),
            Some(Some("upstream_protocol")),
        ),
        (
            413,
            Some("body_too_large"),
            call(false),
            None,
            Some(Some("body_too_large")),
        ),
    ] {
        let case = format!("{status} {reason:?}");
        let made = spans(Finished {
            status: StatusCode::from_u16(status).expect("a status"),
            reason,
            call,
            ..finished()
        });
        let shown = |span: &SpanData| {
            let kind = attributes(span).get("error.type").cloned();
            assert_eq!(kind.is_some(), span.status == Status::error(""), "{case}");
            kind
        };
        let server_span = &made[0];
        assert_eq!(shown(server_span).as_deref(), server, "{case}");
        assert_eq!(
            attributes(server_span)
                .get("gateway.reason")
                .map(String::as_str),
            reason,
            "{case}"
        );
        let client_type = made.get(1).map(shown);
        assert_eq!(client_type.as_ref().map(Option::as_deref), client, "{case}");
        if let Some(client) = made.get(1) {
            let code = attributes(client).contains_key("http.response.status_code");
            assert_eq!(code, reason.is_none(), "{case}: only the upstream's own");
        }
    }
}

#[test]
fn what_was_told_hangs_beneath_a_span_that_is_there() {
    let alone = Finished {
        call: None,
        ..finished()
    };
    let told = span_id(alone.trace.context.span);
    let spans = spans(alone);
    assert_eq!(spans.len(), 1);
    assert_eq!(spans[0].span_context.span_id(), told);
}

#[test]
fn what_is_out_of_the_ordinary_is_said() {
    let mut odd = finished();
    odd.method = Method::from_bytes(b"BREW").expect("a method");
    odd.aborted = true;
    odd.host = None;
    odd.path = copied(&"/é".repeat(1000));
    odd.call = odd.call.map(|call| Call { retries: 2, ..call });
    let spans = spans(odd);
    let server = attributes(&spans[0]);
    assert_eq!(spans[0].name, "HTTP grants");
    assert_eq!(server["http.request.method"], "_OTHER");
    assert_eq!(server["gateway.aborted"], "true");
    assert!(!server.contains_key("server.address"));
    let path = &server["url.path"];
    assert!((MAX_TEXT - 1..=MAX_TEXT).contains(&path.len()), "{path}");
    assert_eq!(attributes(&spans[1])["http.request.resend_count"], "2");
    for (host, name, port) in [
        ("a", "a", None),
        ("a:80", "a", Some(80)),
        ("a:http", "a:http", None),
        ("[::1]:80", "[::1]", Some(80)),
        ("[::1]", "[::1]", None),
        (":80", ":80", None),
        ("", "", None),
    ] {
        assert_eq!(split_host(host), (name, port), "{host}");
    }
}
