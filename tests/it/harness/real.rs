//! Servers of other makers as upstreams, and a wire-tap in front of them.

use super::program::Running;
use super::{eventually, local, nobody};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Who made a server.
#[derive(Debug, Clone, Copy)]
pub enum Make {
    Nginx,
    Apache,
    Python,
}

/// A server that answers every request with a few bytes, and those for `…/204` and `…/304` with that
/// status. One process with a folder of its own; killed when dropped.
pub struct Real {
    running: Running,
    pub address: SocketAddr,
    folder: TempDir,
}

/// Passes bytes on in both directions and keeps them.
pub struct Tap {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    task: JoinHandle<()>,
}

/// What came in one read, in the order of time; nothing at the end of a direction.
#[derive(Debug, Clone)]
pub struct Heard {
    pub connection: usize,
    pub from_gateway: bool,
    pub bytes: Vec<u8>,
}

// === impl Make ===

impl Make {
    fn command(self, folder: &Path, port: u16) -> Command {
        let dir = folder.display();
        let config = folder.join("server.conf");
        fs::write(folder.join("ok.txt"), "ok\n").expect("written");
        let write = |text: String| fs::write(&config, text).expect("written");
        match self {
            Self::Nginx => {
                // It answers when it has read the body only if there is a use for it: the mirror.
                write(format!(
                    "daemon off; master_process off; pid {dir}/pid; lock_file {dir}/lock;\n\
                     error_log {dir}/error.log;\n\
                     events {{ worker_connections 256; }}\n\
                     http {{\n\
                     log_format line '$request'; access_log {dir}/access.log line;\n\
                     client_body_temp_path {dir}/1; proxy_temp_path {dir}/2;\n\
                     fastcgi_temp_path {dir}/3; uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;\n\
                     server {{\n\
                     listen 127.0.0.1:{port}; keepalive_requests 100000; keepalive_timeout 600s;\n\
                     root {dir}; location / {{\n\
                     mirror /read; try_files /ok.txt =500; error_page 405 =200 /ok.txt;\n\
                     }}\n\
                     location = /read {{ internal; return 204; }}\n\
                     location ~ /204 {{ return 204; }}\n\
                     location ~ /304 {{ return 304; }}\n\
                     }}\n}}\n"
                ));
                let mut command = Command::new(tool("nginx"));
                command.arg("-e").arg(folder.join("error.log"));
                command.arg("-p").arg(folder).arg("-c").arg(config);
                command
            }
            Self::Apache => {
                write(format!(
                    "ServerRoot {dir}\nServerName localhost\nListen 127.0.0.1:{port}\n\
                     PidFile {dir}/pid\nDefaultRuntimeDir {dir}\nErrorLog {dir}/error.log\n\
                     LoadModule mpm_event_module {APACHE_MODULES}/mod_mpm_event.so\n\
                     LoadModule authz_core_module {APACHE_MODULES}/mod_authz_core.so\n\
                     LoadModule alias_module {APACHE_MODULES}/mod_alias.so\n\
                     ServerLimit 1\nThreadsPerChild 16\nMaxRequestWorkers 16\n\
                     User nobody\nGroup nogroup\n\
                     LogFormat %r line\nCustomLog {dir}/access.log line\n\
                     KeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 600\n\
                     DocumentRoot {dir}\n<Directory {dir}>\nRequire all granted\n</Directory>\n\
                     RedirectMatch 204 /204\nAliasMatch ^/ {dir}/ok.txt\n"
                ));
                let mut command = Command::new(tool("apache2"));
                command.arg("-X").arg("-f").arg(config);
                command
            }
            Self::Python => {
                write(include_str!("real_server.py").to_owned());
                let mut command = Command::new(tool("python3"));
                command.arg("-I").arg(config).arg(port.to_string());
                command.arg(folder.join("access.log"));
                command
            }
        }
    }
}

const APACHE_MODULES: &str = "/usr/lib/apache2/modules";

/// Debian's own one, if it is there: another Python may be ahead of it in the path.
pub fn tool(name: &str) -> PathBuf {
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools");
    let places = ["/usr/sbin", "/usr/bin", ours, "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name));
    found
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: `make test` installs it"))
}

// === impl Real ===

impl Real {
    /// A server that listens.
    pub async fn start(make: Make) -> Self {
        let folder = TempDir::new().expect("a folder");
        // Apache gives up what root may do.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let address = nobody();
        let running = Running::start(make.command(folder.path(), address.port()));
        let mut server = Self {
            running,
            address,
            folder,
        };
        eventually("the server listens", || {
            let listens = std::net::TcpStream::connect(address).is_ok();
            std::future::ready(listens || server.running.has_ended())
        })
        .await;
        assert!(
            !server.running.has_ended(),
            "{make:?} does not start: {}\n{}",
            server.running.stderr.text(),
            server.file("error.log")
        );
        server
    }

    /// A file of its folder; empty if there is none.
    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    /// The request lines that it says it has read.
    pub fn request_lines(&self) -> Vec<String> {
        let log = self.file("access.log");
        log.lines().map(str::to_owned).collect()
    }
}

// === impl Tap ===

impl Tap {
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind(local()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let heard = Arc::<Mutex<Vec<Heard>>>::default();
        let all = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            for connection in 0.. {
                let Ok((client, _)) = listener.accept().await else {
                    return;
                };
                let server = TcpStream::connect(server)
                    .await
                    .expect("the server is there");
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let requests = pass(from_client, to_server, connection, true, Arc::clone(&all));
                let answers = pass(from_server, to_client, connection, false, Arc::clone(&all));
                passing.spawn(requests);
                passing.spawn(answers);
            }
        });
        Self {
            address,
            heard,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that went by so far.
    pub fn heard(&self) -> Vec<Heard> {
        self.heard.lock().expect("no panic").clone()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    connection: usize,
    from_gateway: bool,
    heard: Arc<Mutex<Vec<Heard>>>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        // Kept before it goes on: an answer is never heard before its request.
        heard.lock().expect("no panic").push(Heard {
            connection,
            from_gateway,
            bytes: buffer[..read].to_vec(),
        });
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
