//! `[store]` in the file, in a reload, and on the command line.

use super::{another, asks, order, refuses, revoked, status, with_store};
use crate::harness::program::{GatewayProcess, call};
use crate::harness::{
    Gateway, Raw, RedisServer, World, assert_refused, eventually, nobody, within,
};
use serde_json::json;

async fn reload(gateway: &Gateway, text: &str) {
    std::fs::write(gateway.file(), text).expect("written");
    let report = gateway.app.reloader.reload("test").await;
    report.expect("reloaded");
}

#[tokio::test]
async fn a_reload_changes_what_becomes_of_tokens_and_where_revocations_are() {
    let (mut first, second) = (RedisServer::start(&[]).await, RedisServer::start(&[]).await);
    let world = World::with(&with_store(first.address, "open")).await;
    let gateway = &world.gateway;
    let open = std::fs::read_to_string(gateway.file()).expect("the file");
    let closed = open.replace("\"open\"", "\"closed\"");
    let (token, good) = (world.auth.token(), world.auth.token());
    assert_eq!(revoked(gateway, &token).await, true);
    reload(gateway, &closed).await;
    assert_eq!(status(gateway, &good).await, 200);
    first.kill();
    eventually("tokens are refused", || async {
        status(gateway, &good).await == 503
    })
    .await;
    reload(gateway, &open).await;
    assert_eq!(status(gateway, &good).await, 200);
    reload(gateway, &closed).await;
    let reply = asks(gateway, &good).await;
    assert_refused(gateway, &reply, 503, "store_unavailable", "grants").await;
    // Another Redis: all that is known goes there.
    let [old, new] = [&first, &second].map(|redis| redis.address.to_string());
    reload(gateway, &closed.replace(&old, &new)).await;
    assert_eq!(status(gateway, &good).await, 200, "as soon as it is loaded");
    let other = another(&world).await;
    refuses(&other, &token).await;
    let next = world.auth.token();
    assert_eq!(revoked(&other, &next).await, true);
    refuses(gateway, &next).await;
    // None: what is known stays, and nobody has to be asked.
    let alone = open.split("\n[store]").next().expect("a part");
    reload(gateway, alone).await;
    assert_eq!(status(gateway, &token).await, 401);
    assert_eq!(status(gateway, &good).await, 200);
    let last = world.auth.token();
    let reply = order(gateway, json!({"token": last})).await;
    assert_eq!(reply.json().get("shared"), None);
    // And one again, with what was revoked in between.
    reload(gateway, &closed.replace(&old, &new)).await;
    refuses(&other, &last).await;
    // A store that is not there: closed is closed.
    reload(gateway, &closed.replace(&old, &nobody().to_string())).await;
    eventually("tokens are refused", || async {
        status(gateway, &good).await == 503
    })
    .await;
    assert_eq!(gateway.admin("GET", "/readyz").await.status, 200);
}

/// Who has asked for a reload and leaves does not leave it half done.
#[tokio::test]
async fn a_reload_is_finished_though_nobody_waits_for_it() {
    let world = World::start().await;
    let gateway = &world.gateway;
    // It takes connections and never answers: that is waited for.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let silent = silent.expect("a port");
    let address = silent.local_addr().expect("an address");
    let text = std::fs::read_to_string(gateway.file()).expect("the file");
    let store = format!("\n[store]\nurl = \"redis://{address}\"\non_failure = \"closed\"\n");
    std::fs::write(gateway.file(), text + &store).expect("written");
    let mut asks = Raw::connect(gateway.admin).await;
    asks.send("POST /-/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    let taken = within("it is asked", silent.accept()).await;
    drop(asks);
    let token = world.auth.token();
    eventually("it is in force", || async {
        status(gateway, &token).await == 503
    })
    .await;
    let ready = gateway.admin("GET", "/readyz?verbose").await.text();
    assert!(ready.contains("shared store: away"), "{ready}");
    drop(taken);
}

#[tokio::test]
async fn a_password_in_a_file_and_the_commands() {
    let redis = RedisServer::start(&["--requirepass", "hunter2"]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let secret = folder.path().join("url");
    let url = format!("redis://:hunter2@{}\n", redis.address);
    std::fs::write(&secret, url).expect("written");
    let world = World::start().await;
    let text = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let store = format!(
        "\n[store]\nurl_file = \"{}\"\ntimeout = \"2s\"\n",
        secret.display()
    );
    let config = text + &store;
    let process = GatewayProcess::start(&config).await;
    let beside = Gateway::start(&config).await;
    within("ready", beside.app.ready()).await;
    let home = process.file().parent().expect("a folder").to_owned();
    let token = world.auth.token();
    let online = call(&home, &["check", "--online"]).await;
    assert_eq!(online.code, Some(0), "{}{}", online.stdout, online.stderr);
    let none = format!("ok store: 0 revocations at {}", redis.address);
    assert!(online.stdout.contains(&none), "{}", online.stdout);

    // The process has taken a free port, and its file does not say which.
    let addressed = config.replace(
        "[admin]\nlisten = \"127.0.0.1:0\"",
        &format!("[admin]\nlisten = \"{}\"", process.admin),
    );
    assert_ne!(addressed, config);
    let commands = folder.path();
    std::fs::write(commands.join("gateway.toml"), addressed).expect("written");
    let said = call(commands, &["revoke", "--token", &token]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(!said.stdout.contains("alone"), "{}", said.stdout);
    refuses(&beside, &token).await;
    let online = call(commands, &["check", "--online"]).await;
    assert!(
        online.stdout.contains("ok store: 1 revocations"),
        "{}",
        online.stdout
    );
    let explained = call(
        commands,
        &["explain", "GET", "/grants/1", "--token", &token],
    )
    .await;
    assert_eq!(explained.code, Some(3), "{}", explained.stdout);
    assert!(explained.stdout.contains("revoked"), "{}", explained.stdout);
    let good = world.auth.token();
    let explained = call(commands, &["explain", "GET", "/grants/1", "--token", &good]).await;
    assert_eq!(explained.code, Some(0), "{}", explained.stdout);

    drop(redis);
    let said = call(commands, &["revoke", "--token", &good]).await;
    assert_eq!(said.code, Some(0), "{}", said.stderr);
    assert!(
        said.stdout.contains("by this gateway alone so far"),
        "{}",
        said.stdout
    );
    let online = call(commands, &["check", "--online"]).await;
    assert_eq!(online.code, Some(1), "{}", online.stdout);
    assert!(
        online.stdout.contains("failed store: "),
        "{}",
        online.stdout
    );
    for text in [
        online.stdout,
        online.stderr,
        process.running.stdout.text(),
        process.running.stderr.text(),
    ] {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
