//! The admin listener: metrics, health, reload, and revocation. Not for clients.

mod readiness;
mod revoke;

pub use readiness::Readiness;

use crate::identity::TokenDigest;
use crate::reload::Reloader;
use crate::server::{self, Bound, Shared, Stage};
use crate::snapshot::Snapshot;
use crate::store::{NotShared, Reach, Revocation};
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use revoke::Order;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// A scraper keeps one connection; this many are plenty.
const MAX_CONNECTIONS: usize = 64;

/// A connection that sends nothing for this long is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A token, and a few words around it.
const MAX_BODY: usize = 64 << 10;

const TEXT: &str = "text/plain; charset=utf-8";
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

type Reply = Response<Full<Bytes>>;

/// Serves the admin listener until it is dropped.
pub async fn serve(bound: Bound, shared: Arc<Shared>, reloader: Arc<Reloader>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let listener = match bound.into_tokio() {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the admin listener cannot be used"),
    };
    loop {
        // The semaphore is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok(accepted) => accepted.stream,
            Err(error) => {
                server::failed(&shared, "admin", &error).await;
                continue;
            }
        };
        let (shared, reloader) = (Arc::clone(&shared), Arc::clone(&reloader));
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let (shared, reloader) = (Arc::clone(&shared), Arc::clone(&reloader));
                // In a task of its own: an order is carried out to its end, though nobody waits for it.
                tokio::spawn(async move { answer(request, &shared, &reloader).await })
            });
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT);
            // How a scraper's connection ends is of no interest.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(place);
        });
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared, reloader: &Reloader) -> Reply {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let lost = *request.method() == Method::POST && shared.drain.stage() != Stage::Serving;
    match (request.uri().path(), read) {
        ("/metrics", true) => metrics(shared),
        ("/livez", true) => reply(StatusCode::OK, TEXT, "ok\n"),
        ("/readyz", true) => ready(shared, request.uri().query()),
        ("/", true) => reply(StatusCode::OK, TEXT, overview(shared)),
        ("/-/reload" | "/-/revoke", _) if lost => draining(),
        ("/-/reload", _) if *request.method() == Method::POST => reload(reloader).await,
        ("/-/revoke", _) if *request.method() == Method::POST => revoke(request, shared).await,
        ("/-/reload" | "/-/revoke", _) => not_allowed("POST"),
        ("/metrics" | "/livez" | "/readyz" | "/", false) => not_allowed("GET, HEAD"),
        _ => reply(
            StatusCode::NOT_FOUND,
            TEXT,
            "not found; / lists what is here\n",
        ),
    }
}

fn metrics(shared: &Shared) -> Reply {
    let metrics = &shared.observer.metrics;
    let revocations = shared.snapshot.load().tokens.store().denylist().len();
    let revocations = i64::try_from(revocations).unwrap_or(i64::MAX);
    metrics.revocations.set(revocations);
    match metrics.render() {
        Ok(text) => reply(StatusCode::OK, METRICS, text),
        Err(error) => reply(
            StatusCode::INTERNAL_SERVER_ERROR,
            TEXT,
            format!("metrics cannot be written: {error}\n"),
        ),
    }
}

fn ready(shared: &Shared, query: Option<&str>) -> Reply {
    let readiness = Readiness::of(shared);
    let status = if readiness.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let verbose = query.is_some_and(|query| {
        form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == "verbose")
    });
    let text = if verbose {
        readiness.to_string()
    } else {
        readiness.summary().to_owned()
    };
    reply(status, TEXT, text)
}

fn overview(shared: &Shared) -> String {
    format!(
        "bonterra-gateway {}\n\n{}\nGET  /metrics          for Prometheus\nGET  /livez            the process runs\nGET  /readyz?verbose   requests can be served\nPOST /-/reload         read gateway.toml again\nPOST /-/revoke         refuse a token, or all of a subject\n",
        crate::VERSION,
        Readiness::of(shared)
    )
}

async fn reload(reloader: &Reloader) -> Reply {
    match reloader.reload("admin").await {
        Ok(report) => {
            // A report always serialises.
            let text = serde_json::to_string(&report).unwrap_or_default();
            reply(StatusCode::OK, "application/json", text + "\n")
        }
        Err(errors) => reply(
            StatusCode::UNPROCESSABLE_ENTITY,
            TEXT,
            format!("{errors}\n"),
        ),
    }
}

/// Only JSON is taken: a page in an operator's browser cannot send that here unasked.
async fn revoke(request: Request<Incoming>, shared: &Shared) -> Reply {
    let json = HeaderValue::from_static("application/json");
    if request.headers().get(CONTENT_TYPE) != Some(&json) {
        let text = "send JSON, with Content-Type: application/json\n";
        return reply(StatusCode::UNSUPPORTED_MEDIA_TYPE, TEXT, text);
    }
    let body = Limited::new(request.into_body(), MAX_BODY).collect();
    let body = match tokio::time::timeout(HEADER_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        _ => {
            return reply(
                StatusCode::BAD_REQUEST,
                TEXT,
                "the body is too large or broke off\n",
            );
        }
    };
    let snapshot = shared.snapshot.load_full();
    let now = snapshot.clock.now();
    let order = Order::parse(&body).and_then(|order| order.revocation(&snapshot.issuers, now));
    let (revocation, done) = match order {
        Ok(order) => order,
        Err(why) => return reply(StatusCode::UNPROCESSABLE_ENTITY, TEXT, why + "\n"),
    };
    let token = match &revocation {
        Revocation::Token { content, .. } => Some(*content),
        Revocation::Id { .. } | Revocation::Subject { .. } => None,
    };
    let outcome = snapshot.tokens.store().revoke(revocation, now).await;
    if outcome.is_ok() || outcome == Err(NotShared::Away) {
        forget(&snapshot, token.as_ref());
        let shared = outcome == Ok(Reach::All);
        let (revoked, until) = (done.revoked, done.until);
        tracing::info!(revoked, until, shared, "revoked");
    }
    match outcome {
        Ok(reach) => {
            let text = serde_json::to_string(&done.reaching(reach)).unwrap_or_default();
            reply(StatusCode::OK, "application/json", text + "\n")
        }
        Err(why @ NotShared::Full(_)) => {
            reply(StatusCode::INSUFFICIENT_STORAGE, TEXT, format!("{why}\n"))
        }
        Err(why @ NotShared::Away) => {
            let mut response = reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n"));
            let soon = HeaderValue::from_static("1");
            response.headers_mut().insert(RETRY_AFTER, soon);
            response
        }
    }
}

/// Forgets what is given again: the one token that was revoked, or all there is.
fn forget(snapshot: &Snapshot, token: Option<&TokenDigest>) {
    // Bought again, tokens are new ones. It is rare enough not to look for the one.
    snapshot.reuse.iter().for_each(|reuse| reuse.forget_all());
    for refresh in &snapshot.refresh {
        match token {
            // A refresh token that is sent again ends the session of a user: of no other one.
            Some(token) => drop(refresh.forget(token)),
            None => refresh.forget_all(),
        }
    }
}

/// An order is lost on a process that ends. Another one may have the same port, so the connection is
/// closed for the next attempt to reach that.
fn draining() -> Reply {
    let text = concat!(
        r#"{"error":"draining","message":"this gateway is stopping and takes no orders; "#,
        r#"nothing was changed. Send it again, on a new connection, to the one that takes its place"}"#,
        "\n"
    );
    let mut response = reply(StatusCode::SERVICE_UNAVAILABLE, "application/json", text);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(CONNECTION, close);
    response
}

fn not_allowed(allow: &'static str) -> Reply {
    let mut response = reply(
        StatusCode::METHOD_NOT_ALLOWED,
        TEXT,
        format!("use {allow}\n"),
    );
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allow));
    response
}

fn reply(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Reply {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
