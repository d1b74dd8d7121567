//! A revocation as it is kept and shared: digests and times. Of a token, an id or a subject nobody
//! who sees it learns anything that he does not know already.

use super::Revocation;
use crate::identity::{TokenDigest, UnixSeconds};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Names that are hashed without an allocation: nearly all.
const USUAL: usize = 512;

/// The script in Redis compares numbers as doubles, which tell whole ones apart up to here.
const LARGEST: UnixSeconds = 1 << 53;

/// One revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub what: What,
    /// Of the token's content, or of the [`name`].
    pub digest: TokenDigest,
    /// When it hits nothing any more.
    pub until: UnixSeconds,
}

/// What is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// One token, by its content.
    Token,
    /// One token, by its `jti`.
    Id,
    /// The tokens of a subject.
    Subject {
        /// Those that were issued up to then.
        issued_until: UnixSeconds,
    },
}

/// An entry as the script in Redis takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written {
    /// What it is known by.
    pub member: String,
    /// Its end.
    pub until: UnixSeconds,
    /// Of a subject: up to when its tokens were issued.
    pub issued_until: Option<UnixSeconds>,
}

/// The digest of a name that means something only together with its issuer. Lengths count: `ab`, `c`
/// is not `a`, `bc`.
pub(super) fn name(issuer: &str, name: &str) -> TokenDigest {
    let (issuer_length, name_length) = (length(issuer), length(name));
    let parts = [
        &issuer_length,
        issuer.as_bytes(),
        &name_length,
        name.as_bytes(),
    ];
    let mut usual = [0; USUAL];
    let mut rest = &mut usual[..];
    for part in parts {
        let Some((place, behind)) = rest.split_at_mut_checked(part.len()) else {
            return hashed(&parts.concat());
        };
        place.copy_from_slice(part);
        rest = behind;
    }
    let unused = rest.len();
    hashed(usual.get(..USUAL - unused).unwrap_or_default())
}

fn length(text: &str) -> [u8; 8] {
    (text.len() as u64).to_be_bytes()
}

fn hashed(bytes: &[u8]) -> TokenDigest {
    let mut own = [0; 32];
    own.copy_from_slice(digest(&SHA256, bytes).as_ref());
    own.into()
}

// === impl Entry ===

impl Entry {
    /// What an order comes to.
    pub fn of(revocation: &Revocation) -> Self {
        match revocation {
            Revocation::Token { content, until } => Self {
                what: What::Token,
                digest: *content,
                until: *until,
            },
            Revocation::Id { issuer, id, until } => Self {
                what: What::Id,
                digest: name(issuer, id),
                until: *until,
            },
            Revocation::Subject {
                issuer,
                subject,
                issued_until,
                until,
            } => Self {
                what: What::Subject {
                    issued_until: *issued_until,
                },
                digest: name(issuer, subject),
                until: *until,
            },
        }
    }

    /// As Redis gets it.
    pub fn write(&self) -> Written {
        let (kind, issued_until) = match self.what {
            What::Token => ('t', None),
            What::Id => ('j', None),
            What::Subject { issued_until } => ('s', Some(bounded(issued_until))),
        };
        let mut member = String::with_capacity(44);
        member.push(kind);
        URL_SAFE_NO_PAD.encode_string(self.digest, &mut member);
        Written {
            member,
            until: bounded(self.until),
            issued_until,
        }
    }

    /// Reads what Redis has: the member, and `UNTIL:ISSUED_UNTIL`, which is empty behind the colon if
    /// it is no subject. `None` if nobody of ours has written that.
    pub fn read(member: &[u8], value: &[u8]) -> Option<Self> {
        let (kind, encoded) = member.split_first()?;
        let digest = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        let digest: [u8; 32] = digest.try_into().ok()?;
        let (until, issued_until) = std::str::from_utf8(value).ok()?.split_once(':')?;
        let what = match (kind, issued_until) {
            (b't', "") => What::Token,
            (b'j', "") => What::Id,
            (b's', issued_until) => What::Subject {
                issued_until: issued_until.parse().ok()?,
            },
            _ => return None,
        };
        Some(Self {
            what,
            digest: digest.into(),
            until: until.parse().ok()?,
        })
    }
}

fn bounded(time: UnixSeconds) -> UnixSeconds {
    time.clamp(-LARGEST, LARGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries() -> [Entry; 4] {
        let digest = name("a", "b");
        let entry = |what, until| Entry {
            what,
            digest,
            until,
        };
        let subject = |issued_until| What::Subject { issued_until };
        [
            entry(What::Token, 1),
            entry(What::Id, -5),
            entry(subject(0), LARGEST),
            entry(subject(-7), 1_900_000_000),
        ]
    }

    fn value(written: &Written) -> String {
        let issued_until = written.issued_until.map(|at| at.to_string());
        format!("{}:{}", written.until, issued_until.unwrap_or_default())
    }

    #[test]
    fn what_is_written_is_read_again() {
        for entry in entries() {
            let written = entry.write();
            assert_eq!(written.member.len(), 44);
            let read = Entry::read(written.member.as_bytes(), value(&written).as_bytes());
            assert_eq!(read, Some(entry));
        }
        let endless = Entry {
            until: UnixSeconds::MAX,
            ..entries()[0]
        };
        assert_eq!(endless.write().until, LARGEST);
    }

    #[test]
    fn what_is_no_entry_is_not_read() {
        let member = entries()[0].write().member;
        let subject = entries()[2].write().member;
        let id = entries()[1].write().member;
        let other = format!("x{}", &member[1..]);
        let longer = format!("{member}AAAA");
        let padded = format!("{member}=");
        for (member, value) in [
            (&*member, ""),
            (&*member, "1"),
            (&*member, ":"),
            (&*member, "x:"),
            (&*member, "1.5:"),
            (&*member, "1:2"),
            (&*member, "99999999999999999999:"),
            (&*member, "1:\u{fffd}"),
            (&*id, "1:1"),
            (&*subject, "1:"),
            (&*subject, "1:x"),
            (&*other, "1:"),
            (&*longer, "1:"),
            (&*padded, "1:"),
            ("", "1:"),
            ("t", "1:"),
            ("t\u{e4}", "1:"),
            (&member[..43], "1:"),
            (&member[1..], "1:"),
        ] {
            let read = Entry::read(member.as_bytes(), value.as_bytes());
            assert_eq!(read, None, "{member} {value}");
        }
        assert_eq!(Entry::read(member.as_bytes(), b"\xff1:"), None);
    }

    #[test]
    fn names_are_told_apart_whatever_their_length() {
        let long = "x".repeat(USUAL);
        let fits = "x".repeat(USUAL - 16);
        let names = [
            name("ab", "c"),
            name("a", "bc"),
            name("abc", ""),
            name("", "abc"),
            name("", ""),
            name("", &long),
            name(&long, ""),
            name("", &fits),
            name(&fits, ""),
        ];
        for (at, one) in names.iter().enumerate() {
            assert!(!names[at + 1..].contains(one), "{at}");
        }
        // SHA-256 of 00 00 00 00 00 00 00 01 `a` and the same with `b`: all gateways have to agree.
        let shown = entries()[0].write().member;
        assert_eq!(shown, "tPJ1ZEEW8iHb50Dmbv7BcakEglukG9zJ4-YQGzV3Kht8");
    }

    #[test]
    fn nothing_of_a_name_is_in_what_is_written() {
        let entry = Entry::of(&Revocation::Subject {
            issuer: "https://issuer.example/".into(),
            subject: "somebody".into(),
            issued_until: 1,
            until: 2,
        });
        let shown = format!("{:?} {entry:?}", entry.write());
        assert!(!shown.contains("somebody") && !shown.contains("issuer.example"));
    }
}
