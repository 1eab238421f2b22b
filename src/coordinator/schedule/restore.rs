//! What a boot gives back to the scheduler: claims, outputs, quarantines, switches, and markers of interrupted runs.

use std::collections::BTreeMap;

use super::{
    Effect, Gates, Output, Scheduler,
    key::{Phase, Work},
};
use crate::{
    coordinator::quarantine::{Past, Quarantine},
    model::{
        InFlightMarker, RecoveredRun, RunKey, SlotId, TaskName, Ts, state::CoordinatorView, state::QuarantineEntry,
    },
    settings::sections::OnCrash,
};

/// What is known of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RestoredKey {
    /// Which.
    pub key: RunKey,
    /// Newest claimed slot.
    pub last_slot: Option<i64>,
    /// Newest accepted success; one of other settings or types is never fresh.
    pub latest: Option<Output>,
    /// Inputs of the last successful run.
    pub consumed: Vec<(TaskName, Ts)>,
    /// Newest success.
    pub last_success: Option<Ts>,
}

/// Everything a boot knows.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Restored {
    /// Journal first, rows kept beside it afterwards: of both, the higher slot counts.
    pub keys: Vec<RestoredKey>,
    /// Markers of older epochs.
    pub markers: Vec<InFlightMarker>,
    /// What went wrong before, kept beside the journal.
    pub pasts: BTreeMap<RunKey, Past>,
    /// Keys that are out.
    pub quarantine: BTreeMap<RunKey, QuarantineEntry>,
    /// Operator switches.
    pub switches: BTreeMap<TaskName, bool>,
    /// State and level.
    pub gates: Gates,
}

impl Restored {
    /// The part the journal knows: money-relevant keys, quarantines and switches. Rows and markers of opinion keys are
    /// appended by the caller.
    pub fn from_view(view: &CoordinatorView, gates: Gates) -> Restored {
        let mut keys: BTreeMap<RunKey, RestoredKey> = BTreeMap::new();
        let blank = |key: &RunKey| RestoredKey {
            key: *key,
            last_slot: None,
            latest: None,
            consumed: Vec::new(),
            last_success: None,
        };
        for (key, slot) in &view.last_slot {
            keys.entry(*key).or_insert_with(|| blank(key)).last_slot = Some(*slot);
        }
        for (key, inputs) in &view.consumed {
            let consumed = inputs.iter().map(|(task, as_of)| (*task, *as_of)).collect();
            keys.entry(*key).or_insert_with(|| blank(key)).consumed = consumed;
        }
        for (key, at) in &view.last_success {
            keys.entry(*key).or_insert_with(|| blank(key)).last_success = Some(*at);
        }
        Restored {
            keys: keys.into_values().collect(),
            markers: view.in_flight.values().cloned().collect(),
            pasts: BTreeMap::new(),
            quarantine: view.quarantine.clone(),
            switches: view.task_switches.clone(),
            gates,
        }
    }
}

impl Scheduler {
    /// Takes over what a boot knows; to be called once, before the first step. Answers every interrupted run with the
    /// policy applied to it, for the one `InFlightRecovered` event.
    pub fn restore(&mut self, now: Ts, restored: Restored, effects: &mut Vec<Effect>) -> Vec<RecoveredRun> {
        self.gates = restored.gates;
        for (task, enabled) in restored.switches {
            for rules in self.tasks.iter_mut().filter(|rules| rules.name == task) {
                rules.switch = Some(enabled);
            }
        }
        for row in restored.keys {
            self.restore_key(row, now);
        }
        let Restored { mut pasts, quarantine, .. } = restored;
        for (key, id) in &self.index {
            let past = pasts.remove(key).unwrap_or_default();
            self.keys[*id as usize].quarantine = Quarantine::restored(quarantine.get(key), past, now);
        }
        let mut recovered = Vec::with_capacity(restored.markers.len());
        let epoch = self.epoch;
        for marker in restored.markers.into_iter().filter(|marker| marker.run_id.epoch < epoch) {
            let policy = self.recover(&marker, now, effects);
            recovered.push(RecoveredRun { marker, policy: policy.to_owned() });
        }
        (0..self.keys.len() as u32).for_each(|key| self.arm_grid(key, now));
        recovered
    }

    fn restore_key(&mut self, row: RestoredKey, now: Ts) {
        let Some(id) = self.index.get(&row.key).copied() else { return };
        if let Some(slot) = row.last_slot {
            self.claimed_before(id, slot, now);
        }
        let held = &mut self.keys[id as usize];
        held.latest = row.latest.or(held.latest);
        held.last_succeeded = row.last_success.max(held.last_succeeded);
        for (place, need) in self.tasks[held.task].dependencies.iter().enumerate() {
            let known = row.consumed.iter().find(|(task, _)| *task == need.name).map(|(_, as_of)| *as_of);
            held.consumed[place] = known.or(held.consumed[place]);
        }
    }

    /// Slots up to `slot` were claimed by an older process. A number beyond the present slot comes from another grid
    /// (the interval was changed): then the present slot counts as claimed, because running it could be a repetition.
    fn claimed_before(&mut self, key: u32, slot: i64, now: Ts) {
        let held = &mut self.keys[key as usize];
        let present = held.grid.slot(now);
        let slot = slot.min(present);
        if held.counts.claimed == 0 {
            held.counts.claimed = 1;
            held.last_slot = slot;
        }
        held.last_slot = held.last_slot.max(slot);
        // The claim itself belongs to the older process.
        held.base_slot = held.last_slot - 1;
    }

    fn recover(&mut self, marker: &InFlightMarker, now: Ts, effects: &mut Vec<Effect>) -> &'static str {
        let Some(id) = self.index.get(&marker.key).copied() else { return "skip" };
        if let SlotId::Grid(slot) = marker.slot {
            self.claimed_before(id, slot, now);
        }
        let crashes = marker.interruptions.saturating_add(1);
        let held = &mut self.keys[id as usize];
        held.counts.started += 1;
        held.counts.interrupted += 1;
        if crashes > self.limits.quarantine.poison_crashes {
            let change = held.quarantine.poisoned(now, &self.limits.quarantine, crashes);
            self.tell_quarantine(id, Some(change), effects);
            return "poison";
        }
        let rules = &self.tasks[held.task];
        match rules.on_crash {
            OnCrash::Alert => "alert",
            OnCrash::Rerun if rules.is_on() => {
                let (due, class) = match &marker.slot {
                    SlotId::Grid(slot) => (held.grid.due(*slot), rules.class),
                    SlotId::Pull(_) => (now, rules.class),
                    SlotId::Manual(_) => (now, 0),
                };
                let mut work = Work::new(marker.slot.clone(), due, class);
                work.attempt = crashes.saturating_add(1);
                work.interruptions = crashes;
                work.at = now;
                held.work = work;
                held.phase = Phase::Retry;
                "rerun"
            }
            OnCrash::Rerun | OnCrash::Skip => "skip",
        }
    }
}
