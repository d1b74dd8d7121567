//! `healthcheck`: exit 0 if the running gateway is ready.

use super::{FAILED, admin_client, output, run};
use http::{Method, StatusCode};
use std::path::Path;

/// Asks `/readyz`. Returns the exit code.
pub fn run(path: &Path) -> u8 {
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    };
    match runtime.block_on(admin_client::ask(
        path,
        Method::GET,
        "/readyz?verbose",
        None,
    )) {
        Ok((StatusCode::OK, text)) => output::print(&text),
        Ok((_, text)) => output::fail(text.trim_end(), FAILED),
        Err(why) => output::fail(&why, FAILED),
    }
}
