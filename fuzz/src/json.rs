//! A second reader of JSON (RFC 8259), which shares no line with the gateway's: it keeps members as they are written,
//! repeated ones too.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`, `true`, `false` or a number, as written.
    Bare(String),
    /// A string, its escapes undone.
    Text(String),
    /// An array.
    List(Vec<Json>),
    /// An object, member by member.
    Object(Vec<(String, Json)>),
}

/// Deeper nesting is not read; the gateway's reader stops earlier.
const MAX_DEPTH: usize = 200;

// === impl Json ===

impl Json {
    /// Reads a whole text, or `None` if it is no JSON.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut rest = text.chars().peekable();
        let value = value(&mut rest, 0)?;
        skip_space(&mut rest);
        rest.next().is_none().then_some(value)
    }

    /// The members, if this is an object.
    pub fn members(&self) -> Option<&[(String, Self)]> {
        match self {
            Self::Object(members) => Some(members),
            Self::Bare(_) | Self::Text(_) | Self::List(_) => None,
        }
    }

    /// The last member of that name: what a reader sees that overwrites.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let mut members = self.members()?.iter().rev();
        members.find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// The text, if this is a string.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Bare(_) | Self::List(_) | Self::Object(_) => None,
        }
    }

    /// Whether an object in it, at any depth, has two members of one name.
    pub fn repeats_a_member(&self) -> bool {
        match self {
            Self::Bare(_) | Self::Text(_) => false,
            Self::List(items) => items.iter().any(Self::repeats_a_member),
            Self::Object(members) => {
                let names: BTreeSet<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
                names.len() < members.len()
                    || members.iter().any(|(_, value)| value.repeats_a_member())
            }
        }
    }
}

fn skip_space(rest: &mut Peekable<Chars<'_>>) {
    while rest
        .next_if(|c| matches!(c, ' ' | '\t' | '\n' | '\r'))
        .is_some()
    {}
}

fn value(rest: &mut Peekable<Chars<'_>>, depth: usize) -> Option<Json> {
    if depth > MAX_DEPTH {
        return None;
    }
    skip_space(rest);
    match rest.peek()? {
        '{' => {
            let member = |rest: &mut Peekable<Chars<'_>>| {
                skip_space(rest);
                let name = string(rest)?;
                skip_space(rest);
                rest.next_if_eq(&':')?;
                Some((name, value(rest, depth + 1)?))
            };
            sequence(rest, '}', member).map(Json::Object)
        }
        '[' => sequence(rest, ']', |rest| value(rest, depth + 1)).map(Json::List),
        '"' => string(rest).map(Json::Text),
        _ => bare(rest).map(Json::Bare),
    }
}

/// What stands between brackets, separated by commas.
fn sequence<T>(
    rest: &mut Peekable<Chars<'_>>,
    end: char,
    mut item: impl FnMut(&mut Peekable<Chars<'_>>) -> Option<T>,
) -> Option<Vec<T>> {
    rest.next();
    let mut items = Vec::new();
    skip_space(rest);
    if rest.next_if_eq(&end).is_some() {
        return Some(items);
    }
    loop {
        items.push(item(rest)?);
        skip_space(rest);
        match rest.next()? {
            ',' => {}
            c if c == end => return Some(items),
            _ => return None,
        }
    }
}

fn string(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    rest.next_if_eq(&'"')?;
    let mut units: Vec<u16> = Vec::new();
    loop {
        let c = match rest.next()? {
            '"' => return String::from_utf16(&units).ok(),
            '\\' => match rest.next()? {
                'u' => {
                    units.push(hex4(rest)?);
                    continue;
                }
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                c @ ('"' | '\\' | '/') => c,
                _ => return None,
            },
            '\0'..='\u{1f}' => return None,
            c => c,
        };
        units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
    }
}

fn hex4(rest: &mut Peekable<Chars<'_>>) -> Option<u16> {
    let mut unit = 0;
    for _ in 0..4 {
        unit = unit * 16 + rest.next()?.to_digit(16)?;
    }
    u16::try_from(unit).ok()
}

fn bare(rest: &mut Peekable<Chars<'_>>) -> Option<String> {
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'))
    {
        word.push(c);
    }
    (matches!(word.as_str(), "null" | "true" | "false") || is_number(&word)).then_some(word)
}

fn is_number(word: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let word = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e)))
}
