//! Schedule, freshness, admission, consensus, conflicts, decisions: pure functions and the actor that applies them.

pub mod clock;
pub mod quarantine;
pub mod schedule;
