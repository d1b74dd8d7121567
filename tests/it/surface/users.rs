//! What browsers and pages ask of a surface: to log in, and who a user is.

use super::{assert_not_stored, ended};
use crate::harness::{CONFIG, Gateway, Reply, World, nobody, request, with_lines};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::demo::auth::{Endpoint, Fault, REDIRECT_URI};
use serde_json::json;

const ISSUER: &str = "[issuer.bonterra]";

fn query(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

fn code_request() -> String {
    query(&[
        ("response_type", "code"),
        ("client_id", "demo-backend"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid profile email"),
        ("state", "canary-state"),
        ("audience", "https://api.bonterra.network"),
        ("nonce", "canary-nonce"),
    ])
}

fn assert_refused_here(reply: &Reply, error: &str, case: &str) {
    assert_eq!(reply.status, 400, "{case}: {}", reply.text());
    assert_eq!(reply.json()["error"], error, "{case}");
    assert_eq!(reply.header("location"), None, "{case}");
    assert_not_stored(reply);
}

// === authorize ===

#[tokio::test]
async fn a_browser_is_sent_on_with_its_query_as_it_is() {
    let world = World::start().await;
    let query = format!("{}&x=a%2Bb+c%20%e2%82%ac&y", code_request());
    for method in ["GET", "HEAD"] {
        let path = format!("/oauth/authorize?{query}");
        let reply = request(world.gateway.address, method, &path).send().await;
        assert_eq!(reply.status, 302, "{}", reply.text());
        let expected = format!("{}authorize?{query}", world.auth.issuer());
        assert_eq!(reply.header("location"), Some(expected.as_str()));
        assert_not_stored(&reply);
        assert!(reply.body.is_empty());
        let id = reply.header("x-request-id").expect("an id");
        let record = world.gateway.log.record(id).await;
        assert_eq!(
            (&record["route"], &record["path"], &record["status"]),
            (
                &json!("oauth.bonterra"),
                &json!("/oauth/authorize"),
                &json!(302)
            )
        );
        assert!(!record.to_string().contains("canary"), "{record}");
    }
    assert_eq!(world.auth.counts().authorize, 0, "the browser asks it");
    assert_eq!(ended(&world.gateway, "authorize", "redirected").await, 2.0);
}

#[tokio::test]
async fn a_user_logs_in_through_the_gateway_alone() {
    let world = World::start().await;
    let verifier = "a-verifier-of-forty-three-characters-or-more-";
    let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()));
    let query = query(&[
        ("response_type", "code"),
        ("client_id", "demo-web"),
        ("redirect_uri", REDIRECT_URI),
        ("scope", "openid profile email"),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ]);
    let sent_on = world.get(&format!("/oauth/authorize?{query}")).send().await;
    let location = sent_on.header("location").expect("a location");
    let target = location.strip_prefix(world.auth.issuer()).expect("issuer");
    let page = request(world.auth.addr(), "GET", &format!("/{target}"));
    let page = page.send().await.text();
    let (_, handle) = page.split_once("name=\"login\" value=\"").expect("a form");
    let (handle, _) = handle.split_once('"').expect("its handle");
    let login = [
        ("login", handle),
        ("email", "user@example.com"),
        ("password", "demo"),
    ];
    let back = request(world.auth.addr(), "POST", "/login").form(&login);
    let back = back.send().await;
    let location = back.header("location").expect("back to the client");
    let (_, fields) = location.split_once('?').expect("a query");
    let code = form_urlencoded::parse(fields.as_bytes()).find(|(name, _)| name == "code");
    let (_, code) = code.expect("a code");
    let tokens = world.post("/oauth/token").form(&[
        ("grant_type", "authorization_code"),
        ("client_id", "demo-web"),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", verifier),
    ]);
    let tokens = tokens.send().await;
    assert_eq!(tokens.status, 200, "{}", tokens.text());
    let tokens = tokens.json();
    let token = tokens["access_token"].as_str().expect("a token");
    let user = world.get("/oauth/userinfo").bearer(token).send().await;
    assert_eq!(user.status, 200, "{}", user.text());
    assert_eq!(user.json()["email"], "user@example.com");
    let own = request(world.auth.addr(), "GET", "/userinfo").bearer(token);
    assert_eq!(user.body, own.send().await.body);
    assert_not_stored(&user);
    assert_eq!(ended(&world.gateway, "userinfo", "answered").await, 1.0);
}

#[tokio::test]
async fn mistakes_are_told_here_and_by_no_redirect() {
    let world = World::start().await;
    let good = code_request();
    let with = |more: &str| format!("{good}&{more}");
    let changed = |name: &str, value: &str| {
        let pairs = form_urlencoded::parse(good.as_bytes());
        let pairs = pairs.map(|(own, given)| {
            let given = if own == name { value.into() } else { given };
            (own, given)
        });
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
    };
    let rows = [
        (String::new(), "invalid_request"),
        (changed("client_id", ""), "invalid_request"),
        (changed("response_type", ""), "invalid_request"),
        (changed("redirect_uri", ""), "invalid_request"),
        (changed("redirect_uri", "/relative"), "invalid_request"),
        (changed("redirect_uri", "https://a/#f"), "invalid_request"),
        (with("state=other"), "invalid_request"),
        (with("client_id=demo-backend"), "invalid_request"),
        (
            with("redirect%5furi=https://evil.example/"),
            "invalid_request",
        ),
        (with("x=1&x=2"), "invalid_request"),
        (with("x=%zz"), "invalid_request"),
        (
            changed("response_type", "token"),
            "unsupported_response_type",
        ),
        (
            changed("response_type", "code token"),
            "unsupported_response_type",
        ),
        (changed("response_type", "x"), "unsupported_response_type"),
    ];
    for (query, error) in &rows {
        let reply = world.get(&format!("/oauth/authorize?{query}")).send().await;
        assert_refused_here(&reply, error, query);
        assert!(!reply.text().contains("canary"), "{}", reply.text());
    }
    assert_refused_here(
        &world.get("/oauth/authorize").send().await,
        "invalid_request",
        "no query",
    );
    let outcomes = (
        ended(&world.gateway, "authorize", "invalid_request").await,
        ended(&world.gateway, "authorize", "unsupported_response_type").await,
    );
    assert_eq!(outcomes, (12.0, 3.0));
    assert_eq!(world.auth.counts().authorize, 0);
}

#[tokio::test]
async fn endpoints_are_where_the_file_puts_them() {
    let elsewhere = "authorization_endpoint = \"https://login.example/authorize?tenant=1\"\nuserinfo_endpoint = \"ECHO/who\"";
    let config = with_lines(CONFIG, ISSUER, elsewhere);
    let surface = "prefix = \"/v1/oauth\"\npaths = { authorize = \"/login\", userinfo = \"/me\" }\ngrants = [\"client_credentials\"]";
    let world = World::with(&with_lines(&config, "[oauth.bonterra]", surface)).await;
    let query = code_request().replace("response_type=code", "response_type=id_token");
    let reply = world.get(&format!("/login?{query}")).send().await;
    let expected = format!("https://login.example/authorize?tenant=1&{query}");
    assert_eq!(reply.header("location"), Some(expected.as_str()));
    for gone in ["/v1/oauth/authorize", "/v1/oauth/userinfo"] {
        let reply = world.get(&format!("{gone}?{query}")).send().await;
        assert_eq!(reply.status, 404, "{gone}");
    }
    // A code could not be redeemed here.
    let reply = world
        .get(&format!("/login?{}", code_request()))
        .send()
        .await;
    assert_refused_here(&reply, "unsupported_response_type", "no code grant");

    // What goes to the userinfo endpoint is the token, and nothing that a client could add.
    let reply = world
        .get("/me?claims=1")
        .header("authorization", "bearer  tok.en")
        .header("cookie", "c=1")
        .header("auth0-forwarded-for", "203.0.113.7")
        .header("x-bonterra-auth-id", "forged")
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.upstream_saw("authorization"), ["Bearer tok.en"]);
    for name in ["cookie", "auth0-forwarded-for", "x-bonterra-auth-id"] {
        assert!(reply.upstream_saw(name).is_empty(), "{name}");
    }
    let seen = world.echo.seen();
    let seen: Vec<_> = seen.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(seen, ["/who"]);
}

// === userinfo ===

#[tokio::test]
async fn without_one_good_looking_token_the_issuer_is_not_asked() {
    let world = World::start().await;
    let rows: [(&str, &[&str], u16); 7] = [
        ("/oauth/userinfo", &[], 401),
        ("/oauth/userinfo?access_token=canary", &[], 401),
        ("/oauth/userinfo", &["Basic Y2FuYXJ5OmNhbmFyeQ=="], 401),
        ("/oauth/userinfo", &["Bearer"], 401),
        ("/oauth/userinfo", &["Bearer canary canary"], 401),
        ("/oauth/userinfo", &["Bearer canary", "Bearer b"], 400),
        (
            "/oauth/userinfo?access_token=canary",
            &["Bearer canary"],
            400,
        ),
    ];
    for (path, authorization, status) in rows {
        let mut request = world.get(path);
        for value in authorization {
            request = request.header("authorization", value);
        }
        let reply = request.send().await;
        assert_eq!(reply.status, status, "{path} {authorization:?}");
        let challenge = (status == 401).then_some("Bearer realm=\"bonterra\"");
        assert_eq!(reply.header("www-authenticate"), challenge);
        assert!(!reply.text().contains("canary"), "{}", reply.text());
        assert_not_stored(&reply);
    }
    assert_eq!(world.auth.counts().userinfo, 0);
    assert_eq!(
        ended(&world.gateway, "userinfo", "missing_token").await,
        5.0
    );
}

#[tokio::test]
async fn what_the_issuer_says_of_a_user_passes() {
    let world = World::start().await;
    // A machine's token: no user, no `openid`.
    let reply = world.authorized("/oauth/userinfo").send().await;
    assert_eq!(reply.status, 401, "{}", reply.text());
    let expected = json!({
        "error": "invalid_token",
        "error_description": "The access token is invalid or has expired",
    });
    assert_eq!(reply.json(), expected);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer error=\"invalid_token\"")
    );
    assert_not_stored(&reply);
    let ask = || async { world.authorized("/oauth/userinfo").send().await };
    let fault = |fault| world.auth.set_fault(Endpoint::Userinfo, Some(fault));

    let quota = ("x-ratelimit-remaining".to_owned(), "0".to_owned());
    let retry = ("retry-after".to_owned(), "9".to_owned());
    let cookie = ("set-cookie".to_owned(), "did=1".to_owned());
    let headers = vec![quota, retry, cookie];
    fault(Fault::Reply(429, headers, "slow down".into()));
    let reply = ask().await;
    assert_eq!((reply.status, reply.text().as_str()), (429, "slow down"));
    assert_eq!(reply.header("x-ratelimit-remaining"), Some("0"));
    assert_eq!(reply.header("retry-after"), Some("9"));
    assert_eq!(reply.header("set-cookie"), None);

    for (failure, status, outcome) in [
        (Fault::Garbage, 502, "issuer_bad_reply"),
        (Fault::EmptyOk, 502, "issuer_bad_reply"),
        (
            Fault::redirect("https://evil.example/"),
            502,
            "issuer_bad_reply",
        ),
        (Fault::Endless, 502, "issuer_bad_reply"),
        (Fault::CutAfterRequest, 502, "issuer_cut"),
    ] {
        let name = format!("{failure:?}");
        fault(failure);
        let before = ended(&world.gateway, "userinfo", outcome).await;
        let reply = ask().await;
        assert_eq!(reply.status, status, "{name}: {}", reply.text());
        assert_eq!(reply.header("location"), None, "{name}");
        assert_not_stored(&reply);
        let after = ended(&world.gateway, "userinfo", outcome).await;
        assert_eq!(after, before + 1.0, "{name}");
    }
}

#[tokio::test]
async fn errors_of_these_endpoints_come_in_the_surfaces_format() {
    let config = with_lines(CONFIG, "[oauth.bonterra]", "errors = \"envelope\"");
    let world = World::with(&config).await;
    let rows = [
        (
            world.get("/oauth/authorize").send().await,
            400,
            "invalid_request: client_id is missing or empty",
        ),
        (
            world.get("/oauth/userinfo").send().await,
            401,
            "invalid_token: send the access token in the header Authorization: Bearer",
        ),
        (
            world.authorized("/oauth/userinfo").send().await,
            401,
            "invalid_token: The access token is invalid or has expired",
        ),
        (
            world.post("/oauth/.well-known/jwks.json").send().await,
            405,
            "invalid_request: use GET",
        ),
    ];
    for (reply, status, message) in rows {
        assert_eq!(reply.status, status, "{message}");
        let error = json!({ "httpcode": status, "message": message });
        assert_eq!(reply.json(), json!({ "meta": {}, "errors": [error] }));
        assert_eq!(reply.header("www-authenticate").is_some(), status == 401);
    }
}

#[tokio::test]
async fn before_the_issuer_is_known() {
    let config = CONFIG
        .replace("ISSUER", &format!("http://{}/", nobody()))
        .replace("ECHO", "http://127.0.0.1:9");
    let gateway = Gateway::start(&config).await;
    let authorize = format!("/oauth/authorize?{}", code_request());
    for path in [authorize.as_str(), "/oauth/userinfo"] {
        let reply = request(gateway.address, "GET", path)
            .bearer("t")
            .send()
            .await;
        assert_eq!(reply.status, 503, "{path}");
        assert_eq!(reply.header("retry-after"), Some("5"), "{path}");
        assert_eq!(reply.header("location"), None, "{path}");
    }
}
