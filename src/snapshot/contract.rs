//! `add_prefix`, `query` and `json_fields` of `[[route]]`, compiled; every mistake in them noted.

use super::routes::is_canonical;
use crate::config::{self, KeyPath, Mistake};
use crate::contract::{IntegerRange, JsonFields, QueryRules};
use std::collections::BTreeMap;

pub(super) fn add_prefix(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Box<str> {
    let prefix = route.add_prefix.trim_end_matches('/');
    let plain = prefix.is_empty()
        || (prefix.starts_with('/')
            && !prefix.contains(['*', '{', '}', '?'])
            && is_canonical(prefix));
    if !plain {
        let mistake = Mistake::value(at.key("add_prefix"), "this is no plain path");
        mistakes.push(mistake.hint("write \"/api/v2\""));
    }
    prefix.into()
}

pub(super) fn query(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<QueryRules> {
    let query = route.query.as_ref()?;
    let at = at.key("query");
    for name in query.set.keys() {
        let without_effect = [
            ("default", query.default.contains_key(name)),
            ("integer", query.integer.contains_key(name)),
        ];
        for (key, _) in without_effect.iter().filter(|(_, there)| *there) {
            let text = format!("`{name}` has no effect here: `set` says what it is");
            mistakes.push(Mistake::key(at.key(*key).key(name), text).hint("remove it"));
        }
    }
    for (name, range) in &query.integer {
        if range.max.is_some_and(|max| max < range.min) {
            let mistake = Mistake::value(at.key("integer").key(name), "there is no such number");
            mistakes.push(mistake.hint("write { min = 1, max = 100 }"));
            continue;
        }
        let range = compiled(*range);
        if let Some(default) = query.default.get(name)
            && !IntegerRange::number(default).is_some_and(|number| range.contains(number))
        {
            let text = "this is no number that may come";
            mistakes.push(Mistake::value(at.key("default").key(name), text));
        }
    }
    let pairs = |pairs: &BTreeMap<String, String>| {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
            .collect()
    };
    let integer = query.integer.iter();
    let list = |names: &Vec<String>| names.iter().map(|name| name.as_str().into()).collect();
    Some(QueryRules {
        set: pairs(&query.set),
        default: pairs(&query.default),
        integer: integer
            .map(|(name, range)| (name.as_str().into(), compiled(*range)))
            .collect(),
        allow: query.allow.as_ref().map(list),
    })
}

fn compiled(range: config::IntegerRange) -> IntegerRange {
    let config::IntegerRange { min, max } = range;
    IntegerRange { min, max }
}

pub(super) fn json_fields(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<JsonFields> {
    let names = route.json_fields.as_ref()?;
    let bodiless = ["GET", "HEAD", "DELETE", "OPTIONS"];
    let mut methods = route.methods.iter();
    if let Some(method) = methods.find(|method| bodiless.contains(&method.as_str())) {
        let text = format!("a body is asked of every request, and {method} has none");
        let mistake = Mistake::key(at.key("json_fields"), text);
        mistakes.push(mistake.hint("make a route of its own for the methods with a body"));
    }
    Some(JsonFields::new(
        names.iter().map(|name| name.as_str().into()),
    ))
}
