//! What differs between two configurations, told key by key.

use crate::config::{self, Config};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Keys and tables that only a restart can change.
const AT_START: [&str; 8] = [
    "server.listen",
    "server.unix_mode",
    "server.reuse_port",
    "server.workers",
    "admin.listen",
    "admin.unix_mode",
    "log.level",
    "telemetry",
];

/// What a reload changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// One line for each key that differs, secrets masked.
    pub changes: Vec<String>,
    /// Keys that differ and need a restart.
    pub restart: Vec<String>,
}

/// What differs between two configurations.
pub(super) fn compare(old: &Config, new: &Config) -> Report {
    let (old, new) = (flat(old), flat(new));
    let mut report = Report::default();
    let keys: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let line = match (old.get(key), new.get(key)) {
            (Some(before), Some(after)) if before == after => continue,
            (Some(before), Some(after)) => format!("{key}: {before} -> {after}"),
            (Some(before), None) => format!("{key}: {before} removed"),
            (None, Some(after)) => format!("{key}: {after} added"),
            (None, None) => continue,
        };
        report.changes.push(line);
        if let Some(key) = AT_START.iter().find(|at_start| key.starts_with(**at_start))
            && !report.restart.iter().any(|known| known == key)
        {
            report.restart.push((*key).to_owned());
        }
    }
    report
}

/// A configuration as dotted keys and their values. Routes go by name, so that moving one is no
/// change of all behind it.
fn flat(config: &Config) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    // What is shown has its secrets masked already.
    let shown: Value = toml::from_str(&config::show(config)).unwrap_or_default();
    flatten(String::new(), &shown, &mut leaves);
    leaves
}

fn flatten(key: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
    let below = |name: &str| {
        if key.is_empty() {
            name.to_owned()
        } else {
            format!("{key}.{name}")
        }
    };
    match value {
        Value::Object(members) => members
            .iter()
            .for_each(|(name, member)| flatten(below(name), member, leaves)),
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name = item
                    .get("name")
                    .and_then(Value::as_str)
                    .map_or_else(|| index.to_string(), str::to_owned);
                flatten(below(&name), item, leaves);
            }
        }
        leaf => {
            leaves.insert(key, leaf.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        config::parse("test.toml", text).config
    }

    #[test]
    fn differences_are_named() {
        let old = config(
            "[server]\nlisten = [\"127.0.0.1:1\"]\n[[route]]\nname = \"a\"\npath = \"/a\"\ntimeout = \"30s\"\n",
        );
        let new = config(
            "[server]\nlisten = [\"127.0.0.1:2\"]\n[[route]]\nname = \"b\"\npath = \"/b\"\n[[route]]\nname = \"a\"\npath = \"/a\"\ntimeout = \"10s\"\n",
        );
        let report = compare(&old, &new);
        assert_eq!(report.restart, ["server.listen"]);
        assert!(
            report
                .changes
                .contains(&"route.a.timeout: \"30s\" -> \"10s\"".to_owned()),
            "{:#?}",
            report.changes
        );
        assert!(
            report
                .changes
                .contains(&"route.b.path: \"/b\" added".to_owned()),
            "{:#?}",
            report.changes
        );
        assert!(
            !report
                .changes
                .iter()
                .any(|line| line.starts_with("route.a.path"))
        );
        assert_eq!(compare(&old, &old), Report::default());
    }
}
