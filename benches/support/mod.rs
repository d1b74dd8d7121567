//! What the benches that watch a gateway from outside share: the gateway as a process of its own,
//! an upstream that fails as told, a client that costs little, and what becomes of many times.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use std::io::{Read as _, Write as _};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Says that this process has been started anew by [`pin`].
const PINNED: &str = "BENCH_PINNED";

/// How long a started gateway may take until it is ready.
const START: Duration = Duration::from_secs(20);

/// A gateway in a process of its own; killed when dropped.
pub struct Gateway {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    _folder: TempDir,
}

/// Issuer and upstreams in a thread of their own, which ends with the process.
pub struct Servers {
    /// The `iss` of the tokens.
    pub issuer: String,
    /// Good ones, all different.
    pub tokens: Vec<Arc<str>>,
    /// As many as were asked for.
    pub upstreams: Vec<Upstream>,
}

/// An upstream and its present fault.
pub struct Upstream {
    /// Where it listens, while it does.
    pub address: SocketAddr,
    mode: watch::Sender<Mode>,
    seen: Arc<AtomicU64>,
}

/// What an upstream does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Answers 200.
    Serves,
    /// Answers 200 after a while.
    Slow(Duration),
    /// Answers 503.
    Refuses,
    /// Reads the request and says nothing.
    Hangs,
    /// Half of the body, then a reset.
    Cuts,
    /// Reads the request, then a reset.
    Resets,
    /// Neither listens nor has a connection.
    Dead,
}

/// A connection for requests without a body, and for answers that say how long they are.
pub struct Raw {
    stream: TcpStream,
    read: Vec<u8>,
}

// === impl Gateway ===

impl Gateway {
    /// Starts the program that was built with this bench, or `GATEWAY_BIN`, with `LISTEN` and
    /// `ADMIN` in the configuration filled in, and waits until it is ready. `core`: where it is
    /// pinned, if `taskset` is there.
    pub fn start(config: &str, core: Option<&str>) -> Self {
        let (address, admin) = free_addresses();
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("gateway.toml");
        let config = config
            .replace("LISTEN", &address.to_string())
            .replace("ADMIN", &admin.to_string());
        std::fs::write(&file, config).expect("written");
        let program = std::env::var("GATEWAY_BIN")
            .unwrap_or_else(|_| env!("CARGO_BIN_EXE_bonterra-gateway").to_owned());
        let mut command = match core {
            Some(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", core, &program]);
                command
            }
            None => Command::new(&program),
        };
        let child = command
            .args(["run", "-c"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("the gateway's program");
        let mut gateway = Self {
            child,
            address,
            _folder: folder,
        };
        gateway.wait(admin);
        gateway
    }

    fn wait(&mut self, admin: SocketAddr) {
        let end = Instant::now() + START;
        while !is_ready(admin) {
            let ended = self.child.try_wait().expect("a child");
            assert!(ended.is_none(), "the gateway ended: {ended:?}");
            assert!(Instant::now() < end, "the gateway does not become ready");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let file = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(file).expect("Linux, and a gateway that runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.expect("VmRSS in kB") << 10
    }

    /// Processor time so far, of all threads.
    pub fn cpu(&self) -> Duration {
        cpu(&format!("/proc/{}/stat", self.child.id()))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_addresses() -> (SocketAddr, SocketAddr) {
    let listen = || StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (one, other) = (listen(), listen());
    let address = |listener: &StdListener| listener.local_addr().expect("an address");
    (address(&one), address(&other))
}

fn is_ready(admin: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = StdStream::connect(admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")?;
        let mut head = [0; 12];
        stream.read_exact(&mut head)?;
        Ok(&head == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// User and system time in a `stat` file of `/proc`; the kernel counts in hundredths of a second.
pub fn cpu(file: &str) -> Duration {
    let stat = std::fs::read_to_string(file).expect("Linux");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks
        .map(|ticks| ticks.parse::<u64>().expect("ticks"))
        .sum();
    Duration::from_millis(ticks * 10)
}

// === impl Servers ===

impl Servers {
    /// Starts an issuer, which signs so many tokens, and so many upstreams.
    pub fn start(tokens: usize, upstreams: usize) -> Self {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        thread::spawn(move || {
            runtime().block_on(async {
                let auth = BonterraAuth::start(AuthOptions::default()).await;
                let auth = auth.expect("an issuer");
                let mut claims = auth.claims();
                let mut sign = |number: usize| -> Arc<str> {
                    claims["jti"] = number.to_string().into();
                    auth.mint(&claims).into()
                };
                let servers = Self {
                    issuer: auth.issuer().to_owned(),
                    tokens: (0..tokens).map(&mut sign).collect(),
                    upstreams: (0..upstreams).map(|_| Upstream::start()).collect(),
                };
                assert!(tell.send(servers).is_ok(), "somebody waits");
                std::future::pending::<()>().await;
            });
        });
        told.recv().expect("servers")
    }
}

/// A runtime of one thread.
pub fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime")
}

/// Runs something in a thread and a runtime of its own; its outcome comes without blocking ours.
pub fn apart<T: Send + 'static, F: Future<Output = T>>(
    work: impl FnOnce() -> F + Send + 'static,
) -> impl Future<Output = T> {
    let (tell, told) = tokio::sync::oneshot::channel();
    thread::spawn(move || {
        let outcome = runtime().block_on(work());
        assert!(tell.send(outcome).is_ok(), "somebody waits");
    });
    async { told.await.expect("no panic there") }
}

// === impl Upstream ===

impl Upstream {
    /// Serves on a port of its own, on the current runtime.
    fn start() -> Self {
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("an address");
        drop(listener);
        let (mode, modes) = watch::channel(Mode::Serves);
        let seen = Arc::<AtomicU64>::default();
        tokio::spawn(live(address, modes, Arc::clone(&seen)));
        Self {
            address,
            mode,
            seen,
        }
    }

    /// From now on.
    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Requests so far.
    pub fn seen(&self) -> u64 {
        self.seen.load(Relaxed)
    }
}

/// Listens and closes everything, time and again.
async fn live(address: SocketAddr, mut modes: watch::Receiver<Mode>, seen: Arc<AtomicU64>) {
    loop {
        let up = modes.wait_for(|mode| *mode != Mode::Dead).await.is_ok();
        let listener = if up {
            TcpListener::bind(address).await.ok()
        } else {
            return;
        };
        let Some(listener) = listener else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let mut connections = JoinSet::new();
        let mut death = modes.clone();
        loop {
            tokio::select! {
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.spawn(converse(stream, modes.clone(), Arc::clone(&seen)));
                },
                _ = connections.join_next(), if !connections.is_empty() => {}
                _ = death.wait_for(|mode| *mode == Mode::Dead) => break,
            }
        }
        drop(listener);
        connections.shutdown().await;
    }
}

/// Answers the requests of a connection, none of which has a body.
async fn converse(
    mut stream: TcpStream,
    mut modes: watch::Receiver<Mode>,
    seen: Arc<AtomicU64>,
) -> io::Result<()> {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"id\":\"4711\"}\n";
    const REFUSED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\ndown\n";
    const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 14\r\n\r\n{\"id\":";
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4096);
    loop {
        while !read.ends_with(b"\r\n\r\n") {
            if stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
        }
        read.clear();
        seen.fetch_add(1, Relaxed);
        let mode = *modes.borrow();
        match mode {
            Mode::Serves | Mode::Dead => stream.write_all(OK).await?,
            Mode::Slow(time) => {
                tokio::time::sleep(time).await;
                stream.write_all(OK).await?;
            }
            Mode::Refuses => stream.write_all(REFUSED).await?,
            Mode::Hangs => {
                // Nothing more of this connection, until the fault is over.
                let _ = modes.wait_for(|mode| *mode != Mode::Hangs).await;
                return Ok(());
            }
            Mode::Cuts => {
                stream.write_all(HALF).await?;
                // A moment, so that the reset does not overtake what was written.
                tokio::time::sleep(Duration::from_millis(5)).await;
                return stream.set_zero_linger();
            }
            Mode::Resets => return stream.set_zero_linger(),
        }
    }
}

// === impl Raw ===

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            read: Vec::new(),
        })
    }

    /// Sends a whole request and reads the whole answer; its status.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<u16> {
        self.stream.write_all(request).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some((status, length)) = measure(&self.read)
                && self.read.len() >= length
            {
                return Ok(status);
            }
        }
    }
}

/// The status of an answer whose head is there, and how long it is with its body.
fn measure(read: &[u8]) -> Option<(u16, usize)> {
    let end = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(read.get(..end)?).expect("a head of text");
    let status = head.get(9..12)?.parse().expect("a status");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>())
    });
    Some((
        status,
        end + length.map_or(0, |length| length.expect("a length")),
    ))
}

/// A GET as it is sent.
pub fn get(path: &str, token: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nhost: api.bonterra.network\r\nauthorization: Bearer {token}\r\n\r\n"
    )
    .into_bytes()
}

/// So many hundredths of the times are at most this.
pub fn quantile(sorted: &[Duration], share: usize) -> Duration {
    let at = (sorted.len() * share / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or_default()
}

/// As `1.23 ms`.
pub fn ms(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
}

/// Keeps this process off core 0, by starting it anew; whether the gateway can have that core.
pub fn pin() -> bool {
    if std::env::var_os(PINNED).is_some() {
        return true;
    }
    // It has been told a core already, or there is but one.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 {
        let program = std::env::current_exe().expect("a program");
        let error = Command::new("taskset")
            .args(["-c", &format!("1-{}", cores - 1)])
            .arg(program)
            .env(PINNED, "1")
            .exec();
        println!("NOTE: no taskset ({error})");
    }
    println!("NOTE: gateway and clients share their cores: what is offered takes from what serves");
    false
}

/// A whole number from the environment.
pub fn setting(name: &str, otherwise: u32) -> u32 {
    std::env::var(name).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number"))
    })
}
