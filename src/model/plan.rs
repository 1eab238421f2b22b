//! Rebalance plans and their legs: durable one-shots, never removed, only claimed, executed and settled.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Asset, Money, Side, Symbol, TradeKey, TradeState, Ts};

/// One slice of one asset's trade.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Leg {
    /// Trade key, fixed when the plan is made.
    pub key: TradeKey,
    /// 0-based batch; batch k is due k intervals after the start.
    pub batch: u32,
    /// What is bought or sold against the quote.
    pub asset: Asset,
    /// The pair it trades.
    pub symbol: Symbol,
    /// Sells of a batch precede its buys.
    pub side: Side,
    /// Account currency.
    pub amount: Money,
    /// When it may be executed.
    pub due_at: Ts,
    /// Mirror of its trade's state.
    pub state: TradeState,
}

/// How a plan stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanState {
    /// Legs pend.
    Active,
    /// Every leg terminal.
    Completed,
    /// A leg was too late; the next check plans afresh.
    Superseded,
    /// Past its end.
    Expired,
    /// Cancelled by the operator.
    Cancelled,
}

/// A rebalance plan; at most one is active.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Identity (UUIDv8 of store and slot).
    pub id: Uuid,
    /// When it was made.
    pub created_at: Ts,
    /// Milliseconds between batches.
    pub spacing_ms: i64,
    /// All legs, in execution order.
    pub legs: Vec<Leg>,
    /// Largest deviation from the targets at planning, percentage points.
    pub deviation_pct: Money,
    /// Where it stands.
    pub state: PlanState,
    /// When it left `Active`.
    pub ended_at: Option<Ts>,
    /// When the last leg was executed.
    pub last_executed_at: Option<Ts>,
}
