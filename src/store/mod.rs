//! Journal and embedded store: the only writer.
//!
//! The journal is the truth, the embedded store is a materialised copy that can always be rebuilt, and recovery is the
//! only way to start. Nothing here decides anything about trading.

pub mod actor;
pub mod batch;
pub mod checkpoint;
pub mod core;
pub mod error;
pub mod files;
pub mod frame;
pub mod guard;
pub mod identity;
pub mod journal;
pub mod lock;
pub mod objects;
#[cfg(test)]
mod power_loss_tests;
pub mod reader;
mod recover;
pub mod state_db;
pub mod touched;
#[cfg(test)]
pub(crate) mod trace;
pub mod verify;
pub mod view;

pub use actor::{
    AuxPut, AuxRemove, Close, Commit, CommittedBatch, Detach, Flush, GetState, JournalHead, Observe, StoreActor,
    StoreActorConfig,
};
pub use batch::{Batch, CommitResult, Committed, Expectation, Refused};
pub use core::{Head, OpenInfo, Opened, Store};
pub use error::{Damage, Fatal, HaltReason, StoreError};
pub use recover::{GAP_FROM, LEFT_WALL, LOGICAL_TIME, META, VERIFIED_AT};
pub use verify::{Audit, Report};
