//! The vote: ballots to one outcome (domain §6.2), and the coherence every BUY and SELL must have.
//!
//! Counts and classes are integers, confidences ten-thousandths, levels decimals; the order of ballots never matters.

use rust_decimal::Decimal;

use crate::{
    model::{Action, Ballot, Levels, NamedBallot, Price, Score, Vote, VoteClass},
    settings::BoostSettings,
};

/// Cause of a failed ballot: entry, stop and target are absent or do not fit together.
pub const INCOHERENT: &str = "incoherent";
/// Cause of a failed ballot: confidence or size lies outside its range.
pub const OUT_OF_RANGE: &str = "out_of_range";

/// Least reward:risk of a coherent vote and of the target a rules voter sets.
pub const MIN_REWARD_RISK: Decimal = Decimal::from_parts(15, 0, 0, false, 1);

/// What a vote came to.
#[derive(Clone, PartialEq, Debug)]
pub struct Outcome {
    /// The winner, or a forced HOLD.
    pub action: Action,
    /// Mean of the winners plus boost, at most 1.
    pub confidence: Score,
    /// How clear it was, or why HOLD was forced.
    pub class: VoteClass,
    /// Component-wise median of the winners; present for BUY and SELL.
    pub levels: Option<Levels>,
    /// Median size of the winners, percent; 0 for a forced HOLD.
    pub position_size_pct: Score,
    /// How many were asked.
    pub asked: u32,
    /// How many gave a valid vote.
    pub valid: u32,
}

/// Quorum for `asked` voters: the configured number, or ⌈2n/3⌉ when it is 0.
pub const fn quorum(configured: u32, asked: u32) -> u32 {
    if configured > 0 { configured } else { asked.saturating_mul(2).div_ceil(3) }
}

/// Whether the levels fit the action: stop on the losing side, target on the winning side, reward:risk ≥ 1.5.
/// Actions other than BUY and SELL need no levels.
pub fn is_coherent(action: Action, levels: Option<&Levels>) -> bool {
    let sign = match action {
        Action::Buy => Decimal::ONE,
        Action::Sell => Decimal::NEGATIVE_ONE,
        Action::Hold | Action::CloseLong | Action::CloseShort => return true,
    };
    let Some(Levels { entry, stop, target }) = levels else { return false };
    if [entry, stop, target].iter().any(|price| **price <= Price::ZERO) {
        return false;
    }
    // All are prices above zero, so differences stay in range; the product is checked.
    let (risk, reward) = ((entry - stop) * sign, (target - entry) * sign);
    risk > Decimal::ZERO && risk.checked_mul(MIN_REWARD_RISK).is_some_and(|least| reward >= least)
}

/// Turns a vote that cannot stand into a failure (A074); everything else passes unchanged.
pub fn checked(ballot: Ballot) -> Ballot {
    let Ballot::Vote(vote) = &ballot else { return ballot };
    let in_range =
        (0..=Score::ONE.0).contains(&vote.confidence.0) && (0..=100 * Score::ONE.0).contains(&vote.position_size_pct.0);
    if !in_range {
        Ballot::Failed(OUT_OF_RANGE.to_owned())
    } else if !is_coherent(vote.action, vote.levels.as_ref()) {
        Ballot::Failed(INCOHERENT.to_owned())
    } else {
        ballot
    }
}

/// Counts the ballots of everyone asked; `None` when there is no valid vote at all.
pub fn decide(ballots: &[NamedBallot], configured_quorum: u32, boost: &BoostSettings) -> Option<Outcome> {
    let votes: Vec<&Vote> = ballots.iter().filter_map(|named| valid(&named.ballot)).collect();
    let asked = count(ballots.len());
    let valid = count(votes.len());
    if votes.is_empty() {
        return None;
    }
    let forced = |class, confidence| Outcome {
        action: Action::Hold,
        confidence,
        class,
        levels: None,
        position_size_pct: Score::ZERO,
        asked,
        valid,
    };
    if valid < quorum(configured_quorum, asked) {
        return Some(forced(VoteClass::InsufficientQuorum, Score::ZERO));
    }
    let hold_mean = || mean(&of(&votes, Action::Hold));
    let Some(action) = winner(&votes) else {
        return Some(forced(VoteClass::NoMajority, hold_mean()));
    };
    let winners = of(&votes, action);
    let levels = median_levels(&winners);
    if !is_coherent(action, levels.as_ref()) {
        return Some(forced(VoteClass::Incoherent, hold_mean()));
    }
    let (class, extra) = classify(count(winners.len()), asked, boost);
    Some(Outcome {
        action,
        confidence: (mean(&winners) + extra).unit(),
        class,
        levels: levels.filter(|_| matches!(action, Action::Buy | Action::Sell)),
        position_size_pct: median_size(&winners),
        asked,
        valid,
    })
}

const fn valid(ballot: &Ballot) -> Option<&Vote> {
    match ballot {
        Ballot::Vote(vote) => Some(vote),
        Ballot::Abstain(_) | Ballot::Failed(_) => None,
    }
}

/// Voters are at most a few dozen; the settings bound them.
fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn of<'a>(votes: &[&'a Vote], action: Action) -> Vec<&'a Vote> {
    votes.iter().copied().filter(|vote| vote.action == action).collect()
}

/// The action more than half of the valid votes ask for; there is at most one.
fn winner(votes: &[&Vote]) -> Option<Action> {
    let actions = [Action::Buy, Action::Sell, Action::Hold, Action::CloseLong, Action::CloseShort];
    actions.into_iter().find(|action| 2 * votes.iter().filter(|vote| vote.action == *action).count() > votes.len())
}

/// By the share of those asked, in integers, so that no fraction decides.
const fn classify(top: u32, asked: u32, boost: &BoostSettings) -> (VoteClass, Score) {
    let (top, asked) = (top as u64, asked as u64);
    if top == asked {
        (VoteClass::Unanimous, boost.unanimous)
    } else if 6 * top >= 5 * asked {
        (VoteClass::StrongMajority, boost.strong_majority)
    } else if 3 * top >= 2 * asked {
        (VoteClass::Majority, boost.majority)
    } else {
        (VoteClass::Split, boost.split)
    }
}

/// Mean confidence, rounded half-even to four decimals; 0 of nobody.
fn mean(votes: &[&Vote]) -> Score {
    half_even(votes.iter().map(|vote| i64::from(vote.confidence.0)).sum(), votes.len())
}

/// `sum / count` of ten-thousandths, rounded half-even; 0 for a count of 0.
pub(crate) fn half_even(sum: i64, count: usize) -> Score {
    let Some(divisor) = i64::try_from(count).ok().filter(|count| *count > 0) else { return Score::ZERO };
    let (floor, rest) = (sum.div_euclid(divisor), sum.rem_euclid(divisor));
    let up = 2 * rest > divisor || (2 * rest == divisor && floor % 2 != 0);
    Score(i32::try_from(floor + i64::from(up)).unwrap_or(i32::MAX))
}

/// The middle one or two after sorting.
fn middle<T: Ord + Copy>(mut values: Vec<T>) -> Option<(T, T)> {
    values.sort_unstable();
    let low = values.get(values.len().checked_sub(1)? / 2)?;
    let high = values.get(values.len() / 2)?;
    Some((*low, *high))
}

fn median_levels(winners: &[&Vote]) -> Option<Levels> {
    let component = |pick: fn(&Levels) -> Price| {
        let (low, high) = middle(winners.iter().filter_map(|vote| vote.levels.as_ref().map(pick)).collect())?;
        low.checked_add(high).map(|sum| (sum / Decimal::TWO).normalize())
    };
    Some(Levels { entry: component(|l| l.entry)?, stop: component(|l| l.stop)?, target: component(|l| l.target)? })
}

fn median_size(winners: &[&Vote]) -> Score {
    middle(winners.iter().map(|vote| vote.position_size_pct).collect())
        .map_or(Score::ZERO, |(low, high)| half_even(i64::from(low.0) + i64::from(high.0), 2))
}

#[cfg(test)]
#[path = "vote_tests.rs"]
mod tests;
