//! Watches the journal while it grows: hands every durable record to the oracle of the store and to the invariants,
//! remembers what the operator was told, keeps the newest lines, and stops the run at the first violation or at the record
//! it was asked to stop at.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{danger::AfterCommit, invariants::Invariants, plan::Until};
use crate::{
    model::{CommandAnswer, Record, State, Ts, time::HOUR_MS},
    store::{
        memory_disk::MemoryDisk,
        oracle::{self, Ack, Oracle},
        reader::{self, Start},
    },
};

/// Lines of the journal shown with a violation.
const TAIL: usize = 20;
/// An answer told so short a time ago is still known under its key, which is remembered for a day after the command came
/// in; the operator repeats a key within hours.
const FRESH_MS: i64 = 12 * HOUR_MS;

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

/// Changes a record before oracle and invariants see it; what a test plants.
pub type Plant = fn(&mut Record);

/// Shared between the store's tap and the driver, on one thread.
#[derive(Clone)]
pub struct Monitor(Arc<Mutex<Inner>>);

struct Inner {
    disk: MemoryDisk,
    until: Option<Until>,
    plant: Option<Plant>,
    wake: fn(),
    /// Judges as `journal verify` does, record by record.
    oracle: Oracle,
    /// What the oracle leaves out.
    invariants: Invariants,
    /// Number of the newest record that was judged.
    seq: u64,
    /// All the operator was ever told or shown.
    acks: Vec<Ack>,
    /// Answers told by this process, with their time.
    answers: Vec<(Ts, String, CommandAnswer)>,
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
            oracle: Oracle::new(),
            invariants: Invariants::default(),
            seq: 0,
            acks: Vec::new(),
            answers: Vec::new(),
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

    /// Its store is open: the state it recovered must be what was seen, and hold what the operator was told before.
    pub fn opened(&self, state: &State) {
        self.compare(state);
        self.with(|inner| {
            inner.recall(state);
            inner.starting = false;
        });
    }

    /// The operator was told or shown this: it is durable by now, or a promise is broken already.
    pub fn told(&self, ack: Ack) {
        self.with(|inner| {
            if inner.stopped {
                return;
            }
            if let Err(violation) = inner.oracle.expect(&ack) {
                inner.fail(violation.to_string());
            }
            if let Ack::Command { key, answer } = &ack {
                inner.answers.push((inner.oracle.now(), key.clone(), answer.clone()));
            }
            inner.acks.push(ack);
        });
    }

    /// What `status` shows the operator of plans and trades.
    pub fn shown(&self, state: &State) {
        state.plans.keys().for_each(|id| self.told(Ack::Plan { id: *id }));
        for trade in state.trades.values() {
            let name = format!("{:?}", trade.state).to_lowercase();
            self.told(Ack::Trade { key: trade.key, state: Some(name), filled: trade.filled });
        }
    }

    /// Judges the journal as it lies on the disk once more from its first record on, as `journal verify --acks` does: with
    /// everything the operator was ever told. What it folds to; absent when something is wrong.
    pub fn verify(&self) -> Option<State> {
        self.with(|inner| {
            if inner.stopped {
                return None;
            }
            let (mut oracle, mut state) = (Oracle::new(), State::default());
            let read = reader::read_in(&inner.disk.watched(), Start::BEGINNING, &mut |batch| {
                batch.drain(..).try_for_each(|record| {
                    let _ = oracle.observe(&record);
                    state.apply(&record).map_err(|misfit| misfit.to_string())
                })
            });
            if let Err(error) = read {
                inner.fail(format!("the journal cannot be read and folded: {error:?}"));
                return None;
            }
            inner.acks.iter().for_each(|ack| drop(oracle.expect(ack)));
            let _ = oracle.compare(&state);
            oracle.waiting();
            if let Some(violation) = oracle.violations().first() {
                inner.fail(format!("the journal on the disk: {violation}"));
                return None;
            }
            Some(state)
        })
    }

    /// Takes a durable batch; `start` is where the journal ends with it.
    pub fn take(&self, records: &Arc<[Record]>, start: Start) {
        self.with(|inner| inner.take(records, start));
    }

    /// Compares the state with the events, and asks what every waiting trade waits for.
    pub fn compare(&self, state: &State) {
        self.with(|inner| {
            if !inner.stopped
                && let Err(what) = inner.compare(state)
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
        self.with(|inner| inner.seq)
    }
}

impl Inner {
    fn take(&mut self, records: &Arc<[Record]>, start: Start) {
        let Some(first) = records.first() else { return };
        if self.stopped {
            return;
        }
        if first.seq > self.seq + 1 {
            // Durable without having been told: the process died between the sync and the answer.
            self.catch_up();
        } else if first.seq <= self.seq {
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
        let read = reader::read_in(&self.disk.watched(), self.start, &mut |batch| {
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
                None => self.judge(record),
                Some(plant) => {
                    let mut planted = record.clone();
                    plant(&mut planted);
                    self.judge(&planted)
                }
            };
            if let Err(what) = seen {
                self.fail(what);
            } else if self.until == Some(Until::Record(record.seq)) {
                self.stop();
            }
        }
    }

    fn judge(&mut self, record: &Record) -> Result<(), String> {
        self.seq = record.seq;
        self.oracle.observe(record).map_err(|violation| violation.to_string())?;
        self.invariants.observe(record)?;
        if self.oracle.is_between_batches() { self.invariants.after_batch() } else { Ok(()) }
    }

    fn compare(&mut self, state: &State) -> Result<(), String> {
        if state.meta.seq != self.seq {
            return Err(format!("the state is at record {}, {} were seen", state.meta.seq, self.seq));
        }
        let text = |violation: oracle::Violation| violation.to_string();
        self.oracle.compare(state).map_err(text)?;
        self.oracle.waiting();
        self.oracle.violations().first().cloned().map_or(Ok(()), Err).map_err(text)?;
        self.invariants.compare(state)
    }

    /// The recovered state still gives every fresh answer of the process before.
    fn recall(&mut self, state: &State) {
        let told = std::mem::take(&mut self.answers);
        let is_fresh = |at: Ts| state.meta.logical_time.since_ms(at) < FRESH_MS;
        let lost = told.into_iter().filter(|(at, ..)| is_fresh(*at)).find_map(|(_, key, answer)| {
            let known = state.commands.get(&key).and_then(|known| known.answer.as_ref());
            let holds = known == Some(&answer);
            (!holds).then(|| format!("command {key} was answered with {answer:?}, the recovered state says {known:?}"))
        });
        if let Some(what) = lost.filter(|_| !self.stopped) {
            self.fail(what);
        }
    }

    fn fail(&mut self, what: String) {
        if self.violation.is_some() {
            return;
        }
        let seq = self.seq;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{CommandRecord, Event},
        store::journal::Position,
    };

    fn monitor() -> Monitor {
        Monitor::new(MemoryDisk::default(), None, None, || {})
    }

    fn answer() -> CommandAnswer {
        CommandAnswer::Ok { result: serde_json::json!({"state": "PAUSED"}) }
    }

    fn ack() -> Ack {
        Ack::Command { key: "a".into(), answer: answer() }
    }

    /// A store made, a command taken and answered.
    fn taken(monitor: &Monitor) -> State {
        let store = uuid::Uuid::from_u128(1);
        let events = [
            Event::StoreCreated { store, seed: 1, data_kind: "simulated".into() },
            Event::CommandReceived { key: "a".into(), command: crate::model::Command::Resume {}, body_hash: "".into() },
            Event::CommandDone { key: "a".into(), result: serde_json::json!({"state": "PAUSED"}) },
        ];
        let mut state = State::default();
        let record = |(number, event)| Record {
            v: crate::model::event::SCHEMA_VERSION,
            seq: number as u64 + 1,
            epoch: 0,
            ts: Ts(1_700_000_000_000),
            n: (number == 0).then_some(3),
            actor: "test".into(),
            corr: String::new(),
            cause: String::new(),
            event,
        };
        let records: Arc<[Record]> = events.into_iter().enumerate().map(record).collect();
        records.iter().for_each(|record| state.apply(record).unwrap());
        let position = Position { segment: 1, offset: 0 };
        monitor.take(&records, Start { seq: 3, position, ..Start::BEGINNING });
        state
    }

    #[test]
    fn an_answer_that_is_told_before_it_is_durable_is_a_violation() {
        let monitor = monitor();
        monitor.told(ack());
        assert!(monitor.violation().unwrap().what.contains("check 2"), "{:?}", monitor.violation());
    }

    #[test]
    fn an_answer_the_next_process_does_not_know_is_a_violation() {
        for forgets in [false, true] {
            let monitor = monitor();
            let mut state = taken(&monitor);
            monitor.told(ack());
            assert_eq!(monitor.violation(), None);
            if forgets {
                state.commands.values_mut().for_each(|known: &mut CommandRecord| known.answer = None);
            }
            monitor.begins(2, None);
            monitor.opened(&state);
            let found = monitor.violation();
            assert_eq!(found.is_some(), forgets, "{found:?}");
            assert!(found.is_none_or(|found| found.at_start && found.what.contains("the recovered state says None")));
        }
    }

    #[test]
    fn a_state_that_differs_from_what_the_oracle_saw_is_a_violation() {
        let monitor = monitor();
        let mut state = taken(&monitor);
        monitor.compare(&state);
        assert_eq!(monitor.violation(), None);
        let usdt: crate::model::Asset = "USDT".parse().unwrap();
        let free = crate::model::LedgerAccount::Free;
        state.account.ledger.entry(usdt).or_default().insert(free, crate::model::Decimal::ONE);
        monitor.compare(&state);
        assert!(monitor.violation().unwrap().what.contains("check 3"), "{:?}", monitor.violation());
    }
}
