//! Secrets: a string that does not show itself, and the three ways to configure one.

use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::path::Path;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};

use super::mask::MASK;
use super::mistake::Mistake;
use super::path::KeyPath;

/// Larger files hold something else than a secret.
const LARGEST: u64 = 64 << 10;

/// A secret. It shows as `********` wherever it is printed or serialized; only [`Secret::expose`] gives it away.
///
/// Comparing two takes a time that depends on their contents: for configuration, not for authentication.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// A secret key `KEY` and its twins `KEY_file` and `KEY_env`, as they are in the file. Exactly one must be there.
#[derive(Clone, Copy, Debug)]
pub struct SecretSource<'a> {
    /// The name of the key, without a suffix.
    pub key: &'a str,
    /// The value of `KEY`.
    pub inline: Option<&'a Secret>,
    /// The value of `KEY_file`.
    pub file: Option<&'a Path>,
    /// The value of `KEY_env`.
    pub env: Option<&'a str>,
}

/// A secret that was found, and what about it deserves a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The secret; never empty.
    pub secret: Secret,
    /// For the log: the secret works, but not only the gateway can read it.
    pub warning: Option<String>,
}

// === impl Secret ===

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself. What comes of it must not reach a log, an error or a `Debug`.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "secret", "writeOnly": true })
    }
}

// === impl SecretSource ===

impl SecretSource<'_> {
    /// Whether none of the three keys is there, for secrets that are optional.
    pub const fn is_absent(&self) -> bool {
        self.inline.is_none() && self.file.is_none() && self.env.is_none()
    }

    /// The secret, read from where the one key that is there says. `table` is where the keys are.
    ///
    /// # Errors
    /// When none or several of the keys are there, or what the one says cannot be read or is empty.
    pub fn resolve(&self, table: &KeyPath) -> Result<Resolved, Mistake> {
        self.resolve_in(table, |name| std::env::var_os(name))
    }

    fn resolve_in(
        &self,
        table: &KeyPath,
        env: impl FnOnce(&str) -> Option<OsString>,
    ) -> Result<Resolved, Mistake> {
        let (key, file_key, env_key) = (
            self.key.to_owned(),
            format!("{}_file", self.key),
            format!("{}_env", self.key),
        );
        match (self.inline, self.file, self.env) {
            (Some(secret), None, None) => {
                from_text(&table.key(&key), secret.expose(), "the secret")
            }
            (None, Some(path), None) => from_file(&table.key(&file_key), path),
            (None, None, Some(name)) => from_env(&table.key(&env_key), name, env(name)),
            (None, None, None) => Err(Mistake::missing(table.key(&key))
                .hint(format!("give one of `{file_key}`, `{env_key}` and `{key}`"))),
            (inline, file, _) => {
                let there = [(inline.is_some(), &key), (file.is_some(), &file_key)];
                let first = there.into_iter().find(|(is_there, _)| *is_there);
                let at = table.key(first.map_or(&env_key, |(_, name)| name));
                let message = format!("more than one of `{key}`, `{file_key}` and `{env_key}`");
                Err(Mistake::key(at, message).hint("keep one of them"))
            }
        }
    }
}

fn from_text(at: &KeyPath, text: &str, what: &str) -> Result<Resolved, Mistake> {
    if text.trim().is_empty() {
        return Err(Mistake::value(at.clone(), format!("{what} is empty")));
    }
    Ok(Resolved {
        secret: Secret::new(text),
        warning: None,
    })
}

fn from_env(at: &KeyPath, name: &str, value: Option<OsString>) -> Result<Resolved, Mistake> {
    let variable = format!("the environment variable {name}");
    let Some(value) = value else {
        return Err(Mistake::value(at.clone(), format!("{variable} is not set"))
            .hint("set it for the gateway's process, or use the `_file` twin"));
    };
    match value.to_str() {
        Some(text) => from_text(at, text, &variable),
        None => Err(Mistake::value(
            at.clone(),
            format!("{variable} is not text in UTF-8"),
        )),
    }
}

fn from_file(at: &KeyPath, path: &Path) -> Result<Resolved, Mistake> {
    let shown = path.display();
    let wrong = |message: String| Mistake::value(at.clone(), message);
    let (text, open_to_all) = read(path).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            wrong(format!("{shown} is too large for a secret")).hint(format!("at most {LARGEST} bytes"))
        }
        io::ErrorKind::InvalidData => wrong(format!("{shown} is not text in UTF-8")),
        _ => wrong(format!("{shown} cannot be read: {error}"))
            .hint("the path is relative to the gateway's working directory; its user must be able to read the file"),
    })?;
    // Editors and `echo` end a file with a newline, which is no part of the secret.
    let text = text.trim_end_matches(['\r', '\n']);
    let mut resolved = from_text(at, text, &format!("the secret in {shown}"))?;
    resolved.warning =
        open_to_all.then(|| format!("{at}: {shown} can be read by every user of this machine"));
    Ok(resolved)
}

/// The file's text, and whether everybody may read it.
fn read(path: &Path) -> io::Result<(String, bool)> {
    let file = std::fs::File::open(path)?;
    let open_to_all = is_open_to_all(&file.metadata()?);
    let mut text = String::new();
    // Limited, lest a device or a wrong path fills the memory.
    let length = file.take(LARGEST + 1).read_to_string(&mut text)?;
    if length as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok((text, open_to_all))
}

#[cfg(unix)]
fn is_open_to_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_open_to_all(_: &std::fs::Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::at;

    fn source<'a>(
        inline: Option<&'a Secret>,
        file: Option<&'a Path>,
        env: Option<&'a str>,
    ) -> SecretSource<'a> {
        SecretSource {
            key: "client_secret",
            inline,
            file,
            env,
        }
    }

    fn table() -> KeyPath {
        at!["issuer", "x"]
    }

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn never_shows_itself() {
        let secret = Secret::new("hunter2");
        let config = std::collections::BTreeMap::from([("client_secret", &secret)]);
        let shown = format!(
            "{secret} {secret:?} {:#?}",
            source(Some(&secret), None, None)
        );
        let written = toml::to_string(&config).unwrap() + &serde_json::to_string(&config).unwrap();
        for text in [shown, written] {
            assert!(!text.contains("hunter2") && text.contains(MASK), "{text}");
        }
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn inline_and_env() {
        let secret = Secret::new("s");
        let resolved = source(Some(&secret), None, None).resolve_in(&table(), nothing);
        assert_eq!(resolved.map(|r| r.secret), Ok(secret));

        let env = |name: &str| (name == "X").then(|| OsString::from("from env"));
        let resolved = source(None, None, Some("X"))
            .resolve_in(&table(), env)
            .unwrap();
        assert_eq!(resolved.secret.expose(), "from env");
        assert_eq!(resolved.warning, None);
    }

    #[test]
    fn explains_each_mistake() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &[u8]| {
            let path = dir.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (empty, binary) = (file("empty", b"\n"), file("binary", &[0xff, 0xfe]));
        let (large, absent) = (file("large", &[b'x'; 70_000]), dir.path().join("absent"));
        let (secret, blank) = (Secret::new("hunter2"), Secret::new(" "));
        let both = (Some(&secret), Some(&*absent));
        for (inline, file, env, key, message) in [
            (
                None,
                None,
                None,
                "client_secret",
                "`client_secret` is missing",
            ),
            (both.0, both.1, None, "client_secret", "more than one of"),
            (
                None,
                both.1,
                Some("X"),
                "client_secret_file",
                "more than one of",
            ),
            (Some(&blank), None, None, "client_secret", "is empty"),
            (
                None,
                None,
                Some("X"),
                "client_secret_env",
                "variable X is not set",
            ),
            (None, Some(&*empty), None, "client_secret_file", "is empty"),
            (None, Some(&*binary), None, "client_secret_file", "not text"),
            (None, Some(&*large), None, "client_secret_file", "too large"),
            (
                None,
                Some(&*absent),
                None,
                "client_secret_file",
                "cannot be read: No such file",
            ),
            (
                None,
                Some(dir.path()),
                None,
                "client_secret_file",
                "cannot be read",
            ),
        ] {
            let mistake = source(inline, file, env)
                .resolve_in(&table(), nothing)
                .unwrap_err();
            assert_eq!(mistake.at, table().key(key));
            assert!(mistake.message.contains(message), "{mistake:?}");
            assert!(!format!("{mistake:?}").contains("hunter2"));
        }
        let env = |_: &str| Some(OsString::new());
        let mistake = source(None, None, Some("X"))
            .resolve_in(&table(), env)
            .unwrap_err();
        assert!(
            mistake.message.contains("variable X is empty"),
            "{mistake:?}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn file_is_trimmed_and_its_mode_is_looked_at() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " hunter2 \r\n\n").unwrap();
        for (mode, warned) in [(0o600, false), (0o640, false), (0o644, true)] {
            std::fs::set_permissions(file.path(), PermissionsExt::from_mode(mode)).unwrap();
            let resolved = source(None, Some(file.path()), None)
                .resolve(&table())
                .unwrap();
            assert_eq!(resolved.secret.expose(), " hunter2 ");
            assert_eq!(resolved.warning.is_some(), warned, "{mode:o}");
        }
    }
}
