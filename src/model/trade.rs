//! Trades: one intended order with a key, a state machine and everything needed to explain it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Asset, Event, Money, Price, Qty, Symbol, Ts, symbol::serde_as_text};

/// Identity of a trade: SHA-256 over store, kind, plan, leg, symbol and side (C3). Text form: 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TradeKey(pub [u8; 32]);

impl TradeKey {
    /// The key of one leg of one plan. Fields are length-prefixed so that no two field lists collide.
    pub fn derive(store: Uuid, kind: TradeKind, plan: &str, leg: &str, symbol: Symbol, side: Side) -> TradeKey {
        let symbol = symbol.to_string();
        let fields = [
            store.as_bytes().as_slice(),
            kind.name().as_bytes(),
            plan.as_bytes(),
            leg.as_bytes(),
            symbol.as_bytes(),
            side.name().as_bytes(),
        ];
        let mut hash = Sha256::new();
        for field in fields {
            hash.update((field.len() as u64).to_be_bytes());
            hash.update(field);
        }
        TradeKey(hash.finalize().into())
    }

    /// The client order id: a UUIDv8 of the key. The attempt number is not part of it.
    pub fn client_order_id(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&self.0[..16]);
        Uuid::new_v8(bytes)
    }

    /// Seed of every random draw of this trade.
    pub fn seed(&self) -> [u8; 32] {
        self.0
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for TradeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // On the stack: a key is written several times for every order. 32 bytes are exactly 64 digits, all of them ASCII.
        let mut digits = [0; 64];
        let text = hex::encode_to_slice(self.0, &mut digits).ok().and_then(|()| std::str::from_utf8(&digits).ok());
        f.write_str(text.ok_or(fmt::Error)?)
    }
}

impl fmt::Debug for TradeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl FromStr for TradeKey {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|e| format!("`{text}` is no trade key: {e}"))?;
        Ok(TradeKey(bytes))
    }
}

serde_as_text!(TradeKey);

/// What a trade is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradeKind {
    /// Entry from a signal.
    Decision,
    /// A leg of a rebalance plan.
    Rebalance,
    /// A step of an emergency action.
    Emergency,
    /// Protective or signalled exit of a position.
    Exit,
    /// Asked for by the operator.
    Operator,
}

impl TradeKind {
    /// The name as hashed into keys.
    pub const fn name(self) -> &'static str {
        match self {
            TradeKind::Decision => "decision",
            TradeKind::Rebalance => "rebalance",
            TradeKind::Emergency => "emergency",
            TradeKind::Exit => "exit",
            TradeKind::Operator => "operator",
        }
    }
}

/// Buy or sell.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Quote out, base in.
    Buy,
    /// Base out, quote in.
    Sell,
}

impl Side {
    /// The name as hashed into keys.
    pub const fn name(self) -> &'static str {
        match self {
            Side::Buy => "buy",
            Side::Sell => "sell",
        }
    }

    /// The other side.
    #[must_use]
    pub const fn opposite(self) -> Side {
        match self {
            Side::Buy => Side::Sell,
            Side::Sell => Side::Buy,
        }
    }
}

/// How an order is priced. Stops and targets are supervised by position, not placed as orders.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum OrderType {
    /// At the market price with slippage.
    Market,
    /// At `limit` or better.
    Limit {
        /// Quote units.
        limit: Price,
    },
}

/// How long an order may rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
pub enum TimeInForce {
    /// Until filled, cancelled or expired.
    #[default]
    #[serde(rename = "GTC")]
    Gtc,
    /// What does not fill at once is cancelled.
    #[serde(rename = "IOC")]
    Ioc,
}

/// States of a trade (C2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TradeState {
    /// A leg of a plan is stored.
    Planned,
    /// Risk reserved, parameters fixed.
    Intent,
    /// Durable before the first byte leaves.
    Submitting,
    /// No or ambiguous answer.
    Unknown,
    /// Proven that the venue does not have it.
    NotExecuted,
    /// Rests at the venue.
    Acked,
    /// Some fills.
    Partial,
    /// Quantity complete (never alone on disk at the paper venue).
    Filled,
    /// All fills booked.
    Settled,
    /// Cancelled, with its fills settled.
    Cancelled,
    /// Refused by the venue, or attempts exhausted.
    Rejected,
    /// Refused by risk.
    Refused,
    /// Too old.
    Expired,
    /// Replaced by a later plan.
    Superseded,
    /// Only an operator leaves it.
    Manual,
}

impl TradeState {
    /// Rank; a transition to a lower one is a bug, except NOT_EXECUTED → SUBMITTING.
    pub const fn rank(self) -> u8 {
        match self {
            TradeState::Planned => 0,
            TradeState::Intent => 1,
            TradeState::Submitting | TradeState::Unknown | TradeState::NotExecuted => 2,
            TradeState::Acked => 3,
            TradeState::Partial => 4,
            TradeState::Filled => 5,
            TradeState::Settled
            | TradeState::Cancelled
            | TradeState::Rejected
            | TradeState::Refused
            | TradeState::Expired
            | TradeState::Superseded
            | TradeState::Manual => 6,
        }
    }

    /// Nothing follows (MANUAL waits for the operator).
    pub const fn is_terminal(self) -> bool {
        self.rank() == 6 && !matches!(self, TradeState::Manual)
    }

    /// Whether C2 lets a trade go from here to `to`.
    pub fn may_become(self, to: TradeState) -> bool {
        use TradeState::*;
        match self {
            Planned => matches!(to, Intent | Expired | Cancelled | Superseded),
            Intent => matches!(to, Submitting | Refused | Expired | Cancelled),
            Submitting => matches!(
                to,
                Acked | Partial | Filled | Settled | Rejected | Unknown | NotExecuted | Cancelled | Expired | Manual
            ),
            Unknown => matches!(to, Acked | Partial | Filled | Settled | NotExecuted | Rejected | Manual),
            NotExecuted => matches!(to, Submitting | Expired | Rejected | Cancelled),
            Acked | Partial if to == Manual => true,
            Acked => matches!(to, Partial | Filled | Settled | Cancelled | Expired),
            Partial => matches!(to, Partial | Filled | Settled | Cancelled | Expired),
            Filled => matches!(to, Settled),
            // Once more, when what the operator stated does not fit either.
            Manual => matches!(to, Settled | Expired | Manual),
            Settled | Cancelled | Rejected | Refused | Expired | Superseded => false,
        }
    }
}

/// Why an exit is made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitCause {
    /// The stop was reached.
    Stop,
    /// The target was reached.
    Target,
    /// The trailing stop was reached.
    Trailing,
    /// Held too long.
    Time,
    /// A signal asked for it.
    Signal,
    /// An emergency action.
    Emergency,
    /// The operator.
    Operator,
}

/// Amount taken out of the free balance while an order lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lock {
    /// Which asset.
    pub asset: Asset,
    /// How much.
    pub amount: Money,
}

/// Everything fixed at INTENT. Its hash is stored: the same key with another body is refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct OrderBody {
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: Side,
    /// Base quantity, already floored to the symbol's step.
    pub quantity: Qty,
    /// Market or limit.
    #[serde(flatten)]
    pub order_type: OrderType,
    /// How long it may rest.
    pub time_in_force: TimeInForce,
    /// Entries only: stop and target of the position it opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop: Option<Price>,
    /// See `stop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Price>,
    /// Spot: 1.
    pub leverage: u32,
    /// Exits only: which position it reduces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<super::PositionId>,
    /// Exits only: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_cause: Option<ExitCause>,
}

impl OrderBody {
    /// First 8 bytes of the SHA-256 of the body's JSON form.
    pub fn hash(&self) -> u64 {
        let text = serde_json::to_vec(self).unwrap_or_default();
        let digest: [u8; 32] = Sha256::digest(&text).into();
        u64::from_be_bytes([digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6], digest[7]])
    }
}

/// A trade as the state holds it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Trade {
    /// Identity.
    pub key: TradeKey,
    /// What for.
    pub kind: TradeKind,
    /// Plan id as hashed into the key (slot, plan uuid, breaker period, position, command).
    pub plan: String,
    /// Leg as hashed into the key.
    pub leg: String,
    /// The decision it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<super::DecisionId>,
    /// The order.
    pub body: OrderBody,
    /// Where it stands.
    pub state: TradeState,
    /// Taken out of the free balance.
    pub lock: Option<Lock>,
    /// Submissions so far.
    pub attempt: u32,
    /// When the intent was made; the signal's age counts from the signal.
    pub created_at: Ts,
    /// When it began to rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acked_at: Option<Ts>,
    /// When a resting order ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Ts>,
    /// Not before this instant is the next attempt made (retry of a definite failure).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Ts>,
    /// Filled so far, base units.
    pub filled: Qty,
    /// Value of the fills, quote units.
    pub filled_value: Money,
    /// Fees so far, quote units.
    pub fees: Money,
    /// Fills booked so far; the next fill's id is `<key>:<fills>`.
    pub fills: u32,
    /// What is known of it at a venue outside of the process; absent at the paper venue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote: Option<Remote>,
    /// In MANUAL: what the operator stated, until it is booked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<ManualResolution>,
}

/// What an operator found out about a trade in MANUAL, outside of this program.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManualResolution {
    /// What was executed beyond the fills that are booked; absent = nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fill: Option<ManualFill>,
    /// Where the operator knows it from.
    pub evidence: String,
    /// The key of the command.
    pub source: String,
}

/// A fill as an operator states it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ManualFill {
    /// Base units, > 0.
    pub quantity: Qty,
    /// Quote units per base unit, > 0.
    pub price: Price,
    /// Quote units, ≥ 0.
    pub fee: Money,
}

impl fmt::Display for ManualResolution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fill {
            Some(fill) => write!(f, "{} at {}, fee {}, were executed", fill.quantity, fill.price, fill.fee)?,
            None => f.write_str("nothing more was executed")?,
        }
        write!(f, " ({})", self.evidence)
    }
}

/// What has to outlive the process about an order that left it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remote {
    /// When the newest attempt was about to leave.
    pub sent_at: Ts,
    /// The venue refuses the newest attempt after this instant of its own clock.
    pub deadline: Ts,
    /// Market price when the first attempt left, quote units.
    pub reference: Price,
    /// Since when its fate is unknown, while it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<Ts>,
    /// How many attempts had no clear answer.
    #[serde(default)]
    pub ambiguous: u32,
    /// Why it is to be cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<String>,
    /// The venue's ids of the fills booked so far.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub fills: BTreeSet<String>,
}

impl Trade {
    /// Base quantity still to fill.
    pub fn remaining(&self) -> Qty {
        self.body.quantity - self.filled
    }

    /// What ends an order nobody wants any more: at the venue of another process only that venue can.
    pub fn cancelled(&self, reason: &str) -> Event {
        let (trade_key, reason) = (self.key, reason.to_owned());
        let there = matches!(
            self.state,
            TradeState::Submitting | TradeState::Unknown | TradeState::Acked | TradeState::Partial
        );
        if self.remote.is_some() && there {
            return Event::TradeCancelRequested { trade_key, reason };
        }
        Event::TradeCancelled { trade_key, reason }
    }

    /// An entry can increase a trading position; everything else only decreases it or moves inventory.
    pub fn is_entry(&self) -> bool {
        self.kind == TradeKind::Decision && self.body.position.is_none()
    }
}

/// Maker or taker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Liquidity {
    /// Rested before it filled.
    Maker,
    /// Filled against resting orders.
    Taker,
}
