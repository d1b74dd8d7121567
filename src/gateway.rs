//! The pipeline on one screen: which route, from where, who, and may they.

use crate::authn::opaque::Finding;
use crate::authn::{self, Bearer, Need, Outcome, credential};
use crate::authz::{self, AuthMode, Permit};
use crate::headers::max_forwards;
use crate::identity::{Identity, UnixSeconds};
use crate::rejection::Rejection;
use crate::request::{RequestView, SERVED};
use crate::snapshot::{Mount, Route, Snapshot, Target};
use crate::steps::Steps;
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
    /// Something has to be fetched first; then ask again.
    Needs(Arc<Route>, Need),
    /// It is refused, by this route if one was found.
    Refused(Option<Arc<Route>>, Rejection),
}

/// Decides about a request. No I/O, no clock but `now`. `steps` hears of every check on the way.
pub fn admit(
    snapshot: &Snapshot,
    view: &RequestView<'_>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Decision {
    admit_with(snapshot, view, None, now, steps)
}

/// The same once an issuer has been asked about the token ([`Need::Introspection`]). `finding` is
/// what came of it; it counts only for the token and the issuer that it is about.
pub fn admit_with(
    snapshot: &Snapshot,
    view: &RequestView<'_>,
    finding: Option<&Finding>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Decision {
    match max_forwards::left(view.method, view.headers) {
        Ok(Some(0)) => return options(snapshot, view),
        Ok(_) => {}
        Err(rejection) => return Decision::Refused(None, rejection),
    }
    steps.checking("route", || {
        format!("{} {} on host {}", view.method, view.path, view.host)
    });
    let route = match snapshot.routes.find(&view.host, &view.path, view.method) {
        Ok(Target::Route(route)) => Arc::clone(route),
        Ok(Target::Token(mount)) => return Decision::OAuth(Arc::clone(mount)),
        Ok(Target::Metadata) => return Decision::Metadata,
        Err(rejection) => return Decision::Refused(None, rejection),
    };
    steps.passed("route", || {
        format!("{} takes {} {}", route.name, view.method, view.path)
    });
    match check(snapshot, &route, view, finding, now, steps) {
        Ok(Checked::Passed(identity, permit)) => Decision::Admitted(Admission {
            route,
            identity,
            permit,
        }),
        Ok(Checked::Needs(need)) => Decision::Needs(route, need),
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
    Needs(Need),
}

fn check(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    finding: Option<&Finding>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Checked, Rejection> {
    authz::address(&route.access, view.client, steps)?;
    let identity = match authenticate(snapshot, route, view, finding, now, steps)? {
        None => None,
        Some(Outcome::Known(identity)) => Some(identity),
        Some(Outcome::Needs(need)) => return Ok(Checked::Needs(need)),
    };
    let permit = authz::decide(&route.access, identity.as_deref(), steps)?;
    Ok(Checked::Passed(identity, permit))
}

fn authenticate(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    finding: Option<&Finding>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Option<Outcome>, Rejection> {
    if route.access.auth == AuthMode::None {
        steps.passed("credential", || {
            "not looked at: the route has auth = \"none\"".to_owned()
        });
        return Ok(None);
    }
    steps.checking("credential", || {
        "at most one Authorization header, and no access_token in the query beside it".to_owned()
    });
    let Some(token) = credential::bearer(view)? else {
        steps.passed("credential", || "no bearer token came".to_owned());
        return Ok(None);
    };
    steps.passed("credential", || {
        format!("a bearer token of {} bytes, in one place", token.len())
    });
    let bearer = Bearer {
        text: token,
        opaque: route.opaque.as_ref(),
        finding,
        certificate: view.peer.certificate,
    };
    authn::authenticate(&snapshot.issuers, &snapshot.tokens, bearer, now, steps).map(Some)
}
