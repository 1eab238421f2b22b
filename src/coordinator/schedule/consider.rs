//! May this slot run now: the gate (§3, B9) and the freshness of its dependencies (B5). Starts nothing itself.

use super::{
    Effect, InputRef, Inputs, RunTags, Scheduler,
    grid::NEVER,
    key::{Phase, Work},
};
use crate::{
    coordinator::quarantine::Admission,
    model::{CoordinatorState, DegradationLevel, SkipReason, SlotId, TaskName, Ts},
    settings::sections::OnStale,
};

/// Verdict on one dependency.
enum Freshness {
    /// Use it.
    Fresh(InputRef),
    /// Off or not configured, and not required.
    Absent,
    /// Good, but a run of the same instant has not ended.
    OrderOnly(InputRef),
    /// Not usable.
    Not(SkipReason),
}

/// What all dependencies together allow.
struct Verdict {
    inputs: Inputs,
    superseded: bool,
    /// Earliest end of a wait that is still running; [`NEVER`] = none.
    park_until: Ts,
    /// The first required dependency whose wait is over.
    failed: Option<(TaskName, SkipReason)>,
}

impl Scheduler {
    /// Off because of the degradation level (resilience §2).
    pub(super) fn is_degraded_off(&self, task: TaskName) -> bool {
        match task {
            TaskName::SentimentAnalysis | TaskName::PortfolioRebalance => self.gates.level >= DegradationLevel::Reduced,
            TaskName::TradingDecision => self.gates.level >= DegradationLevel::Emergency,
            TaskName::TechnicalAnalysis | TaskName::RegimeDetection => false,
        }
    }

    /// Off because nobody can be paid for it: a task with rules goes on by them, a mood has none (scheduling §6).
    pub(super) fn is_unpaid_off(&self, task: TaskName) -> bool {
        task == TaskName::SentimentAnalysis && self.gates.unpaid.contains(task)
    }

    /// Why nothing of this key may run now.
    pub(super) fn gate(&self, key: u32, now: Ts) -> Option<SkipReason> {
        let held = &self.keys[key as usize];
        let rules = &self.tasks[held.task];
        if !rules.is_on() {
            return Some(SkipReason::Disabled);
        }
        match self.gates.state {
            CoordinatorState::Paused if rules.trades() => return Some(SkipReason::StatePaused),
            CoordinatorState::Halted if rules.trades() || !self.limits.analysis_while_halted => {
                return Some(SkipReason::StateHalted);
            }
            _ => {}
        }
        if self.is_degraded_off(rules.name) {
            return Some(SkipReason::Degraded);
        }
        if self.is_unpaid_off(rules.name) {
            return Some(SkipReason::Budget);
        }
        (held.quarantine.admission(now) == Admission::Out).then_some(SkipReason::Quarantined)
    }

    /// Admits, parks or skips the work of a key that is not running.
    pub(super) fn consider(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        if let Some(reason) = self.gate(key, now) {
            return self.skip_work(key, reason, effects);
        }
        let held = &mut self.keys[key as usize];
        let probe = held.quarantine.admission(now) == Admission::Probe;
        held.phase = Phase::Waiting;
        held.work.at = NEVER;
        held.work.tags = RunTags { probe, ..RunTags::default() };
        if held.needs.is_empty() {
            return self.enqueue(key, now);
        }
        let waited_from = *held.work.waited_from.get_or_insert(now);
        let mut verdict = self.judge(key, waited_from, now, effects);
        if verdict.failed.is_none() && verdict.park_until == NEVER {
            self.judge_skew(key, waited_from, now, &mut verdict, effects);
        }
        if let Some((dependency, reason)) = verdict.failed {
            return self.blocked(key, dependency, reason, now, effects);
        }
        if verdict.park_until < NEVER {
            self.keys[key as usize].work.at = verdict.park_until;
            return;
        }
        let run_key = self.run_key(key);
        let held = &mut self.keys[key as usize];
        held.work.inputs = verdict.inputs;
        held.work.tags.superseded_input = verdict.superseded;
        if held.blocked.take().is_some() {
            effects.push(Effect::Unblocked { key: run_key });
        }
        self.enqueue(key, now);
    }

    fn judge(&mut self, key: u32, waited_from: Ts, now: Ts, effects: &mut Vec<Effect>) -> Verdict {
        let mut verdict = Verdict { inputs: Inputs::default(), superseded: false, park_until: NEVER, failed: None };
        let task = self.keys[key as usize].task;
        for place in 0..self.tasks[task].dependencies.len() {
            let freshness = self.freshness(key, place, now);
            let dependency = &self.tasks[task].dependencies[place];
            let until = waited_from.plus_ms(dependency.wait_ms);
            match freshness {
                Freshness::Fresh(input) => verdict.inputs.set(place, input),
                Freshness::Absent => {}
                _ if now < until => verdict.park_until = verdict.park_until.min(until),
                Freshness::OrderOnly(input) => {
                    verdict.superseded = true;
                    verdict.inputs.set(place, input);
                }
                Freshness::Not(reason) if dependency.required => {
                    // Nothing can save the slot: no pull is worth its cost.
                    verdict.failed = Some((dependency.name, reason));
                    return verdict;
                }
                // Not required and its wait is over: the run goes on without it.
                Freshness::Not(_) => {}
            }
        }
        for place in 0..self.tasks[task].dependencies.len() {
            let waits = now < waited_from.plus_ms(self.tasks[task].dependencies[place].wait_ms);
            if waits && matches!(self.freshness(key, place, now), Freshness::Not(_)) {
                self.pull(key, place, now, effects);
            }
        }
        verdict
    }

    fn freshness(&self, key: u32, place: usize, now: Ts) -> Freshness {
        let held = &self.keys[key as usize];
        let dependency = &self.tasks[held.task].dependencies[place];
        let rules = &self.tasks[dependency.task];
        let source = held.needs[place].filter(|_| rules.is_on());
        let Some(source) = source.map(|id| &self.keys[id as usize]) else {
            let absent = !dependency.required;
            return if absent { Freshness::Absent } else { Freshness::Not(SkipReason::DepUnavailable) };
        };
        if self.is_degraded_off(rules.name) {
            return Freshness::Absent;
        }
        // Nothing newer will come while there is no money: who can do without does not wait for it.
        let in_vain = !dependency.required && self.is_unpaid_off(rules.name) && source.phase == Phase::Idle;
        let not = |reason| match source.quarantine.is_out() {
            _ if in_vain => Freshness::Absent,
            true => Freshness::Not(SkipReason::DepUnavailable),
            false => Freshness::Not(reason),
        };
        let (Some(output), Some(input)) = (source.latest, source.as_input(rules.name)) else {
            return not(SkipReason::DepNeverRan);
        };
        if output.generation != self.generation || now.since_ms(output.as_of) > dependency.max_age_ms {
            return not(SkipReason::DepStale);
        }
        if dependency.require_new && held.consumed[place].is_some_and(|consumed| output.as_of <= consumed) {
            return not(SkipReason::DepNotNew);
        }
        if source.phase != Phase::Idle && source.work.due <= held.work.due {
            return Freshness::OrderOnly(input);
        }
        Freshness::Fresh(input)
    }

    /// Inputs that differ too much in time: the older one is pulled and waited for.
    fn judge_skew(&mut self, key: u32, waited_from: Ts, now: Ts, verdict: &mut Verdict, effects: &mut Vec<Effect>) {
        let rules = &self.tasks[self.keys[key as usize].task];
        let mut older = None;
        for (a, one) in rules.dependencies.iter().enumerate() {
            for other in rules.dependencies.iter().skip(a + 1) {
                let (Some(x), Some(y)) = (verdict.inputs.of(one.name), verdict.inputs.of(other.name)) else { continue };
                let limit = match rules.max_skew_ms {
                    0 => 2 * self.tasks[one.task].interval_ms.max(self.tasks[other.task].interval_ms),
                    set => set,
                };
                if x.as_of.since_ms(y.as_of).abs() > limit {
                    older = Some(if x.as_of < y.as_of { one.name } else { other.name });
                }
            }
        }
        let Some(older) = older else { return };
        let Some(place) = rules.dependencies.iter().position(|d| d.name == older) else { return };
        let until = waited_from.plus_ms(rules.dependencies[place].wait_ms);
        self.pull(key, place, now, effects);
        if now < until {
            verdict.park_until = until;
        } else {
            verdict.failed = Some((older, SkipReason::DepSkew));
        }
    }

    /// Requests a run of an idle dependency, once per slot of the dependent.
    fn pull(&mut self, key: u32, place: usize, now: Ts, effects: &mut Vec<Effect>) {
        let bit = 1_u8 << place;
        let Some(source) = self.keys[key as usize].needs[place] else { return };
        let held = &self.keys[source as usize];
        let idle = held.phase == Phase::Idle;
        if self.keys[key as usize].work.pulled & bit != 0 || !idle || self.gate(source, now).is_some() {
            return;
        }
        self.keys[key as usize].work.pulled |= bit;
        self.totals.pulls += 1;
        let by = self.run_key(key);
        let held = &self.keys[source as usize];
        let (n, class) = (held.grid.slot(now), self.tasks[held.task].class);
        let (slot, due) = if n > held.last_slot {
            let due = held.grid.due(n);
            self.claim(source, n, effects);
            (SlotId::Grid(n), due)
        } else {
            (SlotId::Pull(format!("{by} {}", self.keys[key as usize].work.slot)), now)
        };
        effects.push(Effect::Pulled { key: self.run_key(source), by, slot: slot.clone() });
        self.begin_work(source, Work::new(slot, due, class), now, effects);
    }

    /// The wait for a required dependency is over.
    fn blocked(&mut self, key: u32, by: TaskName, reason: SkipReason, now: Ts, effects: &mut Vec<Effect>) {
        let run_key = self.run_key(key);
        let held = &mut self.keys[key as usize];
        if held.blocked.replace((by, reason)) != Some((by, reason)) {
            effects.push(Effect::Blocked { key: run_key, dependency: by, reason });
        }
        match self.tasks[held.task].on_stale {
            OnStale::Skip => self.skip_work(key, reason, effects),
            OnStale::Fail => {
                self.skip_work(key, reason, effects);
                self.slot_failed(key, now, effects);
            }
            OnStale::RunStale => {
                held.work.tags.stale = true;
                self.use_what_there_is(key);
                self.enqueue(key, now);
            }
        }
    }

    /// Inputs of a stale run: the newest outputs of the present settings, however old.
    fn use_what_there_is(&mut self, key: u32) {
        let held = &self.keys[key as usize];
        let mut inputs = Inputs::default();
        for (place, dependency) in self.tasks[held.task].dependencies.iter().enumerate() {
            let source = held.needs[place].map(|id| &self.keys[id as usize]);
            let current = source.filter(|s| s.latest.is_some_and(|o| o.generation == self.generation));
            if let Some(input) = current.and_then(|s| s.as_input(dependency.name)) {
                inputs.set(place, input);
            }
        }
        self.keys[key as usize].work.inputs = inputs;
    }
}
