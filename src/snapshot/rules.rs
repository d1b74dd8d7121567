//! What one `[[route]]` asks of requests and changes in them, compiled; every mistake in it noted.

use super::TunnelRules;
use super::compile::dangling;
use crate::authz::{AccessRules, AuthMode};
use crate::config::{self, Auth, Config, KeyPath, Mistake};
use crate::headers::{self, HeaderRules};
use crate::route::Methods;
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

pub(super) fn access(
    config: &Config,
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> AccessRules {
    for (index, issuer) in route.issuers.iter().enumerate() {
        if !config.issuer.contains_key(issuer) {
            mistakes.push(dangling(
                at.key("issuers").index(index),
                "issuer",
                issuer,
                config.issuer.keys(),
            ));
        }
    }
    let auth = match route.auth {
        Auth::Required => AuthMode::Required,
        Auth::Optional => AuthMode::Optional,
        Auth::None => AuthMode::None,
    };
    if auth != AuthMode::None && config.issuer.is_empty() {
        let text = "this route asks for tokens and there is no issuer to check them with";
        mistakes.push(
            Mistake::value(at.key("auth"), text)
                .hint("add an [issuer.NAME] table, or write auth = \"none\""),
        );
    }
    let idle = [
        ("issuers", route.issuers.is_empty()),
        ("scopes", route.scopes.is_empty()),
        ("any_scope", route.any_scope.is_empty()),
        ("claims", route.claims.is_empty()),
        ("claims_present", route.claims_present.is_empty()),
    ];
    for (key, empty) in idle {
        if auth == AuthMode::None && !empty {
            mistakes.push(
                Mistake::key(
                    at.key(key),
                    format!("`{key}` has no effect with auth = \"none\""),
                )
                .hint("remove it, or set auth = \"required\""),
            );
        }
    }
    for (key, list) in [("scopes", &route.scopes), ("any_scope", &route.any_scope)] {
        for (index, scope) in list.iter().enumerate() {
            // RFC 6749 §3.3, `scope-token`.
            if scope.is_empty()
                || !scope
                    .bytes()
                    .all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
            {
                mistakes.push(
                    Mistake::value(at.key(key).index(index), "this is not one scope")
                        .hint("one word an entry: [\"read:grants\", \"write:grants\"]"),
                );
            }
        }
    }
    claims(route, at, mistakes);
    let list = |items: &[String]| items.iter().map(|item| item.as_str().into()).collect();
    AccessRules {
        auth,
        issuers: list(&route.issuers),
        scopes: list(&route.scopes),
        any_scope: list(&route.any_scope),
        claims: route
            .claims
            .iter()
            .map(|(name, value)| (name.as_str().into(), value.clone()))
            .collect(),
        claims_present: list(&route.claims_present),
        allow_ips: route.allow_ips.clone(),
    }
}

fn claims(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) {
    for (name, value) in &route.claims {
        if asks_for_nothing(value) {
            let what = "every array has all members of an empty one, so this admits any array";
            mistakes.push(
                Mistake::value(at.key("claims").key(name), what).hint(format!(
                    "name the members, or write claims_present = [\"{name}\"] if any value will do"
                )),
            );
        }
    }
    for (index, name) in route.claims_present.iter().enumerate() {
        if name.is_empty() {
            let at = at.key("claims_present").index(index);
            mistakes.push(Mistake::value(at, "a claim has a name").hint("remove it, or name one"));
        }
    }
}

fn asks_for_nothing(expected: &Value) -> bool {
    match expected {
        Value::Array(members) => members.is_empty() || members.iter().any(asks_for_nothing),
        _ => false,
    }
}

pub(super) fn hosts(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Vec<Box<str>> {
    let mut hosts = Vec::new();
    for (index, host) in route.hosts.iter().enumerate() {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let bracketed = |b: u8| b.is_ascii_hexdigit() || matches!(b, b'[' | b']' | b':' | b'.');
        let fine = if host.starts_with('[') {
            host.bytes().all(bracketed)
        } else {
            host.bytes().all(plain)
        };
        if host.is_empty() || !fine {
            mistakes.push(
                Mistake::value(at.key("hosts").index(index), "this is no host name")
                    .hint("the bare name, without scheme, port or `*`: \"api.bonterra.network\""),
            );
            continue;
        }
        hosts.push(
            host.trim_end_matches('.')
                .to_ascii_lowercase()
                .into_boxed_str(),
        );
    }
    hosts
}

pub(super) fn methods(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Methods {
    let mut methods = Vec::new();
    for (index, text) in route.methods.iter().enumerate() {
        let at = at.key("methods").index(index);
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT | Method::TRACE) => {
                mistakes.push(Mistake::value(at, format!("{text} is never passed on")));
            }
            Ok(_) if text.bytes().any(|b| b.is_ascii_lowercase()) => {
                mistakes.push(
                    Mistake::value(at, "methods are written in capitals")
                        .hint(format!("did you mean `{}`?", text.to_ascii_uppercase())),
                );
            }
            Ok(method) => methods.push(method),
            Err(_) => mistakes.push(Mistake::value(at, "this is no method")),
        }
    }
    Methods::new(methods)
}

pub(super) fn strip_prefix(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) {
    let prefix = route.strip_prefix.trim_end_matches('/');
    let path = route.path.as_deref().unwrap_or_default();
    let covers = path
        .strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if !covers && route.path.is_some() {
        mistakes.push(
            Mistake::value(
                at.key("strip_prefix"),
                "the route's path does not begin with this",
            )
            .hint(format!("path is \"{path}\"")),
        );
    }
}

/// `guarded`: these rules may not touch what only the gateway sets towards an upstream.
pub(super) fn header_rules(
    config: &Config,
    rules: &config::HeaderRules,
    at: &KeyPath,
    guarded: bool,
    mistakes: &mut Vec<Mistake>,
) -> HeaderRules {
    let mut name = |text: &str, at: KeyPath, key: bool| {
        let mistake = |at, what| {
            if key {
                Mistake::key(at, what)
            } else {
                Mistake::value(at, what)
            }
        };
        let Ok(name) = HeaderName::from_bytes(text.as_bytes()) else {
            mistakes.push(
                mistake(at, format!("`{text}` is no header name")).hint("letters, digits and `-`"),
            );
            return None;
        };
        let mapped = || {
            config
                .issuer
                .values()
                .flat_map(|issuer| issuer.headers.keys())
        };
        let identity = headers::has_identity_prefix(name.as_str())
            || mapped()
                .any(|header| headers::same_name(&header.to_ascii_lowercase(), name.as_str()));
        if headers::is_reserved(&name) || (guarded && identity) {
            mistakes.push(
                mistake(at, format!("`{text}` is set by the gateway itself"))
                    .hint("header rules cannot touch it"),
            );
            return None;
        }
        Some(name)
    };
    let mut compiled = HeaderRules::default();
    let mut bad_values = Vec::new();
    for (header, value) in &rules.set {
        let at = at.key("set").key(header);
        match (name(header, at.clone(), true), HeaderValue::from_str(value)) {
            (Some(name), Ok(value)) => compiled.set.push((name, value)),
            (_, Err(_)) => bad_values.push(at),
            (None, Ok(_)) => {}
        }
    }
    for (index, header) in rules.remove.iter().enumerate() {
        compiled
            .remove
            .extend(name(header, at.key("remove").index(index), false));
    }
    mistakes.extend(
        bad_values
            .into_iter()
            .map(|at| Mistake::value(at, "a header value is one line of visible characters")),
    );
    compiled
}
/// What else may be spoken on a connection. HTTP itself is no such protocol: what is asked for over a
/// tunnel is not looked at any more.
pub(super) fn tunnel(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> TunnelRules {
    let mut protocols = Vec::new();
    for (index, name) in route.upgrades.iter().enumerate() {
        let at = at.key("upgrades").index(index);
        let lower = name.to_ascii_lowercase();
        let is_token =
            |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        if lower.is_empty() || !lower.bytes().all(is_token) {
            mistakes.push(
                Mistake::value(at, "this is no name of a protocol").hint("write \"websocket\""),
            );
        } else if lower.starts_with("h2c") || lower.starts_with("http") || lower.starts_with("tls")
        {
            mistakes.push(
                Mistake::value(at, "requests inside would go past every rule of this file")
                    .hint("HTTP/2 needs no upgrade here: it is spoken from the first byte on"),
            );
        } else if let Ok(value) = HeaderValue::from_str(name) {
            protocols.push(value);
        }
    }
    TunnelRules {
        protocols: protocols.into(),
        idle_timeout: Some(route.tunnel_idle_timeout.get()).filter(|idle| !idle.is_zero()),
        close_at_expiry: route.close_at_expiry,
    }
}
