//! Schedule, freshness, admission, consensus, conflicts, decisions: pure functions and the actor that applies them.

pub mod actor;
pub mod clock;
pub mod conflict;
pub mod consensus;
pub mod decision;
pub mod degradation;
pub mod describe;
pub mod disputed;
pub mod emergency;
pub mod feed_watch;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod invariants;
pub mod obstacles;
pub mod opinions;
pub mod quarantine;
pub mod resolution;
pub mod schedule;
pub mod states;
pub mod status;
pub mod watchdog;

pub use actor::{announce, command_desk, heartbeat, messages, notes, operate, resolver, runs, timekeeper, watch};
