//! What a start on a damaged store may come to, and what it may not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::{
    damage::{Damage, Target},
    probe::{Found, fingerprint},
};
use crate::{
    model::State,
    store::reader::{self, ReadError, Start},
};

/// What became of one case.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Outcome {
    /// The embedded store was rebuilt from the journal: same state, old directory kept.
    Rebuilt,
    /// The embedded store opened short and was brought up to the journal: same state.
    CaughtUp,
    /// A damaged checkpoint was named and skipped: same state.
    Skipped,
    /// A torn tail was cut; nothing that was acknowledged is gone.
    TailCut,
    /// A damaged tail was cut, acknowledged records with it; HALTED says so.
    TailLost(u64),
    /// HALTED with this code.
    Halted(String),
    /// The start is refused with a sentence that names the file.
    Refused,
    /// The start uses nothing of what is damaged; `journal verify` finds it.
    Verify,
    /// What the file held was not needed or not changed in meaning: same state, everything verifies.
    NoEffect,
}

impl Outcome {
    /// Column of the table.
    pub fn column(&self) -> String {
        match self {
            Outcome::Rebuilt => "rebuilt".to_owned(),
            Outcome::CaughtUp => "caught up".to_owned(),
            Outcome::Skipped => "skipped".to_owned(),
            Outcome::TailCut => "tail cut".to_owned(),
            Outcome::TailLost(_) => "tail lost, HALTED".to_owned(),
            Outcome::Halted(code) => format!("HALTED {code}"),
            Outcome::Refused => "refused".to_owned(),
            Outcome::Verify => "found by verify".to_owned(),
            Outcome::NoEffect => "no effect".to_owned(),
        }
    }
}

/// The whole store: what each prefix of its journal folds to.
pub struct Whole {
    journal: PathBuf,
    /// Records in it.
    pub records: u64,
    known: Mutex<BTreeMap<(u64, bool), String>>,
}

impl Whole {
    /// Reads the whole store in `dir`.
    ///
    /// # Errors
    /// The journal is not whole.
    pub fn read(dir: &Path) -> Result<(Whole, State), String> {
        let journal = dir.join("journal");
        let state = fold(&journal, u64::MAX)?;
        let records = state.meta.seq;
        Ok((Whole { journal, records, known: Mutex::default() }, state))
    }

    /// Fingerprint of the state after record `seq`.
    fn at(&self, seq: u64, halted: bool) -> Result<String, String> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known.get(&(seq, halted)) {
            return Ok(found.clone());
        }
        let state = fold(&self.journal, seq)?;
        if state.meta.seq != seq {
            return Err(format!("record {seq} ends no batch of the whole journal"));
        }
        let print = fingerprint(&state, halted);
        known.insert((seq, halted), print.clone());
        Ok(print)
    }
}

fn fold(journal: &Path, until: u64) -> Result<State, String> {
    let mut state = State::default();
    let read = reader::read(journal, Start::BEGINNING, &mut |batch| {
        for record in batch.drain(..).filter(|record| record.seq <= until) {
            state.apply(&record).map_err(|misfit| misfit.to_string())?;
        }
        Ok(())
    });
    match read {
        Ok(_) => Ok(state),
        Err(ReadError::Damage(damage)) => Err(damage.to_string()),
        Err(ReadError::Refused(error)) => Err(error.to_string()),
    }
}

/// Judges what a start found.
///
/// # Errors
/// What is wrong with it.
pub fn judge(
    whole: &Whole,
    damage: &Damage,
    found: &Found,
    set_aside: bool,
    had_state: bool,
) -> Result<Outcome, String> {
    if let Some((text, code)) = &found.refused {
        return match code {
            2 => Ok(Outcome::Refused),
            _ => Err(format!("the start failed with exit {code}: {text}")),
        };
    }
    let wanted = whole.at(found.records, found.is_halted)?;
    if found.state != wanted {
        return Err(format!("the state at record {} is not the fold of the whole journal", found.records));
    }
    if found.records > whole.records {
        return Err("more records than there were".to_owned());
    }
    let lost = whole.records - found.records;
    if let Some((code, text)) = &found.halt {
        if !found.is_halted {
            return Err(format!("{code}, but the program is not HALTED"));
        }
        if damage.target.must_not_halt() {
            return Err(format!("HALTED over a whole journal: {text}"));
        }
        if found.frozen {
            return Ok(Outcome::Halted(code.clone()));
        }
        second_start(found)?;
        return match (lost, code.as_str()) {
            (0, _) => Ok(Outcome::Halted(code.clone())),
            (_, "store_ahead") if text.contains(&whole.records.to_string()) => Ok(Outcome::TailLost(lost)),
            _ => Err(format!("{lost} records are gone and HALTED says: {text}")),
        };
    }
    if lost > 0 {
        return Err(format!("{lost} acknowledged records are gone without HALTED"));
    }
    second_start(found)?;
    if found.torn_bytes > 0 {
        return Ok(Outcome::TailCut);
    }
    if found.rebuilt {
        let kept = set_aside || !had_state;
        return if kept { Ok(Outcome::Rebuilt) } else { Err("rebuilt, but the old directory is gone".to_owned()) };
    }
    if damage.target == Target::Checkpoint && !found.warnings.is_empty() {
        return Ok(Outcome::Skipped);
    }
    if !found.defects.is_empty() {
        return Ok(Outcome::Verify);
    }
    if found.applied > 0 {
        return Ok(Outcome::CaughtUp);
    }
    // The content of these was compared with the fold and is equal.
    if damage.target.is_copy() { Ok(Outcome::NoEffect) } else { Err("nothing noticed the damage".to_owned()) }
}

/// A start after the start that met the damage finds nothing to do and the same state.
fn second_start(found: &Found) -> Result<(), String> {
    if found.again != found.state {
        return Err(format!("the second start came to another state: {:?}", found.again_says));
    }
    match found.again_says.iter().find(|text| text.contains("rebuilt") || text.contains("torn")) {
        Some(text) => Err(format!("the second start had to repair again: {text}")),
        None => Ok(()),
    }
}
