//! Tests of the technical analyst.

use rust_decimal_macros::dec;

use super::analyse;
use crate::{
    agents::{
        Answer,
        contract::{DATA_STALE, INSUFFICIENT_DATA},
        fixtures::*,
    },
    model::*,
};

fn bullish() -> Indicators {
    Indicators {
        rsi14: Some(65.0),
        macd_histogram: Some(0.4),
        macd_histogram_previous: Some(0.3),
        adx14: Some(30.0),
        ema9: Some(101.0),
        ..quiet()
    }
}

fn run(indicators: Indicators) -> TaOutput {
    *analyse(&context(btc()), &snapshot(btc(), indicators), &cents(), &ta_settings()).output().expect("an opinion")
}

#[test]
fn long_needs_rsi_and_histogram_on_the_same_side() {
    let long = run(bullish());
    assert_eq!(long.bias, Bias::Long);
    // 0.45 + 0.25·15/30 + 0.20·30/50 + 0.10·1/1
    assert_eq!(long.head.confidence, Score::from_f64(0.795));
    assert_eq!(long.trend_strength, Score::from_f64(0.6));
    assert_eq!(long.momentum_score, Score::from_f64(0.3));
    assert_eq!(long.timeframe_alignment, [Timeframe::H1]);
    assert_eq!(long.head.path, "rules");
    assert!(!long.head.degraded);

    let mixed = run(Indicators { macd_histogram: Some(-0.1), ..bullish() });
    assert_eq!((mixed.bias, mixed.head.confidence), (Bias::Neutral, Score::from_f64(0.5)));
    assert!(mixed.timeframe_alignment.is_empty());
    assert_eq!(run(Indicators { rsi14: Some(60.0), ..bullish() }).bias, Bias::Neutral);

    let short = run(Indicators { rsi14: Some(35.0), macd_histogram: Some(-0.4), ema9: Some(99.0), ..bullish() });
    assert_eq!(short.bias, Bias::Short);
    assert_eq!(short.head.confidence, Score::from_f64(0.795));
    assert_eq!(short.momentum_score, Score::from_f64(-0.3));
}

#[test]
fn confidence_never_exceeds_its_cap_and_fallback_replaces_it() {
    let extreme = Indicators { rsi14: Some(95.0), adx14: Some(80.0), ..bullish() };
    let output = run(extreme.clone());
    assert_eq!(output.head.confidence, Score::from_f64(0.95));
    assert_eq!(output.trend_strength, Score::ONE);
    assert_eq!(output.rsi_signal, RsiSignal::Overbought);

    let mut ctx = context(btc());
    ctx.degraded = true;
    let fallback = analyse(&ctx, &snapshot(btc(), extreme), &cents(), &ta_settings()).output().expect("an opinion");
    assert!(fallback.head.degraded);
    assert_eq!(fallback.head.confidence, Score::from_f64(0.25));
}

#[test]
fn a_cross_is_a_sign_change_on_the_last_candle() {
    let signal = |now, before| {
        run(Indicators { macd_histogram: Some(now), macd_histogram_previous: before, ..quiet() }).macd_signal
    };
    assert_eq!(signal(0.1, Some(0.0)), MacdSignal::BullishCross);
    assert_eq!(signal(-0.1, Some(0.1)), MacdSignal::BearishCross);
    assert_eq!(signal(0.1, Some(0.1)), MacdSignal::Bullish);
    assert_eq!(signal(-0.1, Some(-0.1)), MacdSignal::Bearish);
    assert_eq!(signal(0.0, Some(0.1)), MacdSignal::Neutral);
    assert_eq!(signal(0.1, None), MacdSignal::Bullish);
}

#[test]
fn levels_are_the_extremes_and_near_is_half_an_atr() {
    let output = run(quiet());
    assert_eq!(output.support_levels, [dec!(97.00), dec!(95.00)]);
    assert_eq!(output.resistance_levels, [dec!(103.00), dec!(105.00)]);
    assert_eq!(output.current_position, LevelPosition::MidRange);
    let near = |low20, high20| run(Indicators { low20: Some(low20), high20: Some(high20), ..quiet() }).current_position;
    assert_eq!(near(99.5, 103.0), LevelPosition::NearSupport);
    assert_eq!(near(99.4, 103.0), LevelPosition::MidRange);
    assert_eq!(near(97.0, 100.5), LevelPosition::NearResistance);
    assert_eq!(near(99.75, 100.5), LevelPosition::NearSupport);
    assert_eq!(run(Indicators { low50: Some(97.0), ..quiet() }).support_levels, [dec!(97.00)]);
}

#[test]
fn a_flagged_frame_counts_neither_for_nor_against() {
    let mut parts = parts(btc(), dec!(100), 100.0, bullish());
    let against = Indicators { ema9: Some(90.0), ema21: Some(100.0), ..Indicators::default() };
    parts.frames[Timeframe::M5.index()] = Some(view(Timeframe::M5, 100.0, against));
    let run = |parts: SnapshotParts| {
        let snapshot = Snapshot::new(parts).unwrap();
        analyse(&context(btc()), &snapshot, &cents(), &ta_settings()).output().expect("an opinion").head.confidence
    };
    assert_eq!(run(parts.clone()), Score::from_f64(0.745));
    parts.flagged_frames.push(Timeframe::M5);
    assert_eq!(run(parts), Score::from_f64(0.795));
}

#[test]
fn missing_indicators_abstain_instead_of_a_made_up_neutral() {
    type Remove = fn(&mut Indicators);
    let removals: [Remove; 5] = [
        |i| i.rsi14 = None,
        |i| i.macd_histogram = None,
        |i| i.adx14 = None,
        |i| i.atr14 = None,
        |i| i.rsi14 = Some(f64::NAN),
    ];
    for remove in removals {
        let mut indicators = bullish();
        remove(&mut indicators);
        let answer = analyse(&context(btc()), &snapshot(btc(), indicators), &cents(), &ta_settings());
        assert_eq!(answer, Answer::Abstain(INSUFFICIENT_DATA.into()));
    }
}

#[test]
fn an_unusable_snapshot_abstains_and_a_foreign_one_fails() {
    let run = |change: fn(&mut SnapshotParts)| {
        let mut parts = parts(btc(), dec!(100), 100.0, bullish());
        change(&mut parts);
        analyse(&context(btc()), &Snapshot::new(parts).unwrap(), &cents(), &ta_settings())
    };
    assert_eq!(run(|p| p.quality = Quality::PrimaryStale), Answer::Abstain(DATA_STALE.into()));
    assert_eq!(run(|p| p.quality = Quality::PriceStale), Answer::Abstain(DATA_STALE.into()));
    assert_eq!(run(|p| p.price = None), Answer::Abstain(DATA_STALE.into()));
    assert_eq!(run(|p| p.frames = Default::default()), Answer::Abstain(DATA_STALE.into()));
    let Answer::Failed(cause) = run(|p| p.symbol = xrp()) else { panic!("a foreign snapshot was used") };
    assert_eq!(cause.class, FailClass::Validation);
}
