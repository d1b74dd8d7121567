//! Unix sockets, for clients and for the admin listener.

use crate::harness::program::call;
use crate::harness::{CONFIG, Gateway, Raw, World, eventually, with_lines, within};
use bonterra_gateway::app::{App, StartError};
use serde_json::json;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

const SERVER: &str = "[server]";

fn config(path: &Path, lines: &str) -> String {
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", path.display());
    let config = CONFIG.replace("listen = [\"127.0.0.1:0\"]", &listen);
    with_lines(&config, SERVER, lines)
}

/// Sends a request on a connection of its own and reads all that comes.
async fn ask(path: &Path, target: &str, headers: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n{headers}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut text = String::new();
    within("a reply", stream.read_to_string(&mut text)).await?;
    Ok(text)
}

/// The first record of the access log.
async fn logged(world: &World) -> serde_json::Value {
    let log = &world.gateway.log;
    eventually("a record", async || !log.records().is_empty()).await;
    log.records().remove(0)
}

fn mode(path: &Path) -> u32 {
    let there = std::fs::symlink_metadata(path).expect("a socket");
    there.permissions().mode() & 0o777
}

/// As the gateway's own does not start, in words.
async fn why_not(folder: &TempDir, config: &str) -> StartError {
    let file = folder.path().join("second.toml");
    let config = config
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:1");
    std::fs::write(&file, config).expect("written");
    App::start(file, io::sink()).await.expect_err("no gateway")
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes_when_the_gateway_does() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let world = World::with(&config(&path, "")).await;
    assert_eq!(mode(&path), 0o660);
    let forged = "X-Forwarded-For: 203.0.113.9\r\n";
    let text = ask(&path, "/public/", forged).await.expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let record = logged(&world).await;
    assert_eq!(record["client"], json!("127.0.0.1"), "nobody is trusted");
    let gauge = format!(
        "gateway_connections{{listener=\"unix:{}\"}}",
        path.display()
    );
    let _open = UnixStream::connect(&path).await.expect("connected");
    eventually("it is counted", async || {
        world.gateway.metric(&gauge).await == 1.0
    })
    .await;
    within("the end", world.gateway.app.stop()).await;
    assert!(!path.exists());
}

#[tokio::test]
async fn who_comes_by_a_unix_socket_may_be_a_trusted_proxy() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let lines = "unix_mode = \"0600\"\ntrusted_proxies = [\"127.0.0.1/32\"]";
    let world = World::with(&config(&path, lines)).await;
    assert_eq!(mode(&path), 0o600);
    let told = "X-Forwarded-For: 203.0.113.9\r\n";
    let text = ask(&path, "/public/", told).await.expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    let record = logged(&world).await;
    assert_eq!(record["client"], json!("203.0.113.9"));
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.sock");
    drop(UnixListener::bind(&path).expect("a socket"));
    assert!(path.exists(), "nobody has removed it");
    let config = config(&path, "");
    let world = World::with(&config).await;
    assert!(ask(&path, "/public/", "").await.is_ok());

    let StartError::Listen(address, error) = why_not(&folder, &config).await else {
        panic!("it is the address");
    };
    assert_eq!(address.to_string(), format!("unix:{}", path.display()));
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let text = ask(&path, "/public/", "").await.expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "the first one stays");
    let names: Vec<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert_eq!(names.len(), 2, "nothing is left lying about: {names:?}");

    // Somebody else's by now.
    std::fs::remove_file(&path).expect("removed");
    let _other = UnixListener::bind(&path).expect("a socket");
    within("the end", world.gateway.app.stop()).await;
    assert!(path.exists(), "what is not its own is not removed");
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("precious");
    std::fs::write(&path, "text").expect("written");
    let error = why_not(&folder, &config(&path, "")).await.to_string();
    assert!(error.contains("is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "text");
}

#[tokio::test]
async fn commands_reach_the_admin_listener_by_its_socket() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("admin.sock");
    let listen = format!("\nlisten = \"unix:{}\"", path.display());
    let config = CONFIG.replace("\nlisten = \"127.0.0.1:0\"", &listen);
    let auth = bonterra_gateway::demo::auth::BonterraAuth::start(Default::default()).await;
    let auth = auth.expect("an issuer");
    let config = config
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", "http://127.0.0.1:1");
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, config).expect("written");
    let app = App::start(file, io::sink()).await.expect("a gateway");
    within("ready", app.ready()).await;
    assert_eq!(
        mode(&path),
        0o600,
        "it reloads and revokes for whoever asks"
    );
    for (command, part) in [("healthcheck", "ready"), ("reload", "nothing has changed")] {
        let said = call(folder.path(), &[command, "-c", "gateway.toml"]).await;
        assert_eq!(said.code, Some(0), "{command}: {}", said.stderr);
        assert!(said.stdout.contains(part), "{command}: {}", said.stdout);
    }
    app.end().await;
    let said = call(folder.path(), &["healthcheck", "-c", "gateway.toml"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("is it running?"), "{}", said.stderr);
}

/// With `reuse_port` a second gateway takes the path over, and the first serves who has connected.
#[tokio::test]
async fn a_second_gateway_takes_the_path_over() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.sock");
    let config = config(&path, "reuse_port = true");
    let first = World::with(&config).await;
    let early = UnixStream::connect(&path).await.expect("connected");
    let second = World::with(&config).await;
    let Gateway { app, .. } = first.gateway;
    let stopping = tokio::spawn(app.stop());
    let (mut early, mut text) = (early, String::new());
    early
        .write_all(b"GET /public/ HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("sent");
    within("a reply", early.read_to_string(&mut text))
        .await
        .expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    within("the end", stopping).await.expect("no panic");
    assert_eq!(first.echo.requests(), 1);
    let text = ask(&path, "/public/", "").await.expect("a reply");
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
    assert_eq!(second.echo.requests(), 1);
    let mut tcp = Raw::connect(second.gateway.address).await;
    tcp.send("GET /public/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(tcp.whole().await.status, 200);
}
