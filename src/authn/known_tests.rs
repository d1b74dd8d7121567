//! What is remembered, and what makes room for what.

use super::super::verify::IssuerRules;
use super::super::{Bearer, Issuers, authenticate};
use super::*;
use crate::identity::{Claims, Scopes};
use crate::keys::{KeyPolicy, KeyStore};
use crate::steps::Told;
use crate::telemetry::metrics::Metrics;

const MINUTE: Duration = Duration::from_secs(60);

/// What remembers ten tokens of each kind, and an issuer.
fn scene() -> (KnownTokens, Arc<Issuer>) {
    let metrics = Arc::new(Metrics::new("", "").expect("metrics"));
    let policy = KeyPolicy {
        ttl: MINUTE,
        min_ttl: MINUTE,
        max_ttl: MINUTE,
        max_stale: MINUTE,
        cooldown: MINUTE,
        patience: MINUTE,
    };
    let issuer = Issuer {
        rules: IssuerRules {
            name: "handles".into(),
            issuer: "https://auth.example/".into(),
            audiences: Vec::new(),
            algorithms: Vec::new(),
            token_types: Vec::new(),
            leeway: 0,
            max_token_bytes: 8192,
            max_lifetime: 0,
            headers: Vec::new(),
        },
        keys: Arc::new(KeyStore::new(policy)),
        introspection: None,
        metrics: metrics.issuer(&"handles".into()),
    };
    let bounds = Bounds {
        max_bytes: 1 << 20,
        max_entries: 10,
        refused_entries: 10,
        refused_for: MINUTE,
    };
    let store = Arc::new(SharedStore::in_memory());
    let known = KnownTokens::new(bounds, store, metrics.token_cache());
    (known, Arc::new(issuer))
}

fn verified(issuer: &Arc<Issuer>, digest: TokenDigest) -> Verified {
    Verified {
        identity: Arc::new(Identity {
            issuer: Arc::clone(&issuer.rules.name),
            claims: Claims::default(),
            scopes: Scopes::default(),
            expires_at: 100,
            not_before: None,
            bound_to: None,
            headers: Box::default(),
        }),
        issuer: Arc::clone(issuer),
        content: digest,
        evidence: Evidence::Answer(Fresh {
            since: 0,
            until: 100,
        }),
    }
}

/// Tokens that were used often may have expired long ago.
#[test]
fn a_new_token_takes_the_place_of_the_one_that_was_not_used_for_longest() {
    let (known, issuer) = scene();
    let digest = |n: usize| TokenDigest::of(&n.to_string());
    let remember = |n| known.remember(digest(n), verified(&issuer, digest(n)));
    for n in 0..10 {
        remember(n);
        for _ in 0..50 {
            assert!(known.verified(&digest(n)).is_some());
            known.counts();
        }
    }
    for n in 10..100 {
        remember(n);
        assert_eq!(known.counts().0, 10, "{n}");
        assert!(
            known.verified(&digest(n)).is_some(),
            "{n} is not remembered"
        );
        known.counts();
    }
    for n in 0..90 {
        assert!(known.verified(&digest(n)).is_none(), "{n}");
    }
}

#[test]
fn only_its_own_issuer_makes_a_token_forgotten() {
    let (known, issuer) = scene();
    let (_, other) = scene();
    let digest = TokenDigest::of("handle");
    known.remember(digest, verified(&issuer, digest));
    known.forget(&digest, &other);
    assert!(known.verified(&digest).is_some());
    known.forget(&digest, &issuer);
    assert!(known.verified(&digest).is_none());
}

#[test]
fn a_token_before_its_time_is_remembered_by_what_its_issuer_said_alone() {
    let (known, issuer) = scene();
    let answer = Ground::Answer(Fresh { since: 0, until: 5 });
    let keys = Ground::Keys(Arc::new(KeySet::default()));
    for (name, ground, reason, remembered) in [
        ("a", answer.clone(), Reason::NotYetValid, true),
        ("b", answer, Reason::Expired, true),
        ("c", keys.clone(), Reason::NotYetValid, false),
        ("d", keys, Reason::Expired, true),
    ] {
        let digest = TokenDigest::of(name);
        let entry = Refused {
            rejection: reason.into(),
            issuer: Arc::clone(&issuer),
            ground,
        };
        known.remember_refusal(digest, entry);
        assert_eq!(known.refused(&digest).is_some(), remembered, "{name}");
    }
}

#[test]
fn what_stands_for_a_token_shows_nothing_of_it() {
    let (known, issuer) = scene();
    let bearer = Bearer {
        text: "s3cret-handle",
        opaque: Some(&issuer),
        finding: None,
        certificate: None,
    };
    let said = format!("{bearer:?} {known:?}");
    assert!(
        said.contains("handles") && !said.contains("s3cret"),
        "{said}"
    );
}

/// `explain` shows the check that was begun last as the one that failed.
#[test]
fn a_token_that_cannot_be_asked_about_fails_in_a_check_of_its_own() {
    let (known, issuer) = scene();
    let unknown = issuer.metrics.clone();
    let issuers = Issuers::new(vec![Arc::clone(&issuer)], unknown);
    let bearer = Bearer {
        text: "handle",
        opaque: Some(&issuer),
        finding: None,
        certificate: None,
    };
    let mut told = Told::default();
    let refused = authenticate(&issuers, &known, bearer, 0, &mut told).expect_err("nobody asks");
    assert_eq!(refused.reason, Reason::WrongIssuer);
    assert_eq!(told.open.map(|step| step.check), Some("introspection"));
}
