//! The risk engine: rules, sizes, breakers, cooldowns, exposure. Pure: values in, values and events out.
//!
//! It never asks a model anything, reads no clock and no disk, and trusts no size it was handed: every limit is judged
//! on the shrunk notional and the lowered leverage.

pub mod actor;
pub mod alerts;
pub mod board;
pub mod breakers;
pub mod cooldown;
pub mod engine;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod prices;
pub mod proposal;
pub mod rules;
pub mod sizing;
pub mod view;

pub use alerts::SoftAlerts;
pub use breakers::PeakKeeper;
pub use cooldown::MoveWatch;
pub use engine::{Approved, check, check_and_reserve};
pub use prices::PriceBook;
pub use proposal::RiskRequest;
pub use rules::{AccountMode, RiskRules, RulesInput};
pub use sizing::SizeInputs;
pub use view::RiskView;
