//! `revoke`: has the running gateway refuse a token, or all tokens of a subject.

use super::output::{self, GOOD};
use super::{FAILED, MISCONFIGURED, admin_client, run, stdin};
use crate::authn::token::is_b64token;
use crate::identity::unix_now;
use crate::steps;
use http::{Method, StatusCode};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// 100 years, as `--keep` counts them.
const LONGEST: Duration = Duration::from_secs(100 * 31_557_600);

/// What to revoke. One of the first three.
#[derive(Debug, clap::Args)]
pub struct What {
    /// A token, or `-` to read it from standard input, where no other user of the machine sees it.
    #[arg(long, value_name = "TOKEN", group = "what", allow_hyphen_values = true)]
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
    /// How long to remember it, where the token does not say when it expires: 1s to 100y
    /// [default: 30d].
    #[arg(long, value_name = "TIME", value_parser = keep)]
    keep: Option<Duration>,
}

/// Revokes. Returns the exit code.
pub fn run(path: &Path, what: What) -> u8 {
    let token = match what.token.as_deref().map(stdin::given).transpose() {
        Ok(token) => token,
        Err(error) => return stdin::unreadable(&error),
    };
    let order = match order(what, token.as_deref()) {
        Ok(order) => order,
        Err(why) => return output::fail(&why, MISCONFIGURED),
    };
    let runtime = match run::runtime() {
        Ok(runtime) => runtime,
        Err(error) => return output::fail(&format!("cannot start the runtime: {error}"), FAILED),
    };
    let asked = admin_client::ask(path, Method::POST, "/-/revoke", Some(order));
    match runtime.block_on(asked) {
        Ok((StatusCode::OK, reply)) => output::print(&done(&reply)),
        Ok((_, text)) => output::fail(&format!("not revoked: {}", text.trim_end()), FAILED),
        Err(why) => output::fail(&why, FAILED),
    }
}

/// What was done, in words.
fn done(reply: &str) -> String {
    let reply = serde_json::from_str::<Value>(reply).unwrap_or_default();
    let until = match reply["until"].as_i64() {
        Some(until) => format!(" until {}", steps::moment(until, unix_now())),
        None => String::new(),
    };
    let reach = match reply["shared"].as_bool() {
        Some(false) => {
            ", by this gateway alone so far: the shared store is away, and the others follow when it is back"
        }
        Some(true) | None => "",
    };
    format!("{GOOD}revoked{GOOD:#}{until}{reach}\n")
}

/// The order as the admin listener takes it. `token` is what came for one.
fn order(what: What, token: Option<&[u8]>) -> Result<String, String> {
    let mut order = Map::new();
    let mut put = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            order.insert(name.to_owned(), Value::String(value));
        }
    };
    put("token", token.map(usable).transpose()?);
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

/// A token as a request would carry it. A token is known by all its bytes: with one too many another
/// one would be revoked, which nobody has.
fn usable(token: &[u8]) -> Result<String, String> {
    match stdin::bare(&String::from_utf8_lossy(token)) {
        "" => Err("standard input holds no token".to_owned()),
        token if is_b64token(token) => Ok(token.to_owned()),
        _ => Err(
            "this is no token: only letters, digits and -._~+/ can be in one, and = at its end"
                .to_owned(),
        ),
    }
}

fn keep(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < Duration::from_secs(1) {
        return Err("this would forget it at once: at least 1 second".to_owned());
    }
    if time > LONGEST {
        return Err("longer than any token is good: at most 100 years".to_owned());
    }
    Ok(time)
}
