//! What carries a client's bytes.

use crate::socket::Gathered;
use bytes::{Bytes, BytesMut};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A connection that the kernel has just handed over.
#[derive(Debug)]
pub struct Accepted {
    /// Its bytes.
    pub stream: Transport,
    /// Who connected.
    pub peer: SocketAddr,
}

/// A client's byte stream.
#[derive(Debug)]
pub struct Transport {
    /// Bytes that were read to find out what the client speaks, and are to be read again.
    unread: Bytes,
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Tcp(Gathered),
    Unix(UnixStream),
    Tls(Box<TlsStream<Transport>>),
}

// === impl Transport ===

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::new(Stream::Tcp(Gathered(stream)))
    }
}

impl From<UnixStream> for Transport {
    fn from(stream: UnixStream) -> Self {
        Self::new(Stream::Unix(stream))
    }
}

impl From<Box<TlsStream<Transport>>> for Transport {
    fn from(stream: Box<TlsStream<Transport>>) -> Self {
        Self::new(Stream::Tls(stream))
    }
}

impl Transport {
    fn new(stream: Stream) -> Self {
        let unread = Bytes::new();
        Self { unread, stream }
    }

    /// Has small answers go out at once.
    ///
    /// # Errors
    /// If the connection has ended already.
    pub(super) fn set_nodelay(&self) -> io::Result<()> {
        match &self.stream {
            Stream::Tcp(stream) => stream.0.set_nodelay(true),
            Stream::Unix(_) => Ok(()),
            Stream::Tls(stream) => stream.get_ref().0.set_nodelay(),
        }
    }

    /// Whether it came by a Unix socket, and so from no address.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.stream, Stream::Unix(_))
    }

    /// Gives back what was read too early: it is read again before anything else.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = if self.unread.is_empty() {
            bytes
        } else {
            let mut both = BytesMut::from(bytes);
            both.extend_from_slice(&self.unread);
            both.freeze()
        };
    }
}

/// The same call on whichever stream there is.
macro_rules! on_stream {
    ($transport:expr, $stream:ident => $call:expr) => {
        match &mut $transport.get_mut().stream {
            Stream::Tcp($stream) => $call,
            Stream::Unix($stream) => $call,
            Stream::Tls($stream) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.unread.is_empty() {
            let here = self.unread.len().min(buffer.remaining());
            buffer.put_slice(&self.unread.split_to(here));
            return Poll::Ready(Ok(()));
        }
        on_stream!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        on_stream!(self, stream => Pin::new(stream).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Tcp(stream) => stream.is_write_vectored(),
            Stream::Unix(stream) => stream.is_write_vectored(),
            // Head and body go into one record.
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_stream!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}
