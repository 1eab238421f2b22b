//! Trading positions: quantity opened by a signal, with its own stop and target.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ExitCause, Money, Price, Qty, Symbol, TradeKey, Ts};

/// Number of a position within its store, from 1. Text form `P17`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
pub struct PositionId(pub u64);

impl fmt::Display for PositionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "P{}", self.0)
    }
}

/// Long or short. Spot knows long only.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionSide {
    /// Gains when the price rises.
    Long,
    /// Gains when the price falls.
    Short,
}

/// Trailing stop of one position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Trailing {
    /// Set once the activation gain was reached.
    pub active: bool,
    /// Best price since activation.
    pub extreme: Option<Price>,
}

/// What one price did to positions so far. It may take several commits, and none of them judges again what an earlier
/// one changed.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PriceDone {
    /// Opened or grown by resting orders that filled at this price.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filled: Vec<PositionId>,
    /// Their stop or trailing state follows this price: the next one is the first that may reach the moved stop.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moved: Vec<PositionId>,
}

/// How far the candles of a downtime are worked off for one symbol.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Replayed {
    /// The newest candle that changed something, by its close; those before it are done.
    pub at: Ts,
    /// What it did so far.
    pub done: PriceDone,
}

/// An open position.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Position {
    /// Identity.
    pub id: PositionId,
    /// Which symbol.
    pub symbol: Symbol,
    /// Long or short.
    pub side: PositionSide,
    /// Base units.
    pub quantity: Qty,
    /// Value paid for `quantity`, quote units, without fees; average entry = cost / quantity.
    pub cost: Money,
    /// Spot: 1.
    pub leverage: u32,
    /// Protective stop, quote units.
    pub stop: Option<Price>,
    /// Target, quote units.
    pub target: Option<Price>,
    /// Trailing state.
    pub trailing: Trailing,
    /// When it was opened.
    pub opened_at: Ts,
    /// Fees paid so far for it, quote units.
    pub fees: Money,
    /// Gross P&L booked by partial closes, quote units.
    pub realised: Money,
    /// Trades that made or changed it, oldest first.
    pub trades: Vec<TradeKey>,
    /// How many exits were tried; part of the next exit's key.
    pub exit_seq: u32,
    /// The exit under way, so that a second one is not started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exiting: Option<TradeKey>,
    /// What partial closes took so far; the journal's result of the whole position needs it.
    #[serde(default)]
    pub past: ClosedPart,
}

/// The part of a position that partial closes took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClosedPart {
    /// Base units.
    pub quantity: Qty,
    /// What had been paid for them, quote units, without fees.
    pub cost: Money,
}

impl Position {
    /// Mean entry price, quote units.
    pub fn average_entry(&self) -> Price {
        if self.quantity.is_zero() { Price::ZERO } else { self.cost / self.quantity }
    }

    /// Gross gain if closed at `price`, quote units: price change × quantity, never times leverage.
    pub fn unrealised(&self, price: Price) -> Money {
        match self.side {
            PositionSide::Long => price * self.quantity - self.cost,
            PositionSide::Short => self.cost - price * self.quantity,
        }
    }
}

/// A closed position, as the journal and the reports carry it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ClosedPosition {
    /// Identity.
    pub id: PositionId,
    /// Which symbol.
    pub symbol: Symbol,
    /// Long or short.
    pub side: PositionSide,
    /// Total base quantity that was closed.
    pub quantity: Qty,
    /// Mean entry price.
    pub entry: Price,
    /// Mean exit price.
    pub exit: Price,
    /// Gross P&L, quote units.
    pub gross: Money,
    /// All fees, quote units.
    pub fees: Money,
    /// gross − fees.
    pub net: Money,
    /// `net` in the account currency.
    pub net_usd: Money,
    /// When opened.
    pub opened_at: Ts,
    /// When closed.
    pub closed_at: Ts,
    /// Why.
    pub cause: ExitCause,
}
