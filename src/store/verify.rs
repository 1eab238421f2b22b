//! The check of a store: the oracle's rules over all records, chain and checksums, checkpoints, and the embedded store
//! against the fold.
//!
//! It changes nothing. A store nobody holds is compared through a copy of its embedded part.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use serde::Serialize;
use tokio::sync::oneshot;

use super::{
    checkpoint, embedded, files,
    frame::{self, NO_LINE},
    journal::segment_name,
    lock::StoreLock,
    oracle::{Ack, Check, Figures, Oracle, Violation, Waiting},
    reader::{self, ReadError, Start},
    recover::{CHECKPOINTS, JOURNAL, STATE},
    state_db::{self, StateDb},
};
use crate::model::State;

/// The result of one check.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct CheckLine {
    /// 1 to 7.
    pub number: u8,
    /// What must hold.
    pub name: &'static str,
    /// Absent when it was not possible to look.
    pub holds: Option<bool>,
    /// What was counted.
    pub facts: String,
}

/// What the check found.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Report {
    /// Records in whole batches.
    pub records: u64,
    /// Segments read.
    pub segments: usize,
    /// Newest boot epoch.
    pub epoch: u32,
    /// Hash of the newest line; empty when the journal could not be read to its end.
    pub head: String,
    /// What of the journal could not be read, for people; everything else is then judged for the records before it alone.
    pub unread: Option<String>,
    /// SHA-256 of the folded state's JSON form.
    pub state_hash: String,
    /// One per check.
    pub checks: Vec<CheckLine>,
    /// Trades that are not terminal, with what they wait for.
    pub waiting: Vec<Waiting>,
    /// What is right or merely worth knowing, one sentence each.
    pub notes: Vec<String>,
    /// What is wrong; empty = the store is sound.
    pub defects: Vec<String>,
    /// What was counted.
    #[serde(skip)]
    pub figures: Figures,
    #[serde(skip)]
    broken: BTreeSet<u8>,
    /// Those of the defects that are about checkpoints.
    #[serde(skip)]
    wrong_checkpoints: Vec<String>,
    /// Where the journal itself cannot be read on.
    #[serde(skip)]
    damage: Option<String>,
    /// The embedded store cannot be read.
    #[serde(skip)]
    unreadable: bool,
}

impl Report {
    /// True when nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.defects.is_empty()
    }

    /// True when this check found nothing wrong; journals of tests that make up trades hold some of them only.
    pub fn holds(&self, check: Check) -> bool {
        !self.broken.contains(&check.number())
    }

    /// True when the one thing wrong is that the embedded store cannot be read: a kill in the middle of its own writing
    /// can do that to it. The journal has everything, and the next start makes it anew.
    pub fn is_rebuilt_by_a_start(&self) -> bool {
        self.unreadable && self.broken.iter().all(|number| *number == Check::Embedded.number())
    }

    /// The report for people, one fact per line.
    pub fn text(&self) -> String {
        let Report { records, segments, epoch, head, state_hash: state, .. } = self;
        let mut lines = match &self.unread {
            None => {
                vec![format!("{records} records in {segments} segments, epoch {epoch}, head {head}, state {state}")]
            }
            Some(unread) => vec![
                format!("ONLY A PART OF THE JOURNAL COULD BE READ: {records} records, epoch {epoch}, state {state}"),
                format!("not read: {unread}"),
                "what follows is judged for the part that was read, as if nothing had been written after it".to_owned(),
            ],
        };
        for CheckLine { number, name, holds, facts } in &self.checks {
            let verdict = match holds {
                Some(true) if self.unread.is_some() => format!("holds up to record {records}"),
                Some(true) => "holds".to_owned(),
                Some(false) => "VIOLATED".to_owned(),
                None => "not compared".to_owned(),
            };
            lines.push(format!("check {number} {name}: {verdict}; {facts}"));
        }
        let shown = |trade: &Waiting| format!("waiting: {} {}, {}", trade.key, trade.state, trade.why);
        lines.extend(self.waiting.iter().map(shown));
        lines.extend(self.notes.iter().map(|note| format!("note: {note}")));
        lines.extend(self.defects.iter().map(|defect| format!("defect: {defect}")));
        for check in Check::ALL.into_iter().filter(|check| self.broken.contains(&check.number())) {
            lines.push(format!("what to do about check {}: {}", check.number(), check.advice()));
        }
        let verdict = match (self.is_sound(), self.is_rebuilt_by_a_start()) {
            (true, _) => "the journal is sound",
            (_, true) => "the journal is sound; the embedded store beside it is damaged and will be made anew",
            _ => "the journal is NOT sound",
        };
        lines.push(verdict.into());
        lines.join("\n") + "\n"
    }

    /// Takes the result of another look at the store in: a note, or a defect.
    pub fn add(&mut self, other: Result<String, String>) {
        match other {
            Ok(note) => self.notes.push(note),
            Err(why) => self.breaks(Check::Chain, format!("recovering twice: {why}")),
        }
    }

    fn breaks(&mut self, check: Check, what: String) {
        self.broken.insert(check.number());
        self.defects.push(what);
    }

    fn finish(&mut self, oracle: &mut Oracle, embedded: (Option<bool>, String)) {
        self.waiting = oracle.waiting();
        for violation in oracle.violations() {
            self.broken.insert(violation.check.number());
            self.defects.push(violation.to_string());
        }
        self.figures = oracle.figures();
        let broken = |check: Check| self.broken.contains(&check.number());
        let line = |check: Check| CheckLine {
            number: check.number(),
            name: check.name(),
            holds: match check {
                Check::Embedded => embedded.0,
                _ if broken(check) => Some(false),
                // Over nothing everything holds; that would say nothing.
                Check::Promises if self.figures.acks == 0 => None,
                _ if self.unread.is_some() && self.records == 0 => None,
                _ => Some(true),
            },
            facts: match check {
                Check::Embedded => embedded.1.clone(),
                Check::Waiting => format!("{} trades wait", self.waiting.len()),
                other => facts(other, &self.figures),
            },
        };
        self.checks = Check::ALL.into_iter().map(line).collect();
    }
}

fn facts(check: Check, counted: &Figures) -> String {
    let Figures { records, boots, trades, intents, fills, settled, steps, .. } = counted;
    let Figures { assets, positions, closed, commands, plans, acks, .. } = counted;
    match check {
        Check::Executions => format!("{trades} keys, {intents} intents, {fills} fills, {settled} settled"),
        Check::Promises if *acks == 0 => {
            format!("no acknowledgements to compare with (`--acks FILE`); {commands} commands answered, {plans} plans")
        }
        Check::Promises => format!("{commands} commands answered, {plans} plans, {acks} acknowledgements compared"),
        Check::Money => format!("{assets} assets, {fills} fills, {positions} open positions, {closed} closed"),
        Check::Ranks => format!("{steps} steps of {trades} trades"),
        _ => format!("{records} records, {boots} boots"),
    }
}

/// Checks the store in `data`, which another process may own.
pub fn check(data: &Path) -> Report {
    check_with(data, &[])
}

/// As [`check`], and everything in `acks` must be there as it was told.
pub fn check_with(data: &Path, acks: &[Ack]) -> Report {
    let source = data.join(STATE);
    if StoreLock::is_held(data) {
        return check_journal(data, acks, Embedded::Absent("the store is in use: its embedded part was not compared"));
    }
    if !source.exists() {
        return check_journal(data, acks, Embedded::Absent("there is no embedded store; the next start builds it"));
    }
    let copy = scratch();
    let loaded = copy_dir(&source, &copy)
        .map_err(|error| format!("it cannot be copied for the comparison: {error}"))
        .and_then(|()| state_db::open(&copy, 64));
    let report = match loaded {
        // The copy is closed before the comparison; what was read of it is compared.
        Ok(loaded) => check_journal(data, acks, Embedded::At(loaded.seq, Box::new(loaded.state))),
        Err(why) => check_journal(data, acks, Embedded::Unreadable(why)),
    };
    let _ = fs::remove_dir_all(&copy);
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
        let mut report = check_journal(&data, &[], Embedded::Absent("it is in use"));
        let checkpoints = std::mem::take(&mut report.wrong_checkpoints);
        let journal = report.damage.into_iter().collect();
        // Nobody waits any more: the process is ending.
        let _ = answer.send(Audit { records: report.records, journal, checkpoints });
    };
    let thread = std::thread::Builder::new().name("journal-audit".to_owned()).spawn(work);
    if let Err(error) = thread {
        tracing::warn!("the journal cannot be verified in the background: {error}");
    }
    receiver
}

/// Checks the store this process owns.
pub(super) fn check_open(data: &Path, db: &StateDb) -> Report {
    match db.load() {
        Ok(held) => check_journal(data, &[], Embedded::At(held.meta.seq, Box::new(held))),
        Err(why) => check_journal(data, &[], Embedded::Unreadable(why)),
    }
}

/// What is known of the embedded store before the journal is read.
enum Embedded {
    Absent(&'static str),
    Unreadable(String),
    At(u64, Box<State>),
}

/// Reads the whole journal: the oracle judges every record, the fold is compared with it whenever money moved.
fn check_journal(data: &Path, acks: &[Ack], embedded: Embedded) -> Report {
    let mut report = Report { head: String::from_utf8_lossy(&NO_LINE).into_owned(), ..Report::default() };
    let (mut oracle, mut state) = (Oracle::new(), State::default());
    let mut marks = checkpoint::list(&data.join(CHECKPOINTS)).unwrap_or_default();
    marks.reverse();
    let (mut wrong_marks, mut compared) = (Vec::new(), 0);
    // What of the embedded store is not as the fold of the same records is.
    let mut differs: Option<Vec<String>> = None;
    let read = reader::read(&data.join(JOURNAL), Start::BEGINNING, &mut |batch| {
        for record in batch.drain(..) {
            let _ = oracle.observe(&record);
            state.apply(&record).map_err(|misfit| misfit.to_string())?;
        }
        if oracle.money_moved() {
            let _ = oracle.compare(&state);
        }
        match &embedded {
            Embedded::At(seq, held) if *seq == state.meta.seq => differs = Some(embedded::differences(held, &state)),
            _ => {}
        }
        while marks.last().is_some_and(|mark| *mark <= state.meta.seq) {
            let Some(mark) = marks.pop() else { break };
            match checkpoint::read(&data.join(CHECKPOINTS), mark) {
                Ok(found) if found.state == state => compared += 1,
                Ok(_) => wrong_marks.push(format!("checkpoint {mark} does not equal the fold of the records up to it")),
                // Pruned by its owner since the list was made.
                Err(_) if !checkpoint::exists(&data.join(CHECKPOINTS), mark) => {}
                Err(why) => wrong_marks.push(format!("checkpoint {mark}: {why}")),
            }
        }
        Ok(())
    });
    let _ = oracle.compare(&state);
    if compared > 0 {
        let text = "each holds the very state its records lead to (a start reads on from the newest)";
        report.notes.push(format!("checkpoints: {compared} compared, {text}"));
    }
    let whole = match read {
        Ok(end) => {
            report.segments = end.segments;
            report.head = String::from_utf8_lossy(&end.prev).into_owned();
            if let Some((bytes, why)) = end.torn {
                report.notes.push(format!("a torn tail of {bytes} bytes ({why}); the next start cuts it off"));
            }
            true
        }
        Err(error) => {
            report.head.clear();
            report.unread = Some(unread(&data.join(JOURNAL), &error, state.meta.seq));
            let what = match error {
                ReadError::Damage(damage) => damage.to_string(),
                ReadError::Refused(error) => error.to_string(),
            };
            report.damage = Some(what.clone());
            report.breaks(Check::Chain, what);
            false
        }
    };
    for mark in marks {
        if whole {
            wrong_marks.push(format!("checkpoint {mark} is of a record the journal does not hold"));
        } else {
            report.notes.push(format!("checkpoint {mark} is of a record that could not be read; it was not compared"));
        }
    }
    report.wrong_checkpoints.clone_from(&wrong_marks);
    wrong_marks.into_iter().for_each(|what| report.breaks(Check::Chain, what));
    report.records = state.meta.seq;
    report.epoch = state.meta.epoch;
    report.state_hash = checkpoint::state_hash(&state);
    // Behind a damaged place everything is missing; the damage is the thing to tell.
    if whole {
        acks.iter().for_each(|ack| drop(oracle.expect(ack)));
        lines_as_shown(&data.join(JOURNAL), acks).into_iter().for_each(|what| report.breaks(Check::Promises, what));
    }
    let embedded = judge(embedded, differs, &state, whole, &mut report);
    report.finish(&mut oracle, embedded);
    report
}

fn judge(
    embedded: Embedded,
    differs: Option<Vec<String>>,
    state: &State,
    whole: bool,
    report: &mut Report,
) -> (Option<bool>, String) {
    let wrong = match (embedded, differs) {
        (Embedded::Absent(why), _) => return (None, why.to_owned()),
        (Embedded::Unreadable(why), _) => {
            report.unreadable = true;
            vec![why]
        }
        // What lies beyond a damaged place cannot be compared.
        (Embedded::At(seq, _), None) if !whole => return (None, format!("it is at record {seq}, beyond the damage")),
        (Embedded::At(0, held), None) if *held == State::default() => Vec::new(),
        (Embedded::At(seq, _), None) if seq > state.meta.seq => {
            vec![format!("it is at record {seq}, the journal ends at {}", state.meta.seq)]
        }
        (Embedded::At(seq, _), None) => vec![format!("it is at record {seq}, in the middle of a batch")],
        (Embedded::At(seq, held), Some(wrong)) if wrong.is_empty() => {
            let behind = match state.meta.seq - seq {
                0 => String::new(),
                behind => format!(", {behind} records behind the journal; the next start applies them"),
            };
            let rows = embedded::rows(&held);
            return (Some(true), format!("it equals the fold: {rows} objects in {} trees{behind}", embedded::TREES));
        }
        (Embedded::At(seq, _), Some(wrong)) => wrong.into_iter().map(|w| format!("at record {seq}: {w}")).collect(),
    };
    if wrong.is_empty() {
        return (Some(true), "it is empty; the next start builds it".to_owned());
    }
    let facts = wrong.join("; ");
    for what in wrong {
        report.breaks(Check::Embedded, format!("embedded store: {what}; the next start rebuilds it"));
    }
    (Some(false), facts)
}

/// What a person should know of the part that could not be read.
fn unread(dir: &Path, error: &ReadError, read: u64) -> String {
    let place = match error {
        ReadError::Damage(damage) => format!("journal/{} from line {} on", damage.segment, damage.line),
        ReadError::Refused(error) => error.to_string(),
    };
    let (mut intact, mut last, mut scratch) = (0, 0, Vec::new());
    each_line(dir, &mut |line| {
        if let Ok((record, _)) = frame::decode(line, &mut scratch)
            && record.seq > read
        {
            (intact, last) = (intact + 1, last.max(record.seq));
        }
    });
    match intact {
        0 => format!("{place}; no intact record is behind it"),
        _ => format!("{place}; intact records behind it: {intact}, the last has number {last}; none of them counts"),
    }
}

/// Hands every whole line of every segment to `each`, without its newline; what cannot be read is left out.
fn each_line(dir: &Path, each: &mut dyn FnMut(&[u8])) {
    for first in reader::segments(dir).unwrap_or_default() {
        let Ok(file) = File::open(dir.join(segment_name(first))) else { continue };
        let (mut input, mut line) = (BufReader::with_capacity(1 << 18, file), Vec::new());
        while matches!(input.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            if line.pop() == Some(b'\n') {
                each(&line);
            }
            line.clear();
        }
    }
}

/// Records that were shown with their hash must still be the same lines.
fn lines_as_shown(dir: &Path, acks: &[Ack]) -> Vec<String> {
    let shown = acks.iter().filter_map(|ack| match ack {
        Ack::Record { seq, hash } => Some((*seq, hash.as_str())),
        _ => None,
    });
    let wanted: BTreeMap<u64, &str> = shown.collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    each_line(dir, &mut |line| {
        if let Some(seq) = frame::peek_seq(line)
            && let Some(hash) = wanted.get(&seq)
            && frame::line_hash(line) != *hash.as_bytes()
        {
            let has = String::from_utf8_lossy(&frame::line_hash(line)).into_owned();
            let what = format!("it was shown with the hash {hash}, the journal holds {has}");
            wrong.push(Violation { check: Check::Promises, seq, what }.to_string());
        }
    });
    wrong
}

/// A directory of its own for a copy.
pub(super) fn scratch() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let copy = std::env::temp_dir().join(format!("store-check-{}-{number}", std::process::id()));
    let _ = fs::remove_dir_all(&copy);
    copy
}

/// Copies a directory with all below it; opening an embedded store writes to it, so a copy is opened.
pub(super) fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
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
