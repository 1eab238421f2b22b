//! Opening a durable store: lock, identity, journal, embedded store, epoch. The same steps after a clean stop and a kill.
//!
//! Everything here can be repeated: a kill at any step leaves a directory the next start brings to the same state.

use std::path::Path;

use super::{
    batch::AuxChange,
    checkpoint::{self, Checkpoint},
    core::{Durable, OpenInfo, Opened, Store},
    error::{Damage, Fatal, HaltReason, StoreError},
    files,
    identity::{self, Found},
    journal::{Journal, Opener},
    lock::{self, StoreLock},
    memory_disk::{MemoryDisk, OnMemoryDisk, Tap},
    reader::{self, End, ReadError, Start},
    segments::{Folder, Segments},
    starts,
    state_db::{self, StateDb},
    touched::Touched,
    unannounced,
};
use crate::{
    model::{CoordinatorState, Event, Halt, Record, Recovered, State, TradeState, Ts, event::SCHEMA_VERSION},
    runtime::failpoint,
    settings::sections::StoreSettings,
};

/// Directory of the journal's segments.
pub const JOURNAL: &str = "journal";
/// Directory of the checkpoints.
pub const CHECKPOINTS: &str = "checkpoint";
/// Directory of the embedded store.
pub const STATE: &str = "state";

/// What the journal folds to.
pub(super) struct Folded {
    pub(super) state: State,
    pub(super) end: End,
    /// Where the fold began: the checkpoint used, or the beginning.
    start: Start,
    checkpoint_at: Ts,
    /// Records after the checkpoint.
    tail: Vec<Record>,
}

pub(super) fn open(
    data: &Path,
    settings: &StoreSettings,
    info: &OpenInfo,
    opener: Opener,
) -> Result<(Store, Opened), StoreError> {
    files::create_dir(data)?;
    files::refuse_network_file_system(data)?;
    let lock = StoreLock::take(data, lock::PATIENCE, &format!("since {}", info.now))?;
    let aborted = starts::begin(data);
    let found = recover(data, settings, info, opener, lock);
    starts::through(data, &aborted);
    found.map(|(store, opened)| (store, Opened { aborted, ..opened }))
}

fn recover(
    data: &Path,
    settings: &StoreSettings,
    info: &OpenInfo,
    opener: Opener,
    lock: StoreLock,
) -> Result<(Store, Opened), StoreError> {
    files::restrict_dir(data)?;
    for name in [JOURNAL, CHECKPOINTS] {
        files::create_dir(&data.join(name))?;
        files::restrict_dir(&data.join(name))?;
    }
    let mut opened = nothing_found();
    let identified = identify(data, info, &mut opened)?;
    let (checkpoint, wrong) = checkpoint::newest(&data.join(CHECKPOINTS))?;
    opened.warnings.extend(wrong);
    let folded = match fold(&data.join(JOURNAL), checkpoint.clone()) {
        Ok(folded) => folded,
        Err(ReadError::Refused(error)) => return Err(error),
        Err(ReadError::Damage(damage)) => return Ok(frozen(data, checkpoint, damage, info, opened, lock)),
    };
    if let Some((bytes, why)) = &folded.end.torn {
        let aside = reader::cut_torn_tail(&data.join(JOURNAL), folded.end.position, info.now.0)?;
        opened.recovered.torn_bytes = *bytes;
        opened.warnings.push(format!("a torn tail of {bytes} bytes was moved to {} ({why})", aside.display()));
    }
    let day = folded.state.meta.logical_time.day();
    let limit = u64::from(settings.segment_mib.max(1)) << 20;
    let mut journal = Journal::new(data.join(JOURNAL), opener, folded.end.position, day, limit);
    // Before the embedded store: it must never know more than the journal.
    journal.adopt()?;
    let identity = agree(data, identified, folded.state.meta.store, info, &mut opened)?;
    let (db, epoch_seen) = materialise(data, settings, &folded, info.now, &mut opened)?;
    describe(&folded, &mut opened);
    let rows = db.aux_rows(META)?;
    if !opened.recovered.clean && opened.halt.is_none() {
        let announced = number(&rows, ANNOUNCED).and_then(|seq| u64::try_from(seq).ok());
        opened.unannounced = unannounced::since(&data.join(JOURNAL), announced.unwrap_or(0));
    }
    note_gap(&rows, &mut opened, |from| {
        let value = Some(from.as_bytes().to_vec());
        db.aux_write(&[AuxChange { tree: META, key: GAP_FROM.to_owned(), value }])?;
        db.aux_flush()
    })?;
    let Folded { state, end, start, checkpoint_at, .. } = folded;
    // Without a checkpoint the first one is due a full interval after the start.
    let checkpoint = (start.seq, if start.seq == 0 { info.now } else { checkpoint_at });
    let epoch = state.meta.epoch.max(epoch_seen) + 1;
    failpoint::effect("boot.epoch", "");
    let durable = Durable { data: data.to_owned(), settings: settings.clone(), journal, db, lock, checkpoint };
    let mut store = Store::durable(state, end.prev, durable);
    let opened = store.boot(info, identity, epoch, opened)?;
    Ok((store, opened))
}

/// Code of the halt of a copied, moved or restored store; left by adopting it.
pub const STORE_MOVED: &str = "store_moved";
/// Code of a HALTED start over a journal that ends before the embedded store.
pub const STORE_AHEAD: &str = "store_ahead";
/// Code of a HALTED start over a journal that cannot be read whole.
pub const JOURNAL_DAMAGED: &str = "journal_damaged";

fn nothing_found() -> Opened {
    Opened {
        state: State::default(),
        epoch: 0,
        recovered: Recovered::default(),
        halt: None,
        moved: false,
        last_logical_time: Ts::default(),
        gap_from: None,
        created: false,
        frozen: false,
        pause: None,
        unannounced: Vec::new(),
        aborted: Vec::new(),
        warnings: Vec::new(),
    }
}

/// The same recovery from a disk of memory. There is no lock, no identity and no embedded store: the state is the fold,
/// and what is kept beside the journal lies on the disk as rows.
///
/// # Errors
/// A damaged journal, or a failure of the disk; nothing is halted or frozen, because nothing but a torn tail may happen.
pub(super) fn open_memory_disk(
    disk: &MemoryDisk,
    settings: &StoreSettings,
    info: &OpenInfo,
    tap: Tap,
) -> Result<(Store, Opened), StoreError> {
    let mut opened = nothing_found();
    let failed = |error: std::io::Error| StoreError::io("read", Path::new(JOURNAL), error);
    let (checkpoint, wrong) = disk.newest_checkpoint();
    opened.warnings.extend(wrong);
    let folded = fold_in(disk, checkpoint).map_err(|error| match error {
        ReadError::Refused(error) => error,
        ReadError::Damage(damage) => failed(std::io::Error::other(damage.to_string())),
    })?;
    if let Some((bytes, _)) = &folded.end.torn {
        disk.cut(folded.end.position)
            .map_err(|error| StoreError::io("cut the torn tail of", Path::new(JOURNAL), error))?;
        opened.recovered.torn_bytes = *bytes;
    }
    opened.recovered.rebuilt = folded.state.meta.seq > 0;
    describe(&folded, &mut opened);
    note_gap(&disk.aux_rows(META), &mut opened, |from| {
        disk.aux_put(META, GAP_FROM, Some(from.as_bytes()))?;
        disk.aux_flush()
    })?;
    let Folded { state, end, start, checkpoint_at, .. } = folded;
    let day = state.meta.logical_time.day();
    let limit = u64::from(settings.segment_mib.max(1)) << 20;
    let mut journal = Journal::new(JOURNAL.into(), disk.opener(), end.position, day, limit).naming(disk.sync_names());
    journal.adopt()?;
    let checkpoint = (start.seq, if start.seq == 0 { info.now } else { checkpoint_at });
    let epoch = state.meta.epoch + 1;
    let on_disk = OnMemoryDisk { disk: disk.clone(), settings: settings.clone(), journal, checkpoint, tap };
    let mut store = Store::on_memory_disk(state, end.prev, on_disk);
    let opened = store.boot(info, info.new_store_id(), epoch, opened)?;
    Ok((store, opened))
}

/// Auxiliary tree of a few instants.
pub const META: &str = "meta";
/// Row of [`META`]: the highest logical time of earlier processes, when nothing was committed since.
pub const LOGICAL_TIME: &str = "logical_time";
/// Row of [`META`]: program time has left the wall on purpose (an accelerated clock), so the wall proves nothing about it.
pub const LEFT_WALL: &str = "left_wall";
/// Row of [`META`]: when crashes were found, wall time, a JSON list.
pub const CRASHES: &str = "crashes";
/// Row of [`META`]: since when prices were not worked on.
pub const GAP_FROM: &str = "gap_from";

/// Row of [`META`]: number of the newest record that was announced.
pub const ANNOUNCED: &str = "announced";
/// Row of [`META`]: program time when the whole journal was last verified.
pub const VERIFIED_AT: &str = "verified_at";

fn number(rows: &[(String, Vec<u8>)], name: &str) -> Option<i64> {
    let (_, value) = rows.iter().find(|(key, _)| key == name)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Reads the instants kept beside the journal. The start of the gap is noted before `Booted` moves the journal's time:
/// a crash in the middle of working the gap off must not shorten it.
fn note_gap(
    rows: &[(String, Vec<u8>)],
    opened: &mut Opened,
    keep: impl FnOnce(&str) -> Result<(), Fatal>,
) -> Result<(), StoreError> {
    let instant = |name: &str| number(rows, name).map(Ts);
    opened.last_logical_time = opened.last_logical_time.max(instant(LOGICAL_TIME).unwrap_or_default());
    if opened.created {
        return Ok(());
    }
    let known = instant(GAP_FROM);
    let from = known.unwrap_or(opened.last_logical_time);
    if known.is_none() {
        keep(&from.0.to_string())?;
    }
    opened.gap_from = Some(from);
    Ok(())
}

/// The HALTED start of a store that is not proven to be the original.
fn moved(why: &str) -> Option<HaltReason> {
    Some(HaltReason { code: STORE_MOVED, text: why.to_owned() })
}

/// Lost records are what a person must hear of first; that the store was moved as well is in the text.
fn graver(known: Option<HaltReason>, loss: HaltReason) -> HaltReason {
    match known {
        Some(known) if known.is_loss() => known,
        Some(known) => HaltReason { text: format!("{}. Moreover: {}", loss.text, known.text), ..loss },
        None => loss,
    }
}

/// Step 2: the same store in the same place, a copy, or a new one. Absent when the file does not tell which store this
/// is, although there is a journal.
fn identify(data: &Path, info: &OpenInfo, opened: &mut Opened) -> Result<Option<uuid::Uuid>, StoreError> {
    let has_journal = !reader::segments(&data.join(JOURNAL))?.is_empty();
    let found = match identity::read(data) {
        Err(StoreError::BadIdentity { path, why }) if has_journal => {
            let aside = files::move_aside(&path, "damaged", info.now.0);
            let aside = aside.map_err(|e| StoreError::io("move aside", &path, e))?;
            opened.halt = moved(&format!("identity.json cannot be read ({why}) and is kept as {}", aside.display()));
            return Ok(None);
        }
        other => other?,
    };
    let identity = match found {
        Found::Same(identity) => identity,
        Found::Moved(identity) => {
            opened.halt = moved("this directory is a copy or a restored backup");
            identity
        }
        Found::Unprovable(identity) => {
            opened.warnings.push("the file system reports neither inode nor birth time; a copy is not noticed".into());
            identity
        }
        Found::None if !has_journal => identity::write(data, info.new_store_id(), &info.data_kind)?,
        Found::None => {
            opened.halt = moved("identity.json is missing beside a journal");
            return Ok(None);
        }
    };
    if identity.data_kind != info.data_kind {
        let (stored, asked) = (identity.data_kind, info.data_kind.clone());
        return Err(StoreError::OtherDataKind { path: data.to_owned(), stored, asked });
    }
    Ok(Some(identity.store))
}

/// The journal knows which store it is of: an identity that is absent or names another one is written anew, and counts
/// as moved until it is adopted.
fn agree(
    data: &Path,
    identified: Option<uuid::Uuid>,
    journal: uuid::Uuid,
    info: &OpenInfo,
    opened: &mut Opened,
) -> Result<uuid::Uuid, StoreError> {
    let store = if journal.is_nil() { identified.unwrap_or_else(|| info.new_store_id()) } else { journal };
    if identified != Some(store) {
        let other = || moved("identity.json names another store than the journal");
        opened.halt = opened.halt.take().or_else(other);
        identity::write_unproven(data, store, &info.data_kind)?;
    }
    if let Some(halt) = opened.halt.as_mut().filter(|halt| halt.code == STORE_MOVED) {
        opened.moved = true;
        halt.text += &format!(
            "; make sure that the original never runs again, then `adopt-store {store}`, or start the original"
        );
    }
    Ok(store)
}

/// Step 3: folds the journal from `checkpoint` on.
pub(super) fn fold(dir: &Path, checkpoint: Option<Checkpoint>) -> Result<Folded, ReadError> {
    fold_in(&Folder(dir), checkpoint)
}

pub(super) fn fold_in<S: Segments>(files: &S, checkpoint: Option<Checkpoint>) -> Result<Folded, ReadError> {
    let (start, checkpoint_at, mut state) = match checkpoint {
        Some(found) => (found.start, found.at, found.state),
        None => (Start::BEGINNING, Ts::default(), State::default()),
    };
    let mut tail = Vec::new();
    let end = reader::read_in(files, start, &mut |batch| {
        for record in batch.drain(..) {
            state.apply(&record).map_err(|misfit| misfit.to_string())?;
            tail.push(record);
        }
        Ok(())
    })?;
    Ok(Folded { state, end, start, checkpoint_at, tail })
}

/// A damaged journal: the state before the damage, HALTED, and a store that refuses every commit.
fn frozen(
    data: &Path,
    checkpoint: Option<Checkpoint>,
    damage: Damage,
    info: &OpenInfo,
    mut opened: Opened,
    lock: StoreLock,
) -> (Store, Opened) {
    let mut state = State::default();
    let start = checkpoint.as_ref().map_or(Start::BEGINNING, |found| found.start);
    if let Some(found) = checkpoint {
        state = found.state;
    }
    let mut good = state.clone();
    // The same defect ends this reading; what was folded before it counts.
    let _ = reader::read(&data.join(JOURNAL), start, &mut |batch| {
        for record in batch.drain(..) {
            state.apply(&record).map_err(|misfit| misfit.to_string())?;
        }
        good.clone_from(&state);
        Ok(())
    });
    let halt = damage.halt(good.meta.seq);
    opened.recovered.records = good.meta.seq;
    opened.last_logical_time = good.meta.logical_time;
    opened.epoch = good.meta.epoch + 1;
    let at = info.now.max(good.meta.logical_time);
    if let Some(event) = halted(&good, &halt, opened.epoch, at) {
        let record = Record {
            v: SCHEMA_VERSION,
            seq: good.meta.seq + 1,
            epoch: opened.epoch,
            ts: at,
            n: None,
            actor: "store".into(),
            corr: format!("boot-{}", opened.epoch),
            cause: "start".into(),
            event,
        };
        // A change of the coordinator state fits every state.
        let _ = good.apply(&record);
    }
    opened.frozen = true;
    opened.halt = Some(halt);
    opened.state = good.clone();
    (Store::frozen(good, start.prev, damage.to_string(), lock), opened)
}

/// The event that makes `state` HALTED for `halt`; none when it is HALTED for that very reason already.
pub(super) fn halted(state: &State, halt: &HaltReason, epoch: u32, at: Ts) -> Option<Event> {
    let from = state.coordinator.state;
    let reason = format!("{}: {}", halt.code, halt.text);
    // A store that is not adopted yet stays what it is; a loss that was found before must not be forgotten over it.
    let known = state.coordinator.halt.as_ref().is_some_and(|held| {
        held.reason.starts_with(halt.code) || (!halt.is_loss() && HaltReason::tells_loss(&held.reason))
    });
    (from != CoordinatorState::Halted || !known).then(|| Event::StateChanged {
        from,
        to: CoordinatorState::Halted,
        reason: halt.text.clone(),
        halt: Some(Halt { id: format!("{}-{epoch}", halt.code), reason, actor: "store".to_owned(), at }),
    })
}

/// Steps 4 and 5: the embedded store, brought up to the journal or built anew.
fn materialise(
    data: &Path,
    settings: &StoreSettings,
    folded: &Folded,
    now: Ts,
    opened: &mut Opened,
) -> Result<(StateDb, u32), StoreError> {
    let path = data.join(STATE);
    let existed = path.exists();
    let mut epoch_seen = 0;
    let wrong = match state_db::open(&path, settings.cache_mib) {
        Err(why) => match state_db::of_the_system(&why) {
            // It says nothing about what is stored: set aside, a sound store would be lost to a full disk.
            Some(error) => return Err(StoreError::io("open", &path, error)),
            None => Some(("damaged", why)),
        },
        Ok(loaded) => {
            epoch_seen = loaded.db.epoch();
            let (last, from) = (folded.state.meta.seq, folded.start.seq);
            // Only a kill within the very first commit leaves an empty store beside a journal.
            let first_commit = folded.tail.first().map_or(0, |record| u64::from(record.n.unwrap_or(1)));
            if !existed && last > 0 {
                None
            } else if loaded.seq == 0 && last > first_commit {
                Some(("damaged", "it is empty".to_owned()))
            } else if loaded.seq > last {
                let text = format!("the embedded store is at record {}, the journal ends at {last}", loaded.seq);
                let lost = format!(
                    "{text}: what was answered after it is lost; \
                                    restore the newer journal, or look at the account and `reset`"
                );
                opened.halt = Some(graver(opened.halt.take(), HaltReason { code: STORE_AHEAD, text: lost }));
                Some(("ahead", text))
            } else if loaded.seq < from {
                Some(("stale", format!("it is at record {}, before the checkpoint {from}", loaded.seq)))
            } else {
                let mut db = loaded.db;
                match catch_up(&mut db, loaded.state, folded) {
                    Ok(applied) => {
                        opened.recovered.applied = applied;
                        return Ok((db, epoch_seen));
                    }
                    Err(why) => Some(("damaged", why)),
                }
            }
        }
    };
    if let Some((name, why)) = wrong.filter(|_| existed) {
        let aside = state_db::set_aside(&path, name, now.0).map_err(|e| StoreError::io("move aside", &path, e))?;
        let aside = aside.unwrap_or_default();
        opened.warnings.push(format!("the embedded store was rebuilt ({why}); the old one is {}", aside.display()));
    } else {
        // What an interrupted first open left is worth nothing.
        files::clear_dir(&path).map_err(|e| StoreError::io("clear", &path, e))?;
    }
    opened.recovered.rebuilt = folded.state.meta.seq > 0;
    if opened.recovered.rebuilt && folded.end.torn.is_some() {
        // Alone, a torn tail is told from lost records by the embedded store: it never ends before an acknowledged one.
        let text = "the end of the journal is torn and the embedded store, which would tell whether records that were \
                    acknowledged went with it, had to be rebuilt; compare with what you know, then reset";
        let unproven = HaltReason { code: JOURNAL_DAMAGED, text: text.to_owned() };
        opened.halt = Some(graver(opened.halt.take(), unproven));
    }
    let db = rebuild(&path, settings, &folded.state)?;
    Ok((db, epoch_seen))
}

fn rebuild(path: &Path, settings: &StoreSettings, state: &State) -> Result<StateDb, StoreError> {
    let failed = |why: String| StoreError::Fatal(super::error::Fatal::Embedded(why));
    let mut db = state_db::open(path, settings.cache_mib).map_err(failed)?.db;
    if state.meta.seq > 0 {
        db.rebuild(state)?;
        let back = db.load().map_err(failed)?;
        if back != *state {
            return Err(failed("what was just rebuilt does not equal the journal's fold".to_owned()));
        }
    }
    Ok(db)
}

/// Applies the records the embedded store lacks and compares it with the fold.
fn catch_up(db: &mut StateDb, mut state: State, folded: &Folded) -> Result<u64, String> {
    let mut touched = Touched::default();
    let mut applied = 0;
    for record in folded.tail.iter().skip_while(|record| record.seq <= state.meta.seq).collect::<Vec<_>>() {
        touched.add(&record.event, &state);
        state.apply(record).map_err(|misfit| misfit.to_string())?;
        applied += 1;
    }
    if state != folded.state {
        return Err("its content does not equal the journal's fold".to_owned());
    }
    if applied > 0 {
        db.commit(&touched, &folded.state).map_err(|error| error.to_string())?;
    }
    Ok(applied)
}

fn describe(folded: &Folded, opened: &mut Opened) {
    let state = &folded.state;
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let resting = |state: &TradeState| matches!(state, TradeState::Acked | TradeState::Partial);
    let recovered = &mut opened.recovered;
    recovered.records = state.meta.seq;
    recovered.positions = count(state.positions.len());
    recovered.resting_orders = count(state.trades.values().filter(|trade| resting(&trade.state)).count());
    let legs = state.plans.values().flat_map(|plan| &plan.legs);
    recovered.planned_legs = count(legs.filter(|leg| leg.state == TradeState::Planned).count());
    recovered.clean = state.meta.clean_stop || state.meta.seq == 0;
    opened.last_logical_time = state.meta.logical_time;
    opened.created = state.meta.seq == 0;
}
