//! A browser that a test drives: Chromium without a window, by its own driver (W3C WebDriver).

use super::program::Running;
use super::real::tool;
use super::{eventually, local, request};
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A browser is slow to start on a machine that has other things to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// What stands for an element in the protocol's JSON (WebDriver, "Elements").
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// No sandbox, as `root` has none; nothing that asks for more than the pages it is sent to, and no host
/// but this one.
const FLAGS: [&str; 12] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
];

/// A browser with one window, a driver and a profile of its own. All its processes end when it is dropped.
pub struct Browser {
    driver: Running,
    address: SocketAddr,
    /// The path that its commands are below.
    session: String,
    home: TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let chromium = tool("chromium");
        let home = TempDir::new().expect("a folder");
        let mut command = Command::new(tool("chromedriver"));
        command
            .arg("--port=0")
            .env("HOME", home.path())
            .env("TMPDIR", home.path())
            .stdin(Stdio::null());
        let mut browser = Self {
            driver: Running::start(command),
            address: local(),
            session: String::new(),
            home,
        };
        let port = browser.port().await;
        browser.address.set_port(port);
        let profile = browser.home.path().join("profile");
        let profile = format!("--user-data-dir={}", profile.display());
        let flags: Vec<&str> = FLAGS.into_iter().chain([&*profile]).collect();
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": flags },
        });
        let wanted = json!({ "capabilities": { "alwaysMatch": wanted } });
        let session = browser.command("/session", wanted).await;
        let id = session["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{id}");
        browser
    }

    /// Goes to a page and waits until it is there.
    pub async fn open(&self, url: &str) {
        self.command("/url", json!({ "url": url })).await;
    }

    /// The address of the page.
    pub async fn url(&self) -> String {
        let url = self.ask("GET", "/url", None).await.expect("an address");
        url.as_str().expect("an address").to_owned()
    }

    /// The text of an element as it is seen, found by a CSS selector.
    pub async fn text(&self, selector: &str) -> String {
        let path = format!("{}/text", self.find(selector).await);
        let text = self.ask("GET", &path, None).await.expect("a text");
        text.as_str().expect("a text").to_owned()
    }

    /// Types into a field, instead of what it has.
    pub async fn fill(&self, selector: &str, text: &str) {
        let field = self.find(selector).await;
        self.command(&format!("{field}/clear"), json!({})).await;
        self.command(&format!("{field}/value"), json!({ "text": text }))
            .await;
    }

    pub async fn click(&self, selector: &str) {
        let element = self.find(selector).await;
        self.command(&format!("{element}/click"), json!({})).await;
    }

    /// Runs the body of a function in the page, with `arguments[0]`, and waits for what it promises.
    pub async fn run(&self, script: &str, argument: &Value) -> Value {
        let call = json!({ "script": script, "args": [argument] });
        self.command("/execute/sync", call).await
    }

    /// The path of an element, once it is there.
    async fn find(&self, selector: &str) -> String {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = OnceCell::new();
        eventually(selector, async || {
            let answer = self.ask("POST", "/element", Some(&wanted)).await;
            let id = answer.as_ref().ok().and_then(|it| it[ELEMENT].as_str());
            id.is_some_and(|id| found.set(format!("/element/{id}")).is_ok())
        })
        .await;
        found.into_inner().expect("an element")
    }

    async fn command(&self, path: &str, body: Value) -> Value {
        let said = self.ask("POST", path, Some(&body)).await;
        said.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// What the driver answers; an error is its own.
    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Value> {
        let asked = request(self.address, method, &format!("{}{path}", self.session));
        let asked = match body {
            Some(body) => asked.json(body),
            None => asked,
        };
        let reply = tokio::time::timeout(PATIENCE, asked.try_send()).await;
        let reply = reply
            .unwrap_or_else(|_| panic!("{method} {path}: not within {PATIENCE:?}"))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let value = reply.json()["value"].take();
        match reply.status {
            200 => Ok(value),
            _ => Err(value),
        }
    }

    /// The port that the driver took.
    async fn port(&mut self) -> u16 {
        let mut port = None;
        eventually("chromedriver listens", || {
            let said = self.driver.stdout.text();
            assert!(!self.driver.has_ended(), "{said}");
            let told = said.split_once("started successfully on port ");
            port = told.and_then(|(_, rest)| rest.split_once('.')?.0.parse().ok());
            std::future::ready(port.is_some())
        })
        .await;
        port.expect("a port")
    }

    /// Ends it in an orderly way, and sees that nothing of it is left.
    pub async fn quit(self) {
        self.ask("DELETE", "", None).await.expect("ended");
        let of_it = || processes(self.home.path());
        let driver = self.driver.id();
        eventually("the browser ends", || {
            std::future::ready(of_it() == [driver])
        })
        .await;
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver would not take the browser along. Again until there are none: one may have started another.
        for _ in 0..100 {
            let left = processes(self.home.path());
            if left.is_empty() {
                return;
            }
            let ids = left.iter().map(u32::to_string);
            // Some may have ended by themselves.
            let _ = Command::new("kill")
                .arg("-KILL")
                .args(ids)
                .stderr(Stdio::null())
                .status();
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The processes whose environment has this as its home: those that a browser's driver started, and itself.
fn processes(home: &Path) -> Vec<u32> {
    let home = format!("HOME={}", home.display());
    let is_of_it = |id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|it| it == home.as_bytes())
    };
    let all = fs::read_dir("/proc").expect("processes");
    let ids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter(is_of_it).collect()
}
