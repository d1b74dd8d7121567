//! Which route takes a request: host, then the most specific path, then the method.

use crate::harness::{World, assert_refused, request};
use serde_json::json;

/// In the worst order: the most general first.
const ROUTES: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1

[admin]
listen = "127.0.0.1:0"

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.echo]
servers = ["ECHO"]

[[route]]
name = "rest"
path = "/*"
upstream = "echo"
auth = "none"

[[route]]
name = "users"
path = "/users/*"
upstream = "echo"
auth = "none"

[[route]]
name = "user"
path = "/users/{id}"
methods = ["GET"]
upstream = "echo"
auth = "none"

[[route]]
name = "user-changes"
path = "/users/{id}"
methods = ["PUT", "DELETE"]
upstream = "echo"
auth = "none"

[[route]]
name = "orders"
path = "/users/{id}/orders"
upstream = "echo"
auth = "none"

[[route]]
name = "me"
path = "/users/me"
upstream = "echo"
auth = "none"

[[route]]
name = "tenant-users"
hosts = ["tenant.example", "other.example"]
path = "/users/*"
upstream = "echo"
auth = "none"

[[route]]
name = "stripped"
path = "/v1/things/*"
strip_prefix = "/v1"
upstream = "echo"
auth = "none"
"#;

#[tokio::test]
async fn the_most_specific_route_takes_the_request() {
    let world = World::with(ROUTES).await;
    for (method, host, path, route) in [
        ("GET", "any", "/", "rest"),
        ("GET", "any", "/else", "rest"),
        ("GET", "any", "/usersx", "rest"),
        ("GET", "any", "/users", "users"),
        ("GET", "any", "/users/7/other", "users"),
        ("GET", "any", "/users/7", "user"),
        ("GET", "any", "/users/7?x=/users/me", "user"),
        ("HEAD", "any", "/users/7", "user"),
        ("PUT", "any", "/users/7", "user-changes"),
        ("GET", "any", "/users/me", "me"),
        ("GET", "any", "/%75sers/m%65", "me"),
        ("PUT", "any", "/users/me", "me"),
        ("GET", "any", "/users/7/orders", "orders"),
        ("GET", "tenant.example", "/users/me", "tenant-users"),
        ("GET", "TENANT.example.", "/users/me", "tenant-users"),
        ("GET", "tenant.example:8080", "/users/7", "tenant-users"),
        ("GET", "other.example", "/users", "tenant-users"),
        ("GET", "sub.tenant.example", "/users/me", "me"),
        ("GET", "tenant.example", "/else", "rest"),
    ] {
        let reply = request(world.gateway.address, method, path)
            .header("host", host)
            .send()
            .await;
        assert_eq!(reply.status, 200, "{method} {host} {path}");
        let record = world
            .gateway
            .log
            .record(reply.header("x-request-id").expect("an id"))
            .await;
        assert_eq!(record["route"], json!(route), "{method} {host} {path}");
    }
}

#[tokio::test]
async fn a_method_is_refused_where_the_path_is_there_for_others() {
    let world = World::with(ROUTES).await;
    let reply = request(world.gateway.address, "POST", "/users/7")
        .send()
        .await;
    assert_eq!(
        reply.header("allow"),
        Some("DELETE, GET, HEAD, PUT"),
        "{}",
        reply.text()
    );
    assert_refused(&world.gateway, &reply, 405, "method_not_allowed", "-").await;
    assert!(
        world.echo.seen().is_empty(),
        "a more general route does not step in"
    );
}

#[tokio::test]
async fn what_no_route_takes_is_not_found() {
    let world = World::start().await;
    for path in ["/", "/grantsx", "/unknown", "/oauth", "/oauth/token/x"] {
        let reply = world.authorized(path).send().await;
        assert_refused(&world.gateway, &reply, 404, "no_route", "-").await;
    }
    assert!(world.echo.seen().is_empty());
}

#[tokio::test]
async fn a_prefix_is_taken_off() {
    let world = World::with(ROUTES).await;
    for (sent, seen) in [
        ("/v1/things/1?a=/v1/b", "/things/1?a=/v1/b"),
        ("/v1/things", "/things"),
        ("/v1/thin%67s/%7e", "/things/~"),
    ] {
        assert_eq!(
            world.get(sent).send().await.json()["path"],
            json!(seen),
            "{sent}"
        );
    }
}
