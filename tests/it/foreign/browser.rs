//! The code flow with PKCE as a person meets it, in a browser, against `demo`.

use crate::harness::browser::Browser;
use crate::harness::demo::Demo;
use crate::harness::eventually;
use serde_json::{Value, json};

const APP: &str = include_str!("app.js");

const EMAIL: (&str, &str) = ("#email", "user@example.com");
/// `urn:bonterra:claims:bonterra_auth_id` of that person.
const AUTH_ID: &str = "a1b2c3d4-e5f6-4890-abcd-ef1234567890";

/// A person before a browser, and the application that they use.
struct Person {
    browser: Browser,
    /// Where the gateway is.
    origin: String,
    issuer: String,
}

impl Person {
    /// Calls one of the application's functions in the page.
    async fn app(&self, function: &str, wrong: bool) -> Value {
        let said = json!({ "client": "demo-web", "redirectUri": self.callback(), "wrong": wrong });
        let script = format!("{APP}\nreturn {function}(arguments[0]);");
        self.browser.run(&script, &said).await
    }

    fn callback(&self) -> String {
        format!("{}/public/callback", self.origin)
    }

    /// Begins at the application, is sent to the login page by the gateway, and comes back.
    async fn log_in(&self) {
        let browser = &self.browser;
        browser.open(&format!("{}/public/app", self.origin)).await;
        let begun = self.app("begin", false).await;
        let url = begun["url"].as_str().expect("an address");
        assert!(url.starts_with(&format!("{}/oauth/authorize?", self.origin)));
        browser.open(url).await;
        let at = browser.url().await;
        assert!(
            at.starts_with(&format!("{}authorize?", self.issuer)),
            "{at}"
        );
        assert_eq!(browser.text("h1").await, "Log in");

        browser.fill(EMAIL.0, EMAIL.1).await;
        browser.fill("#password", "not the password").await;
        browser.click("#continue").await;
        assert_eq!(
            browser.text("p.problem:not(:empty)").await,
            "Wrong email or password."
        );
        assert_eq!(browser.url().await, format!("{}login", self.issuer));

        browser.fill(EMAIL.0, EMAIL.1).await;
        browser.fill("#password", "demo").await;
        browser.click("#continue").await;
        let callback = format!("{}?", self.callback());
        eventually("called back", async || {
            browser.url().await.starts_with(&callback)
        })
        .await;
        let at = browser.url().await;
        let state = format!("state={}", begun["state"].as_str().expect("a state"));
        let query = at.strip_prefix(&callback).expect("a query");
        assert!(query.split('&').any(|field| field == state), "{at}");
    }
}

#[tokio::test]
async fn a_person_logs_in_with_a_browser_and_the_application_calls_an_api() {
    let demo = Demo::start().await;
    let person = Person {
        browser: Browser::start().await,
        origin: demo.named("gateway"),
        issuer: demo.named("Bonterra Auth"),
    };

    // Who has the code and not the verifier gets nothing ...
    person.log_in().await;
    let stolen = person.app("finish", true).await;
    let error = "invalid_grant";
    let refused = json!({ "status": 403, "type": null, "renewable": false, "error": error });
    assert_eq!(stolen["redeemed"], refused);
    let called = json!({ "status": 401, "reason": "missing_token", "person": null });
    assert_eq!(stolen["called"], called);

    // ... and the application that has both gets tokens, and the API learns who it is.
    person.log_in().await;
    let done = person.app("finish", false).await;
    let redeemed = json!({ "status": 200, "type": "Bearer", "renewable": true, "error": null });
    assert_eq!(done["redeemed"], redeemed);
    let called = json!({ "status": 200, "reason": null, "person": AUTH_ID });
    assert_eq!(done["called"], called);

    // The code was for one time.
    let again = person.app("finish", false).await;
    assert_eq!(again["redeemed"], refused);
    person.browser.quit().await;
}
