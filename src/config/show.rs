//! The resolved configuration, for people.

use serde_json::Value;

use super::Config;
use super::mask;

/// Tables whose entries have names of the writer's choice: such a name says nothing of what is in the entry.
const NAMED: [&str; 3] = ["issuer", "oauth", "upstream"];

/// The configuration as a file with every default filled in. Secrets are masked: values of keys that say so
/// (`Authorization` among the headers of a route is one), and credentials in URLs.
pub fn show(config: &Config) -> String {
    // By way of JSON, which keeps the order of the keys and can be walked.
    let shown = serde_json::to_value(config)
        .map_err(|error| error.to_string())
        .and_then(|mut values| {
            cover_file(&mut values);
            toml::to_string_pretty(&values).map_err(|error| error.to_string())
        });
    // Everything that can be read from a file can be written: this is for configurations made otherwise.
    shown.unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
}

fn cover_file(file: &mut Value) {
    if let Value::Object(tables) = file {
        // Optional tables that are absent.
        tables.retain(|_, table| !table.is_null());
    }
    for (table, value) in file.as_object_mut().into_iter().flatten() {
        match value {
            Value::Object(entries) if NAMED.contains(&table.as_str()) => {
                entries.values_mut().for_each(|entry| cover(entry, false));
            }
            other => cover(other, false),
        }
    }
}

fn cover(value: &mut Value, secret: bool) {
    match value {
        Value::Object(entries) => {
            // Optional keys that are absent; TOML has no null.
            entries.retain(|_, value| !value.is_null());
            for (key, value) in entries {
                cover(value, secret || mask::is_sensitive(key));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| cover(item, secret)),
        Value::String(text) if secret => mask::MASK.clone_into(text),
        Value::String(text) => *text = mask::mask_credentials(text).0,
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn masks_what_is_secret_and_nothing_else() {
        let text = r#"
[upstream.u]
servers = ["http://me:hunter2@u:1/"]
[[route]]
name = "secrets"
claims = { client_secret = ["hunter2"], n = 1 }
request_headers.set = { Authorization = "Basic hunter2", X-Api-Key = "hunter2", X-A = "b" }
"#;
        let parsed = parse("t", text);
        assert!(parsed.mistakes.is_empty());
        let shown = show(&parsed.config);
        assert!(!shown.contains("hunter2"), "{shown}");
        let again = parse("shown", &shown);
        assert!(again.mistakes.is_empty(), "{shown}");
        let route = &again.config.route[0];
        assert_eq!(route.name.as_deref(), Some("secrets"));
        assert_eq!(route.request_headers.set["Authorization"], "********");
        assert_eq!(route.request_headers.set["X-A"], "b");
        assert_eq!(
            again.config.upstream["u"].servers[0].url,
            "http://********@u:1/"
        );
    }

    #[test]
    fn the_name_of_an_entry_is_no_secret() {
        let text = r#"
[issuer.my_secret]
url = "https://a/"
[oauth.cookie]
issuer = "my_secret"
[upstream.password]
servers = ["http://u:1/"]
"#;
        let parsed = parse("t", text);
        assert!(parsed.mistakes.is_empty());
        let again = parse("shown", &show(&parsed.config));
        assert!(again.mistakes.is_empty(), "{:?}", again.mistakes);
        assert_eq!(again.config, parsed.config);
    }
}
