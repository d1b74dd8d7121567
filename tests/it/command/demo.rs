//! `demo`: everything that it prints to paste works when it is pasted.

use crate::harness::demo::Demo;
use crate::harness::program::{Said, shell};
use crate::harness::{Reply, eventually, request};
use http::Uri;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A shell that commands are pasted into, one after the other.
struct Shell {
    /// Its variables between two of them.
    variables: PathBuf,
    _folder: TempDir,
}

impl Shell {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let variables = folder.path().join("variables");
        std::fs::write(&variables, "").expect("written");
        Self {
            variables,
            _folder: folder,
        }
    }

    /// Pastes a command, which has to succeed. What it prints.
    async fn paste(&self, command: &str) -> String {
        let file = self.variables.display();
        let keep = format!("declare -p TOKEN TOKENS MANAGER HANDLE >{file} 2>/dev/null");
        let said = shell(&format!(
            ". {file}\n{command}\nended=$?; {keep}; exit $ended"
        ))
        .await;
        let Said { stdout, stderr, .. } = &said;
        assert_eq!(said.code, Some(0), "{command}\n{stdout}{stderr}");
        said.stdout
    }
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The head of a reply that curl shows with `-i`, and its body.
fn head_and_body(said: &str) -> (&str, Value) {
    let (head, body) = said.split_once("\r\n\r\n").expect("a head");
    (head, parsed(body))
}

/// What the echo API saw of a header.
fn saw(said: &str, name: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> =
        serde_json::from_value(parsed(said)["headers"].clone()).expect("headers");
    pairs
        .into_iter()
        .filter(|(own, _)| own == name)
        .map(|(_, value)| value)
        .collect()
}

#[tokio::test]
async fn every_printed_command_does_what_it_says() {
    let curl = shell("command -v curl").await;
    assert_eq!(
        curl.code,
        Some(0),
        "the demo prints curl commands: install curl to test them"
    );
    let mut demo = Demo::start().await;
    let shell = Shell::new();
    tour(&mut demo, &shell).await;
    api_token(&mut demo, &shell).await;
    auth(&mut demo, &shell).await;
    users(&mut demo, &shell).await;
    internal_jwt(&mut demo, &shell).await;
    envelope(&mut demo, &shell).await;
    assert!(demo.commands.is_empty(), "not tried: {:?}", demo.commands);

    let folder = files(&demo).await;
    demo.running.signal("TERM").await;
    assert_eq!(demo.running.ended().await.code(), Some(0));
    assert!(!folder.exists(), "it cleans up after itself");
}

async fn tour(demo: &mut Demo, shell: &Shell) {
    let token = shell.paste(&demo.take("get a token")).await;
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let called = shell.paste(&demo.take("call an API with it")).await;
    let identity = saw(&called, "x-bonterra-auth-id");
    assert_eq!(identity.len(), 1, "{called}");
    assert_eq!(saw(&called, "x-bonterra-is-grants"), ["true"]);

    let without = shell.paste(&demo.take("call without: 401")).await;
    let (head, body) = head_and_body(&without);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(body["reason"], "missing_token");

    let forged = shell.paste(&demo.take("forge an identity")).await;
    assert_eq!(saw(&forged, "x-bonterra-auth-id"), identity);
    assert!(saw(&forged, "x_bonterra_auth_id").is_empty());
    let forged = demo.take("forge one where no token is needed");
    let forged = shell.paste(&forged).await;
    assert!(saw(&forged, "x-bonterra-auth-id").is_empty(), "{forged}");

    let metrics = shell.paste(&demo.take("metrics for Prometheus")).await;
    assert!(
        metrics.contains("gateway_requests_total{code=\"200\",method=\"GET\",route=\"grants\"}"),
        "{metrics}"
    );
    let ready = shell.paste(&demo.take("what is ready")).await;
    assert!(
        ready.starts_with("ready\n") && ready.contains("[+] issuer bonterra"),
        "{ready}"
    );
    let reloaded = shell.paste(&demo.take("read the file again now")).await;
    assert!(parsed(&reloaded)["changes"].is_array(), "{reloaded}");
}

async fn api_token(demo: &mut Demo, shell: &Shell) {
    for what in ["get a token by JSON", "the same with the secret in Basic"] {
        let said = parsed(&shell.paste(&demo.take(what)).await);
        assert_eq!(said["token_type"], "Bearer", "{what}: {said}");
        assert!(said["expires_in"].is_u64(), "{what}: {said}");
    }
    let refused = shell.paste(&demo.take("ask for what is not given")).await;
    let (head, body) = head_and_body(&refused);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body["error"], "unsupported_grant_type");
}

async fn auth(demo: &mut Demo, shell: &Shell) {
    let issuer = demo.named("Bonterra Auth");
    let document = parsed(&shell.paste(&demo.take("what there is")).await);
    assert_eq!(document["issuer"], issuer.as_str());
    let keys = parsed(&shell.paste(&demo.take("the keys")).await);
    assert!(
        keys["keys"].as_array().is_some_and(|keys| keys.len() >= 2),
        "{keys}"
    );

    let code = log_in(&demo.take("log in as a person"), &issuer).await;
    let redeem = demo.take("and turn the code into tokens");
    assert!(redeem.contains("PASTE_THE_CODE"), "{redeem}");
    let tokens = shell.paste(&redeem.replace("PASTE_THE_CODE", &code)).await;
    let tokens = parsed(&tokens);
    let access = tokens["access_token"].as_str().expect("a token");
    let called = request(demo.gateway, "GET", "/grants/1").bearer(access);
    let called = called.send().await;
    assert_eq!(called.status, 200, "{}", called.text());
    assert_eq!(
        called.upstream_saw("x-bonterra-auth-id"),
        ["a1b2c3d4-e5f6-4890-abcd-ef1234567890"],
        "a person, not the machine"
    );

    let person = parsed(&shell.paste(&demo.take("who that is")).await);
    assert_eq!(person["email"], "user@example.com", "{person}");
    let refresh = demo.take("new tokens for the refresh token");
    let mut before = tokens["refresh_token"].clone();
    // Pasted once more, it goes on from what came.
    for _ in 0..2 {
        let renewed = parsed(&shell.paste(&refresh).await);
        assert!(renewed["refresh_token"].is_string(), "{renewed}");
        assert_ne!(renewed["refresh_token"], before);
        before = renewed["refresh_token"].clone();
    }
    let worth = parsed(&shell.paste(&demo.take("what a token is worth")).await);
    assert_eq!(worth["active"], true, "{worth}");
    let refused = shell.paste(&demo.take("log out")).await;
    let (head, body) = head_and_body(&refused);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    assert_eq!(body["reason"], "revoked");
}

async fn users(demo: &mut Demo, shell: &Shell) {
    let token = demo.take("get a token that may see users");
    let token = shell.paste(&token).await;
    assert_eq!(token.trim().split('.').count(), 3, "{token}");
    let page = parsed(&shell.paste(&demo.take("a page of users")).await);
    assert_eq!(page["users"].as_array().map(Vec::len), Some(2), "{page}");
    assert_eq!(page["total"], 150, "{page}");
    let user = parsed(&shell.paste(&demo.take("one of them")).await);
    assert_eq!(user["email"], "user@example.com", "{user}");
    let refused = shell.paste(&demo.take("change what nobody may")).await;
    let (head, body) = head_and_body(&refused);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body["reason"], "bad_request", "{body}");
    let heard = shell
        .paste(&demo.take("change a name, and hear of it"))
        .await;
    assert!(heard.contains("event: user.updated"), "{heard}");
    assert!(heard.contains("John Q. Doe"), "{heard}");
}

async fn internal_jwt(demo: &mut Demo, shell: &Shell) {
    let token = shell.paste(&demo.take("get a handle")).await;
    assert!(token.starts_with("bgw_at_"), "{token}");
    let called = shell.paste(&demo.take("use it")).await;
    assert_eq!(saw(&called, "x-bonterra-is-grants"), ["true"], "{called}");
    let refused = shell
        .paste(&demo.take("ask for a token in an address"))
        .await;
    let (head, body) = head_and_body(&refused);
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert_eq!(body["error"], "unsupported_response_type");
}

async fn envelope(demo: &mut Demo, shell: &Shell) {
    let said = demo.take("get a token: its type is in lower case here");
    let said = parsed(&shell.paste(&said).await);
    assert_eq!(said["token_type"], "bearer", "{said}");
    let refused = shell.paste(&demo.take("a wrong secret")).await;
    let (head, body) = head_and_body(&refused);
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    let message = "access_denied: Unauthorized";
    let envelope = json!({ "meta": {}, "errors": [{ "httpcode": 401, "message": message }] });
    assert_eq!(body, envelope);
}

/// Goes where the gateway sends a browser, sends the page's form as it is filled in, and follows to the code.
async fn log_in(url: &str, issuer: &str) -> String {
    let sent = fetch(url).await;
    assert_eq!(sent.status, 302, "{}", sent.text());
    let page = sent.header("location").expect("a redirect");
    assert!(page.starts_with(issuer), "{page}");
    let page = fetch(page).await;
    assert_eq!(page.status, 200, "{}", page.text());
    let text = page.text();
    let field = |name: &str| {
        let input = text
            .split("<input")
            .find(|input| input.contains(&format!("name=\"{name}\"")))
            .expect("a field");
        let value = input.split_once("value=\"").expect("a value").1;
        value.split('"').next().expect("a value").to_owned()
    };
    let (login, email, password) = (field("login"), field("email"), field("password"));
    let issuer: Uri = issuer.parse().expect("a URL");
    let issuer = issuer.authority().expect("a host").as_str();
    let issuer = issuer.parse().expect("an address");
    let form = [
        ("login", &*login),
        ("email", &*email),
        ("password", &*password),
        ("action", "continue"),
    ];
    let sent = request(issuer, "POST", "/login").form(&form).send().await;
    assert!(
        matches!(sent.status, 302 | 303),
        "{} {}",
        sent.status,
        sent.text()
    );
    let back = fetch(sent.header("location").expect("a redirect")).await;
    assert_eq!(back.status, 200, "{}", back.text());
    let path = back.json()["path"].as_str().expect("a path").to_owned();
    let query = path.split_once('?').expect("a query").1.to_owned();
    let mut fields = form_urlencoded::parse(query.as_bytes());
    let code = fields.find(|(name, _)| name == "code").expect("a code");
    code.1.into_owned()
}

async fn fetch(url: &str) -> Reply {
    let uri: Uri = url.parse().expect("a URL");
    let address = uri
        .authority()
        .expect("a host")
        .as_str()
        .parse()
        .expect("an address");
    request(
        address,
        "GET",
        uri.path_and_query().expect("a path").as_str(),
    )
    .send()
    .await
}

/// The files that the demo names are there, and work as it says. Returns their folder.
async fn files(demo: &Demo) -> PathBuf {
    let log = demo.named("access log");
    eventually("the access log", || {
        let log = std::fs::read_to_string(&log).expect("an access log");
        std::future::ready(log.contains("\"reason\":\"missing_token\""))
    })
    .await;
    let file = demo.named("configuration");
    let config = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(
        &file,
        config.replace("path = \"/public/*\"", "path = \"/open/*\""),
    )
    .expect("written");
    let open = request(demo.gateway, "GET", "/open/");
    eventually("changes apply at once", async || {
        open.send().await.status == 200
    })
    .await;
    Path::new(&file).parent().expect("a folder").to_owned()
}

#[tokio::test]
async fn a_port_in_use_is_told_in_words() {
    let taken = std::net::TcpListener::bind(crate::harness::local()).expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said =
        crate::harness::program::call(&std::env::temp_dir(), &["demo", "--listen", &address]).await;
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    assert!(
        said.stderr.contains(&format!("{address} is in use")),
        "{}",
        said.stderr
    );
}
