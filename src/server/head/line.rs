//! A line of a head, which may come in pieces.

/// As much of a field line as is kept when it comes in pieces: both names that matter and any value
/// of theirs that is in order fit in.
const KEPT: usize = 64;

/// The beginning of a line that has not come to its end.
#[derive(Debug)]
pub(super) struct Partial {
    bytes: [u8; KEPT],
    kept: usize,
    /// Bytes of it so far.
    length: usize,
    ends_with_cr: bool,
}

/// A line without its end; `cut` if it is longer than what is kept of one that comes in pieces.
pub(super) struct Line<'l> {
    pub text: &'l [u8],
    pub cut: bool,
}

// === impl Line ===

impl<'l> Line<'l> {
    /// A line that came in one piece. If it is long it counts as cut, for its verdict must not
    /// depend on how it came.
    pub(super) fn whole(text: &'l [u8]) -> Self {
        let cut = text.len() >= KEPT;
        Self { text, cut }
    }

    /// The value of the field that has this name. A name with white space behind it is none, and
    /// the parser refuses it.
    pub(super) fn value_of(&self, name: &[u8]) -> Option<&[u8]> {
        let (own, rest) = self.text.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        own.eq_ignore_ascii_case(name).then(|| trimmed(value))
    }
}

/// Without the white space around it (RFC 9112 §5); other white space than these two is none here.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

// === impl Partial ===

impl Partial {
    /// Nothing of a line yet.
    pub(super) fn empty() -> Self {
        Self {
            bytes: [0; KEPT],
            kept: 0,
            length: 0,
            ends_with_cr: false,
        }
    }

    /// Whether nothing of a line has come.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Takes more of the line.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        let room = self.bytes.get_mut(self.kept..).unwrap_or_default();
        let taken = room.len().min(bytes.len());
        for (to, from) in room.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.kept += taken;
        self.length = self.length.saturating_add(bytes.len());
        self.ends_with_cr = *last == b'\r';
    }

    /// The line, if its end was CR LF.
    pub(super) fn ended(&self) -> Option<Line<'_>> {
        let kept = self.bytes.get(..self.kept)?;
        let cut = self.length > self.kept;
        let text = if cut {
            kept
        } else {
            kept.strip_suffix(b"\r").unwrap_or(kept)
        };
        self.ends_with_cr.then_some(Line { text, cut })
    }
}
