//! Request heads as text: the lines of RFC 9112, ended by LF with or without CR, and nothing repaired.

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version};

/// The request line and the header lines as a head, unless `http` itself refuses them.
pub fn read(data: &[u8]) -> Option<Parts> {
    let mut lines = data.split(|byte| *byte == b'\n').map(without_cr);
    let (method, target, version) = request_line(lines.next()?)?;
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = method.try_into().ok()?;
    head.uri = target.try_into().ok()?;
    head.version = match version {
        b"HTTP/1.1" => Version::HTTP_11,
        b"HTTP/1.0" => Version::HTTP_10,
        _ => return None,
    };
    head.headers = fields(lines)?;
    Some(head)
}

/// Method, target and version: what is before the first space, between, and behind the last.
pub fn request_line(line: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (method, rest) = split_at_space(line, line.iter().position(|b| *b == b' '))?;
    let (target, version) = split_at_space(rest, rest.iter().rposition(|b| *b == b' '))?;
    Some((method, target, version))
}

fn split_at_space(text: &[u8], at: Option<usize>) -> Option<(&[u8], &[u8])> {
    Some((text.get(..at?)?, text.get(at? + 1..)?))
}

/// Header lines up to the first empty one.
pub fn fields<'l>(lines: impl Iterator<Item = &'l [u8]>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let value = value.get(1..)?.trim_ascii();
        let name = HeaderName::from_bytes(name).ok()?;
        headers.append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// A line without the CR at its end.
pub fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}
