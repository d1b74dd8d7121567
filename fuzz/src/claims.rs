//! A claim can be told from its header: visible ASCII and single spaces between it, and decoding gives the claim back.

use super::Outcome;
use super::json::Json;
use bonterra_gateway::headers::encode_claim;
use percent_encoding::percent_decode_str;
use serde_json::Value;

/// Checks the JSON text of a claim.
pub fn check(data: &[u8]) -> Outcome {
    let Ok(claim) = serde_json::from_slice::<Value>(data) else {
        return Outcome::Refused;
    };
    let Some(value) = encode_claim(&claim) else {
        assert!(claim.is_null(), "a claim without a header: {claim}");
        return Outcome::Accepted;
    };
    let text = value.to_str().expect("visible ASCII");
    assert!(text.bytes().all(|b| matches!(b, b' '..=b'~')), "{text:?}");
    assert_eq!(text.trim(), text, "readers trim values");
    match &claim {
        Value::Null => panic!("a header for nothing: {text:?}"),
        Value::Array(items) if items.iter().all(is_scalar) => {
            let members: Vec<&str> = text.split(',').collect();
            // No member and one empty member are written alike.
            if !(items.is_empty() && text.is_empty()) {
                assert_eq!(members.len(), items.len(), "{text:?}");
            }
            for (member, item) in members.iter().zip(items) {
                assert_eq!(decoded(member), plain(item), "{text:?}");
            }
        }
        Value::Array(_) | Value::Object(_) => {
            let read: Value = serde_json::from_str(&decoded(text)).expect("JSON");
            assert_eq!(read, claim, "{text:?}");
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            assert_eq!(decoded(text), plain(&claim), "{text:?}");
        }
    }
    if let (Value::Number(_), Some(Json::Bare(written))) = (&claim, Json::read(data)) {
        assert_eq!(text.parse::<f64>(), written.parse::<f64>(), "{text:?}");
    }
    Outcome::Accepted
}

fn is_scalar(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_))
}

fn decoded(text: &str) -> String {
    let text = percent_decode_str(text).decode_utf8();
    text.expect("UTF-8").into_owned()
}

/// A scalar as a person would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
