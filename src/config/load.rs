//! Reads the file: everything that can be read of it, and every mistake.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::de::DeTable;

use super::check::{check, examples};
use super::mistake::{Mistake, Part};
use super::path::{KeyPath, Segment};
use super::report::{ConfigErrors, Source};
use super::shape::Shape;
use super::{Config, syntax, tree};

/// How many values with a wrong content are looked for before the rest of the file is given up.
const ROUNDS: usize = 200;

/// A file that was read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What the file says; where it has a mistake, the default. Not to be served from while there are mistakes.
    pub config: Config,
    /// The text, to show mistakes in.
    pub source: Source,
    /// Wrong syntax, unknown keys, values of the wrong type or form. Hand them, and those found later, to
    /// [`Source::report`].
    pub mistakes: Vec<Mistake>,
}

/// Reads the file at `path`.
///
/// # Errors
/// When the file cannot be read or is not text. Mistakes in it are in [`Parsed::mistakes`].
pub fn load(path: &Path) -> Result<Parsed, ConfigErrors> {
    let name = path.display().to_string();
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Err(ConfigErrors::unreadable(&name, &error)),
    };
    match String::from_utf8(bytes) {
        Ok(text) => Ok(parse(&name, &text)),
        Err(error) => Err(ConfigErrors::not_text(&name, &error)),
    }
}

/// Reads `text`. `name` is what messages call the file.
pub fn parse(name: &str, text: &str) -> Parsed {
    let (patched, mut mistakes) = syntax::patch(text);
    let (file, _) = DeTable::parse_recoverable(&patched);
    mistakes.extend(check(file.get_ref()));
    let mut removed = mistakes.iter().map(|mistake| mistake.at.clone()).collect();
    let config = repair(&file, &mut removed, &mut mistakes);
    Parsed {
        config,
        source: Source::new(name, text),
        mistakes,
    }
}

/// Deserializes the file; each value that is refused is taken out, and the rest tried again.
///
/// The structs stay plain serde structs that way. Keys and types are checked already, so what is refused here is
/// the content of a single value, whose message is ours.
fn repair(
    file: &Spanned<DeTable<'_>>,
    removed: &mut BTreeSet<KeyPath>,
    mistakes: &mut Vec<Mistake>,
) -> Config {
    for _ in 0..ROUNDS {
        let rest = tree::without(file.get_ref(), &KeyPath::root(), removed);
        let rest = Spanned::new(file.span(), rest);
        let error = match Config::deserialize(toml::Deserializer::from(rest)) {
            Ok(config) => return config,
            Err(error) => error,
        };
        let at = error
            .span()
            .and_then(|span| tree::path_of(file.get_ref(), &span, removed));
        let found = at.is_some();
        let at = at.unwrap_or_default();
        let mut mistake = Mistake::shape(at.clone(), Part::Value, message(&error));
        if let Some(hint) = shape_at(&at).and_then(examples)
            && !error.message().contains("write \"")
        {
            mistake = mistake.hint(hint);
        }
        mistakes.push(mistake);
        if !found {
            return Config::default();
        }
        removed.insert(at);
    }
    let message = format!("more than {ROUNDS} values are wrong, the rest was not looked at");
    mistakes.push(Mistake::shape(KeyPath::root(), Part::Value, message));
    Config::default()
}

/// serde's own words for a number out of range would name Rust's types.
fn message(error: &toml::de::Error) -> String {
    let message = error.message();
    if message.contains("expected usize") || message.contains("overflowed") {
        "the number is too large".to_owned()
    } else {
        message.to_owned()
    }
}

fn shape_at(path: &KeyPath) -> Option<&'static Shape> {
    let mut shape = Shape::of_file();
    for segment in path.segments() {
        let table = |shape: &&Shape| matches!(shape, Shape::Table { .. });
        if let Shape::Either(shapes) = shape {
            shape = shapes.iter().find(table)?;
        }
        shape = match (shape, segment) {
            (Shape::Table { keys }, Segment::Key(key)) => {
                &keys.iter().find(|f| f.name == *key)?.shape
            }
            (Shape::Map { of, .. }, Segment::Key(_))
            | (Shape::List { of, .. }, Segment::Index(_)) => of,
            _ => return None,
        };
    }
    Some(shape)
}
