//! Header fields of answers: what is never kept, when to come again, and how to authenticate.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderValue, PRAGMA};

use super::OAuthError;

/// `Retry-After` of what may be well again in a moment, in seconds.
pub(in crate::oauth) const SOON: HeaderValue = HeaderValue::from_static("5");

/// Token replies and errors alike may hold what no cache should keep (RFC 6749 §5.1).
pub(in crate::oauth) fn forbid_storing(headers: &mut HeaderMap) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
}

/// `Basic realm="…"`; characters that a quoted string cannot hold are left out. `error` is what is
/// wrong with a token that came (RFC 6750 §3).
pub(super) fn challenge(
    scheme: &'static str,
    realm: &str,
    error: Option<OAuthError>,
) -> HeaderValue {
    let realm: String = realm
        .chars()
        .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
        .collect();
    let error = error.map_or_else(String::new, |error| {
        let (code, description) = (error.code(), error.description());
        format!(", error=\"{code}\", error_description=\"{description}\"")
    });
    HeaderValue::from_str(&format!("{scheme} realm=\"{realm}\"{error}"))
        .unwrap_or_else(|_| HeaderValue::from_static(scheme))
}
