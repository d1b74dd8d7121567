//! What is asked of an issuer, and in what order, against a server that counts.

use super::*;
use crate::keys::{KeyPolicy, KeyStore};
use crate::oauth::{ErrorFormat, Quotas, Surface, TokenReply, token};
use crate::outbound::Outbound;
use crate::outbound::testing::{Act, Server};
use crate::store::SharedStore;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Trace;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::request::Parts;

const TOKENS: &str =
    r#"{"access_token":"ACCESS-VALUE","refresh_token":"NEXT-VALUE","token_type":"Bearer"}"#;
const PUBLIC: &str = "grant_type=refresh_token&refresh_token=SPENT-VALUE&client_id=i";
const SECRET: &str =
    "grant_type=refresh_token&refresh_token=SPENT-VALUE&client_id=i&client_secret=s";
const SCOPED: &str = "grant_type=refresh_token&refresh_token=SPENT-VALUE&client_id=i&scope=a";
const OTHER: &str = "grant_type=refresh_token&refresh_token=OTHER-VALUE&client_id=i";
const WINDOW: Duration = Duration::from_secs(60);

struct Lab {
    server: Server,
    surface: Surface,
    issuer: TokenIssuer,
    refresh: Arc<Refresh>,
}

impl Lab {
    async fn start(act: Act) -> Self {
        Self::with(act, WINDOW).await
    }

    async fn with(act: Act, window: Duration) -> Self {
        // Nobody waits for the end of it but who is meant to.
        let timeout = match act {
            Act::Hang => Duration::from_millis(500),
            _ => Duration::from_secs(30),
        };
        let server = Server::start(act).await;
        let metrics = Arc::new(Metrics::new("0", "0").unwrap());
        let name: Arc<str> = "bonterra".into();
        let refresh = Arc::new(Refresh::new(&name, window).unwrap());
        let second = Duration::from_secs(1);
        let keys = KeyStore::new(KeyPolicy {
            ttl: second,
            min_ttl: second,
            max_ttl: second,
            max_stale: second,
            cooldown: second,
            patience: second,
        });
        let issuer = TokenIssuer {
            outbound: Outbound::new(None, timeout).unwrap(),
            token_endpoint: server.uri("/oauth/token"),
            trace: Trace::of(&HeaderMap::new(), false, 0.0),
            client: None,
            quotas: Quotas::new(&name, &metrics),
            keys: Arc::new(keys),
            reuse: None,
            refresh: Some(Arc::clone(&refresh)),
            handles: None,
            store: Arc::new(SharedStore::in_memory()),
        };
        let surface = Surface {
            name,
            grants: Grant::ALL.to_vec(),
            max_body: 1024,
            realm: "bonterra".into(),
            errors: ErrorFormat::OAuth,
            forward_client_address: false,
        };
        Self {
            server,
            surface,
            issuer,
            refresh,
        }
    }

    async fn send(&self, head: Parts, body: &str) -> TokenReply {
        token(&self.surface, &self.issuer, &head, body.to_owned().into()).await
    }

    async fn ask(&self, body: &str) -> TokenReply {
        self.send(head(&[]), body).await
    }

    /// The outcome of a request, and how many have reached the issuer then.
    async fn outcome(&self, body: &str) -> (&'static str, usize) {
        let outcome = self.ask(body).await.outcome;
        (outcome, self.asked())
    }

    fn asked(&self) -> usize {
        self.server.requests().len()
    }
}

fn head(more: &[(&str, &str)]) -> Parts {
    let form = "application/x-www-form-urlencoded";
    let mut request = http::Request::post("/oauth/token").header("content-type", form);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[tokio::test]
async fn equal_ones_are_one_and_may_leave() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    let mut first = Box::pin(lab.ask(PUBLIC));
    assert!((&mut first).now_or_never().is_none());
    let mut others: Vec<_> = (0..20).map(|_| Box::pin(lab.ask(PUBLIC))).collect();
    for other in &mut others {
        assert!(other.now_or_never().is_none());
    }
    drop(first);
    drop(others.split_off(10));
    for other in others {
        let reply = other.await;
        assert_eq!(reply.outcome, "reused");
        assert_eq!(reply.response.body(), TOKENS);
        assert_eq!(reply.response.headers()["cache-control"], "no-store");
    }
    assert_eq!(lab.outcome(PUBLIC).await, ("reused", 1));
    assert!(lab.refresh.open().is_empty());
}

#[tokio::test]
async fn what_differs_waits_and_is_asked() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    let bodies = [PUBLIC, SECRET, SCOPED, SECRET, PUBLIC];
    let mut all: Vec<_> = bodies.map(|body| Box::pin(lab.ask(body))).into();
    for one in &mut all {
        assert!(one.now_or_never().is_none());
    }
    // One turn a token, however many wait for it; another token has its own.
    assert_eq!(lab.refresh.open().len(), 1);
    let mut other = Box::pin(lab.ask(OTHER));
    assert!((&mut other).now_or_never().is_none());
    assert_eq!(lab.refresh.open().len(), 2);
    let mut issued = 0;
    for reply in futures_util::future::join_all(all).await {
        issued += usize::from(reply.outcome == "issued");
    }
    // Equal ones may have been torn apart by one that came between them, and then ask themselves.
    assert!((3..=5).contains(&issued), "{issued}");
    assert_eq!(other.await.outcome, "issued");
    assert_eq!(lab.asked(), issued + 1);
}

#[tokio::test]
async fn who_proves_it_once_shares_nothing() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    let assertion = "grant_type=refresh_token&refresh_token=SPENT-VALUE&client_assertion=j&client_assertion_type=t";
    for number in 1..=2 {
        assert_eq!(lab.outcome(assertion).await, ("issued", number));
    }
    for number in 3..=4 {
        let reply = lab.send(head(&[("dpop", "proof")]), PUBLIC).await;
        assert_eq!((reply.outcome, lab.asked()), ("issued", number));
    }
    // Nor does anybody share with them.
    assert_eq!(lab.outcome(PUBLIC).await, ("issued", 5));
    let other_agent = lab.send(head(&[("user-agent", "another")]), PUBLIC).await;
    assert_eq!((other_agent.outcome, lab.asked()), ("reused", 5));
}

#[tokio::test]
async fn without_a_window_each_is_sent_in_its_turn() {
    let lab = Lab::with(Act::json(200, TOKENS), Duration::ZERO).await;
    let mut all: Vec<_> = (0..5).map(|_| Box::pin(lab.ask(PUBLIC))).collect();
    for one in &mut all {
        assert!(one.now_or_never().is_none());
    }
    assert_eq!(lab.refresh.open().len(), 1);
    for reply in futures_util::future::join_all(all).await {
        assert_eq!(reply.outcome, "issued");
    }
    assert_eq!(lab.asked(), 5);
}

#[tokio::test]
async fn failures_are_for_those_who_wait_and_for_nobody_later() {
    for (act, outcome) in [
        (Act::json(403, "{}"), "refused_by_issuer"),
        (Act::json(500, "{}"), "issuer_error"),
        (Act::json(200, "{}"), "issuer_bad_reply"),
        (Act::CloseAfterRequest, "issuer_cut"),
        (Act::Hang, "issuer_timeout"),
    ] {
        let name = format!("{act:?}");
        let lab = Lab::start(act).await;
        let (one, other) = tokio::join!(lab.ask(PUBLIC), lab.ask(PUBLIC));
        assert_eq!((one.outcome, other.outcome), (outcome, outcome), "{name}");
        assert_eq!(lab.asked(), 1, "{name}");
        assert_eq!(lab.outcome(PUBLIC).await, (outcome, 2), "{name}");
    }
}

#[tokio::test]
async fn what_is_forgotten_is_given_to_nobody_again() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    let forget = |token: &str| lab.refresh.forget(&TokenDigest::of(token));
    lab.ask(PUBLIC).await;
    assert!(!forget("OTHER-VALUE"));
    assert_eq!(lab.outcome(PUBLIC).await, ("reused", 1));
    for (number, token) in ["SPENT-VALUE", "NEXT-VALUE", "ACCESS-VALUE"]
        .iter()
        .enumerate()
    {
        assert!(forget(token), "{token}");
        assert_eq!(lab.outcome(PUBLIC).await, ("issued", number + 2), "{token}");
    }
    lab.refresh.forget_all();
    assert_eq!(lab.outcome(PUBLIC).await, ("issued", 5));
}

#[tokio::test]
async fn an_exchange_that_is_forgotten_is_neither_joined_nor_kept() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    for all in [false, true] {
        let before = lab.asked();
        let mut first = Box::pin(lab.ask(OTHER));
        assert!((&mut first).now_or_never().is_none());
        match all {
            true => lab.refresh.forget_all(),
            false => assert!(lab.refresh.forget(&TokenDigest::of("OTHER-VALUE"))),
        }
        let mut second = Box::pin(lab.ask(OTHER));
        assert!((&mut second).now_or_never().is_none());
        assert_eq!(first.await.outcome, "issued");
        assert_eq!(second.await.outcome, "issued");
        assert_eq!(lab.asked(), before + 2);
        lab.refresh.forget_all();
    }
}

#[tokio::test]
async fn more_than_may_be_open_are_refused_and_not_sent() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    let bodies: Vec<_> = (0..MAX_OPEN)
        .map(|number| OTHER.replace("OTHER-VALUE", &format!("OTHER-VALUE-{number}")))
        .collect();
    let mut all: Vec<_> = bodies.iter().map(|body| Box::pin(lab.ask(body))).collect();
    for one in &mut all {
        assert!(one.now_or_never().is_none());
    }
    let reply = lab.ask(PUBLIC).await;
    assert_eq!(reply.outcome, "overloaded");
    assert_eq!(reply.response.status(), 503);
    assert!(reply.response.headers().contains_key("retry-after"));
    let sent = lab.server.requests();
    assert!(sent.iter().all(|request| !request.contains("SPENT-VALUE")));
}

#[tokio::test]
async fn debug_shows_nothing() {
    let lab = Lab::start(Act::json(200, TOKENS)).await;
    lab.ask(PUBLIC).await;
    let shown = format!("{:?} {:?}", lab.refresh, lab.issuer);
    assert!(!shown.contains("-VALUE"), "{shown}");
}
