//! gRPC from end to end: a client of another maker, the gateway, and an upstream that speaks HTTP/2.

use crate::harness::{Gateway, World, eventually, local, within};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use tokio::net::TcpListener;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

type BoxedBody = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

const CONFIG: &str = r#"
[server]
listen = ["127.0.0.1:0"]
workers = 1
drain_delay = "0s"

[admin]
listen = "127.0.0.1:0"

[issuer.bonterra]
url = "ISSUER"
audiences = ["https://api.bonterra.network"]

[upstream.grpc]
servers = ["UPSTREAM"]
protocol = "http2"

[[route]]
name = "health"
path = "/grpc.health.v1.Health/*"
upstream = "grpc"
auth = "none"
timeout = "0s"

[[route]]
name = "echo"
path = "/echo.Echo/*"
upstream = "grpc"
timeout = "0s"

[[route]]
name = "slow"
path = "/slow.Slow/*"
upstream = "grpc"
auth = "none"
timeout = "300ms"
"#;

/// Messages are plain bytes.
#[derive(Debug, Clone, Copy)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Calls of `echo.Echo/Never` that were given up, and that were begun.
static GIVEN_UP: (AtomicUsize, AtomicUsize) = (AtomicUsize::new(0), AtomicUsize::new(0));

/// Work on a call.
struct Work;

impl Work {
    fn begin() -> Self {
        GIVEN_UP.1.fetch_add(1, Relaxed);
        Self
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        GIVEN_UP.0.fetch_add(1, Relaxed);
    }
}

struct Scene {
    world: World,
    gateway: Gateway,
    health: HealthReporter,
    connections: Arc<AtomicUsize>,
}

/// The health service of another maker; `echo.Echo` sends the messages of a call back one by one.
async fn answer(
    request: Request<Incoming>,
    health: impl hyper::service::Service<
        Request<Incoming>,
        Response = Response<tonic::body::Body>,
        Error = std::convert::Infallible,
    >,
) -> Result<Response<BoxedBody>, std::convert::Infallible> {
    let grpc = |body: BoxedBody| {
        Response::builder()
            .header("content-type", "application/grpc")
            .body(body)
            .expect("a response")
    };
    let trailers = |status: &'static str, more: &[(&'static str, &'static str)]| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().expect("a value"));
        for (name, value) in more {
            trailers.insert(*name, value.parse().expect("a value"));
        }
        StreamBody::new(stream::iter([Ok(Frame::trailers(trailers))]))
    };
    Ok(match request.uri().path() {
        "/echo.Echo/Each" => {
            assert_eq!(request.headers()["te"], "trailers");
            let body = request.into_body().map_err(Into::into).into_data_stream();
            let body = body.map(|data| data.map(Frame::data));
            let end = trailers(
                "0",
                &[("x-end", "yes"), ("x-bonterra-auth-id", "from upstream")],
            );
            let body = StreamBody::new(body.chain(end));
            grpc(body.boxed_unsync())
        }
        "/echo.Echo/Fail" => {
            let end = trailers("9", &[("grpc-message", "not now")]);
            grpc(end.boxed_unsync())
        }
        "/slow.Slow/Never" => std::future::pending().await,
        "/echo.Echo/Never" => {
            let _work = Work::begin();
            std::future::pending().await
        }
        path if path.starts_with("/grpc.health.v1.Health/") => {
            let response = health.call(request).await?;
            response.map(|body| body.map_err(Into::into).boxed_unsync())
        }
        _ => grpc(Empty::new().map_err(|never| match never {}).boxed_unsync()),
    })
}

impl Scene {
    async fn start() -> Self {
        let world = World::start().await;
        let (health, server) = tonic_health::server::health_reporter();
        let server = TowerToHyperService::new(server);
        let listener = TcpListener::bind(local()).await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                let server = server.clone();
                let service = service_fn(move |request| answer(request, server.clone()));
                let connection = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        let config = CONFIG
            .replace("ISSUER", world.auth.issuer())
            .replace("UPSTREAM", &url);
        let gateway = Gateway::start(&config).await;
        within("ready", gateway.app.ready()).await;
        Self {
            world,
            gateway,
            health,
            connections,
        }
    }

    async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.gateway.address));
        let channel = endpoint.expect("a URL").connect().await;
        channel.expect("connected")
    }

    /// A call with these messages, all in one stream; the reply as a stream of messages.
    async fn call(
        &self,
        path: &'static str,
        messages: impl futures_util::Stream<Item = Vec<u8>> + Send + 'static,
        token: Option<&str>,
    ) -> Result<tonic::Response<tonic::Streaming<Vec<u8>>>, Status> {
        let mut client = Grpc::new(self.channel().await);
        client.ready().await.expect("connected");
        let mut request = tonic::Request::new(messages);
        if let Some(token) = token {
            let bearer = format!("Bearer {token}").parse().expect("a value");
            request.metadata_mut().insert("authorization", bearer);
        }
        let path = http::uri::PathAndQuery::from_static(path);
        client.streaming(request, path, Plain).await
    }
}

#[tokio::test]
async fn unary_calls_and_a_stream_from_the_server() {
    let scene = Scene::start().await;
    scene
        .health
        .set_service_status("grants", ServingStatus::Serving)
        .await;
    let mut client = HealthClient::new(scene.channel().await);
    let asked = || HealthCheckRequest {
        service: "grants".to_owned(),
    };
    for _ in 0..50 {
        let reply = within("a reply", client.check(asked())).await;
        assert_eq!(reply.expect("fine").into_inner().status, 1);
    }
    let unknown = HealthCheckRequest {
        service: "nobody".to_owned(),
    };
    let status = client.check(unknown).await.expect_err("not there");
    assert_eq!(status.code(), Code::NotFound);
    // Each change arrives while the call goes on.
    let watch = within("a head", client.watch(asked())).await;
    let mut watch = watch.expect("a stream").into_inner();
    for (now, number) in [
        (ServingStatus::NotServing, 2),
        (ServingStatus::Serving, 1),
        (ServingStatus::NotServing, 2),
    ] {
        scene.health.set_service_status("grants", now).await;
        loop {
            let message = within("a message", watch.message()).await;
            let status = message.expect("no error").expect("open").status;
            if status == number {
                break;
            }
        }
    }
    // Many calls, one connection.
    assert_eq!(scene.connections.load(Relaxed), 1);
}

#[tokio::test]
async fn a_stream_both_ways_is_not_held_up_and_ends_with_its_trailers() {
    let scene = Scene::start().await;
    let token = scene.world.auth.token();
    let (sender, receiver) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let messages = stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    // The head of the reply may come with the first message only.
    sender.send(b"first".to_vec()).await.expect("sent");
    let reply = scene.call("/echo.Echo/Each", messages, Some(&token)).await;
    let mut reply = reply.expect("admitted").into_inner();
    let first = within("a message", reply.message()).await;
    assert_eq!(first.expect("no error").expect("open"), b"first");
    for n in 0..200_usize {
        let message = vec![u8::try_from(n).expect("small"); n * 100];
        sender.send(message.clone()).await.expect("sent");
        let back = within("a message", reply.message()).await;
        assert_eq!(back.expect("no error").expect("open"), message);
    }
    drop(sender);
    assert!(
        within("the end", reply.message())
            .await
            .expect("0")
            .is_none()
    );
    let trailers = reply.trailers().await.expect("read").expect("there");
    assert_eq!(trailers.get("x-end").expect("passed on"), "yes");
}

#[tokio::test]
async fn statuses_of_the_upstream_and_our_own_refusals_arrive_as_grpc_has_them() {
    let scene = Scene::start().await;
    let token = scene.world.auth.token();
    let call = async |path, token: Option<&str>| {
        let messages = stream::iter([b"x".to_vec()]);
        let reply = within("a reply", scene.call(path, messages, token)).await;
        match reply {
            Err(status) => status,
            Ok(reply) => {
                let mut reply = reply.into_inner();
                reply.message().await.expect_err("no good end")
            }
        }
    };
    let failed = call("/echo.Echo/Fail", Some(&token)).await;
    assert_eq!(failed.code(), Code::FailedPrecondition);
    assert_eq!(failed.message(), "not now");
    let requests = scene.connections.load(Relaxed);
    for (path, token, code, reason) in [
        (
            "/echo.Echo/Each",
            None,
            Code::Unauthenticated,
            "missing_token",
        ),
        (
            "/echo.Echo/Each",
            Some("a.b.c"),
            Code::Unauthenticated,
            "malformed_token",
        ),
        ("/nobody.Knows/It", None, Code::Unimplemented, "no_route"),
        (
            "/slow.Slow/Never",
            None,
            Code::DeadlineExceeded,
            "upstream_timeout",
        ),
    ] {
        let status = call(path, token).await;
        assert_eq!(status.code(), code, "{path}: {status:?}");
        assert!(status.message().contains(reason), "{status:?}");
    }
    assert_eq!(scene.connections.load(Relaxed), requests);
    // What the log says of it is the reason's own status.
    eventually("the record", || {
        let records = scene.gateway.log.records();
        let told = |record: &serde_json::Value| {
            record["reason"] == "missing_token" && record["status"] == 401
        };
        std::future::ready(records.iter().any(told))
    })
    .await;
}

#[tokio::test]
async fn a_call_that_its_client_gives_up_ends_at_the_upstream() {
    let scene = Scene::start().await;
    let token = scene.world.auth.token();
    let message = stream::iter([b"x".to_vec()]);
    {
        let mut call = pin!(scene.call("/echo.Echo/Never", message, Some(&token)));
        tokio::select! {
            reply = &mut call => panic!("{:?}", reply.map(|_| "a reply")),
            () = eventually("the upstream works on it", || {
                std::future::ready(GIVEN_UP.1.load(Relaxed) == 1)
            }) => {}
        }
        assert_eq!(GIVEN_UP.0.load(Relaxed), 0);
    }
    eventually("the upstream hears of it", async || {
        GIVEN_UP.0.load(Relaxed) == 1
    })
    .await;
    eventually("the record", async || {
        let records = scene.gateway.log.records();
        records
            .iter()
            .any(|record| record["status"] == 499 && record["aborted"] == true)
    })
    .await;
}
