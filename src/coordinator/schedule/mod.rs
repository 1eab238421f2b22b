//! The scheduler: `step(now, input) → effects`, a pure function over per-key state (scheduling B1–B9).
//!
//! It never reads a clock, awaits, or does anything itself: the coordinator feeds it instants and messages and carries
//! out the effects in their order. Ids of keys, tasks and symbols come only from the tables built in `rules`, whose
//! lengths never change afterwards; every index in this module tree is one of them.

mod admit;
mod consider;
mod due;
mod finish;
pub mod grid;
mod key;
mod operator;
mod queue;
mod restore;
mod rules;
pub mod stats;
mod types;

use std::collections::{BTreeMap, BTreeSet};

pub use restore::{Restored, RestoredKey};
pub use rules::{Setup, SetupError};
pub use stats::{KeyCounts, KeyStats, Stats};
pub use types::*;

use self::{
    grid::{NEVER, Timers},
    key::{Key, Phase, Work},
    queue::Queue,
    rules::{Limits, TaskRules},
};
use crate::{
    coordinator::quarantine::Past,
    model::{RunId, RunKey, SkipReason, SlotId, Symbol, TaskName, Ts},
};

/// All keys, limits, the queue and the counters.
pub struct Scheduler {
    now: Ts,
    seed: u64,
    epoch: u32,
    generation: Generation,
    limits: Limits,
    tasks: Vec<TaskRules>,
    keys: Vec<Key>,
    index: BTreeMap<RunKey, u32>,
    /// Keys of each symbol.
    by_symbol: Vec<Vec<u32>>,
    /// Start counter at the newest start of each symbol.
    symbol_started: Vec<u64>,
    timers: Timers,
    queue: Queue,
    gates: Gates,
    draining: bool,
    starts: u64,
    general_used: u32,
    reserved_used: u32,
    /// Runs that may be asking each provider.
    provider_used: Vec<u32>,
    queued: u32,
    /// Waiting keys to look at again in this step.
    todo: Vec<u32>,
    /// Keys admitted in this step.
    newly: Vec<u32>,
    /// Buffer of keys whose instant has come.
    fired: Vec<u32>,
    abandoned: BTreeSet<RunId>,
    totals: stats::Totals,
    /// Slots due before this instant are catch-ups: nobody was there to start them.
    awake_since: Ts,
}

impl Scheduler {
    /// A scheduler that has seen nothing: every key counts as having missed its current slot (B3).
    ///
    /// # Errors
    /// [`SetupError`] when tasks wait for each other in a circle or require what cannot run.
    pub fn new(setup: &Setup, now: Ts) -> Result<Scheduler, SetupError> {
        let layout = rules::layout(setup)?;
        let keys: Vec<Key> = layout.keys.into_iter().map(|place| Key::new(place, now)).collect();
        let mut index = BTreeMap::new();
        let mut by_symbol = vec![Vec::new(); layout.symbols];
        for (id, key) in keys.iter().enumerate() {
            index.insert(RunKey { task: layout.tasks[key.task].name, symbol: key.symbol }, id as u32);
            by_symbol[key.symbol_index].push(id as u32);
        }
        let mut scheduler = Scheduler {
            now,
            seed: setup.seed,
            epoch: setup.epoch,
            generation: setup.generation,
            limits: Limits::new(setup),
            timers: Timers::new(keys.len()),
            queue: Queue::new(layout.tasks.len()),
            tasks: layout.tasks,
            keys,
            index,
            symbol_started: vec![0; by_symbol.len()],
            by_symbol,
            gates: Gates::default(),
            draining: false,
            starts: 0,
            general_used: 0,
            reserved_used: 0,
            provider_used: vec![0; layout.providers],
            queued: 0,
            todo: Vec::new(),
            newly: Vec::new(),
            fired: Vec::new(),
            abandoned: BTreeSet::new(),
            totals: stats::Totals::default(),
            awake_since: now,
        };
        (0..scheduler.keys.len() as u32).for_each(|key| scheduler.arm_grid(key, now));
        Ok(scheduler)
    }

    /// The process was not there before `at` (a forward jump of the clock): a run of an older slot is a catch-up, not a
    /// late start.
    pub fn slept_until(&mut self, at: Ts) {
        self.awake_since = self.awake_since.max(at);
    }

    /// Lets `input` happen and everything fall due that is due at `now`; appends what has to be done. An instant before
    /// the newest one counts as the newest one: logical time never runs backwards (B10).
    pub fn step(&mut self, now: Ts, input: Input, effects: &mut Vec<Effect>) {
        let now = now.max(self.now);
        self.now = now;
        match input {
            Input::Tick => {}
            Input::Finished(report) => self.finished(report, now, effects),
            Input::Cancelled { id, run_id } => self.cancelled(id, run_id, now, effects),
            Input::Gates(gates) => self.set_gates(gates, now, effects),
            Input::Switch { task, enabled } => self.switch(task, enabled, now, effects),
            Input::Force { command_id, task, symbol } => self.force(command_id, &task, &symbol, now, effects),
            Input::Release { key } => self.release_key(key, effects),
            Input::GiveUp { task } => self.give_up(task, now, effects),
            Input::Drain => self.drain(now, effects),
        }
        if self.draining {
            return;
        }
        self.fire(now, effects);
        loop {
            while let Some(key) = self.todo.pop() {
                if self.keys[key as usize].phase == Phase::Waiting {
                    self.consider(key, now, effects);
                    self.touch(key);
                }
            }
            self.start_permitted(now, effects);
            if self.todo.is_empty() {
                return;
            }
        }
    }

    /// The earliest instant at which time alone changes anything; may be spurious, is never late.
    pub fn next_wakeup(&self) -> Option<Ts> {
        if self.draining { None } else { self.timers.first().map(|(at, _)| at) }
    }

    /// The number of a key.
    pub fn key_id(&self, key: RunKey) -> Option<KeyId> {
        self.index.get(&key).copied().map(KeyId)
    }

    /// The newest accepted success of a key.
    pub fn latest(&self, task: TaskName, symbol: Symbol) -> Option<Output> {
        let id = self.index.get(&RunKey { task, symbol })?;
        self.keys[*id as usize].latest
    }

    /// Data instant of the newest accepted success of a key.
    pub fn latest_as_of(&self, task: TaskName, symbol: Symbol) -> Option<Ts> {
        self.latest(task, symbol).map(|output| output.as_of)
    }

    /// Whether a task runs at the present level and switches; what `eligible` counts.
    pub fn is_eligible(&self, task: TaskName) -> bool {
        self.tasks.iter().any(|rules| rules.name == task && rules.is_on() && !self.is_degraded_off(rules.name))
    }

    /// What should be kept of a key beside the journal, so that a restart knows opinions and skipped slots.
    pub fn row(&self, key: RunKey) -> Option<RestoredKey> {
        let id = self.index.get(&key)?;
        let held = &self.keys[*id as usize];
        let needs = self.tasks[held.task].dependencies.iter().zip(held.consumed);
        Some(RestoredKey {
            key,
            last_slot: (held.last_slot > held.base_slot || held.counts.claimed > 0).then_some(held.last_slot),
            latest: held.latest,
            consumed: needs.filter_map(|(need, as_of)| Some((need.name, as_of?))).collect(),
            last_success: held.last_succeeded,
        })
    }

    /// What went wrong with every key so far.
    pub fn pasts(&self) -> impl Iterator<Item = (RunKey, &Past)> {
        (0_u32..).zip(&self.keys).map(|(id, held)| (self.run_key(id), held.quarantine.past()))
    }

    fn run_key(&self, key: u32) -> RunKey {
        let held = &self.keys[key as usize];
        RunKey { task: self.tasks[held.task].name, symbol: held.symbol }
    }

    /// Moves the key's timer to its next instant.
    fn touch(&mut self, key: u32) {
        let held = &mut self.keys[key as usize];
        let at = held.next_instant();
        if at != held.armed {
            held.armed = at;
            self.timers.set(key, at);
        }
    }

    /// Lets waiting dependents look again.
    fn wake_dependents(&mut self, key: u32) {
        for dependent in &self.keys[key as usize].needed_by {
            if self.keys[*dependent as usize].phase == Phase::Waiting {
                self.todo.push(*dependent);
            }
        }
    }

    /// Ends work that has not begun, or whose retry is given up.
    fn skip_work(&mut self, key: u32, reason: SkipReason, effects: &mut Vec<Effect>) {
        self.leave_queue(key);
        let slot = {
            let held = &mut self.keys[key as usize];
            held.phase = Phase::Idle;
            held.work.slot.clone()
        };
        if let SlotId::Manual(command_id) = &slot {
            let end = ForcedEnd::Skipped(reason);
            effects.push(Effect::ForcedEnded { command_id: command_id.clone(), end });
        }
        self.count_skip(key, slot, reason, effects);
        self.wake_dependents(key);
    }

    fn count_skip(&mut self, key: u32, slot: SlotId, reason: SkipReason, effects: &mut Vec<Effect>) {
        self.totals.skipped[reason as usize] += 1;
        self.keys[key as usize].counts.skipped += 1;
        effects.push(Effect::Skip { key: self.run_key(key), slot, reason });
    }

    /// Gives an idle key its next piece of work.
    fn begin_work(&mut self, key: u32, work: Work, now: Ts, effects: &mut Vec<Effect>) {
        self.keys[key as usize].work = work;
        self.consider(key, now, effects);
        self.touch(key);
    }

    /// Counters and gauges of one instant.
    pub fn stats(&self) -> Stats {
        let mut sums = KeyCounts::default();
        let mut oldest_wait_ms = 0;
        let keys: Vec<KeyStats> = (0..self.keys.len() as u32)
            .map(|id| {
                let held = &self.keys[id as usize];
                sums.add(&held.counts);
                if held.phase == Phase::Queued {
                    oldest_wait_ms = oldest_wait_ms.max(self.now.since_ms(held.work.queued_at));
                }
                KeyStats {
                    key: self.run_key(id),
                    counts: held.counts,
                    running: held.phase == Phase::Running,
                    queued: held.phase == Phase::Queued,
                    last_slot: held.last_slot,
                    next_due: Some(held.next_due).filter(|at| *at < NEVER),
                    last_started: held.last_started,
                    last_finished: held.last_finished,
                    last_succeeded: held.last_succeeded,
                    starvation_ms: self.now.since_ms(held.alive_at),
                    quarantined: held.quarantine.is_out(),
                }
            })
            .collect();
        Stats {
            sums,
            totals: self.totals,
            running: self.general_used + self.reserved_used,
            queued: self.queued,
            oldest_wait_ms,
            abandoned: u32::try_from(self.abandoned.len()).unwrap_or(u32::MAX),
            keys,
        }
    }

    /// Checks the identities of §9 and the limits of B6; every build can afford it now and then.
    ///
    /// # Errors
    /// The first broken identity, with its numbers.
    pub fn check(&self) -> Result<(), String> {
        let mut holding = vec![0_u32; self.tasks.len()];
        let mut asking = vec![0_u32; self.provider_used.len()];
        let mut queued = 0;
        for (id, held) in self.keys.iter().enumerate() {
            let name = self.run_key(id as u32);
            let counts = &held.counts;
            let elapsed = held.last_slot - held.base_slot;
            if elapsed != (counts.claimed + counts.missed) as i64 {
                let (claimed, missed) = (counts.claimed, counts.missed);
                return Err(format!("{name}: {elapsed} slots elapsed, but {claimed} claimed and {missed} missed"));
            }
            let running = u64::from(held.phase == Phase::Running);
            if counts.started != counts.ended() + running {
                let (started, ended) = (counts.started, counts.ended());
                return Err(format!("{name}: {started} runs started, but {ended} ended and {running} running"));
            }
            if held.armed != held.next_instant() {
                return Err(format!("{name}: armed for {}, next instant is {}", held.armed, held.next_instant()));
            }
            let holds = matches!(held.phase, Phase::Running | Phase::Cancelling);
            holding[held.task] += u32::from(holds);
            if holds && held.work.asks {
                self.tasks[held.task].providers.iter().for_each(|provider| asking[*provider] += 1);
            }
            queued += u32::from(held.phase == Phase::Queued);
        }
        for (rules, holding) in self.tasks.iter().zip(&holding) {
            if rules.running != *holding || *holding > rules.max_parallel {
                let (name, counted, limit) = (rules.name, rules.running, rules.max_parallel);
                return Err(format!("{name}: {holding} runs hold permits, {counted} counted, limit {limit}"));
            }
        }
        let limit = self.limits.per_provider;
        if asking != self.provider_used || asking.iter().any(|runs| *runs > limit) {
            let counted = &self.provider_used;
            return Err(format!("{asking:?} runs may ask each provider, {counted:?} counted, limit {limit}"));
        }
        let total: u32 = holding.iter().sum();
        let (general, reserved) = (self.general_used, self.reserved_used);
        if total != general + reserved || general > self.limits.general || reserved > self.limits.reserved {
            return Err(format!(
                "{total} runs hold permits, but {general} general and {reserved} reserved are counted"
            ));
        }
        if queued != self.queued {
            return Err(format!("{queued} keys are queued, {} counted", self.queued));
        }
        Ok(())
    }
}

#[cfg(test)]
mod check_tests;
