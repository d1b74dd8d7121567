//! `token inspect`: what a token says, believed by nobody.

use super::explain::piped;
use crate::harness::program::call;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use serde_json::json;

fn unsigned(header: &str, payload: &str) -> String {
    let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
    format!("{header}.{payload}.c2ln")
}

#[tokio::test]
async fn a_token_is_shown_and_not_believed() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let token = auth.token();
    let signature = token.rsplit('.').next().expect("a signature");
    let asked = call("/".as_ref(), &["token", "inspect", &token]).await;
    for said in [
        asked,
        piped(&["token", "inspect", "-"], &format!("{token}\n")).await,
        piped(&["token", "inspect"], &token).await,
        piped(&["token", "inspect"], &format!("Bearer {token}\n")).await,
    ] {
        assert_eq!(said.code, Some(0), "{}", said.stderr);
        assert_eq!(said.stderr, "", "no terminal, no prompt");
        assert!(
            said.stdout.starts_with("NOTHING OF THIS WAS VERIFIED"),
            "{}",
            said.stdout
        );
        for part in [
            "alg  \"RS256\"",
            auth.issuer(),
            " UTC, in ",
            "left",
            "strict",
        ] {
            assert!(
                said.stdout.contains(part),
                "no {part:?} in\n{}",
                said.stdout
            );
        }
        assert!(!said.stdout.contains(signature), "{}", said.stdout);
        assert!(!said.stdout.contains('\u{1b}'), "plain in a pipe");
    }
}

#[tokio::test]
async fn a_token_that_is_malformed_is_shown_as_far_as_it_goes() {
    let good = r#"{"alg":"RS256"}"#;
    for (token, expected) in [
        (
            unsigned(good, r#"{"iss":"a","exp":1,"exp":9999999999}"#),
            &["there already", "malformed_token"][..],
        ),
        (unsigned(good, "[]"), &["no JSON object", "malformed_token"]),
        (unsigned(good, r#"{"iss":null}"#), &["wrong_issuer"]),
        (unsigned(good, "{}") + ".x.y", &["JWE"]),
        (
            unsigned(good, "{\"a\u{9b}\":\"\u{202e}\u{7f}\"}"),
            &["\\u{9b}", "\\u{202e}", "\\u{7f}"],
        ),
        (
            format!("{}=.e30.", URL_SAFE_NO_PAD.encode(good)),
            &["RS256", "none"],
        ),
    ] {
        let said = piped(&["token", "inspect"], &token).await;
        assert_eq!(said.code, Some(0), "{token}: {}", said.stderr);
        for part in expected {
            assert!(
                said.stdout.contains(part),
                "{token}: no {part:?} in\n{}",
                said.stdout
            );
        }
        let raw = said
            .stdout
            .chars()
            .any(|char| char.is_control() && char != '\n');
        assert!(
            !raw && !said.stdout.contains('\u{202e}'),
            "{:?}",
            said.stdout
        );
    }
}

#[tokio::test]
async fn what_is_no_token_is_1_and_is_not_repeated() {
    let opaque = json!({ "not": "a token" }).to_string();
    for text in [
        "",
        "\n",
        "v2.local.secret",
        "secret",
        opaque.as_str(),
        "\u{1b}[31m.x.y",
    ] {
        let said = piped(&["token", "inspect", "-"], text).await;
        assert_eq!(said.code, Some(1), "{text:?}: {}", said.stdout);
        assert!(said.stderr.contains("no JWT"), "{}", said.stderr);
        assert!(!said.stderr.contains("secret"), "{}", said.stderr);
        assert_eq!(said.stdout, "");
    }
    let many = "x".repeat(2 << 20);
    let said = piped(&["token", "inspect"], &many).await;
    assert_eq!(said.code, Some(1));
    assert!(said.stderr.contains("1 MiB"), "{}", said.stderr);
    for (arguments, expected) in [
        (&["token"][..], "inspect"),
        (
            &["token", "inspect", "--help"],
            "other users of this machine",
        ),
        (&["explain", "--help"], "other users of this machine"),
        (&["--help"], "3 refused"),
    ] {
        let said = call("/".as_ref(), arguments).await;
        let all = format!("{}{}", said.stdout, said.stderr);
        let all: Vec<&str> = all.split_whitespace().collect();
        assert!(all.join(" ").contains(expected), "{all:?}");
    }
}
