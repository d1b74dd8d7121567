//! Keys that the design names and this version does not implement: refused by name, never ignored.

use super::path::{KeyPath, Segment};

/// Table (`*` for any name or index) and its keys to come. A key leaves this list when its field arrives; a test
/// holds that none is in both.
const FUTURE: &[(&[&str], &[&str])] = &[];

/// The keys to come of the table at `table`.
pub(super) fn keys_of(table: &KeyPath) -> &'static [&'static str] {
    FUTURE
        .iter()
        .find(|(pattern, _)| matches(pattern, table.segments()))
        .map_or(&[], |(_, keys)| keys)
}

fn matches(pattern: &[&str], segments: &[Segment]) -> bool {
    pattern.len() == segments.len()
        && pattern
            .iter()
            .zip(segments)
            .all(|(wanted, segment)| match segment {
                Segment::Key(key) => *wanted == "*" || wanted == key,
                Segment::Index(_) => *wanted == "*",
            })
}

#[cfg(test)]
mod tests {
    use super::super::shape::Shape;
    use super::*;
    use crate::at;

    #[test]
    fn looks_up_by_table() {
        let of = |pattern: &[&str], table: KeyPath| matches(pattern, table.segments());
        assert!(of(&["store"], at!["store"]));
        assert!(of(&["upstream", "*"], at!["upstream", "grants"]));
        assert!(of(&["route", "*"], at!["route", 4]));
        assert!(!of(&["upstream"], at!["upstream", "grants"]));
        assert!(!of(&["upstream", "*", "tls"], at!["upstream", "grants"]));
        assert!(!of(&["store"], at!["log"]));
    }

    #[test]
    fn no_key_is_both_here_and_not_yet() {
        for (pattern, keys) in FUTURE {
            let Some(shape) = Shape::of_file().descend(pattern) else {
                panic!("no table {pattern:?}");
            };
            for key in *keys {
                let known = matches!(shape, Shape::Table { keys, .. } if keys.iter().any(|k| k.name == *key));
                assert!(!known, "{pattern:?} {key}");
            }
        }
    }
}
