//! What the program owns, by asset, as the rebalancer sees it (domain §12): always its own account, in every mode.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use super::contract::{PRICE_MISSING, Refusal};
use crate::{
    model::{
        Asset, FailClass, LedgerAccount, Money, Position, PositionId, PositionSide, Price, PriceTick, Qty, Symbol, Ts,
        state::Account,
    },
    settings::PortfolioSettings,
};

/// Account, trading positions and prices at one instant.
#[derive(Clone, PartialEq, Debug)]
pub struct PortfolioView {
    /// What everything is valued in and every leg trades against.
    pub currency: Asset,
    /// Free and locked balance by asset.
    pub balances: BTreeMap<Asset, Qty>,
    /// Long-term holdings by asset, left alone.
    pub hodl: BTreeMap<Asset, Qty>,
    /// Base quantity owned by open spot positions, by symbol.
    pub trading: BTreeMap<Symbol, Qty>,
    /// Newest price by symbol with the time it was true.
    pub prices: BTreeMap<Symbol, (Price, Ts)>,
}

impl PortfolioView {
    /// The view of the program's own account. This release has no hodl bags, so none is set aside.
    pub fn of(
        account: &Account,
        positions: &BTreeMap<PositionId, Position>,
        prices: impl IntoIterator<Item = PriceTick>,
        currency: Asset,
    ) -> PortfolioView {
        let held = |accounts: &BTreeMap<LedgerAccount, Money>| -> Qty {
            [LedgerAccount::Free, LedgerAccount::Locked].iter().filter_map(|name| accounts.get(name)).sum()
        };
        let mut trading: BTreeMap<Symbol, Qty> = BTreeMap::new();
        for position in positions.values().filter(|position| position.side == PositionSide::Long) {
            *trading.entry(position.symbol).or_default() += position.quantity;
        }
        PortfolioView {
            currency,
            balances: account.ledger.iter().map(|(asset, accounts)| (*asset, held(accounts))).collect(),
            hodl: BTreeMap::new(),
            trading,
            prices: prices.into_iter().map(|tick| (tick.symbol, (tick.price, tick.at))).collect(),
        }
    }
}

/// Values by target asset in the view's currency, and what was left aside.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Valuation {
    /// Inventory of each target asset; positions count to the asset they were paid with.
    pub(crate) values: BTreeMap<Asset, Money>,
    /// Sum of `values`.
    pub(crate) total: Money,
    /// Assets held without a target: not counted, not traded, but said.
    pub(crate) untargeted: Vec<Asset>,
}

/// Prices old at most `max_age_ms` count as fresh at `now`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Freshness {
    pub(crate) now: Ts,
    pub(crate) max_age_ms: i64,
}

/// Values the inventory of every target asset.
///
/// # Errors
/// Abstains `price_missing` when the price of a target asset or of an open position is absent or stale; fails when a
/// target asset does not trade against the currency, or a value leaves the decimal range.
pub(crate) fn valuate(
    view: &PortfolioView,
    symbols: &[Symbol],
    settings: &PortfolioSettings,
    freshness: Freshness,
) -> Result<Valuation, Refusal> {
    let mut values = BTreeMap::new();
    for asset in settings.targets.keys() {
        let quantity = inventory(view, *asset);
        values.insert(*asset, worth(view, symbols, *asset, quantity, freshness)?);
    }
    // A position is quote at work: its value belongs to the asset it was paid with, so that opening one moves nothing.
    for (symbol, quantity) in view.trading.iter().filter(|(_, quantity)| !quantity.is_zero()) {
        let Some(sum) = values.get(&symbol.quote).copied() else { continue };
        let in_quote = times(*quantity, fresh_price(view, *symbol, freshness)?)?;
        let value = worth(view, symbols, symbol.quote, in_quote, freshness)?;
        values.insert(symbol.quote, add(sum, value)?);
    }
    let mut total = Money::ZERO;
    for value in values.values() {
        total = add(total, *value)?;
    }
    let without_target = |asset: &Asset| !settings.targets.contains_key(asset) && !inventory(view, *asset).is_zero();
    let untargeted = view.balances.keys().copied().filter(without_target).collect();
    Ok(Valuation { values, total, untargeted })
}

/// The symbol under which `asset` trades against the currency.
pub(crate) fn symbol_of(asset: Asset, currency: Asset, symbols: &[Symbol]) -> Result<Symbol, Refusal> {
    let found = symbols.iter().find(|symbol| symbol.base == asset && symbol.quote == currency);
    found.copied().ok_or_else(|| {
        let message =
            format!("portfolio.targets names {asset}, but {asset}/{currency} is not among the traded symbols");
        Refusal::failed(FailClass::Configuration, message)
    })
}

/// balance − hodl − quantity owned by trading positions, at least 0.
fn inventory(view: &PortfolioView, asset: Asset) -> Qty {
    let of = |map: &BTreeMap<Asset, Qty>| map.get(&asset).copied().unwrap_or_default();
    let trading: Qty =
        view.trading.iter().filter(|(symbol, _)| symbol.base == asset).map(|(_, quantity)| *quantity).sum();
    (of(&view.balances) - of(&view.hodl) - trading).max(Qty::ZERO)
}

fn worth(
    view: &PortfolioView,
    symbols: &[Symbol],
    asset: Asset,
    quantity: Qty,
    freshness: Freshness,
) -> Result<Money, Refusal> {
    if asset == view.currency {
        return Ok(quantity);
    }
    times(quantity, fresh_price(view, symbol_of(asset, view.currency, symbols)?, freshness)?)
}

fn fresh_price(view: &PortfolioView, symbol: Symbol, freshness: Freshness) -> Result<Price, Refusal> {
    match view.prices.get(&symbol) {
        Some((price, at)) if *price > Price::ZERO && freshness.now.since_ms(*at) <= freshness.max_age_ms => Ok(*price),
        _ => Err(Refusal::abstain(PRICE_MISSING)),
    }
}

fn times(quantity: Qty, price: Price) -> Result<Money, Refusal> {
    quantity.checked_mul(price).ok_or_else(|| out_of_range(quantity, price))
}

fn add(a: Money, b: Money) -> Result<Money, Refusal> {
    a.checked_add(b).ok_or_else(|| out_of_range(a, b))
}

fn out_of_range(a: Decimal, b: Decimal) -> Refusal {
    Refusal::failed(
        FailClass::Validation,
        format!("the portfolio's value cannot be computed from {a} and {b}: too large"),
    )
}
