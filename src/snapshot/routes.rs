//! `[[route]]` and `[oauth.*]`: references followed, rules compiled, the table filled.

use super::compile::{Env, dangling};
use super::{Mount, Provider, Route, Target};
use crate::at;
use crate::authz::{AccessRules, AuthMode};
use crate::config::{self, Auth, Config, KeyPath, Mistake};
use crate::headers::{self, HeaderRules};
use crate::oauth::{Grant, Surface};
use crate::request::canonical_path;
use crate::route::{Methods, RouteError, RouteTable};
use crate::upstream::Upstream;
use http::{HeaderName, HeaderValue, Method};
use std::sync::Arc;

type Table = RouteTable<Target>;

/// The realm of our challenges.
pub(super) const REALM: &str = "bonterra";

pub(super) fn mount(
    config: &Config,
    env: &Env,
    providers: &[Provider],
    table: &mut Table,
    mistakes: &mut Vec<Mistake>,
) {
    for (name, surface) in &config.oauth {
        let path = token_path(name, surface, mistakes);
        let at = at!["oauth", name, "issuer"];
        let Some(issuer) = &surface.issuer else {
            mistakes.push(Mistake::missing(at).hint("name one of the [issuer.*] tables"));
            continue;
        };
        if !config.issuer.contains_key(issuer) {
            mistakes.push(dangling(at, "issuer", issuer, config.issuer.keys()));
            continue;
        }
        if surface.grants.is_empty() {
            mistakes.push(Mistake::value(
                at!["oauth", name, "grants"],
                "without grants no token can be had here",
            ));
        }
        // Without a provider the issuer's own mistakes have been noted.
        let provider = providers
            .iter()
            .find(|provider| *provider.issuer.rules.name == **issuer);
        if let (Some(provider), Some(path)) = (provider, path) {
            let target = Target::Token(Arc::new(mounted(name, surface, provider, &path, env)));
            insert(
                table,
                &[],
                &path,
                &Methods::default(),
                &target,
                at!["oauth", name, "prefix"],
                mistakes,
            );
        }
    }
}

fn mounted(
    name: &str,
    surface: &config::OAuthSurface,
    provider: &Provider,
    path: &str,
    env: &Env,
) -> Mount {
    let name: Arc<str> = name.into();
    let grant = |grant: &config::Grant| match grant {
        config::Grant::ClientCredentials => Grant::ClientCredentials,
        config::Grant::AuthorizationCode => Grant::AuthorizationCode,
        config::Grant::RefreshToken => Grant::RefreshToken,
    };
    Mount {
        metrics: Arc::new(env.metrics.route(&format!("oauth.{name}").into())),
        surface: Surface {
            name,
            grants: surface.grants.iter().map(grant).collect(),
            max_body: surface.max_body.bytes(),
            realm: REALM.into(),
        },
        token_path: path.into(),
        provider: provider.clone(),
    }
}

fn token_path(
    name: &str,
    surface: &config::OAuthSurface,
    mistakes: &mut Vec<Mistake>,
) -> Option<String> {
    let (at, path) = match &surface.paths.token {
        Some(path) => (at!["oauth", name, "paths", "token"], path.clone()),
        None => (
            at!["oauth", name, "prefix"],
            format!("{}/token", surface.prefix.trim_end_matches('/')),
        ),
    };
    if path.contains(['*', '{', '}'])
        || canonical_path(&path).ok().as_deref() != Some(path.as_str())
    {
        mistakes.push(Mistake::value(at, "this is no plain path").hint("write \"/oauth\""));
        return None;
    }
    Some(path)
}

pub(super) fn build(
    config: &Config,
    env: &Env,
    upstreams: &[Arc<Upstream>],
    table: &mut Table,
    mistakes: &mut Vec<Mistake>,
) {
    let mut names: Vec<Arc<str>> = Vec::new();
    for (index, route) in config.route.iter().enumerate() {
        let at = at!["route", index];
        let name: Arc<str> = route
            .name
            .as_deref()
            .or(route.path.as_deref())
            .unwrap_or_default()
            .into();
        if names.contains(&name) && !name.is_empty() {
            mistakes.push(
                Mistake::value(
                    at.key("name"),
                    format!("another route is called `{name}` already"),
                )
                .hint("give each route a name of its own"),
            );
        }
        names.push(Arc::clone(&name));
        one(config, env, upstreams, route, name, &at, table, mistakes);
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only name these again"
)]
fn one(
    config: &Config,
    env: &Env,
    upstreams: &[Arc<Upstream>],
    route: &config::Route,
    name: Arc<str>,
    at: &KeyPath,
    table: &mut Table,
    mistakes: &mut Vec<Mistake>,
) {
    let access = access(config, route, at, mistakes);
    let hosts = hosts(route, at, mistakes);
    let methods = methods(route, at, mistakes);
    let request_headers = header_rules(
        config,
        &route.request_headers,
        &at.key("request_headers"),
        true,
        mistakes,
    );
    let response_headers = header_rules(
        config,
        &route.response_headers,
        &at.key("response_headers"),
        false,
        mistakes,
    );
    strip_prefix(route, at, mistakes);
    let upstream = upstream(config, upstreams, route, at, mistakes);
    let Some(path) = &route.path else {
        mistakes.push(Mistake::missing(at.key("path")).hint("write path = \"/grants/*\""));
        return;
    };
    if !is_canonical(path) {
        mistakes.push(
            Mistake::value(
                at.key("path"),
                "no request has such a path once it is normalised",
            )
            .hint("no `//`, `.`, `..`, `;` or `%` escapes of plain characters"),
        );
        return;
    }
    let Some(upstream) = upstream else { return };
    let target = Target::Route(Arc::new(Route {
        metrics: Arc::new(env.metrics.route(&name)),
        name,
        access,
        upstream,
        forward_token: route.forward_token,
        strip_prefix: route.strip_prefix.trim_end_matches('/').into(),
        timeout: Some(route.timeout.get()).filter(|timeout| !timeout.is_zero()),
        max_body: route.max_body.unwrap_or(config.server.max_body).bytes(),
        request_headers,
        response_headers,
    }));
    insert(
        table,
        &hosts,
        path,
        &methods,
        &target,
        at.key("path"),
        mistakes,
    );
}

fn insert(
    table: &mut Table,
    hosts: &[Box<str>],
    path: &str,
    methods: &Methods,
    target: &Target,
    at: KeyPath,
    mistakes: &mut Vec<Mistake>,
) {
    match table.insert(hosts, path, methods, target) {
        Ok(()) => {}
        Err(RouteError::Pattern(why)) => mistakes.push(Mistake::value(at, why)),
        Err(RouteError::Shadowed(earlier)) => {
            let text = format!(
                "no request reaches this: `{}` takes them all",
                earlier.name()
            );
            mistakes.push(
                Mistake::value(at, text).hint("change path, hosts or methods of one of the two"),
            );
        }
    }
}

/// Patterns are compared with canonical paths, so they have to be canonical themselves.
fn is_canonical(pattern: &str) -> bool {
    let plain = pattern.replace(['{', '}', '*'], "x");
    !pattern.starts_with('/') || canonical_path(&plain).ok().as_deref() == Some(plain.as_str())
}

fn upstream(
    config: &Config,
    upstreams: &[Arc<Upstream>],
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Upstream>> {
    let at = at.key("upstream");
    let Some(name) = &route.upstream else {
        mistakes.push(Mistake::missing(at).hint("name one of the [upstream.*] tables"));
        return None;
    };
    let found = upstreams.iter().find(|upstream| *upstream.name == **name);
    if found.is_none() {
        mistakes.push(dangling(at, "upstream", name, config.upstream.keys()));
    }
    found.map(Arc::clone)
}

fn access(
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
        allow_ips: route.allow_ips.clone(),
    }
}

fn hosts(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Vec<Box<str>> {
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

fn methods(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Methods {
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

fn strip_prefix(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) {
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
fn header_rules(
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
