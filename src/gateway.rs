//! The pipeline on one screen: which route, from where, who, and may they.

use crate::authn::{self, Issuer, Outcome, credential};
use crate::authz::{self, AuthMode, Permit};
use crate::headers::max_forwards;
use crate::identity::{Identity, UnixSeconds};
use crate::rejection::Rejection;
use crate::request::{RequestView, SERVED};
use crate::snapshot::{Mount, Route, Snapshot, Target};
use std::sync::Arc;

/// A request that may go to its upstream.
#[derive(Debug)]
pub struct Admission {
    /// The route it takes.
    pub route: Arc<Route>,
    /// The caller, unless the route needs none and none came.
    pub identity: Option<Arc<Identity>>,
    /// Proof that the route's rules were checked.
    pub permit: Permit,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It goes upstream.
    Admitted(Admission),
    /// It is for the gateway's own OAuth surface.
    OAuth(Arc<Mount>),
    /// It asks where tokens for this resource come from (RFC 9728).
    Metadata,
    /// It may go no further and asks what may be asked here; the value is the `Allow` header.
    Options(Box<str>),
    /// Keys have to be fetched first; then ask again.
    NeedKeys(Arc<Route>, Arc<Issuer>),
    /// It is refused, by this route if one was found.
    Refused(Option<Arc<Route>>, Rejection),
}

/// Decides about a request. No I/O, no clock but `now`.
pub fn admit(snapshot: &Snapshot, view: &RequestView<'_>, now: UnixSeconds) -> Decision {
    match max_forwards::left(view.method, view.headers) {
        Ok(Some(0)) => return options(snapshot, view),
        Ok(_) => {}
        Err(rejection) => return Decision::Refused(None, rejection),
    }
    let route = match snapshot.routes.find(&view.host, &view.path, view.method) {
        Ok(Target::Route(route)) => Arc::clone(route),
        Ok(Target::Token(mount)) => return Decision::OAuth(Arc::clone(mount)),
        Ok(Target::Metadata) => return Decision::Metadata,
        Err(rejection) => return Decision::Refused(None, rejection),
    };
    match check(snapshot, &route, view, now) {
        Ok(Checked::Passed(identity, permit)) => Decision::Admitted(Admission {
            route,
            identity,
            permit,
        }),
        Ok(Checked::NeedKeys(issuer)) => Decision::NeedKeys(route, issuer),
        Err(rejection) => Decision::Refused(Some(route), rejection),
    }
}

/// RFC 9110 §7.6.2. It tells no more than a 405 does, so nobody has to say who they are.
fn options(snapshot: &Snapshot, view: &RequestView<'_>) -> Decision {
    let any = |target: &Target| match target {
        Target::Route(_) => &SERVED[..],
        Target::Token(_) => &["POST"],
        Target::Metadata => &["GET", "HEAD"],
    };
    match snapshot.routes.allow(&view.host, &view.path, any) {
        Ok(allow) => Decision::Options(allow),
        Err(rejection) => Decision::Refused(None, rejection),
    }
}

enum Checked {
    Passed(Option<Arc<Identity>>, Permit),
    NeedKeys(Arc<Issuer>),
}

fn check(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    now: UnixSeconds,
) -> Result<Checked, Rejection> {
    authz::address(&route.access, view.client)?;
    let identity = match authenticate(snapshot, route, view, now)? {
        None => None,
        Some(Outcome::Known(identity)) => Some(identity),
        Some(Outcome::NeedKeys(issuer)) => return Ok(Checked::NeedKeys(issuer)),
    };
    let permit = authz::decide(&route.access, identity.as_deref())?;
    Ok(Checked::Passed(identity, permit))
}

fn authenticate(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    now: UnixSeconds,
) -> Result<Option<Outcome>, Rejection> {
    if route.access.auth == AuthMode::None {
        return Ok(None);
    }
    match credential::bearer(view)? {
        None => Ok(None),
        Some(token) => {
            authn::authenticate(&snapshot.issuers, &snapshot.tokens, token, now).map(Some)
        }
    }
}
