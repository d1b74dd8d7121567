//! What deciding about a request costs: a token seen before, one never seen, and refusals.

use aws_lc_rs::rsa::PublicKeyComponents as RsaPublicKeyComponents;
use aws_lc_rs::signature::{ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::app;
use bonterra_gateway::config;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::gateway::{Decision, admit};
use bonterra_gateway::identity::{TokenDigest, unix_now};
use bonterra_gateway::keys::jwks;
use bonterra_gateway::request::{RequestView, TrustedProxies};
use bonterra_gateway::snapshot::{Snapshot, compile};
use bonterra_gateway::steps::Untold;
use bonterra_gateway::store::Revocation;
use criterion::{Criterion, criterion_group, criterion_main};
use http::Request;
use http::request::Parts;
use serde_json::json;
use std::hint::black_box;
use std::net::SocketAddr;

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A cache that is full soon: what a token costs that pushes another one out, not what it costs to
/// have memory from the kernel for the first time.
const CONFIG: &str = r#"
[token_cache]
max_bytes = "4MiB"
max_entries = 1000

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.grants]
servers = ["http://127.0.0.1:9000"]

[[route]]
name = "grants"
path = "/grants/*"
upstream = "grants"
scopes = ["read:grants"]
"#;

/// Tokens that are new in turns.
const POOL: u64 = 4000;

/// An issuer whose keys the snapshot has, without a socket in between.
struct Scene {
    runtime: tokio::runtime::Runtime,
    auth: BonterraAuth,
    snapshot: Snapshot,
}

impl Scene {
    fn set() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let auth = runtime
            .block_on(BonterraAuth::start(AuthOptions::default()))
            .expect("an issuer");
        let parsed = config::parse("bench.toml", &CONFIG.replace("ISSUER", auth.issuer()));
        let snapshot = compile(parsed, &app::environment().expect("metrics")).expect("no mistakes");
        for issuer in snapshot.issuers.iter() {
            issuer.keys.replace(
                jwks::parse(auth.jwks().to_string().as_bytes(), unix_now())
                    .expect("keys")
                    .set,
            );
        }
        Self {
            runtime,
            auth,
            snapshot,
        }
    }

    fn token(&self, number: u64) -> String {
        let mut claims = self.auth.claims();
        claims["jti"] = json!(number.to_string());
        self.auth.mint(&claims)
    }

    /// Whether the request is admitted.
    fn admits(&self, head: &Parts) -> bool {
        let trusted = TrustedProxies::default();
        let peer = trusted.peer(SocketAddr::from(([127, 0, 0, 1], 4711)));
        let view = RequestView::new(head, peer, &trusted).expect("a plain request");
        matches!(
            admit(&self.snapshot, &view, unix_now(), &mut Untold),
            Decision::Admitted(_)
        )
    }
}

fn head(token: Option<&str>) -> Parts {
    let mut request = Request::get("/grants/4711?page=2").header("host", "api.bonterra.network");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(()).expect("a request").into_parts().0
}

/// The issuer's key as the cryptographic library takes it, without anything of the gateway.
fn bare_key(auth: &BonterraAuth) -> ParsedPublicKey {
    let jwk = auth.jwks()["keys"][0].clone();
    let part = |name: &str| {
        let text = jwk[name].as_str().expect("a text");
        URL_SAFE_NO_PAD.decode(text).expect("base64url")
    };
    RsaPublicKeyComponents {
        n: part("n"),
        e: part("e"),
    }
    .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
    .expect("a key")
}

fn benches(criterion: &mut Criterion) {
    let scene = Scene::set();
    let mut group = criterion.benchmark_group("admit");

    let known = head(Some(&scene.token(0)));
    assert!(scene.admits(&known));
    group.bench_function("known token", |bencher| {
        bencher.iter(|| scene.admits(black_box(&known)))
    });

    // More tokens than the cache holds, in turns: each is new again when its turn comes. They are
    // made beforehand, because signing would leave the processor's caches to somebody else.
    let tokens: Vec<String> = (1..=POOL).map(|number| scene.token(number)).collect();
    let heads: Vec<Parts> = tokens.iter().map(|token| head(Some(token))).collect();
    let mut turns = heads.iter().cycle();
    group.bench_function("new token", |bencher| {
        bencher.iter(|| assert!(scene.admits(black_box(turns.next().expect("endless")))));
    });

    // A hundred thousand others are revoked: each request looks itself up.
    for number in 0..100_000 {
        let revocation = Revocation::Token {
            content: TokenDigest::of(&number.to_string()),
            until: i64::MAX,
        };
        let revoked = scene.snapshot.tokens.store().revoke(revocation, 0);
        scene.runtime.block_on(revoked).expect("room");
    }
    assert!(scene.admits(&known));
    group.bench_function("known token, others revoked", |bencher| {
        bencher.iter(|| scene.admits(black_box(&known)))
    });
    scene.snapshot.tokens.store().denylist().sweep(i64::MAX);

    let missing = head(None);
    assert!(!scene.admits(&missing));
    group.bench_function("no token", |bencher| {
        bencher.iter(|| scene.admits(black_box(&missing)))
    });

    // The last character of a signature may carry spare bits; the first never does.
    let good = scene.token(0);
    let (signed, signature) = good.rsplit_once('.').expect("a signature");
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let forged = head(Some(&format!("{signed}.{first}{}", &signature[1..])));
    assert!(!scene.admits(&forged));
    group.bench_function("forged signature, remembered", |bencher| {
        bencher.iter(|| scene.admits(black_box(&forged)))
    });

    // What no gateway can save: the signature of a new token, with the key parsed beforehand. The
    // same tokens in the same turns.
    let key = bare_key(&scene.auth);
    let parts: Vec<(&str, Vec<u8>)> = tokens
        .iter()
        .map(|token| {
            let (signed, signature) = token.rsplit_once('.').expect("a signature");
            (
                signed,
                URL_SAFE_NO_PAD.decode(signature).expect("base64url"),
            )
        })
        .collect();
    let mut turns = parts.iter().cycle();
    group.bench_function("bare RSA verification", |bencher| {
        bencher.iter(|| {
            let (signed, signature) = turns.next().expect("endless");
            key.verify_sig(signed.as_bytes(), signature).expect("good");
        });
    });
    group.finish();
    drop(scene.runtime);
}

criterion_group!(all, benches);
criterion_main!(all);
