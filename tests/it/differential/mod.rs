//! Mutated tokens through the gateway and through a verifier of another make. What the gateway
//! accepts, the other has to accept; what only the gateway refuses has to be listed, with its reason.

mod allowed;
mod case;
mod client;
mod lab;
mod mutate;
mod oracle;

use crate::harness::{Gateway, local, within};
use allowed::ALLOWED;
use bonterra_gateway::demo::auth::{Algorithm, AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::{Echo, EchoOptions};
use case::Case;
use client::{Client, Verdict};
use lab::Lab;
use mutate::Mutator;
use oracle::Oracle;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Tokens in an ordinary run; `DIFFERENTIAL_CASES` asks for another number.
const CASES: u64 = 100_000;

/// `DIFFERENTIAL_SEED` asks for another one, `DIFFERENTIAL_CASE` for a single case of it.
const SEED: u64 = 0x626f_6e74_6572_7261;

/// Connections to the gateway, each with a thread of its own that asks the oracle too.
const THREADS: usize = 4;

/// One token in this many is asked for twice: the cache has to say the same.
const TWICE: u64 = 20;

/// Seconds that a case may take from its making to both verdicts. Times in a token stay further away
/// from where a verdict changes, so no verdict depends on which verifier looked at its clock first.
const PROMPT: u64 = 4;

/// More failures than this are not told.
const TOLD: usize = 20;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 2
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[log]
access = false

[issuer.first]
url = "FIRST"
audiences = ["https://api.bonterra.network"]

[issuer.second]
url = "SECOND"
audiences = ["https://api.bonterra.network"]
algorithms = ["ES256", "EdDSA"]

[upstream.echo]
servers = ["ECHO"]

[[route]]
name = "grants"
path = "/grants/*"
upstream = "echo"
"#;

/// What a run came to.
#[derive(Default)]
struct Tally {
    accepted: u64,
    /// Refused by both, by the gateway's reason.
    refused: BTreeMap<String, u64>,
    /// Refused by the gateway alone, by its reason and the mutator that explains it.
    stricter: BTreeMap<(String, &'static str), u64>,
    /// Accepted by the gateway alone because of members that it is told to ignore.
    ignored_members: u64,
    applied: BTreeMap<&'static str, u64>,
    signed: BTreeMap<&'static str, u64>,
    unsendable: u64,
    asked_twice: u64,
    /// Requests that the upstream has to have seen.
    forwarded: u64,
    failures: Vec<String>,
}

/// What all threads share.
struct Run {
    lab: Lab,
    mutators: Vec<Mutator>,
    oracle: Oracle,
    seed: u64,
    next: AtomicU64,
    end: u64,
    gateway: SocketAddr,
}

#[tokio::test]
async fn mutated_tokens_pass_only_where_another_verifier_lets_them_pass_too() {
    let issuers = [issuer().await, issuer().await];
    let echo = Echo::start_with(local(), EchoOptions { record: false });
    let echo = echo.await.expect("upstream");
    let urls = [0, 1].map(|at: usize| issuers[at].issuer().to_owned());
    let config = CONFIG
        .replace("FIRST", &urls[0])
        .replace("SECOND", &urls[1])
        .replace("ECHO", &echo.url());
    let lab = tokio::task::spawn_blocking(|| Lab::new(urls, now()));
    let lab = lab.await.expect("keys");
    for (at, issuer) in issuers.iter().enumerate() {
        issuer.set_jwks_document(Some(lab.jwks(at)));
        issuer.set_jwks_cache_control("max-age=3600");
    }
    let gateway = Gateway::start(&config).await;
    within("ready", gateway.app.ready()).await;

    let run = Arc::new(Run::new(lab, gateway.address));
    let started = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let run = Arc::clone(&run);
            tokio::task::spawn_blocking(move || run.work())
        })
        .collect();
    let mut tally = Tally::default();
    for thread in threads {
        tally.add(thread.await.expect("a thread to its end"));
    }
    println!("{}{:?}", tally.report(), started.elapsed());
    assert!(tally.failures.is_empty(), "{}", tally.failures());
    assert_eq!(
        echo.requests(),
        tally.forwarded,
        "what reached the upstream"
    );
    if run.end - run.first() >= CASES {
        tally.assert_meaningful(&run);
    }
}

/// An issuer that serves discovery; its keys are the test's own.
async fn issuer() -> BonterraAuth {
    let options = AuthOptions {
        key_type: Algorithm::EdDSA,
        ..AuthOptions::default()
    };
    BonterraAuth::start(options).await.expect("an issuer")
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

fn asked(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

// === impl Run ===

impl Run {
    fn new(lab: Lab, gateway: SocketAddr) -> Self {
        let first = asked("DIFFERENTIAL_CASE");
        let end = first.map_or_else(
            || asked("DIFFERENTIAL_CASES").unwrap_or(CASES),
            |first| first + 1,
        );
        Self {
            oracle: Oracle::new(&lab),
            lab,
            mutators: mutate::all(),
            seed: asked("DIFFERENTIAL_SEED").unwrap_or(SEED),
            next: AtomicU64::new(first.unwrap_or(0)),
            end,
            gateway,
        }
    }

    fn first(&self) -> u64 {
        asked("DIFFERENTIAL_CASE").unwrap_or(0)
    }

    fn work(&self) -> Tally {
        let mut tally = Tally::default();
        let mut client = Client::new(self.gateway);
        loop {
            let number = self.next.fetch_add(1, Relaxed);
            if number >= self.end || tally.failures.len() > TOLD {
                return tally;
            }
            self.judge(number, &mut client, &mut tally);
        }
    }

    /// Puts one case to both verifiers and compares.
    fn judge(&self, number: u64, client: &mut Client, tally: &mut Tally) {
        let (case, verdict, opinion) = loop {
            let at = now();
            let seeded = (self.seed, number);
            let case = Case::new(&self.lab, &self.mutators, seeded, at, &mut tally.unsendable);
            let verdict = client.ask(number, &case.credential);
            if verdict.accepted() {
                tally.forwarded += 1;
            }
            let opinion = match case.token() {
                Some(token) => self.oracle.verify(token),
                None => Err("no text".to_owned()),
            };
            if now() - at <= PROMPT {
                break (case, verdict, opinion);
            }
        };
        for name in &case.mutators {
            *tally.applied.entry(*name).or_default() += 1;
        }
        *tally.signed.entry(case.signed).or_default() += 1;
        if number.is_multiple_of(TWICE) {
            let again = client.ask(number, &case.credential);
            tally.asked_twice += 1;
            tally.forwarded += u64::from(again.accepted());
            if again != verdict {
                tally.fail(
                    &case,
                    self.seed,
                    format!("first {verdict:?}, then {again:?}"),
                );
            }
        }
        match (verdict, opinion) {
            (Verdict::Accepted { subject }, Ok(read)) => {
                tally.accepted += 1;
                if read.subject != subject || !read.expires {
                    let text = format!(
                        "the upstream was told the subject {subject:?}, the oracle read {:?} (exp: {})",
                        read.subject, read.expires
                    );
                    tally.fail(&case, self.seed, text);
                }
            }
            (Verdict::Accepted { .. }, Err(why)) => {
                if case.differs_in_ignored_members_only(&self.lab, &self.oracle) {
                    tally.ignored_members += 1;
                } else {
                    tally.fail(
                        &case,
                        self.seed,
                        format!("accepted, but the oracle says: {why}"),
                    );
                }
            }
            (Verdict::Refused { reason, .. }, Err(_)) => {
                *tally.refused.entry(reason).or_default() += 1;
            }
            (Verdict::Refused { reason, .. }, Ok(_)) => {
                match allowed::class(&reason, &case.mutators) {
                    Some(mutator) => *tally.stricter.entry((reason, mutator)).or_default() += 1,
                    None => {
                        let text = format!(
                            "refused ({reason}), but the oracle accepts, which no row of ALLOWED explains"
                        );
                        tally.fail(&case, self.seed, text);
                    }
                }
            }
            (Verdict::Neither(what), _) => tally.fail(&case, self.seed, what),
        }
    }
}

// === impl Tally ===

impl Tally {
    fn fail(&mut self, case: &Case, seed: u64, what: String) {
        self.failures
            .push(format!("{what}\n  {}", case.describe(seed)));
    }

    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.ignored_members += other.ignored_members;
        self.unsendable += other.unsendable;
        self.asked_twice += other.asked_twice;
        self.forwarded += other.forwarded;
        self.failures.extend(other.failures);
        merge(&mut self.refused, other.refused);
        merge(&mut self.stricter, other.stricter);
        merge(&mut self.applied, other.applied);
        merge(&mut self.signed, other.signed);
    }

    fn failures(&self) -> String {
        let told = self.failures.iter().take(TOLD).cloned();
        format!(
            "{} failures\n{}",
            self.failures.len(),
            told.collect::<Vec<_>>().join("\n")
        )
    }

    /// The run as Markdown; cargo shows it with `--nocapture`.
    fn report(&self) -> String {
        let mut text = format!(
            "accepted by both: {}\naccepted in spite of members to be ignored: {}\nasked twice: {}\nnot to be sent, replaced: {}\nsigned: {:?}\n",
            self.accepted, self.ignored_members, self.asked_twice, self.unsendable, self.signed
        );
        text.push_str("\n| refused by both: reason | tokens |\n|---|---|\n");
        for (reason, count) in &self.refused {
            let _ = writeln!(text, "| `{reason}` | {count} |");
        }
        text.push_str("\n| refused by the gateway alone: reason | mutator | tokens | why |\n|---|---|---|---|\n");
        for ((reason, mutator), count) in &self.stricter {
            let why = allowed::why(reason, mutator);
            let _ = writeln!(text, "| `{reason}` | {mutator} | {count} | {why} |");
        }
        text
    }

    /// Nothing above means anything if no token passes, or if all fail for the same reason.
    fn assert_meaningful(&self, run: &Run) {
        assert!(
            self.accepted >= run.end / 20,
            "only {} accepted",
            self.accepted
        );
        for reason in [
            "malformed_token",
            "bad_signature",
            "unknown_key",
            "algorithm_not_allowed",
            "wrong_type",
            "critical_header",
            "wrong_issuer",
            "wrong_audience",
            "expired",
            "not_yet_valid",
            "missing_claim",
            "token_too_large",
        ] {
            let count = self.refused.get(reason).copied().unwrap_or(0);
            assert!(
                count >= run.end / 1000,
                "only {count} refused by both for {reason}"
            );
        }
        for mutator in &run.mutators {
            let count = self.applied.get(mutator.name).copied().unwrap_or(0);
            assert!(
                count >= run.end / 200,
                "{} applied only {count} times",
                mutator.name
            );
        }
        for row in &ALLOWED {
            let seen = self
                .stricter
                .keys()
                .any(|(reason, mutator)| row.covers(reason, mutator));
            assert!(
                seen,
                "nothing needs this row any more: {} {:?}",
                row.reason, row.mutators
            );
        }
        assert!(
            self.ignored_members > 0,
            "nothing needs the exception any more"
        );
    }
}

fn merge<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}
