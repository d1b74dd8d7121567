//! Words for people: coloured on a terminal, plain in a pipe.

use crate::app::StartError;
use crate::config::ConfigErrors;
use anstyle::{AnsiColor, Style};
use std::io::{IsTerminal as _, Write as _};

/// What is right.
pub const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What is wrong.
pub const BAD: Style = AnsiColor::Red.on_default().bold();
/// What to look at.
pub const STRONG: Style = Style::new().bold();
/// What can be skipped.
pub const FAINT: Style = Style::new().dimmed();

/// Text from outside with its control characters made visible, so that it can neither steer a
/// terminal nor turn the direction of a line.
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let turns = matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if char.is_control() || turns {
            out.extend(char.escape_unicode());
        } else {
            out.push(char);
        }
    }
    out
}

/// Prints to standard output; styles are dropped where they are not shown.
pub fn print(text: &str) -> u8 {
    super::written(anstream::stdout().write_all(text.as_bytes()))
}

/// Prints an error and returns the exit code.
pub fn fail(text: &str, code: u8) -> u8 {
    anstream::eprintln!("{BAD}error{BAD:#}: {text}");
    code
}

/// Prints the mistakes of a file and returns the exit code.
pub fn mistakes(errors: &ConfigErrors) -> u8 {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    anstream::eprintln!("{}", errors.render(colour));
    super::MISCONFIGURED
}

/// Prints why a gateway does not start and returns the exit code.
pub fn not_started(error: &StartError) -> u8 {
    match error {
        StartError::Config(errors) => mistakes(errors),
        StartError::Listen(address, cause) if cause.kind() == std::io::ErrorKind::AddrInUse => {
            fail(
                &format!("{address} is in use; stop what listens there, or choose another address"),
                super::FAILED,
            )
        }
        other => fail(&other.to_string(), super::FAILED),
    }
}
