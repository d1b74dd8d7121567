//! The sweep: what the gateways of the whole run log, count and answer to errors is searched for
//! secrets as it is written. One found ends the run.
//!
//! Searched are all events of the process at the level `trace`, those of libraries included, the
//! access logs, the metrics of every gateway at its end, what admin listeners say, error bodies, and
//! what gateways of their own process write to standard error.

use super::Reply;
use bonterra_gateway::telemetry::metrics::Metrics;
use serde_json::Value;
use std::io::{self, Write};
use std::sync::{Arc, Once};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Secrets of the demo's clients, and words that tests put where secrets are.
const WORDS: [&str; 9] = [
    "demo-secret",
    "backend-secret",
    "management-secret",
    "demo-api-secret",
    "canary-secret",
    "canary-password",
    "canary-code",
    "canary-verifier",
    "canary-token",
];

/// How secrets begin that are made as the tests run, and how many characters follow at least.
const KINDS: [(&str, usize); 8] = [
    // A part of a JWT.
    ("eyJ", 17),
    // What the simulated issuer gives out: refresh tokens, opaque tokens, codes.
    ("v1.", 40),
    ("opaque.", 30),
    ("code.", 30),
    // What the gateway gives out in their place.
    ("bgw_at_", 20),
    ("bgw_rt_", 20),
    ("Basic ", 12),
    ("Bearer ", 24),
];

/// What in a text must not be there.
pub fn secret_in(text: &[u8]) -> Option<&[u8]> {
    let word = |word: &&str| {
        let at = memchr::memmem::find(text, word.as_bytes())?;
        text.get(at..at + word.len())
    };
    let kind = |(start, more): &(&str, usize)| {
        let mut places = memchr::memmem::find_iter(text, start.as_bytes());
        places.find_map(|at| {
            // In the middle of random text it begins nothing.
            let before = at.checked_sub(1).and_then(|before| text.get(before));
            if before.is_some_and(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte)) {
                return None;
            }
            let rest = text.get(at + start.len()..)?;
            let length = rest.iter().take_while(|byte| is_of_token(**byte)).count();
            (length >= *more).then(|| text.get(at..at + start.len() + length))?
        })
    };
    let words = WORDS.iter().find_map(word);
    words.or_else(|| KINDS.iter().find_map(kind))
}

fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~+/".contains(&byte)
}

/// Ends the run if there is a secret in what was written to `place`.
pub fn sweep(place: &str, text: &[u8]) {
    if let Some(secret) = secret_in(text) {
        // Not by println: that of a test that passes is not shown. Who writes this may be a task whose
        // panic is caught, so that it would be lost.
        let text = String::from_utf8_lossy(text);
        let secret = String::from_utf8_lossy(secret);
        let _ = writeln!(io::stderr(), "\nA SECRET in {place}: {secret}\n{text}");
        std::process::exit(101);
    }
}

/// Searches an answer that is an error of the gateway's or of an OAuth endpoint; what an upstream
/// answers is its own.
pub fn sweep_reply(reply: &Reply) {
    if reply.status < 400 {
        return;
    }
    let body = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
    let problem = reply.header_is("content-type", "application/problem+json");
    if problem || body.get("error").is_some() || body.get("errors").is_some() {
        sweep("an error body", &reply.body);
        for (name, value) in &reply.headers {
            sweep(name.as_str(), value.as_bytes());
        }
    }
}

/// Has the events of this process searched from now on.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(Events);
        let installed = tracing::subscriber::set_global_default(subscriber.finish());
        installed.expect("nobody else listens");
    });
}

/// Where events go: nowhere, once they have been searched.
struct Events;

impl<'a> MakeWriter<'a> for Events {
    type Writer = Searched<io::Sink>;

    fn make_writer(&'a self) -> Self::Writer {
        Searched("an event", io::sink())
    }
}

/// Searches what is written, whole lines at a time as loggers write them.
pub struct Searched<W>(pub &'static str, pub W);

impl<W: Write> Write for Searched<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sweep(self.0, bytes);
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

/// The metrics of a gateway, searched at its end.
pub struct Counted(pub Arc<Metrics>);

impl Drop for Counted {
    fn drop(&mut self) {
        let metrics = self.0.render().unwrap_or_default();
        sweep("the metrics", metrics.as_bytes());
    }
}

#[test]
fn finds_secrets_and_nothing_else() {
    let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln";
    let refresh = format!("v1.{}", "M".repeat(64));
    for text in [
        "a demo-secret b",
        &format!("token={jwt}"),
        &format!("\"{refresh}\""),
        "Authorization: Basic ZGVtbzpkZW1vLXNlY3JldA==",
        "Bearer 0123456789abcdef0123456789",
    ] {
        assert!(secret_in(text.as_bytes()).is_some(), "{text}");
    }
    for text in [
        "",
        "WWW-Authenticate: Bearer realm=\"bonterra-gateway\"",
        "demo-client asked for client_credentials",
        "v1.2.3 eyJ eyJhbGciOi code.rs opaque.rs",
        "Basic realm=\"bonterra-gateway\"",
        "random MeyJ0123456789012345678901",
    ] {
        assert_eq!(secret_in(text.as_bytes()), None, "{text}");
    }
}

/// The net hangs where the events of the gateway are: they come to it at the finest level.
#[tokio::test]
async fn hears_the_events_of_a_gateway() {
    install();
    assert!(tracing::enabled!(target: "bonterra_gateway::oauth", tracing::Level::TRACE));
    assert_eq!(
        tracing::level_filters::LevelFilter::current(),
        LevelFilter::TRACE
    );
}
