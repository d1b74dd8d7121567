//! One question to an issuer for the gateway's own token (RFC 6749 §4.4), and what its answer says.

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue, RETRY_AFTER};
use http::{StatusCode, Uri};
use serde_json::{Map, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::introspection::basic;
use crate::keys::KeyStore;
use crate::oauth::{Quotas, reply};
use crate::outbound::{Outbound, Reply};

/// An answer over this size is refused.
const MAX_REPLY: usize = 64 << 10;

/// How often it is looked whether discovery has found the token endpoint.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What is asked for, and as whom. `Debug` shows no credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Asking {
    /// The name of the issuer, `[issuer.NAME]`.
    pub(super) issuer: Arc<str>,
    client_id: Box<str>,
    authorization: HeaderValue,
    audience: Option<Box<str>>,
    scope: Option<Box<str>>,
}

/// Where it is asked.
#[derive(Debug, Clone)]
pub struct Source {
    /// Knows the token endpoint, once discovery has found it.
    pub keys: Arc<KeyStore>,
    /// The client to ask with.
    pub outbound: Outbound,
    /// Where the issuer's quotas are shown.
    pub quotas: Quotas,
}

/// A token as it was issued. Has no `Debug`.
pub(super) struct Issued {
    /// `Bearer` and the token; sensitive.
    pub authorization: HeaderValue,
    /// Seconds from when it was asked for.
    pub lifetime: u64,
}

/// Why there is none. Holds nothing that is secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub why: Box<str>,
    /// When to come back, if the issuer says so.
    pub wait: Option<Duration>,
}

// === impl Asking ===

impl Asking {
    /// A client of the issuer of this name that asks for a token for `audience` with these scopes.
    pub fn new(
        issuer: &Arc<str>,
        client_id: &str,
        client_secret: &str,
        audience: Option<&str>,
        scope: Option<&str>,
    ) -> Self {
        Self {
            issuer: Arc::clone(issuer),
            client_id: client_id.into(),
            authorization: basic(client_id, client_secret),
            audience: audience.map(Into::into),
            scope: scope.map(Into::into),
        }
    }

    fn form(&self) -> Bytes {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in [("audience", &self.audience), ("scope", &self.scope)] {
            if let Some(value) = value {
                form.append_pair(name, value);
            }
        }
        form.finish().into()
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        let said = |value: &Option<Box<str>>| value.as_deref().unwrap_or("-").to_owned();
        let (audience, scope) = (said(&self.audience), said(&self.scope));
        let Self {
            issuer, client_id, ..
        } = self;
        format!(
            "of [issuer.{issuer}], as client {client_id}, for audience {audience}, scope {scope}"
        )
    }
}

impl fmt::Debug for Asking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("issuer", &self.issuer)
            .field("client_id", &self.client_id)
            .field("audience", &self.audience)
            .field("scope", &self.scope)
            .finish_non_exhaustive()
    }
}

// === impl Source ===

impl Source {
    /// Whether both ask in the same place: an issuer that is fetched from in another way has another store.
    pub(super) fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.keys, &other.keys)
    }

    /// As long as an issuer that is well may take, discovery included.
    pub(super) fn patience(&self) -> Duration {
        self.keys.policy().patience
    }

    /// Asks, once.
    pub(super) async fn ask(&self, asking: &Asking) -> Result<Issued, Failure> {
        let endpoint = self.endpoint().await?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, asking.authorization.clone());
        let reply = self
            .outbound
            .post_form(&endpoint, headers, asking.form(), MAX_REPLY)
            .await
            .map_err(|error| Failure::new(error.to_string()))?;
        self.quotas.note(&reply.headers);
        read(reply)
    }

    /// The token endpoint, as soon as discovery has found it.
    async fn endpoint(&self) -> Result<Uri, Failure> {
        let known = || self.keys.endpoints()?.token.clone();
        if let Some(endpoint) = known() {
            return Ok(endpoint);
        }
        self.keys.demand();
        let found = async {
            loop {
                tokio::time::sleep(LOOK_AGAIN).await;
                if let Some(endpoint) = known() {
                    return endpoint;
                }
            }
        };
        let found = tokio::time::timeout(self.patience(), found).await;
        found.map_err(|_| Failure::new("the issuer's token endpoint is not known yet"))
    }
}

/// Reads an answer. A token without a lifetime is of no use: nobody could tell when it ends.
fn read(reply: Reply) -> Result<Issued, Failure> {
    if !reply.status.is_success() {
        return Err(refusal(&reply));
    }
    let unusable = |_| Failure::new("the issuer's answer is no token reply (RFC 6749 §5.1)");
    let (response, _) = reply::answer(reply).map_err(unusable)?;
    let members: Map<String, Value> = serde_json::from_slice(response.body())
        .map_err(|_| Failure::new("the issuer's answer is no JSON object"))?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if !text("token_type").is_some_and(|kind| kind.eq_ignore_ascii_case("bearer")) {
        return Err(Failure::new("the issuer's token is no bearer token"));
    }
    let lifetime = members.get("expires_in").and_then(Value::as_u64);
    let lifetime = lifetime.ok_or_else(|| Failure::new("the issuer's answer has no expires_in"))?;
    let token = text("access_token").unwrap_or_default();
    let fits = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let header = HeaderValue::try_from(format!("Bearer {token}")).ok();
    let unfit = || Failure::new("the issuer's token does not fit into a header");
    let mut authorization = header.filter(|_| fits).ok_or_else(unfit)?;
    authorization.set_sensitive(true);
    Ok(Issued {
        authorization,
        lifetime,
    })
}

/// What an issuer says that gives no token: its status, and its error code if that is a plain word.
/// The rest of the body may quote what was sent.
fn refusal(reply: &Reply) -> Failure {
    let members: Option<Map<String, Value>> = serde_json::from_slice(&reply.body).ok();
    let plain = |code: &&str| {
        (1..=40).contains(&code.len())
            && code
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let code = members
        .as_ref()
        .and_then(|members| members.get("error")?.as_str())
        .filter(plain);
    let status = reply.status.as_u16();
    let why = match code {
        Some(code) => format!("the issuer answers {status} {code}"),
        None => format!("the issuer answers {status}"),
    };
    let wait = matches!(
        reply.status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    )
    .then(|| seconds(reply.headers.get(RETRY_AFTER)?))
    .flatten();
    Failure {
        why: why.into(),
        wait,
    }
}

/// `Retry-After` in seconds (RFC 9110 §10.2.3); a date is not read, and the usual pause holds.
fn seconds(value: &HeaderValue) -> Option<Duration> {
    let text = value.to_str().ok()?.trim();
    text.parse().ok().map(Duration::from_secs)
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(why: impl Into<Box<str>>) -> Self {
        Self {
            why: why.into(),
            wait: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, retry_after: &str, body: &'static str) -> Reply {
        let mut headers = HeaderMap::new();
        if !retry_after.is_empty() {
            headers.insert(RETRY_AFTER, HeaderValue::from_str(retry_after).unwrap());
        }
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
        }
    }

    #[test]
    fn answers() {
        let good = r#"{"access_token":"t","token_type":"bearer","expires_in":"60"}"#;
        let issued = read(reply(200, "", good)).expect("a token");
        assert_eq!(issued.authorization, "Bearer t");
        assert!(issued.authorization.is_sensitive());
        assert_eq!(issued.lifetime, 60);
        for (status, retry_after, body, why, wait) in [
            (
                401,
                "",
                r#"{"error":"access_denied"}"#,
                "the issuer answers 401 access_denied",
                None,
            ),
            (
                401,
                "7",
                r#"{"error":"Secret s3 is wrong"}"#,
                "the issuer answers 401",
                None,
            ),
            (
                429,
                "7",
                r#"{"error":"too_many_requests"}"#,
                "the issuer answers 429 too_many_requests",
                Some(7),
            ),
            (503, "soon", "", "the issuer answers 503", None),
            (302, "", "", "the issuer answers 302", None),
            (
                200,
                "",
                "<p>",
                "the issuer's answer is no token reply (RFC 6749 §5.1)",
                None,
            ),
            (
                200,
                "",
                r#"{"access_token":"t","token_type":"DPoP","expires_in":60}"#,
                "the issuer's token is no bearer token",
                None,
            ),
            (
                200,
                "",
                r#"{"access_token":"t","token_type":"Bearer"}"#,
                "the issuer's answer has no expires_in",
                None,
            ),
            (
                200,
                "",
                r#"{"access_token":"a b","token_type":"Bearer","expires_in":60}"#,
                "the issuer's token does not fit into a header",
                None,
            ),
            (
                200,
                "",
                r#"{"access_token":"","token_type":"Bearer","expires_in":60}"#,
                "the issuer's token does not fit into a header",
                None,
            ),
        ] {
            let failure = read(reply(status, retry_after, body)).err().expect("none");
            assert_eq!(&*failure.why, why, "{body}");
            assert_eq!(failure.wait, wait.map(Duration::from_secs), "{body}");
        }
    }

    #[test]
    fn what_is_asked() {
        let issuer: Arc<str> = "bonterra".into();
        let asking = Asking::new(&issuer, "id", "s3cret", Some("https://a/"), Some("a b"));
        let form = "grant_type=client_credentials&audience=https%3A%2F%2Fa%2F&scope=a+b";
        assert_eq!(asking.form(), form);
        assert_eq!(asking.authorization, "Basic aWQ6czNjcmV0");
        let shown = format!("{asking:?} {}", asking.describe());
        assert!(
            !shown.contains("s3cret") && !shown.contains("aWQ6"),
            "{shown}"
        );
        let plain = Asking::new(&issuer, "id", "s3cret", None, None);
        assert_eq!(plain.form(), "grant_type=client_credentials");
        assert!(plain != asking && plain == plain.clone());
        assert!(plain != Asking::new(&issuer, "id", "s4cret", None, None));
    }
}
