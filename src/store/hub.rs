//! What orders, requests and the synchronisation with other gateways have in common.

use super::denylist::Denylist;
use super::{NotShared, Reach};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use tokio::sync::{Notify, watch};

/// What becomes of tokens while it is not known what other gateways have revoked: `[store] on_failure`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// What is known here holds.
    #[default]
    Open,
    /// None is let through.
    Closed,
}

/// How a gateway stands with the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether there is a store.
    pub shared: bool,
    /// What becomes of tokens while this is not in sync.
    pub on_failure: OnFailure,
    /// Whether everything is known here that is in the store, or was a second ago.
    pub in_sync: bool,
    /// Whether it has been so since the start.
    pub loaded: bool,
    /// Who is to say so.
    pub(super) line: u64,
}

/// The revocations, and how they stand.
#[derive(Debug, Default)]
pub(super) struct Hub {
    pub denylist: Denylist,
    standing: watch::Sender<Standing>,
    /// Whether there may be something that Redis does not have.
    pub owed: AtomicBool,
    /// Something has come from another gateway.
    pub news: Notify,
}

/// That something is about to be written to Redis. When this is dropped it is owed, unless it is
/// settled: who waited for it may have gone.
pub(super) struct Owing<'a>(Option<&'a Hub>);

// === impl Standing ===

impl Standing {
    /// Whether tokens are refused because of it.
    pub fn refuses(&self) -> bool {
        self.shared && self.on_failure == OnFailure::Closed && !self.in_sync
    }

    /// Whether no requests shall come yet, because tokens would be refused that may be good.
    pub fn is_awaited(&self) -> bool {
        self.refuses() && !self.loaded
    }
}

// === impl Hub ===

impl Hub {
    pub fn standing(&self) -> Standing {
        *self.standing.borrow()
    }

    /// A number for who tells from now on whether this is in sync. Nobody else is believed.
    pub fn next_line(&self) -> u64 {
        self.change(|standing| standing.line += 1);
        self.standing().line
    }

    /// By which rules.
    pub fn follow(&self, shared: bool, on_failure: OnFailure) {
        self.change(|standing| {
            standing.shared = shared;
            standing.on_failure = on_failure;
            standing.in_sync &= shared;
        });
    }

    /// Whether this is in sync, as `line` says.
    pub fn in_sync(&self, line: u64, in_sync: bool) {
        self.change(|standing| {
            if standing.line == line {
                standing.in_sync = in_sync;
                standing.loaded |= in_sync;
            }
        });
    }

    /// Has everything given to Redis that is known here.
    pub fn owe(&self) {
        self.owed.store(true, SeqCst);
    }

    /// What comes of an order that Redis does not know yet.
    pub fn not_shared(&self) -> Result<Reach, NotShared> {
        match self.standing().on_failure {
            OnFailure::Open => Ok(Reach::Later),
            OnFailure::Closed => Err(NotShared::Away),
        }
    }

    /// One change at a time, and what requests look at along with it.
    fn change(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_modify(|standing| {
            change(standing);
            self.denylist.doubt(standing.refuses());
        });
    }
}

// === impl Owing ===

impl<'a> Owing<'a> {
    pub fn new(hub: &'a Hub) -> Self {
        Self(Some(hub))
    }

    /// Redis has it.
    pub fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for Owing<'_> {
    fn drop(&mut self) {
        if let Some(hub) = self.0 {
            hub.owe();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Clock, Redis, Revocation, SharedStore};

    #[test]
    fn tokens_are_refused_only_with_a_store_that_is_closed_and_out_of_sync() {
        use OnFailure::{Closed, Open};
        for (shared, on_failure, in_sync, loaded, refuses, is_awaited) in [
            (false, Open, false, false, false, false),
            (false, Closed, false, false, false, false),
            (true, Open, false, false, false, false),
            (true, Open, true, true, false, false),
            (true, Closed, true, true, false, false),
            (true, Closed, false, true, true, false),
            (true, Closed, false, false, true, true),
        ] {
            let standing = Standing {
                shared,
                on_failure,
                in_sync,
                loaded,
                line: 0,
            };
            assert_eq!(standing.refuses(), refuses, "{standing:?}");
            assert_eq!(standing.is_awaited(), is_awaited, "{standing:?}");
        }
    }

    #[test]
    fn only_the_latest_line_is_believed() {
        let hub = Hub::default();
        let (old, new) = (hub.next_line(), hub.next_line());
        hub.follow(true, OnFailure::Closed);
        hub.in_sync(old, true);
        assert!(hub.standing().is_awaited());
        hub.in_sync(new, true);
        assert!(!hub.standing().refuses());
        hub.in_sync(old, false);
        assert!(hub.standing().in_sync);
        hub.in_sync(new, false);
        assert!(hub.standing().refuses() && !hub.standing().is_awaited());
        hub.follow(true, OnFailure::Open);
        assert!(!hub.standing().refuses());
        // Alone, and then with a store again: that one has told nothing so far.
        hub.in_sync(new, true);
        hub.follow(false, OnFailure::Open);
        hub.follow(true, OnFailure::Closed);
        assert!(hub.standing().refuses());
    }

    #[test]
    fn what_is_not_settled_is_owed() {
        let hub = Hub::default();
        Owing::new(&hub).settled();
        assert!(!hub.owed.load(SeqCst));
        drop(Owing::new(&hub));
        assert!(hub.owed.load(SeqCst));
    }

    #[tokio::test]
    async fn without_a_store_a_revocation_holds_here() {
        let store = SharedStore::in_memory();
        let token = Revocation::Token {
            content: crate::identity::TokenDigest::of("x"),
            until: 100,
        };
        assert_eq!(store.revoke(token.clone(), 0).await, Ok(Reach::Here));
        let nobody: Option<&std::sync::Arc<Redis>> = None;
        store
            .share(nobody, OnFailure::Closed, &Clock::system())
            .await;
        assert_eq!(store.revoke(token, 0).await, Ok(Reach::Here));
        assert!(!store.standing().refuses());
        assert_eq!(store.denylist().len(), 1);
    }
}
