//! What the gateway says of itself: metrics as DESIGN §5 names them, and one record per request.

use crate::harness::link::{Link, nothing, whole};
use crate::harness::program::GatewayProcess;
use crate::harness::{CONFIG, Gateway, Raw, Reply, World, eventually, request, with_lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth, KeyChoice};
use bonterra_gateway::demo::echo::Echo;
use http::Request;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

const MACHINE: [(&str, &str); 3] = [
    ("grant_type", "client_credentials"),
    ("client_id", "demo-client"),
    ("client_secret", "demo-secret"),
];

/// An exposition, read as Prometheus reads it.
struct Exposition {
    /// Name with labels, and value.
    series: BTreeMap<String, f64>,
    /// Families with a help text, and their types.
    types: BTreeMap<String, String>,
}

impl Exposition {
    async fn of(gateway: &Gateway) -> Self {
        Self::parse(&gateway.admin("GET", "/metrics").await)
    }

    fn parse(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200);
        assert_eq!(
            reply.header("content-type"),
            Some("text/plain; version=0.0.4; charset=utf-8")
        );
        let text = reply.text();
        let (mut series, mut types, mut helped) =
            (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.trim().is_empty(), "{name}");
                helped.insert(name.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert!(helped.contains(name), "{name} has no help text");
                types.insert(name.to_owned(), kind.to_owned());
            } else {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                let value = value.parse().expect("a number");
                assert!(
                    series.insert(name.to_owned(), value).is_none(),
                    "{name} twice"
                );
            }
        }
        Self { series, types }
    }

    fn get(&self, series: &str) -> f64 {
        *self
            .series
            .get(series)
            .unwrap_or_else(|| panic!("no {series} in {:#?}", self.series.keys()))
    }

    /// The names of a family's labels.
    fn labels(&self, family: &str) -> BTreeSet<String> {
        let of_family = |name: &&String| {
            let rest = name.strip_prefix(family).unwrap_or("x");
            ["", "_bucket", "_count", "_sum"].iter().any(|suffix| {
                rest.strip_prefix(suffix)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
            })
        };
        let names = self.series.keys().filter(of_family);
        let labels = names.flat_map(|name| {
            name.split_once('{')
                .map_or("", |(_, labels)| labels)
                .split("\",")
        });
        let labels = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
        labels.filter(|label| label != "le").collect()
    }
}

/// One of each: admitted twice, refused, nowhere, a token, and a token refused.
async fn some_traffic(world: &World) {
    let authorized = world.authorized("/grants/1");
    for _ in 0..2 {
        assert_eq!(authorized.send().await.status, 200);
    }
    assert_eq!(world.get("/grants/1").send().await.status, 401);
    assert_eq!(
        world
            .get("/grants/1")
            .bearer("no.token")
            .send()
            .await
            .status,
        401
    );
    let expired = world.token_with(json!({ "exp": 1_000_000_000 }));
    assert_eq!(
        world.get("/grants/1").bearer(&expired).send().await.status,
        401
    );
    assert_eq!(world.get("/nowhere").send().await.status, 404);
    assert_eq!(
        world
            .post("/oauth/token")
            .form(&MACHINE)
            .send()
            .await
            .status,
        200
    );
    assert_eq!(
        world
            .post("/oauth/token")
            .form(&[("grant_type", "magic")])
            .send()
            .await
            .status,
        400
    );
    assert_eq!(
        request(world.gateway.address, "BREW", "/public/")
            .send()
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn every_metric_is_there_with_its_labels() {
    let world = World::start().await;
    some_traffic(&world).await;
    let metrics = Exposition::of(&world.gateway).await;
    for (family, kind, labels) in [
        ("requests_total", "counter", "route method code"),
        ("request_duration_seconds", "histogram", "route"),
        ("upstream_request_duration_seconds", "histogram", "upstream"),
        ("requests_in_flight", "gauge", ""),
        ("connections", "gauge", "listener"),
        ("auth_decisions_total", "counter", "issuer outcome reason"),
        ("rejections_total", "counter", "route reason"),
        ("verified_token_cache_requests_total", "counter", "result"),
        ("jwks_fetches_total", "counter", "issuer result"),
        ("jwks_last_success_timestamp_seconds", "gauge", "issuer"),
        ("jwks_fresh_until_timestamp_seconds", "gauge", "issuer"),
        ("jwks_keys", "gauge", "issuer"),
        (
            "oauth_requests_total",
            "counter",
            "surface endpoint grant outcome",
        ),
        (
            "oauth_request_duration_seconds",
            "histogram",
            "surface endpoint",
        ),
        ("trace_spans_exported_total", "counter", ""),
        ("trace_spans_dropped_total", "counter", ""),
        ("config_last_reload_successful", "gauge", ""),
        ("config_last_reload_success_timestamp_seconds", "gauge", ""),
        ("build_info", "gauge", "version revision"),
    ] {
        let family = format!("gateway_{family}");
        assert_eq!(
            metrics.types.get(&family).map(String::as_str),
            Some(kind),
            "{family}"
        );
        let expected: BTreeSet<String> = labels.split_whitespace().map(str::to_owned).collect();
        assert_eq!(metrics.labels(&family), expected, "{family}");
    }
    assert!(metrics.get("process_cpu_seconds_total") >= 0.0);
    for name in [
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(metrics.get(name) > 0.0, "{name}");
    }
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let world = World::start().await;
    some_traffic(&world).await;
    let metrics = Exposition::of(&world.gateway).await;
    for (series, expected) in [
        (
            "requests_total{code=\"200\",method=\"GET\",route=\"grants\"}",
            2.0,
        ),
        (
            "requests_total{code=\"401\",method=\"GET\",route=\"grants\"}",
            3.0,
        ),
        (
            "requests_total{code=\"404\",method=\"GET\",route=\"-\"}",
            1.0,
        ),
        (
            "requests_total{code=\"200\",method=\"POST\",route=\"oauth.bonterra\"}",
            1.0,
        ),
        (
            "requests_total{code=\"400\",method=\"POST\",route=\"oauth.bonterra\"}",
            1.0,
        ),
        (
            "requests_total{code=\"200\",method=\"other\",route=\"public\"}",
            1.0,
        ),
        ("request_duration_seconds_count{route=\"grants\"}", 5.0),
        (
            "request_duration_seconds_count{route=\"oauth.bonterra\"}",
            2.0,
        ),
        (
            "upstream_request_duration_seconds_count{upstream=\"echo\"}",
            3.0,
        ),
        ("requests_in_flight", 0.0),
        (
            "auth_decisions_total{issuer=\"bonterra\",outcome=\"accepted\",reason=\"ok\"}",
            2.0,
        ),
        (
            "auth_decisions_total{issuer=\"-\",outcome=\"refused\",reason=\"malformed_token\"}",
            1.0,
        ),
        (
            "auth_decisions_total{issuer=\"bonterra\",outcome=\"refused\",reason=\"expired\"}",
            1.0,
        ),
        (
            "rejections_total{reason=\"missing_token\",route=\"grants\"}",
            1.0,
        ),
        (
            "rejections_total{reason=\"malformed_token\",route=\"grants\"}",
            1.0,
        ),
        ("rejections_total{reason=\"expired\",route=\"grants\"}", 1.0),
        ("rejections_total{reason=\"no_route\",route=\"-\"}", 1.0),
        ("verified_token_cache_requests_total{result=\"hit\"}", 1.0),
        ("verified_token_cache_requests_total{result=\"miss\"}", 3.0),
        ("jwks_fetches_total{issuer=\"bonterra\",result=\"ok\"}", 1.0),
        ("jwks_keys{issuer=\"bonterra\"}", 2.0),
        (
            "oauth_requests_total{endpoint=\"token\",grant=\"client_credentials\",outcome=\"issued\",surface=\"bonterra\"}",
            1.0,
        ),
        (
            "oauth_requests_total{endpoint=\"token\",grant=\"unknown\",outcome=\"unsupported_grant_type\",surface=\"bonterra\"}",
            1.0,
        ),
        (
            "oauth_request_duration_seconds_count{endpoint=\"token\",surface=\"bonterra\"}",
            2.0,
        ),
        ("config_last_reload_successful", 1.0),
    ] {
        assert_eq!(
            metrics.get(&format!("gateway_{series}")),
            expected,
            "{series}"
        );
    }
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a clock")
        .as_secs_f64();
    for series in [
        "jwks_last_success_timestamp_seconds{issuer=\"bonterra\"}",
        "config_last_reload_success_timestamp_seconds",
    ] {
        let age = now - metrics.get(&format!("gateway_{series}"));
        assert!((-1.0..30.0).contains(&age), "{series}: {age} s ago");
    }
    let build = metrics
        .series
        .iter()
        .find(|(name, _)| name.starts_with("gateway_build_info"))
        .expect("build_info");
    assert!(
        build
            .0
            .contains(&format!("version=\"{}\"", env!("CARGO_PKG_VERSION"))),
        "{build:?}"
    );
    assert_eq!(*build.1, 1.0);
}

#[tokio::test]
async fn what_goes_on_now_is_counted_now() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let slow = tokio::spawn(async move { link.get("/public/slow-head?ms=300").await.status });
    eventually("in flight", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 1.0
    })
    .await;
    let open = format!(
        "gateway_connections{{listener=\"{}\"}}",
        world.gateway.address
    );
    assert_eq!(world.gateway.metric(&open).await, 1.0);
    assert_eq!(slow.await.expect("no panic"), 200);
    eventually("no more", async || {
        world.gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn histograms_have_the_durations() {
    let world = World::start().await;
    for _ in 0..10 {
        assert_eq!(
            world.get("/public/slow-head?ms=60").send().await.status,
            200
        );
    }
    let metrics = Exposition::of(&world.gateway).await;
    for (family, label) in [
        ("gateway_request_duration_seconds", "route=\"public\""),
        (
            "gateway_upstream_request_duration_seconds",
            "upstream=\"echo\"",
        ),
    ] {
        let bucket = |le: &str| metrics.get(&format!("{family}_bucket{{{label},le=\"{le}\"}}"));
        assert_eq!(bucket("0.05"), 0.0, "{family}");
        assert_eq!(bucket("10"), 10.0, "{family}");
        assert_eq!(bucket("+Inf"), 10.0, "{family}");
        assert_eq!(metrics.get(&format!("{family}_count{{{label}}}")), 10.0);
        let sum = metrics.get(&format!("{family}_sum{{{label}}}"));
        assert!((0.6..10.0).contains(&sum), "{family}: {sum} s in all");
    }
}

/// Labels hold nothing that a client makes up.
#[tokio::test]
async fn what_clients_invent_makes_no_series() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let token = world.auth.token();
    let mut kinds = Vec::new();
    for number in 0..1000 {
        let mut send =
            async |method: &str, path: String, headers: &[(&str, String)], body: String| {
                let mut builder = Request::builder().method(method).uri(path);
                for (name, value) in headers {
                    builder = builder.header(*name, value);
                }
                link.send(builder.body(whole(body)).expect("a request"))
                    .await
                    .status
            };
        let plain = |method: &str| (method.to_owned(), Vec::new());
        let (method, headers) = plain("GET");
        let statuses = [
            send(
                &method,
                format!("/nowhere/{number}"),
                &headers,
                String::new(),
            )
            .await,
            send(
                &method,
                format!("/public/{number}?{number}={number}"),
                &headers,
                String::new(),
            )
            .await,
            send(&format!("M{number}"), "/public/".into(), &[], String::new()).await,
            send(
                "GET",
                "/public/".into(),
                &[("host", format!("h{number}.example"))],
                String::new(),
            )
            .await,
            send(
                "GET",
                "/grants/".into(),
                &[("authorization", format!("Bearer {token}{number:04}"))],
                String::new(),
            )
            .await,
            send(
                "POST",
                "/oauth/token".into(),
                &[("content-type", "application/x-www-form-urlencoded".into())],
                format!("grant_type=g{number}&client_id=c{number}"),
            )
            .await,
        ];
        if number == 0 {
            kinds = Exposition::of(&world.gateway)
                .await
                .series
                .into_keys()
                .collect();
            assert_eq!(statuses, [404, 200, 200, 200, 401, 400]);
        }
    }
    // Whatever claims to be somebody else is the same stranger.
    for number in 0..20 {
        let foreign = world.token_with(json!({ "iss": format!("https://{number}.example/") }));
        assert_eq!(
            world.get("/grants/").bearer(&foreign).send().await.status,
            401
        );
        let key = json!({ "kid": format!("k{number}") });
        let unknown = world
            .auth
            .mint_with(&key, &world.auth.claims(), &KeyChoice::Current);
        assert_eq!(
            world.get("/grants/").bearer(&unknown).send().await.status,
            401
        );
    }
    let after = Exposition::of(&world.gateway).await.series;
    let new: Vec<_> = after.keys().filter(|name| !kinds.contains(name)).collect();
    // The two reasons that were new at the end, each as a decision and as a rejection.
    assert!(new.len() <= 4, "{new:#?}");
    assert_eq!(
        after["gateway_requests_total{code=\"404\",method=\"GET\",route=\"-\"}"],
        1000.0
    );
}

#[tokio::test]
async fn a_record_tells_the_whole_exchange() {
    let world = World::start().await;
    let mut link = Link::connect(world.gateway.address).await;
    let post = Request::post("/grants/slow-head?ms=150&secret=1")
        .header("authorization", format!("Bearer {}", world.auth.token()))
        .header("host", "Grants.example:8080")
        .body(whole("twelve bytes"));
    let reply = link.send(post.expect("a request")).await;
    assert_eq!(reply.status, 200);
    let mut record = world
        .gateway
        .log
        .record(reply.header("x-request-id").expect("an id"))
        .await;
    let mut take = |name: &str| {
        record
            .as_object_mut()
            .expect("an object")
            .remove(name)
            .unwrap_or(Value::Null)
    };
    let time = take("time");
    let time = humantime::parse_rfc3339(time.as_str().expect("a time")).expect("RFC 3339");
    assert!(time.elapsed().expect("the past").as_secs() < 30);
    let [total, upstream, own] = ["duration", "upstream_duration", "own_duration"]
        .map(|name| take(name).as_f64().expect("seconds"));
    assert!((0.15..5.0).contains(&upstream), "upstream {upstream}");
    assert!(
        own > 0.0 && total >= upstream + own && total < 5.0,
        "total {total}, upstream {upstream}, own {own}"
    );
    assert!(take("request_id").is_string());
    let trace = reply.upstream_saw("traceparent")[0][3..35].to_owned();
    assert_eq!(take("trace_id"), json!(trace), "as the upstream saw it");
    assert_eq!(
        record,
        json!({
            "client": "127.0.0.1",
            "method": "POST",
            "host": "Grants.example:8080",
            "path": "/grants/slow-head",
            "route": "grants",
            "status": 200,
            "issuer": "bonterra",
            "subject": "demo-client@clients",
            "upstream": "echo",
            "retries": 0,
            "request_bytes": 12,
            "response_bytes": reply.body.len(),
        })
    );
}

#[tokio::test]
async fn there_is_one_record_for_every_request_however_it_ends() {
    let world = World::start().await;
    some_traffic(&world).await;
    assert_eq!(
        world.authorized("/grants/status/500").send().await.status,
        500
    );
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("no HTTP at all\r\n\r\n").await;
    assert!(raw.rest().await.starts_with("HTTP/1.1 400"));
    drop(world.get("/public/cut").try_send().await);
    eventually("all records", || {
        std::future::ready(world.gateway.log.records().len() >= 12)
    })
    .await;
    let records = world.gateway.log.records();
    assert_eq!(records.len(), 12, "{records:#?}");
    let ids: BTreeSet<_> = records
        .iter()
        .map(|record| record["request_id"].to_string())
        .collect();
    assert_eq!(ids.len(), 12);
    let aborted: Vec<_> = records
        .iter()
        .filter(|record| record["aborted"] == true)
        .collect();
    assert_eq!(aborted.len(), 1);
    assert_eq!(aborted[0]["path"], json!("/public/cut"));
    for record in &records {
        assert_eq!(
            record["reason"].is_string(),
            matches!(record["status"].as_u64(), Some(400 | 401 | 404))
                && record["route"] != "oauth.bonterra",
            "{record}"
        );
        assert!(
            record["duration"].as_f64() >= record["own_duration"].as_f64(),
            "{record}"
        );
    }
}

#[tokio::test]
async fn a_sample_of_none_still_has_the_failures() {
    let config = CONFIG.replace(
        "[upstream.echo]",
        "[log]\nsample = \"0%\"\n\n[upstream.echo]",
    );
    let world = World::with(&config).await;
    some_traffic(&world).await;
    assert_eq!(world.get("/public/status/500").send().await.status, 500);
    assert_eq!(world.get("/public/status/404").send().await.status, 404);
    drop(world.get("/public/cut").try_send().await);
    eventually("the failures", || {
        std::future::ready(world.gateway.log.records().len() >= 8)
    })
    .await;
    let records = world.gateway.log.records();
    let mut statuses: Vec<_> = records
        .iter()
        .map(|record| record["status"].as_u64().expect("a status"))
        .collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 400, 401, 401, 401, 404, 404, 500],
        "the 200 broke off"
    );
    let metrics = Exposition::of(&world.gateway).await;
    assert_eq!(
        metrics.get("gateway_requests_total{code=\"200\",method=\"GET\",route=\"grants\"}"),
        2.0,
        "counted all the same"
    );
}

#[tokio::test]
async fn no_access_log_is_none() {
    let config = CONFIG.replace(
        "[upstream.echo]",
        "[log]\naccess = false\n\n[upstream.echo]",
    );
    let world = World::with(&config).await;
    some_traffic(&world).await;
    let Gateway { app, log, .. } = world.gateway;
    app.stop().await;
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn records_may_be_text() {
    let config = CONFIG.replace(
        "[upstream.echo]",
        "[log]\nformat = \"text\"\n\n[upstream.echo]",
    );
    let world = World::with(&config).await;
    assert_eq!(
        world.authorized("/grants/1?secret=1").send().await.status,
        200
    );
    assert_eq!(world.get("/grants/2").send().await.status, 401);
    eventually("two lines", || {
        std::future::ready(world.gateway.log.text().lines().count() == 2)
    })
    .await;
    let text = world.gateway.log.text();
    let (good, bad) = text.split_once('\n').expect("two lines");
    for part in [
        " 127.0.0.1 200 GET 127.0.0.1:",
        "/grants/1 route=grants ",
        "ms (upstream ",
        " upstream=\"echo\"",
        " subject=\"demo-client@clients\"",
    ] {
        assert!(good.contains(part), "no {part:?} in {good}");
    }
    assert!(
        bad.contains(" 401 GET ") && bad.contains(" reason=\"missing_token\""),
        "{bad}"
    );
    assert!(!text.contains("secret"), "{text}");
}

/// A line of text is one record, whatever a client puts into it.
#[tokio::test]
async fn clients_cannot_forge_a_record() {
    let config = CONFIG.replace(
        "[upstream.echo]",
        "[log]\nformat = \"text\"\n\n[upstream.echo]",
    );
    let world = World::with(&config).await;
    let forged =
        world.token_with(json!({ "sub": "x\n2030-01-01T00:00:00Z 127.0.0.1 200 GET forged" }));
    world.get("/grants/1").bearer(&forged).send().await;
    world.get("/grants/%0a2030").send().await;
    world.get("/public/x").header("host", "a\tb").send().await;
    let mut raw = Raw::connect(world.gateway.address).await;
    raw.send("GET /public/x HTTP/1.1\r\nHost: a\u{e9}\u{1b}[31m\r\n\r\n")
        .await;
    raw.reply().await;
    eventually("four records", || {
        std::future::ready(world.gateway.log.text().lines().count() >= 4)
    })
    .await;
    let text = world.gateway.log.text();
    assert_eq!(text.lines().count(), 4, "{text}");
    assert!(
        text.chars().all(|char| char == '\n' || !char.is_control()),
        "{text:?}"
    );
}

/// Neither at the level that says everything, nor in what clients and scrapers get.
#[tokio::test]
async fn nothing_secret_is_ever_written() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let echo = Echo::start(crate::harness::local())
        .await
        .expect("upstream");
    let config = CONFIG
        .replace("ISSUER", auth.issuer())
        .replace("ECHO", &echo.url());
    let config = with_lines(&config, "[upstream.echo]", "connect_timeout = \"1s\"");
    let gateway = GatewayProcess::start(&config.replace(
        "[upstream.echo]",
        "[log]\nlevel = \"trace\"\n\n[upstream.echo]",
    ))
    .await;
    gateway.logged("ready").await;
    let post = || request(gateway.address, "POST", "/oauth/token");
    let get = |path: &str| request(gateway.address, "GET", path);

    let basic = STANDARD.encode("demo-client:demo-secret");
    let token = auth.token();
    let expired = {
        let mut claims = auth.claims();
        claims["exp"] = json!(1_000_000_000);
        auth.mint(&claims)
    };
    let code = [
        ("grant_type", "authorization_code"),
        ("client_id", "demo-web"),
        ("code", "s3cret-code"),
        ("code_verifier", "s3cret-verifier"),
    ];
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", "demo-web"),
        ("refresh_token", "s3cret-refresh"),
    ];
    let wrong = [
        ("grant_type", "client_credentials"),
        ("client_id", "demo-client"),
        ("client_secret", "s3cret-wrong"),
    ];
    let twice = [
        ("grant_type", "client_credentials"),
        ("client_secret", "s3cret-twice"),
        ("client_secret", "s3cret-twice"),
    ];
    let mut said = Vec::new();
    // 0: whatever the issuer or the gateway makes of it.
    for (request, status) in [
        (post().form(&MACHINE), 200),
        (post().header("authorization", format!("Basic {basic}")).form(&[("grant_type", "client_credentials")]), 200),
        (post().json(&json!({ "grant_type": "client_credentials", "client_id": "demo-client", "client_secret": "demo-secret" })), 200),
        (post().form(&wrong), 401),
        (post().form(&twice), 400),
        (post().form(&code), 0),
        (post().form(&refresh), 0),
        (post().header("content-type", "application/json").body("{\"client_secret\": \"s3cret-json"), 400),
        (get("/grants/1?access_token=s3cret-query").bearer(&token).header("cookie", "sid=s3cret-cookie"), 0),
        (get("/grants/1?code=s3cret-query").bearer(&token).header("cookie", "sid=s3cret-cookie"), 200),
        (get("/grants/1").bearer(&expired), 401),
        (get("/grants/1").bearer(&format!("{token}x")), 401),
        (get("/grants/1").header("authorization", "Basic s3cret-basic"), 401),
        (get("/nowhere/?token=s3cret-query").header("x-api-key", "s3cret-key"), 404),
    ] {
        let reply = request.send().await;
        assert!(status == 0 || reply.status == status, "{request:?}: {} {}", reply.status, reply.text());
        if reply.status >= 400 {
            said.push(reply.text());
            said.push(format!("{:?}", reply.headers));
        }
    }
    for path in ["/metrics", "/", "/readyz?verbose"] {
        said.push(request(gateway.admin, "GET", path).send().await.text());
    }
    said.push(
        request(gateway.admin, "POST", "/-/reload")
            .send()
            .await
            .text(),
    );
    eventually("all records", || {
        std::future::ready(gateway.running.stdout.records().len() >= 14)
    })
    .await;
    said.push(gateway.running.stdout.text());
    said.push(gateway.running.stderr.text());
    let said = said.join("\n");
    let part = |token: &str, at: usize| token.split('.').nth(at).expect("three parts").to_owned();
    let secrets = [
        "s3cret",
        "demo-secret",
        &basic,
        &part(&token, 1),
        &part(&token, 2),
        &part(&expired, 1),
        &part(&expired, 2),
    ];
    for secret in secrets {
        let found = said.lines().find(|line| line.contains(secret));
        assert_eq!(found, None, "{secret}");
    }
    assert!(
        said.contains("\"level\":\"TRACE\"") || said.contains("\"level\":\"DEBUG\""),
        "the level was not in force"
    );
}

#[tokio::test]
async fn the_admin_listener_answers_what_it_should_and_nothing_else() {
    let world = World::start().await;
    for (method, path, status, part) in [
        ("GET", "/livez", 200, "ok"),
        ("GET", "/readyz", 200, "ready"),
        ("GET", "/readyz?verbose", 200, "[+] issuer bonterra"),
        ("GET", "/", 200, "/metrics"),
        ("HEAD", "/metrics", 200, ""),
        ("POST", "/metrics", 405, "GET"),
        ("DELETE", "/livez", 405, "GET"),
        ("GET", "/nowhere", 404, ""),
        ("GET", "/grants/1", 404, ""),
        ("POST", "/oauth/token", 404, ""),
    ] {
        let reply = world.gateway.admin(method, path).await;
        assert_eq!(reply.status, status, "{method} {path}");
        assert!(
            reply.text().contains(part),
            "{method} {path}: {}",
            reply.text()
        );
    }
    for path in ["/metrics", "/livez", "/readyz"] {
        assert_eq!(
            world.get(path).send().await.status,
            404,
            "{path} is not for clients"
        );
    }
    assert!(
        world
            .gateway
            .log
            .records()
            .iter()
            .all(|record| record["status"] == 404),
        "scrapes are no requests"
    );
    let mut link = Link::connect(world.gateway.admin).await;
    for _ in 0..3 {
        assert_eq!(
            link.send(Request::get("/livez").body(nothing()).expect("a request"))
                .await
                .status,
            200
        );
    }
}
