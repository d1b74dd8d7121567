//! The last good keys over a restart while the issuer is down, and files that are not to be trusted.

use crate::harness::{
    CONFIG, Gateway, assert_refused, eventually, local, nobody, request, with_lines, within,
};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use serde_json::{Value, json};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use tempfile::TempDir;

/// An issuer that comes and goes, and a folder that stays.
struct Scene {
    auth: BonterraAuth,
    echo: Echo,
    folder: TempDir,
}

impl Scene {
    async fn start() -> Self {
        let options = AuthOptions {
            listen: nobody(),
            ..AuthOptions::default()
        };
        Self {
            auth: BonterraAuth::start(options).await.expect("issuer"),
            echo: Echo::start(local()).await.expect("upstream"),
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("keys.json")
    }

    fn config(&self) -> String {
        let line = format!("cache_file = {:?}", self.file());
        with_lines(CONFIG, "[issuer.bonterra.jwks]", &line)
            .replace("ISSUER", self.auth.issuer())
            .replace("ECHO", &self.echo.url())
    }

    async fn gateway(&self) -> Gateway {
        Gateway::start(&self.config()).await
    }

    /// Runs a gateway until it has kept its keys.
    async fn warm(&self) -> Value {
        let gateway = self.gateway().await;
        within("ready", gateway.app.ready()).await;
        eventually("kept", async || self.file().exists()).await;
        gateway.app.stop().await;
        serde_json::from_slice(&fs::read(self.file()).expect("the file")).expect("JSON")
    }
}

#[tokio::test]
async fn a_restart_while_the_issuer_is_down_serves_with_the_keys_of_the_file() {
    let scene = Scene::start().await;
    let kept = scene.warm().await;
    let mode = fs::metadata(scene.file())
        .expect("the file")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(kept["issuer"], json!(scene.auth.issuer()));
    assert_eq!(kept["keys"].as_array().map(Vec::len), Some(2));

    let token = scene.auth.token();
    scene.auth.stop().await;
    let gateway = scene.gateway().await;
    within("ready", gateway.app.ready()).await;
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
    assert_eq!(gateway.app.keys(), [("bonterra".into(), Some(2))]);
    let grants = request(gateway.address, "GET", "/grants/1").bearer(&token);
    assert_eq!(grants.send().await.status, 200);
    let fetched = "gateway_jwks_last_success_timestamp_seconds{issuer=\"bonterra\"}";
    let at = kept["fetched_at"].as_i64().expect("a time");
    assert_eq!(
        gateway.metric(fetched).await,
        at as f64,
        "staleness counts on"
    );

    // A key that is not in the file cannot be judged, however good the token.
    scene.auth.rotate();
    scene.auth.rotate();
    let newer = request(gateway.address, "GET", "/grants/1")
        .bearer(&scene.auth.token())
        .send()
        .await;
    assert_refused(&gateway, &newer, 503, "keys_unavailable", "grants").await;
    let fresh_until = kept["fresh_until"].as_i64().expect("a time");
    assert!(fresh_until > at, "the issuer allows some seconds");
    let stale = fresh_until + 24 * 3600 - gateway.app.clock().now() + 1;
    gateway
        .app
        .clock()
        .advance(std::time::Duration::from_secs(stale.unsigned_abs()));
    let later = grants.send().await;
    assert_refused(&gateway, &later, 503, "keys_unavailable", "grants").await;
    assert!(later.header("retry-after").is_some());
    let seen = scene.echo.seen().len();
    assert_eq!(seen, 1, "what was refused went nowhere");
}

/// Each time: the gateway does not trust the file, says so, and takes up service by itself later.
#[tokio::test]
async fn a_file_that_is_not_to_be_trusted_is_not_used() {
    let scene = Scene::start().await;
    let kept = scene.warm().await;
    let with = |name: &str, value: Value| {
        let mut changed = kept.clone();
        changed[name] = value;
        changed.to_string()
    };
    let now = kept["fetched_at"].as_i64().expect("a time");
    let token = scene.auth.token();
    for (what, text, mode) in [
        ("writable by all", kept.to_string(), 0o666),
        ("writable by the group", kept.to_string(), 0o660),
        ("cut", kept.to_string()[..100].to_owned(), 0o600),
        (
            "another issuer's",
            with("issuer", json!("https://other.example/")),
            0o600,
        ),
        (
            "too old",
            with("fresh_until", json!(now - 25 * 3600)),
            0o600,
        ),
        (
            "from the future",
            with("fetched_at", json!(now + 3600)),
            0o600,
        ),
        ("without keys", with("keys", json!([])), 0o600),
    ] {
        scene.auth.stop().await;
        fs::write(scene.file(), text).expect("written");
        fs::set_permissions(scene.file(), Permissions::from_mode(mode)).expect("set");
        let before = fs::read(scene.file()).expect("the file");
        let gateway = scene.gateway().await;
        let errors = "gateway_jwks_fetches_total{issuer=\"bonterra\",result=\"error\"}";
        eventually("it has looked", async || gateway.metric(errors).await > 0.0).await;
        assert_eq!(gateway.admin("GET", "/readyz").await.status, 503, "{what}");
        let grants = request(gateway.address, "GET", "/grants/1").bearer(&token);
        let refused = grants.send().await;
        assert_refused(&gateway, &refused, 503, "keys_unavailable", "grants").await;
        assert!(scene.echo.seen().is_empty(), "{what}");
        assert_eq!(fs::read(scene.file()).expect("the file"), before, "{what}");

        scene.auth.restart().await.expect("the same port");
        within("ready", gateway.app.ready()).await;
        assert_eq!(grants.send().await.status, 200, "{what}");
        eventually("the file is good again", async || {
            fs::read(scene.file()).is_ok_and(|bytes| bytes != before)
                && fs::metadata(scene.file())
                    .is_ok_and(|file| file.permissions().mode() & 0o7777 == 0o600)
        })
        .await;
        gateway.app.end().await;
        scene.echo.forget();
    }
}

#[tokio::test]
async fn a_folder_that_is_gone_costs_the_file_and_nothing_else() {
    let scene = Scene::start().await;
    let config = scene.config().replace("keys.json", "sub/keys.json");
    let sub = scene.folder.path().join("sub");
    fs::create_dir(&sub).expect("made");
    let gateway = {
        let gateway = Gateway::start(&config).await;
        fs::remove_dir_all(&sub).expect("removed");
        gateway
    };
    within("ready", gateway.app.ready()).await;
    let token = scene.auth.token();
    let grants = request(gateway.address, "GET", "/grants/1").bearer(&token);
    assert_eq!(grants.send().await.status, 200);
    assert!(!sub.exists());
}

#[tokio::test]
async fn mistakes_in_cache_file_are_found_before_the_start() {
    let scene = Scene::start().await;
    let folder = scene.folder.path();
    let good = scene.config();
    let second = |file: &str| {
        format!(
            "{good}\n[issuer.other]\nurl = \"https://other.example/\"\naudiences = [\"a\"]\n[issuer.other.jwks]\ncache_file = {file:?}\n"
        )
    };
    let at = |name: &str| folder.join(name).display().to_string();
    for (config, said) in [
        (
            good.replace("keys.json", "none/keys.json"),
            "cannot be used",
        ),
        (good.replace("/keys.json", ""), "cache_file is a folder"),
        (
            second(&at("keys.json")),
            "[issuer.bonterra] keeps its keys in this file",
        ),
        (
            second(&at("./keys.json")),
            "[issuer.bonterra] keeps its keys in this file",
        ),
        (second(&at("other.json")), ""),
    ] {
        let path = folder.join("gateway.toml");
        fs::write(&path, &config).expect("written");
        let started = bonterra_gateway::app::App::start(path, std::io::sink()).await;
        match (started, said) {
            (Ok(app), "") => app.end().await,
            (Ok(_), said) => panic!("started in spite of: {said}"),
            (Err(error), said) => {
                let text = error.to_string();
                assert!(!said.is_empty() && text.contains(said), "{said}: {text}");
                assert!(text.contains("cache_file"), "its place: {text}");
            }
        }
    }
}
