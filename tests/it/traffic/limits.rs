//! `rate_limit`, counted by one gateway.

use super::{behind_proxy, on_route};
use crate::harness::program::call;
use crate::harness::{Gateway, Reply, World, assert_refused, nobody};
use serde_json::json;
use std::time::{Duration, Instant};

/// Slow enough that nothing comes back while a test runs.
const HOURLY: &str = r#"rate_limit = { rate = "1/h", burst = 3, by = "client" }"#;

fn number(reply: &Reply, name: &str, parameter: &str) -> u32 {
    let value = reply.header(name).expect(name);
    let found = value
        .split(';')
        .find_map(|part| part.strip_prefix(parameter));
    found.and_then(|text| text.parse().ok()).expect(parameter)
}

#[tokio::test]
async fn a_burst_then_429_until_there_is_more() {
    let limit = r#"rate_limit = { rate = "2/s", burst = 5 }"#;
    let world = World::with(&on_route("public", limit)).await;
    let begun = Instant::now();
    let mut admitted = 0;
    let refused = loop {
        let reply = world.get("/public/x").send().await;
        if reply.status == 429 {
            break reply;
        }
        assert_eq!(reply.status, 200);
        admitted += 1;
        assert_eq!(
            reply.header("ratelimit-policy"),
            Some("\"public\";q=5;w=3"),
            "2.5 seconds, rounded up"
        );
        let left = number(&reply, "ratelimit", "r=");
        assert!(left < 5);
        assert!(reply.header("retry-after").is_none());
    };
    let refilled = (begun.elapsed().as_secs_f64() * 2.0).floor() as u32;
    assert!((5..=5 + refilled).contains(&admitted), "{admitted}");
    let seen = world.echo.seen().len();
    assert_eq!(seen, admitted as usize, "a refused request goes nowhere");
    assert_refused(&world.gateway, &refused, 429, "rate_limited", "public").await;
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.header("ratelimit"), Some("\"public\";r=0;t=1"));
    assert_eq!(
        refused.header("ratelimit-policy"),
        Some("\"public\";q=5;w=3")
    );
    let counted = world
        .gateway
        .metric("gateway_rate_limited_total{route=\"public\"}")
        .await;
    assert_eq!(counted, 1.0);
    // Who waits as told is let in.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.get("/public/x").send().await.status, 200);
    // Routes without a limit say nothing of limits.
    let other = world.get("/optional/x").send().await;
    assert!(other.header("ratelimit").is_none());
    assert!(other.header("ratelimit-policy").is_none());
}

#[tokio::test]
async fn clients_are_counted_each_for_itself() {
    let world = World::with(&on_route("optional", HOURLY)).await;
    let token = |azp: &str, sub: &str| world.token_with(json!({"azp": azp, "sub": sub}));
    let status = async |token: &str| {
        let request = world.get("/optional/x").bearer(token);
        request.send().await.status
    };
    // One client with many subjects and many tokens.
    for sub in ["s", "t", "u"] {
        assert_eq!(status(&token("a", sub)).await, 200);
    }
    assert_eq!(status(&token("a", "v")).await, 429);
    assert_eq!(status(&token("b", "s")).await, 200);
    // A subject of that name is no client, and nobody is neither.
    let subject = world.token_with(json!({"azp": null, "client_id": null, "sub": "a"}));
    assert_eq!(status(&subject).await, 200);
    assert_eq!(world.get("/optional/x").send().await.status, 200);
    // What is refused for another reason takes nothing.
    let old = world.token_with(json!({"azp": "c", "exp": 1}));
    for _ in 0..5 {
        assert_eq!(status(&old).await, 401);
    }
    for _ in 0..3 {
        assert_eq!(status(&token("c", "s")).await, 200);
    }
    assert_eq!(status(&token("c", "s")).await, 429);
}

#[tokio::test]
async fn subjects_are_counted_each_for_itself() {
    let limit = HOURLY.replace("client", "subject");
    let world = World::with(&on_route("optional", &limit)).await;
    let status = async |azp: &str, sub: &str| {
        let token = world.token_with(json!({"azp": azp, "sub": sub}));
        let request = world.get("/optional/x").bearer(&token);
        request.send().await.status
    };
    for azp in ["a", "b", "c"] {
        assert_eq!(status(azp, "s").await, 200);
    }
    assert_eq!(status("d", "s").await, 429);
    assert_eq!(status("d", "t").await, 200);
}

#[tokio::test]
async fn addresses_are_counted_as_trusted_proxies_tell_them_and_before_tokens() {
    let limit = HOURLY.replace("client", "ip");
    let world = World::with(&behind_proxy(&on_route("grants", &limit))).await;
    let status = async |client: &str| {
        let request = world
            .authorized("/grants/1")
            .header("x-forwarded-for", client);
        request.send().await.status
    };
    for _ in 0..3 {
        assert_eq!(status("192.0.2.1").await, 200);
    }
    assert_eq!(status("192.0.2.1").await, 429);
    assert_eq!(status("192.0.2.2").await, 200);
    // A customer has 2^64 addresses of IPv6.
    for client in ["2001:db8::1", "2001:db8::2", "2001:db8::ffff:0:0:3"] {
        assert_eq!(status(client).await, 200);
    }
    assert_eq!(status("2001:db8::4").await, 429);
    assert_eq!(status("2001:db8:0:1::1").await, 200);
    // What is no address counts for the proxy that says it, and is let through no more often.
    for _ in 0..3 {
        assert_eq!(status("unknown").await, 200);
    }
    assert_eq!(status("something else").await, 429);
    // Bad tokens take from the address: nobody guesses without end.
    let guess = async || {
        let request = world.get("/grants/1").bearer("guess");
        let request = request.header("x-forwarded-for", "192.0.2.9");
        request.send().await.status
    };
    for _ in 0..3 {
        assert_eq!(guess().await, 401);
    }
    assert_eq!(guess().await, 429);
}

#[tokio::test]
async fn what_a_client_says_of_its_address_is_not_believed() {
    let limit = HOURLY.replace("client", "ip");
    let world = World::with(&on_route("public", &limit)).await;
    for (at, expected) in [200, 200, 200, 429].into_iter().enumerate() {
        let request = world.get("/public/x");
        let request = request.header("x-forwarded-for", format!("192.0.2.{at}"));
        assert_eq!(request.send().await.status, expected);
    }
}

#[tokio::test]
async fn a_thousand_at_once_get_no_more_than_the_burst() {
    let limit = r#"rate_limit = { rate = "1/h", burst = 100 }"#;
    let config = on_route("public", limit).replace("workers = 1", "workers = 2");
    let world = World::with(&config).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let request = world.get("/public/x");
        tasks.spawn(async move {
            let mut statuses = Vec::new();
            for _ in 0..20 {
                statuses.push(request.send().await.status);
            }
            statuses
        });
    }
    let statuses = tasks.join_all().await.concat();
    let count = |status| statuses.iter().filter(|other| **other == status).count();
    assert_eq!((count(200), count(429)), (100, 900));
    assert_eq!(world.echo.seen().len(), 100);
}

#[tokio::test]
async fn counts_outlive_reloads_that_do_not_change_the_rule() {
    let config = on_route("public", HOURLY);
    let world = World::with(&config).await;
    let get = async || world.get("/public/x").send().await.status;
    for _ in 0..3 {
        assert_eq!(get().await, 200);
    }
    assert_eq!(get().await, 429);
    let file = world.gateway.file();
    let running = std::fs::read_to_string(&file).expect("the file");
    let reload = async |from: &str, to: &str| {
        let text = running.replace(from, to);
        assert_ne!(text, running);
        std::fs::write(&file, text).expect("written");
        world.gateway.app.reloader.reload("test").await
    };
    let name = "name = \"public\"\n";
    let changed = format!("{name}forward_token = false\n");
    reload(name, &changed).await.expect("reloaded");
    assert_eq!(get().await, 429, "another key of the route");
    reload("rate = \"1/h\"", "rate = \"1\"")
        .await
        .expect_err("a mistake");
    assert_eq!(get().await, 429, "a file that is not in force");
    reload("burst = 3", "burst = 4").await.expect("reloaded");
    for _ in 0..4 {
        assert_eq!(get().await, 200, "another rule");
    }
    assert_eq!(get().await, 429);
}

#[tokio::test]
async fn explain_shows_the_rule_and_counts_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let upstream = format!("http://{}", nobody());
    let issuer = format!("http://{}/", nobody());
    for (by, told) in [
        (
            "client",
            "1/h with bursts of 3, by client; not counted here",
        ),
        ("ip", "1/h with bursts of 3, by ip; not counted here"),
    ] {
        let limit = HOURLY.replace("client", by);
        // Where nobody listens: what asked the store would say so.
        let store = format!("\n[store]\nurl = \"redis://{}\"\n", nobody());
        let config = on_route("public", &limit)
            .replace("ISSUER", &issuer)
            .replace("ECHO", &upstream);
        std::fs::write(folder.path().join("gateway.toml"), config + &store).expect("written");
        let said = call(
            folder.path(),
            &["explain", "GET", "http://gateway/public/x"],
        )
        .await;
        assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
        assert!(said.stdout.contains(told), "{}", said.stdout);
        assert!(!said.stderr.contains("store"), "{}", said.stderr);
    }
}

#[tokio::test]
async fn mistakes_in_the_rule() {
    for (lines, expected) in [
        ("rate_limit = { burst = 3 }", "`rate` is missing"),
        (
            r#"rate_limit = { rate = "1/s", burst = 0 }"#,
            "a burst is from 1 to 1000000",
        ),
        (
            r#"rate_limit = { rate = "1/s", by = "subject" }"#,
            "no subjects on a route with auth",
        ),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let config = on_route("public", lines)
            .replace("ISSUER", "http://127.0.0.1:1/")
            .replace("ECHO", "http://127.0.0.1:1");
        std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(said.code, Some(2), "{lines}");
        let text = said.stdout + &said.stderr;
        assert!(text.contains(expected), "{lines}: {text}");
    }
}

/// `allow_ips` comes before the count.
#[tokio::test]
async fn who_is_not_let_in_at_all_is_not_counted() {
    let lines = format!(
        "allow_ips = [\"192.0.2.0/24\"]\n{}",
        HOURLY.replace("client", "ip")
    );
    let world = World::with(&behind_proxy(&on_route("public", &lines))).await;
    let get = async |client: &str| {
        let request = world.get("/public/x").header("x-forwarded-for", client);
        request.send().await
    };
    for _ in 0..5 {
        let reply = get("198.51.100.1").await;
        assert_refused(&world.gateway, &reply, 403, "ip_not_allowed", "public").await;
    }
    assert_eq!(get("192.0.2.7").await.status, 200);
}

#[tokio::test]
async fn an_outage_of_nothing_needs_no_store() {
    let world = World::with(&on_route("public", HOURLY)).await;
    let text = Gateway::admin(&world.gateway, "GET", "/metrics")
        .await
        .text();
    assert!(!text.contains("gateway_store_up"), "there is no [store]");
}
