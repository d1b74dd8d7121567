//! The gateway's own token for an upstream: bought once, renewed ahead, thrown away when it is refused,
//! and never the caller's.

mod meanwhile;

use crate::harness::program::call;
use crate::harness::{CONFIG, Reply, Request, World, assert_refused, eventually, request};
use bonterra_gateway::demo::auth::{AuthOptions, Endpoint, Fault};
use bonterra_gateway::snapshot::compile;
use bonterra_gateway::{app, config};
use serde_json::json;
use std::time::Duration;

const CLIENT: &str = "demo-management";
const SECRET: &str = "management-secret";
const JOHN: &str = "/admin/users/auth0%7C507f1f77bcf86cd799439011";

/// An upstream with a token: the echo API, which tells what it got, or Bonterra Auth itself.
fn config(server: &str) -> String {
    format!(
        r#"{CONFIG}
[upstream.own]
servers = ["{server}"]

[upstream.own.token]
issuer = "bonterra"
client_id = "{CLIENT}"
client_secret = "{SECRET}"
audience = "ISSUERapi/v2/"

[[route]]
name = "own"
path = "/own/*"
upstream = "own"

[[route]]
name = "open"
path = "/open/*"
upstream = "own"
auth = "none"

[[route]]
name = "admin"
path = "/admin/*"
upstream = "own"
strip_prefix = "/admin"
add_prefix = "/api/v2"
"#
    )
    .replace("workers = 1", "workers = 2")
}

impl World {
    fn fetches(&self) -> u64 {
        self.auth.requests_by(Endpoint::Token, CLIENT)
    }

    async fn counted(&self, result: &str) -> f64 {
        let series =
            format!("gateway_upstream_token_fetches_total{{result=\"{result}\",upstream=\"own\"}}");
        self.gateway.metric(&series).await
    }

    fn own(&self) -> Request {
        self.authorized("/own/1")
    }
}

/// What the upstream got in `Authorization`.
fn sent(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let sent = reply.upstream_saw("authorization");
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent.into_iter().next().expect("one")
}

fn lifetime(seconds: u64) -> AuthOptions {
    AuthOptions {
        token_lifetime: Duration::from_secs(seconds),
        ..AuthOptions::default()
    }
}

fn unauthorized() -> Fault {
    let body = r#"{"statusCode":401,"error":"Unauthorized","message":"Invalid token"}"#;
    Fault::Status(401, "application/json".to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_hundred_first_requests_share_one_fetch() {
    let world = World::with(&config("ECHO")).await;
    assert_eq!(world.fetches(), 0, "nothing is bought before it is needed");
    let slow = Fault::Slow(Duration::from_millis(300));
    world.auth.set_fault(Endpoint::Token, Some(slow));
    let (address, token) = (world.gateway.address, world.auth.token());
    let all: Vec<_> = (0..100)
        .map(|_| {
            let request = request(address, "GET", "/own/1").bearer(&token);
            tokio::spawn(async move { request.send().await })
        })
        .collect();
    let mut tokens = Vec::new();
    for one in all {
        tokens.push(sent(&one.await.expect("an answer")));
    }
    tokens.dedup();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].starts_with("Bearer ") && !tokens[0].contains(&token));
    assert_eq!(world.fetches(), 1);
    assert_eq!(world.counted("ok").await, 1.0);
    let asked = world.auth.last_token_request().expect("a request");
    let audience = world.auth.management_audience();
    let expected = [
        ("grant_type", "client_credentials"),
        ("audience", &*audience),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(asked.form(), expected);
    assert!(
        asked
            .header("authorization")
            .is_some_and(|it| it.starts_with("Basic "))
    );
}

#[tokio::test]
async fn nothing_of_the_callers_gets_there() {
    let world = World::with(&config("ECHO")).await;
    let own = sent(&world.own().send().await);
    for authorization in ["Bearer stolen", "Basic c3RvbGVu", "stolen"] {
        let reply = world.get("/open/1").header("authorization", authorization);
        let reply = reply.send().await;
        assert_eq!(sent(&reply), own);
        assert!(!reply.text().contains("c3RvbGVu") && !reply.text().contains("stolen"));
    }
    assert_eq!(sent(&world.get("/open/1").send().await), own);
    // Nor the other way round: other upstreams see the caller's.
    let token = world.auth.token();
    let other = world.get("/grants/1").bearer(&token).send().await;
    assert_eq!(sent(&other), format!("Bearer {token}"));
    let refused = world.get("/own/1").send().await;
    assert_refused(&world.gateway, &refused, 401, "missing_token", "own").await;
}

#[tokio::test]
async fn a_token_in_use_is_renewed_ahead_and_nobody_waits() {
    let world = World::of(lifetime(1000), &config("ECHO")).await;
    let first = sent(&world.own().send().await);
    let clock = world.gateway.app.clock();
    // Behind four fifths; whoever asked and waited would wait for ever.
    clock.advance(Duration::from_secs(850));
    world.auth.set_fault(Endpoint::Token, Some(Fault::Hang));
    assert_eq!(sent(&world.own().send().await), first);
    eventually("the next one is asked for", async || world.fetches() == 2).await;
    assert_eq!(sent(&world.own().send().await), first);
    assert_eq!(world.fetches(), 2, "once");
}

#[tokio::test]
async fn the_new_token_takes_the_place_of_the_old_one() {
    let world = World::of(lifetime(1000), &config("ECHO")).await;
    let first = sent(&world.own().send().await);
    world.gateway.app.clock().advance(Duration::from_secs(850));
    let caller = world.auth.token();
    let next = || world.get("/open/1").bearer(&caller);
    assert_eq!(sent(&next().send().await), first);
    eventually("another token", async || {
        sent(&next().send().await) != first
    })
    .await;
    assert_eq!(world.fetches(), 2);
}

/// Without a request that would notice it: by the time on the wall.
#[tokio::test]
async fn it_is_renewed_in_the_background_as_long_as_it_is_used() {
    let world = World::of(lifetime(6), &config("ECHO")).await;
    let first = sent(&world.get("/open/1").send().await);
    eventually("renewed", async || world.counted("ok").await == 2.0).await;
    let second = sent(&world.get("/open/1").send().await);
    assert_ne!(first, second);
    assert_eq!(world.fetches(), 2);
}

#[tokio::test]
async fn a_refused_token_is_thrown_away_and_the_request_sent_once_more() {
    let world = World::with(&config("ISSUER")).await;
    let users = || world.authorized("/admin/users");
    assert_eq!(users().send().await.status, 200);
    world.auth.set_fault_for(Endpoint::Users, unauthorized(), 1);
    let before = world.auth.last_request(Endpoint::Users).expect("a request");
    assert_eq!(users().send().await.status, 200);
    let after = world.auth.last_request(Endpoint::Users).expect("a request");
    assert_ne!(
        before.header("authorization"),
        after.header("authorization")
    );
    assert_eq!((world.fetches(), world.auth.counts().users), (2, 3));
    assert_eq!(users().send().await.status, 200);
    assert_eq!((world.fetches(), world.auth.counts().users), (2, 4));
}

/// An upstream that likes no token at all does not have one bought for every request.
#[tokio::test]
async fn a_second_refusal_passes_and_costs_no_more_tokens() {
    let world = World::with(&config("ISSUER")).await;
    world.auth.set_fault(Endpoint::Users, Some(unauthorized()));
    let users = || world.authorized("/admin/users");
    let reply = users().send().await;
    assert_eq!(reply.status, 401);
    assert_eq!(reply.json()["message"], json!("Invalid token"));
    assert_eq!((world.fetches(), world.auth.counts().users), (2, 2));
    for more in 1..4 {
        assert_eq!(users().send().await.status, 401);
        assert_eq!((world.fetches(), world.auth.counts().users), (2, 2 + more));
    }
}

#[tokio::test]
async fn a_body_is_sent_again_if_all_of_it_is_there() {
    let world = World::with(&config("ISSUER")).await;
    let patch = |body: &str| {
        request(world.gateway.address, "PATCH", JOHN)
            .bearer(&world.auth.token())
            .header("content-type", "application/json")
            .body(body.to_owned())
    };
    let fault = || {
        let auth = &world.auth;
        auth.set_fault_for(Endpoint::UpdateUser, unauthorized(), 1);
    };
    fault();
    // More than is kept: nobody could send it again.
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(100 << 10));
    assert_eq!(patch(&large).send().await.status, 401);
    assert_eq!((world.fetches(), world.auth.counts().update_user), (1, 1));
    // It was thrown away all the same.
    let reply = patch(r#"{"name":"Second"}"#).send().await;
    assert_eq!((reply.status, world.fetches()), (200, 2));
}

#[tokio::test]
async fn a_small_body_goes_out_twice() {
    let world = World::with(&config("ISSUER")).await;
    world
        .auth
        .set_fault_for(Endpoint::UpdateUser, unauthorized(), 1);
    let body = r#"{"name":"John Updated Doe"}"#;
    let reply = request(world.gateway.address, "PATCH", JOHN)
        .bearer(&world.auth.token())
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["name"], json!("John Updated Doe"));
    assert_eq!((world.fetches(), world.auth.counts().update_user), (2, 2));
    let last = world.auth.last_request(Endpoint::UpdateUser);
    assert_eq!(last.expect("a request").body, body);
}

/// The refused token cannot be replaced: the upstream's own answer is better than none.
#[tokio::test]
async fn if_there_is_no_other_token_the_refusal_passes() {
    let world = World::with(&config("ISSUER")).await;
    let users = || world.authorized("/admin/users");
    assert_eq!(users().send().await.status, 200);
    world.auth.set_fault(Endpoint::Users, Some(unauthorized()));
    world
        .auth
        .set_fault(Endpoint::Token, Some(Fault::CutAfterRequest));
    assert_eq!(users().send().await.status, 401);
    assert_eq!((world.fetches(), world.auth.counts().users), (2, 2));
}

#[tokio::test]
async fn without_an_issuer_there_is_503_until_it_is_back() {
    let world = World::with(&config("ECHO")).await;
    let down = Fault::Status(500, "text/plain".to_owned(), String::new());
    world.auth.set_fault(Endpoint::Token, Some(down));
    let reply = world.own().send().await;
    assert_refused(&world.gateway, &reply, 503, "upstream_unhealthy", "own").await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    for _ in 0..20 {
        assert_eq!(world.own().send().await.status, 503);
    }
    // It is asked now and then, and not by every request.
    assert!(world.fetches() < 5, "{}", world.fetches());
    assert!(world.echo.seen().is_empty());
    world.auth.set_fault(Endpoint::Token, None);
    eventually("there is a token", async || {
        world.own().send().await.status == 200
    })
    .await;
    assert!(world.counted("error").await >= 1.0);
}

#[tokio::test]
async fn an_outage_costs_nothing_until_the_token_ends_and_then_it_is_not_sent() {
    let world = World::of(lifetime(1000), &config("ECHO")).await;
    let get = || world.get("/open/1");
    let first = sent(&get().send().await);
    world
        .auth
        .set_fault(Endpoint::Token, Some(Fault::CutAfterRequest));
    let clock = world.gateway.app.clock();
    for _ in 0..9 {
        clock.advance(Duration::from_secs(110));
        for _ in 0..3 {
            assert_eq!(sent(&get().send().await), first);
        }
    }
    // 990 seconds have passed; 5 before its end it is over.
    clock.advance(Duration::from_secs(5));
    let before = world.echo.seen().len();
    let reply = get().send().await;
    assert_refused(&world.gateway, &reply, 503, "upstream_unhealthy", "open").await;
    assert_eq!(world.echo.seen().len(), before);
}

#[tokio::test]
async fn a_quota_is_respected() {
    let world = World::with(&config("ECHO")).await;
    world
        .auth
        .set_fault_for(Endpoint::Token, Fault::throttled(3600), 1);
    assert_eq!(world.own().send().await.status, 503);
    // Longer than any pause without one.
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert_eq!(world.own().send().await.status, 503);
    assert_eq!(world.fetches(), 1, "the issuer has said when to come back");
}

#[tokio::test]
async fn a_reload_takes_the_token_over_unless_the_table_has_changed() {
    let world = World::with(&config("ECHO")).await;
    let first = sent(&world.own().send().await);
    let file = world.gateway.file();
    let text = std::fs::read_to_string(&file).expect("the file");
    let reload = async |text: &str| {
        std::fs::write(&file, text).expect("written");
        assert_eq!(world.gateway.admin("POST", "/-/reload").await.status, 200);
    };
    reload(&text.replace("name = \"open\"", "name = \"opened\"")).await;
    assert_eq!(sent(&world.own().send().await), first);
    assert_eq!(world.fetches(), 1);
    reload(&text.replace(SECRET, "another-secret")).await;
    let refused = world.own().send().await;
    assert_eq!(refused.status, 503, "the old token is gone with the secret");
    reload(&text).await;
    assert_ne!(sent(&world.own().send().await), first);
    assert_eq!(world.fetches(), 3);
}

#[tokio::test]
async fn a_secret_in_a_file_is_renewed_when_the_file_is() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "outdated\n").expect("written");
    let config = config("ECHO").replace(
        &format!("client_secret = \"{SECRET}\""),
        &format!("client_secret_file = \"{}\"", secret.display()),
    );
    let world = World::with(&config).await;
    assert_eq!(world.own().send().await.status, 503);
    std::fs::write(&secret, format!("{SECRET}\n")).expect("written");
    eventually("the new secret is in use", async || {
        world.own().send().await.status == 200
    })
    .await;
}

/// Real services go by their own name, and answer nothing under the gateway's.
#[tokio::test]
async fn an_upstream_may_be_called_by_its_own_name() {
    let host = "[upstream.own]\nhost = \"auth.bonterra.network\"\n";
    let config = config("ECHO").replace("[upstream.own]\n", host);
    let world = World::with(&config).await;
    let reply = world.own().header("host", "api.example.com").send().await;
    assert_eq!(reply.upstream_saw("host"), ["auth.bonterra.network"]);
    assert_eq!(reply.upstream_saw("x-forwarded-host"), ["api.example.com"]);
    let reply = world
        .authorized("/grants/1")
        .header("host", "api.example.com");
    let reply = reply.send().await;
    assert_eq!(reply.upstream_saw("host"), ["api.example.com"]);
}

#[tokio::test]
async fn neither_secret_nor_token_shows() {
    let world = World::with(&config("ECHO")).await;
    let token = sent(&world.own().send().await);
    let token = token.strip_prefix("Bearer ").expect("a token");
    world.auth.set_fault(
        Endpoint::Token,
        Some(Fault::Status(
            401,
            "application/json".to_owned(),
            format!("{{\"error\":\"{SECRET}\"}}"),
        )),
    );
    world
        .gateway
        .app
        .clock()
        .advance(Duration::from_secs(86400));
    let refused = world.get("/open/1").send().await;
    assert_eq!(refused.status, 503);
    let id = refused.header("x-request-id").expect("an id").to_owned();
    let record = world.gateway.log.record(&id).await.to_string();
    assert!(record.contains("no token for this upstream"), "{record}");
    let metrics = world.gateway.admin("GET", "/metrics").await.text();
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = world.gateway.file();
    let file = file.to_str().expect("a path");
    let shown = call(folder.path(), &["config", "show", "-c", file]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(shown.stdout.contains(CLIENT));
    let question = ["explain", "-c", file, "GET", "http://a/open/1"];
    let explained = call(folder.path(), &question).await;
    assert!(
        explained.stdout.contains("the gateway's own token"),
        "{}",
        explained.stdout
    );
    for text in [
        &world.gateway.log.text(),
        &metrics,
        &refused.text(),
        &shown.stdout,
        &explained.stdout,
        &explained.stderr,
    ] {
        assert!(!text.contains(SECRET) && !text.contains(token), "{text}");
    }
}

#[tokio::test]
async fn mistakes_are_told_where_they_are() {
    let good = config("http://127.0.0.1:1")
        .replace("ISSUER", "http://127.0.0.1:2/")
        .replace("ECHO", "http://127.0.0.1:3");
    let told = |text: &str| {
        let env = app::environment().expect("metrics");
        let compiled = compile(config::parse("gateway.toml", text), &env);
        compiled.err().map(|errors| errors.to_string())
    };
    assert_eq!(told(&good), None);
    let jwt = "[[route]]\nname = \"own\"\n";
    for (from, to, what) in [
        (
            "issuer = \"bonterra\"\nclient_id",
            "issuer = \"bontera\"\nclient_id",
            "did you mean `bonterra`?",
        ),
        (
            "issuer = \"bonterra\"\nclient_id",
            "client_id",
            "`issuer` is missing",
        ),
        (
            "client_id = \"demo-management\"\n",
            "",
            "`client_id` is missing",
        ),
        (
            "client_secret = \"management-secret\"\n",
            "",
            "`client_secret` is missing",
        ),
        (
            "audience = \"http://127.0.0.1:2/api/v2/\"",
            "audience = \"\"",
            "`audience` is empty",
        ),
        (
            "[upstream.own]\n",
            "[upstream.own]\nhost = \"http://a/\"\n",
            "this is no host",
        ),
        ("audience = \"http", "scopes = \"http", "scope"),
        (
            jwt,
            "[[route]]\nname = \"own\"\ninternal_jwt = { key_file = \"/nowhere\", audience = \"x\" }\n",
            "[upstream.own.token] takes the place of this token",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let told = told(&good.replace(from, to)).expect("a mistake");
        assert!(told.contains(what), "{told}");
        assert!(!told.contains(SECRET), "{told}");
    }
}
