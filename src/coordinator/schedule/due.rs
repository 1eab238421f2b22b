//! Instants that have come: due slots (B1–B3), ends of waits, start deadlines, starvation. Decides nothing about inputs.

use super::{
    Effect, Scheduler,
    grid::NEVER,
    key::{Phase, Work},
};
use crate::model::{SkipReason, SlotId, Ts};

impl Scheduler {
    /// Sets the next slot and the starvation instant of a key, or none while its task is off by configuration.
    pub(super) fn arm_grid(&mut self, key: u32, now: Ts) {
        let held = &mut self.keys[key as usize];
        let rules = &self.tasks[held.task];
        if rules.is_dormant() {
            (held.next_due, held.starve_at) = (NEVER, NEVER);
        } else {
            if held.next_due == NEVER {
                // Slots that passed while the key had none are not elapsed for it; its current one is missed (B3).
                let before = held.grid.unspread_slot(now) - 1;
                held.base_slot += (before - held.last_slot).max(0);
                held.last_slot = held.last_slot.max(before);
                held.alive_at = now;
            }
            held.next_due = held.grid.due(held.last_slot + 1);
            held.starve_at = held.alive_at.plus_ms(self.limits.starvation_factor * rules.interval_ms);
        }
        self.touch(key);
    }

    /// Handles every key whose instant has come, dependencies before dependents.
    pub(super) fn fire(&mut self, now: Ts, effects: &mut Vec<Effect>) {
        let mut fired = std::mem::take(&mut self.fired);
        while let Some((_, key)) = self.timers.first().filter(|(at, _)| *at <= now) {
            self.timers.set(key, NEVER);
            self.keys[key as usize].armed = NEVER;
            fired.push(key);
        }
        if fired.len() > 1 {
            fired.sort_unstable();
        }
        for key in fired.drain(..) {
            self.fire_key(key, now, effects);
            self.touch(key);
        }
        self.fired = fired;
    }

    fn fire_key(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        if self.has_come(key, Phase::Running, now) {
            self.deadline_passed(key, now, effects);
        }
        if self.has_come(key, Phase::Cancelling, now) {
            let run_id = self.keys[key as usize].work.run_id;
            self.abandoned.insert(run_id);
            self.released(key, now, effects);
        }
        if self.keys[key as usize].next_due <= now {
            self.slot_due(key, now, effects);
        }
        if self.has_come(key, Phase::Queued, now) {
            self.skip_work(key, SkipReason::StartDeadline, effects);
        } else if self.has_come(key, Phase::Waiting, now) || self.has_come(key, Phase::Retry, now) {
            self.consider(key, now, effects);
        }
        if self.keys[key as usize].starve_at <= now {
            self.look_for_starvation(key, now, effects);
        }
    }

    fn has_come(&self, key: u32, phase: Phase, now: Ts) -> bool {
        let held = &self.keys[key as usize];
        held.phase == phase && held.work.at <= now
    }

    /// Claims slot `n`; older unclaimed ones are missed.
    pub(super) fn claim(&mut self, key: u32, n: i64, effects: &mut Vec<Effect>) {
        let held = &mut self.keys[key as usize];
        let older = (n - held.last_slot - 1).max(0).unsigned_abs();
        held.counts.missed += older;
        held.counts.claimed += 1;
        held.last_slot = n;
        held.next_due = held.grid.due(n + 1);
        if older > 0 {
            effects.push(Effect::Missed { key: self.run_key(key), count: older });
        }
    }

    fn slot_due(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        let held = &self.keys[key as usize];
        let n = held.grid.slot(now);
        let due = held.grid.due(n);
        let rules = &self.tasks[held.task];
        // A slot handled within one tick is on time, whatever catch-up is configured.
        let late_ms = now.since_ms(due);
        let is_over = late_ms > self.limits.tick_ms && held.grid.unspread_slot(now) > n;
        let too_late = is_over || late_ms > rules.catch_up_ms.max(self.limits.tick_ms);
        let class = rules.class;
        let (phase, is_manual) = (held.phase, held.work.is_manual());
        self.claim(key, n, effects);
        let slot = SlotId::Grid(n);
        match phase {
            Phase::Running | Phase::Cancelling => return self.overlapped(key, slot, effects),
            _ if too_late => return self.count_skip(key, slot, SkipReason::Missed, effects),
            Phase::Idle => {}
            // The forced run does the same work and was asked for by a person: it stays.
            _ if is_manual => return self.count_skip(key, slot, SkipReason::Replaced, effects),
            Phase::Retry | Phase::Waiting | Phase::Queued => self.skip_work(key, SkipReason::Replaced, effects),
        }
        self.keys[key as usize].overlaps = 0;
        self.begin_work(key, Work::new(slot, due, class), now, effects);
    }

    fn overlapped(&mut self, key: u32, slot: SlotId, effects: &mut Vec<Effect>) {
        self.count_skip(key, slot, SkipReason::Running, effects);
        let held = &mut self.keys[key as usize];
        held.overlaps = held.overlaps.saturating_add(1);
        let overlaps = held.overlaps;
        if overlaps == self.limits.overlap_alert_after.saturating_add(1) {
            effects.push(Effect::IntervalTooShort { key: self.run_key(key), overlaps });
        }
    }

    fn look_for_starvation(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        let held = &mut self.keys[key as usize];
        let at = held.alive_at.plus_ms(self.limits.starvation_factor * self.tasks[held.task].interval_ms);
        if at > now {
            // Moved by a success since it was armed.
            held.starve_at = at;
            return;
        }
        held.starve_at = NEVER;
        held.starved = true;
        effects.push(Effect::Starved { key: self.run_key(key), recovered: false });
    }
}
