//! `run` with its signals, and the commands that speak to a gateway that runs.

use crate::harness::link::{Link, nothing};
use crate::harness::program::{GatewayProcess, Running, call, program, shell};
use crate::harness::{CONFIG, eventually, nobody, request, within};
use bonterra_gateway::authn::token::UnverifiedToken;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use bonterra_gateway::steps::moment;
use http::Request;
use serde_json::json;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The gateway's process with the services around it.
struct Scene {
    auth: BonterraAuth,
    echo: Echo,
    gateway: GatewayProcess,
}

/// With addresses that can be found in the file, and that nobody takes when they are free.
async fn scene(drain_delay: &str) -> Scene {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let echo = Echo::start(crate::harness::local())
        .await
        .expect("upstream");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url())
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            &format!("listen = [\"{}\"]", nobody()),
        )
        .replace(
            "\nlisten = \"127.0.0.1:0\"",
            &format!("\nlisten = \"{}\"", nobody()),
        )
        .replace(
            "drain_delay = \"0s\"",
            &format!("drain_delay = \"{drain_delay}\""),
        );
    let gateway = GatewayProcess::start(&config).await;
    Scene {
        auth,
        echo,
        gateway,
    }
}

impl Scene {
    fn change(&self, from: &str, to: &str) {
        let file = self.gateway.file();
        let config = std::fs::read_to_string(&file).expect("the file");
        assert!(config.contains(from), "{from}");
        std::fs::write(file, config.replace(from, to)).expect("written");
    }

    async fn call(&self, command: &str) -> crate::harness::program::Said {
        let file = self.gateway.file();
        call(
            file.parent().expect("a folder"),
            &[command, "-c", "gateway.toml"],
        )
        .await
    }

    async fn status(&self, path: &str) -> u16 {
        request(self.gateway.address, "GET", path)
            .send()
            .await
            .status
    }

    async fn metric(&self, series: &str) -> bool {
        request(self.gateway.admin, "GET", "/metrics")
            .send()
            .await
            .text()
            .contains(series)
    }
}

#[tokio::test]
async fn it_serves_and_stops_when_asked() {
    for signal in ["TERM", "INT"] {
        let mut scene = scene("0s").await;
        let ready = scene.gateway.logged("ready").await;
        assert!(
            ready["after_ms"].as_u64().is_some_and(|after| after < 2000),
            "{ready}"
        );
        let token = scene.auth.token();
        let reply = request(scene.gateway.address, "GET", "/grants/1")
            .bearer(&token)
            .send()
            .await;
        assert_eq!(reply.status, 200);
        scene.gateway.running.signal(signal).await;
        let status = scene.gateway.running.ended().await;
        assert_eq!(status.code(), Some(0), "{signal}");
        let access = scene.gateway.running.stdout.records();
        assert_eq!(
            access.len(),
            1,
            "the access log goes to standard output, and nothing else does"
        );
        assert_eq!(access[0]["route"], json!("grants"));
        assert!(scene.gateway.running.event("stopped").is_some());
        assert!(!scene.gateway.running.stderr.text().contains(&token));
    }
}

#[tokio::test]
async fn sigterm_lets_requests_in_flight_finish() {
    let mut scene = scene("200ms").await;
    let mut link = Link::connect(scene.gateway.address).await;
    let slow = tokio::spawn(async move {
        let get = Request::get("/public/slow-head?ms=1000")
            .body(nothing())
            .expect("a request");
        link.send(get).await
    });
    eventually("it is upstream", async || !scene.echo.seen().is_empty()).await;
    scene.gateway.running.signal("TERM").await;
    let ready = request(scene.gateway.admin, "GET", "/readyz");
    eventually("not ready", async || ready.send().await.status == 503).await;
    assert_eq!(
        within("the reply", slow).await.expect("no panic").status,
        200
    );
    assert_eq!(scene.gateway.running.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut scene = scene("60s").await;
    let started = Instant::now();
    scene.gateway.running.signal("TERM").await;
    scene.gateway.logged("draining: not ready any more").await;
    scene.gateway.running.signal("TERM").await;
    let status = scene.gateway.running.ended().await;
    assert_eq!(
        status.code(),
        Some(1),
        "it was not given the time to end well"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
}

/// As `timeout` does it: the process, then its group.
#[tokio::test]
async fn a_signal_and_its_echo_are_one() {
    let mut scene = scene("0s").await;
    scene.gateway.running.signal_twice("TERM").await;
    let status = scene.gateway.running.ended().await;
    assert_eq!(status.code(), Some(0), "it ended well");
}

#[tokio::test]
async fn sighup_reloads() {
    let scene = scene("0s").await;
    assert_eq!(scene.status("/open/").await, 404);
    scene.change("path = \"/public/*\"", "path = \"/open/*\"");
    scene.gateway.running.signal("HUP").await;
    eventually("the new route", async || {
        scene.status("/open/").await == 200
    })
    .await;
    assert_eq!(scene.status("/public/").await, 404);

    scene.change("path = \"/open/*\"", "pat = \"/elsewhere/*\"");
    scene.gateway.running.signal("HUP").await;
    eventually("the metric", async || {
        scene
            .metric("gateway_config_last_reload_successful 0")
            .await
    })
    .await;
    let event = scene
        .gateway
        .logged("configuration not reloaded; the old one stays in force")
        .await;
    assert_eq!(event["level"], json!("ERROR"));
    assert_eq!(scene.status("/open/").await, 200);
}

#[tokio::test]
async fn the_reload_command_says_what_changed_or_why_not() {
    let scene = scene("0s").await;
    let same = scene.call("reload").await;
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (Some(0), "reloaded, nothing has changed\n"),
        "{}",
        same.stderr
    );

    scene.change("path = \"/public/*\"", "path = \"/open/*\"");
    scene.change("workers = 1", "workers = 2");
    let good = scene.call("reload").await;
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    for part in [
        "reloaded\n",
        "  route.public.path: \"/public/*\" -> \"/open/*\"\n",
        "  server.workers: 1 -> 2\n",
        "takes effect at the next start: server.workers\n",
    ] {
        assert!(good.stdout.contains(part), "no {part:?} in {}", good.stdout);
    }
    assert_eq!(scene.status("/open/").await, 200);

    scene.change(
        "upstream = \"echo\"\nauth = \"none\"",
        "upstream = \"ecko\"\nauth = \"none\"",
    );
    let bad = scene.call("reload").await;
    assert_eq!(bad.code, Some(1), "{}", bad.stdout);
    for part in [
        "there is no [upstream.ecko]",
        "did you mean `echo`?",
        "gateway.toml:",
        "the old configuration stays in force",
    ] {
        assert!(bad.stderr.contains(part), "no {part:?} in {}", bad.stderr);
    }
    assert_eq!(scene.status("/open/").await, 200);

    scene.change("[server]", "[server");
    let broken = scene.call("reload").await;
    assert_eq!(broken.code, Some(1), "{}", broken.stdout);
    for part in ["gateway.toml:", "does not say where the admin listener is"] {
        assert!(broken.stderr.contains(part), "{}", broken.stderr);
    }
}

#[tokio::test]
async fn the_revoke_command_has_a_token_refused() {
    let scene = scene("0s").await;
    scene.gateway.logged("ready").await;
    let file = scene.gateway.file();
    let (file, binary) = (file.display(), env!("CARGO_BIN_EXE_bonterra-gateway"));
    let token = scene.auth.token();
    let asks = async |token: &str| {
        let asked = request(scene.gateway.address, "GET", "/grants/1").bearer(token);
        asked.send().await.status
    };
    assert_eq!(asks(&token).await, 200);
    // As it is copied out of a request's head, too: nothing but the token itself is revoked.
    let mut claims = scene.auth.claims();
    claims["jti"] = json!("another");
    let other = scene.auth.mint(&claims);
    for (given, token) in [
        (token.clone(), &token),
        (format!("bearer  {other}  "), &other),
    ] {
        assert_eq!(asks(token).await, 200);
        let piped = format!("printf '%s\\n' '{given}' | {binary} revoke -c {file} --token -");
        let said = shell(&piped).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        // Until when nobody would take it any more: its exp, and the leeway.
        let exp = UnverifiedToken::parse(token).expect("a token").expires_at();
        let until = exp.expect("exp") + 31;
        let date = moment(until, until).replace(", now", ", in ");
        let told = format!("revoked until {date}");
        assert!(said.stdout.starts_with(&told), "{told}: {}", said.stdout);
        assert_eq!(asks(token).await, 401);
    }

    for (arguments, code, part) in [
        ("--subject nobody --issuer bonterra --keep 1h", 0, "revoked"),
        ("--jti 1 --issuer bonterra", 0, "revoked until"),
        ("--token --x=", 0, "revoked until"),
        ("--token 'Bearer x'", 0, "revoked until"),
        ("--token 'x y'", 2, "this is no token"),
        ("--token x%3D", 2, "this is no token"),
        ("--token '='", 2, "this is no token"),
        ("--jti 1 --issuer bonterra --keep 200y", 2, "100 years"),
        ("--jti 1 --issuer bonterra --keep 10ms", 2, "1 second"),
        (
            "--jti 1 --issuer bonterr",
            1,
            "`issuer` is one of: bonterra",
        ),
        ("--jti 1", 2, "--issuer"),
        (
            "--jti 1 --subject 2 --issuer bonterra",
            2,
            "cannot be used with",
        ),
        ("--token x --issuer bonterra", 2, "cannot be used with"),
        ("", 2, "say what to revoke"),
        ("--token -", 2, "standard input holds no token"),
    ] {
        let said = shell(&format!("{binary} revoke -c {file} {arguments}")).await;
        assert_eq!(said.code, Some(code), "{arguments}: {}", said.stderr);
        let text = said.stdout + &said.stderr;
        assert!(text.contains(part), "{arguments}: {text}");
    }
}

#[tokio::test]
async fn a_health_check_is_the_readiness() {
    let mut scene = scene("60s").await;
    scene.gateway.logged("ready").await;
    let well = scene.call("healthcheck").await;
    assert_eq!(well.code, Some(0), "{}", well.stderr);
    scene.gateway.running.signal("TERM").await;
    scene.gateway.logged("draining: not ready any more").await;
    let draining = scene.call("healthcheck").await;
    assert_eq!(draining.code, Some(1), "{}", draining.stdout);
    assert!(
        format!("{}{}", draining.stdout, draining.stderr).contains("draining"),
        "{draining:?}"
    );
    scene.gateway.running.signal("TERM").await;
    scene.gateway.running.ended().await;
    let gone = scene.call("healthcheck").await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("is it running?"), "{}", gone.stderr);
    let gone = scene.call("reload").await;
    assert_eq!(gone.code, Some(1));
    assert!(gone.stderr.contains("is it running?"), "{}", gone.stderr);
}

#[tokio::test]
async fn a_port_in_use_is_told_in_words() {
    let scene = scene("0s").await;
    let config = std::fs::read_to_string(scene.gateway.file()).expect("the file");
    let folder = TempDir::new().expect("a folder");
    let free = "127.0.0.1:0";
    for taken in [
        config.replace(&scene.gateway.admin.to_string(), free),
        config.replace(&scene.gateway.address.to_string(), free),
    ] {
        std::fs::write(folder.path().join("gateway.toml"), taken).expect("written");
        let said = call(folder.path(), &["run"]).await;
        assert_eq!(said.code, Some(1), "{}", said.stderr);
        assert!(
            said.stderr
                .contains("is in use; stop what listens there, or choose another address"),
            "{}",
            said.stderr
        );
    }
}

/// A crash costs the requests in flight, and nothing that a restart does not bring back.
#[tokio::test]
async fn it_can_be_killed_and_started_again_on_the_same_port() {
    let scene = scene("0s").await;
    let mut link = Link::connect(scene.gateway.address).await;
    assert_eq!(link.get("/public/").await.status, 200);
    let Scene {
        auth,
        echo,
        mut gateway,
    } = scene;
    gateway.running.signal("KILL").await;
    gateway.running.ended().await;
    let file = gateway.file();
    let mut again = Running::start(program(&["run", "-c", file.to_str().expect("UTF-8")]));
    eventually("it serves again", async || {
        request(gateway.address, "GET", "/public/")
            .try_send()
            .await
            .is_ok_and(|reply| reply.status == 200)
    })
    .await;
    assert!(!again.has_ended());
    let token = auth.token();
    eventually("keys", async || {
        request(gateway.address, "GET", "/grants/1")
            .bearer(&token)
            .send()
            .await
            .status
            == 200
    })
    .await;
    assert!(echo.requests() >= 3);
}

#[tokio::test]
async fn the_log_of_events_may_be_text() {
    let config = CONFIG
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:1");
    let config = config.replace(
        "[upstream.echo]",
        "[log]\nformat = \"text\"\n\n[upstream.echo]",
    );
    let folder = TempDir::new().expect("a folder");
    std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
    let mut command = program(&["run"]);
    command.current_dir(folder.path());
    let mut running = Running::start(command);
    eventually("it serves", || {
        assert!(!running.has_ended(), "{}", running.stderr.text());
        let text = running.stderr.text();
        std::future::ready(
            text.lines()
                .any(|line| line.contains(" INFO ") && line.contains("serving")),
        )
    })
    .await;
    assert!(
        !running.stderr.text().contains('\u{1b}'),
        "no colours in a pipe"
    );
}
