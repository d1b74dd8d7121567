//! Why a request got no response.

use super::{NoToken, Report};
use rustix::io::Errno;
use std::fmt;
use std::io;
use std::sync::Arc;

/// Why there is no connection to a server. Nothing of a request has been sent.
#[derive(Debug, Clone)]
pub enum ConnectError {
    /// TCP: refused, unreachable, no such name.
    Tcp(Arc<io::Error>),
    /// The gateway or its machine has run out of file descriptors, ports or memory. Says nothing of the server.
    Local(Arc<io::Error>),
    /// The TLS handshake failed; most often a certificate of either side does not please the other.
    Tls(Arc<io::Error>),
    /// Not within `connect_timeout`, the TLS handshake included.
    Timeout,
    /// TLS is fine, but the server does not agree to speak HTTP/2 (ALPN, RFC 7301).
    NotHttp2,
    /// The connection ended before the server had sent its HTTP/2 settings (RFC 9113 §3.4).
    NoSettings,
    /// The server lets no request on any HTTP/2 connection.
    NoStream,
    /// The HTTP layer could not begin.
    Http(Arc<hyper::Error>),
}

/// Why a request got no response.
#[derive(Debug)]
pub enum SendError {
    /// No server is known to be well.
    NoServer,
    /// The gateway's own token has ended while the request waited, and there is no other; nothing of this
    /// attempt was sent.
    NoToken(NoToken),
    /// No connection could be made; nothing was sent.
    Connect(ConnectError),
    /// `max_connections` requests are in flight, and either `max_pending` wait already or this one
    /// has waited for `connect_timeout`; nothing was sent.
    Overloaded,
    /// No head of a response within `response_timeout`, or the route's `timeout` has passed.
    Timeout,
    /// The upstream's answer is not HTTP.
    Protocol(hyper::Error),
    /// The connection ended before the head of a response.
    Reset(hyper::Error),
    /// The request's own body failed; [`super::UploadState`] knows why.
    Upload,
}

/// What an error on an HTTP/2 connection means for the request that met it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Http2Fault {
    /// The server says that it has not worked on the request: REFUSED_STREAM, or a GOAWAY that
    /// leaves its stream out (RFC 9113 §6.8, §8.7).
    Unprocessed,
    /// What the server sent breaks the rules of HTTP/2.
    Protocol,
    /// The stream or the connection ended otherwise.
    Reset,
}

// === impl Http2Fault ===

impl Http2Fault {
    /// Reads the cause of an error; `None` if it does not come from HTTP/2.
    ///
    /// hyper keeps the reason to itself, so its text is read. `tests/it/proxying/upstream_http2.rs` makes
    /// such errors on real connections and fails when the text changes.
    pub(super) fn of(error: &hyper::Error) -> Option<Self> {
        let mut cause = std::error::Error::source(error);
        while let Some(known) = cause {
            let text = known.to_string();
            if text.starts_with("connection error received")
                || text.starts_with("stream error received: refused stream")
            {
                return Some(Self::Unprocessed);
            }
            if text.starts_with("connection error detected")
                || text.starts_with("stream error detected")
            {
                return Some(Self::Protocol);
            }
            if text.starts_with("stream error") {
                return Some(Self::Reset);
            }
            cause = known.source();
        }
        None
    }
}

// === impl ConnectError ===

impl ConnectError {
    /// What an error of the system says on the way to a connection.
    pub(super) fn of(error: io::Error) -> Self {
        let here = matches!(
            Errno::from_io_error(&error),
            Some(Errno::MFILE | Errno::NFILE | Errno::ADDRNOTAVAIL | Errno::NOBUFS | Errno::NOMEM)
        );
        match here {
            true => Self::Local(Arc::new(error)),
            false => Self::Tcp(Arc::new(error)),
        }
    }
}

// === impl SendError ===

impl SendError {
    /// What hyper's error is about.
    pub(super) fn of(error: hyper::Error) -> Self {
        if error.is_user() {
            return Self::Upload;
        }
        let invalid = error.is_parse() || error.is_parse_too_large();
        if invalid || Http2Fault::of(&error) == Some(Http2Fault::Protocol) {
            return Self::Protocol(error);
        }
        Self::Reset(error)
    }

    /// What this says of the server that was asked, if it says something.
    pub(super) fn report(&self) -> Option<Report> {
        match self {
            Self::Connect(ConnectError::Local(_)) => None,
            Self::Connect(_) => Some(Report::ConnectFailed),
            Self::Timeout => Some(Report::TimedOut),
            Self::Protocol(_) => Some(Report::Protocol),
            Self::Reset(_) => Some(Report::Reset),
            Self::NoServer | Self::NoToken(_) | Self::Overloaded | Self::Upload => None,
        }
    }
}

impl From<ConnectError> for SendError {
    fn from(error: ConnectError) -> Self {
        Self::Connect(error)
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(error) => error.fmt(f),
            Self::Local(error) => write!(
                f,
                "the gateway itself cannot open a connection: {error}; look at its limit of open files and the range of local ports"
            ),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::Timeout => f.write_str("no connection in connect_timeout"),
            Self::NotHttp2 => f.write_str(
                "the server does not agree to HTTP/2 in the TLS handshake (ALPN h2); set protocol = \"http1\" or enable it there",
            ),
            Self::NoSettings => f.write_str(
                "the connection ended before the server sent HTTP/2 settings; set protocol = \"http1\" if it speaks no HTTP/2",
            ),
            Self::NoStream => f.write_str("the server allows no request on its HTTP/2 connections"),
            Self::Http(error) => error.fmt(f),
        }
    }
}

impl fmt::Display for SendError {
    /// For the log, never for clients.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoServer => f.write_str("no server is known to be well"),
            Self::NoToken(why) => why.fmt(f),
            Self::Connect(error) => error.fmt(f),
            Self::Overloaded => f.write_str("max_connections requests are in flight"),
            Self::Timeout => f.write_str("no response head in time"),
            Self::Protocol(error) | Self::Reset(error) => match std::error::Error::source(error) {
                Some(cause) => write!(f, "{error}: {cause}"),
                None => error.fmt(f),
            },
            Self::Upload => f.write_str("the request body failed"),
        }
    }
}

impl std::error::Error for ConnectError {}

impl std::error::Error for SendError {}

#[cfg(test)]
mod tests {
    use super::{ConnectError, Errno, SendError};
    use crate::upstream::Report;
    use std::io;

    #[test]
    fn what_runs_out_here_says_nothing_of_the_server() {
        for (errno, expected) in [
            (Errno::MFILE, None),
            (Errno::NFILE, None),
            (Errno::ADDRNOTAVAIL, None),
            (Errno::NOBUFS, None),
            (Errno::NOMEM, None),
            (Errno::CONNREFUSED, Some(Report::ConnectFailed)),
            (Errno::HOSTUNREACH, Some(Report::ConnectFailed)),
            (Errno::TIMEDOUT, Some(Report::ConnectFailed)),
        ] {
            let error = ConnectError::of(io::Error::from(errno));
            assert_eq!(SendError::from(error).report(), expected, "{errno:?}");
        }
    }
}
