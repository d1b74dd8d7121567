//! How a client authenticates at the token endpoint, and that it does so in one way only.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::errors::OAuthError;
use super::form::{Params, decode_form_text};

/// The one way in which a client authenticated; it is passed on the way it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// HTTP Basic (`client_secret_basic`); the header as it came, marked sensitive.
    Basic(HeaderValue),
    /// `client_id` and `client_secret` in the body (`client_secret_post`).
    Post,
    /// `client_assertion` in the body (`private_key_jwt`, RFC 7523 §2.2).
    Assertion,
    /// `client_id` alone: a public client.
    Public,
}

// === impl ClientAuth ===

impl ClientAuth {
    /// Whether it proves who the client is.
    #[must_use]
    pub const fn is_confidential(&self) -> bool {
        match self {
            Self::Basic(_) | Self::Post | Self::Assertion => true,
            Self::Public => false,
        }
    }

    /// The id that the client goes by, unproven. An assertion without `client_id` beside it has it in
    /// its `sub` (RFC 7523 §3); who names two is nobody.
    #[must_use]
    pub fn client_id(&self, params: &Params) -> Option<String> {
        match self {
            Self::Basic(header) => basic_pair(header).ok().map(|(id, _)| id),
            Self::Post | Self::Public => Some(params.get("client_id")?.expose().to_owned()),
            Self::Assertion => {
                let given = params.get("client_id").map(|id| id.expose().to_owned());
                let subject = subject(params.get("client_assertion")?.expose());
                match (given, subject) {
                    (Some(given), Some(subject)) if given != subject => None,
                    (given, subject) => given.or(subject),
                }
            }
        }
    }

    /// Id and secret, of a client that authenticates by them. For comparing, never for a log.
    #[must_use]
    pub fn password(&self, params: &Params) -> Option<(String, String)> {
        match self {
            Self::Basic(header) => basic_pair(header).ok(),
            Self::Post => {
                let [id, secret] = ["client_id", "client_secret"].map(|name| params.get(name));
                Some((id?.expose().to_owned(), secret?.expose().to_owned()))
            }
            Self::Assertion | Self::Public => None,
        }
    }
}

/// The `sub` of a JWT that nobody has verified.
fn subject(jwt: &str) -> Option<String> {
    let payload = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    Some(claims.get("sub")?.as_str()?.to_owned())
}

/// Padding is optional: some clients leave it out, and the issuer has the last word.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Finds the one way in which the client authenticates (RFC 6749 §2.3).
///
/// # Errors
///
/// 400 for several ways, for parts of one that are missing and for two differing client ids;
/// 401 for an `Authorization` header that is no Basic credential.
pub fn find(headers: &HeaderMap, params: &Params) -> Result<ClientAuth, OAuthError> {
    let mut authorizations = headers.get_all(AUTHORIZATION).into_iter();
    let authorization = authorizations.next();
    let secret = params.get("client_secret").is_some();
    let assertion = params.get("client_assertion").is_some();
    let ways = usize::from(authorization.is_some()) + usize::from(secret) + usize::from(assertion);
    if ways > 1 || authorizations.next().is_some() {
        return Err(OAuthError::SeveralClientAuthentications);
    }
    let required = |name| match params.get(name) {
        Some(_) => Ok(()),
        None => Err(OAuthError::MissingParameter(name)),
    };
    if params.get("client_assertion_type").is_some() {
        required("client_assertion")?;
    }
    if let Some(header) = authorization {
        let (id, _) = basic_pair(header)?;
        let same = params
            .get("client_id")
            .is_none_or(|given| given.expose() == id);
        if !same {
            return Err(OAuthError::OtherClientId);
        }
        let mut header = header.clone();
        header.set_sensitive(true);
        return Ok(ClientAuth::Basic(header));
    }
    if assertion {
        // The assertion names the client, in `sub`; `client_id` beside it is optional (RFC 7521 §4.2).
        required("client_assertion_type")?;
        return Ok(ClientAuth::Assertion);
    }
    required("client_id")?;
    Ok(if secret {
        ClientAuth::Post
    } else {
        ClientAuth::Public
    })
}

/// Client id and secret in a Basic credential, form-decoded (RFC 6749 §2.3.1).
///
/// Clients that skip the form-encoding are common, so an id or secret that does not decode is taken
/// as it stands; whether it is right is the issuer's to say.
fn basic_pair(header: &HeaderValue) -> Result<(String, String), OAuthError> {
    let text = header.to_str().map_err(|_| OAuthError::BadBasic)?;
    let (scheme, credential) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(OAuthError::UnsupportedAuthorization);
    }
    let pair = BASE64
        .decode(credential.trim())
        .map_err(|_| OAuthError::BadBasic)?;
    let pair = String::from_utf8(pair).map_err(|_| OAuthError::BadBasic)?;
    let decoded = |half: &str| decode_form_text(half.as_bytes()).unwrap_or_else(|| half.to_owned());
    match pair.split_once(':') {
        Some((id, secret)) if !id.is_empty() => Ok((decoded(id), decoded(secret))),
        Some(_) | None => Err(OAuthError::BadBasic),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::CONTENT_TYPE;

    fn way(authorization: &[&str], body: &str) -> Result<&'static str, OAuthError> {
        let mut headers = HeaderMap::new();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(CONTENT_TYPE, form);
        let params = Params::read(&headers, body.as_bytes())?;
        for value in authorization {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        find(&headers, &params).map(|found| match found {
            ClientAuth::Basic(header) => {
                assert!(header.is_sensitive());
                assert_eq!(header, authorization[0]);
                "basic"
            }
            ClientAuth::Post => "post",
            ClientAuth::Assertion => "assertion",
            ClientAuth::Public => "public",
        })
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64.encode(pair))
    }

    #[test]
    fn one_way() {
        let id_secret = basic("id:secret");
        let encoded = basic("i%20d%3A+x:s");
        let raw = basic("100%:50%");
        let rows: [(&[&str], &str, &str); 12] = [
            (&[&id_secret], "", "basic"),
            (&["basic aWQ6c2VjcmV0"], "", "basic"),
            (&["BASIC  aWQ6cw=="], "", "basic"),
            (&["Basic aWQ6cw"], "", "basic"),
            (&[&id_secret], "client_id=id", "basic"),
            (&[&id_secret], "client_secret=&client_id=", "basic"),
            (&[&encoded], "client_id=i+d%3A+x", "basic"),
            (&[&raw], "client_id=100%25", "basic"),
            (&[], "client_id=id&client_secret=s", "post"),
            (&[], "client_id=id&client_secret=", "public"),
            (
                &[],
                "client_assertion=j&client_assertion_type=t",
                "assertion",
            ),
            (
                &[],
                "client_assertion=j&client_assertion_type=t&client_id=id",
                "assertion",
            ),
        ];
        for (authorization, body, expected) in rows {
            assert_eq!(
                way(authorization, body),
                Ok(expected),
                "{authorization:?} {body}"
            );
        }
    }

    #[test]
    fn refused() {
        use OAuthError as E;
        let id_secret = basic("id:secret");
        let several = E::SeveralClientAuthentications;
        let rows: [(&[&str], &str, E); 16] = [
            (&[&id_secret, &id_secret], "", several),
            (&[&id_secret], "client_secret=s", several),
            (
                &[&id_secret],
                "client_assertion=j&client_assertion_type=t",
                several,
            ),
            (
                &[],
                "client_id=id&client_secret=s&client_assertion=j",
                several,
            ),
            (&["Bearer x"], "client_id=id&client_secret=s", several),
            (&[&id_secret], "client_id=other", E::OtherClientId),
            (&[&id_secret], "client_id=ID", E::OtherClientId),
            (&["Bearer x"], "client_id=id", E::UnsupportedAuthorization),
            (&["Basic"], "", E::BadBasic),
            (&["Basic !!!"], "", E::BadBasic),
            (&["Basic aWQ"], "", E::BadBasic),
            (&[&basic(":secret")], "", E::BadBasic),
            (&["Basic /zrA"], "", E::BadBasic),
            (&[], "client_secret=s", E::MissingParameter("client_id")),
            (
                &[],
                "client_assertion=j",
                E::MissingParameter("client_assertion_type"),
            ),
            (
                &[],
                "client_id=id&client_assertion_type=t",
                E::MissingParameter("client_assertion"),
            ),
        ];
        for (authorization, body, expected) in rows {
            assert_eq!(
                way(authorization, body),
                Err(expected),
                "{authorization:?} {body}"
            );
        }
        assert_eq!(way(&[], ""), Err(E::MissingParameter("client_id")));
    }

    #[test]
    fn debug_shows_no_credential() {
        let mut header = HeaderValue::from_static("Basic aWQ6c2VjcmV0");
        header.set_sensitive(true);
        assert!(!format!("{:?}", ClientAuth::Basic(header)).contains("aWQ6"));
    }
}
