//! `[upstream.*]`: servers, with those of the snapshot before taken over by address.

use super::{compile::Env, transport};
use crate::at;
use crate::config::{self, Config, Mistake};
use crate::upstream::{Server, Upstream};
use http::Uri;
use std::sync::Arc;

pub(super) fn build(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Vec<Arc<Upstream>> {
    config
        .upstream
        .iter()
        .map(|(name, upstream)| Arc::new(one(name, upstream, env, mistakes)))
        .collect()
}

fn one(
    name: &str,
    upstream: &config::Upstream,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Upstream {
    if upstream.servers.is_empty() {
        let at = at!["upstream", name, "servers"];
        mistakes.push(
            Mistake::value(at, format!("[upstream.{name}] has no servers"))
                .hint("write servers = [\"http://127.0.0.1:9000\"]"),
        );
    }
    for (key, time) in [
        ("connect_timeout", upstream.connect_timeout),
        ("response_timeout", upstream.response_timeout),
    ] {
        if time.is_zero() {
            mistakes.push(Mistake::value(
                at!["upstream", name, key],
                "a time of zero would fail every request",
            ));
        }
    }
    let mut servers: Vec<Arc<Server>> = Vec::new();
    for (index, text) in upstream.servers.iter().enumerate() {
        match address(text) {
            Err((what, hint)) => {
                mistakes
                    .push(Mistake::value(at!["upstream", name, "servers", index], what).hint(hint));
            }
            Ok(found) if servers.iter().any(|other| *other.address == *found.address) => {
                mistakes.push(Mistake::value(
                    at!["upstream", name, "servers", index],
                    "this server is listed twice",
                ));
            }
            Ok(found) => servers.push(server(name, found, env)),
        }
    }
    let tls = servers.iter().any(|server| server.tls);
    Upstream {
        name: name.into(),
        transport: transport::transport(name, upstream, tls, env, mistakes),
        breaker: transport::breaker(name, upstream, mistakes),
        retry: transport::retry(name, upstream, env, mistakes),
        servers,
        connect_timeout: upstream.connect_timeout.get(),
        response_timeout: upstream.response_timeout.get(),
        idle_timeout: upstream.idle_timeout.get(),
        duration: env
            .metrics
            .upstream_request_duration_seconds
            .with_label_values(&[name]),
    }
}

/// Where a server is.
struct Address {
    /// `host:port`.
    address: String,
    /// The host without brackets.
    host: String,
    tls: bool,
}

/// The server of the snapshot before at this address, with its connections, or a new one.
fn server(upstream: &str, found: Address, env: &Env) -> Arc<Server> {
    env.previous
        .iter()
        .flat_map(|previous| &previous.upstreams)
        .filter(|known| *known.name == *upstream)
        .flat_map(|known| &known.servers)
        .find(|known| *known.address == *found.address && known.tls == found.tls)
        .map_or_else(
            || {
                Arc::new(Server::new(
                    found.address.clone(),
                    found.host.clone(),
                    found.tls,
                ))
            },
            Arc::clone,
        )
}

/// Host and port of a server's URL, or what is wrong with it and what to do.
fn address(text: &str) -> Result<Address, (&'static str, &'static str)> {
    const HINT: &str = "write \"http://host:port\" or \"https://host:port\"";
    let uri: Uri = text.parse().map_err(|_| ("this is no URL", HINT))?;
    let (tls, port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err(("a server's URL begins with http:// or https://", HINT)),
    };
    let authority = uri.authority().ok_or(("this URL has no host", HINT))?;
    if authority.as_str().contains('@') {
        return Err(("a server's URL has no user", HINT));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err((
            "a server's URL has no path",
            "use strip_prefix of the route to change paths",
        ));
    }
    let host = authority.host();
    Ok(Address {
        address: format!("{host}:{}", authority.port_u16().unwrap_or(port)),
        host: host.trim_matches(['[', ']']).to_owned(),
        tls,
    })
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses() {
        for (text, expected) in [
            ("http://127.0.0.1:9000", Some("127.0.0.1:9000")),
            ("http://grants.internal", Some("grants.internal:80")),
            ("http://[::1]:9000/", Some("[::1]:9000")),
            ("https://127.0.0.1:9000", Some("127.0.0.1:9000")),
            ("https://grants.internal", Some("grants.internal:443")),
            ("ftp://127.0.0.1:9000", None),
            ("127.0.0.1:9000", None),
            ("http://127.0.0.1:9000/api", None),
            ("http://user@127.0.0.1:9000", None),
            ("", None),
        ] {
            let found = address(text).ok().map(|found| found.address);
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }
}
