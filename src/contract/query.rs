//! `[route.query]`: which parameters a query may have, and what it goes upstream with.
//!
//! What is judged is what is sent: the query is decoded, judged, and written anew, so that the upstream
//! cannot find another parameter in it (`per%5Fpage`, `q=a;per_page=1000`).

use super::{refuse, shown};
use crate::rejection::Rejection;
use percent_encoding::percent_decode;
use std::borrow::Cow;

/// The rules of one route.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueryRules {
    /// What it goes upstream with, whatever came.
    pub set: Box<[(Box<str>, Box<str>)]>,
    /// What it goes upstream with if nothing of that name came.
    pub default: Box<[(Box<str>, Box<str>)]>,
    /// What has to be a whole number.
    pub integer: Box<[(Box<str>, IntegerRange)]>,
    /// What may come besides; `None`: anything.
    pub allow: Option<Box<[Box<str>]>>,
}

/// Whole numbers from one to another, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntegerRange {
    /// The smallest.
    pub min: u64,
    /// The largest; `None`: none.
    pub max: Option<u64>,
}

type Pair<'q> = (Cow<'q, str>, Cow<'q, str>);

// === impl QueryRules ===

impl QueryRules {
    /// The query as the upstream gets it, without the `?`; `None` if nothing is left.
    ///
    /// # Errors
    /// [`crate::rejection::Reason::NotAccepted`], which names the parameter: one that is not allowed, that is
    /// there twice and has a rule, or that is no number of its range.
    pub fn apply(&self, query: Option<&str>) -> Result<Option<String>, Rejection> {
        let mut kept: Vec<Pair<'_>> = Vec::new();
        let mut ruled: Vec<Cow<'_, str>> = Vec::new();
        for piece in query.unwrap_or_default().split('&') {
            if piece.is_empty() {
                continue;
            }
            let (name, value) = piece.split_once('=').unwrap_or((piece, ""));
            let (name, value) = (decoded(name)?, decoded(value)?);
            if self.has_rule(&name) {
                if ruled.contains(&name) {
                    let name = shown(&name);
                    return Err(refuse(format!(
                        "The query parameter `{name}` is there more than once."
                    )));
                }
                ruled.push(name.clone());
            } else if self.allow.is_some() {
                let name = shown(&name);
                return Err(refuse(format!(
                    "The query parameter `{name}` is none that is known here."
                )));
            }
            if let Some((_, range)) = self.integer.iter().find(|(own, _)| **own == *name) {
                range.check(&name, &value)?;
            }
            if named(&self.set, &name).is_none() {
                kept.push((name, value));
            }
        }
        let absent = |(name, _): &&(Box<str>, Box<str>)| !ruled.iter().any(|came| **came == **name);
        let defaults = self.default.iter().filter(absent);
        let added = defaults.chain(&self.set);
        let mut out = form_urlencoded::Serializer::new(String::new());
        out.extend_pairs(&kept);
        out.extend_pairs(added.map(|(name, value)| (&**name, &**value)));
        Ok(Some(out.finish()).filter(|query| !query.is_empty()))
    }

    /// Whether something is said of the parameter of this name.
    fn has_rule(&self, name: &str) -> bool {
        let allowed = || self.allow.iter().flatten().any(|own| **own == *name);
        named(&self.set, name).is_some()
            || named(&self.default, name).is_some()
            || self.integer.iter().any(|(own, _)| **own == *name)
            || allowed()
    }
}

// === impl IntegerRange ===

impl IntegerRange {
    /// Whether this number is in it.
    pub fn contains(self, number: u64) -> bool {
        number >= self.min && self.max.is_none_or(|max| number <= max)
    }

    /// The number that a text stands for in the one way that everybody reads alike: digits, no sign and
    /// no zero in front.
    pub fn number(text: &str) -> Option<u64> {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| plain)
    }

    fn check(self, name: &str, value: &str) -> Result<(), Rejection> {
        match Self::number(value) {
            Some(number) if self.contains(number) => Ok(()),
            _ => {
                let Self { min, max } = self;
                let range = match max {
                    Some(max) => format!("from {min} to {max}"),
                    None => format!("from {min} on"),
                };
                let name = shown(name);
                Err(refuse(format!(
                    "The query parameter `{name}` is a whole number {range}."
                )))
            }
        }
    }
}

fn named<'a>(pairs: &'a [(Box<str>, Box<str>)], name: &str) -> Option<&'a str> {
    let mut pairs = pairs.iter();
    pairs.find_map(|(own, value)| (**own == *name).then_some(&**value))
}

/// The text of a name or value, as forms write it.
fn decoded(text: &str) -> Result<Cow<'_, str>, Rejection> {
    let spaced = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    let no_text = |_| refuse("The query has escapes that are no UTF-8.".to_owned());
    match spaced {
        Cow::Borrowed(text) => percent_decode(text.as_bytes())
            .decode_utf8()
            .map_err(no_text),
        Cow::Owned(text) => percent_decode(text.as_bytes())
            .decode_utf8()
            .map(|text| Cow::Owned(text.into_owned()))
            .map_err(no_text),
    }
}

#[cfg(test)]
mod tests {
    use super::{IntegerRange, QueryRules};
    use crate::rejection::Reason;

    fn pairs(list: &[(&str, &str)]) -> Box<[(Box<str>, Box<str>)]> {
        list.iter()
            .map(|(a, b)| ((*a).into(), (*b).into()))
            .collect()
    }

    fn users() -> QueryRules {
        let range = |min, max| IntegerRange { min, max };
        QueryRules {
            set: pairs(&[("include_totals", "true")]),
            default: pairs(&[("per_page", "25"), ("page", "0")]),
            integer: [
                ("per_page".into(), range(1, Some(100))),
                ("page".into(), range(0, None)),
            ]
            .into(),
            allow: Some(["q".into()].into()),
        }
    }

    #[test]
    fn what_goes_upstream() {
        for (came, expected) in [
            ("", "per_page=25&page=0&include_totals=true"),
            ("&&", "per_page=25&page=0&include_totals=true"),
            ("per_page=1", "per_page=1&page=0&include_totals=true"),
            (
                "per_page=100&page=7",
                "per_page=100&page=7&include_totals=true",
            ),
            (
                "include_totals=false",
                "per_page=25&page=0&include_totals=true",
            ),
            ("include%5Ftotals", "per_page=25&page=0&include_totals=true"),
            ("per%5Fpage=%35", "per_page=5&page=0&include_totals=true"),
            (
                "page=18446744073709551615",
                "page=18446744073709551615&per_page=25&include_totals=true",
            ),
            (
                "q=email:%22user@example.com%22+x%20y",
                "q=email%3A%22user%40example.com%22+x+y&per_page=25&page=0&include_totals=true",
            ),
            (
                "q=a;per_page=1000",
                "q=a%3Bper_page%3D1000&per_page=25&page=0&include_totals=true",
            ),
            ("q=%zz&q2", ""),
            ("q=%zz", "q=%25zz&per_page=25&page=0&include_totals=true"),
        ] {
            let found = users().apply(Some(came).filter(|came| !came.is_empty()));
            match expected {
                "" => assert!(found.is_err(), "{came}"),
                _ => assert_eq!(found, Ok(Some(expected.to_owned())), "{came}"),
            }
        }
    }

    #[test]
    fn what_is_refused_and_how_it_is_told() {
        let range = "The query parameter `per_page` is a whole number from 1 to 100.";
        let from = "The query parameter `page` is a whole number from 0 on.";
        for (came, why) in [
            ("per_page=0", range),
            ("per_page=101", range),
            ("per_page=-1", range),
            ("per_page=+1", range),
            ("per_page=010", range),
            ("per_page=1.0", range),
            ("per_page=1e1", range),
            ("per_page=0x1", range),
            ("per_page=", range),
            ("per_page", range),
            ("per_page=%C2%B2", range),
            ("per%5fpage=101", range),
            ("page=-1", from),
            ("page=18446744073709551616", from),
            (
                "per_page=1&per_page=1",
                "The query parameter `per_page` is there more than once.",
            ),
            (
                "q=a&q=b",
                "The query parameter `q` is there more than once.",
            ),
            (
                "include_totals=true&include_totals=false",
                "The query parameter `include_totals` is there more than once.",
            ),
            (
                "fields=email",
                "The query parameter `fields` is none that is known here.",
            ),
            ("Q=a", "The query parameter `Q` is none that is known here."),
            ("q=%ff", "The query has escapes that are no UTF-8."),
            (
                "%60%0a",
                "The query parameter `??` is none that is known here.",
            ),
        ] {
            let refused = users().apply(Some(came)).expect_err(came);
            assert_eq!(refused.reason, Reason::NotAccepted(why.into()), "{came}");
        }
    }

    #[test]
    fn without_a_list_anything_may_come() {
        let rules = QueryRules {
            allow: None,
            ..users()
        };
        let found = rules.apply(Some("x=1&x=2"));
        let expected = "x=1&x=2&per_page=25&page=0&include_totals=true";
        assert_eq!(found, Ok(Some(expected.to_owned())));
        let nothing = QueryRules::default();
        assert_eq!(nothing.apply(None), Ok(None));
        assert_eq!(nothing.apply(Some("a=b+c")), Ok(Some("a=b+c".to_owned())));
        let none_allowed = QueryRules {
            allow: Some([].into()),
            ..QueryRules::default()
        };
        assert!(none_allowed.apply(Some("a=b")).is_err());
    }
}
