//! An upstream may answer before it has read the whole request. What still comes is an upload that its server
//! has to take, so it has its place there until it is over, and no longer than any other upload.

use super::gateway;
use crate::harness::{
    Gateway, PATIENCE, Raw, RawUpstream, assert_refused, eventually, local, request,
};
use bytes::Bytes;
use http::Response;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const HEAD: &str = "POST /api/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const PIECE: &str = "1\r\nx\r\n";

/// Uploads that have ended, however.
type Ended = Arc<AtomicUsize>;

/// Answers every request as soon as its head is there, and reads the rest of it when it may.
async fn hasty(may_read: Arc<Semaphore>) -> (RawUpstream, Ended) {
    let ended = Ended::default();
    let count = Arc::clone(&ended);
    let upstream = RawUpstream::start(move |mut raw: Raw| {
        let (count, may_read) = (Arc::clone(&count), Arc::clone(&may_read));
        async move {
            while let Some(head) = raw.asked().await {
                raw.send(ANSWER).await;
                if !head.contains("chunked") {
                    continue;
                }
                may_read.acquire().await.expect("open").forget();
                let mut body = String::new();
                while !body.ends_with("0\r\n\r\n") {
                    match raw.some().await {
                        more if more.is_empty() => break,
                        more => body.push_str(&more),
                    }
                }
                count.fetch_add(1, Relaxed);
            }
        }
    })
    .await;
    (upstream, ended)
}

/// A gateway that lets one request at a time to the upstream, with more lines for it, its server and its route.
async fn narrow(url: &str, upstream: &str, server: &str, route: &str) -> Gateway {
    let upstream = format!("max_connections = 1\nmax_pending = 0\n{upstream}");
    let changes = [
        ("[upstream.api]", upstream.as_str()),
        ("[server]", server),
        ("[[route]]", route),
    ];
    gateway(url, &changes).await
}

/// A client that has been answered, and has sent two pieces of a body without an end.
async fn answered(gateway: &Gateway) -> Raw {
    let mut client = Raw::connect(gateway.address).await;
    client.send(format!("{HEAD}{PIECE}")).await;
    let (head, body) = client.reply().await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(body, "ok");
    client.send(PIECE).await;
    client
}

/// A byte now and then, until the upload has ended.
async fn trickle(client: &mut Raw, ended: &Ended) {
    let deadline = Instant::now() + PATIENCE;
    while ended.load(Relaxed) == 0 {
        assert!(Instant::now() < deadline, "the upload goes on");
        client.try_send(PIECE.as_bytes()).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn is_full(gateway: &Gateway) {
    eventually("the response has ended", async || {
        gateway.metric("gateway_requests_in_flight").await == 0.0
    })
    .await;
    let reply = request(gateway.address, "GET", "/api/").send().await;
    assert_refused(gateway, &reply, 503, "overloaded", "api").await;
}

async fn becomes_free(gateway: &Gateway) {
    let get = request(gateway.address, "GET", "/api/");
    eventually("a place", async || get.send().await.status == 200).await;
}

#[tokio::test]
async fn an_upload_keeps_its_place_until_it_has_ended() {
    let (upstream, ended) = hasty(Arc::new(Semaphore::new(9))).await;
    let gateway = narrow(&upstream.url(), "", "", "").await;
    let mut client = answered(&gateway).await;
    is_full(&gateway).await;
    assert_eq!(ended.load(Relaxed), 0);
    client.send("0\r\n\r\n").await;
    becomes_free(&gateway).await;
    assert_eq!(ended.load(Relaxed), 1, "all of it has arrived");
}

#[tokio::test]
async fn an_upload_gives_its_place_back_when_its_client_leaves() {
    let (upstream, ended) = hasty(Arc::new(Semaphore::new(9))).await;
    let gateway = narrow(&upstream.url(), "", "", "").await;
    let client = answered(&gateway).await;
    is_full(&gateway).await;
    drop(client);
    becomes_free(&gateway).await;
    eventually("the upstream is told", || {
        std::future::ready(ended.load(Relaxed) == 1)
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_stalls_behind_its_response_is_given_up() {
    let (upstream, ended) = hasty(Arc::new(Semaphore::new(9))).await;
    let gateway = narrow(&upstream.url(), "", "body_timeout = \"1s\"", "").await;
    let _client = answered(&gateway).await;
    is_full(&gateway).await;
    becomes_free(&gateway).await;
    eventually("the upstream is told", || {
        std::future::ready(ended.load(Relaxed) == 1)
    })
    .await;
}

/// A byte now and then does not keep it beyond the route's time.
#[tokio::test]
async fn an_upload_ends_with_the_time_of_its_route() {
    let (upstream, ended) = hasty(Arc::new(Semaphore::new(9))).await;
    let gateway = narrow(&upstream.url(), "", "", "timeout = \"1s\"").await;
    let started = Instant::now();
    let mut client = answered(&gateway).await;
    is_full(&gateway).await;
    trickle(&mut client, &ended).await;
    assert!(started.elapsed() >= Duration::from_secs(1));
    becomes_free(&gateway).await;
}

/// The upstream does not read on. Nothing of the upload moves, and neither side would ever say so.
#[tokio::test]
async fn an_upload_that_its_upstream_does_not_read_is_given_up() {
    let may_read = Arc::new(Semaphore::new(0));
    let (upstream, ended) = hasty(Arc::clone(&may_read)).await;
    let gateway = narrow(&upstream.url(), "", "body_timeout = \"1s\"", "").await;
    let client = answered(&gateway).await;
    let (_reads, mut writes) = client.stream.into_split();
    let sending = tokio::spawn(async move {
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while tokio::io::AsyncWriteExt::write_all(&mut writes, piece.as_bytes())
            .await
            .is_ok()
        {}
    });
    is_full(&gateway).await;
    becomes_free(&gateway).await;
    // Behind what was on its way comes the end.
    may_read.add_permits(1);
    eventually("the upstream is told", || {
        std::future::ready(ended.load(Relaxed) == 1)
    })
    .await;
    sending.abort();
}

/// An HTTP/2 upstream that answers at once and reads on until the stream ends.
async fn hasty_http2() -> (SocketAddr, Ended) {
    let listener = TcpListener::bind(local()).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let ended = Ended::default();
    let count = Arc::clone(&ended);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let count = Arc::clone(&count);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let head = Response::builder().header("content-length", "2");
                    let mut answer = respond
                        .send_response(head.body(()).expect("a head"), false)
                        .expect("a response");
                    answer
                        .send_data(Bytes::from_static(b"ok"), true)
                        .expect("a body");
                    let mut body = request.into_body();
                    if body.is_end_stream() {
                        continue;
                    }
                    let count = Arc::clone(&count);
                    tokio::spawn(async move {
                        while let Some(Ok(_)) = body.data().await {}
                        count.fetch_add(1, Relaxed);
                    });
                }
            });
        }
    });
    (address, ended)
}

#[tokio::test]
async fn an_http2_upload_keeps_its_place_until_it_has_ended() {
    let (address, ended) = hasty_http2().await;
    let url = format!("http://{address}");
    let gateway = narrow(&url, "protocol = \"http2\"", "", "").await;
    let mut client = answered(&gateway).await;
    is_full(&gateway).await;
    assert_eq!(ended.load(Relaxed), 0);
    client.send("0\r\n\r\n").await;
    becomes_free(&gateway).await;
    let leaver = answered(&gateway).await;
    is_full(&gateway).await;
    drop(leaver);
    becomes_free(&gateway).await;
    eventually("the upstream is told", || {
        std::future::ready(ended.load(Relaxed) == 2)
    })
    .await;
}

#[tokio::test]
async fn an_http2_upload_ends_with_the_time_of_its_route() {
    let (address, ended) = hasty_http2().await;
    let url = format!("http://{address}");
    let gateway = narrow(&url, "protocol = \"http2\"", "", "timeout = \"1s\"").await;
    let mut client = answered(&gateway).await;
    is_full(&gateway).await;
    trickle(&mut client, &ended).await;
    becomes_free(&gateway).await;
}
