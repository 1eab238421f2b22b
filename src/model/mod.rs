//! The values everyone speaks: symbols, instants, candles, opinions, signals, trades, events, and the state they fold to.
//!
//! Nothing here reads a clock, a disk, a network or an unseeded random source. `State` changes only through
//! [`State::apply`], which is pure and total and is used identically live, in recovery and in verification.

pub mod apply;
mod apply_plans;
#[cfg(test)]
mod apply_tests;
mod apply_trades;
pub mod candle;
pub mod command;
pub mod decision;
pub mod event;
pub mod opinion;
pub mod plan;
pub mod position;
pub mod regime;
pub mod risk;
pub mod score;
pub mod signal;
pub mod snapshot;
pub mod spending;
pub mod state;
pub mod symbol;
pub mod task;
pub mod time;
pub mod trade;

pub use candle::{Candle, Timeframe};
pub use command::*;
pub use decision::*;
pub use event::{CoordinatorState, Event, Halt, LedgerAccount, Posting, Record, Recovered, RecoveredRun, VoteMark};
pub use opinion::*;
pub use plan::*;
pub use position::*;
pub use regime::Regime;
pub use risk::*;
pub use rust_decimal::Decimal;
pub use score::Score;
pub use signal::*;
pub use snapshot::*;
pub use state::State;
pub use symbol::{Asset, Symbol, SymbolRules};
pub use task::*;
pub use time::{Clock, Ts};
pub use trade::*;

/// A price in quote units per one base unit; always > 0 where it is used.
pub type Price = Decimal;
/// A quantity of the base asset, ≥ 0.
pub type Qty = Decimal;
/// An amount of money in the asset named beside it (quote asset or account currency).
pub type Money = Decimal;

/// Most that any account of the books may hold, 10^14. A decimal has 96 bits; with the 14 decimals an amount may carry,
/// sums of six such accounts stay below 7.9 · 10^14, from where on they would be rounded without a word.
pub const AMOUNT_MAX: Money = Decimal::from_parts(0x107A_4000, 0x5AF3, 0, false, 0);
/// From here on, 10^13, no order adds to an asset: what is open can still be closed below [`AMOUNT_MAX`].
pub const AMOUNT_ENTRY_MAX: Money = Decimal::from_parts(0x4E72_A000, 0x0918, 0, false, 0);
