//! Where the log of events goes, and in which form.

use std::io::IsTerminal as _;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::fmt::format::{DefaultFields, Format};

/// The form of the log of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Words, coloured on a terminal.
    Text,
}

/// Sends events of this level and above to standard error. Only the first call in a process has
/// an effect, so that tests may start several gateways.
pub fn init(level: LevelFilter, format: LogFormat) {
    let builder: SubscriberBuilder<DefaultFields, Format, LevelFilter, fn() -> std::io::Stderr> =
        tracing_subscriber::fmt()
            .with_max_level(level)
            .with_writer(std::io::stderr);
    let outcome = match format {
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
        LogFormat::Text => {
            let colour = std::io::stderr().is_terminal();
            tracing::subscriber::set_global_default(
                builder.with_ansi(colour).with_target(false).finish(),
            )
        }
    };
    // The log is set up already: nothing to do.
    drop(outcome);
}
