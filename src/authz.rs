//! Whether an identity may use a route. Evaluated on every request, never cached.

use crate::identity::{Identity, Scopes};
use crate::rejection::{Reason, Rejection};
use crate::steps::{self, Steps};
use ipnet::IpNet;
use serde_json::Value;
use std::net::IpAddr;

/// What a route asks of its callers: `[[route]]`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessRules {
    /// Whether a token is needed.
    pub auth: AuthMode,
    /// The accepted issuers by name; none means any that is configured.
    pub issuers: Vec<Box<str>>,
    /// Scopes of which the token must have all.
    pub scopes: Vec<Box<str>>,
    /// Scopes of which the token must have one.
    pub any_scope: Vec<Box<str>>,
    /// Claims that must be there with this value, or contain it if they are arrays.
    pub claims: Vec<(Box<str>, Value)>,
    /// Claims that must be there with whatever value; `null` is none.
    pub claims_present: Vec<Box<str>>,
    /// Networks that clients must come from; none means any.
    pub allow_ips: Vec<IpNet>,
}

/// Whether a route needs a token.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// A good token or 401.
    #[default]
    Required,
    /// No token passes without identity; a bad one is refused all the same.
    Optional,
    /// Tokens are not looked at.
    None,
}

/// Proof that the rules of a route were checked for this request. Only [`decide`] makes one.
#[derive(Debug)]
pub struct Permit(());

/// Checks a caller against the rules of a route.
///
/// # Errors
/// [`Reason::MissingToken`], [`Reason::WrongIssuer`], [`Reason::InsufficientScope`] or
/// [`Reason::ClaimMismatch`].
pub fn decide(
    rules: &AccessRules,
    identity: Option<&Identity>,
    steps: &mut impl Steps,
) -> Result<Permit, Rejection> {
    steps.checking("access", || match rules.auth {
        AuthMode::Required => "the route has auth = \"required\"".to_owned(),
        AuthMode::Optional => "the route has auth = \"optional\"".to_owned(),
        AuthMode::None => "the route has auth = \"none\"".to_owned(),
    });
    match (rules.auth, identity) {
        (AuthMode::None, _) => Ok(Permit(())),
        (AuthMode::Optional, None) => {
            steps.passed("access", || {
                "the route has auth = \"optional\", which admits without identity".to_owned()
            });
            Ok(Permit(()))
        }
        (AuthMode::Required, None) => Err(Reason::MissingToken.into()),
        (AuthMode::Required | AuthMode::Optional, Some(identity)) => permit(rules, identity, steps),
    }
}

/// Checks the client's address, which needs no identity and so comes before authentication.
///
/// # Errors
/// [`Reason::IpNotAllowed`].
pub fn address(
    rules: &AccessRules,
    client: Option<IpAddr>,
    steps: &mut impl Steps,
) -> Result<(), Rejection> {
    if rules.allow_ips.is_empty() {
        return Ok(());
    }
    steps.checking("address", || {
        let client = client.map_or_else(|| "unknown".to_owned(), |client| client.to_string());
        let networks = steps::listed(rules.allow_ips.iter().map(IpNet::to_string));
        format!("the client is {client}; allow_ips are {networks}")
    });
    let network = rules
        .allow_ips
        .iter()
        .find(|network| client.is_some_and(|client| network.contains(&client)))
        .ok_or(Reason::IpNotAllowed)?;
    steps.passed("address", || {
        format!("the client is in {network} of allow_ips")
    });
    Ok(())
}

fn permit(
    rules: &AccessRules,
    identity: &Identity,
    steps: &mut impl Steps,
) -> Result<Permit, Rejection> {
    steps.checking("access", || {
        let accepted = steps::listed(&rules.issuers);
        format!(
            "the token is of [issuer.{}]; the route takes {accepted}",
            identity.issuer
        )
    });
    if !rules.issuers.is_empty() && !rules.issuers.iter().any(|name| **name == *identity.issuer) {
        return Err(Rejection::noted(
            Reason::WrongIssuer,
            "the issuer is none of the route's issuers",
        ));
    }
    steps.checking("scope", || {
        let own = steps::listed(identity.scopes.iter());
        format!("the token has {own}; the route asks for {}", asked(rules))
    });
    scopes(rules, &identity.scopes)?;
    if !rules.scopes.is_empty() || !rules.any_scope.is_empty() {
        steps.passed("scope", || format!("the token has {}", asked(rules)));
    }
    for (name, expected) in &rules.claims {
        steps.checking("claim", || {
            let own = identity.claims.get(name);
            let own = own.map_or_else(|| "absent".to_owned(), Value::to_string);
            format!("`{name}` is {own}; the route asks for {expected}")
        });
        if !identity
            .claims
            .get(name)
            .is_some_and(|actual| grants(actual, expected))
        {
            return Err(Rejection::noted(
                Reason::ClaimMismatch,
                format!("claim `{name}` is not as the route asks"),
            ));
        }
        steps.passed("claim", || format!("`{name}` is or has {expected}"));
    }
    present(rules, identity, steps)?;
    Ok(Permit(()))
}

fn present(
    rules: &AccessRules,
    identity: &Identity,
    steps: &mut impl Steps,
) -> Result<(), Rejection> {
    for name in &rules.claims_present {
        steps.checking("claim", || {
            format!("`{name}` is absent or null; the route asks for any value")
        });
        if matches!(identity.claims.get(name), None | Some(Value::Null)) {
            return Err(Rejection::noted(
                Reason::ClaimMismatch,
                format!("claim `{name}` is not there, and the route asks for it"),
            ));
        }
        steps.passed("claim", || format!("`{name}` is there"));
    }
    Ok(())
}

/// For who listens: the scopes that a route asks for.
fn asked(rules: &AccessRules) -> String {
    let all =
        (!rules.scopes.is_empty()).then(|| format!("all of {}", steps::listed(&rules.scopes)));
    let any = (!rules.any_scope.is_empty())
        .then(|| format!("one of {}", steps::listed(&rules.any_scope)));
    let both: Vec<String> = all.into_iter().chain(any).collect();
    both.join(" and ")
}

fn scopes(rules: &AccessRules, own: &Scopes) -> Result<(), Rejection> {
    let lacking = |asked: &[Box<str>]| Reason::InsufficientScope(asked.join(" ").into());
    if !rules.scopes.iter().all(|scope| own.contains(scope)) {
        return Err(lacking(&rules.scopes).into());
    }
    if !rules.any_scope.is_empty() && !rules.any_scope.iter().any(|scope| own.contains(scope)) {
        return Err(lacking(&rules.any_scope).into());
    }
    Ok(())
}

/// Equality, or membership when the claim is an array. An expected array: each of its members.
fn grants(actual: &Value, expected: &Value) -> bool {
    match (actual, expected) {
        (Value::Array(_), Value::Array(members)) => {
            members.iter().all(|member| grants(actual, member))
        }
        (Value::Array(members), expected) => members.contains(expected),
        (actual, expected) => actual == expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Claims, Members};
    use crate::steps::Untold;
    use serde_json::json;

    fn identity(claims: Value) -> Identity {
        let Value::Object(map) = claims else {
            panic!("claims are an object")
        };
        let members = map.into_iter().map(|(name, value)| (name.into(), value));
        let claims = Claims::verified(Members::new(members.collect()).expect("distinct names"));
        Identity {
            issuer: "bonterra".into(),
            scopes: Scopes::of(&claims),
            claims,
            expires_at: 0,
            not_before: None,
            bound_to: None,
            headers: Box::default(),
        }
    }

    #[test]
    fn rules() {
        let caller = identity(
            json!({"scope": "a b", "permissions": ["c"], "grants": true, "roles": ["x", "y"], "n": 1, "nil": null}),
        );
        let ask = |rules: AccessRules| {
            decide(&rules, Some(&caller), &mut Untold)
                .map(|_| ())
                .map_err(|r| r.reason)
        };
        let list =
            |items: &[&str]| -> Vec<Box<str>> { items.iter().map(|item| (*item).into()).collect() };
        let claim = |name: &str, value: Value| AccessRules {
            claims: vec![(name.into(), value)],
            ..Default::default()
        };
        let present = |names: &[&str]| AccessRules {
            claims_present: list(names),
            ..Default::default()
        };
        let scope = |text: &str| Err(Reason::InsufficientScope(text.into()));
        for (rules, expected) in [
            (AccessRules::default(), Ok(())),
            (
                AccessRules {
                    scopes: list(&["a", "c"]),
                    ..Default::default()
                },
                Ok(()),
            ),
            (
                AccessRules {
                    scopes: list(&["a", "d"]),
                    ..Default::default()
                },
                scope("a d"),
            ),
            (
                AccessRules {
                    any_scope: list(&["d", "b"]),
                    ..Default::default()
                },
                Ok(()),
            ),
            (
                AccessRules {
                    any_scope: list(&["d", "e"]),
                    ..Default::default()
                },
                scope("d e"),
            ),
            (
                AccessRules {
                    scopes: list(&["a"]),
                    any_scope: list(&["d"]),
                    ..Default::default()
                },
                scope("d"),
            ),
            (
                AccessRules {
                    issuers: list(&["bonterra"]),
                    ..Default::default()
                },
                Ok(()),
            ),
            (
                AccessRules {
                    issuers: list(&["other"]),
                    ..Default::default()
                },
                Err(Reason::WrongIssuer),
            ),
            (claim("grants", json!(true)), Ok(())),
            (claim("grants", json!("true")), Err(Reason::ClaimMismatch)),
            (claim("roles", json!("y")), Ok(())),
            (claim("roles", json!(["x", "y"])), Ok(())),
            (
                claim("roles", json!(["x", "z"])),
                Err(Reason::ClaimMismatch),
            ),
            (claim("absent", json!(null)), Err(Reason::ClaimMismatch)),
            (claim("n", json!(1)), Ok(())),
            (present(&["n", "roles", "grants"]), Ok(())),
            (present(&["n", "absent"]), Err(Reason::ClaimMismatch)),
            (present(&["nil"]), Err(Reason::ClaimMismatch)),
            (present(&["N"]), Err(Reason::ClaimMismatch)),
        ] {
            assert_eq!(ask(rules.clone()), expected, "{rules:?}");
        }
    }

    #[test]
    fn without_identity() {
        for (auth, expected) in [
            (AuthMode::Required, Err(Reason::MissingToken)),
            (AuthMode::Optional, Ok(())),
            (AuthMode::None, Ok(())),
        ] {
            let rules = AccessRules {
                auth,
                scopes: vec!["a".into()],
                ..Default::default()
            };
            assert_eq!(
                decide(&rules, None, &mut Untold)
                    .map(|_| ())
                    .map_err(|r| r.reason),
                expected
            );
        }
    }

    #[test]
    fn addresses() {
        let rules = AccessRules {
            allow_ips: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Default::default()
        };
        let ask =
            |text: &str| address(&rules, text.parse().ok(), &mut Untold).map_err(|r| r.reason);
        assert_eq!(ask("10.1.2.3"), Ok(()));
        assert_eq!(ask("192.0.2.1"), Err(Reason::IpNotAllowed));
        assert_eq!(ask("unknown"), Err(Reason::IpNotAllowed));
    }
}
