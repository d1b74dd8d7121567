//! Refusals of the issuer that are remembered: which, for how long, and what the client reads.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use std::time::{Duration, Instant};

use crate::identity::UnixSeconds;

/// How long a 401 or 403 is remembered: long enough to calm a client in a loop, short enough that
/// nobody waits for a secret that has just been set right.
pub(super) const REFUSED_FOR: Duration = Duration::from_secs(5);

/// `Retry-After` counts up to this; more is taken for a mistake.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// A refusal with a larger body is not remembered.
const MAX_BODY: usize = 4 * 1024;

/// An answer of the issuer that is given again for a while. Has no `Debug`: it may quote a request.
pub(super) struct Refusal {
    response: Response<Bytes>,
    until: Instant,
}

// === impl Refusal ===

impl Refusal {
    /// What to remember of an answer, if anything: that a client is refused, for a moment; that it has
    /// asked too often, for as long as the issuer says. Never that the issuer failed.
    ///
    /// `wall` is what the clock shows now; a `Retry-After` may be a date.
    pub(super) fn of(response: &Response<Bytes>, now: Instant, wall: UnixSeconds) -> Option<Self> {
        let time = match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => REFUSED_FOR,
            StatusCode::TOO_MANY_REQUESTS => retry_after(response.headers(), wall)?,
            _ => return None,
        };
        let fits = response.body().len() <= MAX_BODY && !time.is_zero();
        fits.then(|| Self {
            response: response.clone(),
            until: now + time.min(LONGEST_WAIT),
        })
    }

    /// Whether it says that the client has asked too often.
    pub(super) fn is_throttle(&self) -> bool {
        self.response.status() == StatusCode::TOO_MANY_REQUESTS
    }

    /// The answer for a client that asks now, with what is left of its `Retry-After`; none when its
    /// time is over.
    pub(super) fn answer(&self, now: Instant) -> Option<Response<Bytes>> {
        let left = self.until.checked_duration_since(now)?;
        if left.is_zero() {
            return None;
        }
        let mut response = self.response.clone();
        if self.is_throttle() {
            // Rounded up: who waits that long is not too early.
            let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        Some(response)
    }
}

/// How long to wait (RFC 9110 §10.2.3): seconds, or until a date.
fn retry_after(headers: &HeaderMap, wall: UnixSeconds) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large to read is a very long time.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    let left = date(text)?.saturating_sub(wall);
    u64::try_from(left).ok().map(Duration::from_secs)
}

/// The moment of a date as HTTP writes it now: `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn date(text: &str) -> Option<UnixSeconds> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let [day, month, year, time, zone] = [(); 5].map(|()| words.next());
    if zone? != "GMT" || words.next().is_some() {
        return None;
    }
    let month = MONTHS.iter().position(|name| Some(*name) == month)? + 1;
    // The same moment in a form that is read elsewhere already.
    let same = format!("{}-{month:02}-{}T{}Z", year?, day?, time?);
    let moment = humantime::parse_rfc3339(&same).ok()?;
    let since = moment.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 1994-11-06 08:49:37 UTC
    const NOON: UnixSeconds = 784_111_777;

    fn answer(status: u16, retry_after: &str) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from_static(b"{}"));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if !retry_after.is_empty() {
            let value = HeaderValue::from_str(retry_after).unwrap();
            response.headers_mut().insert(RETRY_AFTER, value);
        }
        response
    }

    #[test]
    fn what_is_remembered_and_how_long() {
        let now = Instant::now();
        let day = LONGEST_WAIT.as_secs();
        let rows = [
            (401, "", Some(5)),
            (403, "", Some(5)),
            (401, "60", Some(5)),
            (429, "60", Some(60)),
            (429, " 7 ", Some(7)),
            (429, "Sun, 06 Nov 1994 08:49:47 GMT", Some(10)),
            (429, "99999999", Some(day)),
            (429, "99999999999999999999999", Some(day)),
            (429, "0", None),
            (429, "", None),
            (429, "soon", None),
            (429, "-5", None),
            (429, "1.5", None),
            (429, "Sun, 06 Nov 1994 08:49:37 GMT", None),
            (429, "Sun, 06 Nov 1994 08:49:36 GMT", None),
            (429, "Sun, 99 Foo 1994 08:49:47 GMT", None),
            (429, "Sun, 06 Nov 1994 08:49:47 CET", None),
            (200, "", None),
            (400, "9", None),
            (404, "9", None),
            (500, "9", None),
            (503, "9", None),
            (504, "", None),
        ];
        for (status, header, expected) in rows {
            let got = Refusal::of(&answer(status, header), now, NOON);
            let seconds = got.map(|refusal| (refusal.until - now).as_secs());
            assert_eq!(seconds, expected, "{status} {header:?}");
        }
    }

    #[test]
    fn a_large_body_is_not_remembered() {
        let mut large = answer(401, "");
        *large.body_mut() = vec![b'x'; MAX_BODY + 1].into();
        assert!(Refusal::of(&large, Instant::now(), 0).is_none());
    }

    #[test]
    fn retry_after_counts_down() {
        let start = Instant::now();
        let refusal = Refusal::of(&answer(429, "3"), start, 0).unwrap();
        let at = |milliseconds| {
            let answer = refusal.answer(start + Duration::from_millis(milliseconds))?;
            let value = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
            Some(value.to_owned())
        };
        let rows = [
            (0, Some("3")),
            (1, Some("3")),
            (1000, Some("2")),
            (2001, Some("1")),
            (2999, Some("1")),
            (3000, None),
            (9000, None),
        ];
        for (milliseconds, expected) in rows {
            assert_eq!(at(milliseconds).as_deref(), expected, "{milliseconds}");
        }
        // A refused client is told what the issuer said, and no more.
        let refusal = Refusal::of(&answer(401, ""), start, 0).unwrap();
        let again = refusal.answer(start + Duration::from_secs(4)).unwrap();
        assert!(!again.headers().contains_key(RETRY_AFTER));
        assert!(refusal.answer(start + REFUSED_FOR).is_none());
    }
}
