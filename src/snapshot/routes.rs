//! `[[route]]`: references followed, the table filled.

use super::compile::{Env, dangling};
use super::{INTERNAL_KEYS_PATH, Internal, METADATA_PATH};
use super::{Provider, Route, Target, contract, opaque, rules, traffic, upstream_token};
use crate::at;
use crate::config::{self, Config, KeyPath, Mistake};
use crate::internal_jwt::Minter;
use crate::request::canonical_path;
use crate::route::{Methods, RouteError, RouteTable};
use crate::upstream::Upstream;
use std::sync::Arc;

pub(super) type Table = RouteTable<Target>;

/// Serves the description of the gateway as a protected resource, unless a route has its path.
pub(super) fn describe(providers: &[Provider], table: &mut Table) {
    if !providers.is_empty() {
        // A route of that very path is the operator's own description, which comes first.
        let _ = table.insert(&[], METADATA_PATH, &Methods::default(), &Target::Metadata);
    }
}

/// Serves the public keys of the gateway's own tokens, unless a route has their path.
pub(super) fn publish(internal: &Internal, table: &mut Table) {
    if internal.keys.is_some() {
        let _ = table.insert(
            &[],
            INTERNAL_KEYS_PATH,
            &Methods::default(),
            &Target::InternalKeys,
        );
    }
}

pub(super) fn build(
    config: &Config,
    env: &Env,
    providers: &[Provider],
    upstreams: &[Arc<Upstream>],
    internal: &Internal,
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
        one(
            config,
            env,
            providers,
            upstreams,
            internal.minter(index),
            route,
            name,
            &at,
            table,
            mistakes,
        );
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "one call site; a struct would only name these again"
)]
fn one(
    config: &Config,
    env: &Env,
    providers: &[Provider],
    upstreams: &[Arc<Upstream>],
    internal_jwt: Option<Arc<Minter>>,
    route: &config::Route,
    name: Arc<str>,
    at: &KeyPath,
    table: &mut Table,
    mistakes: &mut Vec<Mistake>,
) {
    let access = rules::access(config, route, at, mistakes);
    let opaque = opaque::of_route(route, providers, at, mistakes);
    let hosts = rules::hosts(route, at, mistakes);
    let methods = rules::methods(route, at, mistakes);
    let request_headers = rules::header_rules(
        config,
        &route.request_headers,
        &at.key("request_headers"),
        true,
        mistakes,
    );
    let response_headers = rules::header_rules(
        config,
        &route.response_headers,
        &at.key("response_headers"),
        false,
        mistakes,
    );
    rules::strip_prefix(route, at, mistakes);
    let cors = traffic::cors(route, at, mistakes);
    let limit = traffic::limit(route, &name, env, at, mistakes);
    let (add_prefix, query) = (
        contract::add_prefix(route, at, mistakes),
        contract::query(route, at, mistakes),
    );
    let json_fields = contract::json_fields(route, at, mistakes);
    upstream_token::check_route(config, route, at, mistakes);
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
        opaque,
        upstream,
        forward_token: route.forward_token,
        strip_prefix: route.strip_prefix.trim_end_matches('/').into(),
        add_prefix,
        query,
        json_fields,
        timeout: Some(route.timeout.get()).filter(|timeout| !timeout.is_zero()),
        max_body: route.max_body.unwrap_or(config.server.max_body).bytes(),
        request_headers: Arc::new(request_headers),
        response_headers: Arc::new(response_headers),
        tunnel: rules::tunnel(route, at, mistakes),
        limit,
        cors,
        internal_jwt,
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

pub(super) fn insert(
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
pub(super) fn is_canonical(pattern: &str) -> bool {
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
