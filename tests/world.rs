//! Whole-program scenarios: the real actors in virtual time on a scripted feed. See `support/world`.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/world/mod.rs"]
mod support;

#[path = "world/decisions.rs"]
mod decisions;
#[path = "world/emergencies.rs"]
mod emergencies;
#[path = "world/invariants.rs"]
mod invariants;
#[path = "world/models.rs"]
mod models;
#[path = "world/orders.rs"]
mod orders;
#[path = "world/plans.rs"]
mod plans;
#[path = "world/recovery.rs"]
mod recovery;
#[path = "world/schedule.rs"]
mod schedule;
#[path = "world/venue.rs"]
mod venue;
#[path = "world/watchdog.rs"]
mod watchdog;
