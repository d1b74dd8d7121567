//! The file as a tree of spans: from a path to its place, from a place to its path, and a copy without some paths.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistake::Part;
use super::path::{KeyPath, Segment};

/// A table or array element on the way down a path.
#[derive(Clone, Copy)]
struct Step<'t, 'i> {
    key: Option<&'t Spanned<std::borrow::Cow<'i, str>>>,
    value: &'t Spanned<DeValue<'i>>,
}

/// The place of `path`, or of its deepest ancestor that exists; `None` when not even its first step does.
pub(super) fn place_of(file: &DeTable<'_>, path: &KeyPath, part: Part) -> Option<Range<usize>> {
    let steps = walk(file, path);
    let reached = steps.last()?;
    // When the key itself is not there, its table shows where it would be.
    Some(match (part, reached.key) {
        (Part::Key, Some(key)) if steps.len() == path.segments().len() => key.span(),
        _ => reached.value.span(),
    })
}

/// Whether there is something at `path`.
pub(super) fn exists(file: &DeTable<'_>, path: &KeyPath) -> bool {
    walk(file, path).len() == path.segments().len()
}

/// As many steps of `path` as the file has.
fn walk<'t, 'i>(file: &'t DeTable<'i>, path: &KeyPath) -> Vec<Step<'t, 'i>> {
    let mut steps: Vec<Step<'t, 'i>> = Vec::new();
    for segment in path.segments() {
        let next = match (steps.last().map(|step| step.value.get_ref()), segment) {
            (None, Segment::Key(key)) => entry(file, key),
            (Some(DeValue::Table(table)), Segment::Key(key)) => entry(table, key),
            (Some(DeValue::Array(items)), Segment::Index(index)) => {
                items.get(*index).map(|value| Step { key: None, value })
            }
            _ => None,
        };
        match next {
            Some(step) => steps.push(step),
            None => break,
        }
    }
    steps
}

fn entry<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<Step<'t, 'i>> {
    let (key, value) = table.get_key_value(key)?;
    Some(Step {
        key: Some(key),
        value,
    })
}

/// The path of the innermost value that spans exactly `span` and is not in `removed`.
pub(super) fn path_of(
    file: &DeTable<'_>,
    span: &Range<usize>,
    removed: &BTreeSet<KeyPath>,
) -> Option<KeyPath> {
    let mut found = None;
    visit(file, &KeyPath::root(), &mut |path, value| {
        let wanted = !removed.contains(path);
        // Depth first, parents before children: the last match is the innermost.
        if wanted && value.span() == *span {
            found = Some(path.clone());
        }
        wanted
    });
    found
}

/// Calls `see` for every value; what is below one for which it says `false` is skipped.
pub(super) fn visit(
    table: &DeTable<'_>,
    at: &KeyPath,
    see: &mut impl FnMut(&KeyPath, &Spanned<DeValue<'_>>) -> bool,
) {
    for (key, value) in table {
        visit_value(value, &at.key(key.get_ref().as_ref()), see);
    }
}

fn visit_value(
    value: &Spanned<DeValue<'_>>,
    at: &KeyPath,
    see: &mut impl FnMut(&KeyPath, &Spanned<DeValue<'_>>) -> bool,
) {
    if !see(at, value) {
        return;
    }
    match value.get_ref() {
        DeValue::Table(table) => visit(table, at, see),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                visit_value(item, &at.index(index), see);
            }
        }
        _ => {}
    }
}

/// A copy of the table without the values at `removed`. Elements of a list after a removed one move up.
pub(super) fn without<'i>(
    table: &DeTable<'i>,
    at: &KeyPath,
    removed: &BTreeSet<KeyPath>,
) -> DeTable<'i> {
    if removed.is_empty() {
        return table.clone();
    }
    let mut copy = DeTable::new();
    for (key, value) in table {
        let here = at.key(key.get_ref().as_ref());
        if !removed.contains(&here) {
            copy.insert(key.clone(), value_without(value, &here, removed));
        }
    }
    copy
}

fn value_without<'i>(
    value: &Spanned<DeValue<'i>>,
    at: &KeyPath,
    removed: &BTreeSet<KeyPath>,
) -> Spanned<DeValue<'i>> {
    let copy = match value.get_ref() {
        DeValue::Table(table) => DeValue::Table(without(table, at, removed)),
        DeValue::Array(items) => DeValue::Array(
            items
                .iter()
                .enumerate()
                .map(|(index, item)| (at.index(index), item))
                .filter(|(here, _)| !removed.contains(here))
                .map(|(here, item)| value_without(item, &here, removed))
                .collect(),
        ),
        leaf => leaf.clone(),
    };
    Spanned::new(value.span(), copy)
}
