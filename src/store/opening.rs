//! What a start tells the store, and what it finds.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::error::HaltReason;
use crate::model::{Asset, Money, Record, Recovered, State, Ts};

/// What a start tells the store.
#[derive(Clone, Debug)]
pub struct OpenInfo {
    /// Drives every random draw; used when the store is created.
    pub seed: u64,
    /// `simulated`, `csv` or `live`; a store of another kind is refused.
    pub data_kind: String,
    /// SHA-256 of the effective settings, hex.
    pub config_hash: String,
    /// Program version.
    pub version: String,
    /// Logical time of the start.
    pub now: Ts,
    /// Paid in when the store is created.
    pub deposits: BTreeMap<Asset, Money>,
    /// Program time stands still while the process is down (an accelerated clock): then `now` counts for a new store only.
    pub stands_still: bool,
    /// Identity of a new store; absent = derived from seed, kind of data and time.
    pub store_id: Option<Uuid>,
}

impl OpenInfo {
    /// The identity a new store gets.
    pub fn new_store_id(&self) -> Uuid {
        self.store_id.unwrap_or_else(|| {
            let text = format!("store:{}:{}:{}", self.seed, self.data_kind, self.now);
            let digest: [u8; 32] = Sha256::digest(text).into();
            let mut bytes = [0; 16];
            bytes.copy_from_slice(&digest[..16]);
            Uuid::new_v8(bytes)
        })
    }
}

/// What a start found.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The fold of the journal, this boot included.
    pub state: State,
    /// Epoch of this boot.
    pub epoch: u32,
    /// Facts for `RecoveryDone`; what the recovery of runs, decisions and trades does is added by its owners.
    pub recovered: Recovered,
    /// Set when this start is HALTED because of the store itself; the state says HALTED too.
    pub halt: Option<HaltReason>,
    /// The store is a copy, or was moved or restored, and is not adopted yet.
    pub moved: bool,
    /// Newest logical time before this boot, in the journal or noted beside it.
    pub last_logical_time: Ts,
    /// Prices after this instant may not have been worked on; absent for a new store. The row behind it is durable
    /// before the journal's time moves on, and stays until the gap is worked off.
    pub gap_from: Option<Ts>,
    /// The store was created by this start.
    pub created: bool,
    /// The journal is damaged: every commit is refused and nothing is written.
    pub frozen: bool,
    /// A pause this start begins with, for reasons outside of the store.
    pub pause: Option<String>,
    /// Durable before this boot and perhaps never told, oldest first; empty after a clean stop.
    pub unannounced: Vec<Record>,
    /// Starts before this one that never got through recovery, wall time.
    pub aborted: Vec<Ts>,
    /// What an operator should know.
    pub warnings: Vec<String>,
}
