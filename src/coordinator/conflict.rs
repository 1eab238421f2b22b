//! Conflicts: named disagreements that stop automatic routing of an entry (domain §9). It names them; what follows is
//! decided in `resolution`.

use crate::{
    model::{Conflict, ConflictKind, Decimal, Money, Plan, PlanState, Regime, Side, Symbol, TradeKey, TradeState, Ts},
    settings::ConflictSettings,
};

use super::consensus::{Counted, OpinionSide, sentiment_side, ta_side};

/// What the conflicts of one entry are judged on.
#[derive(Clone, Copy, Debug)]
pub struct ConflictInputs<'a> {
    /// The opinions that counted in the consensus.
    pub counted: Counted<'a>,
    /// Which symbol.
    pub symbol: Symbol,
    /// Side of the entry.
    pub side: Side,
    /// The active plan, when there is one.
    pub plan: Option<&'a Plan>,
    /// Asked for before any factor, and what a dry run of sizing and risk would leave; absent when not evaluated.
    pub dry_run: Option<(Money, Money)>,
    /// Now.
    pub now: Ts,
}

/// Conflicts of an entry with the legs that would have to give way.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Found {
    /// In the order of the specification's table.
    pub conflicts: Vec<Conflict>,
    /// Legs on the opposite side of the same base asset, due soon.
    pub legs: Vec<TradeKey>,
}

/// Finds the conflicts of an entry; kinds that are switched off are not looked for.
pub fn detect(inputs: &ConflictInputs<'_>, settings: &ConflictSettings) -> Found {
    let on = |kind| settings.detect.get(&kind).copied().unwrap_or(false);
    let mut found = Found::default();
    if on(ConflictKind::TaSentimentConflict)
        && let Some(facts) = ta_against_sentiment(&inputs.counted, settings)
    {
        found.conflicts.push(Conflict { kind: ConflictKind::TaSentimentConflict, facts });
    }
    if on(ConflictKind::RegimeConflict) && inputs.counted.regime.is_some_and(|o| o.regime == Regime::Choppy) {
        let facts = "regime choppy".to_owned();
        found.conflicts.push(Conflict { kind: ConflictKind::RegimeConflict, facts });
    }
    if on(ConflictKind::RiskOverride)
        && let Some((asked, left)) = inputs.dry_run
        && (asked - left) * Decimal::ONE_HUNDRED > settings.risk_override_reduction_pct * asked
    {
        let facts = format!("requested {} USD, {} USD would be left", asked.round_dp(2), left.round_dp(2));
        found.conflicts.push(Conflict { kind: ConflictKind::RiskOverride, facts });
    }
    if on(ConflictKind::RebalanceConflict) {
        let window_ms = i64::from(settings.rebalance_window_seconds) * 1000;
        found.legs = opposite_legs(inputs, window_ms);
        if !found.legs.is_empty() {
            let facts = format!("{} rebalance legs of {} on the other side", found.legs.len(), inputs.symbol.base);
            found.conflicts.push(Conflict { kind: ConflictKind::RebalanceConflict, facts });
        }
    }
    found
}

/// Opposite sides with confidences closer than the limit; a gap of exactly the limit is no conflict.
fn ta_against_sentiment(counted: &Counted<'_>, settings: &ConflictSettings) -> Option<String> {
    let (ta, sentiment) = (counted.ta?, counted.sentiment?);
    let opposite = matches!(
        (ta_side(ta.bias), sentiment_side(sentiment.bias)),
        (OpinionSide::Buy, OpinionSide::Sell) | (OpinionSide::Sell, OpinionSide::Buy)
    );
    let gap = (ta.head.confidence - sentiment.head.confidence).0.abs();
    (opposite && gap < settings.max_confidence_gap.0).then(|| {
        format!(
            "technical {:?} {}, sentiment {:?} {}",
            ta.bias, ta.head.confidence, sentiment.bias, sentiment.head.confidence
        )
    })
}

fn opposite_legs(inputs: &ConflictInputs<'_>, window_ms: i64) -> Vec<TradeKey> {
    let Some(plan) = inputs.plan.filter(|plan| plan.state == PlanState::Active) else { return Vec::new() };
    let soon = inputs.now.plus_ms(window_ms);
    let opposite = plan.legs.iter().filter(|leg| {
        leg.state == TradeState::Planned
            && leg.asset == inputs.symbol.base
            && leg.side != inputs.side
            && leg.due_at <= soon
    });
    opposite.map(|leg| leg.key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        coordinator::fixtures::{NOW, regime, sentiment, ta},
        model::{Bias, Leg, SentimentBias},
        risk::fixtures::{conflicts, dec, key, sym},
    };

    fn inputs<'a>(counted: Counted<'a>) -> ConflictInputs<'a> {
        ConflictInputs { counted, symbol: sym("BTC/USDT"), side: Side::Buy, plan: None, dry_run: None, now: NOW }
    }

    fn kinds(found: &Found) -> Vec<ConflictKind> {
        found.conflicts.iter().map(|conflict| conflict.kind).collect()
    }

    #[test]
    fn a055_gap_is_strict_and_exact() {
        let long = ta("BTC/USDT", Bias::Long, "0.70", 1);
        for (bias, confidence, conflict) in [
            (SentimentBias::Bearish, "0.55", true),
            (SentimentBias::Bearish, "0.50", false),
            (SentimentBias::Neutral, "0.70", false),
        ] {
            let mood = sentiment("BTC/USDT", bias, confidence, 1);
            let counted = Counted { ta: Some(&long), sentiment: Some(&mood), regime: None };
            assert_eq!(!detect(&inputs(counted), &conflicts()).conflicts.is_empty(), conflict, "{bias:?} {confidence}");
        }
    }

    #[test]
    fn a056_d30_choppy_is_a_conflict_unless_switched_off() {
        let choppy = regime("BTC/USDT", Regime::Choppy, 1);
        let counted = Counted { regime: Some(&choppy), ..Counted::default() };
        assert_eq!(kinds(&detect(&inputs(counted), &conflicts())), [ConflictKind::RegimeConflict]);
        let mut off = conflicts();
        off.detect.insert(ConflictKind::RegimeConflict, false);
        assert!(detect(&inputs(counted), &off).conflicts.is_empty());
    }

    #[test]
    fn risk_override_needs_more_than_half_taken_and_is_off_by_default() {
        let mut on = conflicts();
        let cut = ConflictInputs { dry_run: Some((dec("1000"), dec("499"))), ..inputs(Counted::default()) };
        assert!(detect(&cut, &on).conflicts.is_empty());
        on.detect.insert(ConflictKind::RiskOverride, true);
        assert_eq!(kinds(&detect(&cut, &on)), [ConflictKind::RiskOverride]);
        let half = ConflictInputs { dry_run: Some((dec("1000"), dec("500"))), ..cut };
        assert!(detect(&half, &on).conflicts.is_empty());
    }

    #[test]
    fn an_opposite_leg_within_the_window_gives_way() {
        let leg = |n, side, seconds: i64| Leg {
            key: key(n),
            batch: 0,
            asset: sym("BTC/USDT").base,
            symbol: sym("BTC/USDT"),
            side,
            amount: dec("100"),
            due_at: NOW.plus_ms(seconds * 1000),
            state: TradeState::Planned,
        };
        let plan = Plan {
            id: uuid::Uuid::nil(),
            created_at: NOW,
            spacing_ms: 1,
            legs: vec![leg(1, Side::Sell, 300), leg(2, Side::Sell, 301), leg(3, Side::Buy, 0)],
            deviation_pct: dec("6"),
            state: PlanState::Active,
            ended_at: None,
            last_executed_at: None,
        };
        let with_plan = ConflictInputs { plan: Some(&plan), ..inputs(Counted::default()) };
        let found = detect(&with_plan, &conflicts());
        assert_eq!((kinds(&found), found.legs), (vec![ConflictKind::RebalanceConflict], vec![key(1)]));
    }
}
