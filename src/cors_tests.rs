use super::*;

fn policy(origins: &[&str], credentials: bool) -> Policy {
    let origins = origins.iter().map(|text| Origin::parse(text));
    Policy {
        origins: origins.collect::<Result<_, _>>().expect("origins"),
        methods: HeaderValue::from_static("GET"),
        headers: HeaderValue::from_static("Authorization"),
        expose: HeaderValue::from_static("RateLimit"),
        credentials,
        max_age: HeaderValue::from_static("600"),
    }
}

fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn shown(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", value.to_str().expect("ASCII"))
    };
    let mut lines: Vec<_> = headers.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn origins_as_written() {
    for text in [
        "https://app.bonterra.network",
        "http://localhost:3000",
        "https://*.bonterra.network",
        "https://*.bonterra.network:8443",
        "http://[::1]:3000",
        "http://127.0.0.1",
        "capacitor://localhost",
        "*",
    ] {
        assert!(Origin::parse(text).is_ok(), "{text}");
    }
    for text in [
        "",
        "null",
        "app.bonterra.network",
        "https://",
        "https://app.bonterra.network/",
        "https://app.bonterra.network/x",
        "https://App.bonterra.network",
        "HTTPS://app.bonterra.network",
        "https://app.bonterra.network:443",
        "http://app.bonterra.network:80",
        "https://app.bonterra.network:0443",
        "https://app.bonterra.network:99999",
        "https://me@app.bonterra.network",
        "https://*bonterra.network",
        "https://*.",
        "https://*",
        "https://a.*.network",
        "https://app..network",
        "*.bonterra.network",
        "https://[::g]",
        "://x",
    ] {
        assert!(Origin::parse(text).is_err(), "{text}");
    }
}

#[test]
fn who_is_allowed() {
    let exact = policy(
        &["https://app.bonterra.network", "http://localhost:3000"],
        false,
    );
    let below = policy(&["https://*.bonterra.network"], false);
    let with_port = policy(&["https://*.bonterra.network:8443"], false);
    let any = policy(&["*"], false);
    for (policy, origin, allowed) in [
        (&exact, "https://app.bonterra.network", true),
        (&exact, "http://localhost:3000", true),
        (&exact, "http://app.bonterra.network", false),
        (&exact, "https://app.bonterra.network:8443", false),
        (&exact, "https://app.bonterra.network.evil.example", false),
        (&exact, "https://evilapp.bonterra.network", false),
        (&exact, "https://APP.bonterra.network", false),
        (&exact, "null", false),
        (&exact, "", false),
        (&below, "https://a.bonterra.network", true),
        (&below, "https://a.b.bonterra.network", true),
        (&below, "https://bonterra.network", false),
        (&below, "https://.bonterra.network", false),
        (&below, "https://evilbonterra.network", false),
        (&below, "https://a..bonterra.network", false),
        (&below, "https://evil.example/.bonterra.network", false),
        (&below, "https://evil.example:1.bonterra.network", false),
        (&below, "https://evil@a.bonterra.network", false),
        (&below, "http://a.bonterra.network", false),
        (&below, "https://a.bonterra.network:8443", false),
        (&below, "https://a.bonterra.network.evil.example", false),
        (&with_port, "https://a.bonterra.network:8443", true),
        (&with_port, "https://a.bonterra.network", false),
        (&any, "https://evil.example", true),
        (&any, "null", true),
        (&any, "", false),
    ] {
        let origin = HeaderValue::from_static(origin);
        assert_eq!(policy.allows(&origin), allowed, "{origin:?}");
    }
}

#[test]
fn what_is_a_preflight() {
    const ORIGIN: (&str, &str) = ("origin", "https://a");
    const METHOD: (&str, &str) = ("access-control-request-method", "PUT");
    for (method, pairs, expected) in [
        (Method::OPTIONS, &[ORIGIN, METHOD][..], true),
        (Method::OPTIONS, &[ORIGIN], false),
        (Method::OPTIONS, &[METHOD], false),
        (Method::OPTIONS, &[ORIGIN, ORIGIN, METHOD], false),
        (Method::OPTIONS, &[ORIGIN, METHOD, METHOD], false),
        (Method::GET, &[ORIGIN, METHOD], false),
    ] {
        let headers = fields(pairs);
        let found = Preflight::of(&method, &headers).map(|preflight| preflight.method);
        assert_eq!(found, expected.then_some(Method::PUT), "{method} {pairs:?}");
    }
    let headers = fields(&[ORIGIN, ("access-control-request-method", "a b")]);
    assert_eq!(Preflight::of(&Method::OPTIONS, &headers), None);
}

#[test]
fn what_responses_say() {
    let listed = HeaderValue::from_static("https://a");
    let unlisted = HeaderValue::from_static("https://b");
    let one = policy(&["https://a"], false);
    let theirs: &[(&'static str, &'static str)] = &[
        ("access-control-allow-origin", "*"),
        ("access-control-allow-private-network", "true"),
        ("vary", "Accept"),
        ("x-own", "1"),
    ];
    for (policy, origin, came, expected) in [
        (
            &one,
            Some(&listed),
            theirs,
            &[
                "access-control-allow-origin: https://a",
                "access-control-expose-headers: RateLimit",
                "vary: Accept",
                "vary: Origin",
                "x-own: 1",
            ][..],
        ),
        (
            &one,
            Some(&unlisted),
            theirs,
            &["vary: Accept", "vary: Origin", "x-own: 1"],
        ),
        (
            &one,
            None,
            &[("vary", "accept, ORIGIN")],
            &["vary: accept, ORIGIN"],
        ),
        (&one, None, &[("vary", "*")], &["vary: *"]),
        (
            &policy(&["https://a"], true),
            Some(&listed),
            &[],
            &[
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://a",
                "access-control-expose-headers: RateLimit",
                "vary: Origin",
            ],
        ),
        (
            &policy(&["*"], false),
            Some(&unlisted),
            &[],
            &[
                "access-control-allow-origin: *",
                "access-control-expose-headers: RateLimit",
                "vary: Origin",
            ],
        ),
    ] {
        let mut headers = fields(came);
        policy.mark(origin, &mut headers);
        assert_eq!(shown(&headers), expected);
    }
    let mut headers = HeaderMap::new();
    one.answer(&listed, &mut headers);
    assert_eq!(
        shown(&headers),
        [
            "access-control-allow-headers: Authorization",
            "access-control-allow-methods: GET",
            "access-control-allow-origin: https://a",
            "access-control-max-age: 600",
            "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ]
    );
}
