//! What the issuer says of quotas with its token replies, made into gauges.
//!
//! Buckets come from a fixed list: the label is bounded whatever a header holds. The headers
//! themselves go to the client, see [`super::reply`].

use http::HeaderMap;
use std::sync::Arc;

use crate::telemetry::metrics::Metrics;

/// The headers of quotas with buckets, and what their buckets are called here.
const BUCKETED: [(&str, [(&str, &str); 2]); 2] = [
    (
        "auth0-client-quota-limit",
        [
            ("per_hour", "client_per_hour"),
            ("per_day", "client_per_day"),
        ],
    ),
    (
        "auth0-organization-quota-limit",
        [
            ("per_hour", "organization_per_hour"),
            ("per_day", "organization_per_day"),
        ],
    ),
];

/// Where the quotas of one issuer are shown. A series begins with the first reply that tells of it.
#[derive(Debug, Clone)]
pub struct Quotas {
    metrics: Arc<Metrics>,
    issuer: Arc<str>,
}

/// What is left of one quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Quota {
    bucket: &'static str,
    limit: Option<i64>,
    remaining: i64,
}

// === impl Quotas ===

impl Quotas {
    /// For the issuer of this name.
    pub fn new(issuer: &Arc<str>, metrics: &Arc<Metrics>) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            issuer: Arc::clone(issuer),
        }
    }

    /// Shows what these headers of a reply say.
    pub(crate) fn note(&self, headers: &HeaderMap) {
        for quota in read(headers) {
            let labels = [&*self.issuer, quota.bucket];
            let (remaining, limit) = (
                &self.metrics.issuer_quota_remaining,
                &self.metrics.issuer_quota_limit,
            );
            remaining.with_label_values(&labels).set(quota.remaining);
            if let Some(value) = quota.limit {
                limit.with_label_values(&labels).set(value);
            }
        }
    }
}

/// Whether these headers of a reply tell of a quota of which less than this share is left.
pub(super) fn is_low(headers: &HeaderMap, share: f64) -> bool {
    #[expect(
        clippy::cast_precision_loss,
        reason = "no quota is so large that the difference matters"
    )]
    let low = |quota: Quota| {
        let limit = quota.limit.filter(|limit| *limit > 0);
        limit.is_some_and(|limit| (quota.remaining as f64) < share * limit as f64)
    };
    read(headers).into_iter().any(low)
}

/// The quotas in the headers of a reply; what cannot be read is left out.
fn read(headers: &HeaderMap) -> Vec<Quota> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    let number = |name: &str| count(text(name)?);
    let mut quotas = Vec::new();
    if let Some(remaining) = number("x-ratelimit-remaining") {
        let limit = number("x-ratelimit-limit");
        quotas.push(Quota {
            bucket: "ratelimit",
            limit,
            remaining,
        });
    }
    for (header, names) in BUCKETED {
        let lists = headers.get_all(header).iter();
        let buckets = lists.filter_map(|list| list.to_str().ok());
        for bucket in buckets.flat_map(|list| list.split(',')) {
            quotas.extend(bucket_of(bucket, &names));
        }
    }
    quotas
}

/// One bucket: `b=per_hour;q=10;r=7;t=3540`, of which `q` is the quota and `r` what remains.
fn bucket_of(text: &str, names: &[(&str, &'static str)]) -> Option<Quota> {
    let member = |wanted: &str| {
        let mut pairs = text.split(';').filter_map(|pair| pair.split_once('='));
        pairs.find_map(|(name, value)| (name.trim() == wanted).then_some(value.trim()))
    };
    let given = member("b")?;
    let (_, bucket) = names.iter().find(|(name, _)| *name == given)?;
    Some(Quota {
        bucket,
        limit: member("q").and_then(count),
        remaining: count(member("r")?)?,
    })
}

fn count(text: &str) -> Option<i64> {
    text.trim().parse().ok().filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn quotas(headers: &[(&'static str, &'static str)]) -> Vec<(&'static str, i64, i64)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_static(name);
            map.append(name, HeaderValue::from_static(value));
        }
        let quotas = read(&map).into_iter();
        quotas
            .map(|quota| (quota.bucket, quota.remaining, quota.limit.unwrap_or(-1)))
            .collect()
    }

    #[test]
    fn what_headers_say() {
        const CLIENT: &str = "auth0-client-quota-limit";
        const ORGANIZATION: &str = "auth0-organization-quota-limit";
        assert_eq!(quotas(&[]), []);
        assert_eq!(
            quotas(&[("x-ratelimit-remaining", "7"), ("x-ratelimit-limit", "10")]),
            [("ratelimit", 7, 10)]
        );
        assert_eq!(
            quotas(&[("x-ratelimit-remaining", "0")]),
            [("ratelimit", 0, -1)]
        );
        assert_eq!(
            quotas(&[(
                CLIENT,
                "b=per_hour;q=10;r=7;t=3540, b=per_day ; q=100 ; r=42;t=1"
            )]),
            [("client_per_hour", 7, 10), ("client_per_day", 42, 100)]
        );
        assert_eq!(
            quotas(&[
                (CLIENT, "b=per_day;r=1"),
                (ORGANIZATION, "r=3;b=per_hour;q=9")
            ]),
            [("client_per_day", 1, -1), ("organization_per_hour", 3, 9)]
        );
    }

    #[test]
    fn what_is_low() {
        const CLIENT: HeaderName = HeaderName::from_static("auth0-client-quota-limit");
        // header, share, expected
        let rows = [
            ("b=per_hour;q=10;r=2", 0.2, false),
            ("b=per_hour;q=10;r=1", 0.2, true),
            ("b=per_hour;q=10;r=0", 0.2, true),
            ("b=per_hour;q=10;r=9,b=per_day;q=100;r=5", 0.2, true),
            ("b=per_hour;q=10;r=9", 1.0, true),
            ("b=per_hour;q=10;r=10", 1.0, false),
            ("b=per_hour;r=0", 0.2, false),
            ("b=per_hour;q=0;r=0", 0.2, false),
            ("nonsense", 0.2, false),
        ];
        for (header, share, expected) in rows {
            let map = HeaderMap::from_iter([(CLIENT, HeaderValue::from_static(header))]);
            assert_eq!(is_low(&map, share), expected, "{header} {share}");
        }
        assert!(!is_low(&HeaderMap::new(), 1.0));
    }

    #[test]
    fn what_cannot_be_read_makes_no_series() {
        for value in [
            "",
            "b=per_hour",
            "b=per_hour;r=x",
            "b=per_hour;r=-1",
            "b=per_hour;r=99999999999999999999",
            "b=per_minute;r=1",
            "b=evil\u{e9};r=1",
            "r=1",
            ";;,,==",
        ] {
            let header = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            let map = HeaderMap::from_iter([(
                HeaderName::from_static("auth0-client-quota-limit"),
                header,
            )]);
            assert_eq!(read(&map), [], "{value}");
        }
        assert_eq!(quotas(&[("x-ratelimit-remaining", "many")]), []);
    }
}
