//! The checks that turn an unverified token into an [`Identity`] (RFC 7519 §7.2, 8725, 9068 §4).
//!
//! The keys do the cryptography; what is compared with what is decided here.

use super::binding;
use super::token::UnverifiedToken;
use crate::headers::encode_claim;
use crate::identity::{ClaimRef, Claims, Identity, Members, Scopes, UnixSeconds};
use crate::keys::{Message, VerificationKey};
use crate::rejection::{Reason, Rejection};
use crate::steps::{self, Steps};
use http::HeaderName;
use jsonwebtoken::Algorithm;
use serde_json::Value;
use std::sync::Arc;

/// Injected headers of one token together: more would break upstreams.
const MAX_HEADER_BYTES: usize = 8 << 10;

/// What an issuer's tokens must look like: `[issuer.*]`.
#[derive(Debug, Clone, PartialEq)]
pub struct IssuerRules {
    /// The configured name.
    pub name: Arc<str>,
    /// The exact `iss`.
    pub issuer: Box<str>,
    /// `aud` must name one of these; none, for opaque tokens: it is not looked at.
    pub audiences: Vec<Box<str>>,
    /// `alg` must be one of these.
    pub algorithms: Vec<Algorithm>,
    /// `typ` must be one of these [bare types](bare_type), whatever its case.
    pub token_types: Vec<Box<str>>,
    /// Seconds by which clocks may differ.
    pub leeway: i64,
    /// Longest token, in bytes.
    pub max_token_bytes: usize,
    /// Longest `exp - iat` in seconds; 0 means any.
    pub max_lifetime: i64,
    /// Which header carries which claim.
    pub headers: Vec<(HeaderName, ClaimRef)>,
}

/// Checks the header against the rules and says which algorithm to verify with.
///
/// # Errors
/// [`Reason::CriticalHeader`], [`Reason::WrongType`] or [`Reason::AlgorithmNotAllowed`].
pub fn header(
    rules: &IssuerRules,
    token: &UnverifiedToken<'_>,
    steps: &mut impl Steps,
) -> Result<Algorithm, Rejection> {
    steps.checking("header", || {
        format!(
            "typ is {}, alg is {}; token_types are {}, algorithms are {:?}; crit and b64 are not taken",
            shown(token.header.get("typ")),
            shown(token.header.get("alg")),
            steps::listed(&rules.token_types),
            rules.algorithms
        )
    });
    // No extension is implemented, so none may be critical (RFC 7515 §4.1.11, RFC 7797 §6).
    if token.header.contains("crit") || token.header.contains("b64") {
        return Err(Reason::CriticalHeader.into());
    }
    let typ = token
        .header
        .get("typ")
        .and_then(Value::as_str)
        .unwrap_or_default();
    if !rules
        .token_types
        .iter()
        .any(|accepted| accepted.eq_ignore_ascii_case(bare_type(typ)))
    {
        return Err(Rejection::noted(
            Reason::WrongType,
            "typ is none of token_types",
        ));
    }
    let name = token
        .header
        .get("alg")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let algorithm = name
        .parse()
        .ok()
        .filter(|algorithm| rules.algorithms.contains(algorithm))
        .ok_or_else(|| {
            Rejection::noted(Reason::AlgorithmNotAllowed, "alg is none of algorithms")
        })?;
    steps.passed("header", || {
        format!("typ {typ} and alg {name} are accepted, nothing is critical")
    });
    Ok(algorithm)
}

/// A media type without `application/`, which may be left out (RFC 7515 §4.1.9).
pub fn bare_type(typ: &str) -> &str {
    let prefix = "application/";
    match typ.split_at_checked(prefix.len()) {
        Some((head, rest)) if head.eq_ignore_ascii_case(prefix) => rest,
        _ => typ,
    }
}

/// Checks the signature with one key. `message` is what it covers.
///
/// # Errors
/// [`Reason::AlgorithmNotAllowed`] if the key is of another kind than `alg` says,
/// [`Reason::BadSignature`] otherwise.
pub fn signature(
    token: &UnverifiedToken<'_>,
    message: &Message<'_>,
    key: &VerificationKey,
    algorithm: Algorithm,
) -> Result<(), Rejection> {
    if !key.fits(algorithm) {
        return Err(Rejection::noted(
            Reason::AlgorithmNotAllowed,
            "alg does not fit the key that kid names",
        ));
    }
    if key.verify(algorithm, message, &token.signature) {
        Ok(())
    } else {
        Err(Reason::BadSignature.into())
    }
}

/// `exp` of a token that has none: an opaque one that the issuer vouches for anew every minute.
const NEVER: UnixSeconds = UnixSeconds::MAX;

/// Checks the claims of a token whose signature is good.
///
/// # Errors
/// The first claim that does not hold.
pub fn claims(
    rules: &IssuerRules,
    claims: Members,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Identity, Rejection> {
    if claims.get("iss").and_then(Value::as_str) != Some(&*rules.issuer) {
        return Err(Reason::WrongIssuer.into());
    }
    steps.checking("audience", || {
        let audiences = steps::listed(&rules.audiences);
        let aud = shown(claims.get("aud"));
        format!("aud is {aud}; audiences are {audiences}")
    });
    let named = audience(rules, &claims)?;
    steps.passed("audience", || format!("aud names `{named}`"));
    steps.checking("times", || told_times(rules, &claims, now));
    let expires_at = number(&claims, "exp")?.ok_or_else(|| missing("exp is absent"))?;
    identity(rules, claims, expires_at, now, steps)
}

/// Checks the members of an answer that says that a token is active (RFC 7662 §2.2). All of them
/// are optional; what is there has to fit.
///
/// # Errors
/// The first member that does not hold.
pub fn introspected(
    rules: &IssuerRules,
    answer: Members,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Identity, Rejection> {
    let other = |name, fits: &dyn Fn(&str) -> bool| {
        let value = answer.get(name);
        value.is_some_and(|value| !value.as_str().is_some_and(fits))
    };
    if other("iss", &|iss| *iss == *rules.issuer) {
        let note = "the answer's iss is not the issuer's url";
        return Err(Rejection::noted(Reason::WrongIssuer, note));
    }
    if other("token_type", &|kind| kind.eq_ignore_ascii_case("bearer")) {
        let note = "the answer's token_type is not Bearer";
        return Err(Rejection::noted(Reason::WrongType, note));
    }
    // Servers answer `active` for refresh tokens too, and some for ID tokens: those are no bearers.
    if other("token_use", &is_access_token) || other("typ", &|typ| !is_other_token(typ)) {
        let note = "the answer's token_use or typ is not an access token's";
        return Err(Rejection::noted(Reason::WrongType, note));
    }
    if !rules.audiences.is_empty() {
        let named = audience(rules, &answer)?;
        steps.passed("audience", || format!("aud names `{named}`"));
    }
    let expires_at = number(&answer, "exp")?;
    if expires_at.is_none() && rules.max_lifetime != 0 {
        return Err(missing("max_lifetime is set and exp is absent"));
    }
    identity(rules, answer, expires_at.unwrap_or(NEVER), now, steps)
}

/// Whether `token_use` names an access token.
fn is_access_token(token_use: &str) -> bool {
    ["access_token", "access"]
        .iter()
        .any(|own| own.eq_ignore_ascii_case(token_use))
}

/// Whether `typ` names a refresh or an ID token, in any spelling: `Refresh`, `id_token`, `rt+jwt`.
fn is_other_token(typ: &str) -> bool {
    let letters = typ.chars().filter(char::is_ascii_alphabetic);
    let plain: String = letters.map(|c| c.to_ascii_lowercase()).collect();
    let plain = plain.trim_start_matches("application");
    let plain = plain.trim_end_matches("jwt").trim_end_matches("token");
    plain.contains("refresh") || matches!(plain, "rt" | "offline" | "id")
}

/// Checks what all tokens have in common, and makes the identity.
fn identity(
    rules: &IssuerRules,
    claims: Members,
    expires_at: UnixSeconds,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Identity, Rejection> {
    let not_before = number(&claims, "nbf")?;
    let issued_at = number(&claims, "iat")?;
    times(expires_at, not_before, rules.leeway, now)?;
    if issued_at.is_some_and(|at| at > now.saturating_add(rules.leeway)) {
        return Err(Rejection::noted(
            Reason::NotYetValid,
            "iat lies in the future",
        ));
    }
    steps.passed("times", || match expires_at {
        NEVER => "valid as long as the issuer says so".to_owned(),
        at => format!("expires {}", steps::moment(at, now)),
    });
    steps.checking("lifetime", || {
        let longest = steps::span(rules.max_lifetime);
        let own = issued_at.map_or_else(
            || "iat is absent".to_owned(),
            |at| {
                format!(
                    "exp - iat is {}",
                    steps::span(expires_at.saturating_sub(at))
                )
            },
        );
        format!("{own}; max_lifetime is {longest}")
    });
    lifetime(rules, expires_at, issued_at)?;
    steps.checking("names", || "sub and jti are strings".to_owned());
    // Who it is about and which token it is must not mean different things to different readers.
    for name in ["sub", "jti"] {
        if claims.get(name).is_some_and(|value| !value.is_string()) {
            return Err(missing("sub or jti is no string (RFC 7519 §4.1.2, §4.1.7)"));
        }
    }
    let bound_to = binding::of(&claims, steps)?;
    let claims = Claims::verified(claims);
    steps.checking("claims", || "as headers, up to 8 KiB".to_owned());
    let headers = encode_headers(rules, &claims)?;
    steps.passed("claims", || {
        let names = steps::listed(headers.iter().map(|(name, _)| name));
        format!("in headers for the upstream: {names}")
    });
    Ok(Identity {
        issuer: Arc::clone(&rules.name),
        scopes: Scopes::of(&claims),
        expires_at,
        not_before,
        bound_to,
        headers,
        claims,
    })
}

/// Checks the times, which have to hold anew on every request.
///
/// # Errors
/// [`Reason::Expired`] or [`Reason::NotYetValid`].
pub fn times(
    expires_at: UnixSeconds,
    not_before: Option<UnixSeconds>,
    leeway: i64,
    now: UnixSeconds,
) -> Result<(), Rejection> {
    if now >= expires_at.saturating_add(leeway) {
        return Err(Reason::Expired.into());
    }
    if not_before.is_some_and(|at| at > now.saturating_add(leeway)) {
        return Err(Rejection::noted(
            Reason::NotYetValid,
            "nbf lies in the future",
        ));
    }
    Ok(())
}

/// The one of `audiences` that `aud` names.
fn audience<'r>(rules: &'r IssuerRules, claims: &Members) -> Result<&'r str, Rejection> {
    let accepted = |name: &str| rules.audiences.iter().find(|own| ***own == *name);
    let named = match claims.get("aud") {
        Some(Value::String(name)) => accepted(name),
        Some(Value::Array(names)) if names.iter().all(Value::is_string) => {
            names.iter().filter_map(Value::as_str).find_map(accepted)
        }
        _ => None,
    };
    named
        .map(|name| &**name)
        .ok_or_else(|| Rejection::noted(Reason::WrongAudience, "aud names none of audiences"))
}

/// For who listens: a member as it came.
fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "absent".to_owned(), Value::to_string)
}

/// For who listens: the times of a token in words.
fn told_times(rules: &IssuerRules, claims: &Members, now: UnixSeconds) -> String {
    let told = ["iat", "nbf", "exp"].map(|name| match claims.get(name) {
        Some(value) => match value.as_i64() {
            Some(at) => format!("{name} is {}", steps::moment(at, now)),
            None => format!("{name} is {value}"),
        },
        None => format!("{name} is absent"),
    });
    format!(
        "{}; leeway is {}",
        told.join("; "),
        steps::span(rules.leeway)
    )
}

fn lifetime(
    rules: &IssuerRules,
    expires_at: UnixSeconds,
    issued_at: Option<UnixSeconds>,
) -> Result<(), Rejection> {
    if rules.max_lifetime == 0 {
        return Ok(());
    }
    let issued_at = issued_at.ok_or_else(|| missing("max_lifetime is set and iat is absent"))?;
    if expires_at.saturating_sub(issued_at) > rules.max_lifetime {
        return Err(Reason::TooLongLived.into());
    }
    Ok(())
}

/// A `NumericDate`. Whole seconds only: what a float means differs between readers.
fn number(claims: &Members, name: &str) -> Result<Option<UnixSeconds>, Rejection> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => match value.as_i64() {
            Some(seconds) if seconds >= 0 => Ok(Some(seconds)),
            _ => Err(missing("exp, nbf or iat is no whole number of seconds")),
        },
    }
}

fn missing(note: &'static str) -> Rejection {
    Rejection::noted(Reason::MissingClaim, note)
}

fn encode_headers(
    rules: &IssuerRules,
    claims: &Claims,
) -> Result<Box<[(HeaderName, http::HeaderValue)]>, Rejection> {
    let headers: Box<[_]> = rules
        .headers
        .iter()
        .filter_map(|(name, claim)| Some((name.clone(), encode_claim(claim.of(claims)?)?)))
        .collect();
    let bytes: usize = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if bytes > MAX_HEADER_BYTES {
        return Err(missing(
            "the claims that are mapped to headers are over 8 KiB",
        ));
    }
    Ok(headers)
}
