//! `POST /-/revoke`: refuses a token, or all tokens of a subject, from the next request on.

use crate::authn::token::{self, UnverifiedToken};
use crate::authn::{Issuer, Issuers};
use crate::identity::UnixSeconds;
use crate::store::{Reach, Revocation};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How long a revocation is kept when nothing says when its last token expires.
const KEPT: UnixSeconds = 30 * 24 * 3600;

/// What to do, for those who have got it wrong.
const USAGE: &str = "send {\"token\": \"…\"}, or {\"issuer\": \"NAME\", \"jti\": \"…\"}, \
or {\"issuer\": \"NAME\", \"sub\": \"…\"}";

/// What is asked for. Exactly one of `token`, `jti` and `sub`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    token: Option<String>,
    /// The name of `[issuer.NAME]`; goes with `jti` and `sub`.
    issuer: Option<String>,
    jti: Option<String>,
    sub: Option<String>,
    /// With `sub`: tokens issued up to then, in seconds since 1970; now if absent.
    issued_until: Option<UnixSeconds>,
    /// Seconds for which to remember it, where the token does not say when it expires.
    keep: Option<u32>,
}

/// What was done.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Done {
    /// `token`, `jti` or `sub`.
    pub revoked: &'static str,
    /// Until when it is remembered, in seconds since 1970.
    pub until: UnixSeconds,
    /// If there is a `[store]`: whether the other gateways have it within a second. If not, they do once
    /// the store is back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<bool>,
}

// === impl Order ===

impl Order {
    /// Reads a body.
    ///
    /// # Errors
    /// A sentence that says where it is wrong. It holds nothing of the body, which is a secret.
    pub fn parse(body: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("the body is not as it should be at line {line}, column {column}: {USAGE}")
        })
    }

    /// What that means.
    ///
    /// # Errors
    /// A sentence that says what is missing or too much.
    pub fn revocation(
        self,
        issuers: &Issuers,
        now: UnixSeconds,
    ) -> Result<(Revocation, Done), String> {
        let kept = now.saturating_add(self.keep.map_or(KEPT, UnixSeconds::from));
        let issuer = |name: Option<String>| known(issuers, name);
        match (self.token, self.jti, self.sub) {
            (Some(token), None, None) if self.issuer.is_none() && self.issued_until.is_none() => {
                let token = bare(&token)?;
                let until = expiry(token, issuers).unwrap_or(kept);
                let content = token::content(token);
                Ok((Revocation::Token { content, until }, done("token", until)))
            }
            (None, Some(id), None) if self.issued_until.is_none() => {
                let revocation = Revocation::Id {
                    issuer: issuer(self.issuer)?,
                    id: id.into(),
                    until: kept,
                };
                Ok((revocation, done("jti", kept)))
            }
            (None, None, Some(subject)) => {
                let revocation = Revocation::Subject {
                    issuer: issuer(self.issuer)?,
                    subject: subject.into(),
                    issued_until: self.issued_until.unwrap_or(now),
                    until: kept,
                };
                Ok((revocation, done("sub", kept)))
            }
            _ => Err(USAGE.to_owned()),
        }
    }
}

fn done(revoked: &'static str, until: UnixSeconds) -> Done {
    Done {
        revoked,
        until,
        shared: None,
    }
}

// === impl Done ===

impl Done {
    /// What was done, with how far it reaches.
    pub fn reaching(self, reach: Reach) -> Self {
        let shared = match reach {
            Reach::Here => None,
            Reach::All => Some(true),
            Reach::Later => Some(false),
        };
        Self { shared, ..self }
    }
}

/// The token in what somebody has copied out of a header or a file.
fn bare(text: &str) -> Result<&str, String> {
    let text = text.trim();
    let token = match text.split_at_checked("bearer ".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer ") => rest.trim_start(),
        _ => text,
    };
    // Anything else would be revoked in vain: no request gets in with it.
    if token.eq_ignore_ascii_case("bearer") || !token::is_b64token(token) {
        return Err(
            "`token` is no token: send its text alone, without quotes or blanks".to_owned(),
        );
    }
    Ok(token)
}

/// The `iss` of the issuer of that name: tables may be renamed, what is revoked stays so.
fn known(issuers: &Issuers, name: Option<String>) -> Result<Box<str>, String> {
    let named = |issuer: &&Arc<Issuer>| name.as_deref() == Some(&*issuer.rules.name);
    issuers
        .iter()
        .find(named)
        .map(|issuer| issuer.rules.issuer.clone())
        .ok_or_else(|| {
            let names: Vec<&str> = issuers.iter().map(|issuer| &*issuer.rules.name).collect();
            format!("`issuer` is one of: {}", names.join(", "))
        })
}

/// When nobody would accept the token any more. What it says of that itself is good enough for
/// forgetting it: without a good signature it is refused anyway.
fn expiry(token: &str, issuers: &Issuers) -> Option<UnixSeconds> {
    let leeway = issuers.iter().map(|issuer| issuer.rules.leeway).max()?;
    let expires_at = UnverifiedToken::parse(token).ok()?.expires_at()?;
    Some(expires_at.saturating_add(leeway).saturating_add(1))
}
