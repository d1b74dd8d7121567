//! Keeps secrets out of the lines that messages show.

use std::ops::Range;

/// What is shown instead.
pub(crate) const MASK: &str = "********";

/// Parts of a key that say that its value is nobody's business.
const SENSITIVE: [&str; 7] = [
    "secret",
    "password",
    "passwd",
    "private_key",
    "encryption_key",
    "api_key",
    "cookie",
];

/// Whether the value of `key` must not be shown. Its `_file` and `_env` twins only say where the secret is.
pub(crate) fn is_sensitive(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    let points_elsewhere = key.ends_with("_file") || key.ends_with("_env");
    !points_elsewhere && (key == "authorization" || SENSITIVE.iter().any(|word| key.contains(word)))
}

/// `line` with the values of sensitive keys and the credentials of URLs masked, and the offset from which it
/// differs.
pub(super) fn mask(line: &str) -> (String, usize) {
    if let Some(start) = secret_starts(line) {
        return (
            format!("{}{MASK}", line.get(..start).unwrap_or_default()),
            start,
        );
    }
    mask_credentials(line)
}

/// `text` with the credentials of the URLs in it masked, and the offset from which it differs.
pub(crate) fn mask_credentials(text: &str) -> (String, usize) {
    let (mut shown, mut rest, mut offset) = (String::new(), text, text.len());
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        // A password that was not escaped may hold delimiters. These URLs hardly ever have another `@`.
        let delimiters: &[char] = match before.ends_with("redis") || before.ends_with("rediss") {
            true => &['"', '\'', ' '],
            false => &['/', '?', '#', '"', '\'', ' '],
        };
        let authority_ends = after.find(delimiters).unwrap_or(after.len());
        let authority = after.get(..authority_ends).unwrap_or_default();
        rest = after;
        if let Some(at) = authority.rfind('@') {
            offset = offset.min(shown.len());
            shown.push_str(MASK);
            rest = after.get(at..).unwrap_or_default();
        }
    }
    shown.push_str(rest);
    (shown, offset)
}

/// The strings of several lines that are values of sensitive keys, found in the bare text: a file that is no TOML
/// may have them too.
pub(super) fn long_secrets(text: &str) -> Vec<Range<usize>> {
    let mut spans = Vec::new();
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        if let Some(start) = secret_starts(line) {
            let value = line.get(start..).unwrap_or_default();
            // `start` is behind the quotes: look at what is before it.
            let before = line.get(..start).unwrap_or_default();
            let delimiter = ["\"\"\"", "'''"].into_iter().find(|d| before.ends_with(d));
            if let Some(delimiter) = delimiter
                && !value.contains(delimiter)
            {
                let from = offset + start;
                let rest = text.get(from..).unwrap_or_default();
                let length = rest.find(delimiter).unwrap_or(rest.len());
                spans.push(from..from + length + delimiter.len());
            }
        }
        offset += line.len();
    }
    spans
}

/// Where the value of the first sensitive key of a line starts. From there on everything is masked: a broken line
/// does not tell where a value ends.
fn secret_starts(line: &str) -> Option<usize> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let has_assignment = line.contains('=');
    let mut from = 0;
    while let Some(rest) = line.get(from..) {
        let start = from + rest.find(is_name)?;
        let word = line.get(start..)?;
        let end = start + word.find(|c| !is_name(c)).unwrap_or(word.len());
        let after = line.get(end..)?;
        let value = after.trim_start_matches(['"', '\'', ' ', '\t']);
        // A word of a value, `path = "/secrets"`, is no key; without any `=` it may be one.
        let is_key = value.starts_with('=') || !has_assignment;
        let key = line.get(start..end)?;
        // A URL that lost its scheme may hold a password all the same.
        let half_a_url = key == "url" && after.contains('@') && !after.contains("://");
        if is_key && (is_sensitive(key) || half_a_url) {
            let value = after.trim_start_matches(['"', '\'', ' ', '\t', '=', ':']);
            return Some(line.len() - value.len());
        }
        from = end;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_values_of_sensitive_keys_only() {
        for (line, shown) in [
            (
                r#"client_secret = "hunter2" # mine"#,
                r#"client_secret = ********"#,
            ),
            (
                r#"x = { id = "a", "Client-Secret"="b" }"#,
                r#"x = { id = "a", "Client-Secret"=********"#,
            ),
            (r#"client_secret "hunter2""#, r#"client_secret "********"#),
            (
                r#"Authorization = "Basic abc""#,
                r#"Authorization = ********"#,
            ),
            (
                r#"client_secret_file = "/run/s""#,
                r#"client_secret_file = "/run/s""#,
            ),
            (r#"path = "/secrets/*""#, r#"path = "/secrets/*""#),
            (
                r#"authorization_endpoint = "x""#,
                r#"authorization_endpoint = "x""#,
            ),
            (
                r#"s = ["http://me:pw@h:1/p@q"]"#,
                r#"s = ["http://********@h:1/p@q"]"#,
            ),
            (
                r#"s = ["http://a/", "http://b@c"]"#,
                r#"s = ["http://a/", "http://********@c"]"#,
            ),
            (
                r#"url = "redis://:p/w?#@h:1/0" # x@y"#,
                r#"url = "redis://********@h:1/0" # x@y"#,
            ),
            (
                r#"url = "rediss://me:p@w@h/0""#,
                r#"url = "rediss://********@h/0""#,
            ),
            (r#"url = "me:pw@h:6379""#, r#"url = ********"#),
            (r#"url = "https://a/" # b@c"#, r#"url = "https://a/" # b@c"#),
            ("", ""),
        ] {
            let (masked, _) = mask(line);
            let expected = shown.replace("\"********", "********");
            let masked = masked.replace("\"********", "********");
            assert_eq!(masked, expected, "{line}");
        }
    }
}
