//! `demo`: the whole job on loopback, with commands to paste.

use super::output::{self, FAINT, STRONG};
use super::{FAILED, run};
use crate::app::App;
use crate::config;
use crate::demo::auth::{AuthOptions, BonterraAuth, MACHINE_CLIENT, MACHINE_SECRET, WEB_CLIENT};
use crate::demo::echo::Echo;
use crate::server::Address;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Ports that the default file names; free ones are taken instead if these are in use.
const AUTH_PORT: u16 = 9400;
const ECHO_PORT: u16 = 9000;
const ADMIN_PORT: u16 = 9090;

/// A PKCE verifier and its challenge (RFC 7636 §4); in earnest, make a new one for every login.
const VERIFIER: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const CHALLENGE: &str = "ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA";

/// Runs the demo until Ctrl-C. Returns the exit code.
pub fn run(listen: SocketAddr) -> u8 {
    match run::runtime() {
        Ok(runtime) => runtime.block_on(demo(listen)),
        Err(error) => output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    }
}

async fn demo(listen: SocketAddr) -> u8 {
    if !listen.ip().is_loopback() {
        return output::fail(
            "the demo's secrets are public, so it listens on loopback only",
            super::MISCONFIGURED,
        );
    }
    let mut signals = match run::Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            return output::fail(&format!("cannot listen for signals: {error}"), FAILED);
        }
    };
    let scene = match Scene::set(listen).await {
        Ok(scene) => scene,
        Err(error) => {
            return output::fail(
                &format!("cannot start the demo's services: {error}"),
                FAILED,
            );
        }
    };
    // The access log goes to a file: the terminal is for the commands.
    let log = match std::fs::File::create(scene.folder.path.join("access.log")) {
        Ok(log) => log,
        Err(error) => {
            return output::fail(&format!("cannot write the access log: {error}"), FAILED);
        }
    };
    let app = match App::start(scene.file(), log).await {
        Ok(app) => app,
        Err(error) => return output::not_started(&error),
    };
    app.ready().await;
    output::print(&scene.told(&app));
    signals.stop().await;
    output::print("\nstopping\n");
    app.stop().await;
    0
}

/// The services around the gateway, and its file.
struct Scene {
    auth: BonterraAuth,
    echo: Echo,
    folder: Folder,
}

/// A folder of its own, removed at the end.
struct Folder {
    path: PathBuf,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is only left in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

impl Scene {
    async fn set(listen: SocketAddr) -> io::Result<Self> {
        let auth = match start_auth(AUTH_PORT).await {
            Ok(auth) => auth,
            Err(_) => start_auth(0).await?,
        };
        let echo = match Echo::start(local(ECHO_PORT)).await {
            Ok(echo) => echo,
            Err(_) => Echo::start(local(0)).await?,
        };
        let folder = Folder {
            path: std::env::temp_dir()
                .join(format!("bonterra-gateway-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(&folder.path)?;
        let scene = Self { auth, echo, folder };
        std::fs::write(scene.file(), scene.config(listen))?;
        Ok(scene)
    }

    fn file(&self) -> PathBuf {
        self.folder.path.join("gateway.toml")
    }

    /// The default file, with the addresses that were really given and without a drain delay.
    fn config(&self, listen: SocketAddr) -> String {
        config::DEFAULT
            .replace("127.0.0.1:8080", &listen.to_string())
            .replace("127.0.0.1:9090", &free(ADMIN_PORT).to_string())
            .replace("http://127.0.0.1:9400/", self.auth.issuer())
            // The same as a server of an upstream.
            .replace(
                "http://127.0.0.1:9400",
                self.auth.issuer().trim_end_matches('/'),
            )
            .replace("http://127.0.0.1:9000", &self.echo.url())
            .replace("drain_delay = \"5s\"", "drain_delay = \"0s\"")
    }

    fn told(&self, app: &App) -> String {
        let gateway = app
            .addresses
            .first()
            .map_or_else(String::new, SocketAddr::to_string);
        let mut text = format!(
            "{STRONG}bonterra-gateway demo{STRONG:#}: everything on loopback, nothing to set up. Ctrl-C ends it.\n\n"
        );
        let parts = [
            ("gateway", format!("http://{gateway}")),
            ("admin", format!("http://{}", app.admin)),
            (
                "Bonterra Auth",
                format!("{} (simulated)", self.auth.issuer()),
            ),
            ("echo API", self.echo.url()),
            (
                "configuration",
                format!("{} (edit it: changes apply at once)", self.file().display()),
            ),
            (
                "access log",
                self.folder.path.join("access.log").display().to_string(),
            ),
        ];
        for (name, value) in parts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<14} {value}");
        }
        for (what, command) in self.commands(&gateway, &app.admin) {
            let _ = write!(text, "\n{FAINT}# {what}{FAINT:#}\n{command}\n");
        }
        text
    }

    /// What to paste, in the order of a first visit.
    fn commands(&self, gateway: &str, admin: &Address) -> Vec<(&'static str, String)> {
        let redirect = format!("http://{gateway}/public/callback");
        let redirect = utf8_percent_encode(&redirect, NON_ALPHANUMERIC);
        let token = format!("http://{gateway}/oauth/token");
        let bearer = "-H \"Authorization: Bearer $TOKEN\"";
        vec![
            (
                "get a token through the gateway",
                format!(
                    "TOKEN=$(curl -s {token} -d grant_type=client_credentials -d client_id={MACHINE_CLIENT} \\\n  -d client_secret={MACHINE_SECRET} -d audience=https://api.bonterra.network \\\n  | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/'); echo $TOKEN"
                ),
            ),
            (
                "the same by JSON and Basic",
                format!(
                    "curl -s {token} -u {MACHINE_CLIENT}:{MACHINE_SECRET} -H 'Content-Type: application/json' \\\n  -d '{{\"grant_type\":\"client_credentials\",\"audience\":\"https://api.bonterra.network\"}}'"
                ),
            ),
            (
                "call an API with it: the echo shows the headers that the API gets",
                format!("curl -s http://{gateway}/grants/1 {bearer}"),
            ),
            (
                "call without: 401, and the reason",
                format!("curl -si http://{gateway}/grants/1"),
            ),
            (
                "forge an identity: the API still sees the real one",
                format!(
                    "curl -s http://{gateway}/grants/1 {bearer} -H 'X-Bonterra-Auth-Id: admin' -H 'X_Bonterra_Auth_Id: admin'"
                ),
            ),
            (
                "forge one where no token is needed: the API sees none",
                format!("curl -s http://{gateway}/public/hello -H 'X-Bonterra-Auth-Id: admin'"),
            ),
            (
                "log in as a person: open this in a browser; the echo API then shows the code",
                format!(
                    "{}authorize?response_type=code&client_id={WEB_CLIENT}&redirect_uri={redirect}&scope=openid%20offline_access&code_challenge={CHALLENGE}&code_challenge_method=S256",
                    self.auth.issuer()
                ),
            ),
            (
                "and turn the code into tokens",
                format!(
                    "curl -s {token} -d grant_type=authorization_code -d client_id={WEB_CLIENT} -d redirect_uri={redirect} \\\n  -d code_verifier={VERIFIER} -d code=PASTE_THE_CODE"
                ),
            ),
            (
                "metrics for Prometheus",
                format!("curl -s http://{admin}/metrics | grep ^gateway_"),
            ),
            (
                "what is ready, and why",
                format!("curl -s 'http://{admin}/readyz?verbose'"),
            ),
            (
                "read the file again now",
                format!("curl -s -X POST http://{admin}/-/reload"),
            ),
        ]
    }
}

async fn start_auth(port: u16) -> io::Result<BonterraAuth> {
    BonterraAuth::start(AuthOptions {
        listen: local(port),
        ..AuthOptions::default()
    })
    .await
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// This port if it is free, else one that the kernel picks when it is bound.
fn free(port: u16) -> SocketAddr {
    match std::net::TcpListener::bind(local(port)) {
        Ok(_) => local(port),
        Err(_) => local(0),
    }
}
