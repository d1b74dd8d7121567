//! The Management API.

use super::*;

const JOHN: &str = "auth0|507f1f77bcf86cd799439011";
const JOHN_PATH: &str = "/api/v2/users/auth0%7C507f1f77bcf86cd799439011";

async fn ask(auth: &BonterraAuth, target: &str, token: &str) -> Reply {
    let request = Request::get(target)
        .header("authorization", format!("Bearer {token}"))
        .body(Bytes::new());
    send(auth.addr(), request.unwrap()).await.unwrap()
}

async fn read(auth: &BonterraAuth, target: &str) -> Reply {
    ask(auth, target, &auth.management_token("read:users")).await
}

async fn patch(auth: &BonterraAuth, target: &str, scopes: &str, body: &str) -> Reply {
    let request = Request::patch(target)
        .header(
            "authorization",
            format!("Bearer {}", auth.management_token(scopes)),
        )
        .header("content-type", "application/json")
        .body(Bytes::from(body.to_owned()));
    send(auth.addr(), request.unwrap()).await.unwrap()
}

fn ids(page: &Value) -> Vec<&str> {
    let users = page.as_array().expect("a bare array").iter();
    users
        .map(|user| user["user_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn users_come_in_pages_with_totals_if_asked_for() {
    let auth = auth().await;
    let bare = read(&auth, "/api/v2/users").await;
    assert_eq!(
        (bare.status.as_u16(), bare.header("content-type")),
        (200, "application/json; charset=utf-8")
    );
    assert_eq!(ids(&bare.json()).len(), 25);
    assert_eq!(bare.json()[0], auth.user(JOHN).unwrap());

    let totals = "/api/v2/users?include_totals=true&per_page=100&page=1";
    let page = read(&auth, totals).await.json();
    let names: Vec<_> = page.as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["users", "start", "limit", "length", "total"]);
    assert_eq!(page["users"].as_array().unwrap().len(), 50);
    let numbers = ["start", "limit", "length", "total"].map(|name| page[name].as_u64().unwrap());
    assert_eq!(numbers, [100, 100, 50, 150]);

    let mut all = std::collections::BTreeSet::new();
    for number in 0..4 {
        let target = format!("/api/v2/users?per_page=40&page={number}");
        let page = read(&auth, &target).await.json();
        all.extend(ids(&page).into_iter().map(str::to_owned));
    }
    assert_eq!(all.len(), 150, "no user twice, none left out");
    let beyond = read(&auth, "/api/v2/users?per_page=40&page=4").await.json();
    assert_eq!(beyond, json!([]));
    assert_eq!(auth.counts().users, 7);
}

#[tokio::test]
async fn paging_ends_after_a_thousand() {
    let auth = BonterraAuth::start(AuthOptions {
        directory_size: 1200,
        ..AuthOptions::default()
    })
    .await
    .unwrap();
    let target =
        |size, page| format!("/api/v2/users?include_totals=true&per_page={size}&page={page}");
    let last = read(&auth, &target(100, 9)).await.json();
    assert_eq!(
        (&last["length"], &last["total"]),
        (&json!(100), &json!(1200))
    );
    for (size, page) in [(100, 10), (30, 33), (1, 1000)] {
        let beyond = read(&auth, &target(size, page)).await;
        assert_eq!(beyond.status, 400, "{size} {page}");
        assert_eq!(beyond.json()["errorCode"], "invalid_paging");
    }
    assert_eq!(read(&auth, &target(30, 32)).await.status, 200);
    let wrong = [
        "per_page=0",
        "per_page=101",
        "per_page=x",
        "page=-1",
        "include_total=true",
    ];
    for query in wrong {
        let refused = read(&auth, &format!("/api/v2/users?{query}")).await;
        assert_eq!(refused.status, 400, "{query}");
        assert_eq!(
            refused.json()["errorCode"],
            "invalid_query_string",
            "{query}"
        );
    }
}

#[tokio::test]
async fn users_are_found_by_what_is_known_of_them() {
    let auth = auth().await;
    let cases = [
        (r#"email:"user@example.com""#, Some(1)),
        ("email:USER@example.com", Some(1)),
        ("person7@example.com", Some(1)),
        ("email:person1*", Some(60)),
        ("email:person1* AND NOT email:person10*", Some(49)),
        ("email:person7@example.com -email:person*", Some(3)),
        (r#"given_name:John OR name:"Grace Roe""#, Some(2)),
        (r#"given_name:John AND name:"Grace Roe""#, Some(0)),
        (
            "app_metadata.is_bonterra_grants:true AND NOT user_metadata.newsletter:*",
            Some(1),
        ),
        ("_exists_:user_metadata.newsletter", Some(148)),
        ("nickname:*", Some(0)),
        (r#"email:"user@example.com"#, None),
        ("(email:a OR email:b)", None),
        ("created_at:[2024-01-01 TO *]", None),
        ("email:a AND", None),
        ("OR email:a", None),
        ("email:", None),
    ];
    for (search, found) in cases {
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("q", search)
            .append_pair("include_totals", "true")
            .finish();
        let reply = read(&auth, &format!("/api/v2/users?{query}")).await;
        match found {
            Some(found) => assert_eq!(reply.json()["total"], found, "{search}"),
            None => assert_eq!(reply.json()["errorCode"], "invalid_query", "{search}"),
        }
    }
}

#[tokio::test]
async fn one_user_by_an_id_that_is_encoded_once() {
    let auth = auth().await;
    let reply = read(&auth, JOHN_PATH).await;
    let user = reply.json();
    let names: Vec<_> = user.as_object().unwrap().keys().cloned().collect();
    assert_eq!(
        names,
        [
            "user_id",
            "email",
            "email_verified",
            "name",
            "given_name",
            "family_name",
            "picture",
            "created_at",
            "updated_at",
            "app_metadata",
            "user_metadata"
        ]
    );
    assert_eq!(user["user_id"], JOHN);
    assert_eq!(user["created_at"], "2024-01-01T12:00:00.000Z");
    assert_eq!(user["updated_at"], "2024-01-15T10:30:00.000Z");
    assert_eq!(user["app_metadata"]["is_bonterra_grants"], true);

    let unknown = read(&auth, "/api/v2/users/auth0%7Cnobody").await;
    assert_eq!(unknown.status, 404);
    assert_eq!(
        unknown.text(),
        r#"{"statusCode":404,"error":"Not Found","message":"The user does not exist.","errorCode":"inexistent_user"}"#
    );
    let twice = read(&auth, "/api/v2/users/auth0%257C507f1f77bcf86cd799439011").await;
    assert_eq!(
        (twice.status.as_u16(), twice.json()["errorCode"].clone()),
        (400, json!("invalid_uri"))
    );
    let target = auth.last_request(Endpoint::User).unwrap().target;
    assert_eq!(target, "/api/v2/users/auth0%257C507f1f77bcf86cd799439011");
    assert_eq!(read(&auth, "/api/v2/users/a/b").await.status, 404);
    assert_eq!(auth.counts().user, 3, "a path below a user is no user");
}

#[tokio::test]
async fn only_a_management_token_with_the_scope_opens() {
    let auth = auth().await;
    let stranger = super::auth().await;
    let body = |status: u16, error: &str, message: &str| json!({ "statusCode": status, "error": error, "message": message });
    let bare = get(auth.addr(), "/api/v2/users").await.unwrap();
    let missing = body(401, "Unauthorized", "Missing authentication");
    assert_eq!((bare.status.as_u16(), bare.json()), (401, missing));
    let mut expired = auth.claims();
    expired["aud"] = auth.management_audience().into();
    expired["scope"] = "read:users".into();
    expired["exp"] = json!(1);
    let invalid = [
        auth.mint(&expired),
        stranger.management_token("read:users"),
        "nonsense".to_owned(),
    ];
    for token in &invalid {
        let refused = ask(&auth, "/api/v2/users", token).await;
        let expected = body(401, "Unauthorized", "Invalid token");
        assert_eq!((refused.status.as_u16(), refused.json()), (401, expected));
    }
    let callers = ask(&auth, "/api/v2/users", &auth.token()).await;
    let expected = body(401, "Unauthorized", &format!("Bad audience: {AUDIENCE}"));
    assert_eq!((callers.status.as_u16(), callers.json()), (401, expected));

    let update = auth.management_token("update:users");
    for target in ["/api/v2/users", JOHN_PATH] {
        let refused = ask(&auth, target, &update).await;
        assert_eq!(refused.status, 403);
        assert_eq!(
            refused.text(),
            r#"{"statusCode":403,"error":"Forbidden","message":"Insufficient scope, expected any of: read:users","errorCode":"insufficient_scope"}"#
        );
    }
    let refused = patch(&auth, JOHN_PATH, "read:users", r#"{"name":"X"}"#).await;
    assert_eq!(refused.status, 403);
    assert_eq!(auth.user(JOHN).unwrap()["name"], "John Doe");
}

#[tokio::test]
async fn management_tokens_are_for_clients_that_were_granted_it() {
    let auth = auth().await;
    let audience = auth.management_audience();
    let asked = [
        ("grant_type", "client_credentials"),
        ("client_id", MANAGEMENT_CLIENT),
        ("client_secret", MANAGEMENT_SECRET),
        ("audience", audience.as_str()),
        ("scope", "read:users"),
    ];
    let reply = token(&auth, &asked).await.json();
    let access = reply["access_token"].as_str().unwrap();
    assert_eq!(
        verify(&auth, access, &audience).unwrap()["scope"],
        "read:users"
    );
    assert_eq!(ask(&auth, "/api/v2/users", access).await.status, 200);
    assert_eq!(auth.requests_by(Endpoint::Users, MANAGEMENT_CLIENT), 1);

    let ungranted = token(&auth, &machine(&[("audience", &audience)])).await;
    assert_eq!(
        (ungranted.status.as_u16(), ungranted.json()["error"].clone()),
        (403, json!("access_denied"))
    );
}

#[tokio::test]
async fn documented_fields_change_and_tokens_follow() {
    let auth = auth().await;
    let both = "update:users update:users_app_metadata";
    let change = json!({
        "name": "John Updated Doe",
        "given_name": "Johnny",
        "app_metadata": { "is_bonterra_grants": false, "tier": 2 },
        "user_metadata": { "theme": "dark" },
    });
    let reply = patch(&auth, JOHN_PATH, both, &change.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let user = reply.json();
    assert_eq!(user, auth.user(JOHN).unwrap());
    assert_eq!(
        (&user["name"], &user["given_name"], &user["family_name"]),
        (&json!("John Updated Doe"), &json!("Johnny"), &json!("Doe"))
    );
    assert_eq!(
        user["app_metadata"],
        json!({ "bonterra_auth_id": "a1b2c3d4-e5f6-4890-abcd-ef1234567890", "is_bonterra_grants": false, "tier": 2 })
    );
    assert_ne!(user["updated_at"], "2024-01-15T10:30:00.000Z");
    let change = r#"{"app_metadata":{"tier":null},"user_metadata":{"theme":"light"}}"#;
    let merged = patch(&auth, JOHN_PATH, "update:users_app_metadata", change)
        .await
        .json();
    assert!(merged["app_metadata"].get("tier").is_none());
    assert_eq!(merged["user_metadata"], json!({ "theme": "light" }));
    let moved = patch(&auth, JOHN_PATH, both, r#"{"email":"john@example.org"}"#).await;
    assert_eq!(moved.json()["email_verified"], false);

    let mut request = web_request();
    request.retain(|(name, _)| *name != "state");
    request.push(("state", "a&b"));
    let page = get(auth.addr(), &authorize_target(&request)).await.unwrap();
    let handle = login_handle(&page.text());
    let fields = [
        ("login", handle.as_str()),
        ("email", "john@example.org"),
        ("password", "demo"),
    ];
    let landed = landed(&form(auth.addr(), "/login", &fields).await.unwrap());
    let tokens = redeem(&auth, &field(&landed, "code"), VERIFIER)
        .await
        .json();
    let access = tokens["access_token"].as_str().unwrap();
    let claims = verify(&auth, access, AUDIENCE).unwrap();
    assert_eq!(claims["urn:bonterra:claims:is_bonterra_grants"], false);
    let told = ask(&auth, "/userinfo", access).await.json();
    assert_eq!(
        (&told["name"], &told["email"]),
        (&json!("John Updated Doe"), &json!("john@example.org"))
    );
}

#[tokio::test]
async fn other_changes_are_refused_whole() {
    let auth = auth().await;
    let before = auth.user(JOHN).unwrap();
    let cases = [
        (
            r#"{"name":"X","nickname":"Y"}"#,
            "'Additional properties not allowed: nickname'.",
        ),
        (
            r#"{"name":"X","user_id":"Y"}"#,
            "'Additional properties not allowed: user_id'.",
        ),
        ("{}", "'Too few properties defined (0), minimum 1'."),
        (
            r#"{"name":7}"#,
            "'Expected type string but found type number' on property name.",
        ),
        (
            r#"{"name":null}"#,
            "'Expected type string but found type null' on property name.",
        ),
        (
            r#"{"name":""}"#,
            "'String is not between 1 and 300 characters long' on property name.",
        ),
        (
            r#"{"app_metadata":[]}"#,
            "'Expected type object but found type array' on property app_metadata.",
        ),
        (
            r#"{"name":"X","email":"Y"}"#,
            "'Object didn't pass validation for format email' on property email.",
        ),
    ];
    for (body, error) in cases {
        let refused = patch(&auth, JOHN_PATH, "update:users", body).await;
        let expected = json!({
            "statusCode": 400,
            "error": "Bad Request",
            "message": format!("Payload validation error: {error}"),
            "errorCode": "invalid_body",
        });
        assert_eq!(
            (refused.status.as_u16(), refused.json()),
            (400, expected),
            "{body}"
        );
    }
    for body in ["", "[]", "{"] {
        let refused = patch(&auth, JOHN_PATH, "update:users", body).await;
        assert_eq!(refused.status, 400, "{body}");
    }
    let scope = "update:users_app_metadata";
    let refused = patch(&auth, JOHN_PATH, scope, r#"{"name":"X"}"#).await;
    assert_eq!(
        refused.json()["message"],
        "Insufficient scope, expected any of: update:users"
    );
    assert_eq!(auth.user(JOHN).unwrap(), before);
    let unknown = patch(
        &auth,
        "/api/v2/users/auth0%7Cno",
        "update:users",
        r#"{"name":"X"}"#,
    )
    .await;
    assert_eq!(unknown.status, 404);
}
