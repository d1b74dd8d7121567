//! A client that nobody here wrote, on another maker's HTTP/2 (nghttp2): curl.

use crate::harness::program::shell;
use crate::harness::{CONFIG, World, with_lines};
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Whether there is a curl that speaks HTTP/2.
async fn is_there() -> bool {
    let said = shell("curl --version").await;
    let speaks = said.stdout.contains("HTTP2");
    if !speaks {
        eprintln!("not tested: there is no curl with HTTP/2");
    }
    speaks
}

async fn world() -> World {
    let lines = "max_concurrent_streams = 10\nmax_body = \"4MiB\"";
    World::with(&with_lines(CONFIG, "[server]", lines)).await
}

/// What curl writes, which has to succeed.
async fn curl(arguments: &str) -> String {
    let said = shell(&format!("curl -sS --max-time 15 {arguments}")).await;
    assert_eq!(said.code, Some(0), "{arguments}: {}", said.stderr);
    said.stdout
}

#[tokio::test]
async fn curl_gets_and_posts() {
    if !is_there().await {
        return;
    }
    let world = world().await;
    let base = format!("http://{}", world.gateway.address);
    let version = "-w '\\n%{http_version} %{http_code}' --http2-prior-knowledge";
    let token = format!("-H 'Authorization: Bearer {}'", world.auth.token());
    let said = curl(&format!("{version} {token} {base}/grants/1?q=1")).await;
    let (body, end) = said.rsplit_once('\n').expect("two lines");
    assert_eq!(end, "2 200", "{body}");
    let body: Value = serde_json::from_str(body).expect("the echo");
    assert_eq!(body["path"], json!("/grants/1?q=1"));

    // A mebibyte, which curl asks leave for, and waits a second if there is no answer.
    let mebibyte = "head -c 1048576 /dev/urandom";
    let post = format!(
        "{mebibyte} | tee >(sha256sum >&2) | curl -sS --max-time 15 {version} --data-binary @- {base}/public/1"
    );
    let said = shell(&post).await;
    let (body, end) = said.stdout.rsplit_once('\n').expect("two lines");
    assert_eq!(end, "2 200", "{}", said.stderr);
    let body: Value = serde_json::from_str(body).expect("the echo");
    assert_eq!(body["body_bytes"], json!(1 << 20));
    let digest = body["body_sha256"].as_str().expect("a digest");
    assert!(said.stderr.contains(digest), "{}", said.stderr);

    for (arguments, path, end) in [
        ("-I", "/public/bytes/5", "2 200"),
        ("", "/public/status/204", "2 204"),
        ("", "/grants/1", "2 401"),
        ("-X TRACE", "/public/1", "2 405"),
        ("--path-as-is", "/public/../grants/1", "2 400"),
        ("-H 'Expect: 100-continue' -d x", "/public/1", "2 200"),
    ] {
        let said = curl(&format!("{version} {arguments} '{base}{path}'")).await;
        assert!(said.ends_with(end), "{arguments} {path}: {said}");
    }
    // Refused before it has been read.
    let refused = format!(
        "{mebibyte} | curl -sS --max-time 15 -o /dev/null {version} --data-binary @- {base}/grants/1"
    );
    let said = shell(&refused).await;
    assert_eq!(said.stdout.trim(), "2 401", "{}", said.stderr);
    // An upgrade in the clear is not taken up (RFC 9113 §3.1).
    let said = curl(&format!(
        "-w '\\n%{{http_version}} %{{http_code}}' --http2 {base}/public/1"
    ))
    .await;
    assert!(said.ends_with("1.1 200"), "{said}");
}

/// More at a time than the gateway allows on a connection: curl waits, and all are served.
#[tokio::test]
async fn curl_in_parallel() {
    if !is_there().await {
        return;
    }
    let world = world().await;
    let mut urls = String::new();
    for number in 0..60 {
        let _ = write!(
            urls,
            " -o /dev/null http://{}/public/{number}/slow-head?ms=20",
            world.gateway.address
        );
    }
    let said = curl(&format!(
        "--http2-prior-knowledge --parallel --parallel-max 30 -w '%{{http_code}}\\n' {urls}"
    ))
    .await;
    assert_eq!(said.lines().filter(|line| *line == "200").count(), 60);
    assert_eq!(world.echo.requests(), 60);
}
