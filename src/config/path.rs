//! Where a key sits in the file: `route[3].upstream`.

use std::fmt;

/// One step of a [`KeyPath`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    /// A key of a table.
    Key(String),
    /// An element of a list, counted from 0.
    Index(usize),
}

/// The way from the file's root to a key, a value or a list element.
///
/// `KeyPath::root().key("route").index(3).key("upstream")`, or shorter `at!["route", 3, "upstream"]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyPath(Vec<Segment>);

/// Builds a [`KeyPath`] of keys and indices: `at!["route", 3, "upstream"]`.
#[macro_export]
macro_rules! at {
    ($($segment:expr),* $(,)?) => {
        $crate::config::KeyPath::root()$(.then($segment))*
    };
}

// === impl Segment ===

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Self::Key(key.to_owned())
    }
}

impl From<&String> for Segment {
    fn from(key: &String) -> Self {
        Self::Key(key.clone())
    }
}

impl From<String> for Segment {
    fn from(key: String) -> Self {
        Self::Key(key)
    }
}

impl From<usize> for Segment {
    fn from(index: usize) -> Self {
        Self::Index(index)
    }
}

// === impl KeyPath ===

impl KeyPath {
    /// The whole file.
    pub const fn root() -> Self {
        Self(Vec::new())
    }

    /// This path and one more step.
    #[must_use]
    pub fn then(&self, segment: impl Into<Segment>) -> Self {
        let mut segments = Vec::with_capacity(self.0.len() + 1);
        segments.extend_from_slice(&self.0);
        segments.push(segment.into());
        Self(segments)
    }

    /// The key `key` of the table at this path.
    #[must_use]
    pub fn key(&self, key: impl Into<String>) -> Self {
        self.then(Segment::Key(key.into()))
    }

    /// The element `index` of the list at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.then(Segment::Index(index))
    }

    /// The steps, outermost first.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// The path without its last step; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_last()?;
        Some(Self(parent.to_vec()))
    }

    /// Whether this path is `other` or lies below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The innermost key, that of the list for an element.
    pub fn name(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
    }

    /// The last step when it is a key.
    pub fn last_key(&self) -> Option<&str> {
        match self.0.last()? {
            Segment::Key(key) => Some(key),
            Segment::Index(_) => None,
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (depth, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if depth == 0 => write!(f, "{}", QuotedKey(key))?,
                Segment::Key(key) => write!(f, ".{}", QuotedKey(key))?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A key as TOML writes it: bare where that is allowed, else in quotes.
pub(super) struct QuotedKey<'a>(pub &'a str);

impl fmt::Display for QuotedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !self.0.is_empty() && self.0.chars().all(bare) {
            f.write_str(self.0)
        } else {
            write!(f, "{:?}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_shows_and_nests() {
        let route = KeyPath::root().key("route").index(3);
        assert_eq!(route.key("upstream").to_string(), "route[3].upstream");
        assert_eq!(route.key("upstream"), at!["route", 3, "upstream"]);
        assert_eq!(
            at!["route", 0, "claims", "urn:a.b"].to_string(),
            r#"route[0].claims."urn:a.b""#
        );
        assert!(route.key("x").is_within(&route));
        assert!(!route.is_within(&route.key("x")));
        assert_eq!(route.parent(), Some(at!["route"]));
        assert_eq!(KeyPath::root().parent(), None);
        assert_eq!((route.last_key(), route.name()), (None, Some("route")));
    }
}
