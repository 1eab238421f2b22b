//! The store without actors: opening, committing groups of batches, auxiliary data, checkpoints, closing.
//!
//! Order of a durable commit: expectation, fold, journal append and sync, embedded transaction and flush, answer. An
//! error on the way poisons the store: nothing was acknowledged, nothing is tried again, the process ends with 70.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use super::opening::{OpenInfo, Opened};
use super::{
    batch::{AuxChange, Batch, CommitResult, Committed, Refused},
    checkpoint,
    error::{Fatal, StoreError},
    frame::{Framer, LineHash, NO_LINE},
    identity,
    journal::{self, Journal, Opener},
    lock::StoreLock,
    memory_disk::{MemoryDisk, OnMemoryDisk, Tap},
    reader::Start,
    recover,
    state_db::StateDb,
    touched::Touched,
    verify,
};
use crate::{
    model::{Event, Record, Recovered, State, Ts, event::SCHEMA_VERSION, time::HOUR_MS},
    runtime::failpoint,
    settings::sections::StoreSettings,
};

/// The newest record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Its number; 0 before the first.
    pub seq: u64,
    /// First 32 hex digits of the SHA-256 of its line.
    pub hash: String,
}

/// Files, lock and embedded store of a durable store.
pub(super) struct Durable {
    pub(super) data: PathBuf,
    pub(super) settings: StoreSettings,
    pub(super) journal: Journal,
    pub(super) db: StateDb,
    pub(super) lock: StoreLock,
    /// Record and logical time of the newest checkpoint.
    pub(super) checkpoint: (u64, Ts),
}

/// A journal that is hashed and perhaps written to a sink, never synced.
struct Memory {
    sha: Sha256,
    out: Option<Box<dyn Write + Send>>,
    aux: BTreeMap<(String, String), Vec<u8>>,
}

enum Backend {
    Durable(Box<Durable>),
    Memory(Box<Memory>),
    MemoryDisk(Box<OnMemoryDisk>),
    Frozen { why: String, _lock: StoreLock },
}

/// The only writer of journal and embedded store.
pub struct Store {
    state: State,
    framer: Framer,
    buffer: Vec<u8>,
    touched: Touched,
    epoch: u32,
    backend: Backend,
    poisoned: bool,
    /// The batch being committed adopts the store.
    adopting: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("seq", &self.state.meta.seq).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens or creates the store in `data` and recovers it; there is no other way to start.
    ///
    /// # Errors
    /// [`StoreError`] with a sentence for people and an exit code. A damaged journal is no error: it opens frozen.
    pub fn open(data: &Path, settings: &StoreSettings, info: &OpenInfo) -> Result<(Store, Opened), StoreError> {
        Store::open_with(data, settings, info, journal::plain_files())
    }

    /// As [`Store::open`] with segments opened by `opener`.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        data: &Path,
        settings: &StoreSettings,
        info: &OpenInfo,
        opener: Opener,
    ) -> Result<(Store, Opened), StoreError> {
        recover::open(data, settings, info, opener)
    }

    /// A store without files for backtests; the journal's bytes are hashed and, if given, written to `out`.
    ///
    /// # Errors
    /// [`Fatal`] when the first records cannot be written to `out`.
    pub fn memory(info: &OpenInfo, out: Option<Box<dyn Write + Send>>) -> Result<(Store, Opened), Fatal> {
        let memory = Memory { sha: Sha256::new(), out, aux: BTreeMap::new() };
        let mut store = Store::assemble(State::default(), NO_LINE, Backend::Memory(Box::new(memory)));
        let opened = Opened {
            moved: false,
            state: State::default(),
            epoch: 1,
            recovered: Recovered { clean: true, ..Recovered::default() },
            halt: None,
            last_logical_time: Ts::default(),
            gap_from: None,
            created: true,
            frozen: false,
            pause: None,
            unannounced: Vec::new(),
            aborted: Vec::new(),
            warnings: Vec::new(),
        };
        let opened = store.boot(info, info.new_store_id(), 1, opened)?;
        Ok((store, opened))
    }

    /// Opens or creates the store on a disk of memory, recovered as one in files is; `tap` sees every batch as soon as it
    /// is durable. For simulations, whose disk fails and loses what was not synced.
    ///
    /// # Errors
    /// A damaged journal, or a failure of the disk.
    pub fn on_disk(
        disk: &MemoryDisk,
        settings: &StoreSettings,
        info: &OpenInfo,
        tap: Tap,
    ) -> Result<(Store, Opened), StoreError> {
        recover::open_memory_disk(disk, settings, info, tap)
    }

    fn assemble(state: State, head: LineHash, backend: Backend) -> Store {
        let epoch = state.meta.epoch;
        let buffer = Vec::with_capacity(1 << 16);
        let (framer, touched) = (Framer::new(head), Touched::default());
        Store { state, framer, buffer, touched, epoch, backend, poisoned: false, adopting: false }
    }

    pub(super) fn durable(state: State, head: LineHash, durable: Durable) -> Store {
        Store::assemble(state, head, Backend::Durable(Box::new(durable)))
    }

    pub(super) fn on_memory_disk(state: State, head: LineHash, on_disk: OnMemoryDisk) -> Store {
        Store::assemble(state, head, Backend::MemoryDisk(Box::new(on_disk)))
    }

    pub(super) fn frozen(state: State, head: LineHash, why: String, lock: StoreLock) -> Store {
        Store::assemble(state, head, Backend::Frozen { why, _lock: lock })
    }

    /// Commits the first batch of a boot: creation and deposits of a new store, `Booted`, and HALTED when asked for.
    pub(super) fn boot(
        &mut self,
        info: &OpenInfo,
        store: Uuid,
        epoch: u32,
        mut opened: Opened,
    ) -> Result<Opened, Fatal> {
        let mut events = Vec::new();
        if self.state.meta.seq == 0 {
            events.push(Event::StoreCreated { store, seed: info.seed, data_kind: info.data_kind.clone() });
        }
        let (version, config_hash) = (info.version.clone(), info.config_hash.clone());
        events.push(Event::Booted { epoch, version, config_hash });
        if self.state.meta.seq == 0 {
            let deposits = info.deposits.iter().map(|(asset, amount)| (*asset, *amount));
            events.extend(deposits.map(|(asset, amount)| Event::Deposit { asset, amount }));
        }
        if let Some(halt) = &opened.halt {
            let at = info.now.max(self.state.meta.logical_time);
            events.extend(recover::halted(&self.state, halt, epoch, at));
        }
        self.epoch = epoch;
        let at = if info.stands_still && !opened.created { opened.last_logical_time } else { info.now };
        let batch = Batch::new("store", format!("boot-{epoch}"), "start", at, events);
        // A batch without an expectation cannot be refused.
        let _ = self.commit(batch)?;
        opened.state = self.state.clone();
        opened.epoch = epoch;
        Ok(opened)
    }

    /// The fold of everything committed so far.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Epoch of this boot.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The newest record.
    pub fn head(&self) -> Head {
        let hash = String::from_utf8_lossy(&self.framer.head()).into_owned();
        Head { seq: self.state.meta.seq, hash }
    }

    /// SHA-256 over all journal bytes so far, hex; only a store in memory knows it.
    pub fn journal_sha256(&self) -> Option<String> {
        match &self.backend {
            Backend::Memory(memory) => Some(hex::encode(memory.sha.clone().finalize())),
            _ => None,
        }
    }

    /// Commits one batch; see [`Store::commit_group`].
    ///
    /// # Errors
    /// [`Fatal`]; the process must end.
    pub fn commit(&mut self, batch: Batch) -> Result<CommitResult, Fatal> {
        self.ready()?;
        if let Some(refused) = self.refusal() {
            return Ok(Err(refused));
        }
        let first = self.state.meta.seq + 1;
        let done = self.stage(batch).and_then(|result| self.write(first).map(|()| result));
        self.poisoned = done.is_err();
        self.tell(done.as_ref().map(std::slice::from_ref).unwrap_or_default());
        done
    }

    /// Commits batches in order with one sync. Each is applied whole or not at all; a refused expectation, which sees the
    /// batches before it, is a normal answer.
    ///
    /// # Errors
    /// [`Fatal`]: none of the group may be acted upon, the process must end.
    pub fn commit_group(&mut self, batches: Vec<Batch>) -> Result<Vec<CommitResult>, Fatal> {
        self.ready()?;
        if let Some(refused) = self.refusal() {
            return Ok(batches.iter().map(|_| Err(refused.clone())).collect());
        }
        let first = self.state.meta.seq + 1;
        let staged: Result<Vec<CommitResult>, Fatal> = batches.into_iter().map(|batch| self.stage(batch)).collect();
        let done = staged.and_then(|results| self.write(first).map(|()| results));
        self.poisoned = done.is_err();
        self.tell(done.as_deref().unwrap_or_default());
        done
    }

    /// Shows durable batches to whoever watches a disk of memory.
    fn tell(&mut self, results: &[CommitResult]) {
        if let Backend::MemoryDisk(on_disk) = &mut self.backend {
            let position = on_disk.journal.position();
            let start = Start { seq: self.state.meta.seq, prev: self.framer.head(), position };
            for committed in results.iter().flatten() {
                (on_disk.tap)(&committed.records, start);
            }
        }
    }

    fn ready(&self) -> Result<(), Fatal> {
        if self.poisoned { Err(Fatal::Poisoned) } else { Ok(()) }
    }

    fn refusal(&self) -> Option<Refused> {
        let Backend::Frozen { why, .. } = &self.backend else { return None };
        Some(Refused::read_only(why))
    }

    /// Folds a batch and frames its records; nothing is durable yet.
    fn stage(&mut self, batch: Batch) -> Result<CommitResult, Fatal> {
        if let Some(Err(refused)) = batch.expectation.as_ref().map(|expected| expected.check(&self.state)) {
            return Ok(Err(refused));
        }
        if batch.events.iter().any(|event| matches!(event, Event::StoreAdopted { .. })) {
            // Nobody knows what happened to a moved store: all of it is checked before it counts again.
            let defects = self.verify().map(|report| report.defects).unwrap_or_default();
            if let Some(defect) = defects.into_iter().next() {
                return Ok(Err(Refused { expected: "a sound store to adopt".to_owned(), found: defect }));
            }
            self.adopting = true;
        }
        let first_seq = self.state.meta.seq + 1;
        let ts = batch.ts.max(self.state.meta.logical_time);
        let mut n = u32::try_from(batch.events.len()).ok().filter(|n| *n > 1);
        let durable = matches!(self.backend, Backend::Durable(_));
        let mut records = Vec::with_capacity(batch.events.len());
        for event in batch.events {
            let record = Record {
                v: SCHEMA_VERSION,
                seq: self.state.meta.seq + 1,
                epoch: self.epoch,
                ts,
                n: n.take(),
                actor: batch.actor.clone(),
                corr: batch.corr.clone(),
                cause: batch.cause.clone(),
                event,
            };
            if durable {
                self.touched.add(&record.event, &self.state);
            }
            failpoint::about(record.event.kind());
            self.state.apply(&record)?;
            self.framer.push(&mut self.buffer, &record).map_err(|error| Fatal::Unwritable(error.to_string()))?;
            records.push(record);
        }
        Ok(Ok(Committed { first_seq, last_seq: self.state.meta.seq, records: records.into() }))
    }

    /// Makes everything staged since record `first` durable.
    fn write(&mut self, first: u64) -> Result<(), Fatal> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        failpoint::effect("store.commit", "");
        match &mut self.backend {
            Backend::Durable(durable) => {
                if !durable.lock.still_names(&durable.data) {
                    return Err(Fatal::Unwritable(format!("{} was moved or deleted", durable.data.display())));
                }
                let day = self.state.meta.logical_time.day();
                durable.journal.write(&self.buffer, first, day)?;
                durable.db.commit(&self.touched, &self.state)?;
                self.touched.keys.clear();
                self.touched.swept.clear();
                failpoint::effect("store.durable", "");
                failpoint::over();
                durable.checkpoint_if_due(&self.state, self.framer.head())?;
                // After the event: a crash in between leaves a store that is still to be adopted.
                if std::mem::take(&mut self.adopting) {
                    identity::adopt(&durable.data).map_err(|error| Fatal::Unwritable(error.to_string()))?;
                }
            }
            Backend::Memory(memory) => {
                memory.sha.update(&self.buffer);
                if let Some(out) = memory.out.as_mut() {
                    let path = PathBuf::from("journal copy");
                    out.write_all(&self.buffer).map_err(|source| Fatal::Journal { what: "append to", path, source })?;
                }
            }
            Backend::MemoryDisk(on_disk) => on_disk.write(&self.buffer, first, &self.state, self.framer.head())?,
            Backend::Frozen { .. } => {}
        }
        self.buffer.clear();
        Ok(())
    }

    /// Stores or removes data outside the journal; durable with the next [`Store::aux_flush`], a lost second is harmless.
    ///
    /// # Errors
    /// [`Fatal`]; the process must end.
    pub fn aux_write(&mut self, changes: Vec<AuxChange>) -> Result<(), Fatal> {
        self.ready()?;
        match &mut self.backend {
            Backend::Durable(durable) => durable.db.aux_write(&changes)?,
            Backend::Memory(memory) => {
                for change in changes {
                    let place = (change.tree.to_owned(), change.key);
                    match change.value {
                        Some(value) => drop(memory.aux.insert(place, value)),
                        None => drop(memory.aux.remove(&place)),
                    }
                }
            }
            Backend::MemoryDisk(on_disk) => {
                for change in changes {
                    on_disk.disk.aux_put(change.tree, &change.key, change.value.as_deref())?;
                }
            }
            Backend::Frozen { .. } => {}
        }
        Ok(())
    }

    /// All data of one auxiliary tree, in key order.
    ///
    /// # Errors
    /// [`Fatal`]; the process must end.
    pub fn aux_rows(&self, tree: &str) -> Result<Vec<(String, Vec<u8>)>, Fatal> {
        match &self.backend {
            Backend::Durable(durable) => durable.db.aux_rows(tree),
            Backend::Memory(memory) => {
                let rows = memory.aux.iter().filter(|((name, _), _)| name == tree);
                Ok(rows.map(|((_, key), value)| (key.clone(), value.clone())).collect())
            }
            Backend::MemoryDisk(on_disk) => Ok(on_disk.disk.aux_rows(tree)),
            Backend::Frozen { .. } => Ok(Vec::new()),
        }
    }

    /// Makes auxiliary data durable.
    ///
    /// # Errors
    /// [`Fatal`]; the process must end.
    pub fn aux_flush(&mut self) -> Result<(), Fatal> {
        self.ready()?;
        match &self.backend {
            Backend::Durable(durable) => durable.db.aux_flush(),
            Backend::MemoryDisk(on_disk) => on_disk.disk.aux_flush(),
            _ => Ok(()),
        }
    }

    /// Writes a checkpoint now and drops those no longer kept; nothing to do in memory.
    ///
    /// # Errors
    /// [`Fatal::Checkpoint`].
    pub fn checkpoint(&mut self) -> Result<(), Fatal> {
        self.ready()?;
        match &mut self.backend {
            Backend::Durable(durable) => durable.checkpoint(&self.state, self.framer.head()),
            Backend::MemoryDisk(on_disk) => on_disk.checkpoint(&self.state, self.framer.head()),
            _ => Ok(()),
        }
    }

    /// Checks the whole journal, the checkpoints and the embedded store against the fold.
    pub fn verify(&self) -> Option<verify::Report> {
        let Backend::Durable(durable) = &self.backend else { return None };
        Some(verify::check_open(&durable.data, &durable.db))
    }

    /// Flushes, writes a checkpoint when records were added since the last one, and releases the store.
    ///
    /// # Errors
    /// [`Fatal`]; everything acknowledged is durable nevertheless.
    pub fn close(mut self) -> Result<(), Fatal> {
        self.ready()?;
        match &mut self.backend {
            Backend::Durable(durable) => {
                if durable.checkpoint.0 < self.state.meta.seq {
                    durable.checkpoint(&self.state, self.framer.head())?;
                }
                durable.db.aux_flush()
            }
            Backend::MemoryDisk(on_disk) => on_disk.close(&self.state, self.framer.head()),
            Backend::Memory(memory) => {
                let path = PathBuf::from("journal copy");
                let flushed = memory.out.as_mut().map_or(Ok(()), |out| out.flush());
                flushed.map_err(|source| Fatal::Journal { what: "flush", path, source })
            }
            Backend::Frozen { .. } => Ok(()),
        }
    }
}

impl Durable {
    fn checkpoint_if_due(&mut self, state: &State, head: LineHash) -> Result<(), Fatal> {
        let settings = &self.settings.checkpoint;
        let events = state.meta.seq - self.checkpoint.0;
        let age = state.meta.logical_time.since_ms(self.checkpoint.1);
        let due = events >= u64::from(settings.events.max(1)) || age >= i64::from(settings.hours.max(1)) * HOUR_MS;
        if due { self.checkpoint(state, head) } else { Ok(()) }
    }

    fn checkpoint(&mut self, state: &State, head: LineHash) -> Result<(), Fatal> {
        let dir = self.data.join(recover::CHECKPOINTS);
        checkpoint::write(&dir, state, head, self.journal.position()).map_err(Fatal::Checkpoint)?;
        self.checkpoint = (state.meta.seq, state.meta.logical_time);
        checkpoint::prune(&dir, self.settings.checkpoint.keep as usize).map_err(Fatal::Checkpoint)
    }
}
