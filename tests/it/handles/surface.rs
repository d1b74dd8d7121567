//! The token endpoint and userinfo of such a surface, and what is a mistake in its settings.

use super::*;
use crate::harness::{eventually, with_lines};
use bonterra_gateway::demo::auth::{Endpoint, Fault, KeyChoice};
use serde_json::json;

#[tokio::test]
async fn clients_get_what_the_document_says_and_nothing_of_the_issuers() {
    let world = world().await;
    let gateway = world.gateway.address;
    let post = || world.post(TOKEN);
    let basic = basic("demo-client", "demo-secret");
    let grant = [MACHINE[0]];
    for asked in [
        post().form(&MACHINE),
        post().json(&MACHINE.into_iter().collect()),
        post().header("authorization", &basic).form(&grant),
        post().header("dpop", "proof").form(&MACHINE),
    ] {
        let handles = Handles::of(&asked.send().await);
        assert_eq!(handles.refresh, None);
        assert!((86_390..=86_400).contains(&handles.expires_in));
        assert_good(gateway, &handles.access).await;
    }
    let one = user(&world, gateway).await;
    let other = user(&world, gateway).await;
    assert_ne!(one.access, other.access);
    assert!(one.refresh.is_some());
    assert_ne!(one.refresh, other.refresh);
    assert_good(gateway, &one.access).await;
    assert_log_is_clean(&world.gateway);
}

#[tokio::test]
async fn errors_of_the_issuer_pass_and_leave_nothing() {
    let world = world().await;
    let wrong = [MACHINE[0], MACHINE[1], ("client_secret", "wrong")];
    let reply = world.post(TOKEN).form(&wrong).send().await;
    assert_error(&reply, 401, "access_denied");
    world
        .auth
        .set_fault(Endpoint::Token, Some(Fault::throttled(7)));
    let reply = world.post(TOKEN).form(&MACHINE).send().await;
    assert_eq!(
        (reply.status, reply.header("retry-after")),
        (429, Some("7"))
    );
    for body in [
        json!({ "access_token": "eyJ.e.s", "token_type": "DPoP", "expires_in": 60 }),
        json!({ "access_token": "eyJ.e.s", "token_type": "Bearer" }),
        json!({ "access_token": "eyJ e", "token_type": "Bearer", "expires_in": 60 }),
    ] {
        let fault = Fault::Status(200, "application/json".to_owned(), body.to_string());
        world.auth.set_fault(Endpoint::Token, Some(fault));
        let reply = world.post(TOKEN).form(&MACHINE).send().await;
        assert_error(&reply, 502, "server_error");
    }
    world
        .auth
        .set_fault(Endpoint::Token, Some(Fault::CutAfterRequest));
    let before = world.auth.counts().token;
    let reply = world.post(TOKEN).form(&MACHINE).send().await;
    assert_error(&reply, 502, "temporarily_unavailable");
    assert_eq!(world.auth.counts().token, before + 1, "sent once");
}

#[tokio::test]
async fn each_surface_keeps_to_its_own() {
    let second = SURFACE
        .replace("internal", "second")
        .replace("oauth20", "second");
    let world = World::with(&format!("{}{second}", config())).await;
    let gateway = world.gateway.address;
    let own = user(&world, gateway).await;
    // The one that forwards gives tokens, as ever, and they are good on the same routes.
    let reply = world.post("/oauth/token").form(&MACHINE).send().await;
    let token = reply.json()["access_token"]
        .as_str()
        .expect("a token")
        .to_owned();
    assert!(token.starts_with("eyJ"));
    assert_good(gateway, &token).await;
    assert_good(gateway, &own.access).await;
    let asked = world.auth.counts().token;
    let refresh = |path: &str| {
        world.post(path).form(&[
            ("grant_type", "refresh_token"),
            ("client_id", WEB_CLIENT),
            ("refresh_token", own.refresh()),
        ])
    };
    // Neither another such surface nor the issuer learns a handle.
    for path in ["/second/token", "/oauth/token"] {
        let reply = refresh(path).send().await;
        assert_error(&reply, 400, "invalid_grant");
        assert_eq!(world.auth.counts().token, asked, "{path}");
    }
    for path in ["/second/userinfo", "/oauth/userinfo"] {
        let reply = world.get(path).bearer(&own.access).send().await;
        assert_error(&reply, 401, "invalid_token");
    }
    assert_eq!(world.auth.counts().userinfo, 0);
    Handles::of(&refresh(TOKEN).send().await);
}

#[tokio::test]
async fn userinfo_asks_with_the_token_inside() {
    let world = world().await;
    let handles = user(&world, world.gateway.address).await;
    let reply = world
        .get("/oauth20/userinfo")
        .bearer(&handles.access)
        .send()
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["sub"], "auth0|507f1f77bcf86cd799439011");
    let asked = world.auth.last_request(Endpoint::Userinfo).expect("asked");
    assert!(
        asked
            .header("authorization")
            .expect("a token")
            .starts_with("Bearer eyJ")
    );
    let made_up = format!("{}A", &handles.access[..81]);
    for wrong in [handles.refresh(), "bgw_at_x", &made_up] {
        let reply = world.get("/oauth20/userinfo").bearer(wrong).send().await;
        assert_error(&reply, 401, "invalid_token");
        let challenge = reply.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Bearer ") && challenge.contains("invalid_token"));
    }
    assert_eq!(world.auth.counts().userinfo, 1);
}

#[tokio::test]
async fn a_reused_token_has_handles_of_its_own_for_each_who_asks() {
    let config = format!("{}\n[oauth.internal.cache]\nenabled = true\n", config());
    let world = World::with(&config).await;
    let gateway = world.gateway.address;
    let (one, other) = (machine(gateway).await, machine(gateway).await);
    assert_ne!(one.access, other.access);
    assert_eq!(world.auth.counts().token, 1);
    for handles in [&one, &other] {
        assert_good(gateway, &handles.access).await;
    }
}

#[tokio::test]
async fn a_full_store_gives_out_no_more_and_drops_nothing() {
    let world = World::of(living(1000), &config_with("max_entries = 2")).await;
    let gateway = world.gateway.address;
    let kept = [machine(gateway).await, machine(gateway).await];
    let asked = world.auth.counts().token;
    let reply = world.post(TOKEN).form(&MACHINE).send().await;
    assert_error(&reply, 503, "temporarily_unavailable");
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(
        world.auth.counts().token,
        asked,
        "nothing is bought in vain"
    );
    for handles in &kept {
        assert_good(gateway, &handles.access).await;
    }
    // Room again, once those have ended.
    advance(&world.gateway.app, 2000);
    machine(gateway).await;
}

#[tokio::test]
async fn handles_outlive_a_reload_and_not_their_mode_or_issuer() {
    let world = world().await;
    let gateway = world.gateway.address;
    let handles = user(&world, gateway).await;
    let file = std::fs::read_to_string(world.gateway.file()).expect("the file");
    let reload = async |config: &str| {
        std::fs::write(world.gateway.file(), config).expect("written");
        let reply = world.gateway.admin("POST", "/-/reload").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
    };
    reload(&format!(
        "{file}\n[oauth.internal.handles]\nmax_entries = 7\n"
    ))
    .await;
    assert_good(gateway, &handles.access).await;
    let next = Handles::of(&refreshing(gateway, handles.refresh()).send().await);
    assert_good(gateway, &next.access).await;
    // A surface that gives out tokens knows no handles, and no upstream sees one.
    let before = world.echo.seen().len();
    reload(&file.replace("\"opaque\"", "\"forward\"")).await;
    let reply = call(gateway, &next.access).await;
    assert_eq!((reply.status, world.echo.seen().len()), (401, before));
    let reply = refreshing(gateway, next.refresh()).send().await;
    assert_error(&reply, 400, "invalid_grant");
}

#[tokio::test]
async fn settings_that_mean_nothing_are_mistakes() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let store = |key: &str| {
        let lines = format!("\n[store]\nurl = \"redis://127.0.0.1:1\"\n{key}\n");
        format!("{}{lines}", config())
    };
    let short = file("short", "AAECAwQFBgcICQoLDA0ODw==\n");
    let text = file("text", "CANARY-no-key-at-all");
    let key = |path: &str| store(&format!("encryption_key_file = \"{path}\""));
    for (config, expected) in [
        (store(""), "encryption_key_file"),
        (key(&short), "16 bytes"),
        (key(&text), "not base64"),
        (key("/nowhere"), "cannot be read"),
        (
            config_with("max_entries = 0"),
            "no handle could be given out",
        ),
        (
            config_with("refresh_lifetime = \"0s\""),
            "for a second at least",
        ),
        (
            config_with("lifetime = \"1h\"").replace(
                "tokens = \"opaque\"",
                "tokens = \"opaque\"\ngrants = [\"client_credentials\"]",
            ),
            "which no grant of this surface gives",
        ),
        (
            config_with("lifetime = \"1h\"").replace("tokens = \"opaque\"", ""),
            "get tokens and no handles",
        ),
        (
            config().replace("\"opaque\"", "\"handles\""),
            "not a possible value",
        ),
    ] {
        let config = config.replace("ISSUER", "http://127.0.0.1:1/");
        let path = file(
            "gateway.toml",
            &config.replace("ECHO", "http://127.0.0.1:2"),
        );
        let path = std::path::Path::new(&path);
        let parsed = bonterra_gateway::config::load(path);
        let env = bonterra_gateway::app::environment().expect("metrics");
        let errors = parsed
            .and_then(|parsed| bonterra_gateway::snapshot::compile(parsed, &env))
            .err()
            .unwrap_or_else(|| panic!("no mistake: {expected}"))
            .to_string();
        assert!(errors.contains(expected), "{expected}: {errors}");
        assert!(!errors.contains("CANARY"), "{errors}");
    }
    // A key without such a surface is no mistake.
    let fine = with_lines(&config(), "[oauth.internal]", "").replace("\"opaque\"", "\"forward\"");
    let good = file("good", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n");
    let fine = format!(
        "{fine}\n[store]\nurl = \"redis://127.0.0.1:1\"\nencryption_key_file = \"{good}\"\n"
    );
    let fine = fine.replace("ISSUER", "http://127.0.0.1:1/");
    Gateway::start(&fine.replace("ECHO", "http://127.0.0.1:2")).await;
}

/// Keys follow the token that is inside: it is the issuer's own, and no stranger's.
#[tokio::test]
async fn the_token_inside_brings_its_key_along() {
    let options = AuthOptions {
        jwks_cache_control: "max-age=3600".to_owned(),
        ..AuthOptions::default()
    };
    let patient = config().replace("cooldown = \"1s\"", "cooldown = \"1h\"");
    let world = World::of(options, &patient).await;
    let gateway = world.gateway.address;
    // Strangers have used up their fetch of this hour.
    let (header, claims) = (json!({"kid": "nobody's"}), world.auth.claims());
    let strange = world.auth.mint_with(&header, &claims, &KeyChoice::Current);
    assert_reason(gateway, &strange, 401, "unknown_key").await;
    let before = world.auth.counts().jwks;
    world.auth.rotate();
    world.auth.rotate();
    let handles = machine(gateway).await;
    eventually("the keys are fetched", async || {
        world.auth.counts().jwks == before + 1
    })
    .await;
    eventually("the handle is good", async || {
        call(gateway, &handles.access).await.status == 200
    })
    .await;
}

#[tokio::test]
async fn times_that_make_no_sense_cost_nobody_anything() {
    let world = world().await;
    for exp in [i64::MIN, -1, i64::MAX] {
        let claims = URL_SAFE_NO_PAD.encode(json!({ "exp": exp }).to_string());
        let token = format!("eyJ.{claims}.x");
        let body = json!({ "access_token": token, "token_type": "Bearer" });
        let fault = Fault::Status(200, "application/json".to_owned(), body.to_string());
        world.auth.set_fault_for(Endpoint::Token, fault, 1);
        let handles = machine(world.gateway.address).await;
        assert!(handles.expires_in >= 0);
    }
}
