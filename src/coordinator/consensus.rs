//! The agent consensus: how far the opinion agents agree with an entry, as a multiplier of its confidence.
//!
//! **Formula** (domain §8). voters = opinions of the same symbol that count (given, not degraded, not abstained, not
//! older than their limit); eligible = opinion agents that are enabled and not switched off by degradation;
//! r = agree / voters. With H = 0.66, L = 0.33, B = 0.30, P = 0.15:
//!
//! | branch | stepped (default) | continuous |
//! |---|---|---|
//! | r ≥ H | 1 + (r − 0.5)·2B | 1 + B·(r − H)/(1 − H) |
//! | L ≤ r < H | 1 | 1 |
//! | r < L | (1 − P) + r·P/L | the same |
//!
//! With turnout scaling m = 1 + (m_raw − 1)·voters/eligible. No voters or no eligible agent: m = 1.
//!
//! | r | 0 | 0.25 | 0.33 | 1/3 | 0.5 | 0.66 | 2/3 | 1 |
//! |---|---|---|---|---|---|---|---|---|
//! | stepped | 0.85 | 0.963636 | 1 | 1 | 1 | 1.096 | 1.1 | 1.3 |
//! | continuous | 0.85 | 0.963636 | 1 | 1 | 1 | 1 | 1.005882 | 1.3 |
//!
//! **Reason.** Agreement of a clear majority earns up to +30 %, near-unanimous dissent costs up to 15 %, and what lies
//! between proves nothing. The stepped curve jumps by (H − 0.5)·2B = 0.096 at H; it is inherited and kept as the
//! default so that results stay comparable; `continuous` exists because of that jump. Turnout scaling keeps a single
//! voice from moving the confidence as far as three do.
//!
//! It never changes the signal: the result is a copy beside it (A053).

use std::borrow::Cow;

use crate::{
    model::{
        Action, Bias, Consensus, OpinionVote, OutputHead, Regime, RegimeOutput, Score, SentimentBias, SentimentOutput,
        Stance, Symbol, TaOutput, TaskName, Ts,
    },
    settings::{ConsensusSettings, Curve, NeutralVote},
};

/// The newest accepted answer of one opinion agent.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Opinion<T> {
    /// It never answered, or not for this symbol.
    #[default]
    Missing,
    /// Its newest run had no opinion.
    Abstained,
    /// It answered.
    Given(T),
}

/// The opinions the coordinator holds for the symbol of a signal.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Opinions<'a> {
    /// `technical_analysis`
    pub ta: Opinion<&'a TaOutput>,
    /// `regime_detection`
    pub regime: Opinion<&'a RegimeOutput>,
    /// `sentiment_analysis`
    pub sentiment: Opinion<&'a SentimentOutput>,
}

/// Which opinion agents are enabled and not switched off by degradation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Eligible {
    /// `technical_analysis`
    pub ta: bool,
    /// `regime_detection`
    pub regime: bool,
    /// `sentiment_analysis`
    pub sentiment: bool,
}

/// The opinions that count: same symbol, given, not degraded, young enough, eligible.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Counted<'a> {
    /// `technical_analysis`
    pub ta: Option<&'a TaOutput>,
    /// `regime_detection`; never `unknown`.
    pub regime: Option<&'a RegimeOutput>,
    /// `sentiment_analysis`
    pub sentiment: Option<&'a SentimentOutput>,
}

/// Which side of the market an opinion is on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpinionSide {
    /// For buying.
    Buy,
    /// For selling.
    Sell,
    /// Neither.
    Neither,
}

/// The side of a TA bias.
pub const fn ta_side(bias: Bias) -> OpinionSide {
    match bias {
        Bias::Long => OpinionSide::Buy,
        Bias::Short => OpinionSide::Sell,
        Bias::Neutral => OpinionSide::Neither,
    }
}

/// The side of a sentiment bias.
pub const fn sentiment_side(bias: SentimentBias) -> OpinionSide {
    match bias {
        SentimentBias::VeryBullish | SentimentBias::Bullish => OpinionSide::Buy,
        SentimentBias::VeryBearish | SentimentBias::Bearish => OpinionSide::Sell,
        SentimentBias::Neutral => OpinionSide::Neither,
    }
}

/// Stance of a regime. SELL mirrors BUY, except that `breakout_potential` says nothing about the side and supports
/// only a BUY (A054).
pub const fn regime_stance(regime: Regime, buy: bool) -> Stance {
    match (regime, buy) {
        (Regime::TrendingBull | Regime::BreakoutPotential, true) => Stance::Agrees,
        (Regime::TrendingBear | Regime::VolatileBear, true) => Stance::Opposes,
        (Regime::TrendingBear, false) => Stance::Agrees,
        (Regime::TrendingBull | Regime::VolatileBull, false) => Stance::Opposes,
        _ => Stance::Neutral,
    }
}

const fn side_stance(side: OpinionSide, buy: bool) -> Stance {
    match (side, buy) {
        (OpinionSide::Neither, _) => Stance::Neutral,
        (OpinionSide::Buy, true) | (OpinionSide::Sell, false) => Stance::Agrees,
        _ => Stance::Opposes,
    }
}

/// m before turnout scaling, for a share of agreement in 0..=1.
pub fn multiplier_raw(settings: &ConsensusSettings, r: f64) -> f64 {
    let (high, low) = (settings.high_agreement_threshold, settings.low_agreement_threshold);
    let (boost, penalty) = (settings.max_confidence_boost, settings.max_confidence_penalty);
    if r >= high {
        return match settings.curve {
            Curve::Stepped => 1.0 + (r - 0.5) * 2.0 * boost,
            Curve::Continuous => 1.0 + boost * (r - high) / (1.0 - high),
        };
    }
    if r >= low { 1.0 } else { (1.0 - penalty) + r * penalty / low }
}

/// Why an opinion does not count, or the opinion.
fn count<T>(
    opinion: Opinion<&T>,
    head: impl Fn(&T) -> &OutputHead,
    symbol: Symbol,
    max_age_ms: i64,
    now: Ts,
) -> Result<&T, (&'static str, Option<&T>)> {
    let given = match opinion {
        Opinion::Missing => return Err(("missing", None)),
        Opinion::Abstained => return Err(("abstained", None)),
        Opinion::Given(given) => given,
    };
    let head = head(given);
    if head.symbol != symbol {
        return Err(("missing", None));
    }
    if head.degraded {
        return Err(("degraded", Some(given)));
    }
    if now.since_ms(head.as_of) > max_age_ms {
        return Err(("stale", Some(given)));
    }
    Ok(given)
}

/// The opinions that count for `symbol` at `now`, with a vote entry per eligible agent (its stance towards `buy`).
fn tally<'a>(
    opinions: &Opinions<'a>,
    eligible: Eligible,
    symbol: Symbol,
    buy: bool,
    settings: &ConsensusSettings,
    now: Ts,
) -> (Counted<'a>, Vec<OpinionVote>) {
    let max_age = |task| settings.max_age_seconds.get(&task).map_or(0, |seconds| i64::from(*seconds) * 1000);
    let mut counted = Counted::default();
    let mut votes = Vec::with_capacity(3);
    if eligible.ta {
        let found = count(opinions.ta, |o| &o.head, symbol, max_age(TaskName::TechnicalAnalysis), now);
        counted.ta = found.ok();
        let stance = |o: &TaOutput| side_stance(ta_side(o.bias), buy);
        votes.push(vote(TaskName::TechnicalAnalysis, found, |o| &o.head, stance, now));
    }
    if eligible.regime {
        let found = count(opinions.regime, |o| &o.head, symbol, max_age(TaskName::RegimeDetection), now);
        let found = found.and_then(|o| if o.regime == Regime::Unknown { Err(("missing", Some(o))) } else { Ok(o) });
        counted.regime = found.ok();
        let stance = |o: &RegimeOutput| regime_stance(o.regime, buy);
        votes.push(vote(TaskName::RegimeDetection, found, |o| &o.head, stance, now));
    }
    if eligible.sentiment {
        let found = count(opinions.sentiment, |o| &o.head, symbol, max_age(TaskName::SentimentAnalysis), now);
        counted.sentiment = found.ok();
        let stance = |o: &SentimentOutput| side_stance(sentiment_side(o.bias), buy);
        votes.push(vote(TaskName::SentimentAnalysis, found, |o| &o.head, stance, now));
    }
    (counted, votes)
}

fn vote<T>(
    agent: TaskName,
    found: Result<&T, (&'static str, Option<&T>)>,
    head: impl Fn(&T) -> &OutputHead,
    stance: impl Fn(&T) -> Stance,
    now: Ts,
) -> OpinionVote {
    let (given, left_out) = match found {
        Ok(given) => (Some(given), None),
        Err((why, given)) => (given, Some(Cow::Borrowed(why))),
    };
    OpinionVote {
        agent,
        stance: found.ok().map(&stance),
        age_ms: given.map(|o| now.since_ms(head(o).as_of)),
        confidence: given.map(|o| head(o).confidence),
        left_out,
    }
}

/// The consensus of an entry and the opinions that counted.
///
/// `action` is BUY or SELL; anything else is judged like SELL and is never asked for by the pipeline.
pub fn compute<'a>(
    opinions: &Opinions<'a>,
    eligible: Eligible,
    symbol: Symbol,
    action: Action,
    confidence: Score,
    settings: &ConsensusSettings,
    now: Ts,
) -> (Consensus, Counted<'a>) {
    let (counted, votes) = tally(opinions, eligible, symbol, action == Action::Buy, settings, now);
    let absent = |stance: Stance| stance == Stance::Neutral && settings.neutral == NeutralVote::Abstain;
    let voters = votes.iter().filter(|vote| vote.stance.is_some_and(|stance| !absent(stance))).count() as u32;
    let agree = votes.iter().filter(|vote| vote.stance == Some(Stance::Agrees)).count() as u32;
    let in_all = votes.len() as u32;
    let (mut raw, mut multiplier) = (1.0, 1.0);
    if voters > 0 {
        raw = multiplier_raw(settings, f64::from(agree) / f64::from(voters));
        multiplier = raw;
        if settings.turnout_scaling {
            multiplier = 1.0 + (raw - 1.0) * f64::from(voters) / f64::from(in_all);
        }
    }
    let consensus = Consensus {
        eligible: in_all,
        voters,
        agree,
        multiplier_raw: raw,
        multiplier,
        confidence_before: confidence,
        confidence_after: Score::from_f64(confidence.as_f64() * multiplier).unit(),
        votes,
    };
    (consensus, counted)
}

#[cfg(test)]
#[path = "consensus_tests.rs"]
mod tests;
