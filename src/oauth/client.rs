//! The issuer's endpoints as the OAuth surface calls them: the only part of it that does I/O.

use std::net::IpAddr;

use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;

use super::handles::Handles;
use super::quota::Quotas;
use super::refresh::Refresh;
use super::reuse::Reuse;
use crate::keys::KeyStore;
use crate::outbound::{Outbound, OutboundError, Reply};
use crate::store::SharedStore;
use crate::telemetry::trace::Trace;

/// Largest answer of a token endpoint that is read, in bytes.
const MAX_REPLY: usize = 1024 * 1024;

/// Where a surface's token requests go.
#[derive(Debug, Clone)]
pub struct TokenIssuer {
    /// The client to ask with.
    pub outbound: Outbound,
    /// The issuer's token endpoint.
    pub token_endpoint: http::Uri,
    /// Tells the issuer which trace its answer belongs to.
    pub trace: Trace,
    /// The client's address, if the issuer is to learn it.
    pub client: Option<IpAddr>,
    /// Where its quotas are shown.
    pub quotas: Quotas,
    /// What is revoked: such a token is not given again.
    pub store: Arc<SharedStore>,
    /// Its keys: a token whose key is withdrawn is not given again.
    pub keys: Arc<KeyStore>,
    /// The tokens that are given again, where they are.
    pub reuse: Option<Arc<Reuse>>,
    /// Has refreshes wait for each other, where that grant is served.
    pub refresh: Option<Arc<Refresh>>,
    /// What clients get in place of tokens, where they get no tokens.
    pub handles: Option<Arc<Handles>>,
}

impl TokenIssuer {
    /// Posts a form to the token endpoint. Sent at most once, whatever happens.
    pub(super) async fn post(
        &self,
        mut headers: HeaderMap,
        form: Bytes,
    ) -> Result<Reply, OutboundError> {
        self.trace.tell(&mut headers);
        let reply = self
            .outbound
            .post_form(&self.token_endpoint, headers, form, MAX_REPLY)
            .await;
        if let Ok(reply) = &reply {
            self.quotas.note(&reply.headers);
        }
        reply
    }
}
