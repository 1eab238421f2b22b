//! Trades: state machine, matching, fees, ledger, positions, legs. Pure, with the venue seam.
//!
//! A step is a function from the state to the events of ONE commit; nothing here changes the state itself.

pub mod actor;
pub mod gap;
pub mod intent;
pub mod ledger;
pub mod leg_orders;
pub mod legs;
pub mod manual;
pub mod paper;
pub mod positions;
pub mod remote;
pub mod restart;
pub mod settle;
pub mod supervise;
#[cfg(test)]
pub(crate) mod testkit;
pub mod venue;
pub mod work;

/// The account or a trade contradicts itself: a bug, never a business refusal. It ends the process.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("broken account: {0}")]
pub struct Violation(pub String);
