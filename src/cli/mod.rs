//! The command line: one file for each command that does more than print.

mod admin_client;
mod check;
mod config;
mod demo;
mod explain;
mod healthcheck;
mod inspect;
mod notify;
mod output;
mod reload;
mod revoke;
mod run;
mod stdin;

use clap::{CommandFactory as _, Parser, Subcommand};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Failed while running.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage or configuration.
pub(crate) const MISCONFIGURED: u8 = 2;
/// The request that was to be explained is refused.
pub(crate) const REFUSED: u8 = 3;

/// API gateway and OAuth token broker for internal APIs of the Bonterra Network.
///
/// It forwards /oauth/token to Bonterra Auth, checks the bearer token of every other request
/// against the issuer's keys, tells upstreams who is calling in headers that nobody can forge,
/// and says why whenever it refuses.
///
/// New here? `bonterra-gateway demo` needs no set-up and prints commands to paste.
#[derive(Debug, Parser)]
#[command(
    name = "bonterra-gateway",
    version = crate::VERSION,
    after_help = "Exit codes: 0 fine, 1 failed while running, 2 wrong usage or configuration, 3 refused (explain)."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve.
    ///
    /// SIGTERM and SIGINT drain and stop, a second one stops at once; SIGHUP and changes of the
    /// file reload it.
    Run(File),
    /// Try it: gateway, simulated Bonterra Auth and an echo API on loopback.
    Demo {
        /// Where the gateway listens. The other parts take free ports if theirs are in use.
        #[arg(long, default_value = "127.0.0.1:8080")]
        listen: SocketAddr,
    },
    /// Find all mistakes in the configuration, each with line, column and a hint.
    Check {
        #[command(flatten)]
        file: File,
        /// Also fetch every issuer's discovery document and keys.
        #[arg(long)]
        online: bool,
    },
    /// Say what the gateway would make of a request, step by step: exit 0 admitted, 3 refused.
    ///
    /// Nothing is sent to any upstream. The issuer is asked for its keys if the decision needs them.
    Explain(explain::Question),
    /// Look into a token.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Ask the running gateway whether it is ready; for containers without a shell.
    Healthcheck(File),
    /// Ask the running gateway to read its file again, and print what changed or why not.
    Reload(File),
    /// Have the running gateway refuse a token from its next request on.
    Revoke {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        what: revoke::What,
    },
    /// Show the configuration, its schema, or a commented default.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Show header and claims of a token. Nothing is verified: `explain` does that.
    Inspect {
        /// The token, or `-` for standard input, which is where it is read from without this.
        /// Better use that: other users of this machine can see the arguments of a program.
        #[arg(value_name = "TOKEN")]
        token: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// The configuration with all defaults filled in; secrets are masked.
    Show(File),
    /// The JSON Schema of the file, for editors.
    Schema,
    /// A commented file to start from.
    Default,
}

#[derive(Debug, clap::Args)]
struct File {
    /// The configuration file.
    #[arg(
        short,
        long = "config",
        env = "GATEWAY_CONFIG",
        default_value = "gateway.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

/// Parses the arguments and runs the command.
pub fn main() -> ExitCode {
    let code = match Arguments::parse().command {
        Command::Run(file) => run::run(file.config),
        Command::Demo { listen } => demo::run(listen),
        Command::Check { file, online } => check::run(&file.config, online),
        Command::Explain(question) => explain::run(&question),
        Command::Token(TokenCommand::Inspect { token }) => inspect::run(token.as_deref()),
        Command::Healthcheck(file) => healthcheck::run(&file.config),
        Command::Reload(file) => reload::run(&file.config),
        Command::Revoke { file, what } => revoke::run(&file.config, what),
        Command::Config(ConfigCommand::Show(file)) => config::show(&file.config),
        Command::Config(ConfigCommand::Schema) => config::schema(),
        Command::Config(ConfigCommand::Default) => output::print(crate::config::DEFAULT),
        Command::Completions { shell } => completions(shell),
        Command::Man => man(),
    };
    ExitCode::from(code)
}

fn completions(shell: clap_complete::Shell) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(
        shell,
        &mut Arguments::command(),
        "bonterra-gateway",
        &mut script,
    );
    written(std::io::stdout().write_all(&script))
}

fn man() -> u8 {
    written(clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout()))
}

/// A reader that has gone away (`| head`) is not our failure.
pub(crate) fn written(outcome: std::io::Result<()>) -> u8 {
    match outcome {
        Ok(()) => 0,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => 0,
        Err(error) => output::fail(&format!("cannot write: {error}"), FAILED),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
