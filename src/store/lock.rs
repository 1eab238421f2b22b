//! One process per store: advisory locks that die with their owner, on the file that names it and on the directory itself.
//! The file may be deleted under a running process, as left-over lock files are; the directory cannot be, with the store in it.

use std::{
    fs::{self, File, TryLockError},
    io::{Seek, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::{Duration, Instant},
};

use super::{error::StoreError, files};
use crate::runtime::failpoint;

/// How long a dying predecessor is waited for.
pub const PATIENCE: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(50);

/// The held lock; dropping it releases the store.
#[derive(Debug)]
pub struct StoreLock {
    _file: File,
    directory: File,
}

impl StoreLock {
    /// Takes the lock of `data`, waiting up to `patience` for a dying predecessor, and notes `note` in the file.
    ///
    /// # Errors
    /// [`StoreError::InUse`] with the holder's process id; nothing was written then.
    pub fn take(data: &Path, patience: Duration, note: &str) -> Result<StoreLock, StoreError> {
        let path = data.join("LOCK");
        let mut file = failpoint::write("lock.take")
            .and_then(|()| files::owner_only().read(true).write(true).create(true).truncate(false).open(&path))
            .map_err(|e| StoreError::io("open", &path, e))?;
        let deadline = Instant::now() + patience;
        until_locked(&file, data, &path, deadline)?;
        let directory = File::open(data).map_err(|e| StoreError::io("open", data, e))?;
        until_locked(&directory, data, &path, deadline)?;
        let text = format!("process {} {note}\n", std::process::id());
        failpoint::write("lock.clear")
            .and_then(|()| file.set_len(0))
            .and_then(|()| file.rewind())
            .and_then(|()| failpoint::write("lock.write"))
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|e| StoreError::io("write", &path, e))?;
        Ok(StoreLock { _file: file, directory })
    }

    /// Whether `data` still names the locked directory; otherwise another store may stand in its place by now.
    pub fn still_names(&self, data: &Path) -> bool {
        let place = |found: fs::Metadata| (found.dev(), found.ino());
        let held = self.directory.metadata().map(place);
        matches!((held, fs::metadata(data).map(place)), (Ok(held), Ok(named)) if held == named)
    }

    /// True when another process owns the store at this moment; nothing is changed.
    pub fn is_held(data: &Path) -> bool {
        let locked = |path: &Path| {
            File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        locked(&data.join("LOCK")) || locked(data)
    }
}

/// Takes one of the two locks; `path` names the owner when somebody else has it.
fn until_locked(file: &File, data: &Path, path: &Path, deadline: Instant) -> Result<(), StoreError> {
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::park_timeout(STEP),
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: data.to_owned(), holder: holder(path) });
            }
            Err(TryLockError::Error(error)) => return Err(StoreError::io("lock", path, error)),
        }
    }
}

fn holder(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let text = text.trim();
    if text.is_empty() { "another process".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a145_a_second_lock_is_refused_and_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let first = StoreLock::take(dir.path(), Duration::ZERO, "since then").unwrap();
        assert!(StoreLock::is_held(dir.path()));
        let refused = StoreLock::take(dir.path(), Duration::ZERO, "late").unwrap_err();
        assert_eq!(refused.exit_code(), 73);
        assert!(refused.to_string().contains(&format!("process {} since then", std::process::id())), "{refused}");
        drop(first);
        assert!(!StoreLock::is_held(dir.path()));
        StoreLock::take(dir.path(), Duration::ZERO, "again").unwrap();
    }

    #[test]
    fn a145_a_deleted_lock_file_lets_no_second_process_in() {
        let dir = tempfile::tempdir().unwrap();
        let first = StoreLock::take(dir.path(), Duration::ZERO, "since then").unwrap();
        fs::remove_file(dir.path().join("LOCK")).unwrap();
        assert!(StoreLock::is_held(dir.path()));
        let refused = StoreLock::take(dir.path(), Duration::ZERO, "late").unwrap_err();
        assert_eq!(refused.exit_code(), 73, "{refused}");
        drop(first);
        StoreLock::take(dir.path(), Duration::ZERO, "again").unwrap();
    }
}
