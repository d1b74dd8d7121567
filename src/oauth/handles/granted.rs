//! The issuer's token reply as it is kept, and the reply with handles that the client gets.

use super::handle::NewHandle;
use crate::identity::UnixSeconds;
use crate::oauth::userinfo::is_token;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the issuer has granted. Has no `Debug`: it is made of tokens.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Granted {
    /// The access token.
    pub(super) token: Box<str>,
    /// When it was asked for.
    pub(super) since: UnixSeconds,
    /// When it ends.
    pub(super) until: UnixSeconds,
    /// `scope`, if the issuer said it.
    pub(super) scope: Option<Box<str>>,
    /// The issuer's refresh token.
    pub(super) refresh_token: Option<Box<str>>,
}

/// New handles for a grant.
pub(super) struct Pair {
    pub(super) access: NewHandle,
    pub(super) refresh: Option<NewHandle>,
}

// === impl Granted ===

impl Granted {
    /// Reads the body of a token reply that was asked for at `since`. `None` unless it has a bearer
    /// token that goes into a header and tells when it ends.
    pub(super) fn read(body: &[u8], since: UnixSeconds) -> Option<Self> {
        let members: Map<String, Value> = serde_json::from_slice(body).ok()?;
        let text = |name: &str| members.get(name).and_then(Value::as_str);
        let token = text("access_token").filter(|token| is_token(token))?;
        let kind = text("token_type")?;
        if !kind.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let lifetime = members.get("expires_in").and_then(Value::as_i64);
        let told = lifetime.map(|seconds| since.saturating_add(seconds));
        // What comes first: routes go by `exp`, and the issuer by what it has said.
        let until = told.into_iter().chain(unverified_expiry(token)).min()?;
        let owned = |name: &str| text(name).filter(|text| !text.is_empty()).map(Into::into);
        Some(Self {
            token: token.into(),
            since,
            until,
            scope: owned("scope"),
            refresh_token: owned("refresh_token"),
        })
    }

    /// The next grant of the same family: what the issuer does not say anew stays as it was.
    pub(super) fn or(mut self, before: &Self) -> Self {
        self.scope = self.scope.or_else(|| before.scope.clone());
        self.refresh_token = self.refresh_token.or_else(|| before.refresh_token.clone());
        self
    }

    /// The body of the client's reply: what the API promises and nothing else.
    pub(super) fn reply(&self, pair: &Pair, seconds: UnixSeconds) -> String {
        let mut members = Map::new();
        let mut add = |name: &str, value: Value| members.insert(name.to_owned(), value);
        add("token_type", "bearer".into());
        add("access_token", pair.access.text.as_str().into());
        add("expires_in", seconds.max(0).into());
        if let Some(scope) = &self.scope {
            add("scope", (&**scope).into());
        }
        if let Some(refresh) = &pair.refresh {
            add("refresh_token", refresh.text.as_str().into());
        }
        Value::Object(members).to_string()
    }
}

/// `exp` of a JWT that the issuer itself has just handed over. Who uses it has it verified.
fn unverified_expiry(token: &str) -> Option<UnixSeconds> {
    let claims = token.split('.').nth(1)?;
    let claims = URL_SAFE_NO_PAD.decode(claims).ok()?;
    let claims: Map<String, Value> = serde_json::from_slice(&claims).ok()?;
    claims.get("exp")?.as_i64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Option<Granted> {
        Granted::read(body.as_bytes(), 1000)
    }

    #[test]
    fn what_can_be_kept() {
        let whole = r#"{"access_token":"a.b.c","token_type":"Bearer","expires_in":60,"scope":"x y","refresh_token":"r","id_token":"i"}"#;
        let granted = read(whole).unwrap();
        assert_eq!((&*granted.token, granted.until), ("a.b.c", 1060));
        assert_eq!(granted.scope.as_deref(), Some("x y"));
        assert_eq!(granted.refresh_token.as_deref(), Some("r"));
        let claims = URL_SAFE_NO_PAD.encode(r#"{"exp":2000}"#);
        let timeless = format!(r#"{{"access_token":"e30.{claims}.x","token_type":"bearer"}}"#);
        assert_eq!(read(&timeless).unwrap().until, 2000);
        let longer = timeless.replace('}', r#","expires_in":5000}"#);
        assert_eq!(read(&longer).unwrap().until, 2000);
        let next = read(&timeless).unwrap().or(&granted);
        assert_eq!(next.scope.as_deref(), Some("x y"));
        assert_eq!(next.refresh_token.as_deref(), Some("r"));
        for body in [
            "",
            "[]",
            "{}",
            r#"{"access_token":"a","token_type":"Bearer"}"#,
            r#"{"access_token":"a","expires_in":60}"#,
            r#"{"access_token":"a","token_type":"DPoP","expires_in":60}"#,
            r#"{"access_token":"","token_type":"Bearer","expires_in":60}"#,
            r#"{"access_token":"a b","token_type":"Bearer","expires_in":60}"#,
            r#"{"access_token":"a\r\nx: y","token_type":"Bearer","expires_in":60}"#,
            r#"{"access_token":1,"token_type":"Bearer","expires_in":60}"#,
        ] {
            assert!(read(body).is_none(), "{body}");
        }
    }

    #[test]
    fn the_reply_has_what_the_api_promises_and_no_more() {
        let handle = |text: &str| NewHandle {
            text: text.to_owned(),
            digest: super::super::handle::Digest::of(text),
        };
        let granted = read(
            r#"{"access_token":"a","token_type":"Bearer","expires_in":60,"scope":"x","refresh_token":"r","id_token":"i","other":1}"#,
        );
        let pair = Pair {
            access: handle("A"),
            refresh: Some(handle("R")),
        };
        assert_eq!(
            granted.unwrap().reply(&pair, 60),
            r#"{"token_type":"bearer","access_token":"A","expires_in":60,"scope":"x","refresh_token":"R"}"#
        );
        let pair = Pair {
            access: handle("A"),
            refresh: None,
        };
        let least = read(r#"{"access_token":"a","token_type":"Bearer","expires_in":60}"#);
        assert_eq!(
            least.unwrap().reply(&pair, -1),
            r#"{"token_type":"bearer","access_token":"A","expires_in":0}"#
        );
    }
}
