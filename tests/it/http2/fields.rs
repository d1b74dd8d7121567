//! Heads of requests that no client may send: a stream error, 400, or the end of the connection, and
//! nothing of it upstream.

use super::world;
use crate::harness::h2link::{H2Link, get};
use crate::harness::h2raw::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, H2Raw, HEADERS, Outcome, fields, frame,
};
use crate::harness::{World, eventually};
use http::Request;
use serde_json::json;

type Fields<'f> = Vec<(&'f str, &'f str)>;

const GOOD: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "a"),
    (":path", "/public/1"),
];

/// A good head, and more behind it.
fn with<'f>(more: &[(&'f str, &'f str)]) -> Fields<'f> {
    [&GOOD[..], more].concat()
}

/// A good head with another value of a pseudo-header; `None` leaves it out.
fn but<'f>(name: &'f str, value: Option<&'f str>) -> Fields<'f> {
    let changed = |(own, before): (&'f str, &'f str)| match value {
        _ if own != name => Some((own, before)),
        value => value.map(|value| (own, value)),
    };
    GOOD.into_iter().filter_map(changed).collect()
}

/// Sends a request with these fields on a connection of its own.
async fn outcome(world: &World, list: &[(&str, &str)]) -> Outcome {
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &fields(list)))
        .await;
    raw.outcome(1).await
}

/// Checks that each is turned away, at first and behind a good one, and that the upstream has seen
/// only the good ones.
async fn refused(world: &World, cases: Vec<(&str, Fields<'_>)>) {
    let mut good = 0;
    for (case, list) in cases {
        for pass in ["at first", "behind a good one"] {
            let outcome = outcome(world, &list).await;
            let turned_away = match outcome {
                Outcome::Answered(status) => status == 400,
                Outcome::Reset(code) => code == h2raw::PROTOCOL_ERROR,
                Outcome::Gone(code) => code == Some(h2raw::PROTOCOL_ERROR),
            };
            assert!(turned_away, "{case}, {pass}: {outcome:?}");
            if pass == "at first" {
                let mut link = H2Link::connect(world.gateway.address).await;
                assert_eq!(link.get("/public/good").await.status, 200, "{case}");
                good += 1;
            }
        }
    }
    let seen = world.echo.seen();
    let bad: Vec<_> = seen.iter().filter(|s| s.target != "/public/good").collect();
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(world.echo.requests(), good);
}

#[tokio::test]
async fn a_plain_head_is_served() {
    let world = World::start().await;
    for list in [
        with(&[]),
        with(&[("host", "a")]),
        with(&[("te", "trailers")]),
        with(&[("content-length", "0")]),
        with(&[("user-agent", "Ünicode is fine in a value")]),
        but(":authority", Some("A.Example:80")),
        but(":scheme", Some("https")),
        [&but(":authority", None)[..], &[("host", "a")]].concat(),
    ] {
        assert_eq!(
            outcome(&world, &list).await,
            Outcome::Answered(200),
            "{list:?}"
        );
    }
}

#[tokio::test]
async fn malformed_pseudo_headers() {
    let world = World::start().await;
    let cases = vec![
        ("no path", but(":path", None)),
        (
            "no path and no authority",
            vec![GOOD[0], GOOD[1], ("host", "a")],
        ),
        ("an empty path", but(":path", Some(""))),
        ("the path twice", with(&[(":path", "/public/2")])),
        ("no method", but(":method", None)),
        ("no scheme", but(":scheme", None)),
        ("an unknown one", with(&[(":user", "admin")])),
        ("that of an answer", with(&[(":status", "200")])),
        ("a protocol", with(&[(":protocol", "websocket")])),
        (
            "one behind others",
            with(&[("a", "b"), (":authority", "b")]),
        ),
        (
            "a method with a space",
            but(":method", Some("GET /public/2")),
        ),
        (
            "a method that is a request",
            but(
                ":method",
                Some("GET /public/1 HTTP/1.1\r\nHost: a\r\n\r\nGET"),
            ),
        ),
        ("an empty method", but(":method", Some(""))),
        ("a scheme that is none", but(":scheme", Some("ht tp"))),
        ("userinfo", but(":authority", Some("u@a"))),
        ("userinfo and a password", but(":authority", Some("u:p@a"))),
        ("an authority with a path", but(":authority", Some("a/b"))),
        (
            "an authority with a line break",
            but(":authority", Some("a\r\nx: y")),
        ),
        ("an empty authority", but(":authority", Some(""))),
        ("no authority and no host", but(":authority", None)),
        ("another host", with(&[("host", "b")])),
        ("the host twice", with(&[("host", "a"), ("host", "a")])),
        ("a host with userinfo", with(&[("host", "u@a")])),
    ];
    refused(&world, cases).await;
}

#[tokio::test]
async fn malformed_paths() {
    let world = World::start().await;
    let paths = [
        "public/1",
        "*",
        "http://a/public/1",
        "//public/1",
        "/public/ü",
        "/public/1?ü",
        "/public/a b",
        "/public/1 HTTP/1.1\r\nHost: a\r\n\r\nGET /public/2",
        "/public/1?a\0",
        "/public/../grants/1",
        "/public/%2e%2e/grants/1",
        "/public/1;x",
        "/public\\1",
        "/public/\u{7f}",
    ];
    refused(
        &world,
        paths.map(|path| (path, but(":path", Some(path)))).to_vec(),
    )
    .await;
}

/// hyper's reader leaves a fragment out before anybody can see it. What is judged is what goes
/// upstream: the path in front of it.
#[tokio::test]
async fn a_fragment_changes_nothing_about_what_is_judged_and_sent() {
    let world = World::start().await;
    for (path, expected) in [
        ("/public/1#/../grants/1", Outcome::Answered(200)),
        ("/public/1?q#x", Outcome::Answered(200)),
        ("/grants/1#/public/1", Outcome::Answered(401)),
    ] {
        let outcome = outcome(&world, &but(":path", Some(path))).await;
        let turned_away = matches!(outcome, Outcome::Answered(400) | Outcome::Reset(_));
        assert!(outcome == expected || turned_away, "{path}: {outcome:?}");
    }
    for seen in world.echo.seen() {
        assert!(
            ["/public/1", "/public/1?q"].contains(&&*seen.target),
            "{seen:?}"
        );
    }
}

#[tokio::test]
async fn malformed_fields() {
    let world = World::start().await;
    let cases = vec![
        ("upper case", with(&[("X-Upper", "1")])),
        ("a name with a space", with(&[("a b", "1")])),
        ("a name with a colon", with(&[("a:b", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("a line break", with(&[("a", "b\r\nx-bonterra-auth-id: 1")])),
        ("a bare LF", with(&[("a", "b\nc: d")])),
        ("a bare CR", with(&[("a", "b\rc")])),
        ("NUL", with(&[("a", "b\0")])),
        ("a line break in a name", with(&[("a\r\nx", "b")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("te", with(&[("te", "gzip")])),
        ("te and more", with(&[("te", "trailers, gzip")])),
        ("a length and no body", with(&[("content-length", "5")])),
        (
            "a length that is no number",
            with(&[("content-length", "x")]),
        ),
        ("a length with a sign", with(&[("content-length", "+0")])),
        ("no length", with(&[("content-length", "")])),
        (
            "the length twice",
            with(&[("content-length", "0"), ("content-length", "0")]),
        ),
        ("a list of lengths", with(&[("content-length", "0, 0")])),
    ];
    refused(&world, cases).await;
}

/// The length that was announced is the length that there is, or the upstream does not get a whole
/// request.
#[tokio::test]
async fn a_body_that_is_not_as_long_as_announced() {
    let world = World::start().await;
    for (length, body) in [("5", "123"), ("5", "1234567"), ("5", ""), ("0", "1")] {
        let head = [
            &h2raw::pseudo("POST", "/public/1")[..],
            &[("content-length", length)],
        ]
        .concat();
        let mut raw = H2Raw::connect(world.gateway.address).await;
        let sent = [
            frame(HEADERS, END_HEADERS, 1, &fields(&head)),
            frame(DATA, END_STREAM, 1, body.as_bytes()),
        ];
        raw.send(sent.concat()).await;
        let outcome = raw.outcome(1).await;
        let refused = matches!(
            outcome,
            Outcome::Answered(400) | Outcome::Reset(h2raw::PROTOCOL_ERROR) | Outcome::Gone(Some(_))
        );
        assert!(refused, "{length} {body:?}: {outcome:?}");
    }
    eventually("nothing is left of them", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    let seen = world.echo.seen();
    assert!(seen.iter().all(|seen| !seen.complete), "{seen:?}");
}

/// Trailers are held to the same.
#[tokio::test]
async fn malformed_trailers() {
    let world = World::start().await;
    for (name, value) in [("connection", "a"), ("Upper", "1"), ("a", "b\r\nc: d")] {
        let mut raw = H2Raw::connect(world.gateway.address).await;
        let trailers = fields(&[(name, value)]);
        let sent = [
            h2raw::post(1, "/public/1"),
            frame(DATA, 0, 1, b"body"),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        ];
        raw.send(sent.concat()).await;
        let outcome = raw.outcome(1).await;
        let refused = matches!(
            outcome,
            Outcome::Answered(400) | Outcome::Reset(_) | Outcome::Gone(Some(_))
        );
        assert!(refused, "{name}: {outcome:?}");
    }
    let seen = world.echo.seen();
    assert!(seen.iter().all(|seen| !seen.complete), "{seen:?}");
    // A pseudo-header in them hyper's reader leaves out: they change nothing.
    let mut raw = H2Raw::connect(world.gateway.address).await;
    let trailers = fields(&[(":path", "/public/2"), (":method", "DELETE")]);
    let sent = [
        h2raw::post(1, "/public/1"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
    ];
    raw.send(sent.concat()).await;
    raw.outcome(1).await;
    let seen = world.echo.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.target == "/public/1" && seen.method == "POST"),
        "{seen:?}"
    );
}

#[tokio::test]
async fn no_tunnel_is_opened() {
    let world = World::start().await;
    let connect = vec![(":method", "CONNECT"), (":authority", "a:443")];
    let extended = [&but(":method", Some("CONNECT"))[..], &[("a", "b")]].concat();
    let websocket = {
        let mut list = vec![(":protocol", "websocket")];
        list.extend(but(":method", Some("CONNECT")));
        list
    };
    for list in [connect, extended, websocket, but(":method", Some("TRACE"))] {
        let outcome = outcome(&world, &list).await;
        let refused = matches!(
            outcome,
            Outcome::Answered(405 | 400) | Outcome::Reset(h2raw::PROTOCOL_ERROR)
        );
        assert!(refused, "{list:?}: {outcome:?}");
    }
    assert_eq!(world.echo.requests(), 0);
}

#[tokio::test]
async fn heads_over_a_limit_are_431_and_recorded() {
    let world = world("max_headers = 20\nmax_header_bytes = \"8KiB\"").await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let with = |count: usize, size: usize| {
        let mut request = get("/public/1");
        for n in 0..count {
            let name: http::HeaderName = format!("x-{n}").parse().expect("a name");
            let value = "v".repeat(size).parse().expect("a value");
            request.headers_mut().insert(name, value);
        }
        request
    };
    // hyper's client adds nothing of its own, and `Host` is made of `:authority`.
    for (count, size, status) in [
        (19, 1, 200),
        (20, 1, 431),
        (1, 7800, 200),
        (1, 8192, 431),
        (10, 1000, 431),
    ] {
        let reply = link.send(with(count, size)).await;
        assert_eq!(reply.status, status, "{count} of {size}: {}", reply.text());
        if status == 431 {
            crate::harness::assert_refused(&world.gateway, &reply, 431, "headers_too_large", "-")
                .await;
        }
    }
    // Twice as much never becomes a request; four times ends the connection.
    let far = link.try_send(with(15, 1200)).await;
    assert!(far.is_err() || far.is_ok_and(|reply| reply.status == 431));
    assert_eq!(link.get("/public/1").await.status, 200, "the others go on");
    let _ = link.try_send(with(19, 4000)).await;
    assert_eq!(world.echo.requests(), 3);
    let mut link = H2Link::connect(world.gateway.address).await;
    let long = format!("/public/{}", "a".repeat(8192));
    assert_eq!(link.get(&long).await.status, 431);
    assert_eq!(world.echo.requests(), 3);
}

/// A head may come in any number of frames, with nothing else between them.
#[tokio::test]
async fn a_head_in_pieces() {
    let world = World::start().await;
    let block = fields(&with(&[("x-a", "b")]));
    let cut = |between: &[u8]| {
        [
            &frame(HEADERS, END_STREAM, 1, &block[..10])[..],
            &frame(CONTINUATION, 0, 1, &[]),
            &frame(CONTINUATION, 0, 1, &block[10..20]),
            between,
            &frame(CONTINUATION, END_HEADERS, 1, &block[20..]),
        ]
        .concat()
    };
    let mut raw = H2Raw::connect(world.gateway.address).await;
    raw.send(cut(&[])).await;
    assert_eq!(raw.outcome(1).await, Outcome::Answered(200));
    assert_eq!(world.echo.seen()[0].headers["x-a"], "b");
    for between in [
        frame(h2raw::PING, 0, 0, &[0; 8]),
        h2raw::get(3, "/public/3"),
        frame(DATA, 0, 1, b"x"),
        frame(CONTINUATION, 0, 3, &[]),
    ] {
        let mut raw = H2Raw::connect(world.gateway.address).await;
        raw.send(cut(&between)).await;
        assert_eq!(
            raw.outcome(1).await,
            Outcome::Gone(Some(h2raw::PROTOCOL_ERROR))
        );
    }
    assert_eq!(world.echo.requests(), 1);
}

/// Neither protocol is a way around what the other one is asked for.
#[tokio::test]
async fn identity_is_the_same_in_both() {
    let world = World::start().await;
    let mut link = H2Link::connect(world.gateway.address).await;
    let token = world.auth.token();
    let bearer = format!("Bearer {token}");
    let two = Request::get("/grants/1")
        .header("authorization", &bearer)
        .header("authorization", &bearer)
        .body(crate::harness::link::nothing())
        .expect("a request");
    let reply = link.send(two).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.json()["reason"], json!("multiple_tokens"));
    let good = Request::get("/grants/1")
        .header("authorization", &bearer)
        .header("x-bonterra-auth-id", "forged")
        .header("x_bonterra_auth_id", "forged")
        .body(crate::harness::link::nothing())
        .expect("a request");
    let (new, old) = (
        link.send(good).await,
        world.authorized("/grants/1").send().await,
    );
    assert_eq!(new.status, 200);
    let seen = |reply| crate::adversary::identity_headers(reply);
    assert_eq!(seen(&new), seen(&old));
    assert_eq!(world.echo.requests(), 2);
}
