//! From due legs to trades: sells by what the inventory holds, buys shrunk pro rata when the free quote is short.

use std::collections::BTreeMap;

use super::{Violation, intent, ledger};
use crate::{
    model::{
        Decimal, Event, Leg, Money, OrderBody, OrderType, Plan, PriceTick, Side, State, Symbol, SymbolRules,
        TimeInForce, Trade, TradeKey, TradeKind, TradeState, Ts,
    },
    settings::ExecutionSettings,
};

/// What a leg becomes.
#[derive(Clone, PartialEq, Debug)]
pub enum LegOrder {
    /// Its trade, to be inserted as INTENT.
    Intent(Box<Trade>),
    /// Too small or not affordable: refused once, with all its events.
    Refused(Vec<Event>),
    /// No fresh price, or no rules: the leg stays PLANNED.
    NoPrice(TradeKey),
}

/// The leg part of its key: batch index and asset.
pub fn leg_name(leg: &Leg) -> String {
    format!("{}:{}", leg.batch, leg.asset)
}

/// What leg orders are built from.
#[derive(Clone, Copy)]
pub struct LegDesk<'a> {
    /// Slippage and fees.
    pub execution: &'a ExecutionSettings,
    /// Rounding and minimum by symbol.
    pub rules: &'a BTreeMap<Symbol, SymbolRules>,
    /// Newest fresh price by symbol; legs trade against the account currency.
    pub prices: &'a BTreeMap<Symbol, PriceTick>,
    /// The instant of the step.
    pub now: Ts,
}

/// Builds the orders of `keys` (legs of one side of one batch). Buys that need more than the spendable quote shrink by
/// one common factor.
///
/// # Errors
/// A key that is no pending leg of the plan.
pub fn orders(state: &State, plan: &Plan, keys: &[TradeKey], desk: &LegDesk<'_>) -> Result<Vec<LegOrder>, Violation> {
    let mut legs = Vec::with_capacity(keys.len());
    for key in keys {
        let leg = plan.legs.iter().find(|leg| leg.key == *key && leg.state == TradeState::Planned);
        legs.push(leg.ok_or_else(|| Violation(format!("leg {} is not pending", key.short())))?);
    }
    let share = shrink_factor(state, &legs, desk);
    legs.into_iter().map(|leg| order(state, plan, leg, share, desk)).collect()
}

/// What one unit of a buy's amount may need of the quote at worst: value at the largest slippage, and the taker fee.
fn worst_case(execution: &ExecutionSettings) -> Option<Decimal> {
    let fee = execution.paper.taker_fee_pct.max(execution.paper.maker_fee_pct);
    let with_fee = Decimal::ONE.checked_add(fee.checked_div(Decimal::ONE_HUNDRED)?)?;
    ledger::slippage_factor(&execution.paper)?.checked_mul(with_fee)
}

fn shrink_factor(state: &State, legs: &[&Leg], desk: &LegDesk<'_>) -> Decimal {
    let buys = || legs.iter().filter(|leg| leg.side == Side::Buy);
    let Some(quote) = buys().next().map(|leg| leg.symbol.quote) else { return Decimal::ONE };
    let amount: Money = buys().map(|leg| leg.amount).sum();
    let needed = worst_case(desk.execution).and_then(|worst| amount.checked_mul(worst)).unwrap_or(amount);
    let free = ledger::spendable(state, quote);
    if needed <= free { Decimal::ONE } else { free.checked_div(needed).unwrap_or_default() }
}

fn order(state: &State, plan: &Plan, leg: &Leg, share: Decimal, desk: &LegDesk<'_>) -> Result<LegOrder, Violation> {
    // A symbol whose rules have left the settings is like one without a price: its legs wait until they are too late.
    let (Some(rules), Some(tick)) = (desk.rules.get(&leg.symbol), desk.prices.get(&leg.symbol)) else {
        return Ok(LegOrder::NoPrice(leg.key));
    };
    let wanted = intent::quantity_for(amount_of(leg, share), tick.price, rules)?;
    let quantity = match leg.side {
        Side::Buy => wanted,
        Side::Sell => wanted.min(rules.floor_quantity(ledger::spendable(state, leg.symbol.base))),
    };
    let body = OrderBody {
        symbol: leg.symbol,
        side: leg.side,
        quantity,
        order_type: OrderType::Market,
        time_in_force: TimeInForce::Gtc,
        stop: None,
        target: None,
        leverage: 1,
        position: None,
        exit_cause: None,
    };
    let mut trade =
        intent::new_trade(leg.key, TradeKind::Rebalance, plan.id.to_string(), leg_name(leg), body, desk.now);
    trade.lock = intent::lock(&trade.body, tick.price, desk.execution)?;
    Ok(match intent::unaffordable(state, &trade, rules) {
        Some(reason) => LegOrder::Refused(intent::refuse(trade, reason, desk.now)),
        None => LegOrder::Intent(Box::new(trade)),
    })
}

fn amount_of(leg: &Leg, share: Decimal) -> Money {
    match leg.side {
        Side::Buy => leg.amount.checked_mul(share).unwrap_or_default(),
        Side::Sell => leg.amount,
    }
}

/// The end of a plan of which every leg is terminal. What entries have to wait for afterwards is derived from the plan
/// by risk, asset by asset.
pub fn completion(plan: &Plan) -> Event {
    Event::PlanCompleted { plan: plan.id }
}

#[cfg(test)]
#[path = "leg_orders_tests.rs"]
mod tests;
