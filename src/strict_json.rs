//! JSON objects without repeated members, at any depth: two readers of one token must not be able
//! to see different claims (RFC 7515 §4, RFC 7519 §4).

use crate::identity::Members;
use compact_str::CompactString;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::fmt;

/// Parses an object, or `None` for anything else, repeated members included.
pub fn object(bytes: &[u8]) -> Option<Members> {
    // One look at all of it is quicker than one at each string.
    let text = std::str::from_utf8(bytes).ok()?;
    let outermost: Outermost = serde_json::from_str(text).ok()?;
    Some(outermost.0)
}

/// The outermost object, whose members are kept as a list.
struct Outermost(Members);

struct OutermostVisitor;

impl<'de> Deserialize<'de> for Outermost {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(OutermostVisitor)
    }
}

impl<'de> Visitor<'de> for OutermostVisitor {
    type Value = Outermost;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object without repeated members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Outermost, A::Error> {
        let mut list = Vec::with_capacity(16);
        while let Some((name, Strict(value))) = members.next_entry::<CompactString, Strict>()? {
            list.push((name, value));
        }
        Members::new(list)
            .map(Outermost)
            .ok_or_else(|| A::Error::custom("repeated member"))
    }
}

/// A value in which no object repeats a member.
struct Strict(Value);

struct StrictVisitor;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let Strict(value) = members.next_value()?;
            if map.insert(name, value).is_some() {
                return Err(A::Error::custom("repeated member"));
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::object;
    use crate::identity::Members;

    #[test]
    fn strictness() {
        for good in [
            r#"{}"#,
            r#"{"a":1,"b":{"a":[1.5,"x",null,true,{"a":-1}]}}"#,
            r#" {"a":18446744073709551615} "#,
        ] {
            let expected: serde_json::Value = serde_json::from_str(good).expect("JSON");
            let expected = expected.as_object().expect("an object").clone();
            let expected = Members::new(expected.into_iter().map(|(n, v)| (n.into(), v)).collect());
            assert!(expected.is_some());
            assert_eq!(object(good.as_bytes()), expected, "{good}");
        }
        for bad in [
            r#"{"a":1,"a":1}"#,
            r#"{"x":{"a":1,"a":2}}"#,
            r#"{"x":[{"a":1,"\u0061":2}]}"#,
            r#"[1]"#,
            r#"{"a":1}x"#,
            "{\"a\":\"\u{1}\"}",
            "",
        ] {
            assert_eq!(object(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(object(b"{\"a\":\"\xff\"}"), None, "bad UTF-8");
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(object(deep.as_bytes()), None, "10,000 levels");
    }
}
