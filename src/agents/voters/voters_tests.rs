//! Tests of the rules voters.

use proptest::prelude::*;
use rstest::rstest;
use rust_decimal::Decimal;
use rust_decimal_macros::dec;

use super::{StopLimits, VoterInputs, ask};
use crate::{
    agents::{contract::INSUFFICIENT_DATA, fixtures::*, vote},
    model::*,
    settings::{RegimeSettings, RulesSettings, Strategy},
};

const RULES: RulesSettings = RulesSettings { size_pct: 10.0, adx_trend: 25.0, adx_range: 15.0 };
const ALL: [Strategy; 6] = [
    Strategy::EmaCross,
    Strategy::MacdMomentum,
    Strategy::Supertrend,
    Strategy::DonchianBreakout,
    Strategy::BollingerReversion,
    Strategy::RsiTrend,
];

fn ballot(strategy: Strategy, close: f64, indicators: &Indicators, regime: Regime) -> Ballot {
    let table = regimes();
    let inputs = VoterInputs {
        price: dec!(100),
        close,
        indicators,
        regime: &table[&regime],
        limits: StopLimits::of(&stop_settings(), btc()),
        rules: &cents(),
        settings: &RULES,
    };
    ask(strategy, &inputs)
}

fn vote(strategy: Strategy, close: f64, indicators: Indicators) -> Vote {
    match ballot(strategy, close, &indicators, Regime::Unknown) {
        Ballot::Vote(vote) => vote,
        other => panic!("{strategy:?}: {other:?}"),
    }
}

/// Indicators under which `strategy` buys (or, mirrored, sells) at strength `s` with a close of 100.
fn firing(strategy: Strategy, up: bool, s: f64) -> Indicators {
    let sign = if up { 1.0 } else { -1.0 };
    let base = Indicators { atr14: Some(1.0), ..quiet() };
    match strategy {
        Strategy::EmaCross => Indicators { ema9: Some(100.0 + sign * s), ema50: Some(100.0 - sign), ..base },
        Strategy::MacdMomentum => Indicators {
            macd_line: Some(sign),
            macd_histogram: Some(sign * 0.25 * s),
            macd_histogram_previous: Some(sign * 0.2 * s),
            ..base
        },
        Strategy::Supertrend => {
            Indicators { supertrend_up: Some(up), supertrend_line: Some(100.0 - sign * 3.0 * s), ..base }
        }
        Strategy::DonchianBreakout if up => Indicators { breakout_up_level: Some(100.0 - s), ..base },
        Strategy::DonchianBreakout => Indicators { breakout_down_level: Some(100.0 + s), ..base },
        Strategy::BollingerReversion => Indicators {
            adx14: Some(18.0),
            bollinger_position: Some(if up { 0.05 } else { 0.95 }),
            rsi14: Some(50.0 - sign * 30.0 * s),
            ..base
        },
        Strategy::RsiTrend => Indicators { rsi14: Some(50.0 + sign * 20.0 * s), ema50: Some(100.0 - sign), ..base },
    }
}

#[test]
fn a_quiet_market_makes_every_voter_hold() {
    for strategy in ALL {
        let indicators = Indicators { supertrend_up: Some(true), adx14: Some(19.0), ..quiet() };
        let vote = vote(strategy, 100.0, indicators);
        assert_eq!((vote.action, vote.confidence), (Action::Hold, Score::from_f64(0.5)), "{strategy:?}");
        assert_eq!((vote.levels, vote.position_size_pct), (None, Score::ZERO));
    }
}

#[rstest]
#[case(Strategy::EmaCross, dec!(2.0))]
#[case(Strategy::MacdMomentum, dec!(2.0))]
#[case(Strategy::Supertrend, dec!(1.8))] // the line: 3·0.6 away
#[case(Strategy::DonchianBreakout, dec!(1.5))]
#[case(Strategy::BollingerReversion, dec!(1.5))]
#[case(Strategy::RsiTrend, dec!(2.0))]
fn buy_and_its_mirror(#[case] strategy: Strategy, #[case] distance: Decimal) {
    for up in [true, false] {
        let vote = vote(strategy, 100.0, firing(strategy, up, 0.6));
        assert_eq!(vote.action, if up { Action::Buy } else { Action::Sell }, "{strategy:?}");
        // 0.50 + 0.25·0.6, no bonus at ADX 22 (reversion: 18) and a histogram of zero
        assert_eq!(vote.confidence, Score::from_f64(0.65), "{strategy:?}");
        assert_eq!(vote.position_size_pct, Score::from_f64(8.0));
        let levels = vote.levels.expect("levels");
        let sign = if up { Decimal::ONE } else { Decimal::NEGATIVE_ONE };
        assert_eq!(levels.entry, dec!(100));
        assert_eq!(levels.stop, dec!(100) - sign * distance);
        assert_eq!(levels.target, dec!(100) + sign * (distance * dec!(1.5) + dec!(0.01)));
    }
}

#[rstest]
#[case(Strategy::EmaCross, 25.0, 0.75)]
#[case(Strategy::EmaCross, 24.9, 0.65)]
#[case(Strategy::MacdMomentum, 25.0, 0.75)]
#[case(Strategy::Supertrend, 25.0, 0.75)]
#[case(Strategy::DonchianBreakout, 25.0, 0.75)]
#[case(Strategy::BollingerReversion, 14.9, 0.75)]
#[case(Strategy::BollingerReversion, 15.0, 0.65)]
#[case(Strategy::RsiTrend, 40.0, 0.65)]
fn the_bonus_follows_adx(#[case] strategy: Strategy, #[case] adx: f64, #[case] confidence: f64) {
    let indicators = Indicators { adx14: Some(adx), ..firing(strategy, true, 0.6) };
    assert_eq!(vote(strategy, 100.0, indicators).confidence, Score::from_f64(confidence));
}

#[test]
fn rsi_trend_bonus_follows_the_histogram_and_confidence_is_capped() {
    let with = |histogram, up| {
        let indicators = Indicators { macd_histogram: Some(histogram), ..firing(Strategy::RsiTrend, up, 0.6) };
        vote(Strategy::RsiTrend, 100.0, indicators).confidence
    };
    assert_eq!((with(0.1, true), with(-0.1, true)), (Score::from_f64(0.70), Score::from_f64(0.65)));
    assert_eq!((with(-0.1, false), with(0.1, false)), (Score::from_f64(0.70), Score::from_f64(0.65)));
    let strong = Indicators { adx14: Some(60.0), ..firing(Strategy::EmaCross, true, 9.0) };
    assert_eq!(vote(Strategy::EmaCross, 100.0, strong).confidence, Score::from_f64(0.85));
}

#[rstest]
#[case::close_on_the_wrong_side(Strategy::EmaCross, Indicators { ema9: Some(101.0), ema50: Some(100.0), ..quiet() })]
#[case::histogram_shrinks(Strategy::MacdMomentum, Indicators { macd_line: Some(1.0), macd_histogram: Some(0.2), macd_histogram_previous: Some(0.2), ..quiet() })]
#[case::no_trend(Strategy::Supertrend, Indicators { supertrend_up: Some(true), adx14: Some(19.9), ..quiet() })]
#[case::trend_forbids_reversion(Strategy::BollingerReversion, Indicators { adx14: Some(20.0), bollinger_position: Some(0.0), rsi14: Some(20.0), ..quiet() })]
#[case::rsi_not_low(Strategy::BollingerReversion, Indicators { adx14: Some(10.0), bollinger_position: Some(0.0), rsi14: Some(35.0), ..quiet() })]
#[case::rsi_extreme(Strategy::RsiTrend, Indicators { rsi14: Some(70.0), ema50: Some(90.0), ..quiet() })]
#[case::rsi_extreme_low(Strategy::RsiTrend, Indicators { rsi14: Some(30.0), ema50: Some(110.0), ..quiet() })]
fn boundaries_hold(#[case] strategy: Strategy, #[case] indicators: Indicators) {
    assert_eq!(vote(strategy, 100.0, indicators).action, Action::Hold);
}

#[test]
fn a076_each_missing_indicator_makes_its_voter_abstain() {
    type Remove = fn(&mut Indicators);
    let needs: [(Strategy, &[Remove]); 6] = [
        (
            Strategy::EmaCross,
            &[|i| i.ema9 = None, |i| i.ema21 = None, |i| i.ema50 = None, |i| i.atr14 = None, |i| i.adx14 = None],
        ),
        (
            Strategy::MacdMomentum,
            &[|i| i.macd_line = None, |i| i.macd_histogram = None, |i| i.macd_histogram_previous = None],
        ),
        (
            Strategy::Supertrend,
            &[|i| i.supertrend_line = None, |i| i.supertrend_up = None, |i| i.adx14 = None, |i| i.atr14 = None],
        ),
        (Strategy::DonchianBreakout, &[|i| i.donchian_high = None, |i| i.donchian_low = None, |i| i.atr14 = None]),
        (Strategy::BollingerReversion, &[|i| i.bollinger_position = None, |i| i.rsi14 = None, |i| i.adx14 = None]),
        (Strategy::RsiTrend, &[|i| i.rsi14 = None, |i| i.ema50 = None, |i| i.macd_histogram = Some(f64::NAN)]),
    ];
    for (strategy, removals) in needs {
        for remove in removals {
            let mut indicators = firing(strategy, true, 0.6);
            remove(&mut indicators);
            let ballot = ballot(strategy, 100.0, &indicators, Regime::Ranging);
            assert_eq!(ballot, Ballot::Abstain(INSUFFICIENT_DATA.to_owned()), "{strategy:?}");
        }
    }
}

#[rstest]
#[case::regime_widens(Regime::TrendingBull, 1.0, dec!(97.60), dec!(104.81))] // 2·1.2 = 2.4, target 2 R
#[case::regime_narrows(Regime::Ranging, 1.0, dec!(98.40), dec!(102.41))]
#[case::choppy_target_at_least_1_5(Regime::Choppy, 1.0, dec!(98.00), dec!(103.01))]
#[case::cap_of_the_symbol(Regime::TrendingBull, 9.0, dec!(97.01), dec!(105.99))] // 3 % less one tick
#[case::floor(Regime::Unknown, 0.01, dec!(99.49), dec!(100.78))] // 0.5 % plus one tick; 100.765 up, plus one tick
fn distance_is_scaled_and_clamped(
    #[case] regime: Regime,
    #[case] atr: f64,
    #[case] stop: Decimal,
    #[case] target: Decimal,
) {
    let indicators = Indicators { atr14: Some(atr), ..firing(Strategy::EmaCross, true, 0.6) };
    let Ballot::Vote(vote) = ballot(Strategy::EmaCross, 100.0, &indicators, regime) else { panic!("no vote") };
    assert_eq!(vote.levels, Some(Levels { entry: dec!(100), stop, target }));
}

#[test]
fn a_price_of_one_step_leaves_no_room_for_a_stop() {
    let table = regimes();
    let indicators = firing(Strategy::EmaCross, true, 0.6);
    let inputs = VoterInputs {
        price: dec!(0.01),
        close: 100.0,
        indicators: &indicators,
        regime: &table[&Regime::Unknown],
        limits: StopLimits::of(&stop_settings(), btc()),
        rules: &cents(),
        settings: &RULES,
    };
    assert_eq!(ask(Strategy::EmaCross, &inputs), Ballot::Failed("incoherent".to_owned()));
}

proptest! {
    /// Whatever price, range and regime: a rules vote satisfies the checks risk will make.
    #[test]
    fn every_vote_passes_risks_stop_checks(
        steps in 10_000_i64..100_000_000,
        decimals in 2_u32..9,
        atr_share in 0.0..0.2_f64,
        regime in 0..8_usize,
        up in any::<bool>(),
    ) {
        let price = Decimal::new(steps, decimals);
        let close = f64::from(steps as i32) / 10f64.powi(decimals as i32);
        let table = regimes();
        let regime: &RegimeSettings = &table[&Regime::ALL[regime]];
        let sign = if up { 1.0 } else { -1.0 };
        let indicators = Indicators {
            atr14: Some(close * atr_share),
            ema9: Some(close * (1.0 + sign * 0.01)),
            ema21: Some(close),
            ema50: Some(close * (1.0 - sign * 0.01)),
            ..quiet()
        };
        let limits = StopLimits::of(&stop_settings(), btc());
        let rules = SymbolRules { min_quantity: dec!(1), price_decimals: decimals, quantity_decimals: 8 };
        let inputs =
            VoterInputs { price, close, indicators: &indicators, regime, limits, rules: &rules, settings: &RULES };
        let Ballot::Vote(vote) = ask(Strategy::EmaCross, &inputs) else { panic!("no vote") };
        let levels = vote.levels.expect("levels");
        let distance_pct = (levels.entry - levels.stop).abs() * dec!(100) / levels.entry;
        prop_assert!(distance_pct >= limits.min_pct, "too tight: {distance_pct}");
        prop_assert!(distance_pct <= limits.max_pct, "too wide: {distance_pct}");
        prop_assert!(vote::is_coherent(vote.action, Some(&levels)));
        prop_assert_eq!(levels.stop.round_dp(decimals), levels.stop);
        prop_assert_eq!(levels.target.round_dp(decimals), levels.target);
    }
}
