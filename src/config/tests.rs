//! The reader as a whole: what is read, what is refused, and where the caret goes.

use super::*;
use std::time::Duration;

/// Line, column, message and hint of every mistake in `text` and of those that `more` finds.
fn report(text: &str, more: impl FnOnce(&Config) -> Vec<Mistake>) -> ConfigErrors {
    let mut parsed = parse("gateway.toml", text);
    parsed.mistakes.extend(more(&parsed.config));
    parsed.source.report(parsed.mistakes)
}

fn shape_errors(text: &str) -> ConfigErrors {
    report(text, |_| Vec::new())
}

/// The one mistake in `text`: `line:column: message`, and its hint.
#[track_caller]
fn only(text: &str) -> (String, String) {
    let errors = shape_errors(text);
    assert_eq!(errors.len(), 1, "{errors}");
    let item = errors.iter().next().unwrap();
    (
        format!("{}:{}: {}", item.line, item.column, item.message),
        item.hint.clone().unwrap_or_default(),
    )
}

#[test]
fn an_empty_file_is_all_defaults() {
    let parsed = parse("gateway.toml", "");
    assert!(parsed.mistakes.is_empty());
    assert_eq!(parsed.config, Config::default());
    let server = parsed.config.server;
    assert_eq!(server.listen, [ListenAddr::v4([0, 0, 0, 0], 8080)]);
    assert_eq!(server.max_header_bytes.bytes(), 32 << 10);
    assert_eq!(server.idle_timeout.get(), Duration::from_secs(75));
}

#[test]
fn the_default_file_has_no_mistake_and_shows_as_it_reads() {
    let parsed = parse("gateway.toml", DEFAULT);
    let errors = parsed.source.report(parsed.mistakes);
    assert!(errors.is_empty(), "{errors}");
    let config = parsed.config;
    assert_eq!(config.issuer.len(), 1);
    assert_eq!(config.issuer["bonterra"].headers, Issuer::default().headers);
    assert_eq!(config.route.len(), 7);

    let shown = show(&config);
    let again = parse("shown", &shown);
    assert!(
        again.mistakes.is_empty(),
        "{shown}\n{}",
        again.source.report(again.mistakes)
    );
    // But for its secrets, which it does not show.
    let (mut again, mut config) = (again.config, config);
    for config in [&mut again, &mut config] {
        let management = config.upstream.get_mut("management").unwrap();
        let secret = management.token.as_mut().unwrap().client_secret.take();
        assert!(secret.is_some());
        let surface = config.oauth.get_mut("bonterra").unwrap();
        let secret = surface.introspect_clients[0].secret.take();
        assert!(secret.is_some());
    }
    assert_eq!(again, config, "{shown}");
}

#[test]
fn reads_every_kind_of_value() {
    let text = r#"
[server]
listen = ["127.0.0.1:80", "[::1]:80"]
trusted_proxies = ["10.0.0.0/8", "fd00::/8"]
[log]
level = "debug"
format = "text"
sample = "2.5%"
[issuer.a]
url = "https://a/"
algorithms = ["ES256", "EdDSA"]
jwks.ttl = "5m"
headers = { X-Id = "urn:a.b" }
[oauth.a]
issuer = "a"
paths = { token = "/t" }
grants = ["refresh_token"]
[upstream.u]
servers = ["http://u:1"]
[[route]]
auth = "optional"
claims = { "urn:x" = true, n = 1.5, list = ["a", 1] }
max_body = "1GiB"
request_headers.set.X-A = "b"
response_headers = { remove = ["Server"] }
"#;
    let parsed = parse("t", text);
    assert!(
        parsed.mistakes.is_empty(),
        "{:?}",
        parsed.source.report(parsed.mistakes)
    );
    let Config {
        log,
        issuer,
        oauth,
        route,
        server,
        ..
    } = &parsed.config;
    assert_eq!(server.trusted_proxies.len(), 2);
    assert_eq!((log.level, log.format), (LogLevel::Debug, LogFormat::Text));
    assert!((log.sample.fraction() - 0.025).abs() < 1e-12);
    assert_eq!(issuer["a"].algorithms, [Alg::ES256, Alg::EdDSA]);
    assert_eq!(issuer["a"].jwks.ttl, Dur::secs(300));
    assert_eq!(issuer["a"].headers.len(), 1, "replaced, not merged");
    assert_eq!(oauth["a"].paths.token.as_deref(), Some("/t"));
    assert_eq!(oauth["a"].grants, [Grant::RefreshToken]);
    assert_eq!(route[0].auth, Auth::Optional);
    assert_eq!(route[0].claims["list"], serde_json::json!(["a", 1]));
    assert_eq!(route[0].max_body, Some(Size(1 << 30)));
    assert_eq!(route[0].request_headers.set["X-A"], "b");
    assert_eq!(parse("shown", &show(&parsed.config)).config, parsed.config);
}

#[test]
fn ten_mistakes_ten_messages() {
    let text = r#"[server]
listen = [":8080", "127.0.0.1:8080"]
idel_timeout = "75s"
max_body = "10 megs"
workers = "four"
tls = { min_version = "1.1" }

[log]
level = "inof"

[issuer.bonterra]
url = "https://auth.bonterra.network/"
leeway = 30
algorithms = ["RS256", "HS256"]

[upstream.grants]
servers = ["http://127.0.0.1:9000"]

[[route]]
name = "a"
path = "/a"
upstream = "grantz"

[[route]]
name = "b"
path = "/b"
upstraem = "grants"
"#;
    let errors = report(text, |config| {
        let mut mistakes = Vec::new();
        for (index, route) in config.route.iter().enumerate() {
            let at = at!["route", index];
            match &route.upstream {
                None => mistakes.push(Mistake::missing(at.key("upstream"))),
                Some(name) if !config.upstream.contains_key(name) => mistakes.push(
                    Mistake::value(at.key("upstream"), format!("no upstream `{name}`"))
                        .concerns(at!["upstream", name])
                        .hint(suggest(name, config.upstream.keys().map(String::as_str)).unwrap()),
                ),
                Some(_) => {}
            }
        }
        mistakes
    });
    let found: Vec<_> = errors
        .iter()
        .map(|m| {
            (
                m.line,
                m.column,
                m.message.as_str(),
                m.hint.as_deref().unwrap_or(""),
            )
        })
        .collect();
    let expected = [
        (
            2,
            11,
            "\":8080\" has no address: write \"0.0.0.0:8080\" for all IPv4 or \"[::]:8080\" for all addresses",
            "",
        ),
        (
            3,
            1,
            "unknown key `idel_timeout`",
            "did you mean `idle_timeout`?",
        ),
        (
            4,
            12,
            "\"10 megs\" is not a size: `megs` is none of the units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB",
            "for example \"64KiB\" or \"10MiB\"",
        ),
        (
            5,
            11,
            "expected a whole number, found a string",
            "write it without quotes",
        ),
        (
            6,
            23,
            "\"1.1\" is not a possible value of `min_version`",
            "did you mean \"1.2\"?",
        ),
        (
            9,
            9,
            "\"inof\" is not a possible value of `level`",
            "did you mean \"info\"?",
        ),
        (
            13,
            10,
            "expected a duration, found a whole number",
            "write \"30s\"",
        ),
        (
            14,
            24,
            "\"HS256\" is not a possible value of `algorithms`",
            "did you mean \"RS256\"?",
        ),
        (22, 12, "no upstream `grantz`", "grants"),
        (27, 1, "unknown key `upstraem`", "did you mean `upstream`?"),
    ];
    assert_eq!(found, expected, "{errors}");
    let shown = errors.to_string();
    assert!(
        shown.contains(
            "\
error: unknown key `idel_timeout`
 --> gateway.toml:3:1
  |
3 | idel_timeout = \"75s\"
  | ^^^^^^^^^^^^
  |
  = help: did you mean `idle_timeout`?
"
        ),
        "{shown}"
    );
    assert!(shown.ends_with("\n10 mistakes in gateway.toml"), "{shown}");
    assert!(!shown.contains('\u{1b}') && errors.render(true).contains('\u{1b}'));
}

#[test]
fn types_that_do_not_fit() {
    for (text, at, hint) in [
        (
            "[log]\naccess = \"yes\"",
            "2:10: expected true or false, found a string",
            "without quotes",
        ),
        ("[server]\nworkers = -1", "2:11: -1 is negative", ""),
        (
            "[server]\nworkers = 1.5",
            "2:11: expected a whole number, found a number",
            "",
        ),
        (
            "[server]\nworkers = 99999999999999999999999",
            "2:11: the number is too large",
            "",
        ),
        (
            "[server]\nlisten = \"127.0.0.1:1\"",
            "2:10: expected a list, found a string",
            "brackets",
        ),
        (
            "[[server]]\nworkers = 1",
            "1:1: expected a table, found a list of tables",
            "`[server]`",
        ),
        (
            "[route]\nname = \"x\"",
            "1:1: expected a list, found a table",
            "`[[route]]`",
        ),
        (
            "[issuer]\nurl = \"x\"",
            "2:1: `url` is in a table without a name",
            "[issuer.NAME]",
        ),
        (
            "[issuer.jwks]\nttl = \"1s\"",
            "1:9: `jwks` is in a table without a name",
            "[issuer.NAME]",
        ),
        (
            "[upstream.u]\nservers = [{ url = \"x\", wieght = 2 }]",
            "2:25: unknown key `wieght`",
            "`weight`",
        ),
        (
            "[upstream.u]\nservers = [\"x\", { url = \"x\", weight = \"2\" }]",
            "2:39: expected a whole number, found a string",
            "without quotes",
        ),
        (
            "[upstream.u.health]\nexpect = [200, 2.5]",
            "2:16: expected a whole number or a range of statuses, found a number",
            "200-299",
        ),
        (
            "[upstream.u.health]\nexpect = [200, 700]",
            "2:16: 700 is no status",
            "200-299",
        ),
        (
            "[upstream.u.health]\nexpect = [\"2xx\"]",
            "2:11: \"2xx\" is no range of statuses",
            "",
        ),
        (
            "[upstream.u]\nhash_on = \"sub\"",
            "2:11: \"sub\" is nothing to go by",
            "claim:sub",
        ),
        (
            "[upstream.u]\nservers = [1]",
            "2:12: expected a string or a table, found a whole number",
            "quotes",
        ),
        (
            "[upstream.u]\nprefix = \"x\"",
            "2:1: unknown key `prefix`",
            "`prefix` is a key of `[oauth.NAME]`",
        ),
        (
            "[upstream.u]\nmethods = []",
            "2:1: unknown key `methods`",
            "`[[route]]`",
        ),
        (
            "[admin]\nxyz = 1",
            "2:1: unknown key `xyz`",
            "keys here are listen",
        ),
        (
            "[[route]]\nrate_limit = { rate = \"100\" }",
            "2:23: \"100\" is not a rate: no `/` before the unit",
            "100/s",
        ),
        (
            "[[route]]\nrate_limit = { rate = \"100/s\", by = \"user\" }",
            "2:37: \"user\" is not a possible value of `by`",
            "",
        ),
        (
            "[server]\nlisten = [\"unix:run/x\"]",
            "2:11: \"unix:run/x\": the path of a Unix socket begins with a slash",
            "",
        ),
        (
            "[log]\nsample = 20",
            "2:10: expected a percentage, found a whole number",
            "write \"20%\"",
        ),
        (
            "[server]\nmax_body = 10",
            "2:12: expected a size, found a whole number",
            "write \"10B\"",
        ),
        (
            "[[route]]\nallow_ips = [\"10.0.0.1\"]",
            "2:14: \"10.0.0.1\" is an address, not a network: write \"10.0.0.1/32\"",
            "",
        ),
        (
            "[[route]]\nclaims = { since = 2024-01-01 }",
            "2:20: a date cannot be the value of a claim",
            "strings",
        ),
        (
            "[[route]]\nclaims.x = [nan]",
            "2:13: a number that is not finite cannot be the value of a claim",
            "",
        ),
        (
            "[[route]]\nauth = true",
            "2:8: expected a string, found a boolean",
            "one of \"required\"",
        ),
    ] {
        let (found, found_hint) = only(text);
        assert_eq!(found, at, "{text}");
        assert!(found_hint.contains(hint), "{text}: {found_hint:?}");
    }
}

#[test]
fn syntax_errors_do_not_hide_the_rest() {
    let text = "[server]\nlisten\nworkers = four\nmax_body = \"x\"\n[log]\nlevle = \"info\"\nlevel = \"info\"\nlevel = \"warn\"\n";
    let errors = report(text, |_| vec![Mistake::missing(at!["server", "workers"])]);
    let lines: Vec<_> = errors.iter().map(|m| m.line).collect();
    assert_eq!(lines, [2, 3, 4, 6, 8], "{errors}");
    assert!(errors.iter().all(|m| m.column > 0));
}

#[test]
fn what_is_quoted_cannot_steer_the_terminal() {
    let errors = shape_errors("log.level = \"\\u001b[31m\"\n\"\\u001b[2J\" = 1");
    assert_eq!(errors.len(), 2);
    assert!(!errors.to_string().contains('\u{1b}'), "{errors:?}");
}

#[test]
fn windows_line_ends_and_byte_order_marks_are_fine() {
    let text = "\u{feff}[log]\r\nlevel = \"info\"\r\n\tacces = true\r\n";
    let (found, hint) = only(text);
    assert_eq!(found, "3:2: unknown key `acces`");
    assert_eq!(hint, "did you mean `access`?");
    assert!(!shape_errors(text).to_string().contains('\r'));
}

#[test]
fn a_flood_of_mistakes_ends() {
    let text = "[[route]]\ntimeout = \"soon\"\n".repeat(300);
    let errors = report(&text, |_| vec![Mistake::missing(at!["issuer"])]);
    assert_eq!(errors.len(), 201);
    assert!(errors.iter().any(|m| m.message.contains("more than 200")));
}

#[test]
fn an_issuer_may_be_called_jwks() {
    let parsed = parse(
        "t",
        "[issuer.jwks]\nurl = \"x\"\n[upstream.idle_timeout]\nservers = []",
    );
    assert!(parsed.mistakes.is_empty(), "{:?}", parsed.mistakes);
}

#[test]
fn all_syntax_errors_are_found_around_one_that_hides_the_rest() {
    let text =
        "[server]\nlisten = 0.0.0.0:80\nworkers\n[log\nlevel = info\nx = [\n \"a\"\n \"b\"]\nz = 1";
    let lines: Vec<_> = shape_errors(text).iter().map(|m| m.line).collect();
    assert_eq!(lines, [2, 3, 4, 5, 8]);
}

#[test]
fn a_table_that_is_there_twice_hides_nothing() {
    let text =
        "[log]\nlevle = 1\n[admin]\n[log]\nlevel = \"loud\"\nformat = text\n[server]\nworkers = -1";
    let errors = shape_errors(text);
    let lines: Vec<_> = errors.iter().map(|m| m.line).collect();
    assert_eq!(lines, [2, 4, 5, 6, 8], "{errors}");
}

#[test]
fn mistakes_that_follow_from_a_broken_line_are_left_out() {
    let text = "[issuer.a]\nurl = x\naudiences = y\nalgorithms = []\n[[route]]\nupstream = \"u\"\n[upstreem.u]";
    let errors = report(text, |_| {
        vec![
            Mistake::missing(at!["issuer", "a", "url"]),
            Mistake::value(at!["issuer", "a", "audiences"], "empty"),
            Mistake::value(at!["issuer", "a", "algorithms"], "is empty too"),
            Mistake::value(at!["route", 0, "upstream"], "no upstream")
                .concerns(at!["upstream", "u"]),
        ]
    });
    let lines: Vec<_> = errors.iter().map(|m| m.line).collect();
    assert_eq!(lines, [2, 3, 4, 7], "{errors}");
}

#[test]
fn a_broken_header_is_reported_alone() {
    for text in [
        "[server]\nworkers = 1\n[upstream.grants\nservers = []\nbalance = 1\n[log]\nlevle = 1",
        "[server\nworkers = 1",
        "[[route]\nname = 1",
        "[server] workers = 1\nfoo = 1",
        "[ser ver]\nworkers = 1",
    ] {
        let errors = report(text, |_| vec![Mistake::missing(at!["issuer"])]);
        assert_eq!(errors.len(), 1, "{text}\n{errors}");
    }
}

#[test]
fn any_text_is_survived() {
    // Every prefix of the default file, and every file with one byte changed to something unkind.
    for end in (0..DEFAULT.len())
        .filter(|end| DEFAULT.is_char_boundary(*end))
        .step_by(7)
    {
        let text = DEFAULT.get(..end).unwrap();
        let _ = shape_errors(text).render(true);
    }
    for (position, unkind) in (0..DEFAULT.len())
        .step_by(11)
        .zip("\"'[]{}=#\n\u{0}\\,.é".chars().cycle())
    {
        if DEFAULT.is_char_boundary(position) && DEFAULT.is_char_boundary(position + 1) {
            let mut text = DEFAULT.to_owned();
            text.replace_range(position..=position, &unkind.to_string());
            let _ = shape_errors(&text).to_string();
        }
    }
}

#[test]
fn places_of_mistakes_found_later() {
    let text = r#"[issuer.bonterra.jwks]
ttl = "1m"

[upstream.u]
servers = ["a", 3, "b"]

[[route]]
name = "first"

[[route]]
name = "second"
claims = { "urn:a.b" = "x" }
"#;
    let errors = report(text, |config| {
        let urls: Vec<_> = config.upstream["u"]
            .servers
            .iter()
            .map(|s| &*s.url)
            .collect();
        assert_eq!(urls, ["a", "b"]);
        vec![
            Mistake::missing(at!["issuer", "bonterra", "url"]),
            Mistake::value(at!["upstream", "u", "servers", 1], "b"),
            Mistake::value(at!["upstream", "u", "servers"], "follows from the 3"),
            Mistake::missing(at!["route", 1, "path"]),
            Mistake::value(at!["route", 1, "name"], "name"),
            Mistake::key(at!["route", 1, "claims", "urn:a.b"], "claim"),
            Mistake::value(at!["server", "listen", 0], "a default"),
            Mistake::value(at!["route", 0, "upstream"], "x")
                .concerns(at!["upstream", "u", "servers"]),
        ]
    });
    let found: Vec<_> = errors
        .iter()
        .map(|m| (m.line, m.column, m.message.as_str()))
        .collect();
    let expected = [
        (1, 1, "a default"),
        (1, 9, "`url` is missing"),
        (5, 17, "expected a string or a table, found a whole number"),
        (5, 20, "b"),
        (10, 1, "`path` is missing"),
        (11, 8, "name"),
        (12, 12, "claim"),
    ];
    assert_eq!(found, expected, "{errors}");
    assert!(
        errors
            .to_string()
            .contains("error: a default\n--> gateway.toml:1:1\n\n"),
        "{errors}"
    );
}

#[test]
fn secrets_are_not_shown() {
    for text in [
        "[issuer.a]\nclient_secret = [\"hunter2\"]",
        "[issuer.a]\nclient_secret = hunter2",
        "[issuer.a]\nclient_secret \"hunter2\"",
        "[issuer.a]\nclient_secret = \"hunter2",
        "[issuer.a]\nclient_secret = \"\"\"\nhunter2\\q\"\"\"",
        "[issuer.a]\nx = { client_secret = \"hunter2\" }",
        "[[route]]\nrequest_headers.set = { Authorization = [\"hunter2\"] }",
        "[upstream.a]\nservers = [\"http://me:hunter2@h\", 1]",
    ] {
        let parsed = parse("gateway.toml", text);
        let debug = format!("{:?} {:?}", parsed.source, parsed.mistakes);
        let errors = parsed.source.report(parsed.mistakes);
        assert!(!errors.is_empty(), "{text}");
        let shown = format!("{errors} {errors:?} {} {debug}", errors.render(true));
        assert!(!shown.contains("hunter2"), "{text}\n{shown}");
    }
}

#[test]
fn unreadable_files_say_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("binary.toml");
    std::fs::write(&binary, b"[server]\n\xff").unwrap();
    for (path, message) in [
        (dir.path().join("absent.toml"), "cannot be read"),
        (dir.path().to_owned(), "cannot be read"),
        (
            binary,
            "not a text in UTF-8: the first other byte is in line 2",
        ),
    ] {
        let errors = load(&path).unwrap_err();
        let item = errors.iter().next().unwrap();
        assert!(item.message.contains(message), "{errors}");
        assert!(item.message.contains(&path.display().to_string()));
        assert!(item.hint.is_some());
        assert!(errors.to_string().contains("\n--> "), "{errors}");
    }
    let good = dir.path().join("good.toml");
    std::fs::write(&good, DEFAULT).unwrap();
    assert!(load(&good).unwrap().mistakes.is_empty());
}
