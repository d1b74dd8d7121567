//! Addresses, and the sockets that listen on them.

use super::transport::{Accepted, Transport};
use socket2::{Domain, Protocol, SockAddr, SockFilter, SockRef, Type};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Connections that the kernel completes ahead of `accept`.
const BACKLOG: i32 = 4096;

/// Who comes by a Unix socket has no address; it counts as this one.
const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Where to listen.
#[derive(Clone, PartialEq, Eq)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// A Unix socket, and the mode of its file.
    Unix(PathBuf, u32),
}

/// A listening socket, not yet attached to a worker.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    /// The address, with the port that was really given.
    pub address: Address,
    /// What happens to connections that nobody has accepted when the gateway drains.
    pub(super) queue: Queue,
    /// The file of a Unix socket that this process has made.
    pub file: Option<SocketFile>,
}

/// Connections that wait to be accepted when the gateway drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Queue {
    /// Are lost unless they are accepted before the socket is closed.
    Own,
    /// The same, but another process may have the address too. The kernel deals connections out to
    /// all who listen on a port, so that new ones keep coming: it has to be stopped first.
    Dealt,
    /// Are left to whoever else has the socket.
    Inherited,
}

/// A listening socket of either kind.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

/// A listening socket that is attached to a runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// For TCP.
    Tcp(tokio::net::TcpListener),
    /// For Unix sockets.
    Unix(tokio::net::UnixListener),
}

/// The file of a Unix socket, removed when this is dropped unless somebody else's is there by then.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
}

/// Binds an address. All workers accept from one socket, so that a second gateway on the same port
/// is refused by the kernel, unless both say `reuse_port`, and a closing worker loses nobody's
/// connection.
///
/// # Errors
/// If the address cannot be had.
pub fn bind(address: &Address, reuse_port: bool) -> io::Result<Bound> {
    match address {
        Address::Tcp(address) => bind_tcp(*address, reuse_port),
        Address::Unix(path, mode) => {
            let (socket, file) = bind_unix(path, *mode, reuse_port)?;
            Ok(Bound {
                socket: Socket::Unix(socket),
                address: address.clone(),
                queue: own_or_dealt(reuse_port),
                file: Some(file),
            })
        }
    }
}

fn own_or_dealt(reuse_port: bool) -> Queue {
    if reuse_port { Queue::Dealt } else { Queue::Own }
}

fn bind_tcp(address: SocketAddr, reuse_port: bool) -> io::Result<Bound> {
    let domain = Domain::for_address(address);
    let socket = socket2::Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let socket: std::net::TcpListener = socket.into();
    let address = Address::Tcp(socket.local_addr()?);
    Ok(Bound {
        socket: Socket::Tcp(socket),
        address,
        queue: own_or_dealt(reuse_port),
        file: None,
    })
}

/// The socket is made under another name, and gets its own when it is listening and has its mode:
/// nobody ever finds it in between, and one that is taken over is never missed.
fn bind_unix(
    path: &Path,
    mode: u32,
    take_over: bool,
) -> io::Result<(std::os::unix::net::UnixListener, SocketFile)> {
    check_free(path, take_over)?;
    // Short: a path has 107 bytes at most.
    let new = path.with_file_name(format!(".{:07x}", fastrand::u32(..1 << 28)));
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(&new)?)?;
    let ready = || {
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        let file = SocketFile {
            path: path.to_owned(),
            id: id(&new)?,
        };
        std::fs::rename(&new, path)?;
        Ok(file)
    };
    let file = ready().inspect_err(|_: &io::Error| drop(std::fs::remove_file(&new)))?;
    Ok((socket.into(), file))
}

/// A socket that nobody listens on is left over from a gateway that was killed.
fn check_free(path: &Path, take_over: bool) -> io::Result<()> {
    let there = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.file_type().is_socket() {
        let text = "there is a file of that name which is no socket; remove it";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    // A full queue must not hold this up: whoever has it is there.
    let socket = socket2::Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        _ if take_over => Ok(()),
        // Also if nobody accepts any more: somebody has it open.
        _ => Err(io::ErrorKind::AddrInUse.into()),
    }
}

fn id(path: &Path) -> io::Result<(u64, u64)> {
    let there = std::fs::symlink_metadata(path)?;
    Ok((there.dev(), there.ino()))
}

// === impl Address ===

impl Address {
    /// The IP address and port, if it has any.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(..) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path, _) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// As it is written in the file, for logs.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Bound ===

impl Bound {
    /// A socket that another process has bound.
    pub(super) fn inherited(socket: Socket, address: Address) -> Self {
        Self {
            socket,
            address,
            queue: Queue::Inherited,
            file: None,
        }
    }

    /// The socket for the present runtime.
    ///
    /// # Errors
    /// If it cannot be attached.
    pub fn into_tokio(self) -> io::Result<Acceptor> {
        self.socket.into_tokio()
    }

    /// The same socket once more.
    pub(super) fn duplicate(&self) -> io::Result<Socket> {
        Ok(match &self.socket {
            Socket::Tcp(socket) => Socket::Tcp(socket.try_clone()?),
            Socket::Unix(socket) => Socket::Unix(socket.try_clone()?),
        })
    }
}

// === impl Socket ===

impl Socket {
    pub(super) fn into_tokio(self) -> io::Result<Acceptor> {
        Ok(match self {
            Self::Tcp(socket) => Acceptor::Tcp(tokio::net::TcpListener::from_std(socket)?),
            Self::Unix(socket) => Acceptor::Unix(tokio::net::UnixListener::from_std(socket)?),
        })
    }

    /// The next connection that the kernel has completed; an error if there is none.
    pub(super) fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                stream.set_nonblocking(true)?;
                let stream = tokio::net::TcpStream::from_std(stream)?.into();
                Ok(Accepted { stream, peer })
            }
            Self::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                stream.set_nonblocking(true)?;
                Ok(local(tokio::net::UnixStream::from_std(stream)?))
            }
        }
    }
}

fn local(stream: tokio::net::UnixStream) -> Accepted {
    let stream = Transport::from(stream);
    Accepted {
        stream,
        peer: LOCAL,
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// The next connection.
    ///
    /// # Errors
    /// If it has gone again, or there is no file descriptor for it.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(socket) => {
                let (stream, peer) = socket.accept().await?;
                let stream = stream.into();
                Ok(Accepted { stream, peer })
            }
            Self::Unix(socket) => Ok(local(socket.accept().await?.0)),
        }
    }

    pub(super) fn into_std(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(socket) => Socket::Tcp(socket.into_std()?),
            Self::Unix(socket) => Socket::Unix(socket.into_std()?),
        })
    }

    /// Has the kernel drop connection attempts, while those under way are still completed. A client
    /// repeats its attempt after a second, and by then somebody else listens.
    pub(super) fn refuse_attempts(&self) -> io::Result<()> {
        /// From the TCP header: the byte of flags; SYN without ACK or RST is dropped.
        const FILTER: [SockFilter; 5] = [
            SockFilter::new(0x30, 0, 0, 13),       // load the byte at 13
            SockFilter::new(0x54, 0, 0, 0x16),     // and with SYN | ACK | RST
            SockFilter::new(0x15, 0, 1, 0x02),     // is it SYN alone?
            SockFilter::new(0x06, 0, 0, 0),        // then drop it
            SockFilter::new(0x06, 0, 0, u32::MAX), // else take it whole
        ];
        match self {
            Self::Tcp(socket) => SockRef::from(socket).attach_filter(&FILTER),
            Self::Unix(_) => Ok(()),
        }
    }
}

// === impl SocketFile ===

impl Drop for SocketFile {
    fn drop(&mut self) {
        if id(&self.path).is_ok_and(|there| there == self.id) {
            // What cannot be removed is replaced at the next start.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
