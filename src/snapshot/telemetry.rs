//! `[telemetry]`: where spans go, if anywhere.

use crate::at;
use crate::config::{self, Mistake};
use crate::telemetry::otlp::Settings;
use http::Uri;

/// More than this in the queue is memory, not patience.
const MAX_QUEUE: usize = 1 << 20;

/// `None` without the table.
pub(super) fn build(
    config: Option<&config::Telemetry>,
    mistakes: &mut Vec<Mistake>,
) -> Option<Settings> {
    let config = config?;
    let mut wrong = |key: &str, what: &str, hint: &str| {
        mistakes.push(Mistake::value(at!["telemetry", key], what).hint(hint));
    };
    if let Err((what, hint)) = check(&config.otlp_endpoint) {
        wrong("otlp_endpoint", what, hint);
    }
    if config.service_name.trim().is_empty() {
        let what = "traces need a name for this service";
        wrong("service_name", what, "write \"bonterra-gateway\"");
    }
    if config.timeout.is_zero() {
        let what = "a time of zero would fail every batch";
        wrong("timeout", what, "write \"5s\"");
    }
    if !(1..=MAX_QUEUE).contains(&config.queue) {
        let what = "a queue has room for 1 to 1048576 requests";
        let hint = "write 2048; to record nothing, leave out [telemetry] or write sample = \"0%\"";
        wrong("queue", what, hint);
    }
    Some(Settings {
        endpoint: config.otlp_endpoint.clone(),
        service_name: config.service_name.clone(),
        sample: config.sample.fraction(),
        timeout: config.timeout.get(),
        queue: config.queue,
    })
}

/// What is wrong with a collector's URL, and what to do.
fn check(text: &str) -> Result<(), (&'static str, &'static str)> {
    const HINT: &str = "write \"http://host:4317\" or \"https://host:4317\"";
    let uri: Uri = text.parse().map_err(|_| ("this is no URL", HINT))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(("a collector's URL begins with http:// or https://", HINT));
    }
    let authority = uri.authority().ok_or(("this URL has no host", HINT))?;
    if authority.as_str().contains('@') {
        return Err(("a collector's URL has no user", HINT));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err((
            "spans go by gRPC, to a URL without a path",
            "write \"http://host:4317\"; /v1/traces on port 4318 is for OTLP by plain HTTP, which is not spoken here",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn endpoints() {
        for (text, fine) in [
            ("http://127.0.0.1:4317", true),
            ("http://collector.internal", true),
            ("https://collector.example:4317/", true),
            ("http://[::1]:4317", true),
            ("127.0.0.1:4317", false),
            ("grpc://127.0.0.1:4317", false),
            ("http://127.0.0.1:4318/v1/traces", false),
            ("http://127.0.0.1:4317?x", false),
            ("http://user:word@127.0.0.1:4317", false),
            ("/v1/traces", false),
            ("", false),
        ] {
            assert_eq!(check(text).is_ok(), fine, "{text}");
        }
    }
}
