//! Upstreams that speak HTTP/2: few connections for many requests, and what a server may refuse.

use super::gateway;
use crate::harness::{assert_refused, eventually, local, request, within};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::server::SendResponse;
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Runs `serve` on every connection, with its number from 1.
async fn server<F, Fut>(serve: F) -> (SocketAddr, Arc<AtomicUsize>)
where
    F: Fn(TcpStream, usize) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind(local()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let connections = Arc::<AtomicUsize>::default();
    let accepted = Arc::clone(&connections);
    tokio::spawn(async move {
        let mut serving = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            serving.spawn(serve(stream, accepted.fetch_add(1, Relaxed) + 1));
        }
    });
    (address, connections)
}

/// Serves a connection with hyper, telling what came.
async fn tell(stream: TcpStream, streams: u32, allowed: Arc<Semaphore>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let allowed = Arc::clone(&allowed);
        async move {
            assert_eq!(request.version(), Version::HTTP_2);
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            if head.uri.path().ends_with("/wait") {
                allowed.acquire().await.expect("open").forget();
            }
            let headers: Vec<_> = head.headers.keys().map(|name| name.as_str()).collect();
            let told = json!({
                "uri": head.uri.to_string(),
                "headers": headers,
                "body": String::from_utf8_lossy(&body),
            });
            let told = Full::new(Bytes::from(told.to_string()));
            Ok::<_, Infallible>(Response::new(told))
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(streams)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

const HTTP2: (&str, &str) = ("[upstream.api]", "protocol = \"http2\"");

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let (address, connections) =
        server(|stream, _| tell(stream, 100, Arc::new(Semaphore::new(0)))).await;
    let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
    let get = request(gateway.address, "GET", "/api/a?b=c").header("host", "grants.example:81");
    let replies = join_all((0..50).map(|_| get.send())).await;
    for reply in replies {
        assert_eq!(reply.status, 200);
        let told: Value = reply.json();
        assert_eq!(told["uri"], json!("http://grants.example:81/api/a?b=c"));
        let headers = told["headers"].as_array().expect("names");
        for hidden in ["host", "connection", "transfer-encoding", "te"] {
            assert!(!headers.contains(&json!(hidden)), "{headers:?}");
        }
        assert!(headers.contains(&json!("x-forwarded-for")), "{headers:?}");
    }
    let body = "x".repeat(100_000);
    let put = request(gateway.address, "PUT", "/api/")
        .body(body.clone())
        .send()
        .await;
    assert_eq!(put.json()["body"], json!(body));
    assert_eq!(connections.load(Relaxed), 1);
}

#[tokio::test]
async fn another_connection_is_opened_when_the_first_is_full() {
    let allowed = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&allowed);
    let (address, connections) = server(move |stream, _| tell(stream, 2, Arc::clone(&waits))).await;
    let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
    assert_eq!(
        request(gateway.address, "GET", "/api/").send().await.status,
        200
    );
    let get = request(gateway.address, "GET", "/api/wait");
    let waiting: Vec<_> = (0..6)
        .map(|_| {
            let get = get.clone();
            tokio::spawn(async move { get.send().await.status })
        })
        .collect();
    eventually("six requests have three connections", || {
        std::future::ready(connections.load(Relaxed) >= 3)
    })
    .await;
    allowed.add_permits(6);
    for one in waiting {
        assert_eq!(within("a reply", one).await.expect("no panic"), 200);
    }
    assert_eq!(
        request(gateway.address, "GET", "/api/").send().await.status,
        200
    );
    assert!(
        (3..=4).contains(&connections.load(Relaxed)),
        "{connections:?}"
    );
}

/// Each new connection has room for some of those who wait for it. The others did not meet a fault.
#[tokio::test]
async fn a_burst_opens_as_many_connections_as_it_takes() {
    for (streams, most) in [(100, 20), (25, 40)] {
        let (address, connections) =
            server(move |stream, _| tell(stream, streams, Arc::new(Semaphore::new(1000)))).await;
        let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
        let get = request(gateway.address, "GET", "/api/wait");
        for reply in join_all((0..400).map(|_| get.send())).await {
            assert_eq!(reply.status, 200, "{}", reply.text());
        }
        let connections = connections.load(Relaxed);
        assert!(connections <= most, "{streams}: {connections}");
    }
}

/// A client that sends more than it may is no fault of the server.
#[tokio::test]
async fn a_broken_upload_says_nothing_of_the_server() {
    let (address, _) = server(|stream, _| tell(stream, 100, Arc::new(Semaphore::new(0)))).await;
    let eject = "eject = { after = 1, for = \"1h\", max_ejected = \"100%\" }";
    let changes = [
        HTTP2,
        ("[upstream.api]", eject),
        ("[[route]]", "max_body = \"1KiB\""),
    ];
    let gateway = gateway(&format!("http://{address}"), &changes).await;
    let piece = "x".repeat(2000);
    for _ in 0..20 {
        let mut raw = crate::harness::Raw::connect(gateway.address).await;
        raw.send("PUT /api/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n200\r\n")
            .await;
        raw.send(format!(
            "{}\r\n{:x}\r\n{piece}\r\n",
            "x".repeat(512),
            piece.len()
        ))
        .await;
        assert_eq!(raw.whole().await.status, 413);
    }
    let healthy =
        format!("gateway_upstream_server_healthy{{server=\"{address}\",upstream=\"api\"}}");
    assert_eq!(gateway.metric(&healthy).await, 1.0);
}

/// Bodies that reached a server, with what it did.
type Seen = Arc<Mutex<Vec<String>>>;

/// A server that resets the first stream of all, with this reason.
async fn resetting(reason: Reason) -> (SocketAddr, Seen) {
    let seen = Seen::default();
    let log = Arc::clone(&seen);
    let (address, _) = server(move |stream, _| {
        let log = Arc::clone(&log);
        async move {
            let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let log = Arc::clone(&log);
                tokio::spawn(async move {
                    let body = read(request).await;
                    let number = {
                        let mut log = log.lock().expect("not poisoned");
                        log.push(body);
                        log.len()
                    };
                    match number {
                        1 => respond.send_reset(reason),
                        _ => ok(&mut respond),
                    }
                });
            }
        }
    })
    .await;
    (address, seen)
}

async fn read(request: Request<h2::RecvStream>) -> String {
    let mut body = request.into_body();
    let mut text = String::new();
    while let Some(Ok(data)) = body.data().await {
        text.push_str(&String::from_utf8_lossy(&data));
        let _ = body.flow_control().release_capacity(data.len());
    }
    text
}

fn ok(respond: &mut SendResponse<Bytes>) {
    let mut stream = respond
        .send_response(Response::new(()), false)
        .expect("a response");
    stream
        .send_data(Bytes::from_static(b"ok"), true)
        .expect("a body");
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_whatever_its_method() {
    for (method, reason, status, times) in [
        ("GET", Reason::REFUSED_STREAM, 200, 2),
        ("POST", Reason::REFUSED_STREAM, 200, 2),
        ("PUT", Reason::INTERNAL_ERROR, 200, 2),
        ("POST", Reason::INTERNAL_ERROR, 502, 1),
    ] {
        let (address, seen) = resetting(reason).await;
        let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
        let reply = request(gateway.address, method, "/api/")
            .body("body")
            .send()
            .await;
        assert_eq!(reply.status, status, "{method} {reason}: {}", reply.text());
        if status != 200 {
            assert_refused(&gateway, &reply, status, "upstream_reset", "api").await;
        }
        let seen = seen.lock().expect("not poisoned").clone();
        assert_eq!(seen, vec!["body"; times], "{method} {reason}");
    }
}

/// A server that shuts down says how far it has come: what came later is sent to another.
#[tokio::test]
async fn what_a_goaway_leaves_out_is_sent_again() {
    for method in ["GET", "POST"] {
        let allowed = Arc::new(Semaphore::new(0));
        let (address, connections) = server(move |mut stream, number| {
            let allowed = Arc::clone(&allowed);
            async move {
                if number > 1 {
                    return tell(stream, 100, allowed).await;
                }
                // Our settings, then: no stream was worked on.
                let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
                let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                stream.write_all(&settings).await.expect("sent");
                let mut read = vec![0; 64 << 10];
                let mut came = Vec::new();
                // The type of a frame is its fourth byte; HEADERS is 1, and comes behind the preface.
                while !has_headers(&came) {
                    let more = stream.read(&mut read).await.expect("read");
                    assert!(more > 0, "closed");
                    came.extend_from_slice(&read[..more]);
                }
                stream.write_all(&goaway).await.expect("sent");
                while stream.read(&mut read).await.is_ok_and(|more| more > 0) {}
            }
        })
        .await;
        let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
        let reply = request(gateway.address, method, "/api/")
            .body("body")
            .send()
            .await;
        assert_eq!(reply.status, 200, "{method}: {}", reply.text());
        assert_eq!(reply.json()["body"], json!("body"), "{method}");
        assert_eq!(connections.load(Relaxed), 2, "{method}");
    }
}

fn has_headers(came: &[u8]) -> bool {
    let mut frames = came.get(24..).unwrap_or_default();
    while let Some(head) = frames.first_chunk::<9>() {
        if head[3] == 1 {
            return true;
        }
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        frames = frames.get(9 + length..).unwrap_or_default();
    }
    false
}

#[tokio::test]
async fn a_server_that_speaks_something_else_is_502() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        "220 mail.example ESMTP ready, and whatever else belongs into a greeting\r\n",
    ] {
        let (address, _) = server(move |mut stream, _| async move {
            let mut read = [0; 1024];
            let _ = stream.read(&mut read).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            while stream.read(&mut read).await.is_ok_and(|more| more > 0) {}
        })
        .await;
        let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
        let reply = request(gateway.address, "GET", "/api/").send().await;
        assert_refused(&gateway, &reply, 502, "upstream_protocol", "api").await;
    }
}

#[tokio::test]
async fn a_server_that_nobody_runs_is_502_for_all_who_wait_for_one_connection() {
    let gateway = gateway(&format!("http://{}", crate::harness::nobody()), &[HTTP2]).await;
    let get = request(gateway.address, "GET", "/api/");
    for reply in join_all((0..20).map(|_| get.send())).await {
        assert_refused(&gateway, &reply, 502, "upstream_connect", "api").await;
    }
}

/// One request that ends, by a client that leaves, does not end the others of its connection.
#[tokio::test]
async fn a_client_that_leaves_takes_its_own_stream_along_only() {
    let allowed = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&allowed);
    let (address, connections) =
        server(move |stream, _| tell(stream, 100, Arc::clone(&waits))).await;
    let gateway = gateway(&format!("http://{address}"), &[HTTP2]).await;
    let get = request(gateway.address, "GET", "/api/wait");
    let stays = tokio::spawn({
        let get = get.clone();
        async move { get.send().await.status }
    });
    let mut leaver = crate::harness::Raw::connect(gateway.address).await;
    leaver
        .send("GET /api/wait HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    eventually("both are in flight", async || {
        gateway.metric("gateway_requests_in_flight").await == 2.0
    })
    .await;
    drop(leaver);
    eventually("one is left", async || {
        gateway.metric("gateway_requests_in_flight").await == 1.0
    })
    .await;
    allowed.add_permits(2);
    assert_eq!(within("the other", stays).await.expect("no panic"), 200);
    assert_eq!(connections.load(Relaxed), 1);
}
