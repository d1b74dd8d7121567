//! Tokens that are refused although everything about them is right.
//!
//! Read on every request, written hardly ever: the maps are read without a lock, and while nothing
//! is revoked a request pays for one load.

use super::entry::{Entry, What, name};
use crate::identity::{DigestHasher, Identity, TokenDigest, UnixSeconds};
use papaya::HashMap;
use serde_json::Value;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Revocations that are kept at one time, here and in Redis.
pub(super) const MAX_ENTRIES: usize = 1 << 20;

/// How long an entry is kept beyond its end, in seconds: the clock may be set back, and the leeway
/// may be more than it was when the order came.
pub(super) const KEPT_LONGER: UnixSeconds = 3600;

/// There is a token that is revoked by its content.
const TOKENS: u8 = 1;
/// There is one that is revoked by its `jti`.
const IDS: u8 = 2;
/// There is a subject whose tokens are revoked.
const SUBJECTS: u8 = 4;
/// Others may have revoked what is not known here, and that is not to be risked.
const DOUBT: u8 = 8;

/// What is revoked, and until when that has to be remembered: the last `exp` of what it hits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revocation {
    /// One token, by its content.
    Token {
        /// The digest of what a JWT's signature covers, or of the whole text of another token.
        content: TokenDigest,
        /// Its `exp`.
        until: UnixSeconds,
    },
    /// One token, by its `jti` (RFC 7519 §4.1.7).
    Id {
        /// The `iss` of the issuer: only there is the id unique.
        issuer: Box<str>,
        /// The `jti`.
        id: Box<str>,
        /// Its `exp`.
        until: UnixSeconds,
    },
    /// All tokens of a subject that were issued up to some moment.
    Subject {
        /// The `iss` of the issuer.
        issuer: Box<str>,
        /// The `sub`.
        subject: Box<str>,
        /// Tokens with this `iat` or an earlier one are refused, and those without `iat`.
        issued_until: UnixSeconds,
        /// When the last of them has expired.
        until: UnixSeconds,
    },
}

/// What a token says of itself that it can be revoked by, verified or not.
#[derive(Debug, Clone, Copy)]
pub struct Names<'t> {
    /// The `iss` of whose token it is.
    pub issuer: &'t str,
    /// Its `jti`.
    pub id: Option<&'t str>,
    /// Its `sub`.
    pub subject: Option<&'t str>,
    /// Its `iat`.
    pub issued_at: Option<UnixSeconds>,
}

/// There are more revocations than are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

/// Whether a token is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It is not.
    Clear,
    /// It is.
    Revoked,
    /// It cannot be told: other gateways may have revoked it, and `on_failure` is `"closed"`.
    Unknown,
}

/// All revocations that have not run out.
pub struct Denylist {
    /// Entries at most.
    limit: usize,
    tokens: Map<UnixSeconds>,
    ids: Map<UnixSeconds>,
    subjects: Map<Cutoff>,
    /// Which kinds of entries there are, and [`DOUBT`]: what all but a few requests look at.
    flags: AtomicU8,
    /// Held by writers alone.
    writing: Mutex<()>,
}

/// Entries by digest: that of a token, or of a name together with its issuer.
type Map<T> = HashMap<TokenDigest, T, DigestHasher>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cutoff {
    issued_until: UnixSeconds,
    until: UnixSeconds,
}

// === impl Full ===

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{MAX_ENTRIES} revocations are in force, and none is dropped to make room for another"
        )
    }
}

impl std::error::Error for Full {}

// === impl Cutoff ===

impl Cutoff {
    fn later(self, other: Self) -> Self {
        Self {
            issued_until: self.issued_until.max(other.issued_until),
            until: self.until.max(other.until),
        }
    }
}

// === impl Denylist ===

impl Default for Denylist {
    fn default() -> Self {
        Self::with_limit(MAX_ENTRIES)
    }
}

impl fmt::Debug for Denylist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Denylist")
            .field("entries", &self.len())
            .finish_non_exhaustive()
    }
}

impl Denylist {
    fn with_limit(limit: usize) -> Self {
        Self {
            limit,
            tokens: HashMap::default(),
            ids: HashMap::default(),
            subjects: HashMap::default(),
            flags: AtomicU8::new(0),
            writing: Mutex::new(()),
        }
    }

    /// Whether a token is revoked: this very one, its id, or all of its subject's up to its `iat`.
    /// `content` is as in [`Revocation::Token`], `issuer` the `iss` of whose token it is.
    pub fn judge(&self, content: &TokenDigest, issuer: &str, identity: &Identity) -> Word {
        let flags = self.flags.load(Ordering::Acquire);
        if flags == 0 {
            return Word::Clear;
        }
        let names = Names {
            issuer,
            id: identity.claims.get("jti").and_then(Value::as_str),
            subject: identity.subject(),
            issued_at: identity.claims.get("iat").and_then(Value::as_i64),
        };
        match self.hits(flags, content, &names) {
            true => Word::Revoked,
            false if flags & DOUBT != 0 => Word::Unknown,
            false => Word::Clear,
        }
    }

    /// Whether a token is known to be revoked that need not be verified: to go on keeping it, not to
    /// accept it.
    pub fn holds(&self, content: &TokenDigest, names: &Names<'_>) -> bool {
        let flags = self.flags.load(Ordering::Acquire);
        flags != 0 && self.hits(flags, content, names)
    }

    fn hits(&self, flags: u8, content: &TokenDigest, names: &Names<'_>) -> bool {
        (flags & TOKENS != 0 && self.holds_token(content))
            || (flags & IDS != 0 && self.holds_id(names))
            || (flags & SUBJECTS != 0 && self.holds_subject(names))
    }

    /// Whether this very token is revoked; `content` is as in [`Revocation::Token`].
    pub fn holds_token(&self, content: &TokenDigest) -> bool {
        self.tokens.pin().contains_key(content)
    }

    fn holds_id(&self, names: &Names<'_>) -> bool {
        let of = |id| self.ids.pin().contains_key(&name(names.issuer, id));
        names.id.is_some_and(of)
    }

    fn holds_subject(&self, names: &Names<'_>) -> bool {
        let Some(subject) = names.subject else {
            return false;
        };
        let subjects = self.subjects.pin();
        let cutoff = subjects.get(&name(names.issuer, subject));
        cutoff.is_some_and(|cutoff| names.issued_at.is_none_or(|at| at <= cutoff.issued_until))
    }

    /// Adds an entry; it holds as soon as this returns. Whether it says anything new: a later word
    /// never takes back an earlier one. One that has run out by `now` is left aside.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn add(&self, entry: &Entry, now: UnixSeconds) -> Result<bool, Full> {
        if entry.until <= last_end(now) {
            return Ok(false);
        }
        let _writing = self.writing();
        if self.len() >= self.limit && !self.knows(entry) {
            self.drop_expired(now);
            if self.len() >= self.limit {
                return Err(Full);
            }
        }
        let (digest, until) = (entry.digest, entry.until);
        let (flag, new) = match entry.what {
            What::Token => (TOKENS, later(&self.tokens, digest, until, i64::max)),
            What::Id => (IDS, later(&self.ids, digest, until, i64::max)),
            What::Subject { issued_until } => {
                let cutoff = Cutoff {
                    issued_until,
                    until,
                };
                let new = later(&self.subjects, digest, cutoff, Cutoff::later);
                (SUBJECTS, new)
            }
        };
        self.flags.fetch_or(flag, Ordering::AcqRel);
        Ok(new)
    }

    fn knows(&self, entry: &Entry) -> bool {
        match entry.what {
            What::Token => self.tokens.pin().contains_key(&entry.digest),
            What::Id => self.ids.pin().contains_key(&entry.digest),
            What::Subject { .. } => self.subjects.pin().contains_key(&entry.digest),
        }
    }

    /// Everything that is in force.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let entry = |what, digest: &TokenDigest, until| Entry {
            what,
            digest: *digest,
            until,
        };
        let (tokens, ids) = (self.tokens.pin(), self.ids.pin());
        let tokens = tokens
            .iter()
            .map(|(of, until)| entry(What::Token, of, *until));
        let ids = ids.iter().map(|(of, until)| entry(What::Id, of, *until));
        let subjects = self.subjects.pin();
        let subjects = subjects.iter().map(|(of, cutoff)| {
            let issued_until = cutoff.issued_until;
            entry(What::Subject { issued_until }, of, cutoff.until)
        });
        tokens.chain(ids).chain(subjects).collect()
    }

    /// Whether other gateways may have revoked what is not known here, and tokens are not to be let
    /// through for that.
    pub(super) fn doubt(&self, doubt: bool) {
        match doubt {
            true => self.flags.fetch_or(DOUBT, Ordering::AcqRel),
            false => self.flags.fetch_and(!DOUBT, Ordering::AcqRel),
        };
    }

    /// Forgets what has run out: tokens that nobody would accept any more.
    pub fn sweep(&self, now: UnixSeconds) {
        let _writing = self.writing();
        self.drop_expired(now);
    }

    /// How many revocations are in force.
    pub fn len(&self) -> usize {
        self.tokens.len() + self.ids.len() + self.subjects.len()
    }

    /// Whether nothing is revoked.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only while [`writing`](Self::writing).
    fn drop_expired(&self, now: UnixSeconds) {
        let end = last_end(now);
        self.tokens.pin().retain(|_, until| *until > end);
        self.ids.pin().retain(|_, until| *until > end);
        self.subjects.pin().retain(|_, cutoff| cutoff.until > end);
        for (flag, empty) in [
            (TOKENS, self.tokens.is_empty()),
            (IDS, self.ids.is_empty()),
            (SUBJECTS, self.subjects.is_empty()),
        ] {
            if empty {
                self.flags.fetch_and(!flag, Ordering::AcqRel);
            }
        }
    }
}

/// What ended then is forgotten now.
fn last_end(now: UnixSeconds) -> UnixSeconds {
    now.saturating_sub(KEPT_LONGER)
}

/// Puts an entry in, joined with what is there already. Whether that changes anything. Only one writer
/// at a time.
fn later<T>(map: &Map<T>, key: TokenDigest, value: T, join: impl Fn(T, T) -> T) -> bool
where
    T: Copy + PartialEq + Send + Sync,
{
    let map = map.pin();
    let old = map.get(&key).copied();
    let value = old.map_or(value, |old| join(old, value));
    if old == Some(value) {
        return false;
    }
    map.insert(key, value);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Claims, Members, Scopes};
    use serde_json::json;

    fn identity(claims: Value) -> Identity {
        let Value::Object(map) = claims else {
            panic!("claims are an object")
        };
        let members = map.into_iter().map(|(name, value)| (name.into(), value));
        let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
        Identity {
            issuer: "name".into(),
            scopes: Scopes::of(&claims),
            claims,
            expires_at: 1000,
            not_before: None,
            bound_to: None,
            headers: Box::default(),
        }
    }

    fn holds(denylist: &Denylist, content: &TokenDigest, issuer: &str, caller: &Identity) -> bool {
        let word = denylist.judge(content, issuer, caller);
        denylist.doubt(true);
        let in_doubt = denylist.judge(content, issuer, caller);
        denylist.doubt(false);
        match word {
            Word::Clear => assert_eq!(in_doubt, Word::Unknown),
            // What is known holds in any case.
            Word::Revoked => assert_eq!(in_doubt, Word::Revoked),
            Word::Unknown => panic!("there is no doubt"),
        }
        assert_eq!(denylist.judge(content, issuer, caller), word);
        word == Word::Revoked
    }

    fn subject(issued_until: UnixSeconds, until: UnixSeconds) -> Revocation {
        Revocation::Subject {
            issuer: "a".into(),
            subject: "u".into(),
            issued_until,
            until,
        }
    }

    #[test]
    fn hits_what_is_named_and_nothing_else() {
        let (one, other) = (TokenDigest::of("one"), TokenDigest::of("other"));
        let token = || Revocation::Token {
            content: one,
            until: 100,
        };
        let id = || Revocation::Id {
            issuer: "a".into(),
            id: "x".into(),
            until: 100,
        };
        let all = json!({"jti": "x", "sub": "u", "iat": 50});
        for (revocation, digest, issuer, claims, hit) in [
            (token(), one, "a", json!({}), true),
            (token(), one, "b", json!({}), true),
            (token(), other, "a", all.clone(), false),
            (id(), other, "a", all.clone(), true),
            (id(), other, "b", all.clone(), false),
            (id(), other, "a", json!({"jti": "y"}), false),
            (id(), other, "a", json!({"jti": ["x"]}), false),
            (id(), other, "a", json!({"sub": "x"}), false),
            (subject(50, 100), other, "a", all.clone(), true),
            (subject(49, 100), other, "a", all.clone(), false),
            (subject(50, 100), other, "b", all.clone(), false),
            (subject(50, 100), other, "a", json!({"sub": "u"}), true),
            (
                subject(50, 100),
                other,
                "a",
                json!({"sub": "v", "iat": 1}),
                false,
            ),
            (subject(50, 100), other, "a", json!({"iat": 1}), false),
        ] {
            let denylist = Denylist::default();
            let identity = identity(claims);
            assert!(
                !holds(&denylist, &digest, issuer, &identity),
                "before {revocation:?}"
            );
            denylist.add(&Entry::of(&revocation), 0).expect("room");
            let held = holds(&denylist, &digest, issuer, &identity);
            assert_eq!(
                held, hit,
                "{revocation:?} {digest:?} {issuer} {:?}",
                identity.claims
            );
        }
    }

    #[test]
    fn a_later_word_takes_nothing_back() {
        let digest = TokenDigest::of("x");
        let token = |until| Revocation::Token {
            content: digest,
            until,
        };
        let id = |until| Revocation::Id {
            issuer: "a".into(),
            id: "x".into(),
            until,
        };
        let caller = identity(json!({"sub": "u", "iat": 50, "jti": "x"}));
        for (long, short) in [
            (subject(50, 200), subject(40, 100)),
            (token(200), token(100)),
            (id(200), id(100)),
        ] {
            let denylist = Denylist::default();
            denylist.add(&Entry::of(&long), 0).expect("room");
            denylist.add(&Entry::of(&short), 0).expect("room");
            denylist.sweep(199 + KEPT_LONGER);
            assert!(holds(&denylist, &digest, "a", &caller), "{long:?}");
            denylist.sweep(200 + KEPT_LONGER);
            assert!(denylist.is_empty(), "{long:?}");
        }
    }

    #[test]
    fn forgets_what_has_run_out_and_nothing_sooner() {
        let denylist = Denylist::default();
        let digest = TokenDigest::of("x");
        let caller = identity(json!({}));
        let revocation = Revocation::Token {
            content: digest,
            until: 100,
        };
        denylist.add(&Entry::of(&revocation), 0).expect("room");
        denylist.sweep(99 + KEPT_LONGER);
        assert!(holds(&denylist, &digest, "a", &caller));
        denylist.sweep(100 + KEPT_LONGER);
        assert!(!holds(&denylist, &digest, "a", &caller));
        assert!(denylist.is_empty());
    }

    #[test]
    fn keeps_everything_and_says_so_when_it_is_full() {
        let denylist = Denylist::with_limit(3);
        let entry = |n: usize, until| {
            let content = TokenDigest::of(&n.to_string());
            Entry::of(&Revocation::Token { content, until })
        };
        for n in 0..3 {
            denylist.add(&entry(n, 100), 0).expect("room");
        }
        assert_eq!(denylist.add(&entry(3, 100), 99 + KEPT_LONGER), Err(Full));
        assert!(holds(
            &denylist,
            &TokenDigest::of("0"),
            "a",
            &identity(json!({}))
        ));
        // What is known already takes no more room.
        assert_eq!(denylist.add(&entry(0, 100), 0), Ok(false));
        assert_eq!(denylist.add(&entry(0, 150), 0), Ok(true));
        assert_eq!(denylist.add(&entry(0, 100), 0), Ok(false));
        assert_eq!(denylist.add(&entry(3, 200), 150 + KEPT_LONGER), Ok(true));
        // What has run out is not taken in.
        assert_eq!(denylist.add(&entry(4, 100), 100 + KEPT_LONGER), Ok(false));
        assert_eq!(denylist.len(), 1);
    }

    #[test]
    fn tells_all_that_another_needs_to_know_the_same() {
        let (one, other) = (Denylist::default(), Denylist::default());
        let id = Revocation::Id {
            issuer: "a".into(),
            id: "x".into(),
            until: 70,
        };
        let token = Revocation::Token {
            content: TokenDigest::of("x"),
            until: 80,
        };
        for revocation in [subject(50, 100), id, token] {
            one.add(&Entry::of(&revocation), 0).expect("room");
        }
        for entry in one.entries() {
            assert_eq!(other.add(&entry, 0), Ok(true));
            assert_eq!(other.add(&entry, 0), Ok(false));
        }
        let sorted = |list: &Denylist| {
            let mut entries = list.entries();
            entries.sort_by_key(|entry| entry.until);
            entries
        };
        assert_eq!(sorted(&one), sorted(&other));
        assert_eq!(other.len(), 3);
    }
}
