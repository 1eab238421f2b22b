//! What is kept beside the truth: in-flight markers of opinion runs, the newest opinions, and what the scheduler knows of
//! their keys. Losing a second of it is harmless, so only the newest value of every row goes to the store.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    opinions::StoredOpinion,
    schedule::{self, Generation, Output, RestoredKey},
};
use crate::{
    model::{InFlightMarker, RunId, RunKey, TaskName, Ts},
    store::AuxRow,
};

/// Auxiliary tree of in-flight markers of opinion runs.
pub const MARKERS: &str = "markers";
/// Auxiliary tree of the newest accepted opinions.
pub const OPINIONS: &str = "opinions";

/// The key of a row beside the truth.
pub fn row_key(key: RunKey) -> String {
    format!("{} {}", key.task, key.symbol)
}
/// Auxiliary tree of what the scheduler knows of opinion keys.
pub const ROWS: &str = "rows";

/// Rows that changed since they were last handed to the store.
#[derive(Debug, Default)]
pub struct Notes {
    since: Option<Ts>,
    markers: BTreeMap<RunKey, Option<InFlightMarker>>,
    /// Keys known to have no marker in the store.
    unmarked: BTreeSet<RunKey>,
    rows: BTreeSet<RunKey>,
    opinions: BTreeMap<RunKey, StoredOpinion>,
}

impl Notes {
    /// An opinion run began.
    pub fn began(&mut self, marker: InFlightMarker, now: Ts) {
        self.since.get_or_insert(now);
        self.markers.insert(marker.key, Some(marker));
    }

    /// An opinion run ended, however; a run shorter than the time between two flushes leaves no marker at all.
    pub fn ended(&mut self, key: RunKey, now: Ts) {
        self.since.get_or_insert(now);
        if self.unmarked.contains(&key) {
            self.markers.remove(&key);
        } else {
            self.markers.insert(key, None);
        }
        self.rows.insert(key);
    }

    /// An output was accepted.
    pub fn opinion(&mut self, opinion: StoredOpinion, now: Ts) {
        self.since.get_or_insert(now);
        let head = opinion.head();
        let key = RunKey { task: head.agent, symbol: head.symbol };
        self.opinions.insert(key, opinion);
    }

    /// When the oldest change was made; absent when nothing waits.
    pub fn since(&self) -> Option<Ts> {
        self.since
    }

    /// The changes, markers first. `row` is what the scheduler knows of a key now.
    pub fn take(&mut self, row: impl Fn(RunKey) -> Option<RestoredKey>) -> Vec<AuxRow> {
        self.since = None;
        let mut changes = Vec::with_capacity(self.markers.len() + self.rows.len() + self.opinions.len());
        for (key, marker) in std::mem::take(&mut self.markers) {
            changes.push(match marker {
                Some(marker) => {
                    self.unmarked.remove(&key);
                    AuxRow::put(MARKERS, row_key(key), marker)
                }
                None => {
                    self.unmarked.insert(key);
                    AuxRow::remove(MARKERS, row_key(key))
                }
            });
        }
        let rows = std::mem::take(&mut self.rows).into_iter().filter_map(row);
        changes.extend(rows.map(|row| AuxRow::put(ROWS, row_key(row.key), KeptRow::from(row))));
        let opinions = std::mem::take(&mut self.opinions);
        changes.extend(opinions.into_iter().map(|(key, opinion)| AuxRow::put(OPINIONS, row_key(key), opinion)));
        changes
    }
}

/// A scheduler row as it is kept beside the truth.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptRow {
    /// Which key.
    pub key: RunKey,
    /// Newest claimed slot.
    pub last_slot: Option<i64>,
    /// Run, data instant, generation and degraded flag of the newest accepted success.
    pub latest: Option<(RunId, Ts, u64, u32, bool)>,
    /// Inputs of the last success.
    pub consumed: Vec<(TaskName, Ts)>,
    /// Newest success.
    pub last_success: Option<Ts>,
}

impl From<schedule::RestoredKey> for KeptRow {
    fn from(row: schedule::RestoredKey) -> KeptRow {
        let latest = row.latest.map(|o| (o.run_id, o.as_of, o.generation.config, o.generation.schema, o.degraded));
        KeptRow {
            key: row.key,
            last_slot: row.last_slot,
            latest,
            consumed: row.consumed,
            last_success: row.last_success,
        }
    }
}

impl From<KeptRow> for schedule::RestoredKey {
    fn from(row: KeptRow) -> schedule::RestoredKey {
        let latest = row.latest.map(|(run_id, as_of, config, schema, degraded)| Output {
            run_id,
            as_of,
            generation: Generation { config, schema },
            degraded,
        });
        RestoredKey {
            key: row.key,
            last_slot: row.last_slot,
            latest,
            consumed: row.consumed,
            last_success: row.last_success,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{RunId, SlotId};

    fn marker() -> InFlightMarker {
        let key = RunKey { task: TaskName::TechnicalAnalysis, symbol: "BTC/USDT".parse().unwrap() };
        let run_id = RunId { epoch: 1, seq: 3 };
        InFlightMarker { key, slot: SlotId::Grid(7), run_id, started_at: Ts(7), interruptions: 0 }
    }

    fn written(notes: &mut Notes) -> usize {
        notes.take(|_| None).len()
    }

    #[test]
    fn a_marker_is_written_once_and_removed_once() {
        let mut notes = Notes::default();
        notes.began(marker(), Ts(1));
        assert_eq!(notes.since(), Some(Ts(1)));
        assert_eq!((written(&mut notes), notes.since()), (1, None), "a run under way leaves its marker");
        notes.ended(marker().key, Ts(2));
        assert_eq!(written(&mut notes), 1, "its end removes it");
    }

    #[test]
    fn a_marker_of_an_earlier_process_goes_with_the_first_end() {
        let mut notes = Notes::default();
        notes.began(marker(), Ts(1));
        notes.ended(marker().key, Ts(2));
        assert_eq!(written(&mut notes), 1, "nobody knows yet that there is none");
        notes.began(marker(), Ts(3));
        notes.ended(marker().key, Ts(4));
        assert_eq!(written(&mut notes), 0, "a short run between two flushes writes no marker");
    }
}
