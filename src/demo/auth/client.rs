//! Who asks: client authentication by Basic and post (RFC 6749 §2.3.1), and by an assertion ([`super::assertion`]).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use http::header::AUTHORIZATION;
use percent_encoding::percent_decode_str;

use super::answer::{Params, Received, Refusal};
use super::assertion;
use super::fault::Endpoint;
use super::options::Client;
use super::state::Issuer;

const BASIC_CHALLENGE: &str = r#"Basic realm="Bonterra Auth""#;

/// What a request says of its client, by one method.
struct Credentials {
    id: String,
    proof: Proof,
    basic: bool,
}

/// By what a client proves itself.
enum Proof {
    None,
    Secret(String),
    Assertion(String),
}

impl Issuer {
    /// The client of a request, if it proved to be that.
    pub(super) fn authenticate(
        &self,
        request: &Received,
        params: &Params,
    ) -> Result<&Client, Refusal> {
        let credentials = Credentials::of(request, params)?;
        let client = self.client(&credentials.id);
        if let (Some(client), Proof::Assertion(assertion)) = (client, &credentials.proof) {
            return self.asserted(client, assertion).map(|()| client);
        }
        let proven = |client: &&Client| match (&client.secret, &credentials.proof) {
            (Some(secret), Proof::Secret(given)) => secret == given,
            (Some(_), _) => false,
            (None, _) => client.is_public(),
        };
        client.filter(proven).ok_or_else(|| {
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
        if let Some(assertion) = params.get("client_assertion") {
            let several = secret.is_some() || request.headers().contains_key(AUTHORIZATION);
            return Self::by_assertion(id, assertion, several, params);
        }
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
                let secret = secret.map(str::to_owned);
                Ok(Self {
                    id: id.to_owned(),
                    proof: secret.map_or(Proof::None, Proof::Secret),
                    basic: false,
                })
            }
        }
    }

    /// The assertion names the client, in `sub`; `client_id` beside it is optional (RFC 7521 §4.2).
    fn by_assertion(
        id: Option<&str>,
        assertion: &str,
        several: bool,
        params: &Params,
    ) -> Result<Self, Refusal> {
        let subject = assertion::subject(assertion);
        if several || id.is_some_and(|id| subject.as_deref().is_some_and(|subject| subject != id)) {
            let text = "More than one way of client authentication";
            return Err(Refusal::invalid_request(text.to_owned()));
        }
        if params.get("client_assertion_type") != Some(assertion::KIND) {
            let text = "Unknown client_assertion_type";
            return Err(Refusal::invalid_request(text.to_owned()));
        }
        Ok(Self {
            id: subject.ok_or_else(assertion::refused)?,
            proof: Proof::Assertion(assertion.to_owned()),
            basic: false,
        })
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
            proof: Proof::Secret(form_decode(secret)?),
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
