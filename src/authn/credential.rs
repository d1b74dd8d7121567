//! Finds the bearer token of a request: one place only (RFC 6750 §2).

use crate::rejection::{Reason, Rejection};
use crate::request::RequestView;
use http::header::AUTHORIZATION;

/// The bearer token of a request, if it has one.
///
/// # Errors
/// [`Reason::MultipleTokens`] for two `Authorization` headers, or a token both there and in the
/// query; [`Reason::MalformedToken`] for a bearer credential that is no `b64token`.
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
    let Some((scheme, token)) = value.as_bytes().split_at_checked(7) else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case(b"bearer ") {
        // Another scheme is none of ours: as if nothing had been sent.
        return Ok(None);
    }
    if view.query.is_some_and(has_token) {
        return Err(Rejection::noted(
            Reason::MultipleTokens,
            "a token in the header and in the query",
        ));
    }
    // Its alphabet (RFC 6750 §2.1) is checked where it is decoded: a token that is known already
    // need not be read byte by byte again. Before it only spaces may stand (RFC 9110 §11.4).
    match std::str::from_utf8(token.trim_ascii_end()).map(|token| token.trim_start_matches(' ')) {
        Ok(token) if !token.is_empty() => Ok(Some(token)),
        _ => Err(Rejection::noted(
            Reason::MalformedToken,
            "the bearer credential is empty or no text",
        )),
    }
}

/// RFC 6750 §2.3: the parameter's name is fixed.
fn has_token(query: &str) -> bool {
    form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "access_token")
}
