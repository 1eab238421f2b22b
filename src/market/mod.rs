//! Feeds, aggregation, indicators and immutable snapshots.
