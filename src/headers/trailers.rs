//! Fields behind a body (RFC 9110 §6.5): which of them go on, and how they are announced.
//!
//! Whoever merges trailers into the head must not find anything there that could not have come in the
//! head: identity headers are withheld, what the route's header rules remove or set, and what frames,
//! routes or authenticates a message.

use super::{HeaderRules, IdentityGuard, certificate, is_disguised, is_reserved};
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
pub fn announced_to_upstream(
    headers: &HeaderMap,
    guard: &IdentityGuard,
    rules: &HeaderRules,
) -> Option<HeaderValue> {
    announced(headers, |name| {
        may_follow(name) && !guard.forbids(name) && !rules.settle(name)
    })
}

/// The `Trailer` field of a response, without the names that will not be passed on.
pub fn announced_to_client(headers: &HeaderMap, rules: &HeaderRules) -> Option<HeaderValue> {
    announced(headers, |name| may_follow(name) && !rules.settle(name))
}

/// Takes out of a request's trailers what the upstream may not see there.
pub fn towards_upstream(
    trailers: &mut HeaderMap,
    guard: &IdentityGuard,
    rules: Option<&HeaderRules>,
) {
    super::remove_if(trailers, |name| {
        !may_follow(name) || guard.forbids(name) || rules.is_some_and(|rules| rules.settle(name))
    });
}

/// Takes out of a response's trailers what the client may not see there.
pub fn towards_client(trailers: &mut HeaderMap, rules: Option<&HeaderRules>) {
    super::remove_if(trailers, |name| {
        !may_follow(name) || rules.is_some_and(|rules| rules.settle(name))
    });
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
        let none = HeaderRules::default();
        let announced = fields(&[(
            "trailer",
            "X-Sum, content-length, X-Bonterra-Auth-Id, x_bonterra_subject, host, grpc-status,",
        )]);
        assert_eq!(
            announced_to_upstream(&announced, &guard, &none),
            Some(HeaderValue::from_static("x-sum, grpc-status"))
        );
        assert_eq!(
            announced_to_upstream(&fields(&[("trailer", "host")]), &guard, &none),
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
        towards_upstream(&mut up, &guard, None);
        assert_eq!(up, fields(&all[..2]));
        let mut down = fields(&all);
        towards_client(&mut down, None);
        assert_eq!(down.len(), 3);
        assert!(down.contains_key("x-bonterra-auth-id"));
    }

    #[test]
    fn what_the_rules_of_a_route_remove_or_set_does_not_follow_a_body() {
        let guard = IdentityGuard::default();
        let rules = HeaderRules {
            set: vec![(
                HeaderName::from_static("x-tenant"),
                HeaderValue::from_static("a"),
            )],
            remove: vec![HeaderName::from_static("x-admin")],
        };
        let head = fields(&[("trailer", "X-Sum, X-Admin, x_tenant")]);
        let expected = Some(HeaderValue::from_static("x-sum"));
        assert_eq!(announced_to_upstream(&head, &guard, &rules), expected);
        assert_eq!(announced_to_client(&head, &rules), expected);
        let all = [
            ("x-sum", "1"),
            ("x-admin", "1"),
            ("x_admin", "1"),
            ("x-tenant", "b"),
            ("x_tenant", "b"),
        ];
        let (mut up, mut down) = (fields(&all), fields(&all));
        towards_upstream(&mut up, &guard, Some(&rules));
        towards_client(&mut down, Some(&rules));
        assert_eq!(up, fields(&all[..1]));
        assert_eq!(down, fields(&all[..1]));
    }
}
