//! `POST /oauth/introspect` (RFC 7662).

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::super::body::Body;
use super::answer::{Received, Refusal, private_json};
use super::claims::now;
use super::state::Issuer;

impl Issuer {
    /// What a token is worth, for confidential clients.
    pub(super) fn introspect(&self, request: &Received) -> Response<Body> {
        match self.introspected(request) {
            Ok(body) => private_json(StatusCode::OK, &body),
            Err(refusal) => refusal.into_response(),
        }
    }

    fn introspected(&self, request: &Received) -> Result<Value, Refusal> {
        let params = request.params()?;
        let client = self.authenticate(request, &params)?;
        if client.secret.is_none() {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "invalid_client",
                "Public clients may not introspect",
            ));
        }
        let token = params.require("token")?;
        let known = self.state().opaque.get(token).cloned();
        let claims = known.or_else(|| self.verified(token));
        let fresh = |claims: &Value| claims["exp"].as_u64().is_none_or(|exp| exp > now());
        let Some(Value::Object(mut members)) = claims.filter(fresh) else {
            return Ok(json!({ "active": false }));
        };
        members.insert("active".to_owned(), true.into());
        members
            .entry("token_type")
            .or_insert_with(|| "Bearer".into());
        Ok(Value::Object(members))
    }
}
