//! Which mistakes only follow from others.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::mistake::{Kind, Mistake};
use super::path::{KeyPath, Segment};
use super::{syntax, tree};

/// The mistakes that others may follow from.
pub(super) struct Faults {
    /// What was taken out before the file was deserialized.
    removed: BTreeSet<KeyPath>,
    /// What the unknown keys were probably meant to be.
    meant: Vec<KeyPath>,
    /// The keys of lines that are not TOML.
    broken_keys: Vec<String>,
    /// Nothing can be said of the rest.
    fatal: bool,
}

impl Faults {
    pub fn of(text: &str, mistakes: &[Mistake]) -> Self {
        let mut faults = Self {
            removed: BTreeSet::new(),
            meant: Vec::new(),
            broken_keys: Vec::new(),
            fatal: false,
        };
        for mistake in mistakes {
            match &*mistake.kind {
                Kind::Syntax { span, fatal } => {
                    faults.fatal |= fatal;
                    let line = text
                        .get(syntax::line_range(text, span.start))
                        .unwrap_or_default();
                    let key = line.split('=').next().unwrap_or_default();
                    let key = key.rsplit('.').next().unwrap_or_default();
                    let quotes_and_space = |c: char| c == '"' || c == '\'' || c.is_whitespace();
                    let key = key.trim_matches(quotes_and_space);
                    faults.broken_keys.push(key.to_owned());
                }
                Kind::Shape { meant } => {
                    faults.removed.insert(mistake.at.clone());
                    faults.meant.extend(meant.clone());
                }
                Kind::Meaning => {}
            }
        }
        faults
    }

    /// The path in the file as it was written. Whoever reads [`Config`](super::Config) counts the elements of lists
    /// without those that were taken out.
    pub fn written(&self, mistake: &Mistake) -> KeyPath {
        match *mistake.kind {
            Kind::Meaning => self.translate(&mistake.at),
            Kind::Shape { .. } | Kind::Syntax { .. } => mistake.at.clone(),
        }
    }

    fn translate(&self, path: &KeyPath) -> KeyPath {
        path.segments()
            .iter()
            .fold(KeyPath::root(), |list, segment| match segment {
                Segment::Key(key) => list.key(key),
                Segment::Index(index) => list.index(self.written_index(&list, *index)),
            })
    }

    fn written_index(&self, list: &KeyPath, index: usize) -> usize {
        let mut left = index;
        (0..)
            .find(|written| {
                let kept = !self.removed.contains(&list.index(*written));
                let found = kept && left == 0;
                left -= usize::from(kept && !found);
                found
            })
            .unwrap_or(index)
    }

    /// Whether a mistake at `at` only follows from another.
    pub fn explain(&self, file: &DeTable<'_>, at: &KeyPath, mistake: &Mistake) -> bool {
        let broken = |path: &KeyPath| {
            let misspelt = self.meant.iter().any(|meant| path.is_within(meant));
            let gone = self.removed.iter().any(|removed| {
                let from_list = matches!(removed.segments().last(), Some(Segment::Index(_)));
                path.is_within(removed) || (from_list && removed.parent().as_ref() == Some(path))
            });
            misspelt || gone
        };
        let is_named = |key: &str| self.broken_keys.iter().any(|broken| broken == key);
        let on_broken_line = at.last_key().is_some_and(is_named) && !tree::exists(file, at);
        self.fatal
            || on_broken_line
            || broken(at)
            || mistake
                .concerns
                .iter()
                .any(|other| broken(&self.translate(other)))
    }
}
