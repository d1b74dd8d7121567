//! `demo`: the whole job on loopback, with commands to paste.

mod commands;

use self::commands::{Part, Places};
use super::output::{self, FAINT, STRONG};
use super::{FAILED, run};
use crate::app::{App, StartError};
use crate::config;
use crate::demo::auth::{AuthOptions, BonterraAuth};
use crate::demo::echo::Echo;
use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Ports that the default file names; free ones are taken instead if these are in use.
const AUTH_PORT: u16 = 9400;
const ECHO_PORT: u16 = 9000;
const ADMIN_PORT: u16 = 9090;

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
    let scene = match Scene::set().await {
        Ok(scene) => scene,
        Err(error) => {
            return output::fail(
                &format!("cannot start the demo's services: {error}"),
                FAILED,
            );
        }
    };
    let app = match scene.start(listen).await {
        Ok(Ok(app)) => app,
        Ok(Err(error)) => return output::not_started(&error),
        Err(error) => {
            return output::fail(&format!("cannot write the demo's files: {error}"), FAILED);
        }
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
    async fn set() -> io::Result<Self> {
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
        Ok(Self { auth, echo, folder })
    }

    /// Starts the gateway. Its admin listener goes elsewhere if somebody has its port, which is only known when it is
    /// taken: another demo may start at the same time.
    async fn start(&self, listen: SocketAddr) -> io::Result<Result<App, StartError>> {
        let usual = local(ADMIN_PORT);
        if listen == usual {
            return self.start_with(listen, local(0)).await;
        }
        match self.start_with(listen, usual).await? {
            Err(StartError::Listen(address, cause))
                if address.tcp() == Some(usual) && cause.kind() == io::ErrorKind::AddrInUse =>
            {
                self.start_with(listen, local(0)).await
            }
            started => Ok(started),
        }
    }

    async fn start_with(
        &self,
        listen: SocketAddr,
        admin: SocketAddr,
    ) -> io::Result<Result<App, StartError>> {
        std::fs::write(self.file(), self.config(listen, admin))?;
        // The access log goes to a file: the terminal is for the commands.
        let log = std::fs::File::create(self.log())?;
        Ok(App::start(self.file(), log).await)
    }

    fn file(&self) -> PathBuf {
        self.folder.path.join("gateway.toml")
    }

    fn log(&self) -> PathBuf {
        self.folder.path.join("access.log")
    }

    /// The default file, with the addresses that were really given and without a drain delay.
    fn config(&self, listen: SocketAddr, admin: SocketAddr) -> String {
        config::DEFAULT
            .replace("127.0.0.1:9090", &admin.to_string())
            .replace("127.0.0.1:8080", &listen.to_string())
            // Its `url`, and the same as a server of an upstream.
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
            ("access log", self.log().display().to_string()),
        ];
        for (name, value) in parts {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {name:<14} {value}");
        }
        let places = Places {
            gateway,
            admin: app.admin.to_string(),
        };
        for Part { heading, commands } in places.parts() {
            let _ = writeln!(text, "\n{STRONG}## {heading}{STRONG:#}");
            for (what, command) in commands {
                let _ = write!(text, "\n{FAINT}# {what}{FAINT:#}\n{command}\n");
            }
        }
        text.push_str("\nCtrl-C ends the demo.\n");
        text
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
