//! `cors`: preflights, and responses that pages may read.

use super::on_route;
use crate::harness::program::call;
use crate::harness::{Reply, Request, Scripted, World, assert_refused, with_lines};

const APP: &str = "https://app.bonterra.network";
const EVIL: &str = "https://evil.example";

const CORS: &str = r#"cors = { origins = ["https://app.bonterra.network", "https://*.bonterra.org"], expose = ["X-Total"], max_age = "5m" }"#;

fn preflight(world: &World, path: &str, origin: &str, method: &str) -> Request {
    let request = crate::harness::request(world.gateway.address, "OPTIONS", path);
    request
        .header("origin", origin)
        .header("access-control-request-method", method)
        .header("access-control-request-headers", "authorization,x-evil")
}

fn readable_by(reply: &Reply) -> Option<&str> {
    reply.header("access-control-allow-origin")
}

#[tokio::test]
async fn a_preflight_is_answered_before_anything_is_asked_of_it() {
    let lines = format!(
        "allow_ips = [\"192.0.2.0/24\"]\nrate_limit = {{ rate = \"1/h\", by = \"ip\" }}\n{CORS}"
    );
    let world = World::with(&on_route("grants", &lines)).await;
    for _ in 0..3 {
        let reply = preflight(&world, "/grants/1", APP, "PUT").send().await;
        assert_eq!(reply.status, 204, "{}", reply.text());
        assert_eq!(readable_by(&reply), Some(APP));
        assert_eq!(
            reply.header("access-control-allow-methods"),
            Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
        );
        assert_eq!(
            reply.header("access-control-allow-headers"),
            Some("Authorization, Content-Type"),
            "what is asked for is not granted for that"
        );
        assert_eq!(reply.header("access-control-max-age"), Some("300"));
        assert!(reply.header("access-control-allow-credentials").is_none());
        let vary = reply.header("vary").expect("Vary");
        assert!(vary.contains("Origin") && vary.contains("Access-Control-Request-Method"));
        let id = reply.header("x-request-id").expect("an id");
        let record = world.gateway.log.record(id).await;
        assert_eq!(record["route"], "grants");
    }
    assert!(world.echo.seen().is_empty());
}

#[tokio::test]
async fn preflights_of_others_are_options_like_any() {
    let world = World::with(&on_route("grants", CORS)).await;
    for origin in [
        EVIL,
        "https://app.bonterra.network.evil.example",
        "http://app.bonterra.network",
        "https://bonterra.org",
        "null",
    ] {
        let reply = preflight(&world, "/grants/1", origin, "GET").send().await;
        assert_refused(&world.gateway, &reply, 401, "missing_token", "grants").await;
        assert_eq!(readable_by(&reply), None, "{origin}");
        assert!(reply.header("access-control-allow-methods").is_none());
    }
    let below = preflight(&world, "/grants/1", "https://a.b.bonterra.org", "GET");
    assert_eq!(below.send().await.status, 204);
    // A route without `cors`, and no route at all.
    let reply = preflight(&world, "/scoped/1", APP, "GET").send().await;
    assert_eq!((reply.status, readable_by(&reply)), (405, None));
    let reply = preflight(&world, "/nothing", APP, "GET").send().await;
    assert_eq!((reply.status, readable_by(&reply)), (404, None));
    let reply = preflight(&world, "/public/1", APP, "GET").send().await;
    assert_eq!((reply.status, readable_by(&reply)), (200, None));
    assert_eq!(world.echo.seen().len(), 1, "the last one went upstream");
}

#[tokio::test]
async fn the_method_that_is_asked_for_says_which_route_answers() {
    let config = on_route("scoped", CORS);
    let world = World::with(&config).await;
    let reply = preflight(&world, "/scoped/1", APP, "GET").send().await;
    assert_eq!(reply.status, 204);
    assert_eq!(
        reply.header("access-control-allow-methods"),
        Some("GET, POST, HEAD"),
        "the route's"
    );
    let reply = preflight(&world, "/scoped/1", APP, "DELETE").send().await;
    assert_eq!((reply.status, readable_by(&reply)), (405, None));
}

#[tokio::test]
async fn answers_and_refusals_can_be_read_by_the_page() {
    let config = with_lines(&on_route("grants", CORS), "[server]", "max_body = \"16B\"");
    let world = World::with(&config).await;
    let exposed =
        "WWW-Authenticate, Retry-After, RateLimit, RateLimit-Policy, X-Request-Id, X-Total";
    for (request, status) in [
        (world.authorized("/grants/1"), 200),
        (world.get("/grants/1"), 401),
        (world.get("/grants/1").bearer("nonsense"), 401),
        (
            world
                .post("/grants/1")
                .bearer(&world.auth.token())
                .body("more than is allowed here"),
            413,
        ),
    ] {
        let reply = request.clone().header("origin", APP).send().await;
        assert_eq!(reply.status, status);
        assert_eq!(readable_by(&reply), Some(APP), "{status}");
        assert_eq!(reply.header("access-control-expose-headers"), Some(exposed));
        assert_eq!(reply.header("vary"), Some("Origin"));
        // Another origin gets the same, but for the leave to read it.
        for origin in [None, Some(EVIL)] {
            let request = match origin {
                Some(origin) => request.clone().header("origin", origin),
                None => request.clone(),
            };
            let reply = request.send().await;
            assert_eq!(reply.status, status);
            assert_eq!(readable_by(&reply), None);
            assert!(reply.header("access-control-expose-headers").is_none());
            assert_eq!(reply.header("vary"), Some("Origin"));
        }
    }
    // Routes without `cors` say nothing of it.
    let reply = world.get("/public/x").header("origin", APP).send().await;
    assert_eq!((reply.status, readable_by(&reply)), (200, None));
    assert!(reply.header("vary").is_none());
}

#[tokio::test]
async fn what_the_upstream_says_of_origins_is_replaced() {
    let upstream = Scripted::start(
        "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nVary: Accept\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let lines = CORS.replace("origins", "credentials = true, origins");
    for (lines, origin, allowed, credentials) in [
        (lines.as_str(), Some(APP), Some(APP), Some("true")),
        (lines.as_str(), Some(EVIL), None, None),
        (lines.as_str(), None, None, None),
        ("", Some(EVIL), Some("*"), Some("true")),
    ] {
        let config = on_route("public", lines).replace("ECHO", &upstream.url());
        let world = World::with(&config).await;
        let request = match origin {
            Some(origin) => world.get("/public/x").header("origin", origin),
            None => world.get("/public/x"),
        };
        let reply = request.send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(readable_by(&reply), allowed, "{lines} {origin:?}");
        let found = reply.header("access-control-allow-credentials");
        assert_eq!(found, credentials, "{lines} {origin:?}");
        let vary: Vec<_> = reply.headers.get_all("vary").iter().collect();
        assert_eq!(vary.len(), if lines.is_empty() { 1 } else { 2 });
    }
}

#[tokio::test]
async fn mistakes_in_it() {
    for (lines, expected) in [
        ("cors = {}", "`origins` is missing"),
        (
            r#"cors = { origins = ["*"], credentials = true }"#,
            "any page could act as the user",
        ),
        (r#"cors = { origins = ["null"] }"#, "every sandboxed page"),
        (
            r#"cors = { origins = ["https://a.example/x"] }"#,
            "this is no origin",
        ),
        (
            r#"cors = { origins = ["https://a.example"], methods = ["a b"] }"#,
            "this is no method",
        ),
        (
            r#"cors = { origins = ["https://a.example"], headers = ["*"], credentials = true }"#,
            "stands for nothing else",
        ),
        (
            "cors = { origins = [\"https://a.example\"] }\nresponse_headers = { set = { Access-Control-Max-Age = \"1\" } }",
            "is replaced by what cors says",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = on_route("public", lines)
            .replace("ISSUER", "http://127.0.0.1:1/")
            .replace("ECHO", "http://127.0.0.1:1");
        std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(said.code, Some(2), "{lines}");
        let text = said.stdout + &said.stderr;
        assert!(text.contains(expected), "{lines}: {text}");
    }
}
