//! Feeds, aggregation, indicators and immutable snapshots.

pub mod indicators;
