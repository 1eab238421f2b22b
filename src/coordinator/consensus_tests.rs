//! Tests of the consensus rules of `coordinator`, by the ids of the acceptance scenarios they hold.

use super::*;
use crate::{
    coordinator::fixtures::{NOW, regime, sentiment, ta},
    risk::fixtures::{consensus, score, sym},
};

const ALL: Eligible = Eligible { ta: true, regime: true, sentiment: true };
const TWO: Eligible = Eligible { sentiment: false, ..ALL };

fn continuous() -> ConsensusSettings {
    ConsensusSettings { curve: Curve::Continuous, ..consensus() }
}

#[test]
fn a038_f11_f16_stepped_curve() {
    let expected = [
        (0.0, 0.85),
        (0.25, 0.963_636_364),
        (1.0 / 3.0, 1.0),
        (0.5, 1.0),
        (0.659_999, 1.0),
        (0.66, 1.096),
        (2.0 / 3.0, 1.1),
        (0.75, 1.15),
        (1.0, 1.3),
    ];
    for (r, m) in expected {
        assert!((multiplier_raw(&consensus(), r) - m).abs() < 1e-9, "r = {r}");
    }
}

#[test]
fn a039_f11_continuous_curve_is_monotone_and_has_no_jump() {
    let settings = continuous();
    let expected = [(0.66, 1.0), (2.0 / 3.0, 1.005_882_353), (0.75, 1.079_411_765), (0.8, 1.123_529_412), (1.0, 1.3)];
    for (r, m) in expected {
        assert!((multiplier_raw(&settings, r) - m).abs() < 1e-9, "r = {r}");
    }
    assert!((multiplier_raw(&settings, 0.66 - 1e-9) - multiplier_raw(&settings, 0.66 + 1e-9)).abs() < 1e-6);
    for settings in [settings, consensus()] {
        let points: Vec<f64> = (0..=1000).map(|i| multiplier_raw(&settings, f64::from(i) / 1000.0)).collect();
        assert!(points.windows(2).all(|pair| pair[0] <= pair[1]), "{:?} is not monotone", settings.curve);
        assert!(points.iter().all(|m| (0.85 - 1e-12..=1.3 + 1e-12).contains(m)));
    }
}

/// Ages in seconds; every opinion on the side given.
struct Case {
    ta: Option<(Bias, i64)>,
    regime: Option<(Regime, i64)>,
    sentiment: Option<(SentimentBias, i64)>,
}

fn judge(case: &Case, eligible: Eligible, settings: &ConsensusSettings, action: Action) -> Consensus {
    let ta = case.ta.map(|(bias, age)| ta("BTC/USDT", bias, "0.70", age));
    let regime = case.regime.map(|(name, age)| regime("BTC/USDT", name, age));
    let sentiment = case.sentiment.map(|(bias, age)| sentiment("BTC/USDT", bias, "0.60", age));
    let opinions = Opinions {
        ta: ta.as_ref().map_or(Opinion::Missing, Opinion::Given),
        regime: regime.as_ref().map_or(Opinion::Missing, Opinion::Given),
        sentiment: sentiment.as_ref().map_or(Opinion::Missing, Opinion::Given),
    };
    compute(&opinions, eligible, sym("BTC/USDT"), action, score("0.70"), settings, NOW).0
}

fn is(consensus: &Consensus, multiplier: f64, after: &str) {
    assert!((consensus.multiplier - multiplier).abs() < 1e-9, "{consensus:?}");
    assert_eq!(consensus.confidence_after, score(after));
    assert_eq!(consensus.confidence_before, score("0.70"));
}

const BULL: Option<(Regime, i64)> = Some((Regime::TrendingBull, 10));

#[test]
fn a040_full_agreement() {
    let case = Case { ta: Some((Bias::Long, 10)), regime: BULL, sentiment: Some((SentimentBias::Bullish, 10)) };
    is(&judge(&case, ALL, &consensus(), Action::Buy), 1.30, "0.91");
}

#[test]
fn a041_dissent_lowers_confidence() {
    let case = Case {
        ta: Some((Bias::Short, 10)),
        regime: Some((Regime::Ranging, 10)),
        sentiment: Some((SentimentBias::Bearish, 10)),
    };
    is(&judge(&case, ALL, &consensus(), Action::Buy), 0.85, "0.595");
}

#[test]
fn a042_a043_a044_turnout_scales() {
    let old = Some((SentimentBias::Bullish, 3601));
    let two = judge(&Case { ta: Some((Bias::Long, 10)), regime: BULL, sentiment: old }, ALL, &consensus(), Action::Buy);
    is(&two, 1.20, "0.84");
    assert_eq!((two.voters, two.eligible), (2, 3));
    assert_eq!(two.votes[2].left_out.as_deref(), Some("stale"));
    let one = Case { ta: Some((Bias::Long, 10)), regime: None, sentiment: None };
    is(&judge(&one, ALL, &consensus(), Action::Buy), 1.10, "0.77");
    let one = Case { ta: Some((Bias::Short, 10)), regime: None, sentiment: None };
    is(&judge(&one, ALL, &consensus(), Action::Buy), 0.95, "0.665");
}

#[test]
fn a045_a046_without_sentiment_two_are_eligible() {
    let case = Case { ta: Some((Bias::Long, 10)), regime: BULL, sentiment: Some((SentimentBias::Bearish, 10)) };
    is(&judge(&case, TWO, &consensus(), Action::Buy), 1.30, "0.91");
    let case = Case { ta: Some((Bias::Neutral, 10)), ..case };
    is(&judge(&case, TWO, &consensus(), Action::Buy), 1.00, "0.70");
}

#[test]
fn a047_neutral_may_count_as_absent() {
    let settings = ConsensusSettings { neutral: NeutralVote::Abstain, ..consensus() };
    let case = Case { ta: Some((Bias::Neutral, 10)), regime: BULL, sentiment: None };
    let result = judge(&case, TWO, &settings, Action::Buy);
    assert_eq!(result.voters, 1);
    is(&result, 1.15, "0.805");
}

#[test]
fn a048_d29_only_opinions_of_the_same_symbol_vote() {
    let (other, own) = (ta("XRP/USDT", Bias::Long, "0.70", 1), ta("BTC/USDT", Bias::Short, "0.70", 1));
    for (output, voters) in [(&other, 0), (&own, 1)] {
        let opinions = Opinions { ta: Opinion::Given(output), ..Opinions::default() };
        let symbol = sym("BTC/USDT");
        let (result, _) = compute(&opinions, ALL, symbol, Action::Buy, score("0.70"), &consensus(), NOW);
        assert_eq!((result.voters, result.agree), (voters, 0));
    }
}

#[test]
fn a049_age_limits_are_inclusive() {
    for (extra, voters) in [(0, 3), (1, 0)] {
        let case = Case {
            ta: Some((Bias::Long, 120 + extra)),
            regime: Some((Regime::TrendingBull, 600 + extra)),
            sentiment: Some((SentimentBias::Bullish, 3600 + extra)),
        };
        assert_eq!(judge(&case, ALL, &consensus(), Action::Buy).voters, voters);
    }
}

#[test]
fn a050_degraded_and_abstained_never_vote() {
    let mut degraded = ta("BTC/USDT", Bias::Long, "0.25", 1);
    degraded.head.degraded = true;
    let opinions = Opinions { ta: Opinion::Given(&degraded), regime: Opinion::Abstained, ..Opinions::default() };
    let symbol = sym("BTC/USDT");
    let (result, counted) = compute(&opinions, TWO, symbol, Action::Buy, score("0.70"), &consensus(), NOW);
    assert_eq!((result.voters, counted), (0, Counted::default()));
    let why: Vec<_> = result.votes.iter().map(|vote| vote.left_out.clone().unwrap_or_default()).collect();
    assert_eq!(why, ["degraded", "abstained"]);
    is(&result, 1.0, "0.70");
}

#[test]
fn a051_confidence_never_exceeds_one() {
    let long = ta("BTC/USDT", Bias::Long, "0.9", 1);
    let opinions = Opinions { ta: Opinion::Given(&long), ..Opinions::default() };
    let only = Eligible { regime: false, ..TWO };
    let (result, _) = compute(&opinions, only, sym("BTC/USDT"), Action::Buy, score("0.95"), &consensus(), NOW);
    assert_eq!(result.confidence_after, Score::ONE);
}

#[test]
fn a054_breakout_supports_a_buy_only() {
    assert_eq!(regime_stance(Regime::BreakoutPotential, true), Stance::Agrees);
    assert_eq!(regime_stance(Regime::BreakoutPotential, false), Stance::Neutral);
    assert_eq!(regime_stance(Regime::VolatileBear, true), Stance::Opposes);
    assert_eq!(regime_stance(Regime::VolatileBull, false), Stance::Opposes);
    assert_eq!(regime_stance(Regime::VolatileBear, false), Stance::Neutral);
}

#[test]
fn f16_an_unknown_regime_never_votes() {
    let case = Case { ta: None, regime: Some((Regime::Unknown, 1)), sentiment: None };
    assert_eq!(judge(&case, TWO, &consensus(), Action::Buy).voters, 0);
}
