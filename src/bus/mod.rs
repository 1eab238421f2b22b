//! Ten typed topics, immutable envelopes, bounded delivery in which nobody waits for a subscriber.
//!
//! The bus distributes; it is never a source of truth. Everything but [`actor`] is pure and takes `now` as an argument.

pub mod actor;
pub mod core;
pub mod envelope;
pub mod history;
pub mod payload;
pub mod queue;
pub mod stats;
pub mod topic;

pub use self::core::{Bus, Delivery, Filter, FilterFailed, SubscriberId, Ticket};
pub use envelope::{ChainId, Draft, Envelope, EnvelopeError, EnvelopeFactory};
pub use payload::{
    AlertKind, CommandRequest, ExecutionEvent, MarketData, Payload, PortfolioEvent, RiskAlert, Severity, SystemEvent,
};
pub use stats::{BusStats, SubscriptionStats, Tally};
pub use topic::{BusLimits, Priority, Topic};
