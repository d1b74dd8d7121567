//! `consistent_hash`: a ring of servers, on which every key has its place.

use super::set::Member;
use crate::identity::Identity;
use http::{HeaderMap, HeaderName};
use pingora_ketama::{Bucket, Continuum, DEFAULT_POINT_MULTIPLE};
use serde_json::Value;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// What of a request decides about its server: `hash_on`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The first value of this header field.
    Header(HeaderName),
    /// The claim of this literal name.
    Claim(Box<str>),
    /// The client's address.
    ClientIp,
}

/// The ring of an upstream's servers.
pub(super) struct Ring {
    continuum: Continuum,
    /// Where in the list of members an address is.
    members: HashMap<SocketAddr, usize>,
    points: usize,
}

// === impl HashOn ===

impl HashOn {
    /// The key of a request; `None` if it lacks what the key is made of. `client` is asked only if need be.
    pub fn key(
        &self,
        headers: &HeaderMap,
        identity: Option<&Identity>,
        client: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<u64> {
        match self {
            Self::Header(name) => headers
                .get(name)
                .map(|value| value.as_bytes())
                .filter(|value| !value.is_empty())
                .map(digest),
            Self::Claim(name) => match identity?.claims.get(name)? {
                Value::Null => None,
                Value::String(text) => Some(digest(text.as_bytes())),
                value => Some(digest(value.to_string().as_bytes())),
            },
            Self::ClientIp => client().map(|client| match client {
                IpAddr::V4(address) => digest(&address.octets()),
                IpAddr::V6(address) => digest(&address.octets()),
            }),
        }
    }
}

/// FNV-1a: the same in every worker, gateway and version, which the standard library's hashes are not.
fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

// === impl Ring ===

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring of {} points", self.points)
    }
}

impl Ring {
    pub fn new(members: &[Member]) -> Self {
        let mut places = HashMap::new();
        let mut buckets = Vec::with_capacity(members.len());
        let mut points = 0;
        for (index, member) in members.iter().enumerate() {
            let address = member.server.address;
            let weight = member.weight.max(1);
            // Two names of one address have one place.
            places.entry(address).or_insert_with(|| {
                buckets.push(Bucket::new(address, weight));
                points += weight as usize * DEFAULT_POINT_MULTIPLE as usize;
                index
            });
        }
        Self {
            continuum: Continuum::new(&buckets),
            members: places,
            points,
        }
    }

    /// The members, from the place of `key` on, once around; each as often as it has points.
    pub fn from(&self, key: u64) -> impl Iterator<Item = usize> {
        self.continuum
            .node_iter(&key.to_be_bytes())
            .take(self.points)
            .filter_map(|address| self.members.get(address).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Claims, Members, Scopes};
    use http::HeaderValue;
    use serde_json::json;

    fn caller(claims: &[(&str, Value)]) -> Identity {
        let members = claims
            .iter()
            .map(|(name, value)| ((*name).into(), value.clone()))
            .collect();
        Identity {
            issuer: "i".into(),
            claims: Claims::verified(Members::new(members).unwrap()),
            scopes: Scopes::default(),
            expires_at: 0,
            bound_to: None,
            not_before: None,
            headers: Box::default(),
        }
    }

    #[test]
    fn keys_are_made_of_what_is_there() {
        let mut headers = HeaderMap::new();
        headers.append("x-tenant", HeaderValue::from_static("a"));
        headers.append("x-tenant", HeaderValue::from_static("b"));
        headers.append("x-empty", HeaderValue::from_static(""));
        let one = caller(&[("sub", json!("a")), ("n", json!(7)), ("none", Value::Null)]);
        let header = |name: &'static str| HashOn::Header(HeaderName::from_static(name));
        let claim = |name: &str| HashOn::Claim(name.into());
        let ip: IpAddr = "192.0.2.1".parse().unwrap();
        for (on, identity, client, expected) in [
            (header("x-tenant"), None, None, Some(digest(b"a"))),
            (header("x-empty"), None, None, None),
            (header("x-other"), None, None, None),
            (claim("sub"), Some(&one), None, Some(digest(b"a"))),
            (claim("n"), Some(&one), None, Some(digest(b"7"))),
            (claim("none"), Some(&one), None, None),
            (claim("x"), Some(&one), None, None),
            (claim("sub"), None, None, None),
            (
                HashOn::ClientIp,
                None,
                Some(ip),
                Some(digest(&[192, 0, 2, 1])),
            ),
            (HashOn::ClientIp, None, None, None),
        ] {
            assert_eq!(on.key(&headers, identity, || client), expected, "{on:?}");
        }
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(digest(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(digest(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(digest(b"foobar"), 0x8594_4171_f739_67e8);
    }
}
