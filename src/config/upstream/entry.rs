//! A server as it is written in `servers`: its URL, or a table.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamServer {
    /// `http://host:port`; empty if the table has none.
    pub url: String,
    /// Its share of the requests, compared with the others'.
    pub weight: usize,
}

/// The same written as a table.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Required. The URL of the server, without a path.
    #[serde(default)]
    url: String,
    /// Its share of the requests, compared with the others': 1 to 1000.
    #[serde(default = "one")]
    weight: usize,
}

struct Either;

const fn one() -> usize {
    1
}

// === impl UpstreamServer ===

impl<'de> Deserialize<'de> for UpstreamServer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Either)
    }
}

impl<'de> Visitor<'de> for Either {
    type Value = UpstreamServer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a URL, or a table with a URL")
    }

    fn visit_str<E>(self, url: &str) -> Result<UpstreamServer, E> {
        Ok(UpstreamServer {
            url: url.to_owned(),
            weight: one(),
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<UpstreamServer, A::Error> {
        let Table { url, weight } = Table::deserialize(MapAccessDeserializer::new(map))?;
        Ok(UpstreamServer { url, weight })
    }
}

impl Serialize for UpstreamServer {
    /// As short as it can be written.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.weight == one() {
            return serializer.serialize_str(&self.url);
        }
        let table = Table {
            url: self.url.clone(),
            weight: self.weight,
        };
        table.serialize(serializer)
    }
}

impl JsonSchema for UpstreamServer {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "server".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut table = Table::json_schema(generator);
        table.remove("$schema");
        json_schema!({ "anyOf": [{ "type": "string" }, table] })
    }
}
