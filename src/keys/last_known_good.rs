//! The last good keys of an issuer in a file, so that a restart during its outage finds them.
//!
//! The file is a JWK set with the issuer and the time of the fetch beside `keys`, and holds nothing
//! but accepted public keys. Whoever can write it can sign tokens, so it is read only if nobody but
//! the gateway's user and root can, and it passes the same filter as what the issuer sends.

use super::store::seconds;
use super::{KeyPolicy, KeySet, KeyStore, jwks};
use crate::identity::UnixSeconds;
use crate::strict_json;
use serde_json::Value;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::timeout;

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

/// Keeps the keys of one issuer over restarts, beside its fetch loop: no disk holds that up. Does
/// nothing if there is no file to keep them in.
#[derive(Debug)]
pub(super) struct Keeper {
    /// The configured name, for logs.
    issuer: Arc<str>,
    file: Option<CacheFile>,
    /// The last writing.
    writing: Option<JoinHandle<()>>,
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

    /// Reads the keys, which keep the times of their fetch. `None` if there is no file. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// One sentence for the log: why the file is not to be trusted, or of no use to who follows
    /// `policy` at the time `now`.
    pub(super) fn read(
        &self,
        now: UnixSeconds,
        policy: &KeyPolicy,
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
        let fresh_until = match members.get("fresh_until") {
            Some(value) => value.as_i64(),
            // Earlier versions did not write it. No keys are fresh for less.
            None => Some(fetched_at.saturating_add(seconds(policy.min_ttl))),
        };
        let fresh_until = fresh_until.ok_or("it does not say until when the keys are fresh")?;
        let mut parsed = jwks::parse(&bytes, fetched_at).map_err(|error| error.to_string())?;
        parsed.set.fresh_until = fresh_until;
        parsed.set.fresh_until = policy.fresh_until(&parsed.set);
        if now > policy.usable_until(&parsed.set) {
            let (stale, limit) = (now.saturating_sub(parsed.set.fresh_until), policy.max_stale);
            return Err(format!(
                "its keys have been stale for {stale}s, longer than max_stale ({}s)",
                limit.as_secs()
            ));
        }
        Ok(Some(parsed))
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
            members.insert("fresh_until".to_owned(), Value::from(keys.fresh_until));
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
        let own = own_user().or_else(|| {
            // A file of our own tells as well.
            let file = tempfile::tempfile_in(self.folder()).ok()?;
            Some(file.metadata().ok()?.uid())
        });
        let own = own.ok_or("nothing tells which user the gateway runs as, so whose it is cannot be checked: mount /proc")?;
        if file.uid() != own && file.uid() != 0 {
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

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(issuer: Arc<str>, file: Option<CacheFile>) -> Self {
        Self {
            issuer,
            file,
            writing: None,
        }
    }

    /// Takes the kept keys into a store that has none, and returns them. Waits for the disk no
    /// longer than a request would for the issuer.
    pub(super) async fn recall(&self, store: &KeyStore, now: UnixSeconds) -> Option<Arc<KeySet>> {
        let file = self.file.clone().filter(|_| store.is_empty())?;
        let (issuer, path) = (&self.issuer, file.path().to_owned());
        let policy = store.policy().clone();
        let patience = policy.patience;
        let read = match timeout(patience, spawn_blocking(move || file.read(now, &policy))).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("it could not be read within {patience:?}")),
        };
        match read {
            Ok(None) => tracing::debug!(%issuer, file = %path.display(), "no keys kept yet"),
            Ok(Some(parsed)) => {
                for remark in &parsed.dropped {
                    tracing::warn!(%issuer, file = %path.display(), "{remark}");
                }
                let set = store.replace(parsed.set);
                tracing::info!(%issuer, file = %path.display(), keys = set.len(), age_seconds = now.saturating_sub(set.fetched_at), "keys of an earlier run are in use until the issuer answers");
                return Some(set);
            }
            Err(why) => {
                tracing::warn!(%issuer, file = %path.display(), %why, "cache_file is not used; there are no keys until the issuer answers");
            }
        }
        None
    }

    /// Keeps these keys. Does not wait until they are written.
    pub(super) fn keep(&mut self, keys: Arc<KeySet>) {
        let Some(file) = self.file.clone() else {
            return;
        };
        let issuer = Arc::clone(&self.issuer);
        let writing = self.writing.as_ref();
        if writing.is_some_and(|task| !task.is_finished()) {
            tracing::warn!(%issuer, file = %file.path().display(), "the last write of cache_file has not ended; these keys are not kept");
            return;
        }
        self.writing = Some(spawn_blocking(move || {
            if let Err(error) = file.write(&keys) {
                tracing::warn!(%issuer, file = %file.path().display(), %error, "cache_file is not written; the keys are in use, a restart would not find them");
            }
        }));
    }
}

/// The user that files are created as, of the four that the kernel lists: real, effective, saved,
/// file system. `None` where there is no `/proc`.
fn own_user() -> Option<u32> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_ascii_whitespace().nth(3)?.parse().ok()
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
