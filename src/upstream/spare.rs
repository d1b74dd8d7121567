//! A copy of a request's head, for the case that it has to be sent again.
//!
//! Most requests never need theirs, so the copy has to cost next to nothing: header fields are written
//! one after the other into a buffer that the worker uses again, and the target shares its text. Extensions
//! are not copied: each attempt gets its own ([`super::Call::prepare`]).

use super::Upload;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri, Version};
use std::cell::RefCell;

/// Buffers that a worker keeps for the next requests.
const BUFFERS: usize = 256;

thread_local! {
    static FREE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// A head that can be made again.
#[derive(Debug)]
pub(super) struct Spare {
    method: Method,
    uri: Uri,
    version: Version,
    fields: Fields,
}

/// Header fields, written flat: length of the name, length of the value, name, value.
struct Fields(Vec<u8>);

// === impl Spare ===

impl Spare {
    /// A copy of this head.
    pub(super) fn of(request: &Request<Upload>) -> Self {
        let mut fields = Fields::empty();
        for (name, value) in request.headers() {
            fields.push(name.as_str().as_bytes(), value.as_bytes());
        }
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            fields,
        }
    }

    /// The request again, with this body.
    pub(super) fn request(&self, body: Upload) -> Request<Upload> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.fields.headers();
        request
    }
}

// === impl Fields ===

impl Fields {
    fn empty() -> Self {
        let free = FREE.try_with(|free| free.borrow_mut().pop());
        Self(free.ok().flatten().unwrap_or_default())
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        for part in [name, value] {
            // Heads are bounded far below 4 GiB.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            self.0.extend_from_slice(&length.to_be_bytes());
        }
        self.0.extend_from_slice(name);
        self.0.extend_from_slice(value);
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut rest = self.0.as_slice();
        while let Some((name, value)) = next(&mut rest) {
            // Both come out of a map of headers, so both are valid.
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name), HeaderValue::from_bytes(value))
            {
                headers.append(name, value);
            }
        }
        headers
    }
}

/// The next field, taken off `rest`.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let mut length = || -> Option<usize> {
        let (length, behind) = rest.split_first_chunk::<4>()?;
        *rest = behind;
        usize::try_from(u32::from_be_bytes(*length)).ok()
    };
    let (name, value) = (length()?, length()?);
    let (name, behind) = rest.split_at_checked(name)?;
    let (value, behind) = behind.split_at_checked(value)?;
    *rest = behind;
    Some((name, value))
}

impl Drop for Fields {
    fn drop(&mut self) {
        let mut buffer = std::mem::take(&mut self.0);
        buffer.clear();
        // At the end of a thread its buffers are gone, and this one goes with them.
        let _ = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < BUFFERS {
                free.push(buffer);
            }
        });
    }
}

impl std::fmt::Debug for Fields {
    /// Shows no value: tokens are among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Fields").field(&self.0.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Spare;
    use crate::upstream::Upload;
    use http::{Request, Version};

    #[test]
    fn a_copy_is_the_same_head() {
        let long = "v".repeat(70_000);
        for _ in 0..2 {
            let request = Request::put("/a/b?c=d")
                .version(Version::HTTP_11)
                .header("host", "a")
                .header("x-empty", "")
                .header("x-twice", "1")
                .header("x-twice", "2")
                .header("x-bytes", [0xff, b' ', 0xfe].as_slice())
                .header("x-long", &long)
                .extension(5_u8)
                .body(Upload::Empty)
                .expect("a request");
            let again = Spare::of(&request).request(Upload::Empty);
            assert_eq!(again.method(), request.method());
            assert_eq!(again.uri(), request.uri());
            assert_eq!(again.version(), request.version());
            assert_eq!(again.headers(), request.headers());
            // What goes along with a head is put there at each attempt.
            assert!(again.extensions().is_empty());
        }
    }

    #[test]
    fn what_was_copied_before_is_not_in_the_next_copy() {
        let head = |name: &str| {
            let request = Request::get("/").header(name, "x").body(Upload::Empty);
            Spare::of(&request.expect("a request")).request(Upload::Empty)
        };
        assert!(head("x-first").headers().contains_key("x-first"));
        assert_eq!(head("x-second").headers().len(), 1);
    }
}
