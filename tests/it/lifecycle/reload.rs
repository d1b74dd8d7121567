//! A changed file is in force as a whole or not at all, and no request notices.

use crate::harness::link::Link;
use crate::harness::program::{GatewayProcess, shell};
use crate::harness::tls_upstream::Authority;
use crate::harness::{
    CONFIG, RawUpstream, World, eventually, local, nobody, request, with_lines, within,
};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, Endpoint, Fault};
use bonterra_gateway::demo::echo::Echo;
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const SUCCESSFUL: &str = "gateway_config_last_reload_successful";

/// A world whose public route answers with this generation, twice.
async fn world() -> World {
    World::with(&generation(CONFIG, 1)).await
}

/// The same file with another generation.
fn generation(config: &str, number: usize) -> String {
    let (before, after) = config
        .split_once("auth = \"none\"\n")
        .expect("the public route");
    assert!(!after.contains("[["), "it is the last");
    let set = format!("X-One = \"{number}\", X-Two = \"{number}\"");
    format!("{before}auth = \"none\"\nresponse_headers = {{ set = {{ {set} }} }}\n")
}

impl World {
    fn read(&self) -> String {
        std::fs::read_to_string(self.gateway.file()).expect("the file")
    }

    fn write(&self, config: &str) {
        std::fs::write(self.gateway.file(), config).expect("written");
    }

    async fn reload(&self) -> (u16, String) {
        let reply = self.gateway.admin("POST", "/-/reload").await;
        (reply.status, reply.text())
    }

    async fn generation(&self) -> String {
        let reply = self.get("/public/").send().await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("x-one"), reply.header("x-two"));
        reply.header("x-one").expect("a generation").to_owned()
    }
}

/// Clients that ask without a pause until told to stop; what failed, and what they saw.
struct Load {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(world: &Arc<World>) -> Self {
        let (ended, served) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicUsize::new(0)),
        );
        let token = world.auth.token();
        let client = |number: usize| {
            let (world, ended, served) =
                (Arc::clone(world), Arc::clone(&ended), Arc::clone(&served));
            let token = token.clone();
            tokio::spawn(async move {
                let mut failed = Vec::new();
                let path = if number.is_multiple_of(2) {
                    "/public/"
                } else {
                    "/grants/1"
                };
                while !ended.load(Relaxed) {
                    match world.get(path).bearer(&token).try_send().await {
                        Ok(reply)
                            if reply.status == 200
                                && reply.header("x-one") == reply.header("x-two") => {}
                        Ok(reply) => failed.push(format!("{} {:?}", reply.status, reply.headers)),
                        Err(error) => failed.push(error.to_string()),
                    }
                    served.fetch_add(1, Relaxed);
                }
                failed
            })
        };
        let clients = (0..4).map(client).collect();
        Self {
            ended,
            served,
            clients,
        }
    }

    /// Lets some more requests through.
    async fn goes_on(&self) {
        let now = self.served.load(Relaxed);
        eventually("load", || {
            std::future::ready(self.served.load(Relaxed) >= now + 20)
        })
        .await;
    }

    async fn end(self) {
        self.ended.store(true, Relaxed);
        let failed: Vec<String> = join_all(self.clients)
            .await
            .into_iter()
            .flat_map(|client| client.expect("no panic"))
            .collect();
        assert!(
            failed.is_empty(),
            "{} failed: {:?}",
            failed.len(),
            failed.first()
        );
    }
}

#[tokio::test]
async fn a_reload_on_demand_applies_and_says_what_changed() {
    let world = world().await;
    let loaded = world
        .gateway
        .metric("gateway_config_last_reload_success_timestamp_seconds")
        .await;
    assert!(loaded > 1.7e9, "{loaded}");
    assert_eq!(world.gateway.metric(SUCCESSFUL).await, 1.0);
    assert_eq!(
        world.reload().await,
        (200, "{\"changes\":[],\"restart\":[]}\n".to_owned())
    );

    world.write(&generation(&world.read(), 2).replace(
        "path = \"/optional/*\"",
        "path = \"/maybe/*\"\ntimeout = \"9s\"",
    ));
    let (status, text) = world.reload().await;
    assert_eq!(status, 200, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        report,
        json!({
            "changes": [
                "route.optional.path: \"/optional/*\" -> \"/maybe/*\"",
                "route.optional.timeout: \"1m\" -> \"9s\"",
                "route.public.response_headers.set.X-One: \"1\" -> \"2\"",
                "route.public.response_headers.set.X-Two: \"1\" -> \"2\"",
            ],
            "restart": [],
        })
    );
    assert_eq!(world.generation().await, "2");
    assert_eq!(world.get("/maybe/").send().await.status, 200);
    assert_eq!(world.get("/optional/").send().await.status, 404);
    assert!(
        world
            .gateway
            .metric("gateway_config_last_reload_success_timestamp_seconds")
            .await
            >= loaded
    );
}

#[tokio::test]
async fn a_change_of_the_file_is_noticed() {
    let world = world().await;
    world.write(&generation(&world.read(), 2));
    eventually("generation 2", async || world.generation().await == "2").await;
    // Many editors write a new file and rename it.
    let new = world.gateway.file().with_file_name("new.toml");
    std::fs::write(&new, generation(&world.read(), 3)).expect("written");
    std::fs::rename(&new, world.gateway.file()).expect("renamed");
    eventually("generation 3", async || world.generation().await == "3").await;
}

/// As Kubernetes updates a ConfigMap: the file is a link into a link to a folder, which is replaced.
#[tokio::test]
async fn a_swapped_symbolic_link_is_noticed() {
    let world = world().await;
    let folder = world.gateway.file().parent().expect("a folder").to_owned();
    let publish = |number: usize| {
        let version = folder.join(format!("..{number}"));
        std::fs::create_dir(&version).expect("a folder");
        std::fs::write(
            version.join("gateway.toml"),
            generation(&world.read(), number),
        )
        .expect("written");
        symlink(format!("..{number}"), folder.join("..new")).expect("a link");
        std::fs::rename(folder.join("..new"), folder.join("..data")).expect("swapped");
    };
    publish(1);
    symlink("..data/gateway.toml", folder.join("link")).expect("a link");
    std::fs::rename(folder.join("link"), world.gateway.file()).expect("swapped");
    publish(2);
    std::fs::remove_dir_all(folder.join("..1")).expect("removed");
    eventually("generation 2", async || world.generation().await == "2").await;
    assert_eq!(world.gateway.metric(SUCCESSFUL).await, 1.0);
}

#[tokio::test]
async fn a_broken_file_changes_nothing_under_load() {
    let world = Arc::new(world().await);
    let good = world.read();
    let load = Load::on(&world);
    let broken = good
        .replace(
            "upstream = \"echo\"\nauth = \"optional\"",
            "upstream = \"ecko\"\nauth = \"optional\"",
        )
        .replace("drain_timeout = \"5s\"", "drain_timeot = \"5s\"");
    for config in [broken.as_str(), "no toml [", "", "[server]\nlisten = []\n"] {
        world.write(config);
        let (status, text) = world.reload().await;
        assert_eq!(status, 422, "{config}: {text}");
        assert_eq!(world.gateway.metric(SUCCESSFUL).await, 0.0);
        assert_eq!(world.generation().await, "1");
        load.goes_on().await;
        if config == broken {
            // Both mistakes, each with its place and a hint.
            let file = world.gateway.file();
            let located = |needle: &str, column: usize| {
                let line = config
                    .lines()
                    .position(|line| line.contains(needle))
                    .expect("the mistake")
                    + 1;
                format!("{}:{line}:{column}", file.display())
            };
            assert!(text.contains(&located("drain_timeot", 1)), "{text}");
            assert!(text.contains(&located("\"ecko\"", 12)), "{text}");
            assert!(text.contains("did you mean `drain_timeout`?"), "{text}");
            assert!(text.contains("did you mean `echo`?"), "{text}");
        }
    }
    std::fs::remove_file(world.gateway.file()).expect("removed");
    assert_eq!(world.reload().await.0, 422);
    assert_eq!(world.gateway.metric(SUCCESSFUL).await, 0.0);
    load.goes_on().await;

    world.write(&generation(&good, 2));
    assert_eq!(world.reload().await.0, 200);
    assert_eq!(world.gateway.metric(SUCCESSFUL).await, 1.0);
    assert_eq!(world.generation().await, "2");
    load.end().await;
}

#[tokio::test]
async fn many_reloads_under_load_cost_no_request_and_mix_nothing() {
    let world = Arc::new(world().await);
    let before = world.auth.counts();
    let load = Load::on(&world);
    for number in 2..102 {
        world.write(&generation(&world.read(), number));
        let (status, text) = world.reload().await;
        assert_eq!(status, 200, "{text}");
        assert_eq!(world.generation().await, number.to_string());
    }
    load.goes_on().await;
    load.end().await;
    assert_eq!(
        world.auth.counts(),
        before,
        "what has not changed is taken over, keys included"
    );
    assert!(
        world.echo.connections() <= 8,
        "so are connections: {}",
        world.echo.connections()
    );
}

#[tokio::test]
async fn a_request_in_flight_ends_as_it_began() {
    let world = world().await;
    let slow = world.get("/public/slow-head?ms=300");
    let (reply, ()) = tokio::join!(slow.send(), async {
        eventually("it is upstream", async || !world.echo.seen().is_empty()).await;
        world.write(
            &generation(&world.read(), 2).replace("path = \"/public/*\"", "path = \"/open/*\""),
        );
        assert_eq!(world.reload().await.0, 200);
        assert_eq!(world.get("/public/").send().await.status, 404);
    });
    assert_eq!((reply.status, reply.header("x-one")), (200, Some("1")));
}

#[tokio::test]
async fn what_needs_a_restart_is_named() {
    let world = world().await;
    let config = world.read();
    let other = config
        .replace(
            "listen = [\"127.0.0.1:0\"]",
            "listen = [\"127.0.0.1:1\", \"127.0.0.1:2\"]",
        )
        .replace("workers = 1", "workers = 2")
        .replace("\nlisten = \"127.0.0.1:0\"", "\nlisten = \"127.0.0.1:3\"")
        .replace(
            "[upstream.echo]",
            "[log]\nlevel = \"debug\"\n\n[upstream.echo]",
        );
    world.write(&generation(&other, 2));
    let (status, text) = world.reload().await;
    assert_eq!(status, 200, "{text}");
    let report: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        report["restart"],
        json!([
            "admin.listen",
            "log.level",
            "server.listen",
            "server.workers"
        ])
    );
    assert_eq!(
        world.generation().await,
        "2",
        "the rest is in force, at the old address"
    );
}

#[tokio::test]
async fn a_new_issuer_has_its_keys_before_its_first_request() {
    let world = world().await;
    let second = BonterraAuth::start(AuthOptions {
        key_slot: 20,
        ..AuthOptions::default()
    })
    .await
    .expect("issuer");
    let request = world.get("/grants/1").bearer(&second.token());
    assert_eq!(request.send().await.json()["reason"], json!("wrong_issuer"));
    let table = format!(
        "\n[issuer.second]\nurl = \"{}\"\naudiences = [\"https://api.bonterra.network\"]\n",
        second.issuer()
    );
    let one = world.read();
    world.write(&format!("{one}{table}"));
    assert_eq!(world.reload().await.0, 200);
    assert_eq!(request.send().await.status, 200);
    assert_eq!(world.gateway.admin("GET", "/readyz").await.status, 200);

    world.write(&one);
    assert_eq!(world.reload().await.0, 200);
    let refused = request.send().await;
    assert_eq!(
        refused.json()["reason"],
        json!("wrong_issuer"),
        "what was cached of it is worth nothing now"
    );
}

#[tokio::test]
async fn an_issuer_that_is_down_does_not_hold_a_reload_up_for_ever() {
    let world = world().await;
    let down = nobody();
    let table = format!(
        "\n[issuer.down]\nurl = \"http://{down}/\"\naudiences = [\"a\"]\ntimeout = \"200ms\"\n"
    );
    world.write(&format!("{}{table}", generation(&world.read(), 2)));
    let (status, text) = within("the reload", world.reload()).await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(world.generation().await, "2");
    assert_eq!(world.authorized("/grants/1").send().await.status, 200);
}

/// It has loaded the old snapshot and waits for a fetch that only the old fetcher carries out.
#[tokio::test]
async fn a_reload_keeps_the_fetch_that_a_request_waits_for() {
    let world = World::with(&CONFIG.replace("cooldown = \"1s\"", "cooldown = \"0s\"")).await;
    world.auth.rotate();
    world.auth.rotate();
    let before = world.auth.counts().jwks;
    let slow = Fault::Slow(Duration::from_secs(2));
    world.auth.set_fault(Endpoint::Jwks, Some(slow));
    let token = world.auth.token();
    let grants = world.get("/grants/1").bearer(&token);
    let waiting = tokio::spawn(async move { grants.send().await });
    eventually("the fetch", async || world.auth.counts().jwks > before).await;
    world.write(&world.read().replace("min_ttl = \"1s\"", "min_ttl = \"2s\""));
    assert_eq!(world.reload().await.0, 200);
    let reply = waiting.await.expect("no panic");
    assert_eq!(reply.status, 200, "{}", reply.text());
}

/// Credentials go where the file in force says, even while discovery cannot be asked.
#[tokio::test]
async fn a_changed_token_endpoint_is_in_force_at_once() {
    let world = World::start().await;
    let second = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let machine = [
        ("grant_type", "client_credentials"),
        ("client_id", "demo-client"),
        ("client_secret", "demo-secret"),
    ];
    let ask = async || world.post("/oauth/token").form(&machine).send().await;
    assert_eq!(ask().await.status, 200);
    let asked = || (world.auth.counts().token, second.counts().token);
    assert_eq!(asked(), (1, 0));

    world
        .auth
        .set_fault(Endpoint::Discovery, Some(Fault::Garbage));
    let discovered = world.read();
    let line = format!("token_endpoint = \"{}oauth/token\"", second.issuer());
    world.write(&with_lines(&discovered, "[issuer.bonterra]", &line));
    assert_eq!(world.reload().await.0, 200);
    assert_eq!(ask().await.status, 200);
    assert_eq!(asked(), (1, 1));
    assert_eq!(
        world.authorized("/grants/1").send().await.status,
        200,
        "the keys are kept"
    );

    // Taken out again, it is nowhere until discovery has found one.
    world.write(&discovered);
    assert_eq!(world.reload().await.0, 200);
    assert_eq!(ask().await.status, 503);
    assert_eq!(asked(), (1, 1));
    world.auth.set_fault(Endpoint::Discovery, None);
    eventually("found", async || ask().await.status == 200).await;
    assert_eq!(asked(), (2, 1));
}

/// One open route, to an API whose health is checked all the time, and no issuer.
const CHECKED: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[upstream.echo]
servers = ["ECHO"]
health = { path = "/healthz", interval = "20ms" }

[[route]]
name = "public"
path = "/public/*"
upstream = "echo"
auth = "none"
"#;

/// The longest of so many requests, one behind the other.
async fn slowest(link: &mut Link, path: &str, requests: usize) -> Duration {
    let mut slowest = Duration::ZERO;
    for _ in 0..requests {
        let started = Instant::now();
        assert_eq!(link.get(path).await.status, 200);
        slowest = slowest.max(started.elapsed());
    }
    slowest
}

/// Prompt is what was not waited for, on a machine that has other things to do as well.
const PROMPT: Duration = Duration::from_millis(1500);

/// Reading the files of a configuration may take its time, on a network share that hangs for ever. Meanwhile
/// everything goes on: requests, health checks, and the admin listener, which the reload itself was asked of.
#[tokio::test]
async fn a_file_that_cannot_be_read_to_its_end_holds_up_the_reload_alone() {
    let echo = Echo::start(local()).await.expect("upstream");
    let config = CHECKED.replace("ECHO", &echo.url());
    let gateway = GatewayProcess::start(&config).await;
    let file = gateway.file();
    let folder = file.parent().expect("a folder").to_owned();
    let (pipe, ca) = (folder.join("pipe"), folder.join("ca.pem"));
    let made = shell(&format!("mkfifo '{}'", pipe.display())).await;
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    symlink(&pipe, &ca).expect("a link");
    let mut link = Link::connect(gateway.address).await;
    let mut admin = Link::connect(gateway.admin).await;
    assert_eq!(link.get("/public/").await.status, 200);

    let more = format!(
        "\n[upstream.secure]\nservers = [\"https://{}\"]\ntls.ca_file = {ca:?}\n",
        nobody()
    );
    let changed = config.replace("auth = \"none\"", "auth = \"none\"\ntimeout = \"9s\"");
    std::fs::write(&file, changed + &more).expect("written");
    let post = request(gateway.admin, "POST", "/-/reload");
    let reload = tokio::spawn(async move { post.send().await });
    // Nobody can write into a pipe before somebody reads it.
    let (opened, open) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || opened.send(std::fs::File::create(pipe)));
    let hanging = within("the gateway reads it", open)
        .await
        .expect("no panic");

    let checks = echo.requests();
    let took = slowest(&mut link, "/public/", 50).await;
    assert!(took < PROMPT, "requests: {took:?}");
    let took = slowest(&mut admin, "/livez", 10).await;
    assert!(took < PROMPT, "the admin listener: {took:?}");
    eventually("checks", async || echo.requests() > checks + 50 + 5).await;
    assert!(!reload.is_finished(), "it was going on all the time");

    // Whoever reads it next finds a file.
    Authority::new().write(&folder, "new.pem");
    let text = std::fs::read(folder.join("new.pem")).expect("a certificate");
    std::fs::rename(folder.join("new.pem"), &ca).expect("swapped");
    hanging.expect("opened").write_all(&text).expect("written");
    let reply = within("the reload", reload).await.expect("no panic");
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(
        link.get("/public/").await.status,
        200,
        "the same connection"
    );
}

/// A Redis that takes connections and says nothing costs who counts there a moment, and no reload anything. How long
/// the moment is, is in `traffic::shared_limits`.
#[tokio::test]
async fn a_redis_that_never_answers_holds_up_neither_a_reload_nor_requests() {
    let echo = Echo::start(local()).await.expect("upstream");
    let config = CHECKED.replace("ECHO", &echo.url());
    let gateway = GatewayProcess::start(&config).await;
    let silent = || RawUpstream::start(async |mut raw| drop(raw.rest().await));
    let (one, other) = (silent().await, silent().await);
    let mut link = Link::connect(gateway.address).await;
    let mut limited = Link::connect(gateway.address).await;
    assert_eq!(link.get("/public/").await.status, 200);
    let counted = config.replace("[[route]]", "[[route]]\nname = \"limited\"\npath = \"/limited/*\"\nupstream = \"echo\"\nauth = \"none\"\nrate_limit = { rate = \"1000/s\", burst = 1000 }\n\n[[route]]");
    for (redis, number) in [(&one, 1), (&other, 2), (&one, 3)] {
        let url = redis.url().replace("http:", "redis:");
        let store = format!("\n[store]\nurl = \"{url}\"\ntimeout = \"200ms\"\n");
        std::fs::write(gateway.file(), counted.clone() + &store).expect("written");
        let before = redis.connections();
        let reload = async {
            let started = Instant::now();
            let reply = request(gateway.admin, "POST", "/-/reload").send().await;
            assert_eq!(reply.status, 200, "{}", reply.text());
            started.elapsed()
        };
        let (reloaded, took) = tokio::join!(reload, slowest(&mut link, "/public/", 100));
        assert!(reloaded < PROMPT, "{number}: the reload took {reloaded:?}");
        assert!(took < PROMPT, "{number}: a request took {took:?}");
        eventually("it connects", async || redis.connections() > before).await;
        let took = slowest(&mut limited, "/limited/", 20).await;
        assert!(took < PROMPT, "{number}: a counted request took {took:?}");
        let took = slowest(&mut link, "/public/", 20).await;
        assert!(took < PROMPT, "{number}: another one took {took:?}");
    }
}

#[tokio::test]
async fn only_a_post_reloads() {
    let world = world().await;
    world.write(&generation(&world.read(), 2));
    for method in ["GET", "PUT"] {
        let reply = world.gateway.admin(method, "/-/reload").await;
        assert_eq!((reply.status, reply.header("allow")), (405, Some("POST")));
    }
    assert_eq!(
        world.get("/-/reload").send().await.status,
        404,
        "and not where clients are"
    );
}
