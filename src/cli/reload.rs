//! `reload`: asks the running gateway to read its file again, waits, and says what changed.

use super::output::{self, FAINT, GOOD, STRONG};
use super::{FAILED, admin_client, run};
use http::{Method, StatusCode};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::Path;

#[derive(Deserialize)]
struct Report {
    changes: Vec<String>,
    restart: Vec<String>,
}

/// Reloads. Returns the exit code.
pub fn run(path: &Path) -> u8 {
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    };
    match runtime.block_on(admin_client::ask(path, Method::POST, "/-/reload", None)) {
        Ok((StatusCode::OK, text)) => output::print(&told(&text)),
        Ok((StatusCode::UNPROCESSABLE_ENTITY, text)) => {
            anstream::eprintln!("{}", text.trim_end());
            output::fail("not reloaded; the old configuration stays in force", FAILED)
        }
        Ok((status, text)) => output::fail(
            &format!("unexpected answer {status}: {}", text.trim_end()),
            FAILED,
        ),
        Err(why) => output::fail(&why, FAILED),
    }
}

fn told(report: &str) -> String {
    let Ok(report) = serde_json::from_str::<Report>(report) else {
        return format!("{GOOD}reloaded{GOOD:#}\n");
    };
    if report.changes.is_empty() {
        return format!("{GOOD}reloaded{GOOD:#}, {FAINT}nothing has changed{FAINT:#}\n");
    }
    let mut text = format!("{GOOD}reloaded{GOOD:#}\n");
    for change in &report.changes {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {change}");
    }
    if !report.restart.is_empty() {
        let _ = writeln!(
            text,
            "{STRONG}takes effect at the next start{STRONG:#}: {}",
            report.restart.join(", ")
        );
    }
    text
}
