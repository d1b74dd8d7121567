//! Mistakes with their place in the file, and how they are shown.

use std::fmt;
use std::io;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use toml::de::DeTable;

use super::faults::Faults;
use super::mask;
use super::mistake::{Kind, Mistake};
use super::path::KeyPath;
use super::syntax;
use super::tree;

/// The text of a file, to find the place of a mistake in.
#[derive(Clone)]
pub struct Source {
    name: String,
    text: String,
}

/// Everything that is wrong with a file, in the order of the file. [`fmt::Display`] is [`ConfigErrors::render`]
/// without colour.
#[derive(Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    file: String,
    items: Vec<Located>,
}

/// A mistake with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// The file's name, as it was given.
    pub file: String,
    /// The line, counted from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// The column in characters, counted from 1; 0 when the file as a whole is meant.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The line's text, secrets masked, and what in it to underline.
    shown: Option<(String, Range<usize>)>,
}

// === impl Source ===

impl Source {
    pub(super) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    /// The file's name, as it was given.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives every mistake its place. Pass all of them at once, those of [`parse`](super::parse) included: mistakes
    /// that only follow from others are left out.
    pub fn report(&self, mistakes: Vec<Mistake>) -> ConfigErrors {
        let (patched, _) = syntax::patch(&self.text);
        let (file, _) = DeTable::parse_recoverable(&patched);
        let file = file.get_ref();
        let faults = Faults::of(&self.text, &mistakes);

        let mut placed: Vec<(Range<usize>, Mistake)> = mistakes
            .into_iter()
            .filter_map(|mistake| {
                let at = faults.written(&mistake);
                let span = match &*mistake.kind {
                    Kind::Syntax { span, .. } => Some(span.clone()),
                    Kind::Shape { .. } | Kind::Meaning => tree::place_of(file, &at, mistake.part),
                };
                let follows = *mistake.kind == Kind::Meaning && faults.explain(file, &at, &mistake);
                (!follows).then(|| (span.unwrap_or(0..0), mistake))
            })
            .collect();
        placed.sort_by_key(|(span, _)| (span.start, span.end));
        placed.dedup();
        let mut hidden = mask::long_secrets(&self.text);
        hidden_spans(file, &mut hidden);
        hidden_spans(
            DeTable::parse_recoverable(&self.text).0.get_ref(),
            &mut hidden,
        );
        let items = placed
            .into_iter()
            .map(|(span, mistake)| self.locate(span, mistake, &hidden))
            .collect();
        ConfigErrors {
            file: self.name.clone(),
            items,
        }
    }

    fn locate(&self, span: Range<usize>, mistake: Mistake, hidden: &[Range<usize>]) -> Located {
        let line = syntax::line_range(&self.text, span.start);
        let text = self.text.get(line.clone()).unwrap_or_default();
        let start = (span.start - line.start).min(text.len());
        let before = |end: usize| self.text.get(..end).unwrap_or_default();
        // The file as a whole, such as a table that is not there at all, has no line to show.
        let shown = (!span.is_empty() || span.start > 0).then(|| {
            let end = span.end.clamp(span.start, line.end) - line.start;
            let inside_secret = hidden
                .iter()
                .any(|secret| secret.start < line.start && line.start < secret.end);
            show(text, start..end.max(start), inside_secret)
        });
        Located {
            file: self.name.clone(),
            line: before(line.start).matches('\n').count() + 1,
            column: text.get(..start).unwrap_or_default().chars().count() + 1,
            message: printable(&mistake.message),
            hint: mistake.hint.as_deref().map(printable),
            shown,
        }
    }
}

impl fmt::Debug for Source {
    /// Without the text, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Values of sensitive keys, which may go over several lines.
fn hidden_spans(file: &DeTable<'_>, hidden: &mut Vec<Range<usize>>) {
    tree::visit(file, &KeyPath::root(), &mut |path, value| {
        if path.last_key().is_some_and(mask::is_sensitive) {
            hidden.push(value.span());
        }
        true
    });
}

/// The line to show and what to underline in it, masked.
fn show(line: &str, span: Range<usize>, inside_secret: bool) -> (String, Range<usize>) {
    if inside_secret {
        return (mask::MASK.to_owned(), 0..mask::MASK.len());
    }
    let (masked, differs_from) = mask::mask(line.trim_end_matches('\r'));
    let start = span.start.min(differs_from).min(masked.len());
    let end = if span.end > differs_from {
        masked.len()
    } else {
        span.end.min(masked.len())
    };
    (masked, start..end.max(start))
}

/// Keys and values are quoted in messages: nothing in them may steer the terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// Whether there is nothing wrong.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many mistakes there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// The mistakes, in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Located> {
        self.items.iter()
    }

    /// All mistakes as they are shown to people: the line, a caret below it and a hint. With `color`, with escape
    /// sequences for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for item in &self.items {
            out.push_str(&renderer.render(&[item.group()]));
            out.push_str("\n\n");
        }
        let (count, plural) = (self.len(), if self.len() == 1 { "" } else { "s" });
        out.push_str(&format!("{count} mistake{plural} in {}", self.file));
        out
    }

    pub(super) fn unreadable(name: &str, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                "name the file with `-c FILE` or GATEWAY_CONFIG; `bonterra-gateway config default` prints one to start from"
            }
            io::ErrorKind::PermissionDenied => "let the user that the gateway runs as read it",
            io::ErrorKind::IsADirectory => "name the file in it: `-c DIRECTORY/gateway.toml`",
            _ => "see whether another program can read it",
        };
        Self::whole_file(name, format!("{name} cannot be read: {error}"), hint)
    }

    pub(super) fn not_text(name: &str, error: &std::string::FromUtf8Error) -> Self {
        let valid = error.utf8_error().valid_up_to();
        let newlines = error
            .as_bytes()
            .iter()
            .take(valid)
            .filter(|byte| **byte == b'\n');
        let line = newlines.count() + 1;
        Self::whole_file(
            name,
            format!("{name} is not a text in UTF-8: the first other byte is in line {line}"),
            "save it as UTF-8",
        )
    }

    fn whole_file(name: &str, message: String, hint: &str) -> Self {
        Self {
            file: name.to_owned(),
            items: vec![Located {
                file: name.to_owned(),
                line: 0,
                column: 0,
                message: printable(&message),
                hint: Some(hint.to_owned()),
                shown: None,
            }],
        }
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a Located;
    type IntoIter = std::slice::Iter<'a, Located>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for ConfigErrors {}

// === impl Located ===

impl Located {
    fn group(&self) -> Group<'_> {
        let group = Level::ERROR.primary_title(self.message.as_str());
        let group = match &self.shown {
            Some((line, span)) => group.element(
                Snippet::source(line.as_str())
                    .line_start(self.line)
                    .path(self.file.as_str())
                    .annotation(AnnotationKind::Primary.span(span.clone())),
            ),
            None => {
                let origin = Origin::path(self.file.as_str());
                group.element(match self.line {
                    0 => origin,
                    line => origin.line(line).char_column(self.column),
                })
            }
        };
        match &self.hint {
            Some(hint) => group.element(Level::HELP.message(hint.as_str())),
            None => group,
        }
    }
}
