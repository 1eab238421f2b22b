//! `identity.json`: which store this is and that it is still the same one, not a copy or a restored backup.
//!
//! The file records its own inode and birth time: a copy has others, a reboot or a remount has not.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{error::StoreError, files};
use crate::{model::event::SCHEMA_VERSION, runtime::failpoint};

/// Name of the file.
pub const FILE: &str = "identity.json";

/// Content of `identity.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Part of every trade key.
    pub store: Uuid,
    /// Newest schema of the records.
    pub schema: u32,
    /// `simulated`, `csv` or `live`.
    pub data_kind: String,
    /// Inode of this very file.
    pub inode: Option<u64>,
    /// Birth time of this very file, nanoseconds since 1970; absent where the file system has none.
    pub birth_ns: Option<u64>,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    /// No identity yet.
    None,
    /// The same store in the same place.
    Same(Identity),
    /// A copy or a restored backup.
    Moved(Identity),
    /// The file system reports neither inode nor birth time.
    Unprovable(Identity),
}

/// Reads and checks the identity of the store in `data`.
///
/// # Errors
/// Unreadable, or written by a newer program.
pub fn read(data: &Path) -> Result<Found, StoreError> {
    let path = data.join(FILE);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::None),
        Err(error) => return Err(StoreError::io("read", &path, error)),
    };
    let bad = |why: String| StoreError::BadIdentity { path: path.clone(), why };
    // The schema is read by itself first: a newer one may have another form.
    let loose: serde_json::Value = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
    let schema = loose.get("schema").and_then(serde_json::Value::as_u64).and_then(|schema| u32::try_from(schema).ok());
    let schema = schema.filter(|schema| *schema > 0).ok_or_else(|| bad("it names no schema".into()))?;
    if schema > SCHEMA_VERSION {
        return Err(StoreError::NewerSchema { path, found: schema, known: SCHEMA_VERSION });
    }
    let identity: Identity = serde_json::from_value(loose).map_err(|e| bad(e.to_string()))?;
    let (inode, birth_ns) = place(&File::open(&path).map_err(|e| StoreError::io("open", &path, e))?);
    let differs = |stored: Option<u64>, now: Option<u64>| matches!((stored, now), (Some(a), Some(b)) if a != b);
    if differs(identity.inode, inode) || differs(identity.birth_ns, birth_ns) {
        return Ok(Found::Moved(identity));
    }
    let proven = (identity.inode.is_some() && inode.is_some()) || (identity.birth_ns.is_some() && birth_ns.is_some());
    Ok(if proven { Found::Same(identity) } else { Found::Unprovable(identity) })
}

/// Writes the identity so that it names the file it is in; renaming keeps inode and birth time.
///
/// # Errors
/// Any failure of the operating system.
pub fn write(data: &Path, store: Uuid, data_kind: &str) -> Result<Identity, StoreError> {
    write_with(data, store, data_kind, place)
}

/// Writes an identity that is recognised as moved until it is adopted: a journal without an identity proves nothing.
///
/// # Errors
/// Any failure of the operating system.
pub fn write_unproven(data: &Path, store: Uuid, data_kind: &str) -> Result<Identity, StoreError> {
    write_with(data, store, data_kind, |_| (Some(0), Some(0)))
}

type Place = (Option<u64>, Option<u64>);

fn write_with(
    data: &Path,
    store: Uuid,
    data_kind: &str,
    place: impl Fn(&File) -> Place,
) -> Result<Identity, StoreError> {
    let path = data.join(FILE);
    let temporary = data.join("identity.json.tmp");
    let written = (|| {
        failpoint::write("identity.clear")?;
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        failpoint::write("identity.create")?;
        let mut file = files::owner_only().write(true).create_new(true).open(&temporary)?;
        let (inode, birth_ns) = place(&file);
        let identity = Identity { store, schema: SCHEMA_VERSION, data_kind: data_kind.to_owned(), inode, birth_ns };
        failpoint::write("identity.write")?;
        file.write_all(failpoint::cut("identity.write", &serde_json::to_vec_pretty(&identity)?))?;
        failpoint::write("identity.sync")?;
        file.sync_all()?;
        failpoint::write("identity.rename")?;
        fs::rename(&temporary, &path)?;
        failpoint::write("identity.dir_sync")?;
        files::sync_dir(data)?;
        Ok(identity)
    })();
    written.map_err(|e| StoreError::io("write", &path, e))
}

/// Accepts a copied or restored store as the original from now on. The caller holds the lock and journals the fact.
///
/// # Errors
/// No identity to adopt, or any failure of the operating system.
pub fn adopt(data: &Path) -> Result<Identity, StoreError> {
    match read(data)? {
        Found::None => {
            Err(StoreError::BadIdentity { path: data.join(FILE), why: "there is no store to adopt".to_owned() })
        }
        Found::Same(found) => Ok(found),
        Found::Moved(found) | Found::Unprovable(found) => write(data, found.store, &found.data_kind),
    }
}

fn place(file: &File) -> Place {
    let Ok(found) = file.metadata() else { return (None, None) };
    let birth = found.created().ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let birth = birth.and_then(|since| u64::try_from(since.as_nanos()).ok());
    (Some(found.ino()).filter(|inode| *inode != 0), birth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a144_a_copy_is_recognised_and_can_be_adopted() {
        let (home, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert!(matches!(read(home.path()).unwrap(), Found::None));
        let written = write(home.path(), Uuid::from_u128(7), "simulated").unwrap();
        assert!(matches!(read(home.path()).unwrap(), Found::Same(found) if found == written));
        fs::copy(home.path().join(FILE), copy.path().join(FILE)).unwrap();
        assert!(matches!(read(copy.path()).unwrap(), Found::Moved(found) if found.store == written.store));
        adopt(copy.path()).unwrap();
        assert!(matches!(read(copy.path()).unwrap(), Found::Same(_)));
    }

    #[test]
    fn renaming_the_directory_is_no_move() {
        let home = tempfile::tempdir().unwrap();
        let (old, new) = (home.path().join("a"), home.path().join("b"));
        fs::create_dir(&old).unwrap();
        write(&old, Uuid::from_u128(7), "live").unwrap();
        fs::rename(&old, &new).unwrap();
        assert!(matches!(read(&new).unwrap(), Found::Same(_)));
    }

    #[test]
    fn a_newer_schema_is_named_and_refused() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join(FILE), r#"{"schema":99,"other":1}"#).unwrap();
        let refused = read(home.path()).unwrap_err();
        assert!(refused.to_string().contains("schema 99"), "{refused}");
    }
}
