//! `token inspect`: what a token says, with the loud remark that nothing of it was verified.

use super::output::{self, BAD, FAINT, GOOD, STRONG, plain};
use super::{FAILED, stdin};
use crate::authn::token::UnverifiedToken;
use crate::identity::{UnixSeconds, unix_now};
use crate::steps;
use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::fmt::{self, Write as _};

/// Claims that hold a time.
const TIMES: [&str; 5] = ["iat", "nbf", "exp", "auth_time", "updated_at"];

/// A value wider than this goes over several lines.
const WIDE: usize = 100;

/// Reads what other readers might read, too: padded or not, with spare bits or not, in either
/// alphabet. What is strict is told apart.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The members of an object in their order, those that are there twice included.
struct Listed(Vec<(String, Value)>);

struct ListedVisitor;

/// What a segment of a token turns out to be.
enum Segment {
    Object(Vec<(String, Value)>),
    /// Text that is no JSON object.
    Text(String),
    Bytes(usize),
    Undecodable,
}

/// Shows a token. Returns the exit code.
pub fn run(argument: Option<&str>) -> u8 {
    let bytes = match stdin::given(argument.unwrap_or("-")) {
        Ok(bytes) => bytes,
        Err(error) => return stdin::unreadable(&error),
    };
    let text = String::from_utf8_lossy(&bytes);
    match shown(stdin::bare(&text), unix_now()) {
        Some(text) => output::print(&text),
        None => output::fail(
            "this is no JWT: neither its first nor its second part is a JSON object in base64url",
            FAILED,
        ),
    }
}

/// Everything that can be read of a token; `None` if that is nothing.
fn shown(token: &str, now: UnixSeconds) -> Option<String> {
    let parts: Vec<&str> = token.split('.').collect();
    let segment = |at: usize| parts.get(at).map(|part| Segment::read(part));
    let (header, payload) = (segment(0)?, segment(1));
    let readable = |segment: &Segment| matches!(segment, Segment::Object(_));
    if !readable(&header) && !payload.as_ref().is_some_and(readable) {
        return None;
    }
    let mut text = format!(
        "{BAD}NOTHING OF THIS WAS VERIFIED{BAD:#}: anybody can write such a token. `bonterra-gateway explain` verifies it.\n"
    );
    header.tell(&mut text, "header", now);
    match parts.len() {
        5 => put(
            &mut text,
            "\nfive parts: the token is encrypted (JWE), and only its header can be read",
        ),
        _ => {
            if let Some(payload) = &payload {
                payload.tell(&mut text, "claims", now);
            }
            let signature = parts.get(2).filter(|part| !part.is_empty());
            put(
                &mut text,
                &match signature {
                    Some(part) => format!(
                        "\n{STRONG}signature{STRONG:#}  {} characters, not shown",
                        part.len()
                    ),
                    None => format!("\n{STRONG}signature{STRONG:#}  {BAD}none{BAD:#}"),
                },
            );
        }
    }
    if let Some(Segment::Object(claims)) = &payload {
        put(
            &mut text,
            &format!("{STRONG}lifetime{STRONG:#}   {}", lifetime(claims, now)),
        );
    }
    put(&mut text, &strictness(token));
    Some(text)
}

/// Whether the gateway would read it at all, in its own words.
fn strictness(token: &str) -> String {
    match UnverifiedToken::parse(token) {
        Ok(_) => format!(
            "{STRONG}form{STRONG:#}       {GOOD}strict{GOOD:#}: the gateway reads it, and then verifies it"
        ),
        Err(rejection) => format!(
            "{STRONG}form{STRONG:#}       {BAD}refused{BAD:#} by the gateway: {}{}",
            rejection.reason.as_str(),
            rejection
                .note
                .map_or_else(String::new, |note| format!(", {note}"))
        ),
    }
}

fn lifetime(claims: &[(String, Value)], now: UnixSeconds) -> String {
    let time = |name: &str| {
        let (_, value) = claims.iter().find(|(own, _)| own == name)?;
        value.as_i64()
    };
    let Some(exp) = time("exp") else {
        return "without a usable exp it never ends, and the gateway refuses it".to_owned();
    };
    let length = match time("iat") {
        Some(iat) if iat <= exp => format!("{}, ", steps::span(exp.saturating_sub(iat))),
        Some(_) => "ends before it begins, ".to_owned(),
        None => String::new(),
    };
    let left = steps::span(exp.saturating_sub(now));
    match exp > now {
        true => format!("{length}{left} left"),
        false => format!("{length}over for {left}"),
    }
}

fn put(text: &mut String, line: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{line}");
}

// === impl Segment ===

impl Segment {
    fn read(part: &str) -> Self {
        let part = part.trim_end_matches('=').replace('+', "-");
        let Ok(bytes) = LENIENT.decode(part.replace('/', "_")) else {
            return Self::Undecodable;
        };
        if let Ok(Listed(members)) = serde_json::from_slice(&bytes) {
            return Self::Object(members);
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::Text(text),
            Err(error) => Self::Bytes(error.as_bytes().len()),
        }
    }

    fn tell(&self, text: &mut String, name: &str, now: UnixSeconds) {
        put(text, &format!("\n{STRONG}{name}{STRONG:#}"));
        match self {
            Self::Object(members) => {
                let names = members.iter().map(|(name, _)| plain(name).chars().count());
                let width = names.max().unwrap_or(0);
                for (at, (name, value)) in members.iter().enumerate() {
                    let earlier = members.iter().take(at).any(|(own, _)| own == name);
                    let twice = if earlier {
                        format!("  {BAD}there already{BAD:#}")
                    } else {
                        String::new()
                    };
                    let value = member(name, value, now, width);
                    put(text, &format!("  {:<width$}  {value}{twice}", plain(name)));
                }
                if members.is_empty() {
                    put(text, &format!("  {FAINT}empty{FAINT:#}"));
                }
            }
            Self::Text(found) => {
                let start: String = found.chars().take(WIDE).collect();
                put(
                    text,
                    &format!("  {BAD}no JSON object{BAD:#}: {}", plain(&start)),
                );
            }
            Self::Bytes(count) => {
                put(text, &format!("  {BAD}no text{BAD:#}: {count} bytes"));
            }
            Self::Undecodable => put(text, &format!("  {BAD}no base64url{BAD:#}")),
        }
    }
}

/// A value as JSON, times in words besides.
fn member(name: &str, value: &Value, now: UnixSeconds, width: usize) -> String {
    let short = plain(&value.to_string());
    if TIMES.contains(&name) {
        return match value.as_i64() {
            Some(at) => format!("{short}  {FAINT}{}{FAINT:#}", steps::moment(at, now)),
            None => format!("{short}  {BAD}no whole number of seconds{BAD:#}"),
        };
    }
    if short.chars().count() <= WIDE || !(value.is_object() || value.is_array()) {
        return short;
    }
    // A value that was read can be written.
    let pretty = serde_json::to_string_pretty(value).unwrap_or(short);
    let lines: Vec<String> = pretty.lines().map(plain).collect();
    lines.join(&format!("\n{}", " ".repeat(width + 4)))
}

// === impl Listed ===

impl<'de> Deserialize<'de> for Listed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListedVisitor)
    }
}

impl<'de> Visitor<'de> for ListedVisitor {
    type Value = Listed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Listed, A::Error> {
        let mut list = Vec::new();
        while let Some(member) = members.next_entry()? {
            list.push(member);
        }
        Ok(Listed(list))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(parts: &[&str]) -> String {
        let encoded: Vec<String> = parts.iter().map(|part| LENIENT.encode(part)).collect();
        encoded.join(".").replace('=', "")
    }

    fn told(token: &str) -> Option<String> {
        let text = shown(token, 1_000)?;
        Some(anstream::adapter::strip_str(&text).to_string())
    }

    #[test]
    fn what_can_be_read_is_shown() {
        let good = r#"{"alg":"RS256"}"#;
        for (parts, expected) in [
            (
                &[good, r#"{"iss":"i","iat":400,"exp":1720}"#, "x"][..],
                &[
                    "NOTHING OF THIS WAS VERIFIED",
                    "  alg  \"RS256\"",
                    "  exp  1720  1970-01-01 00:28:40 UTC, in 12 minutes",
                    "lifetime   22 minutes, 12 minutes left",
                    "form       strict",
                ][..],
            ),
            (
                &[good, r#"{"iss":"i","exp":940,"exp":941}"#, "x"],
                &[
                    "1 minute ago",
                    "there already",
                    "over for 1 minute",
                    "no strict JSON object",
                ],
            ),
            (
                &[good, r#"{"iss":"i","exp":"soon"}"#, "x"],
                &["no whole number", "without a usable exp"],
            ),
            (
                &[good, "[1]", "x"],
                &["no JSON object: [1]", "malformed_token"],
            ),
            (
                &["x", r#"{"iss":"i"}"#, "x"],
                &["no JSON object: x", "\"i\""],
            ),
            (
                &[good, r#"{"iss":1}"#, "x"],
                &["wrong_issuer, iss is no string"],
            ),
            (
                &[good, r#"{"iss":"i"}"#],
                &["signature  none", "malformed_token"],
            ),
            (&[good], &["RS256", "signature  none", "malformed_token"]),
            (&[good, "k", "iv", "text", "tag"], &["encrypted (JWE)"]),
        ] {
            let text = told(&token(parts)).expect("shown");
            for part in expected {
                assert!(text.contains(part), "{parts:?}: no {part:?} in\n{text}");
            }
        }
        let padded = format!("{}==.e30.eA", LENIENT.encode(good).trim_end_matches('='));
        assert!(told(&padded).is_some_and(|text| text.contains("malformed_token")));
    }

    #[test]
    fn what_is_no_token_is_not_shown() {
        for text in [
            "",
            "x",
            "a.b.c",
            "....",
            "\u{1b}[31m",
            "{\"alg\":\"RS256\"}",
        ] {
            assert_eq!(told(text), None, "{text:?}");
        }
        assert_eq!(stdin::bare(" bEARER  a.b.c \n"), "a.b.c");
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let nasty = "\u{1b}]0;x\u{7}\u{9b}31m\u{202e}\u{7f}\r\n";
        let quoted = serde_json::to_string(nasty).expect("JSON");
        let long = vec![nasty; 40];
        let claims = format!("{{{quoted}:{quoted},\"a\":{}}}", serde_json::json!(long));
        for token in [token(&["{}", &claims, "x"]), token(&["{}", nasty, "x"])] {
            let text = told(&token).expect("shown");
            assert!(
                text.contains("\\u{9b}") || text.contains("\\u{202e}"),
                "{text}"
            );
            let left = text
                .chars()
                .find(|char| (char.is_control() && *char != '\n') || *char == '\u{202e}');
            assert_eq!(left, None, "{text:?}");
        }
    }
}
