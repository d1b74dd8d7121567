//! The JSON Schema of the file: for editors, for the reference, and for telling what a key should have been.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::Config;

/// The JSON Schema (2020-12) of `gateway.toml`.
pub fn schema() -> Value {
    generate(false)
}

/// The same without `$ref`s, easier to walk.
pub(super) fn inlined() -> Value {
    generate(true)
}

fn generate(inline: bool) -> Value {
    let settings =
        SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = inline);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Config>()
        .to_value();
    drop_null(&mut schema);
    schema
}

/// TOML has no null: an optional key is absent.
fn drop_null(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            // Defaults of optional keys, also within those of their tables.
            object.retain(|_, value| !value.is_null());
            if let Some(Value::Array(types)) = object.get("type")
                && let [only] = types
                    .iter()
                    .filter(|name| *name != "null")
                    .collect::<Vec<_>>()
                    .as_slice()
            {
                let only = (*only).clone();
                object.insert("type".to_owned(), only);
            }
            // An optional table is a reference to it, or null.
            if let Some(Value::Array(alternatives)) = object.get_mut("anyOf") {
                alternatives.retain(|one| one.get("type").is_none_or(|name| name != "null"));
                if let [Value::Object(only)] = alternatives.as_slice() {
                    let only = only.clone();
                    object.remove("anyOf");
                    object.extend(only);
                }
            }
            object.values_mut().for_each(drop_null);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_null),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_a_2020_12_schema_without_null() {
        let schema = schema();
        let dialect = "https://json-schema.org/draft/2020-12/schema";
        assert_eq!(schema.get("$schema").and_then(Value::as_str), Some(dialect));
        let text = schema.to_string();
        for null in [":null", ",null", "[null", "\"null\""] {
            assert!(!text.contains(null), "{schema:#}");
        }
        assert!(!inlined().to_string().contains("$ref"), "{:#}", inlined());
        assert_eq!(
            schema.pointer("/$defs/Server/properties/idle_timeout/default"),
            Some(&Value::from("75s"))
        );
        assert_eq!(
            schema.pointer("/$defs/Route/additionalProperties"),
            Some(&Value::Bool(false))
        );
    }
}
