//! The header fields that tell clients of a rule (draft-ietf-httpapi-ratelimit-headers).

use super::Spec;
use http::HeaderValue;
use std::time::Duration;

/// The name of a rule as a string of structured fields (RFC 9651 §3.3.3), quotes included.
pub(super) fn name(route: &str) -> Box<str> {
    let mut name = String::with_capacity(route.len() + 2);
    name.push('"');
    for c in route.chars() {
        match c {
            '"' | '\\' => name.extend(['\\', c]),
            ' '..='~' => name.push(c),
            // Such a string has visible ASCII alone.
            _ => name.push('?'),
        }
    }
    name.push('"');
    name.into()
}

/// `RateLimit-Policy`: the burst, and the seconds after which all of it is there again. Who keeps to
/// that is never refused.
pub(super) fn policy(name: &str, spec: &Spec) -> HeaderValue {
    let window = seconds(spec.whole()).max(1);
    value(&format!("{name};q={};w={window}", spec.burst))
}

/// `RateLimit`: how many more may come now, and in how many seconds there is more: all of it, or
/// after a refusal the next one.
pub(super) fn limit(name: &str, left: u32, seconds: u32) -> HeaderValue {
    value(&format!("{name};r={left};t={seconds}"))
}

/// Whole seconds, rounded up.
pub(super) fn seconds(time: Duration) -> u32 {
    let whole = time
        .as_secs()
        .saturating_add(u64::from(time.subsec_nanos() > 0));
    u32::try_from(whole).unwrap_or(u32::MAX)
}

fn value(text: &str) -> HeaderValue {
    // Only visible ASCII goes in.
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
