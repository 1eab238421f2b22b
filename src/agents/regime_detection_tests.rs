//! Tests of the regime detector and its memory.

use rstest::rstest;
use rust_decimal_macros::dec;

use super::detect;
use crate::{
    agents::{Answer, contract::INSUFFICIENT_DATA, fixtures::*},
    model::*,
};

fn run_on(symbol: Symbol, indicators: Indicators, previous: Option<&RegimeOutput>) -> RegimeOutput {
    let answer = detect(&context(symbol), &snapshot(symbol, indicators), previous, &regime_detection_settings());
    *answer.output().expect("an opinion")
}

fn run(indicators: Indicators, previous: Option<&RegimeOutput>) -> RegimeOutput {
    run_on(btc(), indicators, previous)
}

/// Choppy with the confidence asked for: 0.60 + 0.35·x/15.
fn choppy(confidence: f64) -> Indicators {
    Indicators { adx14: Some(15.0), choppiness14: Some(60.0 + (confidence - 0.60) / 0.35 * 15.0), ..quiet() }
}

fn ranging() -> Indicators {
    Indicators { adx14: Some(15.0), ..quiet() }
}

fn trending(adx: f64, rsi: f64) -> Indicators {
    Indicators { adx14: Some(adx), rsi14: Some(rsi), ..quiet() }
}

#[rstest]
#[case::share_of_price(Indicators { atr14: Some(5.0), atr14_mean50_before: Some(5.0), rsi14: Some(51.0), ..quiet() }, Regime::VolatileBull, 0.75)]
#[case::ratio(Indicators { atr14: Some(2.4), rsi14: Some(50.0), ..quiet() }, Regime::VolatileBear, 0.80)]
#[case::ratio_exactly_two_is_not_above(Indicators { atr14: Some(2.0), ..quiet() }, Regime::Ranging, 0.70)]
#[case::both_rules_take_the_ratio(Indicators { atr14: Some(9.0), rsi14: Some(60.0), ..quiet() }, Regime::VolatileBull, 0.95)]
#[case::trend_up(trending(31.0, 55.0), Regime::TrendingBull, 0.74)]
#[case::trend_down(trending(60.0, 45.0), Regime::TrendingBear, 0.95)]
#[case::adx_exactly_25_is_no_trend(trending(25.0, 55.0), Regime::Ranging, 0.70)]
#[case::squeeze(Indicators { squeeze: Some(true), squeeze_candles: 6, choppiness14: Some(70.0), ..quiet() }, Regime::BreakoutPotential, 0.70)]
#[case::short_squeeze(Indicators { squeeze: Some(true), squeeze_candles: 5, ..quiet() }, Regime::Ranging, 0.70)]
#[case::choppy(choppy(0.72), Regime::Choppy, 0.72)]
#[case::choppiness_exactly_60(choppy(0.60), Regime::Ranging, 0.70)]
fn the_first_matching_rule_wins(#[case] indicators: Indicators, #[case] regime: Regime, #[case] confidence: f64) {
    let output = run(indicators, None);
    assert_eq!((output.regime, output.detected_regime), (regime, regime));
    assert_eq!(output.head.confidence, Score::from_f64(confidence));
    assert_eq!((output.periods_in_regime, output.regime_started), (1, NOW));
}

#[test]
fn missing_adx_or_atr_abstains() {
    for indicators in [Indicators { adx14: None, ..quiet() }, Indicators { atr14: None, ..quiet() }] {
        let answer = detect(&context(btc()), &snapshot(btc(), indicators), None, &regime_detection_settings());
        assert_eq!(answer, Answer::Abstain(INSUFFICIENT_DATA.into()));
    }
}

#[rstest]
#[case(0.99, 3.01, Volatility::Low, VolumeProfile::Spike)]
#[case(1.0, 3.0, Volatility::Normal, VolumeProfile::Increasing)]
#[case(3.0, 1.2, Volatility::High, VolumeProfile::Stable)]
#[case(5.0, 0.79, Volatility::Extreme, VolumeProfile::Decreasing)]
fn volatility_and_volume_classes(
    #[case] atr: f64,
    #[case] ratio: f64,
    #[case] volatility: Volatility,
    #[case] volume: VolumeProfile,
) {
    let output = run(Indicators { atr14: Some(atr), volume_ratio: Some(ratio), ..quiet() }, None);
    assert_eq!((output.volatility, output.volume_profile), (volatility, volume));
    assert!(output.head.warnings.is_empty());
}

#[test]
fn the_share_is_taken_of_the_snapshot_price() {
    let indicators = Indicators { atr14: Some(1.5), ..quiet() };
    let snapshot = Snapshot::new(parts(btc(), dec!(200), 100.0, indicators)).unwrap();
    let output = detect(&context(btc()), &snapshot, None, &regime_detection_settings()).output().unwrap();
    assert_eq!(output.volatility, Volatility::Low);
}

#[test]
fn a080_memory_is_per_symbol() {
    let bitcoin = run_on(btc(), trending(40.0, 60.0), None);
    let ripple = run_on(xrp(), trending(39.0, 40.0), None);
    assert_eq!((bitcoin.regime, ripple.regime), (Regime::TrendingBull, Regime::TrendingBear));
    let again = run_on(btc(), trending(40.0, 60.0), Some(&bitcoin));
    assert_eq!((again.regime, again.periods_in_regime), (Regime::TrendingBull, 2));

    let settings = regime_detection_settings();
    let mixed = detect(&context(btc()), &snapshot(btc(), quiet()), Some(&ripple), &settings);
    assert!(matches!(mixed, Answer::Failed(FailCause { class: FailClass::Validation, .. })), "{mixed:?}");
}

#[test]
fn a081_second_confident_detection_switches() {
    let start = run(ranging(), None);
    let first = run(choppy(0.72), Some(&start));
    assert_eq!((first.regime, first.detected_regime), (Regime::Ranging, Regime::Choppy));
    assert_eq!((first.pending_regime, first.pending_count), (Some(Regime::Choppy), 1));
    let second = run(choppy(0.71), Some(&first));
    assert_eq!((second.regime, second.pending_regime, second.pending_count), (Regime::Choppy, None, 0));
    assert_eq!((second.head.confidence, second.periods_in_regime), (Score::from_f64(0.71), 1));
}

#[test]
fn a082_an_unsure_detection_restarts_the_count() {
    let mut output = run(ranging(), None);
    for confidence in [0.72, 0.65, 0.72] {
        output = run(choppy(confidence), Some(&output));
        assert_eq!(output.regime, Regime::Ranging);
    }
    assert_eq!((output.pending_regime, output.pending_count), (Some(Regime::Choppy), 1));
}

#[test]
fn a082_a_third_regime_restarts_the_count_with_itself() {
    let start = run(ranging(), None);
    let pending = run(choppy(0.72), Some(&start));
    let third = run(trending(40.0, 60.0), Some(&pending));
    assert_eq!(third.regime, Regime::Ranging);
    assert_eq!((third.pending_regime, third.pending_count), (Some(Regime::TrendingBull), 1));
    let back = run(choppy(0.72), Some(&third));
    assert_eq!((back.regime, back.pending_count), (Regime::Ranging, 1));
}

#[test]
fn a083_pending_switch_keeps_the_old_regime_and_its_confidence() {
    let start = run(ranging(), None);
    let pending = run(choppy(0.90), Some(&start));
    assert_eq!(pending.regime, Regime::Ranging);
    assert_eq!(pending.head.confidence, Score::from_f64(0.70), "the stored one, not that of the other regime");
    assert_eq!((pending.periods_in_regime, pending.regime_started), (1, start.regime_started));
    let confirmed = run(ranging(), Some(&pending));
    assert_eq!((confirmed.periods_in_regime, confirmed.pending_regime), (2, None));
}

#[test]
fn a084_restart_between_the_two_detections_changes_nothing() {
    let start = run(ranging(), None);
    let first = run(choppy(0.72), Some(&start));
    let stored = serde_json::to_string(&first).unwrap();
    let restored: RegimeOutput = serde_json::from_str(&stored).unwrap();
    assert_eq!(run(choppy(0.71), Some(&restored)), run(choppy(0.71), Some(&first)));
    assert_eq!(run(choppy(0.71), Some(&restored)).regime, Regime::Choppy);
}

#[test]
fn a_degraded_output_never_changes_the_memory() {
    let mut ctx = context(btc());
    ctx.degraded = true;
    let degraded = |previous: Option<&RegimeOutput>| {
        let snapshot = snapshot(btc(), choppy(0.90));
        *detect(&ctx, &snapshot, previous, &regime_detection_settings()).output().expect("an opinion")
    };
    let start = run(ranging(), None);
    let pending = run(choppy(0.72), Some(&start));
    let output = degraded(Some(&pending));
    assert!(output.head.degraded);
    assert_eq!(output.head.confidence, Score::from_f64(0.40));
    assert_eq!(
        (output.regime, output.pending_regime, output.pending_count),
        (Regime::Ranging, Some(Regime::Choppy), 1)
    );
    assert_eq!(output.stored_confidence, pending.stored_confidence);

    let nothing = degraded(None);
    assert_eq!((nothing.regime, nothing.periods_in_regime), (Regime::Unknown, 0));
    assert_eq!(run(ranging(), Some(&nothing)).periods_in_regime, 1, "the first real detection is the first");
}
