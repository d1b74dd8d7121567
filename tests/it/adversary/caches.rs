//! The table of caches: of verified tokens and keys, and of what the broker keeps of machines' tokens.
//! The fifth row, 200 equal requests at a time, is `reuse::two_hundred_equal_requests_are_one`.

use super::{
    ISSUER, admitted, another_issuer, changed, parts, refused, refused_beside, token_refused,
};
use crate::harness::{CONFIG, Reply, World, assert_refused, eventually, with_lines};
use crate::revocation::{asks, revoke};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, KeyChoice};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HITS: &str = "gateway_verified_token_cache_requests_total{result=\"hit\"}";

/// Sent: a token with another signature or payload, before and after the right one is cached.
/// Expected: 401, it is another token.
#[tokio::test]
async fn row_01_cached_token_with_an_altered_signature() {
    let world = World::start().await;
    let token = world.auth.token();
    let [header, payload, signature] = parts(&token);
    let flipped = |at: usize| {
        let with = if &signature[at..=at] == "A" { "B" } else { "A" };
        format!(
            "{header}.{payload}.{}{with}{}",
            &signature[..at],
            &signature[at + 1..]
        )
    };
    let other = world.token_with(json!({ "sub": "another" }));
    let altered = [
        ("its first character", flipped(0)),
        ("one in the middle", flipped(170)),
        ("one near the end", flipped(340)),
        (
            "the signature of another token",
            format!("{header}.{payload}.{}", parts(&other)[2]),
        ),
        (
            "the payload of another token",
            format!("{header}.{}.{signature}", parts(&other)[1]),
        ),
    ];
    for (case, altered) in &altered {
        token_refused(&world, altered, "bad_signature", case).await;
    }
    admitted(&world, &token, "a refusal of the others is not its own").await;
    admitted(&world, &other, "nor of this one").await;
    assert!(world.gateway.metric(HITS).await >= 2.0, "both are cached");
    for (case, altered) in &altered {
        token_refused(&world, altered, "bad_signature", case).await;
    }
    admitted(&world, &token, "the token, afterwards").await;
}

/// Sent: many tokens that differ little, again and again. Expected: each gets its own claims.
#[tokio::test]
async fn row_01_two_tokens_whose_keys_collide() {
    let world = World::start().await;
    let subjects: Vec<String> = (0..20).map(|n| format!("user-{n}")).collect();
    let tokens: Vec<String> = subjects
        .iter()
        .map(|sub| world.token_with(json!({ "sub": sub })))
        .collect();
    for _ in 0..2 {
        for (token, subject) in tokens.iter().zip(&subjects) {
            let reply = world.get("/grants/1").bearer(token).send().await;
            let arrived = reply.upstream_saw("x-bonterra-subject");
            assert_eq!(arrived, std::slice::from_ref(subject));
        }
    }
    assert_eq!(world.gateway.metric(HITS).await, 20.0);
}

/// Sent: a cached token, until `exp` passes. Expected: 401 from that second on.
#[tokio::test]
async fn row_02_cached_then_exp_passes() {
    let world = World::with(&with_lines(CONFIG, ISSUER, "leeway = \"0s\"")).await;
    let clock = world.gateway.app.clock();
    let token = world.token_with(json!({ "exp": clock.now() + 3600 }));
    admitted(&world, &token, "an hour before exp").await;
    clock.advance(Duration::from_secs(3600 - 60));
    let before = world.gateway.metric(HITS).await;
    admitted(&world, &token, "a minute before exp").await;
    assert!(world.gateway.metric(HITS).await > before, "it is cached");
    clock.advance(Duration::from_secs(60));
    token_refused(&world, &token, "expired", "after exp").await;
}

/// Sent: cached tokens whose key is withdrawn, which another request makes the gateway notice.
/// Expected: 401 at once.
#[tokio::test]
async fn row_02_cached_then_the_key_is_withdrawn() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    let old = world.auth.token();
    let unnamed = world.auth.mint_with(
        &json!({ "kid": null }),
        &world.auth.claims(),
        &KeyChoice::Current,
    );
    admitted(&world, &old, "signed by the first key").await;
    admitted(
        &world,
        &unnamed,
        "signed by the first key, which it does not name",
    )
    .await;
    world.auth.rotate();
    admitted(&world, &old, "its key is published still").await;
    admitted(&world, &world.auth.token(), "signed by the new key").await;
    world.auth.withdraw_previous();
    // A token of the very newest key makes the gateway fetch the keys now.
    let newest = world
        .auth
        .mint_with(&Value::Null, &world.auth.claims(), &KeyChoice::Next);
    admitted(
        &world,
        &newest,
        "signed by a key that the gateway has not seen",
    )
    .await;
    token_refused(&world, &old, "unknown_key", "its key is withdrawn").await;
    token_refused(
        &world,
        &unnamed,
        "bad_signature",
        "its key is withdrawn, and it names none",
    )
    .await;
    admitted(
        &world,
        &world.auth.token(),
        "signed by the key that is left",
    )
    .await;
}

/// Sent: a cached token whose key is withdrawn. Expected: 401 after the next refresh, which only the
/// gateway's own clock brings.
#[tokio::test]
async fn row_02_cached_then_the_key_is_withdrawn_and_nobody_asks() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=1".to_owned(),
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let token = world.auth.token();
    admitted(&world, &token, "while its key is published").await;
    world.auth.rotate();
    world.auth.withdraw_previous();
    // Nobody but the gateway's own clock makes it look.
    let keys = || {
        world
            .gateway
            .metric("gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"ok\"}")
    };
    let before = keys().await;
    eventually("a refresh", || async { keys().await > before + 1.0 }).await;
    token_refused(&world, &token, "unknown_key", "after the refresh").await;
    admitted(&world, &world.auth.token(), "the key that is left").await;
}

/// Sent: a cached token whose key id now names another key. Expected: 401.
#[tokio::test]
async fn row_02_cached_then_the_key_is_replaced_under_its_name() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    let token = world.auth.token();
    admitted(&world, &token, "while its key is published").await;
    let other = another_issuer(30).await;
    let mut key = other.jwks()["keys"][0].clone();
    key["kid"] = json!(world.auth.current_kid());
    world.auth.set_jwks_document(Some(json!({ "keys": [key] })));
    let unknown = world.auth.mint_with(
        &json!({ "kid": "makes it look" }),
        &world.auth.claims(),
        &KeyChoice::Current,
    );
    // Good is now what the other key signs under that name.
    let header = json!({ "kid": world.auth.current_kid() });
    let renewed = other.mint_with(&header, &world.auth.claims(), &KeyChoice::Current);
    let on = |token: &str| world.get("/grants/1").bearer(token);
    for (case, token, reason) in [
        ("an unknown kid", &unknown, "unknown_key"),
        ("the same kid, other material", &token, "bad_signature"),
    ] {
        refused_beside(&world, &on(&renewed), on(token), 401, reason, case).await;
    }
}

/// Sent: a token, before and after it is revoked: itself, its id, or its subject. Expected: 401 at
/// the next request, whether it was cached or not, and nobody else is refused.
#[tokio::test]
async fn row_02_cached_then_it_is_revoked() {
    let world = World::start().await;
    for warm in [false, true] {
        let case = |name: &str| format!("{name}, warm: {warm}");
        for by in ["token", "jti", "sub"] {
            let (jti, sub) = (case("id").replace(' ', by), case("user").replace(' ', by));
            let token = world.token_with(json!({"jti": jti, "sub": sub}));
            let other = world.token_with(json!({"jti": "another", "sub": "another"}));
            if warm {
                assert_eq!(asks(&world, &token).await, 200, "{}", case(by));
            }
            let order = match by {
                "token" => json!({"token": token}),
                "jti" => json!({"issuer": "bonterra", "jti": jti}),
                _ => json!({"issuer": "bonterra", "sub": sub}),
            };
            let (status, text) = revoke(&world, order).await;
            assert_eq!(status, 200, "{text}");
            let seen = world.echo.seen().len();
            for _ in 0..2 {
                let reply = world.get("/grants/1").bearer(&token).send().await;
                assert_refused(&world.gateway, &reply, 401, "revoked", "grants").await;
                let challenge = reply.header("www-authenticate").unwrap_or_default();
                assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
            }
            assert_eq!(world.echo.seen().len(), seen, "{}", case(by));
            assert_eq!(asks(&world, &other).await, 200, "{}", case(by));
        }
    }
}

/// Sent: a token that is cached by one route, to a route that asks for more. Expected: 403, in
/// either order.
#[tokio::test]
async fn row_03_cached_with_scope_a_used_with_scope_b() {
    let world = World::start().await;
    let token = world.token_with(json!({ "scope": "read:grants" }));
    admitted(&world, &token, "on a route without scopes").await;
    let sent = world.get("/scoped/1").bearer(&token);
    refused(&world, sent, 403, "insufficient_scope", "cached before").await;
    let refused_first = world.token_with(json!({ "scope": "write:grants" }));
    let sent = world.get("/scoped/1").bearer(&refused_first);
    refused(&world, sent, 403, "insufficient_scope", "never seen before").await;
    admitted(
        &world,
        &refused_first,
        "refused by one route, good for another",
    )
    .await;
}

/// Sent: a token of one issuer, cached, to a route of another issuer; both issuers give their keys
/// the same id. Expected: 401; whose a token is does not come off in the cache.
#[tokio::test]
async fn row_03_cached_under_one_issuer_used_with_another() {
    let other = another_issuer(10).await;
    let config = format!(
        "{CONFIG}
[issuer.partner]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]

[[route]]
name = \"partner\"
path = \"/partner/*\"
upstream = \"echo\"
issuers = [\"partner\"]

[[route]]
name = \"own\"
path = \"/own/*\"
upstream = \"echo\"
issuers = [\"bonterra\"]
",
        other.issuer()
    );
    let kid = "the same";
    let named = |auth: &BonterraAuth| {
        let key = changed(&auth.jwks()["keys"][0], json!({ "kid": kid }));
        auth.set_jwks_document(Some(json!({ "keys": [key] })));
    };
    named(&other);
    let world = World::with(&config.replace("cooldown = \"1s\"", "cooldown = \"1ms\"")).await;
    named(&world.auth);
    let header = json!({ "kid": kid });
    let mint = |signer: &BonterraAuth, claims: &Value| {
        signer.mint_with(&header, claims, &KeyChoice::Current)
    };
    let ours = mint(&world.auth, &world.auth.claims());
    let theirs = mint(&other, &other.claims());
    // Each with the other's name, neither seen before.
    let (as_ours, as_theirs) = (
        mint(&other, &world.auth.claims()),
        mint(&world.auth, &other.claims()),
    );
    let on = |path: &str, token: &str| world.get(path).bearer(token);
    let (own, partner) = (on("/own/1", &ours), on("/partner/1", &theirs));
    for (case, good, sent, reason) in [
        (
            "ours there",
            &partner,
            on("/partner/1", &ours),
            "wrong_issuer",
        ),
        ("theirs here", &own, on("/own/1", &theirs), "wrong_issuer"),
        ("as ours", &own, on("/own/1", &as_ours), "bad_signature"),
        (
            "as theirs",
            &partner,
            on("/partner/1", &as_theirs),
            "bad_signature",
        ),
    ] {
        refused_beside(&world, good, sent, 401, reason, case).await;
    }
    assert!(world.gateway.metric(HITS).await >= 2.0, "they are cached");
}

/// Sent: a cached token, after a reload has changed what its issuer's tokens must look like.
/// Expected: 401; what was verified under other rules is not known.
#[tokio::test]
async fn row_03_cached_under_another_configuration_of_its_issuer() {
    let world = World::start().await;
    let token = world.auth.token();
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let put = async |file: &str| {
        std::fs::write(world.gateway.file(), file).expect("written");
        let reply = world.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    let audiences = "audiences = [\"https://api.bonterra.network\"]";
    let elsewhere = file.replace(audiences, "audiences = [\"https://else.example\"]");
    let away = another_issuer(40).await;
    let renamed = file.replace(world.auth.issuer(), away.issuer());
    let with = |line: &str| with_lines(&file, ISSUER, line);
    for (file_now, reason) in [
        (elsewhere, "wrong_audience"),
        (with("algorithms = [\"PS256\"]"), "algorithm_not_allowed"),
        (with("token_types = [\"at+jwt\"]"), "wrong_type"),
        (with("max_token_bytes = \"200B\""), "token_too_large"),
        (with("max_lifetime = \"1h\""), "too_long_lived"),
        (renamed, "wrong_issuer"),
    ] {
        // Neither the first gateway's cache nor the one of the rules before knows better.
        admitted(&world, &token, "under the rules as they were").await;
        put(&file_now).await;
        let (good, sent) = (
            world.get("/public/1"),
            world.get("/grants/1").bearer(&token),
        );
        refused_beside(&world, &good, sent, 401, reason, reason).await;
        put(&file).await;
    }
    // Admitted still, but with other headers.
    put(&with("headers = { X-Other = \"sub\" }")).await;
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert_eq!(reply.upstream_saw("x-other"), ["demo-client@clients"]);
    assert!(reply.upstream_saw("x-bonterra-subject").is_empty());
}

// === What is kept of machines' tokens ===

/// Tokens are given again: `[oauth.*.cache]`.
const REUSING: &str = "\n[oauth.bonterra.cache]\nenabled = true\n";

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];

/// The claims of a token that came, unverified.
fn claims_of(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    let token = body["access_token"].as_str().expect("a token");
    let payload = URL_SAFE_NO_PAD.decode(parts(token)[1]).expect("base64url");
    serde_json::from_slice(&payload).expect("JSON")
}

/// Sent: client_credentials requests that differ in one thing, each twice, all mixed. Expected: what is
/// equal shares a token; what differs, be it in the order of a thing only the issuer knows, does not.
#[tokio::test]
async fn row_04_broker_requests_that_differ_in_one_thing() {
    let world = World::with(&format!("{CONFIG}{REUSING}")).await;
    let management = world.auth.management_audience();
    let own = "https://api.bonterra.network";
    let basic = STANDARD.encode("demo-client:demo-secret");
    let post = |more: &[(&str, &str)]| {
        let fields: Vec<_> = MACHINE.iter().chain(more).copied().collect();
        world.post("/oauth/token").form(&fields)
    };
    let other = |id: &str, secret: &str, audience: &str| {
        let fields = [
            MACHINE[0],
            ("client_id", id),
            ("client_secret", secret),
            ("audience", audience),
        ];
        world.post("/oauth/token").form(&fields)
    };
    let by_basic = |more: &[(&str, &str)]| {
        let fields: Vec<_> = MACHINE[..1].iter().chain(more).copied().collect();
        let request = world.post("/oauth/token").form(&fields);
        request.header("authorization", format!("Basic {basic}"))
    };
    let (read, both) = ("read:grants", "read:grants write:grants");
    let turned = "write:grants read:grants";
    // Those of one number are equal.
    let rows = [
        (0, post(&[])),
        (
            0,
            world
                .post("/oauth/token")
                .json(&MACHINE.into_iter().collect()),
        ),
        (0, post(&[]).header("user-agent", "another/1")),
        (0, post(&[]).header("auth0-forwarded-for", "203.0.113.7")),
        (0, post(&[("organization", "")])),
        (1, post(&[("audience", own)])),
        (2, post(&[("scope", read)])),
        (3, post(&[("scope", both)])),
        (3, post(&[("scope", turned)])),
        (4, post(&[("organization", "org_1")])),
        (5, post(&[("organization", "org_2")])),
        (6, post(&[("resource", own)])),
        (7, by_basic(&[])),
        (8, by_basic(&MACHINE[1..2])),
        (9, by_basic(&[("scope", both)])),
        (10, other("demo-backend", "backend-secret", own)),
        (11, other("demo-management", "management-secret", own)),
        (
            12,
            other("demo-management", "management-secret", &management),
        ),
    ];
    let mut ids: BTreeMap<u64, Value> = BTreeMap::new();
    for round in 0..2 {
        for (number, request) in &rows {
            let claims = claims_of(&request.send().await);
            let client = match number {
                10 => "demo-backend",
                11 | 12 => "demo-management",
                _ => "demo-client",
            };
            let audience = if *number == 12 { &management } else { own };
            assert_eq!(claims["azp"], client, "{number}");
            assert_eq!(claims["aud"], audience, "{number}");
            if *number == 2 {
                assert_eq!(claims["scope"], read);
            }
            let id = ids.entry(*number).or_insert_with(|| claims["jti"].clone());
            assert_eq!(*id, claims["jti"], "{number}, round {round}");
        }
    }
    let distinct: BTreeSet<String> = ids.values().map(Value::to_string).collect();
    assert_eq!(distinct.len(), 13, "one token each");
    assert_eq!(world.auth.counts().token, 13);
}

/// Sent: the id of a client whose token is kept, with everything but its secret. Expected: refused, in
/// whatever way it is asked, and asked again.
#[tokio::test]
async fn row_04_broker_same_client_wrong_secret() {
    let world = World::with(&format!("{CONFIG}{REUSING}")).await;
    claims_of(&world.post("/oauth/token").form(&MACHINE).send().await);
    let basic = |pair: &str| format!("Basic {}", STANDARD.encode(pair));
    let post = |secret: &str| {
        let fields = [MACHINE[0], MACHINE[1], ("client_secret", secret)];
        world.post("/oauth/token").form(&fields)
    };
    let rows = [
        post("wrong"),
        post("demo-secre"),
        post("demo-secret "),
        post("demo-secrett"),
        post("DEMO-SECRET"),
        // Another client's, and what a sloppy joint of id and secret would take for the same.
        post("backend-secret"),
        world.post("/oauth/token").form(&[
            MACHINE[0],
            ("client_id", "demo-clientdemo-"),
            ("client_secret", "secret"),
        ]),
        world
            .post("/oauth/token")
            .header("authorization", basic("demo-client:wrong"))
            .form(&MACHINE[..1]),
        world
            .post("/oauth/token")
            .header("authorization", basic("demo-client:"))
            .form(&MACHINE[..1]),
        // A public client has none to be wrong.
        world.post("/oauth/token").form(&MACHINE[..2]),
    ];
    for round in 0..2 {
        for (number, request) in rows.iter().enumerate() {
            let reply = request.send().await;
            assert_eq!(reply.status, 401, "{number}, {round}: {}", reply.text());
            assert!(!reply.text().contains("access_token"), "{number}, {round}");
        }
    }
}

/// Asked for: a token that is kept, while less and less of its life is left. Expected: what is left is
/// told, and from a minute before the end on, which a tenth of the time at most comes before, another
/// token is bought. One that lives for a minute is never kept.
#[tokio::test]
async fn row_06_broker_hit_with_little_life_left() {
    let lifetimes = |seconds| AuthOptions {
        token_lifetime: Duration::from_secs(seconds),
        ..AuthOptions::default()
    };
    let config = format!("{CONFIG}{REUSING}");
    let world = World::of(lifetimes(160), &config).await;
    let clock = world.gateway.app.clock();
    let left = async || {
        let reply = world.post("/oauth/token").form(&MACHINE).send().await;
        claims_of(&reply);
        reply.json()["expires_in"].as_i64().expect("a number")
    };
    assert_eq!(left().await, 160);
    clock.advance(Duration::from_secs(80));
    let told = left().await;
    assert!((70..=80).contains(&told), "{told}");
    assert_eq!(world.auth.counts().token, 1);
    // 100 of 160 seconds are over: a minute is left, and the issuer's clock has not been set.
    clock.advance(Duration::from_secs(20));
    assert_eq!(left().await, 160);
    assert_eq!(world.auth.counts().token, 2);

    let world = World::of(lifetimes(60), &config).await;
    for asked in 1..4 {
        let reply = world.post("/oauth/token").form(&MACHINE).send().await;
        assert_eq!(reply.json()["expires_in"], 60);
        assert_eq!(world.auth.counts().token, asked);
    }
}
