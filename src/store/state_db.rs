//! The embedded store: a materialised copy of the state, one transaction per group, flushed and data-synced.
//!
//! It is never trusted: a start compares it with the fold of the journal, and any doubt moves it aside and rebuilds it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use sled::{
    Db, Tree,
    transaction::{ConflictableTransactionError, TransactionError, Transactional},
};

use super::{
    batch::AuxChange,
    error::Fatal,
    files, frame,
    guard::guarded,
    lock,
    objects::{self, META, TREES},
    touched::{ObjectKey, Touched},
};
use crate::{model::State, runtime::failpoint};

/// Between two tries to open a log that is still held.
const LOCK_STEP: Duration = Duration::from_millis(20);
/// Objects written at once when the store is built anew.
const REBUILD_CHUNK: usize = 2_000;
/// Name prefix of trees that hold data outside the journal.
const AUX: &str = "aux.";

/// The open embedded store.
pub struct StateDb {
    db: Db,
    trees: Vec<Tree>,
    /// The log file itself: `flush` of the library does not outlive a power loss, a data sync does.
    file: File,
    /// Objects of swept collections that lie in the store.
    mirror: BTreeSet<ObjectKey>,
    epoch: u32,
}

impl std::fmt::Debug for StateDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateDb").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// What an embedded store held when it was opened.
#[derive(Debug)]
pub struct Loaded {
    /// The open store.
    pub db: StateDb,
    /// The state it holds.
    pub state: State,
    /// The record it was last brought up to.
    pub seq: u64,
}

/// Opens the store in `path` on a thread of its own, because damaged stores panic, and reads all of it.
///
/// # Errors
/// A sentence for people; the directory is as it was.
pub fn open(path: &Path, cache_mib: u32) -> Result<Loaded, String> {
    let path = path.to_owned();
    let thread = std::thread::Builder::new().name("state-open".to_owned());
    let work = move || guarded(|| open_here(&path, cache_mib)).and_then(|opened| opened);
    let thread = thread.spawn(work).map_err(|error| error.to_string())?;
    thread.join().map_err(|_| "it panicked while it was opened".to_owned())?
}

fn open_here(path: &Path, cache_mib: u32) -> Result<Loaded, String> {
    failpoint::write("state.open").map_err(|error| error.to_string())?;
    let words = |error: sled::Error| error.to_string();
    let cache = u64::from(cache_mib.max(1)) << 20;
    let db = open_log(path, cache).map_err(words)?;
    let trees: Vec<Tree> = TREES.iter().map(|name| db.open_tree(name)).collect::<Result<_, _>>().map_err(words)?;
    restrict(path).map_err(|error| error.to_string())?;
    let file = File::open(path.join("db")).map_err(|error| error.to_string())?;
    let mut db = StateDb { db, trees, file, mirror: BTreeSet::new(), epoch: 0 };
    db.read_aux().map_err(|error| format!("what is kept beside the state cannot be read: {error}"))?;
    let seq = number(&db.trees[META], b"journal_seq")?;
    db.epoch = u32::try_from(number(&db.trees[META], b"epoch")?).map_err(|_| "the epoch is no number".to_owned())?;
    let state = db.load()?;
    if seq != state.meta.seq {
        return Err(format!("it names record {seq}, but its meta is of {}", state.meta.seq));
    }
    db.mirror = objects::all_keys(&state).into_iter().filter(|key| key.swept_by().is_some()).collect();
    Ok(Loaded { db, state, seq })
}

/// The error of the operating system in `why`, when it is one that would be no other with a sound store: no space, no
/// quota, read-only, no right, no more open files.
pub fn of_the_system(why: &str) -> Option<std::io::Error> {
    let known = [errno::NO_SPACE, errno::QUOTA, errno::READ_ONLY, errno::FILES, errno::RIGHT];
    let code = known.into_iter().find(|code| why.contains(&format!("(os error {code})")))?;
    Some(std::io::Error::from_raw_os_error(code))
}

/// Numbers of errors as Linux gives them.
mod errno {
    pub const RIGHT: i32 = 13;
    pub const FILES: i32 = 24;
    pub const NO_SPACE: i32 = 28;
    pub const READ_ONLY: i32 = 30;
    pub const QUOTA: i32 = 122;
}

/// The store's own lock is held here, so another handle of this log is one of this process that is ending: its threads
/// let go of the file a moment after it was dropped.
fn open_log(path: &Path, cache: u64) -> sled::Result<Db> {
    let deadline = Instant::now() + lock::PATIENCE;
    loop {
        match sled::Config::new().path(path).cache_capacity(cache).open() {
            Err(sled::Error::Io(error)) if error.to_string().contains("acquire lock") && Instant::now() < deadline => {
                std::thread::park_timeout(LOCK_STEP);
            }
            other => return other,
        }
    }
}

fn number(tree: &Tree, key: &[u8]) -> Result<u64, String> {
    match tree.get(key).map_err(|error| error.to_string())? {
        None => Ok(0),
        Some(bytes) => <[u8; 8]>::try_from(&*bytes)
            .map(u64::from_be_bytes)
            .map_err(|_| format!("meta/{} is no number", String::from_utf8_lossy(key))),
    }
}

/// Narrows everything below `path` to its owner.
fn restrict(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let is_dir = fs::metadata(path)?.is_dir();
    let mode = if is_dir { files::DIR_MODE } else { files::FILE_MODE };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    if is_dir {
        for name in files::names(path)? {
            restrict(&path.join(name))?;
        }
    }
    Ok(())
}

/// One write: tree, key and value (absent = removed).
type Write = (usize, Vec<u8>, Option<Vec<u8>>);

impl StateDb {
    /// Epoch of the newest commit in it.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Reads the whole state back.
    ///
    /// # Errors
    /// The first thing that cannot be read, for people.
    pub fn load(&self) -> Result<State, String> {
        let read = || {
            objects::load(&mut |tree| {
                let tree = self.trees.get(tree).ok_or("a tree is missing")?;
                let rows = tree.iter().map(|row| row.map(|(key, value)| (key.to_vec(), value.to_vec())));
                rows.collect::<Result<_, _>>().map_err(|error: sled::Error| error.to_string())
            })
        };
        guarded(read).and_then(|state| state)
    }

    /// Reads every row beside the state once: a page that cannot be read shows now, while the store can still be rebuilt,
    /// and not in the middle of the program's work. The library gives the same error for ever, so the first one ends it.
    fn read_aux(&self) -> sled::Result<()> {
        let names = self.db.tree_names().into_iter().filter(|name| name.starts_with(AUX.as_bytes()));
        for name in names {
            self.db.open_tree(name)?.iter().try_for_each(|row| row.map(drop))?;
        }
        Ok(())
    }

    /// Brings the touched objects, `meta/journal_seq` and `meta/epoch` to `state` in one durable transaction.
    ///
    /// # Errors
    /// [`Fatal::Fenced`] when another epoch wrote meanwhile, [`Fatal::Embedded`] otherwise; the process must end.
    pub fn commit(&mut self, touched: &Touched, state: &State) -> Result<(), Fatal> {
        let mut writes = Vec::with_capacity(touched.keys.len() + 4);
        for key in &touched.keys {
            self.write_of(key, state, &mut writes)?;
        }
        if !touched.swept.is_empty() {
            let gone: Vec<ObjectKey> = self
                .mirror
                .iter()
                .filter(|key| key.swept_by().is_some_and(|by| touched.swept.contains(&by)) && !key.is_in(state))
                .cloned()
                .collect();
            for key in gone {
                self.write_of(&key, state, &mut writes)?;
            }
        }
        meta_writes(state, &mut writes)?;
        self.guarded(|db| fail("state.transact").and_then(|()| db.transact(&writes)))?;
        self.epoch = state.meta.epoch;
        self.guarded(|db| db.sync())
    }

    fn write_of(&mut self, key: &ObjectKey, state: &State, writes: &mut Vec<Write>) -> Result<(), Fatal> {
        let value = key.value(state).map_err(|error| Fatal::Unwritable(error.to_string()))?;
        if key.swept_by().is_some() {
            if value.is_some() {
                self.mirror.insert(key.clone());
            } else {
                self.mirror.remove(key);
            }
        }
        let (tree, place) = key.place();
        writes.push((tree, place, value.map(|value| frame::envelope(state.meta.seq, &value))));
        Ok(())
    }

    /// Writes all of `state` into an empty store; the record number comes last, so that an interrupted build shows.
    ///
    /// # Errors
    /// [`Fatal::Embedded`]; the next start builds again.
    pub fn rebuild(&mut self, state: &State) -> Result<(), Fatal> {
        for chunk in objects::all_keys(state).chunks(REBUILD_CHUNK) {
            let mut writes = Vec::with_capacity(chunk.len());
            for key in chunk {
                self.write_of(key, state, &mut writes)?;
            }
            self.guarded(|db| fail("state.rebuild").and_then(|()| db.transact(&writes)))?;
        }
        let mut writes = Vec::new();
        meta_writes(state, &mut writes)?;
        self.guarded(|db| fail("state.rebuild").and_then(|()| db.transact(&writes)))?;
        self.epoch = state.meta.epoch;
        self.guarded(|db| db.sync())
    }

    /// All writes or none. The closure may run more than once and has no effect outside the transaction.
    fn transact(&self, writes: &[Write]) -> Result<(), Fatal> {
        let mut used: Vec<usize> = writes.iter().map(|write| write.0).chain([META]).collect();
        used.sort_unstable();
        used.dedup();
        let trees: Vec<Tree> = used.iter().filter_map(|tree| self.trees.get(*tree)).cloned().collect();
        let ours = self.epoch;
        let done = trees[..].transaction(|views| {
            // META is the smallest number and always among the used trees.
            let held = views[0].get(b"epoch")?.and_then(|bytes| <[u8; 8]>::try_from(&*bytes).ok());
            let found = held.map_or(0, u64::from_be_bytes);
            if found != u64::from(ours) {
                return Err(ConflictableTransactionError::Abort(found));
            }
            for (tree, key, value) in writes {
                let Ok(at) = used.binary_search(tree) else { continue };
                match value {
                    Some(value) => views[at].insert(key.as_slice(), value.as_slice())?,
                    None => views[at].remove(key.as_slice())?,
                };
            }
            Ok(())
        });
        done.map_err(|error| match error {
            TransactionError::Abort(found) => Fatal::Fenced { found: u32::try_from(found).unwrap_or(u32::MAX), ours },
            TransactionError::Storage(error) => Fatal::Embedded(error.to_string()),
        })
    }

    fn sync(&self) -> Result<(), Fatal> {
        fail("state.flush")?;
        self.db.flush().map_err(|error| Fatal::Embedded(error.to_string()))?;
        fail("state.data_sync")?;
        self.file.sync_data().map_err(|error| Fatal::Embedded(format!("its data sync failed: {error}")))
    }

    /// A panic of the library is a failure like any other: the journal has the record already.
    fn guarded<T>(&self, work: impl FnOnce(&StateDb) -> Result<T, Fatal>) -> Result<T, Fatal> {
        guarded(|| work(self)).unwrap_or_else(|text| Err(Fatal::Embedded(text)))
    }

    /// Writes rows of auxiliary trees, one batch per tree; durable with the next flush.
    ///
    /// # Errors
    /// [`Fatal::Embedded`].
    pub fn aux_write(&self, changes: &[AuxChange]) -> Result<(), Fatal> {
        let mut batches: BTreeMap<&str, sled::Batch> = BTreeMap::new();
        for change in changes {
            let batch = batches.entry(change.tree).or_default();
            match &change.value {
                Some(value) => batch.insert(change.key.as_bytes(), frame::envelope(0, value)),
                None => batch.remove(change.key.as_bytes()),
            }
        }
        self.guarded(|db| {
            fail("aux.write")?;
            for (name, batch) in batches {
                db.aux(name)?.apply_batch(batch).map_err(|error| Fatal::Embedded(error.to_string()))?;
            }
            Ok(())
        })
    }

    /// All rows of the auxiliary tree `name` in key order; rows with a wrong checksum are left out, losing them is harmless.
    ///
    /// # Errors
    /// [`Fatal::Embedded`].
    pub fn aux_rows(&self, name: &str) -> Result<Vec<(String, Vec<u8>)>, Fatal> {
        self.guarded(|db| {
            let readable = |(key, value): (sled::IVec, sled::IVec)| {
                let key = String::from_utf8(key.to_vec()).ok()?;
                Some((key, frame::open_envelope(&value).ok()?.to_vec()))
            };
            // The first error ends the reading: the library would give it for ever.
            let rows: sled::Result<Vec<_>> = db.aux(name)?.iter().collect();
            let rows = rows.map_err(|error| Fatal::Embedded(error.to_string()))?;
            Ok(rows.into_iter().filter_map(readable).collect())
        })
    }

    /// Makes auxiliary data durable.
    ///
    /// # Errors
    /// [`Fatal::Embedded`].
    pub fn aux_flush(&self) -> Result<(), Fatal> {
        self.guarded(|db| fail("aux.flush").and_then(|()| db.sync()))
    }

    fn aux(&self, name: &str) -> Result<Tree, Fatal> {
        self.db.open_tree(format!("{AUX}{name}")).map_err(|error| Fatal::Embedded(error.to_string()))
    }
}

fn fail(site: &'static str) -> Result<(), Fatal> {
    failpoint::write(site).map_err(|error| Fatal::Embedded(error.to_string()))
}

fn meta_writes(state: &State, writes: &mut Vec<Write>) -> Result<(), Fatal> {
    let meta = serde_json::to_vec(&state.meta).map_err(|error| Fatal::Unwritable(error.to_string()))?;
    writes.push((META, b"meta".to_vec(), Some(frame::envelope(state.meta.seq, &meta))));
    writes.push((META, b"journal_seq".to_vec(), Some(state.meta.seq.to_be_bytes().to_vec())));
    writes.push((META, b"epoch".to_vec(), Some(u64::from(state.meta.epoch).to_be_bytes().to_vec())));
    Ok(())
}

/// Moves the directory aside as `state.<why>-<number>`; absent directories are left absent.
///
/// # Errors
/// The rename failed.
pub fn set_aside(path: &Path, why: &str, number: i64) -> std::io::Result<Option<PathBuf>> {
    if !path.exists() {
        return Ok(None);
    }
    files::move_aside(path, why, number).map(Some)
}

#[cfg(test)]
#[path = "state_db_tests.rs"]
mod tests;
