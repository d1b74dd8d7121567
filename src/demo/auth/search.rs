//! The part of the Lucene syntax that `q` is usually written in.
//!
//! Served: `field:word`, `field:"some words"`, `word`, `pre*`, `_exists_:field`, `AND`, `OR`, `NOT` and `-`, where `AND`
//! binds more tightly and terms side by side are alternatives. Refused: groups, ranges, regular expressions, boosts.

use serde_json::Value;

/// Where a word without a field is looked for.
const DEFAULT_FIELDS: [&str; 4] = ["email", "name", "given_name", "family_name"];

/// A search as it was understood: one of these alternatives has to match with all its terms.
#[derive(Debug, PartialEq)]
pub(super) struct Search(Vec<Vec<Term>>);

#[derive(Debug, PartialEq)]
struct Term {
    negated: bool,
    /// `None` for all of [`DEFAULT_FIELDS`].
    field: Option<String>,
    wanted: Wanted,
}

#[derive(Debug, PartialEq)]
enum Wanted {
    Exactly(String),
    Prefix(String),
    Anything,
}

/// A search that is none, or one of a kind that is not served.
#[derive(Debug, PartialEq)]
pub(super) struct NotUnderstood;

// === impl Search ===

impl Search {
    pub(super) fn parse(text: &str) -> Result<Self, NotUnderstood> {
        let mut alternatives: Vec<Vec<Term>> = Vec::new();
        let (mut joined, mut negated, mut open) = (false, false, false);
        for word in words(text)? {
            match word.as_str() {
                "AND" | "OR" if open || alternatives.is_empty() => return Err(NotUnderstood),
                "AND" | "OR" => (joined, open) = (word == "AND", true),
                "NOT" => (negated, open) = (true, true),
                word => {
                    let term = Term::parse(word, negated)?;
                    match alternatives.last_mut().filter(|_| joined) {
                        Some(last) => last.push(term),
                        None => alternatives.push(vec![term]),
                    }
                    (joined, negated, open) = (false, false, false);
                }
            }
        }
        if open || alternatives.is_empty() {
            return Err(NotUnderstood);
        }
        Ok(Self(alternatives))
    }

    /// Whether it finds this profile.
    pub(super) fn finds(&self, profile: &Value) -> bool {
        let alternatives = &self.0;
        alternatives
            .iter()
            .any(|terms| terms.iter().all(|term| term.matches(profile)))
    }
}

// === impl Term ===

impl Term {
    fn parse(word: &str, negated: bool) -> Result<Self, NotUnderstood> {
        let (minus, word) = match word.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, word),
        };
        // A colon within quotes separates nothing.
        let parts = word.split_once(':').filter(|_| !word.starts_with('"'));
        let (field, value) = match parts {
            Some((field, value)) => (Some(field), value),
            None => (None, word),
        };
        let (field, wanted) = match field {
            Some("_exists_") => (Some(value.to_owned()), Wanted::Anything),
            field => (field.map(str::to_owned), Wanted::parse(value)?),
        };
        Ok(Self {
            negated: negated != minus,
            field,
            wanted,
        })
    }

    fn matches(&self, profile: &Value) -> bool {
        let found = match &self.field {
            Some(field) => self.wanted.is(at(profile, field)),
            None => DEFAULT_FIELDS
                .iter()
                .any(|field| self.wanted.is(at(profile, field))),
        };
        found != self.negated
    }
}

// === impl Wanted ===

impl Wanted {
    fn parse(value: &str) -> Result<Self, NotUnderstood> {
        if let Some(quoted) = value.strip_prefix('"') {
            let text = quoted.strip_suffix('"').ok_or(NotUnderstood)?;
            return Ok(Self::Exactly(text.replace("\\\"", "\"").to_lowercase()));
        }
        let (text, prefix) = match value.strip_suffix('*') {
            Some(start) => (start, true),
            None => (value, false),
        };
        if text.contains(['(', ')', '[', ']', '{', '}', '"', '*', '?', '~', '^', '/']) {
            return Err(NotUnderstood);
        }
        match (text.is_empty(), prefix) {
            (true, true) => Ok(Self::Anything),
            (true, false) => Err(NotUnderstood),
            (false, true) => Ok(Self::Prefix(text.to_lowercase())),
            (false, false) => Ok(Self::Exactly(text.to_lowercase())),
        }
    }

    fn is(&self, value: Option<&Value>) -> bool {
        let text = match value {
            None | Some(Value::Null) => return false,
            Some(Value::String(text)) => text.to_lowercase(),
            Some(other) => other.to_string(),
        };
        match self {
            Self::Exactly(wanted) => text == *wanted,
            Self::Prefix(wanted) => text.starts_with(wanted),
            Self::Anything => true,
        }
    }
}

/// The member at a path with dots.
fn at<'a>(profile: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(profile, |value, name| value.get(name))
}

/// Words as white space separates them, unless it stands in quotes.
fn words(text: &str) -> Result<Vec<String>, NotUnderstood> {
    let (mut words, mut word) = (Vec::new(), String::new());
    let (mut quoted, mut escaped) = (false, false);
    for letter in text.chars() {
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        if letter.is_whitespace() && !quoted {
            words.push(std::mem::take(&mut word));
        } else {
            word.push(letter);
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    if quoted {
        Err(NotUnderstood)
    } else {
        Ok(words)
    }
}
