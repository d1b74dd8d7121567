//! A reader of HTTP/1.1 messages (RFC 9112) that shares no code with the gateway and forgives
//! nothing: what could be read in two ways is an error. It says what a client's bytes may mean at
//! most, and whether what went to an upstream can be read in one way only.

/// A message, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or version and status.
    pub first: String,
    pub second: String,
    /// Names in lower case, and values, in the order they came.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// How much is forgiven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rigour {
    /// What RFC 9112 lets a server take: empty lines ahead of a request, chunk extensions,
    /// HTTP/1.0.
    Client,
    /// What the gateway writes: nothing of that.
    Upstream,
}

/// A message and how many bytes it took; `None` if there is more to come; or what is wrong.
pub type Read<T> = Result<Option<(T, usize)>, String>;

/// All whole messages at the beginning, how many bytes they took, and what is wrong behind them.
#[derive(Debug)]
pub struct Stream {
    pub messages: Vec<Message>,
    pub taken: usize,
    pub wrong: Option<String>,
}

struct Lines<'b> {
    bytes: &'b [u8],
    at: usize,
}

/// Why reading goes no further.
enum Stop {
    More,
    Wrong(String),
}

/// Where a body ends.
enum Body {
    None,
    Length(usize),
    Chunked,
    UntilClose,
}

type Step<T> = Result<T, Stop>;

/// The first request.
pub fn request(bytes: &[u8], rigour: Rigour) -> Read<Message> {
    let mut lines = Lines { bytes, at: 0 };
    settled(lines.request(rigour), lines.at)
}

/// The first response that is not informational; `method` is what it answers.
pub fn response(bytes: &[u8], method: &str, closed: bool) -> Read<Message> {
    let mut lines = Lines { bytes, at: 0 };
    settled(lines.response(method, closed), lines.at)
}

fn settled(read: Step<Message>, at: usize) -> Read<Message> {
    match read {
        Ok(message) => Ok(Some((message, at))),
        Err(Stop::More) => Ok(None),
        Err(Stop::Wrong(what)) => Err(what),
    }
}

/// All requests.
pub fn requests(bytes: &[u8], rigour: Rigour) -> Stream {
    all(bytes, |rest, _| request(rest, rigour))
}

/// All responses; `methods` are the requests that they answer, in order.
pub fn responses(bytes: &[u8], methods: &[&str], closed: bool) -> Stream {
    all(bytes, |rest, number| {
        response(rest, methods.get(number).unwrap_or(&"GET"), closed)
    })
}

fn all(bytes: &[u8], mut next: impl FnMut(&[u8], usize) -> Read<Message>) -> Stream {
    let mut stream = Stream {
        messages: Vec::new(),
        taken: 0,
        wrong: None,
    };
    while stream.taken < bytes.len() {
        match next(&bytes[stream.taken..], stream.messages.len()) {
            Ok(Some((message, taken))) => {
                stream.messages.push(message);
                stream.taken += taken;
            }
            Ok(None) => break,
            Err(what) => {
                stream.wrong = Some(what);
                break;
            }
        }
    }
    stream
}

// === impl Message ===

impl Message {
    /// The values of a field; the name in lower case.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(own, _)| own == name);
        named.map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn body(&self, is_old: bool) -> Result<Body, String> {
        let (lengths, codings) = (
            self.values("content-length"),
            self.values("transfer-encoding"),
        );
        match (lengths.as_slice(), codings.as_slice()) {
            ([], []) => Ok(Body::None),
            ([length], []) => {
                let digits = length.bytes().all(|b| b.is_ascii_digit());
                let length = length.parse().ok().filter(|_| digits);
                length.map(Body::Length).ok_or("a bad length".to_owned())
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") && !is_old => {
                Ok(Body::Chunked)
            }
            _ => Err(format!("lengths {lengths:?}, codings {codings:?}")),
        }
    }
}

// === impl Lines ===

impl<'b> Lines<'b> {
    fn take(&mut self, count: usize) -> Step<&'b [u8]> {
        let end = self.at.checked_add(count).ok_or(Stop::More)?;
        let taken = self.bytes.get(self.at..end).ok_or(Stop::More)?;
        self.at = end;
        Ok(taken)
    }

    /// A line without its CR LF.
    fn line(&mut self) -> Step<&'b [u8]> {
        let rest = &self.bytes[self.at..];
        let stop = rest.iter().position(|b| matches!(b, b'\r' | b'\n' | 0));
        let Some(stop) = stop else {
            return Err(Stop::More);
        };
        match (rest[stop], rest.get(stop + 1)) {
            (b'\r', Some(b'\n')) => {
                self.at += stop + 2;
                Ok(&rest[..stop])
            }
            (b'\r', None) => Err(Stop::More),
            _ => wrong("a bare CR or LF, or NUL", rest),
        }
    }

    fn request(&mut self, rigour: Rigour) -> Step<Message> {
        let mut line = self.line()?;
        while line.is_empty() && rigour == Rigour::Client {
            line = self.line()?;
        }
        let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
        let [method, target, version] = words.as_slice() else {
            return wrong("not three words", line);
        };
        let graphic = |b: &u8| b.is_ascii_graphic() && *b != b'#';
        if !is_token(method) || target.is_empty() || !target.iter().all(graphic) {
            return wrong("a bad method or target", line);
        }
        let is_old = *version == b"HTTP/1.0";
        if *version != b"HTTP/1.1" && !(is_old && rigour == Rigour::Client) {
            return wrong("a bad version", line);
        }
        let mut message = self.head(method, target)?;
        if rigour == Rigour::Upstream && message.values("host").len() != 1 {
            return wrong("not one Host", line);
        }
        message.body = match message.body(is_old).map_err(Stop::Wrong)? {
            Body::None | Body::UntilClose => Vec::new(),
            Body::Length(length) => self.take(length)?.to_vec(),
            Body::Chunked => self.chunks(rigour)?,
        };
        Ok(message)
    }

    fn response(&mut self, method: &str, closed: bool) -> Step<Message> {
        loop {
            let line = self.line()?;
            let (version, rest) = line.split_at_checked(9).unwrap_or_default();
            let (status, rest) = rest.split_at_checked(3).unwrap_or_default();
            let is_old = version == b"HTTP/1.0 ";
            if (version != b"HTTP/1.1 " && !is_old)
                || !status.iter().all(u8::is_ascii_digit)
                || !(rest.is_empty() || rest.starts_with(b" "))
            {
                return wrong("a bad status line", line);
            }
            let mut message = self.head(&version[..8], status)?;
            if status.starts_with(b"1") {
                continue;
            }
            let none = method == "HEAD" || matches!(status, b"204" | b"304");
            let body = match message.body(is_old).map_err(Stop::Wrong)? {
                _ if none => Body::None,
                Body::None => Body::UntilClose,
                body => body,
            };
            message.body = match body {
                Body::None => Vec::new(),
                Body::Length(length) => self.take(length)?.to_vec(),
                Body::Chunked => self.chunks(Rigour::Upstream)?,
                Body::UntilClose if closed => self.take(self.bytes.len() - self.at)?.to_vec(),
                Body::UntilClose => return Err(Stop::More),
            };
            return Ok(message);
        }
    }

    fn head(&mut self, first: &[u8], second: &[u8]) -> Step<Message> {
        Ok(Message {
            first: text(first),
            second: text(second),
            fields: self.fields()?,
            body: Vec::new(),
        })
    }

    fn fields(&mut self) -> Step<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some(colon) = line.iter().position(|b| *b == b':') else {
                return wrong("no colon", line);
            };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            let visible = |b: &u8| *b == b'\t' || *b >= b' ' && *b != 0x7f;
            if !is_token(name) || !value.iter().all(visible) {
                return wrong("a bad field", line);
            }
            let value = text(value);
            let value = value.trim_matches([' ', '\t']);
            fields.push((text(name).to_ascii_lowercase(), value.to_owned()));
        }
    }

    fn chunks(&mut self, rigour: Rigour) -> Step<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
            let (digits, rest) = line.split_at(digits);
            let extension = rest.trim_ascii_start().starts_with(b";");
            let blank = rest.iter().all(|b| matches!(b, b' ' | b'\t'));
            let fits = rest.is_empty() || rigour == Rigour::Client && (blank || extension);
            let size = usize::from_str_radix(&text(digits), 16).ok();
            let Some(size) = size.filter(|_| fits) else {
                return wrong("a bad chunk size", line);
            };
            if size == 0 {
                break;
            }
            body.extend_from_slice(self.take(size)?);
            let end = self.take(2)?;
            if end != b"\r\n" {
                return wrong("a chunk that does not end", end);
            }
        }
        let framing = ["content-length", "transfer-encoding", "host"];
        let trailers = self.fields()?;
        if rigour == Rigour::Upstream && trailers.iter().any(|(name, _)| framing.contains(&&**name))
        {
            return wrong("a trailer that is none", b"");
        }
        Ok(body)
    }
}

fn is_token(word: &[u8]) -> bool {
    let token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    !word.is_empty() && word.iter().all(token)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn wrong<T>(what: &str, at: &[u8]) -> Step<T> {
    let at = text(&at[..at.len().min(60)]);
    Err(Stop::Wrong(format!("{what}: {at:?}")))
}

#[test]
fn it_reads_what_is_right_and_nothing_else() {
    let good = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok\
        PUT /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx: y\r\n\r\n";
    let read = requests(good, Rigour::Upstream);
    assert_eq!(
        (read.messages.len(), read.taken, read.wrong),
        (2, good.len(), None)
    );
    assert!(read.messages.iter().all(|message| message.text() == "ok"));
    for end in 0..good.len() {
        let cut = requests(&good[..end], Rigour::Upstream);
        assert!(cut.messages.len() < 2 && cut.wrong.is_none(), "{end}");
    }
    for (bad, allowed) in [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", false),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\n x\r\n\r\n", false),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n",
            false,
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 ;x\r\nx\r\n0\r\n\r\n",
            true,
        ),
        ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nHost: a\r\n\r\n", true),
    ] {
        let upstream = request(bad.as_bytes(), Rigour::Upstream);
        assert!(upstream.is_err(), "{bad:?}: {upstream:?}");
        let client = request(bad.as_bytes(), Rigour::Client);
        assert_eq!(client.is_ok(), allowed, "{bad:?}: {client:?}");
    }
    let answers = b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
        HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.0 200 OK\r\n\r\nto the end";
    let read = responses(answers, &["GET", "HEAD", "GET"], true);
    let statuses: Vec<_> = read.messages.iter().map(|m| m.second.as_str()).collect();
    assert_eq!(
        (statuses, read.taken),
        (vec!["204", "200", "200"], answers.len())
    );
}
