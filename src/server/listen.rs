//! The accept loop of each worker.

use super::bind::{Acceptor, Bound, Queue, Socket};
use super::transport::Accepted;
use super::{Shared, Stage, connection};
use crate::keys::KeyStatus;
use prometheus::IntGauge;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Pause after `accept` fails, which is nearly always for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(50);

/// How long a gateway that takes over from another waits for its issuers' keys before it accepts.
const KEYS: Duration = Duration::from_secs(5);

/// Longer than the last part of a handshake takes: connections that have begun are completed, and
/// accepted, before the socket is closed.
const HANDSHAKES: Duration = Duration::from_millis(250);

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    queue: Queue,
    /// The name in metrics.
    name: Arc<str>,
    worker: usize,
}

/// Where a connection was accepted.
#[derive(Debug)]
pub(super) struct Origin {
    /// The worker that serves it.
    pub worker: usize,
    /// The listener's name in metrics.
    pub listener: Arc<str>,
    /// The listener's gauge of open connections.
    pub gauge: IntGauge,
}

impl Bound {
    /// The socket for one more worker.
    ///
    /// # Errors
    /// If the socket cannot be duplicated.
    pub fn for_worker(&self, worker: usize) -> io::Result<Listener> {
        Ok(Listener {
            socket: self.duplicate()?,
            queue: self.queue,
            name: self.address.to_string().into(),
            worker,
        })
    }
}

/// Accepts until the gateway drains. Runs on the worker that serves the connections.
///
/// # Errors
/// If the socket cannot be attached to the worker.
pub async fn serve(listener: Listener, shared: Arc<Shared>) -> io::Result<()> {
    let Listener {
        socket,
        queue,
        name,
        worker,
    } = listener;
    let socket = socket.into_tokio()?;
    let _listening = shared.drain.listening();
    let metrics = &shared.observer.metrics;
    let gauge = metrics.connections.with_label_values(&[&*name]);
    let start = |accepted: Accepted| {
        let origin = Origin {
            worker,
            listener: Arc::clone(&name),
            gauge: gauge.clone(),
        };
        tokio::spawn(connection::run(accepted, origin, Arc::clone(&shared)));
    };
    if queue != Queue::Own {
        // Somebody else serves meanwhile, or clients wait in the queue: better than a refusal.
        let _ = tokio::time::timeout(KEYS, keys_are_there(&shared)).await;
    }
    let bell = shared.drain.bell(worker);
    loop {
        // Before the look at the stage, or a bell between the two would go unheard.
        let rung = bell.notified();
        if shared.drain.stage() >= Stage::Draining {
            break;
        }
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            () = rung => continue,
        };
        match accepted {
            Ok(accepted) => start(accepted),
            Err(error) => failed(&shared, &name, &error).await,
        }
    }
    if queue == Queue::Dealt {
        while_others_take_over(&socket, &name, &start).await;
    }
    if queue != Queue::Inherited {
        // Who has completed a connection by now is still served. The kernel is asked, not the
        // runtime, which may not have heard of the last ones.
        let socket = socket.into_std()?;
        while let Ok(accepted) = socket.accept() {
            start(accepted);
        }
    }
    // Connections count themselves when they first run: before this task runs again.
    tokio::task::yield_now().await;
    Ok(())
}

async fn keys_are_there(shared: &Shared) {
    let there = || {
        let snapshot = shared.snapshot.load();
        let now = snapshot.clock.now();
        let mut issuers = snapshot.issuers.iter();
        issuers.all(|issuer| issuer.status(now) != KeyStatus::Missing)
    };
    while !there() && shared.drain.stage() < Stage::Draining {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A connection that has gone before it could be accepted is no trouble; anything else is likely to
/// come again at once, so it is given a moment, and told once.
pub(crate) async fn failed(shared: &Shared, listener: &str, error: &io::Error) {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    if matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    ) {
        return;
    }
    let metrics = &shared.observer.metrics;
    metrics
        .accept_errors_total
        .with_label_values(&[listener])
        .inc();
    if shared.door.failed() {
        tracing::warn!(listener, %error, "connections cannot be accepted; those that are open are served, and new ones wait");
    }
    tokio::time::sleep(BREATHER).await;
}

/// The kernel deals connections out to every process that listens on the port with `SO_REUSEPORT`,
/// and those dealt to a socket that is being closed are lost. So it is told to begin no more here.
async fn while_others_take_over(socket: &Acceptor, name: &str, start: &impl Fn(Accepted)) {
    if let Err(error) = socket.refuse_attempts() {
        tracing::warn!(listener = name, %error, "connection attempts cannot be held off; some may be lost as the socket closes");
    }
    let accept = async {
        loop {
            match socket.accept().await {
                Ok(accepted) => start(accepted),
                Err(_) => tokio::time::sleep(BREATHER).await,
            }
        }
    };
    let _ = tokio::time::timeout(HANDSHAKES, accept).await;
}
