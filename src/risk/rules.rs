//! The risk settings in the form the engine reads: texts parsed once, tables sorted, percentages kept as percent.
//! Building it may allocate; reading it never does.

use std::collections::BTreeMap;

use crate::{
    model::{
        BreakerKind, CooldownCause, Decimal, EmergencyAction, Regime, Score, Symbol, SymbolRules, time::MINUTE_MS,
    },
    settings::{
        BreachSettings, EmergencySettings, RegimeSettings, RiskSettings, Settings, SoftAlertSettings, Strictness,
        StrictnessSettings,
    },
};

/// What kind of account is traded. Only spot can be configured in this release; margin is a parameter of the pure
/// engine so that its rules are tested now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum AccountMode {
    /// Leverage 1, funded from free balances.
    #[default]
    Spot,
    /// Isolated margin.
    Margin,
}

/// What [`RiskRules::new`] is built from.
#[derive(Clone, Copy, Debug)]
pub struct RulesInput<'a> {
    /// `[risk]`
    pub risk: &'a RiskSettings,
    /// `[regimes]`
    pub regimes: &'a BTreeMap<Regime, RegimeSettings>,
    /// `[strictness]`
    pub strictness: &'a StrictnessSettings,
    /// `[emergency]`
    pub emergency: &'a EmergencySettings,
    /// `[market.symbol]`
    pub symbols: &'a BTreeMap<Symbol, SymbolRules>,
    /// Fee of an order that takes, percent of its value.
    pub taker_fee_pct: Decimal,
    /// Oldest price an entry may be judged by, seconds.
    pub price_max_age_seconds: u32,
    /// Spot or margin.
    pub mode: AccountMode,
}

/// Regime row of the engine.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct RegimeRule {
    pub floor: Score,
    pub max_leverage: u32,
}

/// A breaker's limit and what follows when it trips.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct BreakerRule {
    /// Percent, or a count of losses.
    pub limit: Decimal,
    /// What follows.
    pub action: EmergencyAction,
}

/// Parsed risk rules; see the module text.
#[derive(Clone, PartialEq, Debug)]
pub struct RiskRules {
    /// Spot or margin.
    pub mode: AccountMode,
    /// Taker fee, percent.
    pub taker_fee_pct: Decimal,
    /// Oldest usable price, milliseconds.
    pub price_max_age_ms: i64,
    /// Oldest usable account view, milliseconds.
    pub account_max_age_ms: i64,
    /// The settings the numbers are read from.
    pub settings: RiskSettings,
    /// Percent of drawdown → cap, ascending.
    pub(super) leverage_by_drawdown: Vec<(Decimal, u32)>,
    /// Losses in a row → cap, ascending.
    pub(super) leverage_by_losses: Vec<(u32, u32)>,
    /// Start and end minute of the UTC day; start > end crosses midnight.
    pub(super) restricted: Vec<(i64, i64)>,
    symbols: BTreeMap<Symbol, SymbolRules>,
    correlations: BTreeMap<(Symbol, Symbol), Decimal>,
    regimes: [RegimeRule; Regime::ALL.len()],
    breakers: [BreakerRule; BreakerKind::ALL.len()],
    /// Technical order errors in a row that start a cooldown.
    pub order_errors_max: u32,
}

impl RiskRules {
    /// The rules of a spot account under these settings.
    ///
    /// # Errors
    /// As [`RiskRules::new`].
    pub fn of(settings: &Settings) -> Result<RiskRules, String> {
        RiskRules::new(RulesInput {
            risk: &settings.risk,
            regimes: &settings.regimes,
            strictness: &settings.strictness,
            emergency: &settings.emergency,
            symbols: &settings.market.symbol,
            taker_fee_pct: settings.execution.paper.taker_fee_pct,
            price_max_age_seconds: settings.market.price_max_age_seconds,
            mode: AccountMode::Spot,
        })
    }

    /// Parses the settings.
    ///
    /// # Errors
    /// The first text that cannot be read, with its key and what it should look like.
    pub fn new(input: RulesInput<'_>) -> Result<RiskRules, String> {
        let risk = input.risk;
        let mut correlations = BTreeMap::new();
        for pair in &risk.correlations {
            correlations.insert(ordered(pair.a, pair.b), pair.rho);
        }
        Ok(RiskRules {
            mode: input.mode,
            taker_fee_pct: input.taker_fee_pct,
            price_max_age_ms: i64::from(input.price_max_age_seconds) * 1000,
            account_max_age_ms: i64::from(risk.account_max_age_seconds) * 1000,
            leverage_by_drawdown: steps(&risk.leverage_by_drawdown, "risk.leverage_by_drawdown")?,
            leverage_by_losses: steps(&risk.leverage_by_losses, "risk.leverage_by_losses")?,
            restricted: risk.restricted_hours.iter().map(|text| window(text)).collect::<Result<_, _>>()?,
            symbols: input.symbols.clone(),
            correlations,
            regimes: Regime::ALL.map(|regime| regime_rule(regime, input.regimes, input.strictness)),
            breakers: BreakerKind::ALL.map(|kind| BreakerRule {
                limit: limit_of(kind, risk),
                action: action_for(kind, input.emergency.breach.get(&kind)),
            }),
            order_errors_max: input.emergency.order_errors_max_consecutive,
            settings: risk.clone(),
        })
    }

    /// Rounding and minimum of a symbol; absent when it is not traded.
    pub fn symbol(&self, symbol: Symbol) -> Option<&SymbolRules> {
        self.symbols.get(&symbol)
    }

    /// Correlation of two symbols: 1 with itself, 0 when the pair is not listed.
    pub fn correlation(&self, a: Symbol, b: Symbol) -> Decimal {
        if a == b {
            return Decimal::ONE;
        }
        self.correlations.get(&ordered(a, b)).copied().unwrap_or_default()
    }

    /// Limit and action of a breaker.
    pub fn breaker(&self, kind: BreakerKind) -> BreakerRule {
        self.breakers
            .get(kind as usize)
            .copied()
            .unwrap_or(BreakerRule { limit: Decimal::MAX, action: EmergencyAction::PauseTrading })
    }

    /// Smallest confidence of an entry: min(1, max(regime minimum + strictness, loss floor)) (domain §11.3).
    /// The two floors are compared, never added (R09).
    pub fn confidence_floor(&self, regime: Regime, losses: u32) -> Score {
        let floors = &self.settings.confidence_floor;
        let by_losses = match losses {
            0..=2 => floors.base,
            3..=4 => floors.after_3_losses,
            _ => floors.after_5_losses,
        };
        self.regime(regime).floor.max(by_losses).unit()
    }

    pub(super) fn regime(&self, regime: Regime) -> RegimeRule {
        let strictest = RegimeRule { floor: Score::ONE, max_leverage: 1 };
        self.regimes.get(regime as usize).copied().unwrap_or(strictest)
    }

    /// Length of a cooldown, milliseconds; 0 when it is not configured.
    pub fn cooldown_ms(&self, cause: CooldownCause) -> i64 {
        self.settings.cooldown_minutes.get(&cause).map_or(0, |minutes| i64::from(*minutes) * MINUTE_MS)
    }

    /// Widest stop of a symbol, percent of the entry: its own cap, never above the general one.
    pub fn stop_cap_pct(&self, symbol: Symbol) -> Decimal {
        let stop = &self.settings.stop;
        stop.symbol_max_pct.get(&symbol).map_or(stop.max_distance_pct, |own| (*own).min(stop.max_distance_pct))
    }

    /// Thresholds of notifications.
    pub fn soft_alerts(&self) -> &SoftAlertSettings {
        &self.settings.soft_alerts
    }
}

/// How bad a breach is; decides about breaches without a configured action (domain §11.7).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Pause.
    Medium,
    /// Halt.
    High,
    /// Halt.
    Critical,
}

/// Severity of each breaker: the longer the window of the loss, the worse.
pub const fn severity(kind: BreakerKind) -> Severity {
    match kind {
        BreakerKind::ConsecutiveLosses | BreakerKind::DailyLoss => Severity::Medium,
        BreakerKind::WeeklyLoss => Severity::High,
        BreakerKind::MaxDrawdown => Severity::Critical,
    }
}

/// Action of a breach: the configured one, else by severity. A losing streak has its own answer (a cooldown and half
/// the size) because nothing but another trade can end it.
pub fn action_for(kind: BreakerKind, configured: Option<&BreachSettings>) -> EmergencyAction {
    match configured {
        Some(breach) => breach.action,
        None if kind == BreakerKind::ConsecutiveLosses => EmergencyAction::Cooldown,
        None if severity(kind) >= Severity::High => EmergencyAction::HaltAll,
        None => EmergencyAction::PauseTrading,
    }
}

fn limit_of(kind: BreakerKind, risk: &RiskSettings) -> Decimal {
    match kind {
        BreakerKind::DailyLoss => risk.breakers.daily_loss_pct,
        BreakerKind::WeeklyLoss => risk.breakers.weekly_loss_pct,
        BreakerKind::MaxDrawdown => risk.breakers.max_drawdown_pct,
        BreakerKind::ConsecutiveLosses => Decimal::from(risk.breakers.consecutive_losses),
    }
}

fn regime_rule(
    regime: Regime,
    regimes: &BTreeMap<Regime, RegimeSettings>,
    strictness: &StrictnessSettings,
) -> RegimeRule {
    let Some(row) = regimes.get(&regime) else {
        return RegimeRule { floor: Score::ONE, max_leverage: 1 };
    };
    let extra = match row.strictness {
        Strictness::Relaxed => strictness.relaxed,
        Strictness::Normal => strictness.normal,
        Strictness::Strict => strictness.strict,
        Strictness::VeryStrict => strictness.very_strict,
    };
    RegimeRule { floor: (row.min_confidence + extra).unit(), max_leverage: row.max_leverage.max(1) }
}

fn ordered(a: Symbol, b: Symbol) -> (Symbol, Symbol) {
    if a <= b { (a, b) } else { (b, a) }
}

fn steps<K: std::str::FromStr + Ord>(table: &BTreeMap<String, u32>, key: &str) -> Result<Vec<(K, u32)>, String> {
    let mut rows = Vec::with_capacity(table.len());
    for (step, cap) in table {
        let step: K = step.parse().map_err(|_| format!("`{key}`: `{step}` is no number; write it like 5 = 3"))?;
        rows.push((step, (*cap).max(1)));
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(rows)
}

fn window(text: &str) -> Result<(i64, i64), String> {
    let minute = |part: &str| -> Option<i64> {
        let (hours, minutes) = part.trim().split_once(':')?;
        let (hours, minutes) = (hours.parse::<i64>().ok()?, minutes.parse::<i64>().ok()?);
        let valid = (0..=24).contains(&hours) && (0..60).contains(&minutes) && hours * 60 + minutes <= 1440;
        valid.then_some(hours * 60 + minutes)
    };
    let parsed = text.split_once('-').and_then(|(from, to)| Some((minute(from)?, minute(to)?)));
    parsed.filter(|(from, to)| from != to).ok_or_else(|| {
        format!("`risk.restricted_hours`: `{text}` must look like 22:00-02:00 (UTC, two different ends)")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::risk::fixtures::{self, score};

    #[test]
    fn a_window_has_two_times_of_a_day() {
        for right in ["22:00-02:00", "00:00-24:00"] {
            assert!(window(right).is_ok(), "{right}");
        }
        for wrong in ["24:30-02:00", "25:00-02:00", "22:60-02:00", "22:00-22:00", "22:00"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a091_r09_r10_floors_take_the_larger_and_include_strictness() {
        let rules = fixtures::rules();
        let rows = [
            (Regime::TrendingBull, ["0.60", "0.70", "0.80"]),
            (Regime::TrendingBear, ["0.60", "0.70", "0.80"]),
            (Regime::Ranging, ["0.65", "0.70", "0.80"]),
            (Regime::BreakoutPotential, ["0.65", "0.70", "0.80"]),
            (Regime::VolatileBull, ["0.70", "0.70", "0.80"]),
            (Regime::VolatileBear, ["0.70", "0.70", "0.80"]),
            (Regime::Choppy, ["0.85", "0.85", "0.85"]),
            (Regime::Unknown, ["0.75", "0.75", "0.80"]),
        ];
        for (regime, floors) in rows {
            for (losses, floor) in [0, 3, 5].into_iter().zip(floors) {
                assert_eq!(rules.confidence_floor(regime, losses), score(floor), "{regime} after {losses} losses");
            }
        }
    }

    #[test]
    fn a_breach_without_configuration_acts_by_severity() {
        assert_eq!(action_for(BreakerKind::MaxDrawdown, None), EmergencyAction::HaltAll);
        assert_eq!(action_for(BreakerKind::WeeklyLoss, None), EmergencyAction::HaltAll);
        assert_eq!(action_for(BreakerKind::DailyLoss, None), EmergencyAction::PauseTrading);
        assert_eq!(action_for(BreakerKind::ConsecutiveLosses, None), EmergencyAction::Cooldown);
    }

    #[test]
    fn a_wrong_window_is_named_with_its_key() {
        assert_eq!(window("22:00-02:30"), Ok((1320, 150)));
        assert!(window("25:00-02:00").unwrap_err().contains("risk.restricted_hours"));
        assert!(window("02:00-02:00").is_err());
    }
}
