//! What an introspection endpoint says of a token (RFC 7662 §2.2), read strictly.

use crate::identity::Members;
use crate::outbound;
use crate::strict_json;
use http::StatusCode;
use serde_json::Value;

/// What the issuer says of a token.
#[derive(Clone, PartialEq)]
pub enum Reply {
    /// `active` is `true`; all members of the answer.
    Active(Members),
    /// `active` is `false`. Whatever else the answer holds says nothing.
    Inactive,
}

/// Reads an answer.
///
/// # Errors
/// What is wrong with it: then nothing is known of the token, neither good nor bad.
pub(super) fn read(reply: &outbound::Reply) -> Result<Reply, String> {
    if reply.status != StatusCode::OK {
        return Err(format!("it answers {}", reply.status));
    }
    let members = strict_json::object(&reply.body)
        .ok_or("its answer is no JSON object without repeated members")?;
    match members.get("active") {
        Some(Value::Bool(true)) => Ok(Reply::Active(members)),
        Some(Value::Bool(false)) => Ok(Reply::Inactive),
        _ => Err("`active` is neither true nor false in its answer".to_owned()),
    }
}

impl Reply {
    /// For metrics.
    pub(super) fn result(&self) -> &'static str {
        match self {
            Self::Active(_) => "active",
            Self::Inactive => "inactive",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    fn said(status: u16, body: &[u8]) -> Result<&'static str, String> {
        let reply = outbound::Reply {
            status: StatusCode::from_u16(status).expect("a status"),
            headers: HeaderMap::new(),
            body: body.to_vec().into(),
        };
        read(&reply).map(|reply| reply.result())
    }

    #[test]
    fn only_a_plain_yes_is_a_yes_and_only_a_plain_no_a_no() {
        for (body, expected) in [
            (r#"{"active":true}"#, "active"),
            (r#" {"sub":"u","active":true,"exp":1} "#, "active"),
            (r#"{"active":false}"#, "inactive"),
            (r#"{"active":false,"exp":"soon","iss":7}"#, "inactive"),
        ] {
            assert_eq!(said(200, body.as_bytes()), Ok(expected), "{body}");
        }
        for body in [
            r#"{"active":"true"}"#,
            r#"{"active":"false"}"#,
            r#"{"active":1}"#,
            r#"{"active":null}"#,
            r#"{"active":[true]}"#,
            r#"{"Active":true}"#,
            r#"{"sub":"u"}"#,
            r#"{}"#,
            r#"{"active":false,"active":true}"#,
            r#"{"active":true,"\u0061ctive":true}"#,
            r#"{"active":true,"x":{"a":1,"a":2}}"#,
            r#"{"active":true}}"#,
            r#"{"active":true"#,
            r#"[{"active":true}]"#,
            r#""active""#,
            "true",
            "",
            "<!doctype html><p>It works!",
        ] {
            assert!(said(200, body.as_bytes()).is_err(), "{body}");
        }
        assert!(said(200, b"{\"active\":true,\"x\":\"\xff\"}").is_err());
        for status in [201, 204, 301, 302, 400, 401, 403, 429, 500, 503] {
            let wrong = said(status, br#"{"active":true}"#).expect_err("not 200");
            assert!(wrong.contains(&status.to_string()), "{wrong}");
        }
    }
}
