//! `POST /oauth/token` and `POST /oauth/revoke`.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::super::body::Body;
use super::answer::{Params, Received, Refusal, private, private_json, with_type};
use super::claims::since_1970;
use super::keys::{KeyChoice, Signer};
use super::login::WRONG_PASSWORD;
use super::options::Client;
use super::state::{ExpiresIn, Grant, Issuer};

/// Grants that some client may use.
pub(super) const GRANTS: [&str; 4] = [
    "authorization_code",
    "client_credentials",
    "refresh_token",
    "password",
];
const BAD_REFRESH_TOKEN: &str = "Unknown or invalid refresh token.";
const CLIENT_GRANT_TYPES: &str = "https://auth0.com/docs/clients/client-grant-types";

impl Issuer {
    /// The token endpoint.
    pub(super) fn token(&self, request: &Received) -> Response<Body> {
        match self.tokens(request) {
            Ok((body, headers)) => {
                let mut response = private_json(StatusCode::OK, &body);
                response.headers_mut().extend(headers);
                response
            }
            Err(refusal) => refusal.into_response(),
        }
    }

    /// The reply, with what there is to tell in headers.
    fn tokens(&self, request: &Received) -> Result<(Value, HeaderMap), Refusal> {
        let params = request.params()?;
        let client = self.authenticate(request, &params)?;
        let grant = params.require("grant_type")?;
        if !GRANTS.contains(&grant) {
            let description = format!("Unsupported grant type: {grant}");
            return Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                "unsupported_grant_type",
                description,
            ));
        }
        if !client.allows(grant) {
            let description = format!("Grant type '{grant}' not allowed for the client.");
            let mut refusal =
                Refusal::new(StatusCode::FORBIDDEN, "unauthorized_client", description);
            refusal.uri = Some(CLIENT_GRANT_TYPES);
            return Err(refusal);
        }
        let reply = match grant {
            "client_credentials" => return self.client_credentials(client, &params),
            "authorization_code" => self.authorization_code(client, &params),
            "password" => self.password(client, &params),
            _ => self.refresh_token(client, &params),
        };
        Ok((reply?, HeaderMap::new()))
    }

    fn client_credentials(
        &self,
        client: &Client,
        params: &Params,
    ) -> Result<(Value, HeaderMap), Refusal> {
        let management = self.management_audience();
        let (audience, granted) = match params.get("audience") {
            Some(audience) if audience == management => (audience, &client.management_scope),
            _ => (self.audience(params)?, &client.scope),
        };
        if audience == management && granted.is_empty() {
            return Err(Refusal::no_client_grant(audience));
        }
        let scope = match params.get("scope") {
            None => granted.join(" "),
            Some(scope) => {
                let refused: Vec<_> = scope
                    .split(' ')
                    .filter(|word| !granted.iter().any(|known| known == word))
                    .collect();
                if !refused.is_empty() {
                    let description =
                        format!("Client has not been granted scopes: {}", refused.join(", "));
                    return Err(Refusal::new(
                        StatusCode::FORBIDDEN,
                        "access_denied",
                        description,
                    ));
                }
                scope.to_owned()
            }
        };
        let headers = self.counted(client)?;
        let claims = self.machine_claims(client, audience, &scope);
        let reply = json!({
            "access_token": self.sign(&claims)?,
            "expires_in": self.expires_in(),
            "token_type": "Bearer",
        });
        Ok((reply, headers))
    }

    /// Takes a token from the client's quota, and tells what is left of that.
    fn counted(&self, client: &Client) -> Result<HeaderMap, Refusal> {
        let Some(told) = self.state().meter.token(&client.id, since_1970()) else {
            return Ok(HeaderMap::new());
        };
        if !told.exceeded {
            return Ok(told.headers);
        }
        let (status, description) = (StatusCode::TOO_MANY_REQUESTS, "Client quota exceeded");
        let mut refusal = Refusal::new(status, "too_many_requests", description);
        *refusal.headers = told.headers;
        Err(refusal)
    }

    fn authorization_code(&self, client: &Client, params: &Params) -> Result<Value, Refusal> {
        let (text, redirect_uri) = (params.require("code")?, params.require("redirect_uri")?);
        let code = self.state().grants.redeem(text, &client.id);
        let code = code.ok_or_else(|| Refusal::invalid_grant("Invalid authorization code"))?;
        if code.redirect_uri != redirect_uri {
            return Err(Refusal::invalid_grant(
                "The redirect URI is not the one of the authorization request",
            ));
        }
        if !proves(params.get("code_verifier"), code.challenge.as_deref()) {
            return Err(Refusal::invalid_grant("Failed to verify code verifier"));
        }
        self.first_tokens(client, &code.grant, Some(text))
    }

    /// Of a user who has told the client his password (RFC 6749 §4.3).
    fn password(&self, client: &Client, params: &Params) -> Result<Value, Refusal> {
        let (email, password) = (params.require("username")?, params.require("password")?);
        let audience = self.audience(params)?.to_owned();
        let user = self.state().directory.log_in(email, password);
        let user = user.ok_or_else(|| Refusal::invalid_grant(WRONG_PASSWORD))?;
        let grant = Grant {
            client: client.id.clone(),
            user,
            scope: client.user_scope(params.get("scope")),
            audience,
            nonce: None,
        };
        self.first_tokens(client, &grant, None)
    }

    /// The tokens of a new session, which hangs on `code` if it came of one.
    fn first_tokens(
        &self,
        client: &Client,
        grant: &Grant,
        code: Option<&str>,
    ) -> Result<Value, Refusal> {
        let asked = grant.scope.iter().any(|scope| scope == "offline_access");
        let refresh_token = match asked && client.allows("refresh_token") {
            true => Some(self.state().grants.found(grant.clone(), code)?),
            false => None,
        };
        self.user_tokens(grant, &grant.scope, refresh_token)
    }

    fn refresh_token(&self, client: &Client, params: &Params) -> Result<Value, Refusal> {
        let token = params.require("refresh_token")?;
        let rotate = self.options.refresh_rotation;
        let refreshed = self.state().grants.refresh(token, &client.id, rotate)?;
        let (grant, successor) =
            refreshed.ok_or_else(|| Refusal::invalid_grant(BAD_REFRESH_TOKEN))?;
        // Less than was granted may be asked for; more is left out, as the issuer does.
        let scope: Vec<_> = match params.get("scope") {
            None => grant.scope.clone(),
            Some(asked) => grant
                .scope
                .iter()
                .filter(|scope| asked.split(' ').any(|word| word == *scope))
                .cloned()
                .collect(),
        };
        self.user_tokens(&grant, &scope, successor)
    }

    fn user_tokens(
        &self,
        grant: &Grant,
        scope: &[String],
        refresh_token: Option<String>,
    ) -> Result<Value, Refusal> {
        let user = self
            .person(&grant.user)
            .ok_or_else(|| Refusal::invalid_grant("The user does not exist."))?;
        let text = scope.join(" ");
        let mut reply = Map::new();
        reply.insert(
            "access_token".to_owned(),
            self.sign(&self.user_claims(&user, grant, &text))?.into(),
        );
        if let Some(token) = refresh_token {
            reply.insert("refresh_token".to_owned(), token.into());
        }
        if scope.iter().any(|scope| scope == "openid") {
            reply.insert(
                "id_token".to_owned(),
                self.sign(&self.id_claims(&user, grant))?.into(),
            );
        }
        reply.insert("scope".to_owned(), text.into());
        reply.insert("expires_in".to_owned(), self.expires_in());
        reply.insert("token_type".to_owned(), "Bearer".into());
        Ok(Value::Object(reply))
    }

    /// The API that a token is asked for.
    pub(super) fn audience<'a>(&'a self, params: &'a Params) -> Result<&'a str, Refusal> {
        match params.get("audience") {
            Some(audience) if audience != self.options.audience => {
                Err(Refusal::unknown_audience(audience))
            }
            _ => Ok(&self.options.audience),
        }
    }

    fn sign(&self, claims: &Value) -> Result<String, Refusal> {
        let signer: Signer = self.state().keys.signer(&KeyChoice::Current)?;
        Ok(signer.token(&Value::Null, claims)?)
    }

    fn expires_in(&self) -> Value {
        match self.state().expires_in {
            ExpiresIn::Integer => self.lifetime().into(),
            ExpiresIn::String => self.lifetime().to_string().into(),
        }
    }

    /// Revocation (RFC 7009): refresh tokens only; what is unknown, access tokens included, is no error.
    pub(super) fn revoke(&self, request: &Received) -> Response<Body> {
        match self.revoked(request) {
            Ok(()) => private(with_type(StatusCode::OK, "application/json", String::new())),
            Err(refusal) => refusal.into_response(),
        }
    }

    fn revoked(&self, request: &Received) -> Result<(), Refusal> {
        let params = request.params()?;
        if params.get("client_id").is_none()
            && !request.headers().contains_key(http::header::AUTHORIZATION)
        {
            return Err(Refusal::missing("client_id"));
        }
        let client = self.authenticate(request, &params)?;
        match self
            .state()
            .grants
            .revoke(params.require("token")?, &client.id)
        {
            true => Ok(()),
            false => Err(Refusal::invalid_request(
                "The token was not issued to this client".to_owned(),
            )),
        }
    }
}

/// PKCE (RFC 7636 §4.6). A verifier without a challenge is as wrong as a challenge without a verifier.
fn proves(verifier: Option<&str>, challenge: Option<&str>) -> bool {
    match (verifier, challenge) {
        (None, None) => true,
        (Some(verifier), Some(challenge)) => {
            URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
                == challenge
        }
        _ => false,
    }
}
