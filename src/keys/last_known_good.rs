//! The last good keys of an issuer in a file, so that a restart during its outage finds them.
//!
//! The file is a JWK set with the issuer and the time of the fetch beside `keys`, and holds nothing
//! but accepted public keys. Whoever can write it can sign tokens, so it is read only if nobody but
//! the gateway's user and root can, and it passes the same filter as what the issuer sends.

use super::{KeySet, jwks};
use crate::identity::UnixSeconds;
use crate::strict_json;
use serde_json::Value;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A file over this size is not read; the same holds for what issuers send.
const MAX_BYTES: u64 = 1 << 20;

/// Seconds by which the clock may have been set back since the file was written.
const MAX_AHEAD: i64 = 60;

/// Nobody but the owner may do anything with the file.
const MODE: u32 = 0o600;

/// Write permission of group and others.
const FOREIGN_WRITE: u32 = 0o022;

/// Where the keys of one issuer are kept: `cache_file`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFile {
    path: PathBuf,
    issuer: Box<str>,
}

// === impl CacheFile ===

impl CacheFile {
    /// The file at `path` for the keys of `issuer`, its exact `iss`.
    pub fn new(path: PathBuf, issuer: &str) -> Self {
        Self {
            path,
            issuer: issuer.into(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the keys, which keep the time at which they were fetched. `None` if there is no file.
    /// Blocks on the disk.
    ///
    /// # Errors
    /// One sentence for the log: why the file is not to be trusted or of no use. `now` is the
    /// present, `max_stale` the age beyond which keys are of no use.
    pub(super) fn read(
        &self,
        now: UnixSeconds,
        max_stale: Duration,
    ) -> Result<Option<jwks::Parsed>, String> {
        let Some(bytes) = self.bytes()? else {
            return Ok(None);
        };
        let members = strict_json::object(&bytes).ok_or(
            "it is no JSON object, or one with a member twice: remove it, the next fetch writes it anew",
        )?;
        if members.get("issuer").and_then(Value::as_str) != Some(&*self.issuer) {
            return Err(format!(
                "it holds the keys of another issuer, not of {}: give each issuer a file of its own",
                self.issuer
            ));
        }
        let fetched_at = members.get("fetched_at").and_then(Value::as_i64);
        let fetched_at = fetched_at.ok_or("it does not say when the keys were fetched")?;
        let age = now.saturating_sub(fetched_at);
        if age < -MAX_AHEAD {
            let ahead = age.saturating_neg();
            return Err(format!(
                "its keys were fetched {ahead}s from now: look after the clock"
            ));
        }
        if age > i64::try_from(max_stale.as_secs()).unwrap_or(i64::MAX) {
            let limit = max_stale.as_secs();
            return Err(format!(
                "its keys are {age}s old, more than max_stale ({limit}s)"
            ));
        }
        match jwks::parse(&bytes, fetched_at) {
            Ok(parsed) => Ok(Some(parsed)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Writes the keys in place of those that are there, all or nothing. Blocks on the disk.
    ///
    /// # Errors
    /// If the folder cannot be written; the file is as it was then.
    pub(super) fn write(&self, keys: &KeySet) -> io::Result<()> {
        let mut document = keys.to_json();
        if let Some(members) = document.as_object_mut() {
            members.insert("issuer".to_owned(), Value::from(&*self.issuer));
            members.insert("fetched_at".to_owned(), Value::from(keys.fetched_at));
        }
        let folder = self.folder();
        let mut file = tempfile::Builder::new()
            .prefix(".keys-")
            .permissions(Permissions::from_mode(MODE))
            .tempfile_in(folder)?;
        writeln!(file, "{document}")?;
        file.as_file().sync_all()?;
        file.persist(&self.path)?;
        // The new name is on the disk only when the folder is.
        File::open(folder)?.sync_all()
    }

    fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        let failed = |error: io::Error| format!("it cannot be read: {error}");
        match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
            // To open a pipe would be to wait for its writer.
            Ok(metadata) if !metadata.is_file() => return Err("it is no regular file".to_owned()),
            Ok(_) => {}
        }
        let file = File::open(&self.path).map_err(failed)?;
        self.check(&file.metadata().map_err(failed)?)?;
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(failed)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("it is larger than {MAX_BYTES} bytes"));
        }
        Ok(Some(bytes))
    }

    /// Whether nobody else can have written the file that is open.
    fn check(&self, file: &Metadata) -> Result<(), String> {
        let mode = file.mode();
        if mode & FOREIGN_WRITE != 0 {
            return Err(format!(
                "its mode is {:o}, so others than its owner may have written keys of their own into it: remove it, or check its content and chmod 600",
                mode & 0o7777
            ));
        }
        // A file of our own tells who we are.
        let own = tempfile::tempfile_in(self.folder()).and_then(|file| file.metadata());
        let own = own.map_err(|error| {
            format!("its folder cannot be written, so it cannot be kept up to date: {error}")
        })?;
        if file.uid() != own.uid() && file.uid() != 0 {
            return Err(format!(
                "it belongs to user {}, who may have written keys of their own into it: remove it",
                file.uid()
            ));
        }
        Ok(())
    }

    fn folder(&self) -> &Path {
        folder_of(&self.path)
    }
}

/// The folder that a file is in; the working directory for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

#[cfg(test)]
#[path = "last_known_good_tests.rs"]
mod tests;
