//! What a test can ask the simulated issuer to do wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};

use super::super::body::Body;
use super::super::host::Closed;

/// What comes before the id of a user.
pub(super) const USER_PATH: &str = "/api/v2/users/";

/// An endpoint that is counted and can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// `GET /.well-known/openid-configuration`
    Discovery,
    /// `GET /.well-known/jwks.json`
    Jwks,
    /// `GET /authorize`
    Authorize,
    /// `POST /oauth/token`
    Token,
    /// `POST /oauth/revoke`
    Revoke,
    /// `POST /oauth/introspect`
    Introspect,
    /// `GET /userinfo`
    Userinfo,
    /// `GET /api/v2/users`
    Users,
    /// `GET /api/v2/users/{id}`
    User,
    /// `PATCH /api/v2/users/{id}`
    UpdateUser,
    /// `GET /api/v2/events`
    Events,
}

/// A failure of an endpoint, until it is taken away again. The request is read, counted and recorded before it.
#[derive(Clone)]
pub enum Fault {
    /// This status, content type and body.
    Status(u16, String, String),
    /// This status with any headers and body: redirects, quota replies.
    Reply(u16, Vec<(String, String)>, Bytes),
    /// The right answer, this much late.
    Slow(Duration),
    /// No answer, and the connection stays open.
    Hang,
    /// 200 with a page of HTML.
    Garbage,
    /// 200 with nothing in it.
    EmptyOk,
    /// Half of a declared body, then the connection closes.
    CutBody,
    /// The connection closes without an answer.
    CutAfterRequest,
    /// The request is carried out, tokens issued and spent as ever; then the connection closes without an answer.
    LoseReply,
    /// 200 with a JSON content type and blanks that never end.
    Endless,
}

/// The faults that are set, and for how many requests more; `None` is for ever.
#[derive(Default)]
pub(super) struct Faults(BTreeMap<Endpoint, (Fault, Option<u64>)>);

// === impl Faults ===

impl Faults {
    /// Sets a fault for this many requests; `None` heals the endpoint.
    pub(super) fn set(&mut self, endpoint: Endpoint, fault: Option<Fault>, times: Option<u64>) {
        match fault {
            Some(fault) => self.0.insert(endpoint, (fault, times)),
            None => self.0.remove(&endpoint),
        };
    }

    /// What the next request to an endpoint meets.
    pub(super) fn next(&mut self, endpoint: Endpoint) -> Option<Fault> {
        let (fault, times) = self.0.get_mut(&endpoint)?;
        match times {
            None => Some(fault.clone()),
            Some(0) => None,
            Some(times) => {
                *times -= 1;
                Some(fault.clone())
            }
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The endpoint of a request, if it is one that is counted.
    pub(super) fn of(method: &Method, path: &str) -> Option<Self> {
        match (method.as_str(), path) {
            ("GET", "/.well-known/openid-configuration") => Some(Self::Discovery),
            ("GET", "/.well-known/jwks.json") => Some(Self::Jwks),
            ("GET", "/authorize") => Some(Self::Authorize),
            ("POST", "/oauth/token") => Some(Self::Token),
            ("POST", "/oauth/revoke") => Some(Self::Revoke),
            ("POST", "/oauth/introspect") => Some(Self::Introspect),
            ("GET", "/userinfo") => Some(Self::Userinfo),
            ("GET", "/api/v2/users") => Some(Self::Users),
            ("GET", "/api/v2/events") => Some(Self::Events),
            (method @ ("GET" | "PATCH"), path) => {
                let id = path.strip_prefix(USER_PATH)?;
                let one = !id.is_empty() && !id.contains('/');
                match method {
                    "GET" => one.then_some(Self::User),
                    _ => one.then_some(Self::UpdateUser),
                }
            }
            _ => None,
        }
    }
}

// === impl Fault ===

impl Fault {
    /// A redirect (302) to `location`.
    pub fn redirect(location: &str) -> Self {
        Self::Reply(
            302,
            vec![(LOCATION.to_string(), location.to_owned())],
            Bytes::new(),
        )
    }

    /// 429 as from a server with too much to do, good again after `retry_after` seconds.
    pub fn throttled(retry_after: u64) -> Self {
        let body =
            r#"{"error":"too_many_requests","error_description":"Global limit has been reached"}"#;
        let headers = [
            (CONTENT_TYPE, "application/json".to_owned()),
            (RETRY_AFTER, retry_after.to_string()),
        ];
        Self::Reply(
            429,
            headers
                .map(|(name, value)| (name.to_string(), value))
                .into(),
            Bytes::from_static(body.as_bytes()),
        )
    }

    /// Fails; `Ok(None)` if the endpoint may answer after all.
    pub(super) async fn befall(self) -> Result<Option<Response<Body>>, Closed> {
        let json = "application/json";
        Ok(Some(match self {
            Self::Status(status, content_type, body) => {
                reply(status, &content_type, Body::from(body))
            }
            Self::Reply(status, headers, body) => with_headers(status, headers, body),
            Self::Slow(delay) => {
                tokio::time::sleep(delay).await;
                return Ok(None);
            }
            Self::Hang => std::future::pending().await,
            Self::Garbage => reply(
                200,
                "text/html",
                Body::from("<!doctype html><title>Welcome</title><p>It works!"),
            ),
            Self::EmptyOk => reply(200, json, Body::empty()),
            Self::CutBody => reply(200, json, Body::cut(1024)),
            Self::CutAfterRequest => return Err(Closed),
            // The answer is lost after it was made.
            Self::LoseReply => return Ok(None),
            Self::Endless => reply(200, json, Body::Endless),
        }))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status, ..) | Self::Reply(status, ..) => write!(f, "Status({status})"),
            Self::Slow(delay) => write!(f, "Slow({delay:?})"),
            Self::Hang => f.write_str("Hang"),
            Self::Garbage => f.write_str("Garbage"),
            Self::EmptyOk => f.write_str("EmptyOk"),
            Self::CutBody => f.write_str("CutBody"),
            Self::CutAfterRequest => f.write_str("CutAfterRequest"),
            Self::LoseReply => f.write_str("LoseReply"),
            Self::Endless => f.write_str("Endless"),
        }
    }
}

fn reply(status: u16, content_type: &str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if let Ok(content_type) = HeaderValue::from_str(content_type) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// A header that is none is left out.
fn with_headers(status: u16, headers: Vec<(String, String)>, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}
