//! What the simulated issuer remembers of its requests, for tests to look at.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName};

use super::fault::Endpoint;

/// Requests received so far, those that met a fault included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests for the discovery document.
    pub discovery: u64,
    /// Requests for the JWKS.
    pub jwks: u64,
    /// Requests to authorize; posts of the login form are not counted.
    pub authorize: u64,
    /// Token requests.
    pub token: u64,
    /// Revocations.
    pub revoke: u64,
    /// Introspections.
    pub introspect: u64,
    /// Requests for user information.
    pub userinfo: u64,
    /// Requests for a page of users.
    pub users: u64,
    /// Requests for one user.
    pub user: u64,
    /// Requests to change a user.
    pub update_user: u64,
    /// Connections for events.
    pub events: u64,
}

/// A request as the issuer saw it. `Debug` shows neither target, values nor body: they hold secrets.
#[derive(Clone)]
pub struct RecordedRequest {
    /// The raw request target: path and query.
    pub target: String,
    /// All header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// All that is remembered.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) counts: Counts,
    by_client: BTreeMap<(Endpoint, String), u64>,
    last: BTreeMap<Endpoint, RecordedRequest>,
}

// === impl Seen ===

impl Seen {
    /// Counts and records a request; `client` is whom it says it comes from.
    pub(super) fn add(
        &mut self,
        endpoint: Endpoint,
        client: Option<String>,
        request: RecordedRequest,
    ) {
        self.counts.add(endpoint);
        if let Some(client) = client {
            *self.by_client.entry((endpoint, client)).or_default() += 1;
        }
        self.last.insert(endpoint, request);
    }

    /// Requests to an endpoint that said they came from this client.
    pub(super) fn of(&self, endpoint: Endpoint, client: &str) -> u64 {
        let key = (endpoint, client.to_owned());
        self.by_client.get(&key).copied().unwrap_or_default()
    }

    /// The last request to an endpoint.
    pub(super) fn last(&self, endpoint: Endpoint) -> Option<RecordedRequest> {
        self.last.get(&endpoint).cloned()
    }
}

// === impl Counts ===

impl Counts {
    fn add(&mut self, endpoint: Endpoint) {
        let count = match endpoint {
            Endpoint::Discovery => &mut self.discovery,
            Endpoint::Jwks => &mut self.jwks,
            Endpoint::Authorize => &mut self.authorize,
            Endpoint::Token => &mut self.token,
            Endpoint::Revoke => &mut self.revoke,
            Endpoint::Introspect => &mut self.introspect,
            Endpoint::Userinfo => &mut self.userinfo,
            Endpoint::Users => &mut self.users,
            Endpoint::User => &mut self.user,
            Endpoint::UpdateUser => &mut self.update_user,
            Endpoint::Events => &mut self.events,
        };
        *count += 1;
    }
}

// === impl RecordedRequest ===

impl RecordedRequest {
    /// The body read as a form, in its order.
    pub fn form(&self) -> Vec<(String, String)> {
        form_urlencoded::parse(&self.body).into_owned().collect()
    }

    /// The first value of a header as text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().map(HeaderName::as_str).collect();
        f.debug_struct("RecordedRequest")
            .field("headers", &names)
            .field("body_bytes", &self.body.len())
            .finish()
    }
}
