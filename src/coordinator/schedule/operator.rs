//! What operators and the coordinator's own state change: forced runs, switches, gates, release, shutdown.

use super::{
    Effect, Gates, Scheduler,
    key::{Phase, Work},
};
use crate::model::{RunKey, SkipReason, SlotId, Symbol, TaskName, Ts};

/// Below this similarity no name is suggested.
const SIMILAR: f64 = 0.5;
/// Names of other programs for the same tasks.
const OTHER_NAMES: [(&str, TaskName); 2] =
    [("ta_analysis", TaskName::TechnicalAnalysis), ("portfolio_check", TaskName::PortfolioRebalance)];

impl Scheduler {
    /// `run_task`: the same admission as a slot, outside the grid (D09).
    pub(super) fn force(&mut self, command_id: String, task: &str, symbol: &str, now: Ts, effects: &mut Vec<Effect>) {
        match self.may_force(task, symbol, now) {
            Err((code, reason)) => effects.push(Effect::ForcedRefused { command_id, code, reason }),
            Ok(key) => {
                effects.push(Effect::ForcedAccepted { command_id: command_id.clone() });
                self.begin_work(key, Work::new(SlotId::Manual(command_id), now, 0), now, effects);
            }
        }
    }

    fn may_force(&self, task: &str, symbol: &str, now: Ts) -> Result<u32, (&'static str, String)> {
        let Some(name) = TaskName::parse(task) else {
            return Err(("unknown", format!("task `{task}` is unknown{}", suggestion(task))));
        };
        let wanted = symbol.parse::<Symbol>().ok().map(|symbol| RunKey { task: name, symbol });
        let Some(key) = wanted.and_then(|key| self.index.get(&key).copied()) else {
            let known: Vec<String> =
                self.index.keys().filter(|key| key.task == name).map(|key| key.symbol.to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(("unknown", format!("symbol `{symbol}` is not one of task {name}: {known}")));
        };
        if self.draining {
            return Err(("stopping", "the program is stopping".into()));
        }
        if let Some(reason) = self.gate(key, now) {
            let why = match reason {
                SkipReason::Disabled => "the task is disabled; enable it first",
                SkipReason::StatePaused => "trading is paused; resume first",
                SkipReason::StateHalted => "the program is halted; reset first",
                SkipReason::Degraded => "the degradation level does not allow it; it ends by itself",
                SkipReason::Budget => "today's budget for it is used up; see `budget` in status",
                _ => "the key is quarantined; release it first",
            };
            return Err((reason.name(), format!("{name} {symbol} cannot run: {why}")));
        }
        if self.keys[key as usize].phase != Phase::Idle {
            return Err(("busy", format!("{name} {symbol} is running or about to run")));
        }
        Ok(key)
    }

    /// State or level changed: what is admitted or waits is judged again, what runs goes on.
    pub(super) fn set_gates(&mut self, gates: Gates, now: Ts, effects: &mut Vec<Effect>) {
        if gates != self.gates {
            self.gates = gates;
            self.judge_all_again(now, effects);
        }
    }

    fn judge_all_again(&mut self, now: Ts, effects: &mut Vec<Effect>) {
        for key in 0..self.keys.len() as u32 {
            match self.keys[key as usize].phase {
                Phase::Waiting => self.todo.push(key),
                Phase::Queued | Phase::Retry => {
                    if let Some(reason) = self.gate(key, now) {
                        self.skip_work(key, reason, effects);
                        self.touch(key);
                    }
                }
                _ => {}
            }
        }
    }

    /// Switches a task; a task off by configuration has no slots, one off by the operator skips them.
    pub(super) fn switch(&mut self, task: TaskName, enabled: Option<bool>, now: Ts, effects: &mut Vec<Effect>) {
        let Some(place) = self.tasks.iter().position(|rules| rules.name == task) else { return };
        self.tasks[place].switch = enabled;
        for key in 0..self.keys.len() as u32 {
            if self.keys[key as usize].task == place {
                self.arm_grid(key, now);
            }
        }
        self.judge_all_again(now, effects);
    }

    /// The operator's release of a quarantined key.
    pub(super) fn release_key(&mut self, key: RunKey, effects: &mut Vec<Effect>) {
        let Some(id) = self.index.get(&key).copied() else { return };
        let change = self.keys[id as usize].quarantine.release();
        self.tell_quarantine(id, change, effects);
        self.wake_dependents(id);
    }

    /// The actor behind a task is gone: its keys go out like keys that failed too often. What runs fails by itself, as its
    /// mailbox is closed. A probe finds out whether a restart of the process has brought the actor back.
    pub(super) fn give_up(&mut self, task: TaskName, now: Ts, effects: &mut Vec<Effect>) {
        for id in 0..self.keys.len() as u32 {
            let held = &mut self.keys[id as usize];
            if self.tasks[held.task].name == task && !held.quarantine.is_out() {
                let change = held.quarantine.given_up(now, &self.limits.quarantine);
                self.tell_quarantine(id, Some(change), effects);
            }
        }
        self.judge_all_again(now, effects);
    }

    /// Shutdown (B12): nothing begins any more, everything running is cancelled, no marker is left.
    pub(super) fn drain(&mut self, now: Ts, effects: &mut Vec<Effect>) {
        self.draining = true;
        for key in 0..self.keys.len() as u32 {
            self.cut_off(key, now, effects);
            self.leave_queue(key);
            self.keys[key as usize].phase = Phase::Idle;
            self.touch(key);
        }
        self.todo.clear();
        self.newly.clear();
    }
}

fn suggestion(text: &str) -> String {
    let other = OTHER_NAMES.iter().find(|(name, _)| *name == text).map(|(_, task)| *task);
    let scored = TaskName::ALL.into_iter().map(|task| (strsim::sorensen_dice(text, task.name()), task));
    let similar = scored.max_by(|a, b| a.0.total_cmp(&b.0)).filter(|(score, _)| *score >= SIMILAR);
    let best = other.or(similar.map(|(_, task)| task));
    best.map(|task| format!("; did you mean {task}?")).unwrap_or_default()
}
