//! Money of a fill: value, fee, postings, locks, cost basis, and the identity that holds after every event.
//!
//! For every asset: free + locked = deposits + bought − sold + realised − fees − at_cost, exact to the last unit.
//! Amounts carry at most [`MONEY_DECIMALS`] decimals, so that sums of them never round. Units that were paid in have no
//! cost here: selling them realises their whole value.

use rust_decimal::RoundingStrategy;

use super::Violation;
use crate::{
    model::{
        AMOUNT_ENTRY_MAX, Asset, Decimal, LedgerAccount, Lock, Money, OrderBody, OrderType, Posting, Price, Qty, Side,
        State, Symbol, Trade,
    },
    settings::PaperSettings,
};

/// Decimals of value, fee and cost: 8 of a quantity + 2 of a price + 4 of a fee rate. Exact for every default symbol.
pub const MONEY_DECIMALS: u32 = 14;

/// `quantity × price`, rounded up beyond [`MONEY_DECIMALS`]; absent when it is too large to represent.
pub fn value_of(quantity: Qty, price: Price) -> Option<Money> {
    quantity.checked_mul(price).map(round_up)
}

/// `value × percent / 100`, rounded up (against the trader); absent when it is too large to represent.
pub fn fee_of(value: Money, percent: Decimal) -> Option<Money> {
    value.checked_mul(percent.checked_div(Decimal::ONE_HUNDRED)?).map(round_up)
}

fn round_up(amount: Money) -> Money {
    amount.round_dp_with_strategy(MONEY_DECIMALS, RoundingStrategy::AwayFromZero)
}

/// The part of `cost` that leaves with `quantity` of `held`. The rounding remainder stays with the rest; the last
/// unit takes all that is left.
pub fn cost_out(held: Qty, cost: Money, quantity: Qty) -> Money {
    if quantity >= held {
        return cost;
    }
    // quantity < held, so held is not zero and the share is below 1.
    (cost * (quantity / held)).round_dp_with_strategy(MONEY_DECIMALS, RoundingStrategy::ToZero)
}

/// What is taken out of the free balance while an order lives: of a buy its value at the worst price plus the taker
/// fee, of a sell the base quantity. `market` is the price a market order was decided on.
pub fn lock_for(body: &OrderBody, market: Price, paper: &PaperSettings) -> Option<Lock> {
    if body.side == Side::Sell {
        return Some(Lock { asset: body.symbol.base, amount: body.quantity });
    }
    let worst = match body.order_type {
        OrderType::Limit { limit } => limit,
        OrderType::Market => market.checked_mul(slippage_factor(paper)?)?,
    };
    let value = value_of(body.quantity, worst)?;
    let amount = value.checked_add(fee_of(value, paper.taker_fee_pct.max(paper.maker_fee_pct))?)?;
    Some(Lock { asset: body.symbol.quote, amount })
}

/// 1 + the largest slippage.
pub fn slippage_factor(paper: &PaperSettings) -> Option<Decimal> {
    paper.slippage_pct.checked_div(Decimal::ONE_HUNDRED)?.checked_add(Decimal::ONE)
}

/// Free units of `asset` that no open position owns: what entries and legs may spend. Positions are few by limit.
pub fn spendable(state: &State, asset: Asset) -> Money {
    let owned: Qty = state.positions.values().filter(|p| p.symbol.base == asset).map(|p| p.quantity).sum();
    // The quantity a position's exit has locked is no longer in the free balance.
    let exiting: Qty = state
        .trades
        .values()
        .filter(|t| t.body.position.is_some())
        .filter_map(|t| t.lock)
        .filter(|lock| lock.asset == asset)
        .map(|lock| lock.amount)
        .sum();
    (state.account.free(asset) - (owned - exiting).max(Money::ZERO)).max(Money::ZERO)
}

/// The first account of the symbol's assets that holds [`AMOUNT_ENTRY_MAX`] or more.
pub fn nearly_full(state: &State, symbol: Symbol) -> Option<(Asset, LedgerAccount, Money)> {
    [symbol.base, symbol.quote].into_iter().find_map(|asset| {
        let accounts = state.account.ledger.get(&asset)?;
        let full = accounts.iter().find(|(_, sum)| sum.abs() >= AMOUNT_ENTRY_MAX);
        full.map(|(account, sum)| (asset, *account, *sum))
    })
}

/// What one fill moves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct FillMoney {
    /// Which symbol.
    pub symbol: Symbol,
    /// Buy or sell.
    pub side: Side,
    /// Base units.
    pub quantity: Qty,
    /// Quote units.
    pub value: Money,
    /// Quote units.
    pub fee: Money,
    /// Sells: what had been paid for `quantity`, quote units.
    pub cost: Money,
    /// What the trade still holds locked in the asset it spends.
    pub locked: Money,
}

/// The double entry of a fill. A buy that costs more than its lock takes the rest from the free balance.
pub fn postings(fill: &FillMoney) -> Vec<Posting> {
    let (base, quote) = (fill.symbol.base, fill.symbol.quote);
    let spent = match fill.side {
        Side::Buy => fill.value + fill.fee,
        Side::Sell => fill.quantity,
    };
    let from_lock = spent.min(fill.locked);
    let mut list = Vec::with_capacity(8);
    let mut post = |asset, account, amount: Money| {
        if !amount.is_zero() {
            list.push(Posting { asset, account, amount });
        }
    };
    match fill.side {
        Side::Buy => {
            post(quote, LedgerAccount::Locked, -from_lock);
            post(quote, LedgerAccount::Free, from_lock - spent);
            post(quote, LedgerAccount::AtCost, fill.value);
            post(quote, LedgerAccount::Fees, fill.fee);
            post(base, LedgerAccount::Free, fill.quantity);
            post(base, LedgerAccount::Bought, fill.quantity);
        }
        Side::Sell => {
            post(base, LedgerAccount::Locked, -from_lock);
            post(base, LedgerAccount::Free, from_lock - spent);
            post(base, LedgerAccount::Sold, fill.quantity);
            post(quote, LedgerAccount::Free, fill.value - fill.fee);
            post(quote, LedgerAccount::AtCost, -fill.cost);
            post(quote, LedgerAccount::Realised, fill.value - fill.cost);
            post(quote, LedgerAccount::Fees, fill.fee);
        }
    }
    list
}

/// What the inventory lot of `symbol` gives up when `quantity` is sold.
pub fn inventory_cost_out(state: &State, symbol: Symbol, quantity: Qty) -> Money {
    state.account.inventory_cost.get(&symbol).map_or(Money::ZERO, |lot| cost_out(lot.quantity, lot.cost, quantity))
}

/// The funds a trade could still add to its lock. `trade` may or may not be part of the state yet.
pub fn beyond_lock(state: &State, trade: &Trade) -> Money {
    let Some(lock) = trade.lock else { return Money::ZERO };
    let pending = if state.trades.contains_key(&trade.key) { Money::ZERO } else { lock.amount };
    (spendable(state, lock.asset) - pending).max(Money::ZERO)
}

/// Checks the identity of every asset, that locks equal the living orders' and that what is at cost equals positions
/// and inventory.
///
/// # Errors
/// The first contradiction, with both sides of it.
pub fn check_conservation(state: &State) -> Result<(), Violation> {
    for (asset, ledger) in &state.account.ledger {
        let of = |account| ledger.get(&account).copied().unwrap_or_default();
        use LedgerAccount::*;
        let held = of(Free) + of(Locked);
        let explained = of(Deposits) + of(Bought) - of(Sold) + of(Realised) - of(Fees) - of(AtCost);
        expect(*asset, "free + locked", held, "deposits + bought − sold + realised − fees − at cost", explained)?;
        if of(Free) < Money::ZERO || of(Locked) < Money::ZERO {
            return Err(Violation(format!("{asset} is below zero: free {}, locked {}", of(Free), of(Locked))));
        }
        let locks: Money =
            state.trades.values().filter_map(|t| t.lock).filter(|l| l.asset == *asset).map(|l| l.amount).sum();
        expect(*asset, "locked", of(Locked), "locks of living orders", locks)?;
        let positions: Money = state.positions.values().filter(|p| p.symbol.quote == *asset).map(|p| p.cost).sum();
        let lots = state.account.inventory_cost.iter().filter(|(symbol, _)| symbol.quote == *asset);
        let inventory: Money = lots.map(|(_, lot)| lot.cost).sum();
        expect(*asset, "at cost", of(AtCost), "cost of positions and inventory", positions + inventory)?;
        let owned: Qty = state.positions.values().filter(|p| p.symbol.base == *asset).map(|p| p.quantity).sum();
        if owned > held {
            return Err(Violation(format!("positions own {owned} {asset} of {held} held")));
        }
    }
    Ok(())
}

fn expect(asset: Asset, left: &str, a: Money, right: &str, b: Money) -> Result<(), Violation> {
    if a == b { Ok(()) } else { Err(Violation(format!("{asset}: {left} is {a}, {right} is {b}"))) }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
