//! The file as it is written, and everything that may be wrong with it when it is read.

use super::*;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use std::sync::mpsc;
use std::time::Duration;
use tempfile::TempDir;

const ISSUER: &str = "https://auth.bonterra.network/";
const NOW: UnixSeconds = 1_800_000_000;
const POLICY: KeyPolicy = KeyPolicy {
    ttl: Duration::from_secs(600),
    min_ttl: Duration::from_secs(60),
    max_ttl: Duration::from_secs(1200),
    max_stale: Duration::from_secs(3600),
    cooldown: Duration::ZERO,
    patience: Duration::from_millis(20),
};

struct Scene {
    folder: TempDir,
    file: CacheFile,
    jwk: Value,
}

impl Scene {
    fn new() -> Self {
        let folder = TempDir::new().expect("a folder");
        let file = CacheFile::new(folder.path().join("keys.json"), ISSUER);
        let pair = Ed25519KeyPair::generate().expect("a key");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": x });
        Self { folder, file, jwk }
    }

    fn keys(&self) -> KeySet {
        let document = json!({ "keys": [self.jwk] }).to_string();
        let mut set = jwks::parse(document.as_bytes(), NOW).expect("a key").set;
        set.fresh_until = NOW + 600;
        set
    }

    fn document(&self) -> Value {
        json!({ "issuer": ISSUER, "fetched_at": NOW, "keys": [self.jwk] })
    }

    /// Puts a file there that only its owner may write.
    fn put(&self, text: impl AsRef<[u8]>) {
        fs::write(self.file.path(), text).expect("written");
        self.mode(0o600);
    }

    fn mode(&self, mode: u32) {
        fs::set_permissions(self.file.path(), Permissions::from_mode(mode)).expect("set");
    }

    fn read(&self) -> Result<Option<jwks::Parsed>, String> {
        self.file.read(NOW, &POLICY)
    }

    fn assert_refused(&self, remark: &str) {
        let why = self.read().expect_err(remark);
        assert!(why.contains(remark), "{remark}: {why}");
    }
}

#[test]
fn what_was_written_is_read_with_its_own_time() {
    let scene = Scene::new();
    assert!(scene.read().expect("no error").is_none(), "no file yet");
    for round in 0..2 {
        scene.file.write(&scene.keys()).expect("written");
        let mode = fs::metadata(scene.file.path()).expect("a file").mode();
        assert_eq!(mode & 0o7777, 0o600, "{round}");
        let later = NOW + 600 + 3600;
        let read = scene
            .file
            .read(later, &POLICY)
            .expect("fine")
            .expect("a file");
        let times = (read.set.fetched_at, read.set.fresh_until);
        assert_eq!((read.set.len(), times), (1, (NOW, NOW + 600)));
        assert!(read.set.find("a").is_some() && read.dropped.is_empty());
    }
    let names: Vec<_> = fs::read_dir(scene.folder.path())
        .expect("a folder")
        .collect();
    assert_eq!(names.len(), 1, "nothing is left over");
}

#[test]
fn a_file_that_others_may_have_written_is_refused() {
    let scene = Scene::new();
    scene.put(scene.document().to_string());
    assert!(scene.read().is_ok());
    for mode in [0o620, 0o602, 0o666, 0o777] {
        scene.mode(mode);
        scene.assert_refused(&format!("mode is {mode:o}"));
    }
    for mode in [0o600, 0o644, 0o400] {
        scene.mode(mode);
        assert!(scene.read().is_ok(), "{mode:o}");
    }
}

/// Only root can give a file away; run by anybody else this shows nothing.
#[test]
fn a_file_of_another_user_is_refused() {
    let scene = Scene::new();
    scene.put(scene.document().to_string());
    if std::os::unix::fs::chown(scene.file.path(), Some(4711), None).is_ok() {
        scene.assert_refused("belongs to user 4711");
    }
}

#[test]
fn a_file_that_is_not_ours_or_not_whole_is_refused() {
    let scene = Scene::new();
    let good = scene.document();
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed.to_string()
    };
    let whole = good.to_string();
    for (text, remark) in [
        (String::new(), "no JSON object"),
        ("<html>".to_owned(), "no JSON object"),
        (whole[..whole.len() / 2].to_owned(), "no JSON object"),
        (format!("{whole}x"), "no JSON object"),
        (
            format!("{{\"issuer\":\"x\",{}", &whole[1..]),
            "a member twice",
        ),
        (
            with("issuer", json!("https://auth.bonterra.network")),
            "another issuer",
        ),
        (with("issuer", json!(1)), "another issuer"),
        (with("fetched_at", json!("soon")), "does not say when"),
        (with("fetched_at", json!(1.5)), "does not say when"),
        (with("fetched_at", json!(NOW + 61)), "61s from now"),
        (with("fetched_at", json!(i64::MIN)), "longer than max_stale"),
        (
            with("fetched_at", json!(NOW - 3661)),
            "stale for 3601s, longer than max_stale (3600s)",
        ),
        (with("fresh_until", json!("soon")), "until when"),
        (with("fresh_until", json!(null)), "until when"),
        (
            with("fresh_until", json!(NOW - 3601)),
            "stale for 3601s, longer than max_stale (3600s)",
        ),
        (with("keys", json!([])), "none of its 0 keys"),
        (with("keys", json!("none")), "no array `keys`"),
        (
            with("keys", json!([{ "kty": "oct", "k": "c2VjcmV0" }])),
            "none of its 1 keys",
        ),
        (
            with("note", json!("x".repeat(1 << 20))),
            "larger than 1048576",
        ),
    ] {
        scene.put(text);
        scene.assert_refused(remark);
    }
    // Without `fresh_until`, which earlier versions did not write, they were fresh for min_ttl.
    for fine in [NOW + 60, NOW, NOW - 3660] {
        scene.put(with("fetched_at", json!(fine)));
        assert!(scene.read().is_ok(), "{fine}");
    }
    let mixed = with(
        "keys",
        json!([{ "kty": "oct", "k": "c2VjcmV0" }, scene.jwk]),
    );
    scene.put(mixed);
    let read = scene.read().expect("fine").expect("a file");
    assert_eq!(
        (read.set.len(), read.dropped.len()),
        (1, 1),
        "the same filter"
    );
}

/// Nobody can make keys last by writing a time into the file: `max_ttl` is the limit here as well.
#[test]
fn keys_are_no_longer_fresh_than_max_ttl_lets_them_be() {
    let scene = Scene::new();
    for (age, good) in [(1200 + 3600, true), (1200 + 3601, false)] {
        let mut document = scene.document();
        document["fetched_at"] = json!(NOW - age);
        document["fresh_until"] = json!(i64::MAX);
        scene.put(document.to_string());
        assert_eq!(scene.read().is_ok(), good, "{age}");
    }
}

/// Root may write everywhere; run by it this shows only half.
#[test]
fn a_folder_that_cannot_be_written_costs_nothing_but_the_writing() {
    let scene = Scene::new();
    scene.put(scene.document().to_string());
    let folder = scene.folder.path();
    fs::set_permissions(folder, Permissions::from_mode(0o500)).expect("set");
    assert!(scene.read().expect("readable").is_some());
    assert_eq!(
        own_user(),
        fs::metadata(scene.file.path()).ok().map(|file| file.uid())
    );
    fs::set_permissions(folder, Permissions::from_mode(0o700)).expect("set");
}

/// Stands for a disk that does not answer: the one thread that may wait for it waits already.
#[test]
fn a_dead_disk_does_not_hold_up_the_first_fetch() {
    let scene = Scene::new();
    scene.put(scene.document().to_string());
    let store = KeyStore::new(POLICY);
    let keeper = Keeper::new("bonterra".into(), Some(scene.file.clone()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime");
    let (alive, disk) = mpsc::sync_channel::<()>(1);
    runtime.block_on(async {
        let waiting = spawn_blocking(move || disk.recv());
        let recalled = timeout(Duration::from_secs(20), keeper.recall(&store, NOW));
        assert!(recalled.await.expect("an end to it").is_none() && store.is_empty());
        drop(alive);
        assert!(waiting.await.expect("no panic").is_err());
        let recalled = keeper.recall(&store, NOW).await;
        assert!(recalled.is_some() && !store.is_empty(), "the disk is back");
    });
}

#[test]
fn a_folder_in_its_place_is_an_error() {
    let scene = Scene::new();
    fs::create_dir(scene.file.path()).expect("made");
    scene.assert_refused("no regular file");
    assert!(scene.file.write(&scene.keys()).is_err());
    let gone = CacheFile::new(scene.folder.path().join("gone/keys.json"), ISSUER);
    assert!(gone.write(&scene.keys()).is_err());
    assert_eq!(folder_of(Path::new("keys.json")), Path::new("."));
}
