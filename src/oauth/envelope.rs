//! Errors in the envelope of APIs that have one:
//! `{"meta":{},"errors":[{"httpcode":403,"message":"invalid_grant: …"}]}`.
//!
//! Put around an answer that is complete otherwise, whoever made it: status and header fields stay,
//! and the code of RFC 6749 begins the message.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

/// What the errors of a surface look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorFormat {
    /// As in RFC 6749 §5.2; what the issuer answers passes as it is.
    OAuth,
    /// In the envelope.
    Envelope,
}

// === impl ErrorFormat ===

impl ErrorFormat {
    /// An answer of the token endpoint in this format. Who has documented the envelope has
    /// documented a `token_type` in lower case as well, so it comes out so; it is read without
    /// regard to case (RFC 6749 §5.1).
    #[must_use]
    pub fn of_token(self, response: Response<Bytes>) -> Response<Bytes> {
        match self {
            Self::Envelope if response.status().is_success() => response.map(in_lower_case),
            Self::OAuth | Self::Envelope => self.of(response),
        }
    }

    /// Any other answer in this format: only errors are touched.
    #[must_use]
    pub fn of(self, mut response: Response<Bytes>) -> Response<Bytes> {
        let status = response.status();
        let is_error = status.is_client_error() || status.is_server_error();
        if self == Self::OAuth || !is_error {
            return response;
        }
        let members = members(response.body());
        // An issuer may speak it itself.
        if !members.get("errors").is_some_and(Value::is_array) {
            let message = message(status, &members);
            let error = json!({ "httpcode": status.as_u16(), "message": message });
            *response.body_mut() = json!({ "meta": {}, "errors": [error] }).to_string().into();
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(CONTENT_TYPE, json);
        }
        response
    }
}

/// The members of a JSON object; none of anything else.
fn members(body: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(body).unwrap_or_default()
}

/// Code and description in one line. A page of HTML, or nothing, is told by its status.
fn message(status: StatusCode, members: &Map<String, Value>) -> String {
    let text = |name| members.get(name).and_then(Value::as_str);
    // What is refused before an endpoint is found has a reason and its detail (RFC 9457).
    let code = text("error").or(text("reason"));
    let description = text("error_description").or(text("message").or(text("detail")));
    let message = match (description, code) {
        (Some(description), code) => {
            format!("{}: {description}", code.unwrap_or(code_of(status)))
        }
        (None, Some(code)) => code.to_owned(),
        (None, None) => {
            let code = code_of(status);
            format!("{code}: the authorization server answers {status}")
        }
    };
    match text("error_uri") {
        Some(uri) => format!("{message} (see {uri})"),
        None => message,
    }
}

/// The code of RFC 6749 that comes nearest to a status.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            "temporarily_unavailable"
        }
        status if status.is_server_error() => "server_error",
        _ => "invalid_request",
    }
}

/// A token reply with `bearer` in lower case; byte for byte the same if it is so already.
fn in_lower_case(body: Bytes) -> Bytes {
    const BEARER: &str = "bearer";
    let mut members = members(&body);
    let other = |given: &&mut Value| {
        let given = given.as_str();
        given.is_some_and(|given| given.eq_ignore_ascii_case(BEARER) && given != BEARER)
    };
    match members.get_mut("token_type").filter(other) {
        Some(given) => *given = BEARER.into(),
        None => return body,
    }
    Value::Object(members).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{CACHE_CONTROL, RETRY_AFTER, WWW_AUTHENTICATE};

    fn answer(status: u16, content_type: &'static str, body: &'static str) -> Response<Bytes> {
        Response::builder()
            .status(status)
            .header(CONTENT_TYPE, content_type)
            .header(CACHE_CONTROL, "no-store")
            .header(WWW_AUTHENTICATE, "Basic realm=\"r\"")
            .header(RETRY_AFTER, "7")
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap()
    }

    #[test]
    fn the_code_begins_the_message() {
        let rows = [
            (
                403,
                r#"{"error":"invalid_grant","error_description":"Invalid authorization code"}"#,
                "invalid_grant: Invalid authorization code",
            ),
            (401, r#"{"error":"invalid_client"}"#, "invalid_client"),
            (
                403,
                r#"{"error":"unauthorized_client","error_description":"d","error_uri":"https://x/"}"#,
                "unauthorized_client: d (see https://x/)",
            ),
            (
                404,
                r#"{"statusCode":404,"error":"Not Found","message":"There is no such user."}"#,
                "Not Found: There is no such user.",
            ),
            (
                400,
                r#"{"error":"\"quoted\"","error_description":"a\nb"}"#,
                "\"quoted\": a\nb",
            ),
            (
                503,
                "<html>maintenance</html>",
                "temporarily_unavailable: the authorization server answers 503 Service Unavailable",
            ),
            (
                500,
                "",
                "server_error: the authorization server answers 500 Internal Server Error",
            ),
            (
                429,
                "[]",
                "temporarily_unavailable: the authorization server answers 429 Too Many Requests",
            ),
            (
                400,
                r#"{"error":7}"#,
                "invalid_request: the authorization server answers 400 Bad Request",
            ),
        ];
        for (status, body, message) in rows {
            let plain = answer(status, "text/html", body);
            let wrapped = ErrorFormat::Envelope.of_token(plain);
            assert_eq!(wrapped.status(), status, "{body}");
            let headers = wrapped.headers();
            assert_eq!(headers[CONTENT_TYPE], "application/json", "{body}");
            assert_eq!(headers[CACHE_CONTROL], "no-store", "{body}");
            assert_eq!(headers[WWW_AUTHENTICATE], "Basic realm=\"r\"", "{body}");
            assert_eq!(headers[RETRY_AFTER], "7", "{body}");
            let got: Value = serde_json::from_slice(wrapped.body()).unwrap();
            let expected =
                json!({ "meta": {}, "errors": [{ "httpcode": status, "message": message }] });
            assert_eq!(got, expected);
        }
    }

    #[test]
    fn what_passes_as_it_is() {
        let plain = r#"{"error":"invalid_grant"}"#;
        let enveloped = r#"{ "meta": {"x":1}, "errors": [ {"httpcode":400,"message":"m"} ] }"#;
        let rows = [
            (ErrorFormat::OAuth, 400, plain),
            (ErrorFormat::OAuth, 200, r#"{"token_type":"Bearer"}"#),
            (ErrorFormat::Envelope, 400, enveloped),
            (ErrorFormat::Envelope, 302, plain),
            (ErrorFormat::Envelope, 200, r#"{ "token_type" : "bearer" }"#),
            (ErrorFormat::Envelope, 200, r#"{ "token_type" : "DPoP" }"#),
            (ErrorFormat::Envelope, 200, r#"{ "access_token" : "a" }"#),
            (ErrorFormat::Envelope, 200, "no JSON"),
        ];
        for (format, status, body) in rows {
            let kept = format.of_token(answer(status, "text/html", body));
            assert_eq!((kept.status().as_u16(), &kept.body()[..]), {
                (status, body.as_bytes())
            });
            assert_eq!(kept.headers()[CONTENT_TYPE], "text/html", "{body}");
        }
    }

    #[test]
    fn the_token_type_comes_out_in_lower_case() {
        let body = r#"{"access_token":"Bearer","expires_in":1,"token_type":"Bearer","x":[1.5]}"#;
        let lower = r#"{"access_token":"Bearer","expires_in":1,"token_type":"bearer","x":[1.5]}"#;
        let token = ErrorFormat::Envelope.of_token(answer(200, "application/json", body));
        assert_eq!(token.body(), lower);
        let other = ErrorFormat::Envelope.of(answer(200, "application/json", body));
        assert_eq!(other.body(), body, "of the token endpoint alone");
    }
}
