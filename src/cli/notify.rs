//! Tells the service manager how it goes (`sd_notify(3)`): a datagram to the socket that it names.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Requests can be served.
pub const READY: &str = "READY=1";
/// The configuration is being read again.
pub const RELOADING: &str = "RELOADING=1";
/// No more requests are wanted.
pub const STOPPING: &str = "STOPPING=1";

/// Sends a state. Without a service manager that has asked for it, nothing happens.
pub fn notify(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(name.as_bytes(), state) {
        tracing::warn!(%error, state, "the service manager cannot be told; see NOTIFY_SOCKET");
    }
}

/// A name that begins with `@` is abstract: there is no file.
fn send(name: &[u8], state: &str) -> io::Result<()> {
    let address = match name {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?,
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that is too busy to listen must not hold the gateway up.
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut space = [0; 64];
        let read = socket.recv(&mut space).expect("a datagram");
        String::from_utf8_lossy(space.get(..read).expect("what was read")).into_owned()
    }

    #[test]
    fn by_a_file_and_by_an_abstract_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        send(path.as_os_str().as_bytes(), READY).expect("sent");
        assert_eq!(heard(&socket), READY);

        let name = format!("bonterra-gateway-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        send(format!("@{name}").as_bytes(), STOPPING).expect("sent");
        assert_eq!(heard(&socket), STOPPING);
        drop(socket);
        assert!(send(format!("@{name}").as_bytes(), READY).is_err());
    }
}
