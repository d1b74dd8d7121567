//! The parameters of a request: read from a form or from JSON, written as a form.

use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use percent_encoding::percent_decode;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::errors::OAuthError;

/// More parameters than this in one request are refused.
pub const MAX_PARAMETERS: usize = 100;

/// Names that may be repeated back to a client. Any other might be a value in the wrong place.
const WELL_KNOWN: [&str; 24] = [
    "grant_type",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "audience",
    "scope",
    "resource",
    "organization",
    "code",
    "code_verifier",
    "redirect_uri",
    "refresh_token",
    "username",
    "password",
    "assertion",
    "subject_token",
    "token",
    "token_type_hint",
    "response_type",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
];

/// The value of a parameter. Has no `Debug` and no `Display`: any of them may be a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The parameters of one request in the order they came, each name once, no value empty.
///
/// `Debug` shows how many there are and nothing else.
#[derive(Clone)]
pub struct Params(Vec<(String, Secret)>);

/// What the body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Form,
    Json,
}

// === impl Secret ===

impl Secret {
    /// The value itself; for comparing and forwarding, never for a log or an error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

// === impl Params ===

impl Params {
    /// Reads the body of a request by its `Content-Type`.
    ///
    /// A parameter without a value counts as absent (RFC 6749 §3.2), and so does a JSON `null`;
    /// but it still may not be repeated.
    ///
    /// # Errors
    ///
    /// Those of [`OAuthError`] that concern media type and body.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Result<Self, OAuthError> {
        let given = match format_of(headers)? {
            Format::Form => read_form(body)?,
            Format::Json => read_json(body)?,
        };
        Self::checked(given)
    }

    /// Reads the query of a request; the same holds for it.
    ///
    /// # Errors
    ///
    /// [`OAuthError::BadQuery`], or those of [`Self::read`] about parameters.
    pub fn of_query(query: &str) -> Result<Self, OAuthError> {
        let given = read_form(query.as_bytes()).map_err(|_| OAuthError::BadQuery)?;
        Self::checked(given)
    }

    /// Each name once, and not too many of them; the empty ones are left out.
    fn checked(given: Vec<(String, Secret)>) -> Result<Self, OAuthError> {
        if given.len() > MAX_PARAMETERS {
            return Err(OAuthError::TooManyParameters);
        }
        for (index, (name, _)) in given.iter().enumerate() {
            if given.iter().skip(index + 1).any(|(later, _)| later == name) {
                return Err(OAuthError::Repeated(well_known(name)));
            }
        }
        let present = given.into_iter().filter(|(_, value)| !value.0.is_empty());
        Ok(Self(present.collect()))
    }

    /// The value of a parameter; none when it is absent or empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Secret> {
        let (_, value) = self.0.iter().find(|(given, _)| given == name)?;
        Some(value)
    }

    /// Parameters of our own making.
    pub(super) fn of_pairs<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> Self {
        let owned = |(name, value): (&str, &str)| (name.to_owned(), Secret(value.to_owned()));
        Self(pairs.map(owned).collect())
    }

    /// The same with another value for a parameter that is there.
    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        Self::of_pairs(self.iter().map(|(given, own)| match given == name {
            true => (given, value),
            false => (given, own.expose()),
        }))
    }

    /// Names and values, in the order they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Secret)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// All parameters as a form body, in the order they came.
    #[must_use]
    pub fn to_form(&self) -> Bytes {
        let pairs = self.0.iter().map(|(name, value)| (name, value.expose()));
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
            .into()
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Params({} withheld)", self.0.len())
    }
}

fn well_known(name: &str) -> Option<&'static str> {
    WELL_KNOWN.into_iter().find(|known| *known == name)
}

// === Media type ===

fn format_of(headers: &HeaderMap) -> Result<Format, OAuthError> {
    let mut types = headers.get_all(CONTENT_TYPE).into_iter();
    let (Some(only), None) = (types.next(), types.next()) else {
        return Err(OAuthError::UnsupportedMediaType);
    };
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(CONTENT_ENCODING).iter().all(plain) {
        return Err(OAuthError::UnsupportedMediaType);
    }
    let text = only
        .to_str()
        .map_err(|_| OAuthError::UnsupportedMediaType)?;
    let mut parts = text.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default();
    if !parts.all(is_utf8_or_no_charset) {
        return Err(OAuthError::UnsupportedMediaType);
    }
    if essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        Ok(Format::Form)
    } else if essence.eq_ignore_ascii_case("application/json") {
        Ok(Format::Json)
    } else {
        Err(OAuthError::UnsupportedMediaType)
    }
}

fn is_utf8_or_no_charset(parameter: &str) -> bool {
    match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        Some(_) | None => true,
    }
}

// === Form ===

/// Stricter than a browser's form parser, which repairs what it cannot decode: two parsers that
/// repair differently would see different parameters.
fn read_form(body: &[u8]) -> Result<Vec<(String, Secret)>, OAuthError> {
    body.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        // One more than allowed is enough to be refused.
        .take(MAX_PARAMETERS + 1)
        .map(|pair| {
            let mut halves = pair.splitn(2, |byte| *byte == b'=');
            let name = decode_form_text(halves.next().unwrap_or_default());
            let value = decode_form_text(halves.next().unwrap_or_default());
            match (name, value) {
                (Some(name), Some(value)) if !name.is_empty() => Ok((name, Secret(value))),
                (_, _) => Err(OAuthError::BadForm),
            }
        })
        .collect()
}

/// Decodes one name or value of a form; none when its percent-encoding or UTF-8 is broken.
pub(super) fn decode_form_text(text: &[u8]) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let (Some(&[high, low]), Some(after)) = (rest.get(at + 1..at + 3), rest.get(at + 3..))
        else {
            return None;
        };
        if !high.is_ascii_hexdigit() || !low.is_ascii_hexdigit() {
            return None;
        }
        rest = after;
    }
    let spaced: Vec<u8> = text
        .iter()
        .map(|byte| if *byte == b'+' { b' ' } else { *byte })
        .collect();
    String::from_utf8(percent_decode(&spaced).collect()).ok()
}

// === JSON ===

fn read_json(body: &[u8]) -> Result<Vec<(String, Secret)>, OAuthError> {
    let Members(members) = serde_json::from_slice(body).map_err(|error| OAuthError::BadJson {
        line: error.line(),
        column: error.column(),
    })?;
    members
        .into_iter()
        .map(|(name, member)| match member {
            Member::Text(text) => Ok((name, Secret(text))),
            Member::Null => Ok((name, Secret(String::new()))),
            Member::Other => Err(OAuthError::NotAString(well_known(&name))),
        })
        .collect()
}

/// The members of a JSON object as they stand; a map would silently keep one of two equal names.
struct Members(Vec<(String, Member)>);

enum Member {
    Text(String),
    Null,
    /// Anything else. Numbers and booleans too: what text a client means by `1.0` is its to say.
    Other,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;
        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(ObjectVisitor)
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MemberVisitor;
        impl<'de> Visitor<'de> for MemberVisitor {
            type Value = Member;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_str<E>(self, text: &str) -> Result<Member, E> {
                Ok(Member::Text(text.into()))
            }
            fn visit_string<E>(self, text: String) -> Result<Member, E> {
                Ok(Member::Text(text))
            }
            fn visit_unit<E>(self) -> Result<Member, E> {
                Ok(Member::Null)
            }
            fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
                Ok(Member::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Member, E> {
                Ok(Member::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Member, E> {
                Ok(Member::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
                Ok(Member::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Member, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Member::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Member::Other)
            }
        }
        deserializer.deserialize_any(MemberVisitor)
    }
}

#[cfg(test)]
#[path = "form_tests.rs"]
mod tests;
