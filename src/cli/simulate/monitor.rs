//! Watches the journal while it grows: hands every durable record to the invariants, keeps the newest lines, and stops
//! the run at the first violation or at the record it was asked to stop at.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{danger::AfterCommit, invariants::Invariants, plan::Until};
use crate::{
    model::{Record, State},
    store::{
        memory_disk::MemoryDisk,
        reader::{self, Start},
    },
};

/// Lines of the journal shown with a violation.
const TAIL: usize = 20;

/// Something that must not be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// What, for people.
    pub what: String,
    /// The newest record when it showed.
    pub seq: u64,
    /// The process it showed in, counted from 1.
    pub life: u32,
    /// It showed at the start of that process, so no record ends the run before it.
    pub at_start: bool,
    /// The newest lines of the journal.
    pub tail: Vec<String>,
}

/// Changes a record before the invariants see it; what a test plants.
pub type Plant = fn(&mut Record);

/// Shared between the store's tap and the driver, on one thread.
#[derive(Clone)]
pub struct Monitor(Arc<Mutex<Inner>>);

struct Inner {
    disk: MemoryDisk,
    until: Option<Until>,
    plant: Option<Plant>,
    wake: fn(),
    invariants: Invariants,
    /// Where the newest seen record ends.
    start: Start,
    tail: VecDeque<Arc<[Record]>>,
    life: u32,
    starting: bool,
    /// The process ends after this commit; counted down.
    after_commit: Option<AfterCommit>,
    stopped: bool,
    violation: Option<Violation>,
}

impl Monitor {
    /// `wake` is called when the run has to stop.
    pub fn new(disk: MemoryDisk, until: Option<Until>, plant: Option<Plant>, wake: fn()) -> Monitor {
        Monitor(Arc::new(Mutex::new(Inner {
            disk,
            until,
            plant,
            wake,
            invariants: Invariants::default(),
            start: Start::BEGINNING,
            tail: VecDeque::new(),
            life: 0,
            starting: false,
            after_commit: None,
            stopped: false,
            violation: None,
        })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut Inner) -> T) -> T {
        // A panic while watching is a violation of its own and ends the run; what is held stays readable.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A process starts, and ends after that commit at the latest.
    pub fn begins(&self, life: u32, after_commit: Option<AfterCommit>) {
        self.with(|inner| (inner.life, inner.starting, inner.after_commit) = (life, true, after_commit));
    }

    /// The end that is due now, because its commit has been.
    pub fn due(&self) -> Option<AfterCommit> {
        self.with(|inner| inner.after_commit.filter(|after| after.nth == 0))
    }

    /// Its store is open: the state it recovered must be what was seen.
    pub fn opened(&self, state: &State) {
        self.compare(state);
        self.with(|inner| inner.starting = false);
    }

    /// Takes a durable batch; `start` is where the journal ends with it.
    pub fn take(&self, records: &Arc<[Record]>, start: Start) {
        self.with(|inner| inner.take(records, start));
    }

    /// Compares the state with the events.
    pub fn compare(&self, state: &State) {
        self.with(|inner| {
            if !inner.stopped
                && let Err(what) = inner.invariants.compare(state)
            {
                inner.fail(what);
            }
        });
    }

    /// Reports what others found.
    pub fn fail(&self, what: String) {
        self.with(|inner| inner.fail(what));
    }

    /// True when the run has to end.
    pub fn stopped(&self) -> bool {
        self.with(|inner| inner.stopped)
    }

    /// What was found.
    pub fn violation(&self) -> Option<Violation> {
        self.with(|inner| inner.violation.clone())
    }

    /// Number of the newest record.
    pub fn seq(&self) -> u64 {
        self.with(|inner| inner.invariants.seq())
    }
}

impl Inner {
    fn take(&mut self, records: &Arc<[Record]>, start: Start) {
        let Some(first) = records.first() else { return };
        if self.stopped {
            return;
        }
        if first.seq > self.invariants.seq() + 1 {
            // Durable without having been told: the process died between the sync and the answer.
            self.catch_up();
        } else if first.seq <= self.invariants.seq() {
            let what = format!("record {} is written again: acknowledged records are lost", first.seq);
            self.fail(what);
        } else {
            self.observe(records);
        }
        self.start = start;
        if let Some(after) = self.after_commit.as_mut().filter(|after| after.nth > 0 && after.topic.is_in(records)) {
            after.nth -= 1;
            if after.nth == 0 {
                (self.wake)();
            }
        }
    }

    fn catch_up(&mut self) {
        let mut missed: Vec<Arc<[Record]>> = Vec::new();
        let read = reader::read_in(&self.disk, self.start, &mut |batch| {
            missed.push(batch.drain(..).collect());
            Ok(())
        });
        match read {
            Ok(_) => missed.iter().for_each(|batch| self.observe(batch)),
            Err(error) => self.fail(format!("the journal after record {} cannot be read: {error:?}", self.start.seq)),
        }
    }

    fn observe(&mut self, records: &Arc<[Record]>) {
        self.tail.push_back(Arc::clone(records));
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        for record in records.iter() {
            if self.stopped {
                return;
            }
            let seen = match self.plant {
                None => self.invariants.observe(record),
                Some(plant) => {
                    let mut planted = record.clone();
                    plant(&mut planted);
                    self.invariants.observe(&planted)
                }
            };
            if let Err(what) = seen {
                self.fail(what);
            } else if self.until == Some(Until::Record(record.seq)) {
                self.stop();
            }
        }
    }

    fn fail(&mut self, what: String) {
        if self.violation.is_some() {
            return;
        }
        let seq = self.invariants.seq();
        let lines = self.tail.iter().flat_map(|batch| batch.iter()).filter(|record| record.seq <= seq);
        let lines: Vec<String> = lines.map(|record| serde_json::to_string(record).unwrap_or_default()).collect();
        let tail = lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().to_vec();
        self.violation = Some(Violation { what, seq, life: self.life, at_start: self.starting, tail });
        self.stop();
    }

    fn stop(&mut self) {
        self.stopped = true;
        (self.wake)();
    }
}
