//! `[upstream.*]` as far as it is about connections: version of HTTP, TLS, limits, retries.

use super::compile::Env;
use crate::at;
use crate::config::{self, Mistake};
use crate::upstream::{
    Breaker, Protocol, Retry, RetryBudget, RetryCounts, RetryOn, SystemRoots, TlsFiles, Transport,
    Upstream,
};
use http::StatusCode;
use std::sync::Arc;

/// How the servers are talked to: as in the snapshot before, connections and TLS sessions included, if
/// neither the settings nor the files have changed. `tls` is there if there are servers with `https://`.
pub(super) fn transport(
    name: &str,
    upstream: &config::Upstream,
    tls: Option<&SystemRoots>,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Arc<Transport> {
    let protocol = match upstream.protocol {
        config::Protocol::Http1 => Protocol::Http1,
        config::Protocol::Http2 => Protocol::Http2,
    };
    let table = &upstream.tls;
    let Some(system) = tls else {
        if *table != config::UpstreamTls::default() && !upstream.servers.is_empty() {
            let mistake = Mistake::key(
                at!["upstream", name, "tls"],
                "no server of this upstream uses TLS",
            );
            mistakes.push(mistake.hint("write its servers as \"https://host:port\""));
        }
        let known =
            known(name, env).filter(|known| known.protocol == protocol && known.tls.is_none());
        return known.unwrap_or_else(|| Arc::new(Transport::new(protocol, None)));
    };
    let files = TlsFiles {
        ca: table.ca_file.as_deref(),
        certificate: table.cert_file.as_deref(),
        key: table.key_file.as_deref(),
        server_name: table.server_name.as_deref(),
    }
    .read(system);
    let fingerprint = files.fingerprint(protocol);
    let same = known(name, env).filter(|known| {
        let tls = known.tls.as_ref();
        tls.is_some_and(|tls| tls.fingerprint() == fingerprint)
    });
    if let Some(same) = same {
        return same;
    }
    let settings = match files.load(protocol) {
        Ok(settings) => Some(settings),
        Err(error) => {
            let at = at!["upstream", name, "tls", error.key];
            mistakes.push(Mistake::value(at, error.message).hint(error.hint));
            None
        }
    };
    Arc::new(Transport::new(protocol, settings))
}

fn known(name: &str, env: &Env) -> Option<Arc<Transport>> {
    Some(Arc::clone(&before(name, env)?.transport))
}

/// The upstream of this name in the snapshot before.
fn before<'e>(name: &str, env: &'e Env) -> Option<&'e Upstream> {
    let previous = env.previous.as_ref()?;
    let mut known = previous.upstreams.iter();
    known
        .find(|known| *known.name == *name)
        .map(|known| &**known)
}

/// How many requests a server gets at a time.
pub(super) fn breaker(
    name: &str,
    upstream: &config::Upstream,
    mistakes: &mut Vec<Mistake>,
) -> Breaker {
    if upstream.max_connections == 0 {
        mistakes.push(Mistake::value(
            at!["upstream", name, "max_connections"],
            "a number of zero would refuse every request",
        ));
    }
    Breaker {
        max_connections: upstream.max_connections,
        max_pending: upstream.max_pending,
    }
}

/// When a request is sent again.
pub(super) fn retry(
    name: &str,
    upstream: &config::Upstream,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Retry {
    let retry = &upstream.retry;
    if retry.attempts == 0 {
        let mistake = Mistake::value(
            at!["upstream", name, "retry", "attempts"],
            "no attempt at all would fail every request",
        );
        mistakes.push(mistake.hint("write 1 to send every request once"));
    }
    let count = |outcome: &str| {
        env.metrics
            .upstream_retries_total
            .with_label_values(&[name, outcome])
    };
    Retry {
        attempts: retry.attempts,
        on: on(&retry.on),
        budget: budget(name, retry.budget.0, env),
        counts: RetryCounts {
            success: count("success"),
            failure: count("failure"),
            budget: count("budget"),
        },
    }
}

/// The budget of the snapshot before if it has the same share: a reload must not give away more retries.
fn budget(name: &str, percent: f64, env: &Env) -> Arc<RetryBudget> {
    let share = |config: &config::Upstream| config.retry.budget.0;
    let previous = env.previous.as_ref();
    let written = previous.and_then(|previous| previous.config.upstream.get(name));
    let same = written.is_some_and(|written| share(written).to_bits() == percent.to_bits());
    match before(name, env).filter(|_| same) {
        Some(before) => Arc::clone(&before.retry.budget),
        None => Arc::new(RetryBudget::new(percent)),
    }
}

fn on(words: &[config::RetryOn]) -> RetryOn {
    let mut on = RetryOn::default();
    for word in words {
        match word {
            config::RetryOn::Connect => on.connect = true,
            config::RetryOn::Reset => on.reset = true,
            config::RetryOn::BadGateway => on.statuses.push(StatusCode::BAD_GATEWAY),
            config::RetryOn::Unavailable => on.statuses.push(StatusCode::SERVICE_UNAVAILABLE),
            config::RetryOn::GatewayTimeout => on.statuses.push(StatusCode::GATEWAY_TIMEOUT),
        }
    }
    on
}
