//! `Max-Forwards` (RFC 9110 §7.6.2): how many more hops an `OPTIONS` request may take. On other
//! methods the field has no meaning and passes as it came; `TRACE` is not served at all.

use crate::rejection::{Reason, Rejection};
use http::Method;
use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};

/// The hops that a request may still take behind the gateway; `None` if it does not say. A number
/// too large for us is the largest that we know.
///
/// # Errors
/// [`Reason::BadRequest`] for a value that is no number, or more than one.
pub fn left(method: &Method, headers: &HeaderMap) -> Result<Option<u64>, Rejection> {
    if *method != Method::OPTIONS {
        return Ok(None);
    }
    let mut values = headers.get_all(MAX_FORWARDS).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let digits = value.as_bytes();
    let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if !plain || values.next().is_some() {
        let note = "Max-Forwards is not one number";
        return Err(Rejection::noted(Reason::BadRequest, note));
    }
    let number = digits.iter().fold(0, |number: u64, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u64::from(digit - b'0'))
    });
    Ok(Some(number))
}

/// Takes off the hop to the upstream.
///
/// # Errors
/// As [`left`], and for a request that may go no further: it is to be answered, not forwarded.
pub fn count_down(method: &Method, headers: &mut HeaderMap) -> Result<(), Rejection> {
    let Some(hops) = left(method, headers)? else {
        return Ok(());
    };
    let Some(hops) = hops.checked_sub(1) else {
        let note = "Max-Forwards does not let it go further";
        return Err(Rejection::noted(Reason::BadRequest, note));
    };
    headers.insert(MAX_FORWARDS, HeaderValue::from(hops));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{count_down, left};
    use http::Method;
    use http::header::{HeaderMap, HeaderValue, MAX_FORWARDS};

    fn headers(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(MAX_FORWARDS, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn hops_are_counted_down_to_nothing() {
        for (values, hops, behind) in [
            (&[][..], Ok(None), Ok(vec![])),
            (&["0"], Ok(Some(0)), Err(())),
            (&["000"], Ok(Some(0)), Err(())),
            (&["1"], Ok(Some(1)), Ok(vec!["0"])),
            (&["010"], Ok(Some(10)), Ok(vec!["9"])),
            (
                &["99999999999999999999"],
                Ok(Some(u64::MAX)),
                Ok(vec!["18446744073709551614"]),
            ),
            (&[""], Err(()), Err(())),
            (&["-1"], Err(()), Err(())),
            (&["+1"], Err(()), Err(())),
            (&["1.0"], Err(()), Err(())),
            (&["1, 1"], Err(()), Err(())),
            (&["1", "1"], Err(()), Err(())),
            (&["x"], Err(()), Err(())),
        ] {
            let mut fields = headers(values);
            let found = left(&Method::OPTIONS, &fields).map_err(drop);
            assert_eq!(found, hops, "{values:?}");
            let counted = count_down(&Method::OPTIONS, &mut fields).map_err(drop);
            let sent: Vec<&str> = fields
                .get_all(MAX_FORWARDS)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .collect();
            assert_eq!(counted.map(|()| sent), behind, "{values:?}");
            let mut fields = headers(values);
            assert_eq!(left(&Method::GET, &fields), Ok(None), "{values:?}");
            assert_eq!(count_down(&Method::POST, &mut fields), Ok(()), "{values:?}");
            assert_eq!(fields, headers(values), "untouched");
        }
    }
}
