//! The account as the engine sees it: equity, exposures, free funds, latches, cooldowns and streaks in one value.
//!
//! Built from the state and the newest prices; owned by the risk actor, which adds a reservation in the same step in
//! which it approves (D47). It never guesses: without a price for something held there is no account view at all.

use std::collections::{BTreeMap, BTreeSet};

use super::{AccountMode, PriceBook, RiskRules};
use crate::model::{
    Asset, BreakerKind, CooldownCause, Decimal, LedgerAccount, Money, Reservation, State, Symbol, TradeKey, TradeKind,
    TradeState, Ts,
};

/// One thing that uses exposure: a position, or a reservation of a trade that is not terminal.
#[derive(Clone, PartialEq, Debug)]
pub struct Held {
    /// Which symbol.
    pub symbol: Symbol,
    /// Account currency, at the newest price.
    pub notional_usd: Money,
    /// notional ÷ leverage, account currency.
    pub margin_usd: Money,
    /// Counts as a position or pending entry; false for the rest of an entry that is partly a position already.
    pub slot: bool,
    /// The trade it is reserved for; absent for positions.
    pub key: Option<TradeKey>,
    /// Free funds held by a reservation whose order has not locked them yet.
    pub funds: Money,
}

/// The account as the engine sees it. All amounts in the account currency unless said.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RiskView {
    /// Value of everything owned.
    pub equity: Money,
    /// Oldest price the equity rests on; absent = the account cannot be valued.
    pub equity_at: Option<Ts>,
    /// Highest equity since the last re-basing.
    pub peak: Money,
    /// A latched breaker that refuses entries (a losing streak latches too, but only slows down).
    pub halting: Option<BreakerKind>,
    /// Entries are refused before this instant.
    pub cooldown_until: Ts,
    /// Why.
    pub cooldown_cause: Option<CooldownCause>,
    /// Assets of young rebalance plans: entries in them wait until the instant.
    pub asset_cooldowns: Vec<(Asset, Ts)>,
    /// Losing closes in a row.
    pub losses: u32,
    /// Positions and reservations.
    pub held: Vec<Held>,
    /// Spendable by new entries, by asset and in its units: free − owned by trading positions − held by reservations.
    pub free: Vec<(Asset, Money)>,
    /// Symbols with a trade whose outcome is unknown.
    pub blocked: Vec<Symbol>,
    /// Symbols whose prices have stopped; not part of the state.
    pub silent: BTreeSet<Symbol>,
}

impl RiskView {
    /// The view at `now`. `peak` is the running peak of [`super::PeakKeeper`], which may be above the stored one.
    pub fn from_state(state: &State, prices: &PriceBook, rules: &RiskRules, peak: Money, now: Ts) -> RiskView {
        let mut view = RiskView {
            peak: peak.max(state.risk.peak),
            halting: state.risk.latched.keys().copied().find(|kind| refuses_entries(*kind)),
            cooldown_until: state.risk.cooldown_until,
            cooldown_cause: state.risk.cooldown_cause,
            asset_cooldowns: asset_cooldowns(state, rules, now),
            losses: state.risk.losses,
            free: free_funds(state),
            ..RiskView::default()
        };
        let mut valued = equity(state, prices, rules.mode);
        for position in state.positions.values() {
            match prices.usd_of_base(position.symbol) {
                Some(price) => {
                    let notional = price.price * position.quantity;
                    view.held.push(Held {
                        symbol: position.symbol,
                        notional_usd: notional,
                        margin_usd: notional / Decimal::from(position.leverage.max(1)),
                        slot: true,
                        key: None,
                        funds: Money::ZERO,
                    });
                }
                None => valued = None,
            }
        }
        for reservation in state.risk.reservations.values() {
            view.hold(state, reservation);
        }
        for trade in state.trades.values() {
            if matches!(trade.state, TradeState::Unknown | TradeState::Manual) {
                view.blocked.push(trade.body.symbol);
            }
        }
        if let Some((equity, at)) = valued {
            view.equity = equity;
            view.equity_at = Some(at.min(now));
        }
        view
    }

    /// A stored reservation: what its order has filled is a position by now, what its order has locked is not free.
    fn hold(&mut self, state: &State, reservation: &Reservation) {
        let mut notional = reservation.notional_usd;
        let mut funds = reservation.funds;
        if let Some(trade) = state.trades.get(&reservation.key) {
            funds = Money::ZERO;
            let whole = trade.body.quantity;
            if trade.state == TradeState::Partial && whole > Decimal::ZERO {
                notional = notional * trade.remaining() / whole;
            }
        }
        let slot = !state.positions.values().any(|position| position.trades.contains(&reservation.key));
        self.push(reservation, notional, funds, slot);
    }

    fn push(&mut self, reservation: &Reservation, notional: Money, funds: Money, slot: bool) {
        self.held.push(Held {
            symbol: reservation.symbol,
            notional_usd: notional,
            margin_usd: notional / Decimal::from(reservation.leverage.max(1)),
            slot,
            key: Some(reservation.key),
            funds,
        });
        self.move_free(reservation.symbol.quote, -funds);
    }

    fn move_free(&mut self, asset: Asset, amount: Money) {
        if amount.is_zero() {
            return;
        }
        match self.free.iter_mut().find(|(known, _)| *known == asset) {
            Some((_, free)) => *free += amount,
            None => self.free.push((asset, amount)),
        }
    }

    /// Adds a reservation that was just approved; the same key twice changes nothing.
    pub fn reserve(&mut self, reservation: &Reservation) {
        if !self.held.iter().any(|held| held.key == Some(reservation.key)) {
            self.push(reservation, reservation.notional_usd, reservation.funds, true);
        }
    }

    /// Takes a reservation back, when its decision ended without a trade.
    pub fn release(&mut self, key: TradeKey) {
        if let Some(index) = self.held.iter().position(|held| held.key == Some(key)) {
            let held = self.held.remove(index);
            self.move_free(held.symbol.quote, held.funds);
        }
    }

    /// Spendable amount of an asset, in its units.
    pub fn free_of(&self, asset: Asset) -> Money {
        self.free.iter().find(|(known, _)| *known == asset).map_or(Money::ZERO, |(_, free)| *free)
    }

    /// Drawdown from the peak in percent; 100 when the equity is gone.
    pub fn drawdown_pct(&self) -> Decimal {
        let peak = self.peak.max(self.equity);
        if self.equity <= Money::ZERO {
            return Decimal::ONE_HUNDRED;
        }
        (peak - self.equity) * Decimal::ONE_HUNDRED / peak
    }
}

/// Whether a latched breaker refuses entries. A losing streak does not: only a winning close re-arms it, and without
/// entries there could never be one; its answer is the cooldown, half the size and the higher confidence floor.
pub const fn refuses_entries(kind: BreakerKind) -> bool {
    !matches!(kind, BreakerKind::ConsecutiveLosses)
}

/// Value of everything owned and the instant of the oldest price used; absent when a price is missing.
///
/// Equity = Σ (free + locked) × price, plus with margin the unrealised gain of positions (domain §15.4).
pub fn equity(state: &State, prices: &PriceBook, mode: AccountMode) -> Option<(Money, Ts)> {
    let mut sum = Money::ZERO;
    let mut oldest = Ts(i64::MAX);
    for (asset, accounts) in &state.account.ledger {
        let of = |account| accounts.get(&account).copied().unwrap_or_default();
        let total: Money = of(LedgerAccount::Free) + of(LedgerAccount::Locked);
        if total.is_zero() {
            continue;
        }
        let price = prices.usd(*asset)?;
        sum = sum.checked_add(total.checked_mul(price.price)?)?;
        oldest = oldest.min(price.at);
    }
    if mode == AccountMode::Margin {
        for position in state.positions.values() {
            let price = prices.get(position.symbol)?;
            let quote = prices.usd(position.symbol.quote)?;
            sum = sum.checked_add(position.unrealised(price.price).checked_mul(quote.price)?)?;
            oldest = oldest.min(price.at).min(quote.at);
        }
    }
    Some((sum, oldest))
}

/// Free balances minus what belongs to trading positions: their base must stay for their exit, and only inventory
/// may fund an entry (XRP/BTC is paid from free BTC inventory). An exit under way has moved its part to locked.
fn free_funds(state: &State) -> Vec<(Asset, Money)> {
    let mut owned: BTreeMap<Asset, Decimal> = BTreeMap::new();
    for position in state.positions.values() {
        *owned.entry(position.symbol.base).or_default() += position.quantity;
    }
    for trade in state.trades.values().filter(|trade| trade.kind != TradeKind::Rebalance) {
        if let (Some(_), Some(lock)) = (trade.body.position, trade.lock) {
            *owned.entry(lock.asset).or_default() -= lock.amount;
        }
    }
    let free = |asset: &Asset| state.account.free(*asset) - owned.get(asset).copied().unwrap_or_default();
    state.account.ledger.keys().map(|asset| (*asset, free(asset))).collect()
}

fn asset_cooldowns(state: &State, rules: &RiskRules, now: Ts) -> Vec<(Asset, Ts)> {
    let length = rules.cooldown_ms(CooldownCause::Rebalance);
    let mut waits: BTreeMap<Asset, Ts> = BTreeMap::new();
    for plan in state.plans.values() {
        let until = plan.created_at.plus_ms(length);
        if now < until {
            for leg in &plan.legs {
                let wait = waits.entry(leg.asset).or_insert(until);
                *wait = (*wait).max(until);
            }
        }
    }
    waits.into_iter().collect()
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
