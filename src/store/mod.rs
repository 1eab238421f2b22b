//! Journal and embedded store: the only writer.
//!
//! The journal is the truth, the embedded store is a materialised copy that can always be rebuilt, and recovery is the
//! only way to start. Nothing here decides anything about trading.

pub mod actor;
pub mod batch;
pub mod bundle;
pub mod checkpoint;
pub mod core;
mod embedded;
pub mod error;
pub mod files;
pub mod frame;
pub mod guard;
pub mod identity;
pub mod journal;
pub mod lock;
pub mod memory_disk;
pub mod objects;
pub mod opening;
pub mod oracle;
#[cfg(test)]
mod power_loss_tests;
pub mod reader;
mod recover;
pub mod segments;
pub mod starts;
pub mod state_db;
pub mod touched;
#[cfg(test)]
pub(crate) mod trace;
pub mod twice;
pub mod unannounced;
pub mod verify;
pub mod view;

pub use actor::{
    AuxRow, AuxWrite, Close, Commit, CommittedBatch, Detach, Flush, GetState, JournalHead, Observe, StoreActor,
    StoreActorConfig,
};
pub use batch::{AuxChange, Batch, CommitResult, Committed, Expectation, Refused};
pub use core::{Head, OpenInfo, Opened, Store};
pub use error::{Damage, Fatal, HaltReason, StoreError};
pub use recover::{ANNOUNCED, CRASHES, GAP_FROM, LEFT_WALL, LOGICAL_TIME, META, VERIFIED_AT};
use recover::{JOURNAL_DAMAGED, STORE_AHEAD};
pub use verify::{Audit, Report};
