//! `json_fields` of a route: the body is one JSON object, and which members it may have.

use super::{refuse, shown};
use crate::rejection::Rejection;
use crate::strict_json;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};

/// The members that the body of a request may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFields(Box<[Box<str>]>);

// === impl JsonFields ===

impl JsonFields {
    /// Members of these names.
    pub fn new(names: impl IntoIterator<Item = Box<str>>) -> Self {
        Self(names.into_iter().collect())
    }

    /// Checks that a body is announced as JSON, and as nothing else: what the upstream takes it for has to be
    /// what is judged here.
    ///
    /// # Errors
    /// [`crate::rejection::Reason::NotAccepted`].
    pub fn check_type(&self, headers: &HeaderMap) -> Result<(), Rejection> {
        let mut types = headers.get_all(CONTENT_TYPE).iter();
        let json = types.next().is_some_and(|kind| is_json(kind.as_bytes()));
        let coded = headers.contains_key(CONTENT_ENCODING) || headers.keys().any(is_disguised);
        if !json || types.next().is_some() || coded {
            let why =
                "The body has to be JSON in UTF-8: Content-Type: application/json, not compressed.";
            return Err(refuse(why.to_owned()));
        }
        Ok(())
    }

    /// Checks the whole of a body.
    ///
    /// # Errors
    /// [`crate::rejection::Reason::NotAccepted`], which names the member.
    pub fn check(&self, body: &[u8]) -> Result<(), Rejection> {
        let Some(members) = strict_json::object(body) else {
            let why =
                "The body has to be one JSON object, and no object in it may have a member twice.";
            return Err(refuse(why.to_owned()));
        };
        let known = |name: &str| self.0.iter().any(|own| **own == *name);
        match members.names().find(|name| !known(name)) {
            None => Ok(()),
            Some(name) => {
                let name = shown(name);
                Err(refuse(format!(
                    "The member `{name}` of the body is none that can be set here."
                )))
            }
        }
    }
}

/// Whether a media type is JSON in UTF-8: `application/json`, and nothing else said of it. In another
/// charset, UTF-7 say, the same bytes have other members.
fn is_json(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let is_one_of = |part: &[u8], known: &[&str]| {
        let mut known = known.iter();
        known.any(|known| part.eq_ignore_ascii_case(known.as_bytes()))
    };
    let utf8 = ["", "charset=utf-8", "charset=\"utf-8\""];
    parts
        .next()
        .is_some_and(|essence| is_one_of(essence, &["application/json"]))
        && parts.all(|parameter| is_one_of(parameter, &utf8))
}

/// Whether readers that take every sign for `-` see here what the body is.
fn is_disguised(name: &HeaderName) -> bool {
    let plain = name.as_str().replace(['_', '.'], "-");
    plain != name.as_str() && matches!(&*plain, "content-type" | "content-encoding")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rejection::Reason;
    use http::HeaderValue;

    fn fields() -> JsonFields {
        JsonFields::new(["email", "name", "app_metadata"].map(Into::into))
    }

    #[test]
    fn members() {
        for body in [
            "{}",
            r#"{"email":"a@b.c"}"#,
            r#" {"name":null,"app_metadata":{"anything":[{"x":1}]}} "#,
            r#"{"na\u006de":"x"}"#,
        ] {
            assert_eq!(fields().check(body.as_bytes()), Ok(()), "{body}");
        }
        let object =
            "The body has to be one JSON object, and no object in it may have a member twice.";
        let long = format!(
            "The member `{}...` of the body is none that can be set here.",
            "x".repeat(40)
        );
        for (body, why) in [
            (
                r#"{"blocked":true}"#.to_owned(),
                "The member `blocked` of the body is none that can be set here.",
            ),
            (
                r#"{"name":"x","Email":"y"}"#.to_owned(),
                "The member `Email` of the body is none that can be set here.",
            ),
            (
                r#"{"":1}"#.to_owned(),
                "The member `` of the body is none that can be set here.",
            ),
            (
                r#"{"a\n`":1}"#.to_owned(),
                "The member `a??` of the body is none that can be set here.",
            ),
            (format!("{{\"{}\":1}}", "x".repeat(100)), &long),
            (r#"{"name":"x","name":"y"}"#.to_owned(), object),
            (r#"{"app_metadata":{"a":1,"a":2}}"#.to_owned(), object),
            (r#"[{"name":"x"}]"#.to_owned(), object),
            (r#"{"name":"x"}{"name":"y"}"#.to_owned(), object),
            (r#"{"name":"x""#.to_owned(), object),
            (String::new(), object),
        ] {
            let refused = fields().check(body.as_bytes()).expect_err(&body);
            assert_eq!(refused.reason, Reason::NotAccepted(why.into()), "{body}");
        }
    }

    #[test]
    fn types() {
        for (kinds, coding, fine) in [
            (&["application/json"][..], None, true),
            (&["Application/JSON; charset=utf-8"], None, true),
            (&["application/json ;Charset=\"UTF-8\""], None, true),
            (&["application/json;"], None, true),
            // Where `+ACI-` is a quotation mark.
            (&["application/json; charset=utf-7"], None, false),
            (&["application/json;charset=utf-16"], None, false),
            (
                &["application/json; charset=utf-8; charset=utf-7"],
                None,
                false,
            ),
            (&["application/json; x=\"; charset=utf-8\""], None, false),
            (&["application/json; charset"], None, false),
            (&["application/json"], Some("gzip"), false),
            (&["application/json", "application/json"], None, false),
            (&["application/x-www-form-urlencoded"], None, false),
            (&["application/jsonp"], None, false),
            (&["text/plain;application/json"], None, false),
            (&[], None, false),
        ] {
            let mut headers = HeaderMap::new();
            for kind in kinds {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(kind));
            }
            if let Some(coding) = coding {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
            }
            assert_eq!(fields().check_type(&headers).is_ok(), fine, "{kinds:?}");
        }
    }

    /// For whoever takes `_` for `-`, the type is there twice, or the body is compressed.
    #[test]
    fn types_in_disguise() {
        for (name, fine) in [
            ("content_type", false),
            ("content.type", false),
            ("content_encoding", false),
            ("content-types", true),
            ("content_language", true),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(name, HeaderValue::from_static("application/json"));
            assert_eq!(fields().check_type(&headers).is_ok(), fine, "{name}");
        }
    }
}
