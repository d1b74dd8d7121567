//! `[upstream.NAME.health]`

use std::borrow::Cow;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::text::BadText;
use super::super::units::Dur;

/// Asks each server regularly whether it is well; one that is not gets no requests.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// Required. What is asked for, by GET: `"/healthz"`.
    pub path: Option<String>,
    /// Between two questions to a server, give or take a tenth.
    pub interval: Dur,
    /// For the whole of a question, connecting included.
    pub timeout: Dur,
    /// So many good answers in a row make a server well again.
    pub healthy_after: usize,
    /// So many bad ones in a row, or none in time, make it unwell.
    pub unhealthy_after: usize,
    /// Good answers: statuses and ranges of them, `[200, "300-399"]`.
    pub expect: Vec<Statuses>,
}

/// A status, or a range of them: `200`, `"200-299"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(pub RangeInclusive<u16>);

struct Either;

impl Default for Health {
    fn default() -> Self {
        Self {
            path: None,
            interval: Dur::secs(5),
            timeout: Dur::secs(2),
            healthy_after: 2,
            unhealthy_after: 3,
            expect: vec![Statuses(200..=299)],
        }
    }
}

// === impl Statuses ===

fn status(number: u64) -> Option<u16> {
    u16::try_from(number)
        .ok()
        .filter(|status| (100..=599).contains(status))
}

impl FromStr for Statuses {
    type Err = BadText;

    fn from_str(text: &str) -> Result<Self, BadText> {
        let one = |text: &str| text.trim().parse().ok().and_then(status);
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (one(first), one(last)) {
            (Some(first), Some(last)) if first <= last => Ok(Self(first..=last)),
            _ => Err(BadText(format!("{text:?} is no range of statuses"))),
        }
    }
}

impl fmt::Display for Statuses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl<'de> Deserialize<'de> for Statuses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

impl Visitor<'_> for Either {
    type Value = Statuses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status or a range of statuses")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Statuses, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Statuses, E> {
        let status = u64::try_from(number).ok().and_then(status);
        let status = status.ok_or_else(|| E::custom(format!("{number} is no status")))?;
        Ok(Statuses(status..=status))
    }
}

impl Serialize for Statuses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.start() == self.0.end() {
            return serializer.serialize_u16(*self.0.start());
        }
        serializer.collect_str(self)
    }
}

impl JsonSchema for Statuses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "statuses".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "title": "range of statuses", "pattern": "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$", "examples": ["200-299"] },
        ] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_statuses() {
        for (text, range) in [
            ("200-299", 200..=299),
            ("204", 204..=204),
            ("100-599", 100..=599),
        ] {
            assert_eq!(text.parse(), Ok(Statuses(range)), "{text}");
        }
        for text in ["", "-", "200-", "299-200", "99-200", "200-600", "2xx"] {
            assert!(text.parse::<Statuses>().is_err(), "{text:?}");
        }
    }
}
