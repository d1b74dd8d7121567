//! What the gateway understands of a request, normalised once: what is matched is what is sent.

use crate::identity::Thumbprint;
use crate::rejection::{Reason, Rejection};
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Method, Version};
use ipnet::IpNet;
use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Proxies in front of the gateway whose `X-Forwarded-*` are believed.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies(Box<[IpNet]>);

/// The two ends of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// Who connected.
    pub address: SocketAddr,
    /// Whether that is one of `trusted_proxies`, and what comes is its own word.
    pub trusted: bool,
    /// Whether it speaks TLS with the gateway.
    pub secure: bool,
    /// The client certificate that it has shown.
    pub certificate: Option<Thumbprint>,
}

/// A request as the deciding code sees it. It borrows the head and changes nothing in it.
pub struct RequestView<'r> {
    /// The method.
    pub method: &'r Method,
    /// The host: lower case, without port and without a trailing dot.
    pub host: Cow<'r, str>,
    /// The path in its canonical form. Borrowed when the client sent it so.
    pub path: Cow<'r, str>,
    /// The query, without the `?`.
    pub query: Option<&'r str>,
    /// All header fields as they came.
    pub headers: &'r HeaderMap,
    /// The other end of the connection.
    pub peer: Peer,
    /// The client's address: the peer's, or what trusted proxies say it is. `None` if they say
    /// something that is no address.
    pub client: Option<IpAddr>,
}

/// The methods that a route for any method is known to serve, for `Allow`. Others go through too,
/// but for `CONNECT` and `TRACE`.
pub const SERVED: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

// === impl TrustedProxies ===

impl TrustedProxies {
    /// The networks that are believed.
    pub fn new(networks: impl IntoIterator<Item = IpNet>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// Whether this address is one of them. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Describes a peer that speaks no TLS.
    pub fn peer(&self, address: SocketAddr) -> Peer {
        Peer {
            address,
            trusted: self.contains(address.ip()),
            secure: false,
            certificate: None,
        }
    }

    /// The client behind trusted proxies: the rightmost address in `X-Forwarded-For` which is not
    /// itself a trusted proxy. What lies left of it may be invented and is not read.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let own = peer.address.ip().to_canonical();
        if !peer.trusted {
            return Some(own);
        }
        let mut client = own;
        for value in headers.get_all(X_FORWARDED_FOR).iter().rev() {
            for hop in value.to_str().unwrap_or_default().rsplit(',') {
                client = parse_hop(hop.trim())?;
                if !self.contains(client) {
                    return Some(client);
                }
            }
        }
        Some(client)
    }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text
        .parse::<IpAddr>()
        .or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()))
        .or_else(|_| {
            text.trim_start_matches('[')
                .trim_end_matches(']')
                .parse::<IpAddr>()
        })
        .ok()?;
    Some(address.to_canonical())
}

// === impl Peer ===

impl Peer {
    /// The scheme of what it asks for, as far as this connection goes.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }
}

// === impl RequestView ===

impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header fields and the query hold secrets.
        f.debug_struct("RequestView")
            .field("method", &self.method)
            .field("host", &self.host)
            .field("path", &self.path)
            .field("peer", &self.peer)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl<'r> RequestView<'r> {
    /// Reads a head, or refuses it as ambiguous.
    ///
    /// # Errors
    /// [`Reason::BadRequest`] for a missing, repeated or malformed `Host`, an absolute-form target
    /// with another authority (RFC 9112 §3.2.2), and every path that two parties could read
    /// differently. [`Reason::MethodNotAllowed`] for `CONNECT` and `TRACE`.
    ///
    /// A head of HTTP/2 has its `:authority` as `Host`.
    pub fn new(head: &'r Parts, peer: Peer, trusted: &TrustedProxies) -> Result<Self, Rejection> {
        if matches!(head.method, Method::CONNECT | Method::TRACE) {
            return Err(Reason::MethodNotAllowed(SERVED.join(", ").into()).into());
        }
        let host = host(head)?;
        let target = head
            .uri
            .path_and_query()
            .ok_or_else(|| bad("the target has no path"))?;
        let path = canonical_path(target.path())?;
        match head.version {
            Version::HTTP_2 => plain_fields(head)?,
            version if version <= Version::HTTP_11 => plain_framing(head)?,
            _ => return Err(bad("HTTP version not supported")),
        }
        Ok(Self {
            method: &head.method,
            host,
            path,
            query: target.query(),
            headers: &head.headers,
            peer,
            client: trusted.client(peer, &head.headers),
        })
    }

    /// The canonical path, where it differs from the one sent.
    pub fn canonical(self) -> Option<String> {
        match self.path {
            Cow::Borrowed(_) => None,
            Cow::Owned(path) => Some(path),
        }
    }
}

fn bad(note: &'static str) -> Rejection {
    Rejection::noted(Reason::BadRequest, note)
}

/// RFC 9112 §6.1: `chunked` is the only transfer coding that we take, once, and not in HTTP/1.0.
fn plain_framing(head: &Parts) -> Result<(), Rejection> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    let plain = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
    if plain && head.version == Version::HTTP_11 {
        return Ok(());
    }
    Err(bad("a transfer coding other than chunked"))
}

/// What HTTP/1.1's parser and the watcher of its heads see to, for heads that came as HTTP/2: it must
/// be possible to write them as HTTP/1.1, and then to read them in one way only.
fn plain_fields(head: &Parts) -> Result<(), Rejection> {
    // One that was left out, with the authority: it would be the root (RFC 9113 §8.3.1).
    if head.uri.path().is_empty() {
        return Err(bad("the target has no path"));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("Transfer-Encoding in HTTP/2"));
    }
    let mut lengths = head.headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| {
        let digits = length.as_bytes();
        !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
    };
    if lengths.next().is_some_and(|length| !is_number(length)) || lengths.next().is_some() {
        return Err(bad("Content-Length is no number, or there more than once"));
    }
    let query = head.uri.query().unwrap_or_default();
    if !query.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(bad("a byte in the query that has to be escaped"));
    }
    Ok(())
}

/// The host of the request (RFC 9110 §7.2), normalised.
fn host(head: &Parts) -> Result<Cow<'_, str>, Rejection> {
    let mut values = head.headers.get_all(HOST).iter();
    let value = values.next().ok_or_else(|| bad("no Host"))?;
    if values.next().is_some() {
        return Err(bad("Host twice"));
    }
    let text = value.to_str().map_err(|_| bad("Host is not ASCII"))?;
    let host = bare_host(text)?;
    if let Some(authority) = head.uri.authority() {
        // A target that names another host than `Host` is read differently by different servers.
        if bare_host(authority.as_str())? != host {
            return Err(bad("the target's authority is not the Host"));
        }
    }
    Ok(host)
}

/// Strips port and trailing dot, folds case, and refuses userinfo and what is no host at all.
fn bare_host(text: &str) -> Result<Cow<'_, str>, Rejection> {
    if is_bare(text) {
        return Ok(Cow::Borrowed(text));
    }
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest
                .find(']')
                .ok_or_else(|| bad("Host has an open bracket"))?;
            (&text[..end + 2], rest.get(end + 1..).unwrap_or_default())
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port_is_fine = port.is_empty()
        || port
            .strip_prefix(':')
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && digits.len() <= 5);
    let name = name.strip_suffix('.').unwrap_or(name);
    if !port_is_fine || !is_host(name) {
        return Err(bad("Host is no host"));
    }
    Ok(if name.bytes().any(|b| b.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    })
}

/// Whether this is a host with nothing to strip, fold or refuse, as most are.
fn is_bare(text: &str) -> bool {
    let mut before = b'.';
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => {}
            b'.' if before != b'.' => {}
            _ => return false,
        }
        before = byte;
    }
    before != b'.'
}

/// A name of non-empty labels, or an IPv6 address in brackets (RFC 3986 §3.2.2).
fn is_host(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    match name.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => name
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(plain)),
    }
}

/// The canonical form of a path (RFC 3986 §6.2.2): escapes of unreserved characters are undone,
/// the others are written in upper case, and what no path may have as it is (`|`) is escaped.
///
/// A path which upstreams are known to read differently from proxies is refused rather than
/// repaired: dot segments, empty segments, backslashes, path parameters, and the escapes of any
/// of these or of control characters.
///
/// # Errors
/// [`Reason::BadRequest`] with a note that names the offence.
pub fn canonical_path(raw: &str) -> Result<Cow<'_, str>, Rejection> {
    if !raw.starts_with('/') {
        return Err(bad("the target is no absolute path"));
    }
    let bytes = raw.as_bytes();
    let plain = bytes
        .iter()
        .all(|b| matches!(b, b'/' | b'-' | b'_' | b'~') || b.is_ascii_alphanumeric());
    if plain && !raw.contains("//") {
        return Ok(Cow::Borrowed(raw));
    }
    let path = undo_escapes(raw)?;
    if path.contains("//") {
        return Err(bad("empty path segment"));
    }
    if path
        .split('/')
        .any(|segment| segment == "." || segment == "..")
    {
        return Err(bad("dot segment in the path"));
    }
    // Overlong and broken UTF-8 would decode differently elsewhere.
    if percent_encoding::percent_decode_str(&path)
        .decode_utf8()
        .is_err()
    {
        return Err(bad("escapes that are no UTF-8 in the path"));
    }
    Ok(path)
}

fn undo_escapes(raw: &str) -> Result<Cow<'_, str>, Rejection> {
    let bytes = raw.as_bytes();
    let mut out: Option<String> = None;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let (decoded, width, differs) = if byte == b'%' {
            let value = escape(bytes, at).ok_or_else(|| bad("a % that escapes nothing"))?;
            (unescaped(value)?, 3, true)
        } else {
            let plain = allowed(byte)?;
            (plain.then_some(byte), 1, !plain)
        };
        if differs && out.is_none() {
            out = Some(raw[..at].to_owned());
        }
        if let Some(out) = &mut out {
            match decoded {
                Some(byte) => out.push(char::from(byte)),
                None if width == 1 => out.push_str(&format!("%{byte:02X}")),
                None => out.push_str(&raw[at..at + 3].to_ascii_uppercase()),
            }
        }
        at += width;
    }
    Ok(out.map_or(Cow::Borrowed(raw), Cow::Owned))
}

fn escape(bytes: &[u8], at: usize) -> Option<u8> {
    let digit = |offset: usize| {
        bytes
            .get(at + offset)
            .and_then(|b| char::from(*b).to_digit(16))
    };
    u8::try_from(digit(1)? * 16 + digit(2)?).ok()
}

/// What an escape stands for: `Some` for a character that never needed it, `None` to keep it.
fn unescaped(value: u8) -> Result<Option<u8>, Rejection> {
    match value {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => Ok(Some(value)),
        0..=0x1f | 0x7f => Err(bad("an escaped control character in the path")),
        b'/' | b'\\' | b';' | b'%' => Err(bad("an escaped delimiter in the path")),
        _ => Ok(None),
    }
}

/// Whether it may stand in a path as it is (`pchar`, RFC 3986 §3.3); some stand for themselves escaped.
fn allowed(byte: u8) -> Result<bool, Rejection> {
    match byte {
        b'\\' => Err(bad("a backslash in the path")),
        b';' => Err(bad("a path parameter")),
        b'#' => Err(bad("a fragment in the target")),
        b'"' | b'<' | b'>' | b'[' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => Ok(false),
        0x21..=0x7e => Ok(true),
        _ => Err(bad("a byte in the path that has to be escaped")),
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
