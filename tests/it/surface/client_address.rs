//! `forward_client_address`: whose address the issuer learns, and from whom.

use super::MACHINE;
use crate::harness::{CONFIG, Request, World, with_lines};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const TOLD: &str = "forward_client_address = true";
const TRUSTING: &str = "trusted_proxies = [\"127.0.0.0/8\", \"10.0.0.0/8\"]";

/// Everything that the issuer was told under the name, once one more request has reached it.
async fn told(world: &World, request: &Request) -> Vec<String> {
    let before = world.auth.counts().token;
    request.send().await;
    assert_eq!(world.auth.counts().token, before + 1, "the issuer is asked");
    let asked = world.auth.last_token_request().expect("a request");
    let values = asked.headers.get_all("auth0-forwarded-for").iter();
    values
        .map(|value| value.to_str().expect("ASCII").to_owned())
        .collect()
}

/// A request of a public client.
fn public(request: Request) -> Request {
    request.form(&[
        ("grant_type", "refresh_token"),
        ("client_id", "demo-web"),
        ("refresh_token", "x"),
    ])
}

#[tokio::test]
async fn the_issuer_learns_it_of_clients_that_prove_who_they_are() {
    let world = World::with(&with_lines(CONFIG, "[oauth.bonterra]", TOLD)).await;
    let post = || world.post("/oauth/token");
    let forged = || post().header("auth0-forwarded-for", "203.0.113.7");
    let basic = STANDARD.encode("demo-client:demo-secret");
    let by_basic = post()
        .header("authorization", format!("Basic {basic}"))
        .form(&MACHINE[..1]);
    let assertion = post().form(&[
        ("grant_type", "client_credentials"),
        ("client_assertion", "j"),
        (
            "client_assertion_type",
            "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        ),
    ]);
    for request in [post().form(&MACHINE), by_basic, assertion] {
        assert_eq!(told(&world, &request).await, ["127.0.0.1"]);
    }
    assert_eq!(told(&world, &forged().form(&MACHINE)).await, ["127.0.0.1"]);
    assert!(told(&world, &public(post())).await.is_empty());
    assert!(told(&world, &public(forged())).await.is_empty());
    // Nobody is trusted to speak for another.
    let spoken_for = post().header("x-forwarded-for", "203.0.113.7");
    assert_eq!(
        told(&world, &spoken_for.form(&MACHINE)).await,
        ["127.0.0.1"]
    );
}

#[tokio::test]
async fn behind_trusted_proxies_it_is_the_one_that_they_say() {
    let config = with_lines(CONFIG, "[oauth.bonterra]", TOLD);
    let world = World::with(&with_lines(&config, "[server]", TRUSTING)).await;
    let rows = [
        ("203.0.113.7", Some("203.0.113.7")),
        ("198.51.100.1, 203.0.113.7, 10.1.2.3", Some("203.0.113.7")),
        ("[2001:db8::7]:4711", Some("2001:db8::7")),
        ("::ffff:203.0.113.7", Some("203.0.113.7")),
        // An invented one would be worse than none.
        ("unknown", None),
    ];
    for (given, expected) in rows {
        let request = world
            .post("/oauth/token")
            .header("x-forwarded-for", given)
            .header("auth0-forwarded-for", "192.0.2.66")
            .form(&MACHINE);
        let got = told(&world, &request).await;
        assert_eq!(got.first().map(String::as_str), expected, "{given}");
        assert!(got.len() <= 1, "{given}");
    }
}

#[tokio::test]
async fn without_the_key_nobody_tells_it() {
    let world = World::with(&with_lines(CONFIG, "[server]", TRUSTING)).await;
    let request = world
        .post("/oauth/token")
        .header("x-forwarded-for", "203.0.113.7")
        .header("auth0-forwarded-for", "203.0.113.7")
        .form(&MACHINE);
    assert!(told(&world, &request).await.is_empty());
}
