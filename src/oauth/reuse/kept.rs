//! A token reply that may be given again: which ones may, for how long, and what the client reads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::identity::{TokenDigest, UnixSeconds};
use crate::keys::KeySet;

/// A reply over this size passes and is not kept.
const MAX_KEPT: usize = 16 * 1024;

/// The largest part by which a stretch of reuse is shortened at random: clients that started
/// together do not all come back for their next tokens together.
const JITTER: f64 = 0.1;

/// How long a token is given again: `[oauth.*.cache]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// For this share of its lifetime at most; from 0 to 1.
    pub share: f64,
    /// Never with fewer seconds left than these.
    pub min_remaining: u64,
}

/// What may be done with a token reply.
pub(super) enum Reading {
    /// It may be given again.
    Keep(Kept),
    /// It is too short-lived or too large for that; those who ask at this moment may share it.
    Share,
    /// It is for the one who asked and for nobody else.
    Alone,
}

/// A token reply that may be given again. Has no `Debug`: it holds a token.
pub(super) struct Kept {
    /// The body up to the number of `expires_in`, and from there on.
    body: [Box<str>; 2],
    /// What the token is known by when it is revoked: its whole text, and what the signature of a JWT
    /// covers, for ECDSA has more than one good signature for that.
    token: [TokenDigest; 2],
    /// The key that it is signed with, if it is a JWT that names one.
    kid: Option<Box<str>>,
    /// Whether that key has been among the issuer's.
    key_seen: AtomicBool,
    /// When it was asked for: a clock that is set back does not make it last.
    since: UnixSeconds,
    /// From then on it is not given again.
    until: UnixSeconds,
    expires_at: UnixSeconds,
}

/// Judges the body of a token reply that was asked for at `asked`. `chance` is from 0 to 1.
///
/// Given again are replies that hold nothing but a bearer token with a lifetime: no token bound to a
/// key or certificate (RFC 9449, RFC 8705), no refresh token, no id token.
pub(super) fn read(body: &[u8], asked: UnixSeconds, rules: Rules, chance: f64) -> Reading {
    let Ok(members) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Reading::Alone;
    };
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bearer = text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
    let personal = ["cnf", "refresh_token", "id_token"]
        .iter()
        .any(|name| members.contains_key(*name));
    let (Some(token), Some(lifetime)) = (
        text("access_token"),
        members.get("expires_in").and_then(Value::as_u64),
    ) else {
        return Reading::Alone;
    };
    let [header, claims] = [0, 1].map(|part| jwt_part(token, part));
    let bound = claims.is_some_and(|claims| claims.contains_key("cnf"));
    if !bearer || personal || bound {
        return Reading::Alone;
    }
    let stretch = stretch(lifetime, rules, chance);
    if stretch == 0 || body.len() > MAX_KEPT {
        return Reading::Share;
    }
    let kid = header.and_then(|header| Some(header.get("kid")?.as_str()?.into()));
    let after = |seconds: u64| asked.saturating_add_unsigned(seconds);
    Reading::Keep(Kept {
        token: [token, signed(token)].map(TokenDigest::of),
        kid,
        key_seen: AtomicBool::new(false),
        since: asked,
        until: after(stretch),
        expires_at: after(lifetime),
        body: cut(&members),
    })
}

/// For how many seconds a token of this lifetime is given again.
fn stretch(lifetime: u64, rules: Rules, chance: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "lifetimes are below 2^53, fractions of a second do not matter, nothing is negative"
    )]
    let part = |seconds: u64, of: f64| (seconds as f64 * of) as u64;
    let longest = lifetime.saturating_sub(rules.min_remaining);
    let longest = longest.min(part(lifetime, rules.share));
    longest - part(longest, JITTER * chance).min(longest)
}

/// The members as JSON, cut where the number of `expires_in` stands.
fn cut(members: &Map<String, Value>) -> [Box<str>; 2] {
    let (mut before, mut after) = (String::from("{"), None::<String>);
    for (number, (name, value)) in members.iter().enumerate() {
        let part = after.as_mut().unwrap_or(&mut before);
        let comma = if number == 0 { "" } else { "," };
        *part += &format!("{comma}{}:", Value::from(name.as_str()));
        if name == "expires_in" {
            after = Some(String::new());
        } else {
            *part += &value.to_string();
        }
    }
    let after = after.unwrap_or_default() + "}";
    [before.into_boxed_str(), after.into_boxed_str()]
}

/// What the signature of a JWT covers.
fn signed(token: &str) -> &str {
    token.rsplit_once('.').map_or(token, |(signed, _)| signed)
}

/// The header (0) or the claims (1) of a JWT, unverified: only ever a reason not to give it again.
fn jwt_part(token: &str, part: usize) -> Option<Map<String, Value>> {
    let mut parts = token.split('.');
    let encoded = parts.nth(part)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

// === impl Kept ===

impl Kept {
    /// The body for a client that asks now, if the token may still be given.
    pub(super) fn body(&self, now: UnixSeconds) -> Option<Bytes> {
        if !(self.since..self.until).contains(&now) {
            return None;
        }
        let [before, after] = &self.body;
        Some(format!("{before}{}{after}", self.expires_at - now).into())
    }

    /// Whether the token's key was among the issuer's and is no more: nobody accepts it then. A key
    /// that the gateway has not seen yet is no reason to buy a token again and again.
    pub(super) fn is_orphan(&self, keys: Option<&KeySet>) -> bool {
        let (Some(kid), Some(keys)) = (&self.kid, keys) else {
            return false;
        };
        if keys.find(kid).is_some() {
            self.key_seen.store(true, Relaxed);
            return false;
        }
        self.key_seen.load(Relaxed)
    }

    /// Whether it holds this token.
    pub(super) fn holds(&self, token: &TokenDigest) -> bool {
        self.token.contains(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RULES: Rules = Rules {
        share: 0.8,
        min_remaining: 60,
    };

    fn kept(body: &str) -> Option<Kept> {
        match read(body.as_bytes(), 1000, RULES, 0.0) {
            Reading::Keep(kept) => Some(kept),
            Reading::Share | Reading::Alone => None,
        }
    }

    fn jwt(header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    #[test]
    fn how_long_a_token_is_given_again() {
        // lifetime, share, min_remaining, chance: seconds
        let rows = [
            (86400, 0.8, 60, 0.0, 69120),
            (86400, 0.8, 60, 1.0, 69120 - 6912),
            (86400, 0.8, 60, 0.5, 69120 - 3456),
            (86400, 0.8, 40000, 0.0, 46400),
            (100, 0.8, 60, 0.0, 40),
            (100, 1.0, 0, 0.0, 100),
            (61, 0.8, 60, 0.0, 1),
            (60, 0.8, 60, 0.0, 0),
            (1, 0.8, 0, 0.0, 0),
            (0, 1.0, 0, 0.0, 0),
            (86400, 0.0, 60, 0.0, 0),
            (1 << 53, 1.0, 0, 0.0, 1 << 53),
        ];
        for (lifetime, share, min_remaining, chance, expected) in rows {
            let rules = Rules {
                share,
                min_remaining,
            };
            assert_eq!(
                stretch(lifetime, rules, chance),
                expected,
                "{lifetime} {rules:?} {chance}"
            );
        }
    }

    #[test]
    fn expires_in_is_what_is_left() {
        let body =
            r#"{"access_token":"a\"b","expires_in":100,"token_type":"Bearer","scope":"x é"}"#;
        let kept = kept(body).unwrap();
        let at = |now| {
            kept.body(now)
                .map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        // now, expires_in
        let rows = [
            (999, None),
            (1000, Some(100)),
            (1001, Some(99)),
            (1039, Some(61)),
            (1040, None),
            (1100, None),
            (UnixSeconds::MAX, None),
        ];
        for (now, left) in rows {
            let expected = left.map(|left: i64| body.replace(":100", &format!(":{left}")));
            assert_eq!(at(now), expected, "{now}");
        }
    }

    #[test]
    fn members_keep_their_places() {
        let bodies = [
            r#"{"expires_in":100,"access_token":"a","token_type":"bearer"}"#,
            r#"{"token_type":"BEARER","access_token":"a","expires_in":100}"#,
            r#"{"a":[1,null],"token_type":"Bearer","expires_in":100,"b":{"expires_in":7},"access_token":"a"}"#,
        ];
        for body in bodies {
            let got = kept(body).and_then(|kept| kept.body(1030)).unwrap();
            assert_eq!(got, body.replace(":100", ":70"));
        }
    }

    #[test]
    fn what_may_be_given_to_whom() {
        let bound = jwt(&json!({}), &json!({"cnf": {"x5t#S256": "x"}}));
        let free = jwt(&json!({"kid": "k"}), &json!({"sub": "cnf"}));
        let with = |more: Value| {
            let mut body = json!({"access_token": "a", "expires_in": 100, "token_type": "Bearer"});
            for (name, value) in more.as_object().unwrap() {
                match value {
                    Value::Null => body.as_object_mut().unwrap().shift_remove(name),
                    value => body
                        .as_object_mut()
                        .unwrap()
                        .insert(name.clone(), value.clone()),
                };
            }
            body.to_string()
        };
        let rows = [
            (with(json!({})), "keep"),
            (with(json!({"access_token": free})), "keep"),
            (with(json!({"access_token": "a.b.c"})), "keep"),
            (with(json!({"scope": "x", "token_type": "bEARER"})), "keep"),
            (with(json!({"expires_in": 60})), "share"),
            (with(json!({"expires_in": 0})), "share"),
            (with(json!({"pad": "x".repeat(MAX_KEPT)})), "share"),
            (with(json!({"expires_in": null})), "alone"),
            (with(json!({"expires_in": "100"})), "alone"),
            (with(json!({"expires_in": 1.5})), "alone"),
            (with(json!({"token_type": null})), "alone"),
            (with(json!({"token_type": "DPoP"})), "alone"),
            (with(json!({"token_type": "N_A"})), "alone"),
            (with(json!({"cnf": {}})), "alone"),
            (with(json!({"access_token": bound})), "alone"),
            (with(json!({"refresh_token": "r"})), "alone"),
            (with(json!({"id_token": "i"})), "alone"),
            (with(json!({"access_token": null})), "alone"),
            ("[]".to_owned(), "alone"),
            (String::new(), "alone"),
        ];
        for (body, expected) in rows {
            let got = match read(body.as_bytes(), 1000, RULES, 0.0) {
                Reading::Keep(_) => "keep",
                Reading::Share => "share",
                Reading::Alone => "alone",
            };
            assert_eq!(got, expected, "{body}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_digest() {
        let kept = kept(r#"{"access_token":"a","expires_in":100,"token_type":"Bearer"}"#).unwrap();
        assert!(kept.holds(&TokenDigest::of("a")));
        assert!(!kept.holds(&TokenDigest::of("b")));
        let token = jwt(&json!({}), &json!({}));
        let body = json!({"access_token": token, "expires_in": 100, "token_type": "Bearer"});
        let kept = self::kept(&body.to_string()).unwrap();
        let (signed, _) = token.rsplit_once('.').unwrap();
        for known_by in [&*token, signed] {
            assert!(kept.holds(&TokenDigest::of(known_by)), "{known_by}");
        }
    }
}
