//! Where an issuer's endpoints are: as configured, else from its discovery document (OpenID Connect
//! Discovery §3, RFC 8414 §2).

use super::Endpoints;
use super::fetch::{FetchError, Source, get};
use crate::outbound::check_url;
use crate::strict_json;
use http::Uri;
use serde_json::Value;

/// Finds the endpoints of an issuer.
///
/// # Errors
/// If discovery is needed and fails, or names another issuer (RFC 8414 §3.3).
pub async fn discover(source: &Source) -> Result<Endpoints, FetchError> {
    let configured = Endpoints {
        jwks: source.jwks.clone(),
        token: source.token.clone(),
        introspection: source.introspection.clone(),
        authorization: source.authorization.clone(),
        userinfo: source.userinfo.clone(),
        revocation: source.revocation.clone(),
        document: None,
    };
    if configured.suffice(source) {
        return Ok(configured);
    }
    let wrong = |why: String| FetchError {
        what: "discovery document",
        why,
    };
    let url = format!(
        "{}/.well-known/openid-configuration",
        source.issuer.trim_end_matches('/')
    );
    let uri: Uri = url
        .parse()
        .map_err(|error| wrong(format!("{url}: {error}")))?;
    let reply = get(&source.outbound, &uri).await.map_err(wrong)?;
    // What is wrong is said without quoting: the document is somebody else's.
    let document = strict_json::object(&reply.body)
        .ok_or_else(|| wrong("it is no JSON object, or one that has a member twice".to_owned()))?;
    if document.get("issuer").and_then(Value::as_str) != Some(&*source.issuer) {
        return Err(wrong(format!(
            "it is the document of another issuer, not of {}",
            source.issuer
        )));
    }
    let either = |configured: Option<Uri>, name: &str| match (configured, document.get(name)) {
        (None, Some(Value::String(text))) => endpoint(name, text).map(Some).map_err(wrong),
        (None, Some(_)) => Err(wrong(format!("its {name} is no string"))),
        (configured, _) => Ok(configured),
    };
    // What nobody needs is no reason to do without the rest.
    let forgiven = |needed: bool, found: Result<Option<Uri>, FetchError>| match found {
        Err(_) if !needed => Ok(None),
        found => found,
    };
    let introspection = either(configured.introspection, "introspection_endpoint");
    let token = either(configured.token, "token_endpoint");
    let authorization = either(configured.authorization, "authorization_endpoint");
    let userinfo = either(configured.userinfo, "userinfo_endpoint");
    let revocation = either(configured.revocation, "revocation_endpoint");
    let endpoints = Endpoints {
        jwks: forgiven(!source.opaque, either(configured.jwks, "jwks_uri"))?,
        token: forgiven(source.needs_token_endpoint, token)?,
        introspection: forgiven(source.opaque, introspection)?,
        authorization: forgiven(false, authorization)?,
        userinfo: forgiven(false, userinfo)?,
        revocation: forgiven(false, revocation)?,
        document: Some(reply.body),
    };
    match (source.opaque, &endpoints.jwks, &endpoints.introspection) {
        (false, None, _) => Err(wrong("it has no jwks_uri".to_owned())),
        (true, _, None) => Err(wrong(
            "it has no introspection_endpoint; write one in the configuration".to_owned(),
        )),
        _ => Ok(endpoints),
    }
}

impl Endpoints {
    /// Whether nothing is left to ask discovery for.
    fn suffice(&self, source: &Source) -> bool {
        let tokens_checked = if source.opaque {
            self.introspection.is_some()
        } else {
            self.jwks.is_some()
        };
        tokens_checked && (self.token.is_some() || !source.needs_token_endpoint)
    }

    /// Where the keys are.
    ///
    /// # Errors
    /// If the issuer has none, because its tokens are opaque.
    pub fn key_set(&self) -> Result<&Uri, FetchError> {
        self.jwks.as_ref().ok_or_else(|| FetchError {
            what: "key set",
            why: "the issuer has none".to_owned(),
        })
    }
}

/// An endpoint that a discovery document names: as safe as one that is configured. The error does
/// not quote it: it may be long, or move the cursor of who reads it.
fn endpoint(name: &str, text: &str) -> Result<Uri, String> {
    let uri: Uri = text
        .parse()
        .map_err(|error| format!("its {name} is no URL: {error}"))?;
    check_url(&uri).map_err(|error| format!("its {name} is {error}"))?;
    Ok(uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_endpoint_is_said_without_quoting_it() {
        let good = "https://quoted.example/keys";
        assert_eq!(endpoint("jwks_uri", good), Ok(Uri::from_static(good)));
        for text in [
            "",
            "\u{1b}[31mquoted",
            "quoted",
            "/quoted",
            "ftp://quoted.example/",
            "http://quoted.example/",
            "https://quoted@a.example/",
            &format!("https://quoted.example/{}", "x".repeat(1 << 20)),
        ] {
            let why = endpoint("jwks_uri", text).expect_err("not safe");
            assert!(why.contains("jwks_uri") && why.len() < 200, "{why}");
            assert!(!why.contains("quoted") && !why.contains('\u{1b}'), "{why}");
        }
    }
}
