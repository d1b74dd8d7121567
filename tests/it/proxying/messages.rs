//! Methods, statuses and framings that are easy to get wrong.

use super::gateway;
use crate::harness::link::{Link, lazy, nothing, whole};
use crate::harness::{Raw, RawUpstream, World};
use http::Request;
use serde_json::json;

#[tokio::test]
async fn head_has_the_head_of_get_and_no_body() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let head = Request::head("/public/bytes/1000")
        .body(nothing())
        .expect("a request");
    let reply = link.send(head).await;
    assert_eq!(
        (reply.status, reply.header("content-length")),
        (200, Some("1000"))
    );
    assert!(reply.body.is_empty());
    assert_eq!(world.echo.seen()[0].method, "HEAD");
    // A refusal has no body either.
    let head = Request::head("/grants/1")
        .body(nothing())
        .expect("a request");
    let refused = link.send(head).await;
    assert_eq!(refused.status, 401);
    assert!(refused.body.is_empty());
    assert_eq!(
        link.get("/public/x").await.json()["path"],
        json!("/public/x"),
        "the connection is in step"
    );
    assert_eq!(world.echo.connections(), 1);
}

#[tokio::test]
async fn statuses_without_a_body_leave_the_connection_in_step() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    for status in [204, 304] {
        raw.send(format!(
            "GET /public/status/{status} HTTP/1.1\r\nHost: a\r\n\r\n"
        ))
        .await;
        let (head, _) = raw.reply().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert!(
            !head.to_ascii_lowercase().contains("transfer-encoding"),
            "{head}"
        );
        raw.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(raw.whole().await.json()["path"], json!("/public/x"));
    }
    assert_eq!(world.echo.connections(), 1);
}

#[tokio::test]
async fn every_status_passes_as_it_is() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    for status in [201, 302, 400, 401, 404, 418, 429, 500, 503] {
        let reply = link.get(&format!("/public/status/{status}")).await;
        assert_eq!(reply.status, status);
        assert_eq!(
            reply.json()["path"],
            json!(format!("/public/status/{status}")),
            "the upstream's own body"
        );
    }
    assert_eq!(world.echo.connections(), 1);
}

#[tokio::test]
async fn chunked_bodies_pass_in_both_directions() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let reply = link.get("/public/chunks").await;
    assert_eq!(reply.header("transfer-encoding"), Some("chunked"));
    assert_eq!(reply.header("content-length"), None);
    assert_eq!(reply.text(), "one\ntwo\nthree\n");

    let post = Request::post("/public/x")
        .body(lazy(b"piece ", 3, || {}))
        .expect("a request");
    let reply = link.send(post).await;
    assert_eq!(reply.json()["body"], json!("piece piece piece "));
    assert_eq!(reply.upstream_saw("transfer-encoding"), ["chunked"]);
    assert!(reply.upstream_saw("content-length").is_empty());
}

#[tokio::test]
async fn a_body_of_known_length_keeps_it_and_no_body_gets_none() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let post = Request::post("/public/x")
        .body(whole("twelve bytes"))
        .expect("a request");
    let reply = link.send(post).await;
    assert_eq!(reply.upstream_saw("content-length"), ["12"]);
    assert!(reply.upstream_saw("transfer-encoding").is_empty());
    let reply = link.get("/public/x").await;
    assert!(reply.upstream_saw("transfer-encoding").is_empty());
    assert!(reply.upstream_saw("content-length").is_empty());
}

#[tokio::test]
async fn extension_methods_and_any_query_pass() {
    let world = World::start().await;
    for method in ["PROPFIND", "QUERY", "DELETE", "OPTIONS"] {
        let path = "/public/a?x=%2e%2e&y=//&z=a+b&&q=/../";
        let reply = crate::harness::request(world.gateway.address, method, path)
            .send()
            .await;
        assert_eq!(reply.json()["method"], json!(method));
        assert_eq!(
            reply.json()["path"],
            json!(path),
            "the query passes untouched"
        );
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_is_told_to() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let head =
        "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    raw.send(head).await;
    raw.expect("HTTP/1.1 100 Continue\r\n\r\n").await;
    raw.send("hello").await;
    let reply = raw.whole().await;
    assert_eq!(reply.json()["body"], json!("hello"));
    assert!(
        reply.upstream_saw("expect").is_empty(),
        "that was between the two of us"
    );
}

#[tokio::test]
async fn a_client_that_expects_100_continue_learns_of_a_refusal_before_it_sends() {
    let world = World::start().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    let head =
        "POST /grants/1 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    raw.send(head).await;
    assert_eq!(raw.whole().await.status, 401);
    assert!(world.echo.seen().is_empty());
}

#[tokio::test]
async fn informational_responses_do_not_end_the_exchange() {
    let upstream = RawUpstream::says(concat!(
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
    ))
    .await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let reply = crate::harness::request(gateway.address, "GET", "/api/")
        .send()
        .await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
}

#[tokio::test]
async fn an_old_upstream_may_end_its_body_by_closing() {
    let upstream =
        RawUpstream::says("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nup to the end").await;
    let gateway = gateway(&upstream.url(), &[]).await;
    let mut link = Link::connect(gateway.address).await;
    for _ in 0..3 {
        assert_eq!(link.get("/api/").await.text(), "up to the end");
    }
}
