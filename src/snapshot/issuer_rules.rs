//! What `[issuer.*]` asks of tokens, compiled; every mistake in it noted.

use crate::at;
use crate::authn::verify::{self, IssuerRules};
use crate::config::{self, Alg, Mistake};
use crate::headers;
use crate::identity::ClaimRef;
use http::HeaderName;
use jsonwebtoken::Algorithm;
use std::time::Duration;

pub(super) fn rules(
    name: &str,
    issuer: &config::Issuer,
    url: &str,
    mistakes: &mut Vec<Mistake>,
) -> IssuerRules {
    let mut needed = |key: &str, empty: bool, hint: &str| {
        if empty {
            let at = at!["issuer", name, key];
            mistakes.push(
                Mistake::value(at, format!("`{key}` of [issuer.{name}] is empty")).hint(hint),
            );
        }
    };
    needed(
        "audiences",
        issuer.audiences.is_empty() && !issuer.opaque,
        "name the API that the tokens are meant for, e.g. [\"https://api.bonterra.network\"]",
    );
    needed(
        "algorithms",
        issuer.algorithms.is_empty(),
        "write [\"RS256\"]",
    );
    needed(
        "token_types",
        issuer.token_types.is_empty(),
        "write [\"JWT\", \"at+jwt\"]",
    );
    needed(
        "max_token_bytes",
        issuer.max_token_bytes.bytes() == 0,
        "write \"8KiB\"",
    );
    if issuer.jwks.min_ttl.get() < Duration::from_secs(1) {
        let at = at!["issuer", name, "jwks", "min_ttl"];
        let mistake = Mistake::value(at, "keys would be fetched without a pause");
        mistakes.push(mistake.hint("write \"1s\" or more"));
    }
    if issuer.jwks.min_ttl.get() > issuer.jwks.max_ttl.get() {
        mistakes.push(Mistake::value(
            at!["issuer", name, "jwks", "min_ttl"],
            "min_ttl is longer than max_ttl",
        ));
    }
    let seconds = |time: config::Dur| i64::try_from(time.get().as_secs()).unwrap_or(i64::MAX);
    IssuerRules {
        name: name.into(),
        issuer: url.into(),
        audiences: issuer
            .audiences
            .iter()
            .map(|audience| audience.as_str().into())
            .collect(),
        algorithms: issuer
            .algorithms
            .iter()
            .map(|algorithm| algorithm_of(*algorithm))
            .collect(),
        token_types: issuer
            .token_types
            .iter()
            .map(|typ| verify::bare_type(typ).into())
            .collect(),
        leeway: seconds(issuer.leeway),
        max_token_bytes: issuer.max_token_bytes.as_usize(),
        max_lifetime: seconds(issuer.max_lifetime),
        headers: claim_headers(name, issuer, mistakes),
    }
}

fn claim_headers(
    name: &str,
    issuer: &config::Issuer,
    mistakes: &mut Vec<Mistake>,
) -> Vec<(HeaderName, ClaimRef)> {
    let mut headers: Vec<(HeaderName, ClaimRef)> = Vec::new();
    for (header, claim) in &issuer.headers {
        let at = at!["issuer", name, "headers", header];
        let Ok(parsed) = HeaderName::from_bytes(header.as_bytes()) else {
            mistakes.push(
                Mistake::key(at, format!("`{header}` is no header name"))
                    .hint("letters, digits and `-`, e.g. X-Bonterra-Auth-Id"),
            );
            continue;
        };
        if headers::is_reserved(&parsed) {
            mistakes.push(
                Mistake::key(
                    at,
                    format!("`{header}` has a meaning of its own and cannot carry a claim"),
                )
                .hint("choose a name that begins with X-"),
            );
            continue;
        }
        let claim = match ClaimRef::parse(claim) {
            Ok(claim) => claim,
            Err(why) => {
                mistakes.push(Mistake::value(at, why));
                continue;
            }
        };
        if headers
            .iter()
            .any(|(other, _)| headers::same_name(other.as_str(), parsed.as_str()))
        {
            mistakes.push(Mistake::key(at, format!("`{header}` is mapped twice")));
            continue;
        }
        headers.push((parsed, claim));
    }
    headers
}

fn algorithm_of(algorithm: Alg) -> Algorithm {
    match algorithm {
        Alg::RS256 => Algorithm::RS256,
        Alg::RS384 => Algorithm::RS384,
        Alg::RS512 => Algorithm::RS512,
        Alg::PS256 => Algorithm::PS256,
        Alg::PS384 => Algorithm::PS384,
        Alg::PS512 => Algorithm::PS512,
        Alg::ES256 => Algorithm::ES256,
        Alg::ES384 => Algorithm::ES384,
        Alg::EdDSA => Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_types_may_be_whole_media_types() {
        let issuer = config::Issuer {
            audiences: vec!["a".to_owned()],
            token_types: ["application/at+jwt", "Application/JWT", "x", "app"]
                .map(str::to_owned)
                .to_vec(),
            ..config::Issuer::default()
        };
        let mut mistakes = Vec::new();
        let rules = rules("a", &issuer, "https://a.example/", &mut mistakes);
        let types: Vec<&str> = rules.token_types.iter().map(|typ| &**typ).collect();
        assert_eq!(types, ["at+jwt", "JWT", "x", "app"]);
        assert!(mistakes.is_empty());
    }
}
