//! What rate limits and CORS add to a response, whoever made it: refusals of ours are for the page to
//! read too.

use super::decision::Verdict;
use crate::cors;
use crate::rejection::{RATELIMIT, RATELIMIT_POLICY};
use crate::snapshot::Route;
use http::{HeaderMap, HeaderValue};
use std::sync::Arc;

/// What is going to be added. Nothing for routes without these rules.
#[derive(Debug, Default)]
pub(super) struct Additions {
    /// The route whose `cors` speaks, and the origin that came.
    page: Option<(Arc<Route>, Option<HeaderValue>)>,
    /// `RateLimit` and `RateLimit-Policy`.
    rate: Option<(HeaderValue, HeaderValue)>,
}

// === impl Additions ===

impl Additions {
    /// Sees what becomes of a request with these header fields.
    pub(super) fn of(verdict: &Verdict, headers: &HeaderMap) -> Self {
        let (route, allowance) = match verdict {
            Verdict::Proxy(admission) => (Some(&admission.route), admission.allowance.as_ref()),
            Verdict::Refused(route, _) => (route.as_ref(), None),
            // A preflight has its own answer.
            Verdict::Preflight(_)
            | Verdict::Token(_)
            | Verdict::Endpoint(..)
            | Verdict::Metadata
            | Verdict::InternalKeys
            | Verdict::Options(_) => (None, None),
        };
        let of_page = route.filter(|route| route.cors.is_some());
        Self {
            page: of_page.map(|route| (Arc::clone(route), cors::origin(headers).cloned())),
            rate: allowance.and_then(|allowance| allowance.headers()),
        }
    }

    /// Adds it.
    pub(super) fn put(self, headers: &mut HeaderMap) {
        if let Some((limit, policy)) = self.rate {
            // A list: the upstream may have limits of its own.
            headers.append(RATELIMIT, limit);
            headers.append(RATELIMIT_POLICY, policy);
        }
        if let Some((route, origin)) = self.page
            && let Some(policy) = &route.cors
        {
            policy.mark(origin.as_ref(), headers);
        }
    }
}
