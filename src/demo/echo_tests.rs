use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::test_client::{get, post, send};
use super::*;

async fn echo() -> Echo {
    Echo::start((Ipv4Addr::LOCALHOST, 0).into())
        .await
        .expect("a free port")
}

#[tokio::test]
async fn tells_what_it_received() {
    let echo = echo().await;
    let request = Request::post("/grants/a%2Fb?x=1&y")
        .header("host", "api.example.org")
        .header("x-two", "second")
        .header("x-one", "first")
        .body(Bytes::from("hello"))
        .unwrap();
    let told = send(echo.addr(), request).await.unwrap().json();
    assert_eq!(told["method"], "POST");
    assert_eq!(told["path"], "/grants/a%2Fb?x=1&y");
    assert_eq!(told["host"], "api.example.org");
    assert_eq!(told["headers"][1], json!(["x-two", "second"]));
    assert_eq!(told["headers"][2], json!(["x-one", "first"]));
    assert_eq!(told["body"], "hello");
    assert_eq!(told["body_bytes"], 5);
    assert_eq!(
        told["body_sha256"],
        "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    );

    let seen = echo.seen();
    assert_eq!((seen.len(), echo.requests(), echo.connections()), (1, 1, 1));
    assert_eq!(seen[0].target, "/grants/a%2Fb?x=1&y");
    assert_eq!((seen[0].body_len, seen[0].complete), (5, true));
    echo.forget();
    assert!(echo.seen().is_empty());
}

#[tokio::test]
async fn special_paths_work_below_any_prefix() {
    let echo = echo().await;
    let addr = echo.addr();
    let bytes = get(addr, "/any/prefix/bytes/200000").await.unwrap();
    assert_eq!(
        (bytes.body.len(), bytes.header("content-length")),
        (200_000, "200000")
    );
    assert_eq!(get(addr, "/p/bytes/0").await.unwrap().body.len(), 0);
    for code in [200, 404, 503] {
        let reply = get(addr, &format!("/p/status/{code}")).await.unwrap();
        assert_eq!(
            (reply.status.as_u16(), reply.json()["method"].as_str()),
            (code, Some("GET"))
        );
    }
    assert_eq!(get(addr, "/p/status/204").await.unwrap().status, 204);
    for target in ["/p/status/101", "/p/status/x", "/p/bytes/-1"] {
        assert_eq!(get(addr, target).await.unwrap().status, 400, "{target}");
    }
    let sunk = post(addr, "/p/sink", "text/plain", "x".repeat(70_000))
        .await
        .unwrap();
    assert_eq!(sunk.json(), json!({ "body_bytes": 70_000 }));
    assert_eq!(
        post(addr, "/p/stream", "text/plain", "there and back".to_owned())
            .await
            .unwrap()
            .text(),
        "there and back"
    );

    let started = Instant::now();
    assert_eq!(get(addr, "/p/slow-head?ms=120").await.unwrap().status, 200);
    assert!(started.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn chunks_end_with_a_trailer() {
    let echo = echo().await;
    let request = Request::get("/p/chunks")
        .header("te", "trailers")
        .body(Bytes::new())
        .unwrap();
    let reply = send(echo.addr(), request).await.unwrap();
    assert_eq!(reply.text(), "one\ntwo\nthree\n");
    assert_eq!(reply.header("transfer-encoding"), "chunked");
    assert_eq!(reply.trailers.unwrap()["x-checksum"], "3-chunks");
}

#[tokio::test]
async fn a_cut_body_arrives_by_half() {
    let echo = echo().await;
    let mut stream = TcpStream::connect(echo.addr()).await.unwrap();
    stream
        .write_all(b"GET /p/cut HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-length: 2048"), "{head}");
    assert_eq!(body.len(), 1024);
}

#[tokio::test]
async fn a_stream_comes_back_before_its_end() {
    let echo = echo().await;
    let mut stream = TcpStream::connect(echo.addr()).await.unwrap();
    stream.write_all(b"POST /p/stream HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n").await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"ping\r\n") {
        let read = timeout(Duration::from_secs(5), stream.read_buf(&mut reply)).await;
        assert!(read.expect("an answer while the request goes on").unwrap() > 0);
    }
}

#[tokio::test]
async fn stop_closes_connections_at_once_and_restart_brings_it_back() {
    let echo = echo().await;
    let mut waiting = TcpStream::connect(echo.addr()).await.unwrap();
    waiting
        .write_all(b"GET /p/slow-head?ms=60000 HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut idle = TcpStream::connect(echo.addr()).await.unwrap();
    while echo.requests() < 1 || echo.connections() < 2 {
        tokio::task::yield_now().await;
    }
    echo.stop().await;
    for stream in [&mut waiting, &mut idle] {
        let read = timeout(Duration::from_secs(5), stream.read(&mut [0; 16])).await;
        assert!(matches!(read.expect("a closed connection"), Ok(0) | Err(_)));
    }
    assert!(TcpStream::connect(echo.addr()).await.is_err());
    echo.stop().await;
    echo.restart().await.unwrap();
    echo.restart().await.unwrap();
    assert_eq!(get(echo.addr(), "/x").await.unwrap().status, 200);

    let addr = echo.addr();
    drop(echo);
    let gone = async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone)
        .await
        .expect("a dropped echo closes its port");
}

#[tokio::test]
async fn records_can_be_off() {
    let options = EchoOptions { record: false };
    let quiet = Echo::start_with((Ipv4Addr::LOCALHOST, 0).into(), options)
        .await
        .unwrap();
    get(quiet.addr(), "/x").await.unwrap();
    assert_eq!((quiet.requests(), quiet.seen().len()), (1, 0));
}

#[tokio::test]
async fn many_kept_alive_connections_at_once() {
    let echo = echo().await;
    let mut streams = Vec::new();
    for _ in 0..128 {
        streams.push(TcpStream::connect(echo.addr()).await.unwrap());
    }
    for _ in 0..3 {
        for stream in &mut streams {
            stream
                .write_all(b"GET /p/bytes/3 HTTP/1.1\r\nhost: x\r\n\r\n")
                .await
                .unwrap();
        }
        for stream in &mut streams {
            let mut reply = Vec::new();
            while !reply.ends_with(b"\r\n\r\nxxx") {
                assert!(stream.read_buf(&mut reply).await.unwrap() > 0);
            }
        }
    }
    assert_eq!((echo.connections(), echo.requests()), (128, 384));
}
