//! Which server of a set gets a request.

use super::ring::HashOn;
use super::server::{Server, WARM};
use super::set::{Member, Set};
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How often a draw is repeated when it hits a server that is out. After that, who is in is looked up.
const DRAWS: usize = 4;

/// How an upstream's servers share its requests: `balance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Of two drawn by weight, the one with fewer requests in flight.
    LeastRequests,
    /// In turn, by weight.
    RoundRobin,
    /// By a key of the request; without one, as `LeastRequests`.
    ConsistentHash(HashOn),
}

/// Who may be chosen, from the best to the last resort.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    /// Who is in and was not tried yet.
    Fresh,
    /// Who is in.
    In,
    /// Who is well and was not tried yet, even if failed requests took it out: so many servers are out that the
    /// fault is more likely elsewhere, and a request that may fail is better than one that does.
    FreshAndWell,
    /// Who is well.
    Well,
}

const LEVELS: [Open; 4] = [Open::Fresh, Open::In, Open::FreshAndWell, Open::Well];

/// A choice to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice<'a> {
    pub set: &'a Set,
    pub balance: &'a Balance,
    pub slow_start: Duration,
    /// The request's key, if it has one.
    pub key: Option<u64>,
    /// Servers that were tried already.
    pub avoid: &'a [u64],
}

/// Whose turn it is, as each worker sees it: workers share no counter.
#[derive(Debug)]
struct Turns {
    set: u64,
    credit: Vec<i64>,
}

thread_local! {
    /// By the id of the upstream's group, so that a new set takes the place of the one before.
    static TURNS: RefCell<HashMap<u64, Turns>> = RefCell::default();
}

/// Whether `server` could be chosen for a request that was tried at `avoid`: it is one of the set, and none of them
/// would be better.
pub(super) fn is_choice(set: &Set, server: &Server, avoid: &[u64]) -> bool {
    let rank = |server: &Server| LEVELS.iter().position(|level| level.holds(server, avoid));
    let best = set
        .members
        .iter()
        .filter_map(|member| rank(&member.server))
        .min();
    let listed = set.members.iter().any(|one| one.server.id == server.id);
    listed && best.is_some() && rank(server) == best
}

// === impl Open ===

impl Open {
    fn holds(self, server: &Server, avoid: &[u64]) -> bool {
        let fresh = || !avoid.contains(&server.id);
        match self {
            Self::Fresh => server.is_in() && fresh(),
            Self::In => server.is_in(),
            Self::FreshAndWell => server.is_well() && fresh(),
            Self::Well => server.is_well(),
        }
    }
}

// === impl Choice ===

impl<'a> Choice<'a> {
    /// The server; `None` if none is known to be well. `group` is the upstream's.
    pub fn make(self, group: u64) -> Option<&'a Arc<Server>> {
        if let [only] = &*self.set.members {
            return only.server.is_well().then_some(&only.server);
        }
        let index = LEVELS.iter().find_map(|level| self.at(*level, group))?;
        self.set.members.get(index).map(|member| &member.server)
    }

    fn at(self, level: Open, group: u64) -> Option<usize> {
        match (self.balance, self.key, &self.set.ring) {
            (Balance::RoundRobin, ..) => self.round_robin(level, group),
            (Balance::ConsistentHash(_), Some(key), Some(ring)) => self
                .on_ring(level, key, ring.from(key))
                .or_else(|| self.least_requests(level)),
            _ => self.least_requests(level),
        }
    }

    fn is_open(&self, member: &Member, level: Open) -> bool {
        level.holds(&member.server, self.avoid)
    }

    /// The share of a member, in hundredths of weight: less than whole while it warms up.
    fn share(&self, member: &Member) -> u64 {
        u64::from(member.weight) * member.server.warmth(self.slow_start)
    }

    // --- least_requests

    /// Of two that are drawn by their shares the first, unless the second would, with this request, still have no
    /// more to do for its share than the first has now. That comes close to asking all of them, does not send every
    /// worker to the same one, and keeps to the weights when there is little to do.
    fn least_requests(self, level: Open) -> Option<usize> {
        let members = &self.set.members;
        let total = self.set.total();
        let first = (0..DRAWS)
            .find_map(|_| self.accept(self.drawn(fastrand::u64(..total.max(1))), level))
            .or_else(|| self.looked_up(level))?;
        let end = self.set.ends.get(first)?;
        let weight = u64::from(members.get(first)?.weight);
        let others = total.saturating_sub(weight);
        if others == 0 {
            return Some(first);
        }
        let second = (0..DRAWS).find_map(|_| {
            // A draw from the whole without the first one's part.
            let drawn = fastrand::u64(..others);
            let drawn = if drawn < end - weight {
                drawn
            } else {
                drawn + weight
            };
            self.accept(self.drawn(drawn), level)
        });
        let less_to_do = |second: &usize| {
            let pair = members.get(first).zip(members.get(*second));
            pair.is_some_and(|(first, second)| {
                let (busy, other) = (first.server.in_flight(), second.server.in_flight());
                busy as u64 * self.share(second) >= (other as u64 + 1) * self.share(first)
            })
        };
        Some(second.filter(less_to_do).unwrap_or(first))
    }

    /// Whose part of the whole this is.
    fn drawn(&self, at: u64) -> usize {
        self.set.ends.partition_point(|end| *end <= at)
    }

    /// The member that was drawn, if it is open; one that warms up, as often as its share says.
    fn accept(&self, index: usize, level: Open) -> Option<usize> {
        let member = self.set.members.get(index)?;
        let warmth = member.server.warmth(self.slow_start);
        let accepted =
            self.is_open(member, level) && (warmth == WARM || fastrand::u64(..WARM) < warmth);
        accepted.then_some(index)
    }

    /// One of those that are open, by their shares, found by looking at all.
    fn looked_up(&self, level: Open) -> Option<usize> {
        let open = || {
            let members = self.set.members.iter().enumerate();
            members.filter(|(_, member)| self.is_open(member, level))
        };
        let total: u64 = open().map(|(_, member)| self.share(member)).sum();
        let mut left = fastrand::u64(..total.max(1));
        let mut last = None;
        for (index, member) in open() {
            last = Some(index);
            match left.checked_sub(self.share(member)) {
                Some(rest) => left = rest,
                None => break,
            }
        }
        // If one has gone out in between, the last is as good as any.
        last
    }

    // --- round_robin

    /// Each server earns its share with every turn, the one with most pays for all: so the turns of a heavy one lie
    /// between those of others.
    fn round_robin(self, level: Open, group: u64) -> Option<usize> {
        TURNS.with_borrow_mut(|turns| {
            let known = turns
                .get_mut(&group)
                .filter(|turns| turns.set == self.set.id);
            if let Some(turns) = known {
                return self.turn(&mut turns.credit, level);
            }
            let members = self.set.members.len();
            let mut credit = vec![0; members];
            // Workers do not all begin with the same one.
            for _ in 0..fastrand::usize(..members.max(1)) {
                self.turn(&mut credit, level);
            }
            let chosen = self.turn(&mut credit, level);
            let set = self.set.id;
            turns.insert(group, Turns { set, credit });
            chosen
        })
    }

    fn turn(&self, credit: &mut [i64], level: Open) -> Option<usize> {
        let (mut total, mut best) = (0, None);
        for ((index, member), credit) in self.set.members.iter().enumerate().zip(&mut *credit) {
            if !self.is_open(member, level) {
                continue;
            }
            let share = i64::try_from(self.share(member)).unwrap_or(i64::MAX);
            *credit += share;
            total += share;
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((index, *credit));
            }
        }
        let (index, _) = best?;
        *credit.get_mut(index)? -= total;
        Some(index)
    }

    // --- consistent_hash

    /// The first open one on the ring. One that warms up takes a growing part of its keys, always the same.
    fn on_ring(
        self,
        level: Open,
        key: u64,
        mut ring: impl Iterator<Item = usize>,
    ) -> Option<usize> {
        let members = &self.set.members;
        let any = members.iter().any(|member| self.is_open(member, level));
        if !any {
            return None;
        }
        let (mut cold, part) = (None, key.rotate_left(32) % WARM);
        let warm = ring.find(|index| {
            let open = members
                .get(*index)
                .filter(|member| self.is_open(member, level));
            let warm = open.is_some_and(|member| part < member.server.warmth(self.slow_start));
            if open.is_some() && cold.is_none() {
                cold = Some(*index);
            }
            warm
        });
        warm.or(cold)
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
