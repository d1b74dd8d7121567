//! `revoke`: has the running gateway refuse a token, or all tokens of a subject.

use super::output::{self, GOOD};
use super::{FAILED, MISCONFIGURED, admin_client, run};
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use std::io::Read as _;
use std::path::Path;

/// What to revoke. One of the first three.
#[derive(Debug, clap::Args)]
pub struct What {
    /// A token, or `-` to read it from standard input, where no other user of the machine sees it.
    #[arg(long, value_name = "TOKEN", group = "what")]
    token: Option<String>,
    /// One token, by its `jti`.
    #[arg(long, value_name = "ID", group = "what", requires = "issuer")]
    jti: Option<String>,
    /// All tokens of a subject that were issued until now.
    #[arg(long, value_name = "SUB", group = "what", requires = "issuer")]
    subject: Option<String>,
    /// The name of the issuer, as in [issuer.NAME].
    #[arg(long, value_name = "NAME", conflicts_with = "token")]
    issuer: Option<String>,
    /// How long to remember it, where the token does not say when it expires [default: 30d].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    keep: Option<std::time::Duration>,
}

/// Revokes. Returns the exit code.
pub fn run(path: &Path, what: What) -> u8 {
    let order = match order(what) {
        Ok(order) => order,
        Err(why) => return output::fail(&why, MISCONFIGURED),
    };
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    };
    let asked = admin_client::ask(path, Method::POST, "/-/revoke", Some(order));
    match runtime.block_on(asked) {
        Ok((StatusCode::OK, _)) => output::print(&format!("{GOOD}revoked{GOOD:#}\n")),
        Ok((_, text)) => output::fail(&format!("not revoked: {}", text.trim_end()), FAILED),
        Err(why) => output::fail(&why, FAILED),
    }
}

/// The order as the admin listener takes it.
fn order(what: What) -> Result<String, String> {
    let mut order = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            order.insert(name.to_owned(), Value::String(value));
        }
    };
    put("token", what.token.map(token).transpose()?);
    put("jti", what.jti);
    put("sub", what.subject);
    put("issuer", what.issuer);
    if order.is_empty() {
        return Err("say what to revoke: --token -, --jti ID or --subject SUB".to_owned());
    }
    if let Some(keep) = what.keep {
        order.insert("keep".to_owned(), keep.as_secs().into());
    }
    Ok(Value::Object(order).to_string())
}

fn token(argument: String) -> Result<String, String> {
    if argument != "-" {
        return Ok(argument);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("standard input cannot be read: {error}"))?;
    match text.trim() {
        "" => Err("standard input holds no token".to_owned()),
        token => Ok(token.to_owned()),
    }
}
