//! `explain`: the same verdict as the live gateway's, told step by step.

use crate::harness::program::{Said, call, program};
use crate::harness::{CONFIG, Raw, Reply, World, eventually, nobody, with_lines};
use bonterra_gateway::demo::auth::KeyChoice;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;

const ISSUER: &str = "[issuer.bonterra]";
const IS_GRANTS: &str = "urn:bonterra:claims:is_bonterra_grants";

const MORE: &str = r#"
[[route]]
name = "elsewhere"
path = "/elsewhere/*"
upstream = "echo"
allow_ips = ["192.0.2.0/24"]

[[route]]
name = "private"
path = "/private/*"
upstream = "echo"
forward_token = false
strip_prefix = "/private"
request_headers = { set = { X-From = "gateway" }, remove = ["X-Debug"] }
"#;

/// A request as a client and as an argument list.
struct Asked<'a> {
    method: &'a str,
    url: &'a str,
    headers: Vec<(&'a str, String)>,
    token: Option<String>,
}

impl<'a> Asked<'a> {
    fn new(method: &'a str, url: &'a str, token: Option<String>) -> Self {
        let headers = Vec::new();
        Self {
            method,
            url,
            headers,
            token,
        }
    }

    fn header(mut self, name: &'a str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Asks the live gateway by a socket.
    async fn sent(&self, world: &World) -> Reply {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.url);
        let host = world.gateway.address.to_string();
        let authorization = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let fields = self.headers.iter().map(|(name, value)| (*name, value));
        let fields = [("Host", &host)].into_iter().chain(fields);
        for (name, value) in
            fields.chain(authorization.iter().map(|value| ("Authorization", value)))
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut client = Raw::connect(world.gateway.address).await;
        client.send(head + "\r\n").await;
        client.whole().await
    }

    /// Asks the program, with the live gateway's file.
    async fn explained(&self, world: &World) -> Said {
        let file = world.gateway.file();
        let host = format!("Host: {}", world.gateway.address);
        let fields: Vec<String> = self
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let mut arguments = vec!["explain", "-c", file.to_str().expect("UTF-8")];
        arguments.extend([self.method, self.url, "-H", &host]);
        for field in &fields {
            arguments.extend(["-H", field]);
        }
        if let Some(token) = &self.token {
            arguments.extend(["--token", token]);
        }
        call(file.parent().expect("a folder"), &arguments).await
    }
}

/// What follows a name at the beginning of a line.
fn row<'t>(said: &'t Said, name: &str) -> Option<&'t str> {
    let mut lines = said.stdout.lines();
    lines.find_map(|line| {
        line.trim_start()
            .strip_prefix(name)?
            .strip_prefix(' ')
            .map(str::trim)
    })
}

/// No part of the token is shown, encoded or not.
fn assert_hides(said: &Said, token: &str, case: &str) {
    let all = format!("{}{}", said.stdout, said.stderr);
    for part in token.split('.').filter(|part| part.len() > 8) {
        assert!(!all.contains(part), "{case}: the token is shown\n{all}");
    }
}

#[tokio::test]
async fn a_refusal_is_explained_as_the_live_gateway_gives_it() {
    let config = with_lines(CONFIG, ISSUER, "max_lifetime = \"48h\"") + MORE;
    let world = World::with(&config).await;
    let good = world.auth.token();
    let with = |changes: Value| Some(world.token_with(changes));
    let claims = world.auth.claims();
    let header = |header: Value| Some(world.auth.mint_with(&header, &claims, &KeyChoice::Current));
    let by = |key: KeyChoice, header: Value| Some(world.auth.mint_with(&header, &claims, &key));
    let kid = world.auth.current_kid();
    let now = claims["iat"].as_i64().expect("iat");
    let times = |from: i64, to: i64| with(json!({ "iat": now + from, "exp": now + to }));
    let get = |token| Asked::new("GET", "/grants/1", token);
    let to = |method, url| Asked::new(method, url, Some(good.clone()));
    // Reason, failed check, and what the explanation has to name.
    let cases = [
        ("missing_token", "access", "auth = \"required\"", get(None)),
        (
            "malformed_token",
            "form",
            "not three segments",
            get(Some("a.b.c.d".into())),
        ),
        (
            "malformed_token",
            "credential",
            "no space, nothing",
            get(None).header("Authorization", "Bearer "),
        ),
        (
            "token_too_large",
            "size",
            "max_token_bytes",
            get(Some("x".repeat(9000))),
        ),
        (
            "wrong_type",
            "header",
            "\"logout+jwt\"",
            get(header(json!({ "typ": "logout+jwt" }))),
        ),
        (
            "algorithm_not_allowed",
            "header",
            "\"none\"",
            get(header(json!({ "alg": "none" }))),
        ),
        (
            "unknown_key",
            "key",
            "`stranger`",
            get(header(json!({ "kid": "stranger" }))),
        ),
        (
            "bad_signature",
            "signature",
            &kid,
            get(by(KeyChoice::Unpublished, json!({ "kid": kid }))),
        ),
        (
            "wrong_issuer",
            "issuer",
            "https://evil.example/",
            get(with(json!({ "iss": "https://evil.example/" }))),
        ),
        (
            "wrong_audience",
            "audience",
            "https://other.example",
            get(with(json!({ "aud": "https://other.example" }))),
        ),
        ("expired", "times", "58 minutes", get(times(-7200, -3500))),
        (
            "not_yet_valid",
            "times",
            "nbf is",
            get(with(json!({ "nbf": now + 3600 }))),
        ),
        (
            "too_long_lived",
            "lifetime",
            "max_lifetime is 2 days",
            get(times(0, 90 * 86_400)),
        ),
        (
            "critical_header",
            "header",
            "crit",
            get(header(json!({ "crit": ["exp"] }))),
        ),
        (
            "missing_claim",
            "times",
            "exp is absent",
            get(with(json!({ "exp": null }))),
        ),
        (
            "bound_token",
            "binding",
            "cnf",
            get(with(json!({ "cnf": { "jkt": "x" } }))),
        ),
        (
            "insufficient_scope",
            "scope",
            "all of `read:grants`, `write:grants`",
            Asked::new("GET", "/scoped/1", with(json!({ "scope": "read:grants" }))),
        ),
        (
            "claim_mismatch",
            "claim",
            "is false; the route asks for true",
            get(with(json!({ IS_GRANTS: false }))),
        ),
        (
            "ip_not_allowed",
            "address",
            "`192.0.2.0/24`",
            to("GET", "/elsewhere/1"),
        ),
        ("no_route", "route", "/nothing", to("GET", "/nothing")),
        (
            "method_not_allowed",
            "route",
            "DELETE",
            to("DELETE", "/scoped/1"),
        ),
        (
            "method_not_allowed",
            "request",
            "a path that everybody reads",
            to("TRACE", "/grants/1"),
        ),
        (
            "method_not_allowed",
            "route",
            "POST",
            to("POST", "/.well-known/oauth-protected-resource"),
        ),
        (
            "bad_request",
            "request",
            "dot segment",
            to("GET", "/grants/../public/1"),
        ),
        (
            "bad_request",
            "passage",
            "not hop-by-hop",
            to("GET", "/grants/1").header("Connection", "authorization"),
        ),
        (
            "body_too_large",
            "passage",
            "",
            to("GET", "/grants/1").header("Content-Length", "99999999"),
        ),
        (
            "multiple_tokens",
            "credential",
            "two Authorization",
            to("GET", "/grants/1").header("Authorization", "Basic eDp5"),
        ),
        (
            "multiple_tokens",
            "credential",
            "in the query",
            to("GET", "/grants/1?access_token=abcdefghijkl"),
        ),
    ];
    let mut reasons = BTreeSet::new();
    for (reason, check, named, asked) in cases {
        let live = asked.sent(&world).await;
        let said = asked.explained(&world).await;
        assert_eq!(
            row(&said, "WWW-Authenticate"),
            live.header("www-authenticate"),
            "{reason}"
        );
        assert_eq!(row(&said, "Allow"), live.header("allow"), "{reason}");
        let live = live.json();
        assert_eq!(live["reason"], reason, "{live}");
        assert_eq!(row(&said, "detail"), live["detail"].as_str(), "{reason}");
        assert_eq!(
            said.code,
            Some(3),
            "{reason}: {}{}",
            said.stdout,
            said.stderr
        );
        assert_eq!(
            row(&said, "reason"),
            live["reason"].as_str(),
            "{}",
            said.stdout
        );
        let status = live["status"].to_string();
        assert!(
            row(&said, "status").is_some_and(|own| own.starts_with(&status)),
            "{}",
            said.stdout
        );
        let end = format!("\nrefused: {status} {reason}\n");
        assert!(said.stdout.ends_with(&end), "{}", said.stdout);
        let failed = said
            .stdout
            .lines()
            .find(|line| line.starts_with("no  "))
            .expect("a check");
        assert!(
            failed.starts_with(&format!("no  {check} ")),
            "{reason}: {failed}"
        );
        let (_, told) = said.stdout.split_once("\nno  ").expect("a check");
        assert!(
            told.contains(named),
            "{reason}: no {named:?} in\n{}",
            said.stdout
        );
        if let Some(token) = &asked.token {
            assert_hides(&said, token, reason);
        }
        assert!(!said.stdout.contains("abcdefghijkl"), "{}", said.stdout);
        reasons.insert(reason);
    }
    assert!(reasons.len() >= 20, "{reasons:?}");
    assert_eq!(
        world.echo.requests(),
        0,
        "explaining and refusing ask no upstream"
    );
}

#[tokio::test]
async fn what_the_upstream_would_get_is_what_it_gets() {
    let world = World::with(&(CONFIG.to_owned() + MORE)).await;
    // Claims that have to be encoded, and headers of every kind.
    let token = world.token_with(json!({ "sub": "auth0|ünï%", "scope": ["a b", "c"] }));
    let common = |asked: Asked<'static>| {
        asked
            .header("X-Bonterra-Subject", "admin")
            .header("X_Bonterra_Auth_Id", "admin")
            .header("X-Forwarded-For", "192.0.2.9")
            .header("X-Debug", "1")
            .header("Connection", "close, x-hop")
            .header("X-Hop", "1")
            .header("Accept", "a, b")
            .header("Accept", "c")
    };
    for asked in [
        common(Asked::new(
            "GET",
            "/grants/%61?b=%61&c",
            Some(token.clone()),
        )),
        common(Asked::new("DELETE", "/private/1/2", Some(token.clone()))),
        common(Asked::new("GET", "/public/1", Some(token.clone()))),
        common(Asked::new("GET", "/optional/1", None)),
    ] {
        world.echo.forget();
        assert_eq!(asked.sent(&world).await.status, 200, "{}", asked.url);
        let seen = world.echo.seen().pop().expect("a request");
        let said = asked.explained(&world).await;
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        let (_, sent) = said.stdout.split_once("\nadmitted as ").expect("admitted");
        assert!(
            sent.contains(&format!("at {}\n", world.echo.url())),
            "{sent}"
        );
        let line = format!("\n{} {}  ", seen.method, seen.target);
        assert!(sent.contains(&line), "no {line:?} in\n{sent}");

        let headers = sent.split("\n\n").nth(1).expect("headers");
        let mut shown: Vec<(String, String)> = headers
            .lines()
            .skip(1)
            .map(|line| {
                let (name, value) = line[2..].split_once(": ").unwrap_or((&line[2..], ""));
                (name.trim_end_matches(':').to_owned(), value.to_owned())
            })
            .collect();
        let mut got: Vec<(String, String)> = seen
            .headers
            .iter()
            .map(|(name, value)| (name.to_string(), value.to_str().expect("ASCII").to_owned()))
            .collect();
        for (name, value) in shown.iter_mut().chain(&mut got) {
            if name == "x-request-id" {
                *value = "some".to_owned();
            }
            if name == "traceparent" {
                // A new trace each time.
                assert_eq!((value.len(), &value[..3]), (55, "00-"), "{value}");
                *value = "some".to_owned();
            }
            if name == "authorization" {
                *value = "Bearer ********".to_owned();
            }
        }
        shown.sort();
        got.sort();
        assert_eq!(shown, got, "{}", said.stdout);

        let marked: BTreeSet<&str> = headers
            .lines()
            .filter_map(|line| line.strip_prefix("* ")?.split(':').next())
            .collect();
        let own = seen.headers.keys().map(|name| name.as_str());
        let own: BTreeSet<&str> = own.filter(|name| name.starts_with("x-bonterra-")).collect();
        assert_eq!(marked, own, "{headers}");
        let withheld = row(&said, "not passed on:").expect("some are");
        let withheld: BTreeSet<&str> = withheld.split(", ").collect();
        let came = [
            "x-bonterra-subject",
            "x_bonterra_auth_id",
            "connection",
            "x-hop",
            "x-debug",
        ];
        for name in came.into_iter().chain(["authorization"]) {
            let sent = name != "authorization" || asked.token.is_some();
            let gone = sent && !seen.headers.contains_key(name);
            assert_eq!(withheld.contains(name), gone, "{name}: {withheld:?}");
        }
        assert_hides(&said, &token, asked.url);
    }
}

#[tokio::test]
async fn a_key_that_is_not_among_those_just_fetched_is_unknown() {
    let world = World::start().await;
    let kid = json!({ "kid": "stranger" });
    let token = world
        .auth
        .mint_with(&kid, &world.auth.claims(), &KeyChoice::Current);
    let before = world.auth.counts().jwks;
    let said = Asked::new("GET", "/grants/1", Some(token))
        .explained(&world)
        .await;
    assert!(
        said.stdout.ends_with("refused: 401 unknown_key\n"),
        "{}",
        said.stdout
    );
    assert_eq!(
        world.auth.counts().jwks,
        before + 1,
        "they cannot be any fresher"
    );
    assert_eq!(
        said.stdout.matches("ok  route").count(),
        1,
        "{}",
        said.stdout
    );

    // What needs no keys asks for none.
    let before = world.auth.counts();
    let token = world.auth.token();
    for (url, token) in [
        ("/nothing", Some(token.clone())),
        ("/public/1", Some(token)),
        ("/grants/1", None),
    ] {
        Asked::new("GET", url, token).explained(&world).await;
    }
    assert_eq!(world.auth.counts(), before);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_named() {
    let world = World::start().await;
    let token = world.auth.token();
    world.auth.stop().await;
    let said = Asked::new("GET", "/grants/1", Some(token))
        .explained(&world)
        .await;
    assert_eq!(said.code, Some(3), "{}", said.stderr);
    assert!(
        said.stdout.ends_with("refused: 503 keys_unavailable\n"),
        "{}",
        said.stdout
    );
    let keys = row(&said, "keys").expect("why");
    for part in ["[issuer.bonterra]", "discovery document"] {
        assert!(said.stdout.contains(part), "{keys}");
    }
    assert_eq!(row(&said, "Retry-After"), Some("5"));
}

/// Keys of the last run are as good as fetched ones: then that the issuer is down explains nothing.
#[tokio::test]
async fn an_issuer_that_is_down_is_no_reason_where_its_keys_were_kept() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let kept = folder.path().join("keys.json");
    let line = format!("cache_file = {kept:?}");
    let world = World::with(&with_lines(CONFIG, "[issuer.bonterra.jwks]", &line)).await;
    eventually("kept", async || kept.exists()).await;
    let other = json!({ "aud": "https://other.example" });
    let unknown = world.auth.mint_with(
        &json!({ "kid": "stranger" }),
        &world.auth.claims(),
        &KeyChoice::Current,
    );
    let cases = [
        (world.token_with(other), "401 wrong_audience", false),
        (unknown, "503 keys_unavailable", true),
    ];
    world.auth.stop().await;
    for (token, refusal, told) in cases {
        let said = Asked::new("GET", "/grants/1", Some(token))
            .explained(&world)
            .await;
        let end = format!("refused: {refusal}\n");
        assert!(said.stdout.ends_with(&end), "{}", said.stdout);
        assert_eq!(row(&said, "keys").is_some(), told, "{}", said.stdout);
    }
}

/// What `config show` masks is no more to be seen on its way upstream.
#[tokio::test]
async fn secrets_that_a_route_adds_are_hidden() {
    let route = r#"
[[route]]
name = "keyed"
path = "/keyed/*"
upstream = "echo"
auth = "none"
[route.request_headers.set]
X-Api-Key = "hunter-2 hunter-3"
X-Password = "h"
X-Callback = "http://me:hunter-6@cb/"
X-From = "gateway"
"#;
    let world = World::with(&format!("{CONFIG}{route}")).await;
    let asked = Asked::new("GET", "/keyed/1?a=b;access_token=hunter-7&c", None)
        .header("X-Client-Secret", "hunter-8");
    let said = asked.explained(&world).await;
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    for line in [
        "x-api-key: ********",
        "x-password: ********",
        "x-client-secret: ********",
        "x-callback: http://********@cb/",
        "x-from: gateway",
    ] {
        assert!(
            said.stdout.lines().any(|own| own.trim_start() == line),
            "no {line:?} in\n{}",
            said.stdout
        );
    }
    assert!(!said.stdout.contains("hunter"), "{}", said.stdout);
    assert!(
        said.stdout.contains("?a=b;access_token=********&c"),
        "{}",
        said.stdout
    );
}

#[tokio::test]
async fn what_the_gateway_answers_itself_is_said() {
    let world = World::start().await;
    for (method, url, expected) in [
        ("POST", "/oauth/token", "[oauth.bonterra]"),
        ("GET", "/oauth/token", "asked for by POST"),
        (
            "GET",
            "/.well-known/oauth-protected-resource",
            "authorization_servers",
        ),
    ] {
        let said = Asked::new(method, url, None).explained(&world).await;
        assert_eq!(said.code, Some(0), "{url}: {}", said.stderr);
        assert!(
            said.stdout.contains("\nanswered by "),
            "{url}: {}",
            said.stdout
        );
        assert!(said.stdout.contains(expected), "{url}: {}", said.stdout);
    }
}

#[tokio::test]
async fn where_a_request_comes_from_can_be_said() {
    let server = "trusted_proxies = [\"10.0.0.0/8\"]";
    let config = with_lines(CONFIG, "[server]", server) + MORE;
    let world = World::with(&config).await;
    let file = world.gateway.file();
    let file = file.to_str().expect("UTF-8");
    let token = world.auth.token();
    for (from, forwarded, code) in [
        ("192.0.2.1", "X-A: b", 0),
        ("198.51.100.1", "X-A: b", 3),
        ("198.51.100.1", "X-Forwarded-For: 192.0.2.1", 3),
        ("10.0.0.1", "X-Forwarded-For: 192.0.2.1", 0),
        ("10.0.0.1", "X-Forwarded-For: nobody", 3),
        ("::ffff:192.0.2.1", "X-A: b", 0),
    ] {
        let url = "http://api.example/elsewhere/1";
        let arguments = [
            "explain", "-c", file, "GET", url, "--from", from, "-H", forwarded, "--token", &token,
        ];
        let said = call("/".as_ref(), &arguments).await;
        assert_eq!(said.code, Some(code), "{from} {forwarded}: {}", said.stdout);
        assert!(said.stdout.contains("host api.example"), "{}", said.stdout);
    }
}

#[tokio::test]
async fn a_token_is_read_from_standard_input() {
    let world = World::start().await;
    let file = world.gateway.file();
    let token = world.auth.token();
    for (input, code, expected) in [
        (format!("{token}\n"), 0, "admitted as "),
        (format!("{token}\r\n"), 0, "admitted as "),
        (token.clone(), 0, "admitted as "),
        (String::new(), 3, "malformed_token"),
        (format!("{token}\n{token}\n"), 2, "line break"),
    ] {
        let arguments = [
            "explain",
            "-c",
            file.to_str().expect("UTF-8"),
            "GET",
            "/grants/1",
            "--token",
            "-",
        ];
        let said = piped(&arguments, &input).await;
        assert_eq!(said.code, Some(code), "{}{}", said.stdout, said.stderr);
        let all = format!("{}{}", said.stdout, said.stderr);
        assert!(all.contains(expected), "{all}");
        assert_hides(&said, &token, expected);
    }
    let arguments = [
        "explain",
        "-c",
        file.to_str().expect("UTF-8"),
        "GET",
        "/",
        "--token",
        "-",
    ];
    let mut command = program(&arguments);
    // A folder can be opened, and not read.
    let output = command
        .stdin(std::fs::File::open("/").expect("a folder"))
        .output();
    let output = output.expect("ended");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard input"));
}

#[tokio::test]
async fn what_cannot_be_asked_is_2() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let config = CONFIG
        .replace("ISSUER", &format!("http://{}/", nobody()))
        .replace("ECHO", "http://127.0.0.1:1");
    std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
    std::fs::write(folder.path().join("bad.toml"), "[server]\nlistn = []\n").expect("written");
    for (arguments, expected) in [
        (&["GET"][..], "<URL>"),
        (&["GET", "grants"], "/path"),
        (&["GET", "/a b"], "%20"),
        (&["G@T", "/"], "METHOD"),
        (&["GET", "/", "-H", "no colon"], "no colon"),
        (&["GET", "/", "-H", "a: b\nc: d"], "line break"),
        (&["GET", "/", "--from", "me"], "--from"),
        (&["GET", "/", "-c", "bad.toml"], "listn"),
        (&["GET", "/", "-c", "absent.toml"], "absent.toml"),
    ] {
        let said = call(folder.path(), &[&["explain"], arguments].concat()).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stdout);
        assert_eq!(said.stdout, "", "{arguments:?}");
        assert!(
            said.stderr.contains(expected),
            "{arguments:?}: {}",
            said.stderr
        );
    }
}

/// Runs the program with something to read.
pub async fn piped(arguments: &[&str], input: &str) -> Said {
    let mut command = program(arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let input = input.to_owned();
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().expect("started");
        // A program that refuses its arguments does not read.
        let _ = child
            .stdin
            .take()
            .expect("piped")
            .write_all(input.as_bytes());
        child.wait_with_output().expect("ended")
    });
    let output = output.await.expect("no panic");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Said {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
