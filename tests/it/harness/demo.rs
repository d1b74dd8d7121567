//! `bonterra-gateway demo` as a process of its own, and what it prints.

use super::eventually;
use super::program::{Running, program};
use std::net::SocketAddr;
use tempfile::TempDir;

/// The demo as it runs, with what it printed.
pub struct Demo {
    pub running: Running,
    pub gateway: SocketAddr,
    /// What is said of each command, and the command, continued lines included.
    pub commands: Vec<(String, String)>,
    /// What a demo that is killed would leave in the folder for temporary files.
    _temporary: TempDir,
}

impl Demo {
    /// The demo on a free port, all its commands printed.
    pub async fn start() -> Self {
        let temporary = TempDir::new().expect("a folder");
        let mut command = program(&["demo", "--listen", "127.0.0.1:0"]);
        command.env("TMPDIR", temporary.path());
        let mut running = Running::start(command);
        eventually("the demo has printed its commands", || {
            assert!(!running.has_ended(), "{}", running.stderr.text());
            let text = running.stdout.text();
            std::future::ready(text.ends_with("\nCtrl-C ends the demo.\n"))
        })
        .await;
        let text = running.stdout.text();
        let blocks = text.split("\n# ").skip(1).map(|block| {
            let (what, rest) = block.split_once('\n').expect("a command");
            // A heading may follow.
            let command = rest.split("\n\n").next().unwrap_or_default();
            (what.to_owned(), command.trim().to_owned())
        });
        let gateway = named(&text, "gateway");
        let gateway = gateway.strip_prefix("http://").expect("an origin");
        Self {
            gateway: gateway.parse().expect("an address"),
            commands: blocks.collect(),
            running,
            _temporary: temporary,
        }
    }

    /// What is said to be there under this name: an address, a file.
    pub fn named(&self, name: &str) -> String {
        named(&self.running.stdout.text(), name)
    }

    /// Takes the first command that is left and whose description begins like this.
    pub fn take(&mut self, what: &str) -> String {
        let found = self
            .commands
            .iter()
            .position(|(own, _)| own.starts_with(what));
        let found = found.unwrap_or_else(|| panic!("no {what:?} in {:?}", self.commands));
        self.commands.remove(found).1
    }
}

fn named(text: &str, name: &str) -> String {
    let line = text
        .lines()
        .find_map(|line| line.trim().strip_prefix(name))
        .expect("a line");
    line.split_whitespace().next().expect("a word").to_owned()
}
