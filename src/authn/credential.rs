//! Finds the bearer token of a request: one place only (RFC 6750 §2).

use crate::rejection::{Reason, Rejection};
use crate::request::RequestView;
use http::header::AUTHORIZATION;

/// The bearer token of a request, if it has one.
///
/// # Errors
/// [`Reason::MultipleTokens`] for two `Authorization` headers, or a token both there and in the
/// query; [`Reason::MalformedToken`] for the scheme `Bearer`, in any case, without one space and some
/// text behind it.
pub fn bearer<'r>(view: &RequestView<'r>) -> Result<Option<&'r str>, Rejection> {
    let mut values = view.headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(Rejection::noted(
            Reason::MultipleTokens,
            "two Authorization headers",
        ));
    }
    let (scheme, rest) = scheme(value.as_bytes());
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        // Another scheme is none of ours: as if nothing had been sent.
        return Ok(None);
    }
    none_in_query(view)?;
    // Its alphabet (RFC 6750 §2.1) is checked where it is decoded: a token that is known already
    // need not be read byte by byte again. Before it only spaces may stand (RFC 9110 §11.4).
    let token = rest.strip_prefix(b" ").map(<[u8]>::trim_ascii_end);
    let token = token.and_then(|token| std::str::from_utf8(token).ok());
    match token.map(|token| token.trim_start_matches(' ')) {
        Some(token) if token.starts_with(|c: char| c.is_ascii_graphic()) => Ok(Some(token)),
        // Bent, but meant for one: taken for none, it would pass where none is asked for, on to
        // whoever reads it in another way.
        _ => Err(Rejection::noted(
            Reason::MalformedToken,
            "behind the scheme `Bearer` there is no space, nothing, or no token",
        )),
    }
}

/// Refuses a token in the query of a request that has one in its header, or will have there.
///
/// # Errors
/// [`Reason::MultipleTokens`].
pub fn none_in_query(view: &RequestView<'_>) -> Result<(), Rejection> {
    match view.query.is_some_and(has_token) {
        false => Ok(()),
        true => Err(Rejection::noted(
            Reason::MultipleTokens,
            "a token in the header and in the query",
        )),
    }
}

/// The scheme of a credential, a token (RFC 9110 §11.4, §5.6.2), and what is behind it.
fn scheme(value: &[u8]) -> (&[u8], &[u8]) {
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    let end = value.iter().position(|b| !is_token(b));
    value
        .split_at_checked(end.unwrap_or(value.len()))
        .unwrap_or((value, &[]))
}

/// RFC 6750 §2.3: the parameter's name is fixed. There are readers that part at `;` too.
fn has_token(query: &str) -> bool {
    let mut pairs = query.as_bytes().split(|b| matches!(b, b'&' | b';'));
    pairs.any(|pair| form_urlencoded::parse(pair).any(|(name, _)| name == "access_token"))
}
