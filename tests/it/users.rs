//! Users and events of Bonterra Auth, as the default file serves them.

use crate::harness::link::{Link, nothing};
use crate::harness::{Gateway, Reply, Request, assert_refused, eventually, request, within};
use bonterra_gateway::config;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, RateLimit};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;

const JOHN: &str = "auth0|507f1f77bcf86cd799439011";
const JOHN_PATH: &str = "/users/auth0%7C507f1f77bcf86cd799439011";

/// Bonterra Auth, and the gateway with its default file in front of it.
struct Scene {
    auth: BonterraAuth,
    gateway: Gateway,
}

impl Scene {
    async fn start() -> Self {
        Self::of(AuthOptions::default()).await
    }

    async fn of(options: AuthOptions) -> Self {
        let auth = BonterraAuth::start(options).await.expect("issuer");
        let issuer = auth.issuer();
        let file = config::DEFAULT
            .replace("127.0.0.1:8080", "127.0.0.1:0")
            .replace("127.0.0.1:9090", "127.0.0.1:0")
            .replace("http://127.0.0.1:9400/", issuer)
            .replace("http://127.0.0.1:9400", issuer.trim_end_matches('/'))
            .replace("workers = 0 ", "workers = 1 ");
        let gateway = Gateway::start(&file).await;
        within("ready", gateway.app.ready()).await;
        Self { auth, gateway }
    }

    /// A token for the gateway's own API with these scopes.
    fn token(&self, scope: &str) -> String {
        let mut claims = self.auth.claims();
        claims["scope"] = scope.into();
        self.auth.mint(&claims)
    }

    fn get(&self, path: &str) -> Request {
        request(self.gateway.address, "GET", path).bearer(&self.token("read:users"))
    }

    fn patch(&self, path: &str, body: &str) -> Request {
        request(self.gateway.address, "PATCH", path)
            .bearer(&self.token("update:users"))
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    /// The target of the last request that Bonterra Auth got. Its token is never the caller's.
    fn target(&self, endpoint: Endpoint) -> String {
        let seen = self.auth.last_request(endpoint).expect("a request");
        let token = seen.header("authorization").expect("a token");
        for scope in ["read:users", "update:users", "read:events"] {
            assert!(!token.contains(&self.token(scope)));
        }
        seen.target
    }

    async fn listen(&self, last: Option<&str>) -> hyper::Response<Incoming> {
        let mut link = Link::connect(self.gateway.address).await;
        let mut asked = http::Request::get("/events").header(
            "authorization",
            format!("Bearer {}", self.token("read:events")),
        );
        if let Some(last) = last {
            asked = asked.header("last-event-id", last);
        }
        let asked = asked.body(nothing()).expect("a request");
        link.open(asked).await.expect("a response")
    }
}

fn told(reply: &Reply) -> String {
    assert_eq!(reply.status, 400, "{}", reply.text());
    let problem = reply.json();
    assert_eq!(problem["reason"], json!("bad_request"));
    problem["detail"].as_str().expect("a sentence").to_owned()
}

/// The next piece of a stream.
async fn piece(body: &mut Incoming) -> String {
    let frame = within("an event", body.frame()).await.expect("a frame");
    let data = frame.expect("no error").into_data().expect("data");
    String::from_utf8(data.to_vec()).expect("UTF-8")
}

#[tokio::test]
async fn a_page_of_users_is_as_the_document_has_it() {
    let scene = Scene::start().await;
    let reply = scene.get("/users?per_page=25").send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let page = reply.json();
    assert_eq!(page["users"].as_array().map(Vec::len), Some(25));
    for (member, value) in [("start", 0), ("limit", 25), ("length", 25), ("total", 150)] {
        assert_eq!(page[member], json!(value), "{member}");
    }
    let found = scene
        .get("/users?q=email:%22user@example.com%22")
        .send()
        .await;
    assert_eq!(found.json()["users"][0]["user_id"], json!(JOHN));
    assert_eq!(found.json()["total"], json!(1));
    assert_eq!(
        scene.target(Endpoint::Users),
        "/api/v2/users?q=email%3A%22user%40example.com%22&page=0&per_page=25&include_totals=true"
    );
    assert_eq!(
        scene.auth.requests_by(Endpoint::Token, "demo-management"),
        1
    );
}

#[tokio::test]
async fn the_query_keeps_to_its_limits() {
    let scene = Scene::start().await;
    for (query, sent) in [
        ("", "page=0&per_page=25&include_totals=true"),
        (
            "?include_totals=false",
            "page=0&per_page=25&include_totals=true",
        ),
        ("?per_page=1", "per_page=1&page=0&include_totals=true"),
        (
            "?per_page=100&page=1",
            "per_page=100&page=1&include_totals=true",
        ),
    ] {
        let reply = scene.get(&format!("/users{query}")).send().await;
        assert_eq!(reply.status, 200, "{query}: {}", reply.text());
        assert_eq!(
            scene.target(Endpoint::Users),
            format!("/api/v2/users?{sent}")
        );
        assert_eq!(reply.json()["total"], json!(150));
    }
    let before = scene.auth.counts().users;
    for (query, name) in [
        ("per_page=0", "per_page"),
        ("per_page=101", "per_page"),
        ("per_page=-1", "per_page"),
        ("per_page=ten", "per_page"),
        ("per%5Fpage=1000", "per_page"),
        ("page=-1", "page"),
        ("page=0.5", "page"),
        ("page=1&page=2", "page"),
        ("include_totals=true&include_totals=false", "include_totals"),
        ("fields=email", "fields"),
        ("search_engine=v1", "search_engine"),
    ] {
        let reply = scene.get(&format!("/users?{query}")).send().await;
        let detail = told(&reply);
        assert!(detail.contains(&format!("`{name}`")), "{query}: {detail}");
        assert_refused(&scene.gateway, &reply, 400, "bad_request", "users").await;
    }
    assert_eq!(scene.auth.counts().users, before, "nothing of it was asked");
}

#[tokio::test]
async fn an_id_arrives_encoded_once_whatever_came() {
    let scene = Scene::start().await;
    for id in [
        "auth0|507f1f77bcf86cd799439011",
        "auth0%7C507f1f77bcf86cd799439011",
        "auth0%7c507f1f77bcf86cd799439011",
        "%61uth0%7C507f1f77bcf86cd799439011",
    ] {
        let reply = scene.get(&format!("/users/{id}")).send().await;
        assert_eq!(reply.status, 200, "{id}: {}", reply.text());
        assert_eq!(reply.json()["user_id"], json!(JOHN));
        let sent = scene.target(Endpoint::User);
        assert_eq!(sent, format!("/api/v2{JOHN_PATH}"), "{id}");
    }
    let before = scene.auth.counts();
    for id in [
        "auth0%257C507f1f77bcf86cd799439011",
        "..%2f..%2foauth",
        "auth0%7C%2e%2e%2fx",
    ] {
        let reply = scene.get(&format!("/users/{id}")).send().await;
        assert_eq!(reply.status, 400, "{id}");
    }
    // Without an id it would be the list, without the rules for its query.
    for path in ["/users/", "/users/a/b"] {
        assert_eq!(scene.get(path).send().await.status, 404, "{path}");
    }
    assert_eq!(scene.auth.counts(), before);
    let unknown = scene.get("/users/auth0%7Cnobody").send().await;
    assert_eq!(unknown.status, 404);
    assert_eq!(unknown.json()["errorCode"], json!("inexistent_user"));
}

#[tokio::test]
async fn a_user_is_changed_by_the_documented_members_only() {
    let scene = Scene::start().await;
    // The document's own example.
    let body = r#"{"name":"John Updated Doe","app_metadata":{"plan":"x"},"user_metadata":{"theme":"dark"}}"#;
    // With a refused token on the way: what is held for the check can be sent again.
    let fault = Fault::Status(401, "application/json".to_owned(), "{}".to_owned());
    scene.auth.set_fault_for(Endpoint::UpdateUser, fault, 1);
    let reply = scene.patch(JOHN_PATH, body).send().await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(scene.auth.counts().update_user, 2);
    assert_eq!(reply.json()["name"], json!("John Updated Doe"));
    assert_eq!(reply.json()["user_metadata"], json!({"theme":"dark"}));
    let seen = scene.auth.last_request(Endpoint::UpdateUser);
    assert_eq!(seen.expect("a request").body, body);
    assert_eq!(
        scene.target(Endpoint::UpdateUser),
        format!("/api/v2{JOHN_PATH}")
    );
    let user = scene.auth.user(JOHN);
    let before = scene.auth.counts().update_user;
    for (body, part) in [
        (r#"{"blocked":true}"#, "`blocked`"),
        (r#"{"name":"x","email_verified":true}"#, "`email_verified`"),
        (r#"{"name":"x","name":"y"}"#, "twice"),
        (r#"{"app_metadata":{"a":1,"a":2}}"#, "twice"),
        (r#"[{"name":"x"}]"#, "object"),
        (r#"{"name":"x""#, "object"),
        ("", "object"),
    ] {
        let detail = told(&scene.patch(JOHN_PATH, body).send().await);
        assert!(detail.contains(part), "{body}: {detail}");
    }
    let form = request(scene.gateway.address, "PATCH", JOHN_PATH)
        .bearer(&scene.token("update:users"))
        .form(&[("name", "x")]);
    assert!(told(&form.send().await).contains("application/json"));
    let with_query = format!("{JOHN_PATH}?name=x");
    let detail = told(&scene.patch(&with_query, r#"{"name":"x"}"#).send().await);
    assert!(detail.contains("`name`"));
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(64 << 10));
    let reply = scene.patch(JOHN_PATH, &large).send().await;
    assert_refused(&scene.gateway, &reply, 413, "body_too_large", "user-update").await;
    assert_eq!(scene.auth.counts().update_user, before);
    assert_eq!(scene.auth.user(JOHN), user);
}

#[tokio::test]
async fn callers_need_the_scope_of_what_they_ask() {
    let scene = Scene::start().await;
    let address = scene.gateway.address;
    let before = scene.auth.counts();
    for (method, path, route, scopes) in [
        ("GET", "/users", "users", ["update:users", "read:events"]),
        ("GET", JOHN_PATH, "user", ["update:users", "read:events"]),
        (
            "PATCH",
            JOHN_PATH,
            "user-update",
            ["read:users", "update:users_app_metadata"],
        ),
        ("GET", "/events", "events", ["read:users", "update:users"]),
    ] {
        for scope in scopes {
            let asked = request(address, method, path).bearer(&scene.token(scope));
            let asked = asked.header("content-type", "application/json").body("{}");
            let reply = asked.send().await;
            assert_refused(&scene.gateway, &reply, 403, "insufficient_scope", route).await;
        }
        let reply = request(address, method, path).send().await;
        assert_refused(&scene.gateway, &reply, 401, "missing_token", route).await;
        // A token for the Management API is none for the gateway's.
        let management = scene
            .auth
            .management_token("read:users update:users read:events");
        let reply = request(address, method, path)
            .bearer(&management)
            .send()
            .await;
        assert_refused(&scene.gateway, &reply, 401, "wrong_audience", route).await;
    }
    let reply = request(address, "DELETE", JOHN_PATH)
        .bearer(&scene.token("read:users update:users"))
        .send()
        .await;
    assert_eq!(reply.status, 405);
    assert_eq!(scene.auth.counts(), before);
}

#[tokio::test]
async fn quotas_of_the_issuer_pass() {
    let scene = Scene::start().await;
    let limit = RateLimit {
        limit: 1,
        window: Duration::from_secs(100),
    };
    scene.auth.set_rate_limit(Endpoint::Users, Some(limit));
    let first = scene.get("/users").send().await;
    assert_eq!(first.status, 200);
    assert_eq!(first.header("x-ratelimit-remaining"), Some("0"));
    let second = scene.get("/users").send().await;
    assert_eq!(second.status, 429, "{}", second.text());
    assert!(second.header("retry-after").is_some());
    assert_eq!(second.json()["errorCode"], json!("too_many_requests"));
    assert_eq!(scene.auth.counts().users, 2, "and nothing is tried again");
}

#[tokio::test]
async fn events_come_as_they_happen_and_go_on_where_they_ended() {
    let scene = Scene::start().await;
    let first = scene.listen(None).await;
    assert_eq!(first.status(), 200);
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let mut body = first.into_body();
    let object = json!({ "user_id": JOHN });
    let offset = scene.auth.emit_event("user.updated", &object);
    // At once, and not when the stream ends: it has not.
    let text = piece(&mut body).await;
    assert!(text.contains(&format!("id: {offset}\n")), "{text}");
    // What a change through the gateway causes is told as well.
    let patched = scene.patch(JOHN_PATH, r#"{"name":"New"}"#).send().await;
    assert_eq!(patched.status, 200);
    assert!(piece(&mut body).await.contains("event: user.updated"));
    scene.auth.end_event_connections();
    let end = within("the end", body.frame()).await;
    assert!(end.is_none(), "{end:?}");

    let mut again = scene.listen(Some(&offset)).await.into_body();
    let text = piece(&mut again).await;
    assert!(
        text.contains("\"name\":\"New\"") && !text.contains(&format!("id: {offset}\n")),
        "{text}"
    );
    let seen = scene
        .auth
        .last_request(Endpoint::Events)
        .expect("a request");
    assert_eq!(seen.header("last-event-id"), Some(&*offset));

    scene.auth.expire_events();
    let gone = scene.listen(Some(&offset)).await;
    assert_eq!(gone.status(), 410);
    let body = gone.into_body().collect().await.expect("a body").to_bytes();
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(body["errorCode"], json!("offset_expired"));
}

/// A stream may last longer than the token it was opened with; the next one is opened with another.
#[tokio::test]
async fn a_stream_outlives_its_token_and_the_next_one_has_a_new_one() {
    let scene = Scene::of(AuthOptions {
        token_lifetime: Duration::from_secs(1000),
        ..AuthOptions::default()
    })
    .await;
    let sent = || {
        let seen = scene
            .auth
            .last_request(Endpoint::Events)
            .expect("a request");
        seen.header("authorization").expect("a token").to_owned()
    };
    let mut old = scene.listen(None).await.into_body();
    let first = sent();
    scene.gateway.app.clock().advance(Duration::from_secs(998));
    let caller = scene.auth.claims();
    // The caller's token has to be good by the clock that is ahead.
    let ahead = caller["exp"].as_i64().expect("a number") + 998;
    let mut caller = caller;
    caller["exp"] = ahead.into();
    caller["scope"] = "read:events".into();
    let token = scene.auth.mint(&caller);
    let mut link = Link::connect(scene.gateway.address).await;
    let asked = http::Request::get("/events")
        .header("authorization", format!("Bearer {token}"))
        .body(nothing())
        .expect("a request");
    let new = link.open(asked).await.expect("a response");
    assert_eq!(new.status(), 200);
    assert_ne!(sent(), first);
    let mut new = new.into_body();
    scene.auth.emit_event("user.created", &json!({}));
    for body in [&mut old, &mut new] {
        assert!(piece(body).await.contains("user.created"));
    }
}

#[tokio::test]
async fn the_managements_own_refusal_of_a_token_is_mended_for_streams_too() {
    let scene = Scene::start().await;
    let fault = Fault::Status(401, "application/json".to_owned(), "{}".to_owned());
    scene.auth.set_fault_for(Endpoint::Events, fault, 1);
    let mut body = scene.listen(None).await.into_body();
    scene.auth.emit_event("user.created", &json!({}));
    assert!(piece(&mut body).await.contains("user.created"));
    eventually("two connections, two tokens", async || {
        let tokens = scene.auth.requests_by(Endpoint::Token, "demo-management");
        (scene.auth.counts().events, tokens) == (2, 2)
    })
    .await;
}
