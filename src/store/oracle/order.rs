//! Check 6 as far as records show it: numbers without gaps, boots that only rise, time that never runs back.

use super::{Check, Figures, Found};
use crate::model::{Event, Record, Ts};

/// Where the journal stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    last: u64,
    epoch: u32,
    now: Option<Ts>,
    boots: u64,
}

impl Order {
    pub(super) fn observe(&mut self, record: &Record, found: &mut Found<'_>) {
        let check = Check::Chain;
        if record.seq != self.last + 1 {
            found.add(check, format!("it follows record {}: the sequence has a gap", self.last));
        }
        self.last = record.seq;
        let creates = matches!(record.event, Event::StoreCreated { .. });
        if creates != (record.seq == 1) {
            found.add(check, "a store is created by its first record, and only by it");
        }
        if let Event::Booted { epoch, .. } = &record.event {
            if *epoch <= self.epoch {
                found.add(check, format!("boot {epoch} does not rise above boot {}", self.epoch));
            }
            self.epoch = self.epoch.max(*epoch);
            self.boots += 1;
        }
        // The records before the first boot belong to it.
        if record.epoch != self.epoch && self.boots > 0 {
            found.add(check, format!("it is of boot {}, but boot {} is the newest", record.epoch, self.epoch));
        }
        if let Some(now) = self.now.filter(|now| record.ts < *now) {
            found.add(check, format!("its time {} is before {now}", record.ts));
        }
        self.now = self.now.max(Some(record.ts));
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn now(&self) -> Ts {
        self.now.unwrap_or_default()
    }

    pub(super) fn count(&self, figures: &mut Figures) {
        figures.records = self.last;
        figures.boots = self.boots;
    }
}
