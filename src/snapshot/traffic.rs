//! `rate_limit` and `cors` of `[[route]]`, and `[store]`: compiled, every mistake in them noted.

use super::compile::Env;
use crate::at;
use crate::config::{self, Auth, Config, KeyPath, LimitBy, Mistake};
use crate::cors::{self, Origin, Policy};
use crate::limit::{By, Rule, Spec};
use crate::request::SERVED;
use crate::store::{Redis, Settings};
use http::Method;
use http::header::{HeaderName, HeaderValue};
use std::num::NonZeroU32;
use std::sync::Arc;

/// A whole refill of the largest is a hundred years at the slowest rate: no clock overflows.
const LARGEST_BURST: u32 = 1_000_000;

/// The rate limit of a route, with its counts if the snapshot before had the same.
pub(super) fn limit(
    route: &config::Route,
    name: &Arc<str>,
    env: &Env,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<Arc<Rule>> {
    let limit = route.rate_limit.as_ref()?;
    let at = at.key("rate_limit");
    if limit.by == LimitBy::Subject && route.auth == Auth::None {
        mistakes.push(
            Mistake::value(
                at.key("by"),
                "there are no subjects on a route with auth = \"none\"",
            )
            .hint("write by = \"ip\", or set auth = \"required\""),
        );
    }
    if limit
        .burst
        .is_some_and(|burst| !(1..=LARGEST_BURST).contains(&burst))
    {
        mistakes.push(Mistake::value(
            at.key("burst"),
            format!("a burst is from 1 to {LARGEST_BURST}"),
        ));
    }
    let Some(rate) = limit.rate else {
        mistakes.push(Mistake::missing(at.key("rate")).hint("write rate = \"100/s\""));
        return None;
    };
    let spec = Spec {
        route: Arc::clone(name),
        by: match limit.by {
            LimitBy::Client => By::Client,
            LimitBy::Subject => By::Subject,
            LimitBy::Ip => By::Address,
        },
        period: rate.period(),
        burst: NonZeroU32::new(limit.burst.unwrap_or(rate.per_second())).unwrap_or(NonZeroU32::MIN),
        rate: rate.to_string().into(),
    };
    let refused = env.metrics.rate_limited_total.with_label_values(&[&**name]);
    Some(env.limits.rule(spec, refused))
}

/// What a route says of other origins.
pub(super) fn cors(
    route: &config::Route,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) -> Option<Policy> {
    let cors = route.cors.as_ref()?;
    replaced(route, at, mistakes);
    let at = at.key("cors");
    let origins = origins(cors, &at, mistakes);
    let named = |name: &String| HeaderName::from_bytes(name.as_bytes()).is_ok();
    let method = |name: &String| Method::from_bytes(name.as_bytes()).is_ok();
    list(
        "methods",
        &cors.methods,
        "method",
        method,
        cors,
        &at,
        mistakes,
    );
    list(
        "headers",
        &cors.headers,
        "header name",
        named,
        cors,
        &at,
        mistakes,
    );
    list(
        "expose",
        &cors.expose,
        "header name",
        named,
        cors,
        &at,
        mistakes,
    );
    Some(Policy {
        origins,
        methods: methods(route, cors),
        headers: match cors.headers.as_slice() {
            [] => joined(&cors::USUAL_HEADERS),
            names => joined(names),
        },
        expose: joined(&[&cors::EXPOSED.map(str::to_owned), cors.expose.as_slice()].concat()),
        credentials: cors.credentials,
        max_age: HeaderValue::from(cors.max_age.get().as_secs()),
    })
}

fn origins(cors: &config::Cors, at: &KeyPath, mistakes: &mut Vec<Mistake>) -> Vec<Origin> {
    let at = at.key("origins");
    if cors.origins.is_empty() {
        let mistake = Mistake::missing(at.clone());
        mistakes.push(mistake.hint("write origins = [\"https://app.bonterra.network\"]"));
    }
    let mut origins = Vec::new();
    for (index, text) in cors.origins.iter().enumerate() {
        match Origin::parse(text) {
            Ok(Origin::Any) if cors.credentials => mistakes.push(
                Mistake::value(
                    at.index(index),
                    "any page could act as the user with credentials = true",
                )
                .hint("name the origins, or remove credentials"),
            ),
            Ok(origin) => origins.push(origin),
            Err((what, hint)) => {
                mistakes.push(Mistake::value(at.index(index), what).hint(hint));
            }
        }
    }
    origins
}

/// Notes what is no such name, and the `*` that means nothing with credentials (Fetch, "CORS
/// protocol and credentials").
fn list(
    key: &str,
    names: &[String],
    noun: &str,
    is_one: impl Fn(&String) -> bool,
    cors: &config::Cors,
    at: &KeyPath,
    mistakes: &mut Vec<Mistake>,
) {
    for (index, name) in names.iter().enumerate() {
        let at = at.key(key).index(index);
        if name == "*" && cors.credentials {
            let what = "`*` stands for nothing else with credentials = true";
            mistakes.push(Mistake::value(at, what).hint("name what is allowed"));
        } else if !is_one(name) {
            mistakes.push(Mistake::value(at, format!("this is no {noun}")));
        }
    }
}

/// Notes header rules whose work would be undone.
fn replaced(route: &config::Route, at: &KeyPath, mistakes: &mut Vec<Mistake>) {
    let at = at.key("response_headers").key("set");
    for name in route.response_headers.set.keys() {
        if name.to_ascii_lowercase().starts_with("access-control-") {
            mistakes.push(
                Mistake::key(
                    at.key(name),
                    format!("`{name}` is replaced by what cors says"),
                )
                .hint("remove it, or the route's cors"),
            );
        }
    }
}

fn methods(route: &config::Route, cors: &config::Cors) -> HeaderValue {
    if !cors.methods.is_empty() {
        return joined(&cors.methods);
    }
    if route.methods.is_empty() {
        return joined(&SERVED);
    }
    let mut methods = route.methods.clone();
    let has = |name: &str| route.methods.iter().any(|method| method == name);
    if has("GET") && !has("HEAD") {
        methods.push("HEAD".to_owned());
    }
    joined(&methods)
}

fn joined<T: AsRef<str>>(names: &[T]) -> HeaderValue {
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    // What is no name has been noted.
    HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static(""))
}

/// The Redis that gateways share: the one of the snapshot before, if it is the same.
pub(super) fn store(config: &Config, env: &Env, mistakes: &mut Vec<Mistake>) -> Option<Arc<Redis>> {
    let store = config.store.as_ref()?;
    let table = at!["store"];
    if store.timeout.is_zero() {
        mistakes.push(Mistake::value(
            table.key("timeout"),
            "a time of zero would have no answer waited for",
        ));
    }
    let resolved = match store.url().resolve(&table) {
        Ok(resolved) => resolved,
        Err(mistake) => {
            mistakes.push(mistake);
            return None;
        }
    };
    if let Some(warning) = resolved.warning {
        tracing::warn!("{warning}");
    }
    let settings = Settings {
        url: resolved.secret.expose().into(),
        timeout: store.timeout.get(),
    };
    let previous = env.previous.as_ref();
    let known = previous.and_then(|previous| previous.shared.as_ref());
    if let Some(known) = known.filter(|known| *known.settings() == settings) {
        return Some(Arc::clone(known));
    }
    match Redis::new(settings, &env.metrics) {
        Ok(redis) => Some(Arc::new(redis)),
        Err(what) => {
            let source = store.url();
            let key = match (source.file, source.env) {
                (Some(_), _) => "url_file",
                (_, Some(_)) => "url_env",
                _ => "url",
            };
            let hint = "write \"redis://127.0.0.1:6379\"; in a user and a password escape all but letters and digits as %XX";
            mistakes.push(Mistake::value(table.key(key), what).hint(hint));
            None
        }
    }
}
