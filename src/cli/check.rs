//! `check`: all mistakes at once; with `--online` also what the issuers and the shared store say.

use super::output::{self, BAD, FAINT, GOOD};
use super::{FAILED, run};
use crate::app;
use crate::config;
use crate::keys::{discovery, fetch};
use crate::snapshot::{Provider, Snapshot, compile};
use http::Uri;
use std::fmt::Write as _;
use std::path::Path;

/// Checks a file. Returns the exit code.
pub fn run(path: &Path, online: bool) -> u8 {
    let checked = match app::environment() {
        Ok(env) => config::load(path).and_then(|parsed| compile(parsed, &env)),
        Err(error) => return output::not_started(&error),
    };
    let snapshot = match checked {
        Ok(snapshot) => snapshot,
        Err(errors) => return output::mistakes(&errors),
    };
    let printed = output::print(&(summary(path, &snapshot) + &warnings(&snapshot)));
    if !online {
        return printed;
    }
    match run::runtime() {
        Ok(runtime) => runtime.block_on(async {
            let code = ask_issuers(&snapshot).await;
            code.max(ask_store(&snapshot).await)
        }),
        Err(error) => output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    }
}

fn summary(path: &Path, snapshot: &Snapshot) -> String {
    let config = &snapshot.config;
    let count = |number: usize, what: &str| {
        format!("{number} {what}{}", if number == 1 { "" } else { "s" })
    };
    format!(
        "{GOOD}ok{GOOD:#} {}: {}, {}, {}, {}\n",
        path.display(),
        count(config.route.len(), "route"),
        count(config.upstream.len(), "upstream"),
        count(config.issuer.len(), "issuer"),
        count(config.oauth.len(), "OAuth surface"),
    )
}

/// What is no mistake yet, or could not be mended here.
fn warnings(snapshot: &Snapshot) -> String {
    let now = snapshot.clock.now();
    let certificates = snapshot.certificates.iter();
    certificates
        .filter_map(|file| file.warning(now))
        .map(|warning| format!("{BAD}warning{BAD:#} {warning}\n"))
        .collect()
}

async fn ask_issuers(snapshot: &Snapshot) -> u8 {
    let mut code = 0;
    for provider in &snapshot.providers {
        let name = &provider.source.name;
        match ask(provider).await {
            Ok(text) => drop(output::print(&format!(
                "{GOOD}ok{GOOD:#} issuer {name}: {text}"
            ))),
            Err(error) => {
                code = FAILED;
                output::print(&format!(
                    "{BAD}failed{BAD:#} issuer {name}: {}: {}\n",
                    error.what, error.why
                ));
            }
        }
    }
    code
}

/// Reads all revocations, as a gateway does that starts.
async fn ask_store(snapshot: &Snapshot) -> u8 {
    let Some(redis) = &snapshot.shared else {
        return 0;
    };
    snapshot.connect().await;
    let (store, address) = (snapshot.tokens.store(), redis.address());
    match redis.check().await {
        Ok(()) => output::print(&format!(
            "{GOOD}ok{GOOD:#} store: {} revocations at {address}\n",
            store.denylist().len()
        )),
        Err(why) => {
            output::print(&format!("{BAD}failed{BAD:#} store: {address}: {why}\n"));
            FAILED
        }
    }
}

async fn ask(provider: &Provider) -> Result<String, fetch::FetchError> {
    let endpoints = discovery::discover(&provider.source).await?;
    let mut text = match &endpoints.introspection {
        Some(endpoint) if provider.source.opaque => format!("tokens introspected at {endpoint}\n"),
        _ => keys(provider, endpoints.key_set()?).await?,
    };
    if let Some(token) = &endpoints.token {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "   tokens at {token}");
    }
    Ok(text)
}

async fn keys(provider: &Provider, at: &Uri) -> Result<String, fetch::FetchError> {
    let fetched = fetch::fetch_keys(&provider.source, at).await?;
    let mut text = format!("{} keys at {at}\n", fetched.parsed.set.len());
    for remark in &fetched.parsed.dropped {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "   {FAINT}{remark}{FAINT:#}");
    }
    Ok(text)
}
