//! The checks of an entry in the exact order of domain §11.3. Decimal arithmetic, no model, no I/O.
//!
//! It only ever reduces. Checks 6 to 9 see the shrunk notional and the lowered leverage (R04); exposure is a share of
//! equity and includes reservations (R02, R03). The approving path builds no text unless something was reduced.
//! Shares are compared by multiplication, not division, so that a limit is met exactly.

use super::{AccountMode, RiskRequest, RiskRules, RiskView, proposal::invalid};
use crate::model::{Decimal, Money, Qty, Reservation, RiskCode, RiskNote, RiskRefusal, Score, Ts};

/// Gap of the confidences of TA and sentiment above which the approval carries a remark (domain §11.3, 2b).
const DISAGREEMENT: Score = Score(2_000);
/// Losses in a row from which the next size is reduced (3c).
const LOSSES_HALVING: u32 = 5;
/// Decimals kept of held funds; the rest is rounded up so that a reservation is never too small.
const FUNDS_DECIMALS: u32 = 12;

/// What the engine agreed to.
#[derive(Clone, PartialEq, Debug)]
pub struct Approved {
    /// After shrinking, account currency.
    pub notional_usd: Money,
    /// Base units at the wanted entry, floored to the symbol's step.
    pub quantity: Qty,
    /// After lowering; spot: 1.
    pub leverage: u32,
    /// What was lowered and remarked.
    pub notes: Vec<RiskNote>,
    /// What must be held for it.
    pub reservation: Reservation,
}

/// Judges an entry and, when it is approved, holds its exposure, funds and slot in the same step (D47).
///
/// # Errors
/// As [`check`].
pub fn check_and_reserve(
    view: &mut RiskView,
    rules: &RiskRules,
    request: &RiskRequest,
    now: Ts,
) -> Result<Approved, RiskRefusal> {
    let approved = check(view, rules, request, now)?;
    view.reserve(&approved.reservation);
    Ok(approved)
}

/// Judges an entry without holding anything (also the dry run of `risk_override`).
///
/// # Errors
/// The first check that fails, with code, measured value and limit.
pub fn check(view: &RiskView, rules: &RiskRules, request: &RiskRequest, now: Ts) -> Result<Approved, RiskRefusal> {
    request.validate(rules)?;
    gates(view, rules, request, now)?;
    stop_rules(rules, request)?;
    let mut order = Order { view, rules, request, notional: request.notional_usd, leverage: 1, notes: Vec::new() };
    order.confidence()?;
    order.shrink();
    order.lower_leverage();
    let quantity = order.quantity()?;
    order.slots()?;
    order.exposure()?;
    order.correlated()?;
    let funds = order.funds()?;
    Ok(Approved {
        notional_usd: order.notional,
        quantity,
        leverage: order.leverage,
        reservation: Reservation {
            key: request.key,
            symbol: request.symbol,
            notional_usd: order.notional,
            funds,
            leverage: order.leverage,
        },
        notes: order.notes,
    })
}

/// Checks 0a to 0e and what blocks a symbol.
fn gates(view: &RiskView, rules: &RiskRules, request: &RiskRequest, now: Ts) -> Result<(), RiskRefusal> {
    match view.equity_at.map(|at| now.since_ms(at)) {
        Some(age) if age <= rules.account_max_age_ms && view.equity > Money::ZERO => {}
        Some(_) if view.equity <= Money::ZERO => {
            return refuse(RiskCode::NoAccountState, format!("equity {}", show(view.equity)), "> 0".into());
        }
        age => return Err(too_old(RiskCode::NoAccountState, "account view", age, rules.account_max_age_ms)),
    }
    match request.price_at.map(|at| now.since_ms(at)) {
        Some(age) if age <= rules.price_max_age_ms => {}
        age => return Err(too_old(RiskCode::PriceStale, "price", age, rules.price_max_age_ms)),
    }
    if let Some(breaker) = view.halting {
        return refuse(RiskCode::TradingHalted, format!("breaker {breaker} latched"), "no latched breaker".into());
    }
    let asset_wait = view.asset_cooldowns.iter().find(|(asset, _)| *asset == request.symbol.base).map(|(_, t)| *t);
    let until = view.cooldown_until.max(asset_wait.unwrap_or_default());
    if now < until {
        let cause = if view.cooldown_until == until { view.cooldown_cause } else { None };
        let cause = cause.map_or("rebalance".to_owned(), |cause| format!("{cause:?}"));
        return refuse(RiskCode::InCooldown, format!("cooldown {cause}"), format!("from {until}"));
    }
    if let Some(end) = super::cooldown::restricted_until(rules, now) {
        return refuse(RiskCode::RestrictedHours, format!("{now}"), format!("from {end}"));
    }
    if view.blocked.contains(&request.symbol) {
        let measured = format!("{} has a trade of unknown outcome", request.symbol);
        return refuse(RiskCode::SymbolBlocked, measured, "every outcome known".into());
    }
    if view.silent.contains(&request.symbol) {
        let measured = format!("the prices of {} have stopped", request.symbol);
        return refuse(RiskCode::FeedSilent, measured, "prices that go on".into());
    }
    Ok(())
}

/// Checks 1a to 1d.
fn stop_rules(rules: &RiskRules, request: &RiskRequest) -> Result<(), RiskRefusal> {
    let Some(distance) = request.stop_distance() else {
        return refuse(RiskCode::StopLossRequired, "no stop".into(), "a stop on the losing side".into());
    };
    let percent = distance * Decimal::ONE_HUNDRED;
    let stop = &rules.settings.stop;
    let tight = stop.min_distance_pct;
    if percent < tight * request.entry {
        return refuse(RiskCode::StopTooTight, share(distance, request.entry), format!("at least {} %", show(tight)));
    }
    let cap = rules.stop_cap_pct(request.symbol);
    if percent > cap * request.entry {
        return refuse(RiskCode::StopTooWide, share(distance, request.entry), format!("at most {} %", show(cap)));
    }
    if let Some(reward) = request.target_distance()
        && reward < stop.min_reward_risk * distance
    {
        let measured = format!("reward:risk {}", show(reward / distance));
        return refuse(RiskCode::LowRr, measured, format!("at least {}", show(stop.min_reward_risk)));
    }
    Ok(())
}

/// The order while it is shrunk.
struct Order<'a> {
    view: &'a RiskView,
    rules: &'a RiskRules,
    request: &'a RiskRequest,
    notional: Money,
    leverage: u32,
    notes: Vec<RiskNote>,
}

impl Order<'_> {
    /// 2a, 2b.
    fn confidence(&mut self) -> Result<(), RiskRefusal> {
        let floor = self.rules.confidence_floor(self.request.regime, self.view.losses);
        if self.request.confidence < floor {
            let measured = format!("confidence {}", self.request.confidence);
            return refuse(RiskCode::ConfidenceTooLow, measured, format!("at least {floor}"));
        }
        if let (Some(ta), Some(sentiment)) = (self.request.ta_confidence, self.request.sentiment_confidence)
            && (ta - sentiment).0.abs() > DISAGREEMENT.0
        {
            let detail = format!("technical {ta}, sentiment {sentiment}, gap above {DISAGREEMENT}");
            self.notes.push(RiskNote { code: RiskCode::AgentDisagreement, detail });
        }
        Ok(())
    }

    /// 3a, 3b, 3c, 4.
    fn shrink(&mut self) {
        let settings = &self.rules.settings;
        let equity = self.view.equity;
        let cap = equity * settings.max_position_pct / Decimal::ONE_HUNDRED;
        if self.notional > cap {
            self.reduce(cap, RiskCode::SizeReduced);
        }
        let entry = self.request.entry;
        let distance = self.request.stop_distance().unwrap_or_default();
        let allowed = equity * settings.max_risk_per_trade_pct / Decimal::ONE_HUNDRED;
        if self.notional * distance > allowed * entry && distance > Decimal::ZERO {
            self.reduce(allowed * entry / distance, RiskCode::SizeReduced);
        }
        if self.view.losses >= LOSSES_HALVING && settings.loss_size_factor < Decimal::ONE {
            self.reduce(self.notional * settings.loss_size_factor, RiskCode::SizeReducedLosses);
        }
        if self.request.volatility_spike && settings.volatility.size_factor < Decimal::ONE {
            self.reduce(self.notional * settings.volatility.size_factor, RiskCode::VolatilitySpike);
        }
    }

    fn reduce(&mut self, to: Money, code: RiskCode) {
        let to = to.min(self.notional);
        self.notes.push(RiskNote { code, detail: format!("{} -> {}", show(self.notional), show(to)) });
        self.notional = to;
    }

    /// 5.
    fn lower_leverage(&mut self) {
        let cap = leverage_cap(self.view, self.rules, self.request);
        self.leverage = self.request.leverage.min(cap);
        if self.leverage < self.request.leverage {
            let detail = format!("{} -> {}", self.request.leverage, self.leverage);
            self.notes.push(RiskNote { code: RiskCode::LeverageReduced, detail });
        }
    }

    /// 6a.
    fn quantity(&self) -> Result<Qty, RiskRefusal> {
        let request = self.request;
        let Some(rule) = self.rules.symbol(request.symbol) else {
            return Err(invalid(format!("symbol {}", request.symbol), "a traded symbol"));
        };
        let unit = request.entry * request.quote_usd;
        let quantity = self.notional.checked_div(unit).map(|quantity| rule.floor_quantity(quantity));
        match quantity {
            Some(quantity) if quantity >= rule.min_quantity && quantity > Qty::ZERO => Ok(quantity),
            quantity => {
                let measured = format!("quantity {}", show(quantity.unwrap_or_default()));
                refuse(RiskCode::BelowMinimum, measured, format!("at least {}", rule.min_quantity))
            }
        }
    }

    /// 6b.
    fn slots(&self) -> Result<(), RiskRefusal> {
        let settings = &self.rules.settings;
        let (mut all, mut own) = (1, 1);
        for held in self.view.held.iter().filter(|held| held.slot) {
            all += 1;
            own += u32::from(held.symbol == self.request.symbol);
        }
        if own > settings.max_per_symbol {
            let measured = format!("{own} in {}", self.request.symbol);
            return refuse(RiskCode::PositionLimit, measured, format!("at most {}", settings.max_per_symbol));
        }
        if all > settings.max_open_positions {
            let measured = format!("{all} in all");
            return refuse(RiskCode::PositionLimit, measured, format!("at most {}", settings.max_open_positions));
        }
        Ok(())
    }

    /// 7.
    fn exposure(&self) -> Result<(), RiskRefusal> {
        let held: Money = self.view.held.iter().map(|held| held.notional_usd).sum();
        self.share_of_equity(RiskCode::ExposureLimit, held + self.notional, self.rules.settings.max_total_exposure_pct)
    }

    fn share_of_equity(&self, code: RiskCode, amount: Money, limit: Decimal) -> Result<(), RiskRefusal> {
        if amount * Decimal::ONE_HUNDRED <= limit * self.view.equity {
            return Ok(());
        }
        refuse(code, share(amount, self.view.equity), format!("at most {} %", show(limit)))
    }

    /// 8; the limit is inclusive, the warning starts above its ratio.
    fn correlated(&mut self) -> Result<(), RiskRefusal> {
        let settings = &self.rules.settings;
        let mut sum = self.notional;
        for held in &self.view.held {
            let rho = self.rules.correlation(held.symbol, self.request.symbol);
            if rho > settings.correlation_min {
                sum += held.notional_usd * rho;
            }
        }
        let limit = settings.max_correlated_exposure_pct;
        self.share_of_equity(RiskCode::CorrelatedExposure, sum, limit)?;
        let warn = limit * settings.correlated_warn_ratio;
        if sum * Decimal::ONE_HUNDRED > warn * self.view.equity {
            let detail = format!("{} of at most {} %", share(sum, self.view.equity), show(limit));
            self.notes.push(RiskNote { code: RiskCode::CorrelatedExposure, detail });
        }
        Ok(())
    }

    /// 9a, 9b: what must be held, in quote units.
    fn funds(&self) -> Result<Money, RiskRefusal> {
        let fee = self.notional * self.rules.taker_fee_pct / Decimal::ONE_HUNDRED;
        let margin = self.notional / Decimal::from(self.leverage.max(1));
        let Some(in_quote) = (margin + fee).checked_div(self.request.quote_usd) else {
            return Err(invalid(format!("quote price {}", self.request.quote_usd), "a price that can be divided by"));
        };
        let in_quote =
            in_quote.round_dp_with_strategy(FUNDS_DECIMALS, rust_decimal::RoundingStrategy::ToPositiveInfinity);
        if self.rules.mode == AccountMode::Spot {
            let quote = self.request.symbol.quote;
            let free = self.view.free_of(quote);
            if in_quote > free {
                let measured = format!("{} {quote} with fee", show(in_quote));
                return refuse(RiskCode::InsufficientFunds, measured, format!("{} {quote} free", show(free)));
            }
            return Ok(in_quote);
        }
        let used: Money = self.view.held.iter().map(|held| held.margin_usd).sum();
        let free = self.view.equity - used;
        if margin + fee > free {
            let measured = format!("margin {} with fee", show(margin + fee));
            return refuse(RiskCode::InsufficientMargin, measured, format!("{} free", show(free)));
        }
        let limit = self.rules.settings.max_margin_utilisation_pct;
        self.share_of_equity(RiskCode::InsufficientMargin, used + margin, limit)?;
        Ok(in_quote)
    }
}

/// Largest leverage: min(setting, regime, by drawdown, by losses); spot 1 (check 5).
pub fn leverage_cap(view: &RiskView, rules: &RiskRules, request: &RiskRequest) -> u32 {
    if rules.mode == AccountMode::Spot {
        return 1;
    }
    let mut cap = rules.settings.max_leverage.min(rules.regime(request.regime).max_leverage);
    let drawdown = view.drawdown_pct();
    for (from, step) in &rules.leverage_by_drawdown {
        if drawdown >= *from {
            cap = cap.min(*step);
        }
    }
    for (from, step) in &rules.leverage_by_losses {
        if view.losses >= *from {
            cap = cap.min(*step);
        }
    }
    cap.max(1)
}

fn refuse<T>(code: RiskCode, measured: String, limit: String) -> Result<T, RiskRefusal> {
    Err(RiskRefusal { code, measured, limit })
}

fn too_old(code: RiskCode, what: &str, age_ms: Option<i64>, limit_ms: i64) -> RiskRefusal {
    let measured = match age_ms {
        Some(age) => format!("{what} {} s old", show(Decimal::new(age, 3))),
        None => format!("no {what}"),
    };
    RiskRefusal { code, measured, limit: format!("at most {} s old", limit_ms / 1000) }
}

fn share(part: Money, whole: Money) -> String {
    match (part * Decimal::ONE_HUNDRED).checked_div(whole) {
        Some(percent) => format!("{} %", show(percent)),
        None => "no share of nothing".to_owned(),
    }
}

/// Up to four decimals without trailing zeros.
fn show(value: Decimal) -> Decimal {
    value.round_dp(4).normalize()
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
