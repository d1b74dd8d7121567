//! The pipeline on one screen: which route, from where, who, and may they.

use crate::authn::opaque::Finding;
use crate::authn::{self, Bearer, Need, Outcome, credential};
use crate::authz::{self, AuthMode, Permit};
use crate::cors::Preflight;
use crate::headers::max_forwards;
use crate::identity::{Identity, UnixSeconds};
use crate::limit::{Allowance, Ask, By};
use crate::oauth::Endpoint;
use crate::oauth::handles::{self, Exchanged, Handle, Kind};
use crate::rejection::{Reason, Rejection};
use crate::request::{RequestView, SERVED};
use crate::snapshot::{Mount, Route, Snapshot, Target};
use crate::steps::Steps;
use std::net::IpAddr;
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
    /// Proof that it was counted, if the route has a limit.
    pub allowance: Option<Allowance>,
    /// The token that the caller's handle stands for, if a handle came.
    pub exchanged: Option<Arc<Exchanged>>,
}

/// A request that may go to its upstream once it has been counted.
#[derive(Debug)]
pub struct Uncounted(Admission);

/// What has been found out for a decision since it was first asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Found<'a> {
    /// What an issuer says of the token ([`Need::Introspection`]); it counts only for the token and
    /// the issuer that it is about.
    pub finding: Option<&'a Finding>,
    /// What is left to the client's address ([`Decision::CountAddress`]).
    pub allowance: Option<&'a Allowance>,
    /// The token that a handle stands for ([`Decision::Exchange`]); it counts only for this handle.
    pub exchanged: Option<&'a Arc<Exchanged>>,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision {
    /// It goes upstream.
    Admitted(Admission),
    /// It is for the gateway's own OAuth surface.
    OAuth(Arc<Mount>),
    /// It is for another endpoint of that surface.
    Endpoint(Arc<Mount>, Endpoint),
    /// It asks where tokens for this resource come from (RFC 9728).
    Metadata,
    /// It asks for the public keys of the gateway's own tokens.
    InternalKeys,
    /// It may go no further and asks what may be asked here; the value is the `Allow` header.
    Options(Box<str>),
    /// A browser asks whether a page may use this route; it may.
    Preflight(Arc<Route>),
    /// Something has to be fetched first; then ask again.
    Needs(Arc<Route>, Need),
    /// A handle of this surface came in place of a token: that has to be looked up first; then ask
    /// again.
    Exchange(Arc<Route>, Arc<Mount>, Handle),
    /// The client's address has to be counted first; then ask again.
    CountAddress(Arc<Route>, Ask),
    /// It goes upstream once its caller has been counted, which is the last check.
    CountCaller(Uncounted, Ask),
    /// It is refused, by this route if one was found.
    Refused(Option<Arc<Route>>, Rejection),
}

// === impl Uncounted ===

impl Uncounted {
    /// The route it takes.
    pub fn route(&self) -> &Arc<Route> {
        &self.0.route
    }

    /// It has been counted.
    pub fn counted(self, allowance: Allowance) -> Admission {
        Admission {
            allowance: Some(allowance),
            ..self.0
        }
    }
}

/// Decides about a request. No I/O, no clock but `now`. `steps` hears of every check on the way.
pub fn admit(
    snapshot: &Snapshot,
    view: &RequestView<'_>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Decision {
    admit_with(snapshot, view, Found::default(), now, steps)
}

/// The same once something has been found out that the decision needed.
pub fn admit_with(
    snapshot: &Snapshot,
    view: &RequestView<'_>,
    found: Found<'_>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Decision {
    match max_forwards::left(view.method, view.headers) {
        Ok(Some(0)) => return options(snapshot, view),
        Ok(_) => {}
        Err(rejection) => return Decision::Refused(None, rejection),
    }
    // Before everything else, because a preflight carries no token and its refusal cannot be read.
    if let Some(route) = preflight(snapshot, view) {
        return Decision::Preflight(route);
    }
    steps.checking("route", || {
        format!("{} {} on host {}", view.method, view.path, view.host)
    });
    let route = match snapshot.routes.find(&view.host, &view.path, view.method) {
        Ok(Target::Route(route)) => Arc::clone(route),
        Ok(Target::Token(mount)) => return Decision::OAuth(Arc::clone(mount)),
        Ok(Target::Endpoint(mount, endpoint)) => {
            return Decision::Endpoint(Arc::clone(mount), *endpoint);
        }
        Ok(Target::Metadata) => return Decision::Metadata,
        Ok(Target::InternalKeys) => return Decision::InternalKeys,
        Err(rejection) => return Decision::Refused(None, rejection),
    };
    steps.passed("route", || {
        format!("{} takes {} {}", route.name, view.method, view.path)
    });
    match check(snapshot, &route, view, found, now, steps) {
        Ok(Checked::Passed(identity, permit)) => admitted(route, identity, permit, view, found),
        Ok(Checked::Needs(need)) => Decision::Needs(route, need),
        Ok(Checked::Uncounted(ask)) => Decision::CountAddress(route, ask),
        Ok(Checked::Handle(mount, handle)) => Decision::Exchange(route, mount, handle),
        Err(rejection) => Decision::Refused(Some(route), rejection),
    }
}

fn admitted(
    route: Arc<Route>,
    identity: Option<Arc<Identity>>,
    permit: Permit,
    view: &RequestView<'_>,
    found: Found<'_>,
) -> Decision {
    let limit = route
        .limit
        .as_ref()
        .filter(|limit| limit.by() != By::Address);
    let ask = limit.map(|limit| limit.ask(identity.as_ref(), address(view)));
    let admission = Admission {
        route,
        identity,
        permit,
        allowance: found.allowance.cloned(),
        exchanged: found.exchanged.cloned(),
    };
    match ask {
        None => Decision::Admitted(admission),
        Some(ask) => Decision::CountCaller(Uncounted(admission), ask),
    }
}

/// The address that is counted. Proxies that say something else than an address count themselves.
fn address(view: &RequestView<'_>) -> IpAddr {
    view.client.unwrap_or(view.peer.address.ip())
}

/// The route that a browser asks about, if the page may use it.
fn preflight(snapshot: &Snapshot, view: &RequestView<'_>) -> Option<Arc<Route>> {
    let Preflight { origin, method } = Preflight::of(view.method, view.headers)?;
    match snapshot.routes.find(&view.host, &view.path, &method) {
        Ok(Target::Route(route)) if route.cors.as_ref()?.allows(origin) => Some(Arc::clone(route)),
        Ok(
            Target::Route(_)
            | Target::Token(_)
            | Target::Endpoint(..)
            | Target::Metadata
            | Target::InternalKeys,
        )
        | Err(_) => None,
    }
}

/// RFC 9110 §7.6.2. It tells no more than a 405 does, so nobody has to say who they are.
fn options(snapshot: &Snapshot, view: &RequestView<'_>) -> Decision {
    let any = |target: &Target| match target {
        Target::Route(_) => &SERVED[..],
        Target::Token(_) => &["POST"],
        Target::Endpoint(_, endpoint) => endpoint.methods(),
        Target::Metadata | Target::InternalKeys => &["GET", "HEAD"],
    };
    match snapshot.routes.allow(&view.host, &view.path, any) {
        Ok(allow) => Decision::Options(allow),
        Err(rejection) => Decision::Refused(None, rejection),
    }
}

enum Checked {
    Passed(Option<Arc<Identity>>, Permit),
    Needs(Need),
    Uncounted(Ask),
    Handle(Arc<Mount>, Handle),
}

fn check(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    found: Found<'_>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Checked, Rejection> {
    authz::address(&route.access, view.client, steps)?;
    // Addresses are counted before a token costs anything.
    if let Some(limit) = &route.limit
        && limit.by() == By::Address
        && !found
            .allowance
            .is_some_and(|allowance| allowance.is_of(limit))
    {
        return Ok(Checked::Uncounted(limit.ask(None, address(view))));
    }
    let mut shown = credential(route, view, steps)?;
    // Text of a form that no other token has, and only where handles are given out.
    if let Some(text) = shown
        && !snapshot.opaque.is_empty()
        && handles::is_meant(text)
    {
        match found.exchanged.filter(|exchanged| exchanged.is_for(text)) {
            Some(exchanged) => shown = Some(exchanged.token()),
            None => {
                let (mount, handle) = access_handle(snapshot, text)?;
                return Ok(Checked::Handle(mount, handle));
            }
        }
    }
    let identity = match authenticate(snapshot, route, view, shown, found.finding, now, steps)? {
        None => None,
        Some(Outcome::Known(identity)) => Some(identity),
        Some(Outcome::Needs(need)) => return Ok(Checked::Needs(need)),
    };
    let permit = authz::decide(&route.access, identity.as_deref(), steps)?;
    Ok(Checked::Passed(identity, permit))
}

/// The surface that has given a handle out.
fn access_handle(snapshot: &Snapshot, text: &str) -> Result<(Arc<Mount>, Handle), Rejection> {
    let read = |mount: &Arc<Mount>| {
        let handle = mount.handles.as_ref()?.read(text)?;
        Some((Arc::clone(mount), handle))
    };
    let inactive = |note: &'static str| Rejection::noted(Reason::InactiveToken, note);
    match snapshot.opaque.iter().find_map(read) {
        Some((mount, handle)) if handle.kind == Kind::Access => Ok((mount, handle)),
        Some(_) => Err(inactive("a refresh handle in place of an access handle")),
        None => Err(inactive(
            "a handle that no surface here has given out, or one with another encryption_key_file",
        )),
    }
}

/// The token that came, if the route looks at tokens.
fn credential<'v>(
    route: &Route,
    view: &RequestView<'v>,
    steps: &mut impl Steps,
) -> Result<Option<&'v str>, Rejection> {
    if route.upstream.token.is_some() {
        steps.checking("credential", || {
            "no access_token in the query: the upstream gets the gateway's own token".to_owned()
        });
        credential::none_in_query(view)?;
    }
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
    Ok(Some(token))
}

fn authenticate(
    snapshot: &Snapshot,
    route: &Route,
    view: &RequestView<'_>,
    token: Option<&str>,
    finding: Option<&Finding>,
    now: UnixSeconds,
    steps: &mut impl Steps,
) -> Result<Option<Outcome>, Rejection> {
    let Some(text) = token else {
        return Ok(None);
    };
    let bearer = Bearer {
        text,
        opaque: route.opaque.as_ref(),
        finding,
        certificate: view.peer.certificate,
    };
    authn::authenticate(&snapshot.issuers, &snapshot.tokens, bearer, now, steps).map(Some)
}
