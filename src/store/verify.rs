//! The independent check of a store: chain, checksums, gaps, order, batches, fold, checkpoints, embedded store.
//!
//! It changes nothing. A store nobody holds is compared through a copy of its embedded part.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use tokio::sync::oneshot;

use super::{
    checkpoint, files,
    frame::NO_LINE,
    lock::StoreLock,
    reader::{self, ReadError, Start},
    recover::{CHECKPOINTS, JOURNAL, STATE},
    state_db::{self, StateDb},
};
use crate::model::{State, Ts};

/// What the check found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Report {
    /// Records in whole batches.
    pub records: u64,
    /// Segments read.
    pub segments: usize,
    /// Newest boot epoch.
    pub epoch: u32,
    /// Hash of the newest line.
    pub head: String,
    /// SHA-256 of the folded state's JSON form.
    pub state_hash: String,
    /// What is right or merely worth knowing, one sentence each.
    pub notes: Vec<String>,
    /// What is wrong; empty = the store is sound.
    pub defects: Vec<String>,
}

impl Report {
    /// True when nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty()
    }

    /// The report for people, one fact per line.
    pub fn text(&self) -> String {
        let mut lines = vec![format!(
            "{} records in {} segments, epoch {}, head {}, state {}",
            self.records, self.segments, self.epoch, self.head, self.state_hash
        )];
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.extend(self.defects.iter().map(|defect| format!("defect: {defect}")));
        lines.push(if self.is_sound() { "the journal is sound".into() } else { "the journal is NOT sound".into() });
        lines.join("\n") + "\n"
    }
}

/// Checks the store in `data`, which another process may own.
pub fn check(data: &Path) -> Report {
    let (mut report, state) = check_journal(data);
    let Some(state) = state else { return report };
    let source = data.join(STATE);
    if StoreLock::is_held(data) {
        report.notes.push("the store is in use: its embedded part was not compared".into());
    } else if !source.exists() {
        report.notes.push("there is no embedded store; the next start builds it".into());
    } else {
        match compare_copy(&source, &state) {
            Ok(note) => report.notes.push(note),
            Err(why) => report.defects.push(format!("embedded store: {why}")),
        }
    }
    report
}

/// What a check of the files beside a running store found.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Records of the whole journal.
    pub records: u64,
    /// What is wrong with the journal; not empty = nothing built on it can be trusted.
    pub journal: Vec<String>,
    /// What is wrong with checkpoints; a start skips them.
    pub checkpoints: Vec<String>,
}

/// Checks the whole journal and the checkpoints in `data` on a thread of its own, while their owner goes on writing. No
/// answer comes when the thread cannot be made or panics.
pub fn audit(data: PathBuf) -> oneshot::Receiver<Audit> {
    let (answer, receiver) = oneshot::channel();
    let work = move || {
        let (report, _, checkpoints) = read_journal(&data);
        // Nobody waits any more: the process is ending.
        let _ = answer.send(Audit { records: report.records, journal: report.defects, checkpoints });
    };
    let thread = std::thread::Builder::new().name("journal-audit".to_owned()).spawn(work);
    if let Err(error) = thread {
        tracing::warn!("the journal cannot be verified in the background: {error}");
    }
    receiver
}

/// Checks the store this process owns.
pub(super) fn check_open(data: &Path, db: &StateDb) -> Report {
    let (mut report, state) = check_journal(data);
    let Some(state) = state else { return report };
    match db.load() {
        Ok(held) if held == state => report.notes.push("the embedded store equals the fold".into()),
        Ok(_) => report.defects.push("embedded store: its content does not equal the fold".into()),
        Err(why) => report.defects.push(format!("embedded store: {why}")),
    }
    report
}

/// Reads the whole journal; the folded state is given only when nothing is wrong.
fn check_journal(data: &Path) -> (Report, Option<State>) {
    let (mut report, state, checkpoints) = read_journal(data);
    report.defects.extend(checkpoints);
    let sound = report.is_sound();
    (report, sound.then_some(state))
}

/// Reads the whole journal: the report without the checkpoints, the fold, and what is wrong with checkpoints.
fn read_journal(data: &Path) -> (Report, State, Vec<String>) {
    let mut report = Report { head: String::from_utf8_lossy(&NO_LINE).into_owned(), ..Report::default() };
    let mut state = State::default();
    let mut marks = checkpoint::list(&data.join(CHECKPOINTS)).unwrap_or_default();
    marks.reverse();
    let mut order = (Ts(i64::MIN), 0);
    let (mut defects, mut wrong) = (Vec::new(), Vec::new());
    let mut compared = 0;
    let read = reader::read(&data.join(JOURNAL), Start::BEGINNING, &mut |batch| {
        for record in batch.drain(..) {
            if (record.ts, record.epoch) < order && (record.ts < order.0 || record.epoch < order.1) {
                defects.push(format!("record {} is older in time or epoch than the one before it", record.seq));
            }
            order = (record.ts, record.epoch);
            state.apply(&record).map_err(|misfit| misfit.to_string())?;
        }
        while marks.last().is_some_and(|mark| *mark <= state.meta.seq) {
            let Some(mark) = marks.pop() else { break };
            match checkpoint::read(&data.join(CHECKPOINTS), mark) {
                Ok(found) if found.state == state => compared += 1,
                Ok(_) => wrong.push(format!("checkpoint {mark} does not equal the fold of the records up to it")),
                // Pruned by its owner since the list was made.
                Err(_) if !checkpoint::exists(&data.join(CHECKPOINTS), mark) => {}
                Err(why) => wrong.push(format!("checkpoint {mark}: {why}")),
            }
        }
        Ok(())
    });
    wrong.extend(marks.iter().map(|mark| format!("checkpoint {mark} is of a record the journal does not hold")));
    report.defects = defects;
    report.records = state.meta.seq;
    report.epoch = state.meta.epoch;
    report.notes.push(format!("{compared} checkpoints equal the fold"));
    match read {
        Ok(end) => {
            report.segments = end.segments;
            report.head = String::from_utf8_lossy(&end.prev).into_owned();
            if let Some((bytes, why)) = end.torn {
                report.notes.push(format!("a torn tail of {bytes} bytes ({why}); the next start cuts it off"));
            }
        }
        Err(ReadError::Damage(damage)) => report.defects.insert(0, damage.to_string()),
        Err(ReadError::Refused(error)) => report.defects.insert(0, error.to_string()),
    }
    report.state_hash = checkpoint::state_hash(&state);
    (report, state, wrong)
}

/// Opening the embedded store writes to it, so a copy is opened.
fn compare_copy(source: &Path, state: &State) -> Result<String, String> {
    let words = |error: std::io::Error| format!("it cannot be copied for the comparison: {error}");
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let copy = std::env::temp_dir().join(format!("store-check-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&copy);
    let compared = copy_dir(source, &copy).map_err(words).and_then(|()| {
        let loaded = state_db::open(&copy, 64)?;
        if loaded.seq < state.meta.seq {
            return Ok(format!("the embedded store is {} records behind", state.meta.seq - loaded.seq));
        }
        if loaded.state == *state {
            return Ok("the embedded store equals the fold".to_owned());
        }
        Err(format!("at record {} its content does not equal the fold; the next start rebuilds it", loaded.seq))
    });
    let _ = fs::remove_dir_all(&copy);
    compared
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(files::DIR_MODE).create(to)?;
    for name in files::names(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if fs::metadata(&source)?.is_dir() {
            copy_dir(&source, &target)?;
        } else {
            fs::copy(&source, &target)?;
        }
    }
    Ok(())
}
