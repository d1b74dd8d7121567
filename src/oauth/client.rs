//! The issuer's endpoints as the OAuth surface calls them: the only part of it that does I/O.

use std::net::IpAddr;

use bytes::Bytes;
use http::HeaderMap;

use crate::outbound::{Outbound, OutboundError, Reply};
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
}

impl TokenIssuer {
    /// Posts a form to the token endpoint. Sent at most once, whatever happens.
    pub(super) async fn post(
        &self,
        mut headers: HeaderMap,
        form: Bytes,
    ) -> Result<Reply, OutboundError> {
        self.trace.tell(&mut headers);
        self.outbound
            .post_form(&self.token_endpoint, headers, form, MAX_REPLY)
            .await
    }
}
