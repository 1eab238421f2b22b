//! One start on a damaged store, in a process of its own: what it found, as one line of JSON.

use std::path::Path;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::sample;
use crate::{
    coordinator::notes,
    model::{CoordinatorState, Event, State, Ts},
    store::{AuxChange, Batch, META, Opened, Store, checkpoint::state_hash, verify},
};

/// What the start on a damaged store found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Found {
    /// The sentence of a refused start, and its exit code.
    pub refused: Option<(String, u8)>,
    /// Code and sentence of a HALTED start.
    pub halt: Option<(String, String)>,
    /// The program itself says HALTED.
    pub is_halted: bool,
    /// Nothing is written over a damaged journal.
    pub frozen: bool,
    /// What an operator is told.
    pub warnings: Vec<String>,
    /// Bytes cut off the end of the journal.
    pub torn_bytes: u64,
    /// The embedded store was built anew.
    pub rebuilt: bool,
    /// Records the embedded store lacked.
    pub applied: u64,
    /// Records the start folded.
    pub records: u64,
    /// Fingerprint of the state it came to.
    pub state: String,
    /// Fingerprint of the second start's state, after one more record.
    pub again: String,
    /// What the second start warned of or was refused with.
    pub again_says: Vec<String>,
    /// What `journal verify` says afterwards.
    pub defects: Vec<String>,
}

/// SHA-256 of the state without what every boot changes; a HALTED start also changes who may trade.
pub fn fingerprint(state: &State, halted: bool) -> String {
    let mut state = state.clone();
    state.meta.epoch = 0;
    state.meta.seq = 0;
    state.meta.logical_time = Ts(0);
    state.meta.clean_stop = false;
    state.meta.config_hash.clear();
    if halted {
        state.coordinator.state = CoordinatorState::Halted;
        state.coordinator.halt = None;
        state.coordinator.halts = 0;
    }
    state_hash(&state)
}

/// Starts on `dir`, commits a record, starts again, verifies.
///
/// # Errors
/// The sample's settings do not load.
pub fn probe(dir: &Path, seed: u64) -> Result<Found> {
    let settings = sample::settings()?;
    let info = sample::info(&settings, seed);
    let mut found = Found::default();
    match Store::open(dir, &settings.store, &info) {
        Err(error) => found.refused = Some((error.to_string(), error.exit_code())),
        Ok((store, opened)) => {
            found.take(&opened);
            if let Err(why) = go_on(store, &opened) {
                found.again_says.push(why);
            } else if !opened.frozen {
                match Store::open(dir, &settings.store, &info) {
                    Err(error) => found.again_says.push(error.to_string()),
                    Ok((store, again)) => {
                        found.again = fingerprint(store.state(), found.is_halted);
                        found.again_says.extend(again.warnings);
                    }
                }
            }
            found.defects = verify::check(dir).defects;
        }
    }
    Ok(found)
}

/// What a program does with a store it has opened: reads what is kept beside the truth, writes, flushes.
fn go_on(mut store: Store, opened: &Opened) -> Result<(), String> {
    for tree in [META, notes::OPINIONS, notes::ROWS, notes::MARKERS, notes::PASTS] {
        store.aux_rows(tree).map_err(|error| error.to_string())?;
    }
    if opened.frozen {
        return Ok(());
    }
    let what = Event::Noted { what: "torture".to_owned(), facts: Default::default() };
    let batch = Batch::new("torture", "probe", "probe", opened.last_logical_time, vec![what]);
    store.commit(batch).map_err(|error| error.to_string())?.map_err(|refused| refused.to_string())?;
    let probe = AuxChange { tree: META, key: "probe".to_owned(), value: Some(b"1".to_vec()) };
    store.aux_write(vec![probe]).and_then(|()| store.aux_flush()).map_err(|error| error.to_string())
}

impl Found {
    fn take(&mut self, opened: &Opened) {
        self.halt = opened.halt.as_ref().map(|halt| (halt.code.to_owned(), halt.text.clone()));
        self.is_halted = opened.state.coordinator.state == CoordinatorState::Halted;
        self.frozen = opened.frozen;
        self.warnings.clone_from(&opened.warnings);
        self.torn_bytes = opened.recovered.torn_bytes;
        self.rebuilt = opened.recovered.rebuilt;
        self.applied = opened.recovered.applied;
        self.records = opened.recovered.records;
        self.state = fingerprint(&opened.state, self.is_halted);
    }
}
