//! What is waited for before anything of a request is sent: the beginning of its body, or all of it, and the
//! gateway's own token for the upstream.

use super::broken_off;
use crate::rejection::{Reason, Rejection};
use crate::snapshot::Route;
use crate::upstream::{OwnToken, Token, Upload, UploadFault};
use http::Request;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Whether something has to be known of the body first.
pub(super) fn is_held(request: &Request<Upload>, route: &Route) -> bool {
    route.json_fields.is_some() || request.body().is_searched()
}

/// Searches the beginning of a body that may hold no token, and all of one that has to be JSON, before
/// anything is sent. What the client takes for that is taken off the route's `timeout`: the deadline
/// that is left, if it had to be waited for and there is one.
///
/// All of it has to come within `patience`, which is otherwise the time between two reads: there may
/// be no `timeout`, and what is held back must not be held by a byte now and then.
pub(super) async fn hold_back(
    request: &mut Request<Upload>,
    route: &Route,
    patience: Duration,
) -> Result<Option<Instant>, Rejection> {
    let deadline = deadline(route);
    let patience = route
        .timeout
        .map_or(patience, |timeout| timeout.min(patience));
    let fields = route.json_fields.as_ref();
    if let Some(fields) = fields {
        fields.check_type(request.headers())?;
    }
    let upload = request.body_mut();
    let held = async {
        upload.hold_back().await?;
        match fields {
            Some(_) => upload.hold_all().await,
            None => Ok(()),
        }
    };
    let held = pingora_timeout::timeout(patience, held).await;
    held.unwrap_or(Err(UploadFault::Stalled))
        .map_err(broken_off)?;
    if let Some(fields) = fields {
        fields.check(upload.held())?;
    }
    Ok(deadline)
}

/// The gateway's own token for the upstream. What it has to be waited for is taken off the route's
/// `timeout` as well.
///
/// # Errors
/// [`Reason::UpstreamUnhealthy`] if there is none: the upstream cannot be asked at the moment.
pub(super) async fn token(
    own: &Arc<OwnToken>,
    route: &Route,
    held: Option<Instant>,
) -> Result<(Option<Arc<Token>>, Option<Instant>), Rejection> {
    if let Some(token) = own.ready() {
        return Ok((Some(token), held));
    }
    let deadline = held.or_else(|| deadline(route));
    match Box::pin(own.wait(deadline)).await {
        Ok(token) => Ok((Some(token), deadline)),
        Err(none) => Err(Rejection::noted(
            Reason::UpstreamUnhealthy,
            none.to_string(),
        )),
    }
}

fn deadline(route: &Route) -> Option<Instant> {
    route.timeout.map(|timeout| Instant::now() + timeout)
}
