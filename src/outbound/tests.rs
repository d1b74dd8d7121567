use super::testing::{Act, Server};
use super::*;
use std::io::Write as _;
use std::time::Instant;

const CAP: usize = 100_000;

fn outbound() -> Outbound {
    Outbound::new(None, Duration::from_millis(400)).unwrap()
}

async fn post(outbound: &Outbound, uri: &Uri) -> Result<Reply, OutboundError> {
    outbound
        .post_form(uri, HeaderMap::new(), Bytes::from_static(b"a=1"), CAP)
        .await
}

#[test]
fn urls() {
    let rows = [
        ("https://auth.bonterra.network/oauth/token", Ok(())),
        ("HTTPS://auth.bonterra.network", Ok(())),
        ("https://10.0.0.1:8443/x?y=z", Ok(())),
        ("http://127.0.0.1:9000/x", Ok(())),
        ("http://127.9.9.9/x", Ok(())),
        ("http://[::1]:9000/x", Ok(())),
        ("http://localhost/x", Ok(())),
        ("http://LocalHost:80/x", Ok(())),
        ("http://auth.bonterra.network/", Err(UrlError::PlainHttp)),
        ("http://10.0.0.1/", Err(UrlError::PlainHttp)),
        ("http://localhost.example/", Err(UrlError::PlainHttp)),
        ("http://127.0.0.1.example/", Err(UrlError::PlainHttp)),
        ("http://[::ffff:1.2.3.4]/", Err(UrlError::PlainHttp)),
        ("http://localhost@example/", Err(UrlError::UserInfo)),
        ("https://a:b@example/", Err(UrlError::UserInfo)),
        ("ftp://localhost/", Err(UrlError::Scheme)),
        ("/oauth/token", Err(UrlError::NotAbsolute)),
        ("localhost:9000", Err(UrlError::NotAbsolute)),
    ];
    for (url, expected) in rows {
        assert_eq!(check_url(&url.parse().unwrap()), expected, "{url}");
    }
}

#[tokio::test]
async fn get_and_post_over_one_connection() {
    let server = Server::start(Act::json(200, "{}")).await;
    let outbound = outbound();
    let reply = outbound
        .get(&server.uri("/keys"), "application/json", CAP)
        .await
        .unwrap();
    assert_eq!((reply.status.as_u16(), &reply.body[..]), (200, &b"{}"[..]));
    assert_eq!(reply.headers[CONTENT_TYPE], "application/json");
    let mut headers = HeaderMap::new();
    headers.insert("dpop", HeaderValue::from_static("p"));
    let uri = server.uri("/token?x=1");
    outbound
        .post_form(&uri, headers, Bytes::from_static(b"a=1"), CAP)
        .await
        .unwrap();
    let requests = server.requests();
    assert!(requests[0].starts_with("GET /keys HTTP/1.1\r\n"));
    assert!(requests[0].contains("accept: application/json\r\n"));
    assert!(requests[0].contains(&format!(
        "host: {}\r\n",
        server.uri("").authority().unwrap()
    )));
    assert!(requests[1].starts_with("POST /token?x=1 HTTP/1.1\r\n"));
    assert!(requests[1].contains("dpop: p\r\n"));
    assert!(requests[1].ends_with("\r\n\r\na=1"));
    assert_eq!(server.connections(), 1);
    assert_eq!(format!("{reply:?}"), "Reply { status: 200, bytes: 2, .. }");
}

#[tokio::test]
async fn redirects_are_returned_not_followed() {
    let server = Server::start(Act::redirect("/elsewhere")).await;
    let reply = outbound().get(&server.uri("/"), "*/*", CAP).await.unwrap();
    assert_eq!(reply.status, 307);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn the_deadline_ends_a_silent_exchange() {
    let partial = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    for act in [Act::Hang, Act::Raw(partial.into())] {
        let server = Server::start(act).await;
        let started = Instant::now();
        let error = post(&outbound(), &server.uri("/t?secret=1"))
            .await
            .unwrap_err();
        assert!(matches!(error, OutboundError::Timeout { .. }), "{error}");
        assert!(started.elapsed() < Duration::from_secs(2));
        assert!(error.to_string().ends_with("within 400ms"), "{error}");
        assert!(!error.to_string().contains("secret"));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn cut_after_the_request_and_never_sent_again() {
    let short = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nabc";
    for act in [Act::CloseAfterRequest, Act::Raw("no http\r\n\r\n".into())] {
        let server = Server::start(act).await;
        let error = post(&outbound(), &server.uri("/")).await.unwrap_err();
        assert!(matches!(error, OutboundError::Cut { .. }), "{error}");
        tokio::time::sleep(RECONNECT_PAUSE * 2).await;
        assert_eq!(server.requests().len(), 1);
    }
    // On a pooled connection too: the first exchange is fine, the second one dies.
    let server = Server::start(Act::json(200, "{}")).await;
    let dying = Server::start(Act::CloseAfterRequest).await;
    let outbound = outbound();
    post(&outbound, &server.uri("/")).await.unwrap();
    post(&outbound, &dying.uri("/")).await.unwrap_err();
    assert_eq!((server.requests().len(), dying.requests().len()), (1, 1));
    // A body that ends early, as its connection does.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        stream.write_all(short.as_bytes()).await.unwrap();
    });
    let error = post(&outbound, &uri).await.unwrap_err();
    assert!(matches!(error, OutboundError::Cut { .. }), "{error}");
}

/// Answers the first request of the first connection, and the next one only by closing.
#[tokio::test]
async fn a_reused_connection_that_dies_is_no_reason_to_send_twice() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        let _ = stream.read(&mut buffer).await;
        let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(ok).await.unwrap();
        let _ = stream.read(&mut buffer).await;
        drop(stream);
        // A second connection would be the request coming again.
        tokio::time::timeout(Duration::from_millis(200), listener.accept())
            .await
            .is_err()
    });
    let outbound = outbound();
    post(&outbound, &uri).await.unwrap();
    let error = post(&outbound, &uri).await.unwrap_err();
    assert!(matches!(error, OutboundError::Cut { .. }), "{error}");
    assert!(server.await.unwrap());
}

#[tokio::test]
async fn a_pooled_connection_closed_while_idle_is_replaced() {
    let close = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri: Uri = format!("http://{}/", listener.local_addr().unwrap())
        .parse()
        .unwrap();
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await;
            stream.write_all(close.as_bytes()).await.unwrap();
        }
    });
    let outbound = outbound();
    post(&outbound, &uri).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    post(&outbound, &uri).await.unwrap();
    server.await.unwrap();
}

#[tokio::test]
async fn replies_over_the_cap() {
    let server = Server::start(Act::Endless).await;
    let error = post(&outbound(), &server.uri("/")).await.unwrap_err();
    assert!(
        matches!(error, OutboundError::TooLarge { limit: CAP, .. }),
        "{error}"
    );
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n";
    let server = Server::start(Act::Raw(announced.into())).await;
    let error = post(&outbound(), &server.uri("/")).await.unwrap_err();
    assert!(matches!(error, OutboundError::TooLarge { .. }), "{error}");
    let head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD * 2));
    let server = Server::start(Act::Raw(head)).await;
    let error = post(&outbound(), &server.uri("/")).await.unwrap_err();
    assert!(
        matches!(
            error,
            OutboundError::TooLarge {
                limit: MAX_HEAD,
                ..
            }
        ),
        "{error}"
    );
    let exact = Act::json(200, &"x".repeat(CAP));
    let server = Server::start(exact).await;
    assert_eq!(
        post(&outbound(), &server.uri("/"))
            .await
            .unwrap()
            .body
            .len(),
        CAP
    );
}

#[tokio::test]
async fn nobody_there() {
    let uri = Server::nobody_listens().await;
    let outbound = outbound();
    for error in [
        post(&outbound, &uri).await.unwrap_err(),
        outbound.get(&uri, "*/*", CAP).await.unwrap_err(),
    ] {
        assert!(matches!(error, OutboundError::Connect { .. }), "{error}");
        assert!(error.to_string().contains("refused"), "{error}");
    }
    let plain = Uri::from_static("http://auth.example/token");
    let error = post(&outbound, &plain).await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect { .. }), "{error}");
}

/// A connection lives on the runtime that opened it; another runtime must not hang on its corpse.
#[test]
fn a_runtime_that_is_gone_takes_only_its_connections() {
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let serving = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let server = serving.block_on(Server::start(Act::json(200, "{}")));
    let outbound = outbound();
    for _ in 0..3 {
        let worker = runtime();
        worker.block_on(post(&outbound, &server.uri("/"))).unwrap();
        drop(worker);
    }
    assert_eq!((server.requests().len(), server.connections()), (3, 3));
}

// === ca_file ===

#[test]
fn ca_files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let made = |text: &str| {
        let path = folder.path().join("ca.pem");
        std::fs::write(&path, text).unwrap();
        Outbound::new(Some(&path), Duration::from_secs(1))
            .unwrap_err()
            .to_string()
    };
    assert!(made("").contains("is no PEM file with certificates"));
    assert!(made("hello").contains("is no PEM file with certificates"));
    let begun = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    assert!(made(begun).contains("is no PEM file with certificates"));
    let junk = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert!(
        made(junk).starts_with("certificate 1 in ca_file "),
        "{}",
        made(junk)
    );
    let absent = folder.path().join("absent.pem");
    let error = Outbound::new(Some(&absent), Duration::from_secs(1)).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot read ca_file "),
        "{error}"
    );
}

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/outbound/testdata/ca.pem");

/// One TLS exchange per connection, on a thread of its own.
fn tls_server(connections: usize) -> Uri {
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = include_bytes!("testdata/leaf.pem");
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("testdata/leaf.key")).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = std::sync::Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!(
        "https://localhost:{}/",
        listener.local_addr().unwrap().port()
    );
    std::thread::spawn(move || {
        for _ in 0..connections {
            let (tcp, _) = listener.accept().unwrap();
            let tls = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(tls, tcp);
            let mut buffer = [0; 4096];
            let got = std::io::Read::read(&mut stream, &mut buffer);
            if got.is_ok_and(|n| n > 0) {
                let reply = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
                let _ = stream.write_all(reply);
            }
        }
    });
    uri.parse().unwrap()
}

#[tokio::test]
async fn https_needs_a_certificate_that_is_trusted() {
    let uri = tls_server(2);
    let trusting = Outbound::new(Some(Path::new(CA)), Duration::from_secs(5)).unwrap();
    let stranger = Outbound::new(None, Duration::from_secs(5)).unwrap();
    let error = stranger.get(&uri, "*/*", CAP).await.unwrap_err();
    assert!(matches!(error, OutboundError::Connect { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(trusting.get(&uri, "*/*", CAP).await.unwrap().body, "ok");
}
