//! Claims as header values.

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;
use std::borrow::Cow;

/// Bytes that a header value carries as they are: visible ASCII and the space between words, but
/// not `%`, which marks the encoded ones.
const ENCODED: AsciiSet = CONTROLS.add(b'%');

/// A claim as a header value: booleans `true` and `false`, numbers decimal, arrays of scalars
/// joined by commas, objects as compact JSON; bytes outside visible ASCII, `%` and, in the
/// members of an array, `,` are percent-encoded.
///
/// `None` for `null`: a claim that says nothing sets no header.
pub fn encode_claim(value: &Value) -> Option<HeaderValue> {
    let text = match value {
        Value::Null => return None,
        Value::Array(items) if items.iter().all(is_scalar) => {
            let members: Vec<String> = items
                .iter()
                .map(|item| guard_edges(encoded(item)).replace(',', "%2C"))
                .collect();
            Cow::Owned(members.join(","))
        }
        other => guard_edges(encoded(other)),
    };
    HeaderValue::from_str(&text).ok()
}

/// Spaces at either end are not part of a field value (RFC 9110 §5.5) nor of a member of a list
/// (§5.6.1), so they are encoded too.
fn guard_edges(text: Cow<'_, str>) -> Cow<'_, str> {
    let inner = text.trim_matches(' ');
    if inner.len() == text.len() {
        return text;
    }
    let before = text.len() - text.trim_start_matches(' ').len();
    let after = text.len() - before - inner.len();
    Cow::Owned(format!(
        "{}{inner}{}",
        "%20".repeat(before),
        "%20".repeat(after)
    ))
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

/// Most claims are plain text, which is borrowed.
fn encoded(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => utf8_percent_encode(text, &ENCODED).into(),
        Value::Null => Cow::Borrowed(""),
        Value::Bool(true) => Cow::Borrowed("true"),
        Value::Bool(false) => Cow::Borrowed("false"),
        Value::Number(number) => Cow::Owned(number.to_string()),
        Value::Array(_) | Value::Object(_) => {
            Cow::Owned(utf8_percent_encode(&value.to_string(), &ENCODED).to_string())
        }
    }
}
