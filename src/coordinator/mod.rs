//! Schedule, freshness, admission, consensus, conflicts, decisions: pure functions and the actor that applies them.

mod accept;
pub mod actor;
pub mod announce;
pub mod clock;
pub mod command_desk;
pub mod conflict;
pub mod consensus;
pub mod decision;
pub mod degradation;
pub mod describe;
pub mod disputed;
pub mod emergency;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod messages;
pub mod operate;
pub mod opinions;
mod pipeline;
pub mod quarantine;
mod report;
pub mod resolution;
pub mod resolver;
pub mod runs;
pub mod schedule;
pub mod states;
pub mod status;
pub mod timekeeper;
pub mod watch;
