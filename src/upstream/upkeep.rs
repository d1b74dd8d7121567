//! What upstreams need done in the background while their snapshot is in force.

use super::eject::Group;
use super::server::millis;
use super::{Upstream, health, resolve};
use futures_util::FutureExt as _;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long a start or a reload waits for names to be resolved.
const FIRST_ANSWERS: Duration = Duration::from_secs(2);

/// How long a task that panicked rests before it begins again.
const REST: Duration = Duration::from_secs(1);

/// The background tasks of the upstreams in force: names, health, and the return of servers that are out. They end
/// when this is dropped.
#[derive(Debug, Default)]
pub struct Upkeep(Vec<Tasks>);

/// Those of one upstream.
#[derive(Debug)]
struct Tasks {
    upstream: Arc<Upstream>,
    /// Whether every name was tried once.
    tried: watch::Receiver<bool>,
    #[expect(dead_code, reason = "tasks end when it is dropped")]
    running: JoinSet<()>,
}

// === impl Upkeep ===

impl Upkeep {
    /// Starts the tasks of these upstreams in place of those before, and gives names that were never resolved a
    /// moment, so that the first requests find servers. From here on the upstreams' rules hold for their servers,
    /// those included that they have in common with the upstreams before them.
    pub async fn replace(&mut self, upstreams: &[Arc<Upstream>]) {
        // First the old ones end: both would have a say in what becomes of the servers that they share.
        for tasks in std::mem::take(&mut self.0) {
            let name = &tasks.upstream.name;
            if !upstreams.iter().any(|upstream| upstream.name == *name) {
                tasks.retire();
            }
        }
        self.0 = upstreams.iter().map(Tasks::start).collect();
        let deadline = Instant::now() + FIRST_ANSWERS;
        for tasks in &mut self.0 {
            tasks.settled(deadline).await;
        }
    }
}

// === impl Tasks ===

impl Tasks {
    fn start(upstream: &Arc<Upstream>) -> Self {
        let servers = &upstream.servers;
        servers.take_seats(upstream.eject);
        let (tell, tried) = watch::channel(false);
        let mut running = JoinSet::new();
        if servers.has_names() {
            let upstream = Arc::clone(upstream);
            let resolve = move || resolve::run(Arc::clone(&upstream), tell.clone());
            running.spawn(kept_up("names", resolve));
        }
        if upstream.eject.is_some() {
            let group = Arc::clone(&servers.group);
            running.spawn(kept_up("ejection", move || {
                let_in_again(Arc::clone(&group))
            }));
        }
        match &upstream.health {
            Some(rules) => {
                let (upstream, rules) = (Arc::clone(upstream), rules.clone());
                let check = move || health::run(Arc::clone(&upstream), rules.clone());
                running.spawn(kept_up("health", check));
            }
            // Nobody would find out that they are well again.
            None => {
                let unwell = servers.list().into_iter().filter(|one| !one.is_well());
                unwell.for_each(|server| servers.group.set_well(&server, true, millis()));
            }
        }
        Self {
            upstream: Arc::clone(upstream),
            tried,
            running,
        }
    }

    /// Waits until the addresses of every name are known, have turned out not to be had, or time is over.
    async fn settled(&mut self, deadline: Instant) {
        let servers = &self.upstream.servers;
        if servers.are_resolved() {
            return;
        }
        let tried = self.tried.wait_for(|tried| *tried);
        let in_time = tokio::time::timeout_at(deadline, tried).await.is_ok();
        if !in_time || !servers.are_resolved() {
            tracing::warn!(upstream = %self.upstream.name, "names not resolved yet; without any server, requests get 503");
        }
    }

    /// Ends for good: there is no upstream of this name any more.
    fn retire(self) {
        let group = &self.upstream.servers.group;
        group.adopt(u64::MAX, None, &[], millis());
    }
}

/// Has a task begin again that panicked: its upstream must not stay for ever what it was at that moment.
async fn kept_up<T: Future<Output = ()>>(what: &'static str, task: impl Fn() -> T) {
    while AssertUnwindSafe(task()).catch_unwind().await.is_err() {
        tracing::error!(what, "a task of an upstream panicked; it begins again");
        tokio::time::sleep(REST).await;
    }
}

async fn let_in_again(group: Arc<Group>) {
    loop {
        match group.release(millis()) {
            None => group.ejected().await,
            Some(next) => {
                let left = Duration::from_millis(next.saturating_sub(millis()));
                // One that is taken out meanwhile may be back earlier, after a reload with a shorter time.
                let _ = tokio::time::timeout(left, group.ejected()).await;
            }
        }
    }
}
