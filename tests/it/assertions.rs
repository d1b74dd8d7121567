//! Clients that prove themselves by a key of their own (`private_key_jwt`, RFC 7523): what they send
//! passes untouched, and is never used for anybody else.

use crate::harness::{CONFIG, Reply, World};
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, BACKEND_CLIENT, ClientKey};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const KIND: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// An issuer where one client has a key, and a gateway that reuses what it can.
struct Scene {
    world: World,
    key: ClientKey,
}

impl Scene {
    async fn start(algorithm: Algorithm) -> Self {
        let key = ClientKey::new(algorithm).expect("a key");
        let mut options = AuthOptions::default();
        let mut clients = options.clients.iter_mut();
        let client = clients.find(|client| client.id == BACKEND_CLIENT);
        let client = client.expect("a client");
        client.secret = None;
        client.key = Some(key.public());
        let grants = "issuer = \"bonterra\"\ngrants = [\"client_credentials\", \"refresh_token\", \"password\"]";
        let config = CONFIG.replace("issuer = \"bonterra\"", grants);
        let config = format!("{config}\n[oauth.bonterra.cache]\nenabled = true\n");
        let world = World::of(options, &config).await;
        Self { world, key }
    }

    /// Good claims, with some changed; `null` removes one.
    fn assertion(&self, id: &str, changes: Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time");
        let now = now.as_secs();
        let mut claims = json!({
            "iss": BACKEND_CLIENT,
            "sub": BACKEND_CLIENT,
            "aud": self.world.auth.issuer(),
            "iat": now,
            "exp": now + 60,
            "jti": id,
        });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        let claims = claims.as_object_mut().expect("an object");
        claims.retain(|_, value| !value.is_null());
        self.key.sign(&json!(claims)).expect("a signature")
    }

    async fn send(&self, assertion: &str, fields: &[(&str, &str)]) -> Reply {
        let proof = [
            ("client_assertion_type", KIND),
            ("client_assertion", assertion),
        ];
        let fields = [fields, &proof].concat();
        self.world.post("/oauth/token").form(&fields).send().await
    }

    fn asked(&self) -> u64 {
        self.world.auth.counts().token
    }
}

const MACHINE: [(&str, &str); 1] = [("grant_type", "client_credentials")];

#[tokio::test]
async fn it_passes_untouched_and_once() {
    for algorithm in [Algorithm::ES256, Algorithm::RS256] {
        let scene = Scene::start(algorithm).await;
        let first = scene.assertion("1", json!({}));
        let reply = scene.send(&first, &MACHINE).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        let seen = scene.world.auth.last_token_request().expect("a request");
        let sent: Vec<_> = seen.form().into_iter().map(|(_, value)| value).collect();
        assert_eq!(sent, ["client_credentials", KIND, &first]);
        assert_eq!(seen.header("authorization"), None);

        let replayed = scene.send(&first, &MACHINE).await;
        assert_eq!(replayed.status, 401, "{}", replayed.text());
        assert_eq!(replayed.json()["error"], "invalid_client");
        assert_eq!(scene.asked(), 2, "the issuer's to refuse, not from a cache");

        // Nor is a good one answered from it, with the client's id beside it or not.
        let mut tokens = vec![reply.json()["access_token"].clone()];
        for (id, fields) in [
            ("2", MACHINE.to_vec()),
            ("3", [MACHINE[0], ("client_id", BACKEND_CLIENT)].to_vec()),
        ] {
            let reply = scene.send(&scene.assertion(id, json!({})), &fields).await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            tokens.push(reply.json()["access_token"].clone());
        }
        assert_eq!(scene.asked(), 4);
        for token in &tokens {
            let token = token.as_str().expect("a token");
            let reply = scene.world.get("/scoped/1").bearer(token).send().await;
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let reused = "gateway_oauth_requests_total{endpoint=\"token\",grant=\"client_credentials\",outcome=\"reused\",surface=\"bonterra\"}";
        assert_eq!(scene.world.gateway.metric(reused).await, 0.0);
    }
}

#[tokio::test]
async fn refreshes_are_never_shared_by_it() {
    let scene = Scene::start(Algorithm::ES256).await;
    let user = [
        ("grant_type", "password"),
        ("username", "user@example.com"),
        ("password", "demo"),
        ("scope", "openid offline_access"),
    ];
    let reply = scene.send(&scene.assertion("1", json!({})), &user).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let token = reply.json()["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*token)];
    let proof = scene.assertion("2", json!({}));
    let first = scene.send(&proof, &refresh).await;
    assert_eq!(first.status, 200, "{}", first.text());
    // The very same request: the assertion is spent, and nothing is known of it here.
    let replayed = scene.send(&proof, &refresh).await;
    assert_eq!(replayed.status, 401, "{}", replayed.text());
    assert_eq!(scene.asked(), 3);
    let next = first.json()["refresh_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    let refresh = [("grant_type", "refresh_token"), ("refresh_token", &*next)];
    let reply = scene.send(&scene.assertion("3", json!({})), &refresh).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[tokio::test]
async fn the_issuer_refuses_what_is_no_proof() {
    let scene = Scene::start(Algorithm::ES256).await;
    let stranger = ClientKey::new(Algorithm::ES256).expect("a key");
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .as_secs();
    let issuer = scene.world.auth.issuer().to_owned();
    for (case, changes) in [
        (
            "without the slash",
            json!({"aud": issuer.trim_end_matches('/')}),
        ),
        ("for another", json!({"aud": ["https://other.example/"]})),
        ("of another", json!({"iss": "demo-client"})),
        ("over", json!({"exp": now - 1})),
        ("too long", json!({"exp": now + 600})),
        ("without end", json!({"exp": null})),
        ("from tomorrow", json!({"nbf": now + 60})),
        ("without an id", json!({"jti": null})),
        ("of nobody", json!({"sub": null})),
        (
            "of a client with a secret",
            json!({"iss": "demo-client", "sub": "demo-client"}),
        ),
    ] {
        let before = scene.asked();
        let reply = scene.send(&scene.assertion(case, changes), &MACHINE).await;
        assert_eq!(reply.status, 401, "{case}: {}", reply.text());
        assert_eq!(scene.asked(), before + 1, "{case}");
    }
    let good = scene.assertion("good", json!({"aud": ["x", issuer]}));
    let claims = json!({
        "iss": BACKEND_CLIENT, "sub": BACKEND_CLIENT, "aud": issuer, "exp": now + 60, "jti": "x",
    });
    let forged = stranger.sign(&claims).expect("a signature");
    assert_eq!(scene.send(&forged, &MACHINE).await.status, 401, "forged");
    // A client with a key has no other way in.
    let named = [
        MACHINE[0],
        ("client_id", BACKEND_CLIENT),
        ("client_secret", "backend-secret"),
    ];
    let reply = scene.world.post("/oauth/token").form(&named).send().await;
    assert_eq!(reply.status, 401, "{}", reply.text());
    let reply = scene.send(&good, &MACHINE).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
}
