//! What a start reads from beside the truth: opinions, rows of the schedule, markers of runs.

use anyhow::Result;

use crate::{
    coordinator::{
        notes::{self, KeptRow},
        opinions::{Opinions, StoredOpinion},
    },
    model::{InFlightMarker, Ts},
    store::Store,
};

/// What is kept beside the truth.
pub(super) struct Aux {
    pub opinions: Opinions,
    pub rows: Vec<KeptRow>,
    pub markers: Vec<InFlightMarker>,
}

impl Aux {
    /// Rows that cannot be read are left out: losing them is harmless, and they are written anew. So are rows from
    /// after `now`: an accelerated clock may begin a little before them, and nothing may know its own future.
    pub fn read(store: &Store, now: Ts) -> Result<Aux> {
        let mut opinions = Opinions::default();
        for (_, row) in store.aux_rows(notes::OPINIONS)? {
            if let Ok(opinion) = serde_json::from_slice::<StoredOpinion>(&row)
                && opinion.head().produced_at <= now
            {
                opinions.accept(opinion);
            }
        }
        let mut rows: Vec<KeptRow> = readable(store, notes::ROWS)?;
        rows.retain(|row| {
            row.last_success.is_none_or(|at| at <= now) && row.latest.is_none_or(|output| output.1 <= now)
        });
        Ok(Aux { opinions, rows, markers: readable(store, notes::MARKERS)? })
    }
}

fn readable<T: serde::de::DeserializeOwned>(store: &Store, tree: &str) -> Result<Vec<T>> {
    Ok(store.aux_rows(tree)?.iter().filter_map(|(_, row)| serde_json::from_slice(row).ok()).collect())
}
