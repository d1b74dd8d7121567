//! Listening sockets that the process was started with (`sd_listen_fds(3)`): systemd, or whatever
//! else holds them, keeps them open while one gateway ends and the next one starts.

use super::bind::{Address, Bound, Socket};
use listenfd::ListenFd;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// The sockets, until they are taken.
#[derive(Debug, Default)]
pub struct Inherited(Vec<Handed>);

#[derive(Debug)]
struct Handed {
    socket: Socket,
    /// Where it listens. The mode of a Unix socket is whatever it is.
    address: Address,
    /// For messages: its number, and its name of `LISTEN_FDNAMES`.
    label: String,
}

// === impl Inherited ===

impl Inherited {
    /// Takes the sockets of `LISTEN_FDS`, if they are meant for this process (`LISTEN_PID`), and
    /// removes those variables. To be called before there are threads.
    ///
    /// # Errors
    /// In words, which of them is no listening socket.
    pub fn from_environment() -> Result<Self, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut given = ListenFd::from_env();
        let mut names = names.split(':');
        let mut handed = Vec::new();
        for index in 0..given.len() {
            let name = names.next().filter(|name| !name.is_empty());
            let name = name.map_or_else(String::new, |name| format!(" ({name})"));
            let label = format!("inherited socket {}{name}", index + 1);
            let taken = take(&mut given, index).map_err(|error| format!("{label}: {error}"))?;
            if let Some((socket, address)) = taken {
                handed.push(Handed {
                    socket,
                    address,
                    label,
                });
            }
        }
        Ok(Self(handed))
    }

    /// The socket that listens on this address, if there is one.
    pub fn take(&mut self, address: &Address) -> Option<Bound> {
        let same = |handed: &Handed| match (&handed.address, address) {
            (Address::Tcp(own), Address::Tcp(wanted)) => own == wanted,
            (Address::Unix(own, _), Address::Unix(wanted, _)) => own == wanted,
            _ => false,
        };
        let at = self.0.iter().position(same)?;
        let handed = self.0.swap_remove(at);
        Some(Bound::inherited(handed.socket, address.clone()))
    }

    /// Whether all have been taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Those that nobody has taken.
impl fmt::Display for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Handed { label, address, .. }) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{label} at {address}")?;
        }
        Ok(())
    }
}

fn take(given: &mut ListenFd, index: usize) -> io::Result<Option<(Socket, Address)>> {
    if let Ok(taken) = given.take_tcp_listener(index) {
        return taken.map(of_tcp).transpose();
    }
    given.take_unix_listener(index)?.map(of_unix).transpose()
}

fn of_tcp(socket: TcpListener) -> io::Result<(Socket, Address)> {
    check(socket2::SockRef::from(&socket))?;
    let address = Address::Tcp(socket.local_addr()?);
    Ok((Socket::Tcp(socket), address))
}

fn of_unix(socket: UnixListener) -> io::Result<(Socket, Address)> {
    check(socket2::SockRef::from(&socket))?;
    let address = socket.local_addr()?;
    let path = address.as_pathname().ok_or_else(|| {
        let text = "it is a Unix socket without a path";
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let address = Address::Unix(path.to_owned(), 0);
    Ok((Socket::Unix(socket), address))
}

fn check(socket: socket2::SockRef<'_>) -> io::Result<()> {
    if !socket.is_listener()? {
        let text = "it does not listen; use Accept=no in the .socket unit";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    socket.set_nonblocking(true)
}
