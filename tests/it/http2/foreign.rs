//! Clients that nobody here wrote, on another maker's HTTP/2 (nghttp2): curl and Node.js.

use crate::harness::program::shell;
use crate::harness::{CONFIG, World, with_lines};
use serde_json::{Value, json};

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
    let said = shell("curl --version").await;
    assert!(
        said.stdout.contains("HTTP2"),
        "curl with HTTP/2 is missing: `make test` installs Debian's"
    );
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
    // An upgrade in the clear is not taken up (RFC 9113 §3.1).
    let said = curl(&format!(
        "-w '\\n%{{http_version}} %{{http_code}}' --http2 {base}/public/1"
    ))
    .await;
    assert!(said.ends_with("1.1 200"), "{said}");
}

/// What Node.js runs: requests with bodies, more at a time than the gateway allows, and some that are
/// refused before their bodies have been read.
const SCRIPT: &str = r#"
const session = require("http2").connect(process.argv[1]);
const ask = (path, size) => new Promise((done) => {
  const request = session.request({ ":path": path, ":method": "POST" });
  let status, length = 0;
  request.on("response", (head) => (status = head[":status"]));
  request.on("data", (data) => (length += data.length));
  request.on("error", (error) => done(error.message));
  request.on("close", () => done(`${status} ${length > 0} ${request.rstCode}`));
  request.end(Buffer.alloc(size));
});
(async () => {
  const answers = [await ask("/grants/1", 1 << 20)];
  const paths = [...Array(60).keys()].map((n) => `/public/${n}/slow-head?ms=20`);
  answers.push(...(await Promise.all(paths.map((path) => ask(path, 5000)))));
  console.log(answers.join("\n"));
  session.close();
})();
"#;

#[tokio::test]
async fn node_posts_much_at_a_time() {
    let said = shell("node --version").await;
    assert_eq!(
        said.code,
        Some(0),
        "node is missing: `make test` installs it"
    );
    let world = world().await;
    let url = format!("http://{}", world.gateway.address);
    let said = shell(&format!("timeout 15 node -e '{SCRIPT}' {url}")).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    let mut answers = said.stdout.lines();
    assert_eq!(answers.next(), Some("401 true 0"));
    let answers: Vec<&str> = answers.collect();
    assert_eq!(answers, ["200 true 0"; 60]);
    assert_eq!(world.echo.requests(), 60);
}
