//! The resolved configuration, for people.

use serde_json::Value;

use super::Config;
use super::mask;

/// The configuration as a file with every default filled in. Secrets are masked: values of keys that say so
/// (`Authorization` among the headers of a route is one), and credentials in URLs.
pub fn show(config: &Config) -> String {
    // By way of JSON, which keeps the order of the keys and can be walked.
    let shown = serde_json::to_value(config)
        .map_err(|error| error.to_string())
        .and_then(|mut values| {
            cover(&mut values, false);
            toml::to_string_pretty(&values).map_err(|error| error.to_string())
        });
    // Everything that can be read from a file can be written: this is for configurations made otherwise.
    shown.unwrap_or_else(|error| format!("# cannot be shown: {error}\n"))
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
        assert_eq!(again.config.upstream["u"].servers, ["http://********@u:1/"]);
    }
}
