use super::*;
use http::HeaderValue;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

fn read(content_type: &str, body: &[u8]) -> Result<String, OAuthError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
    let params = Params::read(&headers, body)?;
    Ok(String::from_utf8(params.to_form().to_vec()).unwrap())
}

#[test]
fn media_types() {
    let body = b"a=1";
    for good in [
        FORM,
        "Application/X-WWW-Form-Urlencoded",
        "application/x-www-form-urlencoded;charset=UTF-8",
        "application/x-www-form-urlencoded ; charset=\"utf-8\"",
        "application/x-www-form-urlencoded; x=y",
    ] {
        assert_eq!(read(good, body).as_deref(), Ok("a=1"), "{good}");
    }
    assert_eq!(
        read("application/json; charset=utf-8", b"{}").as_deref(),
        Ok("")
    );
    for bad in [
        "",
        "text/plain",
        "multipart/form-data; boundary=x",
        "application/x-www-form-urlencoded; charset=iso-8859-1",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application/json, application/x-www-form-urlencoded",
    ] {
        assert_eq!(
            read(bad, body),
            Err(OAuthError::UnsupportedMediaType),
            "{bad}"
        );
    }
}

#[test]
fn media_type_absent_twice_or_compressed() {
    let refused = |headers: &HeaderMap| {
        Params::read(headers, b"a=1").err() == Some(OAuthError::UnsupportedMediaType)
    };
    let mut headers = HeaderMap::new();
    assert!(refused(&headers));
    headers.append(CONTENT_TYPE, HeaderValue::from_static(FORM));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("identity"));
    assert!(!refused(&headers));
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    assert!(refused(&headers));
    headers.remove(CONTENT_ENCODING);
    headers.append(CONTENT_TYPE, HeaderValue::from_static(JSON));
    assert!(refused(&headers));
}

#[test]
fn forms() {
    let rows: [(&[u8], Result<&str, OAuthError>); 14] = [
        (b"", Ok("")),
        (b"b=2&a=1", Ok("b=2&a=1")),
        (b"a=1&&b=2&", Ok("a=1&b=2")),
        (b"a=&b", Ok("")),
        (b"a=x%20y+z%2B&b=%C3%A9", Ok("a=x+y+z%2B&b=%C3%A9")),
        (b"a=b=c", Ok("a=b%3Dc")),
        (b"a=1&a=2", Err(OAuthError::Repeated(None))),
        (b"scope=1&scope=", Err(OAuthError::Repeated(Some("scope")))),
        (
            b"scope=1&sc%6Fpe=2",
            Err(OAuthError::Repeated(Some("scope"))),
        ),
        (b"=1", Err(OAuthError::BadForm)),
        (b"a=%", Err(OAuthError::BadForm)),
        (b"a=%4", Err(OAuthError::BadForm)),
        (b"a=%4g", Err(OAuthError::BadForm)),
        (b"a=%ff", Err(OAuthError::BadForm)),
    ];
    for (body, expected) in rows {
        let body_text = String::from_utf8_lossy(body);
        assert_eq!(
            read(FORM, body).as_deref(),
            expected.as_ref().copied(),
            "{body_text}"
        );
    }
    assert_eq!(read(FORM, b"a=\xff"), Err(OAuthError::BadForm));
}

#[test]
fn json() {
    let rows: [(&str, Result<&str, OAuthError>); 12] = [
        ("{}", Ok("")),
        (r#" {"b":"2","a":"x y&z"} "#, Ok("b=2&a=x+y%26z")),
        (r#"{"a":"","b":null,"c":"\u00e9"}"#, Ok("c=%C3%A9")),
        (r#"{"a":"1","a":"2"}"#, Err(OAuthError::Repeated(None))),
        (
            r#"{"scope":"1","sc\u006fpe":null}"#,
            Err(OAuthError::Repeated(Some("scope"))),
        ),
        (r#"{"scope":1}"#, Err(OAuthError::NotAString(Some("scope")))),
        (
            r#"{"scope":-1.5}"#,
            Err(OAuthError::NotAString(Some("scope"))),
        ),
        (r#"{"x":true}"#, Err(OAuthError::NotAString(None))),
        (
            r#"{"audience":["a"]}"#,
            Err(OAuthError::NotAString(Some("audience"))),
        ),
        (
            r#"{"audience":{"a":{"b":1}}}"#,
            Err(OAuthError::NotAString(Some("audience"))),
        ),
        ("[]", Err(OAuthError::BadJson { line: 1, column: 0 })),
        ("{}x", Err(OAuthError::BadJson { line: 1, column: 3 })),
    ];
    for (body, expected) in rows {
        assert_eq!(
            read(JSON, body.as_bytes()).as_deref(),
            expected.as_ref().copied(),
            "{body}"
        );
    }
}

#[test]
fn json_that_is_none() {
    let deep = format!("{{\"a\":{}", "[".repeat(10_000));
    let bad: [&[u8]; 7] = [
        b"",
        b"null",
        b"\"a\"",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"1\",}",
        deep.as_bytes(),
    ];
    for body in bad {
        let got = read(JSON, body);
        assert!(matches!(got, Err(OAuthError::BadJson { .. })), "{got:?}");
    }
}

#[test]
fn number_of_parameters() {
    let form = |n: usize| (0..n).map(|i| format!("p{i}=1&")).collect::<String>();
    assert!(read(FORM, form(MAX_PARAMETERS).as_bytes()).is_ok());
    let many = form(MAX_PARAMETERS + 1);
    assert_eq!(
        read(FORM, many.as_bytes()),
        Err(OAuthError::TooManyParameters)
    );
}

#[test]
fn debug_withholds_names_and_values() {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(FORM));
    let params = Params::read(&headers, b"client_secret=hush&hush2").unwrap();
    assert_eq!(format!("{params:?}"), "Params(1 withheld)");
}
