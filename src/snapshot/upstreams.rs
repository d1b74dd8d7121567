//! `[upstream.*]`: servers, with those of the snapshot before taken over by address.

use super::compile::Env;
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
            Ok(address) if servers.iter().any(|other| *other.address == *address) => {
                mistakes.push(Mistake::value(
                    at!["upstream", name, "servers", index],
                    "this server is listed twice",
                ));
            }
            Ok(address) => servers.push(server(name, address, env)),
        }
    }
    Upstream {
        name: name.into(),
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

/// The server of the snapshot before at this address, with its connections, or a new one.
fn server(upstream: &str, address: String, env: &Env) -> Arc<Server> {
    env.previous
        .iter()
        .flat_map(|previous| &previous.upstreams)
        .filter(|known| *known.name == *upstream)
        .flat_map(|known| &known.servers)
        .find(|known| *known.address == *address)
        .map_or_else(|| Arc::new(Server::new(address.clone())), Arc::clone)
}

/// Host and port of a server's URL, or what is wrong with it and what to do.
fn address(text: &str) -> Result<String, (&'static str, &'static str)> {
    const HINT: &str = "write \"http://host:port\"";
    let uri: Uri = text.parse().map_err(|_| ("this is no URL", HINT))?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => {
            return Err((
                "TLS to upstreams is not supported by this version",
                "use http:// in a private network",
            ));
        }
        _ => return Err(("a server's URL begins with http://", HINT)),
    }
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
    Ok(format!(
        "{}:{}",
        authority.host(),
        authority.port_u16().unwrap_or(80)
    ))
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
            ("https://127.0.0.1:9000", None),
            ("127.0.0.1:9000", None),
            ("http://127.0.0.1:9000/api", None),
            ("http://user@127.0.0.1:9000", None),
            ("", None),
        ] {
            assert_eq!(address(text).ok().as_deref(), expected, "{text}");
        }
    }
}
