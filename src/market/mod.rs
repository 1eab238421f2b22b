//! Feeds, aggregation, indicators and immutable snapshots.

pub mod actor;
pub mod aggregate;
pub mod core;
pub mod feed;
pub mod indicators;
pub mod jump;
mod symbol_market;

pub use self::{
    aggregate::{ClosedFrame, Gap, Reject},
    core::{CandleOutcome, FeedCounts, FeedStatus, Market, MarketError},
    feed::{Feed, FeedError, FeedIssues, FeedItem, FeedKind},
};
