//! Tokens that are bound to a client certificate (RFC 8705 §3).
//!
//! That a token is bound is a fact about it and is remembered with it; that the bound certificate came
//! along is looked at on every request.

use crate::identity::{Identity, Members, Thumbprint};
use crate::rejection::{Reason, Rejection};
use crate::steps::Steps;
use serde_json::Value;

/// The certificate that a token is bound to. `None` if it is a plain bearer token.
///
/// # Errors
/// [`Reason::BoundToken`] for every `cnf` that is not one `x5t#S256` and nothing else: a token with a
/// binding that nobody can check here must not pass as a plain bearer token (RFC 9449 §7.1).
pub(super) fn of(
    claims: &Members,
    steps: &mut impl Steps,
) -> Result<Option<Thumbprint>, Rejection> {
    let Some(cnf) = claims.get("cnf") else {
        return Ok(None);
    };
    steps.checking("binding", || {
        format!("cnf is {cnf}; taken is x5t#S256 alone, the thumbprint of a client certificate")
    });
    let thumbprint = match cnf {
        Value::Object(members) if members.len() == 1 => members.get("x5t#S256"),
        _ => None,
    };
    let thumbprint = thumbprint
        .and_then(Value::as_str)
        .and_then(Thumbprint::parse);
    thumbprint.map(Some).ok_or_else(|| {
        Rejection::noted(
            Reason::BoundToken,
            "the token has a cnf that is no x5t#S256 of a client certificate",
        )
    })
}

/// Who brings a token.
#[derive(Debug, Clone, Copy)]
pub(super) enum Bringer {
    /// A request; the client certificate of its connection.
    Request(Option<Thumbprint>),
    /// Nobody: somebody else asks what it is worth, or wants it ended.
    Nobody,
}

/// Checks that a bound token comes over a connection of whom it is bound to. `certificate` is that of
/// the connection; no header is ever looked at.
///
/// # Errors
/// [`Reason::BoundToken`].
pub(super) fn held(
    identity: &Identity,
    certificate: Option<&Thumbprint>,
    steps: &mut impl Steps,
) -> Result<(), Rejection> {
    let Some(bound_to) = &identity.bound_to else {
        return Ok(());
    };
    steps.checking("binding", || {
        let came = match certificate {
            Some(certificate) => format!("the connection has {certificate}"),
            None => "the connection has none".to_owned(),
        };
        format!("the token is bound to the client certificate {bound_to}; {came}")
    });
    let note = match certificate {
        Some(certificate) if certificate.is(bound_to) => {
            steps.passed("binding", || {
                format!("the connection has the client certificate {bound_to}")
            });
            return Ok(());
        }
        Some(_) => "the token is bound to another client certificate than the connection's",
        None => "the token is bound to a client certificate and the connection has none",
    };
    Err(Rejection::noted(Reason::BoundToken, note))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::Untold;
    use serde_json::json;

    #[test]
    fn every_binding_but_one_is_refused() {
        let own = Thumbprint::of(b"x");
        let text = own.to_string();
        let of = |cnf: Value| {
            let claims = Members::new(vec![("cnf".into(), cnf)]).expect("distinct");
            of(&claims, &mut Untold).map_err(|rejection| rejection.reason)
        };
        let bound = of(json!({ "x5t#S256": text })).expect("a binding");
        assert!(bound.is_some_and(|bound| bound.is(&own)));
        for cnf in [
            json!({}),
            json!(null),
            json!(text),
            json!([{ "x5t#S256": text }]),
            json!({ "x5t#S256": null }),
            json!({ "x5t#S256": [text] }),
            json!({ "x5t#S256": format!("{text}=") }),
            json!({ "x5t#s256": text }),
            json!({ "x5t#S256": text, "jkt": text }),
            json!({ "jkt": text }),
            json!({ "jwk": {} }),
        ] {
            assert_eq!(of(cnf.clone()).err(), Some(Reason::BoundToken), "{cnf}");
        }
        let none = super::of(&Members::default(), &mut Untold);
        assert!(none.is_ok_and(|bound| bound.is_none()));
    }
}
