mod events;
mod quota;
mod users;

use std::time::Duration;

use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use serde_json::json;
use tokio::time::timeout;
use url::Url;

use super::super::test_client::{Reply, form, get, post, send};
use super::*;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const LOOPBACK: &str = "http://127.0.0.1:12345/cb";

async fn auth() -> BonterraAuth {
    BonterraAuth::start(AuthOptions::default())
        .await
        .expect("a free port")
}

/// Verified by a library that had no part in making it, with nothing but the published keys.
fn verify(auth: &BonterraAuth, token: &str, audience: &str) -> Result<Value, String> {
    let header = decode_header(token).map_err(|error| error.to_string())?;
    let set: JwkSet = serde_json::from_value(auth.jwks()).map_err(|error| error.to_string())?;
    let jwk = set
        .find(header.kid.as_deref().unwrap_or_default())
        .ok_or("unknown kid")?;
    assert_eq!(
        jwk.common.key_algorithm.map(|alg| alg.to_string()),
        Some(format!("{:?}", header.alg))
    );
    let mut rules = Validation::new(header.alg);
    rules.set_audience(&[audience]);
    rules.set_issuer(&[auth.issuer()]);
    let key = DecodingKey::from_jwk(jwk).map_err(|error| error.to_string())?;
    decode::<Value>(token, &key, &rules)
        .map(|token| token.claims)
        .map_err(|error| error.to_string())
}

async fn token(auth: &BonterraAuth, fields: &[(&str, &str)]) -> Reply {
    form(auth.addr(), "/oauth/token", fields)
        .await
        .expect("a reply")
}

fn machine<'a>(extra: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut fields = vec![
        ("grant_type", "client_credentials"),
        ("client_id", MACHINE_CLIENT),
        ("client_secret", MACHINE_SECRET),
    ];
    fields.extend_from_slice(extra);
    fields
}

fn authorize_target(fields: &[(&str, &str)]) -> String {
    format!(
        "/authorize?{}",
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(fields)
            .finish()
    )
}

fn web_request<'a>() -> Vec<(&'a str, &'a str)> {
    vec![
        ("response_type", "code"),
        ("client_id", WEB_CLIENT),
        ("redirect_uri", LOOPBACK),
        ("scope", "openid profile email offline_access read:grants"),
        ("state", "a&b"),
        ("nonce", "n-1"),
        ("audience", AUDIENCE),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ]
}

fn login_handle(page: &str) -> String {
    let (_, rest) = page
        .split_once("name=\"login\" value=\"")
        .expect("a login form");
    rest.split('"').next().unwrap().to_owned()
}

fn landed(reply: &Reply) -> Vec<(String, String)> {
    assert_eq!(reply.status, 302, "{}", reply.text());
    Url::parse(reply.header("location"))
        .unwrap()
        .query_pairs()
        .into_owned()
        .collect()
}

fn field(fields: &[(String, String)], name: &str) -> String {
    fields
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

/// Through the login page to a code.
async fn log_in(auth: &BonterraAuth, request: &[(&str, &str)]) -> String {
    let page = get(auth.addr(), &authorize_target(request)).await.unwrap();
    assert_eq!(page.status, 200, "{}", page.text());
    let handle = login_handle(&page.text());
    let fields = [
        ("login", handle.as_str()),
        ("email", "user@example.com"),
        ("password", "demo"),
        ("action", "continue"),
    ];
    let landed = landed(&form(auth.addr(), "/login", &fields).await.unwrap());
    assert_eq!(field(&landed, "state"), "a&b");
    field(&landed, "code")
}

async fn redeem(auth: &BonterraAuth, code: &str, verifier: &str) -> Reply {
    let fields = [
        ("grant_type", "authorization_code"),
        ("client_id", WEB_CLIENT),
        ("code", code),
        ("redirect_uri", LOOPBACK),
        ("code_verifier", verifier),
    ];
    token(auth, &fields).await
}

async fn refresh(auth: &BonterraAuth, refresh_token: &str) -> Reply {
    token(
        auth,
        &[
            ("grant_type", "refresh_token"),
            ("client_id", WEB_CLIENT),
            ("refresh_token", refresh_token),
        ],
    )
    .await
}

#[tokio::test]
async fn discovery_names_the_issuer_and_its_endpoints() {
    let auth = auth().await;
    let reply = get(auth.addr(), "/.well-known/openid-configuration")
        .await
        .unwrap();
    let document = reply.json();
    assert_eq!(document["issuer"], format!("http://{}/", auth.addr()));
    assert_eq!(
        document["token_endpoint"],
        format!("http://{}/oauth/token", auth.addr())
    );
    let keys = get(auth.addr(), "/.well-known/jwks.json").await.unwrap();
    assert_eq!(keys.header("cache-control"), "public, max-age=15");
    let keys = keys.json();
    let keys = keys["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0]["n"], keys[1]["n"]);
    assert!(keys.iter().all(|key| key["alg"] == "RS256"
        && key["use"] == "sig"
        && key["e"] == "AQAB"
        && key["x5t"].is_string()));
    assert_eq!(get(auth.addr(), "/oauth/token").await.unwrap().status, 404);
    assert_eq!(
        auth.counts(),
        Counts {
            discovery: 1,
            jwks: 1,
            ..Counts::default()
        }
    );
}

#[tokio::test]
async fn client_credentials_by_form_json_and_basic() {
    let auth = auth().await;
    let by_form = token(&auth, &machine(&[("audience", AUDIENCE)])).await;
    assert_eq!(by_form.status, 200);
    assert_eq!(
        (by_form.header("cache-control"), by_form.header("pragma")),
        ("no-store", "no-cache")
    );
    let names: Vec<_> = by_form
        .json()
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(names, ["access_token", "expires_in", "token_type"]);
    assert_eq!(by_form.json()["expires_in"], 86400);
    let claims = verify(
        &auth,
        by_form.json()["access_token"].as_str().unwrap(),
        AUDIENCE,
    )
    .unwrap();
    assert_eq!(claims["sub"], "demo-client@clients");
    assert_eq!(claims["gty"], "client-credentials");
    assert_eq!(claims["scope"], "read:grants write:grants read:profile");
    assert_eq!(claims["urn:bonterra:claims:is_bonterra_grants"], true);
    assert_eq!(
        auth.last_token_request().unwrap().form()[1].1,
        MACHINE_CLIENT
    );

    auth.set_expires_in_style(ExpiresIn::String);
    let body = json!({ "grant_type": "client_credentials", "client_id": MACHINE_CLIENT, "client_secret": MACHINE_SECRET, "scope": "read:grants" });
    let by_json = post(
        auth.addr(),
        "/oauth/token",
        "application/json; charset=utf-8",
        body.to_string(),
    )
    .await
    .unwrap()
    .json();
    assert_eq!(by_json["expires_in"], "86400");
    let claims = verify(&auth, by_json["access_token"].as_str().unwrap(), AUDIENCE).unwrap();
    assert_eq!(claims["scope"], "read:grants");

    let basic = |secret: &str| {
        Request::post("/oauth/token")
            .header(
                "authorization",
                format!(
                    "Basic {}",
                    STANDARD.encode(format!("demo%2Dclient:{secret}"))
                ),
            )
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from("grant_type=client_credentials"))
            .unwrap()
    };
    assert_eq!(
        send(auth.addr(), basic(MACHINE_SECRET))
            .await
            .unwrap()
            .status,
        200
    );
    let refused = send(auth.addr(), basic("wrong")).await.unwrap();
    assert_eq!(
        (refused.status.as_u16(), refused.header("www-authenticate")),
        (401, r#"Basic realm="Bonterra Auth""#)
    );
    assert_eq!(auth.counts().token, 4);
}

#[tokio::test]
async fn refusals_have_the_issuers_own_bodies() {
    let auth = auth().await;
    let code = ("grant_type", "authorization_code");
    let cases = [
        (
            vec![
                ("grant_type", "client_credentials"),
                ("client_id", MACHINE_CLIENT),
                ("client_secret", "no"),
            ],
            401,
            r#"{"error":"access_denied","error_description":"Unauthorized"}"#,
        ),
        (
            vec![("grant_type", "client_credentials")],
            401,
            r#"{"error":"invalid_client","error_description":"Missing client_id"}"#,
        ),
        (
            machine(&[("audience", "https://x")]),
            403,
            r#"{"error":"access_denied","error_description":"Service not found: https://x"}"#,
        ),
        (
            vec![
                ("grant_type", "client_credentials"),
                ("client_id", WEB_CLIENT),
            ],
            403,
            r#"{"error":"unauthorized_client","error_description":"Grant type 'client_credentials' not allowed for the client.","error_uri":"https://auth0.com/docs/clients/client-grant-types"}"#,
        ),
        (
            vec![
                code,
                ("client_id", WEB_CLIENT),
                ("code", "no"),
                ("redirect_uri", LOOPBACK),
            ],
            403,
            r#"{"error":"invalid_grant","error_description":"Invalid authorization code"}"#,
        ),
        (
            vec![
                ("grant_type", "refresh_token"),
                ("client_id", WEB_CLIENT),
                ("refresh_token", "no"),
            ],
            403,
            r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#,
        ),
        (
            machine(&[("scope", "a"), ("scope", "b")]),
            400,
            r#"{"error":"invalid_request","error_description":"Parameter sent more than once: scope"}"#,
        ),
    ];
    for (fields, status, body) in &cases {
        let reply = token(&auth, fields).await;
        assert_eq!(
            (reply.status.as_u16(), reply.text().as_str()),
            (*status, *body)
        );
    }
    let revoke = form(auth.addr(), "/oauth/revoke", &[("token", "x")])
        .await
        .unwrap();
    assert_eq!(revoke.status, 400);
    assert_eq!(
        revoke.text(),
        r#"{"error":"invalid_request","error_description":"Missing required parameter: client_id"}"#
    );
}

#[tokio::test]
async fn code_with_pkce_through_the_login_page() {
    let auth = auth().await;
    let code = log_in(&auth, &web_request()).await;
    let wrong = redeem(
        &auth,
        &log_in(&auth, &web_request()).await,
        "not-the-verifier",
    )
    .await;
    assert_eq!(
        (
            wrong.status.as_u16(),
            wrong.json()["error_description"].clone()
        ),
        (403, json!("Failed to verify code verifier"))
    );

    let reply = redeem(&auth, &code, VERIFIER).await.json();
    let names: Vec<_> = reply.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        [
            "access_token",
            "refresh_token",
            "id_token",
            "scope",
            "expires_in",
            "token_type"
        ]
    );
    let access = reply["access_token"].as_str().unwrap();
    assert_eq!(
        verify(&auth, access, AUDIENCE).unwrap()["sub"],
        "auth0|507f1f77bcf86cd799439011"
    );
    let id = verify(&auth, reply["id_token"].as_str().unwrap(), WEB_CLIENT).unwrap();
    assert_eq!(
        (id["nonce"].clone(), id["email"].clone()),
        (json!("n-1"), json!("user@example.com"))
    );

    let ask = |token: String| {
        Request::get("/userinfo")
            .header("authorization", format!("Bearer {token}"))
            .body(Bytes::new())
            .unwrap()
    };
    let profile = send(auth.addr(), ask(access.to_owned())).await.unwrap();
    assert_eq!(
        (
            profile.status.as_u16(),
            profile.json()["given_name"].clone()
        ),
        (200, json!("John"))
    );
    let machine = send(auth.addr(), ask(auth.token())).await.unwrap();
    assert_eq!(machine.status, 401);
    assert_eq!(
        machine.text(),
        r#"{"error":"invalid_token","error_description":"The access token is invalid or has expired"}"#
    );

    let replay = redeem(&auth, &code, VERIFIER).await;
    assert_eq!(replay.status, 403);
    assert_eq!(
        refresh(&auth, reply["refresh_token"].as_str().unwrap())
            .await
            .status,
        403,
        "a replayed code ends its family"
    );
}

#[tokio::test]
async fn the_login_page_can_refuse_and_be_left() {
    let auth = auth().await;
    let page = get(auth.addr(), &authorize_target(&web_request()))
        .await
        .unwrap();
    let handle = login_handle(&page.text());
    let wrong = [
        ("login", handle.as_str()),
        ("email", "user@example.com"),
        ("password", "no"),
    ];
    let again = form(auth.addr(), "/login", &wrong).await.unwrap();
    assert_eq!(again.status, 401);
    assert!(again.text().contains("Wrong email or password."));
    let cancelled = landed(
        &form(
            auth.addr(),
            "/login",
            &[("login", &handle), ("action", "cancel")],
        )
        .await
        .unwrap(),
    );
    assert_eq!(
        (field(&cancelled, "error"), field(&cancelled, "state")),
        ("access_denied".to_owned(), "a&b".to_owned())
    );
    assert_eq!(
        form(auth.addr(), "/login", &[("login", &handle)])
            .await
            .unwrap()
            .status,
        400
    );
}

#[tokio::test]
async fn mistakes_at_authorize() {
    let auth = auth().await;
    let changed = |name: &str, value: Option<&'static str>| -> String {
        let mut request = web_request();
        request.retain(|(known, _)| *known != name);
        if let Some(value) = value {
            request.push((
                if name == "client_id" {
                    "client_id"
                } else {
                    "redirect_uri"
                },
                value,
            ));
        }
        authorize_target(&request)
    };
    for target in [
        changed("client_id", Some("nobody")),
        changed("redirect_uri", Some("https://evil.example/cb")),
        changed("redirect_uri", None),
    ] {
        assert_eq!(
            get(auth.addr(), &target).await.unwrap().status,
            400,
            "{target}"
        );
    }
    let without = [
        ("response_type", "invalid_request"),
        ("code_challenge", "invalid_request"),
        ("code_challenge_method", "invalid_request"),
    ];
    for (name, error) in without {
        let landed = landed(&get(auth.addr(), &changed(name, None)).await.unwrap());
        assert_eq!(
            (
                field(&landed, "error").as_str(),
                field(&landed, "state").as_str()
            ),
            (error, "a&b"),
            "{name}"
        );
    }
    let token_flow = authorize_target(&[
        ("response_type", "token"),
        ("client_id", WEB_CLIENT),
        ("redirect_uri", LOOPBACK),
    ]);
    assert_eq!(
        field(
            &landed(&get(auth.addr(), &token_flow).await.unwrap()),
            "error"
        ),
        "unsupported_response_type"
    );
}

#[tokio::test]
async fn refresh_rotates_and_reuse_ends_the_family() {
    let auth = auth().await;
    let code = log_in(&auth, &web_request()).await;
    let first = redeem(&auth, &code, VERIFIER).await.json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let second = refresh(&auth, &first).await;
    assert_eq!(second.status, 200);
    let second = second.json()["refresh_token"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert_eq!(refresh(&auth, &first).await.status, 403);
    assert_eq!(
        refresh(&auth, &second).await.status,
        403,
        "the family died with the reuse"
    );
}

#[tokio::test]
async fn revocation_ends_a_family_and_ignores_the_unknown() {
    let auth = auth().await;
    let code = log_in(&auth, &web_request()).await;
    let refresh_token = redeem(&auth, &code, VERIFIER).await.json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    let revoke = |client: &'static str, secret: &'static str, token: String| {
        let addr = auth.addr();
        async move {
            form(
                addr,
                "/oauth/revoke",
                &[
                    ("client_id", client),
                    ("client_secret", secret),
                    ("token", &token),
                ],
            )
            .await
            .unwrap()
        }
    };
    assert_eq!(
        revoke(BACKEND_CLIENT, BACKEND_SECRET, refresh_token.clone())
            .await
            .status,
        400
    );
    assert_eq!(
        revoke(BACKEND_CLIENT, "no", refresh_token.clone())
            .await
            .status,
        401
    );
    let unknown = revoke(WEB_CLIENT, "", "unknown".to_owned()).await;
    assert_eq!((unknown.status.as_u16(), unknown.body.len()), (200, 0));
    let refreshed = refresh(&auth, &refresh_token).await.json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(revoke(WEB_CLIENT, "", refreshed.clone()).await.status, 200);
    assert_eq!(refresh(&auth, &refreshed).await.status, 403);
}

#[tokio::test]
async fn rotation_and_withdrawal() {
    let auth = auth().await;
    let (old, kid) = (auth.token(), auth.current_kid());
    let early = auth.mint_with(&Value::Null, &auth.claims(), &KeyChoice::Next);
    assert!(
        verify(&auth, &early, AUDIENCE).is_ok(),
        "the next key is published ahead"
    );
    auth.rotate();
    assert_ne!(kid, auth.current_kid());
    assert_eq!(
        decode_header(&early).unwrap().kid.unwrap(),
        auth.current_kid()
    );
    assert!(
        verify(&auth, &old, AUDIENCE).is_ok() && verify(&auth, &auth.token(), AUDIENCE).is_ok()
    );
    assert_eq!(auth.jwks()["keys"].as_array().unwrap().len(), 3);
    auth.withdraw_previous();
    assert_eq!(verify(&auth, &old, AUDIENCE).unwrap_err(), "unknown kid");
    assert_eq!(auth.jwks()["keys"].as_array().unwrap().len(), 2);
    let late = auth.mint_with(&Value::Null, &auth.claims(), &KeyChoice::Previous);
    assert_eq!(
        decode_header(&late).unwrap().kid.unwrap(),
        kid,
        "a withdrawn key still signs for tests"
    );
}

#[tokio::test]
async fn every_algorithm_and_every_forgery() {
    let auth = BonterraAuth::start(AuthOptions {
        all_algorithms: true,
        ..AuthOptions::default()
    })
    .await
    .unwrap();
    for algorithm in Algorithm::ALL {
        let token = auth.mint_with(
            &Value::Null,
            &auth.claims(),
            &KeyChoice::Algorithm(algorithm),
        );
        assert_eq!(
            format!("{:?}", decode_header(&token).unwrap().alg),
            algorithm.as_str()
        );
        verify(&auth, &token, AUDIENCE)
            .unwrap_or_else(|error| panic!("{}: {error}", algorithm.as_str()));
    }
    let kid = auth.current_kid();
    let forged = auth.mint_with(
        &json!({ "kid": kid }),
        &auth.claims(),
        &KeyChoice::Unpublished,
    );
    assert_eq!(
        verify(&auth, &forged, AUDIENCE).unwrap_err(),
        "InvalidSignature"
    );
    let header = |token: String| -> Value {
        serde_json::from_slice(
            &URL_SAFE_NO_PAD
                .decode(token.split('.').next().unwrap())
                .unwrap(),
        )
        .unwrap()
    };
    let none = auth.mint_with(
        &json!({ "typ": null, "crit": ["x"] }),
        &auth.claims(),
        &KeyChoice::Unsigned,
    );
    assert!(none.ends_with('.'));
    assert_eq!(header(none), json!({ "alg": "none", "crit": ["x"] }));
    assert_eq!(
        header(auth.mint_with(
            &json!({ "kid": "k" }),
            &auth.claims(),
            &KeyChoice::Secret(b"s".to_vec())
        ))["alg"],
        "HS256"
    );
    assert_eq!(
        header(auth.mint_raw("[]", "x", &KeyChoice::Current)),
        json!([])
    );
}

#[tokio::test]
async fn issuers_apart_share_no_keys() {
    let one = auth().await;
    let other = BonterraAuth::start(AuthOptions {
        key_slot: 8,
        ..AuthOptions::default()
    })
    .await
    .unwrap();
    let (one, other) = (one.jwks(), other.jwks());
    for (mine, theirs) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        assert_ne!(one["keys"][mine]["n"], other["keys"][theirs]["n"]);
        assert_ne!(one["keys"][mine]["kid"], other["keys"][theirs]["kid"]);
    }
}

#[tokio::test]
async fn endpoints_fail_as_told() {
    let auth = auth().await;
    let jwks = || get(auth.addr(), "/.well-known/jwks.json");
    let set = |fault| auth.set_fault(Endpoint::Jwks, fault);

    set(Some(Fault::Status(
        503,
        "text/plain".to_owned(),
        "away".to_owned(),
    )));
    let reply = jwks().await.unwrap();
    assert_eq!(
        (
            reply.status.as_u16(),
            reply.text().as_str(),
            reply.header("content-type")
        ),
        (503, "away", "text/plain")
    );
    set(Some(Fault::redirect("https://elsewhere.example/")));
    assert_eq!(
        jwks().await.unwrap().header("location"),
        "https://elsewhere.example/"
    );
    set(Some(Fault::Garbage));
    assert!(jwks().await.unwrap().text().contains("<title>"));
    set(Some(Fault::EmptyOk));
    assert_eq!(jwks().await.unwrap().body.len(), 0);
    set(Some(Fault::CutBody));
    assert!(jwks().await.is_err());
    set(Some(Fault::CutAfterRequest));
    assert!(jwks().await.is_err());
    for endless in [Fault::Hang, Fault::Endless] {
        set(Some(endless));
        assert!(timeout(Duration::from_millis(100), jwks()).await.is_err());
    }
    set(Some(Fault::Slow(Duration::from_millis(50))));
    assert_eq!(jwks().await.unwrap().json(), auth.jwks());
    set(None);
    auth.set_jwks_cache_control("");
    auth.set_jwks_document(Some(json!({})));
    let reply = jwks().await.unwrap();
    assert_eq!(
        (
            reply.text().as_str(),
            reply.headers.contains_key("cache-control")
        ),
        ("{}", false)
    );
    assert_eq!(auth.counts().jwks, 10, "requests that met a fault count");
    assert_eq!(
        get(auth.addr(), "/.well-known/openid-configuration")
            .await
            .unwrap()
            .status,
        200,
        "others are not touched"
    );
}

#[tokio::test]
async fn a_restart_keeps_port_keys_and_grants() {
    let auth = auth().await;
    let code = log_in(&auth, &web_request()).await;
    let (kid, issuer) = (auth.current_kid(), auth.issuer().to_owned());
    auth.stop().await;
    assert!(get(auth.addr(), "/.well-known/jwks.json").await.is_err());
    auth.restart().await.unwrap();
    assert_eq!((auth.current_kid(), auth.issuer()), (kid, issuer.as_str()));
    assert_eq!(redeem(&auth, &code, VERIFIER).await.status, 200);
}

#[tokio::test]
async fn requests_are_counted_by_endpoint_and_client() {
    let auth = auth().await;
    token(&auth, &machine(&[])).await;
    token(&auth, &machine(&[("client_secret", "again")])).await;
    let wrong = [
        ("grant_type", "client_credentials"),
        ("client_id", "nobody"),
        ("client_secret", "x"),
    ];
    token(&auth, &wrong).await;
    let basic = Request::post("/oauth/token")
        .header(
            "authorization",
            format!("Basic {}", STANDARD.encode("demo%2Dclient:no")),
        )
        .body(Bytes::new())
        .unwrap();
    send(auth.addr(), basic).await.unwrap();
    form(
        auth.addr(),
        "/oauth/revoke",
        &[("client_id", WEB_CLIENT), ("token", "x")],
    )
    .await
    .unwrap();
    let userinfo = Request::get("/userinfo?a=b")
        .header("authorization", format!("Bearer {}", auth.token()))
        .body(Bytes::new())
        .unwrap();
    send(auth.addr(), userinfo).await.unwrap();
    let by = |endpoint, client| auth.requests_by(endpoint, client);
    assert_eq!(by(Endpoint::Token, MACHINE_CLIENT), 2);
    assert_eq!(by(Endpoint::Token, "nobody"), 1);
    assert_eq!(by(Endpoint::Token, WEB_CLIENT), 0);
    assert_eq!(by(Endpoint::Revoke, WEB_CLIENT), 1);
    assert_eq!(by(Endpoint::Userinfo, MACHINE_CLIENT), 1);
    assert_eq!(
        auth.counts().token,
        4,
        "one of them could not be read, and counts"
    );
    assert_eq!(
        auth.last_request(Endpoint::Userinfo).unwrap().target,
        "/userinfo?a=b"
    );
    assert!(auth.last_request(Endpoint::Users).is_none());
}

#[tokio::test]
async fn a_fault_can_end_by_itself_and_a_reply_can_be_lost() {
    let auth = auth().await;
    let down = Fault::Status(503, "text/plain".to_owned(), "away".to_owned());
    auth.set_fault_for(Endpoint::Token, down, 2);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(token(&auth, &machine(&[])).await.status.as_u16());
    }
    assert_eq!(statuses, [503, 503, 200]);
    auth.set_fault_for(Endpoint::Token, Fault::throttled(7), 1);
    let throttled = token(&auth, &machine(&[])).await;
    assert_eq!(
        (throttled.status.as_u16(), throttled.header("retry-after")),
        (429, "7")
    );

    let code = log_in(&auth, &web_request()).await;
    let first = redeem(&auth, &code, VERIFIER).await.json()["refresh_token"]
        .as_str()
        .unwrap()
        .to_owned();
    auth.set_fault_for(Endpoint::Token, Fault::LoseReply, 1);
    let fields = [
        ("grant_type", "refresh_token"),
        ("client_id", WEB_CLIENT),
        ("refresh_token", first.as_str()),
    ];
    assert!(form(auth.addr(), "/oauth/token", &fields).await.is_err());
    assert_eq!(
        refresh(&auth, &first).await.status,
        403,
        "the token was spent, and asking again is reuse"
    );
}

#[test]
fn debug_shows_no_secret() {
    let options = format!("{:?}", AuthOptions::default());
    assert!(
        !options.contains(MACHINE_SECRET) && !options.contains(BACKEND_SECRET),
        "{options}"
    );
    let request = RecordedRequest {
        target: "/canary".to_owned(),
        headers: [(http::header::AUTHORIZATION, "canary".parse().unwrap())]
            .into_iter()
            .collect(),
        body: "canary".into(),
    };
    assert!(!format!("{request:?}").contains("canary"));
}
