//! A TCP stream that gathers small writes into one plain `send`, which costs the kernel less than
//! a vectored one. Heads and small bodies are nearly all that a gateway writes.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes up to which copying is cheaper than a vector.
const SMALL: usize = 2048;

/// A TCP stream with gathered writes.
#[derive(Debug)]
pub struct Gathered(pub TcpStream);

impl AsyncRead for Gathered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = parts {
            return Pin::new(&mut self.0).poll_write(cx, only);
        }
        let mut small = [0; SMALL];
        let mut filled = 0;
        for part in parts {
            let Some(room) = small.get_mut(filled..filled + part.len()) else {
                return Pin::new(&mut self.0).poll_write_vectored(cx, parts);
            };
            room.copy_from_slice(part);
            filled += part.len();
        }
        let gathered = small.get(..filled).unwrap_or_default();
        Pin::new(&mut self.0).poll_write(cx, gathered)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
