//! docs/CONFIGURATION.md, made from the schema: the doc comments of the structs are the reference.

use std::fmt::Write;

use serde_json::Value;

use super::path::QuotedKey;
use super::shape::{Field, Shape};

const INTRODUCTION: &str = "\
# Configuration

<!-- Generated from the doc comments in src/config/. After a change there: UPDATE_DOCS=1 cargo test config::docs -->

Everything is in one TOML file: `-c FILE`, else the environment variable `GATEWAY_CONFIG`, else `./gateway.toml`.
`bonterra-gateway config default` prints a commented one to start from, `check` finds every mistake in yours,
`config show` prints it with all defaults filled in, and `config schema` prints a JSON Schema for editors.

The file is strict: an unknown key is an error, and so is a key that this version does not support. There is no
interpolation of variables.

| Type | Written as |
|---|---|
| duration | `\"250ms\"`, `\"30s\"`, `\"10m\"`, `\"1h 30m\"`, `\"7d\"`; always with a unit |
| size | `\"512B\"`, `\"64KiB\"`, `\"10MiB\"`; always with a unit, `KB` is 1000 bytes, `KiB` 1024 |
| percentage | `\"20%\"` |
| rate | `\"100/s\"`, `\"30/m\"`, `\"1000/h\"` |
| address and port | `\"127.0.0.1:8080\"`, `\"[::]:8080\"`; names are not looked up |
| network | `\"10.0.0.0/8\"`, `\"192.0.2.7/32\"`, `\"fd00::/8\"` |

NAME in a header stands for a name of your choice.
";

/// The reference of all keys, as Markdown.
pub fn reference_markdown() -> String {
    let mut out = INTRODUCTION.to_owned();
    if let Shape::Table { keys } = Shape::of_file() {
        for field in keys {
            section(&mut out, &field.name, &field.shape, &field.text, false);
        }
    }
    out
}

/// The section of a table and those of the tables in it.
fn section(out: &mut String, path: &str, shape: &Shape, text: &str, repeated: bool) {
    match shape {
        Shape::Table { keys } => {
            let header = if repeated {
                format!("[[{path}]]")
            } else {
                format!("[{path}]")
            };
            // Writing to a String cannot fail.
            let _ = write!(out, "\n## `{header}`\n\n{text}\n");
            rows(out, keys);
            for field in keys.iter().filter(|field| is_section(&field.shape)) {
                let below = format!("{path}.{}", field.name);
                section(out, &below, &field.shape, &field.text, false);
            }
        }
        Shape::Map { of, text } => section(out, &format!("{path}.NAME"), of, text, false),
        Shape::List { of, text } => section(out, path, of, text, true),
        _ => {}
    }
}

fn is_section(shape: &Shape) -> bool {
    match shape {
        Shape::Table { .. } => true,
        Shape::Map { of, .. } | Shape::List { of, .. } => is_section(of),
        _ => false,
    }
}

fn rows(out: &mut String, keys: &[Field]) {
    let mut leaves = keys
        .iter()
        .filter(|field| !is_section(&field.shape))
        .peekable();
    if leaves.peek().is_none() {
        return;
    }
    out.push_str("\n| Key | Type | Default | |\n|---|---|---|---|\n");
    for field in leaves {
        let (required, text) = match field.text.strip_prefix("Required. ") {
            Some(text) => (true, text),
            None => (false, field.text.as_str()),
        };
        let default = match &field.default {
            _ if required => "required".to_owned(),
            Some(value) => format!("`{}`", toml(value)),
            None => String::new(),
        };
        let cells = [
            format!("`{}`", field.name),
            kind(&field.shape),
            default,
            text.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
}

fn kind(shape: &Shape) -> String {
    match shape {
        Shape::Text { choices, .. } if !choices.is_empty() => {
            format!("`\"{}\"`", choices.join("\"`, `\""))
        }
        Shape::Text { title, .. } => title.clone().unwrap_or_else(|| "string".to_owned()),
        Shape::List { of, .. } => format!("list of: {}", kind(of)),
        Shape::Map { of, .. } => format!("table of: {}", kind(of)),
        Shape::Table { .. } => "table".to_owned(),
        Shape::Count => "number".to_owned(),
        Shape::Bool => "boolean".to_owned(),
        Shape::Either(shapes) => {
            let kinds: Vec<_> = shapes.iter().map(kind).collect();
            kinds.join(" or ")
        }
        Shape::Any => "any value".to_owned(),
    }
}

/// A default, in one line of TOML.
fn toml(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(toml).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
        Value::Object(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|(key, value)| format!("{} = {}", QuotedKey(key), toml(value)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
        let wanted = reference_markdown();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "docs/CONFIGURATION.md is not what the doc comments say; write it anew with UPDATE_DOCS=1"
        );
    }

    #[test]
    fn every_key_has_a_text() {
        fn look(path: &str, shape: &Shape) {
            match shape {
                Shape::Table { keys } => {
                    for field in keys {
                        let path = format!("{path}.{}", field.name);
                        assert!(!field.text.is_empty(), "{path} has no doc comment");
                        look(&path, &field.shape);
                    }
                }
                Shape::Map { of, .. } | Shape::List { of, .. } => look(path, of),
                _ => {}
            }
        }
        look("", Shape::of_file());
    }
}
