//! Who gets a request, told by tables: no socket, no task, no waiting.

use super::super::breaker::InFlight;
use super::super::eject::{EjectRules, Group};
use super::super::resolve::Origin;
use super::super::server::{Report, millis};
use super::*;
use http::{HeaderName, StatusCode};
use prometheus::{IntGaugeVec, Opts};
use std::collections::HashSet;
use std::net::IpAddr;

/// Servers 10.0.0.1, 10.0.0.2 … with these weights.
struct Lab {
    group: Arc<Group>,
    set: Set,
    balance: Balance,
    slow_start: Duration,
    gauge: IntGaugeVec,
}

fn by_header() -> Balance {
    Balance::ConsistentHash(HashOn::Header(HeaderName::from_static("x-tenant")))
}

fn origin(ip: u8, weight: u32) -> Origin {
    Origin {
        host: format!("10.0.0.{ip}").into(),
        port: 80,
        tls: false,
        weight,
    }
}

impl Lab {
    fn new(balance: Balance, weights: &[u32]) -> Self {
        let gauge = Opts::new("healthy", "x");
        let gauge = IntGaugeVec::new(gauge, &["upstream", "server"]).unwrap();
        let group = Group::new("u".into(), gauge.clone());
        let origins = (1..).zip(weights).map(|(ip, weight)| origin(ip, *weight));
        let set = Self::set(&group, origins.collect(), None, &balance);
        Self {
            group,
            set,
            balance,
            slow_start: Duration::ZERO,
            gauge,
        }
    }

    fn set(
        group: &Arc<Group>,
        origins: Vec<Origin>,
        before: Option<&Set>,
        balance: &Balance,
    ) -> Set {
        let answers: Vec<Vec<IpAddr>> = origins
            .iter()
            .map(|origin| origin.literal().into_iter().collect())
            .collect();
        let with_ring = matches!(balance, Balance::ConsistentHash(_));
        Set::new(&origins, answers, before, group, with_ring)
    }

    fn server(&self, index: usize) -> &Arc<Server> {
        &self.set.members[index].server
    }

    fn servers(&self) -> Vec<Arc<Server>> {
        let members = self.set.members.iter();
        members.map(|member| Arc::clone(&member.server)).collect()
    }

    fn eject(&self, rules: EjectRules) {
        self.group.adopt(1, Some(rules), &self.servers(), 0);
    }

    fn choose(&self, key: Option<u64>, avoid: &[u64]) -> Option<usize> {
        let choice = Choice {
            set: &self.set,
            balance: &self.balance,
            slow_start: self.slow_start,
            key,
            avoid,
        };
        let chosen = choice.make(self.group.id)?;
        self.servers().iter().position(|one| one.id == chosen.id)
    }

    /// How often each server is chosen, of so many times; `busy` requests are in flight at any time.
    fn shares(&self, times: usize, busy: usize) -> Vec<usize> {
        let mut counts = vec![0; self.set.members.len()];
        let mut in_flight = Vec::new();
        for _ in 0..times {
            let index = self.choose(None, &[]).expect("a server");
            counts[index] += 1;
            in_flight.push(at(self.server(index)));
            if in_flight.len() > busy {
                in_flight.swap_remove(fastrand::usize(..in_flight.len()));
            }
        }
        counts
    }
}

/// A request at this server.
fn at(server: &Arc<Server>) -> InFlight {
    InFlight::below(usize::MAX, server).expect("a place")
}

#[track_caller]
fn assert_shares(counts: &[usize], expected: &[f64], tolerance: f64) {
    let total: usize = counts.iter().sum();
    let whole: f64 = expected.iter().sum();
    for (count, expected) in counts.iter().zip(expected) {
        let (share, expected) = (*count as f64 / total as f64, expected / whole);
        assert!(
            (share - expected).abs() <= tolerance,
            "{counts:?}: {share} instead of {expected}"
        );
    }
}

#[test]
fn weights_are_kept() {
    fastrand::seed(1);
    for weights in [&[1, 1][..], &[2, 1], &[5, 3, 1, 1], &[1000, 1]] {
        let expected: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
        let drawn = Lab::new(Balance::LeastRequests, weights);
        assert_shares(&drawn.shares(20_000, 0), &expected, 0.02);
        // With much to do, what is in flight decides.
        assert_shares(&drawn.shares(20_000, 50), &expected, 0.03);
        let in_turn = Lab::new(Balance::RoundRobin, weights);
        let rounds = 20_000 / expected.iter().sum::<f64>() as usize;
        let turns = rounds * expected.iter().sum::<f64>() as usize;
        assert_shares(&in_turn.shares(turns, 3), &expected, 0.0005);
    }
    // With little to do, a draw would overload the weak one, and counting alone the strong one.
    let few = Lab::new(Balance::LeastRequests, &[10, 1]);
    assert_shares(&few.shares(20_000, 1), &[10.0, 1.0], 0.02);
}

#[test]
fn the_busier_of_two_is_spared() {
    fastrand::seed(2);
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    let busy: Vec<_> = (0..3).map(|_| at(lab.server(0))).collect();
    assert_eq!(lab.shares(100, 0), [0, 100]);
    assert_eq!(lab.server(0).in_flight(), 3);
    drop(busy);
    assert_shares(&lab.shares(10_000, 0), &[1.0, 1.0], 0.03);
    // One that is slow keeps its requests, and gets few.
    let lab = Lab::new(Balance::LeastRequests, &[1, 1, 1, 1]);
    let mut kept = Vec::new();
    let mut counts = [0; 4];
    for _ in 0..1000 {
        let index = lab.choose(None, &[]).unwrap();
        counts[index] += 1;
        if index == 0 {
            kept.push(at(lab.server(0)));
        }
    }
    assert!(counts[0] < 10, "{counts:?}");
}

#[test]
fn turns_are_taken_evenly() {
    let lab = Lab::new(Balance::RoundRobin, &[3, 1, 1]);
    let turns: Vec<_> = (0..50).map(|_| lab.choose(None, &[]).unwrap()).collect();
    for round in turns.windows(5) {
        let of = |server| round.iter().filter(|one| **one == server).count();
        assert_eq!([of(0), of(1), of(2)], [3, 1, 1], "{turns:?}");
    }
    assert!(
        turns.windows(3).all(|three| three != [0, 0, 0]),
        "{turns:?}"
    );
}

#[test]
fn what_was_tried_is_avoided_while_there_is_another() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, by_header()] {
        let lab = Lab::new(balance, &[1000, 1, 1]);
        let ids: Vec<u64> = lab.servers().iter().map(|server| server.id).collect();
        for key in (0..50).map(Some).chain([None]) {
            assert_ne!(lab.choose(key, &ids[..1]), Some(0));
            assert_eq!(lab.choose(key, &[ids[0], ids[1]]), Some(2));
            assert!(
                lab.choose(key, &ids).is_some(),
                "better one of them than none"
            );
        }
    }
}

#[test]
fn who_is_unwell_gets_nothing_and_who_was_ejected_only_if_nobody_is_in() {
    for balance in [Balance::LeastRequests, Balance::RoundRobin, by_header()] {
        let lab = Lab::new(balance, &[1, 1, 1]);
        let seen = || -> HashSet<_> { (0..300).map(|key| lab.choose(Some(key), &[])).collect() };
        let some = |list: &[usize]| list.iter().copied().map(Some).collect::<HashSet<_>>();
        assert_eq!(seen(), some(&[0, 1, 2]));
        lab.server(0).set_well(false);
        assert_eq!(seen(), some(&[1, 2]));
        lab.server(1).set_ejected(true);
        assert_eq!(seen(), some(&[2]));
        lab.server(2).set_ejected(true);
        assert_eq!(seen(), some(&[1, 2]), "all that are well, ejected or not");
        lab.server(1).set_well(false);
        lab.server(2).set_well(false);
        assert_eq!(seen(), [None].into());
        lab.server(0).set_well(true);
        assert_eq!(seen(), some(&[0]));
    }
}

#[test]
fn one_server_and_none() {
    let none = Lab::new(Balance::LeastRequests, &[]);
    assert_eq!(none.choose(None, &[]), None);
    let none = Lab::new(by_header(), &[]);
    assert_eq!(none.choose(Some(1), &[]), None);
    let one = Lab::new(Balance::RoundRobin, &[1]);
    let id = one.server(0).id;
    assert_eq!(one.choose(None, &[id]), Some(0));
    one.server(0).set_well(false);
    assert_eq!(one.choose(None, &[]), None);
}

#[test]
fn a_ring_moves_only_the_share_of_who_comes_or_goes() {
    const KEYS: u64 = 20_000;
    let lab = Lab::new(by_header(), &[1, 1, 1, 1]);
    let places = |lab: &Lab| -> Vec<String> {
        let of = |key| {
            lab.server(lab.choose(Some(key), &[]).unwrap())
                .label
                .to_string()
        };
        (0..KEYS).map(of).collect()
    };
    let before = places(&lab);
    assert_eq!(before, places(&lab), "a key keeps its place");
    let mut counts = [0; 4];
    for key in 0..KEYS {
        counts[lab.choose(Some(key), &[]).unwrap()] += 1;
    }
    assert_shares(&counts, &[1.0; 4], 0.08);

    let more = Lab::new(by_header(), &[1, 1, 1, 1, 1]);
    let after = places(&more);
    let moved = before.iter().zip(&after).filter(|(a, b)| a != b);
    let moved: Vec<_> = moved.map(|(_, to)| to).collect();
    assert!(
        moved.iter().all(|to| **to == "10.0.0.5:80"),
        "to the new one only"
    );
    assert!(
        (0.10..0.30).contains(&(moved.len() as f64 / KEYS as f64)),
        "{}",
        moved.len()
    );

    // The other way round: only the keys of the one that is out move, and they come back.
    more.server(4).set_well(false);
    assert_eq!(places(&more), before);
    more.server(4).set_well(true);
    assert_eq!(places(&more), after);

    // Twice the weight, twice the keys.
    let heavy = Lab::new(by_header(), &[2, 1, 1]);
    let mut counts = [0; 3];
    for key in 0..KEYS {
        counts[heavy.choose(Some(key), &[]).unwrap()] += 1;
    }
    assert_shares(&counts, &[2.0, 1.0, 1.0], 0.08);
    assert!(heavy.choose(None, &[]).is_some(), "without a key, any");
}

#[test]
fn who_comes_back_begins_with_a_small_share() {
    fastrand::seed(3);
    for balance in [Balance::LeastRequests, Balance::RoundRobin, by_header()] {
        let mut lab = Lab::new(balance.clone(), &[1, 1]);
        // Long enough that the share does not grow while this runs.
        lab.slow_start = Duration::from_secs(3600);
        let whole = || {
            (0..10_000)
                .filter(|key| lab.choose(Some(*key), &[]) == Some(0))
                .count()
        };
        let before = whole();
        lab.server(0).came_back(millis());
        let share = whole() as f64 / before as f64;
        // A tenth of the draws, of the keys, of the credit: 1 of 11 requests or 1 of 20 instead of 1 of 2.
        assert!((0.05..0.25).contains(&share), "{balance:?}: {share}");
        // Over.
        lab.server(0).came_back(millis().saturating_sub(1).max(1));
        let mut lab = lab;
        lab.slow_start = Duration::from_millis(1);
        let share = (0..10_000)
            .filter(|key| lab.choose(Some(*key), &[]) == Some(0))
            .count();
        assert!(share > before * 8 / 10, "{balance:?}: whole again, {share}");
    }
}

#[test]
fn servers_stay_what_they_are_when_others_come() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    lab.server(1).set_well(false);
    let _one = at(lab.server(1));
    let origins = vec![origin(2, 7), origin(3, 1)];
    let next = Lab::set(&lab.group, origins, Some(&lab.set), &lab.balance);
    let [stayed, new] = &*next.members else {
        panic!("two");
    };
    assert!(Arc::ptr_eq(&stayed.server, lab.server(1)));
    assert_eq!((stayed.weight, stayed.server.in_flight()), (7, 1));
    assert!(!stayed.server.is_well() && new.server.is_well());
    let slow_start = Duration::from_secs(3600);
    assert_eq!(stayed.server.warmth(slow_start), WARM);
    assert_eq!(new.server.warmth(slow_start), 10, "new among old ones");
    assert_eq!(lab.server(0).warmth(slow_start), WARM, "new among new ones");
}

#[test]
fn names_of_several_addresses_have_labels_of_their_own() {
    let lab = Lab::new(Balance::LeastRequests, &[]);
    let name = |answers: &[&str]| {
        let origin = Origin {
            host: "api".into(),
            port: 80,
            tls: true,
            weight: 1,
        };
        let answers = answers.iter().map(|text| text.parse().unwrap()).collect();
        Set::new(&[origin], vec![answers], None, &lab.group, false)
    };
    let labels = |set: Set| -> Vec<String> {
        let members = set.members.iter();
        members
            .map(|member| member.server.label.to_string())
            .collect()
    };
    assert_eq!(labels(name(&["10.0.0.1"])), ["api:80"]);
    let two = name(&["10.0.0.1", "10.0.0.2"]);
    let server = &two.members[0].server;
    assert_eq!(
        (&*server.host, server.authority(), server.tls),
        ("api", "api:80", true)
    );
    assert_eq!(labels(two), ["api:80/10.0.0.1", "api:80/10.0.0.2"]);
    assert_eq!(labels(name(&[])), [""; 0]);
}

const RULES: EjectRules = EjectRules {
    after: 3,
    time: Duration::from_secs(30),
    max_ejected: 0.5,
};

#[test]
fn failures_in_a_row_take_a_server_out() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    lab.eject(RULES);
    let server = lab.server(0);
    let (good, bad) = (Report::Answered(StatusCode::OK), Report::ConnectFailed);
    for report in [bad, bad, good, bad, bad] {
        server.report(report);
        assert!(server.is_in());
    }
    server.report(Report::Answered(StatusCode::BAD_GATEWAY));
    assert!(!server.is_in() && server.is_well());
    assert_eq!(lab.shares(50, 0), [0, 50]);
    let healthy = |label| lab.gauge.with_label_values(&["u", label]).get();
    assert_eq!((healthy("10.0.0.1:80"), healthy("10.0.0.2:80")), (0, 1));
    // The other one may not go as well: half of two is one.
    for _ in 0..20 {
        lab.server(1).report(bad);
    }
    assert!(lab.server(1).is_in());
    // As soon as the first is back, the second has failed too often.
    assert_eq!(lab.group.release(millis() + 31_000), None);
    assert!(server.is_in());
    for _ in 0..3 {
        lab.server(1).report(bad);
    }
    assert!(!lab.server(1).is_in());
}

#[test]
fn who_fails_again_is_out_for_longer() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    lab.eject(RULES);
    let id = lab.server(0).id;
    let mut now = 1_000;
    // Fails as soon as it is back, time and again.
    for times in (1..=9).chain([10, 10, 10]) {
        lab.group.eject(id, now);
        let until = lab.group.release(now).expect("it is out");
        assert_eq!(until - now, times * 30_000, "the {times}th time");
        assert_eq!(lab.group.release(until - 1), Some(until));
        assert_eq!(lab.group.release(until), None);
        assert!(lab.server(0).is_in());
        now = until;
    }
    // It stays in for as long as it was out: a failure after that is like the first.
    now += 300_000;
    lab.group.eject(id, now);
    assert_eq!(lab.group.release(now), Some(now + 30_000));
}

#[test]
fn back_in_a_server_is_on_trial() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    lab.eject(RULES);
    let server = lab.server(0);
    let bad = |times: usize| (0..times).for_each(|_| server.report(Report::Reset));
    bad(3);
    assert_eq!(lab.group.release(u64::MAX), None);
    bad(1);
    assert!(!server.is_in(), "the first failure is enough");
    assert_eq!(lab.group.release(u64::MAX), None);
    server.report(Report::Answered(StatusCode::NOT_FOUND));
    bad(2);
    assert!(server.is_in(), "it has answered");
    bad(1);
    assert!(!server.is_in());
}

#[test]
fn how_many_may_be_out() {
    for (servers, max_ejected, most) in [
        (0, 1.0, 0),
        (1, 1.0, 0),
        (2, 0.5, 1),
        (2, 0.1, 1),
        (2, 1.0, 2),
        (3, 0.5, 1),
        (4, 0.5, 2),
        (10, 0.2, 2),
        (10, 0.0, 0),
    ] {
        let weights = vec![1; servers];
        let lab = Lab::new(Balance::LeastRequests, &weights);
        lab.eject(EjectRules {
            max_ejected,
            ..RULES
        });
        for server in lab.servers() {
            (0..9).for_each(|_| server.report(Report::TimedOut));
        }
        let out = lab
            .servers()
            .iter()
            .filter(|server| !server.is_in())
            .count();
        assert_eq!(out, most, "{servers} servers, {max_ejected}");
    }
}

#[test]
fn new_rules_hold_for_servers_that_stay() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    let server = lab.server(0);
    (0..9).for_each(|_| server.report(Report::Reset));
    assert!(server.is_in(), "no rules, nobody out");
    lab.eject(RULES);
    (0..3).for_each(|_| server.report(Report::Reset));
    assert!(!server.is_in());
    // An upstream that was replaced has no say, one that takes its place has, and may have no rules.
    lab.group.adopt(0, None, &lab.servers(), 0);
    assert!(!server.is_in());
    lab.group.adopt(2, None, &lab.servers(), 0);
    assert!(server.is_in());
    (0..9).for_each(|_| server.report(Report::Reset));
    assert!(server.is_in());
}

#[test]
fn health_and_ejection_combine() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
    lab.eject(RULES);
    let server = lab.server(0);
    (0..3).for_each(|_| server.report(Report::Reset));
    lab.group.set_well(server, false, millis());
    assert_eq!(lab.group.release(u64::MAX), None);
    assert!(
        !server.is_in() && !server.is_well(),
        "back in time, still unwell"
    );
    server.report(Report::Reset);
    lab.group.set_well(server, true, millis());
    assert!(server.is_in(), "the checks have seen it down and up again");
    let gone: Vec<_> = lab.servers().into_iter().skip(1).collect();
    lab.group.adopt(1, Some(RULES), &gone, 0);
    let text = prometheus::TextEncoder::new();
    let families = prometheus::core::Collector::collect(&lab.gauge);
    let text = text.encode_to_string(&families).unwrap();
    assert!(
        text.contains("10.0.0.2") && !text.contains("10.0.0.1"),
        "{text}"
    );
}

/// Where one who waits may get a place: where it could be sent if it came now.
#[test]
fn who_may_be_waited_for() {
    let lab = Lab::new(Balance::LeastRequests, &[1, 1, 1]);
    lab.eject(EjectRules {
        max_ejected: 1.0,
        ..RULES
    });
    let ids: Vec<u64> = lab.servers().iter().map(|server| server.id).collect();
    let choices = |avoid: &[usize]| -> Vec<usize> {
        let avoid: Vec<u64> = avoid.iter().map(|index| ids[*index]).collect();
        let is_choice = |index: &usize| is_choice(&lab.set, lab.server(*index), &avoid);
        let choices: Vec<usize> = (0..3).filter(is_choice).collect();
        for _ in 0..100 {
            let chosen = lab.choose(None, &avoid);
            assert!(chosen.is_none_or(|chosen| choices.contains(&chosen)));
        }
        choices
    };
    assert_eq!(choices(&[]), [0, 1, 2]);
    assert_eq!(choices(&[1]), [0, 2], "away from where it was tried");
    assert_eq!(choices(&[0, 1, 2]), [0, 1, 2], "there is no other place");
    lab.group.eject(ids[0], 1);
    assert_eq!(choices(&[]), [1, 2]);
    assert_eq!(choices(&[1, 2]), [1, 2]);
    lab.server(1).set_well(false);
    assert_eq!(choices(&[]), [2]);
    lab.group.eject(ids[2], 1);
    assert_eq!(choices(&[]), [0, 2], "all are out: who is well");
    assert_eq!(choices(&[2]), [0]);
    let stranger = Lab::new(Balance::LeastRequests, &[1]);
    assert!(!is_choice(&lab.set, stranger.server(0), &[]));
    for server in lab.servers() {
        server.set_well(false);
    }
    assert_eq!(choices(&[]), [0; 0]);
}

/// Who waits gets a place at a server that comes back, without anybody leaving one.
#[tokio::test]
async fn who_comes_back_is_offered_to_those_who_wait() {
    use crate::upstream::Breaker;
    use futures_util::FutureExt as _;
    let limits = Breaker {
        max_connections: 1,
        max_pending: 9,
    };
    for way_back in [0, 1, 2, 3] {
        let lab = Lab::new(Balance::LeastRequests, &[1, 1]);
        lab.eject(RULES);
        let (servers, out) = (lab.servers(), lab.server(1));
        match way_back {
            0 => lab.group.eject(out.id, 1),
            _ => lab.group.set_well(out, false, 1),
        }
        let _busy = at(lab.server(0));
        let set = Arc::new(Lab::set(
            &lab.group,
            vec![origin(1, 1), origin(2, 1)],
            Some(&lab.set),
            &lab.balance,
        ));
        let wish = {
            let set = Arc::clone(&set);
            Box::new(move |server: &Server| is_choice(&set, server, &[]))
        };
        let patience = Duration::from_secs(20);
        let queue = &lab.group.queue;
        let mut entering = Box::pin(queue.enter(limits, &servers, wish, patience));
        assert!(entering.as_mut().now_or_never().is_none());
        match way_back {
            0 => drop(lab.group.release(u64::MAX)),
            1 => lab.group.set_well(out, true, 2),
            2 => {
                // It is found to be well by nobody who says so, but there are new servers, or new rules.
                out.set_well(true);
                lab.group.adopt(2, None, &servers, 2);
            }
            _ => {
                // The busy one is taken out: the other one, though unwell, is no better.
                lab.group.eject(lab.server(0).id, 2);
                assert!(entering.as_mut().now_or_never().is_none());
                continue;
            }
        }
        let place = entering.as_mut().now_or_never().expect("no wait");
        assert_eq!(place.expect("a place").server().id, out.id);
    }
}
