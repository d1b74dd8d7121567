//! An upstream can trust what it reads: identity comes from the gateway alone, what is between two hops ends here,
//! and nothing else is changed.

use super::{Outcome, lines};
use bonterra_gateway::headers::{
    Forwarding, HeaderRules, IdentityGuard, towards_client, towards_upstream,
};
use bonterra_gateway::identity::{Claims, Identity, Scopes};
use bonterra_gateway::request::TrustedProxies;
use bonterra_gateway::telemetry::trace::{Trace, TraceContext};
use http::{HeaderMap, HeaderName, HeaderValue};
use std::net::SocketAddr;

/// Gone after either direction (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// By which some frameworks are told of another request than the one that was checked.
const OVERRIDES: [&str; 5] = [
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// What the gateway itself says to an upstream, besides the identity.
const OWN: [&str; 7] = [
    "forwarded",
    "traceparent",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Identity headers: one by its prefix, one because an issuer maps it.
const INJECTED: [(&str, &str); 2] = [("x-bonterra-auth-id", "real"), ("x-user", "me")];

/// Which way a request goes; all eight are tried.
#[derive(Clone, Copy)]
struct Way {
    known: bool,
    forward_token: bool,
    trusted: bool,
}

/// Checks header lines, as a client or an upstream might send them.
pub fn check(data: &[u8]) -> Outcome {
    let lines = data.split(|byte| *byte == b'\n').map(lines::without_cr);
    let Some(sent) = lines::fields(lines) else {
        return Outcome::Refused;
    };
    client(&sent);
    let mut outcome = Outcome::Accepted;
    for bits in 0_u8..8 {
        let way = Way {
            known: bits & 1 != 0,
            forward_token: bits & 2 != 0,
            trusted: bits & 4 != 0,
        };
        let accepted = upstream(&sent, way);
        assert!(bits == 0 || accepted == (outcome == Outcome::Accepted));
        if !accepted {
            outcome = Outcome::Refused;
        }
    }
    outcome
}

fn upstream(sent: &HeaderMap, way: Way) -> bool {
    let proxies = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    let address = if way.trusted {
        [10, 0, 0, 1]
    } else {
        [192, 0, 2, 1]
    };
    let peer = proxies.peer(SocketAddr::from((address, 4711)));
    let identity = identity();
    let guard = IdentityGuard::new([HeaderName::from_static("x-user")].iter());
    let trace = Trace::of(sent, way.trusted, 0.0);
    let forwarding = Forwarding {
        identity: way.known.then_some(&identity),
        guard: &guard,
        rules: &HeaderRules::default(),
        forward_token: way.forward_token,
        peer,
        peer_text: &value(&peer.address.ip().to_string()),
        client_cert: None,
        host: &value("api.example.com"),
        request_id: &value("4711"),
        trace: &trace,
    };
    let mut got = sent.clone();
    if towards_upstream(&mut got, &forwarding).is_err() {
        assert!(sent.contains_key("connection"), "refused for nothing");
        return false;
    }
    identity_is_ours(&got, &guard, way);
    ends_here(sent, &got);
    facts_are_ours(&got, way);
    trace_is_ours(sent, &got, &trace, way);
    for (name, value) in &got {
        let ours = OWN.contains(&name.as_str()) || guard.forbids(name);
        let was_sent = sent.get_all(name).iter().any(|before| before == value);
        assert!(ours || was_sent, "{name} out of nothing");
    }
    if !way.forward_token {
        assert!(!got.contains_key("authorization"), "the token passed on");
    }
    nothing_else_is_lost(sent, &got, way);
    true
}

fn identity() -> Identity {
    let headers = INJECTED.map(|(name, text)| (HeaderName::from_static(name), value(text)));
    Identity {
        issuer: "bonterra".into(),
        claims: Claims::default(),
        scopes: Scopes::default(),
        expires_at: 0,
        not_before: None,
        bound_to: None,
        headers: headers.into(),
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("a value")
}

/// A name as CGI and some frameworks read it: every sign is one.
fn folded(name: &HeaderName) -> String {
    let fold = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    name.as_str()
        .to_ascii_lowercase()
        .chars()
        .map(fold)
        .collect()
}

fn is_identity(name: &HeaderName) -> bool {
    let folded = folded(name);
    folded.starts_with("x-bonterra-") || folded == "x-user"
}

fn identity_is_ours(got: &HeaderMap, guard: &IdentityGuard, way: Way) {
    let found: Vec<_> = got.iter().filter(|(name, _)| is_identity(name)).collect();
    assert_eq!(found.len(), if way.known { INJECTED.len() } else { 0 });
    for (name, value) in found {
        assert!(guard.forbids(name));
        let injected = INJECTED.iter().any(|(n, v)| name == n && value == v);
        assert!(injected, "{name} forged");
    }
}

/// Nothing between two hops, named by `Connection` or by itself.
fn ends_here(sent: &HeaderMap, got: &HeaderMap) {
    for name in HOP_BY_HOP.iter().chain(&OVERRIDES) {
        assert!(!got.contains_key(*name), "{name}");
    }
    assert!(!got.contains_key("expect"));
    for value in sent.get_all("connection") {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let Ok(name) = HeaderName::from_bytes(token.trim_ascii()) else {
                continue;
            };
            let ours = OWN.contains(&name.as_str()) || is_identity(&name);
            let plain = matches!(name.as_str(), "close" | "keep-alive");
            assert!(ours || plain || !got.contains_key(&name), "{name}");
        }
    }
}

/// Where the request came from is said by the gateway, and by others only through a trusted proxy.
fn facts_are_ours(got: &HeaderMap, way: Way) {
    let all = |name| got.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("x-request-id"), ["4711"]);
    assert_eq!(
        all("via").last().copied(),
        Some(&value("1.1 bonterra-gateway"))
    );
    if way.trusted {
        let hops = got.get("x-forwarded-for").expect("the hops");
        assert!(hops.as_bytes().ends_with(b"10.0.0.1"));
        return;
    }
    assert_eq!(all("x-forwarded-for"), ["192.0.2.1"]);
    assert_eq!(all("x-forwarded-host"), ["api.example.com"]);
    assert_eq!(all("x-forwarded-proto"), ["http"]);
    assert_eq!(all("forwarded").len(), 1);
    for name in got.keys() {
        let folded = folded(name);
        let own = OWN.contains(&name.as_str());
        assert!(own || !folded.starts_with("x-forwarded-"), "{name}");
        assert!(own || !OWN.contains(&folded.as_str()), "{name} disguised");
        assert!(!OVERRIDES.contains(&folded.as_str()), "{name} disguised");
    }
}

/// One `traceparent`, with an id of the gateway's own; what is said of the trace besides goes on only with
/// the trace of a trusted proxy.
fn trace_is_ours(sent: &HeaderMap, got: &HeaderMap, trace: &Trace, way: Way) {
    let told = TraceContext::from_headers(got).expect("one that is valid");
    assert_eq!(told, trace.context);
    let theirs = TraceContext::from_headers(sent);
    match theirs.filter(|_| way.trusted) {
        Some(theirs) => {
            assert_eq!(told.trace, theirs.trace);
            assert_ne!(told.span, theirs.span);
        }
        None => {
            assert!(theirs.is_none_or(|theirs| theirs.trace != told.trace));
            assert!(!got.contains_key("tracestate"));
        }
    }
}

/// Plain fields arrive as they were sent, in their order.
fn nothing_else_is_lost(sent: &HeaderMap, got: &HeaderMap, way: Way) {
    let plain = [
        "accept",
        "content-type",
        "cookie",
        "x-tenant",
        "authorization",
    ];
    for name in plain {
        let named = sent.get_all("connection").iter().any(|value| {
            let lower = value.as_bytes().to_ascii_lowercase();
            lower
                .split(|b| *b == b',')
                .any(|token| token.trim_ascii() == name.as_bytes())
        });
        if !named && (way.forward_token || name != "authorization") {
            assert!(sent.get_all(name).iter().eq(got.get_all(name)), "{name}");
        }
    }
}

/// The other direction.
fn client(sent: &HeaderMap) {
    let mut got = sent.clone();
    towards_client(&mut got, &HeaderRules::default(), &value("4711"));
    for name in HOP_BY_HOP {
        assert!(!got.contains_key(name), "{name}");
    }
    assert_eq!(
        got.get_all("x-request-id").iter().collect::<Vec<_>>(),
        ["4711"]
    );
}
