//! What a flood of different tokens makes of the gateway's memory: a million good ones, then a
//! million bad ones, under the bounds of `[token_cache]`. Ends with an error if it grew over them.
//!
//! `TOKENS=100000 cargo bench --bench memory` for a quick look.

use bonterra_gateway::app;
use bonterra_gateway::config;
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, BonterraAuth};
use bonterra_gateway::gateway::{Decision, admit};
use bonterra_gateway::identity::unix_now;
use bonterra_gateway::keys::jwks;
use bonterra_gateway::request::{RequestView, TrustedProxies};
use bonterra_gateway::snapshot::{Snapshot, compile};
use bonterra_gateway::steps::Untold;
use http::Request;
use serde_json::json;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

/// The gateway's own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the caches may take beyond what their bounds count: the allocator's rounding, and the
/// tables that a cache keeps of what it has seen.
const MARGIN: f64 = 1.15;

/// Bytes that a remembered refusal takes, generously: digest, reason, note and links.
const REFUSAL: u64 = 1 << 10;

const CONFIG: &str = r#"
[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]
algorithms = ["EdDSA"]

[upstream.grants]
servers = ["http://127.0.0.1:9000"]

[[route]]
path = "/grants/*"
upstream = "grants"
"#;

fn main() -> ExitCode {
    let count: u64 = match std::env::var("TOKENS").map(|text| text.parse()) {
        Ok(Ok(count)) => count,
        Ok(Err(_)) => panic!("TOKENS is a number"),
        Err(_) => 1_000_000,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let options = AuthOptions {
        key_type: Algorithm::EdDSA,
        ..AuthOptions::default()
    };
    let auth = runtime
        .block_on(BonterraAuth::start(options))
        .expect("an issuer");
    let snapshot = snapshot(&auth);
    let bounds = snapshot.tokens.bounds();
    let allowed = bounds.max_bytes + bounds.refused_entries * REFUSAL;
    println!(
        "{count} good and {count} bad tokens; bounds: {} MiB and {} entries, {} refusals",
        bounds.max_bytes >> 20,
        bounds.max_entries,
        bounds.refused_entries
    );
    // Both kinds once, so that what is made on first use is there before the measurement.
    flood(&snapshot, &auth, 0..1000, true);
    let before = resident();
    let mut worst = 0;
    for (what, good) in [("good", true), ("bad", false)] {
        let started = Instant::now();
        flood(&snapshot, &auth, 1000..count, good);
        let grown = resident().saturating_sub(before);
        worst = worst.max(grown);
        let (verified, refused) = snapshot.tokens.counts();
        println!(
            "after the {what:4} ones: {:6.1} MiB more, {verified} verified and {refused} refused remembered ({:.0} s)",
            mib(grown),
            started.elapsed().as_secs_f64()
        );
    }
    let limit = (allowed as f64 * MARGIN) as u64;
    if worst > limit {
        println!("FAILED: more than {:.1} MiB", mib(limit));
        return ExitCode::FAILURE;
    }
    println!("within {:.1} MiB", mib(limit));
    ExitCode::SUCCESS
}

fn snapshot(auth: &BonterraAuth) -> Snapshot {
    let parsed = config::parse("bench.toml", &CONFIG.replace("ISSUER", auth.issuer()));
    let snapshot = compile(parsed, &app::environment().expect("metrics")).expect("no mistakes");
    for issuer in snapshot.issuers.iter() {
        let parsed = jwks::parse(auth.jwks().to_string().as_bytes(), unix_now());
        issuer.keys.replace(parsed.expect("keys").set);
    }
    snapshot
}

fn flood(snapshot: &Snapshot, auth: &BonterraAuth, numbers: std::ops::Range<u64>, good: bool) {
    let trusted = TrustedProxies::default();
    let peer = trusted.peer(SocketAddr::from(([127, 0, 0, 1], 4711)));
    let mut claims = auth.claims();
    if !good {
        claims["aud"] = json!("https://elsewhere.example");
    }
    for number in numbers {
        claims["jti"] = json!(number.to_string());
        let (head, ()) = Request::get("/grants/4711")
            .header("host", "api.bonterra.network")
            .header("authorization", format!("Bearer {}", auth.mint(&claims)))
            .body(())
            .expect("a request")
            .into_parts();
        let view = RequestView::new(&head, peer, &trusted).expect("a plain request");
        let decision = admit(snapshot, &view, unix_now(), &mut Untold);
        assert_eq!(
            matches!(decision, Decision::Admitted(_)),
            good,
            "{decision:?}"
        );
    }
}

/// Resident memory of this process in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("VmRSS in kB") << 10
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
