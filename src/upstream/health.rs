//! Asks servers whether they are well.

use super::server::{Server, millis};
use super::servers::Servers;
use super::transport::{Protocol, Transport};
use super::{ConnectError, Upstream, connect};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use http::uri::PathAndQuery;
use http::{Request, StatusCode, Uri, Version};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{AbortHandle, JoinSet};

/// The head of an answer may not be larger than this.
const MAX_HEAD: u16 = 16 << 10;

/// What is asked, and which answers are good: `[upstream.*.health]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthRules {
    /// What is asked for.
    pub path: PathAndQuery,
    /// Between two questions to a server.
    pub interval: Duration,
    /// For a whole question.
    pub timeout: Duration,
    /// Good answers in a row that make a server well again.
    pub healthy_after: u32,
    /// Bad ones in a row that make it unwell.
    pub unhealthy_after: u32,
    /// The statuses of good answers.
    pub expect: Box<[RangeInclusive<u16>]>,
}

// === impl HealthRules ===

impl HealthRules {
    fn is_good(&self, status: StatusCode) -> bool {
        let mut ranges = self.expect.iter();
        ranges.any(|range| range.contains(&status.as_u16()))
    }

    /// A tenth more or less than `interval`: questions of several gateways do not fall together.
    fn pause(&self) -> Duration {
        self.interval.mul_f64(0.9 + 0.2 * fastrand::f64())
    }

    /// What so many answers of one kind in a row say of a server that is now thought well, or not; `None` if
    /// nothing new.
    fn verdict(&self, good: bool, streak: u32, is_well: bool) -> Option<bool> {
        let enough = if good {
            self.healthy_after
        } else {
            self.unhealthy_after
        };
        (good != is_well && streak >= enough).then_some(good)
    }
}

/// Checks the servers of an upstream, those that its names will resolve to as well; runs until it is dropped.
pub(super) async fn run(upstream: Arc<Upstream>, rules: HealthRules) {
    let check = |server| check(Arc::clone(&upstream), server, rules.clone());
    check_all(&upstream.servers, check).await;
}

/// Has each server checked for as long as it is among these.
async fn check_all<C>(servers: &Servers, check: impl Fn(Arc<Server>) -> C)
where
    C: Future<Output = ()> + Send + 'static,
{
    let mut checks = JoinSet::new();
    let mut checked: HashMap<u64, AbortHandle> = HashMap::new();
    loop {
        let list = servers.list();
        checked.retain(|id, check| {
            let stays = list.iter().any(|server| server.id == *id);
            if !stays {
                check.abort();
            }
            // One that panicked begins again: its server must not keep its last state for ever.
            stays && !check.is_finished()
        });
        for server in list {
            checked
                .entry(server.id)
                .or_insert_with(|| checks.spawn(check(server)));
        }
        tokio::select! {
            () = servers.changed() => {}
            // One was aborted, or has panicked.
            Some(_) = checks.join_next() => {}
        }
    }
}

/// Checks one server again and again.
async fn check(upstream: Arc<Upstream>, server: Arc<Server>, rules: HealthRules) {
    // Not all at once after a start.
    tokio::time::sleep(rules.interval.mul_f64(0.1 * fastrand::f64())).await;
    loop {
        let asked = tokio::time::timeout(
            rules.timeout,
            ask(&server, &upstream.transport, &rules.path),
        )
        .await;
        let answer = match asked {
            Ok(Ok(status)) if rules.is_good(status) => Ok(()),
            Ok(Ok(status)) => Err(format!("status {}", status.as_u16())),
            Ok(Err(error)) if is_local(&error) => {
                // The server was not asked: neither a good answer nor a bad one.
                tracing::warn!(upstream = %upstream.name, server = %server.label, %error, "health not checked");
                tokio::time::sleep(rules.pause()).await;
                continue;
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        let streak = server.checked(answer.is_ok());
        if let Some(well) = rules.verdict(answer.is_ok(), streak, server.is_well()) {
            match answer {
                Ok(()) => {
                    tracing::info!(upstream = %upstream.name, server = %server.label, "is well again");
                }
                Err(why) => {
                    tracing::warn!(upstream = %upstream.name, server = %server.label, %why, "is not well, gets no requests");
                }
            }
            upstream.servers.group.set_well(&server, well, millis());
        }
        tokio::time::sleep(rules.pause()).await;
    }
}

/// Whether the gateway itself lacks what it takes to ask.
fn is_local(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    matches!(cause, Some(ConnectError::Local(_)))
}

/// Asks once, on a connection of its own: one that is kept would not tell whether new ones are accepted.
async fn ask(
    server: &Server,
    transport: &Transport,
    path: &PathAndQuery,
) -> io::Result<StatusCode> {
    let stream = connect::tcp(server).await.map_err(io::Error::other)?;
    if server.tls {
        let secured = connect::secure(stream, server, transport).await;
        let stream = secured.map_err(io::Error::other)?;
        return ask_on(stream, server, transport.protocol, path).await;
    }
    ask_on(stream, server, transport.protocol, path).await
}

async fn ask_on<T>(
    stream: T,
    server: &Server,
    protocol: Protocol,
    path: &PathAndQuery,
) -> io::Result<StatusCode>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    // The connection ends with the question.
    let mut driver = JoinSet::new();
    let response = match protocol {
        Protocol::Http1 => {
            let begun = http1::Builder::new()
                .max_buf_size(MAX_HEAD.into())
                .handshake(stream);
            let (mut sender, connection) = begun.await.map_err(io::Error::other)?;
            driver.spawn(connection);
            sender.send_request(question(server, protocol, path)?).await
        }
        Protocol::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.max_header_list_size(MAX_HEAD.into());
            let begun = builder.handshake(stream).await;
            let (mut sender, connection) = begun.map_err(io::Error::other)?;
            driver.spawn(connection);
            sender.send_request(question(server, protocol, path)?).await
        }
    };
    Ok(response.map_err(io::Error::other)?.status())
}

fn question(
    server: &Server,
    protocol: Protocol,
    path: &PathAndQuery,
) -> io::Result<Request<Empty<Bytes>>> {
    let mut request = Request::new(Empty::new());
    let headers = request.headers_mut();
    let agent = HeaderValue::from_static("bonterra-gateway health check");
    headers.insert(USER_AGENT, agent);
    match protocol {
        Protocol::Http1 => {
            let host = HeaderValue::from_str(server.authority()).map_err(io::Error::other)?;
            headers.insert(HOST, host);
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            *request.uri_mut() = Uri::from(path.clone());
        }
        Protocol::Http2 => {
            let scheme = if server.tls { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(server.authority());
            let uri = uri.path_and_query(path.clone()).build();
            *request.uri_mut() = uri.map_err(io::Error::other)?;
            *request.version_mut() = Version::HTTP_2;
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::super::balance::Balance;
    use super::super::eject::Group;
    use super::super::resolve::Origin;
    use super::*;
    use std::collections::HashSet;
    use std::sync::Mutex;

    fn rules() -> HealthRules {
        HealthRules {
            path: PathAndQuery::from_static("/"),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            healthy_after: 2,
            unhealthy_after: 3,
            expect: [200..=200, 300..=399].into(),
        }
    }

    #[test]
    fn good_answers() {
        for (status, good) in [
            (200, true),
            (201, false),
            (300, true),
            (399, true),
            (503, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(rules().is_good(status), good, "{status}");
        }
    }

    /// Two servers whose checks panic the first two times.
    #[tokio::test]
    async fn a_check_that_panics_begins_again() {
        let gauge = prometheus::Opts::new("healthy", "x");
        let gauge = prometheus::IntGaugeVec::new(gauge, &["upstream", "server"]).unwrap();
        let origin = |ip: u8| Origin {
            host: format!("10.0.0.{ip}").into(),
            port: 80,
            tls: false,
            weight: 1,
        };
        let group = || Group::new("u".into(), gauge);
        let origins = vec![origin(1), origin(2)];
        let servers = Servers::new(origins, &Balance::RoundRobin, None, group);
        let (begun, mut seen) = tokio::sync::mpsc::channel(16);
        let begun_before = Mutex::new(HashMap::<u64, usize>::new());
        let check = |server: Arc<Server>| {
            let begun = begun.clone();
            let times = {
                let mut before = begun_before.lock().unwrap();
                let times = before.entry(server.id).or_default();
                *times += 1;
                *times
            };
            async move {
                begun.send((server.id, times)).await.unwrap();
                assert!(times > 2, "a fault of the test's making");
                std::future::pending().await
            }
        };
        let mut stay = HashSet::new();
        let both = async {
            while stay.len() < 2 {
                let (server, times) = seen.recv().await.unwrap();
                if times == 3 {
                    stay.insert(server);
                }
            }
        };
        tokio::select! {
            () = check_all(&servers, check) => {}
            () = both => {}
            () = tokio::time::sleep(Duration::from_secs(20)) => {}
        }
        assert_eq!(stay.len(), 2, "each is checked again");
        let begun = begun_before.lock().unwrap();
        assert!(
            begun.values().all(|times| *times == 3),
            "and no more than once at a time"
        );
    }

    #[test]
    fn what_answers_in_a_row_say() {
        for (good, streak, is_well, expected) in [
            (false, 1, true, None),
            (false, 2, true, None),
            (false, 3, true, Some(false)),
            (false, 4, false, None),
            (true, 1, false, None),
            (true, 2, false, Some(true)),
            (true, 9, true, None),
        ] {
            let verdict = rules().verdict(good, streak, is_well);
            assert_eq!(verdict, expected, "{good} {streak} {is_well}");
        }
    }

    #[test]
    fn what_runs_out_here_is_no_answer() {
        let wrapped = |errno: rustix::io::Errno| {
            let error = ConnectError::of(io::Error::from(errno));
            io::Error::other(error)
        };
        assert!(is_local(&wrapped(rustix::io::Errno::MFILE)));
        assert!(!is_local(&wrapped(rustix::io::Errno::CONNREFUSED)));
    }

    #[test]
    fn pauses_differ_by_a_tenth_at_most() {
        let pauses: Vec<_> = (0..1000).map(|_| rules().pause()).collect();
        assert!(
            pauses
                .iter()
                .all(|pause| (9.0..=11.0).contains(&pause.as_secs_f64()))
        );
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
