//! What to do about conflicts: the configured fallback, and the bounds of what a resolver may change (domain §10).
//!
//! A resolution can only lower risk: a bolder answer is cut back, an unclear one becomes a more cautious action.

use rust_decimal::RoundingStrategy;

use crate::{
    model::{
        Conflict, Decimal, Levels, ModelCall, Modifications, Money, Price, Resolution, ResolutionAction, Score, Side,
        SymbolRules,
    },
    settings::ConflictSettings,
};

/// Who settled a conflict that no model settled.
pub const FALLBACK: &str = "fallback";

/// The fallback actions of all conflicts; the most cautious wins (abort > wait > modify > proceed).
///
/// A kind without a configured action waits, and so does `modify`, which has no changes to make without a resolver.
pub fn fallback(conflicts: &[Conflict], settings: &ConflictSettings, errors: Vec<String>) -> Resolution {
    let of = |conflict: &Conflict| match settings.fallback.get(&conflict.kind) {
        Some(ResolutionAction::Modify) | None => ResolutionAction::Wait,
        Some(action) => *action,
    };
    let action = conflicts.iter().map(of).max().unwrap_or(ResolutionAction::Proceed);
    Resolution { action, by: FALLBACK.to_owned(), errors, confidence: None, modifications: None, model: None }
}

/// A resolver's parsed answer.
#[derive(Clone, PartialEq, Debug)]
pub struct ResolverAnswer {
    /// Who answered.
    pub by: String,
    /// What it says.
    pub action: ResolutionAction,
    /// 0..1
    pub confidence: Score,
    /// Required for modify, forbidden otherwise.
    pub modifications: Option<Modifications>,
    /// Errors of those asked before, in order.
    pub errors: Vec<String>,
    /// How the models were asked.
    pub call: Option<Box<ModelCall>>,
}

/// Bounds an answer: below the minimum confidence → wait; a size reduction of 100 % → abort; leverage never above
/// `leverage_cap`; the entry adjustment clamped.
///
/// # Errors
/// The answer contradicts its schema (confidence outside 0..1, modify without modifications or the other way round, a
/// leverage below 1, a reduction outside 0..=100). The caller takes the fallback and counts one failure (D36).
pub fn bounded(answer: ResolverAnswer, leverage_cap: u32, settings: &ConflictSettings) -> Result<Resolution, String> {
    if answer.confidence < Score::ZERO || answer.confidence > Score::ONE {
        return Err(format!("resolver confidence {} must be 0..1", answer.confidence));
    }
    if (answer.action == ResolutionAction::Modify) != answer.modifications.is_some() {
        return Err("modifications belong to `modify` and to nothing else".to_owned());
    }
    let mut action = answer.action;
    let mut modifications = answer.modifications;
    if let Some(changes) = &mut modifications {
        let all = Score::from_f64(100.0);
        if changes.size_reduction_pct.is_some_and(|cut| cut < Score::ZERO || cut > all) {
            return Err("size_reduction_pct must be 0..100".to_owned());
        }
        if changes.leverage == Some(0) {
            return Err("leverage must be a whole number of at least 1".to_owned());
        }
        changes.leverage = changes.leverage.map(|asked| asked.min(leverage_cap.max(1)));
        changes.entry_adjustment_pct = changes.entry_adjustment_pct.map(|move_pct| clamp_entry(move_pct, settings));
        if changes.size_reduction_pct == Some(all) {
            action = ResolutionAction::Abort;
        }
    }
    if answer.confidence < settings.min_resolution_confidence && action < ResolutionAction::Wait {
        action = ResolutionAction::Wait;
    }
    if action != ResolutionAction::Modify {
        modifications = None;
    }
    Ok(Resolution {
        action,
        by: answer.by,
        errors: answer.errors,
        confidence: Some(answer.confidence),
        modifications,
        model: answer.call,
    })
}

fn clamp_entry(move_pct: Score, settings: &ConflictSettings) -> Score {
    let limit = (settings.max_entry_adjustment_pct * Decimal::from(10_000)).trunc();
    let limit = i32::try_from(limit).unwrap_or(i32::MAX).abs();
    move_pct.clamp_to(Score(-limit), Score(limit))
}

/// An entry after modification.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Modified {
    /// Stop and target are those of the signal.
    pub levels: Levels,
    /// ≤ the original.
    pub leverage: u32,
    /// ≤ the original, account currency.
    pub notional: Money,
}

/// Applies bounded changes to an entry. Stop and target stay; an entry that would leave the stop on the wrong side or
/// give less reward than `min_reward_risk` is refused. An entry further away from the stop is smaller: the loss at the
/// stop is never more than that of the original plan.
///
/// # Errors
/// What no longer fits, with both numbers.
pub fn modify(
    levels: Levels,
    side: Side,
    leverage: u32,
    notional: Money,
    changes: &Modifications,
    rules: &SymbolRules,
    min_reward_risk: Decimal,
) -> Result<Modified, String> {
    let hundred = Decimal::ONE_HUNDRED;
    let pct = |score: Option<Score>| score.unwrap_or_default().as_decimal();
    let cut = pct(changes.size_reduction_pct).clamp(Decimal::ZERO, hundred);
    let factor = Decimal::ONE + pct(changes.entry_adjustment_pct) / hundred;
    let entry: Price = match side {
        Side::Buy => rules.price_down(levels.entry * factor),
        Side::Sell => rules.price_up(levels.entry * factor),
    };
    let (risk, reward) = match side {
        Side::Buy => (entry - levels.stop, levels.target - entry),
        Side::Sell => (levels.stop - entry, entry - levels.target),
    };
    if risk <= Decimal::ZERO {
        return Err(format!("stop {} is not on the losing side of the adjusted entry {entry}", levels.stop));
    }
    if reward < min_reward_risk * risk {
        return Err(format!(
            "reward:risk {} of the adjusted entry is below {min_reward_risk}",
            (reward / risk).round_dp(4)
        ));
    }
    let no_loss = || format!("the loss between entry {} and stop {} cannot be computed", levels.entry, levels.stop);
    let planned = (levels.entry - levels.stop).abs().checked_div(levels.entry).ok_or_else(no_loss)?;
    let changed = risk.checked_div(entry).ok_or_else(no_loss)?;
    let wanted = notional * (hundred - cut) / hundred;
    let same_loss = (notional * planned).checked_div(changed).ok_or_else(no_loss)?;
    let bound = if changed > planned { same_loss.round_dp_with_strategy(8, RoundingStrategy::ToZero) } else { wanted };
    Ok(Modified {
        levels: Levels { entry, ..levels },
        leverage: changes.leverage.unwrap_or(leverage).clamp(1, leverage.max(1)),
        notional: wanted.min(bound),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        model::ConflictKind,
        risk::fixtures::{conflicts, dec, score, sym, symbols},
    };

    fn conflict(kind: ConflictKind) -> Conflict {
        Conflict { kind, facts: String::new() }
    }

    fn answer(action: ResolutionAction, confidence: &str, modifications: Option<Modifications>) -> ResolverAnswer {
        ResolverAnswer {
            by: "model".into(),
            action,
            confidence: score(confidence),
            modifications,
            errors: vec![],
            call: None,
        }
    }

    fn levels() -> Levels {
        Levels { entry: dec("100"), stop: dec("97"), target: dec("106") }
    }

    #[test]
    fn full_confidence_is_an_answer_and_a_cut_of_all_is_an_abort() {
        let settled = |answer| bounded(answer, 3, &conflicts());
        assert_eq!(settled(answer(ResolutionAction::Proceed, "1", None)).unwrap().action, ResolutionAction::Proceed);
        assert!(settled(answer(ResolutionAction::Proceed, "1.0001", None)).is_err());
        let cut = |pct| Some(Modifications { size_reduction_pct: Some(score(pct)), ..Modifications::default() });
        let all = settled(answer(ResolutionAction::Modify, "0.9", cut("100"))).unwrap();
        assert_eq!(all.action, ResolutionAction::Abort);
        assert!(settled(answer(ResolutionAction::Modify, "0.9", cut("100.0001"))).is_err());
    }

    #[test]
    fn a058_f14_the_most_cautious_fallback_wins_and_errors_are_kept() {
        let both = [conflict(ConflictKind::TaSentimentConflict), conflict(ConflictKind::RegimeConflict)];
        let errors = vec!["primary: timeout".to_owned(), "second: refused".to_owned()];
        let resolution = fallback(&both, &conflicts(), errors.clone());
        assert_eq!((resolution.action, resolution.errors), (ResolutionAction::Abort, errors));
        assert_eq!(fallback(&both[..1], &conflicts(), vec![]).action, ResolutionAction::Wait);
        let leg = [conflict(ConflictKind::RebalanceConflict)];
        assert_eq!(fallback(&leg, &conflicts(), vec![]).action, ResolutionAction::Proceed);
    }

    #[test]
    fn a062_d34_a_reduction_of_everything_is_an_abort() {
        let all = Modifications { size_reduction_pct: Some(Score::from_f64(100.0)), ..Modifications::default() };
        let resolution = bounded(answer(ResolutionAction::Modify, "0.9", Some(all)), 1, &conflicts()).unwrap();
        assert_eq!((resolution.action, resolution.modifications), (ResolutionAction::Abort, None));
    }

    #[test]
    fn a063_d35_the_entry_moves_two_percent_at_most_and_is_checked_again() {
        let far = Modifications { entry_adjustment_pct: Some(Score::from_f64(-3.0)), ..Modifications::default() };
        let resolution = bounded(answer(ResolutionAction::Modify, "0.9", Some(far)), 1, &conflicts()).unwrap();
        let changes = resolution.modifications.unwrap();
        assert_eq!(changes.entry_adjustment_pct, Some(Score::from_f64(-2.0)));
        let rules = symbols()[&sym("BTC/USDT")];
        let moved = modify(levels(), Side::Buy, 1, dec("1000"), &changes, &rules, dec("1.5")).unwrap();
        assert_eq!(moved.levels, Levels { entry: dec("98"), ..levels() });
        let up = Modifications { entry_adjustment_pct: Some(Score::from_f64(2.0)), ..Modifications::default() };
        let refused = modify(levels(), Side::Buy, 1, dec("1000"), &up, &rules, dec("1.5")).unwrap_err();
        assert!(refused.contains("0.8"), "{refused}");
    }

    #[test]
    fn an_entry_moved_away_from_its_stop_is_smaller_and_risks_no_more_than_planned() {
        let rules = symbols()[&sym("BTC/USDT")];
        let moved = |percent: f64, cut: f64| {
            let changes = Modifications {
                entry_adjustment_pct: Some(Score::from_f64(percent)),
                size_reduction_pct: Some(Score::from_f64(cut)),
                leverage: None,
            };
            modify(levels(), Side::Buy, 1, dec("1000"), &changes, &rules, dec("1.5")).unwrap()
        };
        // 3 of 100 at risk were 30 USD; 3.5 of 100.5 are again.
        let up = moved(0.5, 0.0);
        assert_eq!((up.levels.entry, up.notional), (dec("100.5"), dec("861.42857142")));
        assert_eq!(moved(0.5, 50.0).notional, dec("500"), "less than that is what was wanted");
        assert_eq!(moved(-1.0, 0.0).notional, dec("1000"), "nearer to the stop it does not grow");
    }

    #[test]
    fn nothing_is_an_answer_within_its_bounds_and_less_than_nothing_is_none() {
        let settled = |answer| bounded(answer, 3, &conflicts());
        assert_eq!(settled(answer(ResolutionAction::Proceed, "0", None)).unwrap().action, ResolutionAction::Wait);
        assert!(settled(answer(ResolutionAction::Proceed, "-0.0001", None)).is_err());
        let cut = |pct| Some(Modifications { size_reduction_pct: Some(score(pct)), ..Modifications::default() });
        assert_eq!(settled(answer(ResolutionAction::Modify, "0.9", cut("0"))).unwrap().modifications, cut("0"));
        assert!(settled(answer(ResolutionAction::Modify, "0.9", cut("-0.0001"))).is_err());
    }

    #[test]
    fn a_short_is_modified_as_a_long_is_in_the_mirror() {
        let rules = symbols()[&sym("BTC/USDT")];
        let short = Levels { entry: dec("100"), stop: dec("103"), target: dec("94") };
        let moved = |percent: f64| {
            let shift = Some(Score::from_f64(percent));
            let changes = Modifications { entry_adjustment_pct: shift, ..Modifications::default() };
            modify(short, Side::Sell, 1, dec("1000"), &changes, &rules, dec("1.5"))
        };
        let up = moved(1.0).unwrap();
        assert_eq!((up.levels, up.notional), (Levels { entry: dec("101"), ..short }, dec("1000")));
        let down = moved(-0.5).unwrap();
        assert_eq!(
            (down.levels.entry, down.notional),
            (dec("99.5"), dec("852.85714285")),
            "3 % of 1000 at 3.5 of 99.5"
        );
        assert!(moved(-1.5).unwrap_err().starts_with("reward:risk 1 "), "4.5 for 4.5");
    }

    #[test]
    fn a_reward_of_exactly_the_least_is_enough() {
        let rules = symbols()[&sym("BTC/USDT")];
        let entry = |target| Levels { entry: dec("100"), stop: dec("96"), target: dec(target) };
        let with = |target| {
            let none = Modifications::default();
            modify(entry(target), Side::Buy, 1, dec("1000"), &none, &rules, dec("1.5"))
        };
        assert!(with("106").is_ok());
        assert!(with("105.99").is_err());
    }

    #[test]
    fn a064_low_confidence_waits_but_an_abort_stays() {
        for (action, confidence, expected) in [
            (ResolutionAction::Proceed, "0.29", ResolutionAction::Wait),
            (ResolutionAction::Proceed, "0.30", ResolutionAction::Proceed),
            (ResolutionAction::Abort, "0.10", ResolutionAction::Abort),
        ] {
            assert_eq!(bounded(answer(action, confidence, None), 1, &conflicts()).unwrap().action, expected);
        }
    }

    #[test]
    fn a061_d36_answers_against_the_schema_are_failures() {
        let none = Some(Modifications::default());
        let zero = Some(Modifications { leverage: Some(0), ..Modifications::default() });
        for bad in [
            answer(ResolutionAction::Proceed, "7", None),
            answer(ResolutionAction::Modify, "0.9", None),
            answer(ResolutionAction::Wait, "0.9", none),
            answer(ResolutionAction::Modify, "0.9", zero),
        ] {
            assert!(bounded(bad, 1, &conflicts()).is_err());
        }
    }

    proptest! {
        #[test]
        fn a_modification_only_ever_lowers_risk(
            asked in 1u32..9, original in 1u32..6, cap in 1u32..6, cut in 0i32..1_000_000, shift in -30_000i32..8_000,
            short: bool,
        ) {
            let changes = Modifications {
                leverage: Some(asked),
                size_reduction_pct: Some(Score(cut)),
                entry_adjustment_pct: Some(Score(shift)),
            };
            let cap = cap.min(original);
            let resolution = bounded(answer(ResolutionAction::Modify, "0.9", Some(changes)), cap, &conflicts()).unwrap();
            let changes = resolution.modifications.unwrap();
            prop_assert!(changes.entry_adjustment_pct.unwrap().0.abs() <= 20_000);
            let rules = symbols()[&sym("BTC/USDT")];
            let (side, planned) = match short {
                false => (Side::Buy, levels()),
                true => (Side::Sell, Levels { entry: dec("100"), stop: dec("103"), target: dec("94") }),
            };
            if let Ok(done) = modify(planned, side, original, dec("1000"), &changes, &rules, dec("1.5")) {
                prop_assert!(done.leverage <= cap && done.leverage >= 1);
                prop_assert!(done.notional <= dec("1000"));
                prop_assert!(done.levels.stop == planned.stop && done.levels.target == planned.target);
                prop_assert_eq!(done.levels.entry > done.levels.stop, !short);
                let loss = done.notional * (done.levels.entry - done.levels.stop).abs() / done.levels.entry;
                prop_assert!(loss <= dec("30"), "{loss} at the stop, 30 were planned");
            }
        }
    }
}
