//! Who asks: client authentication by Basic and post (RFC 6749 §2.3.1).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;

use super::answer::{Params, Received, Refusal};
use super::fault::Endpoint;
use super::options::Client;
use super::state::Issuer;

const BASIC_CHALLENGE: &str = r#"Basic realm="Bonterra Auth""#;

/// What a request says of its client, by one method.
struct Credentials {
    id: String,
    secret: Option<String>,
    basic: bool,
}

impl Issuer {
    /// The client of a request, if it proved to be that.
    pub(super) fn authenticate(
        &self,
        request: &Received,
        params: &Params,
    ) -> Result<&Client, Refusal> {
        let credentials = Credentials::of(request, params)?;
        let client = self
            .client(&credentials.id)
            .filter(|client| match &client.secret {
                Some(secret) => credentials.secret.as_ref() == Some(secret),
                None => true,
            });
        client.ok_or_else(|| {
            let mut refusal =
                Refusal::new(StatusCode::UNAUTHORIZED, "access_denied", "Unauthorized");
            refusal.challenge = credentials.basic.then_some(BASIC_CHALLENGE);
            refusal
        })
    }
}

impl Issuer {
    /// The client that a request says it comes from, proven or not; `None` if it says nothing that can be read.
    pub(super) fn asker(&self, endpoint: Endpoint, request: &Received) -> Option<String> {
        match endpoint {
            Endpoint::Discovery | Endpoint::Jwks => None,
            Endpoint::Authorize => request.query().get("client_id").map(str::to_owned),
            Endpoint::Token | Endpoint::Revoke | Endpoint::Introspect => {
                let credentials = Credentials::of(request, &request.params().ok()?);
                credentials.ok().map(|credentials| credentials.id)
            }
            Endpoint::Userinfo
            | Endpoint::Users
            | Endpoint::User
            | Endpoint::UpdateUser
            | Endpoint::Events => {
                let claims = self.verified(request.bearer()?)?;
                claims.get("azp")?.as_str().map(str::to_owned)
            }
        }
    }
}

// === impl Credentials ===

impl Credentials {
    fn of(request: &Received, params: &Params) -> Result<Self, Refusal> {
        let (id, secret) = (params.get("client_id"), params.get("client_secret"));
        match request.headers().contains_key(AUTHORIZATION) {
            true => {
                let basic = request
                    .header(AUTHORIZATION)
                    .and_then(Self::basic)
                    .ok_or_else(|| {
                        let mut refusal = Refusal::new(
                            StatusCode::UNAUTHORIZED,
                            "invalid_client",
                            "Malformed Authorization header",
                        );
                        refusal.challenge = Some(BASIC_CHALLENGE);
                        refusal
                    })?;
                if secret.is_some() || id.is_some_and(|id| id != basic.id) {
                    return Err(Refusal::invalid_request(
                        "More than one way of client authentication".to_owned(),
                    ));
                }
                Ok(basic)
            }
            false => {
                let id = id.ok_or_else(|| {
                    Refusal::new(
                        StatusCode::UNAUTHORIZED,
                        "invalid_client",
                        "Missing client_id",
                    )
                })?;
                Ok(Self {
                    id: id.to_owned(),
                    secret: secret.map(str::to_owned),
                    basic: false,
                })
            }
        }
    }

    fn basic(header: &str) -> Option<Self> {
        let (scheme, encoded) = header.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        Some(Self {
            id: form_decode(id)?,
            secret: Some(form_decode(secret)?),
            basic: true,
        })
    }
}

/// Both halves are form-encoded before they are put together.
fn form_decode(text: &str) -> Option<String> {
    percent_decode_str(&text.replace('+', " "))
        .decode_utf8()
        .ok()
        .map(|text| text.into_owned())
}
