//! Table tests of the header rules.

use super::*;
use crate::identity::{Claims, Scopes};
use crate::request::TrustedProxies;
use serde_json::Value;
use serde_json::json;

fn identity(headers: &[(&'static str, &'static str)]) -> Identity {
    let claims = Claims::default();
    Identity {
        issuer: "bonterra".into(),
        scopes: Scopes::of(&claims),
        claims,
        expires_at: 0,
        not_before: None,
        bound_to: None,
        headers: headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect(),
    }
}

fn map(fields: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            value.parse().expect("a value"),
        );
    }
    headers
}

/// What an upstream gets of `fields`, without the headers that every request gets.
fn forwarded(
    fields: &[(&str, &str)],
    identity: Option<&Identity>,
    forward_token: bool,
) -> Result<Vec<String>, Reason> {
    let all = all_forwarded(fields, identity, forward_token, "192.0.2.1:5")?;
    let own = [
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
        "traceparent",
    ];
    Ok(all
        .into_iter()
        .filter(|line| !own.iter().any(|name| line.starts_with(name)))
        .collect())
}

fn all_forwarded(
    fields: &[(&str, &str)],
    identity: Option<&Identity>,
    forward_token: bool,
    peer: &str,
) -> Result<Vec<String>, Reason> {
    let mut headers = map(fields);
    let trusted = TrustedProxies::new(["10.0.0.0/8".parse().expect("a network")]);
    let peer = trusted.peer(peer.parse().expect("an address"));
    let mapped = [
        HeaderName::from_static("x-user"),
        HeaderName::from_static("x-bonterra-subject"),
    ];
    let trace = Trace::of(&headers, peer.trusted, 0.0);
    towards_upstream(
        &mut headers,
        &Forwarding {
            identity,
            guard: &IdentityGuard::new(mapped.iter()),
            rules: &HeaderRules::default(),
            forward_token,
            peer,
            peer_text: &peer.address.ip().to_string().parse().expect("a value"),
            client_cert: None,
            host: &HeaderValue::from_static("api.example.com"),
            request_id: &HeaderValue::from_static("id"),
            trace: &trace,
        },
    )
    .map_err(|rejection| rejection.reason)?;
    let mut lines: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
        .collect();
    lines.sort();
    Ok(lines)
}

#[test]
fn forged_identities_never_pass() {
    for name in [
        "X-Bonterra-Auth-Id",
        "x_bonterra_auth_id",
        "X_Bonterra-Is_Grants",
        "X-BONTERRA-ANYTHING",
        "X-Bonterra.Auth-Id",
        "x.bonterra!auth~id",
        "x-user",
        "X_User",
    ] {
        let sent = [(name, "forged"), (name, "twice"), ("accept", "*/*")];
        assert_eq!(
            forwarded(&sent, None, true),
            Ok(vec!["accept: */*".to_owned()]),
            "{name}"
        );
        let known = identity(&[("x-bonterra-auth-id", "real")]);
        let got = forwarded(&sent, Some(&known), true).expect("forwarded");
        assert_eq!(got, ["accept: */*", "x-bonterra-auth-id: real"], "{name}");
    }
}

#[test]
fn connection_cannot_remove_what_the_gateway_sets() {
    let known = identity(&[("x-bonterra-auth-id", "real")]);
    let many = ["x-bonterra-auth-id"; 20].join(", ");
    for value in ["x-bonterra-auth-id", "X-Bonterra-Auth-Id, close", &many] {
        let got = forwarded(&[("connection", value)], Some(&known), true);
        assert_eq!(
            got,
            Ok(vec!["x-bonterra-auth-id: real".to_owned()]),
            "{value}"
        );
    }
    let got = all_forwarded(
        &[("connection", "x-forwarded-for, via, x-request-id")],
        None,
        true,
        "192.0.2.1:5",
    );
    assert!(
        got.expect("forwarded")
            .contains(&"x-forwarded-for: 192.0.2.1".to_owned())
    );
    for value in ["host", "Authorization", "close, content-length"] {
        assert_eq!(
            forwarded(&[("connection", value)], None, true),
            Err(Reason::BadRequest),
            "{value}"
        );
    }
}

#[test]
fn hop_by_hop_fields_and_overrides_are_removed() {
    let sent = [
        ("keep-alive", "timeout=5"),
        ("proxy-authorization", "Basic x"),
        ("te", "trailers, gzip"),
        ("trailer", "x"),
        ("upgrade", "h2c"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("expect", "100-continue"),
        ("x-original-url", "/admin"),
        ("x-rewrite-url", "/admin"),
        ("x-http-method-override", "DELETE"),
        ("traceparent", "00-1-1-01"),
        ("x-other", "stays"),
    ];
    assert_eq!(
        forwarded(&sent, None, true),
        Ok(vec!["x-other: stays".to_owned()])
    );
}

#[test]
fn the_token_is_forwarded_only_if_asked() {
    let sent = [("authorization", "Bearer x")];
    assert_eq!(
        forwarded(&sent, None, true),
        Ok(vec!["authorization: Bearer x".to_owned()])
    );
    assert_eq!(forwarded(&sent, None, false), Ok(vec![]));
}

#[test]
fn where_a_request_came_from() {
    let sent = [
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-forwarded-proto", "https"),
    ];
    let untrusted = all_forwarded(&sent, None, true, "192.0.2.1:5").expect("forwarded");
    let plain: Vec<_> = untrusted
        .iter()
        .filter(|line| !line.starts_with("traceparent: 00-"))
        .collect();
    assert_eq!(plain.len(), untrusted.len() - 1);
    assert_eq!(
        plain,
        [
            "forwarded: for=192.0.2.1;host=\"api.example.com\";proto=http",
            "via: 1.1 bonterra-gateway",
            "x-forwarded-for: 192.0.2.1",
            "x-forwarded-host: api.example.com",
            "x-forwarded-proto: http",
            "x-request-id: id",
        ]
    );
    let trusted = all_forwarded(&sent, None, true, "10.0.0.9:5").expect("forwarded");
    assert!(
        trusted.contains(&"x-forwarded-for: 6.6.6.6, 10.0.0.9".to_owned()),
        "{trusted:?}"
    );
    assert!(
        trusted.contains(&"x-forwarded-proto: https".to_owned()),
        "{trusted:?}"
    );
    assert!(
        trusted.contains(&"forwarded: for=6.6.6.6".to_owned()),
        "{trusted:?}"
    );
}

#[test]
fn a_trace_goes_on_from_a_trusted_proxy_only() {
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = [("traceparent", parent), ("tracestate", "a=1")];
    for (peer, goes_on) in [("192.0.2.1:5", false), ("10.0.0.9:5", true)] {
        let got = all_forwarded(&sent, None, true, peer).expect("forwarded");
        let told: Vec<_> = got
            .iter()
            .filter_map(|line| line.strip_prefix("traceparent: "))
            .collect();
        assert_eq!(told.len(), 1, "{got:?}");
        assert_eq!(told[0][..36] == parent[..36], goes_on, "{got:?}");
        assert_ne!(told[0][36..52], parent[36..52], "{got:?}");
        let state = got.contains(&"tracestate: a=1".to_owned());
        assert_eq!(state, goes_on, "{got:?}");
    }
    // What comes with a traceparent that cannot be read means nothing.
    let sent = [("traceparent", "00-1-1-01"), ("tracestate", "a=1")];
    let got = all_forwarded(&sent, None, true, "10.0.0.9:5").expect("forwarded");
    assert!(!got.contains(&"tracestate: a=1".to_owned()), "{got:?}");
}

#[test]
fn claims_as_header_values() {
    for (claim, expected) in [
        (json!(true), Some("true")),
        (json!(false), Some("false")),
        (json!(42), Some("42")),
        (json!("a1b2"), Some("a1b2")),
        (json!("read:x write:y"), Some("read:x write:y")),
        (json!(" a b  "), Some("%20a b%20%20")),
        (json!("   "), Some("%20%20%20")),
        (json!("100%"), Some("100%25")),
        (json!("caf\u{e9}"), Some("caf%C3%A9")),
        (json!("a\r\nX-Evil: 1\0"), Some("a%0D%0AX-Evil: 1%00")),
        (json!("\u{7f}"), Some("%7F")),
        (json!(["a", "b", 1, true]), Some("a,b,1,true")),
        (json!(["a,b", "c"]), Some("a%2Cb,c")),
        (json!([]), Some("")),
        (json!({"a": [1, "\u{e9}"]}), Some("{\"a\":[1,\"%C3%A9\"]}")),
        (json!([["x"]]), Some("[[\"x\"]]")),
        (json!(null), None),
    ] {
        let value = encode_claim(&claim);
        assert_eq!(
            value.as_ref().map(|v| v.to_str().expect("ASCII")),
            expected,
            "{claim}"
        );
    }
}

/// The number in the token, not its neighbour: what is read is the nearest double.
#[test]
fn numbers_are_the_claims() {
    for text in [
        "8.881888888888882e+46",
        "1.8400001773400001e+27",
        "0.1",
        "1e-300",
    ] {
        let claim: Value = serde_json::from_str(text).expect("JSON");
        let value = encode_claim(&claim).expect("a value");
        let header = value.to_str().expect("ASCII");
        assert_eq!(
            header.parse::<f64>(),
            text.parse::<f64>(),
            "{text}: {header}"
        );
    }
}

#[test]
fn response_fields() {
    let mut headers = map(&[
        ("connection", "x-hop, host"),
        ("x-hop", "1"),
        ("keep-alive", "1"),
        ("etag", "x"),
    ]);
    let rules = HeaderRules {
        set: vec![(
            HeaderName::from_static("x-frame-options"),
            HeaderValue::from_static("DENY"),
        )],
        remove: vec![HeaderName::from_static("etag")],
    };
    towards_client(&mut headers, &rules, &HeaderValue::from_static("id"));
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    // `Connection` was malformed, so only the well-known hop-by-hop fields could be removed.
    assert_eq!(names, ["via", "x-frame-options", "x-hop", "x-request-id"]);
}
