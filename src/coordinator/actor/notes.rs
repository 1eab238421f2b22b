//! What is kept beside the truth: in-flight markers of opinion runs, the newest opinions, and what the scheduler knows of
//! their keys. Losing a second of it is harmless, so only the newest value of every row goes to the store.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    opinions::StoredOpinion,
    schedule::{self, Generation, Output, RestoredKey},
};
use crate::{
    coordinator::quarantine::Past,
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

/// Auxiliary tree of what went wrong with keys.
pub const PASTS: &str = "pasts";

/// Rows that changed since they were last handed to the store.
#[derive(Debug, Default)]
pub struct Notes {
    since: Option<Ts>,
    markers: BTreeMap<RunKey, Option<InFlightMarker>>,
    /// Keys known to have no marker in the store.
    unmarked: BTreeSet<RunKey>,
    rows: BTreeSet<RunKey>,
    opinions: BTreeMap<RunKey, StoredOpinion>,
    /// What the store holds of failures; a key without any has no row.
    pasts: BTreeMap<RunKey, Past>,
}

impl Notes {
    /// Nothing changed yet; the store holds the failures of these keys.
    pub fn knowing<'a>(pasts: impl Iterator<Item = (RunKey, &'a Past)>) -> Notes {
        let none = Past::default();
        let pasts = pasts.filter(|(_, past)| **past != none).map(|(key, past)| (key, past.clone())).collect();
        Notes { pasts, ..Notes::default() }
    }

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

    /// A run went wrong whose end the journal tells.
    pub fn failed(&mut self, now: Ts) {
        self.since.get_or_insert(now);
    }

    /// When the oldest change was made; absent when nothing waits.
    pub fn since(&self) -> Option<Ts> {
        self.since
    }

    /// The changes, markers first. `row` is what the scheduler knows of a key now, `pasts` what went wrong with each.
    pub fn take<'a>(
        &mut self,
        row: impl Fn(RunKey) -> Option<RestoredKey>,
        pasts: impl Iterator<Item = (RunKey, &'a Past)>,
    ) -> Vec<AuxRow> {
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
        let none = Past::default();
        for (key, past) in pasts {
            if self.pasts.get(&key).unwrap_or(&none) == past {
                continue;
            }
            changes.push(if *past == none {
                self.pasts.remove(&key);
                AuxRow::remove(PASTS, row_key(key))
            } else {
                self.pasts.insert(key, past.clone());
                AuxRow::put(PASTS, row_key(key), KeptPast { key, past: past.clone() })
            });
        }
        changes
    }
}

/// What went wrong with a key, as it is kept beside the truth.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptPast {
    /// Which key.
    pub key: RunKey,
    /// Its failures.
    pub past: Past,
}

/// A scheduler row as it is kept beside the truth.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct KeptRow {
    /// Which key.
    pub key: RunKey,
    /// Newest claimed slot.
    pub last_slot: Option<i64>,
    /// Run, data instant and generation of the newest accepted success; the last field is unused and false.
    pub latest: Option<(RunId, Ts, u64, u32, bool)>,
    /// Inputs of the last success.
    pub consumed: Vec<(TaskName, Ts)>,
    /// Newest success.
    pub last_success: Option<Ts>,
}

impl From<schedule::RestoredKey> for KeptRow {
    fn from(row: schedule::RestoredKey) -> KeptRow {
        let latest = row.latest.map(|o| (o.run_id, o.as_of, o.generation.config, o.generation.schema, false));
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
        let latest = row.latest.map(|(run_id, as_of, config, schema, _)| Output {
            run_id,
            as_of,
            generation: Generation { config, schema },
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
        notes.take(|_| None, std::iter::empty()).len()
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

    #[test]
    fn failures_are_written_when_they_change_and_removed_when_there_are_none() {
        let key = marker().key;
        let bad: Past =
            serde_json::from_str(r#"{"ring":1,"consecutive":1,"calm":0,"length_ms":0,"starts":[]}"#).unwrap();
        let good = Past::default();
        let mut notes = Notes::knowing([(key, &good)].into_iter());
        let changes = [(&good, 0), (&bad, 1), (&bad, 0), (&good, 1), (&good, 0)];
        for (number, (past, rows)) in changes.into_iter().enumerate() {
            assert_eq!(notes.take(|_| None, [(key, past)].into_iter()).len(), rows, "flush {number}");
        }
        let mut restarted = Notes::knowing([(key, &bad)].into_iter());
        assert_eq!(restarted.take(|_| None, [(key, &good)].into_iter()).len(), 1, "the row of the process before goes");
    }
}
