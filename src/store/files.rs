//! Directories and files of the store: rights, atomic replacement, directory syncs, kind of file system.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::error::StoreError;
use crate::runtime::failpoint;

/// Mode of directories of the store.
pub const DIR_MODE: u32 = 0o700;
/// Mode of files of the store.
pub const FILE_MODE: u32 = 0o600;

/// Creates a directory for the owner only, with its parents; an existing one is accepted as it is.
///
/// # Errors
/// A file stands there, no right, no space.
pub fn create_dir(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(StoreError::NotADirectory { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            // A file in the way, further up.
            let file = path.ancestors().find(|above| above.is_file()).unwrap_or(path);
            return Err(StoreError::NotADirectory { path: file.to_owned() });
        }
        Err(error) => return Err(StoreError::io("look at", path, error)),
    }
    failpoint::write("dir.create").map_err(|e| StoreError::io("create", path, e))?;
    let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(path);
    made.map_err(|source| match source.kind() {
        io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path: path.to_owned() },
        _ => StoreError::CannotMake { path: path.to_owned(), source },
    })?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        failpoint::write("dir.sync").and_then(|()| sync_dir(parent)).map_err(|e| StoreError::io("sync", parent, e))?;
    }
    Ok(())
}

/// Removes a directory with all below it, if it is there.
///
/// # Errors
/// Any other failure.
pub fn clear_dir(path: &Path) -> io::Result<()> {
    failpoint::write("state.clear")?;
    fs::remove_dir_all(path).or_else(ignore_absent)
}

/// What is not there need not be removed.
fn ignore_absent(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// Narrows a directory of the store to its owner.
///
/// # Errors
/// No right to change it.
pub fn restrict_dir(path: &Path) -> Result<(), StoreError> {
    fs::set_permissions(path, fs::Permissions::from_mode(DIR_MODE)).map_err(|e| StoreError::io("restrict", path, e))
}

/// Makes names created, renamed or removed in `path` durable.
///
/// # Errors
/// The sync failed.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    super::trace::record(|| super::trace::Op::SyncDir(path.to_owned()));
    File::open(path)?.sync_all()
}

/// Options of a file of the store: written by its owner only.
pub fn owner_only() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE_MODE);
    options
}

/// Replaces `path` by `bytes`: readers see the old or the new content, never a part.
///
/// # Errors
/// Any failure of the operating system; the old content then still holds.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp");
    let temporary = path.with_file_name(name);
    failpoint::write_about("file.clear", path)?;
    // What a kill left is not written into: it may be readable by others.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    failpoint::write_about("file.create", path)?;
    let mut file = owner_only().write(true).create_new(true).open(&temporary)?;
    failpoint::write_about("file.write", path)?;
    file.write_all(failpoint::cut("file.write", bytes))?;
    failpoint::write_about("file.sync", path)?;
    file.sync_all()?;
    #[cfg(test)]
    super::trace::written(&temporary, bytes);
    failpoint::write_about("file.rename", path)?;
    fs::rename(&temporary, path)?;
    #[cfg(test)]
    super::trace::record(|| super::trace::Op::Rename(temporary.clone(), path.to_owned()));
    failpoint::write_about("file.dir_sync", path)?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Moves `path` beside itself as `<name>.<why>-<number>` with the first free number from `number` on.
///
/// # Errors
/// The rename failed.
pub fn move_aside(path: &Path, why: &str, number: i64) -> io::Result<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut number = number;
    loop {
        let target = path.with_file_name(format!("{name}.{why}-{number}"));
        if !target.exists() {
            failpoint::write("aside.rename")?;
            fs::rename(path, &target)?;
            failpoint::write("aside.dir_sync")?;
            path.parent().map_or(Ok(()), sync_dir)?;
            return Ok(target);
        }
        number += 1;
    }
}

/// Files directly in `dir`, sorted by name; an absent directory has none.
///
/// # Errors
/// The directory cannot be read.
pub fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        if let Ok(name) = entry?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Refuses file systems whose locks and syncs cannot be trusted.
///
/// # Errors
/// [`StoreError::NetworkFileSystem`] with its type. An unreadable mount table is accepted.
pub fn refuse_network_file_system(path: &Path) -> Result<(), StoreError> {
    let Ok(table) = fs::read_to_string("/proc/self/mountinfo") else { return Ok(()) };
    let real = fs::canonicalize(path).map_err(|e| StoreError::io("resolve", path, e))?;
    match file_system_type(&table, &real) {
        Some(kind) if is_network_type(&kind) => Err(StoreError::NetworkFileSystem { path: path.to_owned(), kind }),
        _ => Ok(()),
    }
}

/// Type of the file system `path` lies on by a mount table in the form of `/proc/self/mountinfo`.
fn file_system_type(table: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in table.lines() {
        let (left, right) = line.split_once(" - ")?;
        let (Some(point), Some(kind)) = (left.split(' ').nth(4), right.split(' ').next()) else { continue };
        let point = point.replace("\\040", " ");
        // Later mounts over the same point hide earlier ones.
        if path.starts_with(&point) && best.is_none_or(|(length, _)| point.len() >= length) {
            best = Some((point.len(), kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

fn is_network_type(kind: &str) -> bool {
    const NETWORK: [&str; 11] =
        ["nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "glusterfs", "lustre", "fuse", "davfs"];
    NETWORK.contains(&kind) || kind.starts_with("fuse.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let table = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /data rw - nfs4 host:/x rw\n\
                     3 2 8:2 / /data/local rw - xfs /dev/b rw\n4 1 0:6 / /my\\040disk rw - fuse.sshfs x rw";
        assert_eq!(file_system_type(table, Path::new("/var/x")).as_deref(), Some("ext4"));
        assert_eq!(file_system_type(table, Path::new("/data/x")).as_deref(), Some("nfs4"));
        assert_eq!(file_system_type(table, Path::new("/data/local/x")).as_deref(), Some("xfs"));
        assert_eq!(file_system_type(table, Path::new("/my disk/x")).as_deref(), Some("fuse.sshfs"));
        assert!(is_network_type("nfs4") && is_network_type("fuse.sshfs"));
        assert!(!is_network_type("ext4") && !is_network_type("overlay"));
    }

    #[test]
    fn a_leftover_that_cannot_be_removed_is_told_as_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        fs::create_dir(dir.path().join("state.tmp")).unwrap();
        let error = write_atomically(&path, b"new").unwrap_err();
        assert_ne!(error.kind(), io::ErrorKind::AlreadyExists, "of the removal, not of what follows: {error}");
        fs::remove_dir(dir.path().join("state.tmp")).unwrap();
        fs::write(dir.path().join("state.tmp"), b"half").unwrap();
        write_atomically(&path, b"new").unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(dir.path()).unwrap()), (b"new".to_vec(), vec!["state".to_owned()]));
    }

    #[test]
    fn moving_aside_never_overwrites() {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..2 {
            fs::create_dir(dir.path().join("state")).unwrap();
            move_aside(&dir.path().join("state"), "damaged", 7).unwrap();
        }
        assert_eq!(names(dir.path()).unwrap(), ["state.damaged-7", "state.damaged-8"]);
    }
}
