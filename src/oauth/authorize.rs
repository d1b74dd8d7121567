//! `GET {prefix}/authorize`: checks what a browser asks for and sends it on to the issuer.
//!
//! A mistake is told here and by no redirect: only the issuer knows whether a `redirect_uri` is the
//! client's (RFC 6749 §4.1.2.1), and to believe it would make the gateway send people anywhere.

use bytes::Bytes;
use http::header::{HeaderValue, LOCATION};
use http::{Response, StatusCode, Uri};

use super::Surface;
use super::endpoint::Answer;
use super::errors::{OAuthError, forbid_storing};
use super::form::Params;
use super::grant::Grant;
use super::reply::Outcome;

/// The query of an authorization request that may go on. Has no `Debug`: it is the user's.
pub struct Request<'q>(&'q str);

/// Without these no issuer can do anything but refuse.
const REQUIRED: [&str; 3] = ["client_id", "response_type", "redirect_uri"];

// === impl Request ===

impl<'q> Request<'q> {
    /// Reads a query. What it says besides `client_id`, `response_type` and `redirect_uri` is between
    /// client and issuer.
    ///
    /// # Errors
    ///
    /// The first mistake found. A parameter that occurs twice is one (RFC 6749 §3.1).
    pub fn read(surface: &Surface, query: Option<&'q str>) -> Result<Self, OAuthError> {
        let query = query.unwrap_or_default();
        if !query.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(OAuthError::BadQuery);
        }
        let params = Params::of_query(query)?;
        for name in REQUIRED {
            let given = params.get(name).ok_or(OAuthError::MissingParameter(name))?;
            let fine = match name {
                "response_type" if !is_enabled(surface, given.expose()) => {
                    Err(OAuthError::UnsupportedResponseType)
                }
                "redirect_uri" if !is_absolute(given.expose()) => Err(OAuthError::BadRedirectUri),
                _ => Ok(()),
            };
            fine?;
        }
        Ok(Self(query))
    }

    /// Sends the browser on to the issuer's authorization endpoint, the query byte for byte as it
    /// came behind what the endpoint has of its own.
    ///
    /// # Errors
    ///
    /// [`OAuthError::NoSuchEndpoint`] if the endpoint cannot be written into a header.
    pub fn redirect(&self, endpoint: &Uri) -> Result<Answer, OAuthError> {
        let separator = match endpoint.query() {
            None => '?',
            Some(_) => '&',
        };
        let mut location = HeaderValue::try_from(format!("{endpoint}{separator}{}", self.0))
            .map_err(|_| OAuthError::NoSuchEndpoint)?;
        location.set_sensitive(true);
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(LOCATION, location);
        forbid_storing(response.headers_mut());
        Ok(Answer {
            response,
            outcome: Outcome::Redirected,
        })
    }
}

/// Whether users may log in for this. `token` never: the token would be part of an address, which
/// browsers and servers keep (RFC 9700 §2.1.2).
fn is_enabled(surface: &Surface, response_type: &str) -> bool {
    let code = surface.grants.contains(&Grant::AuthorizationCode);
    // A set of words in any order (OAuth 2.0 Multiple Response Type Encoding Practices §2).
    response_type.split(' ').all(|word| match word {
        "code" => code,
        "id_token" => true,
        _ => false,
    })
}

/// Whether this is a URI with a scheme and without a fragment (RFC 6749 §3.1.2). Apps have schemes of
/// their own, so any will do.
fn is_absolute(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    let of_scheme = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.');
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(of_scheme)
        && !rest.is_empty()
        && !rest.contains(|c: char| c == '#' || c == '\\' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::ErrorFormat;

    fn surface(grants: &[Grant]) -> Surface {
        Surface {
            name: "bonterra".into(),
            grants: grants.to_vec(),
            max_body: 1024,
            realm: "bonterra".into(),
            errors: ErrorFormat::OAuth,
            forward_client_address: false,
        }
    }

    fn read(query: &str) -> Result<(), OAuthError> {
        Request::read(&surface(&Grant::ALL), Some(query)).map(|_| ())
    }

    const GOOD: &str = "response_type=code&client_id=i&redirect_uri=https%3A%2F%2Fa%2Fcb";

    #[test]
    fn what_may_go_on() {
        for query in [
            GOOD.to_owned(),
            format!("{GOOD}&scope=openid+profile&state=%22x&nonce=n&audience=a&x=%F0%9F%98%80"),
            format!("&{GOOD}&&state="),
            "redirect_uri=app.example:/cb?x=1&client_id=%20&response_type=id_token".to_owned(),
            "redirect_uri=http://127.0.0.1:1/&client_id=i&response_type=id_token%20code".to_owned(),
        ] {
            assert_eq!(read(&query), Ok(()), "{query}");
        }
    }

    #[test]
    fn what_is_refused() {
        use OAuthError as E;
        let missing = E::MissingParameter;
        let rows: [(&str, E); 24] = [
            ("", missing("client_id")),
            ("client_id=&response_type=code", missing("client_id")),
            ("client_id=i", missing("response_type")),
            ("client_id=i&response_type=code", missing("redirect_uri")),
            ("client_id=i&client_id=i", E::Repeated(Some("client_id"))),
            ("state=1&state=2", E::Repeated(Some("state"))),
            ("state=&st%61te=", E::Repeated(Some("state"))),
            ("x=1&x=2", E::Repeated(None)),
            ("client_id=%", E::BadQuery),
            ("client_id=%ff", E::BadQuery),
            ("=x", E::BadQuery),
            ("client_id=\u{e9}", E::BadQuery),
            (
                "client_id=i&response_type=token",
                E::UnsupportedResponseType,
            ),
            (
                "client_id=i&response_type=code+token",
                E::UnsupportedResponseType,
            ),
            (
                "client_id=i&response_type=id_token%20token",
                E::UnsupportedResponseType,
            ),
            ("client_id=i&response_type=Code", E::UnsupportedResponseType),
            ("client_id=i&response_type=none", E::UnsupportedResponseType),
            (
                "client_id=i&response_type=code%20",
                E::UnsupportedResponseType,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=/cb",
                E::BadRedirectUri,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=https:",
                E::BadRedirectUri,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=https://a/%23x",
                E::BadRedirectUri,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=https://a/%0d%0ax",
                E::BadRedirectUri,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=https:%5C%5Ca",
                E::BadRedirectUri,
            ),
            (
                "client_id=i&response_type=code&redirect_uri=1a:b",
                E::BadRedirectUri,
            ),
        ];
        for (query, expected) in rows {
            assert_eq!(read(query), Err(expected), "{query}");
        }
        let many: String = (0..101).map(|n| format!("p{n}=1&")).collect();
        assert_eq!(read(&many), Err(E::TooManyParameters));
        let machines = surface(&[Grant::ClientCredentials]);
        assert_eq!(
            Request::read(&machines, Some(GOOD)).err(),
            Some(E::UnsupportedResponseType)
        );
        assert_eq!(
            Request::read(&machines, None).err(),
            Some(missing("client_id"))
        );
    }

    #[test]
    fn the_query_stays_as_it_is() {
        let query = format!("{GOOD}&state=a%2Bb+c%20%e2%82%ac&&x");
        let surface = surface(&Grant::ALL);
        let request = Request::read(&surface, Some(&query)).ok().unwrap();
        for (endpoint, begin) in [
            ("https://a/authorize", "https://a/authorize?"),
            ("https://a", "https://a/?"),
            (
                "https://a:8443/authorize?tenant=1",
                "https://a:8443/authorize?tenant=1&",
            ),
        ] {
            let answer = request.redirect(&endpoint.parse().unwrap()).unwrap();
            assert_eq!(answer.response.status(), 302);
            let headers = answer.response.headers();
            assert_eq!(headers[LOCATION], format!("{begin}{query}"));
            assert_eq!(headers["cache-control"], "no-store");
            assert!(!format!("{answer:?} {headers:?}").contains("state"));
        }
    }
}
