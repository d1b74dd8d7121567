//! Traces: what upstreams, the issuer and the access log are told, and what a collector gets.

use crate::harness::collector::{Collector, Mood, Span};
use crate::harness::program::{self, GatewayProcess, Running};
use crate::harness::{
    CONFIG, Gateway, Reply, World, eventually, local, nobody, request, with_lines,
};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

/// [`CONFIG`] with a collector, and this machine for a trusted proxy.
fn traced(url: &str, lines: &str) -> String {
    let trusted = with_lines(CONFIG, "[server]", "trusted_proxies = [\"127.0.0.0/8\"]");
    format!("{trusted}\n[telemetry]\notlp_endpoint = \"{url}\"\n{lines}\n")
}

/// Trace, span and flags that the upstream was told.
fn told(reply: &Reply) -> [String; 3] {
    let [traceparent] = &*reply.upstream_saw("traceparent") else {
        panic!("one traceparent: {}", reply.text());
    };
    let parts: Vec<_> = traceparent.split('-').map(str::to_owned).collect();
    let [version, trace, span, flags] = <[String; 4]>::try_from(parts).expect("four fields");
    assert_eq!(version, "00");
    [trace, span, flags]
}

async fn trace_of(gateway: &Gateway, reply: &Reply) -> String {
    let id = reply.header("x-request-id").expect("an id");
    let record = gateway.log.record(id).await;
    record["trace_id"].as_str().expect("a trace").to_owned()
}

#[track_caller]
fn assert_has(span: &Span, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        let found = span.attributes.get(*name).map(String::as_str);
        assert_eq!(found, Some(*value), "{name} of {span:#?}");
    }
}

// === Without [telemetry] ===

#[tokio::test]
async fn a_stranger_s_trace_is_replaced_and_a_trusted_one_goes_on() {
    let theirs = format!("00-{TRACE}-{SPAN}-01");
    let sent = |world: &World| {
        world
            .get("/public/1")
            .header("traceparent", &theirs)
            .header("tracestate", "a=1")
            .header("tracestate", "b=2")
    };
    let world = World::start().await;
    let first = sent(&world).send().await;
    let second = world.get("/public/1").send().await;
    let ([a, ..], [b, ..]) = (told(&first), told(&second));
    assert!(a != TRACE && b != TRACE && a != b, "{a} {b}");
    for reply in [&first, &second] {
        let [trace, span, flags] = told(reply);
        assert_ne!(span, SPAN);
        assert_eq!(flags, "00", "nobody records it");
        assert!(reply.upstream_saw("tracestate").is_empty());
        assert_eq!(trace_of(&world.gateway, reply).await, trace);
    }

    let trusting = with_lines(CONFIG, "[server]", "trusted_proxies = [\"127.0.0.0/8\"]");
    let world = World::with(&trusting).await;
    let reply = sent(&world).send().await;
    let [trace, span, flags] = told(&reply);
    assert_eq!((&*trace, &*flags), (TRACE, "01"));
    assert_ne!(span, SPAN);
    assert_eq!(reply.upstream_saw("tracestate"), ["a=1", "b=2"]);
    assert_eq!(trace_of(&world.gateway, &reply).await, TRACE);
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    let reply = world.get("/public/1").header("traceparent", unsampled);
    assert_eq!(told(&reply.send().await)[2], "00");

    // What is no traceparent is not passed on by anybody, nor what depends on it.
    for broken in [
        theirs.to_uppercase(),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("{theirs}-x"),
    ] {
        let reply = world
            .get("/public/1")
            .header("traceparent", &broken)
            .header("tracestate", "a=1")
            .send()
            .await;
        assert_ne!(told(&reply)[0], TRACE, "{broken}");
        assert!(reply.upstream_saw("tracestate").is_empty(), "{broken}");
    }
    let twice = sent(&world).header("traceparent", &theirs).send().await;
    assert_ne!(told(&twice)[0], TRACE);
    assert!(twice.upstream_saw("tracestate").is_empty());
}

#[tokio::test]
async fn explain_shows_the_header_that_would_be_sent() {
    let world = World::start().await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = |name: &str, config: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, config).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let trusted = with_lines(&config, "[server]", "trusted_proxies = [\"127.0.0.0/8\"]");
    let sampled = format!("{config}\n[telemetry]\n");
    let header = format!("traceparent: 00-{TRACE}-{SPAN}-01");
    for (name, config, goes_on, flags) in [
        ("stranger", &config, false, "00"),
        ("sampled", &sampled, false, "01"),
        ("trusted", &trusted, true, "01"),
    ] {
        let file = file(name, config);
        let arguments = ["explain", "-c", &file, "GET", "/public/1", "-H", &header];
        let said = program::call(folder.path(), &arguments).await;
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        let shown = said
            .stdout
            .lines()
            .find_map(|line| line.trim().strip_prefix("traceparent: "));
        let shown = shown.expect("a traceparent");
        assert_eq!(shown.len(), 55, "{shown}");
        assert_eq!(shown.contains(TRACE), goes_on, "{name}: {shown}");
        assert!(
            shown.ends_with(flags) && !shown.contains(SPAN),
            "{name}: {shown}"
        );
    }
}

// === With [telemetry] ===

#[tokio::test]
async fn a_collector_gets_the_spans_of_whatever_comes_of_a_request() {
    let collector = Collector::start().await;
    let dead = format!(
        "[upstream.dead]\nservers = [\"http://{}\"]\n[[route]]\nname = \"dead\"\npath = \"/dead\"\nupstream = \"dead\"\nauth = \"none\"\n",
        nobody()
    );
    let config = traced(
        &collector.url(),
        &format!("service_name = \"edge\"\n{dead}"),
    );
    let world = World::with(&config).await;

    // A success in a trace that goes on.
    let reply = world
        .authorized("/grants/1?q=1")
        .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
        .send()
        .await;
    assert_eq!(reply.status, 200);
    let [server, client] = &*collector.trace(TRACE, 2).await else {
        panic!("two spans");
    };
    let [trace, span, flags] = told(&reply);
    assert_eq!((&*trace, &*flags), (TRACE, "01"));
    assert_eq!(
        (server.kind, &*server.name, &*server.parent),
        (2, "GET grants", SPAN)
    );
    assert_eq!((client.kind, &*client.name), (3, "GET echo"));
    assert_eq!(client.id, span, "the upstream hangs beneath the call to it");
    assert_eq!(client.parent, server.id);
    assert_ne!(server.id, client.id);
    assert_eq!((server.status, client.status), (0, 0));
    assert!(server.start <= client.start && client.end <= server.end);
    assert!(client.start < client.end);
    assert_has(
        server,
        &[
            ("http.request.method", "GET"),
            ("http.response.status_code", "200"),
            ("http.route", "grants"),
            ("url.path", "/grants/1"),
            ("url.scheme", "http"),
            ("server.address", "127.0.0.1"),
            ("client.address", "127.0.0.1"),
        ],
    );
    assert_has(
        client,
        &[
            ("gateway.upstream", "echo"),
            ("http.response.status_code", "200"),
        ],
    );
    assert_eq!(server.resource["service.name"], "edge");
    assert!(server.resource.contains_key("service.version"));

    // A refusal: there is no upstream in it.
    let reply = world.get("/grants/1").send().await;
    assert_eq!(reply.status, 401);
    let trace = trace_of(&world.gateway, &reply).await;
    let [server] = &*collector.trace(&trace, 1).await else {
        panic!("one span");
    };
    assert_eq!(
        (server.status, &*server.parent),
        (0, ""),
        "the caller's fault"
    );
    assert_has(
        server,
        &[
            ("gateway.reason", "missing_token"),
            ("http.response.status_code", "401"),
        ],
    );

    // An upstream that is not there.
    let reply = world.get("/dead").send().await;
    assert_eq!(reply.status, 502);
    let trace = trace_of(&world.gateway, &reply).await;
    let [server, client] = &*collector.trace(&trace, 2).await else {
        panic!("two spans");
    };
    assert_eq!((server.status, client.status), (2, 2));
    assert_eq!(client.parent, server.id);
    assert_has(
        server,
        &[
            ("gateway.reason", "upstream_connect"),
            ("error.type", "upstream_connect"),
        ],
    );
    assert_has(client, &[("error.type", "upstream_connect")]);
    assert!(!client.attributes.contains_key("http.response.status_code"));

    // An upstream that fails, one that breaks off, and a path that leads nowhere.
    let reply = world.authorized("/grants/status/503").send().await;
    let trace = trace_of(&world.gateway, &reply).await;
    for span in collector.trace(&trace, 2).await {
        assert_eq!(span.status, 2);
        assert_has(&span, &[("error.type", "503")]);
    }
    let reply = world.get("/nowhere").send().await;
    let trace = trace_of(&world.gateway, &reply).await;
    let spans = collector.trace(&trace, 1).await;
    assert_has(
        &spans[0],
        &[("http.route", "-"), ("gateway.reason", "no_route")],
    );
    drop(world.get("/public/cut").try_send().await);
    eventually("what was broken off", || {
        let aborted = |span: &Span| span.attributes.contains_key("gateway.aborted");
        std::future::ready(collector.spans().iter().any(aborted))
    })
    .await;
    let exported = "gateway_trace_spans_exported_total";
    let count = collector.spans().len() as f64;
    eventually("spans are counted", || async {
        world.gateway.metric(exported).await == count
    })
    .await;
    assert_eq!(
        world
            .gateway
            .metric("gateway_trace_spans_dropped_total")
            .await,
        0.0
    );
}

#[tokio::test]
async fn an_issuer_is_told_the_trace_of_a_token_request() {
    let collector = Collector::start().await;
    let world = World::with(&traced(&collector.url(), "")).await;
    let issuer = crate::harness::Scripted::start(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 53\r\n\r\n{\"access_token\":\"x\",\"token_type\":\"Bearer\",\"expires\":1}",
    )
    .await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let endpoint = format!("token_endpoint = \"{}/token\"", issuer.url());
    std::fs::write(
        world.gateway.file(),
        with_lines(&config, "[issuer.bonterra]", &endpoint),
    )
    .expect("written");
    world
        .gateway
        .app
        .reloader
        .reload("test")
        .await
        .expect("reloaded");
    let reply = world
        .post("/oauth/token")
        .header("traceparent", format!("00-{TRACE}-{SPAN}-01"))
        .form(&[
            ("grant_type", "client_credentials"),
            ("client_id", "a"),
            ("client_secret", "b"),
        ])
        .send()
        .await;
    let spans = collector.trace(TRACE, 1).await;
    assert_eq!(spans[0].parent, SPAN);
    assert_eq!(spans[0].name, "POST oauth.bonterra");
    let told = format!("traceparent: 00-{TRACE}-{}-01\r\n", spans[0].id);
    let asked = issuer.received().concat();
    assert!(asked.contains(&told), "{}: {asked}", reply.text());
}

#[tokio::test]
async fn what_is_not_sampled_is_not_sent() {
    let collector = Collector::start().await;
    let world = World::with(&traced(&collector.url(), "sample = \"0%\"")).await;
    let other = TRACE.replace('4', "5");
    let unsampled = format!("00-{other}-{SPAN}-00");
    let send = async |traceparent: Option<String>| {
        let request = world.get("/public/1");
        let request = match traceparent {
            Some(value) => request.header("traceparent", value),
            None => request,
        };
        told(&request.send().await)
    };
    assert_eq!(send(None).await[2], "00");
    assert_eq!(send(Some(unsampled.clone())).await[2], "00");
    // A trusted proxy's decision is followed both ways; and this one comes last.
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    assert_eq!(send(Some(sampled)).await[2], "01");
    collector.trace(TRACE, 2).await;
    assert_eq!(collector.spans().len(), 2, "{:#?}", collector.spans());

    let collector = Collector::start().await;
    let world = World::with(&traced(&collector.url(), "sample = \"100%\"")).await;
    let reply = world.get("/public/1").header("traceparent", unsampled);
    assert_eq!(told(&reply.send().await)[2], "00");
    let [trace, _, flags] = told(&world.get("/public/1").send().await);
    assert_eq!(flags, "01");
    collector.trace(&trace, 2).await;
    assert_eq!(collector.spans().len(), 2, "{:#?}", collector.spans());
}

#[tokio::test]
async fn a_change_of_telemetry_takes_a_restart_and_says_so() {
    let collector = Collector::start().await;
    let world = World::start().await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let table = format!("[telemetry]\notlp_endpoint = \"{}\"\n", collector.url());
    std::fs::write(world.gateway.file(), format!("{config}\n{table}")).expect("written");
    let reloader = &world.gateway.app.reloader;
    let report = reloader.reload("test").await.expect("reloaded");
    assert_eq!(report.restart, ["telemetry"]);
    let reply = world.get("/public/1").send().await;
    assert_eq!(told(&reply)[2], "00", "nobody records it yet");
}

#[tokio::test]
async fn spans_tell_no_secret() {
    let collector = Collector::start().await;
    let world = World::with(&traced(&collector.url(), "")).await;
    let token = world.token_with(json!({ "sub": "canary-subject", "scope": "canary:scope" }));
    let reply = world
        .get("/grants/1?key=canary-query")
        .bearer(&token)
        .header("cookie", "a=canary-cookie")
        .header("tracestate", "a=canary-state")
        .header("baggage", "a=canary-baggage")
        .header("user-agent", "canary-agent")
        .send()
        .await;
    assert_eq!(reply.status, 200);
    let refused = world
        .get("/scoped/1?key=canary-query")
        .bearer(&token)
        .send()
        .await;
    assert_eq!(refused.status, 403);
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "canary-client"),
        ("client_secret", "canary-secret"),
    ];
    let asked = world
        .post("/oauth/token?key=canary-query")
        .form(&form)
        .send()
        .await;
    for (reply, count) in [(&reply, 2), (&refused, 1), (&asked, 1)] {
        let trace = trace_of(&world.gateway, reply).await;
        collector.trace(&trace, count).await;
    }
    let sent: Vec<u8> = collector.messages().concat();
    let text = String::from_utf8_lossy(&sent);
    assert!(text.contains("/grants/1"), "this is the right text");
    for secret in token.split('.').chain(["canary"]) {
        assert!(!text.contains(secret), "{secret}");
    }
}

// === Collectors that fail ===

#[tokio::test]
async fn a_collector_that_hangs_costs_spans_and_nothing_else() {
    const REQUESTS: u32 = 60;
    const QUEUE: u32 = 4;
    let collector = Collector::at(local(), Mood::Hangs, None).await;
    let lines = format!("timeout = \"3s\"\nqueue = {QUEUE}");
    let world = World::with(&traced(&collector.url(), &lines)).await;
    let started = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(world.get("/public/1").send().await.status, 200);
    }
    assert!(
        started.elapsed() < Duration::from_secs(3),
        "{:?}: no request waits for the collector",
        started.elapsed()
    );
    // What is neither in the queue nor in a batch on its way is gone, and counted.
    let at_most = f64::from(2 * (REQUESTS - 2 * QUEUE));
    let dropped = "gateway_trace_spans_dropped_total";
    let now = world.gateway.metric(dropped).await;
    assert!(now >= at_most, "{now} of {at_most}");
    let all = f64::from(2 * REQUESTS);
    eventually("all are dropped", || async {
        world.gateway.metric(dropped).await == all
    })
    .await;
    let exported = "gateway_trace_spans_exported_total";
    assert_eq!(world.gateway.metric(exported).await, 0.0);
    assert_eq!(world.get("/public/1").send().await.status, 200);
    // The end does not wait for it longer than `timeout`.
    let started = Instant::now();
    world.gateway.app.end().await;
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn the_end_delivers_what_waits() {
    let collector = Collector::start().await;
    let world = World::with(&traced(&collector.url(), "")).await;
    let mut traces = Vec::new();
    for _ in 0..20 {
        let [trace, ..] = told(&world.get("/public/1").send().await);
        traces.push(trace);
    }
    world.gateway.app.end().await;
    let spans = collector.spans();
    for trace in traces {
        let count = spans.iter().filter(|span| span.trace == trace).count();
        assert_eq!(count, 2, "{trace}");
    }
}

#[tokio::test]
async fn an_outage_is_one_line_in_the_log() {
    let address = nobody();
    let world = World::start().await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let gateway = GatewayProcess::start(&format!(
        "{config}\n[telemetry]\notlp_endpoint = \"http://{address}\"\n"
    ))
    .await;
    let metric = async |name: &str| {
        let text = request(gateway.admin, "GET", "/metrics")
            .send()
            .await
            .text();
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
        text.lines().find_map(value).unwrap_or(0.0)
    };
    let lines = |message: &str| {
        let records = gateway.running.stderr.records();
        let said = records.iter().filter(|record| {
            let own = record["message"].as_str();
            own.is_some_and(|own| own.starts_with(message))
        });
        said.count()
    };
    const GONE: &str = "the collector does not take spans";
    const BACK: &str = "the collector takes spans again";
    for dropped in [2.0, 4.0, 6.0] {
        let reply = request(gateway.address, "GET", "/public/1").send().await;
        assert_eq!(reply.status, 200);
        eventually("spans are dropped", || async {
            metric("gateway_trace_spans_dropped_total").await == dropped
        })
        .await;
    }
    assert_eq!(lines(GONE), 1);
    let collector = Collector::at(address, Mood::Takes, None).await;
    eventually("spans arrive", || async {
        request(gateway.address, "GET", "/public/1").send().await;
        !collector.spans().is_empty()
    })
    .await;
    let back = gateway.logged(BACK).await;
    assert!(back["lost"].as_u64() >= Some(6), "{back}");
    assert_eq!((lines(GONE), lines(BACK)), (1, 1));
}

#[tokio::test]
async fn a_collector_behind_tls_is_checked_against_the_system_s_authorities() {
    let names = vec!["localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = tokio_rustls::rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der())
        .expect("a key");
    let mut tls = tokio_rustls::rustls::ServerConfig::builder_with_provider(
        tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().into(),
    )
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(vec![cert.der().clone()], key)
    .expect("a configuration");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let collector = Collector::at(local(), Mood::Takes, Some(Arc::new(tls).into())).await;
    let world = World::start().await;
    let config = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let folder = tempfile::TempDir::new().expect("a folder");
    let (file, roots) = (folder.path().join("gateway.toml"), folder.path().join("ca"));
    std::fs::write(&roots, cert.pem()).expect("written");
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let config = format!("{config}\n[telemetry]\notlp_endpoint = \"{endpoint}\"\n");
    std::fs::write(&file, config).expect("written");
    let start = |roots: &Path| {
        let mut command = program::program(&["run", "-c", file.to_str().expect("UTF-8")]);
        command
            .env("SSL_CERT_FILE", roots)
            .env_remove("SSL_CERT_DIR");
        Running::start(command)
    };
    let serving = async |running: &Running| {
        eventually("the gateway serves", || {
            std::future::ready(running.event("serving").is_some())
        })
        .await;
        let event = running.event("serving").expect("serving");
        let listen = event["listen"].as_str().expect("an address");
        listen.trim_matches(['[', ']']).parse().expect("an address")
    };
    // An authority that has nothing to do with it.
    let other = rcgen::generate_simple_self_signed(vec!["other".to_owned()]).expect("another");
    let strangers = folder.path().join("strangers");
    std::fs::write(&strangers, other.cert.pem()).expect("written");
    let running = start(&strangers);
    let address = serving(&running).await;
    assert_eq!(
        request(address, "GET", "/public/1").send().await.status,
        200
    );
    eventually("the collector is not believed", || {
        let message = "the collector does not take spans";
        std::future::ready(running.event(message).is_some())
    })
    .await;
    assert!(collector.spans().is_empty());
    drop(running);

    let running = start(&roots);
    let address = serving(&running).await;
    let [trace, ..] = told(&request(address, "GET", "/public/1").send().await);
    collector.trace(&trace, 2).await;
}

#[tokio::test]
async fn what_cannot_be_a_collector_is_a_mistake() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.toml");
    for (line, expected) in [
        ("otlp_endpoint = \"localhost:4317\"", "http://"),
        (
            "otlp_endpoint = \"http://localhost:4318/v1/traces\"",
            "without a path",
        ),
        ("otlp_endpoint = \"http://u:p@localhost\"", "no user"),
        ("timeout = \"0s\"", "a time of zero"),
        ("queue = 0", "1 to 1048576"),
        ("queue = 2000000", "1 to 1048576"),
        ("service_name = \"\"", "a name"),
        ("endpoint = \"http://localhost\"", "otlp_endpoint"),
        ("sample = 0.5", "percentage"),
    ] {
        let route = "[upstream.a]\nservers = [\"http://127.0.0.1:1\"]\n[[route]]\nname = \"a\"\npath = \"/a\"\nupstream = \"a\"\nauth = \"none\"\n";
        std::fs::write(&path, format!("{route}[telemetry]\n{line}\n")).expect("written");
        let file = path.to_str().expect("UTF-8");
        let said = program::call(folder.path(), &["check", "-c", file]).await;
        let text = said.stdout + &said.stderr;
        assert_eq!(said.code, Some(2), "{line}: {text}");
        assert!(text.contains(expected), "{line}: {text}");
    }
}
