//! The table of headers. Sent through bare sockets, so that names go out as they are spelt.

use super::{AUTH_ID, assert_refusal, identity_headers, refused};
use crate::harness::h2raw::{self, H2Raw, Outcome};
use crate::harness::{CONFIG, Raw, Reply, Scripted, World};
use serde_json::json;

/// Headers outside `X-Bonterra-` are guarded as soon as an issuer maps one.
const TENANT_HEADERS: &str = r#"
[issuer.bonterra.headers]
X-Bonterra-Auth-Id = "urn:bonterra:claims:bonterra_auth_id"
X-Bonterra-Is-Grants = "urn:bonterra:claims:is_bonterra_grants"
X-Tenant = "tenant"
"#;

/// What came for a GET of this path with these header lines.
async fn get(world: &World, path: &str, token: Option<&str>, lines: &str) -> Reply {
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send(head("GET", path, token, lines)).await;
    raw.whole().await
}

fn head(method: &str, target: &str, token: Option<&str>, lines: &str) -> String {
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
    let authorization = authorization.unwrap_or_default();
    format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{authorization}{lines}\r\n")
}

fn genuine(world: &World) -> Vec<(String, String)> {
    let id = world.auth.claims()[AUTH_ID].as_str().expect("an id").into();
    vec![
        ("x-bonterra-auth-id".to_owned(), id),
        ("x-bonterra-is-grants".to_owned(), "true".to_owned()),
    ]
}

// === 1 ===

/// Sent: headers that only the gateway may set, in any case, with `_` and other signs for `-`, once,
/// twice and all at a time, on every kind of route. Expected: none arrives but the gateway's own.
#[tokio::test]
async fn row_01_client_sent_claim_headers() {
    let world = World::with(&format!("{CONFIG}{TENANT_HEADERS}")).await;
    let forged = [
        "x-bonterra-auth-id",
        "X-Bonterra-Auth-Id",
        "X-BONTERRA-AUTH-ID",
        "x_bonterra_auth_id",
        "X_Bonterra_Auth_Id",
        "x-bonterra_auth-id",
        "x_bonterra-auth_id",
        "x-bonterra-is-grants",
        "X_BONTERRA_IS_GRANTS",
        "x-bonterra-anything-else",
        "X_Bonterra_Role",
        "x-bonterra-",
        "x-tenant",
        "X_Tenant",
        // To CGI and some frameworks every sign is the same one.
        "X-Bonterra.Auth-Id",
        "X.Bonterra.Auth.Id",
        "x-bonterra!auth~id",
        "X_Bonterra.Is-Grants",
        "x.tenant",
    ];
    let token = world.auth.token();
    let genuine = genuine(&world);
    for (path, token, expected) in [
        ("/grants/1", Some(&*token), genuine.clone()),
        ("/grants/1", Some(&token), genuine.clone()),
        ("/optional/1", Some(&token), genuine),
        ("/optional/1", None, Vec::new()),
        ("/public/1", None, Vec::new()),
        ("/public/1", Some(&token), Vec::new()),
    ] {
        let each = forged.iter().map(|name| vec![*name]);
        let twice = forged.iter().map(|name| vec![*name, *name]);
        for names in each.chain(twice).chain([forged.to_vec()]) {
            let mut lines: String = names
                .iter()
                .map(|name| format!("{name}: forged\r\n"))
                .collect();
            lines.push_str("X-Own: 1\r\n");
            let reply = get(&world, path, token, &lines).await;
            assert_eq!(reply.status, 200, "{path} {names:?}: {}", reply.text());
            let mut arrived = identity_headers(&reply);
            arrived.sort();
            assert_eq!(arrived, expected, "{path} {names:?}");
            assert!(!reply.text().contains("forged"), "{path} {names:?}");
            assert_eq!(reply.upstream_saw("x-own"), ["1"], "{path} {names:?}");
        }
    }
    // A name that only resembles one passes: the guard is not a net for everything.
    let lines = "x-bonterrax: 1\r\nbonterra-auth-id: 2\r\n";
    let reply = get(&world, "/public/1", None, lines).await;
    assert_eq!(reply.upstream_saw("x-bonterrax"), ["1"]);
    assert_eq!(reply.upstream_saw("bonterra-auth-id"), ["2"]);
}

/// Sent: the same behind a body, announced and not. Expected: no trailer arrives.
#[tokio::test]
async fn row_01_client_sent_claim_headers_in_trailers() {
    let upstream = Scripted::start("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let world = World::with(&CONFIG.replace("ECHO", &upstream.url())).await;
    let token = world.auth.token();
    for (path, token) in [
        ("/public/1", None),
        ("/optional/1", None),
        ("/grants/1", Some(&*token)),
        ("/grants/1", Some(&token)),
    ] {
        for announced in ["trailer: x-bonterra-auth-id\r\nte: trailers\r\n", ""] {
            let lines = format!("transfer-encoding: chunked\r\n{announced}");
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(head("POST", path, token, &lines)).await;
            raw.send(
                "5\r\nhello\r\n0\r\nx-bonterra-auth-id: forged\r\nX-Bonterra-Is-Grants: forged\r\n\
                 X_Bonterra_Scope: forged\r\n\r\n",
            )
            .await;
            assert_eq!(raw.whole().await.status, 200, "{path}");
            let received = upstream.received().pop().expect("a request");
            let received = received.to_ascii_lowercase();
            assert!(received.contains("hello"), "{path}: {received}");
            assert!(!received.contains("forged"), "{path}: {received}");
            let body = received.split_once("\r\n\r\n").expect("a head").1;
            assert!(!body.contains("bonterra"), "{path}: {received}");
            if token.is_none() {
                assert!(!received.contains("bonterra-auth"), "{path}: {received}");
            }
        }
    }
}

// === 2 ===

/// Sent: a good token without a claim that is mapped, and the claim's header. Expected: no such
/// header arrives, rather than the client's.
#[tokio::test]
async fn row_02_claim_absent_header_sent() {
    let world = World::start().await;
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": world.auth.current_kid() });
    let mut claims = world.auth.claims();
    for name in [AUTH_ID, "scope"] {
        claims[name] = serde_json::Value::Null;
    }
    let null = world.auth.mint_raw(
        &header.to_string(),
        &claims.to_string(),
        &bonterra_gateway::demo::auth::KeyChoice::Current,
    );
    let absent = world.token_with(json!({ AUTH_ID: null, "scope": null }));
    for (case, token) in [("absent", &absent), ("null", &null)] {
        for lines in [
            "x-bonterra-auth-id: forged\r\nX_Bonterra_Scope: admin\r\n",
            "X-BONTERRA-AUTH-ID: forged\r\nx-bonterra-scope: admin\r\nx-bonterra-scope: admin\r\n",
        ] {
            for pass in ["cold", "warm"] {
                let reply = get(&world, "/grants/1", Some(token), lines).await;
                assert_eq!(reply.status, 200, "{case}, {pass}: {}", reply.text());
                let mut names: Vec<_> = identity_headers(&reply)
                    .into_iter()
                    .map(|(name, _)| name)
                    .collect();
                names.sort();
                assert_eq!(
                    names,
                    ["x-bonterra-is-grants", "x-bonterra-subject"],
                    "{case}, {pass}"
                );
            }
        }
    }
}

// === 3 ===

/// Sent: `Connection` that names the gateway's own headers, so that a careless proxy drops them.
/// Expected: they arrive all the same, and `Connection` does not.
#[tokio::test]
async fn row_03_connection_names_an_injected_header() {
    let world = World::start().await;
    let claims = world.auth.claims();
    let id = claims[AUTH_ID].as_str().expect("an id");
    let token = world.auth.token();
    let many: String = (0..20).map(|n| format!("x-none-{n}, ")).collect();
    for lines in [
        "Connection: x-bonterra-auth-id",
        "connection: X-BONTERRA-AUTH-ID",
        "CONNECTION: X-Bonterra-Auth-Id, X-Bonterra-Is-Grants, X-Bonterra-Subject",
        "Connection: close, x-bonterra-auth-id",
        "Connection: keep-alive,x-bonterra-auth-id,",
        "Connection: x_bonterra_auth_id",
        "Connection: close\r\nConnection: x-bonterra-auth-id\r\nConnection: x-bonterra-is-grants",
        "Connection: a,b,c,,x-bonterra-auth-id , x-request-id, via",
        "Connection: x-forwarded-for, x-forwarded-host, forwarded",
        &format!("Connection: {many}x-bonterra-auth-id"),
    ] {
        let lines = format!("{lines}\r\nx-none-3: 1\r\nx-bonterra-auth-id: forged\r\n");
        for pass in ["cold", "warm"] {
            let case = format!("{lines:?}, {pass}");
            let reply = get(&world, "/grants/1", Some(&token), &lines).await;
            assert_eq!(reply.status, 200, "{case}: {}", reply.text());
            assert_eq!(reply.upstream_saw("x-bonterra-auth-id"), [id], "{case}");
            assert_eq!(
                reply.upstream_saw("x-bonterra-is-grants"),
                ["true"],
                "{case}"
            );
            for name in [
                "x-bonterra-subject",
                "x-request-id",
                "via",
                "x-forwarded-for",
                "x-forwarded-host",
                "forwarded",
                "host",
                "authorization",
            ] {
                assert_eq!(reply.upstream_saw(name).len(), 1, "{name}, {case}");
            }
            assert!(reply.upstream_saw("connection").is_empty(), "{case}");
        }
    }
}

/// Sent: `Connection` that names what makes the request what it is. Expected: 400.
#[tokio::test]
async fn row_03_connection_names_host_or_authorization() {
    let world = World::start().await;
    let token = world.auth.token();
    for value in [
        "host",
        "HOST",
        "Authorization",
        "close, HOST",
        "keep-alive,authorization",
        "content-length",
        "content-LENGTH",
        "cookie",
        "x y",
        "\"host\"",
        "x-bonterra-auth-id, host",
    ] {
        let lines = format!("connection: {value}\r\n");
        let sent = head("GET", "/grants/1", Some(&token), &lines);
        refused(&world, sent, 400, "bad_request", value).await;
    }
    let lines = "Connection: x-none\r\nConnection: Authorization\r\n";
    let sent = head("GET", "/grants/1", Some(&token), lines);
    refused(&world, sent, 400, "bad_request", "in a second line").await;
}

// === 4 ===

/// Sent: everything that is meant for the next hop only (RFC 9110 §7.6.1), and what `Connection`
/// names. Expected: none of it arrives; `Via` does.
#[tokio::test]
async fn row_04_keep_alive_proxy_te_trailer_upgrade() {
    let world = World::start().await;
    let token = world.auth.token();
    let lines = concat!(
        "Connection: keep-alive, X-Private\r\nConnection: x-second\r\n",
        "X-Private: 1\r\nX-Second: 2\r\nX-Third: 3\r\n",
        "Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\n",
        "Proxy-Authenticate: Basic\r\nTE: gzip\r\nTrailer: X-Sum\r\nUpgrade: h2c\r\n",
        "Accept: text/html\r\nCookie: a=1\r\nCookie: b=2\r\n",
    );
    for (path, token) in [
        ("/grants/1", Some(&*token)),
        ("/grants/1", Some(&token)),
        ("/public/1", None),
    ] {
        let reply = get(&world, path, token, lines).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        for name in [
            "connection",
            "x-private",
            "x-second",
            "keep-alive",
            "proxy-connection",
            "proxy-authorization",
            "proxy-authenticate",
            "te",
            "trailer",
            "upgrade",
        ] {
            let arrived = reply.upstream_saw(name);
            assert!(arrived.is_empty(), "{path}: {name}: {arrived:?}");
        }
        assert_eq!(reply.upstream_saw("x-third"), ["3"]);
        assert_eq!(reply.upstream_saw("accept"), ["text/html"]);
        assert_eq!(reply.upstream_saw("cookie"), ["a=1", "b=2"]);
        assert_eq!(reply.upstream_saw("via"), ["1.1 bonterra-gateway"]);
    }
    for lines in [
        "TE: trailers\r\n",
        "TE: trailers, gzip;q=0.5\r\n",
        "Connection: TE\r\nTE: trailers, deflate\r\n",
        "TE: trailers\r\nTE: gzip\r\n",
        "te: chunked\r\n",
    ] {
        let reply = get(&world, "/public/1", None, lines).await;
        assert_eq!(reply.status, 200, "{lines:?}");
        let arrived = reply.upstream_saw("te");
        assert!(
            arrived.is_empty() || arrived == ["trailers"],
            "{lines:?}: {arrived:?}"
        );
    }
}

// === 5 ===

/// Sent by a stranger: a story about the way that the request has come. Expected: none of it is
/// believed; the gateway says what it sees.
#[tokio::test]
async fn row_05_x_forwarded_and_forwarded_from_outside() {
    let world = World::start().await;
    let lines = concat!(
        "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n",
        "X-Forwarded-Host: api.bonterra.network\r\nForwarded: for=203.0.113.7;proto=https\r\n",
        "Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        "Tracestate: vendor=1\r\nX-Request-Id: from-outside\r\nVia: 1.1 edge\r\n",
        "X-Real-IP: 203.0.113.7\r\n",
    );
    let token = world.auth.token();
    for (path, token) in [
        ("/public/x", None),
        ("/grants/1", Some(&*token)),
        ("/grants/1", Some(&token)),
    ] {
        let reply = get(&world, path, token, lines).await;
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        for (name, expected) in [
            ("x-forwarded-for", vec!["127.0.0.1"]),
            ("x-forwarded-proto", vec!["http"]),
            ("x-forwarded-host", vec!["a"]),
            ("forwarded", vec!["for=127.0.0.1;host=\"a\";proto=http"]),
            ("tracestate", vec![]),
            ("x-real-ip", vec![]),
            ("via", vec!["1.1 edge", "1.1 bonterra-gateway"]),
            ("host", vec!["a"]),
        ] {
            assert_eq!(reply.upstream_saw(name), expected, "{path}: {name}");
        }
        let [traceparent] = &*reply.upstream_saw("traceparent") else {
            panic!("{path}: one traceparent");
        };
        assert!(
            traceparent.len() == 55
                && !traceparent.contains("4bf92f3577b34da6a3ce929d0e0e4736")
                && !traceparent.contains("00f067aa0ba902b7"),
            "{path}: {traceparent}"
        );
        let id = reply.header("x-request-id").expect("an id");
        assert_eq!(
            reply.upstream_saw("x-request-id"),
            [id],
            "both sides hear the same id"
        );
        assert_ne!(id, "from-outside");
        let record = world.gateway.log.record(id).await;
        assert_eq!(record["client"], json!("127.0.0.1"), "{path}");
    }
    // In whatever spelling, and twice.
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-User",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X-Forwarded-Client-Cert",
        "X_Forwarded_For",
        "x_forwarded-host",
        "X.Forwarded.For",
        "Forwarded",
        "X-Real-IP",
        "X_Real_IP",
        "X-Request-Id",
        "X_Request_Id",
        "Traceparent",
        "Tracestate",
    ] {
        let lines = format!("{name}: forged\r\n{name}: forged\r\n");
        let reply = get(&world, "/public/1", None, &lines).await;
        assert_eq!(reply.status, 200, "{name}");
        assert!(!reply.text().contains("forged"), "{name}: {}", reply.text());
    }
}

/// Sent: headers by which some frameworks are told to see another request. Expected: they decide
/// nothing here and do not arrive.
#[tokio::test]
async fn row_05_x_original_url_x_rewrite_url_x_http_method_override() {
    let world = World::start().await;
    for name in [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_original_url",
        "X_Rewrite_URL",
        "X_HTTP_Method_Override",
        "X.Original.URL",
    ] {
        let value = match name.to_ascii_lowercase().contains("method") {
            true => "DELETE",
            false => "/grants/1",
        };
        let guarded = head("GET", "/grants/1", None, &format!("{name}: /public/1\r\n"));
        refused(&world, guarded, 401, "missing_token", name).await;
        let lines = format!("{name}: {value}\r\n");
        let reply = get(&world, "/public/1", None, &lines).await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(
            (&reply.json()["path"], &reply.json()["method"]),
            (&json!("/public/1"), &json!("GET")),
            "{name}"
        );
        let arrived = reply.upstream_saw(name);
        assert!(arrived.is_empty(), "{name}: {arrived:?}");
        // A method that the route does not have stays refused.
        let lines = format!("{name}: GET\r\n");
        let sent = head("DELETE", "/scoped/1", None, &lines);
        refused(&world, sent, 405, "method_not_allowed", name).await;
    }
}

// === 6 ===

/// Sent: heads of HTTP/2 with fields that no request may have, each with a token that is good.
/// Expected: the stream reset, 400, or the end of the connection. All the ways to be malformed are
/// in `http2::fields`.
#[tokio::test]
async fn row_06_h2_bad_pseudo_headers_upper_case_connection_method_with_a_space() {
    let world = World::start().await;
    let token = world.auth.token();
    let bearer = format!("Bearer {token}");
    let good = h2raw::pseudo("GET", "/grants/1");
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let forged = "GET /grants/1 HTTP/1.1\r\nHost: a\r\nX-Bonterra-Auth-Id: 1\r\n\r\nGET";
    for (case, list) in [
        ("no path", good[..3].to_vec()),
        ("an unknown pseudo-header", with(&[(":user", "admin")])),
        ("the path twice", with(&[(":path", "/public/1")])),
        (
            "a pseudo-header behind others",
            with(&[("a", "b"), (":method", "GET")]),
        ),
        ("upper case", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("te", with(&[("te", "gzip")])),
        ("a line break", with(&[("a", "b\r\nx-bonterra-auth-id: 1")])),
        (
            "a method with a space",
            [&[(":method", "GET /public/1")], &good[1..]].concat(),
        ),
        (
            "a method that is a request",
            [&[(":method", forged)], &good[1..]].concat(),
        ),
        (
            "userinfo",
            [&good[..2], &[(":authority", "u@a")], &good[3..]].concat(),
        ),
    ] {
        let block = h2raw::fields(&[&list[..], &[("authorization", &bearer)]].concat());
        let sent = h2raw::frame(
            h2raw::HEADERS,
            h2raw::END_HEADERS | h2raw::END_STREAM,
            1,
            &block,
        );
        for pass in ["cold", "warm"] {
            let mut raw = H2Raw::connect(world.gateway.address).await;
            raw.send(&sent).await;
            let outcome = raw.outcome(1).await;
            assert!(
                matches!(
                    outcome,
                    Outcome::Answered(400)
                        | Outcome::Reset(h2raw::PROTOCOL_ERROR)
                        | Outcome::Gone(Some(h2raw::PROTOCOL_ERROR))
                ),
                "{case}, {pass}: {outcome:?}"
            );
            if pass == "cold" {
                assert_eq!(world.authorized("/grants/2").send().await.status, 200);
            }
        }
    }
    // The upstream saw the good ones, and nothing else.
    let seen = world.echo.seen();
    assert!(
        seen.iter().all(|seen| seen.target == "/grants/2"),
        "{seen:?}"
    );
    assert_eq!(seen.len(), 12);
    // To change the protocol in the middle is not done.
    let lines =
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n";
    let reply = get(&world, "/grants/1", Some(&token), lines).await;
    assert_eq!(reply.status, 200);
    for name in ["upgrade", "http2-settings", "connection"] {
        assert!(reply.upstream_saw(name).is_empty(), "{name}");
    }
    let sent = head("GET", "/grants/1", None, lines);
    refused(&world, sent, 401, "missing_token", "h2c without a token").await;
}

// === 7 ===

/// Sent: `OPTIONS` that may go no further than here. Expected: the gateway answers (RFC 9110
/// §7.6.2).
#[tokio::test]
async fn row_07_max_forwards_0_on_options() {
    let world = World::start().await;
    let token = world.auth.token();
    for (path, token) in [
        ("/public/1", None),
        ("/grants/1", Some(&*token)),
        ("/grants/1", Some(&token)),
    ] {
        for lines in [
            "Max-Forwards: 0\r\n",
            "max-forwards: 0\r\nContent-Length: 0\r\n",
        ] {
            let before = world.echo.requests();
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(head("OPTIONS", path, token, lines)).await;
            let reply = raw.whole().await;
            assert_eq!(reply.status, 204, "{path} {lines:?}: {}", reply.text());
            assert_eq!(world.echo.requests(), before, "{path} {lines:?}");
        }
        assert_eq!(world.authorized("/grants/1").send().await.status, 200);
    }
}

/// Sent: `TRACE`, with and without `Max-Forwards`, and `CONNECT`. Expected: 405, with the methods
/// that there are.
#[tokio::test]
async fn row_07_trace_and_connect() {
    let world = World::start().await;
    let token = world.auth.token();
    for (method, target, lines) in [
        ("TRACE", "/public/1", ""),
        ("TRACE", "/public/1", "Max-Forwards: 0\r\n"),
        ("TRACE", "/public/1", "Max-Forwards: 1\r\n"),
        ("TRACE", "/grants/1", "Max-Forwards: 0\r\n"),
        ("CONNECT", "a:443", ""),
        ("CONNECT", "a:443", "Max-Forwards: 0\r\n"),
    ] {
        for token in [None, Some(&*token)] {
            let case = format!("{method} {target} {lines:?}");
            let sent = head(method, target, token, lines);
            refused(&world, sent.clone(), 405, "method_not_allowed", &case).await;
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(sent).await;
            let reply = raw.whole().await;
            assert_refusal(&reply, 405, "method_not_allowed", &case);
            let allow = reply.header("allow").expect("Allow");
            assert!(!allow.contains(method), "{case}: {allow}");
        }
    }
}
