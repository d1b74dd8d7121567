//! One gateway ends and the next one starts, and no client notices. None of these clients asks twice.

use crate::harness::link::{Link, nothing};
use crate::harness::program::{Running, program};
use crate::harness::{CONFIG, eventually, local, nobody, request};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use bonterra_gateway::demo::echo::Echo;
use futures_util::future::join_all;
use http::Request;
use http_body_util::BodyExt as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use tempfile::TempDir;

const RESTARTS: usize = 5;

/// The services around the gateway, and its file.
struct Scene {
    auth: BonterraAuth,
    _echo: Echo,
    folder: TempDir,
    address: SocketAddr,
}

impl Scene {
    async fn set(address: SocketAddr, admin: SocketAddr, lines: &str) -> Self {
        let auth = BonterraAuth::start(AuthOptions::default()).await;
        let auth = auth.expect("an issuer");
        let echo = Echo::start(local()).await.expect("an API");
        let config = CONFIG
            .replace("ISSUER", auth.issuer())
            .replace("ECHO", &echo.url())
            .replace(
                "listen = [\"127.0.0.1:0\"]",
                &format!("listen = [\"{address}\"]\n{lines}"),
            )
            .replace("workers = 1", "workers = 2")
            .replace("drain_delay = \"0s\"", "drain_delay = \"400ms\"")
            .replace(
                "\nlisten = \"127.0.0.1:0\"",
                &format!("\nlisten = \"{admin}\""),
            );
        let folder = TempDir::new().expect("a folder");
        std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
        let _echo = echo;
        Self {
            auth,
            _echo,
            folder,
            address,
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.toml")
    }

    /// The command that runs a gateway with this socket as its third file, as systemd does.
    fn with_socket(&self, socket: &TcpListener) -> Command {
        let mut command = Command::new("bash");
        let script = "exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" run -c \"$1\"";
        command
            .args(["-c", script])
            .arg(program(&[]).get_program())
            .arg(self.file());
        let socket = OwnedFd::from(socket.try_clone().expect("a duplicate"));
        command.stdin(Stdio::from(socket));
        command
    }

    fn alone(&self) -> Command {
        program(&["run", "-c", self.file().to_str().expect("UTF-8")])
    }
}

async fn ready(command: Command) -> Running {
    let mut running = Running::start(command);
    eventually("it is ready", || {
        assert!(!running.has_ended(), "{}", running.stderr.text());
        std::future::ready(running.event("ready").is_some())
    })
    .await;
    running
}

async fn end(mut running: Running) {
    running.signal("TERM").await;
    assert_eq!(running.ended().await.code(), Some(0));
    let text = running.stderr.text();
    assert!(!text.contains("are cut"), "{text}");
}

/// Clients that ask without a pause: some keep their connections, some make a new one each time.
struct Load {
    ended: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn on(scene: &Scene, clients: usize) -> Self {
        let (ended, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let token = scene.auth.token();
        let client = |number: usize| {
            let (ended, served) = (Arc::clone(&ended), Arc::clone(&served));
            let (token, address) = (token.clone(), scene.address);
            tokio::spawn(async move {
                let mut link = None;
                let mut failed = Vec::new();
                while !ended.load(Relaxed) {
                    let outcome = if number.is_multiple_of(2) {
                        fresh(address, &token).await
                    } else {
                        kept(&mut link, address, &token).await
                    };
                    match outcome {
                        Ok(200) => {}
                        Ok(status) => failed.push(format!("client {number}: {status}")),
                        Err(error) => failed.push(format!("client {number}: {error:?}")),
                    }
                    served.fetch_add(1, Relaxed);
                }
                failed
            })
        };
        let clients = (0..clients).map(client).collect();
        Self {
            ended,
            served,
            clients,
        }
    }

    async fn goes_on(&self) {
        let now = self.served.load(Relaxed);
        eventually("load", async || self.served.load(Relaxed) >= now + 100).await;
    }

    async fn end(self) {
        self.ended.store(true, Relaxed);
        let clients = join_all(self.clients).await.into_iter();
        let failed: Vec<String> = clients
            .flat_map(|failed| failed.expect("no panic"))
            .collect();
        let served = self.served.load(Relaxed);
        println!("{served} requests, {} failed", failed.len());
        assert!(
            failed.is_empty(),
            "{} of {served} failed: {:?}",
            failed.len(),
            failed.first()
        );
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn fresh(address: SocketAddr, token: &str) -> Result<u16, Failure> {
    let get = request(address, "GET", "/grants/1").bearer(token);
    Ok(get.try_send().await?.status)
}

/// On the same connection, unless the gateway has said that it closes it.
async fn kept(link: &mut Option<Link>, address: SocketAddr, token: &str) -> Result<u16, Failure> {
    let open = match link.as_mut() {
        Some(link) => link.is_open().await,
        None => false,
    };
    if !open {
        *link = Some(Link::connect(address).await);
    }
    let Some(link) = link else {
        return Err("no connection".into());
    };
    let get = Request::get("/grants/1").header("authorization", format!("Bearer {token}"));
    let response = link.open(get.body(nothing())?).await?;
    let status = response.status().as_u16();
    response.into_body().collect().await?;
    Ok(status)
}

/// As systemd restarts a service whose socket it holds: the old one ends, then the new one starts,
/// and clients wait in the queue of the socket meanwhile.
#[tokio::test]
async fn restarts_with_an_inherited_socket_lose_nothing() {
    let socket = TcpListener::bind(local()).expect("a port");
    let address = socket.local_addr().expect("an address");
    let scene = Scene::set(address, nobody(), "").await;
    let mut running = ready(scene.with_socket(&socket)).await;
    let load = Load::on(&scene, 8);
    for _ in 0..RESTARTS {
        load.goes_on().await;
        end(running).await;
        running = ready(scene.with_socket(&socket)).await;
    }
    load.goes_on().await;
    load.end().await;
    end(running).await;
}

/// Two gateways have the same socket for a while: the new one is ready before the old one drains.
#[tokio::test]
async fn a_new_gateway_may_share_the_socket_before_the_old_one_ends() {
    let socket = TcpListener::bind(local()).expect("a port");
    let address = socket.local_addr().expect("an address");
    let scene = Scene::set(address, nobody(), "reuse_port = true").await;
    let mut running = ready(scene.with_socket(&socket)).await;
    let load = Load::on(&scene, 8);
    for _ in 0..RESTARTS {
        load.goes_on().await;
        let next = ready(scene.with_socket(&socket)).await;
        end(running).await;
        running = next;
    }
    load.goes_on().await;
    load.end().await;
}

#[tokio::test]
async fn restarts_that_overlap_on_the_port_lose_nothing() {
    let scene = Scene::set(nobody_shared(), nobody_shared(), "reuse_port = true").await;
    let mut running = ready(scene.alone()).await;
    // So many that some are always about to be accepted.
    let load = Load::on(&scene, 96);
    for _ in 0..RESTARTS {
        load.goes_on().await;
        let next = ready(scene.alone()).await;
        end(running).await;
        running = next;
    }
    load.goes_on().await;
    load.end().await;
}

/// Like `nobody`, for processes that share a port.
fn nobody_shared() -> SocketAddr {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.set_reuse_port(true).expect("an option");
    socket.bind(&local().into()).expect("a port");
    let address = socket.local_addr().expect("an address");
    std::mem::forget(socket);
    address.as_socket().expect("an IP address")
}

#[tokio::test]
async fn a_socket_that_the_file_does_not_name_is_refused() {
    let socket = TcpListener::bind(local()).expect("a port");
    let scene = Scene::set(nobody(), nobody(), "").await;
    let mut running = Running::start(scene.with_socket(&socket));
    assert_eq!(running.ended().await.code(), Some(1));
    let (text, address) = (running.stderr.text(), socket.local_addr().expect("one"));
    let told = format!("inherited socket 1 at {address}: neither server.listen nor admin.listen");
    assert!(text.contains(&told), "{text}");
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let scene = Scene::set(nobody(), nobody(), "").await;
    let path = scene.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_nonblocking(true).expect("an option");
    let heard = async |expected: &str| {
        let mut space = [0; 256];
        let mut text = String::new();
        eventually(expected, || {
            if let Ok(read) = manager.recv(&mut space) {
                text = String::from_utf8_lossy(&space[..read]).into_owned();
            }
            std::future::ready(!text.is_empty())
        })
        .await;
        assert!(text.starts_with(expected), "{expected}: {text}");
    };
    let mut command = scene.alone();
    command.env("NOTIFY_SOCKET", &path);
    let running = Running::start(command);
    heard("READY=1").await;
    running.signal("HUP").await;
    heard("RELOADING=1").await;
    heard("READY=1").await;
    let ended = tokio::spawn(end(running));
    heard("STOPPING=1").await;
    ended.await.expect("no panic");
}
