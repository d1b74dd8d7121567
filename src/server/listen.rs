//! Listening sockets and the accept loop of each worker.

use super::transport::Accepted;
use super::{Shared, Stage, connection};
use prometheus::IntGauge;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};

/// Connections that the kernel completes ahead of `accept`.
const BACKLOG: i32 = 4096;

/// Pause after `accept` fails, which is nearly always for want of file descriptors.
const BREATHER: Duration = Duration::from_millis(50);

/// A listening socket, not yet attached to a worker.
#[derive(Debug)]
pub struct Bound {
    socket: std::net::TcpListener,
    /// The address, with the port that was really given.
    pub address: SocketAddr,
}

/// A listening socket of one worker.
#[derive(Debug)]
pub struct Listener {
    socket: std::net::TcpListener,
    /// The name in metrics.
    name: Arc<str>,
    worker: usize,
}

/// Where a connection was accepted.
#[derive(Debug)]
pub(super) struct Origin {
    /// The worker that serves it.
    pub worker: usize,
    /// The listener's gauge of open connections.
    pub gauge: IntGauge,
}

/// Binds an address. All workers accept from one socket, so that a second gateway on the same port
/// is refused by the kernel, and a closing worker loses nobody's connection.
///
/// # Errors
/// If the address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<Bound> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket: std::net::TcpListener = socket.into();
    let address = socket.local_addr()?;
    Ok(Bound { socket, address })
}

impl Bound {
    /// The socket for the present runtime.
    ///
    /// # Errors
    /// If it cannot be attached.
    pub fn into_tokio(self) -> io::Result<TcpListener> {
        TcpListener::from_std(self.socket)
    }

    /// The socket for one more worker.
    ///
    /// # Errors
    /// If the socket cannot be duplicated.
    pub fn for_worker(&self, worker: usize) -> io::Result<Listener> {
        Ok(Listener {
            socket: self.socket.try_clone()?,
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
        name,
        worker,
    } = listener;
    let socket = TcpListener::from_std(socket)?;
    let _listening = shared.drain.listening();
    let gauge = shared
        .observer
        .metrics
        .connections
        .with_label_values(&[&*name]);
    let start = |stream: TcpStream, peer: SocketAddr| {
        let accepted = Accepted {
            stream: stream.into(),
            peer,
        };
        let origin = Origin {
            worker,
            gauge: gauge.clone(),
        };
        tokio::spawn(connection::run(accepted, origin, Arc::clone(&shared)));
    };
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
            Ok((stream, peer)) => start(stream, peer),
            Err(error) => {
                tracing::warn!(listener = %name, %error, "a connection could not be accepted");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
    // Who has completed a connection by now is still served. The kernel is asked, not the runtime,
    // which may not have heard of the last ones.
    let socket = socket.into_std()?;
    while let Ok((stream, peer)) = socket.accept() {
        stream.set_nonblocking(true)?;
        start(TcpStream::from_std(stream)?, peer);
    }
    // Connections count themselves when they first run: before this task runs again.
    tokio::task::yield_now().await;
    Ok(())
}
