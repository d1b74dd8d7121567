//! `[upstream.*]`: servers and how requests are shared among them, with what the snapshot before knew of them.

use super::{Provider, compile::Env, transport, upstream_token};
use crate::at;
use crate::config::{self, Config, KeyPath, Mistake};
use crate::headers;
use crate::upstream::{
    self, Balance, EjectRules, Group, HashOn, HealthRules, Origin, Servers, SystemRoots, Upstream,
};
use http::uri::Authority;
use http::{HeaderValue, Uri};
use std::sync::Arc;

/// The largest weight of a server.
const MAX_WEIGHT: usize = 1000;

/// The same where every unit of weight takes room on a ring.
const MAX_WEIGHT_ON_RING: usize = 100;

pub(super) fn build(
    config: &Config,
    env: &Env,
    providers: &[Provider],
    mistakes: &mut Vec<Mistake>,
) -> Vec<Arc<Upstream>> {
    let roots = upstream::system_roots();
    config
        .upstream
        .iter()
        .map(|(name, upstream)| {
            let token = upstream_token::token(name, config, providers, env, mistakes);
            let built = one(name, upstream, &roots, env, mistakes);
            Arc::new(Upstream { token, ..built })
        })
        .collect()
}

fn one(
    name: &str,
    upstream: &config::Upstream,
    roots: &SystemRoots,
    env: &Env,
    mistakes: &mut Vec<Mistake>,
) -> Upstream {
    let at = at!["upstream", name];
    let name: Arc<str> = name.into();
    for (key, time) in [
        ("connect_timeout", upstream.connect_timeout),
        ("response_timeout", upstream.response_timeout),
    ] {
        if time.is_zero() {
            mistakes.push(Mistake::value(
                at.key(key),
                "a time of zero would fail every request",
            ));
        }
    }
    if upstream.dns_refresh.is_zero() {
        let mistake = Mistake::value(
            at.key("dns_refresh"),
            "a time of zero would ask without a pause",
        );
        mistakes.push(mistake.hint("write \"10s\""));
    }
    let balance = balance(upstream, &at, mistakes);
    let origins = origins(upstream, &at, mistakes);
    let previous = env.previous.iter().flat_map(|before| &before.upstreams);
    let previous = previous.clone().find(|before| before.name == name);
    let group = || {
        Group::new(
            Arc::clone(&name),
            env.metrics.upstream_server_healthy.clone(),
        )
    };
    let tls = origins.iter().any(|origin| origin.tls).then_some(roots);
    Upstream {
        transport: transport::transport(&name, upstream, tls, env, mistakes),
        breaker: transport::breaker(&name, upstream, mistakes),
        retry: transport::retry(&name, upstream, env, mistakes),
        servers: Servers::new(
            origins,
            &balance,
            previous.map(|previous| &previous.servers),
            group,
        ),
        balance,
        connect_timeout: upstream.connect_timeout.get(),
        response_timeout: upstream.response_timeout.get(),
        idle_timeout: upstream.idle_timeout.get(),
        dns_refresh: upstream.dns_refresh.get(),
        slow_start: upstream.slow_start.get(),
        health: upstream
            .health
            .as_ref()
            .and_then(|health| health_rules(health, &at.key("health"), mistakes)),
        eject: eject_rules(&upstream.eject, &at.key("eject"), mistakes),
        resolver: env.resolver.clone(),
        duration: env
            .metrics
            .upstream_request_duration_seconds
            .with_label_values(&[&*name]),
        host: host(upstream, &at, mistakes),
        token: None,
        name,
    }
}

/// What `Host` says: a host, with a port or without.
fn host(
    upstream: &config::Upstream,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<HeaderValue> {
    let text = upstream.host.as_deref()?;
    let plain = |text: &&str| !text.contains('@') && text.parse::<Authority>().is_ok();
    let value = Some(text).filter(plain).map(HeaderValue::from_str);
    if let Some(Ok(value)) = value {
        return Some(value);
    }
    let mistake = Mistake::value(at.key("host"), "this is no host");
    mistakes.push(mistake.hint("write \"auth.bonterra.network\""));
    None
}

fn balance(upstream: &config::Upstream, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Balance {
    let by_hash = upstream.balance == config::Balance::ConsistentHash;
    match &upstream.hash_on {
        Some(_) if !by_hash => {
            let text = "`hash_on` has no effect without balance = \"consistent_hash\"";
            mistakes.push(Mistake::key(at.key("hash_on"), text).hint("remove it"));
        }
        None if by_hash => {
            let missing = Mistake::missing(at.key("hash_on"));
            mistakes.push(missing.hint("what of a request keeps it with a server? For example \"header:x-tenant\", \"claim:sub\" or \"client_ip\""));
        }
        Some(config::HashOn::Header(name)) if headers::has_identity_prefix(name.as_str()) => {
            let text = "what clients send in this header is not believed";
            let mistake = Mistake::value(at.key("hash_on"), text);
            mistakes.push(mistake.hint("go by the claim: \"claim:NAME\""));
        }
        _ => {}
    }
    match (upstream.balance, &upstream.hash_on) {
        (config::Balance::RoundRobin, _) => Balance::RoundRobin,
        (config::Balance::ConsistentHash, Some(on)) => Balance::ConsistentHash(match on {
            config::HashOn::Header(name) => HashOn::Header(name.clone()),
            config::HashOn::Claim(name) => HashOn::Claim(name.as_str().into()),
            config::HashOn::ClientIp => HashOn::ClientIp,
        }),
        // Without a key it is a mistake, noted above.
        (config::Balance::LeastRequests | config::Balance::ConsistentHash, _) => {
            Balance::LeastRequests
        }
    }
}

fn origins(upstream: &config::Upstream, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Vec<Origin> {
    let list = at.key("servers");
    if upstream.servers.is_empty() {
        mistakes.push(
            Mistake::value(list.clone(), format!("[{at}] has no servers"))
                .hint("write servers = [\"http://127.0.0.1:9000\"]"),
        );
    }
    let on_ring = upstream.balance == config::Balance::ConsistentHash;
    let most = if on_ring {
        MAX_WEIGHT_ON_RING
    } else {
        MAX_WEIGHT
    };
    let mut origins: Vec<Origin> = Vec::new();
    for (index, server) in upstream.servers.iter().enumerate() {
        let at = list.index(index);
        if !(1..=most).contains(&server.weight) {
            let kind = if on_ring { "of consistent_hash " } else { "" };
            let text = format!("a weight {kind}is a number from 1 to {most}");
            mistakes.push(Mistake::value(at.key("weight"), text));
        }
        if server.url.is_empty() {
            let missing = Mistake::missing(at.key("url"));
            mistakes.push(missing.hint("write { url = \"http://127.0.0.1:9000\", weight = 2 }"));
            continue;
        }
        match origin(&server.url) {
            Err((what, hint)) => mistakes.push(Mistake::value(at, what).hint(hint)),
            Ok(origin) => {
                let same = |other: &Origin| other.authority() == origin.authority();
                if origins.iter().any(same) {
                    mistakes.push(Mistake::value(at, "this server is listed twice"));
                } else {
                    let weight = u32::try_from(server.weight).unwrap_or(u32::MAX);
                    origins.push(Origin { weight, ..origin });
                }
            }
        }
    }
    origins
}

/// What a server's URL names, or what is wrong with it and what to do.
fn origin(text: &str) -> Result<Origin, (&'static str, &'static str)> {
    const HINT: &str = "write \"http://host:port\" or \"https://host:port\"";
    let uri: Uri = text.parse().map_err(|_| ("this is no URL", HINT))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
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
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = bare.unwrap_or(host);
    if host.is_empty() {
        return Err(("this URL has no host", HINT));
    }
    let port = match authority.as_str().strip_prefix(authority.host()) {
        Some("") if tls => 443,
        Some("") => 80,
        // One that is no number of two bytes, `http` takes for none.
        port => port
            .and_then(|port| port.strip_prefix(':')?.parse().ok())
            .filter(|port| *port != 0)
            .ok_or(("this port does not exist", HINT))?,
    };
    Ok(Origin {
        host: host.to_ascii_lowercase().into(),
        port,
        tls,
        weight: 1,
    })
}

fn health_rules(
    health: &config::Health,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<HealthRules> {
    for (key, time) in [("interval", health.interval), ("timeout", health.timeout)] {
        if time.is_zero() {
            mistakes.push(Mistake::value(
                at.key(key),
                "a time of zero leaves none to ask in",
            ));
        }
    }
    let after = [
        ("healthy_after", health.healthy_after),
        ("unhealthy_after", health.unhealthy_after),
    ];
    for (key, _) in after.iter().filter(|(_, after)| *after == 0) {
        mistakes.push(Mistake::value(at.key(*key), "it takes one answer at least"));
    }
    if health.expect.is_empty() {
        let mistake = Mistake::value(at.key("expect"), "without a status no answer would be good");
        mistakes.push(mistake.hint("write [200] or [\"200-299\"]"));
    }
    let Some(path) = &health.path else {
        let missing = Mistake::missing(at.key("path"));
        mistakes.push(missing.hint("what are the servers asked for? For example \"/healthz\""));
        return None;
    };
    let Some(path) = path.parse().ok().filter(|_| path.starts_with('/')) else {
        let mistake = Mistake::value(at.key("path"), "this is no path");
        mistakes.push(mistake.hint("write \"/healthz\""));
        return None;
    };
    let [(_, healthy_after), (_, unhealthy_after)] = after;
    Some(HealthRules {
        path,
        interval: health.interval.get(),
        timeout: health.timeout.get(),
        healthy_after: u32::try_from(healthy_after).unwrap_or(u32::MAX),
        unhealthy_after: u32::try_from(unhealthy_after).unwrap_or(u32::MAX),
        expect: health.expect.iter().map(|range| range.0.clone()).collect(),
    })
}

fn eject_rules(
    eject: &config::Eject,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<EjectRules> {
    if eject.after == 0 {
        return None;
    }
    if eject.time.is_zero() {
        let mistake = Mistake::value(at.key("for"), "a time of zero takes no server out");
        mistakes.push(mistake.hint("write after = 0 to leave all servers in"));
    }
    Some(EjectRules {
        after: u32::try_from(eject.after).unwrap_or(u32::MAX),
        time: eject.time.get(),
        max_ejected: eject.max_ejected.fraction(),
    })
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn servers_of_urls() {
        for (text, expected) in [
            ("http://127.0.0.1:9000", Some("http://127.0.0.1:9000")),
            ("http://Grants.internal", Some("http://grants.internal:80")),
            (
                "https://grants.internal",
                Some("https://grants.internal:443"),
            ),
            ("http://[::1]:9000/", Some("http://[::1]:9000")),
            ("https://127.0.0.1:9000", Some("https://127.0.0.1:9000")),
            ("ftp://127.0.0.1:9000", None),
            ("127.0.0.1:9000", None),
            ("http://127.0.0.1:0", None),
            ("http://127.0.0.1:99999", None),
            ("http://127.0.0.1:9000/api", None),
            ("http://user@127.0.0.1:9000", None),
            ("", None),
        ] {
            let read = origin(text).ok().map(|origin| origin.url());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }
}
