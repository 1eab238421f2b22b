//! A disk of memory for simulations: it knows of every file which bytes are synced and which names are durable, fails
//! when told to, and loses at a power cut what a real one may lose.
//!
//! A killed process loses nothing that was written: the bytes stay with the operating system, unsynced. A power cut
//! keeps of what was not synced any prefix, perhaps followed by zeros, and files whose name was not synced only perhaps.

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::{
    checkpoint::{self, Checkpoint},
    error::Fatal,
    frame::LineHash,
    journal::{Journal, JournalFile, Opener, Position, SyncNames, segment_name},
    reader::Start,
    recover::{self, JOURNAL},
    segments::Segments,
};
use crate::{
    model::{Record, State, Ts, time::HOUR_MS},
    settings::sections::StoreSettings,
};

/// What the store is about to do to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskOp {
    /// Append so many bytes to a segment.
    Append(usize),
    /// Make a segment durable.
    Sync,
    /// Create a segment.
    Create,
    /// Make names of segments durable.
    SyncNames,
    /// Replace a checkpoint.
    Checkpoint,
    /// Make rows beside the journal durable.
    Rows,
    /// Read a segment of so many bytes.
    Read(usize),
}

/// What the disk answers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskAnswer {
    /// It is done.
    Done,
    /// It fails after so many bytes (of an append or a segment that is read), or altogether.
    Fails(io::ErrorKind, usize),
    /// The process ends here, after so many bytes of an append: nothing more reaches the disk.
    Dies(usize),
}

/// Decides about every operation, in order.
pub type Faults = Box<dyn FnMut(DiskOp) -> DiskAnswer + Send>;
/// Sees every durable batch and where the journal then ends.
pub type Tap = Box<dyn FnMut(&Arc<[Record]>, Start) + Send>;

#[derive(Default)]
struct MemoryFile {
    bytes: Vec<u8>,
    synced: usize,
    name_synced: bool,
}

/// Tree and key of a row beside the journal.
type RowKey = (String, String);

#[derive(Default)]
struct Inner {
    segments: BTreeMap<String, MemoryFile>,
    /// Replaced atomically and synced at once, as the real ones are.
    checkpoints: BTreeMap<u64, Vec<u8>>,
    rows: BTreeMap<RowKey, Vec<u8>>,
    /// Rows as they are durable, and what was done since, in order.
    durable_rows: BTreeMap<RowKey, Vec<u8>>,
    row_changes: Vec<(RowKey, Option<Vec<u8>>)>,
    faults: Option<Faults>,
    dead: bool,
}

impl Inner {
    fn ask(&mut self, op: DiskOp) -> io::Result<()> {
        let answer = self.answer(op);
        match self.obey(answer)? {
            None => Ok(()),
            Some(_) => Err(io::Error::other("the simulated process has ended")),
        }
    }

    fn answer(&mut self, op: DiskOp) -> DiskAnswer {
        self.faults.as_mut().map_or(DiskAnswer::Done, |faults| faults(op))
    }

    /// Bytes of an append that reach the disk although it does not succeed; all of them when it does.
    fn obey(&mut self, answer: DiskAnswer) -> io::Result<Option<usize>> {
        if self.dead {
            return Err(io::Error::other("the simulated process has ended"));
        }
        match answer {
            DiskAnswer::Done => Ok(None),
            DiskAnswer::Fails(kind, 0) => Err(kind.into()),
            DiskAnswer::Fails(_, bytes) | DiskAnswer::Dies(bytes) => {
                self.dead = matches!(answer, DiskAnswer::Dies(_));
                Ok(Some(bytes))
            }
        }
    }
}

/// The disk; clones are the same one.
#[derive(Clone, Default)]
pub struct MemoryDisk(Arc<Mutex<Inner>>);

impl std::fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryDisk").field("segments", &self.lock().segments.len()).finish_non_exhaustive()
    }
}

impl MemoryDisk {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is whole, so a panic elsewhere cannot have left half of one.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on `faults` decides about every operation.
    pub fn fail_by(&self, faults: Option<Faults>) {
        self.lock().faults = faults;
    }

    /// The process is gone, by a kill or an error: what was written stays as it is.
    pub fn killed(&self) {
        let mut inner = self.lock();
        inner.dead = false;
        inner.faults = None;
    }

    /// The power is gone: of what was not synced, only a part drawn from `rng` stays.
    pub fn power_cut(&self, rng: &mut ChaCha8Rng) {
        self.killed();
        let mut inner = self.lock();
        inner.segments.retain(|_, file| file.name_synced || rng.random_bool(0.5));
        for file in inner.segments.values_mut() {
            file.name_synced = true;
            let unsynced = file.bytes.len() - file.synced;
            if unsynced > 0 {
                let kept = file.synced + rng.random_range(0..=unsynced);
                let length = rng.random_range(kept..=file.bytes.len());
                file.bytes.truncate(kept);
                if rng.random_bool(0.5) {
                    file.bytes.resize(length, 0);
                }
            }
            file.synced = file.bytes.len();
        }
        let changes = std::mem::take(&mut inner.row_changes);
        let kept = rng.random_range(0..=changes.len());
        let mut rows = std::mem::take(&mut inner.durable_rows);
        for (key, value) in changes.into_iter().take(kept) {
            put(&mut rows, key, value);
        }
        inner.rows.clone_from(&rows);
        inner.durable_rows = rows;
    }

    /// All bytes of all segments, in order.
    pub fn journal_bytes(&self) -> Vec<u8> {
        self.lock().segments.values().flat_map(|file| file.bytes.iter().copied()).collect()
    }

    pub(super) fn newest_checkpoint(&self) -> (Option<Checkpoint>, Vec<String>) {
        let mut wrong = Vec::new();
        for (seq, bytes) in self.lock().checkpoints.iter().rev() {
            match checkpoint::decode(bytes, *seq) {
                Ok(found) => return (Some(found), wrong),
                Err(why) => wrong.push(format!("checkpoint {seq} is skipped: {why}")),
            }
        }
        (None, wrong)
    }

    /// The state the whole journal folds to, or the newest checkpoint and what follows it.
    ///
    /// # Errors
    /// What is wrong with the journal, for people.
    pub fn fold(&self, from_checkpoint: bool) -> Result<State, String> {
        let checkpoint = if from_checkpoint { self.newest_checkpoint().0 } else { None };
        recover::fold_in(self, checkpoint).map(|folded| folded.state).map_err(|error| format!("{error:?}"))
    }

    pub(super) fn cut(&self, position: Position) -> io::Result<()> {
        let mut inner = self.lock();
        inner.ask(DiskOp::Sync)?;
        let file = inner.segments.get_mut(&segment_name(position.segment)).ok_or(io::ErrorKind::NotFound)?;
        file.bytes.truncate(usize::try_from(position.offset).unwrap_or(usize::MAX));
        file.synced = file.bytes.len();
        Ok(())
    }

    pub(super) fn opener(&self) -> Opener {
        let disk = self.clone();
        Box::new(move |path, new| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut inner = disk.lock();
            inner.ask(if new { DiskOp::Create } else { DiskOp::Sync })?;
            if new && inner.segments.contains_key(&name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if new {
                inner.segments.insert(name.clone(), MemoryFile::default());
            } else if !inner.segments.contains_key(&name) {
                return Err(io::ErrorKind::NotFound.into());
            }
            Ok(Box::new(OpenSegment { disk: disk.clone(), name }) as Box<dyn JournalFile>)
        })
    }

    pub(super) fn sync_names(&self) -> SyncNames {
        let disk = self.clone();
        Box::new(move |_: &Path| {
            let mut inner = disk.lock();
            inner.ask(DiskOp::SyncNames)?;
            inner.segments.values_mut().for_each(|file| file.name_synced = true);
            Ok(())
        })
    }

    pub(super) fn aux_put(&self, tree: &str, key: &str, value: Option<&[u8]>) -> Result<(), Fatal> {
        let mut inner = self.lock();
        if inner.dead {
            return Err(Fatal::Embedded("the simulated process has ended".to_owned()));
        }
        let key = (tree.to_owned(), key.to_owned());
        let value = value.map(<[u8]>::to_vec);
        inner.row_changes.push((key.clone(), value.clone()));
        put(&mut inner.rows, key, value);
        Ok(())
    }

    pub(super) fn aux_rows(&self, tree: &str) -> Vec<(String, Vec<u8>)> {
        let inner = self.lock();
        let rows = inner.rows.iter().filter(|((name, _), _)| name == tree);
        rows.map(|((_, key), value)| (key.clone(), value.clone())).collect()
    }

    pub(super) fn aux_flush(&self) -> Result<(), Fatal> {
        let mut inner = self.lock();
        if inner.row_changes.is_empty() {
            return Ok(());
        }
        inner.ask(DiskOp::Rows).map_err(|error| Fatal::Embedded(error.to_string()))?;
        for (key, value) in std::mem::take(&mut inner.row_changes) {
            put(&mut inner.durable_rows, key, value);
        }
        Ok(())
    }
}

fn put(rows: &mut BTreeMap<RowKey, Vec<u8>>, key: RowKey, value: Option<Vec<u8>>) {
    match value {
        Some(value) => rows.insert(key, value),
        None => rows.remove(&key),
    };
}

impl MemoryDisk {
    fn bytes_of(&self, name: &str) -> io::Result<Vec<u8>> {
        Ok(self.lock().segments.get(name).ok_or(io::ErrorKind::NotFound)?.bytes.clone())
    }

    /// The same segments for somebody who only watches: reading never fails.
    pub fn watched(&self) -> Watched {
        Watched(self.clone())
    }
}

impl Segments for MemoryDisk {
    type File = ReadSegment;

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().segments.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<(ReadSegment, u64)> {
        let bytes = self.bytes_of(name)?;
        let mut inner = self.lock();
        let answer = inner.answer(DiskOp::Read(bytes.len()));
        inner.obey(answer)?;
        let fails = match answer {
            DiskAnswer::Done => None,
            DiskAnswer::Fails(kind, after) => Some((after as u64, kind)),
            DiskAnswer::Dies(_) => return Err(io::Error::other("the simulated process has ended")),
        };
        let length = bytes.len() as u64;
        Ok((ReadSegment { bytes: Cursor::new(bytes), fails }, length))
    }

    fn path(&self, name: &str) -> PathBuf {
        Path::new(JOURNAL).join(name)
    }
}

/// See [`MemoryDisk::watched`].
pub struct Watched(MemoryDisk);

impl Segments for Watched {
    type File = ReadSegment;

    fn names(&self) -> io::Result<Vec<String>> {
        self.0.names()
    }

    fn open(&self, name: &str) -> io::Result<(ReadSegment, u64)> {
        let bytes = self.0.bytes_of(name)?;
        let length = bytes.len() as u64;
        Ok((ReadSegment { bytes: Cursor::new(bytes), fails: None }, length))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }
}

/// A segment that is read; from some byte on it may fail.
pub struct ReadSegment {
    bytes: Cursor<Vec<u8>>,
    fails: Option<(u64, io::ErrorKind)>,
}

impl Read for ReadSegment {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some((at, kind)) = self.fails else { return self.bytes.read(buffer) };
        match at.saturating_sub(self.bytes.position()) {
            0 => Err(kind.into()),
            left => Read::by_ref(&mut self.bytes).take(left).read(buffer),
        }
    }
}

impl Seek for ReadSegment {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.bytes.seek(to)
    }
}

struct OpenSegment {
    disk: MemoryDisk,
    name: String,
}

impl JournalFile for OpenSegment {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        let answer = inner.answer(DiskOp::Append(bytes.len()));
        let reached = inner.obey(answer)?;
        let file = inner.segments.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        let part = bytes.get(..reached.unwrap_or(bytes.len())).unwrap_or(bytes);
        file.bytes.extend_from_slice(part);
        match answer {
            DiskAnswer::Done => Ok(()),
            DiskAnswer::Fails(kind, _) => Err(kind.into()),
            DiskAnswer::Dies(_) => Err(io::Error::other("the simulated process has ended")),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.ask(DiskOp::Sync)?;
        let file = inner.segments.get_mut(&self.name).ok_or(io::ErrorKind::NotFound)?;
        file.synced = file.bytes.len();
        Ok(())
    }
}

/// The store's backend on a disk of memory.
pub struct OnMemoryDisk {
    pub(super) disk: MemoryDisk,
    pub(super) settings: StoreSettings,
    pub(super) journal: Journal,
    /// Record and logical time of the newest checkpoint.
    pub(super) checkpoint: (u64, Ts),
    pub(super) tap: Tap,
}

impl OnMemoryDisk {
    pub(super) fn write(&mut self, bytes: &[u8], first: u64, state: &State, head: LineHash) -> Result<(), Fatal> {
        self.journal.write(bytes, first, state.meta.logical_time.day())?;
        // A commit of the embedded store flushes the rows beside it as well.
        self.disk.aux_flush()?;
        let settings = &self.settings.checkpoint;
        let events = state.meta.seq - self.checkpoint.0;
        let age = state.meta.logical_time.since_ms(self.checkpoint.1);
        let due = events >= u64::from(settings.events.max(1)) || age >= i64::from(settings.hours.max(1)) * HOUR_MS;
        if due { self.checkpoint(state, head) } else { Ok(()) }
    }

    pub(super) fn checkpoint(&mut self, state: &State, head: LineHash) -> Result<(), Fatal> {
        let bytes = checkpoint::encode(state, head, self.journal.position()).map_err(Fatal::Checkpoint)?;
        let mut inner = self.disk.lock();
        inner.ask(DiskOp::Checkpoint).map_err(|error| Fatal::Checkpoint(error.to_string()))?;
        inner.checkpoints.insert(state.meta.seq, bytes);
        while inner.checkpoints.len() > self.settings.checkpoint.keep.max(1) as usize {
            inner.checkpoints.pop_first();
        }
        drop(inner);
        self.checkpoint = (state.meta.seq, state.meta.logical_time);
        Ok(())
    }

    pub(super) fn close(&mut self, state: &State, head: LineHash) -> Result<(), Fatal> {
        if self.checkpoint.0 < state.meta.seq {
            self.checkpoint(state, head)?;
        }
        self.disk.aux_flush()
    }
}

#[cfg(test)]
#[path = "memory_disk_tests.rs"]
mod tests;
