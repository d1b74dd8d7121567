//! The servers of an upstream as they come and go.

use super::balance::Balance;
use super::eject::{EjectRules, Group};
use super::resolve::Origin;
use super::server::{Server, millis};
use super::set::{Answers, Set};
use arc_swap::{ArcSwap, Guard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use tokio::sync::Notify;

/// The servers of an upstream as they come and go. Addresses are there at once, names once they are resolved; what an
/// upstream before it knew of either is taken over.
#[derive(Debug)]
pub struct Servers {
    /// The servers as they are written.
    pub origins: Vec<Origin>,
    pub(super) group: Arc<Group>,
    /// Higher for upstreams that were made later.
    serial: u64,
    with_ring: bool,
    set: ArcSwap<Set>,
    /// There is another set.
    changed: Notify,
}

// === impl Servers ===

impl Servers {
    /// The servers of `origins`. Those that `previous` knows stay what they are; `group` makes the group of an upstream
    /// that is new.
    pub fn new(
        origins: Vec<Origin>,
        balance: &Balance,
        previous: Option<&Self>,
        group: impl FnOnce() -> Arc<Group>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let group = previous.map_or_else(group, |previous| Arc::clone(&previous.group));
        let with_ring = matches!(balance, Balance::ConsistentHash(_));
        let known = previous.map(Self::now);
        let answers = origins
            .iter()
            .map(|origin| match (origin.literal(), previous, &known) {
                (Some(address), ..) => vec![address],
                (None, Some(previous), Some(known)) => previous.answer(known, &origin.host),
                (None, ..) => Vec::new(),
            })
            .collect();
        let before = known.as_ref().map(|known| &***known);
        let set = Set::new(&origins, answers, before, &group, with_ring);
        Self {
            group,
            serial: NEXT.fetch_add(1, Relaxed),
            with_ring,
            set: ArcSwap::from_pointee(set),
            changed: Notify::new(),
            origins,
        }
    }

    /// What a name was resolved to.
    fn answer(&self, set: &Set, host: &str) -> Vec<std::net::IpAddr> {
        let mut known = self.origins.iter().zip(&set.answers);
        known
            .find(|(origin, _)| *origin.host == *host)
            .map_or_else(Vec::new, |(_, answer)| answer.clone())
    }

    /// The servers of the moment.
    pub(super) fn now(&self) -> Guard<Arc<Set>> {
        self.set.load()
    }

    /// The servers of the moment, for who wants them all.
    pub fn list(&self) -> Vec<Arc<Server>> {
        let set = self.now();
        let members = set.members.iter();
        members.map(|member| Arc::clone(&member.server)).collect()
    }

    /// Whether some are written as names.
    pub(super) fn has_names(&self) -> bool {
        self.origins.iter().any(|origin| origin.literal().is_none())
    }

    /// Whether the addresses of all are known.
    pub(super) fn are_resolved(&self) -> bool {
        self.now().answers.iter().all(|answer| !answer.is_empty())
    }

    /// Takes what names were resolved to. Only one task does.
    pub(super) fn resolved(&self, answers: Answers, eject: Option<EjectRules>) {
        let before = self.now();
        if before.answers == answers {
            return;
        }
        let set = Set::new(
            &self.origins,
            answers,
            Some(&before),
            &self.group,
            self.with_ring,
        );
        self.set.store(Arc::new(set));
        self.take_seats(eject);
        self.changed.notify_one();
    }

    /// From now on these rules and these servers are in force.
    pub(super) fn take_seats(&self, eject: Option<EjectRules>) {
        self.group.adopt(self.serial, eject, &self.list(), millis());
    }

    /// Comes back when there are others.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
