//! The paper venue as a pure function: an order, a price and an instant give a fill, a rest or a refusal.
//!
//! Every draw comes from a generator seeded by the trade key and the number of the fill, so a repeated execution at the
//! same price gives the identical fill. Closed candles are evidence as well as ticks: what helps the trader counts only
//! from candles that started when the order rested already.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{ledger, venue::VenueAnswer};
use crate::{
    model::{
        Decimal, ExitCause, Liquidity, Money, OrderType, Price, PriceTick, Qty, Side, SymbolRules, TimeInForce, Trade,
        TradeState, Ts, time::HOUR_MS,
    },
    settings::{ExecutionSettings, PartialFillSettings},
};

/// Reason of orders without a usable price.
pub const PRICE_STALE: &str = "PRICE_STALE";
/// Reason of orders the account cannot pay.
pub const INSUFFICIENT_FUNDS: &str = "INSUFFICIENT_FUNDS";
/// More than the books can hold exactly.
pub const AMOUNT_TOO_LARGE: &str = "AMOUNT_TOO_LARGE";
/// Reason of orders smaller than the symbol allows.
pub const BELOW_MINIMUM: &str = "BELOW_MINIMUM";

/// One fill as the venue reports it.
#[derive(Clone, PartialEq, Debug)]
pub struct VenueFill {
    /// Base units.
    pub quantity: Qty,
    /// Quote units per base unit.
    pub price: Price,
    /// quantity × price.
    pub value: Money,
    /// Quote units.
    pub fee: Money,
    /// Maker or taker.
    pub liquidity: Liquidity,
    /// Feed and number of the price used.
    pub price_id: String,
    /// What proves the fill when it did not happen at the current price.
    pub evidence: Option<String>,
    /// The venue's own id; absent at the paper venue, where the number of the fill is its id.
    pub venue_fill: Option<Box<str>>,
}

/// What matching needs to know besides the order.
#[derive(Clone, Copy)]
pub struct PaperContext<'a> {
    /// Latency, slippage, fees, expiry.
    pub execution: &'a ExecutionSettings,
    /// Rounding and minimum of the order's symbol.
    pub rules: &'a SymbolRules,
    /// Feed name, the first part of price ids.
    pub feed: &'a str,
    /// Oldest usable price, milliseconds.
    pub price_max_age_ms: i64,
}

/// u in [0.5, 1.0) with 9 decimals, and the partial-fill draw in [0, 1) twice, for fill number `trade.fills`.
fn draws(trade: &Trade) -> (Decimal, f64, f64) {
    let mut random = ChaCha8Rng::from_seed(trade.key.seed());
    random.set_stream(u64::from(trade.fills));
    let u = Decimal::new(500_000_000 + (random.next_u64() % 500_000_000) as i64, 9);
    let mut unit = || (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    (u, unit(), unit())
}

/// The market price moved against the trader by `slippage_pct × u`, rounded to the symbol's decimals against the trader.
/// Absent when the result is no usable price.
pub fn slipped(price: Price, side: Side, slippage_pct: Decimal, u: Decimal, rules: &SymbolRules) -> Option<Price> {
    let share = slippage_pct.checked_mul(u)?.checked_div(Decimal::ONE_HUNDRED)?;
    let moved = match side {
        Side::Buy => rules.price_up(price.checked_mul(Decimal::ONE.checked_add(share)?)?),
        Side::Sell => rules.price_down(price.checked_mul(Decimal::ONE.checked_sub(share)?)?),
    };
    (moved > Price::ZERO).then_some(moved)
}

/// The instant an accepted order is matched. A stop, target or trailing stop is a level the venue watches: it has no
/// way to go when it triggers.
pub fn match_at(trade: &Trade, execution: &ExecutionSettings) -> Ts {
    match trade.body.exit_cause {
        Some(ExitCause::Stop | ExitCause::Target | ExitCause::Trailing) => trade.created_at,
        _ => trade.created_at.plus_ms(i64::from(execution.paper.latency_ms)),
    }
}

/// Is the price usable at `now`: known, above zero and not older than the limit (inclusive)?
pub fn is_fresh(tick: &PriceTick, now: Ts, max_age_ms: i64) -> bool {
    tick.price > Price::ZERO && now.since_ms(tick.at) <= max_age_ms
}

/// Executes an order. Orders that rest already (ACKED, or a PARTIAL limit) are matched as resting ones; `Resting` then
/// means that nothing changed.
pub fn execute(trade: &Trade, price: Option<&PriceTick>, now: Ts, context: &PaperContext<'_>) -> VenueAnswer {
    let resting = matches!(trade.state, TradeState::Acked)
        || (trade.state == TradeState::Partial && matches!(trade.body.order_type, OrderType::Limit { .. }));
    if resting {
        return match price.and_then(|tick| resting_fill(trade, tick, now, context)) {
            Some(fill) => VenueAnswer::Filled(fill),
            None => VenueAnswer::Resting { expires_at: trade.expires_at },
        };
    }
    if trade.body.quantity < context.rules.min_quantity && trade.body.position.is_none() {
        let min = context.rules.min_quantity;
        return rejected(BELOW_MINIMUM, format!("{} is below the minimum of {min}", trade.body.quantity));
    }
    let until = match_at(trade, context.execution);
    if now < until {
        return VenueAnswer::TooEarly { until };
    }
    let Some(tick) = price.filter(|tick| is_fresh(tick, now, context.price_max_age_ms)) else {
        let limit = context.price_max_age_ms / 1_000;
        return rejected(PRICE_STALE, format!("no price of {} within {limit} s", trade.body.symbol));
    };
    let (u, chance, fraction) = draws(trade);
    let Some(market) = slipped(tick.price, trade.body.side, context.execution.paper.slippage_pct, u, context.rules)
    else {
        return rejected(PRICE_STALE, format!("{} is no price an order can fill at", tick.price));
    };
    let at = match trade.body.order_type {
        OrderType::Market => market,
        OrderType::Limit { limit } if !marketable(trade.body.side, tick.price, limit) => {
            return match trade.body.time_in_force {
                TimeInForce::Gtc => VenueAnswer::Resting { expires_at: Some(expiry(trade, context.execution)) },
                TimeInForce::Ioc => VenueAnswer::Cancelled { reason: "nothing to fill at once (IOC)".into() },
            };
        }
        OrderType::Limit { limit } if trade.body.side == Side::Buy => market.min(limit),
        OrderType::Limit { limit } => market.max(limit),
    };
    let quantity = drawn_quantity(trade, &context.execution.paper.partial_fills, chance, fraction, context.rules);
    fill(quantity, at, Liquidity::Taker, tick, context)
        .map_or_else(|| rejected(INSUFFICIENT_FUNDS, "the order's value is too large".into()), VenueAnswer::Filled)
}

fn rejected(code: &str, facts: String) -> VenueAnswer {
    VenueAnswer::Rejected { reason: format!("{code}: {facts}") }
}

fn marketable(side: Side, market: Price, limit: Price) -> bool {
    match side {
        Side::Buy => market <= limit,
        Side::Sell => market >= limit,
    }
}

/// When a limit order of this trade ends by itself.
pub fn expiry(trade: &Trade, execution: &ExecutionSettings) -> Ts {
    trade.created_at.plus_ms(i64::from(execution.limit_order_expiry_hours) * HOUR_MS)
}

/// Has a resting order reached its end?
pub fn is_expired(trade: &Trade, now: Ts) -> bool {
    trade.expires_at.is_some_and(|at| now >= at)
}

/// Did the market trade through the limit since the order rested? A price at the limit is not through it.
pub fn crossed(trade: &Trade, tick: &PriceTick) -> bool {
    let (OrderType::Limit { limit }, Some(since)) = (trade.body.order_type, trade.acked_at) else { return false };
    if tick.symbol != trade.body.symbol || tick.at < since || trade.expires_at.is_some_and(|end| tick.at > end) {
        return false;
    }
    let range = tick.range.filter(|range| range.from >= since);
    match trade.body.side {
        Side::Buy => tick.price < limit || range.is_some_and(|range| range.low < limit),
        Side::Sell => tick.price > limit || range.is_some_and(|range| range.high > limit),
    }
}

/// The fill of a resting limit order the market traded through: at the limit, as maker.
pub fn resting_fill(trade: &Trade, tick: &PriceTick, now: Ts, context: &PaperContext<'_>) -> Option<VenueFill> {
    let OrderType::Limit { limit } = trade.body.order_type else { return None };
    if !crossed(trade, tick) || !is_fresh(tick, now, context.price_max_age_ms) {
        return None;
    }
    let (_, chance, fraction) = draws(trade);
    let quantity = drawn_quantity(trade, &context.execution.paper.partial_fills, chance, fraction, context.rules);
    fill(quantity, limit, Liquidity::Maker, tick, context)
}

/// All that remains, or a part of it when partial fills are on and drawn. A part too small to exist is not made.
fn drawn_quantity(
    trade: &Trade,
    partial: &PartialFillSettings,
    chance: f64,
    fraction: f64,
    rules: &SymbolRules,
) -> Qty {
    let remaining = trade.remaining();
    if !partial.enabled || chance >= partial.chance {
        return remaining;
    }
    let share = partial.min_fraction + (partial.max_fraction - partial.min_fraction) * fraction;
    let Ok(share) = Decimal::try_from(share) else { return remaining };
    let part = remaining.checked_mul(share).map_or(remaining, |part| rules.floor_quantity(part));
    if part > Qty::ZERO && part < remaining { part } else { remaining }
}

fn fill(
    quantity: Qty,
    price: Price,
    liquidity: Liquidity,
    tick: &PriceTick,
    context: &PaperContext<'_>,
) -> Option<VenueFill> {
    let paper = &context.execution.paper;
    let rate = match liquidity {
        Liquidity::Maker => paper.maker_fee_pct,
        Liquidity::Taker => paper.taker_fee_pct,
    };
    let value = ledger::value_of(quantity, price)?;
    let fee = ledger::fee_of(value, rate)?;
    let price_id = format!("{}:{}", context.feed, tick.price_id);
    Some(VenueFill { quantity, price, value, fee, liquidity, price_id, evidence: None, venue_fill: None })
}

#[cfg(test)]
#[path = "paper_tests.rs"]
mod tests;
