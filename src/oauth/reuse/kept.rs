//! A token reply that may be given again: which ones may, for how long, and what the client reads.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use crate::identity::{Clock, TokenDigest, UnixSeconds};
use crate::keys::KeySet;
use crate::store::{Denylist, Names};

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

/// A moment by the clock that tokens are judged by, and by the one that nobody sets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) wall: UnixSeconds,
    pub(super) steady: Instant,
}

/// What may be done with a token reply.
pub(super) enum Reading {
    /// It may be given again.
    Keep(Arc<Kept>),
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
    /// What else it is revoked by, if it is a JWT: its claims, unverified.
    claims: Option<Claimed>,
    /// The key that it is signed with, if it is a JWT that names one.
    kid: Option<Box<str>>,
    /// Whether that key has been among the issuer's.
    key_seen: AtomicBool,
    /// When it was asked for.
    since: Moment,
    /// For how many seconds from then on it is given again.
    stretch: u64,
    /// For how many it lives.
    lifetime: u64,
}

/// What a JWT says of itself: see [`Names`].
struct Claimed {
    issuer: Box<str>,
    id: Option<Box<str>>,
    subject: Option<Box<str>>,
    issued_at: Option<UnixSeconds>,
}

/// Judges the body of a token reply that was asked for at `asked`. `chance` is from 0 to 1.
///
/// Given again are replies that hold nothing but a bearer token with a lifetime: no token bound to a
/// key or certificate (RFC 9449, RFC 8705), no refresh token, no id token.
pub(super) fn read(body: &[u8], asked: Moment, rules: Rules, chance: f64) -> Reading {
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
    let has_cnf = |claims: &Map<_, _>| claims.contains_key("cnf");
    let bound = claims.as_ref().is_some_and(has_cnf);
    if !bearer || personal || bound {
        return Reading::Alone;
    }
    let stretch = stretch(lifetime, rules, chance);
    if stretch == 0 || body.len() > MAX_KEPT {
        return Reading::Share;
    }
    Reading::Keep(Arc::new(Kept {
        token: [token, signed(token)].map(TokenDigest::of),
        claims: claims.as_ref().and_then(Claimed::of),
        kid: header.and_then(|header| Some(header.get("kid")?.as_str()?.into())),
        key_seen: AtomicBool::new(false),
        since: asked,
        stretch,
        lifetime,
        body: cut(&members),
    }))
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

// === impl Moment ===

impl Moment {
    /// The present.
    pub(super) fn now(clock: &Clock) -> Self {
        Self {
            wall: clock.now(),
            steady: Instant::now(),
        }
    }

    /// The seconds from here to `later`, by whichever clock says more: setting the one back makes
    /// nothing last, and the other one stands still while the machine sleeps. `None` if the first is
    /// before this moment altogether.
    fn until(self, later: Self) -> Option<u64> {
        let wall = u64::try_from(later.wall.checked_sub(self.wall)?).ok()?;
        let steady = later.steady.saturating_duration_since(self.steady);
        Some(wall.max(steady.as_secs()))
    }
}

// === impl Claimed ===

impl Claimed {
    /// `None` if they do not say whose they are.
    fn of(claims: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| Some(claims.get(name)?.as_str()?.into());
        Some(Self {
            issuer: text("iss")?,
            id: text("jti"),
            subject: text("sub"),
            issued_at: claims.get("iat").and_then(Value::as_i64),
        })
    }

    fn names(&self) -> Names<'_> {
        Names {
            issuer: &self.issuer,
            id: self.id.as_deref(),
            subject: self.subject.as_deref(),
            issued_at: self.issued_at,
        }
    }
}

// === impl Kept ===

impl Kept {
    /// The body for a client that asks now, if the token may still be given.
    pub(super) fn body(&self, now: Moment) -> Option<Bytes> {
        let age = self.since.until(now).filter(|age| *age < self.stretch)?;
        let [before, after] = &self.body;
        let left = self.lifetime.saturating_sub(age);
        Some(format!("{before}{left}{after}").into())
    }

    /// Whether the token is revoked, by whom ever: what is known of that comes from other gateways
    /// too. Costs next to nothing while nothing is revoked.
    pub(super) fn is_revoked(&self, denylist: &Denylist) -> bool {
        const NOBODY: Names<'_> = Names {
            issuer: "",
            id: None,
            subject: None,
            issued_at: None,
        };
        let names = self.claims.as_ref().map_or(NOBODY, Claimed::names);
        let hit = |content| denylist.holds(content, &names);
        self.token.iter().any(hit)
    }

    /// Whether the token's key was among the issuer's and is no more: nobody accepts it then. A key
    /// that the gateway has not seen yet is no reason to buy a token again and again.
    pub(super) fn is_orphan(&self, keys: Option<&KeySet>) -> bool {
        let (Some(kid), Some(keys)) = (&self.kid, keys) else {
            return false;
        };
        if keys.find(kid).is_some() {
            // Written once: every worker reads it.
            if !self.key_seen.load(Relaxed) {
                self.key_seen.store(true, Relaxed);
            }
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
    use crate::store::{Revocation, SharedStore};
    use serde_json::json;
    use std::sync::LazyLock;
    use std::time::Duration;

    const RULES: Rules = Rules {
        share: 0.8,
        min_remaining: 60,
    };

    /// A moment of clocks that nobody has set.
    fn at(seconds: u64) -> Moment {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        Moment {
            wall: seconds.try_into().unwrap(),
            steady: *START + Duration::from_secs(seconds),
        }
    }

    fn kept(body: &str) -> Option<Arc<Kept>> {
        match read(body.as_bytes(), at(1000), RULES, 0.0) {
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
        // wall and steady clock, expires_in
        let rows = [
            (999, 1000, None),
            (1000, 1000, Some(100)),
            (1001, 1001, Some(99)),
            (1039, 1039, Some(61)),
            (1040, 1040, None),
            (1100, 1100, None),
            (1 << 40, 1000, None),
            // The wall clock was set back, or the machine has slept.
            (1000, 1039, Some(61)),
            (1000, 1040, None),
            (1039, 1000, Some(61)),
            (1040, 1000, None),
        ];
        for (wall, steady, left) in rows {
            let expected = left.map(|left: i64| body.replace(":100", &format!(":{left}")));
            let now = Moment {
                wall: at(wall).wall,
                steady: at(steady).steady,
            };
            let got = kept.body(now).map(|body| body.to_vec());
            let got = got.map(|body| String::from_utf8(body).unwrap());
            assert_eq!(got, expected, "{wall} {steady}");
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
            let got = kept(body).and_then(|kept| kept.body(at(1030))).unwrap();
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
            let got = match read(body.as_bytes(), at(1000), RULES, 0.0) {
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

    #[tokio::test]
    async fn a_revoked_token_is_seen_by_whatever_it_is_revoked_by() {
        let claims = json!({"iss": "https://a/", "jti": "j", "sub": "s", "iat": 500});
        let token = jwt(&json!({"kid": "k"}), &claims);
        let (signed, _) = token.rsplit_once('.').unwrap();
        let until = 9999;
        let by_content = |text: &str| Revocation::Token {
            content: TokenDigest::of(text),
            until,
        };
        let by_id = |issuer: &str, id: &str| Revocation::Id {
            issuer: issuer.into(),
            id: id.into(),
            until,
        };
        let by_subject = |subject: &str, issued_until| Revocation::Subject {
            issuer: "https://a/".into(),
            subject: subject.into(),
            issued_until,
            until,
        };
        let opaque = "opaque-token";
        let rows = [
            (token.as_str(), by_content(signed), true),
            (token.as_str(), by_content(opaque), false),
            (token.as_str(), by_id("https://a/", "j"), true),
            (token.as_str(), by_id("https://a/", "k"), false),
            (token.as_str(), by_id("https://b/", "j"), false),
            (token.as_str(), by_subject("s", 500), true),
            (token.as_str(), by_subject("s", 499), false),
            (token.as_str(), by_subject("t", 500), false),
            (opaque, by_content(opaque), true),
            (opaque, by_content(signed), false),
            (opaque, by_id("", ""), false),
            ("two.segments", by_content("two.segments"), true),
        ];
        for (token, revocation, expected) in rows {
            let body = json!({"access_token": token, "expires_in": 100, "token_type": "Bearer"});
            let kept = kept(&body.to_string()).unwrap();
            let store = SharedStore::in_memory();
            assert!(!kept.is_revoked(store.denylist()), "{revocation:?}");
            store.revoke(revocation.clone(), 1000).await.unwrap();
            assert_eq!(
                kept.is_revoked(store.denylist()),
                expected,
                "{revocation:?}"
            );
        }
    }
}
