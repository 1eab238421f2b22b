//! Agents: inputs to one typed output, no side effect.
//!
//! Each agent is a pure function. It reads no clock, draws no random number and keeps nothing between runs: what it
//! must remember (the regime's hysteresis) travels inside its last accepted output. [`contract`] holds what all share.

pub mod actor;
pub mod answers;
pub mod contract;
pub mod leaderboard;
pub mod model_path;
pub mod model_voter;
pub mod poll;
pub mod portfolio_rebalance;
pub mod portfolio_view;
pub mod prompts;
pub mod regime_detection;
pub mod technical_analysis;
pub mod technical_path;
pub mod trading_decision;
pub mod vote;
pub mod voters;
pub mod worst_case;

#[cfg(test)]
pub(crate) mod fixtures;

pub use contract::{Answer, RunContext};
