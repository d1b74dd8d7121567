//! Tokens that say nothing by themselves: their issuer is asked, rarely, and nobody else is.

use crate::harness::program::GatewayProcess;
use crate::harness::{
    Gateway, Reply, Request, World, assert_refused, eventually, local, nobody, request, within,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::app;
use bonterra_gateway::config;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault, KeyChoice};
use bonterra_gateway::demo::echo::Echo;
use bonterra_gateway::snapshot::compile;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

/// `ISSUER` hands out handles, `JWTS` JWTs.
const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 2
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[issuer.handles]
url = "ISSUER"
opaque = true
client_id = "demo-backend"
client_secret = "backend-secret"
audiences = ["https://api.bonterra.network"]
timeout = "2s"

[issuer.jwts]
url = "JWTS"
audiences = ["https://api.bonterra.network"]

[upstream.echo]
servers = ["ECHO"]

[[route]]
name = "grants"
path = "/grants/*"
upstream = "echo"
claims = { "urn:bonterra:claims:is_bonterra_grants" = true }

[[route]]
name = "scoped"
path = "/scoped/*"
upstream = "echo"
issuers = ["handles"]
scopes = ["read:grants"]

[[route]]
name = "jwts"
path = "/jwts/*"
upstream = "echo"
issuers = ["jwts"]

[[route]]
name = "optional"
path = "/optional/*"
upstream = "echo"
auth = "optional"

[[route]]
name = "public"
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

/// A world whose issuer hands out handles, and a second issuer of JWTs.
struct Scene {
    world: World,
    jwts: BonterraAuth,
}

impl Scene {
    async fn set() -> Self {
        Self::with(CONFIG).await
    }

    async fn with(config: &str) -> Self {
        let options = AuthOptions {
            key_slot: 20,
            ..AuthOptions::default()
        };
        let jwts = BonterraAuth::start(options).await.expect("issuer");
        let world = World::with(&config.replace("JWTS", jwts.issuer())).await;
        Self { world, jwts }
    }

    fn auth(&self) -> &BonterraAuth {
        &self.world.auth
    }

    /// A handle with some members of the answer changed; `null` removes one.
    fn handle(&self, changes: Value) -> String {
        let mut claims = self.auth().claims();
        let members = claims.as_object_mut().expect("an object");
        for (name, value) in changes.as_object().expect("an object") {
            match value {
                Value::Null => drop(members.remove(name)),
                value => drop(members.insert(name.clone(), value.clone())),
            }
        }
        self.auth().mint_opaque(&claims)
    }

    fn get(&self, path: &str, token: &str) -> Request {
        self.world.get(path).bearer(token)
    }

    async fn send(&self, path: &str, token: &str) -> Reply {
        self.get(path, token).send().await
    }

    /// Questions that have reached the issuer of handles.
    fn asked(&self) -> u64 {
        self.auth().counts().introspect
    }

    async fn assert_refused(&self, path: &str, token: &str, status: u16, reason: &str) {
        let before = self.world.echo.requests();
        let reply = self.send(path, token).await;
        let route = path.split('/').nth(1).expect("a route");
        assert_refused(&self.world.gateway, &reply, status, reason, route).await;
        assert_eq!(reply.header("retry-after").is_some(), status == 503);
        assert_eq!(self.world.echo.requests(), before, "the upstream saw it");
    }

    fn break_with(&self, fault: impl Into<Option<Fault>>) {
        self.auth().set_fault(Endpoint::Introspect, fault.into());
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

#[tokio::test]
async fn a_handle_is_worth_what_a_jwt_with_the_same_claims_is() {
    let scene = Scene::set().await;
    let mut claims = scene.auth().claims();
    let handle = scene.auth().mint_opaque(&claims);
    claims["iss"] = json!(scene.jwts.issuer());
    let jwt = scene.jwts.mint(&claims);
    let identity = |reply: &Reply| {
        assert_eq!(reply.status, 200, "{}", reply.text());
        let headers = reply.json()["headers"].clone();
        let pairs: Vec<(String, String)> = serde_json::from_value(headers).expect("pairs");
        let mut pairs: Vec<_> = pairs
            .into_iter()
            .map(|(name, value)| (name.to_lowercase(), value))
            .filter(|(name, _)| name.starts_with("x-bonterra-"))
            .collect();
        pairs.sort();
        pairs
    };
    let expected = identity(&scene.send("/grants/1", &jwt).await);
    assert_eq!(expected.len(), 4, "{expected:?}");
    assert_eq!(
        scene.asked(),
        0,
        "a JWT of another issuer is shown to nobody"
    );
    for pass in ["asked", "known"] {
        let forged = scene
            .get("/grants/1", &handle)
            .header("x-bonterra-subject", "admin");
        assert_eq!(identity(&forged.send().await), expected, "{pass}");
    }
    assert_eq!(scene.asked(), 1);
    let question = scene.auth().last_introspection().expect("a question");
    let form = [
        ("token", handle.as_str()),
        ("token_type_hint", "access_token"),
    ];
    assert_eq!(question.form(), form.map(|(a, b)| (a.into(), b.into())));
    let basic = STANDARD.encode("demo-backend:backend-secret");
    let expected = format!("Basic {basic}");
    assert_eq!(question.header("authorization"), Some(expected.as_str()));
    for (series, value) in [
        (
            "introspections_total{issuer=\"handles\",result=\"active\"}",
            1.0,
        ),
        (
            "auth_decisions_total{issuer=\"handles\",outcome=\"accepted\",reason=\"ok\"}",
            2.0,
        ),
        ("verified_token_cache_requests_total{result=\"hit\"}", 1.0),
    ] {
        let series = format!("gateway_{series}");
        assert_eq!(scene.world.gateway.metric(&series).await, value, "{series}");
    }
}

#[tokio::test]
async fn rules_of_the_route_hold_asked_and_known() {
    let scene = Scene::set().await;
    let poor = scene.handle(
        json!({ "scope": "write:grants", "urn:bonterra:claims:is_bonterra_grants": false }),
    );
    for _ in ["asked", "known"] {
        scene
            .assert_refused("/scoped/1", &poor, 403, "insufficient_scope")
            .await;
        scene
            .assert_refused("/grants/1", &poor, 403, "claim_mismatch")
            .await;
    }
    assert_eq!(scene.send("/optional/1", &poor).await.status, 200);
    assert_eq!(scene.asked(), 1, "one answer for all routes");
    let none = scene.world.get("/optional/1").send().await;
    assert_eq!(none.status, 200);
    assert_eq!(none.upstream_saw("x-bonterra-subject"), [""; 0]);
    let public = scene.send("/public/1", "never.looked~at").await;
    assert_eq!(public.status, 200);
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn members_of_the_answer_are_checked() {
    let scene = Scene::set().await;
    for (changes, reason) in [
        (json!({ "iss": scene.jwts.issuer() }), "wrong_issuer"),
        (
            json!({ "aud": "https://elsewhere.example" }),
            "wrong_audience",
        ),
        (json!({ "aud": null }), "wrong_audience"),
        (json!({ "nbf": now() + 3600 }), "not_yet_valid"),
        (json!({ "exp": null, "iat": "now" }), "missing_claim"),
        (json!({ "token_type": "DPoP" }), "wrong_type"),
        (json!({ "cnf": { "jkt": "x" } }), "bound_token"),
        (json!({ "token_use": "refresh_token" }), "wrong_type"),
        (json!({ "typ": "Refresh" }), "wrong_type"),
    ] {
        let handle = scene.handle(changes);
        for _ in ["asked", "known"] {
            scene
                .assert_refused("/grants/1", &handle, 401, reason)
                .await;
        }
    }
    assert_eq!(scene.asked(), 9, "each answer is remembered");
    let bare = scene.handle(json!({ "exp": null, "iss": null, "iat": null, "jti": null }));
    for _ in ["asked", "known"] {
        assert_eq!(scene.send("/grants/1", &bare).await.status, 200);
    }
    assert_eq!(scene.asked(), 10);
}

#[tokio::test]
async fn an_inactive_token_is_refused_and_asked_about_once_in_five_seconds() {
    let scene = Scene::set().await;
    let known = scene.handle(json!({}));
    assert_eq!(scene.send("/grants/1", &known).await.status, 200);
    scene.auth().revoke_opaque(&known);
    assert_eq!(
        scene.send("/grants/1", &known).await.status,
        200,
        "for a minute"
    );
    let revoked = scene.handle(json!({}));
    scene.auth().revoke_opaque(&revoked);
    for token in [revoked.as_str(), "2YotnFZFEjr1zCsicMWpAA=="] {
        let asked = scene.asked();
        for _ in 0..3 {
            scene
                .assert_refused("/grants/1", token, 401, "inactive_token")
                .await;
            scene
                .assert_refused("/optional/1", token, 401, "inactive_token")
                .await;
        }
        assert_eq!(scene.asked(), asked + 1, "{token}");
    }
    let inactive = "gateway_introspections_total{issuer=\"handles\",result=\"inactive\"}";
    assert_eq!(scene.world.gateway.metric(inactive).await, 2.0);
    let challenge = scene.send("/grants/1", &revoked).await;
    let challenge = challenge
        .header("www-authenticate")
        .expect("a challenge")
        .to_owned();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
}

#[tokio::test]
async fn a_good_answer_is_used_until_exp_and_a_bad_one_for_a_moment() {
    let config = CONFIG.replace("timeout = \"2s\"", "timeout = \"2s\"\nleeway = \"0s\"");
    let config = format!("{config}\n[token_cache]\nrefused_for = \"1ms\"\n");
    let scene = Scene::with(&config).await;
    let brief = scene.handle(json!({ "exp": now() + 2 }));
    assert_eq!(scene.send("/grants/1", &brief).await.status, 200);
    // The issuer stops answering: what was said holds until `exp`, and not a second longer.
    scene.break_with(Fault::Status(500, "text/plain".into(), String::new()));
    eventually("exp passes", async || {
        scene.send("/grants/1", &brief).await.status == 503
    })
    .await;
    scene.break_with(None);
    scene
        .assert_refused("/grants/1", &brief, 401, "inactive_token")
        .await;
    // Nothing bad is held against a token for longer than configured.
    let asked = scene.asked();
    eventually("asked again", async || {
        scene
            .assert_refused("/grants/1", &brief, 401, "inactive_token")
            .await;
        scene.asked() > asked
    })
    .await;
}

#[tokio::test]
async fn a_hundred_equal_tokens_at_once_are_one_question() {
    let scene = Scene::set().await;
    scene.break_with(Fault::Slow(Duration::from_millis(500)));
    for (token, status) in [
        (scene.handle(json!({})), 200),
        ("unknown-handle".to_owned(), 401),
    ] {
        let asked = scene.asked();
        let requests: Vec<_> = (0..100).map(|_| scene.get("/grants/1", &token)).collect();
        let replies = within("replies", join_all(requests.iter().map(Request::send))).await;
        assert!(
            replies.iter().all(|reply| reply.status == status),
            "{token}"
        );
        assert_eq!(scene.asked(), asked + 1, "{token}");
    }
    assert_eq!(scene.world.echo.requests(), 100);
}

/// Whoever likes can send handles that nobody knows; who has been known is asked about all the same.
#[tokio::test]
async fn a_flood_of_unknown_handles_locks_no_known_caller_out() {
    let scene = Scene::set().await;
    let good = scene.handle(json!({ "exp": now() + 3600 }));
    assert_eq!(scene.send("/grants/1", &good).await.status, 200);
    let asked = scene.asked();
    scene
        .world
        .gateway
        .app
        .clock()
        .advance(Duration::from_secs(61));
    scene.break_with(Fault::Slow(Duration::from_millis(500)));
    let flood: Vec<_> = (0..400)
        .map(|n| {
            let request = scene.get("/grants/1", &format!("unknown-{n}"));
            tokio::spawn(async move { request.send().await.status })
        })
        .collect();
    eventually("the flood", async || scene.asked() >= asked + 32).await;
    for _ in ["asked", "known"] {
        let reply = within("an answer", scene.get("/grants/1", &good).send()).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    for status in within("the flood's end", join_all(flood)).await {
        assert!(matches!(status, Ok(401 | 503)), "{status:?}");
    }
}

/// A revocation at the gateway holds for handles too, asked and known.
#[tokio::test]
async fn a_handle_is_revoked_at_the_gateway() {
    let scene = Scene::set().await;
    for by in ["token", "jti", "sub"] {
        let sub = format!("user-{by}");
        let handle = scene.handle(json!({ "sub": sub, "jti": by, "exp": now() + 3600 }));
        assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
        let other = scene.handle(json!({ "sub": "other", "jti": "other", "exp": now() + 3600 }));
        let order = match by {
            "token" => json!({ "token": format!("{handle}\n") }),
            "jti" => json!({ "issuer": "handles", "jti": by }),
            _ => json!({ "issuer": "handles", "sub": sub }),
        };
        let (status, text) = crate::revocation::revoke(&scene.world, order).await;
        assert_eq!(status, 200, "{text}");
        let asked = scene.asked();
        scene
            .assert_refused("/grants/1", &handle, 401, "revoked")
            .await;
        assert_eq!(scene.asked(), asked, "{by}: known");
        scene
            .world
            .gateway
            .app
            .clock()
            .advance(Duration::from_secs(61));
        scene
            .assert_refused("/grants/1", &handle, 401, "revoked")
            .await;
        assert_eq!(
            scene.asked(),
            asked + 1,
            "{by}: asked anew, and still active there"
        );
        assert_eq!(scene.send("/grants/1", &other).await.status, 200, "{by}");
    }
}

/// A clock that is set back and then right again does not bring an older answer back into force.
#[tokio::test]
async fn a_bad_answer_ends_the_good_one_before_it() {
    let scene = Scene::set().await;
    let clock = scene.world.gateway.app.clock();
    let handle = scene.handle(json!({ "iat": now() - 1000, "exp": now() + 3600 }));
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
    scene.auth().revoke_opaque(&handle);
    clock.set_back(Duration::from_secs(100));
    scene
        .assert_refused("/grants/1", &handle, 401, "inactive_token")
        .await;
    clock.advance(Duration::from_secs(100));
    scene
        .assert_refused("/grants/1", &handle, 401, "inactive_token")
        .await;
}

#[tokio::test]
async fn a_client_that_goes_away_fails_no_other() {
    let scene = Scene::set().await;
    scene.break_with(Fault::Slow(Duration::from_millis(300)));
    let handle = scene.handle(json!({}));
    let request = scene.get("/grants/1", &handle);
    let first = tokio::spawn(async move { request.send().await });
    eventually("asked", async || scene.asked() == 1).await;
    let others = (0..5).map(|_| scene.get("/grants/1", &handle));
    let others: Vec<_> = others.collect();
    let others = join_all(others.iter().map(Request::send));
    first.abort();
    for reply in within("replies", others).await {
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn what_is_no_answer_is_503_and_never_401() {
    let scene = Scene::set().await;
    let handle = scene.handle(json!({}));
    let json = |body: &str| Fault::Status(200, "application/json".into(), body.to_owned());
    for fault in [
        Fault::Garbage,
        Fault::EmptyOk,
        Fault::CutBody,
        Fault::CutAfterRequest,
        Fault::Endless,
        Fault::redirect(&format!("{}oauth/introspect", scene.jwts.issuer())),
        json(&format!(
            "{{\"active\":true,\"x\":\"{}\"}}",
            "x".repeat(1 << 20)
        )),
        json(r#"{"active":"true"}"#),
        json(r#"{"active":1}"#),
        json(r#"{"active":false,"active":true}"#),
        json(r#"{"sub":"u"}"#),
        json("true"),
        Fault::Status(401, "application/json".into(), r#"{"active":false}"#.into()),
        Fault::Status(500, "application/json".into(), r#"{"active":true}"#.into()),
    ] {
        let asked = scene.asked();
        scene.break_with(fault.clone());
        scene
            .assert_refused("/grants/1", &handle, 503, "keys_unavailable")
            .await;
        assert_eq!(scene.asked(), asked + 1, "{fault:?}: sent once");
        scene.break_with(None);
        let fine = scene.handle(json!({}));
        assert_eq!(
            scene.send("/grants/1", &fine).await.status,
            200,
            "{fault:?}"
        );
    }
    assert_eq!(
        scene.send("/grants/1", &handle).await.status,
        200,
        "as good as ever"
    );
    assert_eq!(scene.jwts.counts().introspect, 0, "no redirect is followed");
    let errors = "gateway_introspections_total{issuer=\"handles\",result=\"error\"}";
    assert_eq!(scene.world.gateway.metric(errors).await, 14.0);
}

#[tokio::test]
async fn an_issuer_that_is_down_costs_what_is_unknown_and_comes_back() {
    let scene = Scene::set().await;
    let known = scene.handle(json!({}));
    let unknown = scene.handle(json!({}));
    assert_eq!(scene.send("/grants/1", &known).await.status, 200);
    scene.auth().stop().await;
    scene
        .assert_refused("/grants/1", &unknown, 503, "keys_unavailable")
        .await;
    scene
        .assert_refused("/optional/1", &unknown, 503, "keys_unavailable")
        .await;
    assert_eq!(
        scene.send("/grants/1", &known).await.status,
        200,
        "said already"
    );
    let jwt = scene.jwts.token();
    assert_eq!(
        scene.send("/grants/1", &jwt).await.status,
        200,
        "nobody else"
    );
    scene.auth().restart().await.expect("the port");
    eventually("back", async || {
        scene.send("/grants/1", &unknown).await.status == 200
    })
    .await;
    // One that hangs costs its own requests a while, and no other's.
    scene.break_with(Fault::Hang);
    let late = scene.handle(json!({}));
    let (slow, quick) = (
        scene.get("/grants/1", &late),
        scene.get("/grants/1", &known),
    );
    let (slow, quick) = tokio::join!(slow.send(), quick.send());
    assert_eq!((slow.status, quick.status), (503, 200));
}

#[tokio::test]
async fn a_jwt_is_shown_to_the_issuer_that_it_names_or_to_nobody() {
    let scene = Scene::set().await;
    let stranger = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let good = scene.jwts.token();
    let (header, rest) = good.split_once('.').expect("a JWT");
    let plain = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let jwe = plain(&format!(
        "{{\"alg\":\"dir\",\"enc\":\"A256GCM\",\"iss\":\"{}\"}}",
        stranger.issuer()
    ));
    let no_iss = scene.jwts.mint(&json!({ "sub": "u" }));
    let twice = scene.jwts.mint_raw(
        r#"{"alg":"RS256","typ":"JWT"}"#,
        r#"{"iss":"x","iss":"x"}"#,
        &KeyChoice::Current,
    );
    for (token, reason) in [
        (stranger.token(), "wrong_issuer"),
        (no_iss, "wrong_issuer"),
        (format!("{jwe}..b.c.d"), "wrong_issuer"),
        (twice, "malformed_token"),
        (format!("{good}="), "malformed_token"),
        (format!("{good}.x"), "malformed_token"),
        (
            format!("{header}.{}", &rest[..rest.len() / 2]),
            "malformed_token",
        ),
        (format!("x{good}"), "malformed_token"),
        ("no b64token".to_owned(), "malformed_token"),
        ("a,b".to_owned(), "malformed_token"),
        ("x".repeat(9000), "token_too_large"),
    ] {
        scene.assert_refused("/grants/1", &token, 401, reason).await;
    }
    assert_eq!(scene.send("/grants/1", &good).await.status, 200);
    assert_eq!(scene.asked(), 0, "none of them was shown to anybody");
    // A JWT of the issuer that is to be asked is as opaque as any other token of it.
    let own = scene.auth().token();
    assert_eq!(scene.send("/grants/1", &own).await.status, 200);
    assert_eq!(scene.asked(), 1);
}

#[tokio::test]
async fn a_token_is_never_sent_to_an_issuer_that_the_route_does_not_accept() {
    let config = CONFIG
        .replace(
            "[issuer.jwts]",
            "[issuer.jwts]\nopaque = true\nclient_id = \"demo-backend\"\nclient_secret = \"backend-secret\"",
        )
        .replace("name = \"grants\"", "name = \"grants\"\nissuers = [\"handles\"]")
        .replace("auth = \"optional\"", "auth = \"optional\"\nissuers = [\"handles\"]");
    let scene = Scene::with(&config).await;
    // Both have a token of this text.
    let handle = scene.handle(json!({}));
    scene
        .assert_refused("/jwts/1", &handle, 401, "inactive_token")
        .await;
    assert_eq!((scene.asked(), scene.jwts.counts().introspect), (0, 1));
    // What one issuer says of it is not what the other says.
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
    scene
        .assert_refused("/jwts/1", &handle, 401, "inactive_token")
        .await;
    let own = scene.auth().token();
    scene
        .assert_refused("/jwts/1", &own, 401, "wrong_issuer")
        .await;
    assert_eq!((scene.asked(), scene.jwts.counts().introspect), (1, 1));

    let scene = Scene::set().await;
    let handle = scene.handle(json!({}));
    scene
        .assert_refused("/jwts/1", &handle, 401, "malformed_token")
        .await;
    let own = scene.auth().token();
    scene
        .assert_refused("/jwts/1", &own, 401, "wrong_issuer")
        .await;
    assert_eq!(scene.asked(), 0);
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
    scene
        .assert_refused("/jwts/1", &handle, 401, "malformed_token")
        .await;
}

#[tokio::test]
async fn mistakes_have_a_place_and_a_hint() {
    let base = CONFIG
        .replace("ISSUER", "https://a/")
        .replace("JWTS", "https://b/");
    let base = base.replace("ECHO", "http://127.0.0.1:1");
    let told = |config: &str| {
        let parsed = config::parse("gateway.toml", config);
        let compiled = compile(parsed, &app::environment().expect("metrics"));
        compiled.expect_err("a mistake").to_string()
    };
    let opaque = "opaque = true\n";
    let second = "[issuer.jwts]\nopaque = true\nclient_id = \"x\"\nclient_secret = \"hunter2\"";
    let secret = "client_secret = \"backend-secret\"\n";
    for (from, to, what, hint) in [
        (
            "client_id = \"demo-backend\"\n",
            "",
            "`client_id` is missing",
            "as a client",
        ),
        (
            secret,
            "",
            "`client_secret` is missing",
            "client_secret_file",
        ),
        (
            secret,
            "client_secret_file = \"/no/such\"\n",
            "/no/such cannot be read",
            "relative",
        ),
        (
            secret,
            "client_secret_env = \"NO_SUCH\"\n",
            "NO_SUCH is not set",
            "set it",
        ),
        (
            opaque,
            "",
            "`client_id` has no effect without opaque = true",
            "remove",
        ),
        (
            opaque,
            "opaque = true\njwks_uri = \"https://a/\"\n",
            "`jwks_uri` has no effect with opaque",
            "remove",
        ),
        (
            opaque,
            "opaque = true\nalgorithms = [\"ES256\"]\n",
            "`algorithms` has no effect",
            "remove",
        ),
        (
            opaque,
            "opaque = true\njwks = { ttl = \"1m\" }\n",
            "`jwks` has no effect",
            "remove",
        ),
        (
            opaque,
            "opaque = true\nintrospection_endpoint = \"http://a/i\"\n",
            "plain http",
            "https",
        ),
        (
            "[issuer.jwts]",
            second,
            "both [issuer.handles] and [issuer.jwts]",
            "issuers = [\"handles\"]",
        ),
        (
            "[issuer.jwts]",
            "[issuer.jwts]\nintrospection_endpoint = \"nowhere\"",
            "not an absolute URL",
            "",
        ),
    ] {
        let said = told(&base.replacen(from, to, 1));
        for part in [what, hint, "gateway.toml:"] {
            assert!(said.contains(part), "no {part:?} in\n{said}");
        }
        assert!(
            !said.contains("hunter2") && !said.contains("backend-secret"),
            "{said}"
        );
    }
    let both = told(&base.replacen("[issuer.jwts]", second, 1));
    assert!(
        both.contains("2 mistakes"),
        "grants and optional, not the others:\n{both}"
    );
}

#[tokio::test]
async fn secrets_come_from_files_and_a_reload_keeps_what_was_said() {
    let folder = TempDir::new().expect("a folder");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "backend-secret\n").expect("written");
    let line = format!("client_secret_file = {:?}", secret.to_str().expect("UTF-8"));
    let scene = Scene::with(&CONFIG.replace("client_secret = \"backend-secret\"", &line)).await;
    let handle = scene.handle(json!({}));
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
    let file = scene.world.gateway.file();
    let reload = async |from: &str, to: &str| {
        let config = std::fs::read_to_string(&file).expect("the file");
        assert!(config.contains(from), "{from}");
        std::fs::write(&file, config.replacen(from, to, 1)).expect("written");
        let reply = scene.world.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    reload("drain_delay = \"0s\"", "drain_delay = \"1s\"").await;
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
    assert_eq!(scene.asked(), 1, "nothing has changed about the issuer");
    // Another rule: what was said is asked and judged anew.
    reload(
        "timeout = \"2s\"",
        "timeout = \"2s\"\nmax_lifetime = \"1h\"",
    )
    .await;
    scene
        .assert_refused("/grants/1", &handle, 401, "too_long_lived")
        .await;
    assert_eq!(scene.asked(), 2);
    // Another secret, in the same file: the issuer has the last word about it.
    std::fs::write(&secret, "wrong").expect("written");
    reload("max_lifetime = \"1h\"", "max_lifetime = \"0s\"").await;
    scene
        .assert_refused("/grants/1", &handle, 503, "keys_unavailable")
        .await;
    std::fs::write(&secret, "backend-secret").expect("written");
    reload("drain_delay = \"1s\"", "drain_delay = \"2s\"").await;
    assert_eq!(scene.send("/grants/1", &handle).await.status, 200);
}

#[tokio::test]
async fn readiness_waits_for_the_endpoint_and_for_no_keys() {
    let down = nobody();
    let echo = Echo::start(local()).await.expect("upstream");
    let config = |endpoint: &str| {
        let (issuers, rest) = CONFIG.split_once("[issuer.jwts]").expect("two issuers");
        let (_, routes) = rest.split_once("[upstream.echo]").expect("an upstream");
        let config = format!("{issuers}{endpoint}\n[upstream.echo]{routes}");
        config
            .replace("issuers = [\"jwts\"]", "")
            .replace("ISSUER", &format!("http://{down}/"))
            .replace("ECHO", &echo.url())
    };
    // Told where to ask, it needs nothing of the issuer to be ready.
    let told = Gateway::start(&config(&format!(
        "introspection_endpoint = \"http://{down}/x\""
    )))
    .await;
    within("ready", told.app.ready()).await;
    let verbose = told.admin("GET", "/readyz?verbose").await.text();
    assert!(
        verbose.contains("[+] issuer handles: asked about each token"),
        "{verbose}"
    );
    // Not told, it has to be found first.
    let finds = Gateway::start(&config("")).await;
    assert_eq!(finds.admin("GET", "/readyz").await.status, 503);
    let early = request(finds.address, "GET", "/grants/1").bearer("handle");
    let early = early.send().await;
    assert_refused(&finds, &early, 503, "keys_unavailable", "grants").await;
    let options = AuthOptions {
        listen: down,
        ..AuthOptions::default()
    };
    let auth = BonterraAuth::start(options).await.expect("issuer");
    within("ready", finds.app.ready()).await;
    let handle = auth.mint_opaque(&auth.claims());
    let reply = request(finds.address, "GET", "/grants/1").bearer(&handle);
    assert_eq!(reply.send().await.status, 200);
    assert_eq!(auth.counts().jwks, 0, "there are no keys to fetch");
}

/// At the level that says everything.
#[tokio::test]
async fn neither_token_nor_secret_is_ever_written() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let echo = Echo::start(local()).await.expect("upstream");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("JWTS", "http://127.0.0.1:1/")
        .replace("ECHO", &echo.url())
        .replace("[admin]", "[log]\nlevel = \"trace\"\n\n[admin]");
    let gateway = GatewayProcess::start(&config).await;
    let good = auth.mint_opaque(&auth.claims());
    let mut said = String::new();
    eventually("discovered", async || {
        request(gateway.address, "GET", "/grants/1")
            .bearer(&good)
            .send()
            .await
            .status
            == 200
    })
    .await;
    for (fault, status) in [
        (None, 401),
        (Some(Fault::Garbage), 503),
        (Some(Fault::CutAfterRequest), 503),
        (
            Some(Fault::Status(
                401,
                "text/plain".into(),
                "s3cret-answer".into(),
            )),
            503,
        ),
    ] {
        auth.set_fault(Endpoint::Introspect, fault);
        let token = format!("s3cret-handle-{}", said.len());
        let reply = request(gateway.address, "GET", "/grants/1")
            .bearer(&token)
            .send()
            .await;
        assert_eq!(reply.status, status, "{}", reply.text());
        said += &format!("{}{:?}", reply.text(), reply.headers);
    }
    auth.stop().await;
    let reply = request(gateway.address, "GET", "/grants/1")
        .bearer("s3cret-last")
        .send()
        .await;
    assert_eq!(reply.status, 503);
    said += &reply.text();
    said += &request(gateway.admin, "GET", "/metrics")
        .send()
        .await
        .text();
    said += &request(gateway.admin, "POST", "/-/reload")
        .send()
        .await
        .text();
    let records = || {
        gateway
            .running
            .stdout
            .text()
            .matches("keys_unavailable")
            .count()
    };
    eventually("all records", async || records() >= 4).await;
    said += &gateway.running.stdout.text();
    said += &gateway.running.stderr.text();
    assert!(
        said.contains("\"level\":\"TRACE\"") || said.contains("\"level\":\"DEBUG\""),
        "the level was not in force"
    );
    let secrets = [
        "s3cret-",
        "backend-secret",
        good.strip_prefix("opaque.").expect("a handle"),
        &STANDARD.encode("demo-backend:backend-secret"),
    ];
    for secret in secrets {
        assert!(!said.contains(secret), "{secret} was written");
    }
}
