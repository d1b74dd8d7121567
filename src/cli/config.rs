//! `config show` and `config schema`.

use super::output;
use crate::app;
use crate::config;
use crate::snapshot::compile;
use std::path::Path;

/// Prints the configuration with all defaults, if it has no mistakes. Returns the exit code.
pub fn show(path: &Path) -> u8 {
    let env = match app::environment() {
        Ok(env) => env,
        Err(error) => return output::not_started(&error),
    };
    match config::load(path).and_then(|parsed| compile(parsed, &env)) {
        Ok(snapshot) => output::print(&config::show(&snapshot.config)),
        Err(errors) => output::mistakes(&errors),
    }
}

/// Prints the JSON Schema of the file. Returns the exit code.
pub fn schema() -> u8 {
    // A schema is plain JSON and always serialises.
    let text = serde_json::to_string_pretty(&config::schema()).unwrap_or_default();
    output::print(&(text + "\n"))
}
