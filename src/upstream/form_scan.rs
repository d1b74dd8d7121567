//! Looks for an access token in a form as it passes (RFC 6750 §2.2).

use http::header::{CONTENT_TYPE, HeaderMap};

/// The parameter that a form carries a token in.
const NAME: &[u8] = b"access_token";

const FORM: &[u8] = b"application/x-www-form-urlencoded";

/// A scanner for the parameter `access_token`, fed the form in any portions. It keeps no byte of it.
///
/// Names are compared as form readers decode them, `%5F` as `_`. `;` parts two parameters too: there
/// are readers that take it so. A form in a content coding is not seen through.
#[derive(Debug)]
pub struct FormScan(At);

#[derive(Debug, Clone, Copy)]
enum At {
    /// In a name of which this much has been read, and is like ours.
    Name(usize),
    /// Behind the `%` that comes next.
    Percent(usize),
    /// Behind the first digit of that escape.
    Digit(usize, u8),
    /// In a name of another parameter, or in a value.
    Elsewhere,
    /// Behind the name.
    Found,
}

/// Whether a request says of its body that it is a form.
pub fn is_form(headers: &HeaderMap) -> bool {
    let types = headers.get_all(CONTENT_TYPE).iter();
    types
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .filter_map(|value| value.split(|b| *b == b';').next())
        .any(|media| media.trim_ascii().eq_ignore_ascii_case(FORM))
}

// === impl FormScan ===

impl Default for FormScan {
    fn default() -> Self {
        Self::new()
    }
}

impl FormScan {
    /// A scanner of a form's first byte.
    pub fn new() -> Self {
        Self(At::Name(0))
    }

    /// Looks at what comes next; whether there has been a token.
    pub fn feed(&mut self, mut bytes: &[u8]) -> bool {
        while let Some((&byte, rest)) = bytes.split_first() {
            bytes = rest;
            self.0 = match (self.0, byte) {
                (At::Found, _) => return true,
                (At::Elsewhere, b'&' | b';') => At::Name(0),
                (At::Elsewhere, _) => {
                    let next = memchr::memchr2(b'&', b';', rest).unwrap_or(rest.len());
                    bytes = rest.get(next..).unwrap_or_default();
                    At::Elsewhere
                }
                (At::Name(read), b'=' | b'&' | b';') if read == NAME.len() => At::Found,
                // Also an escape that breaks off: this is the end of the name.
                (_, b'&' | b';') => At::Name(0),
                (At::Name(read), b'%') => At::Percent(read),
                (At::Name(read), byte) => named(read, byte),
                (At::Percent(read), digit) if digit.is_ascii_hexdigit() => At::Digit(read, digit),
                (At::Digit(read, high), low) if low.is_ascii_hexdigit() => {
                    named(read, hex(high) << 4 | hex(low))
                }
                (At::Percent(_) | At::Digit(..), _) => At::Elsewhere,
            };
        }
        matches!(self.0, At::Found)
    }

    /// Whether the form, if it ends here, ends with the name of a token.
    pub fn ends(&self) -> bool {
        matches!(self.0, At::Found) || matches!(self.0, At::Name(read) if read == NAME.len())
    }
}

/// One more byte of a name, decoded.
fn named(read: usize, byte: u8) -> At {
    if NAME.get(read) == Some(&byte) {
        At::Name(read + 1)
    } else {
        At::Elsewhere
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        letter => (letter | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::{FormScan, is_form};
    use http::HeaderMap;
    use http::header::{CONTENT_TYPE, HeaderValue};

    /// Whether a token is found: always the same, however the form comes.
    fn found(form: &str) -> bool {
        let of = |portions: &[&[u8]]| {
            let mut scan = FormScan::new();
            portions.iter().any(|bytes| scan.feed(bytes)) || scan.ends()
        };
        let form = form.as_bytes();
        let whole = of(&[form]);
        for size in 1..form.len() {
            let portions: Vec<&[u8]> = form.chunks(size).collect();
            assert_eq!(of(&portions), whole, "{form:?} by {size}");
        }
        whole
    }

    #[test]
    fn a_token_is_found_wherever_it_is() {
        for form in [
            "access_token=x",
            "access_token=",
            "access_token",
            "access_token&a=b",
            "a=b&access_token=x",
            "a=b&access_token",
            "a&access_token=x&c=d",
            "a==&&&access_token=x",
            "&access_token=x",
            "a=b;access_token=x",
            "access%5Ftoken=x",
            "access%5ftoken=x",
            "a=b&%61%63%63%65%73%73%5F%74%6F%6B%65%6E=x",
            "acces&access_token=x",
            "%&access_token=x",
            "%5&access_token=x",
            "%zz=1&access_token=x",
            "access_token&access_token",
        ] {
            assert!(found(form), "{form}");
        }
    }

    #[test]
    fn nothing_else_is_taken_for_one() {
        for form in [
            "",
            "&&&",
            "a=access_token",
            "a=access_token=x",
            "a=%26access_token=x",
            "Access_Token=x",
            "access_tokens=x",
            "an_access_token=x",
            "access+token=x",
            "+access_token=x",
            "access%20token=x",
            "access%255Ftoken=x",
            "access%5token=x",
            "access%5Gtoken=x",
            "access_toke%6",
            "access_token%",
            "access_token%00=x",
            "a%3Daccess_token=x",
            "refresh_token=access_token",
            "{\"access_token\": \"x\"}",
        ] {
            assert!(!found(form), "{form}");
        }
    }

    #[test]
    fn a_form_is_known_by_its_media_type() {
        for (types, form) in [
            (&["application/x-www-form-urlencoded"][..], true),
            (&["Application/X-WWW-Form-URLEncoded; charset=UTF-8"], true),
            (&["application/x-www-form-urlencoded;a=b"], true),
            (&["  application/x-www-form-urlencoded\t; a"], true),
            (&["text/plain", "application/x-www-form-urlencoded"], true),
            (&["text/plain, application/x-www-form-urlencoded"], true),
            (&[], false),
            (&["application/json"], false),
            (&["application/x-www-form-urlencoded-not"], false),
            (&["text/plain; x=application/x-www-form-urlencoded"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in types {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            assert_eq!(is_form(&headers), form, "{types:?}");
        }
    }
}
