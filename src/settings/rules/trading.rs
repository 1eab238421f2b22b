//! Rules of market, votes, consensus, risk, execution and portfolio.

use std::collections::BTreeSet;

use rust_decimal::Decimal;

use super::{Judge, models};
use crate::{
    model::{BreakerKind, EmergencyAction, Symbol, TaskName},
    settings::{Curve, MarketSource, VoterKind, VoterSettings, resolve},
};

pub(super) fn judge(judge: &mut Judge<'_>) {
    market(judge);
    voters(judge);
    consensus(judge);
    stops_and_breakers(judge);
    leverage_steps(judge);
    correlations(judge);
    never_bind(judge);
    execution(judge);
    portfolio(judge);
}

fn market(judge: &mut Judge<'_>) {
    let (s, m) = (judge.settings, &judge.settings.market);
    for symbol in &s.symbols {
        if !m.symbol.contains_key(symbol) {
            let message = format!(
                "`{symbol}` has no rules: add [market.symbol.\"{symbol}\"] with min_quantity, price_decimals and \
                 quantity_decimals"
            );
            judge.fail(&["symbols", &format!("market.symbol.\"{symbol}\"")], message);
        }
        let value_pair = Symbol { base: symbol.quote, quote: s.account_currency };
        if symbol.quote != s.account_currency && !s.symbols.contains(&value_pair) {
            let message = format!("`{symbol}` cannot be valued in {}: trade {value_pair} as well", s.account_currency);
            judge.fail(&["symbols", "account_currency"], message);
        }
        let prices = &m.simulated.start_prices;
        let crossed = |asset| prices.contains_key(&Symbol { base: asset, quote: s.account_currency });
        if m.source == MarketSource::Simulated
            && !prices.contains_key(symbol)
            && !(crossed(symbol.base) && crossed(symbol.quote))
        {
            let message = format!("`{symbol}` has no first price: set market.simulated.start_prices.\"{symbol}\"");
            judge.fail(&["symbols", "market.simulated.start_prices"], message);
        }
    }
    let primary = format!("market.lookback.{}", m.primary_timeframe.name());
    if m.lookback.get(&m.primary_timeframe).is_none_or(|candles| *candles < 250) {
        let message = "the primary timeframe needs ≥ 250 candles: EMA200 and the mean of 50 ATR values";
        judge.fail(&[&primary, "market.primary_timeframe"], message);
    }
    match m.source {
        MarketSource::Csv if m.csv.dir.trim().is_empty() => {
            judge.fail(&["market.csv.dir", "market.source"], "the csv feed needs a folder: set market.csv.dir");
        }
        MarketSource::Csv => {}
        MarketSource::Kraken => kraken(judge),
        MarketSource::Simulated => judge.warn("market.source is simulated: prices are invented, no market is watched"),
    }
}

/// The live feed: a venue that can be reached, candles the market can use, and the venue's own time.
fn kraken(judge: &mut Judge<'_>) {
    let (s, k) = (judge.settings, &judge.settings.market.kraken);
    let starts = |text: &str, schemes: [&str; 2]| schemes.iter().any(|scheme| text.starts_with(scheme));
    if !starts(&k.ws_url, ["wss://", "ws://"]) {
        judge.fail(&["market.kraken.ws_url"], "must begin with wss:// (or ws:// for a venue of your own)");
    }
    if !starts(&k.rest_url, ["https://", "http://"]) {
        judge.fail(&["market.kraken.rest_url"], "must begin with https:// (or http:// for a venue of your own)");
    }
    if !matches!(k.candle_minutes, 1 | 5 | 60) {
        judge.fail(&["market.kraken.candle_minutes"], "must be 1, 5 or 60");
    }
    if i64::from(k.candle_minutes) > s.market.primary_timeframe.minutes() {
        let message = "candles longer than the primary timeframe cannot make it up";
        judge.fail(&["market.kraken.candle_minutes", "market.primary_timeframe"], message);
    }
    if s.runtime.speed != 1 {
        judge.fail(&["runtime.speed", "market.source"], "must be 1 with the live feed: the venue's time is the time");
    }
}

fn voters(judge: &mut Judge<'_>) {
    let agents = &judge.settings.agents;
    let d = &agents.trading_decision;
    let list = "agents.trading_decision.voters";
    let enabled = d.voters.iter().filter(|voter| voter.enabled).count();
    if !(1..=32).contains(&d.voters.len()) {
        judge.fail(&[list], format!("has {} voters, allowed: 1..32", d.voters.len()));
    } else if enabled == 0 {
        judge.fail(&[list], "no voter is enabled");
    } else if d.quorum as usize > enabled {
        let message = format!("must be ≤ the {enabled} enabled voters, or 0 for two thirds of them");
        judge.fail(&["agents.trading_decision.quorum", list], message);
    }
    let mut names = BTreeSet::new();
    for (i, voter) in d.voters.iter().enumerate().filter(|(_, voter)| !names.insert(&voter.name)).collect::<Vec<_>>() {
        judge.fail(&[&format!("{list}[{i}].name")], format!("the voter `{}` is named twice", voter.name));
    }
    for (i, voter) in d.voters.iter().enumerate() {
        voter_source(judge, &format!("{list}[{i}]"), voter);
    }
    let boosts = [
        ("split", d.boost.split),
        ("majority", d.boost.majority),
        ("strong_majority", d.boost.strong_majority),
        ("unanimous", d.boost.unanimous),
    ];
    judge.rising("agents.trading_decision.boost", &boosts);
    judge.ordered(
        false,
        ("agents.trading_decision.rules.adx_range", d.rules.adx_range),
        ("agents.trading_decision.rules.adx_trend", d.rules.adx_trend),
    );
    let ta = &agents.technical_analysis;
    judge.ordered(
        true,
        ("agents.technical_analysis.rsi_short", ta.rsi_short),
        ("agents.technical_analysis.rsi_long", ta.rsi_long),
    );
}

/// A voter by rules has a strategy, one that is a model a chain, and none has both.
fn voter_source(judge: &mut Judge<'_>, voter: &str, settings: &VoterSettings) {
    let (strategy, chain) = (format!("{voter}.strategy"), format!("{voter}.chain"));
    match settings.kind {
        VoterKind::Rules => {
            if settings.chain.is_some() {
                judge.fail(&[&chain], "is for kind = \"model\": a voter by rules asks no model");
            }
            if settings.strategy.is_none() {
                judge.fail(&[voter], format!("a voter by rules needs `{strategy}`"));
            }
        }
        VoterKind::Model => {
            if settings.strategy.is_some() {
                judge.fail(&[&strategy], "is for kind = \"rules\": a model has no strategy");
            }
            match &settings.chain {
                Some(name) => models::known_chain(judge, &chain, name),
                None => judge.fail(&[voter], format!("a voter that is a model needs `{chain}`, one of [chains]")),
            }
        }
    }
}

fn consensus(judge: &mut Judge<'_>) {
    let c = &judge.settings.consensus;
    let (low, high) = ("consensus.low_agreement_threshold", "consensus.high_agreement_threshold");
    judge.ordered(true, (low, c.low_agreement_threshold), (high, c.high_agreement_threshold));
    if c.curve == Curve::Stepped && c.high_agreement_threshold < 0.5 {
        let message = "must be ≥ 0.5 with consensus.curve = \"stepped\": below it the boost would be a penalty";
        judge.fail(&[high, "consensus.curve"], message);
    }
}

fn stops_and_breakers(judge: &mut Judge<'_>) {
    let (s, r) = (judge.settings, &judge.settings.risk);
    let (min, max) = ("risk.stop.min_distance_pct", "risk.stop.max_distance_pct");
    judge.ordered(true, (min, r.stop.min_distance_pct), (max, r.stop.max_distance_pct));
    for (symbol, cap) in &r.stop.symbol_max_pct {
        let key = format!("risk.stop.symbol_max_pct.\"{symbol}\"");
        judge.ordered(false, (&key, *cap), (max, r.stop.max_distance_pct));
        judge.ordered(true, (min, r.stop.min_distance_pct), (&key, *cap));
        known(judge, symbol, &key);
    }
    let floors = [
        ("base", r.confidence_floor.base),
        ("after_3_losses", r.confidence_floor.after_3_losses),
        ("after_5_losses", r.confidence_floor.after_5_losses),
    ];
    judge.rising("risk.confidence_floor", &floors);
    let b = &r.breakers;
    let (daily, weekly) = ("risk.breakers.daily_loss_pct", "risk.breakers.weekly_loss_pct");
    judge.ordered(false, (daily, b.daily_loss_pct), (weekly, b.weekly_loss_pct));
    judge.ordered(false, (weekly, b.weekly_loss_pct), ("risk.breakers.max_drawdown_pct", b.max_drawdown_pct));
    for (breaker, breach) in &s.emergency.breach {
        if breach.action == EmergencyAction::Cooldown && *breaker != BreakerKind::ConsecutiveLosses {
            let message = "cooldown is for consecutive_losses only; allowed: pause_trading, reduce_positions, halt_all";
            judge.fail(&[&format!("emergency.breach.{}.action", breaker.name())], message);
        }
    }
    judge.ordered(
        false,
        ("emergency.close_retry_seconds.base", s.emergency.close_retry_seconds.base),
        ("emergency.close_retry_seconds.cap", s.emergency.close_retry_seconds.cap),
    );
}

/// Caps must fall strictly while drawdown or losses rise.
fn leverage_steps(judge: &mut Judge<'_>) {
    let r = &judge.settings.risk;
    for (key, steps) in
        [("risk.leverage_by_drawdown", &r.leverage_by_drawdown), ("risk.leverage_by_losses", &r.leverage_by_losses)]
    {
        let mut sorted: Vec<(Decimal, u32)> =
            steps.iter().filter_map(|(at, cap)| Some((at.parse().ok()?, *cap))).collect();
        sorted.sort_unstable();
        for pair in sorted.windows(2) {
            let [(low, wide), (high, tight)] = pair else {
                continue;
            };
            if low == high {
                judge.fail(&[key], format!("step {low} is named twice"));
            } else if tight >= wide {
                judge.fail(&[key], format!("cap {tight} at {high} must be < cap {wide} at {low}"));
            }
        }
    }
}

/// A symbol is known when it is traded or has rules.
fn known(judge: &mut Judge<'_>, symbol: &Symbol, key: &str) {
    let s = judge.settings;
    if !s.symbols.contains(symbol) && !s.market.symbol.contains_key(symbol) {
        judge.fail(&[key], format!("`{symbol}` is unknown: it is neither traded nor in market.symbol"));
    }
}

fn correlations(judge: &mut Judge<'_>) {
    let s = judge.settings;
    let mut pairs = BTreeSet::new();
    for (i, pair) in s.risk.correlations.iter().enumerate() {
        let key = format!("risk.correlations[{i}]");
        known(judge, &pair.a, &format!("{key}.a"));
        known(judge, &pair.b, &format!("{key}.b"));
        if pair.a == pair.b {
            judge.fail(&[&format!("{key}.b")], "a symbol has correlation 1 with itself, name two symbols");
        } else if !pairs.insert((pair.a.min(pair.b), pair.a.max(pair.b))) {
            judge.fail(&[&format!("{key}.a")], format!("the pair {} and {} is named twice", pair.a, pair.b));
        }
    }
    let mut symbols = s.symbols.clone();
    symbols.sort_unstable();
    let mut missing = Vec::new();
    for (i, a) in symbols.iter().enumerate() {
        let others = symbols.iter().skip(i + 1).filter(|b| !pairs.contains(&(*a, **b)));
        missing.extend(others.map(|b| format!("{a} and {b}")));
    }
    if let Some(first) = missing.first() {
        let more = if missing.len() > 1 { format!(" and {} more pairs", missing.len() - 1) } else { String::new() };
        judge.warn(format!("no correlation is set for {first}{more}: taken as 0, risk.correlations can say otherwise"));
    }
}

/// Limits that another limit always reaches first. The defaults have one such limit behind another on purpose: the risk
/// per trade binds as soon as positions may be larger or stops wider.
fn never_bind(judge: &mut Judge<'_>) {
    let r = &judge.settings.risk;
    let risked = r.max_position_pct * r.stop.max_distance_pct / Decimal::ONE_HUNDRED;
    if risked <= r.max_risk_per_trade_pct {
        let keys = ["risk.max_risk_per_trade_pct", "risk.max_position_pct", "risk.stop.max_distance_pct"];
        let message = format!(
            "risk.max_risk_per_trade_pct = {} can never bind: max_position_pct = {} with the widest stop {} % risks {} %",
            r.max_risk_per_trade_pct,
            r.max_position_pct,
            r.stop.max_distance_pct,
            risked.normalize()
        );
        judge.warn_about(&keys, message);
    }
    let all = r.max_position_pct * Decimal::from(r.max_open_positions);
    if all <= r.max_total_exposure_pct {
        judge.warn(format!(
            "risk.max_total_exposure_pct = {} can never bind: {} positions of {} % are {} %",
            r.max_total_exposure_pct,
            r.max_open_positions,
            r.max_position_pct,
            all.normalize()
        ));
    }
    if r.max_correlated_exposure_pct >= r.max_total_exposure_pct {
        judge.warn(format!(
            "risk.max_correlated_exposure_pct = {} can never bind: max_total_exposure_pct = {} is not larger",
            r.max_correlated_exposure_pct, r.max_total_exposure_pct
        ));
    }
    if r.max_per_symbol > r.max_open_positions {
        judge.warn(format!(
            "risk.max_per_symbol = {} can never bind: max_open_positions = {}",
            r.max_per_symbol, r.max_open_positions
        ));
    }
}

fn execution(judge: &mut Judge<'_>) {
    let e = &judge.settings.execution;
    let (waits, attempts) = ("execution.retry_waits_seconds", "execution.max_attempts_definite");
    if e.retry_waits_seconds.len() + 1 < e.max_attempts_definite as usize {
        let message = format!(
            "{} attempts need at least {} waits, {} are given",
            e.max_attempts_definite,
            e.max_attempts_definite - 1,
            e.retry_waits_seconds.len()
        );
        judge.fail(&[waits, attempts], message);
    }
    let part = "execution.paper.partial_fills";
    judge.ordered(
        false,
        (&format!("{part}.min_fraction"), e.paper.partial_fills.min_fraction),
        (&format!("{part}.max_fraction"), e.paper.partial_fills.max_fraction),
    );
}

fn portfolio(judge: &mut Judge<'_>) {
    let (s, p) = (judge.settings, &judge.settings.portfolio);
    judge.ordered(false, ("portfolio.threshold_pct", p.threshold_pct), ("portfolio.warn_pct", p.warn_pct));
    judge.ordered(false, ("portfolio.warn_pct", p.warn_pct), ("portfolio.alert_pct", p.alert_pct));
    let sum: Decimal = p.targets.values().sum();
    let (percent, error) = (Decimal::from(90)..=Decimal::from(110), (sum - Decimal::ONE_HUNDRED).abs());
    if percent.contains(&sum) && error > Decimal::new(1, 1) {
        let message = format!("the targets add up to {sum}; read as percentages they must add up to 100 ± 0.1");
        judge.fail(&["portfolio.targets"], message);
    }
    if p.targets.is_empty() {
        judge.fail(&["portfolio.targets"], "at least one target is needed");
    }
    let allowed = resolve::allocatable(s);
    let planning = s.tasks.get(&TaskName::PortfolioRebalance).is_some_and(|task| task.enabled);
    for asset in p.targets.keys().filter(|asset| planning && !allowed.contains(asset)).collect::<Vec<_>>() {
        let quote = s.account_currency;
        let message = format!("{asset} cannot be bought: {asset}/{quote} is not among the symbols");
        judge.fail(&[&format!("portfolio.targets.{asset}"), "symbols"], message);
    }
    let traded: BTreeSet<_> = s.symbols.iter().chain(s.market.symbol.keys()).flat_map(|p| [p.base, p.quote]).collect();
    for asset in s.account.initial_balances.keys().filter(|asset| !traded.contains(asset)).collect::<Vec<_>>() {
        let message = format!("{asset} is unknown: no traded symbol has it");
        judge.fail(&[&format!("account.initial_balances.{asset}")], message);
    }
}
