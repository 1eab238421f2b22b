//! Shared settings and values of the tests of risk and coordinator: the shipped defaults, written out.

use std::collections::BTreeMap;

use crate::{
    model::*,
    risk::{AccountMode, RiskRules, RiskView, RulesInput},
    settings::*,
};

pub fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

pub fn score(text: &str) -> Score {
    Score::from_f64(text.parse().unwrap())
}

pub fn sym(text: &str) -> Symbol {
    text.parse().unwrap()
}

pub fn usdt() -> Asset {
    "USDT".parse().unwrap()
}

/// A trade key that is `n` everywhere.
pub fn key(n: u8) -> TradeKey {
    TradeKey([n; 32])
}

pub fn symbols() -> BTreeMap<Symbol, SymbolRules> {
    let rule = |min: &str, price_decimals, quantity_decimals| SymbolRules {
        min_quantity: dec(min),
        price_decimals,
        quantity_decimals,
    };
    BTreeMap::from([
        (sym("BTC/USDT"), rule("0.0001", 2, 8)),
        (sym("XRP/USDT"), rule("10", 5, 0)),
        (sym("XRP/BTC"), rule("10", 8, 0)),
    ])
}

pub fn regimes() -> BTreeMap<Regime, RegimeSettings> {
    let row = |size: &str, stop: &str, target: &str, strictness, max_leverage, min: &str| RegimeSettings {
        size: dec(size),
        stop: dec(stop),
        target: dec(target),
        strictness,
        max_leverage,
        min_confidence: score(min),
    };
    use Strictness::{Normal, Strict, VeryStrict};
    BTreeMap::from([
        (Regime::TrendingBull, row("1.00", "1.2", "2.0", Normal, 5, "0.55")),
        (Regime::TrendingBear, row("0.80", "1.2", "2.0", Normal, 3, "0.55")),
        (Regime::Ranging, row("0.60", "0.8", "1.5", Strict, 2, "0.60")),
        (Regime::VolatileBull, row("0.40", "1.5", "2.5", Strict, 2, "0.65")),
        (Regime::VolatileBear, row("0.40", "1.5", "2.5", Strict, 2, "0.65")),
        (Regime::Choppy, row("0.25", "1.0", "1.0", VeryStrict, 1, "0.75")),
        (Regime::BreakoutPotential, row("0.75", "1.0", "3.0", Strict, 3, "0.60")),
        (Regime::Unknown, row("0.50", "1.0", "1.5", Strict, 1, "0.70")),
    ])
}

pub fn strictness() -> StrictnessSettings {
    StrictnessSettings {
        relaxed: score("-0.05"),
        normal: score("0"),
        strict: score("0.05"),
        very_strict: score("0.10"),
    }
}

pub fn risk() -> RiskSettings {
    let rho = |a: &str, b: &str, rho: &str| CorrelationSettings { a: sym(a), b: sym(b), rho: dec(rho) };
    RiskSettings {
        max_leverage: 5,
        max_position_pct: dec("20"),
        max_risk_per_trade_pct: dec("2.0"),
        max_total_exposure_pct: dec("80"),
        max_correlated_exposure_pct: dec("40"),
        correlated_warn_ratio: dec("0.80"),
        correlation_min: dec("0.5"),
        correlations: vec![
            rho("BTC/USDT", "XRP/USDT", "0.75"),
            rho("BTC/USDT", "XRP/BTC", "0.60"),
            rho("XRP/USDT", "XRP/BTC", "0.85"),
        ],
        max_open_positions: 5,
        max_per_symbol: 2,
        max_margin_utilisation_pct: dec("50"),
        account_max_age_seconds: 60,
        stop: StopSettings {
            min_distance_pct: dec("0.5"),
            max_distance_pct: dec("5.0"),
            symbol_max_pct: BTreeMap::from([
                (sym("BTC/USDT"), dec("3.0")),
                (sym("XRP/USDT"), dec("5.0")),
                (sym("XRP/BTC"), dec("5.0")),
            ]),
            min_reward_risk: dec("1.5"),
        },
        confidence_floor: ConfidenceFloorSettings {
            base: score("0.60"),
            after_3_losses: score("0.70"),
            after_5_losses: score("0.80"),
        },
        loss_size_factor: dec("0.5"),
        volatility: VolatilitySettings { spike_multiple: 3.0, size_factor: dec("0.5") },
        leverage_by_drawdown: [("5", 3), ("10", 2), ("15", 1)].map(|(k, v)| (k.to_owned(), v)).into(),
        leverage_by_losses: [("3", 2), ("5", 1)].map(|(k, v)| (k.to_owned(), v)).into(),
        breakers: BreakerSettings {
            daily_loss_pct: dec("5"),
            weekly_loss_pct: dec("10"),
            max_drawdown_pct: dec("20"),
            consecutive_losses: 5,
        },
        cooldown_minutes: BTreeMap::from([
            (CooldownCause::AfterWin, 5),
            (CooldownCause::AfterLoss, 10),
            (CooldownCause::AfterThreeLosses, 30),
            (CooldownCause::AfterFiveLosses, 60),
            (CooldownCause::VolatilitySpike, 15),
            (CooldownCause::UnusualMove, 10),
            (CooldownCause::Rebalance, 30),
            (CooldownCause::OrderErrors, 15),
        ]),
        unusual_move: UnusualMoveSettings { pct: dec("3.0"), window_minutes: 5 },
        restricted_hours: vec![],
        soft_alerts: SoftAlertSettings {
            daily_loss_pct: dec("3"),
            daily_profit_pct: dec("5"),
            position_loss_pct: dec("2"),
            stop_proximity_pct: dec("0.5"),
            exposure_pct: dec("70"),
        },
    }
}

pub fn emergency() -> EmergencySettings {
    let breach = |action, reduction: &str, then_pause, close_positions| BreachSettings {
        action,
        reduction_pct: dec(reduction),
        then_pause,
        close_positions,
    };
    EmergencySettings {
        breach: BTreeMap::from([
            (BreakerKind::DailyLoss, breach(EmergencyAction::PauseTrading, "0", false, false)),
            (BreakerKind::WeeklyLoss, breach(EmergencyAction::ReducePositions, "50", true, false)),
            (BreakerKind::MaxDrawdown, breach(EmergencyAction::HaltAll, "0", false, true)),
        ]),
        order_errors_max_consecutive: 3,
        close_retry_seconds: CloseRetrySettings { base: 5, cap: 60 },
    }
}

pub fn consensus() -> ConsensusSettings {
    ConsensusSettings {
        curve: Curve::Stepped,
        high_agreement_threshold: 0.66,
        low_agreement_threshold: 0.33,
        max_confidence_boost: 0.30,
        max_confidence_penalty: 0.15,
        turnout_scaling: true,
        neutral: NeutralVote::Dissent,
        max_age_seconds: BTreeMap::from([
            (TaskName::TechnicalAnalysis, 120),
            (TaskName::RegimeDetection, 600),
            (TaskName::SentimentAnalysis, 3600),
        ]),
    }
}

pub fn conflicts() -> ConflictSettings {
    ConflictSettings {
        chain: String::new(),
        max_confidence_gap: score("0.20"),
        detect: BTreeMap::from([
            (ConflictKind::TaSentimentConflict, true),
            (ConflictKind::RegimeConflict, true),
            (ConflictKind::RiskOverride, false),
            (ConflictKind::RebalanceConflict, true),
        ]),
        risk_override_reduction_pct: dec("50"),
        rebalance_window_seconds: 300,
        fallback: BTreeMap::from([
            (ConflictKind::TaSentimentConflict, ResolutionAction::Wait),
            (ConflictKind::RegimeConflict, ResolutionAction::Abort),
            (ConflictKind::RiskOverride, ResolutionAction::Abort),
            (ConflictKind::RebalanceConflict, ResolutionAction::Proceed),
        ]),
        max_resolution_ms: 10_000,
        min_resolution_confidence: score("0.30"),
        max_entry_adjustment_pct: dec("2.0"),
    }
}

pub fn degradation() -> DegradationSettings {
    DegradationSettings {
        escalate_rates: [0.30, 0.50, 0.80],
        escalate_consecutive: [3, 6, 9],
        recover_rates: [0.05, 0.15, 0.30],
        escalate_window: 30,
        recover_window: 60,
        min_samples: 10,
        sample_max_age_minutes: 60,
        recover_recent: 5,
        recover_in_a_row: 20,
        dwell_seconds: 120,
        dwell_max_seconds: 7200,
        relapse_seconds: 7200,
        calm_seconds: 14_400,
        probe_seconds: 30,
        incident_merge_ms: 1000,
        reduced_size_factor: dec("0.5"),
        auto_clear_pause: true,
        max_level: BTreeMap::from([
            (Capability::Llm, DegradationLevel::Emergency),
            (Capability::Sentiment, DegradationLevel::Reduced),
            (Capability::MarketData, DegradationLevel::Emergency),
            (Capability::Venue, DegradationLevel::Emergency),
        ]),
    }
}

pub fn rules_for(risk: &RiskSettings, mode: AccountMode) -> RiskRules {
    RiskRules::new(RulesInput {
        risk,
        regimes: &regimes(),
        strictness: &strictness(),
        emergency: &emergency(),
        symbols: &symbols(),
        taker_fee_pct: dec("0.26"),
        price_max_age_seconds: 60,
        mode,
    })
    .unwrap()
}

/// The defaults, spot.
pub fn rules() -> RiskRules {
    rules_for(&risk(), AccountMode::Spot)
}

/// The defaults with margin.
pub fn margin_rules() -> RiskRules {
    rules_for(&risk(), AccountMode::Margin)
}

/// Equity 10 000 USD, all of it free USDT, nothing else.
pub fn view(now: Ts) -> RiskView {
    RiskView {
        equity: dec("10000"),
        equity_at: Some(now),
        peak: dec("10000"),
        free: vec![(usdt(), dec("10000"))],
        ..RiskView::default()
    }
}

/// An open long position.
pub fn position(id: u64, symbol: &str, quantity: &str, cost: &str) -> Position {
    Position {
        id: PositionId(id),
        symbol: sym(symbol),
        side: PositionSide::Long,
        quantity: dec(quantity),
        cost: dec(cost),
        leverage: 1,
        stop: None,
        target: None,
        trailing: Trailing::default(),
        opened_at: Ts(0),
        fees: Decimal::ZERO,
        realised: Decimal::ZERO,
        trades: vec![],
        exit_seq: 0,
        exiting: None,
        past: Default::default(),
    }
}

/// Applies events to a state as records at `at`.
pub fn apply(state: &mut State, at: Ts, events: &[Event]) {
    for event in events {
        let record = Record {
            v: event::SCHEMA_VERSION,
            seq: state.meta.seq + 1,
            epoch: state.meta.epoch,
            ts: at,
            n: None,
            actor: "test".into(),
            corr: String::new(),
            cause: String::new(),
            event: event.clone(),
        };
        state.apply(&record).unwrap();
    }
}
