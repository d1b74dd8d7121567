//! What of a request is shown: everything but credentials.

use super::super::output::plain;
use crate::config::mask::{MASK, is_sensitive, mask_credentials};
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Uri};

/// Fields of which the scheme is told.
const CREDENTIALS: [HeaderName; 2] = [AUTHORIZATION, PROXY_AUTHORIZATION];

/// A credential shorter than this is hidden where it is expected, but not looked for elsewhere: it
/// would take ordinary words along.
const SHORTEST: usize = 8;

/// Hides the credentials of one request, wherever they stand.
#[derive(Debug)]
pub(super) struct Mask {
    secrets: Vec<String>,
}

// === impl Mask ===

impl Mask {
    /// A mask for what this head carries.
    pub(super) fn of(head: &Parts) -> Self {
        let mut secrets = Vec::new();
        for (name, value) in &head.headers {
            if is_secret(name) {
                let text = String::from_utf8_lossy(value.as_bytes()).into_owned();
                secrets.extend(text.split([' ', ';', ',']).map(str::to_owned));
                // What a token is made of says as much as the whole.
                secrets.extend(text.split([' ', '.']).map(str::to_owned));
            }
        }
        for pair in head.uri.query().unwrap_or_default().split('&') {
            if let Some((_, value)) = token_parameter(pair) {
                secrets.extend(value.split(';').map(str::to_owned));
            }
        }
        secrets.retain(|secret| secret.len() >= SHORTEST);
        // The whole before its parts.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// Text with the credentials hidden and control characters made visible.
    pub(super) fn text(&self, text: &str) -> String {
        let hidden = self.secrets.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_str(), MASK)
        });
        plain(&hidden)
    }

    /// A target with the token in its query hidden, however short.
    pub(super) fn target(&self, uri: &Uri) -> String {
        let Some(query) = uri.query() else {
            return self.text(&uri.to_string());
        };
        let shown: Vec<String> = query
            .split('&')
            .map(|pair| match token_parameter(pair) {
                Some((before, _)) => format!("{before}={MASK}"),
                None => pair.to_owned(),
            })
            .collect();
        self.text(&format!("{}?{}", uri.path(), shown.join("&")))
    }

    /// A header's value; of credentials, the scheme alone.
    pub(super) fn value(&self, name: &HeaderName, value: &HeaderValue) -> String {
        let text = String::from_utf8_lossy(value.as_bytes());
        if !is_secret(name) {
            return self.text(&mask_credentials(&text).0);
        }
        match text.split_once(' ') {
            Some((scheme, _)) if CREDENTIALS.contains(name) => {
                format!("{} {MASK}", self.text(scheme))
            }
            _ => MASK.to_owned(),
        }
    }
}

/// What a client says by itself, and what is masked in the file: a route's own secrets are on their
/// way upstream, too.
fn is_secret(name: &HeaderName) -> bool {
    CREDENTIALS.contains(name) || is_sensitive(name.as_str())
}

/// RFC 6750 §2.3: of a pair of the query that holds a token, what is before its `=` and behind it,
/// as it came. Some readers part at `;`, too, and some do not: behind a token all of it is one.
fn token_parameter(pair: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    for piece in pair.split(';') {
        let name = form_urlencoded::parse(piece.as_bytes()).next();
        if name.is_some_and(|(name, _)| name == "access_token") {
            let equals = piece.find('=').unwrap_or(piece.len());
            let (before, value) = pair.split_at_checked(from + equals)?;
            return Some((before, value.strip_prefix('=').unwrap_or(value)));
        }
        from += piece.len() + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_hidden_wherever_they_stand() {
        let request = http::Request::get("/a?x=1&access%5Ftoken=q&access_token=query-token&y")
            .header("authorization", "Bearer aaaaaaaaa.bbbbbbbbb.cc")
            .header("cookie", "session=0123456789; b=c")
            .header("x-copy", "aaaaaaaaa.bbbbbbbbb.cc bbbbbbbbb query-token");
        let (head, ()) = request.body(()).expect("a request").into_parts();
        let mask = Mask::of(&head);
        assert_eq!(
            mask.target(&head.uri),
            "/a?x=1&access%5Ftoken=********&access_token=********&y"
        );
        for (name, expected) in [
            ("authorization", "Bearer ********"),
            ("cookie", "********"),
            ("x-copy", "******** ******** ********"),
        ] {
            let name = HeaderName::from_static(name);
            let value = head.headers.get(&name).expect("a value");
            assert_eq!(mask.value(&name, value), expected, "{name}");
        }
        assert_eq!(mask.text("a\u{1b}[31mb"), "a\\u{1b}[31mb");
    }
}
