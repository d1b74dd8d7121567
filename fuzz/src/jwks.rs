//! Every key that is taken from a JWK set can verify something, no more than it says itself, and a set stays within
//! its bounds.

use super::Outcome;
use super::json::Json;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::keys::{KeySet, VerificationKey, jwks};
use jsonwebtoken::Algorithm;
use std::sync::Arc;

/// Keys of one set, and keys that are tried for a token that names none.
const MAX_KEYS: usize = 64;
const MAX_CANDIDATES: usize = 4;

/// Every algorithm that there is a name for, with the key that it takes; symmetric ones take none of ours.
const ALGORITHMS: [(Algorithm, &str, &str); 12] = [
    (Algorithm::RS256, "RS256", "RSA"),
    (Algorithm::RS384, "RS384", "RSA"),
    (Algorithm::RS512, "RS512", "RSA"),
    (Algorithm::PS256, "PS256", "RSA"),
    (Algorithm::PS384, "PS384", "RSA"),
    (Algorithm::PS512, "PS512", "RSA"),
    (Algorithm::ES256, "ES256", "EC P-256"),
    (Algorithm::ES384, "ES384", "EC P-384"),
    (Algorithm::EdDSA, "EdDSA", "OKP Ed25519"),
    (Algorithm::HS256, "HS256", ""),
    (Algorithm::HS384, "HS384", ""),
    (Algorithm::HS512, "HS512", ""),
];

/// Checks a document that an issuer might answer with.
pub fn check(data: &[u8]) -> Outcome {
    let Ok(parsed) = jwks::parse(data, 0) else {
        return Outcome::Refused;
    };
    let set = parsed.set;
    assert!(!set.is_empty(), "an empty set is no success");
    // One remark for all the keys beyond the bound.
    let looked_at = set.len() + parsed.dropped.len();
    assert!(
        looked_at <= MAX_KEYS + 1 && set.len() <= MAX_KEYS,
        "unbounded"
    );
    for remark in &parsed.dropped {
        assert!(!remark.contains(char::is_control), "{remark:?}");
    }
    candidates(&set);
    let Some(document) = Json::read(data) else {
        // Each key is read alone: an escape that is none in a key that is left out, or in a member
        // that nobody reads, does not cost the others.
        again(data, &set);
        return Outcome::Accepted;
    };
    let Some(Json::List(keys)) = document.get("keys") else {
        panic!("no keys");
    };
    for jwk in keys {
        if let Some(kid) = jwk.get("kid").and_then(Json::text)
            && let Some(key) = set.find(kid)
        {
            assert!(set.holds(key));
            let same_name = |other: &&Json| other.get("kid").and_then(Json::text) == Some(kid);
            // The first usable one of this name was taken.
            let source = keys.iter().filter(same_name).find(|jwk| agrees(key, jwk));
            assert!(source.is_some(), "a key that no JWK describes");
        }
    }
    again(data, &set);
    Outcome::Accepted
}

/// A token without `kid` is tried with few keys, each of which fits.
fn candidates(set: &KeySet) {
    let mut any = false;
    for (algorithm, ..) in ALGORITHMS {
        let found: Vec<_> = set.candidates(algorithm).collect();
        assert!(found.len() <= MAX_CANDIDATES, "{algorithm:?}");
        assert!(found.iter().all(|key| key.fits(algorithm)));
        any |= !found.is_empty();
    }
    assert!(any, "none of the keys fits any algorithm");
}

/// Whether this JWK, read anew, allows exactly what the key does.
fn agrees(key: &Arc<VerificationKey>, jwk: &Json) -> bool {
    let text = |name| jwk.get(name).and_then(Json::text);
    let private = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
    if private.iter().any(|part| jwk.get(part).is_some())
        || jwk
            .get("use")
            .is_some_and(|usage| usage.text() != Some("sig"))
    {
        return false;
    }
    let size = |name| {
        let bytes = URL_SAFE_NO_PAD.decode(text(name).unwrap_or_default());
        bytes.map_or(0, |bytes| bytes.len())
    };
    let (kind, well_sized) = match text("kty") {
        Some("RSA") => ("RSA".to_owned(), (256..=1024).contains(&size("n"))),
        Some("EC") if text("crv") == Some("P-256") => {
            ("EC P-256".to_owned(), size("x") == 32 && size("y") == 32)
        }
        Some("EC") if text("crv") == Some("P-384") => {
            ("EC P-384".to_owned(), size("x") == 48 && size("y") == 48)
        }
        Some("OKP") => ("OKP Ed25519".to_owned(), size("x") == 32),
        _ => return false,
    };
    well_sized
        && ALGORITHMS.iter().all(|(algorithm, name, takes)| {
            let pinned = jwk.get("alg").is_none_or(|alg| alg.text() == Some(name));
            key.fits(*algorithm) == (*takes == kind && pinned)
        })
}

/// The same document a second time changes nothing: what was verified with the keys of the first stays known.
fn again(data: &[u8], first: &KeySet) {
    let mut second = jwks::parse(data, 1)
        .expect("it was fine the first time")
        .set;
    second.keep_known(first);
    assert_eq!(first.len(), second.len());
    for (algorithm, ..) in ALGORITHMS {
        for key in second.candidates(algorithm) {
            assert!(first.holds(key), "a key that only looks the same");
        }
    }
}
