//! The table of the OAuth surface. What the token endpoint refuses, and what it makes of an issuer that
//! fails, is in `oauth` at length; addresses that clients make up are in `surface::client_address`, and
//! mistakes in authorization requests in `surface::users`. Here is the rest of each row, at surfaces of
//! both formats and with tokens that are given again.

use crate::harness::program::GatewayProcess;
use crate::harness::{CONFIG, Raw, Reply, Request, World, eventually, local, request, with_lines};
use crate::oauth::log_in;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, REDIRECT_URI};
use bonterra_gateway::demo::echo::Echo;
use serde_json::json;

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];
const FORM: &str = "application/x-www-form-urlencoded";
const BASIC: &str = "Basic ZGVtby1jbGllbnQ6ZGVtby1zZWNyZXQ=";
const VERIFIER: &str = "s3cret-verifier-of-forty-three-characters-at-least";

/// The token endpoints: the errors of the first are as in RFC 6749, those of the second in an envelope.
const PLACES: [&str; 2] = ["/oauth/token", "/oauth2/tokens"];

/// [`CONFIG`] with both of them.
fn both() -> String {
    format!(
        "{CONFIG}
[oauth.bonterra.cache]
enabled = true

[oauth.second]
issuer = \"bonterra\"
prefix = \"/oauth2\"
paths = {{ token = \"/oauth2/tokens\" }}
errors = \"envelope\"

[oauth.second.cache]
enabled = true
"
    )
}

/// The code of RFC 6749 in an error, which comes in the format of its place.
fn code_of(reply: &Reply, place: &str) -> String {
    let body = reply.json();
    let text = if place.starts_with("/oauth2/") {
        let error = &body["errors"][0];
        assert_eq!(
            body,
            json!({ "meta": {}, "errors": [error] }),
            "{place}: nothing else"
        );
        assert_eq!(error["httpcode"], reply.status, "{place}");
        error["message"].as_str()
    } else {
        body["error"].as_str()
    };
    let text = text.unwrap_or_else(|| panic!("{place}: {body}"));
    text.split_once(": ")
        .map_or(text, |(code, _)| code)
        .to_owned()
}

fn assert_error(reply: &Reply, place: &str, status: u16, code: &str, case: &str) {
    assert_eq!(reply.status, status, "{case} at {place}: {}", reply.text());
    assert_eq!(code_of(reply, place), code, "{case} at {place}");
    assert_eq!(
        reply.header("cache-control"),
        Some("no-store"),
        "{case} at {place}"
    );
    assert_eq!(reply.header("location"), None, "{case} at {place}");
}

/// Refused at both places, and the issuer is not asked.
async fn refused_here(
    world: &World,
    made: impl Fn(Request) -> Request,
    status: u16,
    code: &str,
    case: &str,
) {
    let before = world.auth.counts();
    for place in PLACES {
        let reply = made(world.post(place)).send().await;
        assert_error(&reply, place, status, code, case);
        let challenge = reply.header("www-authenticate");
        assert_eq!(
            challenge,
            (status == 401).then_some("Basic realm=\"bonterra\""),
            "{case}"
        );
    }
    assert_eq!(world.auth.counts(), before, "{case}: the issuer was asked");
}

/// Sent: bodies that are announced to be too large, or do not end. Expected: 413 without waiting for
/// them, and nobody is asked to send them.
#[tokio::test]
async fn row_01_bodies_that_are_announced_or_endless() {
    let world = World::with(&both()).await;
    let head = |place: &str, lines: &str| {
        format!("POST {place} HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\n{lines}\r\n\r\n")
    };
    for place in PLACES {
        for lines in [
            "content-length: 65537",
            "content-length: 1099511627776",
            "content-length: 65537\r\nexpect: 100-continue",
        ] {
            let mut raw = Raw::connect(world.gateway.address).await;
            raw.send(head(place, lines)).await;
            assert_error(&raw.whole().await, place, 413, "invalid_request", lines);
        }
        let mut raw = Raw::connect(world.gateway.address).await;
        raw.send(head(place, "transfer-encoding: chunked")).await;
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        for _ in 0..100 {
            raw.try_send(chunk.as_bytes()).await;
        }
        assert_error(&raw.whole().await, place, 413, "invalid_request", "endless");
        raw.rest().await;
    }
    assert_eq!(world.auth.counts().token, 0);
}

/// Sent: a body that does not come. Expected: 408 in time, in the format of the surface.
#[tokio::test]
async fn row_01_a_body_that_does_not_come() {
    let world = World::with(&with_lines(&both(), "[server]", "body_timeout = \"200ms\"")).await;
    for place in PLACES {
        let mut raw = Raw::connect(world.gateway.address).await;
        let head = format!(
            "POST {place} HTTP/1.1\r\nhost: a\r\ncontent-type: {FORM}\r\ncontent-length: 20\r\n\r\ngrant"
        );
        raw.send(head).await;
        assert_error(&raw.whole().await, place, 408, "invalid_request", "slow");
    }
    assert_eq!(world.auth.counts().token, 0);
}

/// Sent: other methods and content types. Expected: 405 and 415, in the format of the surface.
#[tokio::test]
async fn row_01_other_methods_and_content_types() {
    let world = World::with(&both()).await;
    for place in PLACES {
        for method in ["GET", "PUT", "PATCH", "DELETE", "BREW"] {
            let asked = request(world.gateway.address, method, place).form(&MACHINE);
            let reply = asked.send().await;
            assert_error(&reply, place, 405, "invalid_request", method);
            assert_eq!(reply.header("allow"), Some("POST"));
        }
    }
    let body = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    for content_type in ["text/plain", "multipart/form-data; boundary=x", "", "a b"] {
        let made = |request: Request| request.header("content-type", content_type).body(body);
        refused_here(&world, made, 415, "invalid_request", content_type).await;
    }
    let bare = |request: Request| request.body(body);
    refused_here(&world, bare, 415, "invalid_request", "no content type").await;
}

/// Sent: requests that no issuer could grant. Expected: refused here, and the issuer not asked.
#[tokio::test]
async fn row_02_what_no_issuer_could_grant() {
    let world = World::with(&both()).await;
    let machine = "grant_type=client_credentials&client_id=demo-client&client_secret=demo-secret";
    let assertion = "client_assertion=j&client_assertion_type=t";
    let grant = "grant_type=client_credentials";
    type Row<'a> = (&'a str, Option<&'a [u8]>, String, u16, &'a str);
    let rows: [Row<'_>; 14] = [
        (
            "a parameter twice, empty",
            None,
            format!("{machine}&scope=&scope="),
            400,
            "invalid_request",
        ),
        (
            "a secret twice",
            None,
            format!("{machine}&client_secret=demo-secret"),
            400,
            "invalid_request",
        ),
        (
            "post and assertion",
            None,
            format!("{machine}&{assertion}"),
            400,
            "invalid_request",
        ),
        (
            "Basic and assertion",
            Some(BASIC.as_bytes()),
            format!("{grant}&{assertion}"),
            400,
            "invalid_request",
        ),
        (
            "Basic and post",
            Some(BASIC.as_bytes()),
            machine.to_owned(),
            400,
            "invalid_request",
        ),
        (
            "Bearer and post",
            Some(b"Bearer t"),
            machine.to_owned(),
            400,
            "invalid_request",
        ),
        (
            "a type without its assertion",
            None,
            format!("{machine}&client_assertion_type=t"),
            400,
            "invalid_request",
        ),
        (
            "an unknown grant",
            Some(BASIC.as_bytes()),
            "grant_type=urn:x".to_owned(),
            400,
            "unsupported_grant_type",
        ),
        (
            "a code grant without a code",
            Some(BASIC.as_bytes()),
            "grant_type=authorization_code&redirect_uri=x".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "a refresh without a client",
            None,
            "grant_type=refresh_token&refresh_token=x".to_owned(),
            400,
            "invalid_request",
        ),
        (
            "Basic in Latin-1",
            Some(b"Basic \xe9"),
            grant.to_owned(),
            401,
            "invalid_client",
        ),
        (
            "Basic without a credential",
            Some(b"Basic"),
            grant.to_owned(),
            401,
            "invalid_client",
        ),
        (
            "Basic without a colon",
            Some(b"Basic YWJj"),
            grant.to_owned(),
            401,
            "invalid_client",
        ),
        (
            "two credentials in one Basic",
            Some(b"Basic YTpi, Basic YTpi"),
            grant.to_owned(),
            401,
            "invalid_client",
        ),
    ];
    for (case, authorization, body, status, code) in rows {
        let made = |request: Request| {
            let request = request.header("content-type", FORM).body(body.clone());
            match authorization {
                Some(value) => request.header("authorization", value),
                None => request,
            }
        };
        refused_here(&world, made, status, code, case).await;
    }
    let twice = r#"{"grant_type":"client_credentials","client_id":"a","client_secret":"b","\u0067rant_type":"client_credentials"}"#;
    let made = |request: Request| {
        request
            .header("content-type", "application/json")
            .body(twice)
    };
    refused_here(&world, made, 400, "invalid_request", "a member twice").await;
}

/// The issuer: does what it is asked, and dies before it says so. Expected: 502, and exactly one POST of
/// each request; what was spent is spent, and failures are not given again.
#[tokio::test]
async fn row_03_an_issuer_that_dies_after_the_request() {
    let world = World::with(&both()).await;
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    for place in PLACES {
        let code = log_in(&world.auth, &challenge, "openid offline_access").await;
        let exchange = [
            ("grant_type", "authorization_code"),
            ("client_id", "demo-web"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        let refresh = [
            ("grant_type", "refresh_token"),
            ("client_id", "demo-web"),
            ("refresh_token", "v1.s3cret"),
        ];
        for fields in [&exchange[..], &refresh, &MACHINE] {
            let (grant, before) = (fields[0].1, world.auth.counts().token);
            let lost = Some(Fault::LoseReply);
            world.auth.set_fault(Endpoint::Token, lost);
            let reply = world.post(place).form(fields).send().await;
            assert_error(&reply, place, 502, "temporarily_unavailable", grant);
            assert_eq!(world.auth.counts().token, before + 1, "{grant} at {place}");
            world.auth.set_fault(Endpoint::Token, None);
            let again = world.post(place).form(fields).send().await;
            assert_eq!(world.auth.counts().token, before + 2, "{grant} at {place}");
            if grant == "client_credentials" {
                assert_eq!(again.status, 200, "{}", again.text());
            } else {
                assert_error(&again, place, 403, "invalid_grant", grant);
            }
        }
    }
}

/// Asked for: tokens by the implicit grant, and by the password grant where it is not enabled.
/// Expected: refused here and by no redirect.
#[tokio::test]
async fn row_05_implicit_and_password_grants() {
    let world = World::with(&both()).await;
    for place in ["/oauth/authorize", "/oauth2/authorize"] {
        for (response_type, code) in [
            ("token", "unsupported_response_type"),
            ("%74oken", "unsupported_response_type"),
            ("Token", "unsupported_response_type"),
            ("code+token", "unsupported_response_type"),
            ("id_token%20token", "unsupported_response_type"),
            ("token%20", "unsupported_response_type"),
            ("code&response_type=token", "invalid_request"),
            ("code&response%5Ftype=token", "invalid_request"),
        ] {
            let query = format!(
                "client_id=demo-web&redirect_uri={REDIRECT_URI}&response_type={response_type}"
            );
            let reply = world.get(&format!("{place}?{query}")).send().await;
            assert_error(&reply, place, 400, code, response_type);
        }
    }
    assert_eq!(world.auth.counts().authorize, 0);
    let password = [
        ("grant_type", "password"),
        ("username", "user@example.com"),
        ("password", "demo"),
        ("client_id", "demo-backend"),
        ("client_secret", "backend-secret"),
    ];
    let made = |request: Request| request.form(&password);
    refused_here(&world, made, 400, "unsupported_grant_type", "a form").await;
    let made = |request: Request| request.json(&password.into_iter().collect());
    refused_here(&world, made, 400, "unsupported_grant_type", "JSON").await;
    let made = |request: Request| {
        request
            .header("authorization", BASIC)
            .form(password.get(..3).expect("three"))
    };
    refused_here(&world, made, 400, "unsupported_grant_type", "Basic").await;
}

/// Written: logs at the level that says everything, metrics, error bodies and the status page, while
/// users log in and tokens are given again. Expected: no token, code, secret or verifier. `oauth` has no
/// such test; the one of the token endpoint and of proxied requests is in `metrics_and_log`.
#[tokio::test]
async fn row_06_nothing_secret_is_written_of_users_and_of_tokens_given_again() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let echo = Echo::start(local()).await.expect("upstream");
    let config = format!("{}\n[log]\nlevel = \"trace\"\n", both());
    let config = config
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = GatewayProcess::start(&config).await;
    gateway.logged("ready").await;
    let send = async |method: &str, path: &str, made: &dyn Fn(Request) -> Request| {
        made(request(gateway.address, method, path)).send().await
    };
    let text = |reply: &Reply, name: &str| {
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()[name].as_str().expect("text").to_owned()
    };
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
    let code = log_in(&auth, &challenge, "openid offline_access").await;
    let exchange = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-web"),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
    ];
    let wrong = [MACHINE[0], MACHINE[1], ("client_secret", "s3cret-wrong")];
    let mut secrets = vec!["s3cret".to_owned(), "demo-secret".to_owned(), code.clone()];
    let mut said = Vec::new();
    let part = |token: &str, at: usize| token.split('.').nth(at).expect("three parts").to_owned();
    for place in PLACES {
        let prefix = &place[..place.rfind('/').expect("a prefix")];
        let query = "client_id=demo-web&state=s3cret-state&nonce=s3cret-nonce&response_type";
        for (response_type, status) in [("code", 302), ("token", 400)] {
            let path = format!(
                "{prefix}/authorize?{query}={response_type}&redirect_uri={REDIRECT_URI}%3fs3cret"
            );
            let reply = send("GET", &path, &|it| it).await;
            assert_eq!(reply.status, status, "{}", reply.text());
            if status == 400 {
                said.push(reply.text());
            }
        }
        // Bought, given again, refused, and refused again.
        for _ in 0..2 {
            let token = text(
                &send("POST", place, &|it| it.form(&MACHINE)).await,
                "access_token",
            );
            secrets.extend([part(&token, 1), part(&token, 2)]);
            let refused = send("POST", place, &|it| it.form(&wrong)).await;
            assert_eq!(refused.status, 401);
            said.push(refused.text());
        }
        // A code that is good once.
        let reply = send("POST", place, &|it| it.form(&exchange)).await;
        if reply.status == 200 {
            let (token, next) = (text(&reply, "access_token"), text(&reply, "refresh_token"));
            let user = format!("{prefix}/userinfo");
            let known = send("GET", &user, &|it| it.bearer(&token)).await;
            assert_eq!(known.status, 200, "{}", known.text());
            secrets.extend([part(&token, 1), part(&token, 2), next]);
        } else {
            assert_eq!(code_of(&reply, place), "invalid_grant");
            said.push(reply.text());
        }
        let user = format!("{prefix}/userinfo?access_token=s3cret-query");
        for bearer in ["s3cret-token", "s3cret token"] {
            let reply = send("GET", &user, &|it| it.bearer(bearer)).await;
            assert!(reply.status == 400 || reply.status == 401);
            said.push(reply.text());
        }
    }
    for path in ["/metrics", "/", "/readyz?verbose"] {
        said.push(request(gateway.admin, "GET", path).send().await.text());
    }
    eventually("all records", || {
        std::future::ready(gateway.running.stdout.records().len() >= 18)
    })
    .await;
    said.push(gateway.running.stdout.text());
    said.push(gateway.running.stderr.text());
    let said = said.join("\n");
    secrets.push(STANDARD.encode("demo-client:demo-secret"));
    for secret in &secrets {
        let found = said.lines().find(|line| line.contains(secret.as_str()));
        assert_eq!(found, None, "{secret}");
    }
    assert!(
        said.contains("\"level\":\"DEBUG\""),
        "the level is in force"
    );
}
