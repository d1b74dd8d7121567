//! Who gets in, as whom, and what of that the upstream learns. What does not get in is in
//! `adversary`.

use crate::adversary::{
    IS_GRANTS, ISSUER, admitted, assert_refusal, identity_headers, now, refused, refused_beside,
};
use crate::harness::{CONFIG, Gateway, World, assert_refused, eventually, with_lines};
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, BonterraAuth, KeyChoice};
use serde_json::{Value, json};
use std::time::Duration;

// === algorithms ===

#[tokio::test]
async fn every_algorithm_is_admitted_when_listed_and_refused_when_not() {
    let options = AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    };
    let world = World::of(options, CONFIG).await;
    let claims = world.auth.claims();
    let mint = |algorithm| {
        world
            .auth
            .mint_with(&Value::Null, &claims, &KeyChoice::Algorithm(algorithm))
    };
    let tokens = Algorithm::ALL.map(|algorithm| (algorithm, mint(algorithm)));
    for listed in Algorithm::ALL {
        let list = format!("algorithms = [\"{}\"]", listed.as_str());
        let config = with_lines(CONFIG, ISSUER, &list);
        let config = config
            .replace("ISSUER", world.auth.issuer())
            .replace("ECHO", &world.echo.url());
        let gateway = Gateway::start(&config).await;
        gateway.app.ready().await;
        for (algorithm, token) in &tokens {
            let before = world.echo.requests();
            let reply = crate::harness::request(gateway.address, "GET", "/grants/1")
                .bearer(token)
                .send()
                .await;
            let case = format!("{algorithm:?} where {listed:?} is listed");
            if *algorithm == listed {
                assert_eq!(reply.status, 200, "{case}: {}", reply.text());
                assert_eq!(
                    reply.upstream_saw("x-bonterra-is-grants"),
                    ["true"],
                    "{case}"
                );
            } else {
                assert_refusal(&reply, 401, "algorithm_not_allowed", &case);
                assert_eq!(world.echo.requests(), before, "{case}");
            }
        }
    }
}

// === what is good in more than one form ===

#[tokio::test]
async fn a_token_header_may_differ_where_it_does_not_matter() {
    let world = World::start().await;
    let claims = world.auth.claims();
    for (case, header) in [
        ("typ in lower case", json!({ "typ": "jwt" })),
        ("RFC 9068's typ", json!({ "typ": "at+jwt" })),
        (
            "typ as a whole media type",
            json!({ "typ": "application/at+JWT" }),
        ),
        ("no kid", json!({ "kid": null })),
        ("an unknown member", json!({ "x": 1 })),
    ] {
        let token = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
        admitted(&world, &token, case).await;
    }
    let next = world
        .auth
        .mint_with(&json!({ "kid": null }), &claims, &KeyChoice::Next);
    admitted(
        &world,
        &next,
        "no kid, and not the first of the keys that fit",
    )
    .await;
    // RFC 9110 §11.4 and §5.5: neither is a part of the token.
    let token = world.auth.token();
    admitted(&world, &format!("  {token}"), "three spaces before").await;
    admitted(&world, &format!("{token} \t"), "white space behind").await;
}

#[tokio::test]
async fn claims_that_hold_are_admitted() {
    let world = World::start().await;
    let now = now();
    for (case, change) in [
        (
            "aud as a list with ours",
            json!({ "aud": ["https://other.example", "https://api.bonterra.network"] }),
        ),
        ("exp within the leeway", json!({ "exp": now - 10 })),
        ("nbf within the leeway", json!({ "nbf": now + 10 })),
        ("iat within the leeway", json!({ "iat": now + 10 })),
        ("no iat", json!({ "iat": null })),
        ("no sub", json!({ "sub": null })),
    ] {
        admitted(&world, &world.token_with(change), case).await;
    }
}

#[tokio::test]
async fn a_lifetime_over_the_limit_is_refused() {
    let world = World::with(&with_lines(CONFIG, ISSUER, "max_lifetime = \"1h\"")).await;
    let now = now();
    let of = |iat: Value, exp: u64| world.token_with(json!({ "iat": iat, "exp": exp }));
    admitted(&world, &of(json!(now), now + 3600), "just the limit").await;
    let on = |token: &str| world.get("/grants/1").bearer(token);
    let good = on(&of(json!(now), now + 3600));
    for (case, token, reason) in [
        (
            "a second over",
            of(json!(now), now + 3601),
            "too_long_lived",
        ),
        (
            "no iat to count from",
            of(Value::Null, now + 60),
            "missing_claim",
        ),
    ] {
        refused_beside(&world, &good, on(&token), 401, reason, case).await;
    }
}

#[tokio::test]
async fn optional_means_none_or_a_good_one() {
    let world = World::start().await;
    let anonymous = world
        .get("/optional/1")
        .header("x-bonterra-subject", "forged")
        .send()
        .await;
    assert_eq!(anonymous.status, 200);
    assert!(
        identity_headers(&anonymous).is_empty(),
        "{}",
        anonymous.text()
    );
    let known = world.authorized("/optional/1").send().await;
    assert_eq!(
        known.upstream_saw("x-bonterra-subject"),
        ["demo-client@clients"]
    );
    let before = world.echo.requests();
    let expired = world
        .get("/optional/1")
        .bearer(&world.token_with(json!({ "exp": 1 })))
        .send()
        .await;
    assert_refused(&world.gateway, &expired, 401, "expired", "optional").await;
    let garbage = world.get("/optional/1").bearer("x").send().await;
    assert_refused(&world.gateway, &garbage, 401, "malformed_token", "optional").await;
    assert_eq!(
        world.echo.requests(),
        before,
        "a bad token is no missing token"
    );
    // Where tokens are not looked at, a bad one does no harm and a good one makes no identity.
    for token in ["x".to_owned(), world.auth.token()] {
        let public = world.get("/public/1").bearer(&token).send().await;
        assert_eq!(public.status, 200);
        assert!(identity_headers(&public).is_empty(), "{}", public.text());
        assert_eq!(
            public.upstream_saw("authorization"),
            [format!("Bearer {token}")]
        );
    }
}

// === what the upstream learns ===

const TENANT_HEADERS: &str = r#"
[issuer.bonterra.headers]
X-Bonterra-Auth-Id = "urn:bonterra:claims:bonterra_auth_id"
X-Bonterra-Is-Grants = "urn:bonterra:claims:is_bonterra_grants"
X-Bonterra-Value = "https://example.com/claims/value.x"
X-Tenant = "tenant"
"#;

#[tokio::test]
async fn claims_arrive_in_the_encoding_of_their_type() {
    let world = World::with(&format!("{CONFIG}{TENANT_HEADERS}")).await;
    for (claim, expected) in [
        (json!("plain text"), Some("plain text")),
        (json!("auth0|507f"), Some("auth0|507f")),
        (json!(""), Some("")),
        (json!(true), Some("true")),
        (json!(false), Some("false")),
        (json!(42), Some("42")),
        (json!(-1.5), Some("-1.5")),
        (json!(u64::MAX), Some("18446744073709551615")),
        (json!(["a", "b c"]), Some("a,b c")),
        (json!(["a,b", "c"]), Some("a%2Cb,c")),
        (json!(["x", " admin", "y "]), Some("x,%20admin,y%20")),
        (json!([true, 1, "x"]), Some("true,1,x")),
        (json!([]), Some("")),
        (json!({ "a": [1, "x"] }), Some("{\"a\":[1,\"x\"]}")),
        (json!([{ "a": 1 }]), Some("[{\"a\":1}]")),
        (json!("100%"), Some("100%25")),
        (json!("caf\u{e9}"), Some("caf%C3%A9")),
        (json!("\u{1F600}"), Some("%F0%9F%98%80")),
        (
            json!("a\r\nX-Bonterra-Is-Grants: true"),
            Some("a%0D%0AX-Bonterra-Is-Grants: true"),
        ),
        (json!("a\0b\tc\u{7f}d"), Some("a%00b%09c%7Fd")),
        (json!(["a\nb"]), Some("a%0Ab")),
        (json!({ "\u{e9}": "\n" }), Some("{\"%C3%A9\":\"\\n\"}")),
        (json!(" led and followed "), Some("%20led and followed%20")),
    ] {
        let token = world.token_with(json!({ "https://example.com/claims/value.x": claim }));
        let reply = world
            .get("/grants/1")
            .bearer(&token)
            .header("x-bonterra-value", "forged")
            .send()
            .await;
        assert_eq!(reply.status, 200, "{claim}");
        let expected: Vec<&str> = expected.into_iter().collect();
        assert_eq!(reply.upstream_saw("x-bonterra-value"), expected, "{claim}");
        assert_eq!(
            reply.upstream_saw("x-bonterra-is-grants"),
            ["true"],
            "{claim}"
        );
    }
    // The whole name is one key: a path into objects is none.
    for token in [
        world.auth.token(),
        world.token_with(json!({ "https://example.com/claims/value.x": null })),
        world.token_with(json!({ "https://example.com/claims/value": { "x": "nested" } })),
    ] {
        let reply = world
            .get("/grants/1")
            .bearer(&token)
            .header("x-bonterra-value", "forged")
            .send()
            .await;
        assert!(
            reply.upstream_saw("x-bonterra-value").is_empty(),
            "{}",
            reply.text()
        );
    }
    let payload = world.auth.claims().to_string().replacen(
        '{',
        "{\"https://example.com/claims/value.x\":null,",
        1,
    );
    let header = format!(
        r#"{{"alg":"RS256","typ":"JWT","kid":"{}"}}"#,
        world.auth.current_kid()
    );
    let token = world.auth.mint_raw(&header, &payload, &KeyChoice::Current);
    let reply = world.get("/grants/1").bearer(&token).send().await;
    assert!(
        reply.upstream_saw("x-bonterra-value").is_empty(),
        "null says nothing"
    );
}

#[tokio::test]
async fn the_token_goes_on_unless_the_route_keeps_it() {
    let config = with_lines(
        CONFIG,
        "[[route]]\nname = \"grants\"",
        "forward_token = false",
    );
    let world = World::with(&config).await;
    let kept = world.authorized("/grants/1").send().await;
    assert_eq!(kept.status, 200);
    assert!(kept.upstream_saw("authorization").is_empty());
    assert_eq!(kept.upstream_saw("x-bonterra-is-grants"), ["true"]);
    let forwarded = world.authorized("/optional/1").send().await;
    assert_eq!(forwarded.upstream_saw("authorization").len(), 1);
}

// === what the route asks ===

#[tokio::test]
async fn scopes_and_claims_are_read_in_all_their_forms() {
    let config = format!(
        "{CONFIG}
[[route]]
name = \"any\"
path = \"/any/*\"
upstream = \"echo\"
any_scope = [\"admin\", \"read:grants\"]
"
    );
    let world = World::with(&config).await;
    for (path, change) in [
        ("/scoped/1", json!({})),
        ("/scoped/1", json!({ "scope": "write:grants read:grants" })),
        (
            "/scoped/1",
            json!({ "scope": ["read:grants", "write:grants"] }),
        ),
        (
            "/scoped/1",
            json!({ "scope": null, "scp": "read:grants write:grants" }),
        ),
        (
            "/scoped/1",
            json!({ "scope": "read:grants", "permissions": ["write:grants"] }),
        ),
        ("/any/1", json!({ "scope": "read:grants" })),
        ("/any/1", json!({ "scope": "admin x" })),
        ("/grants/1", json!({ IS_GRANTS: [false, true] })),
    ] {
        let token = world.token_with(change.clone());
        for _ in 0..2 {
            let reply = world.get(path).bearer(&token).send().await;
            assert_eq!(reply.status, 200, "{path} {change}: {}", reply.text());
        }
    }
    for value in [json!(false), json!("true"), json!(1), json!(null)] {
        let sent = world
            .get("/grants/1")
            .bearer(&world.token_with(json!({ IS_GRANTS: value })));
        refused(&world, sent, 403, "claim_mismatch", &value.to_string()).await;
    }
}

#[tokio::test]
async fn claims_have_to_be_there() {
    let route = "[[route]]\nname = \"optional\"";
    let lines = "claims_present = [\"tenant\", \"urn:x:y.z\"]";
    let world = World::with(&with_lines(CONFIG, route, lines)).await;
    for (change, status) in [
        (json!({ "tenant": "a", "urn:x:y.z": false }), 200),
        (json!({ "tenant": "", "urn:x:y.z": [] }), 200),
        (json!({ "tenant": 0, "urn:x:y.z": {} }), 200),
        (json!({ "tenant": "a" }), 403),
        (json!({ "urn:x:y.z": "a" }), 403),
        (json!({ "Tenant": "a", "urn:x:y.z": "a" }), 403),
        (json!({ "tenant": "a", "urn:x:y": { "z": 1 } }), 403),
        (json!({}), 403),
    ] {
        let token = world.token_with(change.clone());
        for _ in ["cold", "warm"] {
            let seen = world.echo.requests();
            let reply = world.get("/optional/1").bearer(&token).send().await;
            assert_eq!(reply.status, status, "{change}: {}", reply.text());
            if status == 403 {
                assert_refused(&world.gateway, &reply, 403, "claim_mismatch", "optional").await;
                assert_eq!(world.echo.requests(), seen, "{change}");
            }
        }
    }
    // `null` says nothing.
    let mut claims = world.auth.claims();
    claims["tenant"] = json!(null);
    claims["urn:x:y.z"] = json!(1);
    let reply = world.get("/optional/1").bearer(&world.auth.mint(&claims));
    assert_eq!(reply.send().await.status, 403);
}

/// A token that is remembered and whose `nbf` lies ahead again, because the clock was set back.
#[tokio::test]
async fn a_remembered_token_is_held_to_its_nbf() {
    let world = World::start().await;
    let clock = world.gateway.app.clock();
    let now = bonterra_gateway::identity::unix_now();
    let token = world.token_with(json!({ "nbf": now + 1000, "iat": now, "exp": now + 9000 }));
    let other = world.token_with(json!({ "nbf": null, "iat": now, "exp": now + 9000 }));
    clock.advance(Duration::from_secs(2000));
    for token in [&token, &other] {
        for _ in ["cold", "warm"] {
            let reply = world.get("/grants/1").bearer(token).send().await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
    }
    clock.set_back(Duration::from_secs(2000));
    let hits = "gateway_verified_token_cache_requests_total{result=\"hit\"}";
    let before = world.gateway.metric(hits).await;
    let sent = world.get("/grants/1").bearer(&token);
    let seen = world.echo.requests();
    let reply = sent.send().await;
    assert_refused(&world.gateway, &reply, 401, "not_yet_valid", "grants").await;
    assert_eq!(world.echo.requests(), seen);
    let reply = world.get("/grants/1").bearer(&other).send().await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        world.gateway.metric(hits).await,
        before + 2.0,
        "both are known"
    );
}

#[tokio::test]
async fn rules_that_admit_more_than_they_say_are_mistakes() {
    let base = CONFIG
        .replace("ISSUER", "https://a/")
        .replace("ECHO", "http://127.0.0.1:1");
    let own = "claims = { \"urn:bonterra:claims:is_bonterra_grants\" = true }";
    let told = |from: &str, to: &str| {
        let config = base.replacen(from, to, 1);
        assert_ne!(config, base, "{from}");
        let env = bonterra_gateway::app::environment().expect("metrics");
        let parsed = bonterra_gateway::config::parse("gateway.toml", &config);
        let compiled = bonterra_gateway::snapshot::compile(parsed, &env);
        compiled.map(drop).map_err(|mistakes| mistakes.to_string())
    };
    for (from, to, what, hint) in [
        (
            own,
            "claims = { roles = [] }",
            "admits any array",
            "[\"roles\"]",
        ),
        (
            own,
            "claims = { roles = [\"a\", []] }",
            "admits any array",
            "[\"roles\"]",
        ),
        (
            own,
            "claims_present = [\"a\", \"\"]",
            "a claim has a name",
            "name one",
        ),
        (
            "auth = \"none\"",
            "auth = \"none\"\nclaims_present = [\"sub\"]",
            "`claims_present` has no effect",
            "remove it",
        ),
        (
            "min_ttl = \"1s\"",
            "min_ttl = \"1s\"\n[token_cache]\nrefused_for = \"400000d\"",
            "longer than ten years",
            "",
        ),
        (
            "auth = \"none\"",
            "auth = \"none\"\ntimeout = \"18446744073709551615s\"",
            "longer than ten years",
            "",
        ),
    ] {
        let said = told(from, to).expect_err(to);
        for part in [what, hint, "gateway.toml:", "1 mistake"] {
            assert!(said.contains(part), "no {part:?} in\n{said}");
        }
    }
    for to in [
        "claims = { roles = [\"a\"] }",
        "claims = { roles = {} }",
        "claims_present = [\"roles\", \"urn:x\"]",
    ] {
        assert_eq!(told(own, to), Ok(()), "{to}");
    }
}

/// A request that has to wait for keys looks its token up twice, and counts once.
#[tokio::test]
async fn a_request_counts_once_among_those_of_the_cache() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    let misses = "gateway_verified_token_cache_requests_total{result=\"miss\"}";
    world.auth.rotate();
    let (newest, unpublished) = (KeyChoice::Next, KeyChoice::Unpublished);
    for (case, choice, header, status) in [
        ("newest", &newest, Value::Null, 200),
        (
            "unpublished",
            &unpublished,
            json!({ "kid": "unknown" }),
            401,
        ),
        ("current", &KeyChoice::Current, Value::Null, 200),
    ] {
        let token = world.auth.mint_with(&header, &world.auth.claims(), choice);
        let (before, fetched) = (world.gateway.metric(misses).await, world.auth.counts().jwks);
        let reply = world.get("/grants/1").bearer(&token).send().await;
        assert_eq!(reply.status, status, "{case}: {}", reply.text());
        assert_eq!(world.gateway.metric(misses).await, before + 1.0, "{case}");
        let waited = world.auth.counts().jwks > fetched;
        assert_eq!(waited, case != "current", "{case}");
    }
}

// === several issuers ===

#[tokio::test]
async fn two_issuers_side_by_side_do_not_mix() {
    let other = BonterraAuth::start(AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    })
    .await
    .expect("an issuer");
    let config = format!(
        "{CONFIG}
[issuer.partner]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]
headers = {{ X-Partner = \"sub\" }}
",
        other.issuer()
    );
    let world = World::with(&config).await;
    let (ours, theirs) = (world.auth.token(), other.token());

    // Each with its own mapping, and nobody with the other's headers.
    let reply = world
        .get("/optional/1")
        .bearer(&ours)
        .header("x-partner", "forged")
        .send()
        .await;
    assert_eq!(
        reply.upstream_saw("x-bonterra-subject"),
        ["demo-client@clients"]
    );
    assert!(
        reply.upstream_saw("x-partner").is_empty(),
        "every issuer's headers are guarded"
    );
    let reply = world
        .get("/optional/1")
        .bearer(&theirs)
        .header("x-bonterra-subject", "forged")
        .send()
        .await;
    assert_eq!(reply.upstream_saw("x-partner"), ["demo-client@clients"]);
    assert!(reply.upstream_saw("x-bonterra-subject").is_empty());

    for (name, count) in [("bonterra", 1.0), ("partner", 1.0)] {
        let series = format!(
            "gateway_auth_decisions_total{{issuer=\"{name}\",outcome=\"accepted\",reason=\"ok\"}}"
        );
        assert!(world.gateway.metric(&series).await >= count, "{series}");
    }
}

#[tokio::test]
async fn an_issuer_with_empty_hands_does_not_stand_in_the_way_of_another() {
    let config = format!(
        "{CONFIG}
[issuer.away]
url = \"http://{}/\"
audiences = [\"https://api.bonterra.network\"]
timeout = \"200ms\"
",
        crate::harness::nobody()
    );
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("an issuer");
    let echo = bonterra_gateway::demo::echo::Echo::start(crate::harness::local())
        .await
        .expect("an upstream");
    let config = config
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let gateway = Gateway::start(&config).await;
    let token = auth.token();
    eventually("the issuer that is there", || async {
        crate::harness::request(gateway.address, "GET", "/grants/1")
            .bearer(&token)
            .send()
            .await
            .status
            == 200
    })
    .await;
    let readiness = gateway.admin("GET", "/readyz").await;
    assert_eq!(
        readiness.status, 503,
        "the other issuer's keys are missing still"
    );
    tokio::time::timeout(Duration::from_millis(1), gateway.app.ready())
        .await
        .expect_err("not ready");
}

#[tokio::test]
async fn a_value_inside_a_claim_is_found_by_pointer() {
    let headers = r#"headers = { X-Role = "/https:~1~1bonterra.network~1user/roles/0", X-Tenant = "/tenant/id", X-Dots = "a.b" }"#;
    let world = World::with(&with_lines(CONFIG, "[issuer.bonterra]", headers)).await;
    let token = world.token_with(json!({
        "https://bonterra.network/user": { "roles": ["admin\r\nX-Admin: 1", "other"] },
        "tenant": { "id": 7 },
        "a.b": true,
        "a": { "b": false },
    }));
    for pass in ["cold", "warm"] {
        let forged = world
            .get("/grants/1")
            .bearer(&token)
            .header("X_Role", "forged");
        let reply = forged.send().await;
        assert_eq!(reply.status, 200, "{pass}: {}", reply.text());
        assert_eq!(
            reply.upstream_saw("x-role"),
            ["admin%0D%0AX-Admin: 1"],
            "{pass}"
        );
        assert_eq!(reply.upstream_saw("x-tenant"), ["7"], "{pass}");
        assert_eq!(reply.upstream_saw("x-dots"), ["true"], "{pass}");
        assert!(reply.upstream_saw("x_role").is_empty(), "{pass}");
    }
    // What is not there sets no header, and a forgery does not take its place.
    let without = world
        .get("/grants/1")
        .bearer(&world.auth.token())
        .header("x-role", "forged");
    assert!(without.send().await.upstream_saw("x-role").is_empty());
}
