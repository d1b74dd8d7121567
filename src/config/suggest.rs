//! Did you mean …?

/// Names longer than this are no slips of the pen, and comparing them costs time.
const LONGEST: usize = 64;

/// The name among `known` that `input` was most likely meant to be, if one is near enough.
///
/// Case does not count, nor does the difference between `-` and `_`.
pub fn suggest<'a>(input: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    if input.len() > LONGEST {
        return None;
    }
    let wanted = fold(input);
    known
        .into_iter()
        .filter(|name| name.len() <= LONGEST)
        .map(|name| (strsim::damerau_levenshtein(&wanted, &fold(name)), name))
        .filter(|(distance, name)| *distance <= tolerance(&wanted, name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name.to_owned())
}

/// One slip in a short name, one in three letters of a longer one.
fn tolerance(input: &str, name: &str) -> usize {
    (input.chars().count().min(name.chars().count()) / 3).max(1)
}

fn fold(name: &str) -> String {
    name.to_lowercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::suggest;

    #[test]
    fn finds_the_nearest_name() {
        let known = ["upstream", "timeout", "scopes", "auth", "any_scope"];
        for (input, expected) in [
            ("upstreem", Some("upstream")),
            ("Timeout", Some("timeout")),
            ("any-scope", Some("any_scope")),
            ("scope", Some("scopes")),
            ("ahtu", None),
            ("auht", Some("auth")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(suggest(input, known).as_deref(), expected, "{input:?}");
        }
        assert_eq!(suggest(&"x".repeat(1000), known), None);
    }
}
