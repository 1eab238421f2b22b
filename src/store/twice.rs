//! Recovering twice equals recovering once: a copy of a store is started, dropped and started again.
//!
//! The copy is adopted first, so that the start is the one the original would have; the original is only read.

use std::{fs, path::Path};

use super::{
    core::{OpenInfo, Opened, Store},
    identity,
    recover::{CHECKPOINTS, JOURNAL},
    verify::{copy_dir, scratch},
};
use crate::{
    model::{State, event::SCHEMA_VERSION},
    settings::sections::StoreSettings,
};

/// Recovers a copy of `data` three times in a row and compares the states after the first, second and third start, apart
/// from what every boot changes: its number, the number of records and the mark of a clean stop.
///
/// # Errors
/// What differs, or why it could not be tried.
pub fn recover_twice(data: &Path, settings: &StoreSettings) -> Result<String, String> {
    let copy = scratch();
    let done = copy_dir(data, &copy).map_err(|error| format!("the store cannot be copied: {error}")).and_then(|()| {
        identity::adopt(&copy).map_err(|error| error.to_string())?;
        twice(&copy, settings)
    });
    let _ = fs::remove_dir_all(&copy);
    done
}

fn twice(copy: &Path, settings: &StoreSettings) -> Result<String, String> {
    let (first, opened) = start(copy, settings)?;
    if opened.frozen {
        return Err("the journal is damaged: nothing can be recovered twice".to_owned());
    }
    let (second, again) = start(copy, settings)?;
    if again.recovered.applied > 0 || again.recovered.rebuilt || again.recovered.torn_bytes > 0 {
        return Err(format!("the second recovery still had work to do: {:?}", again.recovered));
    }
    // The third start has neither checkpoints nor an embedded store: the journal alone must give the same.
    for name in [CHECKPOINTS, super::recover::STATE] {
        fs::remove_dir_all(copy.join(name)).map_err(|error| format!("{name} of the copy: {error}"))?;
    }
    let (third, _) = start(copy, settings)?;
    for (number, state) in [(2, &second), (3, &third)] {
        if *state != first {
            return Err(format!("recovery {number} gives another state than recovery 1"));
        }
    }
    let segments = super::reader::segments(&copy.join(JOURNAL)).map_err(|error| error.to_string())?.len();
    Ok(format!("three recoveries of a copy give one state ({segments} segments)"))
}

/// One start and the state after it, without what every boot changes.
fn start(copy: &Path, settings: &StoreSettings) -> Result<(State, Opened), String> {
    let held = match identity::read(copy).map_err(|error| error.to_string())? {
        identity::Found::Same(found) | identity::Found::Unprovable(found) => found,
        other => return Err(format!("the copy is not adopted: {other:?}")),
    };
    let info = OpenInfo {
        seed: 0,
        data_kind: held.data_kind,
        config_hash: String::new(),
        version: format!("verify schema {SCHEMA_VERSION}"),
        now: crate::model::Ts::default(),
        deposits: std::collections::BTreeMap::new(),
        stands_still: true,
        store_id: Some(held.store),
    };
    let (store, opened) = Store::open(copy, settings, &info).map_err(|error| error.to_string())?;
    let mut state = store.state().clone();
    // Not closed: the next start meets what a kill would leave.
    drop(store);
    state.meta.epoch = 0;
    state.meta.seq = 0;
    state.meta.clean_stop = false;
    Ok((state, opened))
}
