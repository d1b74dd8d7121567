//! Who a request is counted for.

use crate::identity::Identity;
use serde_json::Value;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

/// What counts as one caller: `rate_limit.by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum By {
    /// The OAuth client.
    Client,
    /// The subject of the token.
    Subject,
    /// The client's address.
    Address,
}

/// One caller. Those of different kinds are different, whatever their names, and so are those of
/// different issuers.
#[derive(Clone)]
pub(super) enum Caller {
    /// An OAuth client, by `azp` or `client_id`.
    Client(Arc<Identity>),
    /// A subject.
    Subject(Arc<Identity>),
    /// An address, of IPv6 the network of 64 bits: a customer has at least that much.
    Address(IpAddr),
}

// === impl By ===

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Subject => "subject",
            Self::Address => "ip",
        })
    }
}

// === impl Caller ===

impl Caller {
    /// A token without the claim that the rule goes by counts as the next best: a client without
    /// `azp` and `client_id` as its subject, and a subject without `sub` as its address.
    pub(super) fn of(by: By, identity: Option<&Arc<Identity>>, address: IpAddr) -> Self {
        let Some(identity) = identity.filter(|_| by != By::Address) else {
            return Self::Address(network(address));
        };
        if by == By::Client && client(identity).is_some() {
            Self::Client(Arc::clone(identity))
        } else if subject(identity).is_some() {
            Self::Subject(Arc::clone(identity))
        } else {
            Self::Address(network(address))
        }
    }

    /// The parts that make up the name: equal only for the same caller, if their lengths are told
    /// apart.
    pub(super) fn name(&self, mut part: impl FnMut(&[u8])) {
        match self {
            Self::Client(identity) => {
                part(b"client");
                part(identity.issuer.as_bytes());
                part(client(identity).unwrap_or_default().as_bytes());
            }
            Self::Subject(identity) => {
                part(b"subject");
                part(identity.issuer.as_bytes());
                part(subject(identity).unwrap_or_default().as_bytes());
            }
            Self::Address(IpAddr::V4(address)) => {
                part(b"ip");
                part(&address.octets());
            }
            Self::Address(IpAddr::V6(address)) => {
                part(b"ip");
                part(&address.octets());
            }
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(identity) => {
                let client = client(identity).unwrap_or_default();
                write!(f, "client `{client}` of [issuer.{}]", identity.issuer)
            }
            Self::Subject(identity) => {
                let subject = subject(identity).unwrap_or_default();
                write!(f, "subject `{subject}` of [issuer.{}]", identity.issuer)
            }
            Self::Address(IpAddr::V4(address)) => write!(f, "address {address}"),
            Self::Address(IpAddr::V6(network)) => write!(f, "network {network}/64"),
        }
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The client that a token was given to: `azp` (OpenID Connect Core §2), else `client_id`
/// (RFC 9068 §2.2).
fn client(identity: &Identity) -> Option<&str> {
    let text = |name| identity.claims.get(name).and_then(Value::as_str);
    let named = |name| text(name).filter(|client| !client.is_empty());
    named("azp").or_else(|| named("client_id"))
}

fn subject(identity: &Identity) -> Option<&str> {
    identity.subject().filter(|subject| !subject.is_empty())
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::from(u64::MAX) << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}
