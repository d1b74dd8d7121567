//! The event stream.

use std::net::SocketAddr;

use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::*;

const JOHN: &str = "auth0|507f1f77bcf86cd799439011";
const PATIENCE: Duration = Duration::from_secs(10);

/// An open connection.
struct Stream {
    headers: http::HeaderMap,
    body: Incoming,
    text: String,
}

/// One event as it arrived.
#[derive(Debug)]
struct Event {
    kind: String,
    id: String,
    data: Value,
}

impl Stream {
    async fn open(addr: SocketAddr, target: &str, last: Option<&str>, token: &str) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(target)
            .header("host", "demo.test")
            .header("authorization", format!("Bearer {token}"));
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let request = request.body(Empty::<Bytes>::new()).unwrap();
        let reply = timeout(PATIENCE, sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(reply.status(), 200);
        let (parts, body) = reply.into_parts();
        Self {
            headers: parts.headers,
            body,
            text: String::new(),
        }
    }

    /// The next event; `None` at the end of the connection.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let mut fields = block.lines().filter_map(|line| line.split_once(": "));
                let mut field = |wanted: &str| {
                    let (name, value) = fields.next().expect("a field");
                    assert_eq!(name, wanted);
                    value.to_owned()
                };
                let event = Event {
                    kind: field("event"),
                    id: field("id"),
                    data: serde_json::from_str(&field("data")).unwrap(),
                };
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = timeout(PATIENCE, self.body.frame())
                .await
                .expect("in time")?;
            let data = frame.expect("a good frame").into_data().expect("data");
            self.text.push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    async fn next_kind(&mut self) -> String {
        self.next().await.expect("an event").kind
    }
}

async fn listen(auth: &BonterraAuth, from: Option<&str>, last: Option<&str>) -> Stream {
    let target = match from {
        Some(from) => format!(
            "/api/v2/events?{}",
            form_urlencoded::Serializer::new(String::new())
                .append_pair("from", from)
                .finish()
        ),
        None => "/api/v2/events".to_owned(),
    };
    Stream::open(
        auth.addr(),
        &target,
        last,
        &auth.management_token("read:events"),
    )
    .await
}

async fn refused(auth: &BonterraAuth, last: &str, scope: &str) -> (u16, Value) {
    let request = Request::get("/api/v2/events")
        .header(
            "authorization",
            format!("Bearer {}", auth.management_token(scope)),
        )
        .header("last-event-id", last)
        .body(Bytes::new());
    let reply = send(auth.addr(), request.unwrap()).await.unwrap();
    (reply.status.as_u16(), reply.json()["errorCode"].clone())
}

#[tokio::test]
async fn a_changed_user_is_told_to_all_who_listen() {
    let auth = auth().await;
    let (mut one, mut other) = (
        listen(&auth, None, None).await,
        listen(&auth, None, None).await,
    );
    assert_eq!(one.headers["content-type"], "text/event-stream");
    assert_eq!(one.headers["cache-control"], "no-cache");
    let request = Request::patch("/api/v2/users/auth0%7C507f1f77bcf86cd799439011")
        .header(
            "authorization",
            format!("Bearer {}", auth.management_token("update:users")),
        )
        .body(Bytes::from_static(br#"{"name":"Jack"}"#));
    let changed = send(auth.addr(), request.unwrap()).await.unwrap().json();
    for stream in [&mut one, &mut other] {
        let event = stream.next().await.unwrap();
        assert_eq!(event.kind, "user.updated");
        assert_eq!(event.data["offset"], event.id);
        let told = &event.data["event"];
        assert_eq!(told["type"], "user.updated");
        assert!(told["id"].as_str().unwrap().starts_with("evt_"));
        assert!(told["time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(told["data"]["object"], changed);
        assert_eq!(told["data"]["object"]["user_id"], JOHN);
    }
    assert_eq!(auth.counts().events, 2);
}

#[tokio::test]
async fn who_comes_back_gets_what_followed() {
    let auth = auth().await;
    let user = auth.user(JOHN).unwrap();
    let kinds = ["user.created", "user.updated", "user.deleted"];
    let offsets = kinds.map(|kind| auth.emit_event(kind, &user));
    let mut fresh = listen(&auth, None, None).await;
    let mut from = listen(&auth, Some(&offsets[0]), None).await;
    let mut both = listen(&auth, Some(&offsets[0]), Some(&offsets[1])).await;
    let mut empty = listen(&auth, Some(&offsets[1]), Some("")).await;
    assert_eq!(from.next_kind().await, "user.updated");
    assert_eq!(from.next_kind().await, "user.deleted");
    assert_eq!(both.next_kind().await, "user.deleted", "Last-Event-ID wins");
    assert_eq!(
        empty.next_kind().await,
        "user.deleted",
        "an empty one is none"
    );
    auth.emit_event("organization.created", &json!({}));
    for stream in [&mut fresh, &mut from, &mut both, &mut empty] {
        assert_eq!(stream.next_kind().await, "organization.created");
    }
}

#[tokio::test]
async fn an_expired_offset_is_gone_and_an_unknown_one_is_wrong() {
    let auth = auth().await;
    let first = auth.emit_event("user.created", &json!({}));
    auth.expire_events();
    let second = auth.emit_event("user.updated", &json!({}));
    let gone = (410, json!("offset_expired"));
    assert_eq!(refused(&auth, &first, "read:events").await, gone);
    for unknown in ["x", "NTY3", "OTk5OTk5OTk5OTk5"] {
        let wrong = (400, json!("invalid_offset"));
        assert_eq!(
            refused(&auth, unknown, "read:events").await,
            wrong,
            "{unknown}"
        );
    }
    let forbidden = (403, json!("insufficient_scope"));
    assert_eq!(refused(&auth, &second, "read:users").await, forbidden);
    let mut stream = listen(&auth, None, Some(&second)).await;
    auth.emit_event("user.deleted", &json!({}));
    assert_eq!(stream.next_kind().await, "user.deleted");
    for _ in 0..1001 {
        auth.emit_event("user.updated", &json!({}));
    }
    assert_eq!(
        refused(&auth, &second, "read:events").await,
        gone,
        "1,000 are kept"
    );
}

#[tokio::test]
async fn connections_end_by_themselves_and_all_at_once() {
    let auth = auth().await;
    auth.set_event_connection_life(Duration::from_millis(50));
    let mut short = listen(&auth, None, None).await;
    assert!(short.next().await.is_none(), "a clean end");
    auth.set_event_connection_life(Duration::from_secs(60));
    let mut long = listen(&auth, None, None).await;
    auth.emit_event("user.updated", &json!({}));
    auth.end_event_connections();
    let last = long.next().await.expect("what was due").id;
    assert!(long.next().await.is_none());
    let mut next = listen(&auth, None, Some(&last)).await;
    auth.emit_event("user.deleted", &json!({}));
    assert_eq!(next.next_kind().await, "user.deleted");
    auth.stop().await;
    let frame = timeout(PATIENCE, next.body.frame()).await.expect("in time");
    assert!(
        frame.is_none_or(|frame| frame.is_err()),
        "it died with the server"
    );
}
