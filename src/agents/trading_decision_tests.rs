//! Tests of the trading decision as a whole.

use rust_decimal_macros::dec;

use super::*;
use crate::{
    agents::{contract::INSUFFICIENT_DATA, fixtures::*, regime_detection, technical_analysis},
    model::*,
};

/// A market in which five voters buy and the reversion holds.
fn rising() -> Indicators {
    Indicators {
        ema9: Some(101.0),
        ema21: Some(100.5),
        ema50: Some(99.0),
        rsi14: Some(62.0),
        macd_line: Some(0.5),
        macd_histogram: Some(0.2),
        macd_histogram_previous: Some(0.1),
        adx14: Some(30.0),
        supertrend_line: Some(98.0),
        supertrend_up: Some(true),
        breakout_up_level: Some(99.5),
        ..quiet()
    }
}

fn decide_on(indicators: Indicators, change: impl FnOnce(&mut TradingDecisionSettings)) -> Answer<Signal> {
    let mut decision = decision_settings();
    change(&mut decision);
    let snapshot = snapshot(btc(), indicators);
    let inputs = DecisionInputs { snapshot: &snapshot, ta: None, regime: None, sentiment: None, position: None };
    let rules = DecisionRules { decision: &decision, regimes: &regimes(), stop: &stop_settings(), symbol: &cents() };
    decide(&context(btc()), &inputs, &rules)
}

#[test]
fn five_of_six_buy_is_a_strong_majority_with_median_levels() {
    let signal = decide_on(rising(), |_| ()).output().expect("a signal");
    assert_eq!((signal.action, signal.vote_class), (Action::Buy, VoteClass::StrongMajority));
    assert_eq!((signal.voters_asked, signal.voters_valid, signal.leverage), (6, 6, 1));
    assert_eq!(signal.price, dec!(100));
    // stops 98, 98, 98 (line), 98.5, 98 and targets 1.5 R plus one tick
    assert_eq!(signal.levels, Some(Levels { entry: dec!(100), stop: dec!(98), target: dec!(103.01) }));
    let names: Vec<&str> = signal.ballots.iter().map(|named| &*named.voter).collect();
    let configured: Vec<String> = decision_settings().voters.into_iter().map(|voter| voter.name).collect();
    assert_eq!(names, configured, "ballots in configured order");
    assert!(vote::is_coherent(signal.action, signal.levels.as_ref()));
    assert_eq!(signal.head.reasoning, "BUY: 5 of 6 asked, 6 valid, strong majority; no position");
}

#[test]
fn a076_before_warm_up_there_is_no_decision_and_the_reason_is_visible() {
    let ballots = no_votes_of(decide_on(Indicators::default(), |_| ()), INSUFFICIENT_DATA);
    assert_eq!(ballots, vec![Ballot::Abstain(INSUFFICIENT_DATA.into()); 6], "who said what is kept");
}

#[test]
fn a072_answers_after_the_deadline_do_not_count() {
    let decision = decision_settings();
    let snapshot = snapshot(btc(), rising());
    let inputs = DecisionInputs { snapshot: &snapshot, ta: None, regime: None, sentiment: None, position: None };
    let rules = DecisionRules { decision: &decision, regimes: &regimes(), stop: &stop_settings(), symbol: &cents() };
    let mut ctx = context(btc());
    ctx.now = ctx.started_at.plus_ms(30_000);
    assert!(matches!(decide(&ctx, &inputs, &rules), Answer::Output(_)));
    ctx.now = ctx.started_at.plus_ms(30_001);
    assert!(
        no_votes_of(decide(&ctx, &inputs, &rules), "no_votes: late")
            .iter()
            .all(|b| *b == Ballot::Failed("late".into()))
    );
}

#[test]
fn disabled_voters_are_not_asked() {
    let signal = decide_on(rising(), |settings| settings.voters[4].enabled = false).output().expect("a signal");
    assert_eq!((signal.voters_asked, signal.vote_class), (5, VoteClass::Unanimous));
    let none = decide_on(rising(), |settings| settings.voters.iter_mut().for_each(|voter| voter.enabled = false));
    assert!(matches!(none, Answer::Failed(FailCause { class: FailClass::Configuration, .. })), "{none:?}");
}

#[test]
fn a083_the_old_regimes_parameters_apply_while_a_switch_is_pending() {
    let settings = regime_detection_settings();
    let detect = |indicators, previous: Option<&RegimeOutput>| {
        *regime_detection::detect(&context(btc()), &snapshot(btc(), indicators), previous, &settings).output().unwrap()
    };
    let start = detect(Indicators { adx14: Some(15.0), ..quiet() }, None);
    let pending = detect(Indicators { adx14: Some(40.0), rsi14: Some(60.0), ..quiet() }, Some(&start));
    assert_eq!((pending.regime, pending.detected_regime), (Regime::Ranging, Regime::TrendingBull));

    let snapshot = snapshot(btc(), rising());
    let (decision, table, stop) = (decision_settings(), regimes(), stop_settings());
    let rules = DecisionRules { decision: &decision, regimes: &table, stop: &stop, symbol: &cents() };
    let with = |regime| {
        let inputs = DecisionInputs { snapshot: &snapshot, ta: None, regime, sentiment: None, position: None };
        decide(&context(btc()), &inputs, &rules).output().expect("a signal")
    };
    // ranging: 2·0.8 = 1.6; unknown: 2·1.0
    assert_eq!(with(Some(&pending)).levels.unwrap().stop, dec!(98.40));
    assert_eq!(with(Some(&pending)).regime_run, Some(pending.head.run_id));
    assert_eq!(with(None).levels.unwrap().stop, dec!(98.00));
}

#[test]
fn d29_an_opinion_of_another_symbol_is_refused() {
    let snapshot_btc = snapshot(btc(), rising());
    let ta = technical_analysis::analyse(&context(xrp()), &snapshot(xrp(), rising()), &cents(), &ta_settings())
        .output()
        .expect("an opinion");
    let (decision, table, stop) = (decision_settings(), regimes(), stop_settings());
    let rules = DecisionRules { decision: &decision, regimes: &table, stop: &stop, symbol: &cents() };
    let inputs =
        DecisionInputs { snapshot: &snapshot_btc, ta: Some(&*ta), regime: None, sentiment: None, position: None };
    let answer = decide(&context(btc()), &inputs, &rules);
    assert!(matches!(answer, Answer::Failed(FailCause { class: FailClass::Validation, .. })), "{answer:?}");
}

#[test]
fn d30_every_regime_has_parameters_under_its_one_name() {
    let table = regimes();
    for regime in Regime::ALL {
        assert!(table.contains_key(&regime), "{regime}");
        let name = serde_json::to_value(regime).unwrap();
        assert_eq!(name, serde_json::Value::from(regime.name()));
        assert_eq!(serde_json::from_value::<Regime>(name).unwrap(), regime);
    }
    assert!(serde_json::from_str::<Regime>("\"sideways\"").is_err(), "a name outside the type does not parse");
}

#[test]
fn the_same_inputs_give_the_same_signal() {
    assert_eq!(decide_on(rising(), |_| ()), decide_on(rising(), |_| ()));
}

/// The ballots of a poll in which nobody voted, after its reason.
fn no_votes_of(answer: Answer<Signal>, why: &str) -> Vec<Ballot> {
    match answer {
        Answer::NoVotes(reason, ballots) => {
            assert_eq!(reason, why);
            ballots.into_iter().map(|named| named.ballot).collect()
        }
        other => panic!("{other:?}"),
    }
}
