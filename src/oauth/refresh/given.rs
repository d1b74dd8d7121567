//! The answer to a refresh, kept for those who ask the same within the window.

use bytes::Bytes;
use http::Response;
use serde_json::{Map, Value};

use crate::identity::TokenDigest;
use crate::oauth::key::Key;

/// A larger answer passes and is not kept.
const MAX_KEPT: usize = 64 * 1024;

/// Bytes of an entry beside the body, roughly: headers, digests, the cache's own.
const OVERHEAD: u32 = 2048;

/// A token reply, and whose it is. Has no `Debug`: it holds tokens.
pub(super) struct Given {
    /// The request that it answers.
    request: Key,
    response: Response<Bytes>,
    /// What the refresh token that it was given for is known by when that is revoked, and the tokens
    /// that it holds.
    tokens: Vec<TokenDigest>,
}

// === impl Given ===

impl Given {
    /// Of a reply to `request`, which spent the refresh token `spent`; none if it is too large.
    pub(super) fn of(request: Key, spent: TokenDigest, response: &Response<Bytes>) -> Option<Self> {
        if response.body().len() > MAX_KEPT {
            return None;
        }
        let members = serde_json::from_slice::<Map<String, Value>>(response.body());
        let members = members.unwrap_or_default();
        let held = ["access_token", "refresh_token"];
        let held = held.iter().filter_map(|name| members.get(*name)?.as_str());
        let held = held.flat_map(|token| [token, signed_part(token)].map(TokenDigest::of));
        Some(Self {
            request,
            response: response.clone(),
            tokens: std::iter::once(spent).chain(held).collect(),
        })
    }

    /// The same reply, for an equal request.
    pub(super) fn to(&self, request: Option<Key>) -> Option<Response<Bytes>> {
        (request == Some(self.request)).then(|| self.response.clone())
    }

    /// Whether it was given for this token, or holds it.
    pub(super) fn holds(&self, token: &TokenDigest) -> bool {
        self.tokens.contains(token)
    }

    /// Bytes, roughly.
    pub(super) fn weight(&self) -> u32 {
        let body = u32::try_from(self.response.body().len()).unwrap_or(u32::MAX);
        body.saturating_add(OVERHEAD)
    }
}

/// What the signature of a JWT covers: ECDSA has more than one good signature for that.
fn signed_part(token: &str) -> &str {
    token.rsplit_once('.').map_or(token, |(signed, _)| signed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::form::Params;
    use crate::oauth::key::Keys;
    use http::HeaderMap;

    fn keys() -> [Key; 2] {
        let mut headers = HeaderMap::new();
        let form = "application/x-www-form-urlencoded";
        headers.insert("content-type", form.parse().unwrap());
        let params = Params::read(&headers, b"a=1&b=2").unwrap();
        let keys = Keys::new().unwrap();
        ["a", "b"].map(|name| keys.of_secret(params.get(name).unwrap()))
    }

    #[test]
    fn it_is_for_one_request_and_known_by_its_tokens() {
        let [one, other] = keys();
        let body = r#"{"access_token":"h.c.s","refresh_token":"r2","id_token":"i"}"#;
        let spent = TokenDigest::of("r1");
        let given = Given::of(one, spent, &Response::new(body.into())).unwrap();
        assert_eq!(given.to(Some(one)).unwrap().body(), body);
        assert!(given.to(Some(other)).is_none());
        assert!(given.to(None).is_none());
        for (token, expected) in [
            ("r1", true),
            ("r2", true),
            ("h.c.s", true),
            ("h.c", true),
            ("h.c.t", false),
            ("i", false),
            ("", false),
        ] {
            assert_eq!(given.holds(&TokenDigest::of(token)), expected, "{token}");
        }
        let large = Response::new(vec![b' '; MAX_KEPT + 1].into());
        assert!(Given::of(one, spent, &large).is_none());
    }
}
