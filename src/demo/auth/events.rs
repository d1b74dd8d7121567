//! `GET /api/v2/events`: what happened to users, as server-sent events.
//!
//! Every event has an offset. A client that comes back with the last one it saw gets what followed; without one it gets
//! what happens from then on. Connections end after a while, and clients are expected to come back.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::super::body::Body;
use super::answer::{Received, with_type};
use super::directory::timestamp;
use super::management::Problem;
use super::state::Issuer;

/// Events kept for clients that come back.
const KEPT: usize = 1000;
/// Offsets are opaque and do not begin at nought.
const FIRST_NUMBER: u64 = 567_000_001;
/// Written while nothing happens, so that everybody on the way sees a living connection.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// Blocks that wait for a slow client; the others wait in the log.
const AHEAD: usize = 16;

/// The last events, and the rules for those who listen.
pub(super) struct EventLog {
    /// Oldest first, numbered without gaps.
    kept: VecDeque<Bytes>,
    /// The number that the next event gets.
    next: u64,
    /// How long a connection lasts.
    life: Duration,
    /// Tells listeners to look again; its value says how often all connections were ended.
    ended: watch::Sender<u64>,
}

/// A connection: what it has to send next, and when it is over.
struct Listener {
    issuer: Arc<Issuer>,
    next: u64,
    /// How often all connections had been ended when this one began.
    began: u64,
    ended: watch::Receiver<u64>,
    out: mpsc::Sender<Bytes>,
}

// === impl Issuer ===

impl Issuer {
    /// Events after `Last-Event-ID`, else after `from`, else from now on.
    pub(super) fn events(self: &Arc<Self>, request: &Received) -> Response<Body> {
        match self.listen(request) {
            Ok(body) => {
                let mut response = with_type(StatusCode::OK, "text/event-stream", String::new());
                *response.body_mut() = body;
                let headers = response.headers_mut();
                headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
                let buffering = HeaderName::from_static("x-accel-buffering");
                headers.insert(buffering, HeaderValue::from_static("no"));
                response
            }
            Err(problem) => problem.into_response(),
        }
    }

    fn listen(self: &Arc<Self>, request: &Received) -> Result<Body, Problem> {
        self.permitted(request, &["read:events"])?;
        let query = request.query();
        if let Some(name) = query.other_than(&["from"]) {
            let message =
                format!("Query validation error: 'Additional properties not allowed: {name}'.");
            return Err(Problem::bad_request("invalid_query_string", message));
        }
        let last = request.header(HeaderName::from_static("last-event-id"));
        let offset = last.filter(|last| !last.is_empty()).or(query.get("from"));
        let (out, blocks) = mpsc::channel(AHEAD);
        let (listener, life) = {
            let log = &self.state().events;
            let listener = Listener {
                issuer: Arc::clone(self),
                next: log.after(offset)?,
                began: *log.ended.borrow(),
                ended: log.ended.subscribe(),
                out,
            };
            (listener, log.life)
        };
        tokio::spawn(async move {
            // However it ends, the body ends with it, and the client comes back.
            let _ = tokio::time::timeout(life, listener.serve()).await;
        });
        Ok(Body::Live(blocks))
    }
}

// === impl EventLog ===

impl EventLog {
    pub(super) fn new(life: Duration) -> Self {
        Self {
            kept: VecDeque::new(),
            next: FIRST_NUMBER,
            life,
            ended: watch::Sender::new(0),
        }
    }

    /// Something happened to `object`. Returns the offset.
    pub(super) fn emit(&mut self, kind: &str, object: &Value) -> String {
        let offset = STANDARD.encode(self.next.to_string());
        let data = json!({
            "offset": offset,
            "event": {
                "id": format!("evt_{}", Uuid::new_v4().simple()),
                "type": kind,
                "time": timestamp(SystemTime::now()),
                "data": { "object": object },
            },
        });
        let block = format!("event: {kind}\nid: {offset}\ndata: {data}\n\n");
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Bytes::from(block));
        self.next += 1;
        self.ended.send_modify(|_| {});
        offset
    }

    /// Forgets all events: every offset given so far has expired.
    pub(super) fn expire(&mut self) {
        self.kept.clear();
        // The very last offset as well: there is an event after it that nobody will see.
        self.next += 1;
    }

    /// Ends all connections.
    pub(super) fn end_connections(&mut self) {
        self.ended.send_modify(|times| *times += 1);
    }

    pub(super) fn set_life(&mut self, life: Duration) {
        self.life = life;
    }

    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }

    /// The number of the first event after an offset.
    fn after(&self, offset: Option<&str>) -> Result<u64, Problem> {
        let Some(offset) = offset else {
            return Ok(self.next);
        };
        let decoded = STANDARD.decode(offset).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let number = text.and_then(|text| text.parse::<u64>().ok());
        match number.filter(|number| (FIRST_NUMBER..self.next).contains(number)) {
            None => {
                let message = "The offset is none that was given here".to_owned();
                Err(Problem::bad_request("invalid_offset", message))
            }
            Some(number) if number + 1 < self.oldest() => {
                Err(Problem::gone("The offset has expired"))
            }
            Some(number) => Ok(number + 1),
        }
    }

    /// The event with this number, or the next one that is still there.
    fn get(&self, number: u64) -> Option<(u64, Bytes)> {
        let number = number.max(self.oldest());
        let index = usize::try_from(number - self.oldest()).ok()?;
        self.kept.get(index).map(|block| (number, block.clone()))
    }
}

// === impl Listener ===

impl Listener {
    /// Sends until the client leaves or all connections are ended.
    async fn serve(mut self) {
        loop {
            // Marked as seen before looking, so that what happens meanwhile is not missed.
            let over = *self.ended.borrow_and_update() != self.began;
            let due = self.issuer.state().events.get(self.next);
            let sent = match due {
                Some((number, block)) => {
                    self.next = number + 1;
                    self.out.send(block).await
                }
                None if over => return,
                None => tokio::select! {
                    () = self.out.closed() => return,
                    _ = self.ended.changed() => Ok(()),
                    () = tokio::time::sleep(HEARTBEAT) => {
                        self.out.send(Bytes::from_static(b":\n\n")).await
                    }
                },
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
