//! The issuer's own documents, from what the gateway holds: discovery and keys.

use super::ended;
use crate::harness::{CONFIG, Gateway, World, eventually, nobody, request, with_lines};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, KeyChoice};
use serde_json::json;

const DISCOVERY: &str = "/.well-known/openid-configuration";
const JWKS: &str = "/.well-known/jwks.json";

#[tokio::test]
async fn they_are_the_issuers_own_and_come_from_here() {
    let world = World::start().await;
    let own = request(world.auth.addr(), "GET", DISCOVERY).send().await;
    let asked = world.auth.counts();
    for prefix in ["", "/oauth"] {
        let reply = world.get(&format!("{prefix}{DISCOVERY}")).send().await;
        assert_eq!((reply.status, &reply.body), (200, &own.body), "{prefix}");
        assert_eq!(reply.header("content-type"), Some("application/json"));
        assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
        assert!(reply.header("x-request-id").is_some());
        // RFC 8414 §3.3: it names the issuer, not the gateway.
        assert_eq!(reply.json()["issuer"], world.auth.issuer());
        let reply = world.get(&format!("{prefix}{JWKS}")).send().await;
        assert_eq!((reply.status, reply.json()), (200, world.auth.jwks()));
        assert_eq!(reply.header("content-type"), Some("application/json"));
        let fresh = reply.header("cache-control").expect("a lifetime");
        let seconds = fresh.strip_prefix("public, max-age=").expect("public");
        // The issuer says 15.
        assert!(seconds.parse::<u32>().expect("seconds") <= 15, "{fresh}");
    }
    let head = request(world.gateway.address, "HEAD", JWKS).send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let after = world.auth.counts();
    assert_eq!(after.discovery, asked.discovery, "the issuer is not asked");
    assert_eq!(ended(&world.gateway, "discovery", "answered").await, 2.0);
    assert_eq!(ended(&world.gateway, "jwks", "answered").await, 3.0);
    assert!(world.echo.seen().is_empty());
}

#[tokio::test]
async fn keys_that_the_gateway_has_no_use_for_pass_as_well() {
    let world = World::start().await;
    let mut document = world.auth.jwks();
    let keys = document["keys"].as_array_mut().expect("keys");
    keys.push(
        json!({ "kty": "EC", "crv": "P-521", "kid": "other", "use": "enc", "x": "AA", "y": "AA" }),
    );
    world.auth.set_jwks_document(Some(document.clone()));
    // A key that is not known makes the gateway fetch them anew.
    let unknown = json!({ "kid": "unknown" });
    let (claims, key) = (world.auth.claims(), KeyChoice::Current);
    let token = &world.auth.mint_with(&unknown, &claims, &key);
    eventually("the new document", || async {
        world.get("/grants/1").bearer(token).send().await;
        world.get(JWKS).send().await.json() == document
    })
    .await;
}

#[tokio::test]
async fn they_outlive_the_issuer_and_are_not_made_up() {
    let world = World::start().await;
    let (discovery, keys) = (
        world.get(DISCOVERY).send().await,
        world.get(JWKS).send().await,
    );
    world.auth.stop().await;
    assert_eq!(world.get(DISCOVERY).send().await.body, discovery.body);
    assert_eq!(world.get(JWKS).send().await.body, keys.body);

    let config = CONFIG
        .replace("ISSUER", &format!("http://{}/", nobody()))
        .replace("ECHO", "http://127.0.0.1:9");
    let gateway = Gateway::start(&config).await;
    for path in [DISCOVERY, JWKS] {
        let reply = request(gateway.address, "GET", path).send().await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.json()["error"], "temporarily_unavailable", "{path}");
        assert_eq!(reply.header("retry-after"), Some("5"), "{path}");
        assert_eq!(reply.header("cache-control"), Some("no-store"), "{path}");
    }
}

#[tokio::test]
async fn what_discovery_was_not_asked_for_is_not_there() {
    let lines =
        "jwks_uri = \"ISSUER.well-known/jwks.json\"\ntoken_endpoint = \"ISSUERoauth/token\"";
    let world = World::with(&with_lines(CONFIG, "[issuer.bonterra]", lines)).await;
    assert_eq!(world.get(JWKS).send().await.json(), world.auth.jwks());
    for path in [DISCOVERY, "/oauth/userinfo"] {
        let reply = world.get(path).bearer("x").send().await;
        assert_eq!(reply.status, 404, "{path}: {}", reply.text());
        assert_eq!(reply.json()["error"], "invalid_request", "{path}");
    }
    assert_eq!(world.auth.counts().discovery, 0);
}

#[tokio::test]
async fn other_methods_are_refused() {
    let world = World::start().await;
    for path in [DISCOVERY, JWKS, "/oauth/authorize", "/oauth/userinfo"] {
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            let reply = request(world.gateway.address, method, path).send().await;
            assert_eq!(reply.status, 405, "{method} {path}");
            assert_eq!(reply.header("allow"), Some("GET, HEAD"), "{method} {path}");
            assert_eq!(reply.json()["error"], "invalid_request", "{method} {path}");
        }
        let options = request(world.gateway.address, "OPTIONS", path)
            .header("max-forwards", "0")
            .send()
            .await;
        assert_eq!(
            (options.status, options.header("allow")),
            (204, Some("GET, HEAD")),
            "{path}"
        );
    }
    assert_eq!(world.auth.counts().userinfo, 0);
}

/// Two issuers, so that the root is in question.
async fn two(first: &str, second: &str) -> (World, BonterraAuth) {
    let options = AuthOptions {
        key_slot: 10,
        ..AuthOptions::default()
    };
    let other = BonterraAuth::start(options).await.expect("an issuer");
    let config = with_lines(CONFIG, "[oauth.bonterra]", &format!("prefix = \"{first}\""));
    let config = format!(
        "{config}
[issuer.other]
url = \"{}\"
audiences = [\"https://api.bonterra.network\"]

[oauth.another]
issuer = \"other\"
prefix = \"{second}\"
",
        other.issuer()
    );
    (World::with(&config).await, other)
}

#[tokio::test]
async fn each_surface_has_those_of_its_issuer_and_the_root_those_of_one() {
    let (world, other) = two("/oauth", "/oauth2").await;
    let issuer_at = async |path: &str| world.get(path).send().await.json()["issuer"].clone();
    assert_eq!(
        issuer_at("/oauth/.well-known/openid-configuration").await,
        { world.auth.issuer() }
    );
    assert_eq!(
        issuer_at("/oauth2/.well-known/openid-configuration").await,
        other.issuer()
    );
    assert_eq!(issuer_at(DISCOVERY).await, world.auth.issuer());
    let keys = world.get("/oauth2/.well-known/jwks.json").send().await;
    assert_eq!(keys.json(), other.jwks());

    let (undecided, _other) = two("/v1/oauth", "/v2/oauth").await;
    assert_eq!(undecided.get(DISCOVERY).send().await.status, 404);
    let below = "/v2/oauth/.well-known/openid-configuration";
    assert_eq!(undecided.get(below).send().await.status, 200);
}

#[tokio::test]
async fn a_route_of_that_path_comes_first() {
    let config = format!(
        "{CONFIG}
[[route]]
name = \"own\"
path = \"/.well-known/jwks.json\"
upstream = \"echo\"
auth = \"none\"
"
    );
    let world = World::with(&config).await;
    assert_eq!(world.get(JWKS).send().await.status, 200);
    assert_eq!(world.echo.seen().len(), 1);
    let below = world.get("/oauth/.well-known/jwks.json").send().await;
    assert_eq!(below.json(), world.auth.jwks());
}
