//! What an answer is kept under: an HMAC over everything in a request that has a say in the answer.
//! For tokens that are given again (`reuse`), and for refreshes that are one (`refresh`).

use aws_lc_rs::{hmac, rand};
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, USER_AGENT};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;

use super::client_auth::ClientAuth;
use super::form::Secret;
use super::token::Forward;

/// Headers that go to the issuer and have no say in the token. With any other one, a proof of
/// possession above all, a request is not plain.
const INDIFFERENT: [HeaderName; 3] = [
    ACCEPT,
    USER_AGENT,
    HeaderName::from_static("auth0-forwarded-for"),
];

/// Stands for all equal requests. Without the secret it was made with it tells nothing of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u8; 32]);

/// Makes keys, with a secret of its own.
pub(super) struct Keys(hmac::Key);

// === impl Key ===

impl Hash for Key {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        hasher.write(&self.0);
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

// === impl Keys ===

impl Keys {
    /// With a secret that nobody knows and that ends with this value.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub(super) fn new() -> io::Result<Self> {
        hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new())
            .map(Self)
            .map_err(|_| io::Error::other("the system gave no random numbers"))
    }

    /// The key of a request to `endpoint`; none if it is one of a kind, by an assertion or by a proof
    /// of possession.
    ///
    /// Two requests have one key only if the same client proves itself with the same secret in the
    /// same way, or says in the same way that it has none, and asks the same endpoint for the same:
    /// scopes in any order, and every other parameter alike, those that nobody here knows included.
    pub(super) fn of(&self, endpoint: &http::Uri, forward: &Forward) -> Option<Key> {
        let (way, credential): (&str, &[u8]) = match &forward.auth {
            ClientAuth::Basic(header) => ("basic", header.as_bytes()),
            // The secret is among the parameters.
            ClientAuth::Post => ("post", b""),
            ClientAuth::Public => ("public", b""),
            // An assertion is good once, and proves who sent it and not who sends it again.
            ClientAuth::Assertion => return None,
        };
        let plain = |name: &HeaderName| INDIFFERENT.contains(name) || *name == AUTHORIZATION;
        if !forward.headers.keys().all(plain) {
            return None;
        }
        let mut text = self.text();
        text.add(endpoint.to_string().as_bytes());
        text.add(way.as_bytes());
        text.add(credential);
        let mut params: Vec<_> = forward.params.iter().collect();
        params.sort_unstable_by_key(|(name, _)| *name);
        text.count(params.len());
        for (name, value) in params {
            text.add(name.as_bytes());
            match name {
                "scope" => text.words(value.expose()),
                _ => text.add(value.expose().as_bytes()),
            }
        }
        Some(text.key())
    }

    /// The key of one text, whatever the request that it comes in.
    pub(super) fn of_secret(&self, secret: &Secret) -> Key {
        let mut text = self.text();
        text.add(secret.expose().as_bytes());
        text.key()
    }

    fn text(&self) -> Text {
        Text(hmac::Context::with_key(&self.0))
    }
}

/// A text of parts that cannot be cut in two ways: each has its length before it.
struct Text(hmac::Context);

impl Text {
    fn count(&mut self, count: usize) {
        self.0.update(&(count as u64).to_le_bytes());
    }

    fn add(&mut self, part: &[u8]) {
        self.count(part.len());
        self.0.update(part);
    }

    /// Scopes are a set, whatever their order (RFC 6749 §3.3).
    fn words(&mut self, text: &str) {
        let mut words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        words.sort_unstable();
        words.dedup();
        self.count(words.len());
        for word in words {
            self.add(word.as_bytes());
        }
    }

    fn key(self) -> Key {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.sign().as_ref());
        Key(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::token::decide;
    use crate::oauth::{Grant, Surface};
    use http::HeaderValue;
    use std::collections::HashMap;

    const PLAIN: &str = "grant_type=client_credentials&client_id=i&client_secret=s";

    fn forward(headers: &[(&'static str, &'static str)], body: &str) -> Forward {
        let surface = Surface {
            name: "x".into(),
            grants: Grant::ALL.to_vec(),
            max_body: 1024,
            realm: "x".into(),
            errors: crate::oauth::ErrorFormat::OAuth,
            forward_client_address: false,
        };
        let mut head = http::Request::post("/oauth/token").body(()).unwrap();
        let all = head.headers_mut();
        all.insert(
            "content-type",
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        for (name, value) in headers {
            all.insert(*name, HeaderValue::from_static(value));
        }
        decide(&surface, &head.into_parts().0, body.as_bytes())
            .unwrap_or_else(|refusal| panic!("{body}: {refusal:?}"))
    }

    fn endpoint() -> http::Uri {
        http::Uri::from_static("http://127.0.0.1/oauth/token")
    }

    #[test]
    fn who_proves_it_once_has_no_key() {
        let keys = Keys::new().unwrap();
        let grant = "grant_type=client_credentials";
        let assertion = format!("{grant}&client_assertion=j&client_assertion_type=t");
        type Headers = &'static [(&'static str, &'static str)];
        let rows: [(Headers, &str, bool); 8] = [
            (&[], PLAIN, true),
            (&[("user-agent", "c/1")], PLAIN, true),
            (&[("authorization", "Basic aTpz")], grant, true),
            (&[("dpop", "proof")], PLAIN, false),
            (&[], &assertion, false),
            (
                &[],
                "grant_type=refresh_token&refresh_token=r&client_id=i&client_secret=s",
                true,
            ),
            (
                &[("dpop", "proof")],
                "grant_type=refresh_token&refresh_token=r&client_id=i",
                false,
            ),
            (
                &[],
                "grant_type=refresh_token&refresh_token=r&client_id=i",
                true,
            ),
        ];
        for (headers, body, expected) in rows {
            let key = keys.of(&endpoint(), &forward(headers, body));
            assert_eq!(key.is_some(), expected, "{headers:?} {body}");
        }
        // A header of tomorrow makes a request one of a kind until somebody has thought about it.
        let mut unknown = forward(&[], PLAIN);
        unknown
            .headers
            .insert("x-new", HeaderValue::from_static("1"));
        assert!(keys.of(&endpoint(), &unknown).is_none());
        let mut address = forward(&[], PLAIN);
        let value = HeaderValue::from_static("192.0.2.1");
        address.headers.insert("auth0-forwarded-for", value);
        assert_eq!(
            keys.of(&endpoint(), &address),
            keys.of(&endpoint(), &forward(&[], PLAIN))
        );
    }

    #[test]
    fn equal_requests_share_a_key() {
        let keys = Keys::new().unwrap();
        let of = |body: &str| keys.of(&endpoint(), &forward(&[], body)).unwrap();
        let scoped = format!("{PLAIN}&scope=a+b&audience=u");
        let same = [
            format!("{PLAIN}&audience=u&scope=b+a"),
            format!("scope=a+b&audience=u&{PLAIN}"),
            format!("{PLAIN}&audience=u&scope=+a++b+a&organization="),
        ];
        for body in same {
            assert_eq!(of(&body), of(&scoped), "{body}");
        }
    }

    #[test]
    fn nothing_else_shares_one() {
        let keys = Keys::new().unwrap();
        let mut seen: HashMap<Key, String> = HashMap::new();
        let mut distinct = |key: Key, what: String| {
            if let Some(other) = seen.insert(key, what.clone()) {
                panic!("{what} and {other}");
            }
        };
        let bodies = [
            "client_id=i&client_secret=s",
            "client_id=i&client_secret=S",
            "client_id=I&client_secret=s",
            "client_id=is&client_secret=s",
            "client_id=i&client_secret=ss",
            "client_id=s&client_secret=i",
            "client_id=i&client_secret=s&audience=a",
            "client_id=i&client_secret=s&audience=A",
            "client_id=i&client_secret=s&audience=a&scope=a",
            "client_id=i&client_secret=s&audience=a&scope=a+b",
            "client_id=i&client_secret=s&audience=a&scope=ab",
            "client_id=i&client_secret=s&audience=a&scope=A",
            "client_id=i&client_secret=s&scope=a",
            "client_id=i&client_secret=s&organization=a",
            "client_id=i&client_secret=s&resource=a",
            "client_id=i&client_secret=s&x=a",
            "client_id=i&client_secret=s&X=a",
            "client_id=i&client_secret=s&x=a&y=b",
            "client_id=i&client_secret=s&x=b&y=a",
            "client_id=i&client_secret=s&xa=y",
            "client_id=i&client_secret=s&x=ay",
        ];
        for body in bodies {
            let whole = format!("grant_type=client_credentials&{body}");
            let key = keys.of(&endpoint(), &forward(&[], &whole)).unwrap();
            distinct(key, whole);
        }
        let grant = "grant_type=client_credentials";
        // i:s as above, but in another way; i:S; I:s.
        for header in ["Basic aTpz", "Basic aTpT", "Basic STpz"] {
            let forward = forward(&[("authorization", header)], grant);
            distinct(keys.of(&endpoint(), &forward).unwrap(), header.to_owned());
        }
        for body in ["", "&client_secret=s", "&scope=a", "&scope=b"] {
            let whole = format!("grant_type=refresh_token&refresh_token=r&client_id=i{body}");
            let key = keys.of(&endpoint(), &forward(&[], &whole)).unwrap();
            distinct(key, whole);
        }
        let elsewhere = http::Uri::from_static("http://127.0.0.1/token");
        let plain = forward(&[], PLAIN);
        distinct(keys.of(&elsewhere, &plain).unwrap(), "elsewhere".to_owned());
        let others = Keys::new().unwrap();
        distinct(
            others.of(&endpoint(), &plain).unwrap(),
            "another process".to_owned(),
        );
    }
}
