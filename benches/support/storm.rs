//! Token requests by the thousand against an issuer that fails in every way, each with a mark of its
//! own: whether one arrives twice, and whether anybody gets what is another's.
//!
//! For the bench, which sends a hundred thousand, and for the tests, which send fewer.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// How long the gateway may wait for an answer: the `timeout` of the issuer in its configuration.
pub const TIMEOUT: Duration = Duration::from_millis(500);

/// Two surfaces in front of it; `ISSUER` and `TOKEN` stand for addresses.
pub const SURFACES: &str = r#"
[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]
jwks_uri = "ISSUER.well-known/jwks.json"
token_endpoint = "TOKEN"
timeout = "500ms"

[oauth.plain]
issuer = "bonterra"
prefix = "/plain"

[oauth.cached]
issuer = "bonterra"
prefix = "/cached"

[oauth.cached.cache]
enabled = true
max_entries = 100000
"#;

/// Clients, each with requests of its own, one after the other.
const CLIENTS: u32 = 64;

/// What the issuer does with a request: told by its number, so that both ends know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// A token.
    Issues,
    /// A token, and the connection is closed without a word.
    IssuesAndCloses,
    /// A token, after a while.
    Slow,
    /// Nothing, until the gateway gives up.
    Hangs,
    /// A reset in place of an answer.
    Resets,
    /// Half an answer, and a reset.
    Cuts,
    /// An answer that is an error.
    Fails(u16),
    /// 200 with something that is no token.
    Babbles(&'static str),
}

/// An issuer's token endpoint.
pub struct Issuer {
    /// Where it listens, at any path.
    pub address: SocketAddr,
    seen: Arc<Seen>,
}

/// How often each mark has arrived.
type Seen = Mutex<HashMap<u32, u32>>;

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Requests that were sent.
    pub sent: u32,
    /// Answers with a token.
    pub tokens: u32,
    /// Answers that say that there is none.
    pub errors: u32,
    /// Requests whose client left before the answer.
    pub left: u32,
    /// Requests that met a connection which the issuer was just closing: they may have been sent, so
    /// they are not sent again, and did not arrive.
    pub unlucky: Vec<u32>,
    /// Marks that arrived at the issuer.
    pub arrived: usize,
    /// What must not be, in words.
    pub wrong: Vec<String>,
}

// === impl Plan ===

impl Plan {
    fn of(number: u32) -> Self {
        match number % 20 {
            0 => Self::Resets,
            1 => Self::Cuts,
            2 => Self::Fails(500),
            3 => Self::Fails(429),
            4 => Self::Fails(401),
            5 => Self::IssuesAndCloses,
            // Seldom: each takes as long as the gateway waits.
            6 if number % 400 == 6 => Self::Hangs,
            7 => Self::Slow,
            8 => Self::Babbles(""),
            9 => Self::Babbles("<html>maintenance</html>"),
            _ => Self::Issues,
        }
    }

    /// The status that the client has to get.
    fn status(self) -> u16 {
        match self {
            Self::Issues | Self::IssuesAndCloses | Self::Slow => 200,
            Self::Hangs => 504,
            Self::Resets | Self::Cuts | Self::Babbles(_) => 502,
            Self::Fails(status) => status,
        }
    }
}

// === impl Issuer ===

impl Issuer {
    /// Serves on a port of its own, on the current runtime.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let noted = Arc::clone(&seen);
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, Arc::clone(&noted)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, seen })
    }
}

async fn converse(mut stream: TcpStream, seen: Arc<Seen>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4096);
    while let Some(text) = message(&mut stream, &mut read).await? {
        let Some(number) = mark(&text, "mark-") else {
            return Ok(());
        };
        note(&seen, number);
        let token = format!(
            "{{\"access_token\":\"token-{number}\",\"token_type\":\"Bearer\",\"expires_in\":3600}}"
        );
        let issued = answer(200, &token);
        match Plan::of(number) {
            Plan::Issues => stream.write_all(&issued).await?,
            Plan::IssuesAndCloses => return stream.write_all(&issued).await,
            Plan::Slow => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                stream.write_all(&issued).await?;
            }
            Plan::Hangs => {
                tokio::time::sleep(TIMEOUT * 2).await;
                return Ok(());
            }
            Plan::Resets => return stream.set_zero_linger(),
            Plan::Cuts => {
                let half = issued.get(..issued.len() - 9).unwrap_or_default();
                stream.write_all(half).await?;
                return Ok(());
            }
            Plan::Fails(status) => {
                let error = format!("{{\"error\":\"of-{number}\"}}");
                stream.write_all(&answer(status, &error)).await?;
            }
            Plan::Babbles(text) => stream.write_all(&answer(200, text)).await?,
        }
    }
    Ok(())
}

fn note(seen: &Seen, number: u32) {
    let mut marks = seen.lock().unwrap_or_else(PoisonError::into_inner);
    *marks.entry(number).or_default() += 1;
}

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nretry-after: 1\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Head and body of the next message; `None` at the end of the connection.
async fn message(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(length) = measure(read)
            && read.len() >= length
        {
            let rest = read.split_off(length);
            let text = String::from_utf8_lossy(read).into_owned();
            *read = rest;
            return Ok(Some(text));
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

fn measure(read: &[u8]) -> Option<usize> {
    let end = memchr::memmem::find(read, b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(read.get(..end)?).to_ascii_lowercase();
    let length = head.lines().find_map(|line| {
        let value = line.strip_prefix("content-length:")?;
        value.trim().parse::<usize>().ok()
    });
    Some(end + length.unwrap_or(0))
}

/// The number behind a word.
fn mark(text: &str, word: &str) -> Option<u32> {
    let rest = text.get(text.find(word)? + word.len()..)?;
    let end = rest.find(|c: char| !c.is_ascii_digit());
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

/// Sends so many requests to the surfaces at these prefixes, and looks at what comes of each.
pub async fn storm(
    gateway: SocketAddr,
    prefixes: &[&str],
    issuer: &Issuer,
    posts: u32,
) -> Findings {
    let prefixes: Arc<[String]> = prefixes.iter().map(|prefix| (*prefix).to_owned()).collect();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let prefixes = Arc::clone(&prefixes);
        clients.spawn(async move {
            let mut found = Findings::default();
            let mut stream = None;
            for number in (client..posts).step_by(CLIENTS as usize) {
                one(gateway, &prefixes, number, &mut stream, &mut found).await;
            }
            found
        });
    }
    let mut all = Findings::default();
    while let Some(found) = clients.join_next().await {
        all.add(found.unwrap_or_else(|error| Findings::wrong(error.to_string())));
    }
    all.compare(issuer, posts);
    all
}

/// Who sends which parameters of which grant.
fn body(number: u32) -> String {
    let client = number % 50;
    let credentials = format!("client_id=client-{client}&client_secret=secret-{client}");
    match number % 3 {
        0 => format!("grant_type=client_credentials&scope=mark-{number}&{credentials}"),
        1 => format!("grant_type=refresh_token&refresh_token=mark-{number}&{credentials}"),
        _ => format!("grant_type=authorization_code&code=mark-{number}&{credentials}"),
    }
}

async fn one(
    gateway: SocketAddr,
    prefixes: &[String],
    number: u32,
    stream: &mut Option<TcpStream>,
    found: &mut Findings,
) {
    let prefix = &prefixes[number as usize / 3 % prefixes.len()];
    let body = body(number);
    let request = format!(
        "POST {prefix}/token HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/x-www-form-urlencoded\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    found.sent += 1;
    // Some clients leave as soon as they have asked.
    let leaves = number % 20 == 10;
    // Two tabs of one browser refresh at once; they are one for the issuer.
    let twins = number % 3 == 1 && number % 20 == 11;
    let outcome = async {
        let own = match stream.take() {
            Some(own) => own,
            None => TcpStream::connect(gateway).await?,
        };
        if twins {
            let mut other = TcpStream::connect(gateway).await?;
            let mut own = own;
            let (one, two) =
                tokio::join!(exchange(&mut own, &request), exchange(&mut other, &request));
            *stream = Some(own);
            found.judge(number, two?);
            return Ok(Some(one?));
        }
        let mut own = own;
        if leaves {
            own.write_all(request.as_bytes()).await?;
            return Ok(None);
        }
        let said = exchange(&mut own, &request).await?;
        *stream = Some(own);
        io::Result::Ok(Some(said))
    };
    match outcome.await {
        Ok(Some(said)) => found.judge(number, said),
        Ok(None) => found.left += 1,
        Err(error) => found.wrong.push(format!("{number}: {error}")),
    }
}

/// Status and text of the answer.
async fn exchange(stream: &mut TcpStream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes()).await?;
    let mut read = Vec::new();
    let said = message(stream, &mut read).await?;
    said.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

// === impl Findings ===

impl Findings {
    fn wrong(text: String) -> Self {
        Self {
            wrong: vec![text],
            ..Self::default()
        }
    }

    /// Looks at what a client was told.
    fn judge(&mut self, number: u32, said: String) {
        let status = said.get(9..12).and_then(|status| status.parse().ok());
        let plan = Plan::of(number);
        if plan.status() == 200 && status == Some(502) {
            self.unlucky.push(number);
            return;
        }
        if status != Some(plan.status()) {
            let line = said.lines().next().unwrap_or_default();
            self.wrong.push(format!("{number}: {line} for {plan:?}"));
        }
        let own = |word| mark(&said, word).is_none_or(|other| other == number);
        if !own("token-") || !own("of-") {
            self.wrong.push(format!("{number} got another's: {said}"));
        }
        let token = mark(&said, "token-").is_some();
        if token != (plan.status() == 200) {
            self.wrong
                .push(format!("{number}: token {token} for {plan:?}"));
        }
        match token {
            true => self.tokens += 1,
            false => self.errors += 1,
        }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.tokens += other.tokens;
        self.errors += other.errors;
        self.left += other.left;
        self.unlucky.extend(other.unlucky);
        self.wrong.extend(other.wrong);
    }

    /// Looks at what the issuer has seen.
    fn compare(&mut self, issuer: &Issuer, posts: u32) {
        let seen = issuer.seen.lock().unwrap_or_else(PoisonError::into_inner);
        self.arrived = seen.len();
        for number in 0..posts {
            let times = seen.get(&number).copied().unwrap_or(0);
            let expected = match number {
                _ if self.unlucky.contains(&number) => 0..=0,
                // Whose client has left may have been dropped on the way.
                _ if number % 20 == 10 => 0..=1,
                _ => 1..=1,
            };
            if !expected.contains(&times) {
                self.wrong.push(format!("{number} arrived {times} times"));
            }
        }
    }
}
