use super::*;
use crate::keys::{KeyPolicy, KeyStore};
use crate::oauth::{ErrorFormat, Quotas};
use crate::outbound::Outbound;
use crate::outbound::testing::{Act, Server};
use crate::store::SharedStore;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::trace::Trace;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
const TOKEN: &str = r#"{"access_token":"TOKEN-VALUE","expires_in":"86400","token_type":"Bearer"}"#;

fn surface() -> Surface {
    Surface {
        name: "bonterra".into(),
        grants: Grant::ALL.to_vec(),
        max_body: 1024,
        realm: "bonterra".into(),
        errors: ErrorFormat::OAuth,
        forward_client_address: false,
    }
}

fn head(headers: &[(&'static str, &str)]) -> Parts {
    let mut head = http::Request::post("/oauth/token")
        .body(())
        .unwrap()
        .into_parts()
        .0;
    for (name, value) in headers {
        head.headers
            .append(*name, HeaderValue::from_str(value).unwrap());
    }
    head
}

fn decided(content_type: &str, body: &str) -> Result<Grant, OAuthError> {
    let head = head(&[("content-type", content_type)]);
    match decide(&surface(), &head, body.as_bytes()) {
        Ok(forward) => Ok(forward.grant),
        Err(refusal) => Err(refusal.error),
    }
}

#[test]
fn grants_and_their_parameters() {
    use Grant::{AuthorizationCode, ClientCredentials, Password, RefreshToken};
    let missing = |name| Err(OAuthError::MissingParameter(name));
    let rows = [
        (
            "grant_type=client_credentials&client_id=i&client_secret=s",
            Ok(ClientCredentials),
        ),
        (
            "grant_type=client_credentials&client_id=i&client_secret=s&audience=a",
            Ok(ClientCredentials),
        ),
        (
            "grant_type=client_credentials&client_assertion=j&client_assertion_type=t",
            Ok(ClientCredentials),
        ),
        (
            "grant_type=client_credentials&client_id=i",
            Err(OAuthError::NoClientAuthentication),
        ),
        (
            "grant_type=client_credentials&client_id=i&client_secret=",
            Err(OAuthError::NoClientAuthentication),
        ),
        ("grant_type=client_credentials", missing("client_id")),
        (
            "grant_type=client_credentials&client_secret=s",
            missing("client_id"),
        ),
        (
            "grant_type=authorization_code&code=c&client_id=i",
            Ok(AuthorizationCode),
        ),
        (
            "grant_type=authorization_code&code=c&client_id=i&redirect_uri=r&code_verifier=v&organization=o",
            Ok(AuthorizationCode),
        ),
        ("grant_type=authorization_code&client_id=i", missing("code")),
        (
            "grant_type=authorization_code&client_id=i&code=",
            missing("code"),
        ),
        ("grant_type=authorization_code&code=c", missing("client_id")),
        (
            "grant_type=refresh_token&refresh_token=r&client_id=i",
            Ok(RefreshToken),
        ),
        (
            "grant_type=refresh_token&client_id=i&client_secret=s",
            missing("refresh_token"),
        ),
        ("client_id=i", missing("grant_type")),
        ("grant_type=&client_id=i", missing("grant_type")),
        ("", missing("grant_type")),
        (
            "grant_type=password&username=u&password=p&client_id=i",
            Ok(Password),
        ),
        (
            "grant_type=password&username=u&password=p&client_id=i&client_secret=s",
            Ok(Password),
        ),
        (
            "grant_type=password&username=u&password=&client_id=i",
            missing("password"),
        ),
        ("grant_type=password&client_id=i", missing("username")),
        (
            "grant_type=passwords&username=u&password=p&client_id=i",
            Err(OAuthError::UnsupportedGrant),
        ),
        (
            "grant_type=Client_Credentials",
            Err(OAuthError::UnsupportedGrant),
        ),
        (
            "grant_type=client_credentials%20",
            Err(OAuthError::UnsupportedGrant),
        ),
        (
            "grant_type=client_credentials&grant_type=refresh_token",
            Err(OAuthError::Repeated(Some("grant_type"))),
        ),
    ];
    for (body, expected) in rows {
        assert_eq!(decided(FORM, body), expected, "{body}");
        if matches!(expected, Err(OAuthError::Repeated(_))) {
            continue;
        }
        let members: serde_json::Map<_, _> = form_urlencoded::parse(body.as_bytes())
            .map(|(name, value)| (name.into_owned(), value.into_owned().into()))
            .collect();
        let json = serde_json::Value::Object(members).to_string();
        assert_eq!(decided(JSON, &json), expected, "{json}");
    }
}

#[test]
fn a_grant_that_the_surface_does_not_have() {
    let mut surface = surface();
    surface.grants = vec![Grant::RefreshToken];
    let head = head(&[("content-type", FORM)]);
    let refusal = decide(&surface, &head, b"grant_type=client_credentials").unwrap_err();
    assert_eq!(refusal.error, OAuthError::UnsupportedGrant);
    assert_eq!(refusal.grant, Some(Grant::ClientCredentials));
    assert_eq!("implicit".parse::<Grant>(), Err(grant::UnknownGrant));
    for grant in Grant::ALL {
        assert_eq!(grant.as_str().parse(), Ok(grant));
    }
}

#[test]
fn method_and_size() {
    let mut get = head(&[("content-type", FORM)]);
    get.method = Method::GET;
    let refused = |head: &Parts, body: &[u8]| decide(&surface(), head, body).unwrap_err().error;
    assert_eq!(refused(&get, b""), OAuthError::MethodNotAllowed);
    let post = head(&[("content-type", FORM)]);
    assert_eq!(refused(&post, &[b'a'; 1025]), OAuthError::BodyTooLarge);
    assert_eq!(
        refused(&post, &[b'a'; 1024]),
        OAuthError::MissingParameter("grant_type")
    );
}

#[test]
fn what_goes_on_to_the_issuer() {
    let head = head(&[
        ("content-type", JSON),
        ("authorization", "Basic aWQ6c2VjcmV0"),
        ("dpop", "proof"),
        ("user-agent", "client/1"),
        ("accept", "text/html"),
        ("auth0-forwarded-for", "1.2.3.4"),
        ("auth0-client", "x"),
        ("cookie", "c=1"),
        ("x-forwarded-for", "1.2.3.4"),
        ("connection", "dpop"),
    ]);
    let body = br#"{"resource":"r s","grant_type":"client_credentials","scope":"","organization":"o&p","audience":"https://a"}"#;
    let forward = decide(&surface(), &head, body).unwrap();
    assert_eq!(
        forward.params.to_form(),
        "resource=r+s&grant_type=client_credentials&organization=o%26p&audience=https%3A%2F%2Fa"
    );
    let mut sent: Vec<_> = forward
        .headers
        .iter()
        .map(|(n, v)| format!("{n}: {}", v.to_str().unwrap()))
        .collect();
    sent.sort();
    let expected = [
        "accept: application/json",
        "authorization: Basic aWQ6c2VjcmV0",
        "dpop: proof",
        "user-agent: client/1",
    ];
    assert_eq!(sent, expected);
    let shown = format!("{forward:?}");
    assert!(
        !shown.contains("aWQ6") && !shown.contains("proof"),
        "{shown}"
    );
}

#[test]
fn whose_address_the_issuer_learns() {
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let rows = [
        ("client_id=i&client_secret=s", true),
        ("client_assertion=j&client_assertion_type=t", true),
        ("client_id=i", false),
    ];
    for (credential, learned) in rows {
        let head = head(&[("content-type", FORM), ("auth0-forwarded-for", "1.2.3.4")]);
        let body = format!("grant_type=refresh_token&refresh_token=r&{credential}");
        let forward = || decide(&surface(), &head, body.as_bytes()).unwrap();
        let told = forward().on_behalf_of(Some(address));
        let told = told.headers.get(CLIENT_ADDRESS);
        assert_eq!(told.is_some(), learned, "{credential}");
        assert!(told.is_none_or(|told| told == "2001:db8::7"));
        let silent = forward().on_behalf_of(None);
        assert!(!silent.headers.contains_key(CLIENT_ADDRESS), "{credential}");
    }
}

// === Against a server ===

/// A store without keys.
fn key_store() -> Arc<KeyStore> {
    let second = Duration::from_secs(1);
    Arc::new(KeyStore::new(KeyPolicy {
        ttl: second,
        min_ttl: second,
        max_ttl: second,
        max_stale: second,
        cooldown: second,
        patience: second,
    }))
}

fn issuer(server: &Server) -> TokenIssuer {
    TokenIssuer {
        outbound: Outbound::new(None, Duration::from_millis(500)).unwrap(),
        token_endpoint: server.uri("/oauth/token"),
        trace: Trace::of(&HeaderMap::new(), false, 0.0),
        client: None,
        quotas: Quotas::new(
            &"bonterra".into(),
            &Arc::new(Metrics::new("0", "0").unwrap()),
        ),
        store: Arc::new(SharedStore::in_memory()),
        keys: key_store(),
        reuse: None,
        refresh: None,
        handles: None,
    }
}

async fn ask(issuer: &TokenIssuer, content_type: &str, body: &'static str) -> TokenReply {
    token(
        &surface(),
        issuer,
        &head(&[("content-type", content_type)]),
        body.into(),
    )
    .await
}

const REFRESH: &str =
    "grant_type=refresh_token&refresh_token=REFRESH-VALUE&client_id=i&client_secret=SECRET-VALUE";

#[tokio::test]
async fn issues_by_form_and_by_json() {
    let server = Server::start(Act::json(200, TOKEN)).await;
    let issuer = issuer(&server);
    let json = r#"{"grant_type":"refresh_token","refresh_token":"REFRESH-VALUE","client_id":"i","client_secret":"SECRET-VALUE"}"#;
    for (content_type, body) in [(FORM, REFRESH), (JSON, json)] {
        let reply = ask(&issuer, content_type, body).await;
        assert_eq!((reply.grant, reply.outcome), ("refresh_token", "issued"));
        assert_eq!(reply.response.status(), 200);
        assert_eq!(
            reply.response.body(),
            r#"{"access_token":"TOKEN-VALUE","expires_in":86400,"token_type":"Bearer"}"#
        );
        assert!(!format!("{reply:?}").contains("TOKEN-VALUE"));
    }
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert!(
            request.starts_with("POST /oauth/token HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("content-type: application/x-www-form-urlencoded\r\n"));
        assert!(
            request.ends_with(&format!("\r\n\r\n{REFRESH}")),
            "{request}"
        );
    }
}

#[tokio::test]
async fn issuer_errors_pass() {
    let body = r#"{"error":"too_many_requests","error_description":"Client quota exceeded"}"#;
    let raw = format!(
        "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json; x=y\r\nRetry-After: 9\r\n\
         Auth0-Client-Quota-Limit: b=per_hour;q=10;r=0;t=3540\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let server = Server::start(Act::Raw(raw)).await;
    let reply = ask(&issuer(&server), FORM, REFRESH).await;
    assert_eq!(reply.outcome, "refused_by_issuer");
    assert_eq!(reply.response.status(), 429);
    assert_eq!(reply.response.body(), body);
    assert_eq!(reply.response.headers()[RETRY_AFTER], "9");
    assert_eq!(
        reply.response.headers()[CONTENT_TYPE],
        "application/json; x=y"
    );
    assert_eq!(
        reply.response.headers()["auth0-client-quota-limit"],
        "b=per_hour;q=10;r=0;t=3540"
    );
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn issuer_failures_and_exactly_one_post() {
    let rows = [
        (
            Act::CloseAfterRequest,
            502,
            "temporarily_unavailable",
            "issuer_cut",
        ),
        (Act::Hang, 504, "temporarily_unavailable", "issuer_timeout"),
        (Act::Endless, 502, "server_error", "issuer_bad_reply"),
        (
            Act::Raw("SSH-2.0-x\r\n\r\n".into()),
            502,
            "temporarily_unavailable",
            "issuer_cut",
        ),
        (Act::json(200, ""), 502, "server_error", "issuer_bad_reply"),
        (
            Act::json(200, "<html>"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
        (
            Act::redirect("/elsewhere"),
            502,
            "server_error",
            "issuer_bad_reply",
        ),
    ];
    for (act, status, code, outcome) in rows {
        let name = format!("{act:?}");
        let server = Server::start(act).await;
        let reply = ask(&issuer(&server), FORM, REFRESH).await;
        assert_eq!(reply.response.status(), status, "{name}");
        assert_eq!(reply.outcome, outcome, "{name}");
        let body: serde_json::Value = serde_json::from_slice(reply.response.body()).unwrap();
        assert_eq!(body["error"], code, "{name}");
        tokio::time::sleep(Duration::from_millis(80)).await;
        assert_eq!(server.requests().len(), 1, "{name}");
    }
}

#[tokio::test]
async fn an_issuer_that_is_away() {
    let server = Server::start(Act::Hang).await;
    let mut issuer = issuer(&server);
    issuer.token_endpoint = Server::nobody_listens().await;
    let reply = ask(&issuer, FORM, REFRESH).await;
    assert_eq!(
        (reply.response.status().as_u16(), reply.outcome),
        (502, "issuer_unreachable")
    );
}

#[tokio::test]
async fn refusals_do_not_ask_the_issuer() {
    let server = Server::start(Act::json(200, TOKEN)).await;
    let issuer = issuer(&server);
    let rows = [
        (
            FORM,
            "grant_type=implicit",
            400,
            "unsupported_grant_type",
            "unknown",
        ),
        (
            FORM,
            "grant_type=refresh_token&client_id=i",
            400,
            "invalid_request",
            "refresh_token",
        ),
        (FORM, "a=%", 400, "invalid_request", "unknown"),
        ("text/plain", "x", 415, "invalid_request", "unknown"),
        (
            FORM,
            "grant_type=client_credentials&client_id=i",
            401,
            "invalid_client",
            "client_credentials",
        ),
    ];
    for (content_type, body, status, outcome, grant) in rows {
        let reply = ask(&issuer, content_type, body).await;
        assert_eq!(reply.response.status(), status, "{body}");
        assert_eq!((reply.outcome, reply.grant), (outcome, grant), "{body}");
        assert_eq!(
            reply.response.headers().contains_key(WWW_AUTHENTICATE),
            status == 401
        );
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Everything runs on this test's thread, so its own subscriber sees every line of every crate.
#[tokio::test]
async fn no_level_of_log_holds_a_secret() {
    let captured = Captured::default();
    let writer = captured.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let body = "grant_type=authorization_code&code=CODE-VALUE&code_verifier=VERIFIER-VALUE&client_id=ID-VALUE";
    let refused = r#"{"error":"invalid_grant","error_description":"code CODE-VALUE is wrong"}"#;
    let acts = [
        Act::json(200, TOKEN),
        Act::json(403, refused),
        Act::json(500, refused),
        Act::json(200, "REFRESH-VALUE"),
        Act::redirect("/?code=CODE-VALUE"),
        Act::CloseAfterRequest,
        Act::Hang,
    ];
    for act in acts {
        let server = Server::start(act).await;
        let issuer = issuer(&server);
        let basic = [
            ("content-type", FORM),
            ("authorization", "Basic SUQ6U0VDUkVU"),
            ("dpop", "PROOF-VALUE"),
        ];
        ask(&issuer, FORM, body).await;
        ask(&issuer, FORM, REFRESH).await;
        ask(&issuer, FORM, "grant_type=SECRET-VALUE").await;
        ask(&issuer, FORM, "SECRET-VALUE=1&SECRET-VALUE=2").await;
        ask(
            &issuer,
            JSON,
            r#"{"grant_type":"SECRET-VALUE" SECRET-VALUE"#,
        )
        .await;
        token(
            &surface(),
            &issuer,
            &head(&basic),
            "grant_type=client_credentials".into(),
        )
        .await;
        token(
            &surface(),
            &issuer,
            &head(&basic),
            "grant_type=client_credentials&client_id=SECRET-VALUE".into(),
        )
        .await;
    }
    drop(guard);
    let log = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
    assert!(
        log.contains("token request refused"),
        "nothing captured: {log}"
    );
    assert!(
        log.contains("TRACE hyper_util"),
        "no lines of libraries: {log}"
    );
    for secret in ["-VALUE", "SUQ6U0VDUkVU"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
