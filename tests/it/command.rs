//! The program as people use it: its commands, what they print, and their exit codes.

mod configuration;
mod demo;
mod explain;
mod inspect;
mod run;

use crate::harness::program::call;
use tempfile::TempDir;

#[tokio::test]
async fn it_says_what_it_is() {
    let folder = TempDir::new().expect("a folder");
    for (arguments, expected) in [
        (
            vec!["--version"],
            vec!["bonterra-gateway ", env!("CARGO_PKG_VERSION"), "("],
        ),
        (
            vec!["--help"],
            vec![
                "run",
                "demo",
                "check",
                "explain",
                "token",
                "healthcheck",
                "reload",
                "config",
                "completions",
                "man",
            ],
        ),
        (
            vec!["run", "--help"],
            vec!["--config", "GATEWAY_CONFIG", "gateway.toml"],
        ),
        (
            vec!["completions", "bash"],
            vec!["complete -F", "healthcheck", "--online"],
        ),
        (
            vec!["completions", "zsh"],
            vec!["#compdef bonterra-gateway"],
        ),
        (
            vec!["completions", "fish"],
            vec!["complete -c bonterra-gateway"],
        ),
        (vec!["man"], vec![".TH bonterra-gateway 1", ".SH SYNOPSIS"]),
    ] {
        let said = call(folder.path(), &arguments).await;
        assert_eq!(said.code, Some(0), "{arguments:?}: {}", said.stderr);
        for part in expected {
            assert!(
                said.stdout.contains(part),
                "{arguments:?}: no {part} in {}",
                said.stdout
            );
        }
    }
}

#[tokio::test]
async fn wrong_usage_is_2() {
    let folder = TempDir::new().expect("a folder");
    for (arguments, expected) in [
        (vec![], "Usage:"),
        (vec!["frobnicate"], "frobnicate"),
        (vec!["chek"], "check"),
        (vec!["run", "--frobnicate"], "--frobnicate"),
        (vec!["run", "-c"], "--config"),
        (vec!["check", "--onlin"], "--online"),
        (vec!["completions", "tcl"], "bash"),
        (vec!["demo", "--listen", "8080"], "--listen"),
        (vec!["demo", "--listen", "0.0.0.0:8080"], "loopback"),
    ] {
        let said = call(folder.path(), &arguments).await;
        assert_eq!(said.code, Some(2), "{arguments:?}: {}", said.stderr);
        assert!(
            said.stderr.contains(expected),
            "{arguments:?}: {}",
            said.stderr
        );
        assert_eq!(said.stdout, "", "{arguments:?}");
    }
}

/// `| head` closes the pipe; that is no failure of ours.
#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let program = env!("CARGO_BIN_EXE_bonterra-gateway");
    let said = crate::harness::program::shell(&format!(
        "{program} config schema | head -c 10; exit ${{PIPESTATUS[0]}}"
    ))
    .await;
    assert_eq!((said.code, said.stderr.as_str()), (Some(0), ""));
}
