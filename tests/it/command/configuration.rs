//! `check` and `config`.

use crate::harness::program::{call, shell};
use crate::harness::{CONFIG, nobody};
use bonterra_gateway::demo::auth::{AuthOptions, BonterraAuth};
use serde_json::Value;
use tempfile::TempDir;

/// Ten mistakes. What follows ` # ` is not in the file: the column, the message and the hint.
const MISTAKES: &str = r#"[server]
listen = ["127.0.0.1:0"]
header_timout = "10s" # 1 unknown key `header_timout` + did you mean `header_timeout`?
idle_timeout = "75" # 16 "75" is not a duration + "30s"
max_body = "10 apples" # 12 "10 apples" is not a size + "10MiB"

[issuer.bonterra]
url = "http://auth.example.com/" # 7 plain http + use https
audiences = ["https://api.bonterra.network"]
algorithms = ["HS256"] # 15 "HS256" is not a possible value + RS256

[issuer.bonterra.headers]
"X Bad" = "sub" # 1 `X Bad` is no header name + letters, digits

[oauth.bonterra]
issuer = "bontera" # 10 there is no [issuer.bontera] + did you mean `bonterra`?

[upstream.echo]
servers = ["127.0.0.1:9000"] # 12 http:// + http://host:port

[[route]]
name = "grants"
path = "/grants/*"
upstream = "ecko" # 12 there is no [upstream.ecko] + did you mean `echo`?
auth = "sometimes" # 8 "sometimes" is not a possible value + "required", "optional", "none"
"#;

#[tokio::test]
async fn ten_mistakes_are_ten_located_messages() {
    let folder = TempDir::new().expect("a folder");
    let lines = MISTAKES
        .lines()
        .map(|line| line.split(" # ").next().expect("a line"));
    let file: String = lines.flat_map(|line| [line, "\n"]).collect();
    std::fs::write(folder.path().join("gateway.toml"), file).expect("written");
    for command in ["check", "run", "config show"] {
        let said = call(folder.path(), &command.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(said.code, Some(2), "{command}: {}", said.stderr);
        assert_eq!(said.stdout, "", "{command}");
        let messages: Vec<&str> = said.stderr.split("error: ").skip(1).collect();
        assert_eq!(messages.len(), 10, "{command}: {}", said.stderr);
        assert!(
            said.stderr.contains("10 mistakes in gateway.toml"),
            "{command}: {}",
            said.stderr
        );
        let mut told = messages.into_iter();
        for (number, line) in MISTAKES.lines().enumerate() {
            let Some((code, expected)) = line.split_once(" # ") else {
                continue;
            };
            let (column, expected) = expected.split_once(' ').expect("a column");
            let (what, hint) = expected.split_once(" + ").expect("a hint");
            let message = told.next().expect("ten messages");
            let at = format!("gateway.toml:{}:{column}\n", number + 1);
            for part in [what, hint, at.as_str(), code, "^^^"] {
                assert!(
                    message.contains(part),
                    "{command}, line {}: no {part:?} in\n{message}",
                    number + 1
                );
            }
        }
    }
}

#[tokio::test]
async fn the_default_configuration_is_right() {
    let folder = TempDir::new().expect("a folder");
    let default = call(folder.path(), &["config", "default"]).await;
    assert_eq!(default.code, Some(0));
    let file = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/gateway.toml"))
        .expect("the file");
    assert_eq!(
        default.stdout, file,
        "it is the file in the root of the repository"
    );

    let program = env!("CARGO_BIN_EXE_bonterra-gateway");
    let piped = shell(&format!(
        "{program} config default | {program} check -c /dev/stdin"
    ))
    .await;
    assert_eq!(piped.code, Some(0), "{}", piped.stderr);
    assert_eq!(
        piped.stdout,
        "ok /dev/stdin: 7 routes, 2 upstreams, 1 issuer, 4 OAuth surfaces\n"
    );

    // Without -c it is ./gateway.toml, or what GATEWAY_CONFIG says.
    let missing = call(folder.path(), &["check"]).await;
    assert_eq!(missing.code, Some(2));
    assert!(
        missing.stderr.contains("gateway.toml cannot be read"),
        "{}",
        missing.stderr
    );
    assert!(missing.stderr.contains("-c FILE"), "{}", missing.stderr);
    std::fs::write(folder.path().join("gateway.toml"), &file).expect("written");
    assert_eq!(call(folder.path(), &["check"]).await.code, Some(0));
    let path = folder.path().join("gateway.toml");
    let named = shell(&format!(
        "cd / && GATEWAY_CONFIG={} {program} check",
        path.display()
    ))
    .await;
    assert_eq!(named.code, Some(0), "{}", named.stderr);
}

#[tokio::test]
async fn an_unreadable_file_says_so() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("gateway.toml");
    for (content, expected) in [
        (&b"[server\nlisten = 1"[..], "gateway.toml:1:"),
        (b"[[route]]\npath = \"/a\xff\"", "UTF-8"),
        (b"", "nothing is served"),
        (
            b"[server]\nlisten = [\"127.0.0.1:0\"]\n[server]\n",
            "gateway.toml:3:",
        ),
    ] {
        std::fs::write(&path, content).expect("written");
        let said = call(folder.path(), &["check"]).await;
        assert_eq!(said.code, Some(2), "{}", String::from_utf8_lossy(content));
        assert!(
            said.stderr.contains(expected),
            "{expected}: {}",
            said.stderr
        );
    }
}

#[tokio::test]
async fn online_checks_ask_the_issuer() {
    let auth = BonterraAuth::start(AuthOptions::default())
        .await
        .expect("issuer");
    let folder = TempDir::new().expect("a folder");
    let write = |issuer: &str| {
        let config = CONFIG
            .replace("ISSUER", issuer)
            .replace("ECHO", "http://127.0.0.1:1");
        std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
    };
    write(auth.issuer());
    let good = call(folder.path(), &["check", "--online"]).await;
    assert_eq!(good.code, Some(0), "{}", good.stderr);
    assert!(
        good.stdout.contains("ok issuer bonterra: 2 keys at"),
        "{}",
        good.stdout
    );
    assert!(
        good.stdout
            .contains(&format!("{}oauth/token", auth.issuer())),
        "{}",
        good.stdout
    );

    auth.stop().await;
    let down = call(folder.path(), &["check", "--online"]).await;
    assert_eq!(down.code, Some(1), "the file is right, the world is not");
    let all = format!("{}{}", down.stdout, down.stderr);
    assert!(all.contains("failed issuer bonterra"), "{all}");
    assert!(all.contains(&auth.addr().to_string()), "{all}");
    assert_eq!(call(folder.path(), &["check"]).await.code, Some(0));

    write(&format!("http://{}/", nobody()));
    assert_eq!(
        call(folder.path(), &["check", "--online"]).await.code,
        Some(1)
    );
}

#[tokio::test]
async fn what_is_shown_is_complete_and_can_be_used() {
    let folder = TempDir::new().expect("a folder");
    let config = CONFIG
        .replace("ISSUER", "http://127.0.0.1:1/")
        .replace("ECHO", "http://127.0.0.1:2");
    std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
    let shown = call(folder.path(), &["config", "show"]).await;
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    for line in [
        "header_timeout = \"10s\"",
        "max_stale = \"24h\"",
        "drain_delay = \"0s\"",
        "X-Bonterra-Subject = \"sub\"",
    ] {
        assert!(shown.stdout.contains(line), "no {line} in {}", shown.stdout);
    }
    std::fs::write(folder.path().join("shown.toml"), &shown.stdout).expect("written");
    let again = call(folder.path(), &["config", "show", "-c", "shown.toml"]).await;
    assert_eq!(again.stdout, shown.stdout, "{}", again.stderr);
}

#[tokio::test]
async fn the_schema_knows_every_table() {
    let folder = TempDir::new().expect("a folder");
    let said = call(folder.path(), &["config", "schema"]).await;
    assert_eq!(said.code, Some(0));
    let schema: Value = serde_json::from_str(&said.stdout).expect("JSON");
    for table in [
        "server", "admin", "log", "issuer", "oauth", "upstream", "route",
    ] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
    assert_eq!(
        schema["additionalProperties"],
        Value::Bool(false),
        "as strict as the gateway"
    );
}
