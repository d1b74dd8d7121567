//! The issuer gets exactly the parameters that the client sent, each once, and no other reader of the same body finds
//! others; what is refused is refused without a word of what was sent.

use super::json::Json;
use super::{Outcome, lines};
use bonterra_gateway::oauth::form::{MAX_PARAMETERS, Params};
use bonterra_gateway::oauth::token::decide;
use bonterra_gateway::oauth::{ErrorFormat, Grant, OAuthError, Surface};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request};
use std::collections::BTreeSet;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

/// Checks the header lines and, behind an empty line, the body of a token request.
pub fn check(data: &[u8]) -> Outcome {
    let Some((headers, body)) = split(data) else {
        return Outcome::Refused;
    };
    decided(&headers, body);
    let params = match Params::read(&headers, body) {
        Ok(params) => params,
        Err(error) => {
            tells_nothing(error);
            return Outcome::Refused;
        }
    };
    let form = params.to_form();
    let sent = pairs(&form);
    let names: BTreeSet<&str> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), sent.len(), "a parameter twice");
    assert!(sent.len() <= MAX_PARAMETERS);
    assert_eq!(sent, read_otherwise(&headers, body), "other parameters");
    for (name, value) in &sent {
        let own = params.get(name).map(|secret| secret.expose());
        assert_eq!(own, Some(value.as_str()), "{name}");
    }
    assert_eq!(
        format!("{params:?}"),
        format!("Params({} withheld)", sent.len())
    );
    let again = Params::read(&content_type(FORM), &form).expect("our own form");
    assert_eq!(again.to_form(), form);
    Outcome::Accepted
}

fn split(data: &[u8]) -> Option<(HeaderMap, &[u8])> {
    let mut rest = data;
    let mut lines = Vec::new();
    loop {
        let end = rest.iter().position(|byte| *byte == b'\n')?;
        let line = lines::without_cr(rest.get(..end)?);
        rest = rest.get(end + 1..)?;
        if line.is_empty() {
            return Some((lines::fields(lines.into_iter())?, rest));
        }
        lines.push(line);
    }
}

fn content_type(text: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(text))])
}

fn pairs(form: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(form)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect()
}

/// The parameters that have a value, as a reader sees them that shares no line with the gateway's.
fn read_otherwise(headers: &HeaderMap, body: &[u8]) -> Vec<(String, String)> {
    let kind = headers
        .get(CONTENT_TYPE)
        .expect("a content type")
        .as_bytes();
    let is_json = kind
        .get(..JSON.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(JSON.as_bytes()));
    let mut read = if is_json {
        let json = Json::read(body).expect("JSON to another reader too");
        let members = json.members().expect("an object");
        let value = |value: &Json| match value {
            Json::Text(text) => text.clone(),
            other => {
                assert_eq!(*other, Json::Bare("null".to_owned()));
                String::new()
            }
        };
        members
            .iter()
            .map(|(name, v)| (name.clone(), value(v)))
            .collect()
    } else {
        pairs(body)
    };
    read.retain(|(_, value)| !value.is_empty());
    read
}

/// Whether and how it would go to the issuer.
fn decided(headers: &HeaderMap, body: &[u8]) {
    let surface = Surface {
        name: "bonterra".into(),
        grants: vec![Grant::ClientCredentials, Grant::AuthorizationCode],
        max_body: 2048,
        realm: "bonterra".into(),
        errors: ErrorFormat::OAuth,
        forward_client_address: false,
    };
    let head = post(headers);
    match decide(&surface, &head, body) {
        Ok(forward) => {
            assert!(surface.grants.contains(&forward.grant));
            assert!(body.len() <= 2048);
            let grant = forward.params.get("grant_type").map(|name| name.expose());
            assert_eq!(grant, Some(forward.grant.as_str()));
            let secret = forward.params.get("client_secret").is_some();
            let assertion = forward.params.get("client_assertion").is_some();
            let basic = headers.contains_key(AUTHORIZATION);
            let ways = [secret, assertion, basic].into_iter().filter(|way| *way);
            assert!(ways.count() <= 1, "authenticated in two ways");
            assert_eq!(basic, forward.headers.contains_key(AUTHORIZATION));
            for name in forward.headers.keys() {
                let known = ["accept", "authorization", "dpop", "user-agent"];
                assert!(known.contains(&name.as_str()), "{name} reaches the issuer");
            }
        }
        Err(refusal) => tells_nothing(refusal.error),
    }
}

fn post(headers: &HeaderMap) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::POST;
    head.headers = headers.clone();
    head
}

/// RFC 6749 §5.2 allows few characters in `error_description`; the body is JSON all the same.
fn tells_nothing(error: OAuthError) {
    let response = error.response("bonterra");
    assert!(response.status().is_client_error());
    let body = Json::read(response.body()).expect("JSON");
    let description = body.get("error_description").and_then(Json::text);
    let allowed = |c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\');
    assert!(description.is_some_and(|text| text.chars().all(allowed)));
}
