//! Who gets the places that become free: no socket, and no waiting but where it is the matter.

use super::*;
use futures_util::FutureExt as _;
use std::pin::Pin;
use std::sync::atomic::AtomicBool;

const LONG: Duration = Duration::from_secs(20);

/// Servers of one upstream.
fn servers(number: u8) -> Vec<Arc<Server>> {
    let addresses = (1..=number).map(|ip| ([127, 0, 0, ip], 1).into());
    Server::alone(addresses).into_iter().map(Arc::new).collect()
}

fn limits(max_connections: usize, max_pending: usize) -> Breaker {
    Breaker {
        max_connections,
        max_pending,
    }
}

type Entering<'a> = Pin<Box<dyn Future<Output = Result<InFlight, SendError>> + Send + 'a>>;

/// Begins to wait for a place at any of these servers.
fn enter<'a>(limits: Breaker, servers: &'a [Arc<Server>]) -> Entering<'a> {
    enter_if(limits, servers, |_| true)
}

fn enter_if<'a>(
    limits: Breaker,
    servers: &'a [Arc<Server>],
    wish: impl Fn(&Server) -> bool + Send + Sync + 'static,
) -> Entering<'a> {
    let queue = &servers[0].queue;
    Box::pin(queue.enter(limits, servers, Box::new(wish), LONG))
}

fn waits(entering: &mut Entering<'_>) -> bool {
    entering.as_mut().now_or_never().is_none()
}

/// Where one got a place that need not wait any more.
fn place(mut entering: Entering<'_>) -> InFlight {
    let entered = entering.as_mut().now_or_never();
    entered.expect("no wait").expect("a place")
}

fn try_enter(limits: Breaker, server: &Arc<Server>) -> Option<InFlight> {
    limits.try_enter(Arc::clone(server)).ok()
}

#[track_caller]
fn assert_at_rest(servers: &[Arc<Server>]) {
    for server in servers {
        assert_eq!(server.in_flight(), 0);
        assert!(server.queue.is_empty() && server.queue.line().waiters.is_empty());
    }
}

#[tokio::test]
async fn places_are_given_and_given_back() {
    let (limits, servers) = (limits(2, 1), servers(1));
    let server = &servers[0];
    let first = try_enter(limits, server).expect("a place");
    let second = try_enter(limits, server).expect("a place");
    assert!(try_enter(limits, server).is_none());
    assert_eq!(server.in_flight(), 2, "an attempt leaves nothing behind");
    let mut third = enter(limits, &servers);
    assert!(waits(&mut third));
    let surplus = enter(limits, &servers).now_or_never();
    assert!(
        matches!(surplus, Some(Err(SendError::Overloaded))),
        "at once"
    );
    drop(first);
    assert!(try_enter(limits, server).is_none(), "it is the third's");
    drop((second, place(third)));
    assert_at_rest(&servers);
    assert!(try_enter(limits, server).is_some());
}

#[tokio::test]
async fn the_first_place_of_any_server_goes_to_the_first_in_line() {
    let (limits, servers) = (limits(1, 9), servers(3));
    let mut taken: Vec<_> = servers
        .iter()
        .map(|server| try_enter(limits, server).expect("a place"))
        .collect();
    let mut first = enter(limits, &servers);
    let mut second = enter(limits, &servers);
    assert!(waits(&mut first) && waits(&mut second));
    // It is given before the one who waits runs, and before anybody who comes now.
    drop(taken.remove(1));
    let mut third = enter(limits, &servers);
    assert!(waits(&mut third));
    for server in &servers {
        assert!(try_enter(limits, server).is_none());
    }
    let first = place(first);
    assert_eq!(first.server().id, servers[1].id);
    assert!(waits(&mut second));
    drop(taken.remove(1));
    let second = place(second);
    assert_eq!(second.server().id, servers[2].id);
    drop(taken);
    drop((place(third), first, second));
    assert_at_rest(&servers);
}

/// A place that the first in line may not have goes to the first who may, and one who may not have what is free holds
/// up nobody.
#[tokio::test]
async fn a_place_goes_to_the_first_who_may_have_it() {
    let (limits, servers) = (limits(1, 9), servers(2));
    let (one, two) = (servers[0].id, servers[1].id);
    let taken: Vec<_> = servers
        .iter()
        .map(|server| try_enter(limits, server).expect("a place"))
        .collect();
    let mut not_one = enter_if(limits, &servers, move |server| server.id != one);
    let mut any = enter(limits, &servers);
    assert!(waits(&mut not_one) && waits(&mut any));
    let mut taken = taken.into_iter();
    drop(taken.next());
    assert!(waits(&mut not_one));
    let any = place(any);
    assert_eq!(any.server().id, one);
    drop(any);
    // Somebody waits, so there is no way around the line, but through it.
    assert!(try_enter(limits, &servers[0]).is_none());
    let later = place(enter(limits, &servers));
    assert_eq!(later.server().id, one);
    drop(taken.next());
    let not_one = place(not_one);
    assert_eq!(not_one.server().id, two);
    drop((later, not_one));
    assert_at_rest(&servers);
}

#[tokio::test]
async fn who_may_have_a_server_later_gets_it_when_that_is_said() {
    let (limits, servers) = (limits(2, 9), servers(1));
    let well = Arc::new(AtomicBool::new(false));
    let is_well = Arc::clone(&well);
    let mut waiting: Vec<_> = (0..3)
        .map(|_| {
            let is_well = Arc::clone(&is_well);
            enter_if(limits, &servers, move |_| is_well.load(SeqCst))
        })
        .collect();
    assert!(waiting.iter_mut().all(waits));
    well.store(true, SeqCst);
    servers[0].queue.hand_out(&servers[0]);
    let mut third = waiting.pop().expect("three");
    let places: Vec<_> = waiting.into_iter().map(place).collect();
    assert!(waits(&mut third), "there are two places");
    drop(places);
    drop(place(third));
    assert_at_rest(&servers);
}

#[tokio::test]
async fn who_leaves_is_taken_out_and_passes_the_place_on() {
    let (limits, servers) = (limits(1, 3), servers(1));
    let only = try_enter(limits, &servers[0]).expect("a place");
    let mut line: Vec<_> = (0..3).map(|_| enter(limits, &servers)).collect();
    assert!(line.iter_mut().all(waits));
    // One in the middle, without having been given anything: there is room for another one at the end.
    drop(line.remove(1));
    line.push(enter(limits, &servers));
    assert!(waits(&mut line[2]));
    drop(only);
    // The first has been given the place, and goes without having looked.
    drop(line.remove(0));
    drop(place(line.remove(0)));
    drop(place(line.remove(0)));
    assert_at_rest(&servers);
}

#[tokio::test]
async fn waiting_ends() {
    let (limits, servers) = (limits(1, 1), servers(1));
    let only = try_enter(limits, &servers[0]).expect("a place");
    let short = Duration::from_millis(20);
    let queue = &servers[0].queue;
    let waited = queue
        .enter(limits, &servers, Box::new(|_| true), short)
        .await;
    assert!(matches!(waited, Err(SendError::Overloaded)));
    drop(only);
    assert_at_rest(&servers);
}

/// Those of before a reload keep to their limit, those behind it to theirs, and neither is forgotten.
#[tokio::test]
async fn limits_are_those_of_who_waits() {
    let (old, new, servers) = (limits(1, 9), limits(3, 9), servers(1));
    let only = try_enter(old, &servers[0]).expect("a place");
    let mut before = enter(old, &servers);
    assert!(waits(&mut before));
    let two = (place(enter(new, &servers)), place(enter(new, &servers)));
    assert!(waits(&mut before));
    drop((only, two.0));
    assert!(waits(&mut before), "one is there");
    drop(two.1);
    drop(place(before));
    assert_at_rest(&servers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_place_is_lost_between_threads() {
    let (limits, servers) = (limits(2, 1000), Arc::new(servers(2)));
    let holding = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let tasks: Vec<_> = (0..64)
        .map(|task: usize| {
            let (servers, holding) = (Arc::clone(&servers), Arc::clone(&holding));
            tokio::spawn(async move {
                for round in 0..200 {
                    let place = match try_enter(limits, &servers[(task + round) % 2]) {
                        Some(place) => place,
                        None if round % 7 == 0 => {
                            // Leaves again, perhaps just when it is given a place.
                            let mut entering = enter(limits, &servers);
                            let _ = entering.as_mut().now_or_never();
                            tokio::task::yield_now().await;
                            continue;
                        }
                        None => enter(limits, &servers).await.expect("a place"),
                    };
                    let at = usize::from(place.server().id != servers[0].id);
                    assert!(holding[at].fetch_add(1, SeqCst) < 2);
                    tokio::task::yield_now().await;
                    holding[at].fetch_sub(1, SeqCst);
                    drop(place);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no one is forgotten");
    }
    assert_at_rest(&servers);
}
