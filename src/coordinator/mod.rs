//! Schedule, freshness, admission, consensus, conflicts, decisions: pure functions and the actor that applies them.

pub mod conflict;
pub mod consensus;
pub mod decision;
pub mod degradation;
pub mod emergency;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod resolution;
pub mod states;
