//! From admitted to running (B6): permits, fairness, ageing. Queued is not running.

use super::{Effect, KeyId, RunRequest, Scheduler, key::Phase, rules::TaskRules};
use crate::model::{DegradationLevel, RunId, Ts};

impl Scheduler {
    /// Admits the work of a key; it gets its permit at the end of the step at the earliest.
    pub(super) fn enqueue(&mut self, key: u32, now: Ts) {
        let held = &mut self.keys[key as usize];
        held.phase = Phase::Queued;
        held.work.queued_at = now;
        held.work.queued_class = held.work.class;
        held.work.queued_rank = None;
        held.work.at = now.plus_ms(self.tasks[held.task].start_deadline_ms);
        self.queued += 1;
        self.newly.push(key);
    }

    /// Takes a queued key out of the queue; others are left alone.
    pub(super) fn leave_queue(&mut self, key: u32) {
        let held = &mut self.keys[key as usize];
        if held.phase != Phase::Queued {
            return;
        }
        self.queued -= 1;
        if let Some(rank) = held.work.queued_rank.take() {
            self.queue.remove(held.task, held.work.queued_class, rank, key);
        }
    }

    /// Starts what the limits allow, in the order of fairness.
    pub(super) fn start_permitted(&mut self, now: Ts, effects: &mut Vec<Effect>) {
        if self.newly.is_empty() && self.queue.is_empty() {
            return;
        }
        let mut newly = std::mem::take(&mut self.newly);
        let alone = newly.len() == 1 && self.queue.is_empty();
        newly.retain(|key| {
            let held = &self.keys[*key as usize];
            held.phase == Phase::Queued && held.work.queued_rank.is_none()
        });
        // The usual case needs no queue at all.
        if alone && newly.first().is_some_and(|key| self.has_permit(*key)) {
            newly.drain(..).for_each(|key| self.start(key, now, effects));
        }
        for key in &newly {
            self.put_in_bucket(*key);
        }
        if !self.queue.is_empty() {
            self.age(now);
            while let Some(key) = self.best() {
                self.start(key, now, effects);
            }
        }
        for key in newly.drain(..) {
            self.age_later(key);
            self.touch(key);
        }
        self.newly = newly;
    }

    fn put_in_bucket(&mut self, key: u32) {
        let held = &mut self.keys[key as usize];
        if held.phase == Phase::Queued && held.work.queued_rank.is_none() {
            let rank = self.symbol_started[held.symbol_index];
            held.work.queued_rank = Some(rank);
            self.queue.insert(held.task, held.work.queued_class, rank, key);
        }
    }

    /// When a queued entry rises by one class: after each full ageing time, never above class 1.
    fn rises_at(&self, key: u32) -> Option<Ts> {
        let work = &self.keys[key as usize].work;
        let risen = i64::from(work.class.saturating_sub(work.queued_class));
        (work.queued_class > 1).then(|| work.queued_at.plus_ms((risen + 1) * self.limits.ageing_ms))
    }

    fn age_later(&mut self, key: u32) {
        if self.keys[key as usize].phase == Phase::Queued
            && let Some(at) = self.rises_at(key)
        {
            self.queue.age_at(at, key);
        }
    }

    fn age(&mut self, now: Ts) {
        while let Some((at, key)) = self.queue.pop_aged(now) {
            let held = &self.keys[key as usize];
            // Entries that have left the queue, or belong to an older stay in it, are recognised by their instant.
            if held.phase != Phase::Queued || self.rises_at(key) != Some(at) {
                continue;
            }
            let held = &mut self.keys[key as usize];
            if let Some(rank) = held.work.queued_rank {
                self.queue.remove(held.task, held.work.queued_class, rank, key);
                held.work.queued_class -= 1;
                self.queue.insert(held.task, held.work.queued_class, rank, key);
            }
            self.age_later(key);
        }
    }

    fn permits(&self, task: usize, class: u8) -> bool {
        let rules = &self.tasks[task];
        let general = self.general_used < self.limits.general;
        let reserved = class == 0 && self.reserved_used < self.limits.reserved;
        rules.running < rules.max_parallel && (general || reserved) && self.providers_permit(rules)
    }

    /// Whether each provider a run of the task would ask has a permit left; a run that asks nobody needs none.
    fn providers_permit(&self, rules: &TaskRules) -> bool {
        let free = |provider: &usize| self.provider_used[*provider] < self.limits.per_provider;
        !self.asks(rules) || rules.providers.iter().all(free)
    }

    /// Whether a run of the task that starts now may ask models: the rules answer at EMERGENCY (resilience §2) and when
    /// the models cannot be paid.
    fn asks(&self, rules: &TaskRules) -> bool {
        let allowed = self.gates.level < DegradationLevel::Emergency && !self.gates.unpaid.contains(rules.name);
        !rules.providers.is_empty() && allowed
    }

    fn has_permit(&self, key: u32) -> bool {
        let held = &self.keys[key as usize];
        self.permits(held.task, held.work.queued_class)
    }

    fn best(&self) -> Option<u32> {
        let mut best: Option<(u8, u64, u64, u32)> = None;
        for (class, task) in self.queue.lanes() {
            if best.is_some_and(|(found, ..)| found < class) {
                break;
            }
            let Some((rank, key)) = self.queue.first(task, class).filter(|_| self.permits(task, class)) else {
                continue;
            };
            let candidate = (class, self.tasks[task].last_started, rank, key);
            best = Some(best.map_or(candidate, |found| found.min(candidate)));
        }
        best.map(|(.., key)| key)
    }

    fn start(&mut self, key: u32, now: Ts, effects: &mut Vec<Effect>) {
        self.leave_queue(key);
        self.starts += 1;
        let starts = self.starts;
        let run_key = self.run_key(key);
        let asks = self.asks(&self.tasks[self.keys[key as usize].task]);
        let held = &mut self.keys[key as usize];
        let rules = &mut self.tasks[held.task];
        if asks {
            rules.providers.iter().for_each(|provider| self.provider_used[*provider] += 1);
        }
        rules.running += 1;
        rules.last_started = starts;
        let work = &mut held.work;
        work.asks = asks;
        work.on_reserve = work.class == 0 && self.reserved_used < self.limits.reserved;
        let used = if work.on_reserve { &mut self.reserved_used } else { &mut self.general_used };
        *used += 1;
        held.phase = Phase::Running;
        held.last_started = Some(now);
        held.counts.started += 1;
        work.run_id = RunId { epoch: self.epoch, seq: starts };
        work.started_at = now;
        work.at = now.plus_ms(rules.timeout_ms);
        self.totals.queue_wait.record(now.since_ms(work.queued_at));
        // A retry waits on purpose, and nobody was there to start what fell due while the process slept.
        if work.attempt == 1 && work.due >= self.awake_since {
            self.totals.start_lateness.record(now.since_ms(work.due));
        }
        self.totals.peak_running = self.totals.peak_running.max(self.general_used + self.reserved_used);
        effects.push(Effect::Start(RunRequest {
            id: KeyId(key),
            key: run_key,
            run_id: work.run_id,
            slot: work.slot.clone(),
            due: work.due,
            started_at: now,
            deadline: work.at,
            snapshot_deadline: rules.snapshot_ms.map(|ms| now.plus_ms(ms)),
            attempt: work.attempt,
            interruptions: work.interruptions,
            class: work.class,
            tags: work.tags,
            inputs: work.inputs,
        }));
        let symbol = held.symbol_index;
        self.touch(key);
        self.symbol_started[symbol] = starts;
        if !self.queue.is_empty() {
            self.rank_symbol(symbol);
        }
    }

    /// Moves the other queued keys of a symbol behind those of symbols that started longer ago.
    fn rank_symbol(&mut self, symbol: usize) {
        for at in 0..self.by_symbol[symbol].len() {
            let key = self.by_symbol[symbol][at];
            let held = &mut self.keys[key as usize];
            if held.phase == Phase::Queued
                && let Some(rank) = held.work.queued_rank.take()
            {
                self.queue.remove(held.task, held.work.queued_class, rank, key);
                self.put_in_bucket(key);
            }
        }
    }
}
