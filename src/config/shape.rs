//! The shape of the file, read from its schema: which keys a table has and what goes into them.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::schema;

/// What may stand at some place of the file.
#[derive(Debug)]
pub(super) enum Shape {
    /// A table with these keys.
    Table { keys: Vec<Field> },
    /// A table with keys of the user's choice.
    Map { of: Box<Shape>, text: String },
    /// A list.
    List { of: Box<Shape>, text: String },
    /// A string: one of `choices`, or of the form that `title` names, or any.
    Text {
        title: Option<String>,
        choices: Vec<String>,
        examples: Vec<String>,
    },
    /// A whole number, not negative.
    Count,
    /// `true` or `false`.
    Bool,
    /// One of these.
    Either(Vec<Shape>),
    /// Whatever TOML can say.
    Any,
}

/// A key of a table.
#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    pub shape: Shape,
    /// What the key does, as the reference says it.
    pub text: String,
    pub default: Option<Value>,
}

impl Shape {
    /// The shape of the whole file.
    pub fn of_file() -> &'static Self {
        static FILE: LazyLock<Shape> = LazyLock::new(|| Shape::read(&schema::inlined()));
        &FILE
    }

    /// The shape at a path of keys, `*` standing for any key or index.
    #[cfg(test)]
    pub fn descend(&self, path: &[&str]) -> Option<&Self> {
        let Some((first, rest)) = path.split_first() else {
            return Some(self);
        };
        match self {
            Self::Table { keys } => keys
                .iter()
                .find(|field| field.name == *first)?
                .shape
                .descend(rest),
            Self::Map { of, .. } | Self::List { of, .. } => of.descend(rest),
            Self::Either(shapes) => shapes.iter().find_map(|shape| shape.descend(path)),
            _ => None,
        }
    }

    /// What a value of this shape is called, after "expected".
    pub fn noun(&self) -> String {
        match self {
            Self::Table { .. } | Self::Map { .. } => "a table".to_owned(),
            Self::List { .. } => "a list".to_owned(),
            Self::Text {
                title: Some(title), ..
            } if title.starts_with('a') => format!("an {title}"),
            Self::Text {
                title: Some(title), ..
            } => format!("a {title}"),
            Self::Text { .. } => "a string".to_owned(),
            Self::Count => "a whole number".to_owned(),
            Self::Bool => "true or false".to_owned(),
            Self::Either(shapes) => {
                let nouns: Vec<_> = shapes.iter().map(Self::noun).collect();
                nouns.join(" or ")
            }
            Self::Any => "a value".to_owned(),
        }
    }

    fn read(schema: &Value) -> Self {
        let Value::Object(object) = schema else {
            return Self::Any;
        };
        let choices = choices(object);
        if !choices.is_empty() {
            return Self::Text {
                title: None,
                choices,
                examples: Vec::new(),
            };
        }
        if let Some(Value::Array(alternatives)) = object.get("anyOf") {
            return Self::Either(alternatives.iter().map(Self::read).collect());
        }
        match object.get("type").and_then(Value::as_str) {
            Some("object") => Self::read_object(object),
            Some("array") => {
                let items = object.get("items").unwrap_or(&Value::Null);
                Self::List {
                    of: Box::new(Self::read(items)),
                    text: text(items),
                }
            }
            Some("string") => Self::Text {
                title: object
                    .get("title")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
                choices: Vec::new(),
                examples: strings(object.get("examples")),
            },
            Some("integer") => Self::Count,
            Some("boolean") => Self::Bool,
            _ => Self::Any,
        }
    }

    fn read_object(object: &Map<String, Value>) -> Self {
        match object.get("properties") {
            Some(Value::Object(properties)) => Self::Table {
                keys: properties
                    .iter()
                    .map(|(name, schema)| Field {
                        name: name.clone(),
                        shape: Self::read(schema),
                        text: text(schema),
                        default: schema.get("default").cloned(),
                    })
                    .collect(),
            },
            _ => {
                let values = object.get("additionalProperties").unwrap_or(&Value::Null);
                Self::Map {
                    of: Box::new(Self::read(values)),
                    text: text(values),
                }
            }
        }
    }
}

/// The values of an enumeration, which has a list of them or, where variants have texts, alternatives.
fn choices(object: &Map<String, Value>) -> Vec<String> {
    let mut choices = strings(object.get("enum"));
    choices.extend(
        object
            .get("const")
            .and_then(Value::as_str)
            .map(str::to_owned),
    );
    for alternative in object
        .get("oneOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Value::Object(alternative) = alternative {
            choices.extend(self::choices(alternative));
        }
    }
    choices
}

fn text(schema: &Value) -> String {
    let description = schema.get("description").and_then(Value::as_str);
    description.unwrap_or_default().replace('\n', " ")
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let items = value.and_then(Value::as_array).into_iter().flatten();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind_of_shape() {
        let at = |path: &[&str]| Shape::of_file().descend(path);
        assert!(matches!(at(&["server"]), Some(Shape::Table { .. })));
        assert!(matches!(at(&["issuer"]), Some(Shape::Map { .. })));
        assert!(matches!(at(&["route"]), Some(Shape::List { .. })));
        assert!(matches!(at(&["server", "workers"]), Some(Shape::Count)));
        assert!(matches!(at(&["log", "access"]), Some(Shape::Bool)));
        assert!(matches!(
            at(&["route", "*", "claims", "*"]),
            Some(Shape::Any)
        ));
        for (path, noun) in [
            (&["server", "idle_timeout"][..], "a duration"),
            (&["route", "*", "max_body"], "a size"),
            (&["admin", "listen"], "an address and port"),
            (&["route", "*", "allow_ips", "*"], "a network"),
            (&["route", "*", "name"], "a string"),
            (&["issuer", "*", "ca_file"], "a string"),
        ] {
            assert_eq!(at(path).map(Shape::noun).as_deref(), Some(noun), "{path:?}");
        }
        let level = at(&["log", "level"]);
        assert!(matches!(level, Some(Shape::Text { choices, .. }) if choices.len() == 5));
    }
}
