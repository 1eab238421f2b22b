//! Ends of runs: results, deadlines, late results (B7), retries (B4), what success and failure leave behind.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{Effect, ForcedEnd, Inputs, KeyId, Output, RunReport, Scheduler, key::Phase};
use crate::{
    coordinator::quarantine::QuarantineChange,
    model::{FailClass, RunId, RunOutcome, SlotId, Ts},
};

impl Scheduler {
    /// A result came in. Only the running execution of the key may deliver one, and only until its deadline.
    pub(super) fn finished(&mut self, report: RunReport, now: Ts, effects: &mut Vec<Effect>) {
        let key = report.id.0;
        let current = self.keys.get(key as usize).filter(|held| held.work.run_id == report.run_id);
        let phase = current.map_or(Phase::Idle, |held| held.phase);
        let in_time = current.is_some_and(|held| now <= held.work.at);
        match phase {
            Phase::Running if in_time => self.accepted(key, report, now, effects),
            Phase::Running => {
                self.deadline_passed(key, now, effects);
                self.late(&report, effects);
                self.released(key, now, effects);
            }
            Phase::Cancelling => {
                self.late(&report, effects);
                self.released(key, now, effects);
            }
            _ => self.late(&report, effects),
        }
        if phase != Phase::Idle {
            self.touch(key);
        }
    }

    /// The agent's work is gone after a cancellation: the grace is over.
    pub(super) fn cancelled(&mut self, key: KeyId, run_id: RunId, now: Ts, effects: &mut Vec<Effect>) {
        self.abandoned.remove(&run_id);
        let held = self.keys.get(key.0 as usize);
        if held.is_some_and(|held| held.work.run_id == run_id && held.phase == Phase::Cancelling) {
            self.released(key.0, now, effects);
            self.touch(key.0);
        }
    }

    fn late(&mut self, report: &RunReport, effects: &mut Vec<Effect>) {
        self.totals.late_results += 1;
        self.abandoned.remove(&report.run_id);
        effects.push(Effect::LateResult { run_id: report.run_id });
    }

    fn accepted(&mut self, key: u32, report: RunReport, now: Ts, effects: &mut Vec<Effect>) {
        let RunReport { outcome, as_of, run_id, .. } = report;
        self.ended(key, outcome.clone(), now, effects);
        self.return_permit(key);
        let is_good = matches!(outcome, RunOutcome::Succeeded | RunOutcome::Abstained(_));
        if outcome == RunOutcome::Succeeded {
            let output = Output { run_id, as_of, generation: self.generation };
            self.succeeded(key, output, now, effects);
        }
        if !is_good {
            return self.after_failure(key, &outcome, now, effects);
        }
        let change = self.keys[key as usize].quarantine.succeeded();
        self.tell_quarantine(key, change, effects);
        self.work_done(key, outcome, effects);
    }

    /// Counts the end of an attempt and tells it.
    fn ended(&mut self, key: u32, outcome: RunOutcome, now: Ts, effects: &mut Vec<Effect>) {
        let run_key = self.run_key(key);
        let held = &mut self.keys[key as usize];
        held.counts.count(&outcome);
        held.last_finished = Some(now);
        held.last_outcome = Some(outcome.clone());
        self.totals.run_duration.record(now.since_ms(held.work.started_at));
        effects.push(Effect::Ended {
            key: run_key,
            run_id: held.work.run_id,
            slot: held.work.slot.clone(),
            attempt: held.work.attempt,
            outcome,
            started_at: held.work.started_at,
            inputs: held.work.inputs,
            tags: held.work.tags,
        });
    }

    fn return_permit(&mut self, key: u32) {
        let held = &mut self.keys[key as usize];
        let used = if held.work.on_reserve { &mut self.reserved_used } else { &mut self.general_used };
        *used = used.saturating_sub(1);
        let rules = &mut self.tasks[held.task];
        rules.running = rules.running.saturating_sub(1);
        if std::mem::take(&mut held.work.asks) {
            for provider in &rules.providers {
                self.provider_used[*provider] = self.provider_used[*provider].saturating_sub(1);
            }
        }
        held.phase = Phase::Idle;
    }

    fn succeeded(&mut self, key: u32, output: Output, now: Ts, effects: &mut Vec<Effect>) {
        let run_key = self.run_key(key);
        let held = &mut self.keys[key as usize];
        held.latest = Some(output);
        held.last_succeeded = Some(now);
        held.alive_at = now;
        for (place, need) in self.tasks[held.task].dependencies.iter().enumerate() {
            held.consumed[place] = held.work.inputs.of(need.name).map(|input| input.as_of);
        }
        if held.starved {
            held.starved = false;
            held.starve_at = now.plus_ms(self.limits.starvation_factor * self.tasks[held.task].interval_ms);
            effects.push(Effect::Starved { key: run_key, recovered: true });
        }
    }

    /// The work of the key is over for good.
    fn work_done(&mut self, key: u32, outcome: RunOutcome, effects: &mut Vec<Effect>) {
        if let SlotId::Manual(command_id) = &self.keys[key as usize].work.slot {
            effects.push(Effect::ForcedEnded { command_id: command_id.clone(), end: ForcedEnd::Ran(outcome) });
        }
        self.wake_dependents(key);
    }

    /// The deadline of a run passed: it is over, but holds its permit while it is being cancelled.
    pub(super) fn deadline_passed(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        let run_id = self.keys[key as usize].work.run_id;
        effects.push(Effect::Cancel { key: self.run_key(key), run_id });
        self.ended(key, RunOutcome::TimedOut("run".into()), now, effects);
        let held = &mut self.keys[key as usize];
        held.phase = Phase::Cancelling;
        held.work.at = now.plus_ms(self.limits.grace_ms);
    }

    /// A cancelled run is gone or its grace is over: the key and the permit are free.
    pub(super) fn released(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        self.return_permit(key);
        self.after_failure(key, &RunOutcome::TimedOut("run".into()), now, effects);
    }

    fn after_failure(&mut self, key: u32, outcome: &RunOutcome, now: Ts, effects: &mut Vec<Effect>) {
        let class = match outcome {
            RunOutcome::Failed(cause) => cause.class,
            _ => FailClass::Transient,
        };
        if class.is_retryable() && self.retry(key, now, effects) {
            return;
        }
        // Being halted is no fault of the key. Only slots count, and the run that decides about the return: dependents
        // that pull a failing key must not multiply its failures, and what an operator forces is class 0.
        let work = &self.keys[key as usize].work;
        if class != FailClass::Halted && (matches!(work.slot, SlotId::Grid(_)) || work.tags.probe) {
            self.slot_failed(key, now, effects);
        }
        self.work_done(key, outcome.clone(), effects);
    }

    /// Plans another attempt, unless attempts are used up or it would pass the next slot.
    fn retry(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) -> bool {
        let run_key = self.run_key(key);
        let held = &self.keys[key as usize];
        if held.work.attempt >= self.limits.max_attempts || held.work.tags.probe {
            return false;
        }
        let at = now.plus_ms(self.retry_delay_ms(key));
        let held = &mut self.keys[key as usize];
        let next = match held.work.slot {
            SlotId::Grid(n) => held.grid.due(n + 1),
            SlotId::Pull(_) | SlotId::Manual(_) => held.next_due,
        };
        if at >= next {
            return false;
        }
        held.phase = Phase::Retry;
        held.work.attempt += 1;
        held.work.at = at;
        held.work.waited_from = None;
        held.work.inputs = Inputs::default();
        self.totals.retries += 1;
        effects.push(Effect::Retry { key: run_key, slot: held.work.slot.clone(), attempt: held.work.attempt, at });
        true
    }

    /// Uniform in [0, min(cap, interval/4, base · 2^(attempts − 1))], the same for the same store, key, slot, attempt.
    fn retry_delay_ms(&self, key: u32) -> i64 {
        let held = &self.keys[key as usize];
        let doublings = held.work.attempt.saturating_sub(1).min(20);
        let limit = (self.limits.retry_base_ms << doublings)
            .min(self.limits.retry_cap_ms)
            .min(self.tasks[held.task].interval_ms / 4)
            .max(0);
        let name = format!("{}\n{}\n{}", self.run_key(key), held.work.slot, held.work.attempt);
        let mut seed = [0_u8; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&fnv1a(name.as_bytes()).to_le_bytes());
        ChaCha8Rng::from_seed(seed).random_range(0..=limit)
    }

    /// A slot failed for good.
    pub(super) fn slot_failed(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        let change = self.keys[key as usize].quarantine.failed(now, &self.limits.quarantine);
        self.tell_quarantine(key, change, effects);
    }

    pub(super) fn tell_quarantine(&self, key: u32, change: Option<QuarantineChange>, effects: &mut Vec<Effect>) {
        let key = self.run_key(key);
        match change {
            None => {}
            Some(QuarantineChange::Ended) => effects.push(Effect::QuarantineEnded { key }),
            Some(QuarantineChange::Out { until, reason, count }) => {
                effects.push(Effect::Quarantined { key, until, reason, count });
            }
        }
    }

    /// Ends a run at shutdown: its marker goes, its result will be late.
    pub(super) fn cut_off(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        let held = &self.keys[key as usize];
        let (phase, run_id) = (held.phase, held.work.run_id);
        if phase == Phase::Running {
            effects.push(Effect::Cancel { key: self.run_key(key), run_id });
            self.ended(key, RunOutcome::Interrupted, now, effects);
        }
        if matches!(phase, Phase::Running | Phase::Cancelling) {
            self.return_permit(key);
        }
    }
}

/// FNV-1a, 64 bits: a stable hash of the names that seed a generator; not for security.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
