//! The rebalancer: how far the inventory is from its targets, and the plan of legs that mends it (domain §12).
//!
//! Never trades and never moves an existing plan: execution claims legs, scheduling decides about late ones.

use std::{borrow::Cow, collections::BTreeMap};

use rust_decimal::{Decimal, RoundingStrategy};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    contract::{Answer, Refusal, RunContext},
    portfolio_view::{Freshness, PortfolioView, Valuation, symbol_of, valuate},
};
use crate::{
    model::{
        Asset, FailClass, Leg, Money, OutputHead, Plan, PlanState, Score, Side, Symbol, TaskName, TradeKey, TradeKind,
        TradeState, Ts, time,
    },
    settings::PortfolioSettings,
};

/// Reason of no plan: an active plan has legs pending (D19).
pub const PLAN_ACTIVE: &str = "plan_active";
/// Reason of no plan: the last one was completed too recently.
pub const MIN_INTERVAL: &str = "min_interval";
/// Reason of no plan: a model advised to wait; the next slot asks again.
pub const DEFERRED: &str = "deferred";
/// Reason of no plan: close enough to the targets.
pub const WITHIN_THRESHOLD: &str = "within_threshold";
/// Reason of no plan: nothing is owned.
pub const EMPTY_ACCOUNT: &str = "empty_account";
/// Reason of no plan: every amount is below the smallest trade.
pub const BELOW_MINIMUM: &str = "below_minimum";
/// Reason of no plan: this slot has made its plan already.
pub const SLOT_PLANNED: &str = "slot_planned";
/// Reason of a plan.
pub const DEVIATION: &str = "deviation";

/// Decimals of an amount in the account currency.
const CENT_DECIMALS: u32 = 2;

/// What a portfolio run came to.
#[derive(Clone, PartialEq, Debug)]
pub struct PortfolioOutput {
    /// Common part; confidence 1.0 without, 0.8 with a plan.
    pub head: OutputHead,
    /// Largest distance of a share from its target, percentage points, two decimals.
    pub deviation_pct: Decimal,
    /// Share of each target asset, percent, two decimals.
    pub shares: BTreeMap<Asset, Decimal>,
    /// The plan, not yet durable.
    pub plan: Option<Plan>,
    /// One of the reasons of this module.
    pub reason: Cow<'static, str>,
}

/// What planning is based on.
#[derive(Clone, Copy, Debug)]
pub struct PortfolioInputs<'a> {
    /// Store identity, part of plan id and trade keys.
    pub store: Uuid,
    /// What is owned.
    pub view: &'a PortfolioView,
    /// The active plan and the last ended ones.
    pub plans: &'a BTreeMap<Uuid, Plan>,
    /// Traded symbols.
    pub symbols: &'a [Symbol],
    /// Targets, thresholds and batches.
    pub settings: &'a PortfolioSettings,
    /// Older prices are stale, milliseconds.
    pub price_max_age_ms: i64,
}

/// Checks the allocation and plans when it is off.
///
/// Abstains `price_missing` when a needed price is absent or stale (A164). Fails when the targets are unusable or a
/// target asset does not trade against the currency.
pub fn plan(ctx: &RunContext, inputs: &PortfolioInputs) -> Answer<PortfolioOutput> {
    output(ctx, inputs).into()
}

/// The plan's identity: a function of store and slot, so that a slot run twice makes the same plan.
pub fn plan_id(store: Uuid, slot: &str) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(store.as_bytes());
    hash.update((slot.len() as u64).to_be_bytes());
    hash.update(slot.as_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

fn output(ctx: &RunContext, inputs: &PortfolioInputs) -> Result<PortfolioOutput, Refusal> {
    let freshness = Freshness { now: ctx.now, max_age_ms: inputs.price_max_age_ms };
    let valuation = valuate(inputs.view, inputs.symbols, inputs.settings, freshness)?;
    let gaps = Gaps::of(&valuation, inputs.settings)?;
    let id = plan_id(inputs.store, &ctx.slot.to_string());
    let (plan, reason) = match no_plan(ctx.now, id, &gaps, inputs) {
        Some(reason) => (None, reason),
        None => {
            let amounts = amounts(&gaps, inputs)?;
            match legs(ctx.now, id, &amounts, inputs) {
                legs if legs.is_empty() => (None, BELOW_MINIMUM),
                legs => (Some(new_plan(ctx.now, id, legs, &gaps, inputs.settings)), DEVIATION),
            }
        }
    };
    let confidence = if plan.is_some() { Score(8_000) } else { Score::ONE };
    let mut head = ctx.head(TaskName::PortfolioRebalance, confidence, reason);
    head.warnings = warnings(&gaps, &valuation, inputs.settings);
    Ok(PortfolioOutput {
        head,
        deviation_pct: gaps.deviation_pct.round_dp(CENT_DECIMALS),
        shares: gaps.shares,
        plan,
        reason: Cow::Borrowed(reason),
    })
}

/// Distances from the targets.
struct Gaps {
    total: Money,
    /// value − total·target by asset, currency included.
    surplus: BTreeMap<Asset, Money>,
    deviation_pct: Decimal,
    shares: BTreeMap<Asset, Decimal>,
    /// Decided without a division, so that exactly the threshold counts as reached.
    reaches_threshold: bool,
}

impl Gaps {
    fn of(valuation: &Valuation, settings: &PortfolioSettings) -> Result<Gaps, Refusal> {
        let unusable = || {
            let message = "portfolio.targets or the portfolio's value cannot be computed with; \
                           set weights above 0 and of ordinary size";
            Refusal::failed(FailClass::Configuration, message)
        };
        if settings.targets.values().any(|weight| *weight <= Decimal::ZERO) {
            return Err(unusable());
        }
        let total = valuation.total;
        let weights = settings
            .targets
            .values()
            .try_fold(Decimal::ZERO, |sum, weight| sum.checked_add(*weight))
            .ok_or_else(unusable)?;
        let mut gaps = Gaps {
            total,
            surplus: BTreeMap::new(),
            deviation_pct: Decimal::ZERO,
            shares: BTreeMap::new(),
            reaches_threshold: false,
        };
        for (asset, weight) in &settings.targets {
            let value = valuation.values.get(asset).copied().unwrap_or_default();
            let wanted = total.checked_mul(*weight).and_then(|v| v.checked_div(weights)).ok_or_else(unusable)?;
            gaps.surplus.insert(*asset, value - wanted);
            if total.is_zero() {
                gaps.shares.insert(*asset, Decimal::ZERO);
                continue;
            }
            // |value/total − weight/weights|·100 ≥ threshold, multiplied out by total·weights
            let (left, right) = (value.checked_mul(weights), total.checked_mul(*weight));
            let distance = left.zip(right).map(|(left, right)| (left - right).abs()).ok_or_else(unusable)?;
            let limit = total.checked_mul(weights).and_then(|v| v.checked_mul(settings.threshold_pct));
            let scaled = distance.checked_mul(Decimal::ONE_HUNDRED).ok_or_else(unusable)?;
            gaps.reaches_threshold |= scaled >= limit.ok_or_else(unusable)?;
            let points = scaled.checked_div(total * weights).ok_or_else(unusable)?;
            gaps.deviation_pct = gaps.deviation_pct.max(points);
            let share = value.checked_div(total).ok_or_else(unusable)? * Decimal::ONE_HUNDRED;
            gaps.shares.insert(*asset, share.round_dp(CENT_DECIMALS));
        }
        Ok(gaps)
    }
}

/// Why nothing is planned, if so.
fn no_plan(now: Ts, id: Uuid, gaps: &Gaps, inputs: &PortfolioInputs) -> Option<&'static str> {
    let interval_ms = i64::from(inputs.settings.min_interval_hours) * time::HOUR_MS;
    // Superseded, expired and cancelled plans did not reach their aim, so they do not make the next one wait.
    let completed = inputs.plans.values().filter(|plan| plan.state == PlanState::Completed);
    let last_completed = completed.filter_map(|plan| plan.ended_at).max();
    if inputs.plans.values().any(|plan| plan.state == PlanState::Active) {
        Some(PLAN_ACTIVE)
    } else if inputs.plans.contains_key(&id) {
        Some(SLOT_PLANNED)
    } else if last_completed.is_some_and(|ended| now.since_ms(ended) < interval_ms) {
        Some(MIN_INTERVAL)
    } else if gaps.total.is_zero() {
        Some(EMPTY_ACCOUNT)
    } else if !gaps.reaches_threshold {
        Some(WITHIN_THRESHOLD)
    } else {
        None
    }
}

/// One asset's whole trade against the currency.
struct Amount {
    asset: Asset,
    symbol: Symbol,
    side: Side,
    amount: Money,
}

/// |total·target − value| of every base asset, floored to cents, small ones dropped; sells before buys.
fn amounts(gaps: &Gaps, inputs: &PortfolioInputs) -> Result<Vec<Amount>, Refusal> {
    let currency = inputs.view.currency;
    let mut amounts = Vec::new();
    for (asset, surplus) in gaps.surplus.iter().filter(|(asset, _)| **asset != currency) {
        let amount = floor_cents(surplus.abs());
        if amount < inputs.settings.min_trade_usd || amount.is_zero() {
            continue;
        }
        let side = if surplus.is_sign_positive() { Side::Sell } else { Side::Buy };
        amounts.push(Amount { asset: *asset, symbol: symbol_of(*asset, currency, inputs.symbols)?, side, amount });
    }
    amounts.sort_by_key(|amount| (amount.side == Side::Buy, amount.asset));
    Ok(amounts)
}

/// One number of batches for the plan: as configured, lowered until every slice is worth a trade.
fn batches(amounts: &[Amount], settings: &PortfolioSettings) -> u32 {
    let sum = amounts.iter().fold(Money::ZERO, |sum, amount| sum.saturating_add(amount.amount));
    if !settings.dca.enabled || sum < settings.dca.threshold_usd {
        return 1;
    }
    let least = settings.min_trade_usd;
    let fits = |n: &u32| amounts.iter().all(|a| !slice(a.amount, *n).is_zero() && slice(a.amount, *n) >= least);
    (2..=settings.dca.batches).rev().find(fits).unwrap_or(1)
}

fn slice(amount: Money, batches: u32) -> Money {
    floor_cents(amount / Decimal::from(batches.max(1)))
}

fn floor_cents(amount: Money) -> Money {
    amount.round_dp_with_strategy(CENT_DECIMALS, RoundingStrategy::ToZero)
}

/// Every slice of every amount: by batch, sells before buys; batch 0 takes what division leaves over.
fn legs(now: Ts, id: Uuid, amounts: &[Amount], inputs: &PortfolioInputs) -> Vec<Leg> {
    let batches = batches(amounts, inputs.settings);
    let spacing_ms = spacing_ms(inputs.settings);
    let plan = id.to_string();
    let mut legs = Vec::with_capacity(amounts.len() * batches as usize);
    for batch in 0..batches {
        for Amount { asset, symbol, side, amount } in amounts {
            let slice = slice(*amount, batches);
            let rest = if batch == 0 { *amount - slice * Decimal::from(batches) } else { Money::ZERO };
            let leg = format!("{batch}:{asset}");
            legs.push(Leg {
                key: TradeKey::derive(inputs.store, TradeKind::Rebalance, &plan, &leg, *symbol, *side),
                batch,
                asset: *asset,
                symbol: *symbol,
                side: *side,
                amount: slice + rest,
                due_at: now.plus_ms(i64::from(batch) * spacing_ms),
                state: TradeState::Planned,
            });
        }
    }
    legs
}

fn spacing_ms(settings: &PortfolioSettings) -> i64 {
    i64::from(settings.dca.interval_hours) * time::HOUR_MS
}

fn new_plan(now: Ts, id: Uuid, legs: Vec<Leg>, gaps: &Gaps, settings: &PortfolioSettings) -> Plan {
    Plan {
        id,
        created_at: now,
        spacing_ms: spacing_ms(settings),
        legs,
        deviation_pct: gaps.deviation_pct.round_dp(CENT_DECIMALS),
        state: PlanState::Active,
        ended_at: None,
        last_executed_at: None,
    }
}

fn warnings(gaps: &Gaps, valuation: &Valuation, settings: &PortfolioSettings) -> Vec<String> {
    let mut warnings = Vec::new();
    let deviation = gaps.deviation_pct.round_dp(CENT_DECIMALS);
    if gaps.deviation_pct >= settings.alert_pct {
        warnings.push(format!("alert: deviation of {deviation} points, limit {}", settings.alert_pct));
    } else if gaps.deviation_pct >= settings.warn_pct {
        warnings.push(format!("warning: deviation of {deviation} points, limit {}", settings.warn_pct));
    }
    for asset in &valuation.untargeted {
        warnings.push(format!("{asset} is held without a target and left alone; add it to portfolio.targets"));
    }
    warnings
}

#[cfg(test)]
#[path = "portfolio_rebalance_tests.rs"]
mod tests;
