//! `explain`: what the gateway would make of a request, told by the code that decides.

mod certificate;
mod mask;
mod question;
mod told;

pub use question::Question;

use super::output;
use super::{FAILED, run, stdin};
use crate::app;
use crate::authn::token::UnverifiedToken;
use crate::authn::{Issuer, Need, credential};
use crate::config;
use crate::gateway::{self, Admission, Decision, Found};
use crate::keys::fetch::{self, FetchError};
use crate::oauth::Endpoint;
use crate::proxy::Passage;
use crate::rejection::{Reason, Rejection};
use crate::request::{Peer, RequestView};
use crate::server::{self, Counting, Verdict};
use crate::snapshot::{Mount, Provider, Route, Snapshot, compile};
use crate::steps::{Steps as _, Told, Untold};
use crate::telemetry::trace::Trace;
use certificate::Shown;
use http::HeaderValue;
use http::request::Parts;
use question::Unusable;
use std::sync::Arc;
use told::Report;

/// What came of a question.
enum Answer {
    /// It goes upstream, with this head.
    Admitted(Admission, Box<Parts>),
    /// An OAuth surface answers it.
    Token(Arc<Mount>),
    /// Another endpoint of an OAuth surface answers it.
    Endpoint(Arc<Mount>, Endpoint),
    /// It gets this document.
    Metadata(serde_json::Value),
    /// It gets these keys.
    InternalKeys(Vec<u8>),
    /// It may go no further and is told these methods.
    Options(Box<str>),
    /// The page of a browser may use this route.
    Preflight(Arc<Route>),
    /// It is refused.
    Refused(Rejection),
}

/// Why an issuer's keys could not be had.
struct KeysMissing {
    issuer: Arc<str>,
    error: FetchError,
}

/// A question in the form in which the gateway would get it.
struct Case<'a> {
    snapshot: &'a Snapshot,
    head: &'a Parts,
    peer: Peer,
    /// The client certificate of the connection, if one is given.
    certificate: Option<&'a Shown>,
}

/// Explains a request. Returns the exit code.
pub fn run(question: &Question) -> u8 {
    let path = &question.file.config;
    let checked = match app::environment() {
        Ok(env) => config::load(path).and_then(|parsed| compile(parsed, &env)),
        Err(error) => return output::not_started(&error),
    };
    let snapshot = match checked {
        Ok(snapshot) => snapshot,
        Err(errors) => return output::mistakes(&errors),
    };
    let token = match question.token.as_deref().map(stdin::given).transpose() {
        Ok(token) => token,
        Err(error) => return stdin::unreadable(&error),
    };
    let head = match question.head(token.as_deref()) {
        Ok(head) => head,
        Err(Unusable(why)) => return output::fail(&why, super::MISCONFIGURED),
    };
    let tls = snapshot.tls.as_deref();
    let shown = question.client_cert.as_deref();
    let shown = match shown.map(|path| Shown::read(path, tls)).transpose() {
        Ok(shown) => shown,
        Err(Unusable(why)) => return output::fail(&why, super::MISCONFIGURED),
    };
    let case = Case {
        snapshot: &snapshot,
        head: &head,
        peer: Peer {
            secure: tls.is_some(),
            certificate: shown.as_ref().map(|shown| shown.thumbprint),
            ..snapshot.trusted.peer(question.peer())
        },
        certificate: shown.as_ref(),
    };
    match run::runtime() {
        Ok(runtime) => {
            let report = runtime.block_on(async {
                // What gateways have revoked is known to them all, and to this process only by the store.
                snapshot.connect().await;
                case.report().await
            });
            let printed = output::print(&report.text());
            if printed == 0 { report.code() } else { printed }
        }
        Err(error) => output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    }
}

// === impl Case ===

impl Case<'_> {
    async fn report(&self) -> Report<'_> {
        let mut steps = Told::default();
        let mut missing = None;
        if let Some(tls) = &self.snapshot.tls {
            steps.passed("tls", || certificate::told(tls, self.certificate));
        }
        steps.checking("request", || {
            "a Host, and a path that everybody reads in the same way".to_owned()
        });
        let answer = match RequestView::new(self.head, self.peer, &self.snapshot.trusted) {
            Err(rejection) => Answer::Refused(rejection),
            Ok(view) => {
                steps.passed("request", || {
                    let client = view.client;
                    let client = client.map_or("unknown".to_owned(), |client| client.to_string());
                    format!("host {}, path {}, client {client}", view.host, view.path)
                });
                missing = self.provide_keys(&view).await;
                self.answer(view, &mut steps).await
            }
        };
        let id = server::request_id(&self.head.headers, self.peer);
        Report {
            head: self.head,
            peer: self.peer,
            request_id: id.to_str().unwrap_or_default().to_owned(),
            steps,
            answer,
            missing,
        }
    }

    /// A gateway that serves has its keys already. Here they are fetched, of the token's issuer and
    /// only if the decision turns out to need them.
    async fn provide_keys(&self, view: &RequestView<'_>) -> Option<KeysMissing> {
        let now = self.snapshot.clock.now();
        let decision = match gateway::admit(self.snapshot, view, now, &mut Untold) {
            // What comes behind the count.
            Decision::CountAddress(_, ask) => {
                let allowance = ask.untouched();
                let found = Found {
                    allowance: Some(&allowance),
                    ..Found::default()
                };
                gateway::admit_with(self.snapshot, view, found, now, &mut Untold)
            }
            decision => decision,
        };
        let provider = match decision {
            Decision::Refused(_, rejection) if rejection.reason == Reason::KeysUnavailable => {
                let token = UnverifiedToken::parse(credential::bearer(view).ok()??).ok()?;
                self.provider(|issuer| *issuer.rules.issuer == *token.issuer())?
            }
            Decision::Needs(_, Need::Introspection(question)) => {
                self.provider(|issuer| Arc::ptr_eq(issuer, &question.issuer))?
            }
            // The token inside is one of that issuer's.
            Decision::Exchange(_, mount, _) => {
                self.provider(|issuer| Arc::ptr_eq(issuer, &mount.provider.issuer))?
            }
            _ => return None,
        };
        let (source, keys) = (provider.source.clone(), Arc::clone(&provider.issuer.keys));
        let outcome = fetch::once(source.clone(), Arc::clone(&keys)).await;
        if !source.opaque {
            // The decision may ask once more, for a key that is not among these.
            tokio::spawn(fetch::on_demand(source, keys));
        }
        outcome.err().map(|error| KeysMissing {
            issuer: Arc::clone(&provider.issuer.rules.name),
            error,
        })
    }

    fn provider(&self, is_it: impl Fn(&Arc<Issuer>) -> bool) -> Option<&Provider> {
        let mut providers = self.snapshot.providers.iter();
        providers.find(|provider| is_it(&provider.issuer))
    }

    async fn answer(&self, view: RequestView<'_>, steps: &mut Told) -> Answer {
        match server::decide(self.snapshot, &view, Counting::Off, steps).await {
            Verdict::Refused(_, rejection) => Answer::Refused(rejection),
            Verdict::Token(mount) => Answer::Token(mount),
            Verdict::Endpoint(mount, endpoint) => Answer::Endpoint(mount, endpoint),
            Verdict::Metadata => {
                match server::metadata_document(self.snapshot, self.head, self.peer) {
                    Ok(document) => Answer::Metadata(document),
                    Err(rejection) => Answer::Refused(rejection),
                }
            }
            Verdict::InternalKeys => match server::internal_keys(self.snapshot, self.head) {
                Ok(document) => Answer::InternalKeys(document.to_vec()),
                Err(rejection) => Answer::Refused(rejection),
            },
            Verdict::Options(allow) => Answer::Options(allow),
            Verdict::Preflight(route) => Answer::Preflight(route),
            Verdict::Proxy(admission) => {
                if let Some(minter) = &admission.route.internal_jwt {
                    let (identity, now) =
                        (admission.identity.as_deref(), self.snapshot.clock.now());
                    steps.passed("internal", || minter.describe(identity, now));
                }
                if let Some(own) = &admission.route.upstream.token {
                    steps.passed("token", || own.describe());
                }
                steps.checking("passage", || {
                    "headers and target as the upstream gets them".to_owned()
                });
                match self.passage(view, &admission) {
                    Ok(head) => Answer::Admitted(admission, Box::new(head)),
                    Err(rejection) => Answer::Refused(rejection),
                }
            }
        }
    }

    fn passage(&self, view: RequestView<'_>, admission: &Admission) -> Result<Parts, Rejection> {
        let address = self.peer.address.ip().to_canonical().to_string();
        let path = view.canonical();
        let telemetry = self.snapshot.telemetry.as_ref();
        let sample = telemetry.map_or(0.0, |telemetry| telemetry.sample);
        let passage = Passage {
            admission,
            snapshot: self.snapshot,
            peer: self.peer,
            // An address is always a header value.
            peer_text: &HeaderValue::from_str(&address)
                .unwrap_or(HeaderValue::from_static("unknown")),
            client_cert: self.certificate.and_then(|shown| shown.header.as_ref()),
            path: path.as_deref(),
            request_id: &server::request_id(&self.head.headers, self.peer),
            trace: &Trace::of(&self.head.headers, self.peer.trusted, sample),
        };
        let mut head = self.head.clone();
        passage.rewrite(&mut head)?;
        Ok(head)
    }
}
