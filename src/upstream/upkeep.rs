//! What an upstream needs done in the background while its snapshot is in force.

use super::eject::Group;
use super::server::millis;
use super::{Upstream, health, resolve};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The background tasks of an upstream: names, health, and the return of servers that are out. They end when this is
/// dropped.
#[derive(Debug)]
pub struct Upkeep {
    upstream: Arc<Upstream>,
    /// Whether every name was tried once.
    tried: watch::Receiver<bool>,
    #[expect(dead_code, reason = "tasks end when it is dropped")]
    tasks: JoinSet<()>,
}

// === impl Upkeep ===

impl Upkeep {
    /// Starts the tasks of an upstream. From here on its rules hold for its servers, those included that it has in
    /// common with the upstream before it.
    pub fn start(upstream: &Arc<Upstream>) -> Self {
        upstream.servers.take_seats(upstream.eject);
        let (tell, tried) = watch::channel(false);
        let mut tasks = JoinSet::new();
        if upstream.servers.has_names() {
            tasks.spawn(resolve::run(Arc::clone(upstream), tell));
        }
        if upstream.eject.is_some() {
            tasks.spawn(let_in_again(Arc::clone(&upstream.servers.group)));
        }
        match &upstream.health {
            Some(rules) => drop(tasks.spawn(health::run(Arc::clone(upstream), rules.clone()))),
            // Nobody would find out that it is well again.
            None => {
                for server in upstream.servers.list() {
                    if !server.is_well() {
                        upstream.servers.group.set_well(&server, true, millis());
                    }
                }
            }
        }
        Self {
            upstream: Arc::clone(upstream),
            tried,
            tasks,
        }
    }

    /// The name of the upstream.
    pub fn name(&self) -> &str {
        &self.upstream.name
    }

    /// Waits until the addresses of every name are known, have turned out not to be had, or `patience` is over.
    pub async fn settled(&mut self, patience: Duration) {
        if self.upstream.servers.are_resolved() {
            return;
        }
        let tried = self.tried.wait_for(|tried| *tried);
        let in_time = tokio::time::timeout(patience, tried).await.is_ok();
        if !in_time || !self.upstream.servers.are_resolved() {
            tracing::warn!(upstream = %self.upstream.name, "names not resolved yet; without any server, requests get 503");
        }
    }

    /// Ends for good: there is no upstream of this name any more.
    pub fn retire(self) {
        self.upstream
            .servers
            .group
            .adopt(u64::MAX, None, &[], millis());
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
