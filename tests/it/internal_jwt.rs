//! The gateway's own tokens: what an upstream gets in place of the caller's, as a verifier of another
//! make sees it.

use crate::harness::program::{call, program};
use crate::harness::{CONFIG, Reply, World, eventually, request};
use jwt_simple::prelude::*;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration as Time;
use tempfile::TempDir;

const KEYS_PATH: &str = "/.well-known/gateway-jwks.json";
const AUTHORIZATION: &str = "authorization";

/// A world whose routes sign, and the folder of their keys: `a.pem` for Ed25519, `b.pem` and `c.pem`
/// for P-256.
struct Signing {
    world: World,
    folder: TempDir,
}

/// An upstream's verifier: it fetches the keys when it meets one that it does not know, and keeps
/// what it has.
struct Verifier {
    gateway: SocketAddr,
    audience: &'static str,
    keys: BTreeMap<String, Public>,
    fetches: usize,
}

enum Public {
    Ec(ES256PublicKey),
    Ed(Ed25519PublicKey),
}

// === impl Signing ===

impl Signing {
    /// [`CONFIG`] with these settings in the route of each name; `DIR` is the folder of the keys.
    async fn on(routes: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().expect("a folder");
        for (name, algorithm) in [
            ("a.pem", &PKCS_ED25519),
            ("b.pem", &PKCS_ECDSA_P256_SHA256),
            ("c.pem", &PKCS_ECDSA_P256_SHA256),
        ] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            std::fs::write(folder.path().join(name), key.serialize_pem()).expect("written");
        }
        let world = World::with(&config(routes, folder.path())).await;
        Self { world, folder }
    }

    fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("a key")
    }

    async fn published(&self) -> Value {
        let reply = self.world.get(KEYS_PATH).send().await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()
    }

    async fn kids(&self) -> Vec<String> {
        let keys = self.published().await;
        let keys = keys["keys"].as_array().expect("keys").clone();
        let kid = |key: &Value| key["kid"].as_str().expect("a kid").to_owned();
        keys.iter().map(kid).collect()
    }

    async fn rewrite(&self, routes: &[(&str, &str)]) {
        let addresses = config(routes, self.folder.path())
            .replace("ISSUER", self.world.auth.issuer())
            .replace("ECHO", &self.world.echo.url());
        std::fs::write(self.world.gateway.file(), addresses).expect("written");
        let reply = self.world.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    }
}

fn config(routes: &[(&str, &str)], folder: &Path) -> String {
    let mut config = CONFIG.to_owned();
    for (name, settings) in routes {
        let place = format!("name = \"{name}\"\n");
        assert_eq!(config.matches(&place).count(), 1, "one {name}");
        config = config.replace(&place, &format!("{place}internal_jwt = {settings}\n"));
    }
    config.replace("DIR", folder.to_str().expect("UTF-8"))
}

/// The token that the upstream got.
fn upstream_got(reply: &Reply) -> String {
    assert_eq!(reply.status, 200, "{}", reply.text());
    let [authorization] = <[String; 1]>::try_from(reply.upstream_saw(AUTHORIZATION)).expect("one");
    let token = authorization
        .strip_prefix("Bearer ")
        .expect("a bearer token");
    token.to_owned()
}

/// What a token says, unverified.
fn part(token: &str, at: usize) -> Value {
    let bytes =
        Base64UrlSafeNoPadding::decode_to_vec(token.split('.').nth(at).expect("a part"), None);
    serde_json::from_slice(&bytes.expect("base64url")).expect("JSON")
}

// === impl Verifier ===

impl Verifier {
    fn new(gateway: SocketAddr, audience: &'static str) -> Self {
        Self {
            gateway,
            audience,
            keys: BTreeMap::new(),
            fetches: 0,
        }
    }

    /// The claims of a token that is good now.
    async fn verify(&mut self, token: &str) -> Result<JWTClaims<BTreeMap<String, Value>>, String> {
        let header = Token::decode_metadata(token).map_err(|error| error.to_string())?;
        let kid = header.key_id().ok_or("no kid")?.to_owned();
        if !self.keys.contains_key(&kid) {
            self.fetch().await?;
        }
        let options = Some(VerificationOptions {
            required_signature_type: Some("JWT".to_owned()),
            allowed_issuers: Some(HashSet::from_strings(&["bonterra-gateway"])),
            allowed_audiences: Some(HashSet::from_strings(&[self.audience])),
            time_tolerance: Some(Duration::from_secs(5)),
            max_token_length: None,
            ..VerificationOptions::default()
        });
        let claims = match self.keys.get(&kid).ok_or("this kid is not published")? {
            Public::Ec(key) => key.verify_token(token, options),
            Public::Ed(key) => key.verify_token(token, options),
        };
        claims.map_err(|error| error.to_string())
    }

    async fn fetch(&mut self) -> Result<(), String> {
        self.fetches += 1;
        let reply = request(self.gateway, "GET", KEYS_PATH).try_send().await;
        let reply = reply.map_err(|error| error.to_string())?;
        for jwk in reply.json()["keys"].as_array().expect("keys") {
            let text = |name: &str| jwk[name].as_str().expect("text").to_owned();
            let number = |name: &str| {
                Base64UrlSafeNoPadding::decode_to_vec(text(name), None).expect("base64url")
            };
            let key = match (
                text("kty").as_str(),
                text("crv").as_str(),
                text("alg").as_str(),
            ) {
                ("EC", "P-256", "ES256") => {
                    let point = [vec![4], number("x"), number("y")].concat();
                    Public::Ec(ES256PublicKey::from_bytes(&point).expect("a key"))
                }
                ("OKP", "Ed25519", "EdDSA") => {
                    Public::Ed(Ed25519PublicKey::from_bytes(&number("x")).expect("a key"))
                }
                other => panic!("{other:?}"),
            };
            self.keys.insert(text("kid"), key);
        }
        Ok(())
    }
}

const GRANTS: &str = r#"{ key_file = "DIR/a.pem", audience = "grants", claims = ["sub", "scope", "absent", "urn:bonterra:claims:is_bonterra_grants"] }"#;
const OPTIONAL: &str = r#"{ key_file = "DIR/b.pem", audience = "optional", ttl = "1m" }"#;
const PUBLIC: &str = r#"{ key_file = "DIR/b.pem", audience = "public" }"#;

#[tokio::test]
async fn an_upstream_verifies_the_gateways_token_and_never_sees_the_callers() {
    let signing = Signing::on(&[("grants", GRANTS), ("optional", OPTIONAL)]).await;
    let world = &signing.world;
    let caller = world.token_with(json!({"scope": "read:grants", "jti": "theirs"}));
    for (path, audience, ttl, algorithm) in [
        ("/grants/1", "grants", 300, "EdDSA"),
        ("/optional/1", "optional", 60, "ES256"),
    ] {
        let reply = world.get(path).bearer(&caller).send().await;
        assert!(!reply.text().contains(&caller), "the caller's token");
        assert_eq!(reply.upstream_saw("x-bonterra-is-grants"), ["true"]);
        let token = upstream_got(&reply);
        let header = part(&token, 0);
        assert_eq!(
            (&header["alg"], &header["typ"]),
            (&json!(algorithm), &json!("JWT"))
        );
        let mut verifier = Verifier::new(world.gateway.address, audience);
        let claims = verifier.verify(&token).await.expect("verified");
        let (iat, exp) = (
            claims.issued_at.expect("iat"),
            claims.expires_at.expect("exp"),
        );
        assert_eq!((exp - iat).as_secs(), ttl);
        assert_eq!(
            claims.subject.as_deref(),
            world.auth.claims()["sub"].as_str()
        );
        assert_eq!(claims.custom.get("scope"), Some(&json!("read:grants")));
        assert!(
            claims
                .jwt_id
                .is_some_and(|id| id != "theirs" && id.len() == 36)
        );
        let grants = claims.custom.get("urn:bonterra:claims:is_bonterra_grants");
        assert_eq!(grants, (audience == "grants").then_some(&json!(true)));
        assert_eq!(claims.custom.get("absent"), None);
        let other = Verifier::new(world.gateway.address, "another")
            .verify(&token)
            .await;
        assert!(other.is_err(), "a token for one is none for another");
    }
    let seen = world.echo.seen();
    let values = seen.iter().flat_map(|request| request.headers.values());
    let mut values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
    assert!(!values.any(|value| value.contains(&caller)), "nowhere");
}

#[tokio::test]
async fn without_a_verified_token_the_upstream_gets_none() {
    let signing = Signing::on(&[("optional", OPTIONAL), ("public", PUBLIC)]).await;
    let world = &signing.world;
    let good = world.auth.token();
    for (path, sent) in [
        ("/optional/1", None),
        ("/optional/1", Some("Basic Zm9yZ2VkOmZvcmdlZA==".to_owned())),
        ("/public/1", None),
        ("/public/1", Some("Bearer forged".to_owned())),
        ("/public/1", Some(format!("Bearer {good}"))),
    ] {
        let mut request = world.get(path);
        if let Some(sent) = &sent {
            request = request.header(AUTHORIZATION, sent);
        }
        let reply = request.send().await;
        assert_eq!(reply.status, 200, "{path} {sent:?}");
        assert!(
            reply.upstream_saw(AUTHORIZATION).is_empty(),
            "{path} {sent:?}"
        );
    }
    // One that the gateway has signed is no token of an issuer.
    let own = upstream_got(&world.authorized("/optional/1").send().await);
    world.echo.forget();
    let reply = world.get("/optional/1").bearer(&own).send().await;
    assert_eq!(reply.status, 401, "{}", reply.text());
    assert!(world.echo.seen().is_empty(), "refused");
}

#[tokio::test]
async fn one_signature_serves_many_requests_and_ends_with_the_callers_token() {
    let signing = Signing::on(&[("grants", GRANTS)]).await;
    let world = &signing.world;
    let got = async |token: &str| upstream_got(&world.get("/grants/1").bearer(token).send().await);
    let caller = world.token_with(json!({"jti": "1"}));
    let first = got(&caller).await;
    for _ in 0..3 {
        assert_eq!(got(&caller).await, first);
    }
    assert_ne!(got(&world.token_with(json!({"jti": "2"}))).await, first);
    // A reload that changes nothing of it keeps it.
    signing
        .rewrite(&[("grants", GRANTS), ("public", PUBLIC)])
        .await;
    assert_eq!(got(&caller).await, first);
    let clock = world.gateway.app.clock();
    clock.advance(Time::from_secs(230));
    assert_eq!(got(&caller).await, first);
    clock.advance(Time::from_secs(11));
    let second = got(&caller).await;
    assert_ne!(second, first, "renewed ahead");
    clock.set_back(Time::from_secs(241));

    let now = clock.now();
    let brief = world.token_with(json!({"exp": now + 100}));
    let capped = got(&brief).await;
    assert_eq!(part(&capped, 1)["exp"], json!(now + 100));
    clock.advance(Time::from_secs(90));
    assert_eq!(got(&brief).await, capped, "another would not last longer");
    clock.set_back(Time::from_secs(90));
}

#[tokio::test]
async fn the_published_keys_are_public_and_for_reading() {
    let signing = Signing::on(&[
        ("grants", GRANTS),
        ("optional", OPTIONAL),
        ("public", PUBLIC),
    ])
    .await;
    let reply = signing.world.get(KEYS_PATH).send().await;
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("max-age=300"));
    let keys = reply.json()["keys"].clone();
    let keys = keys.as_array().expect("keys");
    assert_eq!(keys.len(), 2, "routes with one key publish it once");
    for key in keys {
        let mut names: Vec<&str> = key
            .as_object()
            .expect("an object")
            .keys()
            .map(|name| &**name)
            .collect();
        names.retain(|name| *name != "y");
        names.sort_unstable();
        assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);
        assert_eq!(key["use"], json!("sig"));
    }
    let head = request(signing.world.gateway.address, "HEAD", KEYS_PATH)
        .send()
        .await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let refused = signing.world.post(KEYS_PATH).send().await;
    assert_eq!(
        (refused.status, refused.header("allow")),
        (405, Some("GET, HEAD"))
    );
    let without = World::start().await;
    assert_eq!(without.get(KEYS_PATH).send().await.status, 404);
}

/// As `previous_key_file` says it is done: published first, then signing, then gone.
#[tokio::test]
async fn a_rotation_under_load_costs_no_request() {
    const OLD: &str = r#"{ key_file = "DIR/b.pem", audience = "grants" }"#;
    const BOTH: &str =
        r#"{ key_file = "DIR/b.pem", previous_key_file = "DIR/c.pem", audience = "grants" }"#;
    const SWAPPED: &str =
        r#"{ key_file = "DIR/c.pem", previous_key_file = "DIR/b.pem", audience = "grants" }"#;
    const NEW: &str = r#"{ key_file = "DIR/c.pem", audience = "grants" }"#;
    let signing = Arc::new(Signing::on(&[("grants", OLD)]).await);
    let (served, ended) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let load: Vec<_> = (0..3)
        .map(|client| {
            let (signing, served, ended) = (
                Arc::clone(&signing),
                Arc::clone(&served),
                Arc::clone(&ended),
            );
            tokio::spawn(async move {
                let world = &signing.world;
                let mut verifier = Verifier::new(world.gateway.address, "grants");
                let mut failed = Vec::new();
                let mut caller = world.auth.token();
                while !ended.load(Relaxed) {
                    let number = served.fetch_add(1, Relaxed);
                    if number.is_multiple_of(4) {
                        caller = world.token_with(json!({"jti": format!("{client}-{number}")}));
                    }
                    let reply = world.get("/grants/1").bearer(&caller).send().await;
                    if let Err(error) = verifier.verify(&upstream_got(&reply)).await {
                        failed.push(error);
                    }
                }
                (failed, verifier)
            })
        })
        .collect();
    let old = signing.kids().await;
    let steps = [(BOTH, 2), (SWAPPED, 2), (NEW, 1)];
    for (number, (settings, published)) in steps.into_iter().enumerate() {
        eventually("load", || {
            std::future::ready(served.load(Relaxed) >= (number + 1) * 30)
        })
        .await;
        signing.rewrite(&[("grants", settings)]).await;
        assert_eq!(signing.kids().await.len(), published, "{settings}");
    }
    let at = served.load(Relaxed);
    eventually("load", || {
        std::future::ready(served.load(Relaxed) >= at + 30)
    })
    .await;
    ended.store(true, Relaxed);
    for task in load {
        let (failed, verifier) = task.await.expect("no panic");
        assert!(failed.is_empty(), "{failed:#?}");
        assert_eq!(verifier.keys.len(), 2, "both keys were met");
        assert!(verifier.fetches <= 2, "{}", verifier.fetches);
    }
    let new = signing.kids().await;
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_ne!(old, new);
}

#[tokio::test]
async fn a_new_key_in_the_same_file_is_noticed() {
    let signing = Signing::on(&[("optional", OPTIONAL)]).await;
    let world = &signing.world;
    let caller = world.auth.token();
    let got = async || upstream_got(&world.get("/optional/1").bearer(&caller).send().await);
    let (old, before) = (signing.kids().await, got().await);
    std::fs::write(signing.folder.path().join("b.pem"), signing.pem("c.pem")).expect("written");
    eventually("the new key", async || signing.kids().await != old).await;
    let after = got().await;
    assert_ne!(after, before, "signed anew");
    let mut verifier = Verifier::new(world.gateway.address, "optional");
    verifier.verify(&after).await.expect("verified");
    assert!(
        verifier.verify(&before).await.is_err(),
        "the old key is gone"
    );
    // One that cannot be used changes nothing.
    std::fs::write(signing.folder.path().join("b.pem"), "no key").expect("written");
    let failed = "gateway_config_last_reload_successful";
    eventually("a failed reload", async || {
        world.gateway.metric(failed).await == 0.0
    })
    .await;
    verifier.verify(&got().await).await.expect("verified");
}

#[tokio::test]
async fn mistakes_have_their_place() {
    let folder = TempDir::new().expect("a folder");
    let write =
        |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    let pem = |algorithm| {
        KeyPair::generate_for(algorithm)
            .expect("a key")
            .serialize_pem()
    };
    let good = pem(&PKCS_ED25519);
    write("good.pem", &good);
    write("p384.pem", &pem(&PKCS_ECDSA_P384_SHA384));
    write("sec1.pem", &good.replace("PRIVATE KEY", "EC PRIVATE KEY"));
    write(
        "public.pem",
        &KeyPair::generate().expect("a key").public_key_pem(),
    );
    write("empty.pem", "");
    const KEY: &str = r#"key_file = "good.pem", "#;
    const AUDIENCE: &str = r#"audience = "grants", "#;
    for (parts, at, message, hint) in [
        (&[AUDIENCE][..], "{ ", "key_file", "openssl genpkey"),
        (
            &[AUDIENCE, r#"key_file = "absent.pem", "#],
            "\"absent.pem\"",
            "cannot be read",
            "working directory",
        ),
        (
            &[AUDIENCE, r#"key_file = "empty.pem", "#],
            "\"empty.pem\"",
            "no private key",
            "BEGIN PRIVATE KEY",
        ),
        (
            &[AUDIENCE, r#"key_file = "public.pem", "#],
            "\"public.pem\"",
            "no private key",
            "BEGIN PRIVATE KEY",
        ),
        (
            &[AUDIENCE, r#"key_file = "sec1.pem", "#],
            "\"sec1.pem\"",
            "not in PKCS#8",
            "openssl pkcs8",
        ),
        (
            &[AUDIENCE, r#"key_file = "p384.pem", "#],
            "\"p384.pem\"",
            "neither on P-256 nor on Ed25519",
            "openssl genpkey",
        ),
        (
            &[AUDIENCE, KEY, r#"previous_key_file = "p384.pem", "#],
            "\"p384.pem\"",
            "neither on P-256",
            "openssl genpkey",
        ),
        (&[KEY], "{ ", "audience", "name by which"),
        (&[KEY, r#"audience = "", "#], "\"\"", "has a name", ""),
        (
            &[KEY, AUDIENCE, r#"issuer = "", "#],
            "\"\"",
            "has a name",
            "",
        ),
        (
            &[KEY, AUDIENCE, r#"issuer = "http://127.0.0.1:9/", "#],
            "\"http",
            "[issuer.bonterra]",
            "bonterra-gateway",
        ),
        (
            &[KEY, AUDIENCE, r#"ttl = "900ms", "#],
            "\"900ms\"",
            "whole second",
            "5m",
        ),
        (
            &[KEY, AUDIENCE, r#"claims = ["sub", "exp"], "#],
            "\"exp\"",
            "`exp` is set by the gateway",
            "remove",
        ),
        (
            &[KEY, AUDIENCE, r#"claims = ["iss"], "#],
            "\"iss\"",
            "`iss` is set by the gateway",
            "remove",
        ),
        (
            &[KEY, AUDIENCE, r#"claims = ["sub", "a", "sub"], "#],
            "\"sub\"]",
            "`sub` is in this list already",
            "remove",
        ),
        (
            &[KEY, AUDIENCE, r#"claims = [""], "#],
            "\"\"",
            "a claim has a name",
            "remove",
        ),
        (
            &[KEY, AUDIENCE, r#"key = "x", "#],
            "key = \"x\"",
            "unknown key `key`",
            "",
        ),
    ] {
        let settings = format!("{{ {} }}", parts.concat().trim_end_matches(", "));
        let file = config(&[("grants", &settings)], folder.path())
            .replace("ISSUER", "http://127.0.0.1:9/")
            .replace("ECHO", "http://127.0.0.1:9");
        write("gateway.toml", &file);
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(
            said.code,
            Some(2),
            "{settings}: {}{}",
            said.stdout,
            said.stderr
        );
        assert_eq!(
            said.stderr.matches("error: ").count(),
            1,
            "{settings}: {}",
            said.stderr
        );
        for part in [message, hint] {
            assert!(
                said.stderr.contains(part),
                "{settings}: no {part:?} in {}",
                said.stderr
            );
        }
        let line = file
            .lines()
            .position(|line| line.starts_with("internal_jwt"))
            .expect("a line");
        let text = file.lines().nth(line).expect("a line");
        let column = text.rfind(at).expect("a column") + 1;
        let place = format!("gateway.toml:{}:{column}\n", line + 1);
        assert!(
            said.stderr.contains(&place),
            "{settings}: not at {place} {}",
            said.stderr
        );
        let secret = good.lines().nth(1).expect("base64");
        assert!(!said.stderr.contains(secret), "{settings}: the key");
    }
}

#[tokio::test]
async fn explain_tells_of_it_without_the_token() {
    let signing = Signing::on(&[("grants", GRANTS), ("public", PUBLIC)]).await;
    let world = &signing.world;
    let explained = async |path: &str, token: Option<String>| {
        let file = world.gateway.file();
        let mut arguments = vec!["explain", "-c", file.to_str().expect("UTF-8"), "GET", path];
        if token.is_some() {
            arguments.extend(["--token", "-"]);
        }
        let mut command = program(&arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().expect("started");
            let mut stdin = child.stdin.take().expect("piped");
            stdin
                .write_all(token.unwrap_or_default().as_bytes())
                .expect("written");
            drop(stdin);
            let output = child.wait_with_output().expect("ended");
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).expect("UTF-8")
        })
        .await
        .expect("no panic")
    };
    let kids = signing.kids().await;
    let text = explained("/grants/1", Some(world.auth.token())).await;
    for part in [
        "iss bonterra-gateway, aud grants",
        "`sub`, `scope`",
        "in 5 minutes",
        &kids[0],
        "authorization: Bearer ********",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(!text.contains("eyJ"), "{text}");
    let text = explained("/public/1", None).await;
    assert!(text.contains("no token goes upstream"), "{text}");
    assert!(!text.contains("authorization:"), "{text}");
    let text = explained(KEYS_PATH, None).await;
    assert!(
        text.contains("the public keys of its own tokens") && text.contains(&kids[1]),
        "{text}"
    );
}
