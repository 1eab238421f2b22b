//! The voters' leaderboard (domain §6.3): which votes are due for a mark, the marks, and the board for reports.
//!
//! Never changes a tally: marks are events, the state folds them.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use super::vote::half_even;
use crate::{
    model::{
        Action, DecisionId, Money, Price, Score, Ts, VoteMark,
        state::{Leaderboard, ModelTally, PendingVotes, VoterTally},
        time,
    },
    settings::LeaderboardSettings,
};

/// A price this close to the mark time may be used, milliseconds, inclusive.
pub const MARK_WINDOW_MS: i64 = 60 * time::SECOND_MS;
/// Basis points of a whole.
const BASIS_POINTS: i64 = 10_000;

/// When the votes are marked.
pub const fn mark_at(pending: &PendingVotes, settings: &LeaderboardSettings) -> Ts {
    pending.at.plus_ms(settings.mark_after_hours as i64 * time::HOUR_MS)
}

/// The decisions whose mark time has come, in order of their ids.
pub fn due(board: &Leaderboard, now: Ts, settings: &LeaderboardSettings) -> Vec<DecisionId> {
    board.pending.iter().filter(|(_, pending)| now >= mark_at(pending, settings)).map(|(id, _)| *id).collect()
}

/// Marks one decision when its time has come: with the newest price (and the instant it was true) as soon as that lies
/// within ±60 s of the mark time, as unmarked once no such price can come any more; none while it is to wait.
pub fn mark_when_due(
    pending: &PendingVotes,
    newest: Option<(Price, Ts)>,
    now: Ts,
    settings: &LeaderboardSettings,
) -> Option<Vec<VoteMark>> {
    let late_ms = now.since_ms(mark_at(pending, settings));
    if late_ms < 0 {
        return None;
    }
    let near = |at: Ts| at.since_ms(mark_at(pending, settings)).abs() <= MARK_WINDOW_MS;
    match newest.filter(|(_, at)| near(*at)) {
        Some((price, _)) => Some(mark(pending, Some(price), settings)),
        None => (late_ms > MARK_WINDOW_MS).then(|| mark(pending, None, settings)),
    }
}

/// Marks every vote of one decision against `price`, the price at the mark time; without one the votes stay unmarked.
///
/// BUY is right when the price is higher, SELL when lower (equal is wrong for both), HOLD and the closes when it moved
/// by less than the band.
pub fn mark(pending: &PendingVotes, price: Option<Price>, settings: &LeaderboardSettings) -> Vec<VoteMark> {
    let change = price.filter(|_| pending.price > Price::ZERO).and_then(|price| relative_change(pending.price, price));
    let bp = |sign: Decimal| change.map(|change| (change * sign * Decimal::from(BASIS_POINTS)).round_dp(4));
    let mark_one = |(voter, action, confidence): &(String, Action, Score)| {
        let (correct, signed_return_bp) = match action {
            Action::Buy => (change.map(|change| change > Decimal::ZERO), bp(Decimal::ONE)),
            Action::Sell => (change.map(|change| change < Decimal::ZERO), bp(Decimal::NEGATIVE_ONE)),
            Action::Hold | Action::CloseLong | Action::CloseShort => {
                (change.map(|change| change.abs() * Decimal::ONE_HUNDRED < settings.hold_band_pct), None)
            }
        };
        VoteMark { voter: voter.clone(), action: *action, confidence: *confidence, signed_return_bp, correct }
    };
    pending.votes.iter().map(mark_one).collect()
}

/// price / before − 1; none when it leaves a range any market stays in.
fn relative_change(before: Price, price: Price) -> Option<Decimal> {
    let change = (price - before).checked_div(before)?;
    (change.abs() < Decimal::from(i64::from(u32::MAX))).then_some(change)
}

/// What asking the models of a voter took and cost.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct ModelCosts {
    /// Questions asked, the failed ones included.
    pub calls: u64,
    /// Questions of which no call was made: no budget, an open breaker, no rate, not recorded.
    #[serde(default)]
    pub unasked: u64,
    /// All of them, USD.
    pub cost_usd: Money,
    /// Of all of them, milliseconds of logical time.
    pub mean_latency_ms: i64,
    /// Of the newest [`crate::model::state::LATENCIES_KEPT`], milliseconds of logical time.
    pub p50_latency_ms: i64,
}

impl ModelCosts {
    /// Calls, mean and median latency in milliseconds and USD for a table; dashes for a voter that is no model.
    pub fn cells(costs: Option<&ModelCosts>) -> [String; 4] {
        let dash = || "-".to_owned();
        let Some(ModelCosts { calls, cost_usd, mean_latency_ms, p50_latency_ms, .. }) = costs else {
            return [dash(), dash(), dash(), dash()];
        };
        let usd = cost_usd.normalize().to_string();
        [calls.to_string(), mean_latency_ms.to_string(), p50_latency_ms.to_string(), usd]
    }

    /// From a voter's tally; none before the first question. Times are 0 while no call was made.
    pub fn of(tally: &ModelTally) -> Option<ModelCosts> {
        let mut newest = tally.latencies_ms.clone();
        newest.sort_unstable();
        let calls = i64::try_from(tally.calls).ok()?;
        (calls > 0 || tally.unasked > 0).then(|| ModelCosts {
            calls: tally.calls,
            unasked: tally.unasked,
            cost_usd: tally.cost_usd,
            mean_latency_ms: tally.latency_ms_sum.checked_div(calls).unwrap_or_default(),
            p50_latency_ms: newest.get(newest.len().saturating_sub(1) / 2).copied().unwrap_or_default(),
        })
    }
}

/// One line of the board.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct BoardRow {
    /// Whose.
    pub voter: String,
    /// Valid votes.
    pub votes: u64,
    /// Abstentions.
    pub abstentions: u64,
    /// Failures, late and incoherent answers included.
    pub failures: u64,
    /// Failures by kind.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures_by_kind: BTreeMap<String, u64>,
    /// Present for a voter that is a model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub models: Option<ModelCosts>,
    /// Marked votes.
    pub marked: u64,
    /// Marked and right.
    pub correct: u64,
    /// Votes without a price at the mark time.
    pub unmarked: u64,
    /// correct / marked, 0..1.
    pub share_correct: Option<Score>,
    /// Mean signed return of marked BUY and SELL votes, basis points.
    pub mean_signed_return_bp: Option<Decimal>,
    /// Of valid votes.
    pub mean_confidence: Option<Score>,
    /// Confidence deciles that have marks, ascending.
    pub calibration: Vec<CalibrationRow>,
}

/// How often votes of one confidence decile were right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CalibrationRow {
    /// Lower bound of the decile, 0.0..=0.9.
    pub from: Score,
    /// Marked votes in it.
    pub marked: u64,
    /// Of these right.
    pub correct: u64,
    /// correct / marked, 0..1.
    pub share_correct: Score,
}

/// All rows, best share of right votes first, then by more marks, then by name; voters without marks come last.
pub fn board(board: &Leaderboard) -> Vec<BoardRow> {
    let mut rows: Vec<BoardRow> = board.tallies.iter().map(|(voter, tally)| row(voter, tally)).collect();
    rows.sort_by(|a, b| {
        let key = |row: &BoardRow| (row.share_correct, row.marked);
        key(b).cmp(&key(a)).then_with(|| a.voter.cmp(&b.voter))
    });
    rows
}

fn row(voter: &str, tally: &VoterTally) -> BoardRow {
    let calibration = (0..).step_by(1_000).zip(&tally.calibration).filter_map(|(from, (marked, correct))| {
        let share_correct = share(*correct, *marked)?;
        Some(CalibrationRow { from: Score(from), marked: *marked, correct: *correct, share_correct })
    });
    BoardRow {
        voter: voter.to_owned(),
        votes: tally.votes,
        abstentions: tally.abstentions,
        failures: tally.failures,
        failures_by_kind: tally.failures_by_kind.clone(),
        models: tally.models.as_ref().and_then(ModelCosts::of),
        marked: tally.marked,
        correct: tally.correct,
        unmarked: tally.unmarked,
        share_correct: share(tally.correct, tally.marked),
        mean_signed_return_bp: (tally.return_count > 0)
            .then(|| (tally.return_bp_sum / Decimal::from(tally.return_count)).round_dp(4)),
        mean_confidence: mean(tally.confidence_sum, tally.votes),
        calibration: calibration.collect(),
    }
}

fn share(part: u64, whole: u64) -> Option<Score> {
    mean(i64::try_from(part).ok()?.checked_mul(i64::from(Score::ONE.0))?, whole)
}

fn mean(sum: i64, count: u64) -> Option<Score> {
    let count = usize::try_from(count).ok().filter(|count| *count > 0)?;
    Some(half_even(sum, count))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use rust_decimal_macros::dec;

    use super::*;
    use crate::{
        agents::fixtures::*,
        model::{Event, RunId, State},
    };

    fn pending(action: Action) -> PendingVotes {
        let votes = vec![("one".to_owned(), action, Score::from_f64(0.75))];
        PendingVotes { symbol: btc(), at: NOW, price: dec!(100), votes }
    }

    #[rstest]
    #[case::equal_is_wrong(Action::Buy, dec!(100.00), false, Some(dec!(0)))]
    #[case::higher_is_right(Action::Buy, dec!(100.01), true, Some(dec!(1)))]
    #[case::sell_equal_is_wrong(Action::Sell, dec!(100.00), false, Some(dec!(0)))]
    #[case::sell_lower_is_right(Action::Sell, dec!(99.99), true, Some(dec!(1)))]
    #[case::sell_higher_is_wrong(Action::Sell, dec!(101), false, Some(dec!(-100)))]
    #[case::hold_inside_the_band(Action::Hold, dec!(98.01), true, None)]
    #[case::hold_at_the_band(Action::Hold, dec!(98.00), false, None)]
    #[case::hold_above_the_band(Action::Hold, dec!(102.00), false, None)]
    #[case::close_like_hold(Action::CloseLong, dec!(101.99), true, None)]
    fn a078_votes_are_marked(
        #[case] action: Action,
        #[case] price: Price,
        #[case] correct: bool,
        #[case] bp: Option<Decimal>,
    ) {
        let marks = mark(&pending(action), Some(price), &leaderboard_settings());
        assert_eq!((marks[0].correct, marks[0].signed_return_bp), (Some(correct), bp));
    }

    #[test]
    fn a078_without_a_price_near_the_mark_time_votes_stay_unmarked() {
        let (pending, settings) = (pending(Action::Buy), leaderboard_settings());
        let at = mark_at(&pending, &settings);
        assert_eq!(at, NOW.plus_ms(4 * time::HOUR_MS));
        let correct = |price_off_ms, now_off_ms| {
            let newest = Some((dec!(101), at.plus_ms(price_off_ms)));
            let marks = mark_when_due(&pending, newest, at.plus_ms(now_off_ms), &settings);
            marks.map(|marks| marks[0].correct)
        };
        assert_eq!(correct(-1, -1), None, "not due yet");
        assert_eq!((correct(-60_000, 0), correct(60_000, 60_000)), (Some(Some(true)), Some(Some(true))));
        assert_eq!(correct(-60_001, 60_000), None, "a price may still come");
        assert_eq!(correct(-60_001, 60_001), Some(None));
        assert_eq!(correct(60_001, 60_001), Some(None));
        let marks = mark_when_due(&pending, None, at.plus_ms(60_001), &settings).expect("unmarked");
        assert_eq!((marks[0].correct, marks[0].signed_return_bp), (None, None));
    }

    #[test]
    fn votes_are_due_from_the_mark_time_on() {
        let id = DecisionId(RunId { epoch: 1, seq: 3 });
        let mut board = Leaderboard::default();
        board.pending.insert(id, pending(Action::Buy));
        let at = NOW.plus_ms(4 * time::HOUR_MS);
        assert!(due(&board, at.plus_ms(-1), &leaderboard_settings()).is_empty());
        assert_eq!(due(&board, at, &leaderboard_settings()), [id]);
    }

    #[test]
    fn the_board_shows_shares_means_and_calibration() {
        let tally = |correct, marked| VoterTally {
            votes: 4,
            abstentions: 2,
            failures: 1,
            marked,
            correct,
            unmarked: 1,
            return_bp_sum: dec!(30),
            return_count: 2,
            confidence_sum: 26_000,
            calibration: [(0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (1, 1), (0, 0), (2, 1), (0, 0), (0, 0)],
            ..VoterTally::default()
        };
        let tallies = [("a", tally(1, 3)), ("b", tally(2, 3)), ("c", VoterTally::default()), ("d", tally(2, 3))];
        let tallies = tallies.map(|(name, tally)| (name.to_owned(), tally)).into();
        let rows = board(&Leaderboard { tallies, ..Leaderboard::default() });
        let names: Vec<&str> = rows.iter().map(|row| row.voter.as_str()).collect();
        assert_eq!(names, ["b", "d", "a", "c"]);
        let best = &rows[0];
        assert_eq!(best.share_correct, Some(Score(6_667)));
        assert_eq!(best.mean_signed_return_bp, Some(dec!(15)));
        assert_eq!(best.mean_confidence, Some(Score::from_f64(0.65)));
        let deciles: Vec<(Score, Score)> = best.calibration.iter().map(|c| (c.from, c.share_correct)).collect();
        assert_eq!(deciles, [(Score(5_000), Score::ONE), (Score(7_000), Score(5_000))]);
        let empty = &rows[3];
        assert_eq!((empty.share_correct, empty.mean_signed_return_bp, empty.mean_confidence), (None, None, None));
        assert!(empty.calibration.is_empty());
    }

    #[test]
    fn the_board_shows_what_a_model_failed_at_took_and_cost() {
        let mut tally = VoterTally::default();
        let mut models = ModelTally::default();
        for latency in [40, 10, 30, 20] {
            models.calls += 1;
            models.latency_ms_sum += latency;
            models.latencies_ms.push(latency);
        }
        models.cost_usd = dec!(0.25);
        tally.failures_by_kind.insert("timeout".to_owned(), 2);
        tally.models = Some(models);
        let row = row("m", &tally);
        let costs = row.models.expect("it asked");
        assert_eq!((costs.calls, costs.mean_latency_ms, costs.p50_latency_ms), (4, 25, 20));
        assert_eq!((costs.cost_usd, row.failures_by_kind["timeout"]), (dec!(0.25), 2));
        assert_eq!(ModelCosts::of(&ModelTally::default()), None);
    }

    #[test]
    fn marks_fold_into_the_tallies_the_board_reads() {
        let id = DecisionId(RunId { epoch: 1, seq: 3 });
        let mut state = State::default();
        state.leaderboard.pending.insert(id, pending(Action::Buy));
        let marks = mark(&pending(Action::Buy), Some(dec!(101)), &leaderboard_settings());
        let record = crate::model::Record {
            v: 1,
            seq: 1,
            epoch: 1,
            ts: NOW,
            n: None,
            actor: "test".into(),
            corr: String::new(),
            cause: String::new(),
            event: Event::VotesMarked { decision: id, marks },
        };
        state.apply(&record).expect("a mark folds");
        let rows = board(&state.leaderboard);
        assert_eq!((rows[0].marked, rows[0].share_correct), (1, Some(Score::ONE)));
        assert_eq!(rows[0].mean_signed_return_bp, Some(dec!(100)));
    }
}
