//! What is asked of an issuer, and what is not, against a server that counts.

use super::*;
use crate::keys::{KeyPolicy, KeyStore};
use crate::oauth::grant::Grant;
use crate::oauth::{Quotas, Surface, TokenReply, token};
use crate::outbound::Outbound;
use crate::outbound::testing::{Act, Server};
use crate::store::{Revocation, SharedStore};
use crate::telemetry::trace::Trace;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::header::RETRY_AFTER;
use http::request::Parts;

const TOKEN: &str = r#"{"access_token":"TOKEN-VALUE","expires_in":86400,"token_type":"Bearer"}"#;
const RIGHT: &str = "grant_type=client_credentials&client_id=i&client_secret=SECRET-VALUE";
const WRONG: &str = "grant_type=client_credentials&client_id=i&client_secret=WRONG-VALUE";

struct Lab {
    server: Server,
    surface: Surface,
    issuer: TokenIssuer,
    reuse: Arc<Reuse>,
    clock: Clock,
}

impl Lab {
    async fn start(act: Act) -> Self {
        Self::with(act, 100).await
    }

    async fn with(act: Act, max_entries: u64) -> Self {
        let server = Server::start(act).await;
        let metrics = Arc::new(Metrics::new("0", "0").unwrap());
        let name: Arc<str> = "bonterra".into();
        let clock = Clock::system();
        let settings = Settings {
            max_entries,
            rules: Rules {
                share: 0.8,
                min_remaining: 60,
            },
            quota_low: Some(0.2),
        };
        let reuse = Reuse::new(&name, settings, clock.clone(), &metrics).unwrap();
        let reuse = Arc::new(reuse);
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
            outbound: Outbound::new(None, Duration::from_millis(500)).unwrap(),
            token_endpoint: server.uri("/oauth/token"),
            trace: Trace::of(&HeaderMap::new(), false, 0.0),
            client: None,
            quotas: Quotas::new(&name, &metrics),
            store: Arc::new(SharedStore::in_memory()),
            keys: Arc::new(keys),
            reuse: Some(Arc::clone(&reuse)),
            refresh: None,
            handles: None,
        };
        let surface = Surface {
            name,
            grants: Grant::ALL.to_vec(),
            max_body: 1024,
            realm: "bonterra".into(),
            errors: crate::oauth::ErrorFormat::OAuth,
            forward_client_address: false,
        };
        Self {
            server,
            surface,
            issuer,
            reuse,
            clock,
        }
    }

    async fn ask(&self, body: &'static str) -> TokenReply {
        token(&self.surface, &self.issuer, &head(), body.into()).await
    }

    /// The outcome of a request, and how many have reached the issuer then.
    async fn outcome(&self, body: &'static str) -> (&'static str, usize) {
        let outcome = self.ask(body).await.outcome;
        (outcome, self.asked())
    }

    fn asked(&self) -> usize {
        self.server.requests().len()
    }
}

fn head() -> Parts {
    let form = "application/x-www-form-urlencoded";
    let request = http::Request::post("/oauth/token").header(CONTENT_TYPE, form);
    request.body(()).unwrap().into_parts().0
}

fn throttled(retry_after: &str) -> Act {
    Act::Raw(format!(
        "HTTP/1.1 429 X\r\nRetry-After: {retry_after}\r\nContent-Length: 2\r\n\r\n{{}}"
    ))
}

#[tokio::test]
async fn one_token_for_its_time() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 1));
    for _ in 0..3 {
        assert_eq!(lab.outcome(RIGHT).await, ("reused", 1));
    }
    lab.clock.advance(Duration::from_secs(100));
    let reply = lab.ask(RIGHT).await;
    let body: serde_json::Value = serde_json::from_slice(reply.response.body()).unwrap();
    let left = body["expires_in"].as_u64().unwrap();
    assert!((86_290..=86_300).contains(&left), "{left}");
    assert_eq!(body["access_token"], "TOKEN-VALUE");
    assert_eq!(reply.response.headers()["cache-control"], "no-store");
    assert_eq!(reply.response.headers()["content-type"], "application/json");
    // Four fifths are over.
    lab.clock.advance(Duration::from_secs(69_120));
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 2));
    // A clock that is set back brings nothing back and makes nothing last.
    lab.clock.set_back(Duration::from_secs(1000));
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 3));
    assert_eq!(lab.outcome(WRONG).await.1, 4, "another secret, another key");
}

/// Of ten, two are a fifth, which is not below it.
#[tokio::test]
async fn when_a_quota_is_low_a_token_lasts_longer() {
    for (left, asked) in [(2, 2), (1, 1), (0, 1)] {
        let length = TOKEN.len();
        let quota = format!("b=per_hour;q=10;r={left};t=9");
        let lab = Lab::start(Act::Raw(format!(
            "HTTP/1.1 200 X\r\nAuth0-Client-Quota-Limit: {quota}\r\nContent-Length: {length}\r\n\r\n{TOKEN}"
        )))
        .await;
        lab.ask(RIGHT).await;
        // Four fifths are over, and not nine tenths of all that may be.
        lab.clock.advance(Duration::from_secs(72_000));
        assert_eq!(lab.outcome(RIGHT).await.1, asked, "{left} left");
        // Never with less left than it has to have.
        lab.clock.advance(Duration::from_secs(86_400 - 72_000 - 59));
        assert_eq!(
            lab.outcome(RIGHT).await.1,
            asked + usize::from(left < 2),
            "{left} left"
        );
    }
}

#[tokio::test]
async fn who_asks_at_the_same_time_shares_one_question_and_may_leave() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    let mut first = Box::pin(lab.ask(RIGHT));
    // Far enough to have asked.
    assert!((&mut first).now_or_never().is_none());
    let others = (0..20).map(|_| lab.ask(RIGHT));
    let others = others.collect::<Vec<_>>();
    let mut others: Vec<_> = others.into_iter().map(Box::pin).collect();
    for other in &mut others {
        assert!(other.now_or_never().is_none());
    }
    drop(first);
    drop(others.split_off(10));
    for other in others {
        let reply = other.await;
        assert_eq!(
            (reply.outcome, reply.response.status().as_u16()),
            ("reused", 200)
        );
        assert_eq!(reply.response.body(), TOKEN);
    }
    assert_eq!(lab.asked(), 1);
    assert!(lab.reuse.open().is_empty());
}

#[tokio::test]
async fn answers_for_one_client_are_not_shared() {
    for body in [
        r#"{"access_token":"a","expires_in":86400,"token_type":"DPoP"}"#,
        r#"{"access_token":"a","token_type":"Bearer"}"#,
        r#"{"access_token":"a","expires_in":86400,"token_type":"Bearer","cnf":{"jkt":"x"}}"#,
    ] {
        let lab = Lab::start(Act::json(200, body)).await;
        let (one, other) = tokio::join!(lab.ask(RIGHT), lab.ask(RIGHT));
        assert_eq!((one.outcome, other.outcome), ("issued", "issued"), "{body}");
        assert_eq!(lab.outcome(RIGHT).await, ("issued", 3), "{body}");
        assert_eq!(lab.reuse.count(), 0, "{body}");
    }
}

#[tokio::test]
async fn a_token_that_is_short_lived_is_shared_and_not_kept() {
    let body = r#"{"access_token":"a","expires_in":60,"token_type":"Bearer"}"#;
    let lab = Lab::start(Act::json(200, body)).await;
    let (one, other) = tokio::join!(lab.ask(RIGHT), lab.ask(RIGHT));
    assert_eq!((one.outcome, other.outcome), ("issued", "reused"));
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 2));
    assert_eq!(lab.reuse.count(), 0);
}

#[tokio::test]
async fn refusals_are_remembered_and_failures_are_not() {
    let refused = "refused_by_issuer";
    for (act, outcome, asked) in [
        (Act::json(401, "{}"), refused, 1),
        (Act::json(403, "{}"), refused, 1),
        (throttled("60"), refused, 1),
        (throttled("0"), refused, 3),
        (Act::json(429, "{}"), refused, 3),
        (Act::json(400, "{}"), refused, 3),
        (Act::json(500, "{}"), "issuer_error", 3),
        (Act::json(503, "{}"), "issuer_error", 3),
        (Act::json(200, "{}"), "issuer_bad_reply", 3),
        (Act::CloseAfterRequest, "issuer_cut", 3),
        (Act::Hang, "issuer_timeout", 3),
    ] {
        let name = format!("{act:?}");
        let lab = Lab::start(act).await;
        for _ in 0..3 {
            assert_eq!(lab.outcome(RIGHT).await.0, outcome, "{name}");
        }
        assert_eq!(lab.asked(), asked, "{name}");
        // Who asks at the same time shares a failure: the issuer is not asked more while it fails.
        let (one, other) = tokio::join!(lab.ask(WRONG), lab.ask(WRONG));
        assert_eq!((one.outcome, other.outcome), (outcome, outcome), "{name}");
        assert_eq!(lab.asked(), asked + 1, "{name}");
    }
}

#[tokio::test]
async fn a_throttled_client_reads_how_long_is_left() {
    let lab = Lab::start(throttled("60")).await;
    for _ in 0..2 {
        let reply = lab.ask(RIGHT).await;
        assert_eq!(reply.response.status(), 429);
        let left = reply.response.headers()[RETRY_AFTER].to_str().unwrap();
        let left: u64 = left.parse().unwrap();
        assert!((50..=60).contains(&left), "{left}");
    }
    assert_eq!(lab.asked(), 1);
}

#[tokio::test]
async fn what_is_forgotten_is_asked_for_again() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    lab.ask(RIGHT).await;
    assert!(!lab.reuse.forget(&TokenDigest::of("another")));
    assert_eq!(lab.outcome(RIGHT).await, ("reused", 1));
    assert!(lab.reuse.forget(&TokenDigest::of("TOKEN-VALUE")));
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 2));
    lab.reuse.forget_all();
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 3));
    // One that is on its way is not kept either.
    lab.reuse.forget_all();
    let mut first = Box::pin(lab.ask(RIGHT));
    assert!((&mut first).now_or_never().is_none());
    tokio::task::yield_now().await;
    lab.reuse.forget_all();
    assert_eq!(first.await.outcome, "issued");
    assert_eq!(lab.outcome(RIGHT).await, ("issued", 5));
}

/// As it comes from another gateway, of which nobody here is told anything else.
#[tokio::test]
async fn what_another_gateway_has_revoked_is_not_given_again() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    lab.ask(RIGHT).await;
    assert_eq!(lab.outcome(RIGHT).await, ("reused", 1));
    let now = lab.clock.now();
    let revoked = |token| Revocation::Token {
        content: TokenDigest::of(token),
        until: now + 86400,
    };
    let store = &lab.issuer.store;
    store.revoke(revoked("another"), now).await.unwrap();
    assert_eq!(lab.outcome(RIGHT).await, ("reused", 1), "nobody else's");
    store.revoke(revoked("TOKEN-VALUE"), now).await.unwrap();
    for asked in 2..4 {
        assert_eq!(lab.outcome(RIGHT).await, ("issued", asked));
    }
}

#[tokio::test]
async fn other_grants_are_none_of_its_business() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    for (number, body) in [
        "grant_type=refresh_token&refresh_token=r&client_id=i&client_secret=SECRET-VALUE",
        "grant_type=refresh_token&refresh_token=r&client_id=i",
        "grant_type=authorization_code&code=c&client_id=i&client_secret=SECRET-VALUE",
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(lab.outcome(body).await, ("issued", 2 * number + 1));
        assert_eq!(lab.outcome(body).await, ("issued", 2 * number + 2));
    }
}

#[tokio::test]
async fn what_is_kept_is_bounded() {
    let lab = Lab::with(Act::json(200, TOKEN), 3).await;
    for scope in ["a", "b", "c", "d", "e", "f"] {
        let body = format!("{RIGHT}&scope={scope}");
        token(&lab.surface, &lab.issuer, &head(), body.into()).await;
    }
    assert_eq!(lab.asked(), 6);
    assert!(lab.reuse.count() <= 3);
}

#[tokio::test]
async fn debug_shows_nothing() {
    let lab = Lab::start(Act::json(200, TOKEN)).await;
    lab.ask(RIGHT).await;
    let shown = format!("{:?} {:?}", lab.reuse, lab.issuer);
    assert!(!shown.contains("-VALUE"), "{shown}");
}
