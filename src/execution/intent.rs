//! Intents: trades with their keys (C3), quantities and locks, and the insertion that makes them idempotent.

use std::collections::BTreeMap;

use super::{Violation, ledger, paper};
use crate::{
    model::{
        AMOUNT_ENTRY_MAX, CoordinatorState, Decimal, DecisionId, DegradationLevel, EmergencyKey, Event, ExitCause,
        Lock, Money, OrderBody, OrderType, Position, PositionSide, Price, Qty, Side, State, Symbol, SymbolRules,
        TimeInForce, Trade, TradeKey, TradeKind, TradeState, Ts, state::TradeStub,
    },
    risk::view::refuses_entries,
    settings::{EntryOrderType, ExecutionSettings},
};

/// An entry as decided: the quantity risk approved and prices in quote units.
#[derive(Clone, PartialEq, Debug)]
pub struct EntryOrder {
    /// The decision it comes from.
    pub decision: DecisionId,
    /// Plan part of the key: `task:symbol:slot`, or `task:symbol:manual:<command>` when forced.
    pub slot: String,
    /// 0 for the order, 1… for replacements by the pipeline.
    pub replacement: u32,
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy, or sell where the account can be short.
    pub side: Side,
    /// Base units; floored to the symbol's step.
    pub quantity: Qty,
    /// The signal's entry price.
    pub entry: Price,
    /// Newest price: what a market order's lock is computed from.
    pub market: Price,
    /// Protective stop.
    pub stop: Option<Price>,
    /// Target.
    pub target: Option<Price>,
    /// Spot: 1.
    pub leverage: u32,
}

/// What an exit is made for; each has its own key (C3).
#[derive(Clone, PartialEq, Debug)]
pub enum ExitFor {
    /// Supervision or a signal: key of (position, cause), sequence of exits.
    Cause(ExitCause),
    /// A step of an emergency: key of the instance, position and attempt. The quantity is current − target.
    Emergency(EmergencyKey, u32),
}

/// What the key of a trade is made of.
struct KeyParts {
    kind: TradeKind,
    plan: String,
    leg: String,
    cause: Option<ExitCause>,
}

/// Builds the INTENT of an entry: quantity floored, limit rounded in the trader's disfavour of filling, funds to lock.
/// Absent funds or a quantity below the minimum are not judged here: see [`insert`] and [`unaffordable`].
///
/// # Errors
/// A price that is no price, or a value too large to represent.
pub fn entry(
    store: uuid::Uuid,
    order: &EntryOrder,
    rules: &SymbolRules,
    execution: &ExecutionSettings,
    now: Ts,
) -> Result<Trade, Violation> {
    let reference = match execution.entry_order_type {
        EntryOrderType::Limit => match order.side {
            Side::Buy => rules.price_down(order.entry),
            Side::Sell => rules.price_up(order.entry),
        },
        EntryOrderType::Market => order.market,
    };
    let quantity = rules.floor_quantity(order.quantity);
    let order_type = match execution.entry_order_type {
        EntryOrderType::Limit => OrderType::Limit { limit: reference },
        EntryOrderType::Market => OrderType::Market,
    };
    let body = OrderBody {
        symbol: order.symbol,
        side: order.side,
        quantity,
        order_type,
        time_in_force: execution.time_in_force,
        stop: order.stop,
        target: order.target,
        leverage: order.leverage,
        position: None,
        exit_cause: None,
    };
    let parts = KeyParts {
        kind: TradeKind::Decision,
        plan: order.slot.clone(),
        leg: order.replacement.to_string(),
        cause: None,
    };
    let mut trade = trade(store, parts, body, now);
    trade.decision = Some(order.decision);
    trade.lock = lock(&trade.body, order.market, execution)?;
    Ok(trade)
}

/// `notional / price`, floored to the symbol's step.
///
/// # Errors
/// When the price is not above zero or the quantity cannot be represented.
pub fn quantity_for(notional: Money, price: Price, rules: &SymbolRules) -> Result<Qty, Violation> {
    let quantity = (price > Price::ZERO).then(|| notional.checked_div(price)).flatten();
    quantity
        .map(|quantity| rules.floor_quantity(quantity.max(Qty::ZERO)))
        .ok_or_else(|| Violation(format!("{notional} at a price of {price} gives no quantity")))
}

/// Builds the INTENT of an exit: a market order that only decreases `position`. What would remain below the symbol's
/// minimum is closed as well, because it could never be sold alone.
///
/// # Errors
/// A quantity that is not above zero.
pub fn exit(
    store: uuid::Uuid,
    position: &Position,
    purpose: ExitFor,
    quantity: Qty,
    rules: &SymbolRules,
    now: Ts,
) -> Result<Trade, Violation> {
    let floored = rules.floor_quantity(quantity.min(position.quantity));
    let rest = position.quantity - floored;
    let quantity = if rest < rules.min_quantity || floored.is_zero() { position.quantity } else { floored };
    if quantity <= Qty::ZERO {
        return Err(Violation(format!("position {} has nothing to close", position.id)));
    }
    let parts = match purpose {
        ExitFor::Cause(cause) => KeyParts {
            kind: TradeKind::Exit,
            plan: format!("{}:{}", position.id, cause_name(cause)),
            leg: position.exit_seq.to_string(),
            cause: Some(cause),
        },
        ExitFor::Emergency(key, attempt) => KeyParts {
            kind: TradeKind::Emergency,
            plan: key.to_string(),
            // The first step carries the position alone; a step after a failed trade needs a key of its own.
            leg: if attempt == 0 { position.id.to_string() } else { format!("{}:{attempt}", position.id) },
            cause: Some(ExitCause::Emergency),
        },
    };
    let side = match position.side {
        PositionSide::Long => Side::Sell,
        PositionSide::Short => Side::Buy,
    };
    let body = OrderBody {
        symbol: position.symbol,
        side,
        quantity,
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        stop: None,
        target: None,
        leverage: position.leverage,
        position: Some(position.id),
        exit_cause: parts.cause,
    };
    let mut trade = trade(store, parts, body, now);
    trade.lock = Some(Lock { asset: position.symbol.base, amount: quantity });
    Ok(trade)
}

/// Name of a cause as hashed into exit keys.
pub const fn cause_name(cause: ExitCause) -> &'static str {
    match cause {
        ExitCause::Stop => "stop",
        ExitCause::Target => "target",
        ExitCause::Trailing => "trailing",
        ExitCause::Time => "time",
        ExitCause::Signal => "signal",
        ExitCause::Emergency => "emergency",
        ExitCause::Operator => "operator",
    }
}

fn trade(store: uuid::Uuid, parts: KeyParts, body: OrderBody, now: Ts) -> Trade {
    let key = TradeKey::derive(store, parts.kind, &parts.plan, &parts.leg, body.symbol, body.side);
    new_trade(key, parts.kind, parts.plan, parts.leg, body, now)
}

/// A trade in INTENT with nothing locked or filled.
pub(super) fn new_trade(key: TradeKey, kind: TradeKind, plan: String, leg: String, body: OrderBody, now: Ts) -> Trade {
    Trade {
        key,
        kind,
        plan,
        leg,
        decision: None,
        body,
        state: TradeState::Intent,
        lock: None,
        attempt: 0,
        created_at: now,
        acked_at: None,
        expires_at: None,
        retry_at: None,
        filled: Decimal::ZERO,
        filled_value: Decimal::ZERO,
        fees: Decimal::ZERO,
        fills: 0,
        remote: None,
        resolution: None,
    }
}

pub(super) fn lock(body: &OrderBody, market: Price, execution: &ExecutionSettings) -> Result<Option<Lock>, Violation> {
    let lock = ledger::lock_for(body, market, &execution.paper);
    lock.map(Some).ok_or_else(|| Violation(format!("the value of {} {} is too large", body.quantity, body.symbol)))
}

/// What became of an insertion.
#[derive(Clone, PartialEq, Debug)]
pub enum Insertion {
    /// The key is new: commit this event.
    New(Box<Event>),
    /// The key exists with the same body: this is the first trade.
    Existing(TradeStub),
    /// The key exists with another body: nothing is done, the alert says so.
    Conflict(Box<Event>),
}

/// Inserts a trade by its key. The same key with the same body returns the first trade, with another body it is
/// refused with an alert. A pending leg of a plan is claimed by its own key.
pub fn insert(state: &State, trade: Trade) -> Insertion {
    match state.trade_index.get(&trade.key) {
        None => {}
        Some(stub) if stub.state == TradeState::Planned => {}
        Some(stub) if stub.body_hash == trade.body.hash() => return Insertion::Existing(*stub),
        Some(stub) => {
            let facts = BTreeMap::from([
                ("trade_key".to_owned(), trade.key.to_string()),
                ("stored_body".to_owned(), format!("{:016x}", stub.body_hash)),
                ("new_body".to_owned(), format!("{:016x}", trade.body.hash())),
                ("refused".to_owned(), "the key was used for another order".to_owned()),
            ]);
            return Insertion::Conflict(Box::new(Event::Noted { what: "trade_key_conflict".into(), facts }));
        }
    }
    Insertion::New(Box::new(Event::TradeIntent { trade: Box::new(trade) }))
}

/// Why the order cannot be made (minimum, funds, books that are full), or nothing. Closing a whole position is never too
/// small, nor too much.
pub fn unaffordable(state: &State, trade: &Trade, rules: &SymbolRules) -> Option<String> {
    if trade.body.quantity < rules.min_quantity && trade.body.position.is_none() {
        let (quantity, min) = (trade.body.quantity, rules.min_quantity);
        return Some(format!("{}: {quantity} is below the minimum of {min}", paper::BELOW_MINIMUM));
    }
    if trade.body.position.is_none()
        && let Some((asset, account, sum)) = ledger::nearly_full(state, trade.body.symbol)
    {
        let code = paper::AMOUNT_TOO_LARGE;
        return Some(format!(
            "{code}: {account:?} of {asset} is {sum}; no order adds to it from {AMOUNT_ENTRY_MAX} on"
        ));
    }
    let lock = trade.lock?;
    let has = match trade.body.position {
        Some(_) => state.account.free(lock.asset),
        None => ledger::spendable(state, lock.asset),
    };
    (lock.amount > has)
        .then(|| format!("{}: {} {} needed, {has} free", paper::INSUFFICIENT_FUNDS, lock.amount, lock.asset))
}

/// The events of an order that is refused before it is sent: rejected once, nothing locked, nothing moved.
pub fn refuse(mut trade: Trade, reason: String, now: Ts) -> Vec<Event> {
    let trade_key = trade.key;
    trade.lock = None;
    vec![
        Event::TradeIntent { trade: Box::new(trade) },
        Event::TradeSubmitting { trade_key, attempt: 1, deadline: now, reference: None },
        Event::TradeRejected { trade_key, reason },
    ]
}

/// Does a trade of unknown fate forbid entries of this symbol?
pub fn is_blocked(state: &State, symbol: Symbol) -> bool {
    state
        .trades
        .values()
        .any(|t| t.body.symbol == symbol && matches!(t.state, TradeState::Unknown | TradeState::Manual))
}

/// Why no entry may be made at this instant (invariant 7).
pub fn gate(state: &State, symbol: Symbol, level: DegradationLevel) -> Option<&'static str> {
    match state.coordinator.state {
        CoordinatorState::Paused => Some("paused"),
        CoordinatorState::Halted => Some("halted"),
        CoordinatorState::Running if level >= DegradationLevel::Limited => Some("degraded"),
        CoordinatorState::Running if is_blocked(state, symbol) => Some("order_unknown"),
        CoordinatorState::Running if state.risk.latched.keys().any(|kind| refuses_entries(*kind)) => Some("breaker"),
        CoordinatorState::Running => None,
    }
}

/// The cancels of living entry orders of `symbol`: a new signal replaces them, after the cancel is durable.
pub fn cancel_entries(state: &State, symbol: Option<Symbol>, reason: &str) -> Vec<Event> {
    let living = |t: &&Trade| t.is_entry() && matches!(t.state, TradeState::Acked | TradeState::Partial);
    state
        .trades
        .values()
        .filter(living)
        .filter(|t| symbol.is_none_or(|symbol| t.body.symbol == symbol))
        .filter(|t| t.remote.as_ref().is_none_or(|remote| remote.cancel.is_none()))
        .map(|t| t.cancelled(reason))
        .collect()
}

#[cfg(test)]
#[path = "intent_tests.rs"]
mod tests;
