//! The embedded defaults against the numbers of the specification.

use super::Settings;
use crate::model::{BreakerKind, CooldownCause, EmergencyAction, Regime, Symbol, TaskName};

#[test]
fn the_defaults_are_the_numbers_of_the_specification() {
    let s = Settings::defaults();
    let task = |name: TaskName| {
        let t = &s.tasks[&name];
        [
            t.interval_seconds,
            t.timeout_seconds,
            t.snapshot_timeout_seconds,
            t.max_parallel,
            t.catch_up_seconds,
            t.start_deadline_seconds,
        ]
    };
    assert_eq!(task(TaskName::TechnicalAnalysis), [60, 30, 15, 3, 60, 60]);
    assert_eq!(task(TaskName::RegimeDetection), [300, 60, 30, 3, 300, 300]);
    assert_eq!(task(TaskName::SentimentAnalysis), [1800, 120, 0, 3, 1800, 900]);
    assert_eq!(task(TaskName::TradingDecision), [3600, 180, 30, 3, 300, 300]);
    assert_eq!(task(TaskName::PortfolioRebalance), [3600, 120, 30, 1, 300, 300]);
    assert_eq!(s.tasks[&TaskName::PortfolioRebalance].symbols, [Symbol::PORTFOLIO]);
    assert_eq!(s.tasks[&TaskName::TradingDecision].symbols, s.symbols);
    let needs: Vec<_> = s.tasks[&TaskName::TradingDecision]
        .depends_on
        .iter()
        .map(|d| (d.task.name(), d.max_age_seconds, d.require_new, d.required))
        .collect();
    assert_eq!(
        needs,
        [
            ("technical_analysis", 120, true, true),
            ("regime_detection", 510, true, true),
            ("sentiment_analysis", 2820, false, false)
        ]
    );
    let regime = |regime: Regime| {
        let r = &s.regimes[&regime];
        format!("{} {} {} {:?} {} {}", r.size, r.stop, r.target, r.strictness, r.max_leverage, r.min_confidence)
    };
    assert_eq!(regime(Regime::TrendingBull), "1 1.2 2 Normal 5 0.5500");
    assert_eq!(regime(Regime::TrendingBear), "0.8 1.2 2 Normal 3 0.5500");
    assert_eq!(regime(Regime::Ranging), "0.6 0.8 1.5 Strict 2 0.6000");
    assert_eq!(regime(Regime::VolatileBull), "0.4 1.5 2.5 Strict 2 0.6500");
    assert_eq!(regime(Regime::VolatileBear), "0.4 1.5 2.5 Strict 2 0.6500");
    assert_eq!(regime(Regime::Choppy), "0.25 1 1 VeryStrict 1 0.7500");
    assert_eq!(regime(Regime::BreakoutPotential), "0.75 1 3 Strict 3 0.6000");
    assert_eq!(regime(Regime::Unknown), "0.5 1 1.5 Strict 1 0.7000");
    let minutes: Vec<u32> = [
        CooldownCause::AfterWin,
        CooldownCause::AfterLoss,
        CooldownCause::AfterThreeLosses,
        CooldownCause::AfterFiveLosses,
        CooldownCause::VolatilitySpike,
        CooldownCause::UnusualMove,
        CooldownCause::Rebalance,
        CooldownCause::OrderErrors,
    ]
    .iter()
    .map(|cause| s.risk.cooldown_minutes[cause])
    .collect();
    assert_eq!(minutes, [5, 10, 30, 60, 15, 10, 30, 15]);
    let actions: Vec<_> = BreakerKind::ALL.iter().map(|b| s.emergency.breach[b].action).collect();
    use EmergencyAction::{Cooldown, HaltAll, PauseTrading, ReducePositions};
    assert_eq!(actions, [PauseTrading, ReducePositions, HaltAll, Cooldown]);
    let caps: Vec<String> = s.risk.stop.symbol_max_pct.iter().map(|(symbol, cap)| format!("{symbol} {cap}")).collect();
    assert_eq!(caps, ["BTC/USDT 3", "XRP/BTC 5", "XRP/USDT 5"]);
    let rho: Vec<String> = s.risk.correlations.iter().map(|c| format!("{} {} {}", c.a, c.b, c.rho)).collect();
    assert_eq!(rho, ["BTC/USDT XRP/USDT 0.75", "BTC/USDT XRP/BTC 0.6", "XRP/USDT XRP/BTC 0.85"]);
    assert_eq!(s.market.lookback.values().copied().collect::<Vec<_>>(), [60, 60, 60, 250, 60, 60]);
    let fees = &s.execution.paper;
    assert_eq!(
        [fees.slippage_pct, fees.maker_fee_pct, fees.taker_fee_pct].map(|f| f.to_string()),
        ["0.1", "0.16", "0.26"]
    );
    assert_eq!(s.degradation.escalate_rates, [0.30, 0.50, 0.80]);
    assert_eq!((s.degradation.dwell_seconds, s.degradation.calm_seconds), (120, 14400));
    assert_eq!(s.bus.ttl_seconds["sentiment_updates"], 7200);
    assert_eq!(s.portfolio.targets.values().map(ToString::to_string).collect::<Vec<_>>(), ["1", "1", "1"]);
    assert_eq!((s.seed, s.runtime.speed, s.api.bind.as_str()), (0, 60, "127.0.0.1:8710"));
}
