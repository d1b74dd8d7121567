//! One mistake in the file, before it is given a line and a column.

use std::ops::Range;

use super::path::KeyPath;

/// Which half of `key = value` a mistake is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The key: it should not be there, or not under this name.
    Key,
    /// The value.
    Value,
}

/// Something wrong in the file: where, what, and what to do about it.
///
/// [`parse`](super::parse) finds wrong syntax, keys and types; whoever compiles the configuration adds what does not
/// make sense, to the same list. [`Source::report`](super::Source::report) then gives each its place in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The key or list element.
    pub at: KeyPath,
    /// Whether the caret goes under the key or under its value.
    pub part: Part,
    /// What is wrong, in one line, without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    pub(super) kind: Box<Kind>,
    /// Other places that this mistake follows from, see [`Mistake::concerns`].
    pub(super) concerns: Vec<KeyPath>,
}

/// Who found a mistake. Decides which mistakes only follow from others and are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not TOML. `fatal`: so much is broken that nothing else in the file can be judged.
    Syntax { span: Range<usize>, fatal: bool },
    /// An unknown key or a value of the wrong type; taken out of the file before it was read.
    /// `meant`: the key which it was probably meant to be.
    Shape { meant: Option<KeyPath> },
    /// Well-formed and wrong.
    Meaning,
}

impl Mistake {
    /// A wrong value at `at`.
    pub fn value(at: KeyPath, message: impl Into<String>) -> Self {
        Self::new(at, Part::Value, message.into(), Kind::Meaning)
    }

    /// A key at `at` that should not be there.
    pub fn key(at: KeyPath, message: impl Into<String>) -> Self {
        Self::new(at, Part::Key, message.into(), Kind::Meaning)
    }

    /// The key `at` is required and absent. Shown at the header of its table; left out when the key is there but
    /// was misspelt or had a wrong value, which is reported already.
    pub fn missing(at: KeyPath) -> Self {
        let message = format!("`{}` is missing", at.last_key().unwrap_or_default());
        Self::new(at, Part::Key, message, Kind::Meaning)
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that this mistake follows from the state of `other` too: it is left out when `other` has a mistake of
    /// its own. A reference to an upstream `x` that does not exist concerns `at!["upstream", "x"]`.
    #[must_use]
    pub fn concerns(mut self, other: KeyPath) -> Self {
        self.concerns.push(other);
        self
    }

    pub(super) fn shape(at: KeyPath, part: Part, message: impl Into<String>) -> Self {
        Self::new(at, part, message.into(), Kind::Shape { meant: None })
    }

    pub(super) fn unknown(at: KeyPath, message: String, meant: Option<KeyPath>) -> Self {
        Self::new(at, Part::Key, message, Kind::Shape { meant })
    }

    pub(super) fn syntax(span: Range<usize>, message: String, fatal: bool) -> Self {
        let kind = Kind::Syntax { span, fatal };
        Self::new(KeyPath::root(), Part::Value, message, kind)
    }

    fn new(at: KeyPath, part: Part, message: String, kind: Kind) -> Self {
        Self {
            at,
            part,
            message,
            hint: None,
            kind: Box::new(kind),
            concerns: Vec::new(),
        }
    }
}
