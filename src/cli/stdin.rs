//! A token from standard input, where no other user of the machine can see it.

use super::output::{self, FAINT};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

/// More than any token has.
const MAX_BYTES: u64 = 1 << 20;

/// The token that an argument gives: itself, or for `-` what standard input holds.
///
/// # Errors
/// As [`token`].
pub fn given(argument: &str) -> io::Result<Vec<u8>> {
    match argument {
        "-" => token(),
        token => Ok(token.as_bytes().to_vec()),
    }
}

/// The token of a pasted header: without `Bearer` and without the white space around it.
pub fn bare(text: &str) -> &str {
    let text = text.trim();
    match text.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim(),
        _ => text,
    }
}

/// Reads a token: the first line from a terminal, everything from a pipe, without the newline at
/// its end.
///
/// # Errors
/// If standard input cannot be read or has more than a token can have.
fn token() -> io::Result<Vec<u8>> {
    let stdin = io::stdin().lock();
    let waits = stdin.is_terminal();
    let mut limited = stdin.take(MAX_BYTES + 1);
    let mut bytes = Vec::new();
    if waits {
        anstream::eprintln!("{FAINT}waiting for a token: paste it and press Enter{FAINT:#}");
        limited.read_until(b'\n', &mut bytes)?;
    } else {
        limited.read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other("more than 1 MiB is no token"));
    }
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

/// Prints why there is no token and returns the exit code.
pub fn unreadable(error: &io::Error) -> u8 {
    let text = format!("standard input cannot be read for a token: {error}");
    output::fail(&text, super::FAILED)
}
