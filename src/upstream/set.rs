//! The servers of an upstream at one moment: what its names resolve to, and each one's weight.

use super::eject::Group;
use super::resolve::Origin;
use super::ring::Ring;
use super::server::{Server, ServerKey, millis};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The addresses of each entry of `servers`, in their order; empty while a name has not been resolved.
pub(super) type Answers = Vec<Vec<IpAddr>>;

/// A server and its weight in this upstream.
#[derive(Debug)]
pub(super) struct Member {
    pub server: Arc<Server>,
    pub weight: u32,
}

/// The servers of an upstream at one moment.
#[derive(Debug)]
pub(super) struct Set {
    /// Tells sets apart.
    pub id: u64,
    pub members: Box<[Member]>,
    /// For each member its weight and those before it: the upper end of its part of the whole.
    pub ends: Box<[u64]>,
    /// The ring, if the upstream goes by one.
    pub ring: Option<Ring>,
    /// What the set was made of.
    pub answers: Answers,
}

// === impl Set ===

impl Set {
    /// The servers at these addresses. Those of `before` stay what they are.
    pub fn new(
        origins: &[Origin],
        answers: Answers,
        before: Option<&Self>,
        group: &Arc<Group>,
        with_ring: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let mut members: Vec<Member> = Vec::new();
        for (origin, addresses) in origins.iter().zip(&answers) {
            for ip in addresses {
                let key = ServerKey {
                    address: SocketAddr::new(*ip, origin.port),
                    host: &origin.host,
                    tls: origin.tls,
                };
                if members.iter().any(|member| member.server.key() == key) {
                    continue;
                }
                members.push(Member {
                    server: server(key, origin, addresses.len(), before, group),
                    weight: origin.weight,
                });
            }
        }
        let mut sum = 0;
        let ends = members.iter().map(|member| {
            sum += u64::from(member.weight);
            sum
        });
        Self {
            id: NEXT.fetch_add(1, Relaxed),
            ends: ends.collect(),
            ring: with_ring.then(|| Ring::new(&members)),
            members: members.into_boxed_slice(),
            answers,
        }
    }

    /// All weights together.
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }
}

/// The server of `before` at this address, with its connections and all that is known of it, or a new one.
fn server(
    key: ServerKey<'_>,
    origin: &Origin,
    addresses: usize,
    before: Option<&Set>,
    group: &Arc<Group>,
) -> Arc<Server> {
    let known = before.and_then(|before| {
        let mut servers = before.members.iter().map(|member| &member.server);
        servers.find(|server| server.key() == key)
    });
    if let Some(known) = known {
        return Arc::clone(known);
    }
    let label = match addresses {
        0 | 1 => origin.authority(),
        _ => format!("{}/{}", origin.authority(), key.address.ip()),
    };
    let server = Server::new(key, label.into(), group);
    // Among the first, all are equally new.
    if before.is_some_and(|before| !before.members.is_empty()) {
        server.came_back(millis());
    }
    Arc::new(server)
}
