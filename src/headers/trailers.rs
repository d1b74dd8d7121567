//! Fields behind a body (RFC 9110 §6.5): which of them go on, and how they are announced.
//!
//! Whoever merges trailers into the head must not find anything there that could not have come in the
//! head: identity headers are withheld, and so is what frames, routes or authenticates a message.

use super::{IdentityGuard, certificate, is_disguised, is_reserved};
use http::header::{HeaderMap, HeaderName, HeaderValue, TE, TRAILER};

/// Whether the sender of these fields takes trailers: `TE: trailers` (RFC 9110 §10.1.4).
pub fn are_wanted(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TE).iter();
    codings.any(|value| {
        let mut tokens = value.as_bytes().split(|byte| *byte == b',');
        tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"trailers"))
    })
}

/// The `Trailer` field of a request, without the names that will not be passed on.
pub fn announced_to_upstream(headers: &HeaderMap, guard: &IdentityGuard) -> Option<HeaderValue> {
    announced(headers, |name| may_follow(name) && !guard.forbids(name))
}

/// The `Trailer` field of a response, without the names that will not be passed on.
pub fn announced_to_client(headers: &HeaderMap) -> Option<HeaderValue> {
    announced(headers, may_follow)
}

/// Takes out of a request's trailers what the upstream may not see there.
pub fn towards_upstream(trailers: &mut HeaderMap, guard: &IdentityGuard) {
    super::remove_if(trailers, |name| !may_follow(name) || guard.forbids(name));
}

/// Takes out of a response's trailers what the client may not see there.
pub fn towards_client(trailers: &mut HeaderMap) {
    super::remove_if(trailers, |name| !may_follow(name));
}

/// RFC 9110 §6.5.1: not what frames or routes a message, authenticates, or says how to read the body.
fn may_follow(name: &HeaderName) -> bool {
    let text = name.as_str();
    !(is_reserved(name)
        || is_disguised(text)
        || certificate::is_certificate(text)
        || matches!(
            text,
            "accept"
                | "allow"
                | "cache-control"
                | "expires"
                | "location"
                | "max-forwards"
                | "range"
                | "retry-after"
                | "set-cookie"
                | "vary"
                | "www-authenticate"
        )
        || text.starts_with("content-")
        || text.starts_with("if-"))
}

fn announced(headers: &HeaderMap, passes: impl Fn(&HeaderName) -> bool) -> Option<HeaderValue> {
    let mut names: Vec<HeaderName> = Vec::new();
    for value in headers.get_all(TRAILER) {
        for token in value.as_bytes().split(|byte| *byte == b',') {
            let name = HeaderName::from_bytes(token.trim_ascii());
            names.extend(name.ok().filter(&passes));
        }
    }
    let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
    HeaderValue::from_str(&names.join(", "))
        .ok()
        .filter(|names| !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn wanted_if_te_says_so() {
        for (value, expected) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("gzip", false),
            ("trailersx", false),
            ("", false),
        ] {
            assert_eq!(are_wanted(&fields(&[("te", value)])), expected, "{value:?}");
        }
    }

    #[test]
    fn only_what_may_follow_a_body_is_announced_and_passed_on() {
        let guard = IdentityGuard::default();
        let announced = fields(&[(
            "trailer",
            "X-Sum, content-length, X-Bonterra-Auth-Id, x_bonterra_subject, host, grpc-status,",
        )]);
        assert_eq!(
            announced_to_upstream(&announced, &guard),
            Some(HeaderValue::from_static("x-sum, grpc-status"))
        );
        assert_eq!(
            announced_to_upstream(&fields(&[("trailer", "host")]), &guard),
            None
        );
        let all = [
            ("x-sum", "1"),
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("x-bonterra-auth-id", "admin"),
            ("x-forwarded-for", "::1"),
            ("x-client-cert", "x"),
            ("content-type", "text/html"),
            ("set-cookie", "a=b"),
        ];
        let mut up = fields(&all);
        towards_upstream(&mut up, &guard);
        assert_eq!(up, fields(&all[..2]));
        let mut down = fields(&all);
        towards_client(&mut down);
        assert_eq!(down.len(), 3);
        assert!(down.contains_key("x-bonterra-auth-id"));
    }
}
