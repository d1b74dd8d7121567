//! Compares the file with its shape: unknown keys and wrong types, all of them in one walk.
//!
//! serde would stop at the first. What is inside a string (`"30x"`) is left to the types themselves.

use toml::de::{DeTable, DeValue};
use toml::{Spanned, de::DeArray};

use super::mistake::{Mistake, Part};
use super::path::KeyPath;
use super::shape::{Field, Shape};
use super::suggest::suggest;

/// Every unknown key and every value of the wrong type.
pub(super) fn check(file: &DeTable<'_>) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    if let Shape::Table { keys } = Shape::of_file() {
        table(keys, &KeyPath::root(), file, &mut mistakes);
    }
    mistakes
}

fn table(keys: &[Field], at: &KeyPath, entries: &DeTable<'_>, out: &mut Vec<Mistake>) {
    for (name, entry) in entries {
        let name: &str = name.get_ref();
        let here = at.key(name);
        match keys.iter().find(|field| field.name == name) {
            Some(field) => value(&field.shape, &here, entry, out),
            None => out.push(unknown(keys, at, here, name)),
        }
    }
}

fn value(shape: &Shape, at: &KeyPath, found: &Spanned<DeValue<'_>>, out: &mut Vec<Mistake>) {
    match (shape, found.get_ref()) {
        (Shape::Table { keys }, DeValue::Table(entries)) => table(keys, at, entries, out),
        (Shape::Map { of, .. }, DeValue::Table(entries)) => {
            for (name, entry) in entries {
                named(of, &at.key(name.get_ref().as_ref()), entry, out);
            }
        }
        (Shape::List { of, .. }, DeValue::Array(items)) => {
            for (index, item) in items.iter().enumerate() {
                value(of, &at.index(index), item, out);
            }
        }
        (Shape::Text { choices, .. }, DeValue::String(text)) => {
            out.extend(choice(choices, at, text));
        }
        (Shape::Bool, DeValue::Boolean(_)) => {}
        (Shape::Count, DeValue::Integer(number)) => {
            if number.as_str().starts_with('-') {
                out.push(Mistake::shape(
                    at.clone(),
                    Part::Value,
                    format!("{number} is negative"),
                ));
            }
        }
        (Shape::Any, _) => any(at, found, out),
        (Shape::Either(shapes), kind) => match shapes.iter().find(|shape| takes(shape, kind)) {
            Some(shape) => value(shape, at, found, out),
            None => out.push(mismatch(shape, at, kind)),
        },
        (_, other) => out.push(mismatch(shape, at, other)),
    }
}

/// Whether a value is of the kind that this shape is for.
fn takes(shape: &Shape, found: &DeValue<'_>) -> bool {
    matches!(
        (shape, found),
        (Shape::Table { .. } | Shape::Map { .. }, DeValue::Table(_))
            | (Shape::List { .. }, DeValue::Array(_))
            | (Shape::Text { .. }, DeValue::String(_))
            | (Shape::Count, DeValue::Integer(_))
            | (Shape::Bool, DeValue::Boolean(_))
    )
}

/// An entry of a map.
fn named(of: &Shape, at: &KeyPath, found: &Spanned<DeValue<'_>>, out: &mut Vec<Mistake>) {
    match at.parent() {
        Some(map) if name_is_forgotten(of, at, found.get_ref()) => out.push(nameless(&map, at)),
        _ => value(of, at, found, out),
    }
}

/// Whether what stands where a name should is a key of the table below it: `url` in `[issuer]`, or `[issuer.jwks]`.
/// A table that happens to have such a name, and fits, is none of these.
fn name_is_forgotten(of: &Shape, at: &KeyPath, found: &DeValue<'_>) -> bool {
    let Shape::Table { keys } = of else {
        return false;
    };
    let Some(field) = keys.iter().find(|f| Some(f.name.as_str()) == at.last_key()) else {
        return false;
    };
    let has = |keys: &[Field], name: &str| keys.iter().any(|field| field.name == name);
    match (found, &field.shape) {
        (DeValue::Table(entries), Shape::Table { keys: inner }) => entries
            .keys()
            .any(|key| has(inner, key.get_ref()) && !has(keys, key.get_ref())),
        (DeValue::Table(_), _) => false,
        _ => true,
    }
}

fn nameless(map: &KeyPath, at: &KeyPath) -> Mistake {
    let key = at.last_key().unwrap_or_default();
    Mistake::shape(
        at.clone(),
        Part::Key,
        format!("`{key}` is in a table without a name"),
    )
    .hint(format!("tables of this kind have a name: `[{map}.NAME]`"))
}

fn unknown(keys: &[Field], table: &KeyPath, at: KeyPath, name: &str) -> Mistake {
    let names = || keys.iter().map(|field| field.name.as_str());
    let message = format!("unknown key `{name}`");
    if let Some(meant) = suggest(name, names()) {
        let hint = format!("did you mean `{meant}`?");
        return Mistake::unknown(at, message, Some(table.key(meant))).hint(hint);
    }
    let mut homes = Vec::new();
    tables_with(name, Shape::of_file(), String::new(), false, &mut homes);
    let hint = match homes.as_slice() {
        [] => format!("keys here are {}", names().collect::<Vec<_>>().join(", ")),
        homes => format!("`{name}` is a key of {}", homes.join(", ")),
    };
    Mistake::unknown(at, message, None).hint(hint)
}

/// The tables, as their headers, that have a key `name`.
fn tables_with(name: &str, shape: &Shape, path: String, in_list: bool, out: &mut Vec<String>) {
    match shape {
        Shape::Table { keys } => {
            for field in keys {
                let dot = if path.is_empty() { "" } else { "." };
                let below = format!("{path}{dot}{}", field.name);
                if field.name == name && !path.is_empty() {
                    out.push(if in_list {
                        format!("`[[{path}]]`")
                    } else {
                        format!("`[{path}]`")
                    });
                }
                tables_with(name, &field.shape, below, false, out);
            }
        }
        Shape::Map { of, .. } => tables_with(name, of, format!("{path}.NAME"), false, out),
        Shape::List { of, .. } => tables_with(name, of, path, true, out),
        _ => {}
    }
}

fn choice(choices: &[String], at: &KeyPath, text: &str) -> Option<Mistake> {
    if choices.is_empty() || choices.iter().any(|choice| choice == text) {
        return None;
    }
    let hint = match suggest(text, choices.iter().map(String::as_str)) {
        Some(meant) => format!("did you mean \"{meant}\"?"),
        None => format!("one of \"{}\"", choices.join("\", \"")),
    };
    let what = at.name().unwrap_or_default();
    let message = format!("{text:?} is not a possible value of `{what}`");
    Some(Mistake::shape(at.clone(), Part::Value, message).hint(hint))
}

/// A value that is compared with JSON later: dates, infinities and NaN have no counterpart there.
fn any(at: &KeyPath, found: &Spanned<DeValue<'_>>, out: &mut Vec<Mistake>) {
    let refuse = |what: &str| {
        Mistake::shape(
            at.clone(),
            Part::Value,
            format!("{what} cannot be the value of a claim"),
        )
        .hint("claims are strings, numbers, booleans, or lists and tables of them")
    };
    match found.get_ref() {
        DeValue::Datetime(_) => out.push(refuse("a date")),
        DeValue::Float(number) if !number.as_str().parse().is_ok_and(f64::is_finite) => {
            out.push(refuse("a number that is not finite"));
        }
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                any(&at.index(index), item, out);
            }
        }
        DeValue::Table(entries) => {
            for (name, entry) in entries {
                any(&at.key(name.get_ref().as_ref()), entry, out);
            }
        }
        _ => {}
    }
}

fn mismatch(shape: &Shape, at: &KeyPath, found: &DeValue<'_>) -> Mistake {
    let message = format!("expected {}, found {}", shape.noun(), noun(found));
    let mistake = Mistake::shape(at.clone(), Part::Value, message);
    match hint(shape, at, found) {
        Some(hint) => mistake.hint(hint),
        None => mistake,
    }
}

/// How the value could have been written.
fn hint(shape: &Shape, at: &KeyPath, found: &DeValue<'_>) -> Option<String> {
    match (shape, found) {
        (
            Shape::Text {
                title: Some(title), ..
            },
            DeValue::Integer(number),
        ) => match title.as_str() {
            "duration" => Some(format!("write \"{number}s\"")),
            "size" => Some(format!("write \"{number}B\"")),
            "percentage" => Some(format!("write \"{number}%\"")),
            _ => examples(shape),
        },
        (Shape::Text { choices, .. }, _) if !choices.is_empty() => {
            Some(format!("one of \"{}\"", choices.join("\", \"")))
        }
        (Shape::Text { .. }, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_)) => {
            examples(shape).or_else(|| Some("put it in quotes".to_owned()))
        }
        (Shape::Text { .. }, _) => examples(shape),
        (Shape::List { of, .. }, DeValue::Table(_)) if matches!(**of, Shape::Table { .. }) => {
            Some(format!("write `[[{at}]]`, once for each"))
        }
        (Shape::Table { .. } | Shape::Map { .. }, DeValue::Array(_)) => {
            Some(format!("write `[{at}]`, in single brackets"))
        }
        (Shape::List { .. }, DeValue::String(_)) => Some("put it in brackets: [\"…\"]".to_owned()),
        (Shape::Either(shapes), _) => shapes.iter().find_map(|shape| hint(shape, at, found)),
        (Shape::Bool, DeValue::String(_)) | (Shape::Count, DeValue::String(_)) => {
            Some("write it without quotes".to_owned())
        }
        _ => None,
    }
}

/// How a text of this shape looks.
pub(super) fn examples(shape: &Shape) -> Option<String> {
    match shape {
        Shape::Text { examples, .. } if !examples.is_empty() => {
            Some(format!("for example \"{}\"", examples.join("\" or \"")))
        }
        Shape::Either(shapes) => shapes.iter().find_map(self::examples),
        _ => None,
    }
}

fn noun(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(items) => array_noun(items),
        DeValue::Table(_) => "a table",
    }
}

fn array_noun(items: &DeArray<'_>) -> &'static str {
    match items.first().map(Spanned::get_ref) {
        Some(DeValue::Table(_)) => "a list of tables",
        _ => "a list",
    }
}
