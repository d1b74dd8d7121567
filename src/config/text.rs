//! What all values written as text share: one error, and one way into serde and the schema.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

use serde::de::{Error, Visitor};

/// A text that does not have the form that its key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadText(pub String);

impl fmt::Display for BadText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadText {}

/// Parses a text where it is visited: an error that is raised there gets the span of exactly this text, also within
/// a list.
pub(super) struct Parse<T> {
    title: &'static str,
    parsed: PhantomData<T>,
}

impl<T> Parse<T> {
    pub const fn new(title: &'static str) -> Self {
        Self {
            title,
            parsed: PhantomData,
        }
    }
}

impl<T: FromStr<Err = BadText>> Visitor<'_> for Parse<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}

/// Gives a type that has `FromStr` and `Display` its place in serde and in the schema: a string with a title (the
/// type's name in messages and in the reference), a pattern and examples (which become hints).
macro_rules! text_type {
    ($name:ty, $title:literal, $pattern:literal, [$($example:literal),+]) => {
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::config::text::Parse::new($title))
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                $title.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "title": $title,
                    "pattern": $pattern,
                    "examples": [$($example),+],
                })
            }
        }
    };
}

pub(super) use text_type;
