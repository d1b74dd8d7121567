//! Syntax errors: all of them, and what can still be read of the rest.

use std::borrow::Cow;
use std::ops::Range;

use toml::de::DeTable;

use super::mistake::Mistake;

/// How often broken lines are blanked before the rest is given up.
const ROUNDS: usize = 8;

/// The syntax errors of `text`, and a text of the same length in which the broken lines are blank; empty when too
/// much is broken to judge the rest.
///
/// The parser recovers in part only: it drops everything that follows a line without `=`. Without such lines it sees
/// the rest of the file, at the same offsets.
pub(super) fn patch(text: &str) -> (Cow<'_, str>, Vec<Mistake>) {
    let (_, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return (Cow::Borrowed(text), Vec::new());
    }
    let mut patched = text.to_owned();
    let mut found = Vec::new();
    let mut round = errors;
    let mut fatal = false;
    for _ in 0..ROUNDS {
        let spans = spans_of(&round, &patched);
        // The parser merges a table that is there twice with the first: nothing is lost.
        let harms =
            |span: &Range<usize>, error| !(is_header(text, span.start) && is_duplicate(error));
        let broken = spans
            .iter()
            .zip(&round)
            .filter(|(span, error)| harms(span, error));
        let broken: Vec<_> = broken.map(|(span, _)| span.clone()).collect();
        found.extend(round.into_iter().zip(spans));
        fatal |= broken.iter().any(|span| !stands_alone(text, span.start));
        let removable: Vec<_> = broken
            .into_iter()
            .filter(|span| is_header(text, span.start) || stands_alone(text, span.start))
            .filter(|span| !line_of(&patched, span.start).trim().is_empty())
            .collect();
        if removable.is_empty() {
            let patched = if fatal { String::new() } else { patched };
            return (Cow::Owned(patched), first_of_each_line(text, found, fatal));
        }
        patched = blank(&patched, &removable);
        round = DeTable::parse_recoverable(&patched).1;
        // Without its header, a table's keys meet those of the table before it.
        round.retain(|error| !fatal || !is_duplicate(error));
    }
    (Cow::Borrowed(""), first_of_each_line(text, found, true))
}

/// Whether the line around `offset` can go without a change to what other lines mean. Headers cannot, nor lines
/// that open or close what goes over several of them.
fn stands_alone(text: &str, offset: usize) -> bool {
    let line = line_of(text, offset);
    let count = |c: char| line.matches(c).count();
    let is_balanced = count('[') == count(']') && count('{') == count('}');
    // Which lines are within a string of several lines cannot be told once there is an error.
    let has_long_strings = text.contains("\"\"\"") || text.contains("'''");
    is_balanced && !is_header(text, offset) && !has_long_strings
}

fn is_header(text: &str, offset: usize) -> bool {
    line_of(text, offset).trim_start().starts_with('[')
}

fn is_duplicate(error: &toml::de::Error) -> bool {
    error.message().contains("duplicate key")
}

/// One stumble often makes the parser complain twice in a line.
fn first_of_each_line(
    text: &str,
    errors: Vec<(toml::de::Error, Range<usize>)>,
    fatal: bool,
) -> Vec<Mistake> {
    let mut lines = Vec::new();
    let mut mistakes = Vec::new();
    for (error, span) in errors {
        let line = line_range(text, span.start);
        if lines.contains(&line) {
            continue;
        }
        let mut mistake = Mistake::syntax(span, error.message().to_owned(), fatal);
        if let Some(hint) = hint(text.get(line.clone()).unwrap_or_default(), error.message()) {
            mistake = mistake.hint(hint);
        }
        lines.push(line);
        mistakes.push(mistake);
    }
    mistakes
}

fn hint(line: &str, message: &str) -> Option<String> {
    let hint = match line.split_once('=') {
        _ if message.contains("duplicate key") => "the same key or table is in the file already",
        _ if line.trim_start().starts_with('[') => "a header is `[name]`, alone on its line",
        _ if message.contains("missing comma") => "elements of a list have commas between them",
        _ if message.contains("key with no value") => "a line is `key = value`",
        Some((_, value)) if !value.trim_start().starts_with(['"', '\'', '[', '{']) => {
            "strings are written in quotes"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

fn spans_of(errors: &[toml::de::Error], text: &str) -> Vec<Range<usize>> {
    errors
        .iter()
        .map(|error| error.span().unwrap_or(text.len()..text.len()))
        .collect()
}

fn blank(text: &str, spans: &[Range<usize>]) -> String {
    let mut bytes = text.as_bytes().to_vec();
    for span in spans {
        let line = line_range(text, span.start);
        // Byte for byte, so that the offsets of everything else stay; no part of a character is left over.
        if let Some(line) = bytes.get_mut(line) {
            line.fill(b' ');
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The line around `offset`, without its end.
pub(super) fn line_range(text: &str, offset: usize) -> Range<usize> {
    let bytes = text.as_bytes();
    let offset = offset.min(bytes.len());
    let (before, after) = bytes.split_at(offset);
    let start = before
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1);
    let end = after
        .iter()
        .position(|byte| *byte == b'\n')
        .map_or(bytes.len(), |newline| offset + newline);
    start..end
}

fn line_of(text: &str, offset: usize) -> &str {
    text.get(line_range(text, offset)).unwrap_or_default()
}
