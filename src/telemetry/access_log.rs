//! The access log: one record for every exchange, written when its last byte has left.

use serde::Serialize;
use std::cell::RefCell;
use std::fmt::{self, Write as _};
use std::io::Write;
use std::net::IpAddr;
use std::time::SystemTime;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};

use super::log::LogFormat;
use super::trace::TraceId;

/// Records that may wait for the writer; beyond that the newest are dropped rather than requests
/// delayed.
const MAX_QUEUED: usize = 64 * 1024;

/// Which records are written, and how: `[log]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AccessPolicy {
    /// Whether there is an access log at all.
    pub enabled: bool,
    /// The form of a record.
    pub format: LogFormat,
    /// The share of successes that is written, 0 to 1; failures and refusals always are.
    pub sample: f64,
}

/// Where records go. The writer runs on a thread of its own.
pub struct AccessLog {
    writer: NonBlocking,
}

/// One exchange. Times in seconds. Never a token, a secret, a cookie or a query.
#[derive(Debug, Serialize)]
pub struct Record<'a> {
    /// When the exchange ended, RFC 3339.
    pub time: String,
    /// The id that the upstream and the client saw too.
    pub request_id: &'a str,
    /// The trace that the exchange belongs to: 32 hexadecimal digits, as in `traceparent`. Not there
    /// if what came never became a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// The client's address.
    pub client: IpAddr,
    /// The method as sent.
    pub method: &'a str,
    /// The `Host` as sent.
    pub host: &'a str,
    /// The path as sent, without the query.
    pub path: &'a str,
    /// The route, or `-`.
    pub route: &'a str,
    /// The status of the response.
    pub status: u16,
    /// The reason of a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// What was expected and what came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'a str>,
    /// The caller's issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    /// The caller's `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// The upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// From the head of the request to the end of the response.
    pub duration: f64,
    /// From sending upstream to the head of its response.
    pub upstream_duration: f64,
    /// What the gateway itself took before it sent the request on or answered.
    pub own_duration: f64,
    /// Further attempts after the first.
    pub retries: u32,
    /// Bytes of request body that were passed on.
    pub request_bytes: u64,
    /// Bytes of response body that were sent.
    pub response_bytes: u64,
    /// Whether the exchange broke off before the end of the response.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
}

// === impl AccessLog ===

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

impl AccessLog {
    /// A log that is written to `target`. Dropping the guard writes what still waits.
    pub fn to(target: impl Write + Send + 'static) -> (Self, WorkerGuard) {
        let (writer, guard) = NonBlockingBuilder::default()
            .buffered_lines_limit(MAX_QUEUED)
            .lossy(true)
            .thread_name("access-log")
            .finish(target);
        (Self { writer }, guard)
    }

    /// Writes a record if the policy wants it.
    pub fn write(&self, policy: AccessPolicy, record: &Record<'_>) {
        let success = record.status < 400 && record.reason.is_none() && !record.aborted;
        if !policy.enabled || (success && policy.sample < 1.0 && fastrand::f64() >= policy.sample) {
            return;
        }
        thread_local!(static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        LINE.with_borrow_mut(|line| {
            line.clear();
            match policy.format {
                LogFormat::Json => {
                    // Nothing in a record can fail to serialise.
                    let _ = serde_json::to_writer(&mut *line, record);
                }
                LogFormat::Text => line.extend_from_slice(text(record).as_bytes()),
            }
            line.push(b'\n');
            // A full queue drops the record; a request never waits for the log.
            let _ = self.writer.clone().write_all(line);
        });
    }
}

/// The time of a record.
pub fn timestamp() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn text(record: &Record<'_>) -> String {
    let mut line = format!(
        "{} {} {} {} {}{} route={} {:.1}ms (upstream {:.1}ms, own {:.2}ms) in={} out={} id={}",
        record.time,
        record.client,
        record.status,
        record.method,
        // It is the client's own words, which may hold a tab.
        record.host.escape_debug(),
        record.path,
        record.route,
        record.duration * 1e3,
        record.upstream_duration * 1e3,
        record.own_duration * 1e3,
        record.request_bytes,
        record.response_bytes,
        record.request_id,
    );
    let optional = [
        ("reason", record.reason),
        ("note", record.note),
        ("subject", record.subject),
        ("upstream", record.upstream),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            // Writing to a String cannot fail.
            let _ = write!(line, " {name}={value:?}");
        }
    }
    if let Some(trace) = record.trace_id {
        let _ = write!(line, " trace={trace}");
    }
    if record.aborted {
        line.push_str(" aborted");
    }
    line
}
