//! Handles in Redis: shared by gateways, unreadable to all others, and gone with it.

use super::*;
use crate::harness::program::{self, GatewayProcess};
use crate::harness::{RedisServer, eventually};
use redis::aio::MultiplexedConnection;
use tempfile::TempDir;

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "AQECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// Redis, an issuer, an upstream, and two gateways that share it.
struct Lab {
    redis: RedisServer,
    world: World,
    other: Gateway,
    folder: TempDir,
}

fn key_file(folder: &TempDir, name: &str, key: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, format!("{key}\n")).expect("written");
    path.display().to_string()
}

impl Lab {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(settings: &str) -> Self {
        Self::of(AuthOptions::default(), settings, "").await
    }

    /// With another issuer, and more in `[store]`.
    async fn of(options: AuthOptions, settings: &str, more: &str) -> Self {
        let redis = RedisServer::start(&[]).await;
        let folder = TempDir::new().expect("a folder");
        let store = format!(
            "\n[store]\nurl = \"redis://{}\"\ntimeout = \"2s\"\nencryption_key_file = \"{}\"\n{more}\n",
            redis.address,
            key_file(&folder, "key", KEY)
        );
        let world = World::of(options, &format!("{}{store}", config_with(settings))).await;
        let lab = Self {
            other: Gateway::start(&std::fs::read_to_string(world.gateway.file()).expect("a file"))
                .await,
            redis,
            world,
            folder,
        };
        lab.other.app.ready().await;
        for gateway in [&lab.world.gateway, &lab.other] {
            assert_up(gateway, 1.0).await;
        }
        lab
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.world.gateway.file()).expect("the file")
    }

    fn one(&self) -> SocketAddr {
        self.world.gateway.address
    }

    fn other(&self) -> SocketAddr {
        self.other.address
    }
}

async fn assert_up(gateway: &Gateway, up: f64) {
    eventually("the state of the store", || async {
        let text = gateway.admin("GET", "/metrics").await.text();
        text.contains(&format!("gateway_store_up {up}\n"))
    })
    .await;
}

async fn keys(connection: &mut MultiplexedConnection) -> Vec<String> {
    let mut keys = redis::cmd("KEYS");
    keys.arg("*").query_async(connection).await.expect("keys")
}

async fn value(connection: &mut MultiplexedConnection, key: &str) -> Vec<u8> {
    let mut get = redis::cmd("GET");
    get.arg(key).query_async(connection).await.expect("a value")
}

async fn set(connection: &mut MultiplexedConnection, key: &str, value: &[u8]) {
    let mut set = redis::cmd("SET");
    let done: () = set
        .arg(key)
        .arg(value)
        .query_async(connection)
        .await
        .expect("set");
    done
}

#[tokio::test]
async fn a_handle_of_one_gateway_is_good_at_the_other() {
    let lab = Lab::start().await;
    let first = user(&lab.world, lab.one()).await;
    assert_good(lab.other(), &first.access).await;
    let second = Handles::of(&refreshing(lab.other(), first.refresh()).send().await);
    assert_good(lab.one(), &second.access).await;
    let third = Handles::of(&refreshing(lab.one(), second.refresh()).send().await);
    // What has been replaced at one is refused at the other within a second.
    let begun = std::time::Instant::now();
    eventually("the old handle is dead", || async {
        call(lab.other(), &second.access).await.status == 401
    })
    .await;
    assert!(begun.elapsed() < Duration::from_secs(1));
    for gateway in [lab.one(), lab.other()] {
        assert_good(gateway, &third.access).await;
        assert_dead(gateway, &first.access).await;
    }
    assert_no_handle_upstream(&lab.world);
}

#[tokio::test]
async fn equal_refreshes_at_two_gateways_ask_the_issuer_once() {
    let lab = Lab::start().await;
    let first = user(&lab.world, lab.one()).await;
    let slow = bonterra_gateway::demo::auth::Fault::Slow(Duration::from_millis(200));
    let endpoint = bonterra_gateway::demo::auth::Endpoint::Token;
    lab.world.auth.set_fault_for(endpoint, slow, 1);
    let before = lab.world.auth.counts().token;
    let gateways = [lab.one(), lab.other()];
    let asked = gateways.iter().cycle().take(10);
    let asked = asked.map(|gateway| async { refreshing(*gateway, first.refresh()).send().await });
    let replies = futures_util::future::join_all(asked).await;
    for reply in &replies {
        assert_eq!(reply.body, replies[0].body, "{}", reply.text());
    }
    assert_eq!(lab.world.auth.counts().token, before + 1);
    let second = Handles::of(&replies[0]);
    assert_good(lab.other(), &second.access).await;
}

#[tokio::test]
async fn redis_holds_nothing_that_can_be_read() {
    let lab = Lab::with("lifetime = \"100h\"").await;
    let first = backend_user(&lab.world).await;
    let asked = refreshing_backend(lab.one(), first.refresh(), &backend());
    let second = Handles::of(&asked.send().await);
    assert_good(lab.one(), &second.access).await;
    let seen = lab.world.echo.seen();
    let inside = seen.last().expect("seen").headers["authorization"].clone();
    let inside = inside.to_str().expect("text").trim_start_matches("Bearer ");
    let mut connection = lab.redis.connection().await;
    let keys: Vec<String> = keys(&mut connection).await;
    // Those of revocations are of another kind, and looked at elsewhere.
    let ours = keys
        .iter()
        .filter(|key| key.starts_with("bonterra-gateway:sealed:1:"));
    let ours: Vec<_> = ours.collect();
    assert!(!ours.is_empty(), "{keys:?}");
    let mut all = Vec::new();
    for key in ours {
        let life: i64 = redis::cmd("PTTL")
            .arg(key)
            .query_async(&mut connection)
            .await
            .expect("a life");
        assert!(life > 0, "{key} has an end");
        all.extend_from_slice(key.as_bytes());
        all.extend(value(&mut connection, key).await);
    }
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(&text[7..]).expect("a handle");
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for handles in [&first, &second] {
        for text in [&handles.access, handles.refresh()] {
            secrets.push(text.as_bytes()[7..].to_vec());
            secrets.push(decoded(text)[16..48].to_vec());
            secrets.push(decoded(text)[..16].to_vec());
        }
    }
    for part in inside.split('.') {
        secrets.push(part.as_bytes().to_vec());
    }
    for text in [
        "eyJhbGciOi",
        "eyJpc3MiOi",
        "v1.",
        "bgw_",
        "auth0",
        BACKEND_CLIENT,
        BACKEND_SECRET,
        "read:grants",
        &KEY[..20],
    ] {
        secrets.push(text.as_bytes().to_vec());
    }
    for secret in secrets {
        let found = all.windows(secret.len()).any(|part| part == secret);
        assert!(!found, "{:?}", String::from_utf8_lossy(&secret));
    }
}

#[tokio::test]
async fn without_redis_nothing_is_known_and_nothing_is_given() {
    let mut lab = Lab::start().await;
    let handles = user(&lab.world, lab.one()).await;
    let machine_before = machine(lab.one()).await;
    assert_good(lab.one(), &handles.access).await;
    lab.redis.kill();
    // Known for a moment only.
    eventually("the store is away", || async {
        call(lab.one(), &handles.access).await.status == 503
    })
    .await;
    let asked = lab.world.auth.counts();
    let upstream = lab.world.echo.seen().len();
    assert_reason(lab.one(), &handles.access, 503, "store_unavailable").await;
    assert_reason(
        lab.other(),
        &machine_before.access,
        503,
        "store_unavailable",
    )
    .await;
    assert_eq!(
        call(lab.one(), &handles.access).await.header("retry-after"),
        Some("1")
    );
    let refused = [
        refreshing(lab.one(), handles.refresh()).send().await,
        lab.world.post(TOKEN).form(&MACHINE).send().await,
        lab.world
            .get("/oauth20/userinfo")
            .bearer(&handles.access)
            .send()
            .await,
    ];
    for reply in &refused {
        assert_error(reply, 503, "temporarily_unavailable");
        assert!(reply.header("retry-after").is_some());
    }
    assert_eq!(lab.world.auth.counts(), asked, "the issuer is not asked");
    assert_eq!(lab.world.echo.seen().len(), upstream);
    // Tokens go on meanwhile.
    assert_good(lab.one(), &lab.world.auth.token()).await;
    // What made-up text stands for is known without a look.
    assert_dead(lab.one(), "bgw_at_x").await;
    lab.redis.again().await;
    for gateway in [&lab.world.gateway, &lab.other] {
        assert_up(gateway, 1.0).await;
    }
    for gateway in [lab.one(), lab.other()] {
        assert_dead(gateway, &handles.access).await;
    }
    let reply = refreshing(lab.one(), handles.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    let anew = machine(lab.one()).await;
    assert_good(lab.other(), &anew.access).await;
    assert_log_is_clean(&lab.world.gateway);
}

#[tokio::test]
async fn another_key_opens_nothing() {
    let lab = Lab::start().await;
    let handles = user(&lab.world, lab.one()).await;
    let (own, path) = (
        lab.folder.path().join("key").display().to_string(),
        key_file(&lab.folder, "other", OTHER_KEY),
    );
    let process = GatewayProcess::start(&lab.file().replace(&own, &path)).await;
    eventually("ready", || async {
        call(process.address, &lab.world.auth.token()).await.status == 200
    })
    .await;
    assert_dead(process.address, &handles.access).await;
    let reply = refreshing(process.address, handles.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
    assert_good(lab.one(), &handles.access).await;
    let said = || process.running.stdout.text() + &process.running.stderr.text();
    // The answer may be here before the record of it.
    eventually("the record", async || {
        said().contains("another encryption_key_file")
    })
    .await;
    let text = said();
    for secret in ["bgw_at_", "bgw_rt_", "eyJ", "v1.", OTHER_KEY] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[tokio::test]
async fn records_that_were_changed_are_none() {
    let lab = Lab::start().await;
    let mut connection = lab.redis.connection().await;
    let (one, other) = (machine(lab.one()).await, machine(lab.one()).await);
    let keys: Vec<String> = keys(&mut connection).await;
    let keys: Vec<_> = keys.iter().filter(|key| key.contains(":sealed:")).collect();
    assert_eq!(keys.len(), 2);
    let first = value(&mut connection, keys[0]).await;
    let second = value(&mut connection, keys[1]).await;
    let bent = |at: usize| {
        let mut bytes = first.clone();
        bytes[at] ^= 1;
        bytes
    };
    let upstream = lab.world.echo.seen().len();
    for wrong in [
        Vec::new(),
        b"garbage".to_vec(),
        vec![0; 100],
        bent(0),
        bent(20),
        bent(first.len() - 1),
        first[..first.len() - 1].to_vec(),
        second.clone(),
    ] {
        for key in &keys {
            set(&mut connection, key, &wrong).await;
        }
        let statuses = [
            call(lab.other(), &one.access).await.status,
            call(lab.other(), &other.access).await.status,
        ];
        // The second record may have been put where it belongs.
        let own = statuses.iter().filter(|status| **status == 200).count();
        assert!(own <= usize::from(wrong == second), "{statuses:?}");
        assert!(statuses.iter().all(|status| [200, 401].contains(status)));
        tokio::time::sleep(Duration::from_millis(600)).await;
    }
    assert!(lab.world.echo.seen().len() <= upstream + 1);
    // Something of another kind says nothing of Redis.
    let mut push = redis::cmd("DEL");
    let _: () = push
        .arg(keys[0])
        .query_async(&mut connection)
        .await
        .expect("done");
    let mut push = redis::cmd("LPUSH");
    let _: () = push
        .arg(keys[0])
        .arg("x")
        .query_async(&mut connection)
        .await
        .expect("done");
    let mut refused = 0;
    for handles in [&one, &other] {
        let status = call(lab.other(), &handles.access).await.status;
        assert!([200, 401].contains(&status), "{status}");
        refused += usize::from(status == 401);
    }
    assert!(refused >= 1);
    assert_up(&lab.other, 1.0).await;
    // Put back, it is as it was.
    let mut del = redis::cmd("DEL");
    let _: () = del
        .arg(keys[0])
        .query_async(&mut connection)
        .await
        .expect("done");
    set(&mut connection, keys[0], &first).await;
    set(&mut connection, keys[1], &second).await;
    for handles in [&one, &other] {
        assert_good(lab.other(), &handles.access).await;
    }
}

#[tokio::test]
async fn logs_tell_no_secret_at_any_level() {
    let lab = Lab::start().await;
    let config = format!("{}\n[log]\nlevel = \"trace\"\n", lab.file());
    let process = GatewayProcess::start(&config).await;
    eventually("ready", || async {
        call(process.address, &lab.world.auth.token()).await.status == 200
    })
    .await;
    let first = user(&lab.world, process.address).await;
    let second = Handles::of(&refreshing(process.address, first.refresh()).send().await);
    assert_good(process.address, &second.access).await;
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let reply = refreshing(process.address, first.refresh()).send().await;
    if reply.status == 200 {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        refreshing(process.address, first.refresh()).send().await;
    }
    assert_dead(process.address, &second.access).await;
    process.logged("a refresh handle was used again").await;
    let text = process.running.stdout.text() + &process.running.stderr.text();
    let metrics = request(process.admin, "GET", "/metrics")
        .send()
        .await
        .text();
    for secret in ["bgw_at_", "bgw_rt_", "eyJhbGciOiJ", "v1.", KEY, VERIFIER] {
        assert!(!text.contains(secret), "{secret} in {text}");
        assert!(!metrics.contains(secret), "{secret}");
    }
}

/// Whoever was sending the issuer's refresh token is gone, and nobody knows how far it came.
#[tokio::test]
async fn what_a_gateway_was_sending_when_it_ended_is_not_sent_again_by_another() {
    let lab = Lab::of(living(1000), "lifetime = \"10h\"", "").await;
    let process = GatewayProcess::start(&lab.file()).await;
    let handles = user(&lab.world, lab.one()).await;
    eventually("ready", || async {
        call(process.address, &handles.access).await.status == 200
    })
    .await;
    let asked = lab.world.auth.counts().token;
    let hang = bonterra_gateway::demo::auth::Fault::Hang;
    let endpoint = bonterra_gateway::demo::auth::Endpoint::Token;
    lab.world.auth.set_fault_for(endpoint, hang, 1);
    let refresh = refreshing(process.address, handles.refresh());
    let waiting = tokio::spawn(async move { refresh.try_send().await.is_ok() });
    eventually("the issuer is asked", || async {
        lab.world.auth.counts().token == asked + 1
    })
    .await;
    drop(process);
    let _ = waiting.await;
    advance(&lab.world.gateway.app, 1080);
    assert_reason(lab.one(), &handles.access, 401, "expired").await;
    assert_eq!(lab.world.auth.counts().token, asked + 1);
}

/// What `explain` says of a handle.
async fn explained(lab: &Lab, handle: &str) -> String {
    let file = lab.world.gateway.file();
    let file = file.to_str().expect("UTF-8");
    let question = ["explain", "-c", file, "GET", "http://a/optional/1"];
    let question = [&question[..], &["--token", handle]].concat();
    let said = program::call(lab.folder.path(), &question).await;
    let text = said.stdout + &said.stderr;
    for secret in ["bgw_", "eyJ", "v1."] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    text
}

#[tokio::test]
async fn a_handle_is_explained_as_it_is_served() {
    let lab = Lab::start().await;
    let handles = user(&lab.world, lab.one()).await;
    let text = explained(&lab, &handles.access).await;
    assert!(text.contains("auth0|507f1f77bcf86cd799439011"), "{text}");
    let text = explained(&lab, handles.refresh()).await;
    assert!(text.contains("inactive_token"), "{text}");
}

/// A question about a request spends no refresh token: who asks it may be gone before the answer.
#[tokio::test]
async fn explaining_renews_nothing() {
    let lab = Lab::of(living(1), "lifetime = \"1h\"", "").await;
    let handles = user(&lab.world, lab.one()).await;
    // For the program time goes as it does.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let asked = lab.world.auth.counts().token;
    let text = explained(&lab, &handles.access).await;
    assert!(text.contains("optional"), "{text}");
    assert_eq!(lab.world.auth.counts().token, asked, "{text}");
}

/// The token inside cannot be revoked for all; nobody but the gateway knew the issuer's refresh token, so that is
/// ended while it is known.
#[tokio::test]
async fn a_revocation_that_others_do_not_hear_of_still_reaches_the_issuer() {
    let lab = Lab::of(AuthOptions::default(), "", "on_failure = \"closed\"").await;
    let handles = user(&lab.world, lab.one()).await;
    let mut connection = lab.redis.connection().await;
    // Redis keeps handles still, and hears of no revocation.
    let mut withdrawn = redis::cmd("ACL");
    withdrawn.arg(&["SETUSER", "default", "resetkeys"]);
    withdrawn.arg(&["~bonterra-gateway:sealed:*", "~bonterra-gateway:rate:*"]);
    let _: () = withdrawn.query_async(&mut connection).await.expect("done");
    let form = [("token", handles.refresh()), ("client_id", WEB_CLIENT)];
    let reply = lab.world.post("/oauth20/revoke").form(&form).send().await;
    assert_eq!(reply.status, 503, "{}", reply.text());
    assert_eq!(lab.world.auth.counts().revoke, 1);
}
