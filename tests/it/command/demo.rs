//! `demo`: everything that it prints to paste works when it is pasted.

use crate::harness::program::{Running, Said, program, shell};
use crate::harness::{Reply, eventually, nobody, request};
use http::Uri;
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The demo as it runs, with what it printed.
struct Demo {
    running: Running,
    gateway: SocketAddr,
    /// The commands by what is said of them, continued lines included.
    commands: HashMap<String, String>,
}

impl Demo {
    async fn start() -> Self {
        let gateway = nobody();
        let mut running = Running::start(program(&["demo", "--listen", &gateway.to_string()]));
        eventually("the demo has printed its commands", || {
            assert!(!running.has_ended(), "{}", running.stderr.text());
            std::future::ready(running.stdout.text().ends_with("/-/reload\n"))
        })
        .await;
        let text = running.stdout.text();
        let blocks = text
            .split("\n# ")
            .skip(1)
            .map(|block| block.split_once('\n').expect("a command"));
        let commands = blocks
            .map(|(what, command)| (what.to_owned(), command.trim().to_owned()))
            .collect();
        Self {
            running,
            gateway,
            commands,
        }
    }

    /// Takes the command whose description begins like this.
    fn take(&mut self, what: &str) -> String {
        let found = self
            .commands
            .keys()
            .find(|own| own.starts_with(what))
            .cloned();
        let found = found.unwrap_or_else(|| panic!("no {what:?} in {:?}", self.commands));
        self.commands.remove(&found).expect("found")
    }
}

async fn paste(command: &str) -> Said {
    let said = shell(command).await;
    assert_eq!(
        said.code,
        Some(0),
        "{command}\n{}{}",
        said.stdout,
        said.stderr
    );
    said
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What the echo API saw of a header.
fn saw(said: &Said, name: &str) -> Vec<String> {
    let pairs: Vec<(String, String)> =
        serde_json::from_value(json(&said.stdout)["headers"].clone()).expect("headers");
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
    let get_token = demo.take("get a token");
    let token = paste(&get_token).await.stdout.trim().to_owned();
    assert_eq!(token.split('.').count(), 3, "{token}");
    let with_token = |command: &str| format!("{get_token} >/dev/null\n{command}");

    let said = paste(&demo.take("the same by JSON and Basic")).await;
    assert_eq!(
        json(&said.stdout)["token_type"],
        "Bearer",
        "{}",
        said.stdout
    );
    assert!(json(&said.stdout)["expires_in"].is_u64());

    let called = paste(&with_token(&demo.take("call an API with it"))).await;
    let identity = saw(&called, "x-bonterra-auth-id");
    assert_eq!(identity.len(), 1, "{}", called.stdout);
    assert_eq!(saw(&called, "x-bonterra-is-grants"), ["true"]);

    let without = paste(&demo.take("call without: 401")).await.stdout;
    assert!(without.starts_with("HTTP/1.1 401 "), "{without}");
    assert!(
        without.contains("\"reason\":\"missing_token\""),
        "{without}"
    );

    let forged = paste(&with_token(&demo.take("forge an identity"))).await;
    assert_eq!(saw(&forged, "x-bonterra-auth-id"), identity);
    assert!(saw(&forged, "x_bonterra_auth_id").is_empty());
    let forged = paste(&demo.take("forge one where no token is needed")).await;
    assert!(
        saw(&forged, "x-bonterra-auth-id").is_empty(),
        "{}",
        forged.stdout
    );

    let code = log_in(&demo.take("log in as a person")).await;
    let redeem = demo.take("and turn the code into tokens");
    assert!(redeem.contains("PASTE_THE_CODE"), "{redeem}");
    let tokens = json(&paste(&redeem.replace("PASTE_THE_CODE", &code)).await.stdout);
    assert!(tokens["refresh_token"].is_string(), "{tokens}");
    let access = tokens["access_token"].as_str().expect("a token");
    let called = request(demo.gateway, "GET", "/grants/1")
        .bearer(access)
        .send()
        .await;
    assert_eq!(called.status, 200, "{}", called.text());
    assert_ne!(
        called.upstream_saw("x-bonterra-auth-id"),
        identity,
        "a person, not the machine"
    );

    let metrics = paste(&demo.take("metrics for Prometheus")).await.stdout;
    assert!(
        metrics.contains("gateway_requests_total{code=\"200\",method=\"GET\",route=\"grants\"}"),
        "{metrics}"
    );
    let ready = paste(&demo.take("what is ready")).await.stdout;
    assert!(
        ready.starts_with("ready\n") && ready.contains("[+] issuer bonterra"),
        "{ready}"
    );
    let reloaded = paste(&demo.take("read the file again now")).await.stdout;
    assert!(json(&reloaded)["changes"].is_array(), "{reloaded}");
    assert!(demo.commands.is_empty(), "not tried: {:?}", demo.commands);

    let folder = files(&demo).await;
    demo.running.signal("TERM").await;
    assert_eq!(demo.running.ended().await.code(), Some(0));
    assert!(!folder.exists(), "it cleans up after itself");
}

/// Fetches the page, sends its form as it is filled in, and follows to the code.
async fn log_in(url: &str) -> String {
    let page = fetch(url).await;
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
    let uri: Uri = url.parse().expect("a URL");
    let issuer = uri
        .authority()
        .expect("a host")
        .as_str()
        .parse()
        .expect("an address");
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
    let text = demo.running.stdout.text();
    let named = |what: &str| {
        let line = text
            .lines()
            .find_map(|line| line.trim().strip_prefix(what))
            .expect("a line");
        line.split_whitespace().next().expect("a path").to_owned()
    };
    let log = named("access log");
    eventually("the access log", || {
        let log = std::fs::read_to_string(&log).expect("an access log");
        std::future::ready(log.contains("\"reason\":\"missing_token\""))
    })
    .await;
    let file = named("configuration");
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
