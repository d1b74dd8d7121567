//! A collector of OpenTelemetry that a test can read: takes OTLP by gRPC, over hyper's HTTP/2 and with
//! a reader of protobuf of its own, so that what is sent is read by another hand than wrote it.

use super::{eventually, local};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What the collector does with spans.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Takes,
    /// Reads and never answers.
    Hangs,
}

/// A collector. Ends when dropped.
pub struct Collector {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Bytes>>>,
    task: JoinHandle<()>,
}

/// A span as it was sent. Ids are lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub trace: String,
    pub id: String,
    /// Empty: none.
    pub parent: String,
    pub name: String,
    /// 2: server, 3: client.
    pub kind: u64,
    /// 0: unset, 2: error.
    pub status: u64,
    /// Nanoseconds.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    /// What is said of who sent it.
    pub resource: BTreeMap<String, String>,
}

impl Collector {
    pub async fn start() -> Self {
        Self::at(local(), Mood::Takes, None).await
    }

    pub async fn at(address: SocketAddr, mood: Mood, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let received = Arc::<Mutex<Vec<Bytes>>>::default();
        let log = Arc::clone(&received);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (log, tls) = (Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, mood, log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, mood, log).await,
                            Err(error) => eprintln!("the collector's handshake: {error}"),
                        },
                    }
                });
            }
        });
        Self {
            address,
            received,
            task,
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Messages that have come.
    pub fn messages(&self) -> Vec<Bytes> {
        self.received.lock().expect("not poisoned").clone()
    }

    /// All spans that have come.
    pub fn spans(&self) -> Vec<Span> {
        self.messages().iter().flat_map(|it| spans(it)).collect()
    }

    /// The spans of a trace, once there are as many; the server's first.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let find = || {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            spans.sort_by_key(|span| span.kind);
            spans
        };
        eventually("the spans of a trace", || {
            std::future::ready(find().len() >= count)
        })
        .await;
        let spans = find();
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    mood: Mood,
    log: Arc<Mutex<Vec<Bytes>>>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let log = Arc::clone(&log);
        async move {
            assert_eq!(request.uri().path(), EXPORT);
            assert_eq!(request.headers()["content-type"], "application/grpc");
            let body = request.into_body().collect().await.expect("a message");
            let mut message = body.to_bytes();
            // Not compressed, and its length.
            let prefix = message.split_to(5);
            assert_eq!(prefix[0], 0);
            assert_eq!(prefix[1..], u32::to_be_bytes(message.len() as u32));
            if mood == Mood::Hangs {
                std::future::pending::<()>().await;
            }
            log.lock().expect("not poisoned").push(message);
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let empty = Full::new(Bytes::from_static(&[0; 5]));
            let body = empty.with_trailers(async { Some(Ok(trailers)) });
            let mut response = Response::new(body);
            let kind = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert("content-type", kind);
            Ok::<_, Infallible>(response)
        }
    });
    // Clients come and go.
    let _ = http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

// === Protobuf ===

/// A field of a message.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    fn number(&self) -> u64 {
        match self {
            Self::Number(number) => *number,
            Self::Bytes(_) => panic!("no number"),
        }
    }

    fn bytes(&self) -> &'a [u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Number(_) => panic!("no bytes"),
        }
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).expect("UTF-8")
    }

    fn hex(&self) -> String {
        self.bytes().iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// The fields of a message, by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let value = match key & 7 {
            0 => Value::Number(varint(&mut bytes)),
            1 => Value::Number(fixed(&mut bytes, 8)),
            2 => {
                let length = varint(&mut bytes) as usize;
                Value::Bytes(bytes.split_off(..length).expect("whole"))
            }
            5 => Value::Number(fixed(&mut bytes, 4)),
            kind => panic!("wire type {kind}"),
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes.split_off_first().expect("whole");
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return number;
        }
    }
    panic!("a number without an end")
}

fn fixed(bytes: &mut &[u8], length: usize) -> u64 {
    let digits = bytes.split_off(..length).expect("whole");
    digits
        .iter()
        .rev()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The messages in a field.
fn all(message: &[u8], field: u64) -> Vec<&[u8]> {
    let all = fields(message).into_iter();
    all.filter(|(number, _)| *number == field)
        .map(|(_, value)| value.bytes())
        .collect()
}

/// `ExportTraceServiceRequest`.
fn spans(message: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in all(message, 1) {
        let resource = all(resource_spans, 1)
            .into_iter()
            .flat_map(|resource| all(resource, 1))
            .map(attribute)
            .collect();
        for scope_spans in all(resource_spans, 2) {
            for found in all(scope_spans, 2) {
                spans.push(span(found, &resource));
            }
        }
    }
    spans
}

fn span(message: &[u8], resource: &BTreeMap<String, String>) -> Span {
    let mut span = Span {
        trace: String::new(),
        id: String::new(),
        parent: String::new(),
        name: String::new(),
        kind: 0,
        status: 0,
        start: 0,
        end: 0,
        attributes: BTreeMap::new(),
        resource: resource.clone(),
    };
    for (number, value) in fields(message) {
        match number {
            1 => span.trace = value.hex(),
            2 => span.id = value.hex(),
            4 => span.parent = value.hex(),
            5 => span.name = value.text(),
            6 => span.kind = value.number(),
            7 => span.start = value.number(),
            8 => span.end = value.number(),
            9 => span.attributes.extend([attribute(value.bytes())]),
            15 => {
                let code = fields(value.bytes()).into_iter().find(|(n, _)| *n == 3);
                span.status = code.map_or(0, |(_, code)| code.number());
            }
            _ => {}
        }
    }
    span
}

/// `KeyValue`, its value as text.
fn attribute(message: &[u8]) -> (String, String) {
    let (mut key, mut shown) = (String::new(), String::new());
    for (number, value) in fields(message) {
        match number {
            1 => key = value.text(),
            2 => {
                for (kind, value) in fields(value.bytes()) {
                    shown = match kind {
                        1 => value.text(),
                        2 => (value.number() != 0).to_string(),
                        3 => (value.number() as i64).to_string(),
                        other => panic!("a value of kind {other}"),
                    };
                }
            }
            _ => {}
        }
    }
    (key, shown)
}
