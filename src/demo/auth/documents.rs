//! Discovery, JWKS and userinfo.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::body::Body;
use super::algorithm::Algorithm;
use super::answer::{Received, Refusal, private_json, public_json};
use super::claims::{AUTH_ID, IS_GRANTS, now};
use super::directory::Person;
use super::options::OPENID_SCOPES;
use super::state::{Issuer, State};
use super::token::GRANTS;

impl Issuer {
    /// The discovery document (OpenID Connect Discovery §3, RFC 8414).
    pub(super) fn discovery(&self) -> Response<Body> {
        let url = |path: &str| format!("{}{path}", self.url);
        let algorithms: Vec<_> = match self.options.all_algorithms {
            true => Algorithm::ALL.map(Algorithm::as_str).to_vec(),
            false => vec![self.options.key_type.as_str()],
        };
        let document = json!({
            "issuer": self.url,
            "authorization_endpoint": url("authorize"),
            "token_endpoint": url("oauth/token"),
            "userinfo_endpoint": url("userinfo"),
            "jwks_uri": url(".well-known/jwks.json"),
            "revocation_endpoint": url("oauth/revoke"),
            "introspection_endpoint": url("oauth/introspect"),
            "scopes_supported": OPENID_SCOPES,
            "response_types_supported": ["code"],
            "grant_types_supported": GRANTS,
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt", "none"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256", "ES256"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": algorithms,
            "claims_supported": ["aud", "email", "exp", "iat", "iss", "name", "sub", AUTH_ID, IS_GRANTS],
        });
        public_json(&document, "public, max-age=15")
    }

    /// The key set, or what a test put in its place.
    pub(super) fn jwks(&self) -> Response<Body> {
        let state = self.state();
        public_json(&state.key_set(), &state.jwks_cache_control)
    }

    /// Who the bearer is (OpenID Connect Core §5.3).
    pub(super) fn userinfo(&self, request: &Received) -> Response<Body> {
        match self.bearer(request) {
            Some(person) => private_json(StatusCode::OK, &person.userinfo()),
            None => {
                let description = "The access token is invalid or has expired";
                let mut refusal =
                    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_token", description);
                refusal.challenge = Some(r#"Bearer error="invalid_token""#);
                refusal.into_response()
            }
        }
    }

    /// The user whose good token, with scope `openid`, the request carries.
    fn bearer(&self, request: &Received) -> Option<Person> {
        let claims = self.good(request.bearer()?)?;
        let mut scope = claims.get("scope")?.as_str()?.split(' ');
        let openid = scope.any(|scope| scope == "openid");
        openid.then(|| self.person(claims.get("sub")?.as_str()?))?
    }

    /// The claims of a token that is this issuer's and has not expired.
    pub(super) fn good(&self, token: &str) -> Option<Value> {
        let claims = self.verified(token)?;
        let fresh = claims.get("exp")?.as_u64()? > now();
        let ours = claims.get("iss")?.as_str()? == self.url;
        (fresh && ours).then_some(claims)
    }

    /// The claims of a token that one of the published keys signed.
    pub(super) fn verified(&self, token: &str) -> Option<Value> {
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        let state = self.state();
        let key = state.keys.published(header.get("kid")?.as_str()?)?;
        let good = header.get("alg")?.as_str()? == key.algorithm().as_str()
            && key.verifies(message.as_bytes(), &decode(signature)?);
        if good {
            serde_json::from_slice(&decode(payload)?).ok()
        } else {
            None
        }
    }
}

// === impl State ===

impl State {
    /// What the JWKS endpoint serves now.
    pub(super) fn key_set(&self) -> Value {
        self.jwks_document
            .clone()
            .unwrap_or_else(|| self.keys.jwks())
    }
}
