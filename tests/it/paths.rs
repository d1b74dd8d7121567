//! Paths and hosts in every spelling: the decision of the canonical one or 400, and the upstream
//! gets what was matched.

use crate::harness::{CONFIG, Raw, Reply, World};
use serde_json::json;

/// A guarded path beside a catch-all: whoever slips past the guard ends there.
const ROUTES: &str = r#"
[[route]]
name = "admin"
path = "/admin/*"
upstream = "echo"

[[route]]
name = "everything"
path = "/*"
upstream = "echo"
auth = "none"

[[route]]
name = "user"
path = "/users/{id}"
upstream = "echo"
auth = "none"

[[route]]
name = "stripped"
path = "/strip/*"
upstream = "echo"
auth = "none"
strip_prefix = "/strip"

[[route]]
name = "hosted"
path = "/hosted/*"
hosts = ["api.example.com"]
upstream = "echo"
auth = "none"
"#;

async fn world() -> World {
    World::with(&format!("{CONFIG}{ROUTES}")).await
}

/// Sends a target as it is, on a connection of its own.
async fn send(world: &World, target: impl AsRef<[u8]>, headers: &str) -> Reply {
    let mut raw = Raw::connect(world.gateway.address).await;
    let end = format!(" HTTP/1.1\r\n{headers}\r\n");
    raw.send([b"GET ", target.as_ref(), end.as_bytes()].concat())
        .await;
    raw.whole().await
}

async fn route_of(world: &World, reply: &Reply) -> String {
    let id = reply.header("x-request-id").expect("an id");
    let record = world.gateway.log.record(id).await;
    record["route"].as_str().expect("a route").to_owned()
}

fn assert_bad(reply: &Reply, case: &str) {
    assert_eq!(reply.status, 400, "{case}: {}", reply.text());
    assert_eq!(reply.json()["reason"], "bad_request", "{case}");
}

#[tokio::test]
async fn another_spelling_gets_the_decision_of_the_canonical_one() {
    let world = world().await;
    let bearer = format!(
        "host: a\r\nauthorization: Bearer {}\r\n",
        world.auth.token()
    );
    for (target, canonical) in [
        ("/admin/1", "/admin/1"),
        ("/admin", "/admin"),
        ("/admin/", "/admin/"),
        ("/%61dmin/1", "/admin/1"),
        ("/%61%64%6D%69%6e/1", "/admin/1"),
        ("/admi%6e/%31", "/admin/1"),
        ("/admin/a%2Db%5f%7e", "/admin/a-b_~"),
        ("/admin/a%2eb", "/admin/a.b"),
        ("/admin/...", "/admin/..."),
        ("/admin/caf%c3%a9", "/admin/caf%C3%A9"),
        ("/admin/auth0%7c507f", "/admin/auth0%7C507f"),
        ("/admin/a%20b", "/admin/a%20b"),
        ("/%61dmin/1?q=%61", "/admin/1?q=%61"),
    ] {
        let before = world.echo.requests();
        let anonymous = send(&world, target, "host: a\r\n").await;
        assert_eq!(
            (anonymous.status, &anonymous.json()["reason"]),
            (401, &json!("missing_token")),
            "{target}"
        );
        assert_eq!(world.echo.requests(), before, "{target}");
        let admitted = send(&world, target, &bearer).await;
        assert_eq!(admitted.status, 200, "{target}");
        assert_eq!(admitted.json()["path"], canonical, "{target}");
        assert_eq!(route_of(&world, &admitted).await, "admin", "{target}");
    }
}

#[tokio::test]
async fn a_path_that_can_be_read_in_two_ways_is_refused() {
    let world = world().await;
    let bearer = format!(
        "host: a\r\nauthorization: Bearer {}\r\n",
        world.auth.token()
    );
    for target in [
        // dot segments
        "/..",
        "/.",
        "/public/../admin/1",
        "/public/./1",
        "/admin/..",
        "/admin/1/..",
        "/admin/.",
        "/./admin/1",
        "/../admin/1",
        "/public/%2e%2e/admin/1",
        "/public/%2E%2E/admin/1",
        "/public/.%2e/admin/1",
        "/public/%2e./admin/1",
        "/%2e/admin/1",
        "/%2e%2e",
        // encoded twice
        "/public/%252e%252e/admin/1",
        "/%2561dmin/1",
        "/admin%252f1",
        "/public/..%252fadmin/1",
        // empty segments
        "//admin/1",
        "///admin/1",
        "/public//admin/1",
        "/admin//1",
        "/admin/1//",
        // other separators
        "/admin%2f1",
        "/admin%2F1",
        "/public/..%2fadmin/1",
        "/public%2f..%2fadmin/1",
        "/admin%5c1",
        "/public/..%5cadmin/1",
        "/admin\\1",
        "/public\\..\\admin\\1",
        "\\admin\\1",
        // path parameters
        "/admin;x",
        "/admin;x/1",
        "/admin;/1",
        "/;/admin/1",
        "/public/..;/admin/1",
        "/public;/../admin/1",
        "/admin%3bx/1",
        "/admin/1;jsessionid=1",
        // what is no text
        "/admin/%00",
        "/admin%00/1",
        "/public/%00/../admin",
        "/admin/%0a",
        "/admin/%0d%0aHost:%20b",
        "/admin/%7f",
        "/admin/%",
        "/admin/%1",
        "/admin/%zz",
        "/admin/%2",
        "/admin/%u002e",
        "/admin/%+1",
        // UTF-8 that is overlong, cut or none
        "/admin/%c0%ae%c0%ae/1",
        "/admin/%c0%af",
        "/admin/%c1%9c",
        "/admin/%e0%80%af",
        "/admin/%e0%80%ae",
        "/admin/%f0%80%80%af",
        "/admin/%f8%80%80%80%af",
        "/admin/%80",
        "/admin/%bf",
        "/admin/%e9",
        "/admin/%e2%82",
        "/admin/%e2%82x",
        "/admin/%ed%a0%80",
        "/admin/%f4%90%80%80",
        "/admin/%ff",
        // what cannot be in a target at all
        "/admin/ 1",
        "/admin /1",
        "/admin/\t1",
        "/admin/caf\u{e9}",
        "/admin/\u{ff0e}\u{ff0e}/1",
        // no path
        "*",
        "admin",
        "admin/1",
        "?x",
        "",
    ] {
        for headers in ["host: a\r\n", &bearer] {
            assert_bad(&send(&world, target, headers).await, target);
        }
    }
    for target in [
        &b"/admin/\xff"[..],
        b"/admin/\xc0\xae",
        b"/admin/\x01",
        b"/admin/\x7f",
    ] {
        assert_bad(&send(&world, target, &bearer).await, &format!("{target:?}"));
    }
    assert!(world.echo.seen().is_empty(), "{:?}", world.echo.seen());
}

#[tokio::test]
async fn what_is_matched_is_what_is_sent() {
    let world = world().await;
    for (target, route, sent) in [
        ("/", "everything", "/"),
        ("/ADMIN/1", "everything", "/ADMIN/1"),
        ("/administrator", "everything", "/administrator"),
        ("/%41dmin/1", "everything", "/Admin/1"),
        ("/a:b@c,d=e+f!$&'()*", "everything", "/a:b@c,d=e+f!$&'()*"),
        ("/a%3a%40%2c%2B", "everything", "/a%3A%40%2C%2B"),
        ("/users/auth0%7c507f", "user", "/users/auth0%7C507f"),
        ("/users/%37", "user", "/users/7"),
        ("/users/7/more", "everything", "/users/7/more"),
        // A query is the upstream's to read, and passes as it came.
        ("/public/1?", "public", "/public/1?"),
        ("/public/1?a=1&a=2&b", "public", "/public/1?a=1&a=2&b"),
        (
            "/public/1?x=/../admin;y//z%2e%00%zz\\",
            "public",
            "/public/1?x=/../admin;y//z%2e%00%zz\\",
        ),
        ("/publi%63/1?/admin", "public", "/public/1?/admin"),
        // The prefix goes after the match, and nothing else with it.
        ("/strip", "stripped", "/"),
        ("/strip/", "stripped", "/"),
        ("/strip/admin/1", "stripped", "/admin/1"),
        ("/strip/strip/1?q", "stripped", "/strip/1?q"),
        ("/%73trip/%61?%61", "stripped", "/a?%61"),
        ("/strip?q=1", "stripped", "/?q=1"),
        ("/stripe/1", "everything", "/stripe/1"),
    ] {
        let reply = send(&world, target, "host: a\r\n").await;
        assert_eq!(reply.status, 200, "{target}: {}", reply.text());
        assert_eq!(reply.json()["path"], sent, "{target}");
        assert_eq!(route_of(&world, &reply).await, route, "{target}");
    }
}

#[tokio::test]
async fn a_host_is_the_same_in_every_spelling() {
    let world = world().await;
    for (target, host, route) in [
        ("/hosted/1", "api.example.com", "hosted"),
        ("/hosted/1", "API.Example.COM", "hosted"),
        ("/hosted/1", "api.example.com.", "hosted"),
        ("/hosted/1", "api.example.com:8080", "hosted"),
        ("/hosted/1", "API.example.com.:80", "hosted"),
        ("/hosted/1", "api.example.com:", "hosted"),
        (
            "http://api.example.com/hosted/1",
            "api.example.com",
            "hosted",
        ),
        (
            "http://API.example.com/hosted/1",
            "api.example.com:80",
            "hosted",
        ),
        (
            "HTTP://api.example.com:80/hosted/1",
            "API.EXAMPLE.COM.",
            "hosted",
        ),
        ("/hosted/1", "evil.example.com", "everything"),
        ("/hosted/1", "api.example.com.evil.example", "everything"),
        ("/hosted/1", "xapi.example.com", "everything"),
        ("/hosted/1", "example.com", "everything"),
        ("/hosted/1", "[::1]:80", "everything"),
        ("/hosted/1", "192.0.2.1", "everything"),
        (
            "http://evil.example.com/hosted/1",
            "evil.example.com",
            "everything",
        ),
    ] {
        let reply = send(&world, target, &format!("host: {host}\r\n")).await;
        assert_eq!(reply.status, 200, "{target} {host}: {}", reply.text());
        assert_eq!(route_of(&world, &reply).await, route, "{target} {host}");
        assert_eq!(reply.json()["path"], "/hosted/1", "{target} {host}");
        assert_eq!(reply.upstream_saw("host").len(), 1, "{target} {host}");
    }
}

#[tokio::test]
async fn a_host_that_is_none_is_refused() {
    let world = world().await;
    let path = "/hosted/1";
    for (target, headers) in [
        (path, ""),
        (path, "host:\r\n"),
        (path, "host: api.example.com\r\nhost: api.example.com\r\n"),
        (path, "host: api.example.com\r\nHOST: evil.example\r\n"),
        (path, "host: user@api.example.com\r\n"),
        (path, "host: user:password@api.example.com\r\n"),
        (path, "host: api.example.com@evil.example\r\n"),
        (path, "host: api.example.com, evil.example\r\n"),
        (path, "host: api.example.com evil.example\r\n"),
        (path, "host: api.example.com/evil\r\n"),
        (path, "host: api.example.com#evil\r\n"),
        (path, "host: api.example.com?evil\r\n"),
        (path, "host: api.example.com\\evil\r\n"),
        (path, "host: api.example.com%00\r\n"),
        (path, "host: api.example.com:http\r\n"),
        (path, "host: api.example.com:80:80\r\n"),
        (path, "host: api.example.com:-1\r\n"),
        (path, "host: api.example.com:123456\r\n"),
        (path, "host: http://api.example.com\r\n"),
        (path, "host: [::1\r\n"),
        (path, "host: [api.example.com]\r\n"),
        (path, "host: .\r\n"),
        (path, "host: :80\r\n"),
        (path, "host: api.exämple.com\r\n"),
        ("http://evil.example/hosted/1", "host: api.example.com\r\n"),
        ("http://api.example.com/hosted/1", "host: evil.example\r\n"),
        ("http://api.example.com/hosted/1", ""),
        (
            "http://user@api.example.com/hosted/1",
            "host: api.example.com\r\n",
        ),
        (
            "http://user:password@api.example.com/hosted/1",
            "host: api.example.com\r\n",
        ),
        (
            "http://api.example.com\\@evil.example/hosted/1",
            "host: api.example.com\r\n",
        ),
        ("http:///hosted/1", "host: api.example.com\r\n"),
        ("//api.example.com/hosted/1", "host: api.example.com\r\n"),
    ] {
        assert_bad(
            &send(&world, target, headers).await,
            &format!("{target} {headers:?}"),
        );
    }
    // An older client need not name a host, but then there is nothing to route by.
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /hosted/1 HTTP/1.0\r\n\r\n").await;
    assert_bad(&raw.whole().await, "HTTP/1.0 without Host");
    assert!(world.echo.seen().is_empty(), "{:?}", world.echo.seen());
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /hosted/1 HTTP/1.0\r\nhost: api.example.com\r\n\r\n")
        .await;
    assert!(
        raw.rest().await.starts_with("HTTP/1.0 200 "),
        "HTTP/1.0 with Host"
    );
}

#[tokio::test]
async fn headers_cannot_change_what_was_asked() {
    let world = world().await;
    let overrides = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "x_original_url",
        "X_Rewrite_URL",
        "X_HTTP_Method_Override",
    ];
    for name in overrides {
        let value = if name.to_ascii_lowercase().contains("method") {
            "DELETE"
        } else {
            "/admin/1"
        };
        let reply = send(
            &world,
            "/public/1",
            &format!("host: a\r\n{name}: {value}\r\n"),
        )
        .await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(
            (&reply.json()["path"], &reply.json()["method"]),
            (&json!("/public/1"), &json!("GET")),
            "{name}"
        );
        assert!(
            reply.upstream_saw(name).is_empty(),
            "{name}: {}",
            reply.text()
        );
        let guarded = send(
            &world,
            "/admin/1",
            &format!("host: a\r\n{name}: /public/1\r\n"),
        )
        .await;
        assert_eq!(guarded.status, 401, "{name}");
    }
    // What only proxies may say: set anew or gone, in whatever spelling.
    for name in [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-User",
        "X-Forwarded-Prefix",
        "X-Forwarded-Port",
        "X_Forwarded_For",
        "x_forwarded-host",
        "Forwarded",
        "X-Request-Id",
        "X_Request_Id",
        "Traceparent",
    ] {
        let reply = send(
            &world,
            "/public/1",
            &format!("host: a\r\n{name}: forged\r\n{name}: forged\r\n"),
        )
        .await;
        assert_eq!(reply.status, 200, "{name}");
        assert!(!reply.text().contains("forged"), "{name}: {}", reply.text());
    }
}
